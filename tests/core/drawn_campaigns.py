"""Ledgers of campaigns of any size without any training: reports are drawn, the coordinator is the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from raygrow.architecture import digest_seed
from raygrow.config import load_plan, resolved
from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event
from raygrow.population.plan import Facts
from raygrow.population.tasks import Report, Task

SPENT = {
    "training": 50_000,
    "statistics": 30_000,
    "solves": 2_000,
    "probes": 17_000,
    "evaluation": 1_000,
    "total": 100_000,
}
STARTS_AT = 128


class DrawnPool:
    """Reports of tasks: every member grows by a candidate each round, ``candidates`` are probed, the others rejected."""

    def __init__(self, candidates: int, rounds: int) -> None:
        self._candidates, self._rounds = candidates, rounds
        self._flops: dict[str, int] = {}

    def __call__(self, task: Task) -> Report:
        if task.phase == "test":
            return {"test_loss": 0.1, "test_metric": 0.9, "train_flops": {"total": 0}}
        flops = self._flops.setdefault(task.member, STARTS_AT)
        loss = self._loss(task.round)
        if task.phase != "round":
            return {"head": _network(task, "head", flops, loss), "diverged": False, "train_flops": SPENT}
        rows = [self._row(task, i, flops, loss) for i in range(self._candidates)]
        self._flops[task.member] = flops + rows[0]["added_flops"]
        return {
            "control": _network(task, "control", flops, loss),
            "candidates": rows,
            "strategy_state": {},
            "train_flops": SPENT,
            "why_nothing": "",
            "diverged": False,
            "seconds": 1.0,
        }

    def _loss(self, round_: int) -> float:
        return 1.0 / (1.0 + 9.0 * round_ / self._rounds)

    def _row(self, task: Task, i: int, flops: int, loss: float) -> Report:
        rng = np.random.default_rng(digest_seed(task.id, i))
        kind, site = [("widen", "h1"), ("add_node", "h1+input>output"), ("add_edge", "input>h2")][int(rng.integers(3))]
        gain = (loss - self._loss(task.round + 1)) * float(rng.uniform(0.8, 1.2)) if i == 0 else -0.001 * i
        added = 8 * int(rng.integers(1, 40))
        return {
            "id": f"{task.member}/{task.round:04d}/{kind}:{site}:{i}", "move": {"kind": kind}, "site": site, "units": i + 1,
            "initializer": "tiny", "seed": 1, "parent_arch_id": f"{flops:016x}", "gain": gain, "gain_stderr": 0.001,
            "value": gain, "predicted_gain": abs(gain) * float(rng.uniform(0.1, 1.0)), "added_flops": added,
            "verdict": "accept" if i == 0 else "reject", "statistic": gain, "threshold": 0.0, "reason": "drawn",
            "probe_train_flops": 17_000, "control_loss": loss, "features": [], "measurements": {},
            "newborn_gradient_ratio": None, "candidate_loss": loss - gain, "candidate_metric": 1 - loss + gain,
            **_network(task, f"candidate {i}", flops + added, loss - gain),
        }  # fmt: skip


def _network(task: Task, what: str, flops: int, loss: float) -> dict[str, Any]:
    return {
        "checkpoint": f"{digest_seed(task.id, what):032x}", "arch": {}, "arch_id": f"{digest_seed(task.member, flops):016x}",
        "params": flops // 2, "flops_per_example": flops, "validation_loss": loss, "validation_metric": 1 - loss,
    }  # fmt: skip


def drawn_campaign(members: Mapping[str, str], rounds: int, candidates: int) -> tuple[Coordinator, list[Event]]:
    """A finished campaign of ``len(members) * (rounds + 1)`` architectures.

    Args:
        members: name to strategy.
        candidates: probed by each member in each round.
    """
    plan = load_plan(
        {
            "campaign": {"name": "drawn", "rounds": rounds},
            "data": {"kind": "digits"},
            "growth": {"patience": rounds + 1, "price": 0.0},
            "selection": {"kind": "independent"},
            "members": [{"name": name, "strategy": {"kind": kind}} for name, kind in members.items()],
        }
    )
    facts = Facts("classification", 64, 10, 1000, 2.3)
    started = {"type": "started", "campaign_id": "0123456789abcdef", "config": resolved(plan), "facts": asdict(facts),
               "data": {"name": "drawn", "digest": "d"}, "versions": {"python": "3"}, "machine": {"cores": 2}}  # fmt: skip
    events: list[Event] = []
    coordinator, report = Coordinator(plan, facts), DrawnPool(candidates, rounds)

    def record(event: Event) -> None:
        events.append({"n": len(events), "time": float(len(events)), **event})
        coordinator.tell(events[-1])

    record(started)
    while not coordinator.done:
        asked = coordinator.ask()
        if asked is not None:
            record(asked)
            continue
        task = coordinator.tasks()[0]
        record({"type": "reported", "task": task.to_json(), "report": report(task)})
    record({"type": "ended"})
    return coordinator, events
