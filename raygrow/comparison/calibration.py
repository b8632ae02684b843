"""Calibration of the addition strategies: how often they accept where nothing is to be gained, and where something is.

A decision is a member's round: it accepts when any of its candidates is accepted. A look is one such round; over L looks
a member errs once it has accepted in any of them, which is what the level of a strategy bounds. Data are ``planted``: their
effect is known, and 0 where any accepted move is a false one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrow.comparison.curves import is_finished, summary_of
from raygrow.comparison.plan import ComparisonPlan

PLANTED = "planted"
"""The kind of data whose effect is known."""
CONFIDENCE = 0.95
ERROR = 0.01
"""Chance that binomial error alone calls a level broken that is exactly kept."""

SCHEMA = pa.schema(
    [
        ("data", pa.string()),
        ("effect", pa.float64()),
        ("linear", pa.float64()),
        ("rows", pa.int64()),
        ("arm", pa.string()),
        ("level", pa.float64()),
        ("looks", pa.int32()),
        ("campaigns", pa.int32()),
        ("accepted", pa.int32()),
        ("rate", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("guarantee", pa.string()),
    ]
)


@dataclass(frozen=True)
class Watched:
    """One member of a campaign on planted data.

    Attributes:
        arm: that it stands for.
        level: that its strategy guarantees; None without one.
        data: name of the data set; ``effect``, ``linear``, ``rows`` are those of its source.
        rounds: that the campaign had room for.
        accepted: rounds in which a candidate was accepted, in any order.
    """

    arm: str
    level: float | None
    data: str
    effect: float
    linear: float
    rows: int
    rounds: int
    accepted: tuple[int, ...]


def watched(plan: ComparisonPlan, trials: Path, levels: Mapping[str, float | None]) -> Iterator[Watched]:
    """The members of all campaigns of a comparison on planted data that came to their end.

    Args:
        trials: the folder that holds one folder a trial.
        levels: that the strategies guarantee, by arm; arms that are not named are left out.
    """
    for trial in plan.trials:
        source, arm = plan.data[trial.data], trial.arm
        if arm.name not in levels or not is_finished(summary_of(trials / trial.id)):
            continue
        (member,) = arm.document["members"]
        moves = pq.read_table(trials / trial.id / "moves.parquet", columns=["member", "round", "verdict"])
        yield Watched(
            arm.name,
            levels[arm.name],
            trial.data,
            source["effect"],
            source["linear"],
            source["rows"],
            arm.document["campaign"]["rounds"],
            accepted_rounds(moves, member["name"]),
        )


def accepted_rounds(moves: pa.Table, member: str) -> tuple[int, ...]:
    """Rounds of ``moves.parquet`` in which a member accepted a candidate, granted or not."""
    rows = zip(*(moves.column(name).to_pylist() for name in ("member", "round", "verdict")), strict=True)
    return tuple(sorted({round_ for name, round_, verdict in rows if name == member and verdict == "accept"}))


def calibration(watched: Iterable[Watched]) -> pa.Table:
    """Accepted decisions by data set, arm and number of looks, with exact binomial intervals (Clopper-Pearson, 95 %).

    ``guarantee`` speaks of data sets without an effect and of strategies with a level: ``holds`` unless so many false accepts
    have a chance below 1 % at that level; null elsewhere. A member that stopped early looked no more, and counts as not having
    accepted in the looks it left out.
    """
    cells: dict[tuple[Any, ...], list[Watched]] = {}
    for one in watched:
        cells.setdefault((one.data, one.effect, one.linear, one.rows, one.arm, one.level), []).append(one)
    return pa.Table.from_pylist([row for cell, members in cells.items() for row in _rows(cell, members)], schema=SCHEMA)


def _rows(cell: tuple[Any, ...], members: Sequence[Watched]) -> list[dict[str, Any]]:
    names = ("data", "effect", "linear", "rows", "arm", "level")
    found = []
    for looks in range(1, max(one.rounds for one in members) + 1):
        count = sum(any(round_ <= looks for round_ in one.accepted) for one in members)
        low, high = exact_interval(count, len(members))
        row = dict(zip(names, cell, strict=True))
        found.append(
            {
                **row,
                "looks": looks,
                "campaigns": len(members),
                "accepted": count,
                "rate": count / len(members),
                "low": low,
                "high": high,
                "guarantee": _guarantee(row, count, len(members)),
            }
        )
    return found


def exact_interval(count: int, trials: int) -> tuple[float, float]:
    """Of a probability, at ``CONFIDENCE`` (Clopper and Pearson 1934)."""
    # Where it is needed: its import takes a second, and reports of campaigns need none of it.
    from scipy.stats import binomtest

    found = binomtest(count, trials).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def _guarantee(row: Mapping[str, Any], accepted: int, campaigns: int) -> str | None:
    if row["effect"] > 0 or row["level"] is None:
        return None
    from scipy.stats import binomtest

    chance = binomtest(accepted, campaigns, row["level"], alternative="greater").pvalue
    return "holds" if chance >= ERROR else "broken"
