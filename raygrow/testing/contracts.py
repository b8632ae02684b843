"""Contracts of strategies, initializers, selection rules and pools."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from raygrow.architecture import (
    ACTIVATIONS,
    AbstractMove,
    AddEdge,
    AddNode,
    Architecture,
    Widen,
)
from raygrow.errors import WorkerLost
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import AbstractInitializer
from raygrow.growth.measurements import measurement_named
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import derivative, response
from raygrow.growth.step import unrecorded
from raygrow.growth.sweep import collect
from raygrow.nn import Extension, Network, clone, graft
from raygrow.nn.losses import LOSSES
from raygrow.population.selection import AbstractSelection, Bid, ranked
from raygrow.population.tasks import Pool, Report, Task, named
from raygrow.strategies import FEATURES, AbstractStrategy, Evidence, Outcome, Proposal, Situation, State


def a_network(activation: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Network:
    """A small DAG with a skip, two parallel paths and a series node, with random weights: 5 inputs, 3 outputs."""
    arch = Architecture.simplest(5, 3)
    for move in (
        AddNode(("input",), ("output",), 4, activation),
        AddNode(("input",), ("h1", "output"), 3, activation),
        AddNode(("h1",), ("output",), 4, activation),
    ):
        arch = move.apply(arch)
    network = Network(arch, dtype)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return network


def some_examples(task: str, n: int = 200, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 examples for ``a_network`` whose answers depend on the inputs in a nonlinear way."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    score = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs(), x[:, 3] - x[:, 4].square()], 1)
    return x, (score.argmax(1) if task == "classification" else score)


SOME_MOVES: tuple[AbstractMove, ...] = (
    Widen("h1", 3),
    AddNode(("input",), ("output",), 4, "relu"),
    AddNode(("input", "h1"), ("h3", "output"), 3, "relu"),
    AddEdge("input", "h3"),
)
"""One of every kind that initializers begin on any network, on ``a_network``, one with two parents and two children."""


def with_activation(move: AbstractMove, activation: str) -> AbstractMove:
    """The same move with new nodes of another activation."""
    if isinstance(move, AddNode):
        return AddNode(move.sources, move.targets, move.size, activation)
    return move


@cache
def _measured(activation: str, task: str) -> tuple[Network, Residuals]:
    """``a_network`` and its statistics; shared, since no test changes them."""
    network = a_network(activation)
    x, y = some_examples(task)
    statistics = collect(network, x, y, LOSSES[task], torch.Generator().manual_seed(0), Meter())
    return network, Residuals(statistics.whole, Meter())


class InitializerContract:
    """What every initializer must keep; ``subject`` is the one under test."""

    subject: AbstractInitializer

    def _cases(self) -> list[tuple[AbstractMove, str, str]]:
        return [
            (with_activation(move, activation), activation, task)
            for move in SOME_MOVES
            if type(move) in self.subject.supports
            for activation in ACTIVATIONS
            if activation != "identity" and self.subject.supports_activation(activation)
            for task in LOSSES
        ]

    def _extension(self, found: Residuals, move: AbstractMove, seed: int = 3) -> Extension:
        site = move.place(found.fold.arch)
        assert site is not None
        generator = torch.Generator().manual_seed(seed)
        return self.subject.begin(found, site, (move.units,), generator, Meter())[move.units]

    def test_supports_something(self) -> None:
        assert self.subject.supports

    def test_grows_the_declared_architecture_and_leaves_the_parent_alone(self) -> None:
        for move, activation, task in self._cases():
            network, found = _measured(activation, task)
            before = clone(network).state_dict()
            extension = self._extension(found, move)
            grown = graft(network, move, extension)
            assert grown.arch == move.apply(network.arch)
            for name, value in network.state_dict().items():
                assert torch.equal(value, before[name])
                kept = extension.rewritten.get(name, value)
                assert torch.equal(grown.state_dict()[name][tuple(slice(0, s) for s in value.shape)], kept)

    def test_preserves_the_function_where_it_says_so(self) -> None:
        for move, activation, task in self._cases():
            if not self.subject.preserves_function(activation):
                continue
            for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
                network = a_network(activation, dtype)
                x, y = some_examples(task)
                x = x.to(dtype)
                y = y if task == "classification" else y.to(dtype)
                statistics = collect(network, x, y, LOSSES[task], torch.Generator().manual_seed(0), Meter())
                grown = graft(network, move, self._extension(Residuals(statistics.whole, Meter()), move))
                with torch.no_grad():
                    assert float((grown(x) - network(x)).abs().max()) <= tolerance, (move, activation)

    def test_is_alive(self) -> None:
        """Some new entry has a nonzero gradient, so that training can use what was added."""
        for move, activation, task in self._cases():
            network, found = _measured(activation, task)
            x, y = some_examples(task)
            grown = graft(network, move, self._extension(found, move))
            torch.autograd.backward(LOSSES[task].mean(grown(x), y))
            old = network.state_dict()
            alive = False
            for name, parameter in grown.named_parameters():
                assert parameter.grad is not None
                fresh = torch.ones_like(parameter, dtype=torch.bool)
                if name in old:
                    fresh[tuple(slice(0, s) for s in old[name].shape)] = False
                alive = alive or bool((parameter.grad[fresh] != 0).any())
            assert alive, (move, activation, task)

    def test_same_seed_gives_the_same_tensors(self) -> None:
        for move, activation, task in self._cases():
            network, found = _measured(activation, task)
            one, two = (graft(network, move, self._extension(found, move)) for _ in range(2))
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    def test_grows_the_same_in_the_mode_of_a_growth_step(self) -> None:
        # Statistics of its own, so that nothing is remembered from outside of the mode.
        measured = cache(_measured.__wrapped__)
        for move, activation, task in self._cases():
            network, found = _measured(activation, task)
            with unrecorded(network, differentiates=self.subject.differentiates):
                extension = self._extension(measured(activation, task)[1], move)
            one, two = graft(network, move, extension), graft(network, move, self._extension(found, move))
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
            assert not any(parameter.is_inference() for parameter in one.parameters())

    def test_smaller_sizes_read_what_larger_ones_read(self) -> None:
        for move, activation, task in self._cases():
            if move.units < 2:
                continue
            network, found = _measured(activation, task)
            site = move.place(network.arch)
            assert site is not None
            sizes = (move.units - 1, move.units)
            both = self.subject.begin(found, site, sizes, torch.Generator().manual_seed(3), Meter())
            for source, block in both[sizes[0]].fan_in.items():
                torch.testing.assert_close(block, both[sizes[1]].fan_in[source][: sizes[0]])

    def test_predicted_derivative_is_the_measured_one(self) -> None:
        """-dloss/dgamma along the fan-out, against a central difference, in float64; where old weights change too, none is."""
        for move, activation, task in self._cases():
            network, found = _measured(activation, task)
            x, y = some_examples(task)
            extension = self._extension(found, move)
            if extension.rewritten:
                continue
            site = move.place(network.arch)
            assert site is not None
            deltas = response(extension, site, found.fold.values, Meter())
            predicted = float(derivative(deltas, found.fold.gradients, found.fold).mean())

            @torch.no_grad()
            def loss(step: float) -> float:
                grown = graft(network, move, extension.scaled(step))  # noqa: B023
                return float(LOSSES[task].per_example(grown(x), y).mean())  # noqa: B023

            step = 1e-5
            measured = -(loss(step) - loss(-step)) / (2 * step)
            assert abs(predicted - measured) <= 1e-3 * max(abs(measured), 1e-4), (move, activation, task)

    def test_leaves_no_hook_and_no_gradient_behind(self) -> None:
        network, found = _measured("tanh", "classification")
        self._extension(found, next(move for move in SOME_MOVES if type(move) in self.subject.supports))
        for module in network.modules():
            assert not module._forward_hooks
            assert not module._backward_hooks
        assert all(parameter.grad is None for parameter in network.parameters())


def some_proposals(count: int = 6, measures: Sequence[str] = ()) -> tuple[Proposal, ...]:
    """Proposals of several kinds and sizes, two of them without a prediction; with these measurements."""
    kinds = ("widen", "add_node", "add_edge")
    return tuple(
        Proposal(
            id=f"m/0001/{i}",
            move=kinds[i % 3],
            site=f"s{i // 2}",
            units=2**i,
            added_flops=100 * (i + 1),
            added_params=50 * (i + 1),
            predicted_gain=None if i >= count - 2 else 0.05 * (i + 1),
            p_value=None if i >= count - 2 else 1e-6,
            features=tuple(0.1 * (i + 1) for _ in FEATURES),
            measurements={name: 0.1 * (i + 1) for name in measures},
        )
        for i in range(count)
    )


def some_evidence(gain: float, n: int = 400, seed: int = 0, blocks: int = 8, measures: Sequence[str] = ()) -> Evidence:
    """Paired losses whose difference has this mean and standard deviation 0.2; with these measurements of the candidate."""
    rng = np.random.default_rng(seed)
    control = rng.exponential(1.0, n)
    difference = rng.normal(gain, 0.2, n)
    candidate = control - difference
    search = rng.normal(gain, 0.2, 100)
    return Evidence(
        some_proposals(measures=measures)[0],
        2,
        control,
        candidate,
        tuple(np.array_split(control, blocks)),
        tuple(np.array_split(candidate, blocks)),
        np.ones(100),
        1.0 - search,
        1.0,
    )


class StrategyContract:
    """What every addition strategy must keep; ``subject`` is the one under test."""

    subject: AbstractStrategy
    situation = Situation(round=1, tests=0, candidates=2, price=1e-5, constant_loss=1.0)

    def _proposals(self) -> tuple[Proposal, ...]:
        return some_proposals(measures=self.subject.measures)

    def _seen(self) -> State:
        """The state after the round was observed."""
        return self.subject.observe(self.subject.initial_state(1.0), self._proposals(), self.situation)

    def _shortlist(self, proposals: Sequence[Proposal], seed: int = 0) -> tuple[Proposal, ...]:
        state = self.subject.observe(self.subject.initial_state(1.0), proposals, self.situation)
        return self.subject.shortlist(proposals, self.situation, state, np.random.default_rng(seed))

    def test_reads_measurements_that_exist(self) -> None:
        for name in self.subject.measures:
            assert measurement_named(name)

    def test_shortlists_at_most_k_of_what_was_proposed(self) -> None:
        for seed in range(5):
            chosen = self._shortlist(self._proposals(), seed)
            assert len(chosen) <= self.situation.candidates
            assert len({p.id for p in chosen}) == len(chosen)
            assert set(chosen) <= set(self._proposals())

    def test_nothing_proposed_gives_nothing_to_probe(self) -> None:
        assert self._shortlist(()) == ()

    def test_proposals_without_measurements_are_no_error(self) -> None:
        """What is undefined at a site is absent there."""
        assert len(self._shortlist(some_proposals())) <= self.situation.candidates

    def test_same_draws_give_the_same_shortlist(self) -> None:
        assert self._shortlist(self._proposals(), 7) == self._shortlist(self._proposals(), 7)

    def test_state_is_plain_json_and_is_not_changed_in_place(self) -> None:
        state = self.subject.initial_state(2.0)
        assert json.loads(json.dumps(state)) == state
        outcomes = [Outcome(proposal, 0.1, 0.01) for proposal in self._proposals()]
        before = json.dumps(state)
        seen = self.subject.observe(state, self._proposals(), self.situation)
        between = json.dumps(seen)
        after = self.subject.learn(seen, outcomes, self.situation)
        assert (json.dumps(state), json.dumps(seen)) == (before, between)
        assert json.loads(between) == seen
        assert json.loads(json.dumps(after)) == after

    def test_verdict_is_reasoned_and_repeatable(self) -> None:
        state = self._seen()
        for gain in (-0.2, 0.0, 0.2):
            evidence = some_evidence(gain, measures=self.subject.measures)
            verdict = self.subject.judge(evidence, self.situation, state)
            assert verdict.reason
            assert (verdict.statistic is None) == (verdict.threshold is None)
            assert verdict == self.subject.judge(evidence, self.situation, state)

    def test_a_clear_gain_is_accepted(self) -> None:
        evidence = some_evidence(0.2, n=2000, measures=self.subject.measures)
        assert self.subject.judge(evidence, self.situation, self._seen()).accepted


class SelectionContract:
    """What every selection rule must keep; ``subject`` is the one under test."""

    subject: AbstractSelection

    @staticmethod
    def some_bids() -> tuple[Bid, ...]:
        return ranked(
            [
                Bid(f"{member}/{i}", member, 0.01 * (i + 1), 0.01 * (i + 1) - 1e-3, flops)
                for member in ("a", "b", "c")
                for i, flops in enumerate((100, 400, 800, -50))
            ]
        )

    def test_grants_at_most_one_a_member_and_explains_the_rest(self) -> None:
        for allowance in (0.0, 150.0, 1e9):
            bids = self.some_bids()
            grants = self.subject.grant(bids, allowance)
            members = [bid.member for bid in bids if bid.id in grants.granted]
            assert len(members) == len(set(members)) == len(grants.granted)
            assert set(grants.granted) | set(grants.refused) == {bid.id for bid in bids}
            assert not set(grants.granted) & set(grants.refused)
            assert all(grants.refused.values())

    def test_is_repeatable_and_takes_nothing_from_nothing(self) -> None:
        assert self.subject.grant((), 10.0).granted == ()
        assert self.subject.grant(self.some_bids(), 500.0) == self.subject.grant(self.some_bids(), 500.0)

    def test_the_cheapest_gain_comes_first(self) -> None:
        grants = self.subject.grant(self.some_bids(), 1e9)
        assert grants.granted[0] == self.some_bids()[0].id


class ScriptedPool:
    """A pool without work: reports come from a function, in an order and with losses of workers that a test chooses.

    Args:
        script: the report of a task.
        order: picks which of the waiting tasks is reported next.
        losses: ids of tasks whose worker dies once, or several times where repeated.
        share: most tasks that a worker holds at once, and loses when it dies.
    """

    def __init__(
        self,
        script: Callable[[Task], Report],
        order: Callable[[list[Task]], int] = lambda tasks: 0,
        losses: Sequence[str] = (),
        share: int = 1,
    ) -> None:
        self._script, self._order, self._losses, self._share = script, order, list(losses), share
        self._waiting: deque[Task] = deque()
        self.done: list[Task] = []

    def submit(self, tasks: Sequence[Task]) -> None:
        self._waiting.extend(tasks)

    def wait(self) -> tuple[Task, Report]:
        tasks = list(self._waiting)
        task = tasks[self._order(tasks)]
        self._waiting.remove(task)
        if task.id in self._losses:
            self._losses.remove(task.id)
            held = [task, *list(self._waiting)[: self._share - 1]]
            for other in held[1:]:
                self._waiting.remove(other)
            raise WorkerLost(f"the worker of {named(held)} died", held)
        self.done.append(task)
        return task, self._script(task)

    def close(self) -> None:
        self._waiting.clear()


def run_all(pool: Pool, tasks: Sequence[Task]) -> dict[str, Report]:
    """Reports of tasks by id, whatever the order they came in, without their timings."""
    pool.submit(tasks)
    found: dict[str, Report] = {}
    for _ in tasks:
        task, report = pool.wait()
        found[task.id] = {key: value for key, value in report.items() if key != "seconds"}
    return found
