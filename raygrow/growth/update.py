"""The closed-form step of existing weights: training, taken by the parent before it is forked.

Applied to a grown fork alone it would credit a Newton step on old weights to growth.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raygrow.architecture import INPUT
from raygrow.growth.line_search import Searched, line_search
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Pass
from raygrow.nn import Network, Trace, bias_name, weight_name


def update_existing(statistics: Pass, search: Searched, meter: Meter) -> dict[str, float]:
    """Take the dW* step in place, node by node from the output back, each with its own line search on ``search``.

    A node whose line search shows no decrease keeps its weights. Both passes follow the network, so that only what a step
    changed is computed again, and growth finds them as the network is afterwards.

    Returns:
        The amplitude taken at every node.
    """
    network = statistics.network
    arch = network.arch
    taken: dict[str, float] = {}
    for node in reversed([name for name in arch.order if name != INPUT]):
        parents = arch.parents(node)
        gradient = statistics.gradients([node], meter)[node]
        step = statistics.rows(parents).coefficients(gradient, meter)
        delta = _added(search.trace, parents, step, meter)
        found = line_search(search, {node: delta}, meter)
        taken[node] = found.scale
        if found.scale == 0.0:
            continue
        _apply(network, node, parents, found.scale * step)
        search.move(node, found.scale * delta, meter)
        statistics.move(node, found.scale * _added(statistics.trace, parents, step, meter), meter)
    return taken


def _added(trace: Trace, parents: Sequence[str], step: Tensor, meter: Meter) -> Tensor:
    """What a step adds to a node's pre-activation, [n, size]."""
    blocks = torch.split(step[:-1], [trace.values[source].shape[1] for source in parents])
    total: Tensor | None = None
    for source, block in zip(parents, blocks, strict=True):
        values = trace.values[source]
        part = meter.mm(values, block.to(values))
        total = part + step[-1].to(values) if total is None else total + part
    assert total is not None
    return total


@torch.no_grad()
def _apply(network: Network, node: str, parents: Sequence[str], step: Tensor) -> None:
    state = network.state_dict()
    blocks = torch.split(step[:-1], [network.arch.size(source) for source in parents])
    for source, block in zip(parents, blocks, strict=True):
        state[weight_name(source, node)] += block.T
    state[bias_name(node)] += step[-1]
