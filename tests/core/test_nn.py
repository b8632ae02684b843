"""Networks, surgery and optimisers: held against a recursive reference, brute force and torch.optim."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raygrow.architecture import (
    ACTIVATIONS,
    INPUT,
    LINEAR,
    OUTPUT,
    AbstractMove,
    AddEdge,
    AddNode,
    Architecture,
    Edge,
    Hold,
    Node,
    Widen,
)
from raygrow.errors import MoveError
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import Tiny
from raygrow.growth.line_search import Searched, line_search
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import response
from raygrow.growth.sweep import collect
from raygrow.nn import (
    BORN,
    MOMENTS,
    Extension,
    Network,
    Optimizer,
    OptimizerKind,
    OptimizerPlan,
    State,
    all_finite,
    bias_name,
    carry_state,
    clone,
    graft,
    weight_name,
)
from raygrow.nn.activations import FUNCTIONS
from raygrow.nn.losses import LOSSES, CrossEntropy
from raygrow.nn.maps import map_of
from raygrow.testing import SOME_MOVES, a_network, some_examples
from raygrow.training import Examples, Fork, example_order, fit

KINDS: tuple[OptimizerKind, ...] = ("adam", "sgd")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def act(name: str, z: Tensor) -> Tensor:
    """Activations written out."""
    if name == "relu":
        return (z + z.abs()) / 2
    if name == "tanh":
        return (z.exp() - (-z).exp()) / (z.exp() + (-z).exp())
    if name == "gelu":
        return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))
    if name == "silu":
        return z / (1 + (-z).exp())
    if name == "elu":
        return torch.where(z > 0, z, z.exp() - 1)
    if name == "softplus":
        return torch.where(z > 20, z, (1 + z.exp()).log())  # torch's softplus is the identity beyond 20
    assert name == "identity"
    return z


def reference(network: Network, x: Tensor, added: Mapping[str, Tensor], name: str = OUTPUT) -> Tensor:
    """Value of a node by recursion over its parents, with ``added`` to the pre-activations of some nodes."""
    if name == INPUT:
        return x
    state = network.state_dict()
    total = state[bias_name(name)].repeat(len(x), 1) + added.get(name, torch.zeros(1, dtype=x.dtype))
    for edge in network.arch.edges:
        if edge.target == name:
            weight = state[weight_name(edge.source, name)]
            total = total + torch.einsum("ni,oi->no", reference(network, x, added, edge.source), weight)
    return act(network.arch.by_name[name].activation, total)


# --- forward


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_the_recursive_definition(activation: str) -> None:
    network = a_network(activation)
    x, _ = some_examples("classification", n=20)
    trace = network.trace(x)
    torch.testing.assert_close(network(x), reference(network, x, {}), rtol=1e-12, atol=1e-12)
    for name in network.arch.by_name:
        torch.testing.assert_close(trace.values[name], reference(network, x, {}, name), rtol=1e-12, atol=1e-12)
    assert torch.equal(trace.output, network(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_facts_of_activations(name: str) -> None:
    facts, function = ACTIVATIONS[name], FUNCTIONS[name]
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert function(zero).item() == pytest.approx(facts.at_zero, abs=1e-15)
    (slope,) = torch.autograd.grad(function(zero + 0.0).sum(), zero)
    assert float(slope) == pytest.approx(facts.slope_at_zero, abs=1e-15)
    step = 1e-6
    below, above = function(torch.tensor([-step, step], dtype=torch.float64)).tolist()
    assert (above - below) / (2 * step) == pytest.approx(facts.gain_at_zero, abs=1e-5)
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    assert torch.allclose(function(-z), -function(z)) == facts.odd
    torch.testing.assert_close(function(z), act(name, z))


def test_facts_and_functions_name_the_same_activations() -> None:
    assert list(FUNCTIONS) == list(ACTIVATIONS)


def test_reading_without_a_graph_gives_what_a_graph_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    read = map_of(LINEAR, ()).read
    for outputs, shape, biased in itertools.product(range(1, 20), ((7, 5), (3, 7, 5)), (False, True)):
        values, weight = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (outputs, 5)))
        bias = torch.randn(outputs, generator=generator, dtype=torch.float64) if biased else None
        inputs = [values.clone(), weight.clone(), None if bias is None else bias.clone()]
        with torch.no_grad():
            found = read(values, weight, bias)
        torch.testing.assert_close(found, read(values.requires_grad_(), weight, bias).detach(), rtol=1e-12, atol=1e-12)
        for before, after in zip(inputs, (values, weight, bias), strict=True):
            assert before is after is None or torch.equal(before, after.detach())


def test_a_network_starts_at_zero_and_predicts_zero() -> None:
    network = Network(a_network("tanh").arch)
    assert all(not bool(p.any()) for p in network.parameters())
    assert not bool(network(torch.randn(4, 5)).any())


# --- tail

DELTAS: tuple[tuple[str, ...], ...] = (
    (OUTPUT,), ("h1",), ("h2",), ("h3",), ("h1", "h3"), ("h1", OUTPUT), ("h1", "h2", "h3", OUTPUT), ("h2", "h3"), (),
)  # fmt: skip


def some_deltas(network: Network, nodes: Sequence[str], n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(n, network.arch.size(name), generator=generator, dtype=torch.float64) for name in nodes}


@pytest.mark.parametrize("nodes", DELTAS, ids="+".join)
@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_tail_is_a_forward_pass_with_the_deltas_added(nodes: Sequence[str], activation: str) -> None:
    network = a_network(activation)
    x, _ = some_examples("classification", n=12)
    deltas = some_deltas(network, nodes, len(x))
    scales = torch.tensor([0.0, 1e-3, 0.5, -1.0, 7.0], dtype=torch.float64)
    trace = network.trace(x)
    found = network.tail(trace, deltas, scales)
    assert found.shape == (5, 12, 3)
    for scale, output in zip(scales, found, strict=True):
        added = {name: scale * delta for name, delta in deltas.items()}
        torch.testing.assert_close(output, reference(network, x, added), rtol=1e-11, atol=1e-11)
    assert torch.equal(network(x), trace.output)


@pytest.mark.parametrize("nodes", DELTAS, ids="+".join)
def test_tail_flops_are_those_torch_counts(nodes: Sequence[str]) -> None:
    network = a_network("tanh")
    x, _ = some_examples("classification", n=7)
    trace = network.trace(x)
    deltas = some_deltas(network, nodes, len(x))
    with FlopCounterMode(display=False) as counter:
        network.tail(trace, deltas, torch.linspace(0, 1, 4, dtype=torch.float64))
    assert counter.get_total_flops() == 7 * 4 * network.tail_flops(deltas)


# --- graft


def an_extension(arch: Architecture, move: AbstractMove, seed: int = 9) -> Extension:
    """Random new weights of the right shapes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    site = move.place(arch)
    if site is None:
        return Extension()
    if isinstance(move, AddEdge):
        return Extension(edge=draw(arch.size(move.target), arch.size(move.source)))
    k = move.units
    return Extension(
        {s: draw(k, arch.size(s)) for s in site.sources}, draw(k), {t: draw(arch.size(t), k) for t in site.targets}
    )


