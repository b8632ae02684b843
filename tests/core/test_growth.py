"""The mathematics of growth: held against closed forms, numpy, autograd, dense grids and torch's FLOP counter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raygrow.architecture import (
    INPUT,
    OUTPUT,
    AbstractMove,
    AddEdge,
    AddNode,
    Architecture,
    Edge,
    Node,
    Site,
    Widen,
)
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.bottleneck import Residuals, eigenpairs, leading, leading_eigenpairs
from raygrow.growth.curvature import curved_directions
from raygrow.growth.initializers import AbstractInitializer, GradMax, RandomInitializer, Tiny
from raygrow.growth.line_search import COARSE, SCOUTS, LineSearch, Searched, line_search
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import Prediction, derivative, predict, response
from raygrow.growth.rows import UPDATE_RIDGE, WHITENING_RIDGE, Rows, ridge_for
from raygrow.growth.statistics import Fold, Pass, Sample, Statistics
from raygrow.growth.step import amplified
from raygrow.growth.sweep import collect
from raygrow.growth.update import update_existing
from raygrow.nn import Extension, Network, OptimizerPlan, bias_name, clone, graft, weight_name
from raygrow.nn.losses import LOSSES, AbstractLoss, CrossEntropy, MeanSquaredError
from raygrow.testing import SOME_MOVES, a_network, some_examples, with_activation
from raygrow.training import Examples, Fork, example_order, fit

TASKS = tuple(LOSSES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def layered(sizes: Sequence[int], activation: str, seed: int, dtype: torch.dtype = torch.float64) -> Network:
    """Layers of these sizes one after the other, with random weights of variance 1 / fan-in."""
    names = [INPUT, *(f"h{i}" for i in range(1, len(sizes) - 1)), OUTPUT]
    kinds = ["identity", *(activation for _ in sizes[2:]), "identity"]
    nodes = tuple(Node(*fields) for fields in zip(names, sizes, kinds, strict=True))
    network = Network(Architecture(nodes, tuple(Edge(a, b) for a, b in itertools.pairwise(names))), dtype)
    generator = seeded(seed)
    for parameter in network.parameters():
        fan_in = parameter.shape[1] if parameter.ndim == 2 else 10
        parameter.data = (randn(generator, *parameter.shape) / math.sqrt(fan_in)).to(dtype)
    return network


def statistics_of(network: Network, x: Tensor, y: Tensor, loss: AbstractLoss, seed: int = 0) -> Statistics:
    return collect(network, x, y, loss, seeded(seed), Meter())


def fold_of_all(network: Network, x: Tensor, y: Tensor, task: str) -> Fold:
    return statistics_of(network, x, y, LOSSES[task]).whole


def evens_first(rows: Tensor) -> Tensor:
    """Examples in the order in which statistics keep them."""
    return torch.cat([rows[0::2], rows[1::2]])


def residuals(fold: Fold) -> Residuals:
    return Residuals(fold, Meter())


def updated(
    network: Network, statistics: tuple[Tensor, Tensor], search: tuple[Tensor, Tensor], loss: AbstractLoss
) -> dict[str, float]:
    """Take the dW* step on examples that nothing else shares."""
    passed = Pass(network, Sample(*statistics), loss, Meter())
    return update_existing(passed, Searched(network, *search, loss, Meter()), Meter())


def searched(network: Network, x: Tensor, y: Tensor, loss: AbstractLoss, deltas: Mapping[str, Tensor]) -> LineSearch:
    return line_search(Searched(network, x, y, loss, Meter()), deltas, Meter())


def settled(network: Network, task: str, steps: int = 3) -> Network:
    """After a few dW* steps, as the parent is before it is forked: TINY's units assume that this part is taken."""
    search = some_examples(task, 500, 8)
    for seed in range(steps):
        updated(network, some_examples(task, 1500, 50 + seed), search, LOSSES[task])
    return network


def place(move: AbstractMove, arch: Architecture) -> Site:
    site = move.place(arch)
    assert site is not None
    return site


def mean_loss(network: Network, x: Tensor, y: Tensor, loss: AbstractLoss) -> float:
    with torch.no_grad():
        return float(loss.per_example(network(x), y).double().mean())


