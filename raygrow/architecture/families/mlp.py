"""Dense layers one after the other."""

from __future__ import annotations

from typing import ClassVar, final

from raygrow.architecture.families.base import AbstractFamily, Choices, Draft
from raygrow.architecture.readings import LINEAR, Pooled
from raygrow.architecture.spec import Architecture, Node


@final
class Mlp(AbstractFamily):
    """A chain of dense layers, from one of four units: a chain has no linear path beside them, so with one unit it would begin
    as a function of a single direction of its inputs. An image or signal is read as the vector of its values."""

    name: ClassVar[str] = "mlp"
    moves: ClassVar[tuple[str, ...]] = ("widen", "insert_layer", "prune")
    widths: ClassVar[tuple[int, ...]] = (4,)

    def _start(self, source: Node, outputs: int, choices: Choices) -> Architecture:
        draft, last = Draft(source, self.palette(choices)), source
        for width in self.chosen_widths(choices):
            last = draft.layer(width, (), {last.name: Pooled(last.grid) if last.grid else LINEAR})
        return draft.headed(outputs, last)
