"""One growth step of a 3x3 convolution (statistics, solve, line search, apply) in plain epochs over the same examples.

Three convolutions of equal width on images of three channels, globally pooled; the second is widened by 8 channels. The epoch:
512 examples in batches of 64, autograd and a foreach SGD step. One thread, one process, the arms in turns. The peak is that
of the whole process while a step runs, less what it held before.

    python -m tests.benchmarks.growth_step_maps [--repeats 9] [--out FILE]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from raygrow.architecture import INPUT, OUTPUT, Architecture, Convolution, Edge, Node, Pooled, Widen
from raygrow.growth.initializers import Tiny
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Sample
from raygrow.growth.step import Growth, grow
from raygrow.nn import Network
from raygrow.nn.losses import CrossEntropy
from tests.benchmarks.harness import alternate, print_table, ratios, spread, write_json

EXAMPLES, SEARCH, BATCH, CLASSES, UNITS = 512, 128, 64, 10, 8


def convolutions(channels: int, size: int, seed: int = 0) -> Network:
    """3-c-c-c-10 with 3x3 kernels and He-normal weights."""
    grid, kernel = (size, size), Convolution.same(3, 2)
    hidden = [Node(f"h{i}", channels, "relu", grid) for i in (1, 2, 3)]
    nodes = (Node(INPUT, 3, "identity", grid), *hidden, Node(OUTPUT, CLASSES, "identity"))
    edges = (
        Edge(INPUT, "h1", kernel),
        Edge("h1", "h2", kernel),
        Edge("h2", "h3", kernel),
        Edge("h3", OUTPUT, Pooled((1, 1))),
    )
    network = Network(Architecture(nodes, edges))
    generator = torch.Generator().manual_seed(seed)
    for weight in network.weights.values():
        weight.data = torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5
    return network


class Case:
    """One shape: data, a network, and what each arm does with them."""

    def __init__(self, channels: int, size: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.network = convolutions(channels, size)
        n = EXAMPLES + SEARCH
        x = torch.randn(n, 3 * size * size, generator=generator)
        y = torch.randint(CLASSES, (n,), generator=generator)
        self.x, self.y, self.search = x[:EXAMPLES], y[:EXAMPLES], (x[EXAMPLES:], y[EXAMPLES:])
        self.sample = Sample(self.x, self.y)
        self.parameters = list(self.network.parameters())

    def epoch(self) -> None:
        for start in range(0, EXAMPLES, BATCH):
            cut = slice(start, start + BATCH)
            found = torch.autograd.grad(F.cross_entropy(self.network(self.x[cut]), self.y[cut]), self.parameters)
            with torch.no_grad():
                torch._foreach_add_(self.parameters, found, alpha=-1e-7)

    def step(self) -> Growth:
        generator = torch.Generator().manual_seed(7)
        return grow(
            self.network, Widen("h2", UNITS), Tiny(), self.sample, self.search, CrossEntropy(), generator, Meter()
        )


def measure(channels: int, size: int, repeats: int) -> dict[str, Any]:
    """Processor seconds of both arms, and how much memory a step took at most beside what was held."""
    case = Case(channels, size)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    seconds = alternate({"epoch": case.epoch, "step": case.step}, repeats, clock=time.process_time)
    return {"channels": channels, "size": size, "seconds": seconds, "peak_kb": peak}


def summary(cell: dict[str, Any]) -> dict[str, str]:
    """One row of the table."""
    seconds = cell["seconds"]
    return {
        "channels": str(cell["channels"]),
        "image": f"{cell['size']} x {cell['size']}",
        "epoch ms": f"{1e3 * statistics.median(seconds['epoch']):.0f}",
        "step / epoch": spread(ratios(seconds["step"], seconds["epoch"]), digits=2),
        "peak MB": f"{cell['peak_kb'] / 1024:.0f}",
    }


@pytest.mark.bench
def test_a_growth_step_of_a_convolution_costs_a_few_epochs() -> None:
    """Loose bounds for a noisy machine; the full form prints the figures."""
    cell = measure(16, 16, repeats=5)
    print_table([summary(cell)])
    assert statistics.median(ratios(cell["seconds"]["step"], cell["seconds"]["epoch"])) < 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A growth step of a convolution in plain epochs.")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default="runs/growth_step_maps.json")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # The smallest first: the peak of a process never falls.
    cells = [measure(channels, size, asked.repeats) for channels, size in ((16, 16), (16, 32), (64, 16), (64, 32))]
    print_table([summary(cell) for cell in cells])
    write_json(asked.out, {"benchmark": "growth_step_maps", "units": UNITS, "cells": cells})


if __name__ == "__main__":
    main()