# --- statistics


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gram_matrices_are_second_moments_in_the_precision_they_claim(task: str, dtype: torch.dtype) -> None:
    x, y = some_examples(task, 403)
    network, exact = a_network("tanh", dtype), a_network("tanh")
    y = y if task == "classification" else y.to(dtype)
    fold, reference = fold_of_all(network, x.to(dtype), y, task), fold_of_all(exact, x, y, task)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for sources in ((INPUT,), ("h1",), (INPUT, "h1", "h3")):
        rows = fold.reads(sources)
        assert rows.matrix.dtype == dtype
        second = torch.cat([*(reference.values[s] for s in sources), torch.ones_like(x[:, :1])], 1)
        expected = (second.T @ second / 403).to(rows.gram(Meter()).dtype)
        torch.testing.assert_close(rows.gram(Meter()), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("task", TASKS)
def test_halves_are_disjoint_and_the_whole_is_both(task: str) -> None:
    x, y = some_examples(task, 101)
    network = a_network("relu")
    found = statistics_of(network, x, y, LOSSES[task])
    first, second = found.folds
    assert (len(first), len(second), len(found.whole)) == (51, 50, 101)
    assert torch.equal(first.values[INPUT], x[0::2])
    assert torch.equal(second.values[INPUT], x[1::2])
    for half, rows in ((first, slice(0, None, 2)), (second, slice(1, None, 2))):
        alone = fold_of_all(network, x[rows], y[rows], task)
        for node in network.arch.nodes[1:]:
            order = evens_first(torch.arange(len(half)))
            torch.testing.assert_close(alone.gradients[node.name], half.gradients[node.name][order])
            torch.testing.assert_close(alone.values[node.name], half.values[node.name][order])


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_the_whole_is_right_where_only_one_half_has_rows_enough(offset: int) -> None:
    """Around twice as many examples as columns the halves may fall on both sides of the dual threshold."""
    network = a_network("tanh")
    sources = network.arch.parents(OUTPUT)
    columns = 1 + sum(network.arch.size(source) for source in sources)
    x, y = some_examples("regression", 2 * columns - 1 + offset)
    found = statistics_of(network, x, y, MeanSquaredError())
    halves, whole = [residuals(fold) for fold in found.folds], residuals(found.whole)
    for half in halves:
        rows, g = half.fold.reads(sources).matrix, half.fold.gradients[OUTPUT]
        torch.testing.assert_close(half.perp_of(OUTPUT), projected(rows, g), rtol=1e-8, atol=1e-10)
    rows, g = whole.fold.reads(sources).matrix, whole.fold.gradients[OUTPUT]
    torch.testing.assert_close(whole.perp_of(OUTPUT), projected(rows, g), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(whole.regression(OUTPUT).gram(Meter()), rows.T @ rows / len(rows))


def test_a_pass_follows_the_updates_of_its_network() -> None:
    """What growth finds after the dW* step is what a new pass through the updated network would find."""
    network = a_network("tanh")
    sample, loss = Sample(*some_examples("classification", 300)), CrossEntropy()
    passed = Pass(network, sample, loss, Meter())
    search = Searched(network, *some_examples("classification", 200, 8), loss, Meter())
    nodes = [node.name for node in network.arch.nodes[1:]]
    passed.statistics(nodes, Meter())
    for name in nodes:
        passed.into(name).gram(Meter())
    assert all(scale > 0 for scale in update_existing(passed, search, Meter()).values())
    found = passed.statistics(nodes, Meter()).whole
    fresh = Pass(network, Sample(*some_examples("classification", 300)), loss, Meter()).statistics(nodes, Meter()).whole
    for name in nodes:
        torch.testing.assert_close(found.values[name], fresh.values[name])
        torch.testing.assert_close(found.gradients[name], fresh.gradients[name])
        parents = network.arch.parents(name)
        torch.testing.assert_close(found.reads(parents).gram(Meter()), fresh.reads(parents).gram(Meter()))
    with torch.no_grad():
        torch.testing.assert_close(search.trace.output, network(some_examples("classification", 200, 8)[0]))
    assert found.reads((INPUT,)) is sample.rows


def test_only_what_is_asked_for_is_multiplied() -> None:
    """An initializer that reads nothing costs nothing beyond the passes; one site's step leaves the others alone."""
    network = a_network("tanh")
    x, y = some_examples("classification", 400)
    site = place(Widen("h1", 2), network.arch)
    bills: dict[str, int] = {}
    for name, initializer in (("random", RandomInitializer()), ("gradmax", GradMax()), ("tiny", Tiny())):
        statistics = statistics_of(network, x, y, CrossEntropy())
        meter = Meter()
        initializer.begin(Residuals(statistics.whole, meter), site, (2,), seeded(0), meter)
        bills[name] = meter.products
    assert bills["random"] == 0
    reads = 1 + sum(network.arch.size(s) for s in site.sources)
    feeds = sum(network.arch.size(t) for t in site.targets)
    assert bills["gradmax"] == 2 * 400 * reads * feeds + 2 * reads * feeds**2
    assert bills["tiny"] > bills["gradmax"]


@pytest.mark.parametrize("size", [1e6, 1e12, 1e17])
def test_large_values_do_not_overflow(size: float) -> None:
    """Unstandardised inputs beyond the square root of float32's range: float64 from there on, and the same directions."""
    network = layered((6, 5, 2), "tanh", 0, torch.float32)
    network.weights[f"{INPUT}>h1"].data /= size
    x, y = randn(seeded(0), 300, 6), torch.randint(0, 2, (300,), generator=seeded(1))
    found = residuals(fold_of_all(network, (size * x).float(), y, "classification"))
    plain = layered((6, 5, 2), "tanh", 0, torch.float32)
    expected = residuals(fold_of_all(plain, x.float(), y, "classification"))
    torch.testing.assert_close(found.perp_of(OUTPUT), expected.perp_of(OUTPUT), rtol=1e-3, atol=1e-4, check_dtype=False)
    extension = extension_of(Tiny(), found, Widen("h1", 2))
    assert all(bool(torch.isfinite(block).all()) for block in extension.fan_in.values())


def test_a_diverged_network_is_told() -> None:
    network = a_network("relu", torch.float32)
    network.biases["h1"].data[0] = math.inf
    x, y = some_examples("classification", 50)
    with pytest.raises(FloatingPointError, match="not finite"):
        statistics_of(network, x.float(), y, CrossEntropy())


@pytest.mark.parametrize("task", TASKS)
def test_backpropagation_is_autograd(task: str) -> None:
    network = a_network("silu")
    x, y = some_examples(task, 60)
    trace = network.trace(x)
    names = [node.name for node in network.arch.nodes[1:]]
    expected = torch.autograd.grad(LOSSES[task].per_example(trace.output, y).sum(),
                                   [trace.preactivations[name] for name in names])  # fmt: skip
    at_output = LOSSES[task].descent(trace.output, y)
    found = backpropagate(network, trace, at_output, names, Meter())
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], -gradient)
        alone = backpropagate(network, trace, at_output, [name], Meter())
        assert list(alone) == [name]
        assert torch.equal(alone[name], found[name])


def test_rows_are_the_gradients_written_by_hand() -> None:
    """Input 2 -> tanh 3 -> output 2 with squared error, every derivative spelled out in numpy."""
    network = layered((2, 3, 2), "tanh", 3)
    x, y = randn(seeded(0), 50, 2), randn(seeded(1), 50, 2)
    fold = fold_of_all(network, x, y, "regression")
    x, y = evens_first(x), evens_first(y)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    v, c = state[weight_name(INPUT, "h1")], state[bias_name("h1")]
    w, d = state[weight_name("h1", OUTPUT)], state[bias_name(OUTPUT)]
    h = np.tanh(x.numpy() @ v.T + c)
    out = h @ w.T + d
    g_out = -2 / 2 * (out - y.numpy())
    g_h = (g_out @ w) * (1 - h**2)
    np.testing.assert_allclose(fold.feeds(("h1", OUTPUT)).numpy(), np.hstack([g_h, g_out]), rtol=1e-11)
    np.testing.assert_allclose(fold.values["h1"].numpy(), h, rtol=1e-11)
    r = fold.curvature[OUTPUT].numpy()
    np.testing.assert_allclose(np.abs(r), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fold.curvature["h1"].numpy(), (r @ w) * (1 - h**2), rtol=1e-11)
    read = fold.reads((INPUT, "h1")).matrix.numpy()
    np.testing.assert_allclose(read, np.hstack([x.numpy(), h, np.ones((50, 1))]))


@pytest.mark.parametrize("task", TASKS)
def test_gradients_in_a_dag_are_central_differences(task: str) -> None:
    network = a_network("gelu")
    x, y = some_examples(task, 30)
    fold = fold_of_all(network, x, y, task)
    trace = network.trace(fold.values[INPUT])
    y = evens_first(y)
    step = 1e-5
    for node in network.arch.nodes[1:]:
        direction = randn(seeded(2), 30, node.size)
        up, down = network.tail(trace, {node.name: direction}, torch.tensor([step, -step], dtype=torch.float64))
        slope = (LOSSES[task].per_example(up, y) - LOSSES[task].per_example(down, y)) / (2 * step)
        predicted = -(fold.gradients[node.name] * direction).sum(1)
        torch.testing.assert_close(predicted, slope, rtol=1e-6, atol=1e-7)


def test_collecting_leaves_the_network_as_it_was() -> None:
    network = a_network("tanh").train()
    before = clone(network).state_dict()
    x, y = some_examples("classification", 50)
    statistics_of(network, x, y, CrossEntropy())
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# --- curvature of the losses


