"""The torch network of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raygrow.architecture import INPUT, OUTPUT, Architecture, edge_flops, weight_shape
from raygrow.nn.layers import Layer
from raygrow.nn.maps import AbstractMap, map_of


def weight_name(source: str, target: str) -> str:
    """Name of an edge's weight in ``state_dict``; its shape is [target size, source size] and the taps of the reading."""
    return f"weights.{source}>{target}"


def bias_name(node: str) -> str:
    """Name of a node's bias in ``state_dict``; it has shape [size]."""
    return f"biases.{node}"


def gain_name(node: str) -> str:
    """Name of the gain of a normalised node in ``state_dict``; it has shape [size]."""
    return f"gains.{node}"


def shift_name(node: str) -> str:
    """Name of the shift of a normalised node in ``state_dict``; it has shape [size]."""
    return f"shifts.{node}"


def moment_names(node: str) -> tuple[str, str]:
    """Names of the running mean and variance of a node with batch norm in ``state_dict``; each has shape [size]."""
    return f"running.{node}_mean", f"running.{node}_variance"


@dataclass(frozen=True)
class Trace:
    """Everything one forward pass computed.

    Attributes:
        values: of every node, [n, size, *value grid]; the input's are the examples themselves.
        preactivations: of every node but the input, [n, size, *grid].
    """

    values: Mapping[str, Tensor]
    preactivations: Mapping[str, Tensor]

    @property
    def output(self) -> Tensor:
        return self.preactivations[OUTPUT]

    def head(self, examples: int) -> Trace:
        """The first so many examples, as views."""
        return Trace(
            {name: rows[:examples] for name, rows in self.values.items()},
            {name: rows[:examples] for name, rows in self.preactivations.items()},
        )


class Read(NamedTuple):
    """One edge into a node: whose value it reads, how, with which weight, at how many FLOPs per example."""

    source: str
    map: AbstractMap
    weight: Tensor | None
    flops: int


class Step(NamedTuple):
    """One node of the walk."""

    name: str
    reads: list[Read]
    bias: Tensor
    layer: Layer
    function: Callable[[Tensor], Tensor]


