"""How new weights begin: every initializer in every mode, held against autograd, finite differences and brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raygrow.architecture import ACTIVATIONS, INPUT, OUTPUT, AbstractMove, AddEdge, AddNode, Architecture, Site, Widen
from raygrow.config import load_plan
from raygrow.errors import ConfigError, MoveError
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import (
    INITIALIZERS,
    AbstractInitializer,
    Firefly,
    GradMax,
    Net2Net,
    North,
    Orthogonal,
    RandomInitializer,
    Senn,
    Splitting,
    VarianceTransfer,
)
from raygrow.growth.initializers.base import fan_in_of, fan_out_of, hidden_of, rewritten_fan_out
from raygrow.growth.initializers.family import ascended, bend, candidates, forward_selected, slope
from raygrow.growth.initializers.senn import expansion_scores, natural_target
from raygrow.growth.initializers.splitting import lowest_splits
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import derivative, predict, response
from raygrow.growth.prediction import hidden_values as hidden_values_of
from raygrow.growth.rows import UPDATE_RIDGE
from raygrow.growth.sweep import collect
from raygrow.nn import Extension, Network, bias_name, graft, weight_name
from raygrow.nn.activations import FUNCTIONS
from raygrow.nn.losses import LOSSES
from raygrow.testing import SOME_MOVES, a_network, some_examples, with_activation

HIDDEN = tuple(name for name in ACTIVATIONS if name != "identity")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def modes(cls: type[AbstractInitializer]) -> list[AbstractInitializer]:
    """The initializer with every value of its choices (``Literal`` and boolean parameters), the others at their defaults."""
    choices: dict[str, tuple[Any, ...]] = {}
    for name, hint in get_type_hints(cls).items():
        if name in {field.name for field in dataclasses.fields(cls)} - {"kind"}:  # type: ignore[arg-type]
            if get_origin(hint) is Literal:
                choices[name] = get_args(hint)
            elif hint is bool:
                choices[name] = (False, True)
    return [cls(**dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())]


EVERY = [subject for cls in INITIALIZERS for subject in modes(cls)]


def name_of(subject: object) -> str:
    if isinstance(subject, AbstractMove):
        return subject.key
    return (
        str(subject).replace("Initializer", "").partition("(")[0]
        + ":"
        + "-".join(str(value) for value in vars(subject).values() if isinstance(value, str | bool))
        if dataclasses.is_dataclass(subject)
        else str(subject)
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def residuals_of(network: Network, x: Tensor, y: Tensor, task: str) -> Residuals:
    return Residuals(collect(network, x, y, LOSSES[task], seeded(0), Meter()).whole, Meter())


@cache
def measured(activation: str, task: str, dtype: torch.dtype = torch.float64) -> tuple[Network, Residuals]:
    """The network of the contract tests and its statistics; shared, since no test changes them."""
    network = a_network(activation, dtype)
    x, y = some_examples(task)
    return network, residuals_of(network, x.to(dtype), y if task == "classification" else y.to(dtype), task)


def place(move: AbstractMove, arch: Architecture) -> Site:
    site = move.place(arch)
    assert site is not None
    return site


def extension_of(subject: AbstractInitializer, found: Residuals, move: AbstractMove, seed: int = 3) -> Extension:
    site = place(move, found.fold.arch)
    return subject.begin(found, site, (move.units,), seeded(seed), Meter())[move.units]


def supported(subject: AbstractInitializer) -> Iterator[tuple[AbstractMove, str]]:
    for move, activation in itertools.product(SOME_MOVES, HIDDEN):
        if type(move) in subject.supports and subject.supports_activation(activation):
            yield with_activation(move, activation), activation


def fresh_gradients(old: Network, grown: Network, x: Tensor, y: Tensor, task: str) -> Tensor:
    """Gradients of every entry that the parent does not have."""
    named = dict(grown.named_parameters())
    gradients = torch.autograd.grad(LOSSES[task].mean(grown(x), y), list(named.values()))
    state, found = old.state_dict(), []
    for name, gradient in zip(named, gradients, strict=True):
        fresh = torch.ones_like(gradient, dtype=torch.bool)
        if name in state:
            fresh[tuple(slice(0, size) for size in state[name].shape)] = False
        found.append(gradient[fresh])
    return torch.cat(found)


def hidden_values(network: Network, node: str, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network.trace(x).values[node]


def mean_loss(network: Network, x: Tensor, y: Tensor, task: str) -> float:
    with torch.no_grad():
        return float(LOSSES[task].per_example(network(x), y).double().mean())


# --- every initializer, in every mode


@pytest.mark.parametrize("subject", EVERY, ids=name_of)
def test_the_function_stays_where_an_initializer_says_so(subject: AbstractInitializer) -> None:
    for move, activation in supported(subject):
        if not subject.preserves_function(activation):
            continue
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            network, found = measured(activation, "classification", dtype)
            grown = graft(network, move, extension_of(subject, found, move))
            # Examples that the statistics have not seen, far beyond them too.
            x = 3 * some_examples("classification", 100, 9)[0].to(dtype)
            with torch.no_grad():
                before, after = network(x), grown(x)
            off = float((after - before).abs().max())
            assert off <= tolerance * max(1.0, float(before.abs().max())), (move, activation)


@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("subject", EVERY, ids=name_of)
def test_new_weights_live_at_once_and_after_a_step(subject: AbstractInitializer, task: str) -> None:
    x, y = some_examples(task)
    for move, activation in supported(subject):
        network, found = measured(activation, task)
        grown = graft(network, move, extension_of(subject, found, move))
        assert bool((fresh_gradients(network, grown, x, y, task) != 0).any()), (move, activation)
        named = list(grown.parameters())
        for parameter, gradient in zip(named, torch.autograd.grad(LOSSES[task].mean(grown(x), y), named), strict=True):
            parameter.data -= 0.05 * gradient
        after = fresh_gradients(network, grown, x, y, task)
        assert float((after != 0).double().mean()) > 0.5, (move, activation)


@pytest.mark.parametrize("subject", EVERY, ids=name_of)
def test_what_new_units_add_has_the_predicted_derivative(subject: AbstractInitializer) -> None:
    """-dloss/dgamma along the fan-out against a central difference; with old weights changed too, no prediction is made."""
    task = "regression"
    x, y = some_examples(task)
    for move, activation in supported(subject):
        network, found = measured(activation, task)
        if subject.preserves_function(activation):
            continue
        extension, site = extension_of(subject, found, move), place(move, network.arch)
        if extension.rewritten:
            statistics = collect(network, x, y, LOSSES[task], seeded(0), Meter())
            halves = [Residuals(fold, Meter()) for fold in statistics.folds]
            assert predict(subject, halves, site, (1, move.units), seeded(1), Meter()) == {1: None, move.units: None}
            continue
        predicted = float(
            derivative(response(extension, site, found.fold.values, Meter()), found.fold.gradients, found.fold).mean()
        )
        up, down = (mean_loss(graft(network, move, extension.scaled(s)), x, y, task) for s in (1e-5, -1e-5))
        assert predicted == pytest.approx((down - up) / 2e-5, rel=1e-3, abs=1e-7), (move, activation)


@pytest.mark.parametrize("subject", EVERY, ids=name_of)
@pytest.mark.parametrize("n", [40, 400])
def test_the_meter_counts_the_products_torch_counts(subject: AbstractInitializer, n: int) -> None:
    network = a_network("tanh")
    x, y = some_examples("classification", n)
    for move in (with_activation(move, "tanh") for move in SOME_MOVES if type(move) in subject.supports):
        meter = Meter()
        found = Residuals(collect(network, x, y, LOSSES["classification"], seeded(0), Meter()).whole, meter)
        with FlopCounterMode(display=False) as counter:
            subject.begin(found, place(move, network.arch), (move.units,), seeded(3), meter)
        assert meter.products == pytest.approx(counter.get_total_flops(), rel=0.05), move


@pytest.mark.parametrize("subject", EVERY, ids=name_of)
def test_it_grows_more_units_than_there_are_directions(subject: AbstractInitializer) -> None:
    """20 units on 5 inputs and 4 old units, from 30 examples: every rank is exhausted and nothing breaks."""
    network = a_network("tanh", torch.float32)
    x, y = some_examples("classification", 30)
    found = residuals_of(network, x.float(), y, "classification")
    for move in (Widen("h1", 20), AddNode((INPUT,), (OUTPUT,), 20, "tanh")):
        grown = graft(network, move, extension_of(subject, found, move))
        assert all(bool(torch.isfinite(p).all()) for p in grown.parameters())
        if subject.preserves_function("tanh"):
            with torch.no_grad():
                torch.testing.assert_close(grown(x.float()), network(x.float()), rtol=1e-5, atol=1e-5)


def test_parameters_out_of_range_are_refused_with_the_rule_and_the_value() -> None:
    for cls in INITIALIZERS:
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                with pytest.raises(ValueError, match=rf"`{field.name} [>=]+ \d`.*-3"):
                    cls(**{field.name: -3})


# --- weights by rows


def test_weights_that_are_there_are_read_and_written_by_rows() -> None:
    """The node with two parents and two children; one unit's rows are its weights, wherever they lie."""
    network, found = measured("tanh", "classification")
    site = place(Widen("h1", 1), network.arch)
    assert site.node == "h1"
    alpha, omega = fan_in_of(found, site), fan_out_of(found, site)
    x = some_examples("classification")[0]
    rows = torch.cat([found.fold.values[s] for s in site.sources] + [torch.ones(len(x), 1, dtype=x.dtype)], 1)
    torch.testing.assert_close(torch.tanh(rows @ alpha.T), found.fold.values["h1"])
    torch.testing.assert_close(hidden_of(found, site, alpha, Meter()), found.fold.values["h1"])
    torch.testing.assert_close(omega, torch.cat([network.weights[f"h1>{t}"] for t in site.targets]))
    doubled = rewritten_fan_out(found, site, 2 * omega)
    assert set(doubled) == {weight_name("h1", t) for t in site.targets}
    for name, value in doubled.items():
        torch.testing.assert_close(value, 2 * network.state_dict()[name])


