"""``trials.parquet``: one row a trial, and what arms come to on each data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raygrow.comparison.curves import best_by, is_finished, summary_of
from raygrow.comparison.plan import ComparisonPlan, Trial
from raygrow.data import METRICS
from raygrow.data.base import Task

TRIALS = pa.schema(
    [
        ("comparison", pa.string()),
        ("arm", pa.string()),
        ("baseline", pa.bool_()),
        ("strategy", pa.string()),
        ("initializer", pa.string()),
        ("settings", pa.string()),
        ("data", pa.string()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("task", pa.string()),
        ("validation_loss", pa.float64()),
        ("validation_score", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_score", pa.float64()),
        ("flops_per_example", pa.int64()),
        ("params", pa.int64()),
        ("train_flops", pa.int64()),
        ("lineage_train_flops", pa.int64()),
        ("wall_seconds", pa.float64()),
        ("rounds", pa.int64()),
        ("moves_accepted", pa.int64()),
        ("moves_probed", pa.int64()),
        ("stopped_because", pa.string()),
        ("equal_train_flops", pa.int64()),
        ("equal_validation_loss", pa.float64()),
        ("equal_validation_score", pa.float64()),
        ("folder", pa.string()),
    ]
)

DONE, STOPPED, OPEN = "done", "stopped", "open"
TROUBLE = ("failed", "refused", "missing", "unplaced")
"""What a trial may have come to instead of an end."""


@dataclass(frozen=True)
class Outcome:
    """What a trial came to, where its folder does not show it.

    Attributes:
        status: ``stopped`` early as hopeless, ``failed`` with an error, ``refused`` what it was given, ``missing`` its data,
            ``unplaced`` on a cluster too small for it.
        reason: in words.
    """

    status: str
    reason: str


def trials_table(plan: ComparisonPlan, trials: Path, outcomes: Mapping[str, Outcome]) -> pa.Table:
    """One row a trial, sorted by data set, seed and arm.

    Args:
        trials: the folder that holds one folder a trial.
        outcomes: by id of the trial. A trial with a result is ``done`` whatever it says here; one without a result or a
            word here is ``open``: it was not run to its end yet.
    """
    summaries = {trial.id: summary_of(trials / trial.id) for trial in plan.trials}
    equal = _equal_train_flops(plan, summaries)
    rows = [
        _row(plan, trial, summaries[trial.id], outcomes.get(trial.id), equal.get((trial.data, trial.seed)))
        for trial in plan.trials
    ]
    return pa.Table.from_pylist(rows, schema=TRIALS)


def _equal_train_flops(
    plan: ComparisonPlan, summaries: Mapping[str, Mapping[str, Any] | None]
) -> dict[tuple[str, int], int]:
    """Of each repetition: what the done arm spent that spent least."""
    found: dict[tuple[str, int], int] = {}
    for trial in plan.trials:
        summary = summaries[trial.id]
        if summary is not None and is_finished(summary):
            key = (trial.data, trial.seed)
            found[key] = min(summary["train_flops"], found.get(key, summary["train_flops"]))
    return found


def _row(
    plan: ComparisonPlan,
    trial: Trial,
    summary: Mapping[str, Any] | None,
    outcome: Outcome | None,
    equal: int | None,
) -> dict[str, Any]:
    arm = trial.arm
    if is_finished(summary):
        outcome = Outcome(DONE, "")
    elif outcome is None:
        outcome = Outcome(OPEN, "it has not run to its end yet")
    row = {
        "comparison": plan.comparison.name,
        "arm": arm.name,
        "baseline": arm.baseline is not None,
        "strategy": arm.strategy,
        "initializer": arm.initializer,
        "settings": json.dumps(dict(arm.settings), sort_keys=True),
        "data": trial.data,
        "seed": trial.seed,
        "status": outcome.status,
        "reason": outcome.reason or None,
        "folder": f"trials/{trial.id}",
    }
    if summary is None:
        return row
    member, metric = summary["members"][0], METRICS[summary["task"]]
    best = None if equal is None else best_by(member["history"], equal)
    return {
        **row,
        "task": summary["task"],
        "validation_loss": member["validation_loss"],
        "validation_score": member[f"validation_{metric}"],
        "test_loss": member["test_loss"],
        "test_score": member[f"test_{metric}"],
        "flops_per_example": member["flops_per_example"],
        "params": member["params"],
        "train_flops": summary["train_flops"],
        "lineage_train_flops": member["train_flops"],
        "wall_seconds": summary["wall_seconds"],
        "rounds": summary["rounds"],
        "moves_accepted": member["moves_accepted"],
        "moves_probed": member["moves_probed"],
        "stopped_because": member["stopped_because"],
        "equal_train_flops": equal,
        "equal_validation_loss": best["validation_loss"] if best else None,
        "equal_validation_score": best[f"validation_{metric}"] if best else None,
    }


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds; None where there are too few."""

    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Standing:
    """What an arm came to on a data set, over the seeds in which it is done.

    Attributes:
        task: of the data set; None where no trial of the arm has begun there.
        trials, done: how many.
        figures: by column of ``trials.parquet``.
        statuses: how many trials came to anything else than done.
    """

    data: str
    arm: str
    task: Task | None
    trials: int
    done: int
    figures: Mapping[str, Spread]
    statuses: Mapping[str, int]


FIGURES = ("test_score", "flops_per_example", "train_flops", "equal_validation_score")


def standings(table: pa.Table) -> list[Standing]:
    """One a data set and arm, in the order of the table."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        groups.setdefault((row["data"], row["arm"]), []).append(row)
    found = []
    for (data, arm), rows in groups.items():
        done = [row for row in rows if row["status"] == DONE]
        others = [row["status"] for row in rows if row["status"] != DONE]
        found.append(
            Standing(
                data,
                arm,
                next((row["task"] for row in rows if row["task"] is not None), None),
                len(rows),
                len(done),
                {name: _spread([row[name] for row in done if row[name] is not None]) for name in FIGURES},
                {status: others.count(status) for status in dict.fromkeys(others)},
            )
        )
    return found


def _spread(values: list[float]) -> Spread:
    return Spread(
        float(np.mean(values)) if values else None, float(np.std(values, ddof=1)) if len(values) > 1 else None
    )
