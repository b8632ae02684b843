"""Closed-form counts of parameters and FLOPs. One multiply-accumulate is 2 FLOPs; biases and activations count 0.

The convention is that of ``torch.utils.flop_counter``, against which the tests hold these formulas.
"""

from __future__ import annotations

from raygrow.architecture.spec import INPUT, Architecture


def params(arch: Architecture) -> int:
    """Trainable scalars: one weight matrix an edge, one bias vector for every node but the input."""
    weights = sum(arch.size(e.source) * arch.size(e.target) for e in arch.edges)
    return weights + sum(node.size for node in arch.nodes[1:])


def forward_flops(arch: Architecture) -> int:
    """FLOPs per example of one forward pass."""
    return sum(2 * arch.size(e.source) * arch.size(e.target) for e in arch.edges)


def backward_flops(arch: Architecture, weights: bool = True) -> int:
    """FLOPs per example of one backward pass.

    Args:
        weights: with the gradients of the weights; without, only those of the pre-activations (statistics passes).

    The gradient with respect to the network's own input is never computed.
    """
    hidden_sources = sum(2 * arch.size(e.source) * arch.size(e.target) for e in arch.edges if e.source != INPUT)
    return hidden_sources + (forward_flops(arch) if weights else 0)


def training_flops(arch: Architecture) -> int:
    """FLOPs per example of one training step: forward, and backward with weight gradients."""
    return forward_flops(arch) + backward_flops(arch)
