"""Optimisers of growing networks and the state that they carry through growth.

Replacing parameters under a living optimiser trains nothing, silently; so the state is a plain mapping by parameter
name, taken out before a graft, padded, and given to a new optimiser that holds every parameter of the grown network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from raygrow.nn.network import Network

OptimizerKind = Literal["adam", "sgd"]
State = Mapping[str, Mapping[str, Tensor]]
"""By parameter name: ``step``, ``exp_avg`` and ``exp_avg_sq`` (Adam) or ``momentum_buffer`` (SGD)."""

SGD_MOMENTUM = 0.9


@dataclass(frozen=True)
class OptimizerPlan:
    """Which optimiser, and its constant rate while growing."""

    kind: OptimizerKind
    lr: float


def make_optimizer(network: Network, plan: OptimizerPlan, state: State) -> torch.optim.Optimizer:
    """A fresh optimiser over every parameter of ``network``, with the carried state of those that have one."""
    params = dict(network.named_parameters())
    optimizer: torch.optim.Optimizer
    if plan.kind == "adam":
        optimizer = torch.optim.Adam(params.values(), lr=plan.lr, fused=True)
    else:
        optimizer = torch.optim.SGD(params.values(), lr=plan.lr, momentum=SGD_MOMENTUM, fused=True)
    for name, parameter in params.items():
        if name in state:
            optimizer.state[parameter] = {
                key: value.detach().clone().to(parameter.device) for key, value in state[name].items()
            }
    return optimizer


def export_state(network: Network, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """The optimiser's state by parameter name, as copies. Parameters never stepped are absent."""
    return {
        name: {
            key: value.detach().clone()
            for key, value in optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }
        for name, parameter in network.named_parameters()
        if optimizer.state.get(parameter)
    }


def carry_state(state: State, grown: Network) -> dict[str, dict[str, Tensor]]:
    """Pad the state of a parent to the shapes of its grown network (growth_math 5 (b)).

    Old entries keep their moments and step count. New entries of an old tensor get first moment 0 and, as second
    moment, the mean over that tensor: with zeros there, the inherited step count switches the bias correction off and
    the first updates overshoot 6.6 times. A tensor that is new has no state, so its own step count starts at 0.
    """
    carried: dict[str, dict[str, Tensor]] = {}
    for name, parameter in grown.named_parameters():
        if name not in state:
            continue
        carried[name] = {}
        for key, old in state[name].items():
            if old.shape == parameter.shape or key == "step":
                carried[name][key] = old.detach().clone()
                continue
            fill = float(old.mean()) if key == "exp_avg_sq" else 0.0
            new = torch.full(parameter.shape, fill, dtype=old.dtype, device=old.device)
            new[tuple(slice(0, size) for size in old.shape)] = old
            carried[name][key] = new
    return carried
