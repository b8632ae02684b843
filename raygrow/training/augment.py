"""Light augmentation of a batch where it lies: random shifts, horizontal flips, cutout.

Draws come from a generator on the CPU, so that they are the same on every device; all else runs on the batch's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to training examples that have a shape; nothing by default.

    Raises:
        ValueError: a length is negative.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}

    shift: int = 0
    """Most positions by which an example is moved along each of its axes, either way, 0 or more."""
    flip: bool = False
    """Whether half of the examples are mirrored left to right (signals: in time)."""
    cutout: int = 0
    """Side of a square (signals: length of a stretch) that is blanked at a random place, in positions; 0: none."""

    def __post_init__(self) -> None:
        for name, value in (("shift", self.shift), ("cutout", self.cutout)):
            if value < 0:
                raise ValueError(f"`{name} >= 0` must hold, but got {value}")

    @property
    def active(self) -> bool:
        """Whether anything is done at all."""
        return bool(self.shift or self.flip or self.cutout)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse examples without positions to move.

        Raises:
            ValueError: something is to be done, and ``shape`` is not (channels, height, width) or (channels, length).
        """
        if self.active and len(shape) < 2:
            raise ValueError(
                "augmentation needs examples with a shape, and these are vectors: set data.shape, or leave it out"
            )


def augmented(x: Tensor, shape: tuple[int, ...], augment: Augment, generator: torch.Generator) -> Tensor:
    """Move, mirror and blank examples at random, each on its own; all channels of an example alike.

    A shift pads with 0, which is the channel's mean after standardisation, and so is what cutout writes (DeVries and
    Taylor 2017: the centre of the square is uniform over the positions, so that it may hang over the border).

    Args:
        x: [n, features], standardised; not written to.
        shape: of an example, (channels, height, width) or (channels, length), its values in C order.
        augment: what to do.
        generator: on the CPU; the draws depend on it, n, shape and ``augment`` alone.

    Returns:
        [n, features], on the device and of the type of ``x``; ``x`` itself where nothing is to be done.

    Raises:
        ValueError: examples have no shape, or another number of values than it holds.
    """
    if not augment.active:
        return x
    augment.check(shape)
    if math.prod(shape) != x.shape[1]:
        raise ValueError(f"examples of {x.shape[1]} features do not fill the shape {list(shape)}")
    n, sizes = len(x), shape[1:]
    shifts = torch.zeros(n, len(sizes), dtype=torch.long)
    flips = torch.zeros(n, dtype=torch.bool)
    if augment.shift:
        shifts = torch.randint(-augment.shift, augment.shift + 1, shifts.shape, generator=generator)
    if augment.flip:
        flips = torch.rand(n, generator=generator) < 0.5
    # Where each position is read from, and whether it is seen: per axis, then over the outer product of the axes.
    source = torch.zeros(n, 1, dtype=torch.long, device=x.device)
    seen = torch.ones(n, 1, dtype=torch.bool, device=x.device)
    cut = torch.full_like(seen, augment.cutout > 0)
    for axis, size in enumerate(sizes):
        positions = torch.arange(size, device=x.device)
        read = positions - shifts[:, axis].to(x.device)[:, None]
        inside = (read >= 0) & (read < size)
        read = read.clamp(0, size - 1)
        if axis == len(sizes) - 1:
            read = torch.where(flips.to(x.device)[:, None], size - 1 - read, read)
        source = (source[:, :, None] * size + read[:, None, :]).flatten(1)
        seen = (seen[:, :, None] & inside[:, None, :]).flatten(1)
        if augment.cutout:
            first = torch.randint(size, (n, 1), generator=generator).to(x.device) - augment.cutout // 2
            blank = (positions >= first) & (positions < first + augment.cutout)
            cut = (cut[:, :, None] & blank[:, None, :]).flatten(1)
    # Without cutout `cut` is still one false value an example.
    values = x.reshape(n, shape[0], math.prod(sizes)).gather(2, source[:, None, :].expand(-1, shape[0], -1))
    return values.masked_fill(~(seen & ~cut)[:, None, :], 0.0).flatten(1)
