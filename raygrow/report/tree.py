"""The lineage as SVG: a lane a member, a column a round in which somebody grew, circles with areas by FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raygrow.population.lineage import LineageNode
from raygrow.report.charts import colour
from raygrow.report.figures import count, decimal, scaled, signed, signed_count
from raygrow.report.lineage import chosen, move_text
from raygrow.report.markup import Markup, el
from raygrow.report.style import CHART_STYLE

COLUMN, LANE = 104.0, 96.0
NAMES, HEAD = 150.0, 30.0
SMALLEST, LARGEST = 5.0, 20.0


def lineage_svg(nodes: Sequence[LineageNode], member: str | None = None) -> str:
    """A picture of the lineage as a file of its own."""
    return tree(chosen(nodes, member), _order(nodes), None, standalone=True)


def tree(nodes: Sequence[LineageNode], order: Sequence[str], best: str | None, standalone: bool = False) -> Markup:
    """The lineage of every member.

    Args:
        order: of all members, which settles their colours.
        best: the member whose last architecture is ringed.
        standalone: with name space and style, to be read outside the page.
    """
    lanes = {name: i for i, name in enumerate(name for name in order if any(n.member == name for n in nodes))}
    rounds = {number: i for i, number in enumerate(sorted({node.round for node in nodes}))}
    largest = max((node.flops_per_example for node in nodes), default=1)
    places = {n.key: (NAMES + COLUMN * (rounds[n.round] + 0.5), HEAD + LANE * (lanes[n.member] + 0.5)) for n in nodes}
    width, height = NAMES + COLUMN * max(len(rounds), 1), HEAD + LANE * max(len(lanes), 1)
    drawn: list[Markup] = []
    for number, i in rounds.items():
        label = f"round {number}" if number else "start"
        drawn.append(el("text", label, x=NAMES + COLUMN * (i + 0.5), y=18.0, text_anchor="middle", class_="axis"))
    for name, lane in lanes.items():
        drawn.append(_lane(name, next(n.strategy for n in nodes if n.member == name), lane, width))
    for node in nodes:
        if node.parent in places:
            drawn.append(_link(places[str(node.parent)], places[node.key], colour(order.index(node.member))))
    last = {node.member: node.key for node in nodes}
    for node in nodes:
        radius = max(SMALLEST, LARGEST * math.sqrt(node.flops_per_example / max(largest, 1)))
        ringed = node.member == best and last[node.member] == node.key
        drawn.append(_node(node, places[node.key], radius, colour(order.index(node.member)), ringed))
    if standalone:
        size = {"xmlns": "http://www.w3.org/2000/svg", "width": f"{width:.0f}", "height": f"{height:.0f}"}
        return el("svg", el("style", Markup(CHART_STYLE)), *drawn, viewBox=f"0 0 {width:.0f} {height:.0f}", **size)
    return el("svg", *drawn, viewBox=f"0 0 {width:.0f} {height:.0f}", width=width, height=height, class_="tree",
              role="img", aria_label="lineage of every member")  # fmt: skip


def _order(nodes: Sequence[LineageNode]) -> list[str]:
    return list(dict.fromkeys(node.member for node in nodes))


def _lane(name: str, strategy: str, lane: int, width: float) -> Markup:
    top, middle = HEAD + LANE * lane, HEAD + LANE * (lane + 0.5)
    return el(
        "g",
        el("title", f"{name}: strategy {strategy}"),
        el("line", x1=0.0, x2=width, y1=top, y2=top, class_="grid"),
        el("text", _short(name, 20), x=4.0, y=middle - 2, class_="name"),
        el("text", _short(strategy, 22), x=4.0, y=middle + 15),
    )


def _link(begin: tuple[float, float], end: tuple[float, float], class_: str) -> Markup:
    """A line; to another lane it bends."""
    half = (begin[0] + end[0]) / 2
    path = f"M{begin[0]:.1f} {begin[1]:.1f}C{half:.1f} {begin[1]:.1f} {half:.1f} {end[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    return el("path", d=path, class_=f"trail {class_}")


def _node(node: LineageNode, place: tuple[float, float], radius: float, class_: str, ringed: bool) -> Markup:
    across, up = place
    words = f"{node.member}, round {node.round}: {move_text(node)}; {count(node.flops_per_example)} FLOPs per example, "
    words += f"validation loss {decimal(node.validation_loss)}, architecture {node.arch_id}"
    if node.move is not None:
        words += f"; gain {signed(node.gain)} ± {decimal(node.gain_stderr)} for {signed_count(node.added_flops)} FLOPs"
    above = None
    if node.move is not None:
        label = f"{node.move} +{node.units}" if node.units else node.move
        above = el("text", _short(label, 17), x=across, y=up - LARGEST - 11, text_anchor="middle")
    return el(
        "g",
        el("title", words),
        el("circle", cx=across, cy=up, r=radius + 4, class_="ring") if ringed else None,
        el("circle", cx=across, cy=up, r=radius, class_=f"head {class_}"),
        above,
        el("text", scaled(node.flops_per_example), x=across, y=up + LARGEST + 17, text_anchor="middle", class_="axis"),
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
