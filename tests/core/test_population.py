"""Coordinator, campaign loop, ledger, checkpoints and folder, with scripted reports: no training but in one test."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from raygrow.architecture import digest_seed
from raygrow.data import Preprocessing, prepare
from raygrow.data.builtin import Digits
from raygrow.data.teacher import Teacher
from raygrow.errors import CampaignFailed, CheckpointError, LedgerError, Refused
from raygrow.growth.initializers import Tiny
from raygrow.population.campaign import MAX_TRIES, run_campaign
from raygrow.population.checkpoints import FILES, Checkpoint, CheckpointStore
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import Event, Ledger, write_atomically
from raygrow.population.lengths import examples_of
from raygrow.population.plan import (
    Budget,
    Campaign,
    CheckpointPlan,
    Facts,
    Growth,
    Member,
    Plan,
    Probe,
    Training,
)
from raygrow.population.selection import Auction, Bid, Independent, ranked
from raygrow.population.serial_pool import SerialPool
from raygrow.population.tasks import NO_LEGAL_MOVE, Report, Task
from raygrow.population.worker import Worker
from raygrow.strategies import Mdl, Periodic
from raygrow.testing import ScriptedPool, a_network

FACTS = Facts("classification", 4, 3, 100, 1.0)
NAMES = ("ada", "bo", "cy")
PRICE = 1e-4
Script = Callable[[Task], Report]


def a_plan(
    names: Sequence[str] = NAMES, *, rounds: int = 3, patience: int = 3, keep: str = "heads", **more: Any
) -> Plan:
    return Plan(
        data=Digits(),
        members=tuple(
            Member(name=n, strategy=Mdl(), initializer=Tiny(), growth=Growth(patience=patience)) for n in names
        ),
        campaign=Campaign(rounds=rounds),
        checkpoints=CheckpointPlan(keep=keep),  # type: ignore[arg-type]
        **more,
    )


def a_network_row(digest: str, flops: int, loss: float) -> Report:
    return {
        "checkpoint": digest,
        "arch": {"flops": flops},
        "arch_id": f"arch{flops}",
        "params": flops // 2,
        "flops_per_example": flops,
        "validation_loss": loss,
        "validation_metric": 1.0 - loss,
    }


def a_digest(*parts: int | str) -> str:
    return f"{digest_seed(*parts):016x}{digest_seed('more', *parts):016x}"


def a_row(task: Task, i: int, gain: float, flops: int, verdict: str | None = None, error: float = 0.3) -> Report:
    """A probed candidate; its verdict follows from its value unless it is given."""
    value = gain - PRICE * flops
    verdict = verdict or ("accept" if value > 0 else "reject")
    identity = f"{task.member}/{task.round:04d}/{i}"
    return {
        "id": identity,
        "move": {"kind": "widen", "node": "h1", "added": i},
        "site": "h1",
        "units": i,
        "gain": gain,
        "gain_stderr": error,
        "value": value,
        "added_flops": flops,
        "verdict": verdict,
        "checkpoint": a_digest("candidate", identity, task.head) if verdict == "accept" else None,
        "arch": {"flops": 24 + flops},
        "arch_id": f"arch{24 + flops}",
        "params": 12 + flops,
        "flops_per_example": 24 + flops,
        "candidate_loss": 0.5 - gain,
        "candidate_metric": 0.5 + gain,
    }


def a_round(task: Task, rows: Sequence[Report], *, diverged: bool = False, why: str = "", spent: int = 1000) -> Report:
    digest = task.head if diverged else a_digest("control", task.id, task.head)
    return {
        "control": a_network_row(digest, 24, 0.5),
        "candidates": list(rows),
        "strategy_state": {},
        "train_flops": {"total": spent},
        "why_nothing": why,
        "diverged": diverged,
    }


def other_phases(task: Task) -> Report:
    if task.phase == "test":
        return {"test_loss": 0.1, "test_metric": 0.9, "train_flops": {"total": 0}}
    loss = 0.2 + 0.001 * (digest_seed(task.id, task.head) % 100)
    return {
        "head": a_network_row(a_digest(task.phase, task.id, task.head), 24, loss),
        "diverged": False,
        "train_flops": {"total": 10},
    }


def by_rows(rows: Callable[[Task], list[Report]], **more: Any) -> Script:
    return lambda task: a_round(task, rows(task), **more) if task.phase == "round" else other_phases(task)


def drawn(task: Task) -> Report:
    """A report that depends on everything a task says, with accepted, rejected, saving and no candidates."""
    if task.phase != "round":
        return other_phases(task)
    state = (task.id, task.head, task.tests, task.rounds_since_growth, str(task.last_gain))
    rng = np.random.default_rng(digest_seed(*state))
    rows = [
        a_row(task, i, float(rng.normal(0.01, 0.03)), int(rng.choice([-60, 0, 40, 100, 300])))
        for i in range(int(rng.integers(0, 4)))
    ]
    return a_round(task, rows, why="" if rows else "nothing was shortlisted", spent=int(rng.integers(100, 1000)))


class Play:
    """One campaign in a folder, and a copy of the coordinator after every event."""

    def __init__(self, root: Path, plan: Plan, *, continued: bytes = b"", facts: Facts = FACTS) -> None:
        self.folder = CampaignFolder(root)
        root.mkdir(parents=True, exist_ok=True)
        if continued:
            self.folder.ledger.path.write_bytes(continued)
        self.coordinator = Coordinator.replay(plan, facts, self.folder.ledger.read())
        self.copies: list[Coordinator] = []

    def run(self, pool: ScriptedPool) -> Play:
        def heard(event: Event) -> None:
            self.copies.append(copy.deepcopy(self.coordinator))

        run_campaign(self.coordinator, self.folder.ledger, self.folder.store, pool, heard)
        return self

    @property
    def events(self) -> list[Event]:
        return self.folder.ledger.read()

    def decided(self) -> list[Event]:
        """Everything the coordinator decided, without times and numbers."""
        kinds = ("decided", "chosen", "closed")
        return [{k: v for k, v in e.items() if k not in ("n", "time")} for e in self.events if e["type"] in kinds]


def play(root: Path, plan: Plan, script: Script = drawn, **more: Any) -> Play:
    return Play(root, plan).run(ScriptedPool(script, **more))


def in_random_order(seed: int) -> Callable[[list[Task]], int]:
    rng = np.random.default_rng(seed)
    return lambda tasks: int(rng.integers(len(tasks)))


# The coordinator


@pytest.mark.parametrize("selection", [Auction(), Auction(added_flops_per_round=130.0), Independent()])
def test_the_order_of_arrival_decides_nothing(tmp_path: Path, selection: Auction | Independent) -> None:
    plan = a_plan(rounds=5, patience=9, selection=selection)
    reference = play(tmp_path / "reference", plan)
    assert reference.coordinator.done
    assert any(event.get("granted") for event in reference.decided())
    orders = [lambda tasks: -1, lambda tasks: len(tasks) // 2, *(in_random_order(seed) for seed in range(4))]
    arrived = set()
    for i, order in enumerate(orders):
        pool = ScriptedPool(drawn, order)
        other = Play(tmp_path / f"other{i}", plan).run(pool)
        arrived.add(tuple(task.id for task in pool.done))
        assert other.decided() == reference.decided()
        assert other.coordinator == reference.coordinator
        assert list(other.coordinator.heads) == list(NAMES)
    assert len(arrived) > 3


@pytest.mark.parametrize("keep", ["heads", "all"])
def test_replay_from_every_prefix_is_the_coordinator_that_lived_through_it(tmp_path: Path, keep: str) -> None:
    plan = a_plan(rounds=4, keep=keep, selection=Auction(added_flops_per_round=150.0))
    live = play(tmp_path, plan, order=in_random_order(1), losses=["bo/0002/round", "ada/0000/start"])
    events = live.events
    assert len(events) == len(live.copies) > 20
    for count, then in enumerate(live.copies, start=1):
        again = Coordinator.replay(plan, FACTS, events[:count])
        assert (again.tasks(), again.ask(), again.heads) == (then.tasks(), then.ask(), then.heads)
        assert (again.round, again.phase, again.carried, again.best) == (
            then.round,
            then.phase,
            then.carried,
            then.best,
        )
        assert again.referenced() == then.referenced()
        assert again == then
    assert Coordinator.replay(plan, FACTS, []) == Coordinator(plan, FACTS)


def test_going_on_from_any_prefix_gives_the_same_result(tmp_path: Path) -> None:
    plan = a_plan(rounds=3, selection=Auction(added_flops_per_round=150.0))
    reference = play(tmp_path / "reference", plan)
    lines = reference.folder.ledger.path.read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        pool = ScriptedPool(drawn, in_random_order(count))
        other = Play(tmp_path / f"from{count}", plan, continued=b"".join(lines[:count])).run(pool)
        assert other.decided() == reference.decided()
        assert other.coordinator == reference.coordinator
        # Nothing that was reported is run again.
        reported = sum(json.loads(line)["type"] == "reported" for line in lines[:count])
        assert len(pool.done) == sum(event["type"] == "reported" for event in other.events) - reported


def test_a_campaign_goes_through_its_phases_and_keeps_its_books(tmp_path: Path) -> None:
    plan = a_plan(("ada", "bo"), rounds=2, selection=Independent())
    script = by_rows(lambda task: [a_row(task, 1, 0.05, 40)] if (task.member, task.round) == ("ada", 2) else [])
    pool = ScriptedPool(script)
    coordinator = Play(tmp_path, plan).run(pool).coordinator
    assert [task.id for task in pool.done] == [
        f"{name}/{round_:04d}/{phase}"
        for round_, phase in ((0, "start"), (1, "round"), (2, "round"), (2, "finish"), (2, "test"))
        for name in ("ada", "bo")
    ]
    ada, bo = coordinator.heads["ada"], coordinator.heads["bo"]
    assert [entry["round"] for entry in ada.history] == [0, 1, 2, 2]
    assert [entry["arch_id"] for entry in ada.history] == ["arch24", "arch24", "arch64", "arch24"]
    assert [entry["train_flops"] for entry in ada.history] == [10, 1010, 2010, 2020]
    assert (ada.adopted, ada.probed, ada.tests, ada.last_gain) == (1, 1, 1, 0.05)
    assert (bo.adopted, bo.probed, bo.tests, bo.rounds_since_growth) == (0, 0, 0, 2)
    # What a member is told of itself in the next task.
    finish = next(task for task in pool.done if task.id == "ada/0002/finish")
    assert (finish.tests, finish.rounds_since_growth, finish.last_gain) == (1, 0, 0.05)
    assert finish.head == ada.history[2]["checkpoint"]
    assert ada.test is not None
    assert ada.test["test_metric"] == 0.9
    assert ada.stopped_because == "all 2 rounds are over"
    losses = {name: head.network["validation_loss"] for name, head in coordinator.heads.items()}
    assert coordinator.best == min(losses, key=lambda name: losses[name])
    assert coordinator.tasks() == []
    assert coordinator.ask() is None


def test_no_rounds_at_all_trains_and_tests_the_start(tmp_path: Path) -> None:
    done = play(tmp_path, a_plan(rounds=0)).coordinator
    assert done.done
    assert [entry["round"] for entry in done.heads["bo"].history] == [0, 0]


def test_a_network_whose_final_loss_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    def script(task: Task) -> Report:
        report = drawn(task)
        if task.phase == "finish":
            report["head"]["validation_loss"] = {"ada": math.nan, "bo": 0.9, "cy": math.inf}[task.member]
        return report

    assert play(tmp_path / "one", a_plan(rounds=1), script).coordinator.best == "bo"
    every = by_rows(lambda task: [])

    def lost(task: Task) -> Report:
        report = every(task)
        if task.phase == "finish":
            report["head"]["validation_loss"] = math.nan
        return report

    assert play(tmp_path / "all", a_plan(rounds=1), lost).coordinator.done


@pytest.mark.parametrize(
    ("when", "wrong"),
    [
        (0, Task("round", "ada", 1)),
        (0, Task("start", "nobody", 0)),
        (0, Task("start", "ada", 1)),
        (1, Task("start", "ada", 0)),
        (4, Task("round", "ada", 1, "f" * 32)),
        (4, Task("start", "ada", 0)),
    ],
)
def test_a_report_that_was_not_asked_for_is_refused_and_changes_nothing(tmp_path: Path, when: int, wrong: Task) -> None:
    live = play(tmp_path, a_plan(rounds=1))
    coordinator = Coordinator.replay(live.coordinator.plan, FACTS, live.events[:when])
    before = copy.deepcopy(coordinator)
    with pytest.raises(LedgerError, match=f"{wrong.id} was not asked for"):
        coordinator.tell({"n": when, "type": "reported", "task": wrong.to_json(), "report": other_phases(wrong)})
    assert coordinator == before


class RepeatingPool(ScriptedPool):
    """Reports one task twice, as a pool that loses track of what it delivered would."""

    def __init__(self, script: Script, twice: str) -> None:
        super().__init__(script)
        self.twice = twice

    def wait(self) -> tuple[Task, Report]:
        task, report = super().wait()
        if task.id == self.twice:
            self.twice = ""
            self._waiting.appendleft(task)
        return task, report


def test_a_duplicate_report_is_refused_before_it_reaches_the_ledger(tmp_path: Path) -> None:
    """The ledger is the truth: what the coordinator refuses must not be in it, or no resume can read it again."""
    plan = a_plan(rounds=2)
    with pytest.raises(LedgerError, match=r"ada/0001/round was not asked for"):
        Play(tmp_path / "a", plan).run(RepeatingPool(drawn, "ada/0001/round"))
    resumed = Play(tmp_path / "a", plan).run(ScriptedPool(drawn))
    assert resumed.decided() == play(tmp_path / "b", plan).decided()


def test_events_that_do_not_concern_it_change_nothing(tmp_path: Path) -> None:
    live = play(tmp_path, a_plan(rounds=1))
    events = live.events
    noise: list[Event] = [
        {"n": -1, "type": kind, "task": {}, "reason": "x"} for kind in ("started", "retried", "resumed", "ended")
    ]
    mixed = [event for pair in zip(events, [noise[i % 4] for i in range(len(events))], strict=True) for event in pair]
    assert Coordinator.replay(live.coordinator.plan, FACTS, mixed) == live.coordinator


# Lost workers


def test_a_lost_worker_s_task_is_run_again(tmp_path: Path) -> None:
    plan = a_plan(rounds=2)
    task = "bo/0002/round"
    for losses in range(MAX_TRIES):
        pool = ScriptedPool(drawn, losses=[task] * losses)
        live = Play(tmp_path / str(losses), plan).run(pool)
        assert live.decided() == play(tmp_path / f"{losses}calm", plan).decided()
        assert [one.id for one in pool.done].count(task) == 1
        retried = [event for event in live.events if event["type"] == "retried"]
        assert len(retried) == losses
        assert all(Task.from_json(event["task"]).id == task for event in retried)


def test_a_task_that_loses_every_worker_ends_the_campaign_and_leaves_what_was_done(tmp_path: Path) -> None:
    plan = a_plan(rounds=2)
    task = "cy/0001/round"
    live = Play(tmp_path / "a", plan)
    with pytest.raises(CampaignFailed, match=f"{task} lost its worker {MAX_TRIES} times"):
        live.run(ScriptedPool(drawn, losses=[task] * MAX_TRIES))
    assert not live.coordinator.done
    assert sum(event["type"] == "retried" for event in live.events) == MAX_TRIES
    # Losses are counted afresh: the reason may be gone.
    resumed = Play(tmp_path / "a", plan).run(ScriptedPool(drawn, losses=[task] * (MAX_TRIES - 1)))
    assert resumed.coordinator == play(tmp_path / "b", plan).coordinator


def test_losses_of_different_tasks_are_not_added_up(tmp_path: Path) -> None:
    ids = [f"{name}/{round_:04d}/round" for name in NAMES for round_ in (1, 2)]
    live = play(tmp_path, a_plan(rounds=2, patience=9), by_rows(lambda task: []), losses=ids * (MAX_TRIES - 1))
    assert live.coordinator.done


def test_all_that_a_lost_worker_held_is_run_again(tmp_path: Path) -> None:
    plan = a_plan(rounds=2, patience=9)
    calm = play(tmp_path / "calm", plan)
    pool = ScriptedPool(drawn, losses=["ada/0001/round", "bo/0001/round"], share=2)
    live = Play(tmp_path / "live", plan).run(pool)
    assert live.decided() == calm.decided()
    retried = [Task.from_json(event["task"]).id for event in live.events if event["type"] == "retried"]
    # The first death took bo along; what is submitted again waits behind cy.
    assert retried == ["ada/0001/round", "bo/0001/round", "bo/0001/round"]
    with pytest.raises(CampaignFailed, match=f"tasks ada/0001/round, .* lost their worker {MAX_TRIES} times"):
        play(tmp_path / "lost", plan, losses=["ada/0001/round"] * MAX_TRIES, share=9)


# The serial pool


class Hearing:
    """A worker that notes what it is given at once."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.heard = error, list[list[str]]()

    def run(self, tasks: Sequence[Task]) -> list[Report]:
        self.heard.append([task.member for task in tasks])
        if self.error:
            raise self.error
        return [{"of": task.member} for task in tasks]