def test_a_new_node_has_no_weights_to_read_or_rewrite() -> None:
    network, found = measured("tanh", "classification")
    site = place(AddNode((INPUT,), (OUTPUT,), 2, "tanh"), network.arch)
    assert site.node is None
    assert fan_in_of(found, site).shape == (0, 6)
    assert fan_out_of(found, site).shape == (3, 0)
    with pytest.raises(MoveError, match="new node has no weights to rewrite"):
        rewritten_fan_out(found, site, fan_out_of(found, site))


# --- what they share


@pytest.mark.parametrize("activation", HIDDEN)
def test_slopes_and_bends_are_finite_differences(activation: str) -> None:
    z = torch.linspace(-2.03, 2.04, 40, dtype=torch.float64)
    f, h = FUNCTIONS[activation], 1e-4
    torch.testing.assert_close(slope(activation, z), (f(z + h) - f(z - h)) / (2 * h), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bend(activation, z), (f(z + h) - 2 * f(z) + f(z - h)) / h**2, rtol=1e-3, atol=1e-5)


def test_forward_selection_takes_the_best_next_column_by_brute_force() -> None:
    generator = seeded(0)
    columns, outputs = randn(generator, 60, 7), randn(generator, 60, 2)
    columns[:, 3] = columns[:, 2] + columns[:, 1]

    def explained(chosen: list[int]) -> float:
        fit = np.linalg.lstsq(columns[:, chosen].numpy(), outputs.numpy(), rcond=None)[0]
        return float(np.square(columns[:, chosen].numpy() @ fit).sum())

    def distance(chosen: list[int]) -> float:
        *before, last = chosen
        target = columns[:, last].numpy()
        fit = np.linalg.lstsq(columns[:, before].numpy(), target, rcond=None)[0] if before else np.zeros(0)
        return float(np.square(target - columns[:, before].numpy() @ fit).sum())

    for cross, worth in ((outputs.T @ columns, explained), (None, distance)):
        chosen = forward_selected(columns.T @ columns, cross, 7)
        assert sorted(chosen) == list(range(7))
        for i in range(6):
            best = max(worth([*chosen[:i], j]) for j in set(range(7)) - set(chosen[:i]))
            assert worth(chosen[: i + 1]) == pytest.approx(best)
        # The last adds nothing: one of three columns on a plane.
        assert chosen[6] in (1, 2, 3)


