"""The closed-form step of existing weights: training, taken by the parent before it is forked.

Applied to a grown fork alone it would credit a Newton step on old weights to growth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raygrow.architecture import INPUT, Architecture, forward_flops
from raygrow.growth.bottleneck import best_update
from raygrow.growth.line_search import line_search
from raygrow.growth.meter import Meter
from raygrow.nn import Network, Trace, bias_name, weight_name
from raygrow.nn.losses import AbstractLoss


def update_existing(
    network: Network,
    statistics: tuple[Tensor, Tensor],
    search: tuple[Tensor, Tensor],
    loss: AbstractLoss,
    meter: Meter,
) -> dict[str, float]:
    """Take the dW* step in place, node by node from the output back, each with its own line search on ``search``.

    A node whose line search shows no decrease keeps its weights.

    Args:
        statistics, search: x [n, inputs] and y of the examples to regress on and to search on.

    Returns:
        The amplitude taken at every node.
    """
    arch = network.arch
    network.eval()
    taken: dict[str, float] = {}
    for node in reversed([name for name in arch.order if name != INPUT]):
        parents = arch.parents(node)
        trace = network.trace(statistics[0])
        total = loss.per_example(trace.output, statistics[1]).sum()
        (gradient,) = torch.autograd.grad(total, [trace.preactivations[node]])
        meter.products += len(statistics[0]) * (forward_flops(arch) + _backward_to(arch, node))
        step = best_update(_inputs(trace, parents).detach().double(), -gradient.double(), meter).to(gradient)
        with torch.no_grad():
            trace = network.trace(search[0])
            meter.products += len(search[0]) * forward_flops(arch)
            delta = meter.mm(_inputs(trace, parents), step)
            found = line_search(network, trace, search[1], loss, {node: delta}, meter)
            taken[node] = found.scale
            if found.scale > 0:
                state = network.state_dict()
                blocks = torch.split(step[:-1], [arch.size(s) for s in parents])
                for source, block in zip(parents, blocks, strict=True):
                    state[weight_name(source, node)] += found.scale * block.T
                state[bias_name(node)] += found.scale * step[-1]
    return taken


def _backward_to(arch: Architecture, node: str) -> int:
    """FLOPs per example of a backward pass that ends at one node's pre-activation."""
    return sum(
        2 * arch.size(e.source) * arch.size(e.target)
        for e in arch.edges
        if e.source == node or node in arch.ancestors(e.source)
    )


def _inputs(trace: Trace, parents: tuple[str, ...]) -> Tensor:
    """What a node reads, the constant last, [n, p1]."""
    values = [trace.values[source] for source in parents]
    return torch.cat([*values, torch.ones_like(values[0][:, :1])], 1)
