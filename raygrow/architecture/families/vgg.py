"""Convolutions one after the other."""

from __future__ import annotations

from typing import ClassVar, final

from raygrow.architecture.families.base import AbstractFamily, Choices, Draft
from raygrow.architecture.readings import Convolution
from raygrow.architecture.spec import Architecture, Node
from raygrow.errors import ConfigError


@final
class Vgg(AbstractFamily):
    """A chain of stages, a maximum over 2 positions a dimension between them, and a pooled linear head (Simonyan and Zisserman
    2015). It starts with one convolution a stage of a few channels: through a stage of one, nothing that is widened before
    it could pass."""

    name: ClassVar[str] = "vgg"
    moves: ClassVar[tuple[str, ...]] = ("widen", "insert_layer", "prune")
    dimensions: ClassVar[tuple[int, ...]] = (1, 2)
    widths: ClassVar[tuple[int, ...]] = (4, 8)

    def _start(self, source: Node, outputs: int, choices: Choices) -> Architecture:
        draft, last, widths = Draft(source, self.palette(choices)), source, self.chosen_widths(choices)
        kernel = Convolution.same(choices.kernels[0], len(source.grid))
        if min(source.grid) < 2 ** (len(widths) - 1):
            raise ConfigError(
                f"`network.widths` names {len(widths)} stages and each but the last halves the positions, but an example has "
                f"only {'x'.join(map(str, source.grid))} of them: name fewer stages"
            )
        for stage, width in enumerate(widths, start=1):
            pool = 2 if stage < len(widths) else 1
            last = draft.layer(width, last.value_grid, {last.name: kernel}, pool)
        return draft.headed(outputs, last, choices.cells)
