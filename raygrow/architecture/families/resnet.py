"""Residual streams."""

from __future__ import annotations

from typing import ClassVar, final

from raygrow.architecture.families.base import AbstractFamily, Choices, Draft
from raygrow.architecture.readings import Convolution
from raygrow.architecture.spec import Architecture, Node


@final
class ResNet(AbstractFamily):
    """Stages of a stream that residual blocks add to (He et al. 2016), from a block of two channels a stage.

    A stage begins with a convolution onto its stream, with stride 2 after the first; nothing but blocks is nonlinear, so that a
    stream is the sum of what was added to it. The width of a stream is that of every block beside it and cannot grow: it is
    chosen at the start, and the blocks grow in width and number.
    """

    name: ClassVar[str] = "resnet"
    moves: ClassVar[tuple[str, ...]] = ("widen", "add_block", "prune")
    dimensions: ClassVar[tuple[int, ...]] = (1, 2)
    widths: ClassVar[tuple[int, ...]] = (8, 16)

    def _start(self, source: Node, outputs: int, choices: Choices) -> Architecture:
        draft, last = Draft(source, self.palette(choices)), source
        kernel, dimensions = choices.kernels[0], len(source.grid)
        for stage, width in enumerate(self.chosen_widths(choices)):
            onto = Convolution.same(kernel, dimensions, stride=2 if stage else 1)
            last = draft.stream(width, onto.grid(last.grid), {last.name: onto})
            last = draft.block(last, Convolution.same(kernel, dimensions))
        return draft.headed(outputs, last, cells=1)
