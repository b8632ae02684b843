"""The statistics of a comparison: what ``comparison.json`` holds, with the tests named and their limits said.

Everything is paired by repetition (data set, seed): all arms of one see the same splits, batches and seeds. Ranks, areas and
volumes are over repetitions in which every arm is done.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raygrow.comparison.area import Step, area, common_bounds
from raygrow.comparison.front import common_box, hypervolume
from raygrow.comparison.paired import CONFIDENCE, RESAMPLES, holm, interval, least_p, signed_rank
from raygrow.comparison.ranks import critical_difference, friedman, groups, ranks
from raygrow.errors import Refused

ALPHA = 0.05
"""Level of every test, after Holm's correction."""
MEASURES: Mapping[str, str] = {
    "equal_validation_score": "validation score (accuracy or R2) of the best network at equal training FLOPs",
    "test_score": "test score of the network chosen on validation, whatever it cost",
    "area": "mean best score so far over the logarithm of training FLOPs",
    "hypervolume": "share of the box of score, log inference FLOPs and log training FLOPs that the arm's networks dominate",
}
"""What arms are compared by; higher is better in each. The first is what the comparison is about."""
FIGURES = ("train_flops", "flops_per_example", "params", "wall_seconds", "moves_accepted", "moves_probed")
"""Of a trial, beside the measures; their medians over seeds are given."""
NEAR = 1.1
"""Times the least training FLOPs of a repetition that count as equal to them."""
FEW = 6
"""Fewer pairs cannot reach p = 0.05 by the signed-rank test, nor give a bootstrap interval its level."""

Repetition = tuple[str, int]
Values = dict[str, dict[Repetition, float]]
"""By arm and repetition."""


@dataclass(frozen=True)
class _Trials:
    """The table read once.

    Attributes:
        rows: by arm and repetition.
        arms: in the order of the table, the reference first.
        data: names of the data sets.
    """

    rows: Mapping[tuple[str, Repetition], Mapping[str, Any]]
    arms: tuple[str, ...]
    data: tuple[str, ...]

    @property
    def reference(self) -> str:
        return self.arms[0]

    @property
    def repetitions(self) -> list[Repetition]:
        return sorted({repetition for _, repetition in self.rows})

    def done(self, arm: str, repetition: Repetition) -> bool:
        return self.rows.get((arm, repetition), {}).get("status") == "done"


def statistics(trials_table: pa.Table, curves_table: pa.Table, reference: str | None) -> dict[str, Any]:
    """Compare every arm with one of them, and all with one another. The same tables give the same figures.

    Args:
        trials_table: as ``trials.parquet``: a row a trial.
        curves_table: as ``curves.parquet``: a row a network that a trial had on its way.
        reference: the arm that the others are compared with; None: the first of the table that is no baseline.

    Returns:
        Plain JSON. ``methods`` says which test stands behind which figure and why, ``notes`` what the figures cannot bear.

    Raises:
        Refused: the table is empty, or has no such arm.
    """
    trials = _read(trials_table, reference)
    curves = _curves(curves_table)
    values = {name: _of_trials(trials, name) for name in ("equal_validation_score", "test_score")}
    values["area"], values["hypervolume"] = _of_curves(trials, curves)
    return {
        "reference": trials.reference,
        "arms": list(trials.arms),
        "data": list(trials.data),
        "alpha": ALPHA,
        "confidence": CONFIDENCE,
        "measures": dict(MEASURES),
        "trials": dict(sorted(Counter(row["status"] for row in trials.rows.values()).items())),
        "not_done": [
            {key: row[key] for key in ("arm", "data", "seed", "status", "reason")}
            for row in trials.rows.values()
            if row["status"] != "done"
        ],
        "by_data": [row for data in trials.data for row in _by_data(trials, values, data)],
        "comparisons": [row for name in MEASURES for row in _comparisons(trials, name, values[name])],
        "ranks": {name: _ranks(trials, values[name]) for name in MEASURES},
        "methods": _methods(trials),
        "notes": list(_notes(trials)),
    }


