"""Tensors of ``raygrow.architecture.readings``: how a value is read, as rows and as a whole.

Values have shape [..., units, *grid]. A weight [outputs, units, *taps], flattened after its first dimension, is the matrix that
acts on rows [..., positions, units x taps]: one row a position of the target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raygrow.architecture import AbstractReading, Convolution, Grid, Identity, Linear, Pooled, Transposed

NARROW = 16
"""With fewer columns than this on the right, BLAS is two to four times as fast at the transposed product."""


def over_examples(function: Callable[[Tensor], Tensor], values: Tensor, rank: int) -> Tensor:
    """Apply a function of [n, ...] to values with more than one leading dimension, where it takes just one.

    Args:
        rank: dimensions after the leading ones.
    """
    lead = values.shape[:-rank]
    if len(lead) == 1:
        return function(values)
    found = function(values.flatten(0, len(lead) - 1))
    return found.view(*lead, *found.shape[1:])


class AbstractMap(ABC):
    """A reading of values with given positions.

    Args:
        reading: what it is.
        source: positions of the values.
    """

    def __init__(self, reading: Any, source: Grid) -> None:
        self.reading, self.source, self.target = reading, source, reading.grid(source)

    @abstractmethod
    def read(self, values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """Pre-activations [..., outputs, *target grid]."""

    @abstractmethod
    def rows(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        """What the weight acts on: [n, positions, units x taps].

        Args:
            values: [n, units, *source grid].
            at: flat positions of the target grid, [n, m], so many of each example; None for all.
        """

    @abstractmethod
    def pull(self, gradient: Tensor, weight: Tensor | None) -> Tensor:
        """The adjoint of ``read``: [n, outputs, *target grid] to [n, units, *source grid]."""

    @abstractmethod
    def spread(self, gradient: Tensor) -> Tensor:
        """Pull back as if one tap joined every target position to the source: [n, q, *target grid] to [n, q, *source grid].

        The restricted fan-out of a convolution (growth_math 1.7), its centre tap; of cells, the mean over them all.
        """

    def spread_taps(self, gradient: Tensor) -> Tensor:
        """Pull back through every tap by itself: [n, q, *target grid] to [n, q x taps, *source grid].

        The unfolded fan-out of growth_math 1.7, exact for any stride and padding.
        """
        return self.spread(gradient)


class _LinearMap(AbstractMap):
    def read(self, values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        assert weight is not None
        # In a graph the calls of the other way would be nodes of it.
        recorded = torch.is_grad_enabled() and (weight.requires_grad or values.requires_grad)
        if recorded or weight.shape[0] >= NARROW or values.device.type != "cpu":
            return F.linear(values, weight, bias)
        found = torch.mm(weight, values.flatten(0, -2).t()).t()
        if bias is not None:
            found.add_(bias)
        return found if values.dim() == 2 else found.view(*values.shape[:-1], -1)

    def rows(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        return values.unsqueeze(1)

    def pull(self, gradient: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return gradient @ weight

    def spread(self, gradient: Tensor) -> Tensor:
        return gradient


class _ConvolutionMap(AbstractMap):
    def __init__(self, reading: Convolution, source: Grid) -> None:
        super().__init__(reading, source)
        image = len(source) == 2
        self._convolve: Callable[..., Tensor] = F.conv2d if image else F.conv1d
        self._transpose: Callable[..., Tensor] = F.conv_transpose2d if image else F.conv_transpose1d
        # What a stride leaves unread at the far end, so that the adjoint has the size of the source.
        self._unread = tuple(
            n + 2 * p - k - (m - 1) * s
            for n, m, k, s, p in zip(source, self.target, reading.kernel, reading.stride, reading.padding, strict=True)
        )

    def read(self, values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        stride, padding = self.reading.stride, self.reading.padding
        return over_examples(
            lambda flat: self._convolve(flat, weight, bias, stride, padding), values, 1 + len(self.source)
        )

    @cached_property
    def _taps(self) -> tuple[Tensor, Tensor]:
        """Flat place in the source that each tap of each target position reads, and whether it lies there or in the padding;
        [positions, taps]."""
        reading: Convolution = self.reading
        axes = [
            (torch.arange(m) * s - p)[:, None] + torch.arange(k)[None, :]
            for m, s, k, p in zip(self.target, reading.stride, reading.kernel, reading.padding, strict=True)
        ]
        inside = [(axis >= 0) & (axis < n) for axis, n in zip(axes, self.source, strict=True)]
        if len(axes) == 1:
            return axes[0].clamp(0, self.source[0] - 1), inside[0]
        (y, x), (height, width) = axes, self.source
        places = y.clamp(0, height - 1)[:, None, :, None] * width + x.clamp(0, width - 1)[None, :, None, :]
        there = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        return places.flatten(2).flatten(0, 1), there.flatten(2).flatten(0, 1)

    def rows(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        n, units = values.shape[:2]
        taps, there = (table.to(values.device) for table in self._taps)
        flat = values.flatten(2)
        if at is None:
            found = flat[:, :, taps.flatten()].view(n, units, *taps.shape) * there
            return found.transpose(1, 2).flatten(2)
        places = taps[at]
        found = flat.gather(2, places.flatten(1).unsqueeze(1).expand(-1, units, -1)).view(n, units, *places.shape[1:])
        return (found * there[at].unsqueeze(1)).transpose(1, 2).flatten(2)

    def pull(self, gradient: Tensor, weight: Tensor | None) -> Tensor:
        reading: Convolution = self.reading
        found: Tensor = self._transpose(gradient, weight, None, reading.stride, reading.padding, self._unread)
        return found

    def spread(self, gradient: Tensor) -> Tensor:
        return self._through(gradient, tuple(k // 2 for k in self.reading.kernel))

    def spread_taps(self, gradient: Tensor) -> Tensor:
        taps = product(*(range(k) for k in self.reading.kernel))
        return torch.stack([self._through(gradient, tap) for tap in taps], 2).flatten(1, 2)

    def _through(self, gradient: Tensor, tap: tuple[int, ...]) -> Tensor:
        """Pull back through one tap of the kernel."""
        reading: Convolution = self.reading
        found = gradient.new_zeros(*gradient.shape[:2], *self.source)
        into: list[Any] = [slice(None), slice(None)]
        out: list[Any] = [slice(None), slice(None)]
        for n, m, e, s, p in zip(self.source, self.target, tap, reading.stride, reading.padding, strict=True):
            # Target position j reads the source at j s + offset through this tap.
            offset = e - p
            first = max(-(offset // s), 0) if offset < 0 else 0
            last = min((n - 1 - offset) // s, m - 1)
            into.append(slice(first * s + offset, last * s + offset + 1, s))
            out.append(slice(first, last + 1))
        found[tuple(into)] = gradient[tuple(out)]
        return found


class _PooledMap(AbstractMap):
    def __init__(self, reading: Pooled, source: Grid) -> None:
        super().__init__(reading, source)
        self._flat = reading.cells == source

    def cells(self, values: Tensor) -> Tensor:
        """Means over the cells, [..., units, *cells]."""
        if self._flat:
            return values
        pool: Callable[..., Tensor] = F.adaptive_avg_pool2d if len(self.source) == 2 else F.adaptive_avg_pool1d
        return over_examples(lambda flat: pool(flat, self.reading.cells), values, 1 + len(self.source))

    def read(self, values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        assert weight is not None
        return F.linear(self.cells(values).flatten(-1 - len(self.source)), weight.flatten(1), bias)

    def rows(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        return self.cells(values).flatten(1).unsqueeze(1)

    @cached_property
    def _shares(self) -> list[Tensor]:
        """By dimension: what each cell takes of each position, [cells, positions]."""
        return [
            F.adaptive_avg_pool1d(torch.eye(n, dtype=torch.float64), c).T.contiguous()
            for n, c in zip(self.source, self.reading.cells, strict=True)
        ]

    def pull(self, gradient: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        found: Tensor = (gradient @ weight.flatten(1)).view(len(gradient), *weight.shape[1:])
        if not self._flat:
            for axis, share in enumerate(self._shares):
                found = (found.movedim(2 + axis, -1) @ share.to(found)).movedim(-1, 2 + axis)
        return found

    def spread(self, gradient: Tensor) -> Tensor:
        everywhere = gradient.view(*gradient.shape, *(1 for _ in self.source)) / prod(self.source)
        return everywhere.expand(*gradient.shape, *self.source)

    def spread_taps(self, gradient: Tensor) -> Tensor:
        shares = self._shares[0]
        for share in self._shares[1:]:
            # [cells, positions] of one dimension after the other.
            shares = torch.einsum("ap,bq->abpq", shares, share).flatten(2).flatten(0, 1)
        found = torch.einsum("nq,cp->nqcp", gradient, shares.to(gradient))
        return found.reshape(len(gradient), -1, *self.source)


class _IdentityMap(AbstractMap):
    def read(self, values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        return values if bias is None else values + bias.view(-1, *(1 for _ in self.source))

    def rows(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        # No weight acts on it, so that no regression has a column for it.
        return values.new_empty(len(values), prod(self.source) if at is None else at.shape[1], 0)

    def pull(self, gradient: Tensor, weight: Tensor | None) -> Tensor:
        return gradient

    def spread(self, gradient: Tensor) -> Tensor:
        return gradient


class _TransposedMap(AbstractMap):
    def read(self, values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        found = self._exchanged(values, len(self.source), self.target)
        return found if bias is None else found + bias.view(-1, *(1 for _ in self.target))

    def rows(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        return values.new_empty(len(values), prod(self.target) if at is None else at.shape[1], 0)

    def pull(self, gradient: Tensor, weight: Tensor | None) -> Tensor:
        # A copy: what pulls on may write to it, and a view would change its child's own gradient.
        return self.spread(gradient).clone()

    def spread(self, gradient: Tensor) -> Tensor:
        return self._exchanged(gradient, len(self.target), self.source)

    @staticmethod
    def _exchanged(values: Tensor, rank: int, grid: Grid) -> Tensor:
        flat = values.flatten(-rank).transpose(-1, -2)
        return flat.reshape(*flat.shape[:-1], *grid)


MAPS: Mapping[type[AbstractReading], type[AbstractMap]] = {
    Linear: _LinearMap,
    Convolution: _ConvolutionMap,
    Pooled: _PooledMap,
    Identity: _IdentityMap,
    Transposed: _TransposedMap,
}


@lru_cache(maxsize=1024)
def map_of(reading: AbstractReading, source: Grid) -> AbstractMap:
    """The map of a reading from values with these positions; one serves all networks, since it holds no weight."""
    return MAPS[type(reading)](reading, source)
