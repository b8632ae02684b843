"""Weights of a network that nothing has grown yet."""

from __future__ import annotations

import math

import torch

from raygrow.architecture import INPUT, OUTPUT, Architecture
from raygrow.nn.network import Network, weight_name


@torch.no_grad()
def begun(arch: Architecture, generator: torch.Generator) -> Network:
    """The network of an architecture at its start: a constant function, alive wherever it has hidden nodes.

    Weights into hidden nodes are normal with variance gain / fan-in (gain 2 before a ReLU-like activation: He et al. 2015;
    1 before the identity: LeCun et al. 1998); all others are 0. The output reads nothing at first, as in the linear start: the
    control of the first probes begins at the best constant, and the head is solved for before anything is grown. What a
    residual block adds to its stream is 0 too, so that a deep start is as well scaled as a shallow one (Zhang et al. 2019).

    Args:
        generator: of the draws, on the CPU.
    """
    network = Network(arch)
    for name in arch.order:
        sources = arch.parents(name)
        joins = any(not arch.readings[source, name].weighted for source in sources)
        if name in (INPUT, OUTPUT) or joins:
            continue
        weights = [network.named[weight_name(source, name)] for source in sources]
        fan_in = sum(weight[0].numel() for weight in weights)
        scale = math.sqrt((1.0 if arch.by_name[name].activation == "identity" else 2.0) / fan_in)
        for weight in weights:
            weight.copy_(scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return network