def test_an_ascent_does_not_depend_on_the_scale_of_a_feature() -> None:
    generator = seeded(0)
    rows, goal, alpha = randn(generator, 50, 4), randn(generator, 50), randn(generator, 3, 4)

    def score(before: Tensor) -> Tensor:
        return (torch.tanh(before) * goal[:, None]).mean(0)

    factor = torch.tensor([1.0, 1e3, 1e-2, 1.0], dtype=torch.float64)
    plain = ascended(rows, alpha, score, 15, 0.1, Meter())
    scaled = ascended(rows * factor, alpha / factor, score, 15, 0.1, Meter())
    torch.testing.assert_close(rows @ plain.T, (rows * factor) @ scaled.T, rtol=1e-6, atol=1e-8)
    assert bool((score(rows @ plain.T) > score(rows @ alpha.T)).all())


def test_candidates_have_unit_spread_and_kinks_among_the_examples() -> None:
    network, found = measured("relu", "classification")
    site = place(Widen("h1", 1), network.arch)
    alpha = candidates(found, site, 500, seeded(0), Meter())
    before = found.fold.reads(site.sources).matrix @ alpha.T
    torch.testing.assert_close(before.std(0, correction=0), torch.ones(500, dtype=torch.float64))
    assert float(before.mean(0).std()) == pytest.approx(1.0, rel=0.1)


# --- gradmax


