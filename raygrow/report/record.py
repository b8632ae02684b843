"""The ledger read once, as the tables and the page need it: candidates, heads, costs, sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raygrow.population.ledger import Event

COSTS = ("training", "statistics", "solves", "probes", "evaluation")
"""Purposes of training FLOPs, as reports name them."""


@dataclass(frozen=True)
class Probed:
    """One probed candidate.

    Attributes:
        row: as reported.
        control: checkpoint of the control it was measured against.
        seconds: of its member's round.
        granted: False also while the round is not decided.
        refused: why the selection rule passed over an accepted candidate; None where it did not.
    """

    round: int
    member: str
    row: Mapping[str, Any]
    control: str | None
    seconds: float | None
    granted: bool = False
    refused: str | None = None

    @property
    def gain_per_flop(self) -> float | None:
        """Undefined for added FLOPs <= 0, and for a fork that diverged."""
        gain, added = self.row["gain"], self.row["added_flops"]
        return None if gain is None or added <= 0 else float(gain / added)


@dataclass(frozen=True)
class HeadPoint:
    """A network that was a member's head. ``train_flops``: of the member by then, all its probes."""

    member: str
    round: int
    flops_per_example: int
    train_flops: int
    validation_loss: float | None
    validation_metric: float | None
    adopted: bool = False
    final: bool = False


@dataclass
class Record:
    """What a ledger, whole or cut anywhere, says of its campaign.

    Attributes:
        started: the first event; empty for an empty ledger.
        probed: sorted by round, member and candidate.
        heads: in the order in which they became heads.
        costs: training FLOPs by member and purpose, with their ``total``.
        kept: digests of checkpoints that the sweep after the last event leaves.
        rounds: how many were decided.
        wall_seconds: of all sessions; the time between an interruption and its resumption does not count.
        counts: events by type.
    """

    started: Mapping[str, Any] = field(default_factory=dict)
    probed: list[Probed] = field(default_factory=list)
    heads: list[HeadPoint] = field(default_factory=list)
    costs: dict[str, dict[str, int]] = field(default_factory=dict)
    decided: list[Event] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    wall_seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """As resolved when the campaign began."""
        found: Mapping[str, Any] = self.started.get("config", {"campaign": {}, "members": []})
        return found

    @property
    def members(self) -> dict[str, Mapping[str, Any]]:
        """The configuration of each member by name, in its order."""
        return {member["name"]: member for member in self.config["members"]}

    @property
    def rounds(self) -> int:
        return len(self.decided)

    @property
    def ended(self) -> bool:
        return self.counts.get("ended", 0) > 0

    @property
    def train_flops(self) -> int:
        """Of the whole population, everything."""
        return sum(costs["total"] for costs in self.costs.values())


def read(events: Iterable[Event]) -> Record:
    """Fold the events of a campaign."""
    record = Record()
    open_phase: dict[str, Event] = {}
    keep_all = False
    begun: float | None = None
    last = 0.0
    for event in events:
        kind = event["type"]
        record.counts[kind] = record.counts.get(kind, 0) + 1
        time = event.get("time", last)
        if kind in ("started", "resumed"):
            record.wall_seconds += last - begun if begun is not None else 0.0
            begun = time
        last = time
        if kind == "started":
            record.started = event
            keep_all = event["config"]["checkpoints"]["keep"] == "all"
            record.costs = {name: dict.fromkeys((*COSTS, "total"), 0) for name in record.members}
        elif kind == "reported":
            open_phase[event["task"]["member"]] = event
            spent = record.costs[event["task"]["member"]]
            for purpose, flops in event["report"]["train_flops"].items():
                spent[purpose] = spent.get(purpose, 0) + flops
        elif kind == "decided":
            record.decided.append(event)
            for member, reported in open_phase.items():
                _close_round(record, member, reported, event, keep_all)
            open_phase = {}
        elif kind == "chosen" or (kind == "closed" and event["phase"] == "start"):
            for member, reported in open_phase.items():
                _add_head(record, member, reported, reported["report"]["head"], final=kind == "chosen")
            open_phase = {}
        elif kind == "closed":
            open_phase = {}
    record.wall_seconds += last - begun if begun is not None else 0.0
    for member, reported in open_phase.items():
        if reported["task"]["phase"] == "round":
            record.probed += _candidates(member, reported, {})
        record.kept |= _checkpoints(reported["report"])
    record.kept.discard("")
    record.probed.sort(key=lambda probed: (probed.round, probed.member, probed.row["id"]))
    return record


def _candidates(member: str, reported: Event, decision: Mapping[str, Any]) -> list[Probed]:
    report = reported["report"]
    return [
        Probed(
            reported["task"]["round"],
            member,
            row,
            report["control"]["checkpoint"],
            report.get("seconds"),
            row["id"] in decision.get("granted", ()),
            decision.get("refused", {}).get(row["id"]),
        )
        for row in report["candidates"]
    ]


def _close_round(record: Record, member: str, reported: Event, decision: Event, keep_all: bool) -> None:
    report = reported["report"]
    probed = _candidates(member, reported, decision)
    record.probed += probed
    won = next((candidate.row for candidate in probed if candidate.granted), None)
    if won is None:
        _add_head(record, member, reported, report["control"])
    else:
        network = {
            **won,
            "validation_loss": won["candidate_loss"],
            "validation_metric": won["candidate_metric"],
        }
        _add_head(record, member, reported, network, adopted=True)
    if keep_all:
        record.kept |= _checkpoints(report)


def _add_head(
    record: Record,
    member: str,
    reported: Event,
    network: Mapping[str, Any],
    adopted: bool = False,
    final: bool = False,
) -> None:
    point = HeadPoint(
        member,
        reported["task"]["round"],
        network["flops_per_example"],
        record.costs[member]["total"],
        network["validation_loss"],
        network["validation_metric"],
        adopted,
        final,
    )
    record.heads.append(point)
    if network["checkpoint"] is not None:
        record.kept.add(network["checkpoint"])


def _checkpoints(report: Mapping[str, Any]) -> set[str]:
    """Digests of every network that a report describes."""
    described = [*(report[key] for key in ("head", "control") if key in report), *report.get("candidates", [])]
    return {network["checkpoint"] for network in described if network["checkpoint"] is not None}
