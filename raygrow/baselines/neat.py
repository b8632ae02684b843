"""Random mutation and selection: growth without looking where it is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from raygrow.architecture import (
    AbstractMove,
    AddEdge,
    AddNode,
    Widen,
    digest_seed,
    forward_flops,
    legal_moves,
    training_flops,
    weight_shape,
)
from raygrow.baselines.base import AbstractTrial, Repetition
from raygrow.baselines.course import CHECKS, Course, standing
from raygrow.baselines.nets import FixedNet, within_budget
from raygrow.errors import ConfigError
from raygrow.nn import Extension, Network, State, begun, carry_state, clone, graft
from raygrow.population.lengths import Length, check_length
from raygrow.population.pool_plan import check_least
from raygrow.training import Score

SEARCH_SHARE = 0.5
"""Share of a budget of training FLOPs that generations may take; the rest is for the last training of the best."""
MUTATIONS = (AddNode, AddEdge, Widen)


@dataclass(frozen=True, eq=False)
class _Individual:
    network: Network
    state: State
    found: Score


@final
@dataclass(frozen=True, kw_only=True)
class Neat(AbstractTrial):
    """Networks that mutate at random and are selected on validation, after NEAT (Stanley and Miikkulainen 2002).

    The first generation is the start of the campaigns and random offspring of it. In each, every network trains for
    ``training.examples_per_round`` examples at the constant rate and is measured; the better half stays, and each of it has one
    offspring: a copy with its weights and one move of ``add_node``, ``add_edge`` and ``widen`` (of those that the family has),
    drawn uniformly first by kind, then by place and size (``growth.units``). New units have He's fan-in and fan-out 0. At last
    the best one trains for ``training.final_examples``, half a cosine down. Weights come from gradients, not from mutation, as
    in Real et al. 2017; there is no crossover and are no species.
    """

    kind: Literal["neat"] = "neat"
    population: int = 8
    """Networks of a generation, an even number of at least 2."""
    generations: int = 16
    """Generations, at least 1. A budget of training FLOPs ends them at its half."""
    examples: Length | None = None
    """Training examples of each network and generation, at least 1; also epochs; null: ``training.examples_per_round``."""

    def __post_init__(self) -> None:
        check_least(2, population=self.population)
        check_least(1, generations=self.generations)
        if self.examples is not None:
            check_length("examples", self.examples, 1)
        if self.population % 2:
            raise ValueError(f"`population` must be even, for half of it has offspring, but got {self.population}")

    def run(self, repetition: Repetition) -> dict[str, Any]:
        course = Course(repetition)
        start = repetition.facts.start(repetition.plan.network)
        if not within_budget(repetition, start):
            raise ConfigError(f"`budget`: the start takes {forward_flops(start)} FLOPs per example, above it: raise it")
        count = course.length(course.training.examples_per_round if self.examples is None else self.examples)
        rng = np.random.default_rng(digest_seed("neat", repetition.seed))
        first = begun(start, torch.Generator().manual_seed(int(rng.integers(2**62))))
        young: list[tuple[Network, State]] = [(first, {})]
        young += [_offspring(first, {}, repetition, rng) for _ in range(self.population - 1)]
        best: list[_Individual] = []
        done, mutated, why = 0, self.population - 1, None
        while done < self.generations:
            if sum(self._price(network, count, course) for network, _ in young) > course.left(SEARCH_SHARE):
                why = "half of the budget of training FLOPs is spent"
                break
            grown = [self._raised(*one, count, course, repetition.seed + done) for one in young]
            # Sorting is stable: of two alike the older one stays.
            best = sorted(grown, key=lambda one: standing(one.found), reverse=True)[: self.population // 2]
            done += 1
            course.note(best[0].network.arch, best[0].found)
            offspring = [_offspring(parent.network, parent.state, repetition, rng) for parent in best]
            mutated += len(offspring)
            young = [(one.network, one.state) for one in best] + offspring
        if not best:
            raise ConfigError(
                f"`train_flops` {repetition.train_flops or 0:.3g}: half of it does not pay for one generation of "
                f"{self.population} networks: raise it, or give a smaller population or fewer examples"
            )
        network, found = best[0].network, best[0].found
        last = course.affordable(network.arch, course.length(course.training.final_examples), CHECKS)
        if last:
            trained = course.train(clone(network), last, checks=CHECKS, seed=repetition.seed + done)
            network, found = max((trained, (network, found)), key=lambda one: standing(one[1]))
        return course.finish(
            self, network, found, tried=mutated, taken=len(network.arch.hidden), rounds=done, stopped_because=why
        )

    @staticmethod
    def _price(network: Network, count: int, course: Course) -> int:
        """FLOPs of a network's generation."""
        return count * training_flops(network.arch) + len(course.validation) * forward_flops(network.arch)

    @staticmethod
    def _raised(network: Network, state: State, count: int, course: Course, seed: int) -> _Individual:
        """A network after a generation; all of one generation see the same examples."""
        training, task = course.training, course.repetition.facts.task
        plan = training.optimizer_plan(training.lr)
        grown = clone(network)
        net = FixedNet(grown, course.rows, task, count, plan, training.batch_size, seed, state, anneal=False)
        net.advance(count)
        course.spent += net.flops
        return _Individual(grown, net.state, course.score(grown))


def _offspring(
    network: Network, state: State, repetition: Repetition, rng: np.random.Generator
) -> tuple[Network, State]:
    """A copy with one random move, or without where none is legal; and the state of its optimiser."""
    moves = mutations(network, repetition)
    if not moves:
        return network, state
    kinds = sorted({move.kind for move in moves})
    kind = kinds[rng.integers(len(kinds))]
    of_kind = [move for move in moves if move.kind == kind]
    move = of_kind[rng.integers(len(of_kind))]
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    grown = graft(network, move, random_extension(network, move, generator))
    return grown, carry_state(state, grown)


def mutations(network: Network, repetition: Repetition) -> Sequence[AbstractMove]:
    """Moves that a network can make by itself, within the budget."""
    plan, growth = repetition.plan, repetition.member.growth
    return legal_moves(
        network.arch,
        kinds={move.kind for move in MUTATIONS} & set(plan.network.known_moves),
        units=growth.units,
        palette=plan.network.palette,
        max_flops=plan.budget.max_flops_per_example,
        max_params=plan.budget.max_params,
    )


def random_extension(network: Network, move: AbstractMove, generator: torch.Generator) -> Extension:
    """New weights of a ``Widen``, ``AddNode`` or ``AddEdge`` that leave the function as it is: He's fan-in, fan-out 0; a new
    edge 0."""
    arch = network.arch
    grown = move.apply(arch)
    edges = {(edge.source, edge.target): weight_shape(grown, edge) for edge in grown.edges if edge.reading.weighted}
    if isinstance(move, AddEdge):
        return Extension(edge=torch.zeros(edges[move.source, move.target]))
    node, first = move.landing(arch)
    units = grown.size(node) - first
    shapes = {source: (units, *edges[source, node][1:]) for source in grown.parents(node)}
    scale = math.sqrt(2.0 / sum(math.prod(shape[1:]) for shape in shapes.values()))
    fan_in: dict[str, Tensor] = {s: scale * torch.randn(shape, generator=generator) for s, shape in shapes.items()}
    fan_out = {
        target: torch.zeros(edges[node, target][0], units, *edges[node, target][2:]) for target in grown.children(node)
    }
    moments = (torch.zeros(units), torch.ones(units)) if grown.by_name[node].norm == "batch" else None
    return Extension(fan_in, torch.zeros(units), fan_out, moments=moments)
