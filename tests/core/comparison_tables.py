"""Tables of a comparison made by hand, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from raygrow.comparison.curves import CURVES
from raygrow.comparison.table import TRIALS

Curve = list[tuple[int, int, float, float]]
"""Training FLOPs, FLOPs per example, loss, score."""


def tables(
    arms: list[str],
    data: list[str],
    seeds: int,
    curve: Callable[[str, str, int], Curve],
    failed: dict[tuple[str, str, int], tuple[str, str]] | None = None,
    baselines: tuple[str, ...] = (),
) -> tuple[pa.Table, pa.Table]:
    """``trials.parquet`` and ``curves.parquet`` as a comparison would leave them.

    Args:
        curve: of an arm on a data set with a seed.
        failed: status and reason of the trials that were not done.
    """
    trials: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    failed = failed or {}
    for name in data:
        for seed in range(seeds):
            own = {arm: curve(arm, name, seed) for arm in arms if (arm, name, seed) not in failed}
            least = min((steps[-1][0] for steps in own.values()), default=None)
            for arm in arms:
                row: dict[str, Any] = dict.fromkeys(TRIALS.names)
                row |= {"comparison": "made", "arm": arm, "baseline": arm in baselines, "data": name, "seed": seed,
                        "strategy": arm.split("-")[0], "initializer": None if arm in baselines else "tiny",
                        "settings": "{}", "folder": f"trials/{arm}/{name}-{seed}"}  # fmt: skip
                status, reason = failed.get((arm, name, seed), ("done", None))
                row |= {"status": status, "reason": reason}
                if arm in own:
                    steps = own[arm]
                    last = min(steps, key=lambda step: step[2])
                    by = min(
                        (step for step in steps if step[0] <= (least or 0)), key=lambda step: step[2], default=None
                    )
                    row |= {
                        "task": "classification", "validation_loss": last[2], "validation_score": last[3],
                        "test_loss": last[2], "test_score": last[3] - 0.01, "flops_per_example": last[1],
                        "params": last[1] // 2, "train_flops": steps[-1][0], "lineage_train_flops": steps[-1][0],
                        "wall_seconds": 10.0, "rounds": len(steps), "moves_accepted": 2, "moves_probed": 5,
                        "stopped_because": "rounds are over", "equal_train_flops": least,
                        "equal_validation_loss": by and by[2], "equal_validation_score": by and by[3],
                    }  # fmt: skip
                    curves += [
                        {"arm": arm, "data": name, "seed": seed, "step": i, "round": i, "train_flops": step[0],
                         "flops_per_example": step[1], "validation_loss": step[2], "validation_score": step[3]}
                        for i, step in enumerate(steps)
                    ]  # fmt: skip
                trials.append(row)
    order = sorted(trials, key=lambda row: (row["data"], row["seed"], row["arm"]))
    return pa.Table.from_pylist(order, schema=TRIALS), pa.Table.from_pylist(curves, schema=CURVES)


def growing(level: dict[str, float], noise: float = 0.0, steps: int = 6) -> Callable[[str, str, int], Curve]:
    """Curves that rise to a level of each arm, with noise by repetition that all arms share and noise of their own."""

    def curve(arm: str, data: str, seed: int) -> Curve:
        shared = np.random.default_rng([seed, len(data), 7]).normal() * 0.02
        own = np.random.default_rng([seed, len(data), *map(ord, arm)]).normal() * noise
        found: Curve = []
        for i in range(steps):
            score = 0.3 + (level[arm] + shared + own - 0.3) * i / (steps - 1)
            found.append((10_000 * 3**i, 128 + 256 * i, 1.5 - score, score))
        return found

    return curve
