"""Growth against a search, a fixed net and a linear model: score, inference FLOPs, training FLOPs and wall time.

For every data set and seed: (a) ASHA through Ray Tune (``asha.yaml``), (b) a campaign of ``configs/tabular.yaml`` with that
data, (c) one fixed net of the grown one's FLOPs, next whole unit up, trained once on as many examples as the grown
lineage, annealed throughout from the rate of the campaign's own anneal, (d) the linear model likewise. The seed is the
campaign's and the split's, so all see the same test rows. ``python -m tests.benchmarks.frugality``, from the root of the
repository, writes every cell to JSON as it goes and, started again, goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

import raygrow
from raygrow.app import Prepared, prepare_campaign
from raygrow.architecture import forward_flops
from raygrow.baselines import Asha, Repetition
from raygrow.baselines.nets import FixedNet, all_training_rows, examples, layered, started
from raygrow.config import load_plan
from raygrow.nn import OptimizerPlan
from raygrow.nn.losses import LOSSES
from raygrow.population.lengths import examples_of
from raygrow.population.plan import Budget
from raygrow.training import score
from tests.benchmarks.harness import difference, json_file, mean_sd, print_table, ratios, spread, write_json

if TYPE_CHECKING:
    from raygrow.adapters.ray_search import Found

TABULAR = Path(__file__).parents[2] / "configs" / "tabular.yaml"
SEARCH = Path(__file__).with_name("asha.yaml")
METRIC = {"classification": "test_accuracy", "regression": "test_r2"}
MARGIN = 0.01
"""What a grown network's score may lie below the search winner's."""


def _friedman(folder: Path, seed: int) -> dict[str, Any]:
    """Friedman's first regression (1991) with noise, as a person's own Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(8000, n_features=10, noise=1.0, random_state=seed)
    path = folder / f"friedman-{seed}.parquet"
    pq.write_table(pa.table({**{f"x{i}": column for i, column in enumerate(x.T)}, "y": y}), path)
    return {"kind": "parquet", "path": str(path), "target": "y"}


SETS: Mapping[str, Callable[[Path, int], dict[str, Any]]] = {
    "lorenz96": lambda folder, seed: {"kind": "lorenz96"},
    "teacher": lambda folder, seed: {"kind": "teacher"},
    "burgers": lambda folder, seed: {"kind": "burgers"},
    "friedman": _friedman,
    "digits": lambda folder, seed: {"kind": "digits"},
}


def settings(**changed: Any) -> dict[str, Any]:
    """The search as fixed by its file."""
    return {**yaml.safe_load(SEARCH.read_text()), **changed}


def configuration(data: Mapping[str, Any], seed: int, name: str, **changes: Any) -> dict[str, Any]:
    """``configs/tabular.yaml`` with these data in place of the file it names."""
    given = yaml.safe_load(TABULAR.read_text())
    given["campaign"] = {**given["campaign"], "name": name, "seed": seed}
    # Tune's loggers are off as well.
    return {**given, "data": dict(data), "tracking": {"enabled": False}, **changes}


def lineage_examples(config: Mapping[str, Any], ready: Prepared, member: Mapping[str, Any]) -> int:
    """Examples that a lineage was trained on: its rounds, its own fork of every probe, and the final anneal."""
    own, rows = load_plan(config).member(member["member"]), ready.facts.train_rows
    # The last entry is the final anneal, recorded with the campaign's last round, in which this member may have rested.
    rounds = max(entry["round"] for entry in member["history"][:-1])
    each = examples_of(own.training.examples_per_round, rows) + examples_of(own.probe.examples, rows)
    return rounds * each + examples_of(own.training.final_examples, rows)


