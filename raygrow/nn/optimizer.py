"""Optimisers of growing networks and the state that they carry through growth.

Replacing parameters under a living optimiser trains nothing, silently; so the state is a plain mapping by parameter
name, taken out before a graft, padded, and given to a new optimiser that holds every parameter of the grown network.
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
_MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


@dataclass(frozen=True)
class OptimizerPlan:
    """Which optimiser, and its constant rate while growing."""

    kind: OptimizerKind
    lr: float


class Optimizer:
    """torch's fused kernels over every parameter of a network, without ``torch.optim`` around them.

    The update is that of ``torch.optim.Adam`` (or ``SGD`` with momentum 0.9), bit for bit, and so is the meaning of the
    state. The class around the kernel costs more than the kernel at these sizes, and building the first one imports
    torch's compiler, some seconds and 100 MB in every actor.

    Args:
        network: whose parameters are updated in place, all of them.
        state: carried state by parameter name; parameters without one start afresh, with a step count of their own.
    """

    def __init__(self, network: Network, plan: OptimizerPlan, state: State) -> None:
        self.plan = plan
        named = dict(network.named_parameters())
        self.names = list(named)
        self.params: list[Tensor] = list(named.values())
        self._steps = [self._entry(state, name, "step", torch.zeros((), device=p.device)) for name, p in named.items()]
        self._moments = [
            [self._entry(state, name, key, torch.zeros_like(p)) for name, p in named.items()]
            for key in _MOMENTS[plan.kind]
        ]

    @staticmethod
    def _entry(state: State, name: str, key: str, fresh: Tensor) -> Tensor:
        carried = state.get(name, {}).get(key)
        return fresh.detach() if carried is None else carried.detach().clone().to(fresh.device)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lr: float | None = None) -> None:
        """One update.

        Args:
            gradients: in the order of ``params``.
            lr: instead of the plan's rate.
        """
        rate = self.plan.lr if lr is None else lr
        torch._foreach_add_(self._steps, 1)
        if self.plan.kind == "adam":
            first, second = self._moments
            torch._fused_adam_(
                self.params, list(gradients), first, second, [], self._steps, lr=rate, beta1=ADAM_BETAS[0],
                beta2=ADAM_BETAS[1], weight_decay=0.0, eps=ADAM_EPS, amsgrad=False, maximize=False,
            )  # fmt: skip
        else:
            torch._fused_sgd_(
                self.params, list(gradients), self._moments[0], weight_decay=0.0, momentum=SGD_MOMENTUM, lr=rate,
                dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
            )  # fmt: skip

    def export(self) -> dict[str, dict[str, Tensor]]:
        """The state by parameter name, as copies."""
        keys = ("step", *_MOMENTS[self.plan.kind])
        columns = (self._steps, *self._moments)
        return {
            name: {key: column[i].detach().clone() for key, column in zip(keys, columns, strict=True)}
            for i, name in enumerate(self.names)
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
