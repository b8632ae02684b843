"""Packed training: equal to each network trained alone with autograd and torch.optim, and blind to its company."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from raygrow.architecture import (
    ACTIVATIONS,
    GROWING_MOVES,
    INPUT,
    OUTPUT,
    AddBlock,
    AddEdge,
    AddNode,
    Architecture,
    Edge,
    Node,
    Palette,
    Prune,
    Widen,
    legal_moves,
    training_flops,
)
from raygrow.data import AbstractSource, prepare
from raygrow.data.builtin import Diabetes
from raygrow.data.teacher import Teacher
from raygrow.growth.initializers import Tiny
from raygrow.nn import MOMENTS, Heritage, Network, OptimizerPlan, State, all_finite, carry_state
from raygrow.nn.activations import FUNCTIONS
from raygrow.nn.kernels import KERNELS
from raygrow.nn.losses import LOSSES
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.plan import Campaign, CheckpointPlan, Facts, Growth, Member, Plan, Probe, Training
from raygrow.population.tasks import Report, Task
from raygrow.population.worker import Worker
from raygrow.strategies import Mdl, Periodic, Rl
from raygrow.testing import counted as counter
from raygrow.training import Examples, Fork, Learned, Lesson, example_order, teach
from raygrow.training.layout import Layout, Part, layouts
from raygrow.training.place import ALIGNMENT
from tests.core.alone import trained_alone

INPUTS, OUTPUTS = 5, 3
ADAM, SGD = OptimizerPlan("adam", 0.02), OptimizerPlan("sgd", 0.02)
TASKS = tuple(LOSSES)
DTYPES = (torch.float64, torch.float32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- networks, states and examples


def an_arch(*moves: Widen | AddNode | AddEdge, start: bool = True) -> Architecture:
    """The linear network after these moves, without its own edge unless ``start``."""
    arch = Architecture.simplest(INPUTS, OUTPUTS)
    for move in moves:
        arch = move.apply(arch)
    return arch if start else Architecture(arch.nodes, tuple(e for e in arch.edges if e != Edge(INPUT, OUTPUT)))


def parents(activation: str) -> dict[str, Architecture]:
    """Graphs that a probe may begin from."""
    first = AddNode((INPUT,), (OUTPUT,), 4, activation)
    chain = (first, AddNode(("h1",), (OUTPUT,), 3, activation))
    two = an_arch(*chain)
    return {
        "one hidden layer": an_arch(first, start=False),
        "two hidden layers": Architecture(
            two.nodes, tuple(e for e in two.edges if e not in (Edge(INPUT, OUTPUT), Edge("h1", OUTPUT)))
        ),
        "skips and parallel nodes": an_arch(
            first,
            AddNode((INPUT,), ("h1", OUTPUT), 3, activation),
            AddNode(("h1",), (OUTPUT,), 7, activation),
            AddEdge("h2", "h3"),
        ),
    }


PARENTS = tuple(parents("relu"))


def drawn(arch: Architecture, seed: int, dtype: torch.dtype = torch.float64) -> Network:
    """Random weights that keep values near 1, whatever the sizes."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(arch, dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(value / math.sqrt(parameter.shape[-1]))
    return network


