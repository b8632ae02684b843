"""The charts of a campaign: quality against either cost, gain against price, predicted against realised gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raygrow.comparison.front import pareto_front
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.figures import NOTHING, count, decimal, flops, signed, signed_count
from raygrow.report.markup import Markup, el
from raygrow.report.plot import across, chart, front_line, move_shape, nothing, star, upward
from raygrow.report.record import HeadPoint, Probed
from raygrow.report.scales import LOG, ROOT, Scale, fits_log

STANDINGS = (("granted", "granted"), ("accepted", "accepted, not granted"), ("rejected", "rejected"))


def quality_chart(heads: Sequence[HeadPoint], colours: Colours, best: str | None, word: str, training: bool) -> Drawing:
    """Validation accuracy or R2 against FLOPs, a line a member, and the Pareto front of all of them.

    Args:
        heads: in the order in which they became heads. The untrained start says nothing and is left out.
        best: the member whose last head is marked.
        word: name of the vertical axis.
        training: against the training FLOPs that a member had spent by then, else against FLOPs per example.
    """
    cost = "training" if training else "inference"
    title = f"Validation {word} against {'training FLOPs' if training else 'FLOPs per example'}"
    known = [(head, head.validation_metric) for head in heads if head.round > 0 or head.final]
    shown = [(head, value) for head, value in known if value is not None and math.isfinite(value)]
    if not shown:
        return nothing(f"quality-{cost}", title, "No network has been trained yet.")
    values = np.array([value for _, value in shown])
    low, middle = np.quantile(values, [0.25, 0.75])
    # One head gone astray must not press all others into a line; it is drawn at the edge.
    floor = max(float(values.min()), float(low - 3 * (middle - low))) if middle > low else float(values.min())
    costs = [float(head.train_flops if training else head.flops_per_example) for head, _ in shown]
    x = across(costs, LOG if fits_log(costs) else None)
    y = upward([max(value, floor) for value in values.tolist()])
    ahead = pareto_front(values.tolist(), costs)
    front = front_line([(costs[i], float(values[i])) for i in np.flatnonzero(ahead)], x, y)
    lines: list[Markup] = [front] if front is not None else []
    marks: list[Markup] = []
    for name in colours.members:
        own = [(head, value, x(at), y.clamped(value)) for (head, value), at in zip(shown, costs, strict=True)
               if head.member == name]  # fmt: skip
        path = " ".join(f"{right:.1f},{up:.1f}" for _, _, right, up in own)
        lines.append(el("polyline", points=path, class_=f"trail {colours.of(name)}"))
        for head, value, right, up in own:
            when = "after the final anneal" if head.final else f"round {head.round}"
            label = f"{name}, {when}: {word} {decimal(value)}, {count(head.flops_per_example)} FLOPs per example, "
            marks.append(
                _head_mark(head, right, up, colours.of(name), label + f"{flops(head.train_flops)} of training")
            )
        if name == best and own:
            _, value, right, up = own[-1]
            marks.append(star(right, up, f"best: {name}, {word} {decimal(value)}"))
    labels = ("training FLOPs of the member, probes and all" if training else "FLOPs per example", f"validation {word}")
    entries = [*colours.legend(), ("best", "best"), ("front", "Pareto front")]
    caption = (
        "Every network that was a head. Filled: just grown; hollow: trained on without growing; square: after the final "
        "anneal. On the Pareto front no network of the campaign is as good for less. The untrained start is left out."
    )
    return chart(f"quality-{cost}", title, x, y, labels, [*lines, *marks], entries, caption)


def price_chart(probed: Sequence[Probed], prices: Mapping[float, Sequence[str]]) -> Drawing:
    """Gain against added FLOPs of every probed candidate, with the price line.

    Args:
        prices: loss per added FLOP, and the members who pay it.
    """
    title = "Gain against price"
    shown = [(candidate, gain) for candidate in probed if (gain := candidate.row["gain"]) is not None]
    if not shown:
        return nothing("gain-price", title, "No move has been probed yet.")
    gains = [gain for _, gain in shown]
    # A ruined fork must not hide the others: at most as far down as the best gain reaches up.
    floor = max(min(gains), -max(gains)) if max(gains) > 0 else min(gains)
    x = across([0.0, *(float(candidate.row["added_flops"]) for candidate, _ in shown)], ROOT)
    # Gains fall by orders of magnitude as a network grows. Roots spread them, and a line through 0 stays one.
    y = upward([0.0, *(max(gain, floor) for gain in gains)], ROOT)
    lines = [el("line", x1=x(x.low), x2=x(x.high), y1=y(0.0), y2=y(0.0), class_="zero")]
    for price, names in prices.items():
        # Cut where the line leaves the frame at its top.
        end = min(x.high, y.high / price) if price > 0 else x.high
        words = el("title", f"price {price:.3g} loss per added FLOP ({', '.join(names)})")
        lines.append(el("line", words, x1=x(0.0), y1=y(0.0), x2=x(end), y2=y(price * end), class_="price"))
    marks = [_move_mark(candidate, gain, x(candidate.row["added_flops"]), y) for candidate, gain in _by_standing(shown)]
    ruined = len(probed) - len(shown)
    priced = f"price, {' and '.join(f'{price:.3g}' for price in prices)} loss per added FLOP"
    caption = (
        "Every probed candidate against the control trained on the same batches; bars are one standard error. "
        "Both axes are stretched near 0 (square roots), which leaves the price a straight line; "
        "what lies far below is drawn at the edge."
    ) + (f" {ruined} diverged and have no gain." if ruined else "")
    return chart(
        "gain-price", title, x, y, ("added FLOPs per example", "gain in validation loss"), [*lines, *marks],
        [*STANDINGS, ("price", priced)], caption,
    )  # fmt: skip


def calibration_chart(probed: Sequence[Probed]) -> Drawing:
    """Realised against predicted gain of every probed candidate that has both, with the diagonal."""
    title = "Realised against predicted gain"
    shown = [
        (candidate, float(candidate.row["gain"]))
        for candidate in probed
        if candidate.row["gain"] is not None and candidate.row["predicted_gain"] is not None
    ]
    if not shown:
        return nothing("calibration", title, "No candidate has both a prediction and a gain.")
    predicted = [float(candidate.row["predicted_gain"]) for candidate, _ in shown]
    gains = [gain for _, gain in shown]
    floor = max(min(gains), -max(*gains, *predicted, 0.0)) if max(*gains, *predicted) > 0 else min(gains)
    both = [0.0, *predicted, *(max(gain, floor) for gain in gains)]
    # One range for both, so that the diagonal is where a prediction comes true.
    x, y = across(both, ROOT), upward(both, ROOT)
    low, high = min(both), max(both)
    lines = [
        el("line", x1=x(x.low), x2=x(x.high), y1=y(0.0), y2=y(0.0), class_="grid"),
        el("line", x1=x(low), y1=y(low), x2=x(high), y2=y(high), class_="zero"),
    ]
    marks = [
        _move_mark(candidate, gain, x(candidate.row["predicted_gain"]), y) for candidate, gain in _by_standing(shown)
    ]
    above = sum(gain > guess for gain, guess in zip(gains, predicted, strict=True))
    caption = (
        f"{rank_correlation(predicted, gains)} {above} of {len(shown)} gained more than predicted. The prediction is "
        "first-order, cross-fitted, and made before any training; the gain is measured after the probe. Axes stretch near 0."
    )
    return chart(
        "calibration", title, x, y, ("predicted gain", "gain in validation loss"), [*lines, *marks],
        [*STANDINGS, ("zero", "prediction come true")], caption,
    )  # fmt: skip


def rank_correlation(predicted: Sequence[float], realised: Sequence[float]) -> str:
    """Spearman's rank correlation in words."""
    if len(predicted) < 3 or len(set(predicted)) < 2 or len(set(realised)) < 2:
        return f"{len(predicted)} candidates with a prediction are too few for a rank correlation."
    found = np.corrcoef(_ranks(predicted), _ranks(realised))[0, 1]
    return f"Spearman's rank correlation {found:.2f} over {len(predicted)} candidates."


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ascending, ties at their mean. scipy.stats has them, and takes a second to import at the end of every campaign."""
    _, at, ties = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(ties) - (ties - 1) / 2)[at]
    return ranks


def standing(candidate: Probed) -> str:
    """``granted``, ``accepted`` (but not granted) or ``rejected``."""
    if candidate.granted:
        return "granted"
    return "accepted" if candidate.row["verdict"] == "accept" else "rejected"


def move_words(candidate: Probed) -> str:
    """A candidate in a line, for whoever points at its mark."""
    row = candidate.row
    error = row["gain_stderr"] or 0.0
    return (
        f"{row['id']}: gain {signed(row['gain'])} ± {decimal(error) if error else NOTHING}, predicted "
        f"{signed(row['predicted_gain'])}, {signed_count(row['added_flops'])} FLOPs, {standing(candidate)}"
    )


def _by_standing(shown: Sequence[tuple[Probed, float]]) -> list[tuple[Probed, float]]:
    order = {"rejected": 0, "accepted": 1, "granted": 2}
    return sorted(shown, key=lambda pair: order[standing(pair[0])])


def _head_mark(head: HeadPoint, x: float, y: float, class_: str, label: str) -> Markup:
    title = el("title", label)
    if head.final:
        side = 9.0
        return el("rect", title, x=x - side / 2, y=y - side / 2, width=side, height=side, class_=f"head {class_}")
    kind = "head" if head.adopted else "unchanged"
    return el("circle", title, cx=x, cy=y, r=4.0 if head.adopted else 2.6, class_=f"{kind} {class_}")


def _move_mark(candidate: Probed, gain: float, x: float, y: Scale) -> Markup:
    kind, error = standing(candidate), candidate.row["gain_stderr"] or 0.0
    bar = el("line", x1=x, x2=x, y1=y.clamped(gain - error), y2=y.clamped(gain + error), class_=f"bar {kind}")
    return el("g", bar, move_shape(kind, x, y.clamped(gain), move_words(candidate)))