def _read(table: pa.Table, reference: str | None) -> _Trials:
    rows = table.to_pylist()
    if not rows:
        raise Refused("the comparison has no trials: its grid must hold at least one arm and one data set")
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    first = reference or next((row["arm"] for row in rows if not row["baseline"]), arms[0])
    if first not in arms:
        close = difflib.get_close_matches(first, arms, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise Refused(f"`comparison.reference`: no arm {first!r}{hint}; arms: {', '.join(arms)}")
    return _Trials(
        {(row["arm"], (row["data"], row["seed"])): row for row in rows},
        (first, *(arm for arm in arms if arm != first)),
        tuple(dict.fromkeys(row["data"] for row in rows)),
    )


def _curves(table: pa.Table) -> dict[tuple[str, Repetition], list[Step]]:
    found: dict[tuple[str, Repetition], list[Step]] = {}
    for row in table.to_pylist():
        step = Step(row["train_flops"], row["flops_per_example"], row["validation_loss"], row["validation_score"])
        found.setdefault((row["arm"], (row["data"], row["seed"])), []).append(step)
    return found


def _of_trials(trials: _Trials, column: str) -> Values:
    """A column of the done trials, where it is a number."""
    return {
        arm: {
            repetition: float(value)
            for repetition in trials.repetitions
            if trials.done(arm, repetition) and _known(value := trials.rows[arm, repetition][column])
        }
        for arm in trials.arms
    }


def _of_curves(trials: _Trials, curves: Mapping[tuple[str, Repetition], Sequence[Step]]) -> tuple[Values, Values]:
    """Areas and volumes, in repetitions where every arm is done: all of one are measured between the same bounds."""
    areas: Values = {arm: {} for arm in trials.arms}
    volumes: Values = {arm: {} for arm in trials.arms}
    for repetition in trials.repetitions:
        if not all(trials.done(arm, repetition) for arm in trials.arms):
            continue
        own = {arm: curves.get((arm, repetition), []) for arm in trials.arms}
        bounds, box = common_bounds(list(own.values())), common_box(list(own.values()))
        for arm, curve in own.items():
            if bounds is not None:
                areas[arm][repetition] = area(curve, *bounds)
            if box is not None:
                volumes[arm][repetition] = hypervolume(curve, box)
    return areas, volumes


def _by_data(trials: _Trials, values: Mapping[str, Values], data: str) -> Iterator[dict[str, Any]]:
    """A row an arm of one data set: what the table of the report shows."""
    for arm in trials.arms:
        rows = [row for (name, (of, _)), row in trials.rows.items() if name == arm and of == data]
        done = [row for row in rows if row["status"] == "done"]
        found: dict[str, Any] = {
            "data": data,
            "arm": arm,
            "baseline": any(row["baseline"] for row in rows),
            "trials": len(rows),
            "done": len(done),
        }
        for name in MEASURES:
            found[name] = _spread([value for (of, _), value in values[name][arm].items() if of == data])
        found["equal_train_flops"] = _median([row["equal_train_flops"] for row in done])
        yield {**found, **{key: _median([row[key] for row in done]) for key in FIGURES}}


def _comparisons(trials: _Trials, measure: str, values: Values) -> list[dict[str, Any]]:
    """Every other arm less the reference: over all repetitions with the test, then by data set without."""
    found: list[dict[str, Any]] = []
    for arm in trials.arms[1:]:
        base = values[trials.reference]
        paired = {key: value - base[key] for key, value in values[arm].items() if key in base}
        for data in (None, *(trials.data if len(trials.data) > 1 else ())):
            differences = [value for (of, _), value in sorted(paired.items()) if data in (None, of)]
            better = sum(value > 1e-12 for value in differences)
            worse = sum(value < -1e-12 for value in differences)
            row = {
                "measure": measure,
                "arm": arm,
                "data": data,
                **_spread(differences),
                "better": better,
                "worse": worse,
                "equal": len(differences) - better - worse,
            }
            found.append({**row, "p": signed_rank(differences) if data is None else None, "p_holm": None})
    tested = [row for row in found if row["p"] is not None]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = adjusted
    for row in found:
        row["verdict"] = _verdict(row, len(tested))
    return found


def _verdict(row: Mapping[str, Any], arms: int) -> str | None:
    """In words, of all repetitions; None for one data set, where nothing is tested."""
    if row["data"] is not None:
        return None
    if row["p_holm"] is None:
        return "no pair: nothing can be said"
    if row["p_holm"] <= ALPHA:
        return "better" if row["mean"] > 0 else "worse"
    least = least_p(row["n"]) * arms
    if least > ALPHA:
        return f"too few pairs for a claim: {row['n']} of one sign, with Holm over {arms}, give p = {min(least, 1):.2g}"
    return "no difference shown"


def _ranks(trials: _Trials, values: Values) -> dict[str, Any]:
    """Average ranks with Friedman's test and the critical difference."""
    whole = [key for key in trials.repetitions if all(key in values[arm] for arm in trials.arms)]
    found: dict[str, Any] = {"repetitions": len(whole), "average": None, "friedman": None, "critical_difference": None,
                             "groups": []}  # fmt: skip
    if not whole or len(trials.arms) < 2:
        return {**found, "words": "no repetition in which every arm has this figure: no ranks"}
    scores = np.array([[values[arm][key] for arm in trials.arms] for key in whole])
    average = dict(zip(trials.arms, ranks(scores).mean(axis=0).tolist(), strict=True))
    difference = critical_difference(len(trials.arms), len(whole), ALPHA)
    tested = friedman(scores)
    if tested is None:
        words = "two arms, or one repetition: the signed-rank test stands in for Friedman's"
    elif tested[1] > ALPHA:
        words = "Friedman's test shows no difference among the arms: the critical difference separates nothing"
    else:
        words = "the arms differ; two whose average ranks lie further apart than the critical difference differ from each other"
    return {
        **found,
        "average": average,
        "friedman": tested and {"chi_squared": tested[0], "p": tested[1]},
        "critical_difference": difference,
        "groups": groups(average, difference),
        "words": words,
    }


def _methods(trials: _Trials) -> dict[str, str]:
    compared = len(trials.arms) - 1
    return {
        "pairs": f"Each arm less {trials.reference!r}, repetition by repetition (data set, seed): both saw the same splits, "
        "batches and seeds, so what is common to them cancels. A pair needs both trials done.",
        "interval": f"{CONFIDENCE:.0%} bootstrap interval of the mean (bias-corrected and accelerated, {RESAMPLES:,} resamples "
        "of the pairs), as nothing is known of their distribution; none where there are fewer than three values, or all equal.",
        "test": "Wilcoxon's signed-rank test, two-sided (zeros as Pratt has them): paired, free of the scale and outliers "
        "of any one data set, and exact at these numbers of pairs (50 without ties, 13 with; then a normal approximation).",
        "holm": f"p values of a measure are adjusted for {compared} compared arms by Holm's method, which holds whatever "
        "their dependence; the measures are not adjusted for one another: the first is the one asked for, the others describe.",
        "ranks": "Ranks within each repetition (1 is best, ties share), their average, Friedman's test whether arms differ "
        "at all, and Nemenyi's critical difference for all pairs (Demsar 2006). Data sets need no common scale.",
        "equal_validation_score": "Scores are taken at equal training FLOPs: those of the done arm of the repetition that "
        "spent least. The best network is the one with the lowest validation loss by then.",
        "area": "Between the first training FLOPs at which every arm with a curve has a network and the last of the arm that "
        "spent least; 0 before an arm's first network.",
        "hypervolume": "Exact (moocore). The box reaches from score 0 to 1 and from the least FLOPs of any network of the "
        "repetition to twice the most, by their logarithm.",
    }


def _notes(trials: _Trials) -> Iterator[str]:
    """What a reader must know before believing a figure."""
    done = {key for key in trials.repetitions if all(trials.done(arm, key) for arm in trials.arms)}
    pairs, compared = len(done), len(trials.arms) - 1
    if compared and pairs and least_p(pairs) * compared > ALPHA:
        need = next(n for n in range(1, 99) if least_p(n) * compared <= ALPHA)
        yield (
            f"{pairs} whole repetitions are too few for a claim: with {compared} compared arms the signed-rank test needs at "
            f"least {need}, all of one sign."
        )
    if 0 < pairs < FEW or any(sum(key[0] == data for key in done) < FEW for data in trials.data):
        yield (
            f"Bootstrap intervals of fewer than {FEW} values are shorter than their level says: read those of single data sets "
            "as a description."
        )
    if len(trials.data) > 1:
        yield (
            "Seeds of one data set are no new data sets: the tests speak of these data sets, not of others. Differences are "
            "pooled as they are, so the data set with the larger scale weighs more in their mean; in ranks it does not."
        )
    if len({row["task"] for row in trials.rows.values() if row["task"]}) > 1:
        yield "Accuracies and R2 are pooled: both end at 1, but a hundredth is not worth the same in them."
    counts = Counter(arm for (arm, _), row in trials.rows.items() if row["status"] == "stopped")
    if counts:
        names = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        yield f"Trials stopped early as hopeless are left out, which flatters their arms: {names}."
    early = Counter(arm for (arm, key), row in trials.rows.items() if trials.done(arm, key) and row["equal_train_flops"]
                    and row["train_flops"] > NEAR * row["equal_train_flops"])  # fmt: skip
    if early:
        names = ", ".join(f"{arm} {count}" for arm, count in early.items())
        yield (
            "At equal training FLOPs the trial that spent least is seen after its final anneal, one that spent more before "
            f"its own, which speaks against those that spend more ({names} trials): read the test score, "
            "where all are annealed, beside it, or give all the same budget with `comparison.train_flops`."
        )
    late = Counter(arm for (arm, key), row in trials.rows.items() if trials.done(arm, key) and row["equal_train_flops"]
                   and row["equal_validation_score"] is None)  # fmt: skip
    if late:
        names = ", ".join(f"{arm} {count}" for arm, count in late.items())
        yield f"Trials that had no network yet at equal training FLOPs have no pair there: {names}."
    missing = Counter(arm for (arm, _), row in trials.rows.items() if row["status"] not in ("done", "stopped"))
    if missing:
        names = ", ".join(f"{arm} {count}" for arm, count in missing.items())
        yield f"Trials that did not finish are left out, and their repetitions of the ranks: {names}."


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Number, mean, standard deviation and interval."""
    found = interval(values) if values else None
    return {
        "n": len(values),
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "low": found and found[0],
        "high": found and found[1],
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return float(np.median(known)) if known else None


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)
