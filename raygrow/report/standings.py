"""What a comparison came to, in words for standard output: a table, and a square where two axes span the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from raygrow.comparison.plan import ComparisonPlan
from raygrow.comparison.table import FIGURES, Spread, Standing, standings
from raygrow.data import METRICS
from raygrow.report.columns import aligned
from raygrow.report.figures import NOTHING, count, scaled
from raygrow.report.summary import WORDS

Form = Callable[[float | None], str]

HEADER = (
    "data",
    "arm",
    "trials",
    "test score",
    "FLOPs/example",
    "training FLOPs",
    "validation score at equal FLOPs",
    "",
)


def comparison_text(plan: ComparisonPlan, table: pa.Table) -> str:
    """Every arm on every data set, mean +- standard deviation over its done seeds.

    Args:
        table: ``trials.parquet``.
    """
    found = standings(table)
    seeds = "1 seed" if len(plan.comparison.seeds) == 1 else f"{len(plan.comparison.seeds)} seeds"
    tasks = {standing.data: standing.task for standing in found if standing.task is not None}
    scores = ", ".join(f"{data}: {WORDS[METRICS[task]]}" for data, task in tasks.items())
    lines = [
        *aligned([HEADER, *(_row(standing) for standing in found)], left=(0, 1, 7)),
        "",
        f"mean +- standard deviation over the done trials of {seeds}; score is {scores or NOTHING}",
        "at equal FLOPs: the network with the lowest validation loss by the training FLOPs of the cheapest done arm of its "
        "repetition",
    ]
    for data in dict.fromkeys(standing.data for standing in found) if len(plan.axes) == 2 else ():
        lines += ["", *_square(plan, [standing for standing in found if standing.data == data], data)]
    return "\n".join(lines)


def calibration_text(table: pa.Table) -> str:
    """How often arms accepted a move, after one look and after all, and the levels that hold.

    Args:
        table: ``calibration.parquet``.
    """
    rows = table.to_pylist()
    if not rows:
        return "no campaign on planted data came to its end yet"
    data, arms = (list(dict.fromkeys(row[key] for row in rows)) for key in ("data", "arm"))
    cells = {(row["arm"], row["data"], row["looks"]): f"{row['accepted']}/{row['campaigns']}" for row in rows}
    lines = []
    for looks in sorted({1, max(row["looks"] for row in rows)}):
        within = "in the first look" if looks == 1 else f"within {looks} looks"
        square = [(arm, *(cells.get((arm, name, looks), NOTHING) for name in data)) for arm in arms]
        lines += [f"campaigns that accepted a move {within}", *aligned([("", *data), *square], left=(0,)), ""]
    for arm in arms:
        judged = [row for row in rows if row["arm"] == arm and row["guarantee"] is not None]
        broken = [
            f"{row['data']} ({row['accepted']}/{row['campaigns']})" for row in judged if row["guarantee"] != "holds"
        ]
        if judged:
            found = f"broken on {', '.join(dict.fromkeys(broken))}" if broken else "holds wherever nothing is planted"
            lines.append(f"{arm}: level {judged[0]['level']:g} {found}")
    silent = [arm for arm in arms if all(row["level"] is None for row in rows if row["arm"] == arm)]
    return "\n".join([*lines, *([f"no guarantee: {', '.join(silent)}"] if silent else [])])


def _row(standing: Standing) -> Sequence[str]:
    forms: Sequence[Form] = (_score, count, scaled, _score)
    return (
        standing.data,
        standing.arm,
        f"{standing.done}/{standing.trials}",
        *(spread_text(standing.figures[name], form) for name, form in zip(FIGURES, forms, strict=True)),
        ", ".join(f"{number} {status}" for status, number in standing.statuses.items()),
    )


def _score(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def spread_text(spread: Spread, form: Form) -> str:
    """``0.9123 +- 0.0045``; without the latter where there is one value."""
    return form(spread.mean) if spread.sd is None else f"{form(spread.mean)} +- {form(spread.sd)}"


def _square(plan: ComparisonPlan, found: Sequence[Standing], data: str) -> list[str]:
    """The test score of one data set: choices on the first axis below one another, on the second beside."""
    down, across = plan.axes
    cells = {standing.arm: spread_text(standing.figures["test_score"], _score) for standing in found}
    by_levels = {(arm.levels[down], arm.levels[across]): cells[arm.name] for arm in plan.arms if arm.baseline is None}
    rows, columns = (list(dict.fromkeys(levels[i] for levels in by_levels)) for i in (0, 1))
    title = f"{data}, test score: {down} by {across}"
    table = [("", *columns), *((row, *(by_levels[row, column] for column in columns)) for row in rows)]
    return [title, *aligned(table, left=(0,))]