def test_the_serial_pool_gives_its_worker_all_that_waits() -> None:
    worker = Hearing()
    pool = SerialPool(worker)  # type: ignore[arg-type]
    one, two, three = (Task("start", name, 0) for name in NAMES)
    pool.submit([one, two])
    pool.submit([three])
    assert [pool.wait() for _ in range(3)] == [(task, {"of": task.member}) for task in (one, two, three)]
    assert worker.heard == [list(NAMES)]
    pool.submit([two])
    assert pool.wait() == (two, {"of": two.member})
    assert worker.heard == [list(NAMES), [two.member]]


def test_a_fault_of_a_task_fails_the_campaign_and_names_its_company() -> None:
    pool = SerialPool(Hearing(ValueError("boom")))  # type: ignore[arg-type]
    pool.submit([Task("round", "ada", 1), Task("round", "bo", 1)])
    with pytest.raises(CampaignFailed, match=r"tasks ada/0001/round, bo/0001/round failed: ValueError: boom"):
        pool.wait()


# Grants


def bids(script: dict[str, list[tuple[float, int]]]) -> Callable[[Task], list[Report]]:
    """The same gains and added FLOPs of every member in every round."""
    return lambda task: [a_row(task, i, *row) for i, row in enumerate(script.get(task.member, []))]