def a_state(network: Network, plan: OptimizerPlan, seed: int, share: float = 0.7) -> State:
    """A state as growth leaves one: tensors that are new have none, the others each their own number of steps."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, dict[str, Tensor]] = {}
    for name, parameter in network.named_parameters():
        if rng.random() > share:
            continue
        moment = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        state[name] = {"step": torch.tensor(float(rng.integers(1, 60)))}
        if plan.kind == "adam":
            state[name] |= {"exp_avg": moment, "exp_avg_sq": moment.square() + 0.01}
        else:
            state[name]["momentum_buffer"] = moment
    return state


def examples(task: str, n: int, seed: int, dtype: torch.dtype = torch.float64, inputs: int = INPUTS) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs(), x[:, -1] - x[:, 0].square()], 1)
    return Examples(x.to(dtype), y.argmax(1) if task == "classification" else y.to(dtype))


def forks_of(arch: Architecture, plan: OptimizerPlan, dtype: torch.dtype, new: str, units: Sequence[int]) -> list[Fork]:
    """The control and every legal move in these sizes, with the state that each would carry."""
    control = drawn(arch, 1, dtype)
    state = a_state(control, plan, 2)
    # A block stands on a stream, which does not train packed.
    kinds = [move.kind for move in GROWING_MOVES if move is not AddBlock]
    moves = legal_moves(arch, kinds=kinds, units=units, palette=Palette(new))
    assert {type(move) for move in moves} >= {Widen, AddNode, AddEdge, Prune}
    forks = [Fork(control, state)]
    for i, move in enumerate(moves):
        grown = drawn(move.apply(arch), 3 + i, dtype)
        kept = torch.arange(move.removed, arch.size(move.node)) if isinstance(move, Prune) else None
        inherited = Heritage.of(move, arch, kept).state(state)
        forks.append(Fork(grown, carry_state(inherited, grown)))
    return forks


def held_out_losses(network: Network, task: str, dtype: torch.dtype) -> Tensor:
    """Of every example, written out."""
    data = examples(task, 64, 99, dtype)
    with torch.no_grad():
        output = network(data.x)
    if task == "classification":
        return F.cross_entropy(output, data.y, reduction="none")
    return F.mse_loss(output, data.y, reduction="none").mean(1)


def agree(found: Network, expected: Network, task: str, dtype: torch.dtype) -> None:
    """1e-12 in float64; in float32 1e-5 of the mean loss."""
    ours, theirs = (held_out_losses(network, task, dtype) for network in (found, expected))
    if dtype == torch.float64:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    else:
        assert float(ours.mean()) == pytest.approx(float(theirs.mean()), rel=1e-5)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def check(
    forks: Sequence[Fork],
    task: str,
    plan: OptimizerPlan,
    lengths: Sequence[int] = (35,),
    size: int = 8,
    anneal: bool = False,
    averaged: bool = False,
    data: Examples | None = None,
) -> None:
    """A lesson against each fork alone: the losses of what is returned, and the optimiser's state."""
    dtype = next(forks[0].network.parameters()).dtype
    data = data or examples(task, 100, 3, dtype)
    order = example_order(len(data), sum(lengths), 4)
    orders = list(torch.split(order, list(lengths)))
    lesson = Lesson(forks, data, orders, size, LOSSES[task], plan, anneal, averaged)
    (learned,) = teach([lesson])
    assert len(learned) == len(forks)
    for fork, ours in zip(forks, learned, strict=True):
        theirs = trained_alone(fork, data, orders, size, task, plan, anneal)
        assert ours.network.arch == fork.network.arch
        agree(ours.network, theirs.averaged if averaged else theirs.network, task, dtype)
        tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
        assert ours.state.keys() == theirs.state.keys()
        for name, entry in theirs.state.items():
            for key in MOMENTS[plan.kind]:
                torch.testing.assert_close(ours.state[name][key], entry[key], **tolerance)
        steps = sum(math.ceil(length / size) for length in lengths)
        for name, entry in ours.state.items():
            assert float(entry["step"]) == steps + float(fork.state.get(name, {}).get("step", 0.0))


# --- equal to each network alone


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_move_trains_as_if_alone(activation: str, task: str, dtype: torch.dtype) -> None:
    """Every kind, in two sizes beside each other and the control, with carried states and a partial last batch."""
    for arch in parents(activation).values():
        check(forks_of(arch, ADAM, dtype, activation, (1, 3)), task, ADAM)


@pytest.mark.parametrize("plan", [ADAM, SGD], ids=lambda plan: plan.kind)
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("anneal", [False, True])
def test_every_way_of_training_is_that_of_a_network_alone(
    plan: OptimizerPlan, parent: str, averaged: bool, anneal: bool
) -> None:
    """Segments (one of them empty, the last with a partial batch), with new nodes of another activation."""
    forks = forks_of(parents("tanh")[parent], plan, torch.float64, "gelu", (2,))
    check(forks, "classification", plan, (16, 0, 40, 13), anneal=anneal, averaged=averaged)