@pytest.mark.parametrize("task", TASKS)
def test_mean_of_curvature_samples_is_the_hessian(task: str) -> None:
    loss, draws = LOSSES[task], 30_000
    for seed in range(2):
        output = 1.5 * randn(seeded(seed), 1, 4)
        y = torch.tensor([2]) if task == "classification" else randn(seeded(9), 1, 4)
        hessian = torch.func.hessian(lambda o, y=y: loss.per_example(o, y).sum())(output).reshape(4, 4)
        r = loss.curvature_sample(output.expand(draws, 4), seeded(seed + 20))
        assert r.shape == (draws, 4)
        products = r[:, :, None] * r[:, None, :]
        error = products.std(0) / math.sqrt(draws)
        assert bool(((products.mean(0) - hessian).abs() <= 4.5 * error + 1e-12).all())
        if task == "classification":
            assert bool((r.mean(0).abs() <= 4.5 * r.std(0) / math.sqrt(draws)).all())


def test_curvature_of_extreme_logits_is_finite() -> None:
    output = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]])
    assert bool(torch.isfinite(CrossEntropy().curvature_sample(output, seeded(0))).all())


@pytest.mark.parametrize("task", TASKS)
def test_losses_per_example_average_to_the_mean_and_take_stacks(task: str) -> None:
    loss = LOSSES[task]
    output, (_, y) = randn(seeded(0), 3, 40, 3), some_examples(task, 40)
    stacked = loss.per_example(output, y)
    assert stacked.shape == (3, 40)
    for one, losses in zip(output, stacked, strict=True):
        torch.testing.assert_close(loss.per_example(one, y), losses)
        torch.testing.assert_close(losses.mean(), loss.mean(one, y))


# --- best update and projected residual


def projected(rows: Tensor, g: Tensor) -> Tensor:
    """G_perp through numpy: least squares on rows that carry the ridge."""
    return g - rows @ ridge_by_numpy(rows, g)


def ridge_by_numpy(rows: Tensor, g: Tensor) -> Tensor:
    n, p = rows.shape
    mean_eigenvalue = float(np.trace(rows.numpy().T @ rows.numpy())) / n / p
    ridge = mean_eigenvalue * (1e-4 if n >= 20 * p else p / n)
    stacked = np.vstack([rows.numpy() / math.sqrt(n), math.sqrt(ridge) * np.eye(p)])
    right = np.vstack([g.numpy() / math.sqrt(n), np.zeros((p, g.shape[1]))])
    return torch.from_numpy(np.linalg.lstsq(stacked, right, rcond=None)[0])


