"""Training through autograd, network by network: convolutions, norms and dropout.

Networks of maps are bound by arithmetic, so that packing them would save little; what they share with packed ones is the
``Store``: one fused update a step, the running average, the state of the optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raygrow.architecture import digest_seed
from raygrow.nn import Network, OptimizerPlan, clone
from raygrow.nn.losses import AbstractLoss
from raygrow.training.examples import Examples, gathered
from raygrow.training.place import whole_parameters
from raygrow.training.store import Fork, Store

CALIBRATED = 512
"""Examples on which batch norm takes its moments anew for averaged weights: those it followed belong to other weights."""


class _Pupil:
    """One network in training: a copy whose parameters are views of its own buffers."""

    def __init__(self, fork: Fork, plan: OptimizerPlan, averaged: bool) -> None:
        self.network = clone(fork.network)
        places = whole_parameters(0, self.network)
        self.store = Store([fork], [places], plan, averaged)
        for place in places:
            self.network.named[place.name].data = place.within(self.store.params)
        self._parameters = [self.network.named[place.name] for place in places]
        self._gradients = [place.within(self.store.gradients) for place in places]

    def step(self, x: Tensor, y: Tensor, loss: AbstractLoss, generator: torch.Generator, anneal: int) -> None:
        mean = loss.mean(self.network.trained(x, generator), y)
        found = torch.autograd.grad(mean, self._parameters, allow_unused=True, materialize_grads=True)
        torch._foreach_copy_(self._gradients, found)
        self.store.step(anneal)


class AutogradPack:
    """Networks that train on batches of equal size, one after the other; the counterpart of ``Pack`` for any network.

    Args:
        groups: networks that read the same examples, one group a member.
        loss: of every network.
        plan: of every network's optimiser.
        averaged: keep a running average of all weights (``Store``).
    """

    def __init__(
        self, groups: Sequence[Sequence[Fork]], loss: AbstractLoss, plan: OptimizerPlan, averaged: bool = False
    ) -> None:
        self._groups = [[_Pupil(fork, plan, averaged) for fork in group] for group in groups]
        self._loss, self._averaged = loss, averaged
        self._last: list[Tensor | None] = [None] * len(groups)

    def train(self, data: Sequence[Examples], orders: Sequence[Tensor], batch_size: int, anneal: int = 0) -> None:
        """Take the steps that these examples make; see ``Pack.train``."""
        for g, (group, own, order) in enumerate(zip(self._groups, data, orders, strict=True)):
            if not len(order):
                continue
            self._last[g] = own.x[order[-CALIBRATED:].to(own.x.device)]
            # Forks of one member drop the same units: they differ by their architectures alone.
            seed = digest_seed("dropout", *order[:8].tolist())
            generators = [torch.Generator().manual_seed(seed) for _ in group]
            for piece in gathered(own, order, batch_size):
                xs, ys = torch.split(piece.x, batch_size), torch.split(piece.y, batch_size)
                for pupil, generator in zip(group, generators, strict=True):
                    for x, y in zip(xs, ys, strict=True):
                        pupil.step(x, y, self._loss, generator, anneal)

    def observe(self) -> None:
        """Take the gradients of the last step into ``newborn_ratios``."""
        for group in self._groups:
            for pupil in group:
                pupil.store.observe()

    @torch.no_grad()
    def write(self, networks: Sequence[Sequence[Network]]) -> None:
        """Write weights and moments into networks of the same architectures; averaged weights take moments of their own."""
        for group, given, x in zip(self._groups, networks, self._last, strict=True):
            for pupil, network in zip(group, given, strict=True):
                pupil.store.write([network])
                for name, moment in network.moments.items():
                    moment.copy_(pupil.network.moments[name])
                if self._averaged and network.moments and x is not None:
                    network.calibrate(x)

    def states(self) -> list[list[dict[str, dict[str, Tensor]]]]:
        """The optimiser's state of every network, by group and parameter name, as copies."""
        return [[pupil.store.states()[0] for pupil in group] for group in self._groups]

    def newborn_ratios(self) -> list[list[float | None]]:
        """Gradient of a new entry relative to that of an old one, by group and network (``Store.newborn_ratios``)."""
        return [[pupil.store.newborn_ratios()[0] for pupil in group] for group in self._groups]
