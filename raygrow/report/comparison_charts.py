"""The figures of a comparison: differences to the reference, ranks, quality against either cost, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raygrow.comparison.area import Step, best_so_far
from raygrow.comparison.front import pareto_front
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.figures import count, decimal, flops, signed
from raygrow.report.markup import Markup, el
from raygrow.report.plot import LETTER, WIDTH, across, chart, front_line, nothing, upward
from raygrow.report.scales import LOG, fits_log, scale_over

Row = Mapping[str, Any]
ROW, HEAD = 24.0, 34.0
GRID = 160
"""Budgets at which the mean of an arm's curves is taken."""


def difference_chart(rows: Sequence[Row], reference: str, colours: Colours) -> Drawing:
    """Mean differences to the reference with their intervals, over all repetitions and by data set.

    Args:
        rows: of one measure, as ``comparison.json`` has them.
    """
    title = f"Differences to {reference} at equal training FLOPs"
    shown = [row for row in rows if row["mean"] is not None]
    if not shown:
        return nothing("differences", title, "No repetition has a pair of done trials.")
    left = 24 + LETTER * min(max(len(_row_name(row)) for row in shown), 34)
    values = [0.0, *(row[key] for row in shown for key in ("mean", "low", "high") if row[key] is not None)]
    x = scale_over(values, left, WIDTH - 16)
    height = HEAD + ROW * len(shown) + 8
    drawn = []
    for tick in x.ticks():
        drawn.append(el("line", x1=x(tick), x2=x(tick), y1=HEAD, y2=height, class_="grid"))
        drawn.append(el("text", f"{tick:+.4g}", x=x(tick), y=20.0, text_anchor="middle"))
    drawn.append(el("line", x1=x(0.0), x2=x(0.0), y1=HEAD, y2=height, class_="zero"))
    for i, row in enumerate(shown):
        y, class_ = HEAD + ROW * (i + 0.5), colours.of(row["arm"])
        whole = row["data"] is None
        words = _row_name(row)
        drawn.append(el("text", words if len(words) <= 34 else f"{words[:33]}…", x=left - 10, y=y + 4, text_anchor="end",
                        class_="name" if whole else None))  # fmt: skip
        if row["low"] is not None:
            drawn.append(el("line", x1=x(row["low"]), x2=x(row["high"]), y1=y, y2=y, class_=f"trail {class_}"))
        label = f"{words}: {signed(row['mean'])} [{signed(row['low'])}, {signed(row['high'])}], {row['n']} pairs"
        kind = "head" if whole else "unchanged"
        drawn.append(el("circle", el("title", label), cx=x(row["mean"]), cy=y, r=6.0 if whole else 4.0,
                        class_=f"{kind} {class_}"))  # fmt: skip
    caption = (
        f"Each arm less {reference}, repetition by repetition; to the right is better. Filled: over all data sets; hollow: one "
        "data set. Lines are bootstrap intervals; without one there were fewer than three pairs, or all were equal."
    )
    return Drawing("differences", title, Markup("".join(drawn)), WIDTH, height + 8, caption)


