"""``summary.json``, and the same in words for standard output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raygrow.data import METRICS
from raygrow.population.coordinator import Coordinator, Head
from raygrow.population.ledger import Event, finite, write_atomically
from raygrow.population.plan import kind_of
from raygrow.report.columns import aligned
from raygrow.report.figures import count, decimal, duration, flops
from raygrow.report.record import Record, read

WORDS: Mapping[str, str] = {"accuracy": "accuracy", "r2": "R2"}
"""``METRICS`` in prose."""


def summary(coordinator: Coordinator, events: Iterable[Event]) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        coordinator: as replayed from ``events``.
        events: of the ledger, whole or cut anywhere. Until the start is written ``best`` is None, and so is every
            figure of a member.
    """
    record = read(events)
    members = [_member(coordinator, record, member.name) for member in coordinator.plan.members]
    best = best_member(coordinator)
    found = {
        "campaign": coordinator.plan.campaign.name,
        "seed": coordinator.plan.campaign.seed,
        "task": coordinator.facts.task,
        "rounds": record.rounds,
        "wall_seconds": round(record.wall_seconds, 3),
        "train_flops": record.train_flops,
        "interrupted": not record.ended,
        "stopped_because": coordinator.stopped_because,
        "best": next((dict(member) for member in members if member["member"] == best), None),
        "members": members,
    }
    plain: dict[str, Any] = finite(found)
    return plain


def write_summary(coordinator: Coordinator, events: Iterable[Event], path: Path) -> None:
    """Write ``summary.json`` whole or not at all."""
    text = json.dumps(summary(coordinator, events), indent=2, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def best_member(coordinator: Coordinator) -> str | None:
    """The chosen member, or so far the one with the lowest validation loss; None before any network is there."""
    if coordinator.best is not None or not coordinator.heads:
        return coordinator.best

    def key(name: str) -> tuple[float, str]:
        loss = coordinator.heads[name].network["validation_loss"]
        return (math.inf if loss is None else loss, name)

    return min(coordinator.heads, key=key)


def _member(coordinator: Coordinator, record: Record, name: str) -> dict[str, Any]:
    member = coordinator.plan.member(name)
    head: Head | None = coordinator.heads.get(name)
    network: Mapping[str, Any] = head.network if head else {}
    # A campaign that was cut off between its test read and its end has no test figures either: it is not over.
    test: Mapping[str, Any] = head.test if head and head.test and record.ended else {}
    metric = METRICS[coordinator.facts.task]
    return {
        "member": name,
        "strategy": kind_of(member.strategy),
        "initializer": kind_of(member.initializer),
        "arch_id": network.get("arch_id"),
        "validation_loss": network.get("validation_loss"),
        f"validation_{metric}": network.get("validation_metric"),
        "test_loss": test.get("test_loss"),
        f"test_{metric}": test.get("test_metric"),
        "checkpoint": network.get("checkpoint"),
        "params": network.get("params"),
        "flops_per_example": network.get("flops_per_example"),
        # With the tasks of an open phase, so that members add up to the population and to the rows of moves.parquet.
        "train_flops": record.costs.get(name, {}).get("total", 0),
        "moves_accepted": sum(probed.granted for probed in record.probed if probed.member == name),
        "moves_probed": sum(probed.member == name for probed in record.probed),
        "stopped_because": head.stopped_because if head else None,
        "history": [_named(entry, metric) for entry in head.history] if head else [],
    }


def _named(entry: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """An entry of the history, its metric under the name of the task's."""
    plain = {key: value for key, value in entry.items() if key != "validation_metric"}
    return {**plain, f"validation_{metric}": entry["validation_metric"]}


def summary_text(summary: Mapping[str, Any]) -> str:
    """A short table of the members, then the best and the whole cost."""
    metric = METRICS[summary["task"]]
    word = WORDS[metric]
    best: Mapping[str, Any] | None = summary["best"]
    header = ("", "member", "strategy", "moves", "FLOPs/example", "params", "validation loss", word, "test loss", word,
              "stopped because")  # fmt: skip
    rows: list[Sequence[str]] = [
        (
            "*" if best is not None and member["member"] == best["member"] else "",
            member["member"],
            member["strategy"],
            f"{member['moves_accepted']}/{member['moves_probed']}",
            count(member["flops_per_example"]),
            count(member["params"]),
            decimal(member["validation_loss"]),
            decimal(member[f"validation_{metric}"]),
            decimal(member["test_loss"]),
            decimal(member[f"test_{metric}"]),
            member["stopped_because"] or "",
        )
        for member in summary["members"]
    ]
    lines = [*aligned([header, *rows], left=(0, 1, 2, 10)), "", "moves: adopted/probed; * is the best on validation"]
    if best is not None:
        tested = f", test {word} {decimal(best[f'test_{metric}'])}" if best["test_loss"] is not None else ""
        lines.append(
            f"best: {best['member']}, {count(best['flops_per_example'])} FLOPs per example, validation {word} "
            f"{decimal(best[f'validation_{metric}'])}{tested}, checkpoint {best['checkpoint']}"
        )
    rounds = "1 round" if summary["rounds"] == 1 else f"{summary['rounds']} rounds"
    lines.append(f"cost: {flops(summary['train_flops'])} of training, {rounds}, {duration(summary['wall_seconds'])}")
    if summary["stopped_because"] is not None:
        lines.append(f"growth ended: {summary['stopped_because']}")
    if summary["interrupted"]:
        lines.append("interrupted: there are no test figures yet; `raygrow resume` goes on with it")
    return "\n".join(lines)