@pytest.mark.parametrize("n", [12, 25, 60, 700])
@pytest.mark.parametrize("task", TASKS)
def test_residuals_are_those_of_numpy_in_both_regimes(task: str, n: int) -> None:
    """With 11 and 13 columns read: 12 examples are too few for the second, and its solve is n x n."""
    network = layered((10, 12, 3), "tanh", 0)
    x, (_, y) = randn(seeded(4), n, 10), some_examples(task, n)
    fold = fold_of_all(network, x, y, task)
    assert fold.reads(("h1",)).dual == (n < 13)
    assert not fold.reads((INPUT,)).dual
    found = residuals(fold)
    for name in ("h1", OUTPUT):
        rows, g = fold.reads(network.arch.parents(name)).matrix, fold.gradients[name]
        torch.testing.assert_close(update_of(found, name), ridge_by_numpy(rows, g), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(found.perp_of(name), projected(rows, g), rtol=1e-7, atol=1e-9)
        left = randn(seeded(6), n, 2)
        torch.testing.assert_close(found.cross(left, name), left.T @ projected(rows, g) / n, rtol=1e-7, atol=1e-9)
        fresh = residuals(fold)
        torch.testing.assert_close(fresh.cross(left, name), left.T @ projected(rows, g) / n, rtol=1e-7, atol=1e-9)
        v = randn(seeded(7), g.shape[1], 2)
        torch.testing.assert_close(residuals(fold).along(v, (name,)), projected(rows, g) @ v, rtol=1e-7, atol=1e-9)
        perp, total = projected(rows, g).square().sum(1).mean(), g.square().sum(1).mean()
        assert found.bottleneck(name) == pytest.approx(float(perp), rel=1e-7)
        assert found.share(name) == pytest.approx(float(perp / total), rel=1e-7)
        assert 0 <= found.share(name) <= 1


@pytest.mark.parametrize("n", [20, 44, 45, 46, 300])
def test_dual_and_primal_are_the_regression_written_out(n: int) -> None:
    rows, target = Rows(randn(seeded(0), n, 45)), randn(seeded(1), n, 4)
    assert rows.dual == (n < 45)
    ridge = ridge_for(float(rows.matrix.square().sum()) / n, 45, n, UPDATE_RIDGE)
    gram = (rows.matrix.T @ rows.matrix / n + ridge * torch.eye(45)).numpy()
    expected = torch.from_numpy(np.linalg.solve(gram, (rows.matrix.T @ target / n).numpy()))
    torch.testing.assert_close(rows.coefficients(target, Meter()), expected)
    torch.testing.assert_close(rows.free(target, Meter()), target - rows.matrix @ expected)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_g_perp_is_orthogonal_to_what_the_node_reads_up_to_the_ridge(activation: str) -> None:
    """The normal equations: E[b1 G_perp^T] = ridge W exactly, so |E[b1 G_perp^T]| is of the ridge's order."""
    network = a_network(activation)
    x, y = some_examples("classification", 800)
    fold = fold_of_all(network, x, y, "classification")
    found = residuals(fold)
    for node in network.arch.nodes[1:]:
        rows = fold.reads(network.arch.parents(node.name)).matrix
        left = rows.T @ found.perp_of(node.name) / 800
        ridge = ridge_for(float(rows.square().sum()) / 800, rows.shape[1], 800, UPDATE_RIDGE)
        torch.testing.assert_close(left, ridge * update_of(found, node.name), rtol=1e-6, atol=1e-12)
        before = rows.T @ fold.gradients[node.name] / 800
        assert float(left.norm()) < 0.02 * float(before.norm())


def test_a_nodes_own_bottleneck_is_what_no_linear_change_reaches() -> None:
    """Targets that are linear in the inputs leave no bottleneck at the output; an unrelated part stays whole."""
    x, noise = randn(seeded(0), 4000, 5), randn(seeded(1), 4000, 1)
    network = Network(Architecture.simplest(5, 2), torch.float64)
    y = torch.cat([x @ randn(seeded(2), 5, 1), noise], 1)
    found = residuals(fold_of_all(network, x, y, "regression"))
    perp = found.perp_of(OUTPUT)
    assert float(perp[:, 0].square().mean()) < 1e-6
    assert float(perp[:, 1].square().mean()) == pytest.approx(float(noise.square().mean()), rel=5e-3)


def update_of(found: Residuals, target: str) -> Tensor:
    """dW*^T of a node, [inputs + 1, size], the bias last."""
    return found.regression(target).coefficients(found.fold.gradients[target], Meter())


# --- the linearised theory


def linear_units(found: Residuals, site: Site, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, omega and lambda of growth_math 1.2."""
    top = leading(found, site.sources, site.targets, k, seeded(0), Meter())
    # read = lambda S^-1/2 u, so that alpha = sqrt(lambda) S^-1/2 u.
    # Where a value is 0, so is what is read: logits have one direction less than there are classes.
    return (top.read / top.values.sqrt().clamp_min(1e-30)).T, top.right * top.values.sqrt(), top.values


LINEAR_SITES = (
    (Widen("h1", 2), 2),
    (Widen("h2", 1), 1),
    (AddNode((INPUT,), (OUTPUT,), 3, "tanh"), 3),
    (AddNode((INPUT, "h1"), ("h3", OUTPUT), 2, "tanh"), 2),
)


@pytest.mark.parametrize(("move", "k"), LINEAR_SITES, ids=lambda v: v.key if isinstance(v, AbstractMove) else str(v))
@pytest.mark.parametrize("task", TASKS)
def test_linear_units_follow_the_residual_by_the_sum_of_squares(task: str, move: AbstractMove, k: int) -> None:
    """E<G_perp, dz> = E|dz|^2 = drop of E|G_perp|^2 = sum of lambda^2 (growth_math 1.2)."""
    network = a_network("tanh")
    x, y = some_examples(task, 3000)
    found = residuals(fold_of_all(network, x, y, task))
    site = place(move, network.arch)
    rows = found.fold.reads(site.sources).matrix
    perp = torch.cat([found.perp_of(t) for t in site.targets], 1)
    alpha, omega, values = linear_units(found, site, k)
    dz = rows @ alpha.T @ omega.T
    total = float(values[:k].square().sum())
    assert float((perp * dz).sum(1).mean()) == pytest.approx(total, rel=1e-9)
    assert float(dz.square().sum(1).mean()) == pytest.approx(total, rel=1e-4)
    drop = perp.square().sum(1).mean() - (perp - dz).square().sum(1).mean()
    assert float(drop) == pytest.approx(total, rel=1e-4)
    s, n = (rows.T @ rows / len(rows)).numpy(), (rows.T @ perp / len(rows)).numpy()
    eigenvalues, vectors = np.linalg.eigh(s)
    root = vectors / np.sqrt(eigenvalues) @ vectors.T
    independent = np.linalg.svd(root @ n, compute_uv=False)
    np.testing.assert_allclose(values.numpy(), independent[:k], rtol=1e-3, atol=1e-9)


def test_the_derivative_of_a_linear_unit_is_the_slope_of_the_loss() -> None:
    """-dL/dgamma at 0 = s0 tr(omega^T M2^T alpha^T), with sqrt(gamma) on both sides (growth_math 1.3)."""
    network = a_network("tanh")
    x, y = some_examples("classification", 2000)
    fold = fold_of_all(network, x, y, "classification")
    found = residuals(fold)
    site = place(Widen("h3", 2), network.arch)
    alpha, omega, _ = linear_units(found, site, 2)
    g = fold.gradients[site.targets[0]]
    predicted = float((g * (fold.reads(site.sources).matrix @ alpha.T @ omega.T)).sum(1).mean())
    m2 = fold.reads(site.sources).matrix.T @ fold.feeds(site.targets) / len(fold)
    assert float(torch.trace(omega.T @ m2.T @ alpha.T)) == pytest.approx(predicted, rel=1e-9)
    trace = network.trace(fold.values[INPUT])
    y = evens_first(y)
    gamma = 1e-6
    hidden = torch.tanh(fold.reads(site.sources).matrix @ (math.sqrt(gamma) * alpha).T)
    delta = {site.targets[0]: hidden @ (math.sqrt(gamma) * omega).T}
    moved = network.tail(trace, delta, torch.ones(1, dtype=torch.float64))[0]
    loss = CrossEntropy()
    measured = (loss.per_example(trace.output, y).mean() - loss.per_example(moved, y).mean()) / gamma
    assert measured.item() == pytest.approx(predicted, rel=1e-3)


@pytest.mark.parametrize("n", [15, 40, 2000])
def test_whitened_rows_are_white_up_to_the_ridge_in_both_regimes(n: int) -> None:
    x = randn(seeded(4), n, 20) + 0.5
    x[:, 3] = 0.0
    rows = Rows(torch.cat([x, torch.ones_like(x[:, :1])], 1))
    z = rows.whitened(Meter())
    centred = x - x.mean(0)
    covariance = (centred.T @ centred / n).numpy()
    eigenvalues = np.linalg.eigvalsh(covariance)
    ridge = eigenvalues.sum() / 20 * (WHITENING_RIDGE if n >= 20 * 20 else 20 / n)
    assert float(z.mean(0).abs().max()) < 1e-10
    shrunk = np.linalg.eigvalsh((z.T @ z / n).numpy())
    kept = eigenvalues[eigenvalues > 1e-6 * eigenvalues[-1]]
    np.testing.assert_allclose(np.sort(shrunk)[-len(kept) :], np.sort(kept / (kept + ridge)), rtol=1e-6, atol=1e-8)
    # Whatever the basis, the metric is that of the ridge: z u for u = W^T t is C (S + ridge)^-1 t.
    directions = randn(seeded(1), z.shape[1], 3)
    read = rows.reading(directions, Meter())
    torch.testing.assert_close(rows.matrix @ read.T, z @ directions, rtol=1e-6, atol=1e-8)
    inverse = np.linalg.inv(covariance + ridge * np.eye(20))
    expected = torch.from_numpy(centred.numpy() @ inverse @ centred.numpy().T)
    torch.testing.assert_close(z @ z.T, expected, rtol=1e-6, atol=1e-8)


def test_halves_are_whitened_by_the_whole() -> None:
    rows = Rows(torch.cat([randn(seeded(0), 50, 6), torch.ones(50, 1, dtype=torch.float64)], 1))
    first, second = rows.split(30)
    assert torch.equal(torch.cat([first.whitened(Meter()), second.whitened(Meter())]), rows.whitened(Meter()))
    directions = randn(seeded(1), 6, 2)
    assert torch.equal(first.reading(directions, Meter()), rows.reading(directions, Meter()))
    torch.testing.assert_close(rows.gram(Meter()), rows.matrix.T @ rows.matrix / 50)


@pytest.mark.parametrize("n", [30, 300])
def test_leading_triples_are_those_of_the_dense_svd(n: int) -> None:
    """Solved whole, by block iteration without the matrix, and through the dual: the same triples."""
    network = layered((40, 12, 60, 3), "tanh", 0)
    x = randn(seeded(4), n, 40)
    y = (x[:, :3] * x[:, 3:6]) + 3 * x[:, 6:9]
    found = residuals(fold_of_all(network, x, y, "regression"))
    rows, perp = found.fold.reads((INPUT,)).matrix, found.perp_of("h2")
    ridge = ridge_for(float(rows.square().sum()) / n, 41, n, WHITENING_RIDGE)
    values, vectors = np.linalg.eigh((rows.T @ rows / n).numpy())
    root = vectors / np.sqrt(values.clip(0) + ridge) @ vectors.T
    left, expected, right = np.linalg.svd(root @ (rows.T @ perp / n).numpy(), full_matrices=False)
    for count in (3, 30):
        fresh = residuals(found.fold)
        top = leading(fresh, (INPUT,), ("h2",), count, seeded(1), Meter())
        m = min(count, n, 41)
        assert top.values.shape == (m,)
        assert top.right.shape == (60, m)
        # Block iteration finds the leading ones; the last digits of the trailing ones are not needed.
        np.testing.assert_allclose(top.values[:2].numpy(), expected[:2], rtol=1e-3)
        np.testing.assert_allclose(np.abs(right[:2] @ top.right[:, :2].numpy()), np.eye(2), atol=0.05)
        u = root @ left[:, :2] * expected[:2]
        cosine = np.abs((u * top.read[:, :2].numpy()).sum(0)) / np.linalg.norm(u, axis=0)
        np.testing.assert_allclose(cosine, np.linalg.norm(top.read[:, :2].numpy(), axis=0), rtol=0.01)


def test_block_iteration_finds_the_leading_eigenpairs() -> None:
    basis = torch.linalg.qr(randn(seeded(0), 200, 200))[0]
    values = 0.8 ** torch.arange(200, dtype=torch.float64)
    matrix = basis * values @ basis.T
    found, vectors = leading_eigenpairs(lambda block: matrix @ block, 200, 4, matrix, seeded(1), Meter())
    torch.testing.assert_close(found, values[:4], rtol=1e-3, atol=0)
    exact, dense_vectors = eigenpairs(matrix, 100, seeded(0), Meter())
    exact, dense_vectors = exact[:4], dense_vectors[:, :4]
    torch.testing.assert_close(exact, values[:4])
    torch.testing.assert_close((vectors.T @ dense_vectors).abs(), torch.eye(4, dtype=torch.float64), rtol=0, atol=0.05)


@pytest.mark.parametrize("rank", [6, 60])
def test_curved_directions_are_the_extreme_eigenvectors_of_the_hessian(rank: int) -> None:
    """Two outputs, each a difference of squares along known directions, solved whole and in the range of a block."""
    n = 4000
    z = randn(seeded(0), n, rank)
    axes = torch.linalg.qr(randn(seeded(1), rank, 4))[0]
    along = z @ axes
    outputs = torch.stack([along[:, 0] ** 2 - along[:, 1] ** 2, 0.5 * (along[:, 2] ** 2 - along[:, 3] ** 2)], 1)
    outputs = outputs - outputs.mean(0)
    found = curved_directions(z, outputs.square().mean(0).sqrt(), outputs, 4, seeded(2), Meter())
    assert found.shape == (rank, 4)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(4, dtype=torch.float64))
    followed = (axes.T @ found).square()
    # The first pair belongs to the stronger output.
    assert float(followed[:2, :2].sum()) > 1.9
    assert float(followed[2:, 2:].sum()) > 1.7


def test_noise_has_no_curved_directions() -> None:
    """Eigenvalues of a residual that is independent of z stay about the edge 2 sqrt(rank / n) sd."""
    kept = 0
    for seed in range(20):
        z, outputs = randn(seeded(seed), 1000, 20), randn(seeded(100 + seed), 1000, 2)
        kept += curved_directions(z, outputs.square().mean(0).sqrt(), outputs, 8, seeded(2), Meter()).shape[1]
    assert kept / 20 < 2


def test_a_nearly_singular_system_is_solved_with_more_ridge() -> None:
    row = randn(seeded(0), 1, 6)
    singular = row.T @ row
    found = Meter().solve(singular, row.T, 0.0)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(singular @ found, row.T, rtol=1e-3, atol=1e-3)
    assert bool(torch.isfinite(Meter().solve(torch.zeros(3, 3), torch.ones(3, 1), 0.0)).all())


# --- best update of existing weights


def test_best_update_of_a_linear_model_is_least_squares() -> None:
    x, noise = randn(seeded(0), 600, 5), randn(seeded(1), 600, 2)
    y = x @ randn(seeded(2), 5, 2) + 0.3 + 0.1 * noise
    network = Network(Architecture.simplest(5, 2), torch.float64)
    taken = updated(network, (x, y), (x, y), MeanSquaredError())
    design = np.hstack([x.numpy(), np.ones((600, 1))])
    expected = np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    # G = -dl/da = y at zero weights with two targets, so the amplitude is 1 and the step is the regression itself.
    assert taken == {OUTPUT: 1.0}
    found = torch.cat([network.weights[f"{INPUT}>{OUTPUT}"].T, network.biases[OUTPUT][None]]).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(found, ridge_by_numpy(torch.from_numpy(design), y), rtol=1e-9)


def test_updating_again_gains_nothing_where_the_loss_is_quadratic() -> None:
    x, y = some_examples("regression", 1500)
    y = torch.cat([y[:, :1], x @ randn(seeded(5), 5, 1)], 1)
    network = Network(Architecture.simplest(5, 2), torch.float64)
    loss = MeanSquaredError()
    losses = [mean_loss(network, x, y, loss)]
    for _ in range(3):
        updated(network, (x, y), (x, y), loss)
        losses.append(mean_loss(network, x, y, loss))
    drops = -np.diff(losses)
    assert drops[0] > 0.3
    assert (drops >= 0).all()
    assert (drops[1:] < 1e-3 * drops[0]).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_updating_lowers_the_search_loss(task: str, seed: int) -> None:
    network = a_network("tanh", seed=seed)
    statistics, search = some_examples(task, 800, 2 * seed), some_examples(task, 400, 2 * seed + 1)
    before = mean_loss(network, *search, LOSSES[task])
    taken = updated(network, statistics, search, LOSSES[task])
    assert set(taken) == {"h1", "h2", "h3", OUTPUT}
    assert all(scale >= 0 for scale in taken.values())
    assert taken[OUTPUT] > 0
    assert mean_loss(network, *search, LOSSES[task]) < before - 0.01


def test_updating_keeps_the_weights_where_no_amplitude_helps() -> None:
    """Statistics whose labels say the opposite of the search examples' leave everything as it was."""
    x, y = randn(seeded(0), 500, 5), randn(seeded(0), 500, 5)[:, :2]
    network = Network(Architecture.simplest(5, 2), torch.float64)
    assert updated(network, (x, -y), (x, y), MeanSquaredError()) == {OUTPUT: 0.0}
    assert all(not bool(p.any()) for p in network.parameters())


# --- line search


def dense(network: Network, x: Tensor, y: Tensor, loss: AbstractLoss, deltas: Mapping[str, Tensor],
          scales: Tensor) -> Tensor:  # fmt: skip
    """Drop of the loss at every scale, one forward pass each."""
    trace = network.trace(x)
    before = loss.per_example(trace.output, y).mean()
    one = torch.ones(1, dtype=x.dtype)
    one_by_one = [network.tail(trace, {k: s * v for k, v in deltas.items()}, one) for s in scales]
    return torch.stack([before - loss.per_example(o[0], y).mean() for o in one_by_one]).detach()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 37.0])
