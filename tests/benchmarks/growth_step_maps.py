"""One growth step of a 3x3 convolution (statistics, solve, line search, apply) in plain epochs over the same examples, and
against gromo on the same layers.

Three convolutions of equal width on images of three channels, globally pooled; the second is widened by 8 channels. The epoch:
512 examples in batches of 64, autograd and a foreach SGD step. One thread, one process, the arms in turns. A peak is that of a
process of its own while one call runs, less what it held before.

gromo (an optional extra, ``.[bench]``) runs what the tutorial of its containers does, in its own ``VGG``:
``compute_statistics`` on the same 512 examples in the same batches, ``compute_optimal_updates``, the best of four scaling
factors on the extended model, on the examples that raygrow searches on, ``apply_change``. *Restricted* reads a new channel by
its centre tap alone, as raygrow's step does; *full* by every tap. The full one takes hundreds of epochs, and so fewer turns.

    python -m tests.benchmarks.growth_step --maps [--repeats 9] [--repeats-full 3] [--no-gromo] [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
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
from tests.benchmarks.growth_step import gromo_is_there
from tests.benchmarks.harness import alternate, json_file, print_table, ratios, spread, write_json

EXAMPLES, SEARCH, BATCH, CLASSES, UNITS = 512, 128, 64, 10, 8
RESTRICTED, FULL = "restricted", "full"

FACTORS = (0.0, 0.1, 0.5, 1.0)
"""Amplitudes that gromo's tutorial tries."""


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
        self.channels, self.size = channels, size
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


class Gromo:
    """The same step by gromo on the same weights.

    Its solve contains dW* of the layer that reads the new channels, which its projection needs anyway.

    Args:
        kind: ``restricted`` or ``full``.
        copies: how many steps there will be.
        examples: for the statistics, the first so many.
    """

    def __init__(self, case: Case, kind: str, copies: int, examples: int = EXAMPLES) -> None:
        def images(x: torch.Tensor) -> torch.Tensor:
            return x.view(len(x), -1, case.size, case.size)

        self.case, self.kind = case, kind
        cuts = [slice(start, start + BATCH) for start in range(0, examples, BATCH)]
        self.batches: Any = [(images(case.x[cut]), case.y[cut]) for cut in cuts]
        self.search = images(case.search[0]), case.search[1]
        # Growing changes the model, so that every call needs one of its own; made beforehand, off the clock.
        self.models = [self._model() for _ in range(copies)]
        self.last: Any = None

    def _model(self) -> Any:
        from gromo.containers.vgg import VGG
        from gromo.modules.conv2d_growing_module import FullConv2dGrowingModule, RestrictedConv2dGrowingModule

        c = self.case.channels
        model = VGG(
            cfg=[c, c, c],
            target_cfg=[c, c + UNITS, c],
            activation=torch.nn.ReLU(),
            normalization=None,
            num_classes=CLASSES,
            number_of_fc_layers=1,
            input_spatial_shape=(1, 1),
            device=torch.device("cpu"),
            growing_conv_type=RestrictedConv2dGrowingModule if self.kind == RESTRICTED else FullConv2dGrowingModule,
        )
        layers = [*model.stage_blocks[0].convs, *model.classifier]
        names = ((INPUT, "h1"), ("h1", "h2"), ("h2", "h3"), ("h3", OUTPUT))
        state = self.case.network.state_dict()
        with torch.no_grad():
            for layer, (source, target) in zip(layers, names, strict=True):
                layer.weight.copy_(state[f"weights.{source}>{target}"].view_as(layer.weight))
                layer.bias.copy_(state[f"biases.{target}"])
        if self.kind == FULL:
            # A table of positions that it would work out in the first step of a layer and keep.
            layers[2].input_size = (self.case.size, self.case.size)
            assert layers[2].mask_tensor_t is not None
        return model

    def step(self) -> None:
        from gromo.utils.training_utils import compute_statistics

        model = self.models.pop()
        compute_statistics(model, self.batches, torch.nn.CrossEntropyLoss(reduction="sum"))
        # Its threshold of significance would leave fewer channels of this untrained network.
        model.compute_optimal_updates(maximum_added_neurons=UNITS, statistical_threshold=0.0)
        model.reset_computation()
        model.dummy_select_update()
        x, y = self.search
        costs = {}
        with torch.no_grad():
            for factor in FACTORS:
                model.set_scaling_factor(factor)
                costs[factor] = float(F.cross_entropy(model.extended_forward(x), y))
        model.set_scaling_factor(min(FACTORS, key=lambda factor: costs[factor]))
        model.apply_change()
        self.last = model

    def added(self) -> int:
        """Channels that the last step added."""
        return int(self.last.stage_blocks[0].convs[1].out_channels) - self.case.channels


