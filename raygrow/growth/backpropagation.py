"""Gradients at pre-activations, from a forward pass that kept them: no graph, and only as far back as is asked for."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT
from raygrow.growth.meter import Meter
from raygrow.nn import Network, Trace
from raygrow.nn.activations import FUNCTIONS
from raygrow.nn.losses import AbstractLoss


def gradient_at_output(output: Tensor, y: Tensor, loss: AbstractLoss) -> Tensor:
    """-dloss/doutput of every example, [n, outputs]."""
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss.per_example(leaf, y).sum(), [leaf])
    return -gradient


@torch.no_grad()
def backpropagate(
    network: Network, trace: Trace, at_output: Tensor, nodes: Collection[str], meter: Meter
) -> dict[str, Tensor]:
    """Pull a vector at the output of every example back to the pre-activations of ``nodes``, each [n, size].

    Only nodes on a path from one of ``nodes`` to the output are visited.
    """
    arch, wanted = network.arch, frozenset(nodes)
    found: dict[str, Tensor] = {OUTPUT: at_output}
    for name in reversed(arch.order[1:-1]):
        if name not in wanted and not wanted & arch.ancestors(name):
            continue
        total: Tensor | None = None
        for child in arch.children(name):
            part = meter.mm(found[child], network.weights[f"{name}>{child}"])
            total = part if total is None else total + part
        assert total is not None
        found[name] = _through(arch.by_name[name].activation, trace.preactivations[name], total)
    return {name: found[name] for name in nodes}


def _through(activation: str, preactivation: Tensor, gradient: Tensor) -> Tensor:
    """The gradient times the slope of the activation."""
    leaf = preactivation.detach().requires_grad_()
    with torch.enable_grad():
        # As the gradient of a scalar: handing autograd an output gradient makes it import a symbolic algebra system.
        (pulled,) = torch.autograd.grad((FUNCTIONS[activation](leaf) * gradient).sum(), [leaf])
    return pulled