def rounds_of(live: Play) -> list[Event]:
    return [event for event in live.events if event["type"] == "decided"]


def test_an_auction_carries_over_what_it_did_not_grant(tmp_path: Path) -> None:
    plan = a_plan(("ada", "bo"), rounds=3, selection=Auction(added_flops_per_round=100.0))
    live = play(tmp_path, plan, by_rows(bids({"ada": [(0.5, 150)], "bo": [(0.06, 60)]})))
    one, two, three = rounds_of(live)
    # Round 1: 100. ada's 150 is better per FLOP and does not fit; bo's 60 does.
    assert [e["id"] for e in one["ranking"]] == ["ada/0001/0", "bo/0001/0"]
    assert one["granted"] == ["bo/0001/0"]
    assert one["refused"] == {"ada/0001/0": "its 150 added FLOPs exceed the 100 left in the round's budget"}
    assert (one["allowance"], one["carried"]) == (100.0, 40.0)
    # Round 2: 140 still is too little. Round 3: 180 is enough for ada's 150, and 30 is too little for bo's.
    assert (two["allowance"], two["granted"], two["carried"]) == (140.0, ["bo/0002/0"], 80.0)
    assert (three["allowance"], three["granted"], three["carried"]) == (180.0, ["ada/0003/0"], 30.0)


