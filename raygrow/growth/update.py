"""The closed-form step of existing weights: training, taken by the parent before it is forked.

Applied to a grown fork alone it would credit a Newton step on old weights to growth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raygrow.growth.bottleneck import added, split_step
from raygrow.growth.line_search import Searched, line_search
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Pass
from raygrow.nn import Network, bias_name, weight_name


def update_existing(statistics: Pass, search: Searched, meter: Meter) -> dict[str, float]:
    """Take the dW* step of vectors in place, node by node from the output back, each with its own line search on ``search``.

    A node whose line search shows no decrease keeps its weights. Both passes follow the network, so that only what a step
    changed is computed again, and growth finds them as the network is afterwards.

    Returns:
        The amplitude taken at every node.
    """
    network = statistics.network
    arch = network.arch
    taken: dict[str, float] = {}
    for node in reversed(arch.order):
        weighted = any(arch.readings[source, node].weighted for source in arch.parents(node))
        # A map would take a pass of its own. Batch norm undoes a change of scale in training: what looks good in use may
        # not be.
        if not weighted or arch.by_name[node].grid or arch.by_name[node].norm == "batch":
            continue
        gradient = statistics.gradients([node], meter)[node]
        rows = statistics.into(node)
        step = rows.coefficients(gradient, meter)
        delta = added(network, search.trace.values, node, step, meter)
        found = line_search(search, {node: delta}, meter)
        taken[node] = found.scale
        if found.scale == 0.0:
            continue
        _apply(network, node, found.scale * step)
        search.move(node, found.scale * delta, meter)
        moved = meter.mm(rows.matrix, found.scale * step.to(rows.matrix))
        statistics.move(node, moved.to(search.trace.output), meter)
    return taken


@torch.no_grad()
def _apply(network: Network, node: str, step: Tensor) -> None:
    parents = [source for source in network.arch.parents(node) if weight_name(source, node) in network.named]
    for source, block in zip(parents, split_step(network, node, step), strict=True):
        network.named[weight_name(source, node)].add_(block)
    network.named[bias_name(node)].add_(step[-1])