def test_a_slope_at_zero_gives_gradmax_the_gradient_of_its_theory_with_relu() -> None:
    """-dloss/dalpha = omega^T E[G b2^T] as if relu'(0) were 1; noise follows it for about half of the examples only."""
    network, found = measured("relu", "classification")
    x, y = some_examples("classification")
    move = AddNode((INPUT,), (OUTPUT,), 2, "relu")
    b2 = found.fold.reads((INPUT,)).matrix
    for subject, agrees in ((GradMax(at_zero="slope", noise=1e-6), True), (GradMax(noise=1e-6), False)):
        extension = extension_of(subject, found, move)
        grown = graft(network, move, extension)
        name, _ = move.landing(network.arch)
        read = [grown.weights[f"{INPUT}>{name}"], grown.biases[name]]
        weight, bias = torch.autograd.grad(LOSSES["classification"].mean(grown(x), y), read)
        theory = extension.fan_out[OUTPUT].T @ (found.fold.gradients[OUTPUT].T @ b2) / len(b2)
        close = torch.allclose(-torch.cat([weight, bias[:, None]], 1), theory, rtol=1e-4, atol=1e-6)
        assert close == agrees


# --- random, orthogonal


def test_random_takes_the_spread_of_each_tensor_that_is_there() -> None:
    network = a_network("tanh")
    network.named[weight_name("h2", "h1")].data.mul_(10)
    found = residuals_of(network, *some_examples("classification"), "classification")
    blocks = extension_of(RandomInitializer(scale="existing"), found, Widen("h1", 2000)).fan_in
    for source, block in blocks.items():
        wanted = float(network.state_dict()[weight_name(source, "h1")].std(correction=0))
        assert float(block.std()) == pytest.approx(wanted, rel=0.05)


def test_orthogonal_rows_are_orthonormal_up_to_the_gain() -> None:
    _, found = measured("tanh", "classification")
    rows = extension_of(Orthogonal(gain=3.0), found, AddNode((INPUT,), (OUTPUT,), 12, "tanh")).fan_in[INPUT]
    for block in torch.split(rows, 5):
        torch.testing.assert_close(block @ block.T, 3 * torch.eye(len(block), dtype=torch.float64))


# --- north


def effective_dimension(values: Tensor, threshold: float) -> int:
    return int((torch.linalg.svdvals(values / math.sqrt(len(values))) > threshold).sum())


def redundant(units: int, seed: int) -> tuple[Network, Tensor, Tensor]:
    """A layer of units that all read nearly the same two directions."""
    arch = AddNode((INPUT,), (OUTPUT,), units, "tanh").apply(Architecture.simplest(12, 3))
    network, generator = Network(arch, torch.float64), seeded(seed)
    for parameter in network.parameters():
        parameter.data = 0.5 * randn(generator, *parameter.shape)
    network.weights[f"{INPUT}>h1"].data = 0.2 * randn(generator, units, 2) @ randn(generator, 2, 12)
    x = randn(generator, 500, 12)
    return network, x, x[:, :3].argmax(1)


@pytest.mark.parametrize("seed", range(3))
def test_north_selects_units_that_raise_the_effective_dimension_more_than_random_ones(seed: int) -> None:
    network, x, y = redundant(10, seed)
    found = residuals_of(network, x, y, "classification")
    before = hidden_values(network, "h1", x)
    move = Widen("h1", 4)

    def spread(subject: AbstractInitializer, seed: int = 3) -> Tensor:
        grown = graft(network, move, extension_of(subject, found, move, seed))
        return torch.linalg.svdvals(hidden_values(grown, "h1", x) / math.sqrt(len(x)))

    after = spread(North())
    for threshold in (0.01, 0.1, 0.3):
        old = effective_dimension(before, threshold)
        assert int((after > threshold).sum()) >= old + 4
    # The volume that all units span, among pools of the same units: greedy beats what is drawn.
    drawn = [float(spread(North(pool=1), s).log().sum()) for s in range(20)]
    assert float(after.log().sum()) > max(drawn)


