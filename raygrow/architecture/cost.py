"""Closed-form counts of parameters and FLOPs. One multiply-accumulate is 2 FLOPs; biases, norms, activations and pooling
count 0.

The convention is that of ``torch.utils.flop_counter``, against which the tests hold these formulas.
"""

from __future__ import annotations

from math import prod

from raygrow.architecture.spec import INPUT, Architecture, Edge


def params(arch: Architecture) -> int:
    """Trainable scalars: the weight of every edge, a bias a unit, gain and shift of every normalised unit."""
    units = sum(node.size * (1 if node.norm == "none" else 3) for node in arch.nodes[1:])
    return units + sum(prod(weight_shape(arch, edge)) for edge in arch.edges if edge.reading.weighted)


def weight_shape(arch: Architecture, edge: Edge) -> tuple[int, ...]:
    """Shape of the weight of an edge."""
    source, target = arch.by_name[edge.source], arch.by_name[edge.target]
    return edge.reading.weight_shape(source.size, source.value_grid, target.size)


def edge_flops(arch: Architecture, edge: Edge) -> int:
    """FLOPs per example of reading along one edge."""
    source, target = arch.by_name[edge.source], arch.by_name[edge.target]
    return edge.reading.flops(source.size, source.value_grid, target.size)


def forward_flops(arch: Architecture) -> int:
    """FLOPs per example of one forward pass."""
    return sum(edge_flops(arch, edge) for edge in arch.edges)


def backward_flops(arch: Architecture, weights: bool = True) -> int:
    """FLOPs per example of one backward pass.

    Args:
        weights: with the gradients of the weights; without, only those of the pre-activations (statistics passes).

    The gradient with respect to the network's own input is never computed.
    """
    hidden_sources = sum(edge_flops(arch, edge) for edge in arch.edges if edge.source != INPUT)
    return hidden_sources + (forward_flops(arch) if weights else 0)


def training_flops(arch: Architecture) -> int:
    """FLOPs per example of one training step: forward, and backward with weight gradients."""
    return forward_flops(arch) + backward_flops(arch)
