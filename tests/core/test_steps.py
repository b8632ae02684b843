"""The step of a store: what it holds, and how it treats new entries, held against torch.optim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from raygrow.architecture import INPUT, OUTPUT, AddEdge, AddNode, Architecture, Edge, Node, Widen
from raygrow.data import prepare
from raygrow.data.teacher import Teacher
from raygrow.nn import BORN, MOMENTS, Network, OptimizerKind, OptimizerPlan, carry_state, clone
from raygrow.nn.losses import LOSSES
from raygrow.population.checkpoints import Checkpoint, CheckpointStore
from raygrow.training import Examples, Fork, Learned, Lesson, example_order, teach
from raygrow.training.place import ALIGNMENT, Place, whole_parameters
from raygrow.training.store import Store
from raygrow.training.treatment import Treatment

KINDS: tuple[OptimizerKind, ...] = ("adam", "sgd")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def holder(named: Mapping[str, Tensor]) -> Network:
    """What a store needs of a network: parameters of any rank, by name."""
    own = {name: value.clone().requires_grad_() for name, value in named.items()}
    return cast(Network, SimpleNamespace(named=own, parameters=lambda: iter(own.values())))


KERNELS = {"kernel": draw(4, 3, 5, 5), "bias": draw(4, seed=1), "scale": draw(seed=2), "weights": draw(7, 4, seed=3)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_holds_whole_parameters_of_any_rank(kind: OptimizerKind) -> None:
    """One network, gradients filled in from outside: as torch.optim steps, and out and in again at any step."""
    plan, network = OptimizerPlan(kind, 0.03), holder(KERNELS)
    places = whole_parameters(0, network)
    assert all(place.start % ALIGNMENT == 0 for place in places)
    store = Store([Fork(network, {})], [places], plan)
    theirs = holder(KERNELS)
    optimizer: torch.optim.Optimizer
    if kind == "adam":
        optimizer = torch.optim.Adam(theirs.parameters(), lr=0.03, fused=True)
    else:
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.03, momentum=0.9, fused=True)
    for step in range(8):
        if step == 5:
            (state,), network = store.states(), holder(KERNELS)
            store.write([network])
            store = Store([Fork(network, state)], [places], plan)
        for i, (place, parameter) in enumerate(zip(places, theirs.named.values(), strict=True)):
            parameter.grad = draw(*parameter.shape, seed=100 * step + i)
            place.within(store.gradients).copy_(parameter.grad)
        store.step()
        optimizer.step()
    found = holder(KERNELS)
    store.write([found])
    (state,) = store.states()
    for name, parameter in theirs.named.items():
        # Not to the bit: where an entry stands in a vector decides whether its product and sum are rounded once or twice.
        torch.testing.assert_close(found.named[name], parameter, rtol=1e-14, atol=1e-14)
        assert float(state[name]["step"]) == 8
        for key in MOMENTS[kind]:
            torch.testing.assert_close(state[name][key], optimizer.state[parameter][key], rtol=1e-14, atol=1e-14)


def test_a_piece_names_the_leading_dimensions_only() -> None:
    parameter, buffer = draw(4, 3, 2, 2), torch.arange(100.0, dtype=torch.float64)
    place = Place(0, "kernel", (slice(1, None), slice(0, 2)), (3, 2, 2, 2), 10)
    assert place.of(parameter).shape == place.within(buffer).shape == (3, 2, 2, 2)
    assert torch.equal(place.within(buffer).flatten(), buffer[10 : place.stop])
    assert place.stop == 34


# --- new entries, against torch.optim with a parameter of its own for every slice

INPUTS, OUTPUTS, BATCH, WINDOW = 4, 3, 8, 30
OPTIONS: dict[str, dict[str, Any]] = {
    "norm": {"new_lr": "norm"},
    "warm-up": {"warmup_steps": 20},
    "fresh": {"new_moments": "fresh"},
    "clip": {"clip": 0.05},
    "decay": {"weight_decay": 0.5},
    "all": {"new_lr": "norm", "warmup_steps": 9, "new_moments": "fresh", "clip": 0.1, "weight_decay": 0.2},
}
MOVES = (Widen("h1", 3), AddNode((INPUT,), ("h1", OUTPUT), 2, "tanh"), AddEdge(INPUT, OUTPUT))
LOSS = LOSSES["classification"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_of(kind: OptimizerKind, **options: Any) -> OptimizerPlan:
    return OptimizerPlan(kind, 0.02, **{"new_steps": WINDOW, **options})


def data_of(dtype: torch.dtype) -> Examples:
    x = draw(200, INPUTS, seed=5)
    return Examples(x.to(dtype), (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long())


def taught(forks: Sequence[Fork], plan: OptimizerPlan, first: int, last: int) -> list[Learned]:
    """Trained on the batches of these steps."""
    data = data_of(next(forks[0].network.parameters()).dtype)
    order = example_order(len(data), last * BATCH, 7)[first * BATCH :]
    ((*learned,),) = teach([Lesson(forks, data, [order], BATCH, LOSS, plan)])
    return learned


def trained_parent(plan: OptimizerPlan, dtype: torch.dtype) -> Fork:
    """input -> h1 -> output, after 40 steps."""
    edges = (Edge(INPUT, "h1"), Edge("h1", OUTPUT))
    sizes = {INPUT: INPUTS, "h1": 5, OUTPUT: OUTPUTS}
    nodes = tuple(Node(name, size, "tanh" if name == "h1" else "identity") for name, size in sizes.items())
    (learned,) = taught([Fork(filled(Network(Architecture(nodes, edges), dtype), 1), {})], plan, 0, 40)
    return Fork(learned.network, learned.state)


def filled(network: Network, seed: int, known: Mapping[str, Tensor] | None = None) -> Network:
    """Random weights, over which what is known is written as the leading block."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(network.named.items()):
            parameter.copy_(0.4 * draw(*parameter.shape, seed=10 * seed + i))
            if known and name in known:
                parameter[tuple(slice(0, size) for size in known[name].shape)] = known[name]
    return network


