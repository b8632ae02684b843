"""The comparison that papers on growing networks make, at a size that fits here: initializers under one fixed schedule.

A chain of convolutions starts at a quarter of its width and is widened stage by stage to its full one, by the same moves after
the same examples whatever begins the new weights. Beside it the small and the full network are trained from scratch. Every arm
sees the same batches in the same order and spends the same training FLOPs, statistics and line searches included, to within
a step: a smaller network trains for longer. What is done to existing weights is training alone, without dW*, so that arms
differ in how new weights begin and in nothing else. The score is test accuracy, read once at the end.

``python -m tests.benchmarks.published``, from the root of the repository, writes every cell to JSON as it goes and, started
again, goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raygrow.app import Prepared, prepare_campaign
from raygrow.architecture import Architecture, Widen, digest_seed, forward_flops, training_flops
from raygrow.baselines.nets import examples
from raygrow.config import load_plan
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Sample
from raygrow.growth.step import grow
from raygrow.nn import OptimizerPlan, State, begun, carry_state
from raygrow.nn.losses import LOSSES
from raygrow.training import Fork, example_order, fit, score
from tests.benchmarks.harness import difference, json_file, mean_sd, print_table, write_json

SETTINGS = Path(__file__).with_name("published.yaml")
SMALL, BIG = "small", "big"
FIRST_TUNING_SEED = 100


def settings(**changed: Any) -> dict[str, Any]:
    """The schedule as fixed by its file."""
    return {**yaml.safe_load(SETTINGS.read_text()), **changed}


def prepared(plan: Mapping[str, Any], name: str, seed: int) -> Prepared:
    """A set with its splits; the seed is also that of its rows, where they are generated."""
    config = {"campaign": {"name": name, "seed": seed}, "data": plan["sets"][name]["data"], "network": plan["network"]}
    return prepare_campaign(load_plan(config))


def architecture(ready: Prepared, widths: Sequence[int]) -> Architecture:
    """The chain with these widths of its stages."""
    return ready.facts.start(replace(ready.plan.network, widths=tuple(widths)))


def widenings(plan: Mapping[str, Any], small: Architecture) -> Iterator[Widen]:
    """The moves that lead from the small network to the full one."""
    for _ in range(plan["rounds"]):
        yield from (Widen(node, added) for node, added in zip(small.hidden, plan["start"], strict=True))


class Arm:
    """A network on its way through its budget.

    Args:
        arch: that it starts with.
        budget: training FLOPs.
        seed: of the start, the order of examples and the draws of an initializer.
    """

    def __init__(self, ready: Prepared, plan: Mapping[str, Any], arch: Architecture, budget: int, seed: int) -> None:
        data, self._plan, self._budget, self._seed = ready.dataset, plan, budget, seed
        self.network = begun(arch, torch.Generator().manual_seed(digest_seed("start", seed)))
        self._state: State = {}
        self._train, self._loss = examples(data.train), LOSSES[data.task]
        drawn = self._train.take(example_order(len(self._train), plan["statistics"], digest_seed("statistics", seed)))
        self._sample, search = Sample(drawn.x, drawn.y), examples(data.search)
        self._search = search.x[: plan["search"]], search.y[: plan["search"]]
        self.steps, self.trained, self.grown = 0, 0, 0

    @property
    def spent(self) -> int:
        """FLOPs of training and growing."""
        return self.trained + self.grown

    def affordable(self, share: float) -> int:
        """Steps of the network as it is until this share of the budget is spent."""
        left = int(share * self._budget) - self.spent
        return max(left, 0) // (self._plan["batch_size"] * training_flops(self.network.arch))

    def train(self, steps: int, anneal: bool = False) -> None:
        """Go on for so many steps; every arm meets the same batch in its k-th one."""
        size = self._plan["batch_size"]
        order = example_order(len(self._train), (self.steps + steps) * size, digest_seed("train", self._seed))
        optimizer = OptimizerPlan("adam", self._plan["lr"])
        learned = fit(
            Fork(self.network, self._state),
            self._train,
            order[self.steps * size :],
            size,
            self._loss,
            optimizer,
            anneal,
        )
        self.network, self._state = learned.network, learned.state
        self.steps += steps
        self.trained += steps * size * training_flops(self.network.arch)

    def widen(self, move: Widen, initializer: AbstractInitializer) -> None:
        """Grow by a move, on the bill."""
        meter, draws = Meter(), torch.Generator().manual_seed(digest_seed("draw", self._seed, self.steps, move.node))
        found = grow(self.network, move, initializer, self._sample, self._search, self._loss, draws, meter)
        self.network, self._state = found.network, carry_state(self._state, found.network)
        self.grown += meter.flops


def measure(plan: Mapping[str, Any], ready: Prepared, data: str, name: str, seed: int) -> dict[str, Any]:
    """One arm on a set: ``small``, ``big`` or the kind of an initializer; its scores and what it spent."""
    torch.set_num_threads(1)
    begun_at, rows = time.perf_counter(), len(ready.dataset.train)
    small, big = architecture(ready, plan["start"]), architecture(ready, plan["full"])
    epoch = rows // plan["batch_size"]
    steps = plan["sets"][data]["epochs"] * epoch
    budget = steps * plan["batch_size"] * training_flops(big)
    arm = Arm(ready, plan, big if name == BIG else small, budget, seed)
    if name not in (SMALL, BIG):
        initializer = next(kind for kind in INITIALIZERS if kind.kind == name)(**plan["initializers"][name])
        for move in widenings(plan, small):
            arm.train(round(plan["every"] * steps))
            arm.widen(move, initializer)
        assert arm.network.arch == big
    arm.train(arm.affordable(plan["constant"]))
    arm.train(arm.affordable(1.0), anneal=True)
    loss = LOSSES[ready.dataset.task]
    return {
        "score": score(arm.network, examples(ready.dataset.test), loss).metric,
        "validation_score": score(arm.network, examples(ready.dataset.validation), loss).metric,
        "flops_per_example": forward_flops(arm.network.arch),
        "budget": budget,
        "train_flops": arm.spent,
        "growth_flops": arm.grown,
        "step_flops": plan["batch_size"] * training_flops(arm.network.arch),
        "epochs": arm.steps / epoch,
        "seconds": time.perf_counter() - begun_at,
    }


def table(
    cells: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], key: str = "score"
) -> list[dict[str, object]]:
    """One row an arm and set: its score, less those of ``big`` and ``random``, paired by seed, and what it spent."""
    rows: list[dict[str, object]] = []
    for data in plan["sets"]:
        for name in (SMALL, *plan["initializers"], BIG):
            found = {k.rsplit("/", 1)[1]: cell for k, cell in cells.items() if k.startswith(f"{data}/{name}/")}
            if not found:
                continue
            row: dict[str, object] = {
                "set": data,
                "arm": name,
                "test accuracy": mean_sd([c[key] for c in found.values()]),
            }
            for other in (BIG, "random"):
                beside = {seed: cells[at][key] for seed in found if (at := f"{data}/{other}/{seed}") in cells}
                gaps = [found[seed][key] - value for seed, value in beside.items()]
                row[f"less {other} (90 %)"] = "" if name == other or not gaps else difference(gaps)
            row["FLOPs"] = f"{statistics.median(c['flops_per_example'] for c in found.values()):,.0f}"
            row["epochs"] = f"{statistics.median(c['epochs'] for c in found.values()):.1f}"
            share = statistics.median(c["growth_flops"] / c["train_flops"] for c in found.values())
            row["widening, share of training FLOPs"] = f"{100 * share:.1f} %" if share else ""
            rows.append(row)
    return rows


@pytest.mark.bench
def test_every_arm_spends_the_same() -> None:
    """The small form, some arms on digits; the full form prints the figures."""
    plan = settings(initializers={"random": {}, "tiny": {}})
    plan["sets"] = {"digits": plan["sets"]["digits"] | {"epochs": 12}}
    ready = prepared(plan, "digits", 0)
    arms = (SMALL, *plan["initializers"], BIG)
    cells = {name: measure(plan, ready, "digits", name, 0) for name in arms}
    print_table(table({f"digits/{name}/0": cell for name, cell in cells.items()}, plan))
    for cell in cells.values():
        assert 0 <= cell["budget"] - cell["train_flops"] < cell["step_flops"]
        assert cell["score"] > 0.8
    assert cells["tiny"]["growth_flops"] > cells["random"]["growth_flops"] > 0 == cells[BIG]["growth_flops"]
    assert cells[SMALL]["epochs"] > 10 * cells[BIG]["epochs"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plan = settings()
    arms = [SMALL, *plan["initializers"], BIG]
    parser.add_argument("--sets", nargs="+", choices=list(plan["sets"]), default=list(plan["sets"]))
    parser.add_argument("--arms", nargs="+", choices=arms, default=arms)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=json_file, default=Path("runs/published.json"))
    given = parser.parse_args(arguments)
    cells: dict[str, Any] = {}
    if given.out.exists():
        held = json.loads(given.out.read_text())
        if held["settings"] != plan:
            raise SystemExit(f"--out {given.out}: holds cells of other settings; name another file or remove it")
        cells = held["cells"]
    for seed in given.seeds:
        for data in given.sets:
            ready = prepared(plan, data, seed)
            for name in given.arms:
                if (key := f"{data}/{name}/{seed}") not in cells:
                    cells[key] = measure(plan, ready, data, name, seed)
                    write_json(given.out, {"benchmark": "published", "settings": plan, "cells": cells})
                    print(f"{key}: {cells[key]['score']:.4f} in {cells[key]['seconds']:.1f} s", flush=True)
    print_table(table(cells, plan))


if __name__ == "__main__":
    main()