def test_line_search_finds_the_best_power_of_two(task: str, size: float) -> None:
    """Along a ray of the output the loss is convex, so the thinned grid must find what the whole one does."""
    network = a_network("tanh")
    x, y = some_examples(task, 200)
    fold = fold_of_all(network, x, y, task)
    x, y = evens_first(x), evens_first(y)
    deltas = {OUTPUT: size * (fold.gradients[OUTPUT] + 0.1 * randn(seeded(1), 200, 3))}
    with torch.no_grad():
        found = searched(network, x, y, LOSSES[task], deltas)
    powers = 2.0 ** torch.arange(-24, 16, dtype=torch.float64)
    drops = dense(network, x, y, LOSSES[task], deltas, powers)
    assert found.scale == float(powers[drops.argmax()])
    assert found.drop == pytest.approx(float(drops.max()), rel=1e-9)
    assert found.drop > 0
    if task == "regression":
        # A parabola between two powers of two: the worst case keeps 8/9 of what the exact minimum drops.
        fine = dense(network, x, y, LOSSES[task], deltas, found.scale * torch.linspace(0.4, 2.5, 400))
        assert 8 / 9 * float(fine.max()) <= found.drop <= float(fine.max()) * (1 + 1e-4)


def test_line_search_in_the_middle_of_a_network_drops_what_it_says() -> None:
    network = a_network("tanh")
    x, y = some_examples("classification", 300)
    fold = fold_of_all(network, x, y, "classification")
    x, y = evens_first(x), evens_first(y)
    for name in ("h1", "h2", "h3"):
        deltas = {name: fold.gradients[name]}
        found = searched(network, x, y, CrossEntropy(), deltas)
        scales = torch.tensor([found.scale / 2, found.scale, 2 * found.scale], dtype=torch.float64)
        drops = dense(network, x, y, CrossEntropy(), deltas, scales)
        assert found.scale > 0
        assert found.drop == pytest.approx(float(drops[1]), rel=1e-9)
        assert float(drops[1]) >= float(drops.max()) - 1e-12