def rank_chart(ranks: Row, colours: Colours) -> Drawing:
    """Critical-difference diagram: average ranks on a line, bars over arms that are not told apart."""
    title = "Average ranks and critical difference"
    average: Mapping[str, float] | None = ranks["average"]
    if average is None:
        return nothing("ranks", title, str(ranks["words"]))
    order = sorted(average, key=lambda arm: (average[arm], arm))
    left, right, top = 190.0, WIDTH - 190.0, 56.0
    x = scale_over([1.0, float(len(order))], left, right)
    drawn: list[Markup] = [el("line", x1=x(1.0), x2=x(float(len(order))), y1=top, y2=top, class_="zero")]
    for place in range(1, len(order) + 1):
        drawn.append(el("line", x1=x(float(place)), x2=x(float(place)), y1=top - 5, y2=top, class_="zero"))
        drawn.append(el("text", str(place), x=x(float(place)), y=top - 10, text_anchor="middle"))
    reach = x(1.0 + ranks["critical_difference"]) - x(1.0)
    words = f"critical difference {ranks['critical_difference']:.2f}"
    drawn.append(el("line", x1=left, x2=min(left + reach, WIDTH - 12), y1=14.0, y2=14.0, class_="bar-of-ranks"))
    drawn.append(el("text", words, x=left - 8, y=18.0, text_anchor="end"))
    bars = top + 12
    for i, group in enumerate(ranks["groups"]):
        y = bars + 9 * i
        drawn.append(el("line", el("title", "not told apart: " + ", ".join(group)), x1=x(average[group[0]]) - 4,
                        x2=x(average[group[-1]]) + 4, y1=y, y2=y, class_="bar-of-ranks"))  # fmt: skip
    lowest = bars + 9 * len(ranks["groups"]) + 10
    half = math.ceil(len(order) / 2)
    for i, arm in enumerate(order):
        # The better half is named on the left, from the best down; the other on the right, from the last down.
        on_left = i < half
        y = lowest + ROW * (i if on_left else len(order) - 1 - i)
        at, edge = x(average[arm]), left - 12 if on_left else right + 12
        name = arm if len(arm) <= 20 else f"{arm[:19]}…"
        path = f"M{at:.1f} {top:.1f}V{y:.1f}H{edge:.1f}"
        drawn.append(el("path", el("title", f"{arm}: {average[arm]:.2f}"), d=path, class_=f"trail {colours.of(arm)}"))
        drawn.append(el("circle", cx=at, cy=top, r=4.0, class_=f"head {colours.of(arm)}"))
        drawn.append(el("text", f"{name}  {average[arm]:.2f}", x=edge - 6 if on_left else edge + 6, y=y + 4,
                        text_anchor="end" if on_left else "start", class_="name"))  # fmt: skip
    height = lowest + ROW * half + 4
    caption = (
        f"Average over {ranks['repetitions']} repetitions; 1 is best. Bars join arms that differ by less than the critical "
        f"difference (Nemenyi). {ranks['words'][0].upper()}{ranks['words'][1:]}."
    )
    return Drawing("ranks", title, Markup("".join(drawn)), WIDTH, height, caption)


def quality_chart(name: str, data: str, done: Sequence[Row], word: str, colours: Colours, training: bool) -> Drawing:
    """Test score against FLOPs: every trial, the mean of each arm, and the Pareto front of all trials.

    Args:
        done: trials of one data set.
        training: against all training FLOPs of a trial, else against FLOPs per example.
    """
    title = f"{data}: test {word} against {'training FLOPs' if training else 'FLOPs per example'}"
    key = "train_flops" if training else "flops_per_example"
    shown = [row for row in done if row["test_score"] is not None and row[key]]
    if not shown:
        return nothing(name, title, "No trial is done.")
    costs, scores = [float(row[key]) for row in shown], [float(row["test_score"]) for row in shown]
    low, middle = np.quantile(scores, [0.25, 0.75])
    floor = max(min(scores), float(low - 3 * (middle - low))) if middle > low else min(scores)
    x = across(costs, LOG if fits_log(costs) else None)
    y = upward([max(score, floor) for score in scores])
    ahead = np.flatnonzero(pareto_front(scores, costs))
    front = front_line([(costs[i], scores[i]) for i in ahead], x, y)
    marks: list[Markup] = [front] if front is not None else []
    for row, cost, score in zip(shown, costs, scores, strict=True):
        label = f"{row['arm']}, seed {row['seed']}: {word} {decimal(score)}, {count(row['flops_per_example'])} FLOPs/example, "
        marks.append(_arm_mark(row["baseline"], x(cost), y.clamped(score), f"unchanged {colours.of(row['arm'])}", 3.0,
                               label + f"{flops(row['train_flops'])} of training"))  # fmt: skip
    for arm in dict.fromkeys(row["arm"] for row in shown):
        own = [i for i, row in enumerate(shown) if row["arm"] == arm]
        cost = math.exp(sum(math.log(costs[i]) for i in own) / len(own))
        score = sum(scores[i] for i in own) / len(own)
        label = f"{arm}, mean of {len(own)}: {word} {decimal(score)}"
        marks.append(
            _arm_mark(shown[own[0]]["baseline"], x(cost), y.clamped(score), f"head {colours.of(arm)}", 6.0, label)
        )
    labels = ("training FLOPs, whole trial" if training else "FLOPs per example", f"test {word}")
    caption = (
        "Small: a trial; large: the mean of an arm (geometric in FLOPs); squares are baselines. On the Pareto front no "
        "trial is as good for less. What lies far below is drawn at the edge."
    )
    return chart(name, title, x, y, labels, marks, [*colours.legend(), ("front", "Pareto front")], caption)


