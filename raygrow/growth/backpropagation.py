"""Gradients at pre-activations, from a forward pass that kept them: no graph, and only as far back as is asked for."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT
from raygrow.growth.meter import Meter
from raygrow.nn import Network, Trace


@torch.no_grad()
def backpropagate(
    network: Network, trace: Trace, at_output: Tensor, nodes: Collection[str], meter: Meter
) -> dict[str, Tensor]:
    """Pull a vector at the output of every example back to the pre-activations of ``nodes``, each [n, size, *grid].

    Only nodes on a path from one of ``nodes`` to the output are visited.
    """
    arch, wanted = network.arch, frozenset(nodes)
    found: dict[str, Tensor] = {OUTPUT: at_output}
    steps = {step.name: step for step in network.steps}
    for name in reversed(arch.order[1:-1]):
        if name not in wanted and not wanted & arch.ancestors(name):
            continue
        total: Tensor | None = None
        for child in arch.children(name):
            (read,) = (read for read in steps[child].reads if read.source == name)
            meter.products += read.flops * len(at_output)
            part = read.map.pull(found[child], read.weight)
            total = part if total is None else total + part
        assert total is not None
        if total is found.get(child):
            # What a weightless reading pulls back is its child's own gradient.
            total = total.clone()
        found[name] = steps[name].layer.pull(total, trace.preactivations[name], trace.values[name])
    return {name: found[name] for name in nodes}
