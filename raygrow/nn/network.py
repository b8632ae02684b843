"""The torch network of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raygrow.architecture import INPUT, OUTPUT, Architecture
from raygrow.nn.activations import FUNCTIONS


def weight_name(source: str, target: str) -> str:
    """Name of an edge's matrix in ``state_dict``; it has shape [target size, source size]."""
    return f"weights.{source}>{target}"


def bias_name(node: str) -> str:
    """Name of a node's bias in ``state_dict``; it has shape [size]."""
    return f"biases.{node}"


@dataclass(frozen=True)
class Trace:
    """Everything one forward pass computed.

    Attributes:
        values: activation values of every node, [n, size]; the input's are the examples themselves.
        preactivations: of every node but the input, [n, size].
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


class Network(nn.Module):
    """A DAG of dense nodes; every weight and bias starts at 0.

    A zero start makes the linear network of the first round a convex problem from its centre, which keeps the control
    of the first probes honest (an unconverged random start makes any growth look good).
    """

    def __init__(self, arch: Architecture, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.arch = arch
        weights = {
            f"{e.source}>{e.target}": nn.Parameter(torch.zeros(arch.size(e.target), arch.size(e.source), dtype=dtype))
            for e in arch.edges
        }
        biases = {n.name: nn.Parameter(torch.zeros(n.size, dtype=dtype)) for n in arch.nodes[1:]}
        self.weights, self.biases = nn.ParameterDict(weights), nn.ParameterDict(biases)
        # The parameters by their names in ``state_dict``: asking the module for them costs more than copying them.
        self.named = {f"weights.{key}": p for key, p in weights.items()} | {f"biases.{k}": p for k, p in biases.items()}
        # The walk is laid out once: a forward pass of a tiny network is bound by Python, not by arithmetic.
        self._plan = [
            (
                name,
                [(source, weights[f"{source}>{name}"]) for source in arch.parents(name)],
                biases[name],
                FUNCTIONS[arch.by_name[name].activation],
            )
            for name in arch.order
            if name != INPUT
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs] to logits or standardised predictions [n, outputs]."""
        return self.trace(x).output

    def trace(self, x: Tensor) -> Trace:
        """A forward pass that keeps every value and pre-activation."""
        values: dict[str, Tensor] = {INPUT: x}
        preactivations: dict[str, Tensor] = {}
        for name, inputs, bias, activation in self._plan:
            if not inputs:
                total = bias.expand(len(x), -1)
            else:
                source, weight = inputs[0]
                total = F.linear(values[source], weight, bias)
                for source, weight in inputs[1:]:
                    total = total + F.linear(values[source], weight)
            preactivations[name] = total
            values[name] = activation(total)
        return Trace(values, preactivations)

    def tail(self, trace: Trace, deltas: Mapping[str, Tensor], scales: Tensor) -> Tensor:
        """Outputs after adding ``scale * delta`` to pre-activations, for many scales in one pass.

        Args:
            trace: a forward pass of this network on n examples.
            deltas: what to add, by node, each [n, size].
            scales: [g].

        Returns:
            [g, n, outputs]. Only the nodes downstream of a delta are computed again.
        """
        steps = scales.view(-1, 1, 1)
        change: dict[str, Tensor] = {}
        moved: Tensor = trace.output.unsqueeze(0)
        for name, inputs, _, activation in self._plan:
            touched = [(source, weight) for source, weight in inputs if source in change]
            if name not in deltas and not touched:
                continue
            total = trace.preactivations[name]
            if name in deltas:
                total = torch.addcmul(total, steps, deltas[name])
            for source, weight in touched:
                total = F.linear(change[source], weight).add_(total)
            if name == OUTPUT:
                moved = total
            else:
                change[name] = activation(total).sub_(trace.values[name])
        return moved.expand(len(scales), -1, -1)

    def moved(self, trace: Trace, deltas: Mapping[str, Tensor]) -> Trace:
        """The forward pass after adding deltas to pre-activations: only nodes downstream of one are computed again.

        Costs the FLOPs of ``tail`` for one scale.
        """
        values, preactivations = dict(trace.values), dict(trace.preactivations)
        changed: set[str] = set()
        with torch.no_grad():
            for name, inputs, _, activation in self._plan:
                touched = [(source, weight) for source, weight in inputs if source in changed]
                if name not in deltas and not touched:
                    continue
                total = trace.preactivations[name]
                if name in deltas:
                    total = total + deltas[name]
                for source, weight in touched:
                    total = total + F.linear(values[source] - trace.values[source], weight)
                preactivations[name], values[name] = total, activation(total)
                changed.add(name)
        return Trace(values, preactivations)

    def tail_flops(self, deltas: Mapping[str, Tensor]) -> int:
        """FLOPs per example and scale of ``tail``."""
        changed: set[str] = set()
        flops = 0
        for name, inputs, _, _ in self._plan:
            touched = [weight for source, weight in inputs if source in changed]
            if name in deltas or touched:
                changed.add(name)
                flops += sum(2 * weight.numel() for weight in touched)
        return flops
