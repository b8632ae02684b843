"""What networks that train as one keep: weights, gradients and moments in flat buffers, and the step that updates them.

All weights lie in one buffer, all gradients in another of the same shape, and so do the optimiser's moments: the update of
every network is one call. How gradients are computed is the business of the engine that fills them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from raygrow.nn import BORN, MOMENTS, Network, Optimizer, OptimizerPlan, State
from raygrow.training.place import Place, aligned
from raygrow.training.treatment import Newborn, Treatment


@dataclass(frozen=True)
class Fork:
    """One network that is to train and the optimiser state it carries."""

    network: Network
    state: State


class Store:
    """The flat buffers of some networks and their optimiser.

    Args:
        forks: the networks and their states; left as they were.
        regions: places in the order of the buffers, a list for each part of the buffers that begins aligned; together every
            entry of every parameter once.
        plan: of every network's optimiser.
        averaged: keep a running average of all weights (Polyak and Juditsky 1992, with a window). At a constant rate
            the iterates rattle around what they have learned; their average does not, so two forks differ by their
            architectures and not by where the last batches left them. Every step weighs 2 %, so the window is about
            50 steps; the first 50 count alike.

    Attributes:
        params, gradients: [size]; gradients are read at every step. Gaps between places hold zeros.
    """

    LEAST = 0.02

    def __init__(
        self, forks: Sequence[Fork], regions: Sequence[Sequence[Place]], plan: OptimizerPlan, averaged: bool = False
    ) -> None:
        self._forks, self._plan = list(forks), plan
        self._places = [place for region in regions for place in region]
        self._named = [fork.network.named for fork in forks]
        size = aligned(self._places[-1].stop)
        self.params = next(forks[0].network.parameters()).detach().new_zeros(size)
        self.gradients = torch.zeros_like(self.params)
        self._moments = {key: torch.zeros_like(self.params) for key in MOMENTS[plan.kind]}
        self._load()
        self._carried: dict[tuple[int, str], float] = {}
        stretches = list(self._stretches(regions, size))
        ages = self._ages()
        cuts = [slice(start, stop) for start, stop, _ in stretches]
        self._steps = [torch.tensor(steps, device=self.params.device) for *_, steps in stretches]
        self._ends = [stop for _, stop, _ in stretches]
        used = self.gradients if plan.clip is None else torch.zeros_like(self.gradients)
        self._optimizer: Optimizer | Treatment = Optimizer(
            plan.kind,
            [self.params[cut] for cut in cuts],
            [used[cut] for cut in cuts],
            [[moment[cut] for cut in cuts] for moment in self._moments.values()],
            self._steps,
        )
        if Treatment.wanted(plan, ages):
            entries = ages if ages is not None else torch.full_like(self.params, math.inf)
            self._optimizer = Treatment(
                plan, self._places, entries, self._steps_of, self.params, self.gradients, self._moments,
                self._optimizer, used,
            )  # fmt: skip
        newborn = ages is not None and bool((ages == 0).any())
        self._newborn = Newborn(len(self._forks), self._places, ages) if ages is not None and newborn else None
        self._average = self.params.clone() if averaged else None
        self._taken = 0

    def _steps_of(self, place: Place) -> float:
        """Steps that the optimiser had taken with a parameter."""
        key = place.fork, place.name
        if key not in self._carried:
            # Read once: on a GPU every read waits for the device.
            self._carried[key] = float(self._forks[place.fork].state.get(place.name, {}).get("step", 0.0))
        return self._carried[key]

    def _stretches(self, regions: Sequence[Sequence[Place]], size: int) -> Iterator[tuple[int, int, float]]:
        """Stretches of a region whose parameters have taken equally many steps: start, stop, steps.

        The gaps of the alignment belong to the stretch before them: zeros stay zeros there. A region is cut as if it were
        alone, so that what is computed of its networks does not depend on the others, bit for bit.
        """
        begun = [
            (next(group).start, steps) for region in regions for steps, group in groupby(region, key=self._steps_of)
        ]
        stops = [*(start for start, _ in begun[1:]), size]
        for (start, steps), stop in zip(begun, stops, strict=True):
            yield start, stop, steps

    @torch.no_grad()
    def _load(self) -> None:
        for place in self._places:
            value, state = self._named[place.fork][place.name], self._forks[place.fork].state
            place.within(self.params).copy_(place.of(value))
            for key, moment in self._moments.items():
                if place.name in state:
                    place.within(moment).copy_(place.of(state[place.name][key]))

    def _ages(self) -> Tensor | None:
        """Steps taken since each entry was added, [size], inf where it was always there; None where nothing is new."""
        if not any(BORN in entry for fork in self._forks for entry in fork.state.values()):
            return None
        ages = torch.full(self.params.shape, math.inf, device=self.params.device)
        for place in self._places:
            entry = self._forks[place.fork].state.get(place.name, {})
            if BORN in entry:
                place.within(ages).copy_(self._steps_of(place) - place.of(entry[BORN]))
        return ages

    def step(self, anneal: int = 0) -> None:
        """One update of all networks by the gradients as they are.

        Args:
            anneal: steps, counted from the first, over which half a cosine takes the rate from the plan's to 0; 0 keeps it
                constant.
        """
        rate = self._plan.lr
        if anneal:
            rate *= 0.5 * (1.0 + math.cos(math.pi * self._taken / anneal))
        self._optimizer.step(rate)
        self._taken += 1
        if self._average is not None:
            self._average.lerp_(self.params, max(self.LEAST, 1.0 / self._taken))

    def observe(self) -> None:
        """Take the gradients as they are into ``newborn_ratios``; costs nothing where nothing is new."""
        if self._newborn is not None:
            self._newborn.observe(self.gradients)

    def newborn_ratios(self) -> list[float | None]:
        """Gradient of an entry added just before, relative to that of another, root mean squares, by fork (``Newborn``)."""
        return [None] * len(self._forks) if self._newborn is None else self._newborn.ratios()

    @torch.no_grad()
    def write(self, networks: Sequence[Network]) -> None:
        """Write the weights, averaged where an average is kept, into networks of the forks' architectures."""
        named = [network.named for network in networks]
        buffer = self.params if self._average is None else self._average
        for place in self._places:
            place.of(named[place.fork][place.name]).copy_(place.within(buffer))

    @torch.no_grad()
    def states(self) -> list[dict[str, dict[str, Tensor]]]:
        """The optimiser's state of every fork, by parameter name, as copies."""
        found: list[dict[str, dict[str, Tensor]]] = [
            {
                name: {"step": torch.zeros(()), **{key: torch.zeros_like(p.detach()) for key in self._moments}}
                for name, p in named.items()
            }
            for named in self._named
        ]
        at = 0
        for place in self._places:
            while self._ends[at] <= place.start:
                at += 1
            entry = found[place.fork][place.name]
            entry["step"] = self._steps[at].detach().clone()
            for key, moment in self._moments.items():
                place.of(entry[key]).copy_(place.within(moment))
        for fork, entries in zip(self._forks, found, strict=True):
            for name, entry in entries.items():
                born = fork.state.get(name, {}).get(BORN)
                if born is not None and float(born.max()) + self._plan.new_steps > float(entry["step"]):
                    entry[BORN] = born.clone()
        return found
