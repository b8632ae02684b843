"""Growth against what else the same examples could have bought, on five seeds each. Figures are printed."""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

import raygrow
from raygrow.app import prepare_campaign
from raygrow.config import load_plan
from raygrow.nn import Network, OptimizerPlan
from raygrow.nn.losses import LOSSES
from raygrow.population.lengths import examples_of
from raygrow.population.plan import Plan
from raygrow.training import Examples, Fork, example_order, fit, score

SEEDS = range(5)
CONFIGS = Path(__file__).parents[2] / "configs"
PROCESSES = 2

pytestmark = pytest.mark.slow


def _campaign(config: str, seed: int, folder: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    result = raygrow.run(CONFIGS / config, {"campaign.seed": seed, "pool.kind": "serial"}, out=folder, quiet=True)
    return dict(result.summary)


def _examples(plan: Plan, rows: int, member: dict[str, Any]) -> int:
    """Examples that this lineage was trained on: its rounds, its own fork of every probe, and the final anneal."""
    own = plan.member(member["member"])
    # The last entry is the final anneal, recorded with the campaign's last round, in which this member may have rested.
    rounds = max(entry["round"] for entry in member["history"][:-1])
    each = examples_of(own.training.examples_per_round, rows) + examples_of(own.probe.examples, rows)
    return rounds * each + examples_of(own.training.final_examples, rows)


def _fixed_net(config: str, seed: int, flops: int, examples: int) -> float:
    """Test metric of a one-hidden-layer ReLU net of at least these FLOPs, He start, annealed by a cosine throughout."""
    torch.set_num_threads(1)
    plan = load_plan(CONFIGS / config, {"campaign.seed": seed})
    ready = prepare_campaign(plan)
    inputs, outputs = ready.facts.inputs, ready.facts.outputs
    hidden = -(-flops // (2 * (inputs + outputs)))
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, outputs))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.normal_(0.0, (2.0 / layer.in_features) ** 0.5, generator=generator)
            layer.bias.zero_()
    data = ready.dataset
    train = Examples.of(data.train.x, data.train.y, torch.device("cpu"))
    optimizer = torch.optim.Adam(net.parameters(), lr=plan.training.lr, fused=True)
    order = example_order(len(train), examples, seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, -(-examples // plan.training.batch_size))
    loss = torch.nn.functional.mse_loss if data.task == "regression" else torch.nn.functional.cross_entropy
    for batch in order.split(plan.training.batch_size):
        optimizer.zero_grad()
        loss(net(train.x[batch]), train.y[batch]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        output = net(torch.tensor(data.test.x))
    y = torch.tensor(data.test.y)
    if data.task == "classification":
        return float((output.argmax(1) == y).double().mean())
    residual = (output - y).double().square().sum(0)
    return float((1 - residual / (y - y.mean(0)).double().square().sum(0)).mean())


def _linear_start(config: str, seed: int, examples: int) -> float:
    """Test metric of the start, never grown, given the same examples and the same final anneal."""
    torch.set_num_threads(1)
    plan = load_plan(CONFIGS / config, {"campaign.seed": seed})
    ready = prepare_campaign(plan)
    data, loss = ready.dataset, LOSSES[ready.facts.task]
    train, test = (Examples.of(s.x, s.y, torch.device("cpu")) for s in (data.train, data.test))
    network = Network(ready.facts.start(ready.plan.network))
    optimizer, size = OptimizerPlan(plan.training.optimizer, plan.training.lr), plan.training.batch_size
    order = example_order(len(train), examples, seed)
    final = examples_of(plan.training.final_examples, len(train))
    constant = fit(Fork(network, {}), train, order[:-final], size, loss, optimizer)
    annealed = fit(Fork(constant.network, constant.state), train, order[-final:], size, loss, optimizer, anneal=True)
    return score(annealed.network, test, loss).metric


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}"


def _in_processes(function: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(function, *call) for call in calls]]


@pytest.fixture(scope="module")
def lorenz96(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp("lorenz96")
    return _in_processes(_campaign, [("lorenz96.yaml", seed, str(root / str(seed))) for seed in SEEDS])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp("teacher")
    return _in_processes(_campaign, [("teacher.yaml", seed, str(root / str(seed))) for seed in SEEDS])


def test_lorenz96_grows_in_every_member_to_r2_095(lorenz96: list[dict[str, Any]]) -> None:
    for summary in lorenz96:
        for member in summary["members"]:
            assert member["moves_accepted"] >= 3, member["member"]
        assert summary["best"]["test_r2"] >= 0.95
        assert summary["best"]["flops_per_example"] <= 2048


def test_lorenz96_is_level_with_the_fixed_net_of_equal_flops(lorenz96: list[dict[str, Any]]) -> None:
    plan = load_plan(CONFIGS / "lorenz96.yaml")
    rows = prepare_campaign(plan).facts.train_rows
    calls = [
        ("lorenz96.yaml", seed, s["best"]["flops_per_example"], _examples(plan, rows, s["best"]))
        for seed, s in zip(SEEDS, lorenz96, strict=True)
    ]
    fixed = _in_processes(_fixed_net, calls)
    grown = [s["best"]["test_r2"] for s in lorenz96]
    print(f"\nlorenz96 test R2, seeds 0-4: grown {_spread(grown)} {[round(g, 4) for g in grown]}")
    print(f"  at FLOPs per example {[s['best']['flops_per_example'] for s in lorenz96]}")
    print(f"  fixed net of equal FLOPs and examples {_spread(fixed)} {[round(f, 4) for f in fixed]}")
    difference = [g - f for g, f in zip(grown, fixed, strict=True)]
    print(f"  difference {_spread(difference)}")
    assert statistics.mean(difference) >= -0.02


def test_teacher_grows_in_every_member_and_beats_its_linear_start(teacher: list[dict[str, Any]]) -> None:
    plan = load_plan(CONFIGS / "teacher.yaml")
    rows = prepare_campaign(plan).facts.train_rows
    for name in [member.name for member in plan.members]:
        figures = [next(m for m in s["members"] if m["member"] == name) for s in teacher]
        calls = [("teacher.yaml", seed, _examples(plan, rows, f)) for seed, f in zip(SEEDS, figures, strict=True)]
        linear = _in_processes(_linear_start, calls)
        grown = [f["test_accuracy"] for f in figures]
        print(f"\nteacher test accuracy, {name}: grown {_spread(grown)}, linear start {_spread(linear)}")
        print(f"  moves adopted {[f['moves_accepted'] for f in figures]}")
        assert all(f["moves_accepted"] >= 1 for f in figures)
        assert statistics.mean(grown) - statistics.mean(linear) >= 0.10


def test_digits_smoke_with_the_linear_model_beside(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A linear model nearly solves digits, so no claim for growth rests on it."""
    root = tmp_path_factory.mktemp("digits")
    grown = _in_processes(_campaign, [("digits.yaml", seed, str(root / str(seed))) for seed in SEEDS])
    plan = load_plan(CONFIGS / "digits.yaml")
    rows = prepare_campaign(plan).facts.train_rows
    linear = _in_processes(
        _linear_start,
        [("digits.yaml", seed, _examples(plan, rows, s["best"])) for seed, s in zip(SEEDS, grown, strict=True)],
    )
    final = examples_of(plan.training.final_examples, rows)
    annealed = _in_processes(_linear_start, [("digits.yaml", seed, final) for seed in SEEDS])
    accuracy = [summary["best"]["test_accuracy"] for summary in grown]
    print(f"\ndigits test accuracy, seeds 0-4: grown {_spread(accuracy)} {[round(a, 4) for a in accuracy]}")
    print(f"  at FLOPs per example {[s['best']['flops_per_example'] for s in grown]}")
    print(f"  linear, equal examples {_spread(linear)}; linear, the final anneal alone {_spread(annealed)}")
    assert accuracy[0] >= 0.955
    assert all(summary["best"]["flops_per_example"] <= 5000 for summary in grown)