@pytest.mark.parametrize("plan", [ADAM, SGD], ids=lambda plan: plan.kind)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fresh_and_carried_states_train_side_by_side(plan: OptimizerPlan, dtype: torch.dtype) -> None:
    arch = parents("tanh")["two hidden layers"]
    forks = [Fork(drawn(arch, i, dtype), a_state(drawn(arch, i, dtype), plan, i, share)) for i, share in
             enumerate((0.0, 1.0, 0.5, 0.5, 0.0))]  # fmt: skip
    assert len({float(e["step"]) for fork in forks for e in fork.state.values()}) > 5
    check(forks, "regression", plan)


@pytest.mark.parametrize("size", [1, 2, 7, 33, 200])
def test_every_batch_size_trains_as_if_alone(size: int) -> None:
    """The last one is more than there are examples."""
    forks = forks_of(parents("silu")["skips and parallel nodes"], ADAM, torch.float64, "silu", (1, 3))
    check(forks, "classification", ADAM, (40,), size)


def test_the_running_average_forgets_as_it_says() -> None:
    """Beyond the 50 steps that count alike."""
    forks = forks_of(parents("tanh")["one hidden layer"], ADAM, torch.float64, "tanh", (1,))
    check(forks, "classification", replace(ADAM, lr=0.002), (130, 7), 2, averaged=True)


def test_more_examples_than_are_gathered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raygrow.training.examples.GATHER", 24)
    forks = forks_of(parents("tanh")["one hidden layer"], ADAM, torch.float64, "tanh", (1,))
    check(forks, "regression", ADAM, (101,), 8, anneal=True)


def any_arch(rng: np.random.Generator) -> Architecture:
    """A random DAG of up to five hidden nodes; without any, perhaps with no edge at all."""
    names = [f"h{i}" for i in range(1, 1 + int(rng.integers(0, 6)))]
    order = [INPUT, *(str(name) for name in rng.permutation(names)), OUTPUT]
    edges = {
        Edge(a, b) for i, a in enumerate(order) for b in order[i + 1 :] if rng.random() < 0.4
    }  # fmt: skip
    for i, name in enumerate(order[1:-1], start=1):
        if not any(edge.target == name for edge in edges):
            edges.add(Edge(str(rng.choice(order[:i])), name))
        if not any(edge.source == name for edge in edges):
            edges.add(Edge(name, str(rng.choice(order[i + 1 :]))))
    nodes = [Node(name, int(rng.integers(1, 8)), str(rng.choice(list(ACTIVATIONS)))) for name in names]
    ends = Node(INPUT, INPUTS, "identity"), Node(OUTPUT, OUTPUTS, "identity")
    return Architecture((ends[0], *nodes, ends[1]), tuple(edges))