class Network(nn.Module):
    """A DAG of nodes; every weight and bias starts at 0, every gain at 1.

    A zero start makes the linear network of the first round a convex problem from its centre, which keeps the control
    of the first probes honest (an unconverged random start makes any growth look good).

    Attributes:
        named: the parameters, by their names in ``state_dict``.
        moments: the running moments of batch norm, likewise.
        steps: the nodes but the input, in topological order.
        flops: per example of a forward pass.
    """

    def __init__(self, arch: Architecture, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.arch = arch

        def full(shape: tuple[int, ...], value: float = 0.0) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value, dtype=dtype))

        normed = [node for node in arch.nodes[1:] if node.norm != "none"]
        groups = {
            "weights": {
                f"{e.source}>{e.target}": full(weight_shape(arch, e)) for e in arch.edges if e.reading.weighted
            },
            "biases": {node.name: full((node.size,)) for node in arch.nodes[1:]},
            "gains": {node.name: full((node.size,), 1.0) for node in normed},
            "shifts": {node.name: full((node.size,)) for node in normed},
        }
        self.weights, self.biases = nn.ParameterDict(groups["weights"]), nn.ParameterDict(groups["biases"])
        if normed:
            self.gains, self.shifts = nn.ParameterDict(groups["gains"]), nn.ParameterDict(groups["shifts"])
        # The parameters by their names in ``state_dict``: asking the module for them costs more than copying them.
        self.named = {f"{kind}.{key}": p for kind, group in groups.items() for key, p in group.items()}
        if batched := [node for node in normed if node.norm == "batch"]:
            self.running = nn.Module()
        for node in batched:
            self.running.register_buffer(f"{node.name}_mean", torch.zeros(node.size, dtype=dtype))
            self.running.register_buffer(f"{node.name}_variance", torch.ones(node.size, dtype=dtype))
        self._lay_out()

    def _lay_out(self) -> None:
        """The walk is laid out once: a forward pass of a tiny network is bound by Python, not by arithmetic."""
        arch = self.arch
        self.moments = dict(self.named_buffers())
        self._grid = arch.by_name[INPUT].grid
        edges = {(e.source, e.target): e for e in arch.edges}
        self.steps: list[Step] = []
        for name in arch.order:
            if name == INPUT:
                continue
            reads = []
            for source in arch.parents(name):
                edge = edges[source, name]
                reading = map_of(edge.reading, arch.by_name[source].value_grid)
                weight = self.named.get(weight_name(source, name))
                reads.append(Read(source, reading, weight, edge_flops(arch, edge)))
            layer = Layer(
                arch.by_name[name],
                self.named.get(gain_name(name)),
                self.named.get(shift_name(name)),
                *(self.moments.get(moment) for moment in moment_names(name)),
            )
            self.steps.append(Step(name, reads, self.named[bias_name(name)], layer, layer.function))
        self.flops = sum(read.flops for step in self.steps for read in step.reads)
        self._tails: dict[frozenset[str], int] = {}

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Network:
        """Moved to another device: buffers are new tensors then."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._lay_out()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs] to logits or standardised predictions [n, outputs]."""
        return self.trace(x).output

    def trace(self, x: Tensor) -> Trace:
        """A forward pass that keeps every value and pre-activation; x [n, inputs], channels first where there is a grid."""
        values: dict[str, Tensor] = {INPUT: self.shaped(x)}
        preactivations: dict[str, Tensor] = {}
        for name, reads, bias, _, function in self.steps:
            total = self._read(reads, bias, values, x.shape[0])
            preactivations[name] = total
            values[name] = function(total)
        return Trace(values, preactivations)

    def trained(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs as in training: batch norm by the batch's own moments, which the running ones follow, and dropout."""
        values: dict[str, Tensor] = {INPUT: self.shaped(x)}
        for name, reads, bias, layer, function in self.steps:
            total = self._read(reads, bias, values, x.shape[0])
            values[name] = function(total) if layer.node.plain else layer.trained(total, generator)
        return values[OUTPUT]

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the moments of batch norm to those of these examples, from the input on."""
        values: dict[str, Tensor] = {INPUT: self.shaped(x)}
        for name, reads, bias, layer, function in self.steps:
            total = self._read(reads, bias, values, x.shape[0])
            layer.calibrate(total)
            values[name] = function(total)

    def shaped(self, x: Tensor) -> Tensor:
        """Examples [n, inputs] as values of the input."""
        return x.reshape(x.shape[0], -1, *self._grid) if self._grid else x

    @staticmethod
    def _read(reads: list[Read], bias: Tensor, values: Mapping[str, Tensor], n: int) -> Tensor:
        if not reads:
            return bias.expand(n, -1)
        source, reading, weight, _ = reads[0]
        total = reading.read(values[source], weight, bias)
        for source, reading, weight, _ in reads[1:]:
            total = total + reading.read(values[source], weight)
        return total

    @torch.no_grad()
    def tail(self, trace: Trace, deltas: Mapping[str, Tensor], scales: Tensor) -> Tensor:
        """Outputs after adding ``scale * delta`` to pre-activations, for many scales in one pass.

        Args:
            trace: a forward pass of this network on n examples.
            deltas: what to add, by node, each [n, size, *grid].
            scales: [g].

        Returns:
            [g, n, outputs]. Only the nodes downstream of a delta are computed again.
        """
        change: dict[str, Tensor] = {}
        moved: Tensor | None = None
        for name, reads, _, layer, _ in self.steps:
            touched = [read for read in reads if read.source in change]
            if name not in deltas and not touched:
                continue
            total = trace.preactivations[name]
            if name in deltas:
                total = torch.addcmul(total, scales.view(-1, *(1 for _ in total.shape)), deltas[name])
            for source, reading, weight, _ in touched:
                # A weightless reading gives its source's own values, which others read too.
                total = (
                    reading.read(change[source], weight) + total
                    if weight is None
                    else (reading.read(change[source], weight).add_(total))
                )
            if name == OUTPUT:
                moved = total
            else:
                change[name] = layer.over(total).sub_(trace.values[name])
        return trace.output.expand(scales.shape[0], -1, -1) if moved is None else moved

    def moved(self, trace: Trace, deltas: Mapping[str, Tensor]) -> Trace:
        """The forward pass after adding deltas to pre-activations: only nodes downstream of one are computed again.

        Costs the FLOPs of ``tail`` for one scale.
        """
        values, preactivations = dict(trace.values), dict(trace.preactivations)
        changed: set[str] = set()
        with torch.no_grad():
            for name, reads, _, _, function in self.steps:
                touched = [read for read in reads if read.source in changed]
                if name not in deltas and not touched:
                    continue
                total = trace.preactivations[name]
                if name in deltas:
                    total = total + deltas[name]
                for source, reading, weight, _ in touched:
                    total = total + reading.read(values[source] - trace.values[source], weight)
                preactivations[name], values[name] = total, function(total)
                changed.add(name)
        return Trace(values, preactivations)

    def tail_flops(self, deltas: Mapping[str, Tensor]) -> int:
        """FLOPs per example and scale of ``tail``."""
        key = frozenset(deltas)
        if key not in self._tails:
            changed: set[str] = set()
            self._tails[key] = 0
            for name, reads, *_ in self.steps:
                touched = [read for read in reads if read.source in changed]
                if name in deltas or touched:
                    changed.add(name)
                    self._tails[key] += sum(read.flops for read in touched)
        return self._tails[key]
