"""Which architecture came from which, by which move, at what gain and price: read off the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raygrow.population.ledger import Event


@dataclass(frozen=True)
class LineageNode:
    """One architecture that was a member's head, from its adoption on.

    Attributes:
        key: unique in a campaign, ``member/round``; round 0 is the start.
        parent: key of the node it grew from, None at the start.
        depth: adopted moves since the start.
        move: kind, with ``site`` and ``units``; None at the start, as all figures of the move.
        gain, gain_stderr: measured when adopted, against the control.
        gain_per_flop: None for added FLOPs <= 0.
        newborn_gradient_ratio: root mean square of a new entry's gradient over that of an old one, in the probe; None where
            the move added none, and in ledgers that do not have it.
        validation_loss: when adopted.
        train_flops: of the member up to and with this round.
        arch: its JSON form.
    """

    key: str
    member: str
    strategy: str
    initializer: str
    round: int
    arch_id: str
    checkpoint: str
    parent: str | None
    parent_arch_id: str | None
    depth: int
    move: str | None
    site: str | None
    units: int | None
    gain: float | None
    gain_stderr: float | None
    added_flops: int | None
    gain_per_flop: float | None
    newborn_gradient_ratio: float | None
    validation_loss: float | None
    flops_per_example: int
    params: int
    train_flops: int
    arch: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def lineage(events: Iterable[Event]) -> list[LineageNode]:
    """Every adopted architecture of a campaign, in the order of members and rounds.

    Moves of a round that is not decided yet are not adopted.
    """
    kinds: dict[str, tuple[str, str]] = {}
    heads: dict[str, LineageNode] = {}
    nodes: list[LineageNode] = []
    spent: dict[str, int] = {}
    rounds: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["type"] == "started":
            for member in event["config"]["members"]:
                kinds[member["name"]] = (member["strategy"]["kind"], member["initializer"]["kind"])
        elif event["type"] == "reported":
            name, phase = event["task"]["member"], event["task"]["phase"]
            spent[name] = spent.get(name, 0) + event["report"]["train_flops"]["total"]
            if phase == "start":
                heads[name] = _start(name, kinds[name], event["report"]["head"], spent[name])
                nodes.append(heads[name])
            elif phase == "round":
                rounds[name] = event["report"]
        elif event["type"] == "decided":
            for name, report in rounds.items():
                for row in report["candidates"]:
                    if row["id"] in event["granted"]:
                        heads[name] = _grown(heads[name], row, event["round"], spent[name])
                        nodes.append(heads[name])
            rounds = {}
    order = {name: i for i, name in enumerate(kinds)}
    return sorted(nodes, key=lambda node: (order[node.member], node.round))


def _start(name: str, kinds: tuple[str, str], network: Mapping[str, Any], spent: int) -> LineageNode:
    return LineageNode(
        key=f"{name}/0",
        member=name,
        strategy=kinds[0],
        initializer=kinds[1],
        round=0,
        arch_id=network["arch_id"],
        checkpoint=network["checkpoint"],
        parent=None,
        parent_arch_id=None,
        depth=0,
        move=None,
        site=None,
        units=None,
        gain=None,
        gain_stderr=None,
        added_flops=None,
        gain_per_flop=None,
        newborn_gradient_ratio=None,
        validation_loss=network["validation_loss"],
        flops_per_example=network["flops_per_example"],
        params=network["params"],
        train_flops=spent,
        arch=network["arch"],
    )


def _grown(parent: LineageNode, row: Mapping[str, Any], round_: int, spent: int) -> LineageNode:
    return LineageNode(
        key=f"{parent.member}/{round_}",
        member=parent.member,
        strategy=parent.strategy,
        initializer=parent.initializer,
        round=round_,
        arch_id=row["arch_id"],
        checkpoint=row["checkpoint"],
        parent=parent.key,
        parent_arch_id=parent.arch_id,
        depth=parent.depth + 1,
        move=row["move"]["kind"],
        site=row["site"],
        units=row["units"],
        gain=row["gain"],
        gain_stderr=row["gain_stderr"],
        added_flops=row["added_flops"],
        gain_per_flop=row["gain"] / row["added_flops"] if row["added_flops"] > 0 else None,
        newborn_gradient_ratio=row.get("newborn_gradient_ratio"),
        validation_loss=row["candidate_loss"],
        flops_per_example=row["flops_per_example"],
        params=row["params"],
        train_flops=spent,
        arch=row["arch"],
    )