@pytest.mark.parametrize("move", [*SOME_MOVES, Hold()], ids=lambda move: move.key)
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_a_grafted_network_adds_the_new_units_to_the_old(move: AbstractMove, activation: str) -> None:
    if isinstance(move, AddNode):
        move = replace(move, activation=activation)
    network = a_network(activation)
    extension = an_extension(network.arch, move)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grown = graft(network, move, extension)
    assert grown.arch == move.apply(network.arch)
    x, _ = some_examples("classification", n=15)
    added: dict[str, Tensor] = {}
    site = move.place(network.arch)
    if site is not None and extension.edge is not None:
        added = {site.targets[0]: reference(network, x, {}, site.sources[0]) @ extension.edge.T}
    elif site is not None:
        assert extension.bias is not None
        parts = [reference(network, x, {}, s) @ block.T for s, block in extension.fan_in.items()]
        hidden = act(activation, sum(parts, extension.bias))
        added = {t: hidden @ omega.T for t, omega in extension.fan_out.items()}
    torch.testing.assert_close(grown(x), reference(network, x, added), rtol=1e-11, atol=1e-11)
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value)
        assert torch.equal(grown.state_dict()[name][tuple(slice(0, s) for s in value.shape)], value)
    halved = graft(network, move, extension.scaled(0.5))
    torch.testing.assert_close(
        halved(x), reference(network, x, {t: 0.5 * delta for t, delta in added.items()}), rtol=1e-11, atol=1e-11
    )


