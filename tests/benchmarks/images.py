"""Grown convolutional networks against the best grown dense ones at equal FLOPs per example, on images.

The convolutional arm sees images, the dense arm the same pixels as a vector, on the same splits. The dense arm may take as
many FLOPs per example as the convolutional network of its seed came to. Each arm is grown with several settings
(``images.yaml``), more of them for the dense one, and takes the one that is best on validation. Where growth of the dense arm
ends early, its FLOPs are not spent: a dense net of one hidden layer that spends them all, in use and in training, stands
beside. Paired by seed; the score is test accuracy, read once at the end.

``python -m tests.benchmarks.images``, from the root of the repository, writes every campaign to JSON as it goes and, started
again, goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import raygrow
from raygrow.app import prepare_campaign
from raygrow.architecture import training_flops
from raygrow.baselines.nets import layered
from raygrow.config import load_plan
from tests.benchmarks.frugality import annealed
from tests.benchmarks.harness import difference, json_file, mean_sd, print_table, write_json

SETTINGS = Path(__file__).with_name("images.yaml")
ARMS = CONVOLUTIONAL, DENSE = "convolutional", "dense"
FIXED = "fixed"
FIGURES = ("test_accuracy", "validation_accuracy", "flops_per_example", "train_flops", "stopped_because")

Cells = dict[str, dict[str, Any]]
"""By set, seed, arm and setting, joined by slashes; ``fixed`` has no setting."""


def settings() -> dict[str, Any]:
    """What is tried, as fixed by its file."""
    read: dict[str, Any] = yaml.safe_load(SETTINGS.read_text())
    return read


def configuration(
    plan: Mapping[str, Any], data: str, seed: int, arm: str, limit: int, folder: Path, rows: int | None = None
) -> dict[str, Any]:
    """A campaign on a set as an arm sees it.

    Args:
        limit: FLOPs per example.
        folder: where the set is written.
        rows: the first so many; None for all.
    """
    case, base, path = plan["cases"][data], plan["campaign"], folder / f"{arm}.npz"
    raw = load_plan({"data": case["data"]}).data.load(seed)
    shape = case["shape"] if arm == CONVOLUTIONAL else [raw.x.shape[1]]
    np.savez(path, x=raw.x[:rows].reshape(-1, *shape), y=np.asarray(raw.y[:rows].tolist()))
    return {
        **base,
        "campaign": {**base["campaign"], "seed": seed},
        "data": {"kind": "npz", "path": str(path)},
        "budget": {"max_flops_per_example": limit},
    }


def grown(config: Mapping[str, Any], changes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a campaign's best network came to."""
    begun = time.perf_counter()
    best = raygrow.run(config, changes, out=folder, quiet=True).summary["best"]
    return {**{key: best[key] for key in FIGURES}, "seconds": time.perf_counter() - begun}


