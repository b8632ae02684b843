"""Fit, score and probe: held against hand-written loops, scikit-learn and torch's FLOP counter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from torch import Tensor

from raygrow.architecture import AddNode, Architecture, Widen, forward_flops, training_flops
from raygrow.growth.initializers import RandomInitializer
from raygrow.nn import Extension, Network, Optimizer, OptimizerKind, OptimizerPlan, carry_state, clone, graft
from raygrow.nn.losses import LOSSES
from raygrow.testing import a_network, some_examples
from raygrow.testing import counted as counter
from raygrow.training import (
    Examples,
    ExampleSets,
    Fork,
    ForkResult,
    Lesson,
    ProbePlan,
    example_order,
    fit,
    outputs_of,
    run_probe,
    score,
    teach,
)
from raygrow.training.evaluate import EVALUATE_BATCH
from raygrow.training.examples import GATHER, gathered
from tests.core.alone import trained_alone

ADAM = OptimizerPlan("adam", 0.01)
TASKS = tuple(LOSSES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def examples(task: str, n: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Examples:
    x, y = some_examples(task, n, seed)
    return Examples(x.to(dtype), y if task == "classification" else y.to(dtype))


def weights(network: Network) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# --- the order of examples


@pytest.mark.parametrize(("n", "count"), [(10, 35), (10, 30), (10, 10), (10, 3), (7, 1), (1, 4)])
def test_example_order_covers_whole_permutations(n: int, count: int) -> None:
    order = example_order(n, count, 5)
    assert len(order) == count
    for start in range(0, count, n):
        part = order[start : start + n].tolist()
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(n))
        if len(part) == n:
            assert sorted(part) == list(range(n))
    assert torch.equal(order, example_order(n, count, 5))
    longer = example_order(n, count + n, 5)
    assert torch.equal(longer[:count], order)


def test_example_order_differs_by_seed_and_by_pass_and_leaves_global_state_alone() -> None:
    before = torch.get_rng_state()
    orders = [tuple(example_order(50, 100, seed).tolist()) for seed in range(20)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(orders)) == 20
    assert all(order[:50] != order[50:] for order in orders)
    firsts = [order[0] for order in orders]
    assert len(set(firsts)) > 8


@pytest.mark.parametrize(
    ("count", "size"), [(10, 3), (9, 3), (2, 5), (GATHER + 100, 48), (2 * GATHER, 32), (5, GATHER + 1)]
)
def test_pieces_hold_whole_batches_and_concatenate_to_the_order(count: int, size: int) -> None:
    data = Examples(torch.arange(40.0)[:, None], torch.arange(40))
    order = example_order(40, count, 3)
    found = list(gathered(data, order, size))
    assert all(len(piece) % size == 0 and len(piece) <= max(GATHER, size) for piece in found[:-1])
    assert 0 < len(found[-1]) <= max(GATHER, size)
    assert torch.equal(torch.cat([piece.y for piece in found]), order)
    assert torch.equal(torch.cat([piece.x for piece in found])[:, 0].long(), order)


def test_examples_are_copies() -> None:
    x, y = np.zeros((3, 2), np.float32), np.zeros(3, np.int64)
    data = Examples.of(x, y, torch.device("cpu"))
    data.x.add_(1.0)
    data.y.add_(1)
    assert not x.any()
    assert not y.any()
    assert data.x.dtype == torch.float32
    assert data.take(torch.tensor([2, 0])).x.shape == (2, 2)


# --- fit


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("anneal", [False, True])
@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_fit_is_the_loop_written_by_hand(task: str, anneal: bool, kind: OptimizerKind) -> None:
    data, plan = examples(task, 300, dtype=torch.float64), OptimizerPlan(kind, 0.01)
    order, fork = example_order(300, 1000, 2), Fork(a_network("tanh"), {})
    ours = fit(fork, data, order, 32, LOSSES[task], plan, anneal)
    theirs = trained_alone(fork, data, [order], 32, task, plan, anneal)
    for a, b in zip(weights(ours.network), weights(theirs.network), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert score(ours.network, data, LOSSES[task]).loss < score(fork.network, data, LOSSES[task]).loss


def test_anneal_ends_near_rate_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Watched(Optimizer):
        def step(self, lr: float | None = None) -> None:
            assert lr is not None
            rates.append(lr)
            super().step(lr)

    monkeypatch.setattr("raygrow.training.store.Optimizer", Watched)
    data, fork = examples("classification", 100), Fork(a_network("tanh", torch.float32), {})
    fit(fork, data, example_order(100, 3200, 0), 16, LOSSES["classification"], ADAM, anneal=True)
    assert len(rates) == 200
    assert rates[0] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-6
    assert sum(rates) / 200 == pytest.approx(0.005, rel=0.01)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("count", "size"), [(70, 32), (64, 16), (5, 32)])
def test_a_lesson_takes_the_flops_that_torch_counts(task: str, count: int, size: int) -> None:
    data, fork = examples(task, 50), Fork(a_network("relu", torch.float32), {})
    orders = [example_order(50, count, 0)]
    with counter() as counted:
        trained_alone(fork, data, orders, size, task, ADAM)
    flops = Lesson([fork], data, orders, size, LOSSES[task], ADAM).flops
    assert flops == counted.get_total_flops() == count * training_flops(fork.network.arch)


def test_fit_leaves_the_data_and_the_fork_alone() -> None:
    data, fork = examples("regression", 64), Fork(a_network("tanh", torch.float32), {})
    x, y, before = data.x.clone(), data.y.clone(), weights(fork.network)
    learned = fit(fork, data, example_order(64, 128, 0), 16, LOSSES["regression"], ADAM)
    assert torch.equal(data.x, x)
    assert torch.equal(data.y, y)
    assert same(before, weights(fork.network))
    assert not same(before, weights(learned.network))
    assert fork.state == {}


@pytest.mark.parametrize("steps", [0, 1, 7, 50, 130])
def test_a_weight_average_is_the_one_written_out(steps: int) -> None:
    """Equal weights over the first 50 steps, then 2 % for each new one; the training does not notice."""
    data, fork = examples("classification", 100, dtype=torch.float64), Fork(a_network("tanh"), {})
    orders = [example_order(100, 16, step) for step in range(1, steps + 1)]
    lesson = Lesson([fork], data, orders, 16, LOSSES["classification"], ADAM)
    ((plain,),) = teach([lesson])
    ((averaged,),) = teach([replace(lesson, averaged=True)])
    expected = weights(fork.network)
    walked = fork
    for step, order in enumerate(orders, start=1):
        learned = fit(walked, data, order, 16, LOSSES["classification"], ADAM)
        walked = Fork(learned.network, learned.state)
        share = 1 / step if step <= 50 else 0.02
        expected = [(1 - share) * e + share * w for e, w in zip(expected, weights(walked.network), strict=True)]
    for mine, other in zip(weights(averaged.network), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    assert same(weights(plain.network), weights(walked.network))
    for name, entry in plain.state.items():
        assert all(torch.equal(averaged.state[name][key], value) for key, value in entry.items())
    assert steps < 2 or not same(weights(averaged.network), weights(plain.network))


# --- score


def test_score_of_a_classifier_is_that_of_scikit_learn() -> None:
    data, network = examples("classification", 500, dtype=torch.float64), a_network("tanh")
    found = score(network, data, LOSSES["classification"])
    probability = torch.softmax(network(data.x), 1).detach().numpy()
    y = data.y.numpy()
    assert found.loss == pytest.approx(log_loss(y, probability, labels=[0, 1, 2]), rel=1e-12)
    assert found.metric == pytest.approx(accuracy_score(y, probability.argmax(1)), rel=1e-12)
    np.testing.assert_allclose(found.losses, -np.log(probability[np.arange(500), y]), rtol=1e-10)
    assert found.losses.dtype == np.float64
    assert found.losses.shape == (500,)


def test_score_of_a_regression_is_that_of_scikit_learn() -> None:
    data, network = examples("regression", 500, dtype=torch.float64), a_network("tanh")
    output = network(data.x).detach().numpy()
    for y in (data.y, data.y * torch.tensor([1.0, 1e-3, 1e3], dtype=torch.float64)):
        found = score(network, Examples(data.x, y), LOSSES["regression"])
        assert found.loss == pytest.approx(mean_squared_error(y.numpy(), output), rel=1e-12)
        assert found.metric == pytest.approx(r2_score(y.numpy(), output), rel=1e-9)
        np.testing.assert_allclose(found.losses, ((output - y.numpy()) ** 2).mean(1), rtol=1e-10)


def test_r2_of_a_target_that_does_not_vary_is_that_of_scikit_learn() -> None:
    network = Network(Architecture.simplest(5, 2))
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    for level in (0.0, 0.1):
        y = torch.stack([torch.full((20,), level), x[:, 0]], 1)
        expected = r2_score(y.double().numpy(), outputs_of(network, x).double().numpy())
        assert score(network, Examples(x, y), LOSSES["regression"]).metric == pytest.approx(expected)


@pytest.mark.parametrize("task", TASKS)
def test_score_counts_its_flops_and_changes_nothing(task: str) -> None:
    data, network = examples(task, EVALUATE_BATCH + 37), a_network("tanh", torch.float32)
    before = weights(network)
    with counter() as counted:
        found = score(network, data, LOSSES[task])
    assert found.flops == counted.get_total_flops() == len(data) * forward_flops(network.arch)
    assert len(found.losses) == len(data)
    assert same(before, weights(network))
    assert not outputs_of(network, data.x).requires_grad
    torch.testing.assert_close(outputs_of(network, data.x), network(data.x).detach(), rtol=1e-5, atol=1e-6)


def test_example_sets_know_their_loss() -> None:
    for task in TASKS:
        data = examples(task, 4)
        assert ExampleSets(task, data, data, data, data).loss is LOSSES[task]  # type: ignore[arg-type]


# --- the probe

PLAN = ProbePlan(examples=500, blocks=4, batch_size=32, seed=11)


def splits(task: str = "classification", dtype: torch.dtype = torch.float32) -> tuple[Examples, Examples, Examples]:
    return examples(task, 400, 1, dtype), examples(task, 60, 2, dtype), examples(task, 103, 3, dtype)


def trained_fork(
    widen: int = 0, task: str = "classification", seed: int = 0, dtype: torch.dtype = torch.float32
) -> Fork:
    """A network with some optimiser state, perhaps with a wider h1."""
    fresh, data = Fork(a_network("tanh", dtype, seed), {}), examples(task, 200, 7, dtype)
    learned = fit(fresh, data, example_order(200, 320, 0), 32, LOSSES[task], ADAM)
    network, state = learned.network, learned.state
    if not widen:
        return Fork(network, state)
    generator = torch.Generator().manual_seed(4)
    arch = network.arch
    extension = Extension(
        {s: torch.randn(widen, arch.size(s), generator=generator) for s in arch.parents("h1")},
        torch.randn(widen, generator=generator),
        {t: 0.1 * torch.randn(arch.size(t), widen, generator=generator) for t in arch.children("h1")},
    )
    grown = graft(network, Widen("h1", widen), extension)
    return Fork(grown, carry_state(state, grown))


def probe(
    forks: list[Fork], plan: ProbePlan = PLAN, task: str = "classification", **other: Examples
) -> list[ForkResult]:
    train, search, validation = splits(task, next(forks[0].network.parameters()).dtype)
    given = {"train": train, "search": search, "validation": validation, **other}
    return run_probe(forks, given["train"], given["search"], given["validation"], LOSSES[task], plan, ADAM)


def outcome(result: ForkResult) -> list[Tensor]:
    """Everything a fork's probe computed, as tensors."""
    losses = [torch.tensor(a) for a in (*result.blocks, result.validation.losses, result.search.losses)]
    state = [value for entry in result.state.values() for value in entry.values()]
    return [*weights(result.network), *state, *losses, torch.tensor(result.flops)]