@pytest.mark.parametrize("seed", range(40))
def test_any_networks_train_as_if_alone(seed: int) -> None:
    """Forks need not be one move apart; those that share no union are split."""
    rng = np.random.default_rng(seed)
    plan = (ADAM, SGD)[seed % 2]
    networks = [drawn(any_arch(rng), seed + i) for i in range(int(rng.integers(1, 6)))]
    forks = [Fork(network, a_state(network, plan, seed + i)) for i, network in enumerate(networks)]
    check(forks, TASKS[seed // 2 % 2], plan, (21,), 4)


def test_networks_that_order_two_nodes_differently_are_split_and_exact() -> None:
    parallel = an_arch(AddNode((INPUT,), (OUTPUT,), 4, "tanh"), AddNode((INPUT,), (OUTPUT,), 3, "tanh"))
    one, other = (AddEdge(*pair).apply(parallel) for pair in (("h1", "h2"), ("h2", "h1")))
    assert Layout.of([one, other]) is None
    archs = [parallel, one, other, one, other]
    assert [members for members, _ in layouts(archs)] == [(0, 1, 3), (2, 4)]
    networks = [drawn(arch, i) for i, arch in enumerate(archs)]
    check([Fork(network, a_state(network, ADAM, i)) for i, network in enumerate(networks)], "classification", ADAM)


def test_a_network_that_nothing_reaches_learns_its_bias() -> None:
    ends = Node(INPUT, INPUTS, "identity"), Node(OUTPUT, OUTPUTS, "identity")
    for archs in ([Architecture(ends, ())], [Architecture(ends, ()), Architecture.simplest(INPUTS, OUTPUTS)]):
        check([Fork(drawn(arch, i), {}) for i, arch in enumerate(archs)], "classification", ADAM)


def test_networks_of_other_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="equal inputs and outputs"):
        Layout.of([Architecture.simplest(4, 3), Architecture.simplest(5, 3)])


# --- the layout


@pytest.mark.parametrize("seed", range(20))
def test_every_weight_has_one_place_and_none_is_added(seed: int) -> None:
    """No padding but that of the alignment: what networks share is stored for each, and nothing besides."""
    rng = np.random.default_rng(seed)
    archs = [any_arch(rng) for _ in range(4)]
    for members, layout in layouts(archs):
        part = Part(members, layout, 3 * ALIGNMENT)
        assert part.places[0].start == 3 * ALIGNMENT
        assert all(a.stop <= b.start < a.stop + ALIGNMENT for a, b in zip(part.places, part.places[1:], strict=False))
        assert part.stop % ALIGNMENT == 0
        assert part.places[-1].stop <= part.stop
        for member in members:
            seen = {name: torch.zeros(p.shape) for name, p in Network(archs[member]).named_parameters()}
            for place in part.places:
                if place.fork == member:
                    place.of(seen[place.name]).add_(1.0)
            assert all(bool((count == 1).all()) for count in seen.values())
        assert {place.fork for place in part.places} == set(members)


def test_a_wider_node_costs_its_new_units_alone() -> None:
    arch = parents("tanh")["one hidden layer"]
    layout = Layout.of([arch, Widen("h1", 3).apply(arch), Widen("h1", 1).apply(arch)])
    assert layout is not None
    hidden = [s for s in layout.segments if s.node == "h1"]
    assert [(s.start, s.stop, s.networks) for s in hidden] == [(0, 4, (0, 1, 2)), (4, 5, (1, 2)), (5, 7, (1,))]


def test_new_nodes_of_one_name_at_different_places_are_different_nodes() -> None:
    arch = parents("tanh")["one hidden layer"]
    grown = [
        AddNode(*ends, 2, "tanh").apply(arch)
        for ends in (((INPUT,), (OUTPUT,)), ((INPUT,), ("h1",)), (("h1",), (OUTPUT,)), ((INPUT,), (OUTPUT,)))
    ]
    layout = Layout.of([arch, *grown])
    assert layout is not None
    assert sorted(s.networks for s in layout.segments if s.node == "h2") == [(1, 4), (2,), (3,)]


# --- forks do not touch each other


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_fork_that_diverges_leaves_the_others_their_bits(activation: str, bad: float) -> None:
    arch = parents(activation)["skips and parallel nodes"]
    forks = forks_of(arch, ADAM, torch.float64, activation, (3,))
    for sick in (0, len(forks) // 2, len(forks) - 1):
        data = examples("classification", 60, 3)
        order = example_order(60, 60, 0)
        lesson = Lesson(forks, data, [order], 8, LOSSES["classification"], ADAM, averaged=True)
        (well,) = teach([lesson])
        broken = drawn(forks[sick].network.arch, 0)
        with torch.no_grad():
            for parameter in broken.parameters():
                parameter.fill_(bad)
        patient = Fork(broken, forks[sick].state)
        (found,) = teach([replace(lesson, forks=[*forks[:sick], patient, *forks[sick + 1 :]])])
        assert not all_finite(found[sick].network)
        for i in range(len(forks)):
            assert i == sick or same(well[i], found[i])


# --- bit for bit


def same(one: Learned, other: Learned) -> bool:
    """Weights and state, bit for bit."""
    pairs = list(zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True))
    assert one.state.keys() == other.state.keys()
    pairs += [(value, other.state[name][key]) for name, entry in one.state.items() for key, value in entry.items()]
    return all(torch.equal(a, b) for a, b in pairs)


def a_group(activation: str, width: int, dtype: torch.dtype, plan: OptimizerPlan, seed: int) -> list[Fork]:
    """Two layers of this width, wider ones, and a parallel node of this width, with carried states."""
    two = parents(activation)["two hidden layers"]
    arch = Architecture(tuple(replace(n, size=width) if n.name.startswith("h") else n for n in two.nodes), two.edges)
    archs = [
        arch,
        Widen("h1", width).apply(arch),
        Widen("h2", 1).apply(arch),
        AddNode((INPUT,), (OUTPUT,), width, activation).apply(arch),
        AddEdge(INPUT, OUTPUT).apply(arch),
    ]
    networks = [drawn(a, seed + i, dtype) for i, a in enumerate(archs)]
    return [Fork(network, a_state(network, plan, seed + i)) for i, network in enumerate(networks)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 3, 7, 33])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_group_does_not_feel_its_company(activation: str, width: int, dtype: torch.dtype) -> None:
    """Bit for bit, among groups of other graphs, sizes, activations, data and states, one diverged, wherever it stands."""
    plan, task = (ADAM, OptimizerPlan("sgd", 0.005))[width % 4 == 3], TASKS[width % 3 == 0]
    for size, averaged in ((1, False), (7, True), (33, False)):
        group = a_group(activation, width, dtype, plan, 10)
        rng = np.random.default_rng(width)
        strangers = [Fork(drawn(any_arch(rng), i, dtype), {}) for i in range(3)]
        strangers[0].network.state_dict()[f"biases.{OUTPUT}"].fill_(math.nan)
        others = [strangers, a_group("elu", 5, dtype, plan, 50), a_group(activation, width, dtype, plan, 90)]
        lessons = [
            Lesson(forks, examples(task, 80, 3 + i, dtype),
                   [example_order(80, 4 * size, i), example_order(80, 3 * size + 2, i + 9)],
                   size, LOSSES[task], plan, averaged=averaged)
            for i, forks in enumerate([group, *others])
        ]  # fmt: skip
        (alone,) = teach(lessons[:1])
        for company in (lessons[::-1], [lessons[1], lessons[0], lessons[2]]):
            (found,) = (got for lesson, got in zip(company, teach(company), strict=True) if lesson is lessons[0])
            assert all(all_finite(learned.network) for learned in alone)
            assert all(same(a, b) for a, b in zip(alone, found, strict=True)), size