def _high_water() -> int:
    """Most KB that this program has held so far; unlike ``ru_maxrss``, without what its parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _peak(arm: str, channels: int, size: int) -> int:
    """KB that one call of an arm adds to what a fresh process holds with its data and its network.

    Of gromo with two batches: it adds the statistics of every further one in place.
    """
    torch.set_num_threads(1)
    case = Case(channels, size)
    works: dict[str, Callable[[], object]] = {"epoch": case.epoch, "step": case.step}
    work = works[arm] if arm in works else Gromo(case, arm, 1, 2 * BATCH).step
    held = _high_water()
    work()
    return _high_water() - held


def peaks(arms: Sequence[str], channels: int, size: int) -> dict[str, int]:
    """A new process for every arm."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return {arm: pool.submit(_peak, arm, channels, size).result() for arm in arms}


def measure(channels: int, size: int, repeats: int, others: Sequence[str], repeats_full: int) -> dict[str, Any]:
    """Processor seconds of all arms.

    Args:
        others: kinds of gromo's step; the full one has turns of its own, ``repeats_full`` of them and no warm-up.
    """
    case = Case(channels, size)
    arms: dict[str, Callable[[], object]] = {"epoch": case.epoch, "step": case.step}
    quick = {kind: Gromo(case, kind, repeats + 1) for kind in others if kind != FULL}
    seconds = alternate(arms | {kind: it.step for kind, it in quick.items()}, repeats, clock=time.process_time)
    slow = {kind: Gromo(case, kind, repeats_full) for kind in others if kind == FULL}
    beside: dict[str, list[float]] = {}
    if slow:
        turns = arms | {kind: it.step for kind, it in slow.items()}
        beside = alternate(turns, repeats_full, warm_up=0, clock=time.process_time)
    for kind, it in (quick | slow).items():
        assert it.added() == UNITS, f"gromo's {kind} step added {it.added()} channels, not {UNITS}"
    return {"channels": channels, "size": size, "seconds": seconds, "seconds_full": beside}


def summary(cell: dict[str, Any]) -> dict[str, str]:
    """One row of the table."""
    seconds, beside = cell["seconds"], cell["seconds_full"]
    row = {
        "channels": str(cell["channels"]),
        "image": f"{cell['size']} x {cell['size']}",
        "epoch ms": f"{1e3 * statistics.median(seconds['epoch']):.0f}",
        "step / epoch": spread(ratios(seconds["step"], seconds["epoch"]), digits=2),
    }
    for ours in ("epoch", "step"):
        for kind, found in ((RESTRICTED, seconds), (FULL, beside)):
            if kind in found:
                row[f"{kind} / {ours}"] = spread(ratios(found[kind], found[ours]), digits=3)
    row["turns"] = str(len(seconds["epoch"])) + (f", full {len(beside[FULL])}" if beside else "")
    if peak := cell.get("peak_kb"):
        row["peak MB: " + ", ".join(peak)] = ", ".join(f"{kb / 1024:.0f}" for kb in peak.values())
    return row


@pytest.mark.bench
def test_a_growth_step_of_a_convolution_costs_a_few_epochs() -> None:
    """Loose bounds for a noisy machine; the full form prints the figures."""
    cell = measure(16, 16, repeats=5, others=(), repeats_full=0)
    print_table([summary(cell)])
    assert statistics.median(ratios(cell["seconds"]["step"], cell["seconds"]["epoch"])) < 4


@pytest.mark.bench
@pytest.mark.skipif(not gromo_is_there(), reason="gromo is not installed: pip install 'raygrow[bench]'")
def test_a_growth_step_of_a_convolution_is_faster_than_gromos() -> None:
    """Its restricted step, on a network that computes what ours does."""
    case = Case(16, 16)
    other = Gromo(case, RESTRICTED, 1)
    with torch.no_grad():
        torch.testing.assert_close(other.models[0](other.search[0]), case.network(case.search[0]), atol=1e-4, rtol=1e-4)
    cell = measure(16, 16, repeats=3, others=(RESTRICTED,), repeats_full=0)
    peak = peaks(["step", RESTRICTED], 16, 16)
    print_table([summary(cell | {"peak_kb": peak})])
    assert statistics.median(ratios(cell["seconds"][RESTRICTED], cell["seconds"]["step"])) > 3
    assert peak["step"] < peak[RESTRICTED]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A growth step of a convolution in plain epochs, and against gromo.")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--repeats-full", type=int, default=3, help="0: without gromo's full step")
    parser.add_argument("--no-gromo", action="store_true")
    parser.add_argument("--out", type=json_file, default=Path("runs/growth_step_maps.json"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    others = [RESTRICTED, FULL][: 2 if asked.repeats_full else 1] if gromo_is_there() and not asked.no_gromo else []
    cells = []
    for channels in asked.channels:
        for size in asked.sizes:
            cell = measure(channels, size, asked.repeats, others, asked.repeats_full)
            cells.append(cell | {"peak_kb": peaks(["epoch", "step", *others], channels, size)})
            # The full step takes minutes: what there is so far stays.
            write_json(asked.out, {"benchmark": "growth_step_maps", "units": UNITS, "cells": cells})
    print_table([summary(cell) for cell in cells])


if __name__ == "__main__":
    main()
