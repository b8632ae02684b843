"""Packed training: many small networks in one pass a step, with a backward pass by hand.

Tiny networks are bound by the overhead of each operator, so what costs is the number of calls and not the arithmetic. All
weights of a pack lie in one buffer, all gradients in another of the same shape, and so do the optimiser's moments: the
update of every network is one call. An activation is one call a level; the examples are read by one product a segment;
one batched product serves a block of weights in every network that has it (``layout``).

A *part* is a set of networks that share a union. Its products have shapes and alignments of its own, whatever else is in
the pack; what runs over several parts at once is elementwise, on regions cut at whole vectors. So a network's
weights depend on its part alone, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT
from raygrow.nn import MOMENTS, Network, Optimizer, OptimizerPlan, State
from raygrow.nn.losses import AbstractLoss
from raygrow.training.examples import Examples, gathered
from raygrow.training.layout import Part, Place, layouts
from raygrow.training.workspace import Workspace


@dataclass(frozen=True)
class Fork:
    """One network of a pack and the optimiser state it carries."""

    network: Network
    state: State


class Pack:
    """Networks that train together on batches of equal size.

    Args:
        groups: networks that read the same examples, one group a member.
        loss: of every network.
        plan: of every network's optimiser.
        averaged: keep a running average of all weights (Polyak and Juditsky 1992, with a window). At a constant rate
            the iterates rattle around what they have learned; their average does not, so two forks differ by their
            architectures and not by where the last batches left them. Every step weighs 2 %, so the window is about
            50 steps; the first 50 count alike.
    """

    LEAST = 0.02

    def __init__(
        self, groups: Sequence[Sequence[Fork]], loss: AbstractLoss, plan: OptimizerPlan, averaged: bool = False
    ) -> None:
        self.groups = [list(group) for group in groups]
        self._forks = [fork for group in groups for fork in group]
        self._outputs = [group[0].network.arch.size(OUTPUT) for group in groups]
        self._loss, self._plan = loss, plan
        self._parts: list[Part] = []
        self._group_of: list[int] = []
        at = first = 0
        for g, group in enumerate(groups):
            for members, layout in layouts([fork.network.arch for fork in group]):
                self._parts.append(Part([first + i for i in members], layout, at))
                self._group_of.append(g)
                at = self._parts[-1].stop
            first += len(group)
        self._params = next(self._forks[0].network.parameters()).detach().new_zeros(at)
        self._gradients = torch.zeros_like(self._params)
        self._moments = {key: torch.zeros_like(self._params) for key in MOMENTS[plan.kind]}
        self._load()
        self._carried: dict[tuple[int, str], float] = {}
        stretches = [stretch for part in self._parts for stretch in part.stretches(self._steps_of)]
        cuts = [slice(start, stop) for start, stop, _ in stretches]
        self._steps = [torch.tensor(steps, device=self._params.device) for *_, steps in stretches]
        self._ends = [stop for _, stop, _ in stretches]
        self._optimizer = Optimizer(
            plan.kind,
            [self._params[cut] for cut in cuts],
            [self._gradients[cut] for cut in cuts],
            [[moment[cut] for cut in cuts] for moment in self._moments.values()],
            self._steps,
        )
        self._average = self._params.clone() if averaged else None
        self._taken = 0
        self._workspaces: dict[int, Workspace] = {}

    def _steps_of(self, place: Place) -> float:
        """Steps that the optimiser has taken with a parameter."""
        key = place.fork, place.name
        if key not in self._carried:
            # Read once: on a GPU every read waits for the device.
            self._carried[key] = float(self._forks[place.fork].state.get(place.name, {}).get("step", 0.0))
        return self._carried[key]

    def _places(self) -> Iterator[tuple[Place, Fork]]:
        for part in self._parts:
            for place in part.places:
                yield place, self._forks[place.fork]

    @torch.no_grad()
    def _load(self) -> None:
        named = [fork.network.named for fork in self._forks]
        for place, fork in self._places():
            value = named[place.fork][place.name]
            place.within(self._params).copy_(place.of(value))
            for key, moment in self._moments.items():
                if place.name in fork.state:
                    place.within(moment).copy_(place.of(fork.state[place.name][key]))

    def train(self, data: Sequence[Examples], orders: Sequence[Tensor], batch_size: int, anneal: int = 0) -> None:
        """Take the steps that these examples make.

        Args:
            data: examples of every group.
            orders: which of them, in which order, by group; equally many.
            anneal: steps, counted from the pack's first, over which half a cosine takes the rate from the plan's to 0;
                0 keeps it constant.
        """
        # Tensors made here never meet autograd, so they need none of its bookkeeping.
        with torch.inference_mode():
            streams = [gathered(*pair, batch_size) for pair in zip(data, orders, strict=True)]
            for piece in zip(*streams, strict=True):
                xs = [torch.split(own.x, batch_size) for own in piece]
                wanted = [
                    torch.split(self._loss.columns(own.y, outputs), batch_size, 1)
                    for own, outputs in zip(piece, self._outputs, strict=True)
                ]
                for k, batch in enumerate(xs[0]):
                    workspace = self._workspace(len(batch))
                    workspace.step(
                        [xs[g][k] for g in self._group_of], [wanted[g][k] for g in self._group_of], self._loss
                    )
                    rate = self._plan.lr
                    if anneal:
                        rate *= 0.5 * (1.0 + math.cos(math.pi * self._taken / anneal))
                    self._optimizer.step(rate)
                    self._taken += 1
                    if self._average is not None:
                        self._average.lerp_(self._params, max(self.LEAST, 1.0 / self._taken))

    def _workspace(self, batch: int) -> Workspace:
        if batch not in self._workspaces:
            self._workspaces[batch] = Workspace(self._parts, self._params, self._gradients, batch)
        return self._workspaces[batch]

    @torch.no_grad()
    def write(self, networks: Sequence[Sequence[Network]]) -> None:
        """Write the weights, averaged where an average is kept, into networks of the same architectures.

        Args:
            networks: by group, like ``groups``.
        """
        buffer = self._params if self._average is None else self._average
        named = [network.named for group in networks for network in group]
        for place, _ in self._places():
            place.of(named[place.fork][place.name]).copy_(place.within(buffer))

    @torch.no_grad()
    def states(self) -> list[list[dict[str, dict[str, Tensor]]]]:
        """The optimiser's state of every network, by group and parameter name, as copies."""
        found: list[dict[str, dict[str, Tensor]]] = []
        for fork in self._forks:
            fresh = {
                name: {"step": torch.zeros(()), **{key: torch.zeros_like(p.detach()) for key in self._moments}}
                for name, p in fork.network.named.items()
            }
            found.append(fresh)
        at = 0
        for place, _ in self._places():
            while self._ends[at] <= place.start:
                at += 1
            entry = found[place.fork][place.name]
            entry["step"] = self._steps[at].detach().clone()
            for key, moment in self._moments.items():
                place.of(entry[key]).copy_(place.within(moment))
        grouped, first = [], 0
        for group in self.groups:
            grouped.append(found[first : first + len(group)])
            first += len(group)
        return grouped