def test_groups_may_read_and_answer_different_things() -> None:
    """Inputs and outputs are a matter of each group."""

    def lesson(inputs: int, outputs: int, seed: int) -> Lesson:
        arch = AddNode((INPUT,), (OUTPUT,), 4, "tanh").apply(Architecture.simplest(inputs, outputs))
        forks = [Fork(drawn(arch, seed + i), {}) for i in range(2)]
        data = examples("classification", 50, seed, inputs=inputs)
        return Lesson(forks, data, [example_order(50, 50, seed)], 8, LOSSES["classification"], ADAM)

    lessons = [lesson(5, 3, 0), lesson(9, 4, 1), lesson(3, 7, 2)]
    for given, found in zip(lessons, teach(lessons), strict=True):
        (alone,) = teach([given])
        assert all(same(a, b) for a, b in zip(alone, found, strict=True))


def test_lessons_are_the_same_given_together_or_one_by_one() -> None:
    """Of one rhythm or of several; each is heard of after every segment, and finds its own networks there."""
    heard: list[tuple[int, int, Tensor]] = []

    def lesson(i: int, size: int, plan: OptimizerPlan, averaged: bool, count: int, listen: bool) -> Lesson:
        task = "classification"
        forks = a_group("tanh", 3 + i, torch.float32, plan, 20 * i)
        orders = [example_order(80, count, i), example_order(80, 21, i + 1)]

        def hear(segment: int, networks: Sequence[Network]) -> None:
            heard.append((i, segment, networks[1].biases["h1"].detach().clone()))

        lesson = Lesson(
            forks, examples(task, 80, i, torch.float32), orders, size, LOSSES[task], plan, averaged=averaged
        )
        return replace(lesson, heard=hear) if listen else lesson

    lessons = [
        lesson(0, 8, ADAM, True, 40, True),
        lesson(1, 8, ADAM, True, 40, False),
        lesson(2, 8, ADAM, True, 40, True),
        lesson(3, 4, ADAM, True, 40, True),
        lesson(4, 8, SGD, True, 40, True),
        lesson(5, 8, ADAM, False, 40, True),
        lesson(6, 8, ADAM, True, 48, True),
    ]
    assert len({lesson.rhythm for lesson in lessons}) == 5
    together = teach(lessons)
    at_once, heard[:] = sorted(heard, key=lambda item: item[:2]), []
    one_by_one = [teach([lesson])[0] for lesson in lessons]
    for a, b in zip(together, one_by_one, strict=True):
        assert all(same(one, other) for one, other in zip(a, b, strict=True))
    assert [item[:2] for item in at_once] == [(i, segment) for i in (0, 2, 3, 4, 5, 6) for segment in (0, 1)]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(at_once, sorted(heard, key=lambda item: item[:2]), strict=True))
    # What is heard first is what the first segment alone comes to.
    for i, segment, bias in at_once:
        (short,) = teach([replace(lessons[i], orders=lessons[i].orders[: segment + 1], heard=None)])
        assert torch.equal(bias, short[1].network.biases["h1"])
    assert teach([]) == []


