"""One growth step (statistics, solve, line search, apply) in plain SGD epochs, and against gromo on the same layers.

An MLP in-W-W-10 on random data that a teacher network labels, briefly trained, is widened by 8 units in a hidden layer. The
epoch: 4,096 examples in batches of 256, autograd and a foreach SGD step on slices of one tensor, no loader. Everything in one
thread and one process, the arms taking turns: epochs and our steps first, as in a campaign, then our steps and gromo's, whose
code leaves ours cold caches.

gromo (an optional extra, ``.[bench]``) runs what its own containers do: ``compute_statistics``, ``compute_optimal_updates``
with the previous layer's extension, its ``line_search`` over scaling factors on the extended model, ``apply_change``. *As
shipped* it reads every training example in batches of 256 through a ``DataLoader``; on *equal examples* it is handed those of
raygrow as one batch, already a tensor. Its step changes existing weights too (dW*), which raygrow does apart and before: both
figures are shown. Both sides search the amplitude on the same examples.

    python -m tests.benchmarks.growth_step [--widths 16 64 256 1024] [--inputs 64 784] [--repeats 9] [--out FILE]
    python -m tests.benchmarks.growth_step --maps [...]    # of convolutions: growth_step_maps, with its options
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from raygrow.architecture import INPUT, OUTPUT, Architecture, Edge, Node, Widen
from raygrow.growth.initializers import Tiny
from raygrow.growth.line_search import Searched
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Pass, Sample
from raygrow.growth.step import Growth, grow
from raygrow.growth.update import update_existing
from raygrow.nn import Network, clone
from raygrow.nn.losses import CrossEntropy
from raygrow.population.worker import keep_freed_memory
from tests.benchmarks.harness import alternate, json_file, print_table, ratios, spread, write_json

TRAIN, SEARCH, FRESH = 4096, 512, 8192
BATCH, CLASSES, UNITS = 256, 10, 8
TRAINED_EPOCHS, RATE = 3, 0.02


def mlp(inputs: int, width: int, seed: int) -> Network:
    """in-W-W-10 with He-normal weights."""
    nodes = (
        Node(INPUT, inputs, "identity"),
        Node("h1", width, "relu"),
        Node("h2", width, "relu"),
        Node(OUTPUT, CLASSES, "identity"),
    )
    network = Network(Architecture(nodes, (Edge(INPUT, "h1"), Edge("h1", "h2"), Edge("h2", OUTPUT))))
    generator = torch.Generator().manual_seed(seed)
    for weight in network.weights.values():
        weight.data = torch.randn(weight.shape, generator=generator) * (2 / weight.shape[1]) ** 0.5
    return network


def epoch(network: Network, x: Tensor, y: Tensor, rate: float) -> None:
    """One pass of plain SGD."""
    parameters = list(network.parameters())
    for start in range(0, TRAIN, BATCH):
        loss = F.cross_entropy(network(x[start : start + BATCH]), y[start : start + BATCH])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-rate)


class Case:
    """One shape: data, a briefly trained network, and what each arm does with them."""

    def __init__(self, inputs: int, width: int, node: str, seed: int = 0) -> None:
        self.inputs, self.width, self.node = inputs, width, node
        generator = torch.Generator().manual_seed(seed)
        # A spectrum that falls off, as that of real inputs does; labels by a teacher that reads the 16 leading inputs.
        scales = (1 + torch.arange(inputs) / 16) ** -1.0
        x = torch.randn(TRAIN + SEARCH + FRESH, inputs, generator=generator) * scales
        teacher = mlp(16, 32, seed + 1)
        with torch.no_grad():
            y = teacher(x[:, :16]).argmax(1)
        self.x, self.y = x[:TRAIN], y[:TRAIN]
        self.search = x[TRAIN : TRAIN + SEARCH], y[TRAIN : TRAIN + SEARCH]
        self.fresh = x[-FRESH:], y[-FRESH:]
        self.network = mlp(inputs, width, seed + 2)
        for _ in range(TRAINED_EPOCHS):
            epoch(self.network, self.x, self.y, RATE)
        self.trained = clone(self.network)

    def epoch(self) -> None:
        epoch(self.trained, self.x, self.y, 1e-6)

    def sample(self, examples: int) -> Sample:
        return Sample(self.x[:examples], self.y[:examples])

    def step(self, sample: Sample) -> Growth:
        """One growth step out of the parts that a campaign uses."""
        generator = torch.Generator().manual_seed(7)
        move = Widen(self.node, UNITS)
        return grow(self.network, move, Tiny(), sample, self.search, CrossEntropy(), generator, Meter())

    def step_after_update(self, sample: Sample) -> Growth:
        """After the dW* step of the existing weights, as a campaign takes it; gromo's step has its own in it."""
        network, loss, meter = clone(self.network), CrossEntropy(), Meter()
        update_existing(Pass(network, sample, loss, meter), Searched(network, *self.search, loss, meter), meter)
        generator = torch.Generator().manual_seed(7)
        return grow(network, Widen(self.node, UNITS), Tiny(), sample, self.search, loss, generator, meter)

    def first_step(self, examples: int) -> Growth:
        """With the covariance of the input, which later steps find solved."""
        return self.step(self.sample(examples))

    def drop(self, model: Callable[[Tensor], Tensor]) -> float:
        """Decrease of the loss on examples that nothing has seen."""
        x, y = self.fresh
        with torch.no_grad():
            return float(F.cross_entropy(self.network(x), y) - F.cross_entropy(model(x), y))