def annealed(
    ready: Prepared, hidden: Sequence[int], count: int, lr: float, batch_size: int, seed: int
) -> dict[str, Any]:
    """A fixed net trained once on ``count`` examples: its test score, FLOPs and seconds."""
    data = ready.dataset
    begun = time.perf_counter()
    network = started(layered(data.inputs, hidden, data.outputs), seed)
    plan = OptimizerPlan("adam", lr)
    net = FixedNet(network, all_training_rows(data), data.task, count, plan, batch_size, seed)
    net.advance(count)
    seconds = time.perf_counter() - begun
    return {
        "score": net.score(examples(data.test), counted=False).metric,
        "flops_per_example": forward_flops(net.network.arch),
        "train_flops": net.flops,
        "seconds": seconds,
        "hidden": list(hidden),
    }


def grown(config: Mapping[str, Any], ready: Prepared, folder: Path) -> dict[str, Any]:
    """A campaign in the Ray that runs: its best network, what its lineage and the whole population spent."""
    begun = time.perf_counter()
    summary = raygrow.run(config, out=folder, quiet=True).summary
    seconds = time.perf_counter() - begun
    best = summary["best"]
    return {
        "score": best[METRIC[summary["task"]]],
        "flops_per_example": best["flops_per_example"],
        "train_flops": best["train_flops"],
        "population_train_flops": summary["train_flops"],
        "seconds": seconds,
        "rounds": summary["rounds"],
        "member": best["member"],
        "moves": best["moves_accepted"],
        "stopped_because": best["stopped_because"],
        "examples": lineage_examples(config, ready, best),
    }


def searched(ready: Prepared, search_plan: Mapping[str, Any], folder: Path) -> Found:
    """The search on the data of a campaign, without the campaign's limit on FLOPs; needs a Ray that runs."""
    from raygrow.adapters.ray_search import search

    return search(
        Asha(**search_plan), Repetition(replace(ready.plan, budget=Budget()), ready.facts, ready.dataset, folder)
    )


def figures(found: Found) -> dict[str, Any]:
    """What a search spent and found, but the network itself."""
    return {
        "validation_score": found.validation.metric,
        "flops_per_example": forward_flops(found.network.arch),
        "train_flops": found.train_flops,
        "epochs": found.epochs,
        "seconds": found.seconds,
        "hidden": [found.network.arch.size(name) for name in found.network.arch.hidden],
        "lr": found.config["lr"],
    }


