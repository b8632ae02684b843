"""The same on a GPU: training, new weights of every initializer, campaigns of every family, strategy and pool.

Draws come from the CPU whatever the device, so that in float64 both devices agree but for the order of sums.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raygrow
from raygrow.architecture import ACTIVATIONS, FAMILIES, AbstractFamily
from raygrow.errors import Refused
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Sample
from raygrow.growth.step import grow
from raygrow.nn import Network, OptimizerPlan
from raygrow.nn.losses import CrossEntropy
from raygrow.strategies import STRATEGIES
from raygrow.testing import SOME_MOVES, a_network, some_examples, with_activation
from raygrow.training import Examples, Fork, Lesson, teach
from raygrow.training.augment import Augment
from tests.core.test_map_growth import begun, measured, moves_of
from tests.core.test_maps import a_map_network, draw

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
LOSS = CrossEntropy()
PLANS = {
    "adam": OptimizerPlan("adam", 0.01),
    "sgd": OptimizerPlan("sgd", 0.01),
    "treated": OptimizerPlan("adam", 0.01, "norm", 2, "fresh", 0.5, 0.01),
}


def on_gpu(network: Network) -> Network:
    return copy.deepcopy(network).to("cuda")


@needs_gpu
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    "network",
    [*(a_network(name) for name in ACTIVATIONS if name != "identity"), *map(a_map_network, ("none", "batch", "group"))],
    ids=[*(name for name in ACTIVATIONS if name != "identity"), "maps", "batch", "group"],
)
def test_training_gives_what_it_gives_on_the_cpu(network: Network, plan: str) -> None:
    maps = not network.arch.plain
    shape = (2, 8, 7) if maps else (1, 5)
    x, y = draw(60, int(np.prod(shape)), seed=1), torch.randint(3, (60,), generator=torch.Generator().manual_seed(2))
    order = torch.randperm(60)
    found = []
    for device in ("cpu", "cuda"):
        own = network if device == "cpu" else on_gpu(network)
        data = Examples(x.to(device), y.to(device), Augment(shift=1, flip=True, cutout=1), shape)
        lesson = Lesson([Fork(own, {})] * 2, data, [order[:32], order[32:]], 16, LOSS, PLANS[plan], averaged=True)
        found.append(teach([lesson])[0][1])
    for name, tensor in found[0].network.state_dict().items():
        other = found[1].network.state_dict()[name]
        assert other.is_cuda
        assert torch.allclose(tensor, other.cpu(), rtol=1e-6, atol=1e-9), name
    for name, entries in found[0].state.items():
        for key, value in entries.items():
            assert torch.allclose(value, found[1].state[name][key].cpu(), rtol=1e-6, atol=1e-9), (name, key)


def same_growth(initializer: AbstractInitializer, on_cpu: float, on_gpu: float, before: float) -> bool:
    """Losses, since a decomposition may give a direction or its opposite; where draws are made in such a basis and their
    amplitude is searched, no more can be said than that the loss falls on both."""
    if initializer.line_searched:
        return max(on_cpu, on_gpu) <= before * (1 + 1e-9)
    return on_gpu == pytest.approx(on_cpu, rel=1e-3)


@needs_gpu
@pytest.mark.parametrize("cls", INITIALIZERS, ids=lambda cls: cls.__name__)
def test_growth_of_vectors_gives_what_it_gives_on_the_cpu(cls: type[AbstractInitializer]) -> None:
    activation = next(name for name in ("relu", "tanh") if cls().supports_activation(name))
    x, y = some_examples("classification")
    for move in (with_activation(move, activation) for move in SOME_MOVES if type(move) in cls.supports):
        losses = []
        for device in ("cpu", "cuda"):
            network, xs, ys = a_network(activation).to(device), x.to(device), y.to(device)
            generator = torch.Generator().manual_seed(0)
            grown = grow(network, move, cls(), Sample(xs, ys), (xs, ys), LOSS, generator, Meter()).network
            assert all(tensor.device.type == device for tensor in grown.state_dict().values())
            losses.append(LOSS.mean(grown(xs), ys).item())
        assert same_growth(cls(), *losses, LOSS.mean(network(xs), ys).item()), (move, losses)


@needs_gpu
@pytest.mark.parametrize("cls", INITIALIZERS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_growth_of_maps_gives_what_it_gives_on_the_cpu(cls: type[AbstractInitializer], norm: str) -> None:
    network, x, y, residuals = measured(norm)
    own = on_gpu(network)
    tried = 0
    for move in moves_of(network, norm, cls()):
        if begun(cls(), residuals, move) is None:
            continue
        tried += 1
        losses = []
        for where, xs, ys in ((network, x, y), (own, x.cuda(), y.cuda())):
            generator = torch.Generator().manual_seed(0)
            grown = grow(where, move, cls(), Sample(xs, ys), (xs, ys), LOSS, generator, Meter()).network
            losses.append(LOSS.mean(grown(xs), ys).item())
        assert same_growth(cls(), *losses, LOSS.mean(network(x), y).item()), (move, losses)
    assert tried


def config(data: dict[str, Any], **network: Any) -> dict[str, Any]:
    return {
        "campaign": {"rounds": 3},
        "data": data,
        "network": network,
        "training": {"examples_per_round": 256, "final_examples": 256},
        "growth": {"statistics_examples": 128, "units": [2, 4], "price": 0.0, "candidates": 3, "patience": 9},
        "probe": {"examples": 128},
        "members": [{"strategy": {"kind": "mdl"}}, {"strategy": {"kind": "rl"}}],
        "tracking": {"enabled": False},
        "pool": {"kind": "serial", "gpus_per_actor": 0.5},
    }


TEACHER = {"kind": "teacher", "rows": 900}


@needs_gpu
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("dimensions", [0, 2])
def test_a_campaign_of_every_family(family: AbstractFamily, dimensions: int, tmp_path: Path) -> None:
    if dimensions not in family.dimensions:
        return
    data = {"kind": "patterns", "size": 8, "rows": 600} if dimensions else TEACHER
    plan = config(data, family=family.name, patch=2, norm="batch" if dimensions else "none")
    result = raygrow.run(plan, out=tmp_path / "run", quiet=True)
    best = result.summary["best"]
    assert np.isfinite(best["test_loss"])
    # What a GPU grew is a network like any other: it answers on a CPU.
    network = result.best.load()
    assert all(not tensor.is_cuda for tensor in network.state_dict().values())


@needs_gpu
def test_a_campaign_of_every_strategy_decides_as_on_the_cpu(tmp_path: Path) -> None:
    plan = config(TEACHER)
    plan["members"] = [{"strategy": {"kind": cls().kind}} for cls in STRATEGIES]
    moves = []
    for name, gpus in (("cpu", 0), ("gpu", 0.5)):
        result = raygrow.run(plan, {"pool.gpus_per_actor": gpus}, out=tmp_path / name, quiet=True)
        assert all(np.isfinite(member["test_loss"]) for member in result.summary["members"])
        moves.append([member["history"][1]["arch_id"] for member in result.summary["members"]])
    # The first round, before float32 has drifted apart; one close call may still fall the other way.
    assert sum(a != b for a, b in zip(*moves, strict=True)) <= 1


@needs_gpu
def test_ray_actors_share_a_gpu(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    result = raygrow.run(config(TEACHER), {"pool.kind": "ray"}, out=tmp_path / "ray", quiet=True)
    ray.shutdown()
    alone = raygrow.run(config(TEACHER), out=tmp_path / "serial", quiet=True)
    for one, other in zip(result.summary["members"], alone.summary["members"], strict=True):
        assert one["history"][1]["arch_id"] == other["history"][1]["arch_id"]
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused only where torch sees no GPU")
def test_a_gpu_that_is_not_there_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"`pool\.gpus_per_actor` is 0\.5, but torch sees no GPU here: set it to 0"):
        raygrow.run(config(TEACHER), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
