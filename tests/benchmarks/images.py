"""Grown convolutional networks against the best grown dense ones at equal FLOPs per example, on images.

The convolutional arm sees images, the dense arm the same pixels as a vector, on the same splits. The dense arm may take as
many FLOPs per example as the convolutional network of its seed came to. Each arm is grown with several settings
(``images.yaml``), more of them for the dense one, and takes the one that is best on validation. Paired by seed; the score is
test accuracy, read once at the end of a campaign.

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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import raygrow
from raygrow.config import load_plan
from tests.benchmarks.harness import difference, mean_sd, print_table, write_json

SETTINGS = Path(__file__).with_name("images.yaml")
ARMS = CONVOLUTIONAL, DENSE = "convolutional", "dense"
FIGURES = ("test_accuracy", "validation_accuracy", "flops_per_example", "train_flops", "stopped_because")

Cells = dict[str, dict[str, Any]]
"""By set, seed, arm and setting, joined by slashes."""


def settings() -> dict[str, Any]:
    """What is tried, as fixed by its file."""
    read: dict[str, Any] = yaml.safe_load(SETTINGS.read_text())
    return read


def campaign(
    plan: Mapping[str, Any], data: str, seed: int, arm: str, setting: str, limit: int, rows: int | None = None
) -> dict[str, Any]:
    """What a campaign's best network came to.

    Args:
        limit: FLOPs per example.
        rows: the first so many; None for all.
    """
    torch.set_num_threads(1)
    case, base = plan["cases"][data], plan["campaign"]
    raw = load_plan({"data": case["data"]}).data.load(seed)
    shape = case["shape"] if arm == CONVOLUTIONAL else [raw.x.shape[1]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, x=raw.x[:rows].reshape(-1, *shape), y=np.asarray(raw.y[:rows].tolist()))
        config = {
            **base,
            "campaign": {**base["campaign"], "seed": seed},
            "data": {"kind": "npz", "path": str(path)},
            "budget": {"max_flops_per_example": limit},
        }
        begun = time.perf_counter()
        best = raygrow.run(config, plan[arm][setting], out=Path(folder) / "run", quiet=True).summary["best"]
        seconds = time.perf_counter() - begun
    return {**{key: best[key] for key in FIGURES}, "limit": limit, "seconds": seconds}


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
    limit = plan["cases"][data]["max_flops"]
    for arm in ARMS:
        for setting in plan[arm]:
            if (key := f"{data}/{seed}/{arm}/{setting}") not in cells:
                cells[key] = campaign(plan, data, seed, arm, setting, limit, rows)
                done(key)
        limit = chosen(cells, data, seed, arm)["flops_per_example"]


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
    gaps = [c["test_accuracy"] - d["test_accuracy"] for c, d in zip(*found.values(), strict=True)]
    row["difference (90 %)"] = difference(gaps)
    return row


def tried(cells: Cells, data: str, seeds: Sequence[int]) -> list[dict[str, str]]:
    """One row a setting: what it came to and how often it was the best on validation."""
    rows = []
    best = {arm: [chosen(cells, data, seed, arm)["setting"] for seed in seeds] for arm in ARMS}
    for arm, setting in dict.fromkeys(tuple(key.split("/")[2:]) for key in cells if key.startswith(f"{data}/")):
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
    parser.add_argument("--out", type=Path, default=Path("runs/images.json"))
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
