"""The calls of one step of packed training: views into flat buffers, laid out once for a batch size.

A step then walks lists of ready arguments. Values are [units, batch]: unit by example, so that units of different
networks are rows of one contiguous matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from raygrow.nn.kernels import KERNELS, Kernel
from raygrow.nn.losses import AbstractLoss
from raygrow.training.layout import Part, Segment
from raygrow.training.place import aligned


class _Values:
    """Pre-activations z, values h and gradients of one segment, [networks, units, batch]; views.

    Attributes:
        written: some product of the backward pass, as laid out so far, writes ``gradient``.
    """

    def __init__(self, segment: Segment, z: Tensor, h: Tensor, gradient: Tensor) -> None:
        shape = (len(segment.networks), segment.units, z.shape[-1])
        self.z, self.h, self.gradient = z.view(shape), h.view(shape), gradient.view(shape)
        self.written = False


class _Band:
    """Segments of one part, level and activation: a contiguous stretch of rows, and everything that feeds it.

    Args:
        bias, bias_gradient: [rows].
        z, h, gradient: [rows, batch]; ``gradient`` is dloss/dh, then dloss/dz.
    """

    def __init__(self, bias: Tensor, bias_gradient: Tensor, z: Tensor, h: Tensor, gradient: Tensor) -> None:
        self.bias, self.bias_gradient = bias[:, None], bias_gradient
        self.z, self.h, self.gradient = z, h, gradient
        # Of the examples: rows of z, weights [rows, inputs], rows of dloss/dz, gradient of the weights.
        self.reads: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        # Of other units, batched over networks: z, weights [networks, target units, source units], source values.
        self.products: list[tuple[Tensor, Tensor, Tensor]] = []
        # dloss/dz, source values transposed, gradient of the weights, weights transposed, dloss/dh of the source, first.
        self.backs: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, bool]] = []

    def forward(self, columns: Tensor) -> None:
        """z from examples [inputs, batch] and from the values of earlier levels."""
        self.z.copy_(self.bias)
        for z, weights, *_ in self.reads:
            z.addmm_(weights, columns)
        for z, weights, values in self.products:
            z.baddbmm_(weights, values)

    def backward(self, x: Tensor) -> None:
        """Gradients of weights and biases, and dloss/dh of what was read, from dloss/dz; x [batch, inputs]."""
        torch.sum(self.gradient, 1, out=self.bias_gradient)
        for _, _, gradient, weights_gradient in self.reads:
            torch.mm(gradient, x, out=weights_gradient)
        for gradient, values, weights_gradient, weights, source, first in self.backs:
            torch.bmm(gradient, values, out=weights_gradient)
            if first:
                torch.bmm(weights, gradient, out=source)
            else:
                source.baddbmm_(weights, gradient)


class Workspace:
    """One step's forward and backward pass of all parts, without allocation.

    Args:
        parts: of the pack.
        params, gradients: the pack's buffers.
        batch: examples a step.
    """

    def __init__(self, parts: Sequence[Part], params: Tensor, gradients: Tensor, batch: int) -> None:
        self._params, self._gradients, self._batch = params, gradients, batch
        self._parts = parts
        self._values: list[dict[Segment, _Values]] = [{} for _ in parts]
        # Hidden levels: bands with the position of their part, and activations over adjacent bands.
        self._levels: list[tuple[list[tuple[int, _Band]], list[tuple[Kernel, Tensor, Tensor, Tensor]]]] = []
        deepest = max(part.layout.levels for part in parts)
        for level in range(1, deepest):
            self._levels.append(self._level(level))
        self._outputs = [self._output(i) for i in range(len(parts))]
        # In the order of the backward pass, so that the first to reach a source writes and the others add.
        self._zeroed: list[Tensor] = []
        for i, band in enumerate(self._outputs):
            self._connect(i, band, parts[i].layout.segments[-1:])
        for level in range(deepest - 1, 0, -1):
            at = iter(self._levels[level - 1][0])
            for i, segments in self._stretches(level):
                self._connect(i, next(at)[1], segments)

    def _stretches(self, level: int) -> Iterator[tuple[int, list[Segment]]]:
        """Hidden segments of a level, part by part, those of one activation together."""
        for i, part in enumerate(self._parts):
            here = [s for s in part.layout.segments[:-1] if s.level == level]
            for _, group in groupby(here, key=lambda s: s.activation):
                yield i, list(group)

    def _level(self, level: int) -> tuple[list[tuple[int, _Band]], list[tuple[Kernel, Tensor, Tensor, Tensor]]]:
        stretches = list(self._stretches(level))
        sizes = [aligned(sum(s.rows for s in segments) * self._batch) for _, segments in stretches]
        z, h, gradient = (self._params.new_zeros(sum(sizes)) for _ in range(3))
        bands: list[tuple[int, _Band]] = []
        kinds: list[tuple[str, int, int]] = []
        at = 0
        for (i, segments), size in zip(stretches, sizes, strict=True):
            bands.append((i, self._band(i, segments, z[at:], h[at:], gradient[at:])))
            kinds.append((segments[0].activation, at, at + size))
            at += size
        activations = []
        for activation, group in groupby(kinds, key=lambda kind: kind[0]):
            spans = list(group)
            span = slice(spans[0][1], spans[-1][2])
            activations.append((KERNELS[activation], z[span], h[span], gradient[span]))
        return bands, activations

    def _output(self, i: int) -> _Band:
        """The output of a part, whose values are its pre-activations."""
        segments = self._parts[i].layout.segments[-1:]
        z, gradient = (self._params.new_zeros(segments[0].rows * self._batch) for _ in range(2))
        return self._band(i, segments, z, z, gradient)

    def _band(self, i: int, segments: Sequence[Segment], z: Tensor, h: Tensor, gradient: Tensor) -> _Band:
        """A band at the beginning of these buffers."""
        rows = sum(segment.rows for segment in segments)
        z, h, gradient = (buffer[: rows * self._batch].view(rows, self._batch) for buffer in (z, h, gradient))
        first = self._parts[i].biases[segments[0]]
        at = 0
        for segment in segments:
            span = slice(at, at + segment.rows)
            self._values[i][segment] = _Values(segment, z[span], h[span], gradient[span])
            at += segment.rows
        return _Band(self._params[first : first + rows], self._gradients[first : first + rows], z, h, gradient)

    def _connect(self, i: int, band: _Band, segments: Sequence[Segment]) -> None:
        """Give a band the blocks that feed its segments."""
        part = self._parts[i]
        for block in part.layout.blocks:
            if block.target not in segments:
                continue
            target = self._values[i][block.target]
            start, units = part.weights[block], block.target.units
            width = block.source.units if block.source else part.inputs
            span = slice(start, start + len(block.networks) * units * width)
            weights, gradient = (b[span].view(-1, units, width) for b in (self._params, self._gradients))
            if block.source is None:
                for mine, fed in _runs(block.networks, block.target.networks):
                    band.reads.append(
                        (target.z[fed].flatten(0, 1), weights[mine].flatten(0, 1),
                         target.gradient[fed].flatten(0, 1), gradient[mine].flatten(0, 1))
                    )  # fmt: skip
                continue
            source = self._values[i][block.source]
            for mine, fed, read in _runs(block.networks, block.target.networks, block.source.networks):
                first = not source.written
                if first and read != slice(0, len(block.source.networks)):
                    # Networks that this product does not write; a later one adds to them.
                    self._zeroed.append(source.gradient)
                source.written = True
                band.products.append((target.z[fed], weights[mine], source.h[read]))
                band.backs.append(
                    (target.gradient[fed], source.h[read].mT, gradient[mine], weights[mine].mT, source.gradient[read],
                     first)
                )  # fmt: skip

    def step(self, batches: Sequence[Tensor], wanted: Sequence[Tensor], loss: AbstractLoss) -> None:
        """Gradients of the mean loss of every network on its part's batch.

        Args:
            batches: examples of every part, [batch, inputs].
            wanted: what they should give, ``AbstractLoss.columns``, [outputs, batch].
        """
        columns = [x.t() for x in batches]
        for bands, activations in self._levels:
            for i, band in bands:
                band.forward(columns[i])
            for kernel, z, h, _ in activations:
                kernel.forward(z, h)
        for gradient in self._zeroed:
            gradient.zero_()
        for i, band in enumerate(self._outputs):
            band.forward(columns[i])
            (values,) = (self._values[i][s] for s in self._parts[i].layout.segments[-1:])
            loss.gradient(values.z, wanted[i], values.gradient)
            band.backward(batches[i])
        for bands, activations in reversed(self._levels):
            for kernel, z, h, gradient in activations:
                kernel.backward(gradient, z, h)
            for i, band in bands:
                band.backward(batches[i])


def _runs(networks: Sequence[int], *others: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Maximal stretches of ``networks`` that are contiguous in each of ``others``: positions there, its own first."""
    at = [list(range(len(networks))), *([other.index(network) for network in networks] for other in others)]
    begin = 0
    for i in range(1, len(networks) + 1):
        if i == len(networks) or any(places[i] != places[i - 1] + 1 for places in at):
            yield tuple(slice(places[begin], places[begin] + i - begin) for places in at)
            begin = i
