"""What the generated sets are for: local filters do what pixels and dense units do not. Figures are printed."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from torch import nn

from raygrow.data import Dataset, prepare
from raygrow.data.patterns import Patterns
from raygrow.data.waveforms import Waveforms

SEEDS = range(3)
EPOCHS = 30
BATCH = 64

pytestmark = pytest.mark.slow


def _accuracy(net: nn.Module, data: Dataset, seed: int) -> float:
    """Test accuracy after Adam with a cosine schedule."""
    x, y = torch.tensor(data.train.x).view(-1, *data.shape), torch.tensor(data.train.y)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(x) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        found = net(torch.tensor(data.test.x).view(-1, *data.shape)).argmax(1)
    return (found == torch.tensor(data.test.y)).float().mean().item()


def _linear(data: Dataset) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(data.inputs, data.outputs))


def _dense(data: Dataset) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(data.inputs, 64), nn.ReLU(), nn.Linear(64, data.outputs))


def _convolution(data: Dataset) -> nn.Module:
    """8 channels, 3x3, averages of 4x4 positions, a linear head; of a signal 5 samples, averages of 8."""
    if len(data.shape) == 3:
        filters: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4)]
        pooled = data.inputs // 16
    else:
        filters, pooled = [nn.Conv1d(1, 8, 5, padding=2), nn.ReLU(), nn.AvgPool1d(8)], data.inputs // 8
    return nn.Sequential(*filters, nn.Flatten(), nn.Linear(8 * pooled, data.outputs))


@pytest.mark.parametrize(("source", "dense_below"), [(Patterns(), 0.90), (Waveforms(), 0.72)], ids=lambda v: str(v)[:8])
def test_a_tiny_convolution_is_ahead(source: Patterns | Waveforms, dense_below: float) -> None:
    nets: dict[str, Callable[[Dataset], nn.Module]] = {"linear": _linear, "dense": _dense, "convolution": _convolution}
    found: dict[str, list[float]] = {name: [] for name in nets}
    torch.set_num_threads(1)
    for seed in SEEDS:
        data = prepare(source, seed)
        for name, make in nets.items():
            # The layers' own initialisation draws from the global generator.
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                net = make(data)
            found[name].append(_accuracy(net, data, seed))
    for name, values in found.items():
        print(f"{source.kind}, {name}: {statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}")
    assert max(found["linear"]) < 0.35
    assert max(found["dense"]) < dense_below
    assert min(found["convolution"]) > 0.82
    assert statistics.mean(found["convolution"]) > statistics.mean(found["dense"]) + 0.04
