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
NewRate = Literal["same", "norm"]
NewMoments = Literal["mean", "fresh"]
State = Mapping[str, Mapping[str, Tensor]]
"""By parameter name: ``step``, ``exp_avg`` and ``exp_avg_sq`` (Adam) or ``momentum_buffer`` (SGD). While some of its entries
are new, also ``born``, in the parameter's shape: the step at which each entry was added, -inf where it was there before."""

BORN = "born"

SGD_MOMENTUM = 0.9
ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
MOMENTS: Mapping[OptimizerKind, tuple[str, ...]] = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""What each optimiser keeps of every entry of a parameter."""


@dataclass(frozen=True)
class OptimizerPlan:
    """Which optimiser, its rate, and how it treats new entries: those that growth added at most ``new_steps`` steps ago.

    Attributes:
        lr: of every entry but new ones; constant while growing.
        new_lr: rate of new entries: ``same`` as the others, or ``norm``: times |W_t| / |W_0|, the Frobenius norms, as they
            are, of the entries of their parameter that were added together with them and of those that were there first
            (at least 0.1, at most 10; Yuan et al. 2023, "Accelerated training via incrementally growing neural networks
            using variance transfer and learning rate adaptation").
        warmup_steps: W: at its k-th step a new entry has the share k / W of its rate; 0 for none.
        new_moments: second moment that a new entry of an old parameter begins with, ``carry_state``.
        clip: most that the norm of a network's gradients may be, of new and old entries apart; None for no limit.
        weight_decay: decoupled (Loshchilov and Hutter 2019): a step begins by multiplying every entry, but new ones, by
            1 - lr x weight_decay.
        new_steps: steps for which an entry is new.
    """

    kind: OptimizerKind
    lr: float
    new_lr: NewRate = "same"
    warmup_steps: int = 0
    new_moments: NewMoments = "mean"
    clip: float | None = None
    weight_decay: float = 0.0
    new_steps: int = 500


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


def carry_state(state: State, grown: Network, new_moments: NewMoments = "mean") -> dict[str, dict[str, Tensor]]:
    """Pad the state of a parent to the shapes of its grown network (growth_math 5), and note what is new in it.

    Old entries keep their moments and step count. New entries of an old parameter get first moment 0 and, as second
    moment, with ``mean`` the mean over that parameter: with zeros there, the inherited step count switches the bias
    correction off and the first updates overshoot 6.6 times. With ``fresh`` they do get zeros, and the next training
    corrects their bias by their own age. A parameter that is new starts at step 0 with zeros either way.

    Args:
        state: of the parent; where it is empty nothing has been trained, so nothing is new.
    """
    if not state:
        return {}
    moments = [key for key in next(iter(state.values())) if key not in ("step", BORN)]
    carried: dict[str, dict[str, Tensor]] = {}
    for name, parameter in grown.named_parameters():
        like = parameter.detach()
        if name not in state:
            zeros = {key: torch.zeros_like(like) for key in moments}
            carried[name] = {"step": torch.zeros(()), **zeros, BORN: torch.zeros(like.shape, device=like.device)}
            continue
        old = dict(state[name])
        widened = old[moments[0]].shape != like.shape
        if widened and BORN not in old:
            old[BORN] = torch.full(old[moments[0]].shape, -torch.inf, device=like.device)
        fills = {BORN: float(old["step"])}
        if new_moments == "mean" and "exp_avg_sq" in old:
            fills["exp_avg_sq"] = float(old["exp_avg_sq"].mean())
        carried[name] = {}
        for key, value in old.items():
            if key == "step" or not widened:
                carried[name][key] = value.detach().clone()
                continue
            new = torch.full(like.shape, fills.get(key, 0.0), dtype=value.dtype, device=value.device)
            new[tuple(slice(0, size) for size in value.shape)] = value
            carried[name][key] = new
    return carried
