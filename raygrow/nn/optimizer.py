"""Optimisers of growing networks and the state that they carry through growth.

Replacing parameters under a living optimiser trains nothing, silently; so the state is a plain mapping by parameter
name, taken out before a graft, padded, and given to the next training, which holds every parameter of the grown network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from raygrow.nn.network import Network

OptimizerKind = Literal["adam", "sgd"]
State = Mapping[str, Mapping[str, Tensor]]
"""By parameter name: ``step``, ``exp_avg`` and ``exp_avg_sq`` (Adam) or ``momentum_buffer`` (SGD)."""

SGD_MOMENTUM = 0.9
ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
MOMENTS: Mapping[OptimizerKind, tuple[str, ...]] = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""What each optimiser keeps of every entry of a parameter."""


@dataclass(frozen=True)
class OptimizerPlan:
    """Which optimiser, and its constant rate while growing."""

    kind: OptimizerKind
    lr: float


class Optimizer:
    """torch's fused kernels, without ``torch.optim`` around them.

    The update is that of ``torch.optim.Adam`` (or ``SGD`` with momentum 0.9), bit for bit, and so is the meaning of the
    state. The class around the kernel costs more than the kernel at these sizes, and building the first one imports
    torch's compiler, some seconds and 100 MB in every actor.

    Args:
        params: updated in place.
        gradients: read at every step.
        moments: as many lists as ``MOMENTS[kind]`` names, each like ``params``; updated in place.
        steps: steps taken so far, a scalar for each of ``params``; updated in place.
    """

    def __init__(
        self,
        kind: OptimizerKind,
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        moments: Sequence[Sequence[Tensor]],
        steps: Sequence[Tensor],
    ) -> None:
        self._kind = kind
        self._params, self._gradients = list(params), list(gradients)
        self._moments = [list(column) for column in moments]
        self._steps = list(steps)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update at this rate."""
        torch._foreach_add_(self._steps, 1)
        if self._kind == "adam":
            first, second = self._moments
            torch._fused_adam_(
                self._params, self._gradients, first, second, [], self._steps, lr=lr, beta1=ADAM_BETAS[0],
                beta2=ADAM_BETAS[1], weight_decay=0.0, eps=ADAM_EPS, amsgrad=False, maximize=False,
            )  # fmt: skip
        else:
            torch._fused_sgd_(
                self._params, self._gradients, self._moments[0], weight_decay=0.0, momentum=SGD_MOMENTUM, lr=lr,
                dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
            )  # fmt: skip


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
