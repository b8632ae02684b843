"""The closed-form step of existing weights: training, taken by the parent before it is forked.

Applied to a grown fork alone it would credit a Newton step on old weights to growth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT
from raygrow.growth.bottleneck import best_update
from raygrow.growth.line_search import line_search
from raygrow.growth.meter import Meter
from raygrow.growth.moments import fold_of
from raygrow.nn import Network, bias_name, weight_name
from raygrow.nn.losses import AbstractLoss


def update_existing(
    network: Network,
    statistics: tuple[Tensor, Tensor],
    search: tuple[Tensor, Tensor],
    loss: AbstractLoss,
    generator: torch.Generator,
    meter: Meter,
) -> dict[str, float]:
    """Take the dW* step in place, node by node from the output back, each with its own line search on ``search``.

    A node whose line search shows no decrease keeps its weights.

    Returns:
        The amplitude taken at every node.
    """
    arch = network.arch
    taken: dict[str, float] = {}
    for node in reversed([name for name in arch.order if name in arch.hidden or name == OUTPUT]):
        fold = fold_of(network, *statistics, loss, generator, meter)
        step = best_update(fold, node, meter).to(next(network.parameters()).dtype)
        with torch.no_grad():
            trace = network.trace(search[0])
            rows = torch.cat([*(trace.values[s] for s in arch.parents(node)), torch.ones_like(search[0][:, :1])], 1)
            found = line_search(network, trace, search[1], loss, {node: meter.mm(rows, step)}, meter)
            taken[node] = found.scale
            if found.scale > 0:
                state = network.state_dict()
                widths = [arch.size(s) for s in arch.parents(node)]
                for source, block in zip(arch.parents(node), step[:-1].split(widths), strict=True):
                    state[weight_name(source, node)] += found.scale * block.T
                state[bias_name(node)] += found.scale * step[-1]
    return taken

