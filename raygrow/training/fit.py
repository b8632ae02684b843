"""Lessons: what networks are to learn, taught to as many at once as can share their steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from raygrow.architecture import Architecture, forward_flops, training_flops
from raygrow.nn import Network, OptimizerPlan, State, clone
from raygrow.nn.losses import AbstractLoss
from raygrow.training.autograd import CALIBRATED, AutogradPack
from raygrow.training.examples import Examples
from raygrow.training.pack import Pack
from raygrow.training.store import Fork


@dataclass(frozen=True)
class Lesson:
    """Training that a member asks for; ``teach`` gives it.

    Attributes:
        forks: networks that see the same batches.
        data: what ``orders`` index.
        orders: of examples, one a segment. Each but the last ends on a whole batch.
        anneal: lower the rate to 0 by half a cosine over all segments.
        averaged: what is heard of and returned is the running average of the weights, not their last values.
        heard: called after every segment with its number and the networks as they are then; these are written anew
            after the next.
    """

    forks: Sequence[Fork]
    data: Examples
    orders: Sequence[Tensor]
    batch_size: int
    loss: AbstractLoss
    optimizer: OptimizerPlan
    anneal: bool = False
    averaged: bool = False
    heard: Callable[[int, Sequence[Network]], None] | None = None

    @property
    def flops(self) -> int:
        """What training takes, as if each fork were trained alone."""
        return sum(self.flops_of(fork.network.arch) for fork in self.forks)

    def flops_of(self, arch: Architecture) -> int:
        """What training one fork of this architecture takes."""
        trained = sum(map(len, self.orders)) * training_flops(arch)
        if not self.averaged or all(node.norm != "batch" for node in arch.nodes):
            return trained
        return trained + sum(min(len(order), CALIBRATED) for order in self.orders) * forward_flops(arch)

    @property
    def plain(self) -> bool:
        """Whether every fork is made of dense layers alone, which train packed."""
        return all(fork.network.arch.plain for fork in self.forks)

    @property
    def rhythm(self) -> Hashable:
        """Lessons of one rhythm can share their steps."""
        like = self.forks[0].network
        return (
            self.plain, tuple(map(len, self.orders)), self.batch_size, self.loss, self.optimizer, self.anneal, self.averaged,
            next(like.parameters()).dtype, self.data.x.device,
        )  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """A fork after its lesson.

    Attributes:
        network: of its own; the fork's is left as it was.
        state: of its optimiser.
        newborn_gradient_ratio: root mean square of the gradient of an entry that was added just before the lesson, over
            that of the other entries, the last steps of all segments together; None where none was added.
    """

    network: Network
    state: State
    newborn_gradient_ratio: float | None = None


def teach(lessons: Sequence[Lesson]) -> list[list[Learned]]:
    """Give these lessons; those of one rhythm are packed. The result of each is the same as if it were given alone."""
    learned: dict[int, list[Learned]] = {}
    together: dict[Hashable, list[int]] = {}
    for i, lesson in enumerate(lessons):
        together.setdefault(lesson.rhythm, []).append(i)
    for members in together.values():
        given = [lessons[i] for i in members]
        first = given[0]
        engine = Pack if first.plain else AutogradPack
        pack = engine([lesson.forks for lesson in given], first.loss, first.optimizer, first.averaged)
        steps = sum(math.ceil(len(order) / first.batch_size) for order in first.orders) if first.anneal else 0
        networks = [[clone(fork.network) for fork in lesson.forks] for lesson in given]
        for segment in range(len(first.orders)):
            orders = [lesson.orders[segment] for lesson in given]
            pack.train([lesson.data for lesson in given], orders, first.batch_size, steps)
            if len(orders[0]):
                pack.observe()
            if any(lesson.heard for lesson in given) or segment + 1 == len(first.orders):
                pack.write(networks)
            for lesson, own in zip(given, networks, strict=True):
                if lesson.heard is not None:
                    lesson.heard(segment, own)
        for i, *found in zip(members, networks, pack.states(), pack.newborn_ratios(), strict=True):
            learned[i] = [Learned(*fork) for fork in zip(*found, strict=True)]
    return [learned[i] for i in range(len(lessons))]


def fit(
    fork: Fork,
    data: Examples,
    order: Tensor,
    batch_size: int,
    loss: AbstractLoss,
    optimizer: OptimizerPlan,
    anneal: bool = False,
) -> Learned:
    """Train one network on the examples named by ``order``."""
    ((learned,),) = teach([Lesson([fork], data, [order], batch_size, loss, optimizer, anneal)])
    return learned
