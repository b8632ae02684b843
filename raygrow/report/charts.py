"""The two charts of a campaign as SVG: quality against FLOPs, gain against price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raygrow.report.figures import NOTHING, count, decimal, scaled, signed, signed_count
from raygrow.report.markup import Markup, el
from raygrow.report.record import HeadPoint, Probed
from raygrow.report.scales import LOG, ROOT, Scale, Stretch, fits_log, scale_over

WIDTH, HEIGHT = 620.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 16.0, 48.0
COLOURS = 8
"""Member colours of the style sheet; a ninth member begins again."""


def colour(index: int) -> str:
    """Class of a member's colour, by its place in the configuration."""
    return f"c{index % COLOURS}"


def quality_chart(heads: Sequence[HeadPoint], members: Sequence[str], best: str | None, word: str) -> Markup:
    """Validation accuracy or R2 against FLOPs per example, a line a member.

    Args:
        heads: in the order in which they became heads. The untrained start says nothing and is left out.
        best: the member whose last head is marked.
        word: name of the vertical axis.
    """
    known = [(head, head.validation_metric) for head in heads if head.round > 0 or head.final]
    shown = [(head, value) for head, value in known if value is not None and math.isfinite(value)]
    if not shown:
        return _empty("No network has been trained yet.")
    values = np.array([value for _, value in shown])
    low, middle = np.quantile(values, [0.25, 0.75])
    # One head gone astray must not press all others into a line; it is drawn at the edge.
    floor = max(float(values.min()), float(low - 3 * (middle - low))) if middle > low else float(values.min())
    costs = [head.flops_per_example for head, _ in shown]
    x = _across(costs, LOG if fits_log(costs) else None)
    y = _upward([max(value, floor) for _, value in shown])
    lines: list[Markup] = []
    marks: list[Markup] = []
    for i, name in enumerate(members):
        own = [
            (head, value, x(head.flops_per_example), y.clamped(value)) for head, value in shown if head.member == name
        ]
        path = " ".join(f"{across:.1f},{up:.1f}" for _, _, across, up in own)
        lines.append(el("polyline", points=path, class_=f"trail {colour(i)}"))
        for head, value, across, up in own:
            when = "after the final anneal" if head.final else f"round {head.round}"
            label = f"{name}, {when}: {word} {decimal(value)}, {count(head.flops_per_example)} FLOPs per example"
            marks.append(_head_mark(head, across, up, colour(i), label))
        if name == best and own:
            _, value, across, up = own[-1]
            marks.append(_star(across, up, f"best: {name}, {word} {decimal(value)}"))
    return _chart(
        x, y, "FLOPs per example", f"validation {word}", [*lines, *marks], f"{word} against FLOPs per example"
    )


def price_chart(probed: Sequence[Probed], prices: Mapping[float, Sequence[str]]) -> Markup:
    """Gain against added FLOPs of every probed candidate, with the price line.

    Args:
        prices: loss per added FLOP, and the members who pay it.
    """
    shown = [(candidate, gain) for candidate in probed if (gain := candidate.row["gain"]) is not None]
    if not shown:
        return _empty("No move has been probed yet.")
    gains = [gain for _, gain in shown]
    # A ruined fork must not hide the others: at most as far down as the best gain reaches up.
    floor = max(min(gains), -max(gains)) if max(gains) > 0 else min(gains)
    x = _across([0.0, *(float(candidate.row["added_flops"]) for candidate, _ in shown)], ROOT)
    # Gains fall by orders of magnitude as a network grows. Roots spread them, and a line through 0 stays one.
    y = _upward([0.0, *(max(gain, floor) for gain in gains)], ROOT)
    lines = [el("line", x1=x(x.low), x2=x(x.high), y1=y(0.0), y2=y(0.0), class_="zero")]
    for price, names in prices.items():
        # Cut where the line leaves the frame at its top.
        end = min(x.high, y.high / price) if price > 0 else x.high
        line = el(
            "line",
            el("title", f"price {price:.3g} loss per added FLOP ({', '.join(names)})"),
            x1=x(0.0),
            y1=y(0.0),
            x2=x(end),
            y2=y(price * end),
            class_="price",
        )
        lines.append(line)
    order = {"rejected": 0, "accepted": 1, "granted": 2}
    marks = [
        _move_mark(candidate, gain, x, y) for candidate, gain in sorted(shown, key=lambda s: order[standing(s[0])])
    ]
    return _chart(
        x, y, "added FLOPs per example", "gain in validation loss", [*lines, *marks], "gain against added FLOPs"
    )