def test_line_search_stays_where_every_amplitude_hurts() -> None:
    network = a_network("tanh")
    x, y = some_examples("regression", 200)
    fold = fold_of_all(network, x, y, "regression")
    x, y = evens_first(x), evens_first(y)
    for delta in (-fold.gradients[OUTPUT], torch.full_like(y, math.nan), torch.zeros_like(y)):
        found = searched(network, x, y, MeanSquaredError(), {OUTPUT: delta})
        assert (found.scale, found.drop) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_line_search_takes_no_amplitude_for_what_rounding_says(seed: int) -> None:
    """In float32 some of the smallest amplitudes seem to lower a loss that every amplitude raises."""
    network = Network(Architecture.simplest(5, 2))
    x, y, delta = (randn(seeded(10 * k + seed), 500, size).float() for k, size in enumerate((5, 2, 2)))
    delta -= (delta.mul(y).sum() / y.square().sum() + 0.001) * y
    found = searched(network, x, y, MeanSquaredError(), {OUTPUT: delta})
    assert (found.scale, found.drop) == (0.0, 0.0)


@pytest.mark.parametrize(("first", "most"), [(1.0, 4), (0.0, 21), (-1.0, 12)])
def test_line_search_is_not_led_astray_by_the_examples_that_scout(first: float, most: int) -> None:
    """Where they see the loss stay or rise the others decide, without a walk up from the smallest amplitude."""
    nodes = Node(INPUT, 5, "identity"), Node("h", 2, "identity"), Node(OUTPUT, 2, "identity")
    network = Network(Architecture(nodes, (Edge(INPUT, "h"), Edge("h", OUTPUT))), torch.float64)
    network.named[weight_name("h", OUTPUT)].data = torch.eye(2, dtype=torch.float64)
    x, y = randn(seeded(0), 500, 5), randn(seeded(1), 500, 2)
    delta = 0.2 * y + randn(seeded(2), 500, 2)
    delta[:SCOUTS] *= first
    meter = Meter()
    found = line_search(Searched(network, x, y, MeanSquaredError(), Meter()), {"h": delta}, meter)
    powers = 2.0 ** torch.arange(-24, 16, dtype=torch.float64)
    drops = dense(network, x, y, MeanSquaredError(), {"h": delta}, powers)
    assert found.scale == float(powers[drops.argmax()])
    assert found.drop == pytest.approx(float(drops.max()), rel=1e-9)
    assert found.drop > 0.01
    assert meter.products <= network.tail_flops({"h": delta}) * (len(COARSE) * SCOUTS + most * len(x))


