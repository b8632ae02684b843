"""Mixers of positions and of channels."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar, final

from raygrow.architecture.families.base import AbstractFamily, Choices, Draft
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import Convolution, Transposed
from raygrow.architecture.spec import Architecture, Node
from raygrow.errors import ConfigError


@final
class Mixer(AbstractFamily):
    """A stream of patches to which blocks over positions and blocks over channels add (Tolstikhin et al. 2021), from one block
    of two units of either.

    For the blocks over positions the stream is read transposed, positions as units, and taken back. Both kinds are then
    residual blocks of a stream, whose hidden units and number grow; its channels and its positions cannot.
    """

    name: ClassVar[str] = "mixer"
    moves: ClassVar[tuple[str, ...]] = ("widen", "add_block", "prune")
    dimensions: ClassVar[tuple[int, ...]] = (1, 2)
    widths: ClassVar[tuple[int, ...]] = (16,)

    def palette(self, choices: Choices) -> Palette:
        """Every position by itself: a larger kernel would mix neighbours, as no mixer does."""
        return replace(super().palette(choices), kernels=(1,))

    def _start(self, source: Node, outputs: int, choices: Choices) -> Architecture:
        patch, grid, dimensions = choices.patch, source.grid, len(source.grid)
        if any(n % patch for n in grid) or prod(grid) <= patch**dimensions:
            raise ConfigError(
                f"`network.patch` must divide {' and '.join(map(str, grid))} and leave more than one patch, but got {patch}"
            )
        widths = self.chosen_widths(choices)
        if len(widths) != 1:
            raise ConfigError(
                f"`network.widths` of a mixer names the channels of its one stream, but got {list(widths)}"
            )
        draft = Draft(source, self.palette(choices))
        patches = Convolution((patch,) * dimensions, (patch,) * dimensions, (0,) * dimensions)
        stream = draft.stream(widths[0], patches.grid(grid), {source.name: patches})
        tokens = draft.stream(prod(stream.grid), (stream.size,), {stream.name: Transposed((stream.size,))})
        tokens = draft.block(tokens, Convolution.same(1, 1))
        stream = draft.stream(stream.size, stream.grid, {tokens.name: Transposed(stream.grid)})
        return draft.headed(outputs, draft.block(stream, Convolution.same(1, dimensions)), cells=1)