def close(one: ForkResult, other: ForkResult) -> None:
    """The losses of two float64 results: where a row stands in a product shows in its last bit."""
    for a, b in zip((*one.blocks, one.validation.losses, one.search.losses),
                    (*other.blocks, other.validation.losses, other.search.losses), strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    for a, b in zip(weights(one.network), weights(other.network), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert one.flops == other.flops


@pytest.mark.parametrize("task", TASKS)
def test_identical_forks_have_equal_results(task: str) -> None:
    one, two = probe([trained_fork(task=task, dtype=torch.float64) for _ in range(2)], task=task)
    close(one, two)
    assert one.finite
    start = trained_fork(task=task, dtype=torch.float64)
    assert not same(weights(one.network), weights(start.network))
    control, twin = probe([trained_fork(task=task), trained_fork(task=task)], task=task)
    # In float32 a gain of nothing but rounding.
    gain = float((control.validation.losses - twin.validation.losses).mean())
    assert abs(gain) < 1e-7 * control.validation.loss


def test_a_probe_repeated_is_the_same_bit_for_bit() -> None:
    once, again = (probe([trained_fork(k) for k in (0, 2, 5)]) for _ in range(2))
    assert all(same(outcome(a), outcome(b)) for a, b in zip(once, again, strict=True))


def test_a_fork_does_not_feel_the_others() -> None:
    def forks(*sizes: int) -> list[Fork]:
        return [trained_fork(size, dtype=torch.float64) for size in sizes]

    alone = [probe(forks(k))[0] for k in (0, 2, 5)]
    together = probe(forks(0, 2, 5))
    turned = probe(forks(5, 2, 0))[::-1]
    for a, b, c in zip(alone, together, turned, strict=True):
        close(a, b)
        close(a, c)


def test_a_probe_trains_on_the_batches_of_its_seed() -> None:
    """Against torch.optim in float64; and in float32 it is a lesson like any other, bit for bit."""
    order, loss = example_order(400, 500, PLAN.seed), LOSSES["classification"]
    fork = trained_fork(2, dtype=torch.float64)
    (found,) = probe([fork])
    alone = trained_alone(fork, splits(dtype=torch.float64)[0], [order], 32, "classification", ADAM)
    for a, b in zip(weights(found.network), weights(alone.averaged), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    fork = trained_fork(2)
    (found,) = probe([fork])
    ((learned,),) = teach([Lesson([fork], splits()[0], [order], 32, loss, ADAM, averaged=True)])
    assert same(weights(found.network), weights(learned.network))
    for name, entry in learned.state.items():
        assert all(torch.equal(found.state[name][key], value) for key, value in entry.items())
    (other,) = probe([trained_fork(2)], replace(PLAN, seed=12))
    assert not same(weights(found.network), weights(other.network))


@pytest.mark.parametrize("blocks", [2, 3, 8, 16, 40])
@pytest.mark.parametrize("count", [500, 512, 31])
def test_blocks_do_not_change_the_training(blocks: int, count: int) -> None:
    (one,) = probe([trained_fork()], replace(PLAN, examples=count, blocks=1))
    (many,) = probe([trained_fork()], replace(PLAN, examples=count, blocks=blocks))
    assert same(weights(one.network), weights(many.network))
    assert np.array_equal(one.validation.losses, many.validation.losses)
    assert np.array_equal(one.search.losses, many.search.losses)
    assert len(many.blocks) == blocks
    np.testing.assert_allclose(many.blocks[-1], many.validation.losses[-len(many.blocks[-1]) :], rtol=1e-5)


@pytest.mark.parametrize("blocks", [1, 4, 7, 103])
def test_blocks_cover_validation_exactly_once(blocks: int) -> None:
    """Every validation row has a target of its own, so that its loss under a network that cannot move names it."""
    network = Network(Architecture.simplest(1, 1))
    rows = 103
    validation = Examples(torch.zeros(rows, 1), torch.arange(rows, dtype=torch.float32)[:, None])
    still = Examples(torch.zeros(10, 1), torch.zeros(10, 1))
    plan = ProbePlan(50, blocks, 10, 3)
    (result,) = run_probe([Fork(network, {})], still, still, validation, LOSSES["regression"], plan, ADAM)
    seen = np.sqrt(np.concatenate(result.blocks)).round().astype(int)
    assert sorted(seen) == list(range(rows))
    assert np.array_equal(seen, np.sqrt(result.validation.losses).round().astype(int))
    assert not np.array_equal(seen, np.arange(rows))
    sizes = [len(block) for block in result.blocks]
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == blocks
    assert len(result.search.losses) == 10


def test_fewer_validation_rows_than_blocks_still_cover_each_once() -> None:
    few = splits()[2].take(torch.arange(3))
    (result,) = probe([trained_fork()], replace(PLAN, blocks=8), validation=few)
    assert sum(len(block) for block in result.blocks) == 3
    assert all(len(block) for block in result.blocks)


def test_block_b_is_scored_after_segment_b() -> None:
    """Against separate, shorter trainings: 16 batches in 4 segments of 4 batches."""
    plan = replace(PLAN, examples=512)
    (result,) = probe([trained_fork()], plan)
    validation = splits()[2]
    permuted = validation.take(torch.randperm(103, generator=torch.Generator().manual_seed(plan.seed)))
    first = 0
    for b, losses in enumerate(result.blocks, start=1):
        order, loss = example_order(400, 512, plan.seed)[: 128 * b], LOSSES["classification"]
        ((learned,),) = teach([Lesson([trained_fork()], splits()[0], [order], 32, loss, ADAM, averaged=True)])
        block = permuted.take(torch.arange(first, first + len(losses)))
        separate = score(learned.network, block, loss).losses
        # Where a block begins in memory shows in the last bit of float32.
        np.testing.assert_allclose(separate, losses, rtol=1e-5)
        first += len(losses)
    assert first == 103


def test_held_out_examples_never_change_the_weights() -> None:
    train, search, validation = splits()
    (honest,) = probe([trained_fork(2)])
    for name, split in (("search", search), ("validation", validation)):
        turned = Examples(split.x, split.y.flip(0))
        held_out = {"search": search, "validation": validation, name: turned}
        (other,) = probe([trained_fork(2)], search=held_out["search"], validation=held_out["validation"])
        assert same(weights(honest.network), weights(other.network))
        assert same(*([v for entry in r.state.values() for v in entry.values()] for r in (honest, other)))
        changed = getattr(other, name).losses
        assert not np.array_equal(getattr(honest, name).losses, changed)
    (other,) = probe([trained_fork(2)], train=Examples(train.x, train.y.flip(0)))
    assert not same(weights(honest.network), weights(other.network))


@pytest.mark.parametrize("task", TASKS)
def test_probe_flops_are_those_torch_counts(task: str) -> None:
    for fork in (trained_fork(task=task), trained_fork(3, task)):
        with counter() as counted:
            (result,) = probe([fork], task=task)
        forward = forward_flops(fork.network.arch)
        assert result.flops == counted.get_total_flops()
        assert result.flops == 500 * training_flops(fork.network.arch) + (103 + 103 + 60) * forward


def test_state_after_a_probe_goes_on_where_it_stopped() -> None:
    """It is that of the last weights, which go on with it; the result's network is the average of them."""
    fork, train, loss = trained_fork(), splits()[0], LOSSES["classification"]
    (half,) = probe([fork], replace(PLAN, examples=256))
    (whole,) = probe([fork], replace(PLAN, examples=512))
    order = example_order(400, 512, PLAN.seed)
    last = fit(fork, train, order[:256], 32, loss, ADAM).network
    assert not same(weights(last), weights(half.network))
    on = fit(Fork(last, half.state), train, order[256:], 32, loss, ADAM)
    straight = fit(fork, train, order, 32, loss, ADAM)
    assert same(weights(on.network), weights(straight.network))
    for name, entry in on.state.items():
        assert all(torch.equal(whole.state[name][key], value) for key, value in entry.items())


def test_a_diverged_fork_is_not_finite() -> None:
    train, search, validation = splits("regression")
    fork = trained_fork(task="regression")
    wild = OptimizerPlan("sgd", 1e6)
    control, broken = (
        run_probe([Fork(clone(fork.network), {})], train, search, validation, LOSSES["regression"], PLAN, plan)[0]
        for plan in (ADAM, wild)
    )
    assert control.finite
    assert not broken.finite


def test_a_function_preserving_fork_begins_level_with_its_control() -> None:
    """With a zero rate nothing moves: both arms keep equal losses, whatever was added."""
    assert RandomInitializer().preserves_function("tanh")
    control = trained_fork()
    move = AddNode(("input",), ("output",), 4, "tanh")
    generator = torch.Generator().manual_seed(0)
    new = Extension({"input": torch.randn(4, 5, generator=generator)}, torch.zeros(4), {"output": torch.zeros(3, 4)})
    grown = graft(control.network, move, new)
    forks = [control, Fork(grown, carry_state(control.state, grown))]
    one, two = run_probe(forks, *splits(), LOSSES["classification"], PLAN, OptimizerPlan("adam", 0.0))
    assert np.array_equal(one.validation.losses, two.validation.losses)
    assert two.flops > one.flops