@pytest.mark.parametrize("move", [Widen("h1", 3), AddNode((INPUT,), (OUTPUT,), 3, "tanh")], ids=name_of)
def test_north_pre_has_orthogonal_preactivations_of_unit_rms(move: AbstractMove) -> None:
    arch = AddNode((INPUT,), (OUTPUT,), 3, "relu").apply(Architecture.simplest(12, 3))
    network = Network(arch, torch.float64)
    for parameter in network.parameters():
        parameter.data = randn(seeded(4), *parameter.shape)
    x = randn(seeded(5), 300, 12) @ randn(seeded(6), 12, 12) + 0.5
    found = residuals_of(network, x, x[:, :3].argmax(1), "classification")
    grown = graft(network, move, extension_of(North(mode="pre"), found, move))
    node = "h1" if isinstance(move, Widen) else "h2"
    with torch.no_grad():
        z = grown.trace(x).preactivations[node]
    gram = z.T @ z / len(x)
    torch.testing.assert_close(gram[-3:, -3:], torch.eye(3, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert float(gram[:-3, -3:].abs().max() if len(gram) > 3 else 0.0) < 1e-5 * float(gram.abs().max())


def test_north_weight_is_orthogonal_to_the_weights_and_as_long() -> None:
    network, x, y = redundant(5, 0)
    found = residuals_of(network, x, y, "classification")
    old = network.weights[f"{INPUT}>h1"].detach()
    new = extension_of(North(mode="weight"), found, Widen("h1", 4))
    rows = new.fan_in[INPUT]
    assert float((rows @ old.T).abs().max()) < 1e-5
    gram = rows @ rows.T / float(old.norm(dim=1).mean()) ** 2
    torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert new.bias is not None
    assert not new.bias.any()


# --- net2net, variance transfer


@pytest.mark.parametrize("split", ["equal", "unequal"])
def test_copies_are_units_that_share_their_fan_out(split: Any) -> None:
    network, found = measured("relu", "classification")
    move = Widen("h1", 9)
    extension = extension_of(Net2Net(split=split), found, move)
    grown = graft(network, move, extension)
    rows = torch.cat([grown.weights[f"{s}>h1"] for s in grown.arch.parents("h1")] + [grown.biases["h1"][:, None]], 1)
    same = (rows[:, None] - rows[None, :]).abs().amax(2) == 0
    origin = [int(row[:4].nonzero()[0, 0]) for row in same]
    assert origin[:4] == [0, 1, 2, 3]
    for target in network.arch.children("h1"):
        before, after = network.weights[f"h1>{target}"].detach(), grown.weights[f"h1>{target}"].detach()
        for unit in range(4):
            copies = [j for j, o in enumerate(origin) if o == unit]
            torch.testing.assert_close(after[:, copies].sum(1), before[:, unit])
            shares = after[0, copies] / before[0, unit]
            assert bool((shares > 0).all())
            if split == "equal":
                torch.testing.assert_close(shares, torch.full_like(shares, 1 / len(copies)))
            elif len(copies) > 1:
                assert float(shares.max() - shares.min()) > 1e-3


def test_noise_changes_the_copies_alone_and_in_proportion() -> None:
    network, found = measured("tanh", "classification")
    x = some_examples("classification")[0]
    off = []
    for noise in (1e-4, 1e-3):
        grown = graft(network, Widen("h1", 3), extension_of(Net2Net(noise=noise), found, Widen("h1", 3)))
        for source in network.arch.parents("h1"):
            assert torch.equal(grown.weights[f"{source}>h1"][:4], network.weights[f"{source}>h1"])
        with torch.no_grad():
            off.append(float((grown(x) - network(x)).abs().max()))
    assert not Net2Net(noise=1e-3).preserves_function("tanh")
    assert off[1] == pytest.approx(10 * off[0], rel=0.05)


@pytest.mark.parametrize("units", [4, 5])
def test_variance_transfer_begins_in_pairs_that_cancel(units: int) -> None:
    network, found = measured("tanh", "classification")
    site = place(Widen("h1", units), network.arch)
    extension = extension_of(VarianceTransfer(), found, Widen("h1", units))
    for block in extension.fan_in.values():
        assert torch.equal(block[0:4:2], block[1:4:2])
    for block in extension.fan_out.values():
        assert torch.equal(block[:, 0:4:2], -block[:, 1:4:2])
        assert bool((block[:, :4] != 0).all())
        assert not block[:, 4:].any()
    many = extension_of(VarianceTransfer(), found, Widen("h1", 4000))
    omega = torch.cat([many.fan_out[t] for t in site.targets])
    wanted = float(fan_out_of(found, site).std(correction=0)) * math.sqrt(4 / 4004)
    assert float(omega.std()) == pytest.approx(wanted, rel=0.05)


def test_rescaling_keeps_the_function_of_relu_and_leaves_other_activations_alone() -> None:
    for activation, rescales in (("relu", True), ("tanh", False), ("softplus", False), ("elu", False)):
        network, found = measured(activation, "classification")
        extension = extension_of(VarianceTransfer(rescale=True), found, Widen("h1", 5))
        assert bool(extension.rewritten) == rescales
        if rescales:
            for target in network.arch.children("h1"):
                name = weight_name("h1", target)
                torch.testing.assert_close(extension.rewritten[name], math.sqrt(4 / 9) * network.state_dict()[name])


# --- splitting


@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu", "softplus"])
@pytest.mark.parametrize("task", LOSSES)
def test_a_split_changes_the_loss_by_half_its_eigenvalue_times_the_step_squared(activation: str, task: str) -> None:
    network, found = measured(activation, task)
    x, y = some_examples(task)
    site = place(Widen("h1", 1), network.arch)
    values, _ = lowest_splits(found, site, seeded(0), Meter())
    before = mean_loss(network, x, y, task)
    for units in (1, 3):
        move, step = Widen("h1", units), 1e-2
        grown = graft(network, move, extension_of(Splitting(step=step), found, move))
        change = (mean_loss(grown, x, y, task) - before) / (step**2 / 2)
        assert change == pytest.approx(float(values.sort().values[:units].sum()), rel=2e-2)


def test_splitting_matrices_are_those_of_brute_force_and_no_direction_does_better() -> None:
    """Second differences of the loss of a split along every pair of axes, and along random directions."""
    task = "classification"
    network, found = measured("tanh", task)
    x, y = some_examples(task)
    site = place(Widen("h1", 1), network.arch)
    values, vectors = lowest_splits(found, site, seeded(0), Meter())
    old, omega = fan_in_of(found, site), fan_out_of(found, site)
    before, p = mean_loss(network, x, y, task), old.shape[1]

    def second(unit: int, v: Tensor, step: float = 1e-2) -> float:
        """Of the loss along v, by a network built by hand."""
        widths = [network.arch.size(s) for s in site.sources]
        half = omega[:, [unit]] / 2
        state = {name: value.clone() for name, value in network.state_dict().items()}
        for source, part in zip(site.sources, torch.split(v[:-1], widths), strict=True):
            state[weight_name(source, "h1")][unit] -= step * part
        state[bias_name("h1")][unit] -= step * v[-1]
        sizes = [network.arch.size(t) for t in site.targets]
        fan_out = dict(zip(site.targets, torch.split(half, sizes), strict=True))
        for target, part in fan_out.items():
            state[weight_name("h1", target)][:, [unit]] = part
        twin = old[[unit]] + step * v
        fan_in = dict(zip(site.sources, torch.split(twin[:, :-1], widths, 1), strict=True))
        grown = graft(network, Widen("h1", 1), Extension(fan_in, twin[:, -1], fan_out, rewritten=state))
        return (mean_loss(grown, x, y, task) - before) / (step**2 / 2)

    axes = torch.eye(p, dtype=torch.float64)
    for unit in range(len(old)):
        matrix = np.zeros((p, p))
        for i, j in itertools.combinations_with_replacement(range(p), 2):
            if i == j:
                matrix[i, i] = second(unit, axes[i])
        for i, j in itertools.combinations(range(p), 2):
            both = second(unit, (axes[i] + axes[j]) / math.sqrt(2))
            matrix[i, j] = matrix[j, i] = both - (matrix[i, i] + matrix[j, j]) / 2
        lowest = float(np.linalg.eigvalsh(matrix)[0])
        assert float(values[unit]) == pytest.approx(lowest, rel=2e-2, abs=2e-5)
        trials = randn(seeded(unit), 20, p)
        assert min(second(unit, v / v.norm()) for v in trials) > second(unit, vectors[unit]) - 1e-4


def test_lowest_splits_of_many_columns_agree_with_the_matrices_themselves() -> None:
    arch = AddNode((INPUT,), (OUTPUT,), 4, "tanh").apply(Architecture.simplest(200, 3))
    network = Network(arch, torch.float64)
    generator = seeded(0)
    for parameter in network.parameters():
        parameter.data = randn(generator, *parameter.shape) / parameter.shape[-1] ** 0.5
    x = randn(generator, 800, 200) * torch.linspace(0.2, 3, 200, dtype=torch.float64)
    found = residuals_of(network, x, (x[:, 197] * x[:, 198] > 0).long(), "classification")
    site = place(Widen("h1", 1), arch)
    values, vectors = lowest_splits(found, site, seeded(1), Meter())
    b, theta, omega = found.fold.reads((INPUT,)).matrix, fan_in_of(found, site), fan_out_of(found, site)
    for unit in range(4):
        h = torch.tanh(b @ theta[unit])
        weight = -(found.fold.gradients[OUTPUT] @ omega[:, unit]) * (-2 * h * (1 - h.square()))
        matrix = (b * weight[:, None]).T @ b / len(b)
        lowest = float(torch.linalg.eigvalsh(matrix)[0])
        # Block iteration stops early: near the lowest, and never below it.
        assert lowest - 1e-12 <= float(values[unit]) <= 0.8 * lowest < 0
        assert float(vectors[unit] @ matrix @ vectors[unit]) == pytest.approx(float(values[unit]), rel=1e-6)


def test_a_piecewise_linear_activation_has_nothing_to_split() -> None:
    _, found = measured("relu", "classification")
    assert {name for name in HIDDEN if not Splitting().supports_activation(name)} == {"relu"}
    with pytest.raises(MoveError, match="needs a curved activation; 'relu' is piecewise linear"):
        extension_of(Splitting(), found, Widen("h1", 2))
    document: Mapping[str, Any] = {
        "data": {"kind": "digits"},
        "members": [{"name": "a", "strategy": "mdl"}, {"strategy": "mdl", "initializer": "splitting"}],
    }
    with pytest.raises(ConfigError) as caught:
        load_plan(document)
    assert str(caught.value) == (
        "`members.1.initializer`: splitting cannot begin units of `network.activation` 'relu'; choose another initializer, "
        "or one of tanh, gelu, silu, elu, softplus"
    )
    assert load_plan({**document, "network": {"activation": "gelu"}}).members[1].initializer == Splitting()


# --- firefly


def planted(units: int, activation: str, seed: int) -> tuple[Network, Tensor, Tensor, Tensor]:
    """A teacher, examples, its answers, and the direction of its last unit; outputs are 2."""
    arch = AddNode((INPUT,), (OUTPUT,), units, activation).apply(Architecture.simplest(6, 2))
    teacher, generator = Network(arch, torch.float64), seeded(seed)
    for name, parameter in teacher.named.items():
        parameter.data = randn(generator, *parameter.shape) * (0.5 if name.endswith("h1") else 1.0)
    x = randn(generator, 1500, 6)
    with torch.no_grad():
        return teacher, x, teacher(x), teacher.weights[f"{INPUT}>h1"][-1].clone()


def without_last(teacher: Network) -> Network:
    """The teacher without its last hidden unit."""
    size = teacher.arch.size("h1")
    arch = AddNode((INPUT,), (OUTPUT,), size - 1, teacher.arch.by_name["h1"].activation).apply(
        Architecture.simplest(teacher.arch.size(INPUT), teacher.arch.size(OUTPUT))
    )
    smaller = Network(arch, torch.float64)
    for name, parameter in smaller.named.items():
        parameter.data = teacher.named[name].data[tuple(slice(0, s) for s in parameter.shape)].clone()
    return smaller


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(3))
def test_firefly_selects_the_unit_that_is_missing(activation: str, seed: int) -> None:
    teacher, x, y, _ = planted(4, activation, seed)
    network = without_last(teacher)
    found = residuals_of(network, x, y, "regression")
    move = Widen("h1", 1)
    grown = graft(network, move, extension_of(Firefly(pool=16, steps=100), found, move))
    unit, missing = hidden_values(grown, "h1", x)[:, -1], hidden_values(teacher, "h1", x)[:, -1]
    both = torch.stack([unit, missing]) - torch.stack([unit, missing]).mean(1, keepdim=True)
    assert abs(float(torch.corrcoef(both)[0, 1])) > 0.8
    assert mean_loss(grown, x, y, "regression") < mean_loss(network, x, y, "regression")


def test_firefly_splits_the_unit_whose_two_halves_were_merged() -> None:
    """Where all that is missing is the difference of two close units, the best of what is offered is a split of their mean."""
    generator = seeded(0)
    arch = AddNode((INPUT,), (OUTPUT,), 4, "tanh").apply(Architecture.simplest(6, 1))
    network = Network(arch, torch.float64)
    for parameter in network.parameters():
        parameter.data = randn(generator, *parameter.shape)
    network.weights[f"h1>{OUTPUT}"].data.mul_(4)
    parting = randn(generator, 6)
    parting *= 1.0 / parting.norm()
    x = randn(generator, 2000, 6)
    teacher = graft(network, Widen("h1", 1), Extension(
        {INPUT: (network.weights[f"{INPUT}>h1"][2] + parting).detach()[None]}, network.biases["h1"][[2]].detach(),
        {OUTPUT: network.weights[f"h1>{OUTPUT}"][:, [2]].detach() / 2},
    ))  # fmt: skip
    with torch.no_grad():
        teacher.weights[f"{INPUT}>h1"][2] -= parting
        teacher.weights[f"h1>{OUTPUT}"][:, 2] /= 2
        y = teacher(x)
    found = residuals_of(network, x, y, "regression")
    move = Widen("h1", 1)
    extension = extension_of(Firefly(epsilon=1.0, pool=1, steps=200, rate=0.05), found, move)
    changed = (extension.rewritten[weight_name("h1", OUTPUT)] - network.weights[f"h1>{OUTPUT}"]).abs().amax(0)
    assert changed.nonzero().flatten().tolist() == [2]
    delta = (extension.fan_in[INPUT][0] - network.weights[f"{INPUT}>h1"][2]).detach()
    assert abs(float(delta @ parting) / float(delta.norm() * parting.norm())) > 0.95
    grown = graft(network, move, extension)
    assert mean_loss(grown, x, y, "regression") < 0.5 * mean_loss(network, x, y, "regression")


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_drop_that_firefly_selects_by_is_the_measured_one(activation: str) -> None:
    """Of a new unit, to second order in epsilon."""
    task = "classification"
    network, found = measured(activation, task)
    x, y = some_examples(task)
    move, subject = Widen("h1", 1), Firefly(epsilon=1e-4, pool=1)
    _, _, (gain,) = subject._new(found, place(move, network.arch), 1, seeded(3), Meter())
    grown = graft(network, move, extension_of(subject, found, move))
    drop = mean_loss(network, x, y, task) - mean_loss(grown, x, y, task)
    assert drop == pytest.approx(float(gain), rel=1e-2)


def test_firefly_split_gains_are_the_measured_drops_of_splits() -> None:
    """A split of one unit changes the targets in second order of epsilon, and the loss by the gradient times that change."""
    network, found = measured("tanh", "regression")
    x, y = some_examples("regression")
    site, subject = place(Widen("h1", 1), network.arch), Firefly(epsilon=0.01)
    parting, gains = subject._splits(found, site, seeded(4), Meter())
    alpha = torch.zeros(0, parting.shape[1], dtype=torch.float64)
    omega = torch.zeros(len(fan_out_of(found, site)), 0, dtype=torch.float64)
    for unit in range(len(parting)):
        grown = graft(network, Widen("h1", 1), subject._built(found, site, [unit], parting, alpha, omega))
        drop = mean_loss(network, x, y, "regression") - mean_loss(grown, x, y, "regression")
        if float(gains[unit]) > 0:
            assert drop == pytest.approx(float(gains[unit]), rel=2e-2)
    assert bool((gains > 0).any())


# --- senn


def score_by_hand(network: Network, found: Residuals, site: Site, hidden: Tensor) -> float:
    """tr(S_o^-1 C A_p^-1 C^T) in numpy, with the ridges of growth_math 1.5 and 1.6 only."""
    g = [found.fold.gradients[t].numpy() for t in site.targets]
    perp = []
    for target, part in zip(site.targets, g, strict=True):
        read = found.fold.reads(network.arch.parents(target)).matrix.numpy()
        gram = read.T @ read / len(read)
        gram += UPDATE_RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        perp.append(part - read @ np.linalg.solve(gram, read.T @ part / len(read)))
    whole, free, a = np.concatenate(g, 1), np.concatenate(perp, 1), hidden.numpy()
    n = len(a)
    fisher = whole.T @ whole / n
    fisher += 1e-3 * np.trace(fisher) / len(fisher) * np.eye(len(fisher))
    c = free.T @ a / n
    return float(np.trace(np.linalg.solve(fisher, c) @ np.linalg.solve(a.T @ a / n, c.T)))


@pytest.mark.parametrize("move", [m for m in SOME_MOVES if not isinstance(m, AddEdge)], ids=name_of)
def test_the_expansion_score_is_that_of_brute_force(move: AbstractMove) -> None:
    """Of single units, and of the set that the forward selection takes: no other third unit of the pool adds more."""
    network = a_network("tanh")
    x, y = some_examples("regression", 2000)
    found = residuals_of(network, x, y, "regression")
    move = with_activation(move, "tanh")
    site = place(move, network.arch)
    hidden = hidden_of(found, site, candidates(found, site, 12, seeded(0), Meter()), Meter())
    target = natural_target(found, site, Meter())
    alone = [score_by_hand(network, found, site, hidden[:, [j]]) for j in range(12)]
    torch.testing.assert_close(
        expansion_scores(target, hidden, Meter()), torch.tensor(alone, dtype=torch.float64), rtol=1e-6, atol=1e-12
    )
    chosen = forward_selected(hidden.T @ hidden / len(x), target.T @ hidden / len(x), 3)
    assert chosen[0] == int(np.argmax(alone))
    third = [score_by_hand(network, found, site, hidden[:, [*chosen[:2], j]]) for j in set(range(12)) - set(chosen[:2])]
    assert score_by_hand(network, found, site, hidden[:, chosen]) >= (1 - 1e-6) * max(third)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_pool_and_ascent_of_senn_both_raise_the_score(activation: str) -> None:
    network = a_network(activation)
    found = residuals_of(network, *some_examples("classification", 1000), "classification")
    for move in (Widen("h1", 3), AddNode((INPUT,), (OUTPUT,), 3, activation)):
        site = place(move, network.arch)

        def score(subject: AbstractInitializer, seed: int) -> float:
            extension = extension_of(subject, found, move, seed)  # noqa: B023
            hidden = hidden_values_of(extension, site, found.fold.values, Meter())  # noqa: B023
            return score_by_hand(network, found, site, hidden)  # noqa: B023

        drawn, pooled, climbed = (
            float(np.mean([score(subject, seed) for seed in range(5)]))
            for subject in (Senn(pool=1, steps=0), Senn(steps=0), Senn())
        )
        assert drawn < pooled < climbed
