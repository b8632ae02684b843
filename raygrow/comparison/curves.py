"""``curves.parquet``: one row a network that a trial had on its way, with what had been spent by then."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raygrow.comparison.plan import ComparisonPlan
from raygrow.data import METRICS

CURVES = pa.schema(
    [
        ("arm", pa.string()),
        ("data", pa.string()),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("round", pa.int64()),
        ("train_flops", pa.int64()),
        ("flops_per_example", pa.int64()),
        ("validation_loss", pa.float64()),
        ("validation_score", pa.float64()),
    ]
)


def summary_of(folder: Path) -> dict[str, Any] | None:
    """``summary.json`` of a trial's folder; None before there is one."""
    try:
        found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError:
        return None
    return found


def is_finished(summary: Mapping[str, Any] | None) -> bool:
    """Whether a trial has its result: it need not run again."""
    return summary is not None and not summary["interrupted"]


def best_by(history: Sequence[Mapping[str, Any]], train_flops: float) -> Mapping[str, Any] | None:
    """The entry with the lowest validation loss among those that were there by so many training FLOPs; None: none was."""
    there = [e for e in history if e["train_flops"] <= train_flops and e["validation_loss"] is not None]
    return min(there, key=lambda entry: float(entry["validation_loss"]), default=None)


def curves_table(plan: ComparisonPlan, trials: Path) -> pa.Table:
    """The history of every trial that has one, in the order of the trials.

    Args:
        trials: the folder that holds one folder a trial.
    """
    rows = []
    for trial in plan.trials:
        summary = summary_of(trials / trial.id)
        for step, entry in enumerate(summary["members"][0]["history"] if summary else ()):
            rows.append(
                {
                    "arm": trial.arm.name,
                    "data": trial.data,
                    "seed": trial.seed,
                    "step": step,
                    **{key: entry[key] for key in ("round", "train_flops", "flops_per_example", "validation_loss")},
                    "validation_score": entry[f"validation_{METRICS[summary['task']]}"] if summary else None,
                }
            )
    return pa.Table.from_pylist(rows, schema=CURVES)
