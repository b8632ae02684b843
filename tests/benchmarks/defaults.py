"""How the frugal defaults were chosen: ``configs/tabular.yaml`` and changes of it, one at a time, on validation alone.

Every setting of ``defaults.yaml`` runs on the sets of ``frugality.py`` with seeds 100 and on, which the final comparison does
not use; the search that growth is measured against runs beside them, or with ``--against`` one of the settings, as for the
treatment of new weights: ``--against "as shipped" --settings "as shipped" "norm rule" ...``. ``--sets images/digits
images/patterns`` changes a chain of convolutions instead (``chain, free`` of ``images.yaml``), beside which no search runs. No
figure here is of a test split.
``python -m tests.benchmarks.defaults``, from the root of the repository, writes every cell to JSON as it goes and, started
again, goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

import raygrow
from raygrow.app import prepare_campaign
from raygrow.config import load_plan
from tests.benchmarks.frugality import SETS, configuration, figures, searched, settings, start_ray, stop_ray
from tests.benchmarks.harness import json_file, print_table, write_json
from tests.benchmarks.images import CONVOLUTIONAL
from tests.benchmarks.images import settings as of_images

SETTINGS = Path(__file__).with_name("defaults.yaml")
METRIC = {"classification": "validation_accuracy", "regression": "validation_r2"}
FIRST_SEED = 100
SEARCH = "asha"
IMAGES, CHAIN = "images/", "chain, free"


def described(name: str, folder: Path, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The campaign that settings change, and what it differs in from its file, by dotted path."""
    if not name.startswith(IMAGES):
        return configuration(SETS[name](folder, seed), seed, name), {}
    plan = of_images()
    case = plan["cases"][name.removeprefix(IMAGES)]
    config = {
        **plan["campaign"],
        "campaign": {**plan["campaign"]["campaign"], "seed": seed},
        # Generated images know their shape.
        "data": case["data"] | ({"shape": case["shape"]} if name == f"{IMAGES}digits" else {}),
        "budget": {"max_flops_per_example": case["max_flops"]},
    }
    # From half the channels of the family's start: on digits nothing is left to grow otherwise.
    return config, {**plan[CONVOLUTIONAL][CHAIN], "network.widths": [2, 4]}


def campaign(name: str, seed: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A campaign in this process with some keys changed, by dotted path."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        config, beneath = described(name, Path(place), seed)
        begun = time.perf_counter()
        result = raygrow.run(config, {**beneath, **changes}, out=Path(place) / "run", pool="serial", quiet=True)
        seconds = time.perf_counter() - begun
    found, best = result.summary, result.summary["best"]
    return {
        "score": best[METRIC[found["task"]]],
        "flops_per_example": best["flops_per_example"],
        "train_flops": best["train_flops"],
        "population_train_flops": found["train_flops"],
        "seconds": seconds,
        "rounds": found["rounds"],
        "moves": best["moves_accepted"],
        "members": {m["member"]: [m[METRIC[found["task"]]], m["flops_per_example"]] for m in found["members"]},
    }


def on_validation(name: str, seed: int) -> dict[str, Any]:
    """The search on the same rows, judged on validation."""
    with tempfile.TemporaryDirectory() as place:
        config = configuration(SETS[name](Path(place), seed), seed, name)
        found = figures(searched(prepare_campaign(load_plan(config)), settings(), Path(place)))
    return {"score": found["validation_score"], **found}


def table(
    cells: Mapping[str, Mapping[str, Any]], names: Sequence[str], sets: Sequence[str], seeds: Sequence[int], other: str
) -> list[dict[str, object]]:
    """One row a setting: its score less the other's, mean +- sd over seeds, then medians of the ratios to it."""
    return [
        {"setting": setting, **{name: _against(cells, setting, name, seeds, other) for name in sets}}
        for setting in names
    ]


def _against(cells: Mapping[str, Mapping[str, Any]], setting: str, name: str, seeds: Sequence[int], other: str) -> str:
    pairs = [
        (cells[f"{setting}/{name}/{seed}"], cells[f"{other}/{name}/{seed}"])
        for seed in seeds
        if f"{other}/{name}/{seed}" in cells
    ]
    if not pairs:
        return f"no {other} to compare with"

    def share(figure: str) -> float:
        return statistics.median(cell[figure] / other["train_flops"] for cell, other in pairs)

    gaps = [cell["score"] - other["score"] for cell, other in pairs]
    deviation = f" +- {statistics.stdev(gaps):.4f}" if len(gaps) > 1 else ""
    size = statistics.median(cell["flops_per_example"] / other["flops_per_example"] for cell, other in pairs)
    return (
        f"{statistics.mean(gaps):+.4f}{deviation}, FLOPs x {size:.2f}, lineage {share('train_flops'):.3f}, "
        f"all {share('population_train_flops'):.3f}, {statistics.mean(cell['seconds'] for cell, _ in pairs):.1f} s"
    )


def main() -> None:
    listed: dict[str, dict[str, Any]] = yaml.safe_load(SETTINGS.read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = [*SETS, *(f"{IMAGES}{name}" for name in of_images()["cases"])]
    parser.add_argument("--sets", nargs="+", choices=sets, default=list(SETS))
    parser.add_argument("--settings", nargs="+", choices=[SEARCH, *listed], default=[SEARCH, *listed])
    parser.add_argument("--against", choices=[SEARCH, *listed], default=SEARCH, help="what scores are compared with")
    parser.add_argument("--seeds", type=int, default=5, help=f"from {FIRST_SEED} on")
    parser.add_argument("--out", type=json_file, default=Path("runs/defaults.json"))
    given = parser.parse_args()
    cells: dict[str, Any] = json.loads(given.out.read_text())["cells"] if given.out.exists() else {}
    if SEARCH in given.settings:
        start_ray()
    for setting in given.settings:
        for seed in range(FIRST_SEED, FIRST_SEED + given.seeds):
            for name in given.sets:
                if (key := f"{setting}/{name}/{seed}") not in cells:
                    cells[key] = (
                        on_validation(name, seed) if setting == SEARCH else campaign(name, seed, listed[setting])
                    )
                    write_json(given.out, {"settings": listed, "cells": cells})
    if SEARCH in given.settings:
        stop_ray()
    names = [name for name in given.settings if name != SEARCH]
    print_table(table(cells, names, given.sets, range(FIRST_SEED, FIRST_SEED + given.seeds), given.against))


if __name__ == "__main__":
    main()