def grown(fork: Fork, move: Widen | AddNode | AddEdge, plan: OptimizerPlan, seed: int) -> Fork:
    old = fork.network
    network = filled(Network(move.apply(old.arch), next(old.parameters()).dtype), seed, old.named)
    return Fork(network, carry_state(fork.state, network, plan.new_moments))


def added(network: Network, before: Network) -> dict[str, Tensor]:
    """Which entries ``before`` does not have."""
    found = {}
    for name, parameter in network.named.items():
        found[name] = torch.ones(parameter.shape, dtype=torch.bool)
        if name in before.named:
            found[name][tuple(slice(0, size) for size in before.named[name].shape)] = False
    return found


class Apart:
    """A network whose slices of equal age are parameters of their own, trained by autograd and torch.optim.

    Args:
        slices: for every age, None for old, which entries of every parameter.
    """

    def __init__(self, fork: Fork, slices: Mapping[int | None, Mapping[str, Tensor]], plan: OptimizerPlan) -> None:
        self.network, self.plan, self.slices = clone(fork.network), plan, slices
        self.own = {
            (age, name): nn.Parameter(self.network.named[name].detach()[mask].clone())
            for age, masks in slices.items() for name, mask in masks.items() if mask.any()
        }  # fmt: skip
        groups: list[dict[str, Any]] = [{"params": [p], "lr": plan.lr} for p in self.own.values()]
        self.optimizer: torch.optim.Optimizer
        if plan.kind == "adam":
            self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=0.9)
        for (age, name), parameter in self.own.items():
            entry = fork.state[name]
            step = entry["step"] if age is None or plan.new_moments == "mean" else torch.tensor(float(age))
            moments = {key: entry[key][slices[age][name]].clone() for key in MOMENTS[plan.kind]}
            self.optimizer.state[parameter] = {"step": step.clone(), **moments}
        self.steps = {name: float(entry["step"]) for name, entry in fork.state.items()}
        self.taken = 0

    def young(self, age: int | None) -> bool:
        return age is not None and age + self.taken < self.plan.new_steps

    def age(self, age: int | None) -> float:
        """At the start; of all that is not new it is the same."""
        return math.inf if age is None or not self.young(age) else age

    def gather(self, gradients: bool = False) -> None:
        """Into the network, or out of it the gradients of every slice."""
        with torch.no_grad():
            for (age, name), parameter in self.own.items():
                whole, mask = self.network.named[name], self.slices[age][name]
                if gradients:
                    assert whole.grad is not None
                    parameter.grad = whole.grad[mask].clone()
                else:
                    whole[mask] = parameter

    def rate(self, age: int | None, name: str) -> float:
        plan, rate = self.plan, self.plan.lr
        if age is None or not self.young(age):
            return rate
        if plan.warmup_steps:
            rate *= min(1.0, (age + self.taken + 1) / plan.warmup_steps)
        if plan.new_lr == "norm":
            # The slice that was there first: what is old, or the eldest.
            first = max(self.age(a) for a, n in self.own if n == name)
            base = [p.detach() for (a, n), p in self.own.items() if n == name and self.age(a) == first]
            if age != first:
                rate *= min(max(float(self.own[age, name].detach().norm() / torch.cat(base).norm()), 0.1), 10.0)
        return rate

    def train(self, first: int, last: int) -> None:
        data, plan = data_of(torch.float64), self.plan
        for pick in example_order(len(data), last * BATCH, 7)[first * BATCH :].split(BATCH):
            self.network.zero_grad()
            nn.functional.cross_entropy(self.network(data.x[pick]), data.y[pick]).backward()
            self.gather(gradients=True)
            for young in (True, False):
                some = [p for (age, _), p in self.own.items() if self.young(age) == young]
                if plan.clip is not None and some:
                    nn.utils.clip_grad_norm_(some, plan.clip)
            for group, (age, name) in zip(self.optimizer.param_groups, self.own, strict=True):
                group["lr"] = self.rate(age, name)
            with torch.no_grad():
                for (age, _), parameter in self.own.items():
                    parameter.mul_(1.0 if self.young(age) else 1.0 - plan.lr * plan.weight_decay)
            self.optimizer.step()
            self.taken += 1
            for (age, name), parameter in self.own.items():
                if age is not None and age + self.taken == plan.new_steps and plan.new_moments == "fresh":
                    self._join(name, self.optimizer.state[parameter])
            self.gather()

    def _join(self, name: str, entry: dict[str, Tensor]) -> None:
        """The step count of the whole parameter from here on, with the same corrected moments."""
        if self.plan.kind == "adam":
            step = self.steps[name] + self.taken
            for key, beta in zip(MOMENTS["adam"], (0.9, 0.999), strict=True):
                entry[key] *= (1 - beta**step) / (1 - beta ** float(entry["step"]))
            entry["step"].fill_(step)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.kind)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_new_entries_step_as_parameters_of_their_own(kind: OptimizerKind, options: Any, move: Any) -> None:
    """In a pack with its control and another candidate; in the window, at its end and after it."""
    plan = plan_of(kind, **options)
    parent = trained_parent(plan, torch.float64)
    forks = [parent, grown(parent, move, plan, 2), grown(parent, Widen("h1", 1), plan, 3)]
    new = [added(fork.network, parent.network) for fork in forks]
    apart = [
        Apart(fork, {None: {name: ~mask for name, mask in masks.items()}, 0: masks}, plan)
        for fork, masks in zip(forks, new, strict=True)
    ]
    at = 40
    for stop in (40 + WINDOW - 9, 40 + WINDOW, 40 + WINDOW + 15):
        learned = taught(forks, plan, at, stop)
        for fork, ours, theirs in zip(forks, learned, apart, strict=True):
            theirs.train(at, stop)
            assert any(BORN in entry for entry in ours.state.values()) == (stop < 40 + WINDOW and fork is not forks[0])
            agree(ours, theirs)
        forks, at = [Fork(own.network, own.state) for own in learned], stop