def test_a_lesson_leaves_its_forks_and_its_data_as_they_were() -> None:
    forks, data = a_group("tanh", 3, torch.float32, ADAM, 0), examples("regression", 50, 0, torch.float32)
    kept = [[value.clone() for value in values_of(fork)] for fork in forks], data.x.clone(), data.y.clone()
    lesson = Lesson(forks, data, [example_order(50, 50, 0)], 8, LOSSES["regression"], ADAM)
    first, second = teach([lesson])[0], teach([lesson])[0]
    for fork, before in zip(forks, kept[0], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(values_of(fork), before, strict=True))
    assert torch.equal(data.x, kept[1])
    assert torch.equal(data.y, kept[2])
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    addresses = [v.untyped_storage().data_ptr() for item in (*forks, *first, *second) for v in values_of(item)]
    assert len(set(addresses)) == len(addresses)


def values_of(item: Fork | Learned) -> list[Tensor]:
    return [*item.network.state_dict().values(), *(v for entry in item.state.values() for v in entry.values())]


# --- what it costs


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("parent", PARENTS)
def test_a_lesson_takes_the_flops_that_torch_counts(task: str, parent: str) -> None:
    """By each fork alone with autograd, and by the packed pass itself: a union adds no arithmetic."""
    forks = forks_of(parents("relu")[parent], ADAM, torch.float32, "relu", (2,))
    data, orders = examples(task, 50, 0, torch.float32), [example_order(50, 16, 0), example_order(50, 3, 1)]
    lesson = Lesson(forks, data, orders, 8, LOSSES[task], ADAM)
    with counter() as by_autograd:
        for fork in forks:
            trained_alone(fork, data, orders, 8, task, ADAM)
    with counter() as packed:
        teach([lesson])
    assert lesson.flops == 19 * sum(training_flops(fork.network.arch) for fork in forks)
    assert lesson.flops == by_autograd.get_total_flops() == packed.get_total_flops()


# --- kernels and losses, one call