def misfits(arch: Architecture, move: AbstractMove) -> Iterator[tuple[str, Extension]]:
    """Extensions that do not fit the move, and what is wrong with each."""
    good = an_extension(arch, move)
    if good.edge is not None:
        yield "transposed edge", Extension(edge=good.edge.T)
        yield "edge one row short", Extension(edge=good.edge[:-1])
        yield "no edge", an_extension(arch, Widen("h1", 2))
        return
    assert good.bias is not None
    yield "no bias", replace(good, bias=None)
    yield "bias too long", replace(good, bias=torch.cat([good.bias, good.bias]))
    yield "bias of one, which would broadcast", replace(good, bias=good.bias[:1])
    for source, block in good.fan_in.items():
        yield f"fan-in of {source} too narrow", replace(good, fan_in={**good.fan_in, source: block[:, :-1]})
        yield f"fan-in of {source} short of a unit", replace(good, fan_in={**good.fan_in, source: block[:-1]})
        yield f"fan-in of {source} would broadcast", replace(good, fan_in={**good.fan_in, source: block[:1]})
    for target, block in good.fan_out.items():
        yield f"fan-out to {target} too long", replace(good, fan_out={**good.fan_out, target: block.repeat(2, 1)})
        yield f"fan-out to {target} short of a unit", replace(good, fan_out={**good.fan_out, target: block[:, :-1]})


MISFITS = [
    pytest.param(move, extension, id=f"{move.key}: {wrong}")
    for move in SOME_MOVES
    for wrong, extension in misfits(a_network("tanh").arch, move)
]


@pytest.mark.parametrize(("move", "extension"), MISFITS)
def test_an_extension_that_does_not_fit_is_refused(move: AbstractMove, extension: Extension) -> None:
    network = a_network("tanh")
    with pytest.raises(MoveError):
        graft(network, move, extension)


def test_an_extension_without_one_of_its_blocks_is_refused() -> None:
    """A missing block would leave zeros without a word."""
    network = a_network("tanh")
    for move in (move for move in SOME_MOVES if move.units):
        good = an_extension(network.arch, move)
        for source in good.fan_in:
            with pytest.raises(MoveError, match=source):
                graft(network, move, replace(good, fan_in={s: b for s, b in good.fan_in.items() if s != source}))
        for target in good.fan_out:
            with pytest.raises(MoveError, match=target):
                graft(network, move, replace(good, fan_out={t: b for t, b in good.fan_out.items() if t != target}))


def test_an_extension_that_reads_a_stranger_is_refused() -> None:
    network = a_network("tanh")
    for move in (move for move in SOME_MOVES if move.units):
        good = an_extension(network.arch, move)
        with pytest.raises(MoveError, match="h9"):
            graft(network, move, replace(good, fan_in={**good.fan_in, "h9": next(iter(good.fan_in.values()))}))


def test_an_illegal_graft_is_refused() -> None:
    network = a_network("tanh")
    for move in (Widen("h9", 1), AddEdge("output", "h1"), AddNode(("h3",), ("h1",), 1, "relu")):
        with pytest.raises(MoveError):
            graft(network, move, Extension())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_clone_is_equal_and_independent(dtype: torch.dtype) -> None:
    network = a_network("tanh", dtype)
    twin = clone(network)
    assert twin.arch == network.arch
    assert twin.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        other = twin.state_dict()[name]
        assert other.dtype == dtype
        assert torch.equal(other, value)
        assert other.untyped_storage().data_ptr() != value.untyped_storage().data_ptr()
    x = some_examples("classification", n=5)[0].to(dtype)
    before = network(x).detach()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(network(x), before)
    assert not torch.allclose(twin(x), before)


def test_all_finite_sees_one_bad_weight() -> None:
    network = a_network("tanh")
    assert all_finite(network)
    for name, bad in itertools.product(network.state_dict(), (math.nan, math.inf)):
        broken = clone(network)
        broken.state_dict()[name].view(-1)[-1] = bad
        assert not all_finite(broken)


# --- optimiser