def test_an_auction_s_default_shares_the_budget_over_the_rounds(tmp_path: Path) -> None:
    """Members x (max FLOPs per example, or 16 x the start's) / rounds."""
    script = by_rows(lambda task: [])
    limited = a_plan(rounds=4, patience=9, budget=Budget(max_flops_per_example=800))
    assert [e["allowance"] for e in rounds_of(play(tmp_path / "a", limited, script))] == [600.0, 1200.0, 1800.0, 2400.0]
    free = a_plan(rounds=4, patience=9)
    assert rounds_of(play(tmp_path / "b", free, script))[0]["allowance"] == 3 * 16 * (2 * 4 * 3) / 4


def test_independent_members_all_take_their_best_and_an_auction_chooses_between_them(tmp_path: Path) -> None:
    script = by_rows(bids({"ada": [(0.9, 500), (0.2, 300)], "bo": [(0.3, 400)], "cy": [(0.1, 900)]}))
    free = rounds_of(play(tmp_path / "a", a_plan(rounds=1, selection=Independent()), script))[0]
    assert set(free["granted"]) == {"ada/0001/0", "bo/0001/0", "cy/0001/0"}
    tight = rounds_of(play(tmp_path / "b", a_plan(rounds=1, selection=Auction(added_flops_per_round=950.0)), script))[0]
    assert tight["granted"] == ["ada/0001/0", "bo/0001/0"]
    assert set(tight["refused"]) == {"ada/0001/1", "cy/0001/0"}


@pytest.mark.parametrize("selection", [Auction(added_flops_per_round=1e9), Independent()])
def test_a_member_is_granted_one_move_a_round_at_most(tmp_path: Path, selection: Auction | Independent) -> None:
    live = play(
        tmp_path, a_plan(selection=selection), by_rows(bids({n: [(0.3, 10), (0.4, 10), (0.2, 10)] for n in NAMES}))
    )
    for event in rounds_of(live):
        assert sorted(event["granted"]) == [f"{name}/{event['round']:04d}/1" for name in NAMES]
        assert sorted(event["refused"]) == [f"{n}/{event['round']:04d}/{i}" for n in NAMES for i in (0, 2)]
    assert all(head.adopted == 3 and head.probed == 9 for head in live.coordinator.heads.values())


@pytest.mark.parametrize("selection", [Auction(added_flops_per_round=1e9), Independent()])
def test_what_was_rejected_is_neither_ranked_nor_granted(tmp_path: Path, selection: Auction | Independent) -> None:
    live = play(tmp_path, a_plan(rounds=1, selection=selection), by_rows(bids({"ada": [(0.01, 100), (5.0, 50001)]})))
    (event,) = rounds_of(live)
    assert (event["ranking"], event["granted"], event["refused"]) == ([], [], {})


@pytest.mark.parametrize("selection", [Auction(added_flops_per_round=1e9), Independent()])
@pytest.mark.parametrize("gain", [0.01, 0.009])
def test_value_at_or_below_zero_is_never_granted(tmp_path: Path, selection: Auction | Independent, gain: float) -> None:
    """Whatever a worker's verdict says: a bid's value is above 0."""
    script = by_rows(lambda task: [a_row(task, 0, gain, 100, verdict="accept")] if task.member == "ada" else [])
    assert rounds_of(play(tmp_path, a_plan(rounds=1, selection=selection), script))[0]["granted"] == []


def test_moves_that_save_flops_rank_first_by_value() -> None:
    some = [
        Bid("a", "a", 9.0, 8.9, 1),
        Bid("b", "b", 0.01, 0.02, -100),
        Bid("c", "c", -0.01, 0.03, -400),
        Bid("d", "d", 0.1, 0.1, 0),
    ]
    assert [bid.id for bid in ranked(some)] == ["d", "c", "b", "a"]
    assert [bid.gain_per_flop for bid in ranked(some)] == [None, None, None, 9.0]
    # Ties are broken by id, never by the order given.
    same = [Bid(name, name, 0.1, 0.05, 10) for name in "cab"]
    assert [bid.id for bid in ranked(same)] == ["a", "b", "c"]


