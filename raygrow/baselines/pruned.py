"""A big network made small: trained, then pruned by magnitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from raygrow.architecture import Architecture, Prune, forward_flops, legal_moves
from raygrow.baselines.base import AbstractTrial, Repetition
from raygrow.baselines.course import CHECKS, Course, standing
from raygrow.baselines.fixed import check_rate, check_widths
from raygrow.baselines.nets import fixed_architecture, started, within_budget
from raygrow.errors import ConfigError
from raygrow.nn import Extension, Network, graft, weight_name
from raygrow.nn.network import gain_name
from raygrow.population.lengths import Length, check_length
from raygrow.population.pool_plan import check_least

DENSE_SHARE = 0.5
"""Share of a budget of training FLOPs that the big network may take; the rest is for pruning it."""


@final
@dataclass(frozen=True, kw_only=True)
class Pruned(AbstractTrial):
    """A big fixed network is trained; then, again and again, a share of the units of every hidden layer goes, those of the
    least magnitude, and the rest is trained on (Han et al. 2015; whole units, as Li et al. 2017 do with filters, so that
    inference FLOPs really fall).

    Magnitude is |fan-in| |fan-out|, Euclidean norms: the scale of a ReLU unit can move from one to the other without a change
    of the function. After a batch norm its gain stands for the fan-in. Chosen is the smallest network whose validation score
    is within ``tolerance`` of the best of all.
    """

    kind: Literal["pruned"] = "pruned"
    hidden: tuple[int, ...] = (256,)
    """Units of each hidden layer (channels of each stage) of the big network, each at least 1."""
    examples: Length = "40 epochs"
    """Training examples of the big network, at least 1; also epochs. A budget of training FLOPs cuts them to its half."""
    fraction: float = 0.3
    """Share of the units of a layer that goes at a time, above 0 and below 1; at least one unit goes and one stays."""
    fine_tune: Length = "4 epochs"
    """Training examples after each pruning, by half a cosine, at least 1; also epochs."""
    tolerance: float = 0.01
    """What the score (accuracy or R2) may lie below the best one, 0 or more; pruning ends below it."""
    lr: float | None = None
    """Learning rate at the first step, above 0; null: that of the campaign's final anneal."""

    def __post_init__(self) -> None:
        check_widths(self.hidden)
        check_length("examples", self.examples, 1)
        check_length("fine_tune", self.fine_tune, 1)
        check_least(0, tolerance=self.tolerance)
        check_rate(self.lr)
        if not self.hidden:
            raise ValueError("`hidden` must name at least one width: the linear model has no unit to prune")
        if not 0 < self.fraction < 1:
            raise ValueError(f"`0 < fraction < 1` must hold, but got {self.fraction}")

    def run(self, repetition: Repetition) -> dict[str, Any]:
        course = Course(repetition)
        arch = fixed_architecture(repetition, self.hidden)
        if not _prunable(arch, repetition):
            raise ConfigError(
                f"`pruned`: no unit of {arch} can go without the others noticing (streams, norms over units): choose another "
                "`network.family` or `network.norm`"
            )
        count = course.begin(arch, course.length(self.examples), CHECKS, DENSE_SHARE)
        stages = [course.train(started(arch, repetition.seed), count, self.lr, CHECKS)]
        while True:
            network, found = stages[-1]
            floor = max(standing(score) for _, score in stages)[0] - self.tolerance
            # Above the budget of FLOPs per example it goes on whatever it costs: only what is within may be chosen.
            if within_budget(repetition, network.arch) and standing(found)[0] < floor:
                why = f"{found.metric:.4f} on validation is more than {self.tolerance:g} below the best"
                break
            smaller = self._smaller(network, repetition)
            if smaller is None:
                why = "one unit a layer is left"
                break
            count = course.length(self.fine_tune)
            if course.affordable(smaller.arch, count) < count:
                why = "the budget of training FLOPs is spent"
                break
            stages.append(course.train(smaller, count, self.lr, seed=repetition.seed + len(stages)))
        allowed = [stage for stage in stages if within_budget(repetition, stage[0].arch)]
        if not allowed:
            raise ConfigError(
                f"`budget`: pruning ended ({why}) before {arch} came within the FLOPs per example or parameters allowed: "
                "raise it, or begin with a smaller network"
            )
        floor = max(standing(score) for _, score in allowed)[0] - self.tolerance
        near = [stage for stage in allowed if standing(stage[1])[0] >= floor]
        chosen, found = min(near, key=lambda stage: forward_flops(stage[0].arch))
        taken = next(i for i, (network, _) in enumerate(stages) if network is chosen)
        return course.finish(
            self, chosen, found, tried=len(stages) - 1, taken=taken, rounds=len(stages), stopped_because=why
        )

    def _smaller(self, network: Network, repetition: Repetition) -> Network | None:
        """Without the least units of every layer; None where no layer has one to give."""
        smaller = network
        for node in _prunable(network.arch, repetition):
            units = network.arch.size(node)
            gone = min(max(round(self.fraction * units), 1), units - 1)
            kept = magnitudes(network, node).argsort(descending=True, stable=True)[: units - gone].sort().values
            smaller = graft(smaller, Prune(node, gone), Extension(kept=kept))
        return None if smaller is network else smaller


def _prunable(arch: Architecture, repetition: Repetition) -> list[str]:
    """Hidden nodes that can lose a unit."""
    moves = legal_moves(arch, kinds=["prune"], units=[1], palette=repetition.plan.network.palette)
    return [move.site for move in moves]


@torch.no_grad()
def magnitudes(network: Network, node: str) -> Tensor:
    """|fan-in| |fan-out| of the units of a hidden node, [units]."""
    named, arch = network.named, network.arch
    gain = named.get(gain_name(node))
    if gain is not None:
        fan_in = gain.square()
    else:
        read = [named[weight_name(source, node)].flatten(1) for source in arch.parents(node)]
        fan_in = torch.cat(read, 1).square().sum(1)
    fed = [named[weight_name(node, target)].transpose(0, 1).flatten(1) for target in arch.children(node)]
    return (fan_in * torch.cat(fed, 1).square().sum(1)).sqrt()
