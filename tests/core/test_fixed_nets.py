"""What growth is measured against must be what it says: plain training, and FLOPs counted as torch counts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raygrow.baselines.nets import FixedNet, examples, layered, started
from raygrow.data import Split
from raygrow.nn import OptimizerPlan
from raygrow.testing import counted as counter
from raygrow.training import Examples, example_order


def rows(n: int = 96) -> Examples:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(n, 5)).astype(np.float32)
    return examples(Split(x, np.tanh(x[:, :2]).astype(np.float32)))


def built(hidden: list[int], total: int = 192) -> FixedNet:
    return FixedNet(started(layered(5, hidden, 2), 7), rows(), "regression", total, OptimizerPlan("adam", 0.02), 32, 7)


def test_trains_as_torchs_own_modules_and_optimiser_do() -> None:
    net, train = built([6, 3]), rows()
    layers = [torch.nn.Linear(5, 6), torch.nn.Linear(6, 3), torch.nn.Linear(3, 2)]
    plain = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    own = dict(net.network.named_parameters())
    with torch.no_grad():
        for layer, source, target in zip(layers, ("input", "h1", "h2"), ("h1", "h2", "output"), strict=True):
            layer.weight.copy_(own[f"weights.{source}>{target}"])
            layer.bias.copy_(own[f"biases.{target}"])
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for batch in example_order(96, 192, 7).split(32):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(plain(train.x[batch]), train.y[batch]).backward()
        optimizer.step()
        schedule.step()
    for _ in range(2):
        net.advance(96)
    with torch.no_grad():
        torch.testing.assert_close(net.network(train.x), plain(train.x), rtol=1e-4, atol=1e-5)


def test_counts_the_flops_that_torch_counts() -> None:
    net, validation = built([6, 3]), rows(40)
    with counter() as counted:
        net.advance(96)
        net.score(validation)
    assert net.flops == counted.get_total_flops()
    net.score(validation, counted=False)
    assert net.flops == counted.get_total_flops()


def test_an_epoch_at_a_time_is_the_same_as_all_at_once() -> None:
    whole, parts = built([4]), built([4])
    whole.advance(192)
    for _ in range(2):
        parts.advance(96)
    assert torch.equal(whole.network(rows().x), parts.network(rows().x))


def test_without_hidden_layers_it_is_the_linear_model_from_zero() -> None:
    assert float(built([]).network(rows().x).abs().max()) == 0
    assert float(built([8]).network(rows().x).std()) == pytest.approx(1.4, abs=0.7)
