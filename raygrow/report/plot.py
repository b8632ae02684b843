"""What every chart is made of: axes with their grid, marks, lines and legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raygrow.report.drawing import Drawing
from raygrow.report.figures import scaled
from raygrow.report.markup import Markup, el
from raygrow.report.scales import Scale, Stretch, scale_over

WIDTH, HEIGHT = 620.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 16.0, 48.0
LETTER = 6.9
"""Width of a letter of 12 pixels, at most on average."""

Entry = tuple[str, str]
"""Of a legend: kind of mark, words."""


def across(values: Sequence[float], stretch: Stretch | None = None) -> Scale:
    """A horizontal axis over values."""
    return scale_over(values, LEFT, WIDTH - RIGHT, stretch)


def upward(values: Sequence[float], stretch: Stretch | None = None) -> Scale:
    """A vertical axis over values."""
    return scale_over(values, HEIGHT - BOTTOM, TOP, stretch)


def chart(
    name: str,
    title: str,
    x: Scale,
    y: Scale,
    labels: tuple[str, str],
    marks: Sequence[Markup],
    entries: Sequence[Entry],
    caption: str,
) -> Drawing:
    """Marks over a grid, and the legend below.

    Args:
        labels: of the horizontal and the vertical axis.
    """
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
    words = [
        el("text", labels[0], x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle", class_="axis"),
        el("text", labels[1], x=14.0, y=middle, text_anchor="middle", class_="axis",
           transform=f"rotate(-90 14 {middle:.1f})"),
    ]  # fmt: skip
    below, height = legend(entries, WIDTH, HEIGHT)
    return Drawing(name, title, Markup("".join([*grid, *words, *marks, below])), WIDTH, height, caption)


def nothing(name: str, title: str, words: str) -> Drawing:
    """A drawing that says why it is empty."""
    return Drawing(name, title, el("text", words, x=LEFT, y=40.0), WIDTH, 64.0)


def legend(entries: Sequence[Entry], width: float, top: float) -> tuple[Markup, float]:
    """Marks with their words in as many lines as they take.

    Returns:
        What is drawn, and where it ends.
    """
    drawn: list[Markup] = []
    x, y = 12.0, top + 14
    for kind, words in entries:
        wide = 24 + LETTER * len(words)
        if x > 12 and x + wide > width:
            x, y = 12.0, y + 20
        drawn.append(el("g", mark(kind, x + 6, y - 4)))
        drawn.append(el("text", words, x=x + 18, y=y))
        x += wide + 10
    return Markup("".join(drawn)), y + 10 if entries else top


def swatch(kind: str) -> Markup:
    """A mark among the words of a table."""
    return el("svg", mark(kind, 7.0, 7.0), viewBox="0 0 14 14", class_="swatch", aria_hidden="true")


def mark(kind: str, x: float, y: float) -> Markup:
    """What stands for a kind: a standing, a line (``price``, ``front``, ``zero``), ``best``, ``ring``, or a
    colour."""
    if kind in ("price", "front", "zero"):
        return el("line", x1=x - 7, y1=y + 3, x2=x + 7, y2=y - 3, class_=kind)
    if kind == "best":
        return star(x, y)
    if kind == "ring":
        return el("circle", cx=x, cy=y, r=5.0, class_="ring")
    if kind in ("granted", "accepted", "rejected"):
        return move_shape(kind, x, y)
    return el("circle", cx=x, cy=y, r=5.0, class_=f"head {kind}")


def star(x: float, y: float, label: str = "") -> Markup:
    """The mark of the best network; the label appears under the pointer."""
    points = []
    for i in range(10):
        radius, angle = (10.0, 4.4)[i % 2], math.pi * (i / 5 - 0.5)
        points.append(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}")
    return el("polygon", _title(label), points=" ".join(points), class_="star")


def move_shape(kind: str, x: float, y: float, label: str = "", size: float = 1.0) -> Markup:
    """A granted, accepted or rejected candidate; the label appears under the pointer."""
    title = _title(label)
    if kind == "granted":
        return el("circle", title, cx=x, cy=y, r=5 * size, class_="move granted")
    if kind == "accepted":
        reach = 5.5 * size
        points = " ".join(f"{x + a * reach:.1f},{y + b * reach:.1f}" for a, b in ((0, -1), (1, 0), (0, 1), (-1, 0)))
        return el("polygon", title, points=points, class_="move accepted")
    reach = 3.5 * size
    cross = f"M{x - reach:.1f} {y - reach:.1f}l{2 * reach:g} {2 * reach:g}m0-{2 * reach:g}l-{2 * reach:g} {2 * reach:g}"
    return el("path", title, d=cross, class_="move rejected")


def front_line(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> Markup | None:
    """Steps through the points of a Pareto front: the best value at no more than a cost.

    Args:
        points: cost and value of those on the front.
    """
    if not points:
        return None
    ordered = sorted(points)
    path = [f"M{x(ordered[0][0]):.1f} {y.clamped(ordered[0][1]):.1f}"]
    for cost, value in ordered[1:]:
        path.append(f"H{x(cost):.1f}V{y.clamped(value):.1f}")
    return el("path", el("title", "Pareto front"), d="".join([*path, f"H{x.end:.1f}"]), class_="front")


def _title(label: str) -> Markup | None:
    return el("title", label) if label else None