def test_a_saving_move_is_granted_before_all_others_and_gives_its_flops_back(tmp_path: Path) -> None:
    plan = a_plan(("ada", "bo"), rounds=1, selection=Auction(added_flops_per_round=100.0))
    (event,) = rounds_of(play(tmp_path, plan, by_rows(bids({"ada": [(0.9, 120)], "bo": [(0.001, -50)]}))))
    assert event["granted"] == ["bo/0001/0", "ada/0001/0"]
    assert [one["gain_per_flop"] for one in event["ranking"]] == [None, pytest.approx(0.9 / 120)]
    assert event["carried"] == 30.0


# When it is enough


def test_patience_stops_a_member_and_the_others_go_on(tmp_path: Path) -> None:
    plan = a_plan(rounds=6, patience=2, selection=Independent())
    grows = {"ada": (1, 2, 3, 4, 5, 6), "bo": (2, 4), "cy": ()}
    pool = ScriptedPool(by_rows(lambda task: [a_row(task, 0, 0.1 if task.round in grows[task.member] else -0.1, 10)]))
    live = Play(tmp_path, plan).run(pool)
    trained = {name: [t.round for t in pool.done if t.member == name and t.phase == "round"] for name in NAMES}
    assert trained == {"ada": [1, 2, 3, 4, 5, 6], "bo": [1, 2, 3, 4, 5, 6], "cy": [1, 2]}
    heads = live.coordinator.heads
    assert heads["cy"].stopped_because == (
        "no move is worth its price: 2 rounds without an adopted move; in the last, the best of 1 probed moves, widen h1 by "
        "0, gained -0.1 +- 0.3 where its 10 FLOPs cost 0.001"
    )
    assert heads["bo"].stopped_because is not None
    assert heads["bo"].stopped_because.startswith("no move is worth its price: 2 rounds without an adopted move")
    assert heads["ada"].stopped_because == "all 6 rounds are over"
    assert live.coordinator.stopped_because == "ada: all 6 rounds are over; bo, cy: no move is worth its price"
    # Stopped members are finished and tested all the same.
    assert {task.member for task in pool.done if task.phase == "finish"} == set(NAMES)


def test_a_campaign_ends_by_itself_when_no_move_is_worth_its_price(tmp_path: Path) -> None:
    plan = a_plan(rounds=9, patience=2)
    live = play(tmp_path, plan, by_rows(lambda task: [a_row(task, 0, 0.1 if task.round == 1 else -0.1, 10)]))
    assert len(rounds_of(live)) == 3
    assert live.coordinator.stopped_because == "no move is worth its price"
    assert all(head.settled for head in live.coordinator.heads.values())
    growing = [copy.stopped_because for copy in live.copies if copy.phase in ("start", "round")]
    assert set(growing) == {None}


@pytest.mark.parametrize(
    ("rows", "rounds"),
    [
        pytest.param([(-0.1, 0.3)], 4, id="left open"),
        pytest.param([], 4, id="nothing shortlisted"),
        pytest.param([(-0.1, 0.04)], 2, id="clearly below its price"),
        pytest.param([(-0.1, 0.04), (-0.1, 0.3)], 4, id="one left open"),
        pytest.param([(math.nan, math.nan)], 4, id="diverged"),
        pytest.param([(math.nan, math.nan), (-0.1, 0.04)], 2, id="one diverged, the other clear"),
    ],
)
def test_clear_evidence_against_growth_counts_twice(
    tmp_path: Path, rows: list[tuple[float, float]], rounds: int
) -> None:
    plan = a_plan(NAMES[:1], rounds=9, patience=4)
    script = by_rows(lambda task: [a_row(task, i, gain, 10, error=error) for i, (gain, error) in enumerate(rows)])
    live = play(tmp_path, plan, script)
    assert len(rounds_of(live)) == rounds
    head = live.coordinator.heads[NAMES[0]]
    # What diverged says nothing of what a move is worth.
    assert head.settled == (not rows or any(math.isfinite(gain) for gain, _ in rows))
    assert head.stopped_because is not None
    assert ("could be measured" in head.stopped_because) == (not head.settled)


def test_an_adopted_move_takes_back_the_doubts(tmp_path: Path) -> None:
    plan = a_plan(NAMES[:1], rounds=9, patience=2)
    grows = (2, 4)
    live = play(tmp_path, plan, by_rows(lambda task: [a_row(task, 0, 0.1 if task.round in grows else -0.1, 10)]))
    assert len(rounds_of(live)) == 6


def test_a_lost_auction_is_no_reason_to_stop_and_no_legal_move_is_one_at_once(tmp_path: Path) -> None:
    plan = a_plan(rounds=3, patience=1, selection=Auction(added_flops_per_round=10.0))

    def script(task: Task) -> Report:
        if task.phase != "round":
            return other_phases(task)
        if task.member == "bo":
            return a_round(task, [], why=NO_LEGAL_MOVE)
        return a_round(task, [a_row(task, 0, 0.5, 1000)] if task.member == "ada" else [a_row(task, 0, -0.5, 1000)])

    heads = play(tmp_path, plan, script).coordinator.heads
    assert heads["ada"].stopped_because == "all 3 rounds are over"
    assert heads["bo"].stopped_because == "no legal move is left within the budget"
    assert not heads["bo"].settled
    assert heads["cy"].stopped_because == (
        "no move is worth its price: 1 round without an adopted move; in the last, the best of 1 probed moves, widen h1 by "
        "0, gained -0.5 +- 0.3 where its 1000 FLOPs cost 0.1"
    )
    assert [len(head.history) for head in heads.values()] == [5, 3, 3]


def test_the_training_budget_stops_the_whole_population_between_rounds(tmp_path: Path) -> None:
    # Three members spend 10 each at the start and 1000 each a round: 3030 after round 1, 6030 after round 2.
    for limit, rounds in ((1.0, 0), (30.0, 0), (31.0, 1), (3030.0, 1), (3031.0, 2), (1e9, 5)):
        plan = a_plan(rounds=5, patience=9, budget=Budget(max_train_flops=limit))
        live = play(tmp_path / f"{limit}", plan, by_rows(lambda task: []))
        assert len(rounds_of(live)) == rounds
        words = "training FLOPs" if rounds < 5 else "all 5 rounds are over"
        assert all(words in (head.stopped_because or "") for head in live.coordinator.heads.values())
        assert live.coordinator.done


