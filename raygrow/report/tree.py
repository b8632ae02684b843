"""The lineage drawn: a lane a member, a column a round in which somebody grew, circles with areas by FLOPs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from raygrow.population.lineage import LineageNode
from raygrow.report.charts import STANDINGS, move_words, standing
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.figures import count, decimal, scaled, signed, signed_count
from raygrow.report.lineage import chosen, move_text
from raygrow.report.markup import Markup, el
from raygrow.report.plot import legend, move_shape
from raygrow.report.record import Probed
from raygrow.report.style import LIGHT

COLUMN, ABOVE, BELOW = 158.0, 66.0, 58.0
"""Width of a column; heights of a lane above and below the centres of its circles."""
NAMES, HEAD = 150.0, 30.0
SMALLEST, LARGEST = 5.0, 20.0
LABEL, NAME = 22, 20
"""Letters of a label on an edge, and of a name, that have room."""
ACROSS, STEP = 10, 12.0
"""Rejected candidates beside one another under the architecture they would have grown from, and pixels for each."""


def lineage_svg(nodes: Sequence[LineageNode], member: str | None = None) -> str:
    """A picture of the lineage as a file of its own."""
    return tree(chosen(nodes, member), colours_of(nodes), None).svg()


def lineage_dot(nodes: Sequence[LineageNode], member: str | None = None) -> str:
    """The same picture as a directed graph for Graphviz."""
    shown, colours = chosen(nodes, member), colours_of(nodes)
    largest = _largest(shown)
    lines = [
        "digraph lineage {", "  rankdir=LR;",
        '  node [shape=circle, style=filled, fixedsize=true, fontname="Helvetica", fontsize=9];',
        '  edge [fontname="Helvetica", fontsize=9];',
    ]  # fmt: skip
    for node in shown:
        label = f"{node.key}\n{scaled(node.flops_per_example)}\nloss {decimal(node.validation_loss)}"
        # Graphviz measures in inches; the words stand beside the smallest circles.
        width = f"{2 * radius(node, largest) / 36:.2f}"
        colour = LIGHT[colours.of(node.member)]
        lines.append(
            f'  {_quoted(node.key)} [label="", xlabel={_quoted(label)}, tooltip={_quoted(node_words(node))}, '
            f'width={width}, fillcolor="{colour}"];'
        )
    keys = {node.key for node in shown}
    for node in shown:
        if node.parent in keys:
            label = "\n".join(edge_words(node))
            lines.append(f"  {_quoted(str(node.parent))} -> {_quoted(node.key)} [label={_quoted(label)}];")
    return "\n".join([*lines, "}"])


def tree(
    nodes: Sequence[LineageNode],
    colours: Colours,
    best: str | None,
    passed_over: Sequence[Probed] = (),
    columns: Sequence[int] = (),
    legend_below: bool = True,
) -> Drawing:
    """The lineage of some or all members.

    Args:
        best: the member whose last architecture is ringed.
        passed_over: probed candidates that were not adopted, drawn under the architecture they would have grown from.
        columns: rounds that have one; by default those in which one of ``nodes`` came to be.
        legend_below: False where the page around it says which colour is whose.
    """
    rounds = {number: i for i, number in enumerate(columns or sorted({node.round for node in nodes}))}
    lanes = [name for name in colours.members if any(node.member == name for node in nodes)]
    hanging = _hanging(nodes, passed_over)
    deep = {node.key: math.ceil(len(hanging[node.key]) / ACROSS) for node in nodes}
    centres: dict[str, float] = {}
    bottom = HEAD
    for name in lanes:
        centres[name] = bottom + ABOVE
        rows = max(deep[node.key] for node in nodes if node.member == name)
        bottom = centres[name] + BELOW + STEP * rows + (10 if rows else 0)
    places = {node.key: (NAMES + COLUMN * (rounds[node.round] + 0.5), centres[node.member]) for node in nodes}
    width = NAMES + COLUMN * max(len(rounds), 2)
    drawn = [
        el("text", f"round {number}" if number else "start", x=NAMES + COLUMN * (i + 0.5), y=18.0, text_anchor="middle",
           class_="axis")
        for number, i in rounds.items()
    ]  # fmt: skip
    drawn += [_lane(name, colours.members[name], centres[name], width) for name in lanes]
    drawn += [_edge(node, places, colours.of(node.member)) for node in nodes if node.parent in places]
    last, largest = {node.member: node.key for node in nodes}, _largest(nodes)
    for node in nodes:
        ringed = node.member == best and last[node.member] == node.key
        drawn.append(_node(node, places[node.key], radius(node, largest), colours.of(node.member), ringed))
        drawn.append(_crosses(hanging[node.key], places[node.key]))
    entries = [
        *colours.legend(),
        *([("ring", "best on validation")] if best else []),
        *(STANDINGS[1:] if passed_over else ()),
    ]
    below, end = legend(entries if legend_below else [], width, bottom)
    caption = (
        "From left to right. The area of a circle, and the figure below it, are FLOPs per example; under that the validation "
        "loss. On each edge the move, and its gain per added kFLOP."
    )
    return Drawing("lineage", "Lineage", Markup("".join([*drawn, below])), width, end, caption)


def colours_of(nodes: Sequence[LineageNode]) -> Colours:
    """Colours of the members that a lineage holds."""
    return Colours({node.member: node.strategy for node in nodes})


def radius(node: LineageNode, largest: int) -> float:
    """Of a circle whose area is its share of the largest network's FLOPs."""
    return max(SMALLEST, LARGEST * math.sqrt(node.flops_per_example / largest))