def test_kernels_and_functions_name_the_same_activations() -> None:
    assert list(KERNELS) == list(ACTIVATIONS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_kernel_is_what_autograd_computes_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    z = torch.linspace(-40, 40, 4096, dtype=dtype).requires_grad_()
    weight = torch.linspace(-2, 3, 4096, dtype=dtype)
    expected = FUNCTIONS[name](z)
    (slope,) = torch.autograd.grad(expected, z, weight)
    h, gradient = torch.empty_like(z), weight.clone()
    with torch.no_grad():
        KERNELS[name].forward(z.detach(), h)
        KERNELS[name].backward(gradient, z.detach(), h)
    assert torch.equal(h, expected)
    assert torch.equal(gradient, slope)


@pytest.mark.parametrize("task", TASKS)
def test_the_gradient_of_a_loss_is_that_of_autograd(task: str) -> None:
    loss, data = LOSSES[task], examples(task, 11, 0)
    output = torch.randn(4, OUTPUTS, 11, dtype=torch.float64, requires_grad=True)
    total = sum((loss.mean(one.t(), data.y) for one in output), torch.zeros((), dtype=torch.float64))
    (expected,) = torch.autograd.grad(total, output)
    out = torch.empty_like(output)
    with torch.no_grad():
        loss.gradient(output.detach(), loss.columns(data.y, OUTPUTS), out)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-15)


# --- a worker's tasks


def a_worker(folder: Path, source: AbstractSource) -> Worker:
    """Three strategies with settings of their own; two share the rhythm of their training."""
    dataset = prepare(source, 0)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())

    def member(name: str, strategy: Mdl | Periodic | Rl, seed: int, batch: int) -> Member:
        return Member(
            name=name, strategy=strategy, initializer=Tiny(), seed=seed,
            training=Training(examples_per_round=200, final_examples=100, batch_size=batch),
            growth=Growth(units=(1, 3), candidates=3, price=0.0), probe=Probe(examples=150, blocks=4),
        )  # fmt: skip

    members = (member("a", Mdl(), 0, 16), member("b", Periodic(), 1, 16), member("c", Rl(), 0, 9))
    # Every fork is kept, so that networks can be made to grow whatever the verdicts.
    plan = Plan(data=source, members=members, campaign=Campaign(rounds=3), checkpoints=CheckpointPlan(keep="all"))
    return Worker(plan, facts, dataset, CheckpointStore(folder))


def timeless(reports: Sequence[Report]) -> list[Mapping[str, object]]:
    return [{key: value for key, value in report.items() if key != "seconds"} for report in reports]


@pytest.mark.parametrize("source", [Teacher(inputs=5, units=4, classes=3, rows=300), Diabetes()], ids=lambda s: s.kind)
def test_reports_of_tasks_run_together_are_those_of_one_at_a_time(source: AbstractSource, tmp_path: Path) -> None:
    """Through a start, rounds in which networks have grown apart, the final anneal, and tasks of different phases at once."""
    together, alone = (a_worker(tmp_path / name, source) for name in ("together", "alone"))

    def run(tasks: Sequence[Task]) -> list[Report]:
        reports = together.run(tasks)
        assert timeless(reports) == timeless([alone.run([task])[0] for task in tasks])
        assert all(report["seconds"] >= 0 for report in reports)
        return reports

    heads = [r["head"]["checkpoint"] for r in run([Task("start", name, 0) for name in "abc"])]
    grown = 0
    for round_ in (1, 2):
        reports = run([Task("round", name, round_, head) for name, head in zip("abc", heads, strict=True)])
        kept = [[c for c in report["candidates"] if c["checkpoint"]] for report in reports]
        grown += sum(map(bool, kept))
        heads = [
            rows[-1]["checkpoint"] if rows else report["control"]["checkpoint"]
            for rows, report in zip(kept, reports, strict=True)
        ]
    assert grown
    run([Task("test", "a", 2, heads[0]), Task("round", "b", 3, heads[1]), Task("finish", "c", 2, heads[2])])
    run([Task("finish", name, 3, head) for name, head in zip("abc", heads, strict=True)])