class Gromo:
    """The same step by gromo on the same weights.

    Args:
        examples: None reads all training examples through a loader, as its examples do.
    """

    def __init__(self, case: Case, examples: int | None, copies: int) -> None:
        from torch.utils.data import DataLoader, TensorDataset

        self.case = case
        self.loader: Any
        if examples is None:
            self.loader = DataLoader(TensorDataset(case.x, case.y), batch_size=BATCH)
        else:
            self.loader = [(case.x[:examples], case.y[:examples])]
        # Growing changes the model, so that every call needs one of its own; made beforehand, off the clock.
        self.models = [self._model() for _ in range(copies)]
        self.last: Any = None

    def _model(self) -> Any:
        from gromo.containers.growing_mlp import GrowingMLP

        case = self.case
        model = GrowingMLP(case.inputs, CLASSES, case.width, 2, torch.nn.ReLU(), device=torch.device("cpu"))
        state = case.network.state_dict()
        names = ((INPUT, "h1"), ("h1", "h2"), ("h2", OUTPUT))
        with torch.no_grad():
            for layer, (source, target) in zip(model.layers, names, strict=True):
                layer.weight.copy_(state[f"weights.{source}>{target}"])
                layer.bias.copy_(state[f"biases.{target}"])
        # It names a growth by the layer that reads the new units: 0 widens h1, 1 widens h2.
        model.set_growing_layers(index=("h1", "h2").index(case.node))
        return model

    def step(self) -> None:
        from gromo.utils.training_utils import compute_statistics
        from gromo.utils.utils import line_search

        model = self.models.pop()
        compute_statistics(model, self.loader, torch.nn.CrossEntropyLoss(reduction="sum"))
        model.compute_optimal_updates(maximum_added_neurons=UNITS)
        model.reset_computation()
        model.dummy_select_update()
        x, y = self.case.search

        @torch.no_grad()
        def cost(factor: float) -> float:
            model.set_scaling_factor(factor)
            return float(F.cross_entropy(model.extended_forward(x), y))

        factor, _ = line_search(cost)
        model.set_scaling_factor(float(factor))
        model.apply_change()
        self.last = model


def measure(inputs: int, width: int, node: str, repeats: int, with_gromo: bool) -> dict[str, Any]:
    """Processor seconds of every arm, and how far each lowers the loss on fresh examples."""
    case = Case(inputs, width, node)
    samples = {n: case.sample(n) for n in (1024, 2048)}
    arms: dict[str, Callable[[], object]] = {
        "epoch": case.epoch,
        "step 1024": lambda: case.step(samples[1024]),
        "step 2048": lambda: case.step(samples[2048]),
        "first 1024": lambda: case.first_step(1024),
        "dW* and step 1024": lambda: case.step_after_update(samples[1024]),
    }
    # Every arm computes in this one thread: its processor time is its wall time on a machine of its own.
    seconds = alternate(arms, repeats, clock=time.process_time)
    others: dict[str, Gromo] = {}
    beside: dict[str, list[float]] = {}
    if with_gromo:
        others = {
            "gromo shipped": Gromo(case, None, repeats + 1),
            "gromo 1024": Gromo(case, 1024, repeats + 1),
        }
        ours = {name: arms[name] for name in ("step 1024", "dW* and step 1024")}
        beside = alternate(ours | {name: it.step for name, it in others.items()}, repeats, clock=time.process_time)
    drops = {f"step {n}": case.drop(case.step(samples[n]).network) for n in samples}
    drops["dW* and step 1024"] = case.drop(case.step_after_update(samples[1024]).network)
    drops |= {name: case.drop(other.last) for name, other in others.items()}
    sizes = {"inputs": inputs, "width": width, "node": node}
    return {**sizes, "seconds": seconds, "beside gromo": beside, "drops": drops}