def edge_words(node: LineageNode) -> tuple[str, str]:
    """The move that made a node, and what it was worth."""
    if node.gain_per_flop is None:
        return move_text(node), f"{signed(node.gain)} for {signed_count(node.added_flops)}"
    return move_text(node), f"{1000 * node.gain_per_flop:+.3g} per kFLOP"


def _edge_move(node: LineageNode) -> str:
    """The move, with so much of its site as there is room for: its size is worth more than the end of a long name."""
    ending = f" +{node.units}" if node.units else ""
    return _short(f"{node.move} {node.site}", LABEL - len(ending)) + ending


def node_words(node: LineageNode) -> str:
    """All that is to say of a node, for whoever points at it."""
    words = f"{node.member}, round {node.round}: {move_text(node)}; {count(node.flops_per_example)} FLOPs per example, "
    words += f"validation loss {decimal(node.validation_loss)}, architecture {node.arch_id}"
    if node.move is not None:
        words += f"; gain {signed(node.gain)} ± {decimal(node.gain_stderr)} for {signed_count(node.added_flops)} FLOPs"
    return words


def _largest(nodes: Sequence[LineageNode]) -> int:
    return max((node.flops_per_example for node in nodes), default=1) or 1


def _hanging(nodes: Sequence[LineageNode], passed_over: Sequence[Probed]) -> dict[str, list[Probed]]:
    """Candidates by the architecture that was their member's head."""
    found: dict[str, list[Probed]] = {node.key: [] for node in nodes}
    own: dict[str, list[LineageNode]] = {}
    for node in nodes:
        own.setdefault(node.member, []).append(node)
    for candidate in passed_over:
        before = [node for node in own.get(candidate.member, []) if node.round < candidate.round]
        if before:
            found[before[-1].key].append(candidate)
    return found


def _lane(name: str, strategy: str, centre: float, width: float) -> Markup:
    return el(
        "g",
        el("title", f"{name}: strategy {strategy}"),
        el("line", x1=0.0, x2=width, y1=centre - ABOVE, y2=centre - ABOVE, class_="grid"),
        el("text", _short(name, NAME), x=8.0, y=centre - 2, class_="name"),
        el("text", _short(strategy, NAME), x=8.0, y=centre + 15),
    )


def _edge(node: LineageNode, places: dict[str, tuple[float, float]], class_: str) -> Markup:
    """A line with its words above; to another lane it bends."""
    (begin, high), (end, low) = places[str(node.parent)], places[node.key]
    half = (begin + end) / 2
    path = f"M{begin:.1f} {high:.1f}C{half:.1f} {high:.1f} {half:.1f} {low:.1f} {end:.1f} {low:.1f}"
    _, worth = edge_words(node)
    # The words of an edge stand in the column before its end, which no other edge of the lane crosses.
    x, y = end - COLUMN / 2, low - LARGEST - 8
    return el(
        "g",
        el("title", node_words(node)),
        el("path", d=path, class_=f"trail {class_}"),
        el("text", _edge_move(node), x=x, y=y - 15, text_anchor="middle", class_="small"),
        el("text", _short(worth, LABEL), x=x, y=y, text_anchor="middle", class_="small"),
    )


def _node(node: LineageNode, place: tuple[float, float], size: float, class_: str, ringed: bool) -> Markup:
    x, y = place
    return el(
        "g",
        el("title", node_words(node)),
        el("circle", cx=x, cy=y, r=size + 4, class_="ring") if ringed else None,
        el("circle", cx=x, cy=y, r=size, class_=f"head {class_}"),
        el("text", scaled(node.flops_per_example), x=x, y=y + LARGEST + 17, text_anchor="middle", class_="axis"),
        el("text", decimal(node.validation_loss), x=x, y=y + LARGEST + 32, text_anchor="middle", class_="small"),
    )


def _crosses(candidates: Sequence[Probed], place: tuple[float, float]) -> Markup:
    if not candidates:
        return Markup()
    left, top = place[0] - STEP * (min(len(candidates), ACROSS) - 1) / 2, place[1] + BELOW
    return el(
        "g",
        [
            move_shape(
                standing(candidate), left + STEP * (i % ACROSS), top + STEP * (i // ACROSS), move_words(candidate), 0.8
            )
            for i, candidate in enumerate(candidates)
        ],
    )


def _quoted(text: str) -> str:
    # A JSON string is a dot string: quotes, backslashes and newlines are escaped alike.
    return json.dumps(text, ensure_ascii=False)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