def standing(candidate: Probed) -> str:
    """``granted``, ``accepted`` (but not granted) or ``rejected``."""
    if candidate.granted:
        return "granted"
    return "accepted" if candidate.row["verdict"] == "accept" else "rejected"


def swatch(kind: str) -> Markup:
    """The mark of a standing, or the line of a price or a member, for the legend."""
    if kind == "price":
        mark = el("line", x1=0.0, y1=11.0, x2=14.0, y2=3.0, class_="price")
    elif kind == "best":
        mark = _star(7.0, 7.0, "best")
    elif kind in ("granted", "accepted", "rejected"):
        mark = _move_shape(kind, 7.0, 7.0, kind)
    else:
        mark = el("circle", cx=7.0, cy=7.0, r=5.0, class_=f"head {kind}")
    return el("svg", mark, viewBox="0 0 14 14", class_="swatch", aria_hidden="true")


def _across(values: Sequence[float], stretch: Stretch | None) -> Scale:
    return scale_over(values, LEFT, WIDTH - RIGHT, stretch)


def _upward(values: Sequence[float], stretch: Stretch | None = None) -> Scale:
    return scale_over(values, HEIGHT - BOTTOM, TOP, stretch)


def _head_mark(head: HeadPoint, across: float, up: float, class_: str, label: str) -> Markup:
    title = el("title", label)
    if head.final:
        side = 9.0
        return el("rect", title, x=across - side / 2, y=up - side / 2, width=side, height=side, class_=f"head {class_}")
    kind = "head" if head.adopted else "unchanged"
    return el("circle", title, cx=across, cy=up, r=4.0 if head.adopted else 2.6, class_=f"{kind} {class_}")


def _star(across: float, up: float, label: str) -> Markup:
    points = []
    for i in range(10):
        radius, angle = (10.0, 4.4)[i % 2], math.pi * (i / 5 - 0.5)
        points.append(f"{across + radius * math.cos(angle):.1f},{up + radius * math.sin(angle):.1f}")
    return el("polygon", el("title", label), points=" ".join(points), class_="star")


def _move_mark(candidate: Probed, gain: float, x: Scale, y: Scale) -> Markup:
    row, kind = candidate.row, standing(candidate)
    across, up = x(row["added_flops"]), y.clamped(gain)
    error = row["gain_stderr"] or 0.0
    label = (
        f"{row['id']}: gain {signed(gain)} ± {decimal(error) if error else NOTHING}, "
        f"{signed_count(row['added_flops'])} FLOPs, {kind}"
    )
    bar = el("line", x1=across, x2=across, y1=y.clamped(gain - error), y2=y.clamped(gain + error), class_=f"bar {kind}")
    return el("g", bar, _move_shape(kind, across, up, label))


def _move_shape(kind: str, across: float, up: float, label: str) -> Markup:
    title = el("title", label)
    if kind == "granted":
        return el("circle", title, cx=across, cy=up, r=5.0, class_="move granted")
    if kind == "accepted":
        points = f"{across},{up - 5.5} {across + 5.5},{up} {across},{up + 5.5} {across - 5.5},{up}"
        return el("polygon", title, points=points, class_="move accepted")
    cross = f"M{across - 3.5:.1f} {up - 3.5:.1f}l7 7m0-7l-7 7"
    return el("path", title, d=cross, class_="move rejected")


def _chart(x: Scale, y: Scale, x_label: str, y_label: str, marks: Sequence[Markup], title: str) -> Markup:
    grid: list[Markup] = []
    for tick in x.ticks():
        at = x(tick)
        grid.append(el("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        grid.append(el("text", scaled(tick), x=at, y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    for tick in y.ticks():
        at = y(tick)
        grid.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        grid.append(el("text", f"{tick:.6g}", x=LEFT - 8, y=at + 4, text_anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    labels = [
        el("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle", class_="axis"),
        el("text", y_label, x=14.0, y=middle, text_anchor="middle", class_="axis",
           transform=f"rotate(-90 14 {middle:.1f})"),
    ]  # fmt: skip
    return el("svg", *grid, *labels, *marks, viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", class_="chart", role="img",
              aria_label=title)  # fmt: skip


def _empty(words: str) -> Markup:
    return el("p", words, class_="empty")