def test_a_diverged_member_stops_with_its_head(tmp_path: Path) -> None:
    def script(task: Task) -> Report:
        if task.phase == "round" and task.member == "bo":
            return a_round(task, [], diverged=task.round == 2)
        return by_rows(lambda task: [])(task)

    pool = ScriptedPool(script)
    live = Play(tmp_path, a_plan(rounds=3, patience=9)).run(pool)
    assert [task.round for task in pool.done if task.member == "bo" and task.phase == "round"] == [1, 2]
    bo = live.coordinator.heads["bo"]
    assert bo.stopped_because is not None
    assert "diverged" in bo.stopped_because
    assert bo.history[2]["checkpoint"] == bo.history[1]["checkpoint"]
    finish = next(task for task in pool.done if task.id == "bo/0003/finish")
    assert finish.head == bo.history[1]["checkpoint"]


def test_a_move_that_does_not_pay_is_rejected_by_the_round_whatever_the_strategy_says(tmp_path: Path) -> None:
    """``periodic`` accepts everything it probes; a worker still rejects what is not worth its price."""
    dataset = prepare(Teacher(inputs=4, units=4, classes=3, rows=200), 0)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())
    member = Member(
        name="m",
        strategy=Periodic(),
        initializer=Tiny(),
        training=Training(examples_per_round=64, final_examples=32),
        growth=Growth(price=1e3, units=(2,), patience=3),
        probe=Probe(examples=64, blocks=2),
    )
    plan = Plan(data=Teacher(), members=(member,), campaign=Campaign(rounds=2), selection=Independent())
    live = Play(tmp_path, plan, facts=facts)
    live.run(SerialPool(Worker(plan, facts, dataset, live.folder.store)))  # type: ignore[arg-type]
    rows = [
        row
        for event in live.events
        if event.get("task", {}).get("phase") == "round"
        for row in event["report"]["candidates"]
    ]
    assert len(rows) == 2
    for row in rows:
        assert (row["verdict"], row["checkpoint"]) == ("reject", None)
        assert re.search(r"growth round; but gain .* is not above its price", row["reason"])
        assert row["value"] == pytest.approx(row["gain"] - 1e3 * row["added_flops"])
    assert live.coordinator.heads["m"].adopted == 0
    assert {entry["arch_id"] for entry in live.coordinator.heads["m"].history} == {facts.start(plan.network).arch_id}


# Which checkpoints stay


@pytest.mark.parametrize("keep", ["heads", "all"])
def test_what_is_referenced_stays_and_the_rest_goes(tmp_path: Path, keep: str) -> None:
    plan = a_plan(rounds=3, keep=keep, patience=9)
    store = CampaignFolder(tmp_path).store

    def writing(task: Task) -> Report:
        """The scripted report, with an empty folder for each of its checkpoints, and one of a fork nobody reports."""
        report = drawn(task)
        rows = [report[key] for key in ("head", "control") if key in report] + report.get("candidates", [])
        for digest in [row["checkpoint"] for row in rows if row["checkpoint"]] + [a_digest("waste", task.id)]:
            (store.root / digest).mkdir(parents=True, exist_ok=True)
        return report

    def every(events: Sequence[Event]) -> set[str]:
        reports = [event["report"] for event in events if event["type"] == "reported"]
        rows = [r[key] for r in reports for key in ("head", "control") if key in r]
        rows += [row for r in reports for row in r.get("candidates", [])]
        return {row["checkpoint"] for row in rows if row["checkpoint"]}

    live = play(tmp_path, plan, writing)
    heads = {e["checkpoint"] for head in live.coordinator.heads.values() for e in head.history}
    assert heads < every(live.events)
    assert {path.name for path in store.root.iterdir()} == (every(live.events) if keep == "all" else heads)
    assert live.coordinator.referenced() == {path.name for path in store.root.iterdir()}
    # In an open phase nothing that was reported in it may go, nor any head.
    for count, then in enumerate(live.copies, start=1):
        events = live.events[:count]
        closed = max((i for i, e in enumerate(events) if e["type"] in ("closed", "decided", "chosen")), default=-1)
        past = {e["checkpoint"] for head in then.heads.values() for e in head.history}
        expected = past | every(events[closed + 1 :])
        assert then.referenced() == (expected | every(events) if keep == "all" else expected)


# The ledger


def a_ledger(path: Path, count: int = 4) -> Ledger:
    ledger = Ledger(path)
    for i in range(count):
        ledger.append({"type": "reported", "i": i, "text": "Grüße\n", "figures": [0.1 * i, None, True]})
    return ledger