def agree(ours: Learned, theirs: Apart) -> None:
    for name, parameter in theirs.network.named.items():
        torch.testing.assert_close(ours.network.named[name], parameter, rtol=1e-8, atol=1e-11)
    for (age, name), own in theirs.own.items():
        for key in MOMENTS[theirs.plan.kind]:
            found = ours.state[name][key][theirs.slices[age][name]]
            torch.testing.assert_close(found, theirs.optimizer.state[own][key], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("moves", [(MOVES[0], Widen("h1", 1)), (MOVES[1], Widen("h2", 3))], ids=["widen", "add_node"])
@pytest.mark.parametrize("options", [OPTIONS["norm"], OPTIONS["all"]], ids=["norm", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_generations_of_new_entries_keep_their_own_ages(kind: OptimizerKind, options: Any, moves: Any) -> None:
    """The second growth falls in the window of the first; neither checkpoint nor lesson may blur them."""
    plan = plan_of(kind, **options)
    parent = trained_parent(plan, torch.float64)
    first = grown(parent, moves[0], plan, 2)
    (learned,) = taught([first], plan, 40, 52)
    second = grown(Fork(learned.network, learned.state), moves[1], plan, 3)
    newest, newer = added(second.network, first.network), added(second.network, parent.network)
    slices: dict[int | None, dict[str, Tensor]] = {
        None: {name: ~mask for name, mask in newer.items()},
        12: {name: mask & ~newest[name] for name, mask in newer.items()},
        0: newest,
    }
    theirs = Apart(second, slices, plan)
    for start, stop in ((52, 60), (60, 75), (75, 90)):
        (learned,) = taught([second], plan, start, stop)
        theirs.train(start, stop)
        agree(learned, theirs)
        second = Fork(learned.network, learned.state)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_goes_on_from_a_checkpoint_bit_for_bit(options: Any, tmp_path: Path) -> None:
    """Cut inside the window and after it, through files."""
    plan = plan_of("adam", **options)
    parent = trained_parent(plan, torch.float32)
    start = grown(parent, Widen("h1", 3), plan, 2)
    (straight,) = taught([start], plan, 40, 80)
    store, preprocessing = CheckpointStore(tmp_path), prepare(Teacher(rows=60), 0).preprocessing
    fork = start
    for first, last in ((40, 53), (53, 75), (75, 80)):
        loaded = store.load(store.save(Checkpoint(fork.network, fork.state, preprocessing, {})))
        (learned,) = taught([Fork(loaded.network, loaded.optimizer)], plan, first, last)
        fork = Fork(learned.network, learned.state)
    for name, parameter in straight.network.named.items():
        assert torch.equal(fork.network.named[name], parameter)
        assert fork.state[name].keys() == straight.state[name].keys()
        assert all(torch.equal(fork.state[name][key], value) for key, value in straight.state[name].items())


def test_what_a_fork_learns_does_not_depend_on_its_company_bit_for_bit() -> None:
    """Other members' forks of other ages, in the same store."""
    plan, data = plan_of("adam", **OPTIONS["all"]), data_of(torch.float32)
    parent = trained_parent(plan, torch.float32)
    young = [parent, *(grown(parent, move, plan, 2) for move in MOVES)]
    older = [Fork(own.network, own.state) for own in taught([grown(parent, Widen("h1", 7), plan, 4)], plan, 40, 51)]
    lessons = [
        Lesson(forks, data, [example_order(len(data), 35 * BATCH, seed)], BATCH, LOSS, plan)
        for seed, forks in enumerate(([parent], young, older))
    ]
    for lesson, together in zip(lessons, teach(lessons), strict=True):
        (alone,) = teach([lesson])
        for one, other in zip(alone, together, strict=True):
            for name, parameter in one.network.named.items():
                assert torch.equal(other.network.named[name], parameter)
                assert all(torch.equal(other.state[name][key], value) for key, value in one.state[name].items())
            assert one.newborn_gradient_ratio == other.newborn_gradient_ratio


@pytest.mark.parametrize("options", [{}, *OPTIONS.values()], ids=["off", *OPTIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_of_a_grown_network_is_trained(kind: OptimizerKind, options: Any) -> None:
    """Whatever the move, from the first step on."""
    plan = plan_of(kind, **options)
    parent = trained_parent(plan, torch.float64)
    for move in MOVES:
        start = grown(parent, move, plan, 2)
        (learned,) = taught([start], plan, 40, 41)
        for name, parameter in start.network.named.items():
            assert bool((learned.network.named[name] != parameter).all()), (move, name)


def test_a_plan_without_options_takes_the_bare_step() -> None:
    plan = plan_of("adam")
    ages = torch.tensor([0.0, torch.inf])
    assert not Treatment.wanted(plan, ages)
    for name, options in OPTIONS.items():
        assert Treatment.wanted(replace(plan, **options), ages), name
        assert Treatment.wanted(replace(plan, **options), None) == (name in ("clip", "decay", "all"))
    assert not Treatment.wanted(replace(plan, kind="sgd", new_moments="fresh"), ages)


@pytest.mark.parametrize("options", [{}, OPTIONS["clip"]], ids=["off", "clip"])
def test_the_gradient_ratio_is_that_of_autograd(options: Any) -> None:
    """Root mean squares at the last step of every segment, before any clipping; only what was added just before counts."""
    plan, data = plan_of("adam", **options), data_of(torch.float64)
    parent = trained_parent(plan, torch.float64)
    older = taught([grown(parent, Widen("h1", 2), plan, 2)], plan, 40, 44)[0]
    control = Fork(older.network, older.state)
    forks = [control, *(grown(control, move, plan, 3) for move in MOVES)]
    orders = [example_order(len(data), 24, 1), example_order(len(data), 0, 1), example_order(len(data), 16, 2)]

    def ratio(fork: Fork) -> float:
        # The gradient of a last step is taken at the weights before it.
        masks = added(fork.network, control.network)
        squares: list[tuple[Tensor, Tensor]] = []
        for cut in (24 - BATCH, 24 + 16 - BATCH):
            pieces, left = [], cut
            for order in orders:
                pieces.append(order[:left])
                left -= len(pieces[-1])
            ((found,),) = teach([Lesson([fork], data, pieces, BATCH, LOSS, plan)])
            network = found.network
            pick = orders[0][-BATCH:] if cut < 24 else orders[2][-BATCH:]
            network.zero_grad()
            nn.functional.cross_entropy(network(data.x[pick]), data.y[pick]).backward()
            gradients = {name: p.grad for name, p in network.named.items()}
            new, old = (
                torch.cat([g[m if young else ~m] for m, g in zip(masks.values(), gradients.values(), strict=True)
                           if g is not None]).square().mean()
                for young in (True, False)
            )  # fmt: skip
            squares.append((new, old))
        return float((sum(n for n, _ in squares) / sum(o for _, o in squares)) ** 0.5)

    (learned,) = teach([Lesson(forks, data, orders, BATCH, LOSS, plan)])
    assert learned[0].newborn_gradient_ratio is None
    for fork, own in zip(forks[1:], learned[1:], strict=True):
        assert own.newborn_gradient_ratio == pytest.approx(ratio(fork), rel=1e-9)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_both_engines_treat_new_entries_alike(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same dense forks by hand and by autograd: weights, ages and the gradient ratio."""
    plan = plan_of("adam", **options)
    parent = trained_parent(plan, torch.float64)
    forks = [parent, *(grown(parent, move, plan, 2) for move in MOVES)]
    packed = taught(forks, plan, 40, 40 + WINDOW + 5)
    monkeypatch.setattr(Lesson, "plain", False)
    again = taught(forks, plan, 40, 40 + WINDOW + 5)
    for one, other in zip(packed, again, strict=True):
        for name, parameter in one.network.named.items():
            torch.testing.assert_close(other.network.named[name], parameter, rtol=1e-8, atol=1e-11)
            assert other.state[name].keys() == one.state[name].keys()
    assert packed[0].newborn_gradient_ratio is None
    ratios = [[own.newborn_gradient_ratio for own in found[1:]] for found in (packed, again)]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-6)