def fixed(config: Mapping[str, Any], beside: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A dense net of one hidden layer with the FLOPs of another network, the next whole unit up, and its training FLOPs."""
    ready = prepare_campaign(load_plan(config))
    training, ends = ready.plan.training, ready.dataset.inputs + ready.dataset.outputs
    hidden = [-(-beside["flops_per_example"] // (2 * ends))]
    count = beside["train_flops"] // training_flops(layered(ready.dataset.inputs, hidden, ready.dataset.outputs))
    found = annealed(ready, hidden, count, training.lr, training.batch_size, seed)
    return {"test_accuracy": found.pop("score"), **found}


def chosen(cells: Mapping[str, Mapping[str, Any]], data: str, seed: int, arm: str) -> Mapping[str, Any]:
    """The campaign of an arm that is best on validation, the first of equal ones, with its ``setting``."""
    head = f"{data}/{seed}/{arm}/"
    there = [{**cell, "setting": key.removeprefix(head)} for key, cell in cells.items() if key.startswith(head)]
    return max(there, key=lambda cell: cell["validation_accuracy"])


def measure(
    plan: Mapping[str, Any],
    data: str,
    seed: int,
    cells: Cells,
    rows: int | None = None,
    done: Callable[[str], None] = lambda key: None,
) -> None:
    """Run what is missing in ``cells`` of a set and seed, the convolutional arm first.

    Args:
        done: called with the key of each new cell.
    """
    torch.set_num_threads(1)
    limit = plan["cases"][data]["max_flops"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def missing(key: str, work: Callable[[], dict[str, Any]]) -> None:
            if key not in cells:
                cells[key] = work()
                done(key)

        for arm in ARMS:
            config = configuration(plan, data, seed, arm, limit, folder, rows)
            for number, (setting, changes) in enumerate(plan[arm].items()):
                to = folder / f"{arm}-{number}"
                missing(f"{data}/{seed}/{arm}/{setting}", partial(grown, config, changes, to))
            limit = chosen(cells, data, seed, arm)["flops_per_example"]
        best = chosen(cells, data, seed, CONVOLUTIONAL)
        missing(f"{data}/{seed}/{FIXED}", partial(fixed, config, best, seed))


def summary(cells: Cells, data: str, seeds: Sequence[int]) -> dict[str, str]:
    """One row of the table: means and standard deviations over seeds, the paired difference with its 90 % interval."""
    row: dict[str, str] = {"set": data, "seeds": str(len(seeds))}
    found = {arm: [chosen(cells, data, seed, arm) for seed in seeds] for arm in ARMS}
    for arm, best in found.items():
        row[arm] = mean_sd([cell["test_accuracy"] for cell in best])
        row[f"FLOPs {arm}"] = f"{statistics.median(cell['flops_per_example'] for cell in best):,.0f}"
        row[f"training GFLOP {arm}"] = f"{statistics.median(cell['train_flops'] for cell in best) / 1e9:.1f}"
    spent = [d["flops_per_example"] / c["flops_per_example"] for c, d in zip(*found.values(), strict=True)]
    row["FLOPs, dense / convolutional"] = f"{statistics.median(spent):.2f} ({min(spent):.2f}-{max(spent):.2f})"
    best = [cell["test_accuracy"] for cell in found[CONVOLUTIONAL]]
    row["convolutional - dense (90 %)"] = difference(
        [c - d["test_accuracy"] for c, d in zip(best, found[DENSE], strict=True)]
    )
    beside = [cells[f"{data}/{seed}/{FIXED}"]["test_accuracy"] for seed in seeds]
    row["fixed dense"] = mean_sd(beside)
    row["convolutional - fixed (90 %)"] = difference([c - d for c, d in zip(best, beside, strict=True)])
    return row


def tried(cells: Cells, data: str, seeds: Sequence[int]) -> list[dict[str, str]]:
    """One row a setting: what it came to and how often it was the best on validation."""
    rows = []
    best = {arm: [chosen(cells, data, seed, arm)["setting"] for seed in seeds] for arm in ARMS}
    for arm, setting in dict.fromkeys(tuple(key.split("/")[2:]) for key in cells if key.count("/") == 3):
        own = [cells[f"{data}/{seed}/{arm}/{setting}"] for seed in seeds]
        rows.append(
            {
                "set": data,
                "arm": arm,
                "setting": setting,
                "validation accuracy": mean_sd([cell["validation_accuracy"] for cell in own]),
                "test accuracy": mean_sd([cell["test_accuracy"] for cell in own]),
                "FLOPs": f"{statistics.median(cell['flops_per_example'] for cell in own):,.0f}",
                "training GFLOP": f"{statistics.median(cell['train_flops'] for cell in own) / 1e9:.1f}",
                "best on validation": f"{best[arm].count(setting)} of {len(seeds)}",
            }
        )
    return rows


@pytest.mark.bench
def test_convolutions_grow_on_small_images() -> None:
    """Loose, of one setting an arm; the full form prints the figures."""
    plan = settings()
    few = {CONVOLUTIONAL: ("at a price",), DENSE: ("chain from 32 units, free",)}
    plan |= {arm: {name: plan[arm][name] for name in names} for arm, names in few.items()}
    cells: Cells = {}
    measure(plan, "patterns", 0, cells, rows=1000)
    print_table([summary(cells, "patterns", [0])])
    convolutional, dense = (chosen(cells, "patterns", 0, arm) for arm in ARMS)
    assert dense["flops_per_example"] <= convolutional["flops_per_example"]
    # Chance is 1/8.
    assert convolutional["test_accuracy"] > max(0.5, dense["test_accuracy"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plan = settings()
    parser.add_argument("--sets", nargs="+", choices=list(plan["cases"]), default=list(plan["cases"]))
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N - 1")
    parser.add_argument("--out", type=json_file, default=Path("runs/images.json"))
    given = parser.parse_args(arguments)
    cells: Cells = {}
    if given.out.exists():
        held = json.loads(given.out.read_text())
        if held["settings"] != plan:
            raise SystemExit(f"--out {given.out}: holds cells of other settings; name another file or remove it")
        cells = held["cells"]

    def done(key: str) -> None:
        write_json(given.out, {"benchmark": "images", "settings": plan, "cells": cells})
        print(f"{key}: {cells[key]['test_accuracy']:.4f} in {cells[key]['seconds']:.1f} s", flush=True)

    seeds = range(given.seeds)
    for seed in seeds:
        for data in given.sets:
            measure(plan, data, seed, cells, done=done)
    print_table([summary(cells, data, seeds) for data in given.sets])
    for data in given.sets:
        print_table(tried(cells, data, seeds))


if __name__ == "__main__":
    main()