def test_the_ledger_gives_back_what_was_written_numbered_from_0(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.jsonl")
    assert ledger.read() == []
    written = [ledger.append({"type": "x", "tiny": 1e-300, "third": 1 / 3, "nested": {"a": (1, 2)}}) for _ in range(3)]
    assert [event["n"] for event in written] == [0, 1, 2]
    assert Ledger(ledger.path).read() == written == ledger.read()
    assert ledger.read(since=2) == written[2:]
    assert written[0]["third"] == 1 / 3
    # Another process goes on where this one stopped.
    assert Ledger(ledger.path).append({"type": "y"})["n"] == 3


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.jsonl")
    event = ledger.append({"type": "x", "a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1.0, math.nan)})
    assert (event["a"], event["b"], event["d"]) == (None, [None, {"c": None}], [1.0, None])

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(ledger.path.read_text(), parse_constant=refused) == event


def test_a_last_line_torn_at_any_byte_does_not_count_and_is_cut_off(tmp_path: Path) -> None:
    whole = a_ledger(tmp_path / "whole").path.read_bytes()
    before = whole[: whole[:-1].rindex(b"\n") + 1]
    for cut in range(len(before), len(whole)):
        path = tmp_path / "torn"
        path.write_bytes(whole[:cut])
        assert [event["i"] for event in Ledger(path).read()] == [0, 1, 2]
        assert path.read_bytes() == whole[:cut]  # reading repairs nothing: another process may be writing
        assert Ledger(path).append({"type": "next", "i": 9})["n"] == 3
        assert [event["i"] for event in Ledger(path).read()] == [0, 1, 2, 9]
        assert path.read_bytes().startswith(before)


def test_a_last_line_that_a_crash_filled_with_rubbish_does_not_count(tmp_path: Path) -> None:
    for rubbish in (b"\x00" * 40, b"\x00" * 40 + b"\n", b'{"n": 4, "ty\n', b"\xff\xfe\n"):
        ledger = a_ledger(tmp_path / "events.jsonl")
        with ledger.path.open("ab") as file:
            file.write(rubbish)
        assert len(Ledger(ledger.path).read()) == 4
        assert Ledger(ledger.path).append({"type": "next"})["n"] == 4
        assert len(Ledger(ledger.path).read()) == 5
        ledger.path.unlink()


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xff", b"null", b"7", b"[]", b'"text"', b'{"type":"x"}'])
@pytest.mark.parametrize("line", [1, 3])
def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path, damage: bytes, line: int) -> None:
    ledger = a_ledger(tmp_path / "events.jsonl")
    lines = ledger.path.read_bytes().splitlines()
    lines[line - 1] = damage
    ledger.path.write_bytes(b"\n".join(lines) + b"\n")
    for touch in (lambda: Ledger(ledger.path).read(), lambda: Ledger(ledger.path).append({"type": "x"})):
        with pytest.raises(LedgerError, match=rf"events\.jsonl: line {line} "):
            touch()
    assert ledger.path.read_bytes() == b"\n".join(lines) + b"\n"


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_line_is_refused_by_its_number(tmp_path: Path, missing: int) -> None:
    ledger = a_ledger(tmp_path / "events.jsonl")
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    del lines[missing - 1]
    ledger.path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match=f"line {missing} holds event {missing}, a line is missing"):
        Ledger(ledger.path).read()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_append_that_was_interrupted_leaves_a_ledger_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Ctrl-C lands in ``fsync`` more often than anywhere else, and the next thing written is the event that says so."""
    ledger = a_ledger(tmp_path / "events.jsonl", 2)
    real = os.fsync

    def interrupted(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        raise error

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(type(error)):
        ledger.append({"type": "reported", "i": 2})
    ledger.append({"type": "interrupted", "i": 3})
    read = Ledger(ledger.path).read()
    assert [event["n"] for event in read] == list(range(len(read)))
    assert [event["i"] for event in read] in ([0, 1, 2, 3], [0, 1, 3])


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "summary.json"
    new = tmp_path / "new.json"
    write_atomically(path, b"old")
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]

    def fails(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fails)
    for target in (path, new):
        with pytest.raises(OSError, match="No space"):
            write_atomically(target, b"n" * 100_000)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert not new.exists()
    # What is left beside it is hidden, and the next write is not in its way.
    assert all(p.name.startswith(".") for p in tmp_path.iterdir() if p != path)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


# Checkpoints


def a_checkpoint(seed: int = 0, dtype: torch.dtype = torch.float32) -> Checkpoint:
    network = a_network("gelu", dtype, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    optimizer = {
        name: {
            "exp_avg": torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype),
            "exp_avg_sq": torch.full_like(parameter.detach(), 1e-38),
            "step": torch.tensor(float(7 + i)),
        }
        for i, (name, parameter) in enumerate(network.named_parameters())
    }
    preprocessing = Preprocessing(
        "classification",
        tuple(f"größe {i}" for i in range(5)),
        (0.1, 1 / 3, -2.0, 1e300, 0.0),
        (1.0, 1e-300, 0.0, math.pi, 2.0),
        31.6,
        True,
        ("a", "ü", "c"),
    )
    strategy = {"kind": "rl", "state": {"precision": [[1.0, 0.1], [0.1, 1 / 3]], "shift": [1e-17, -0.0]}}
    return Checkpoint(network, optimizer, preprocessing, strategy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_checkpoint_comes_back_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    store, saved = CheckpointStore(tmp_path), a_checkpoint(dtype=dtype)
    digest = store.save(saved)
    assert re.fullmatch("[0-9a-f]{32}", digest)
    assert store.has(digest)
    loaded = CheckpointStore(tmp_path).load(digest)
    assert loaded.network.arch == saved.network.arch
    assert loaded.preprocessing == saved.preprocessing
    assert loaded.strategy == saved.strategy
    before, after = saved.network.state_dict(), loaded.network.state_dict()
    assert list(before) == list(after)
    assert all(before[name].dtype == after[name].dtype == dtype for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name: set(state) for name, state in loaded.optimizer.items()} == {
        name: set(state) for name, state in saved.optimizer.items()
    }
    for name, state in saved.optimizer.items():
        for key, value in state.items():
            assert torch.equal(loaded.optimizer[name][key], value)
            assert loaded.optimizer[name][key].dtype == value.dtype
    assert store.save(loaded) == digest


def test_the_same_content_has_the_same_digest_and_any_other_another(tmp_path: Path) -> None:
    store, base = CheckpointStore(tmp_path), a_checkpoint()
    reordered = dataclasses.replace(
        base,
        optimizer=dict(reversed(list(base.optimizer.items()))),
        strategy=dict(reversed(list(base.strategy.items()))),
    )
    digest = store.save(base)
    assert store.save(a_checkpoint()) == digest
    assert store.save(reordered) == digest
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    other_weights = a_checkpoint()
    with torch.no_grad():
        next(other_weights.network.parameters()).view(-1)[0] += 1e-6
    others = [
        other_weights,
        dataclasses.replace(base, optimizer={}),
        dataclasses.replace(base, preprocessing=dataclasses.replace(base.preprocessing, bound=31.7)),
        dataclasses.replace(base, strategy={"kind": "rl", "state": {}}),
        dataclasses.replace(a_checkpoint(), network=a_network("tanh", torch.float32)),
    ]
    assert len({digest, *(store.save(other) for other in others)}) == 6


@pytest.mark.parametrize("name", FILES)
def test_an_altered_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path)
    digest = store.save(a_checkpoint())
    path = tmp_path / digest / name
    content = path.read_bytes()
    for altered in (content[:-1], content + b" ", bytes([content[0] ^ 1]) + content[1:], b""):
        path.write_bytes(altered)
        with pytest.raises(CheckpointError, match=f"{digest}.*altered"):
            store.load(digest)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{digest}.*{re.escape(name)}"):
        store.load(digest)
    path.write_bytes(content)
    assert store.load(digest)
    shutil.rmtree(tmp_path / digest)
    with pytest.raises(CheckpointError, match=digest):
        store.load(digest)
    assert not store.has(digest)


def test_files_swapped_between_checkpoints_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    one, two = store.save(a_checkpoint(0)), store.save(a_checkpoint(1))
    shutil.copy(tmp_path / two / "weights.safetensors", tmp_path / one / "weights.safetensors")
    with pytest.raises(CheckpointError, match="altered"):
        store.load(one)
    assert store.load(two)


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_half_written_checkpoints_are_ignored_and_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    store = CheckpointStore(tmp_path)
    kept = store.save(a_checkpoint(0))

    def fails(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, broken, fails)
    with pytest.raises(OSError, match="Input/output"):
        store.save(a_checkpoint(1))
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2
    lost = CheckpointStore(tmp_path / "elsewhere").save(a_checkpoint(1))
    shutil.rmtree(tmp_path / "elsewhere")
    assert not store.has(lost)
    with pytest.raises(CheckpointError, match=lost):
        store.load(lost)
    assert store.load(kept)
    store.sweep({kept})
    assert [path.name for path in tmp_path.iterdir()] == [kept]
    assert store.save(a_checkpoint(1)) == lost
    assert store.load(lost)
    store.sweep({lost})
    assert [path.name for path in tmp_path.iterdir()] == [lost]
    CheckpointStore(tmp_path / "never").sweep(set())


def test_two_workers_that_write_the_same_checkpoint_end_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(source: Path, target: Path) -> None:
        shutil.copytree(source, target)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(os, "rename", overtaken)
    store = CheckpointStore(tmp_path)
    digest = store.save(a_checkpoint())
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    assert store.load(digest)


def test_a_checkpoint_holds_json_and_safetensors_and_no_pickle(tmp_path: Path) -> None:
    digest = CheckpointStore(tmp_path).save(a_checkpoint())
    files = sorted((tmp_path / digest).iterdir())
    assert [path.name for path in files] == sorted(
        ["architecture.json", "weights.safetensors", "optimizer.safetensors", "preprocessing.json", "strategy.json"]
    )
    for path in files:
        assert not path.read_bytes().startswith((b"\x80", b"PK"))
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            with safe_open(path, "np") as tensors:
                assert list(tensors.keys())


# The folder

HOLDER = """
import sys
from pathlib import Path
from raygrow.population.folder import CampaignFolder
with CampaignFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_freed_when_it_is_killed(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Refused, match="another raygrow process runs in this folder"), folder.locked():
            pass
        holder.kill()
        holder.wait()
        with folder.locked():
            pass
    # Left in order, and left by an exception.
    with pytest.raises(ZeroDivisionError, match="division"), folder.locked():
        raise ZeroDivisionError("division")
    with folder.locked(), pytest.raises(Refused, match="another"), CampaignFolder(folder.root).locked():
        pass


def test_a_used_folder_and_an_absent_campaign_are_refused(tmp_path: Path) -> None:
    CampaignFolder(tmp_path / "new").refuse_if_used()
    CampaignFolder(tmp_path).refuse_if_used()
    with pytest.raises(LedgerError, match="no campaign here"):
        CampaignFolder(tmp_path / "new").refuse_if_absent()
    (tmp_path / "file").write_text("x")
    for root in (tmp_path, tmp_path / "file"):
        with pytest.raises(Refused, match="must be empty or new, but it already holds files"):
            CampaignFolder(root).refuse_if_used()
    (tmp_path / "config.yaml").write_text("x")
    with pytest.raises(Refused, match="raygrow resume"):
        CampaignFolder(tmp_path).refuse_if_used()


# Lengths


@pytest.mark.parametrize("rows", [1, 7, 100, 333, 1000])
@pytest.mark.parametrize("epochs", ["1", "0.5", ".25", "1.1", "2.3", "3", "0.001"])
def test_epochs_are_that_many_passes_rounded_up(epochs: str, rows: int) -> None:
    for text in (f"{epochs} epochs", f"{epochs} epoch", f" {epochs}epochs "):
        assert examples_of(text, rows) == math.ceil(Fraction(epochs) * rows)


def test_lengths_in_examples_are_what_they_are() -> None:
    assert [examples_of(count, 10) for count in (0, 1, 4000)] == [0, 1, 4000]
    assert [examples_of("0.5 epochs, at least 20", rows) for rows in (10, 40, 41, 100)] == [20, 20, 21, 50]
    for wrong in ("", "epochs", "1 epok", "-1 epochs", "1e3 epochs", "1,5 epochs", "100", "1 epoch 2"):
        with pytest.raises(ValueError, match="`examples` must be a number of examples or epochs"):
            Probe(examples=wrong)


def test_the_final_anneal_begins_at_its_own_rate(tmp_path: Path) -> None:
    """Where nothing trains before it, a rate of its own and that rate for everything are one thing."""
    dataset = prepare(Teacher(inputs=4, units=4, classes=3, rows=200), 0)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())

    def annealed(name: str, **rates: float) -> float:
        training = Training(final_examples=256, **rates)
        member = Member(name="m", strategy=Periodic(), initializer=Tiny(), training=training)
        plan = Plan(data=Teacher(), members=(member,), campaign=Campaign(rounds=0))
        live = Play(tmp_path / name, plan, facts=facts)
        live.run(SerialPool(Worker(plan, facts, dataset, live.folder.store)))  # type: ignore[arg-type]
        return float(live.coordinator.heads["m"].network["validation_loss"])

    assert annealed("own", lr=0.001, final_lr=0.02) == annealed("all", lr=0.02)
    assert annealed("none", lr=0.001) > annealed("own again", lr=0.001, final_lr=0.02)
