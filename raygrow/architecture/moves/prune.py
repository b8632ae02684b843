"""Fewer units in a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from raygrow.architecture.moves.base import AbstractMove, check_units, is_stream
from raygrow.architecture.palette import Palette
from raygrow.architecture.spec import Architecture
from raygrow.errors import MoveError


@final
@dataclass(frozen=True, slots=True)
class Prune(AbstractMove):
    """Fewer units in a hidden node: the only move that saves FLOPs, judged by the same control at the same price.

    Which units go follows from the weights, not from the move: those that the others can stand in for at least cost
    (``raygrow.growth.pruning``).

    Attributes:
        removed: units that go; at least one stays.
    """

    kind: ClassVar[str] = "prune"
    node: str
    removed: int

    @property
    def site(self) -> str:
        return self.node

    @property
    def units(self) -> int:
        return self.removed

    def apply(self, arch: Architecture) -> Architecture:
        check_units(self)
        if self.node not in arch.hidden:
            raise MoveError(f"{self!r}: {self.node!r} is no hidden node; hidden nodes: {arch.hidden}")
        node = arch.by_name[self.node]
        if self.removed >= node.size:
            raise MoveError(f"{self!r}: at least one of the {node.size} units of {self.node!r} must stay")
        if not _apart(arch, self.node):
            raise MoveError(
                f"{self!r}: units of {self.node!r} are tied to others by a weightless edge or a norm over units"
            )
        less = replace(node, size=node.size - self.removed)
        return Architecture(tuple(less if n is node else n for n in arch.nodes), arch.edges)

    def place(self, arch: Architecture) -> None:
        return None

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[Prune]:
        for name in arch.hidden:
            if _apart(arch, name):
                yield from (cls(name, count) for count in units if count < arch.size(name))


def _apart(arch: Architecture, name: str) -> bool:
    """Whether a unit can go without the others noticing."""
    return not is_stream(arch, name) and not arch.by_name[name].blocks