def cell(name: str, seed: int, plan: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """All four arms of one data set and seed; needs a Ray that runs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = configuration(SETS[name](folder, seed), seed, name, **changes)
        ready = prepare_campaign(load_plan(config))
        data = ready.dataset
        arms: dict[str, Any] = {}
        # Which goes first alternates, so that neither always meets the warmer machine.
        for arm in ("asha", "grown") if seed % 2 == 0 else ("grown", "asha"):
            if arm == "asha":
                found = searched(ready, plan, folder)
                test = score(found.network, examples(data.test), LOSSES[data.task])
                arms[arm] = {"score": test.metric, **figures(found)}
            else:
                arms[arm] = grown(config, ready, folder / "campaign")
        training = load_plan(config).training
        how = (arms["grown"]["examples"], training.final_lr or training.lr, training.batch_size, seed)
        units = -(-arms["grown"]["flops_per_example"] // (2 * (data.inputs + data.outputs)))
        arms["fixed"] = annealed(ready, [units], *how)
        arms["linear"] = annealed(ready, [], *how)
    return arms


def table(cells: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """One row a data set, of all seeds that are there: scores as mean +- sd, ratios as median (least-most)."""
    rows = []
    for name in SETS:
        found = [arms for key, arms in cells.items() if key.split("/")[0] == name]
        if found:
            rows.append(_row(name, found))
    return rows


def _row(name: str, found: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    def of(arm: str, figure: str) -> list[float]:
        return [float(arms[arm][figure]) for arms in found]

    def ratio(figure: str, arm: str, of_arm: str = "train_flops") -> str:
        return spread(ratios(of("grown", figure), of(arm, of_arm)), digits=2)

    gaps = [g - a for g, a in zip(of("grown", "score"), of("asha", "score"), strict=True)]
    to_fixed = [g - f for g, f in zip(of("grown", "score"), of("fixed", "score"), strict=True)]
    # The linear model must be in need of growth for a line to count: by how many standard errors ASHA beats it.
    need = [a - b for a, b in zip(of("asha", "score"), of("linear", "score"), strict=True)]
    return {
        "set": name,
        "seeds": len(found),
        **{f"score {arm}": mean_sd(of(arm, "score"), 4) for arm in ("asha", "grown", "fixed", "linear")},
        "grown - asha (90 %)": difference(gaps),
        "grown - fixed (90 %)": difference(to_fixed),
        "asha over linear, s.e.": f"{_standard_errors(need):.1f}",
        "FLOPs asha": f"{statistics.median(of('asha', 'flops_per_example')):,.0f}",
        "FLOPs grown": f"{statistics.median(of('grown', 'flops_per_example')):,.0f}",
        "FLOPs grown / asha": ratio("flops_per_example", "asha", "flops_per_example"),
        "training, lineage / search": ratio("train_flops", "asha"),
        "population / search": ratio("population_train_flops", "asha"),
        "lineage / fixed": ratio("train_flops", "fixed"),
        "s asha": mean_sd(of("asha", "seconds"), 1),
        "s grown": mean_sd(of("grown", "seconds"), 1),
        "s grown / asha": ratio("seconds", "asha", "seconds"),
    }


def _standard_errors(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return statistics.mean(values) / max(statistics.stdev(values) / math.sqrt(len(values)), 1e-12)


def start_ray() -> float:
    """Start a private Ray of this machine's cores and say how many seconds that took."""
    # As raygrow's own pool does it, before Ray is imported: the token of a private cluster stays in the environment.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    begun = time.perf_counter()
    import ray

    ray.init(
        address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    return time.perf_counter() - begun


def stop_ray() -> None:
    import ray

    ray.shutdown()


@pytest.mark.bench
def test_a_campaign_costs_a_fraction_of_a_search() -> None:
    """The small form: one set, one seed, a search cut to a quarter."""
    start_ray()
    try:
        arms = cell("lorenz96", 0, settings(trials=4, epochs=20))
    finally:
        stop_ray()
    print_table(table({"lorenz96/0": arms}))
    assert arms["grown"]["score"] > arms["linear"]["score"] + 0.3
    # Of a search cut to a quarter of its trials and half of its epochs, so of an eighth of its bill at most.
    assert arms["grown"]["train_flops"] < arms["grown"]["population_train_flops"] < 3 * arms["asha"]["train_flops"]
    assert arms["grown"]["score"] > arms["asha"]["score"] - 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N - 1")
    parser.add_argument("--out", type=json_file, default=Path("runs/frugality.json"))
    given = parser.parse_args()
    fixed = {"asha": settings(), "campaign": yaml.safe_load(TABULAR.read_text())}
    payload: dict[str, Any] = {"settings": fixed, "ray_init_seconds": [], "cells": {}}
    if given.out.exists():
        payload = json.loads(given.out.read_text())
        payload.pop("machine")
        if payload["settings"] != fixed:
            raise SystemExit(f"--out {given.out}: holds cells of other settings; name another file or remove it")
    payload["ray_init_seconds"].append(start_ray())
    # All sets of a seed before the next seed: what is there when it is cut off is a smaller table, not half of one.
    for seed in range(given.seeds):
        for name in given.sets:
            if (key := f"{name}/{seed}") not in payload["cells"]:
                payload["cells"][key] = cell(name, seed, fixed["asha"])
                write_json(given.out, payload)
                print(f"{key}: " + ", ".join(f"{k} {v['score']:.4f}" for k, v in payload["cells"][key].items()))
    stop_ray()
    print_table(table(payload["cells"]))
    print(f"ray.init, in neither time: {mean_sd(payload['ray_init_seconds'], 1)} s; written to {given.out}")


if __name__ == "__main__":
    main()