def curves_chart(
    name: str, data: str, curves: Mapping[str, Sequence[Sequence[Step]]], word: str, colours: Colours
) -> Drawing:
    """Validation score of the best network so far against training FLOPs: a thin line a trial, the mean of each arm."""
    title = f"{data}: best validation {word} so far against training FLOPs"
    paths = {
        arm: [[(at, score) for at, score in best_so_far(curve) if at > 0] for curve in own]
        for arm, own in curves.items()
    }
    points = [point for own in paths.values() for path in own for point in path]
    if not points:
        return nothing(name, title, "No trial has trained a network.")
    scores = [score for _, score in points]
    low, middle = np.quantile(scores, [0.05, 0.75])
    floor = max(min(scores), float(low - 3 * (middle - low))) if middle > low else min(scores)
    x = across([at for at, _ in points], LOG)
    y = upward([max(score, floor) for score in scores])
    thin: list[Markup] = []
    thick: list[Markup] = []
    for arm, own in paths.items():
        whole = [path for path in own if path]
        for path in whole:
            thin.append(_stairs(path, x(x.high), x, y, f"thin {colours.of(arm)}", arm))
        if whole:
            begin = max(path[0][0] for path in whole)
            budgets = np.geomspace(begin, x.high, GRID)
            mean = [(float(at), sum(_at(path, at) for path in whole) / len(whole)) for at in budgets]
            line = " ".join(f"{x(at):.1f},{y.clamped(score):.1f}" for at, score in mean)
            thick.append(el("polyline", el("title", f"{arm}: mean of {len(whole)}"), points=line,
                            class_=f"trail {colours.of(arm)}"))  # fmt: skip
    caption = (
        "Thin: a trial; thick: the mean of an arm, from where all its trials have a network. The best network so far is the "
        "one with the lowest validation loss."
    )
    return chart(
        name, title, x, y, ("training FLOPs", f"validation {word}"), [*thin, *thick], colours.legend(), caption
    )


def _row_name(row: Row) -> str:
    return str(row["arm"]) if row["data"] is None else f"{row['arm']} on {row['data']}"


def _arm_mark(square: bool, x: float, y: float, class_: str, size: float, label: str) -> Markup:
    title = el("title", label)
    if square:
        return el("rect", title, x=x - size, y=y - size, width=2 * size, height=2 * size, class_=class_)
    return el("circle", title, cx=x, cy=y, r=size, class_=class_)


def _stairs(path: Sequence[tuple[float, float]], end: float, x: Any, y: Any, class_: str, arm: str) -> Markup:
    words = [f"M{x(path[0][0]):.1f} {y.clamped(path[0][1]):.1f}"]
    words += [f"H{x(at):.1f}V{y.clamped(score):.1f}" for at, score in path[1:]]
    return el("path", el("title", arm), d="".join([*words, f"H{end:.1f}"]), class_=class_)


def _at(path: Sequence[tuple[float, float]], budget: float) -> float:
    """Score of a step function at a budget at or after its first step."""
    return next(score for at, score in reversed(path) if at <= budget * (1 + 1e-12))
