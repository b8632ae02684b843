"""Moves: the ways one architecture becomes another, their legality and their enumeration.

Everything here follows from the architecture alone, without a model or a tensor, so that every process that enumerates
the moves of an architecture finds the same ones in the same order. A new kind of move is a file and an entry in ``MOVES``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raygrow.architecture.cost import forward_flops, params
from raygrow.architecture.moves.add_block import AddBlock
from raygrow.architecture.moves.add_edge import AddEdge
from raygrow.architecture.moves.add_node import AddNode
from raygrow.architecture.moves.base import AbstractMove, Site
from raygrow.architecture.moves.hold import Hold
from raygrow.architecture.moves.insert_layer import InsertLayer
from raygrow.architecture.moves.prune import Prune
from raygrow.architecture.moves.widen import Widen
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import reading_from_json
from raygrow.architecture.spec import Architecture
from raygrow.errors import MoveError

__all__ = [
    "GROWING_MOVES", "MOVES", "AbstractMove", "AddBlock", "AddEdge", "AddNode", "Hold", "InsertLayer", "Prune", "Site",
    "Widen", "legal_moves", "move_from_json",
]  # fmt: skip

MOVES: tuple[type[AbstractMove], ...] = (Widen, AddNode, AddEdge, InsertLayer, AddBlock, Prune, Hold)
GROWING_MOVES: tuple[type[AbstractMove], ...] = tuple(move for move in MOVES if move is not Hold)


def move_from_json(form: Mapping[str, Any]) -> AbstractMove:
    """Inverse of ``AbstractMove.to_json``."""
    for cls in MOVES:
        if cls.kind == form.get("kind"):
            return cls(**{key: _read(value) for key, value in form.items() if key != "kind"})
    raise MoveError(f"unknown move kind {form.get('kind')!r}; known: {', '.join(m.kind for m in MOVES)}")


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return reading_from_json(value)
    return tuple(map(_read, value)) if isinstance(value, list) else value


def legal_moves(
    arch: Architecture,
    *,
    kinds: Iterable[str],
    units: Sequence[int],
    palette: Palette,
    max_flops: int | None = None,
    max_params: int | None = None,
) -> tuple[AbstractMove, ...]:
    """Every legal move, sorted, that stays within the budget.

    Args:
        kinds: kinds of move to consider, by their ``kind``.
        units: sizes to offer, ascending.
        palette: what new nodes are made of.
        max_flops: forward FLOPs per example that the grown architecture may not exceed.
        max_params: parameters that it may not exceed.
    """
    wanted = set(kinds)
    found: list[AbstractMove] = []
    for cls in GROWING_MOVES:
        if cls.kind not in wanted:
            continue
        for move in cls.enumerate(arch, sorted(set(units)), palette):
            grown = move.apply(arch)
            if max_flops is not None and forward_flops(grown) > max_flops:
                continue
            if max_params is not None and params(grown) > max_params:
                continue
            found.append(move)
    return tuple(sorted(found, key=lambda move: (move.kind, move.site, move.units)))
