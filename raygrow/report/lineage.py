"""The lineage as text and JSON."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from raygrow.errors import Refused
from raygrow.population.lineage import LineageNode
from raygrow.report.columns import aligned
from raygrow.report.figures import NOTHING, count, decimal, signed, signed_count


def chosen(nodes: Sequence[LineageNode], member: str | None) -> list[LineageNode]:
    """The nodes of one member, or all.

    Raises:
        Refused: there is no such member.
    """
    if member is None:
        return list(nodes)
    known = list(dict.fromkeys(node.member for node in nodes))
    if member not in known:
        close = difflib.get_close_matches(member, known, n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise Refused(f"--member: no member {member!r} has a network yet{hint}; members: {', '.join(known) or 'none'}")
    return [node for node in nodes if node.member == member]


def lineage_json(nodes: Sequence[LineageNode], member: str | None = None) -> list[dict[str, Any]]:
    """Every node as plain JSON."""
    return [node.to_json() for node in chosen(nodes, member)]


def lineage_text(nodes: Sequence[LineageNode], member: str | None = None) -> str:
    """A tree for each member: one line an adopted architecture, with its move and its figures.

    A chain runs straight down; only where an architecture has several descendants are they indented under it.
    """
    shown = chosen(nodes, member)
    drawn: list[tuple[str, LineageNode | None]] = []
    for name in dict.fromkeys(node.member for node in shown):
        own = [node for node in shown if node.member == name]
        drawn.append((f"{name}: strategy {own[0].strategy}, initializer {own[0].initializer}", None))
        for root in _roots(own):
            drawn += _chain(root, own, "", "├─ ", "└─ ", last=root is _roots(own)[-1])
    cells = [_cells(prefix, node) for prefix, node in drawn if node is not None]
    lines = iter(aligned(cells, left=(0, 2)))
    return "\n".join(text if node is None else next(lines) for text, node in drawn)


def move_text(node: LineageNode) -> str:
    """The move that made a node, in a few words."""
    if node.move is None:
        return "start"
    return f"{node.move} {node.site} +{node.units}" if node.units else f"{node.move} {node.site}"


def _roots(own: Sequence[LineageNode]) -> list[LineageNode]:
    """Nodes that grew from none of these: the start, and what came from another member."""
    keys = {node.key for node in own}
    return [node for node in own if node.parent not in keys]


def _chain(
    node: LineageNode, own: Sequence[LineageNode], indent: str, between: str, end: str, last: bool
) -> Iterator[tuple[str, LineageNode]]:
    """A node and its descendants, with what stands before each. ``last``: nothing follows beside this chain."""
    chain = [node]
    while len(children := [other for other in own if other.parent == chain[-1].key]) == 1:
        chain.append(children[0])
    for i, link in enumerate(chain):
        yield indent + (end if last and i == len(chain) - 1 else between), link
    deeper = indent + ("   " if last else "│  ")
    for child in children:
        yield from _branch(child, own, deeper, last=child is children[-1])


def _branch(
    node: LineageNode, own: Sequence[LineageNode], indent: str, last: bool
) -> Iterator[tuple[str, LineageNode]]:
    """One of several descendants: the corner leads to its first node, and its chain runs down below that."""
    followed = any(other.parent == node.key for other in own)
    corner = ("└─" if last else "├─") + ("┬ " if followed else "─ ")
    yield indent + corner, node
    deeper = indent + ("  " if last else "│ ")
    children = [other for other in own if other.parent == node.key]
    if len(children) == 1:
        yield from _chain(children[0], own, deeper, "├ ", "└ ", last=True)
    else:
        for child in children:
            yield from _branch(child, own, deeper, last=child is children[-1])


def _cells(prefix: str, node: LineageNode) -> tuple[str, ...]:
    move = move_text(node)
    if node.move is None:
        figures = ("", "", "", "")
    else:
        per_kiloflop = None if node.gain_per_flop is None else 1000 * node.gain_per_flop
        figures = (
            f"gain {signed(node.gain)}",
            f"± {decimal(node.gain_stderr)}",
            f"{signed_count(node.added_flops)} FLOPs",
            f"{NOTHING if per_kiloflop is None else format(per_kiloflop, '.3g')} per kFLOP",
        )
    return (
        f"{prefix}round {node.round}  {move}",
        *figures,
        f"{count(node.flops_per_example)} FLOPs/example",
        f"validation loss {decimal(node.validation_loss)}",
        node.arch_id,
    )