def gradients_of(network: Network, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(LOSSES["classification"].mean(network(x), y), list(network.parameters()))


class Trainer:
    """``Optimizer`` on the parameters of a network, from a state on.

    Attributes:
        state: as it is now, by parameter name.
    """

    def __init__(self, network: Network, plan: OptimizerPlan, state: State) -> None:
        keys = MOMENTS[plan.kind]
        self.network, self._lr = network, plan.lr
        self.state: State = {
            name: {key: value.clone() for key, value in state[name].items()} if name in state
            else {"step": torch.zeros(()), **{key: torch.zeros_like(p).detach() for key in keys}}
            for name, p in network.named_parameters()
        }  # fmt: skip
        params = [p.detach() for p in network.parameters()]
        self._gradients = [torch.zeros_like(p) for p in params]
        moments = [[entry[key] for entry in self.state.values()] for key in keys]
        steps = [entry["step"] for entry in self.state.values()]
        self._optimizer = Optimizer(plan.kind, params, self._gradients, moments, steps)

    def step(self, gradients: Sequence[Tensor], lr: float | None = None) -> None:
        """At the plan's rate where none is given."""
        for gradient, value in zip(self._gradients, gradients, strict=True):
            gradient.copy_(value)
        self._optimizer.step(self._lr if lr is None else lr)

    def train(self, first: int, last: int) -> None:
        """Steps on batches of 32 that depend on the number of the step alone."""
        x, y = some_examples("classification", n=1000)
        x = x.to(next(self.network.parameters()).dtype)
        for step in range(first, last):
            pick = torch.randint(0, len(x), (32,), generator=torch.Generator().manual_seed(step))
            self.step(gradients_of(self.network, x[pick], y[pick]))


@pytest.mark.parametrize("kind", KINDS)
def test_optimizer_equals_that_of_torch_bit_for_bit(kind: OptimizerKind) -> None:
    ours, theirs = a_network("tanh", torch.float32), a_network("tanh", torch.float32)
    trainer = Trainer(ours, OptimizerPlan(kind, 0.03), {})
    parameters = list(theirs.parameters())
    other: torch.optim.Optimizer
    if kind == "adam":
        other = torch.optim.Adam(parameters, lr=0.03, fused=True)
    else:
        other = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, fused=True)
    x, y = some_examples("classification")
    x = x.float()
    for step in range(50):
        pick = slice(8 * step, 8 * step + 8)
        rate = 0.03 if step < 25 else 0.01
        trainer.step(gradients_of(ours, x[pick], y[pick]), None if step < 25 else rate)
        other.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(parameters, gradients_of(theirs, x[pick], y[pick]), strict=True):
            parameter.grad = gradient
        other.step()
        for a, b in zip(ours.parameters(), parameters, strict=True):
            assert torch.equal(a, b), step
    for name, parameter in theirs.named_parameters():
        for key, value in other.state[parameter].items():
            assert torch.equal(trainer.state[name][key], value), (name, key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_goes_out_and_back_in_bit_for_bit(kind: OptimizerKind, dtype: torch.dtype) -> None:
    """Of a lesson, into the next; and what was carried stays what it was while both go on."""
    plan, loss = OptimizerPlan(kind, 0.01), LOSSES["classification"]
    x, y = some_examples("classification", n=1000)
    data, order = Examples(x.to(dtype), y), example_order(1000, 40 * 32, 0)
    start = Fork(a_network("tanh", dtype), {})
    straight = fit(start, data, order, 32, loss, plan)
    first = fit(start, data, order[: 17 * 32], 32, loss, plan)
    carried = carry_state(first.state, first.network)
    kept = {name: {key: value.clone() for key, value in entry.items()} for name, entry in carried.items()}
    resumed = fit(Fork(first.network, carried), data, order[17 * 32 :], 32, loss, plan)
    for a, b in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for name, entry in kept.items():
        assert float(entry["step"]) == 17
        for key, value in entry.items():
            assert torch.equal(first.state[name][key], value)
            assert torch.equal(carried[name][key], value)
            assert torch.equal(straight.state[name][key], resumed.state[name][key])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("move", SOME_MOVES, ids=lambda move: move.key)
def test_carried_state_keeps_what_was_and_starts_what_is_new(kind: OptimizerKind, move: AbstractMove) -> None:
    parent = a_network("tanh", torch.float32)
    trainer = Trainer(parent, OptimizerPlan(kind, 0.01), {})
    trainer.train(0, 30)
    state = trainer.state
    if isinstance(move, AddNode):
        move = replace(move, activation="tanh")
    grown = graft(parent, move, an_extension(parent.arch, move))
    carried = carry_state(state, grown)
    fresh = set(grown.state_dict()) - set(state)
    assert set(carried) == set(grown.state_dict())
    assert bool(fresh) == (not isinstance(move, Widen))
    for name, entry in carried.items():
        shape = grown.state_dict()[name].shape
        assert float(entry["step"]) == (0 if name in fresh else 30)
        if name in fresh:
            assert all(value.shape == shape and not value.any() for key, value in entry.items() if key != "step")
            continue
        wider = shape != parent.state_dict()[name].shape
        assert set(entry) == {"step", *MOMENTS[kind], *([BORN] if wider else [])}
        for key, value in entry.items():
            if key == "step":
                continue
            assert value.shape == shape
            if key == BORN:
                old_born = value[tuple(slice(0, size) for size in parent.state_dict()[name].shape)]
                assert bool((old_born == -torch.inf).all())
                assert int((value == 30).sum()) == value.numel() - old_born.numel() > 0
                continue
            old = state[name][key]
            place = tuple(slice(0, size) for size in old.shape)
            assert torch.equal(value[place], old)
            new = torch.ones(shape, dtype=torch.bool)
            new[place] = False
            expected = float(old.double().mean()) if key == "exp_avg_sq" else 0.0
            assert value[new].tolist() == pytest.approx([expected] * int(new.sum()), rel=1e-6)
    x, y = some_examples("classification", n=32)
    data = Examples(x.float(), y)
    followed = fit(
        Fork(grown, carried), data, torch.arange(32), 32, LOSSES["classification"], OptimizerPlan(kind, 0.01)
    )
    assert followed.state.keys() == grown.state_dict().keys()
    for name, entry in followed.state.items():
        assert float(entry["step"]) == (1 if name in fresh else 31)
        assert bool((followed.network.state_dict()[name] != grown.state_dict()[name]).all()), name
    again = carry_state(state, grown)
    assert all(torch.equal(carried[name][key], again[name][key]) for name in carried for key in carried[name])


def naive_state(state: State, grown: Network) -> State:
    """Zeros for both moments of new entries, with the inherited step count."""
    padded: dict[str, dict[str, Tensor]] = {}
    for name, parameter in grown.named_parameters():
        padded[name] = {"step": state[name]["step"].clone()}
        for key in ("exp_avg", "exp_avg_sq"):
            padded[name][key] = torch.zeros_like(parameter).detach()
            padded[name][key][tuple(slice(0, s) for s in state[name][key].shape)] = state[name][key]
    return padded


def test_new_entries_of_a_trained_network_do_not_overshoot() -> None:
    """The first 20 updates after widening a trained layer, in learning rates (growth_math 5)."""
    carried_worst, naive_worst = 0.0, 0.0
    lr = 0.01
    x, y = some_examples("classification", n=1000)
    for seed in range(3):
        network = a_network("tanh", seed=seed)
        trainer = Trainer(network, OptimizerPlan("adam", lr), {})
        trainer.train(0, 400)
        state = trainer.state
        move = Widen("h3", 3)
        site = move.place(network.arch)
        statistics = collect(network, x, y, CrossEntropy(), torch.Generator().manual_seed(0), Meter())
        found = Residuals(statistics.whole, Meter())
        extension = Tiny().begin(found, site, (3,), torch.Generator().manual_seed(1), Meter())[3]
        search = Searched(network, x, y, CrossEntropy(), Meter())
        deltas = response(extension, site, search.trace.values, Meter())
        scale = line_search(search, deltas, Meter()).scale
        for carry in (carry_state, naive_state):
            grown = graft(network, move, extension.scaled(scale))
            follower = Trainer(grown, OptimizerPlan("adam", lr), carry(state, grown))
            worst = 0.0
            for step in range(400, 420):
                before = clone(grown).state_dict()
                follower.train(step, step + 1)
                for name, value in grown.state_dict().items():
                    change = (value - before[name]).abs()
                    change[tuple(slice(0, s) for s in state[name]["exp_avg"].shape)] = 0.0
                    worst = max(worst, float(change.max()) / lr)
            if carry is carry_state:
                carried_worst = max(carried_worst, worst)
            else:
                naive_worst = max(naive_worst, worst)
    assert 0.05 < carried_worst < 1.5
    assert naive_worst > 3.0
    assert naive_worst < 7.3


def test_the_naive_overshoot_is_the_closed_form() -> None:
    """Constant gradient, naive padding: (1 - b1^t) / sqrt(1 - b2^t), 6.57 at t = 12; carried stays below 1."""
    arch = Architecture((Node(INPUT, 1, "identity"), Node(OUTPUT, 1, "identity")), (Edge(INPUT, OUTPUT),))
    for fill in (0.0, 1.0):
        network = Network(arch, torch.float64)
        state = {
            name: {
                "step": torch.tensor(1e6), "exp_avg": torch.zeros_like(p).detach(),
                "exp_avg_sq": torch.full_like(p, fill).detach(),
            }
            for name, p in network.named_parameters()
        }  # fmt: skip
        trainer = Trainer(network, OptimizerPlan("adam", 1.0), state)
        for t in range(1, 31):
            expected = (1 - 0.9**t) / (1.0 if fill else math.sqrt(1 - 0.999**t))
            before = clone(network)
            trainer.step([torch.ones_like(p) for p in network.parameters()])
            for new, old in zip(network.parameters(), before.parameters(), strict=True):
                assert float(old.detach() - new.detach()) == pytest.approx(expected, rel=1e-5)