def summary(cell: dict[str, Any]) -> dict[str, str]:
    """One row of the table."""
    seconds, beside, drops = cell["seconds"], cell["beside gromo"], cell["drops"]
    row = {
        "network": f"{cell['inputs']}-{cell['width']}-{cell['width']}-{CLASSES}",
        "widened": cell["node"],
        "epoch ms": f"{1e3 * statistics.median(seconds['epoch']):.1f}",
    }
    for name in ("step 1024", "step 2048", "first 1024", "dW* and step 1024"):
        row[f"{name} / epoch"] = spread(ratios(seconds[name], seconds["epoch"]), digits=2)
    for name in ("gromo shipped", "gromo 1024"):
        if name in beside:
            for ours in ("step 1024", "dW* and step 1024"):
                row[f"{name} / {ours}"] = spread(ratios(beside[name], beside[ours]), digits=2)
    if beside:
        alone, there = (1e3 * statistics.median(table["step 1024"]) for table in (seconds, beside))
        row["step 1024 ms: alone, beside gromo"] = f"{alone:.1f}, {there:.1f}"
    row["loss drop 1024, 2048"] = f"{drops['step 1024']:.4f}, {drops['step 2048']:.4f}"
    row["with dW*"] = f"{drops['dW* and step 1024']:.4f}"
    if "gromo shipped" in drops:
        row["gromo's drop shipped, 1024"] = f"{drops['gromo shipped']:.4f}, {drops['gromo 1024']:.4f}"
    return row


def gromo_is_there() -> bool:
    return find_spec("gromo") is not None


@pytest.mark.bench
def test_a_growth_step_costs_less_than_an_epoch() -> None:
    """Loose bounds for a noisy machine; the full form prints the figures."""
    for inputs, width in ((64, 16), (64, 256), (784, 64)):
        cell = measure(inputs, width, "h1", repeats=9, with_gromo=False)
        print_table([summary(cell)])
        found = statistics.median(ratios(cell["seconds"]["step 1024"], cell["seconds"]["epoch"]))
        assert found < 1.2, (inputs, width)
        assert cell["drops"]["step 1024"] > 0, (inputs, width)


@pytest.mark.bench
@pytest.mark.skipif(not gromo_is_there(), reason="gromo is not installed: pip install 'raygrow[bench]'")
def test_a_growth_step_is_faster_than_gromos() -> None:
    cell = measure(64, 64, "h1", repeats=5, with_gromo=True)
    print_table([summary(cell)])
    for name, least in (("gromo shipped", 5.0), ("gromo 1024", 3.0)):
        assert statistics.median(ratios(cell["beside gromo"][name], cell["beside gromo"]["step 1024"])) > least, name


def main(arguments: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["--maps"]:
        from tests.benchmarks import growth_step_maps

        growth_step_maps.main(words[1:])
        return
    parser = argparse.ArgumentParser(description="A growth step in SGD epochs, and against gromo.")
    parser.add_argument("--inputs", type=int, nargs="+", default=[64, 784])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--nodes", nargs="+", choices=["h1", "h2"], default=["h1", "h2"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-gromo", action="store_true")
    parser.add_argument("--out", type=json_file, default=Path("runs/growth_step.json"))
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    cells = [
        measure(inputs, width, node, asked.repeats, gromo_is_there() and not asked.no_gromo)
        for node in asked.nodes
        for inputs in asked.inputs
        for width in asked.widths
    ]
    print_table([summary(cell) for cell in cells])
    write_json(asked.out, {"benchmark": "growth_step", "units": UNITS, "cells": cells})


if __name__ == "__main__":
    main()