def test_line_search_ends_where_the_one_amplitude_that_scouts_see_does_not_help() -> None:
    """1/4 changes too little and 4 raises the loss of every scout, so that 1, which raises that of all, was the only one."""
    network = Network(Architecture.simplest(5, 2), torch.float64)
    x, y = torch.zeros(500, 5, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(500, 1)
    delta = -y
    delta[:SCOUTS] = torch.tensor([1e-4, 0.8e-4**0.5], dtype=torch.float64)
    found = searched(network, x, y, MeanSquaredError(), {OUTPUT: delta})
    assert (found.scale, found.drop) == (0.0, 0.0)


def test_line_search_goes_beyond_its_grid_while_that_improves() -> None:
    network = Network(Architecture.simplest(5, 2), torch.float64)
    x, y = randn(seeded(0), 100, 5), randn(seeded(1), 100, 2)
    found = searched(network, x, y, MeanSquaredError(), {OUTPUT: y / 2**13})
    assert found.scale == 2.0**13
    assert found.drop == pytest.approx(float(y.square().mean()), rel=1e-12)


def test_line_search_of_separable_labels_ends() -> None:
    """Cross-entropy falls for ever along the margin; the search must stop all the same."""
    network = Network(Architecture.simplest(2, 2))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([0, 1])
    with torch.no_grad():
        found = searched(network, x, y, CrossEntropy(), {OUTPUT: 2 * x - 1})
    assert math.isfinite(found.scale)
    assert found.drop == pytest.approx(math.log(2), rel=1e-5)


# --- initializers


def extension_of(initializer: AbstractInitializer, found: Residuals, move: AbstractMove, seed: int = 3) -> Extension:
    site = place(move, found.fold.arch)
    return initializer.begin(found, site, (move.units,), seeded(seed), Meter())[move.units]


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("task", TASKS)
def test_tiny_scaled_by_its_line_search_lowers_the_loss(task: str, activation: str) -> None:
    network = settled(a_network(activation), task)
    loss = LOSSES[task]
    found = residuals(statistics_of(network, *some_examples(task, 1500), loss).whole)
    x, y = some_examples(task, 500, 8)
    for move in (with_activation(move, activation) for move in SOME_MOVES):
        extension = extension_of(Tiny(), found, move)
        trace = network.trace(x)
        deltas = response(extension, place(move, network.arch), trace.values, Meter())
        step = searched(network, x, y, loss, deltas)
        grown = graft(network, move, extension.scaled(step.scale))
        drop = mean_loss(network, x, y, loss) - mean_loss(grown, x, y, loss)
        assert step.scale > 0
        assert drop > 0
        assert drop == pytest.approx(step.drop, rel=1e-9)


def test_an_edge_from_tiny_is_the_regression_of_the_residual() -> None:
    """Frisch-Waugh: the omega block of the joint least squares on [b1, h] is that of the parts b1 does not explain."""
    network = a_network("tanh")
    x, y = some_examples("regression", 3000)
    fold = fold_of_all(network, x, y, "regression")
    found = residuals(fold)
    edge = extension_of(Tiny(), found, AddEdge(INPUT, "h3")).edge
    both = torch.cat([fold.reads(network.arch.parents("h3")).matrix, fold.values[INPUT]], 1).numpy()
    joint = np.linalg.lstsq(both, found.perp_of("h3").numpy(), rcond=None)[0][-5:].T
    assert edge is not None
    np.testing.assert_allclose(edge.numpy(), joint, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("activation", "factor"), [("tanh", 2.0), ("relu", 2.0)])
def test_curved_directions_find_a_product_that_the_linear_theory_cannot_see(activation: str, factor: float) -> None:
    drops: dict[bool, list[float]] = {True: [], False: []}
    move = AddNode((INPUT,), (OUTPUT,), 4, activation)
    loss = MeanSquaredError()
    for seed in range(5):
        x, search = randn(seeded(seed), 2000, 8), randn(seeded(seed + 100), 600, 8)
        slope = randn(seeded(seed + 200), 8, 1)

        def answer(z: Tensor, slope: Tensor = slope) -> Tensor:
            return z @ slope + 2.0 * z[:, :1] * z[:, 1:2]

        network = Network(Architecture.simplest(8, 1), torch.float64)
        updated(network, (x, answer(x)), (search, answer(search)), loss)
        found = residuals(fold_of_all(network, x, answer(x), "regression"))
        blind = leading(found, (INPUT,), (OUTPUT,), 1, seeded(0), Meter()).values
        assert float(blind.max()) < 1e-2 * math.sqrt(found.bottleneck(OUTPUT))
        for curved, into in drops.items():
            extension = extension_of(Tiny(curved=curved), found, move, seed)
            trace = network.trace(search)
            deltas = response(extension, place(move, network.arch), trace.values, Meter())
            into.append(searched(network, search, answer(search), loss, deltas).drop)
    assert all(c > r for c, r in zip(drops[True], drops[False], strict=True))
    assert np.mean(drops[True]) > factor * np.mean(drops[False])


@pytest.mark.parametrize(("move", "k"), LINEAR_SITES, ids=lambda v: v.key if isinstance(v, AbstractMove) else str(v))
def test_gradmax_has_the_largest_fan_in_gradient(move: AbstractMove, k: int) -> None:
    """Against random orthonormal fan-outs of the same norm, by autograd on the grafted network."""
    network = a_network("tanh")
    x, y = some_examples("classification", 300)
    found = residuals(fold_of_all(network, x, y, "classification"))
    site = place(move, network.arch)
    extension = extension_of(GradMax(scale=0.5), found, move)
    widths = [network.arch.size(t) for t in site.targets]

    def fan_in_gradient(fan_out: Mapping[str, Tensor]) -> float:
        grown = graft(network, move, Extension(extension.fan_in, extension.bias, fan_out))
        gradients = torch.autograd.grad(CrossEntropy().mean(grown(x), y), list(grown.parameters()))
        total = 0.0
        name, _ = move.landing(network.arch)
        reads = {bias_name(name), *(weight_name(s, name) for s in site.sources)}
        for (entry, _), gradient in zip(grown.named_parameters(), gradients, strict=True):
            if entry in reads:
                total += float(gradient[-k:].square().sum())
        return math.sqrt(total)

    stacked = torch.cat([extension.fan_out[t] for t in site.targets])
    torch.testing.assert_close(stacked.T @ stacked, 0.25 * torch.eye(k, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    best = fan_in_gradient(extension.fan_out)
    generator = seeded(0)
    others = []
    for _ in range(200):
        omega = 0.5 * torch.linalg.qr(randn(generator, sum(widths), k))[0]
        others.append(fan_in_gradient(dict(zip(site.targets, torch.split(omega, widths), strict=True))))
    assert best >= max(others) * (1 - 1e-12)
    assert best > 1.05 * float(np.median(others)) or k == sum(widths)


# --- prediction


def predicted(initializer: AbstractInitializer, statistics: Statistics, move: AbstractMove) -> Prediction:
    halves = [residuals(fold) for fold in statistics.folds]
    site = place(move, statistics.whole.arch)
    found = predict(initializer, halves, site, (move.units,), seeded(1), Meter())[move.units]
    assert found is not None
    return found


def test_predictions_are_none_where_nothing_is_added_at_birth() -> None:
    network = a_network("tanh")
    statistics = statistics_of(network, *some_examples("classification"), CrossEntropy())
    halves = [residuals(fold) for fold in statistics.folds]
    for initializer in (RandomInitializer(), GradMax()):
        site = place(Widen("h1", 2), network.arch)
        assert predict(initializer, halves, site, (1, 2), seeded(1), Meter()) == {1: None, 2: None}


def test_predicted_gain_of_a_quadratic_loss_is_the_drop_of_the_best_amplitude() -> None:
    """MSE at the output: the loss along the fan-out is a parabola whose vertex drops slope^2 / (2 curvature)."""
    network = settled(a_network("tanh"), "regression")
    x, y = some_examples("regression", 4000)
    statistics = statistics_of(network, x, y, MeanSquaredError())
    move = AddNode((INPUT,), (OUTPUT,), 3, "tanh")
    found = predicted(Tiny(), statistics, move)
    drops, derivatives = [], []
    for learned, measured in (statistics.folds, statistics.folds[::-1]):
        extension = extension_of(Tiny(), residuals(learned), move, 1)
        deltas = response(extension, place(move, network.arch), measured.values, Meter())
        held, answers = measured.values[INPUT], y[0::2] if measured is statistics.folds[0] else y[1::2]
        scales = torch.cat([torch.tensor([1e-5, -1e-5]), torch.linspace(0, 3, 301)]).double()
        found_drops = dense(network, held, answers, MeanSquaredError(), deltas, scales)
        drops.append(float(found_drops.max()))
        derivatives.append(float(found_drops[0] - found_drops[1]) / 2e-5)
    assert found.derivative == pytest.approx(np.mean(derivatives), rel=1e-4)
    assert found.gain == pytest.approx(np.mean(drops), rel=0.05)
    assert found.t > 5
    assert found.p_value == pytest.approx(0.5 * math.erfc(found.t / math.sqrt(2)))


def squeezed(position: int, seed: int, task: str) -> tuple[Network, Examples]:
    """A trained network of three layers of 16, one of them squeezed to 2, and its data of six outputs."""
    teacher = layered((8, 32, 32, 6), "tanh", 1000 + seed)
    x = randn(seeded(seed), 2000, 8)
    with torch.no_grad():
        answer = teacher(2 * x)
    y = answer.argmax(1) if task == "classification" else ((answer - answer.mean(0)) / answer.std(0)).float()
    network = layered((8, *(2 if i == position else 16 for i in (1, 2, 3)), 6), "tanh", seed, torch.float32)
    data = Examples(x.float(), y)
    order = example_order(2000, 30_000, seed)
    plan = OptimizerPlan("adam", 5e-3)
    return fit(Fork(network, {}), data, order, 64, LOSSES[task], plan, anneal=True).network, data


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("position", [1, 2, 3])
def test_a_planted_bottleneck_is_found(position: int, task: str) -> None:
    """The predicted gain per unit ranks widening the squeezed layer first (growth_math 1.5)."""
    for seed in range(2):
        network, data = squeezed(position, seed, task)
        statistics = statistics_of(network, data.x, data.y, LOSSES[task])
        for units in (1, 4):
            gains = {i: predicted(Tiny(), statistics, Widen(f"h{i}", units)).gain / units for i in (1, 2, 3)}
            assert max(gains, key=lambda i: gains[i]) == position, (seed, units, gains)


NULL_SEEDS = 640
OVERLAP = 1.07
"""How much wider than normal t may be: the random units of the two halves read partly the same subspace."""


@pytest.fixture(scope="module")
def null_cases() -> list[Statistics]:
    """Networks on labels independent of the inputs, their outputs nearly the true probabilities."""
    torch.set_num_threads(1)
    found: list[Statistics] = []
    for seed in range(NULL_SEEDS):
        network = layered((20, 1, 3), "tanh", seed)
        network.weights[f"h1>{OUTPUT}"].data.mul_(0.02)
        network.biases[OUTPUT].data.zero_()
        generator = seeded(10_000 + seed)
        x = randn(generator, 1000, 20)
        y = torch.randint(0, 3, (1000,), generator=generator)
        found.append(statistics_of(network, x, y, CrossEntropy(), seed))
    return found


NULL_MOVES = (Widen("h1", 2), AddNode((INPUT,), (OUTPUT,), 4, "relu"), AddEdge(INPUT, OUTPUT))


@pytest.mark.parametrize("move", NULL_MOVES, ids=lambda move: move.key)
def test_predictions_are_calibrated_where_there_is_nothing_to_find(
    move: AbstractMove, null_cases: list[Statistics]
) -> None:
    found = [predicted(Tiny(), statistics, move) for statistics in null_cases]
    derivatives = np.array([p.derivative for p in found])
    error = derivatives.std(ddof=1) / math.sqrt(NULL_SEEDS)
    assert abs(derivatives.mean()) < 3.5 * error
    # A t of the right scale; its standard deviation over draws is itself known to 1 / sqrt(2 draws).
    assert np.std([p.t for p in found]) < OVERLAP + 2.6 / math.sqrt(2 * NULL_SEEDS)
    normal = NormalDist()
    for level in (0.01, 0.05, 0.2):
        rate = float(np.mean([p.p_value < level for p in found]))
        expected = normal.cdf(normal.inv_cdf(level) / OVERLAP)
        assert rate <= expected + 2.6 * math.sqrt(expected * (1 - expected) / NULL_SEEDS), (level, rate)


def test_predictions_in_sample_are_biased(null_cases: list[Statistics]) -> None:
    """The same figures without cross-fitting: significant almost always, with nothing there to find."""
    significant, derivatives = 0, []
    for statistics in null_cases[:60]:
        whole = statistics.whole
        extension = extension_of(Tiny(), residuals(whole), AddEdge(INPUT, OUTPUT), 1)
        site = place(AddEdge(INPUT, OUTPUT), whole.arch)
        d = derivative(response(extension, site, whole.values, Meter()), whole.gradients, whole)
        derivatives.append(float(d.mean()))
        significant += float(d.mean() / d.std()) * math.sqrt(len(d)) > 1.645
    assert significant > 54
    assert np.mean(derivatives) > 5 * np.std(derivatives) / math.sqrt(60)


# --- the bill


def billed(work: Callable[[Meter], object]) -> tuple[int, int]:
    """Matrix products by our meter and by torch's counter."""
    meter = Meter()
    with FlopCounterMode(display=False) as counter:
        work(meter)
    return meter.products, counter.get_total_flops()


@pytest.mark.parametrize("n", [24, 60, 600])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("move", [with_activation(move, "tanh") for move in SOME_MOVES], ids=lambda move: move.key)
def test_the_meter_counts_the_products_torch_counts(n: int, task: str, move: AbstractMove) -> None:
    network = a_network("tanh")
    x, y = some_examples(task, n)
    search = some_examples(task, 100, 5)
    site = place(move, network.arch)

    def sequence(meter: Meter) -> None:
        found = collect(network, x, y, LOSSES[task], seeded(0), meter)
        halves = [Residuals(fold, meter) for fold in found.folds]
        predict(Tiny(), halves, site, (move.units,), seeded(1), meter)
        extension = Tiny().begin(Residuals(found.whole, meter), site, (move.units,), seeded(1), meter)[move.units]
        amplified(extension, site, Searched(network, *search, LOSSES[task], meter), meter)

    ours, theirs = billed(sequence)
    assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("network", [layered((5, 8, 3), "tanh", 0), a_network("tanh")], ids=["one layer", "dag"])
def test_the_meter_counts_an_update_as_torch_does(task: str, network: Network) -> None:
    twin = clone(network)
    loss = LOSSES[task]

    def update(meter: Meter) -> None:
        search = Searched(twin, *some_examples(task, 50, 5), loss, meter)
        update_existing(Pass(twin, Sample(*some_examples(task, 400)), loss, meter), search, meter)

    ours, theirs = billed(update)
    assert ours == pytest.approx(theirs, rel=0.05)


def test_solves_are_counted_by_hand() -> None:
    meter = Meter()
    spd = torch.eye(6, dtype=torch.float64)
    meter.solve(spd, torch.ones(6, 2, dtype=torch.float64), 0.0)
    assert (meter.products, meter.solves) == (0, 6**3 // 3 + 2 * 36 * 2)
    meter.eigh(spd)
    assert meter.solves == 72 + 144 + 25 * 216
    meter.basis(torch.ones(4, 3, dtype=torch.float64))
    assert meter.flops == meter.solves == 72 + 144 + 5400 + 4 * 4 * 3 * 3
    stack = Meter()
    stack.eigh(torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    assert stack.solves == 5 * 25 * 27


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_gram_matrix_that_is_not_finite_is_told_and_not_solved_for_ever(value: float) -> None:
    gram = torch.eye(3, dtype=torch.float64)
    gram[1, 1] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        Meter().solve(gram, torch.ones(3, 1, dtype=torch.float64), 1e-3)
