"""What every baseline must keep."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raygrow.baselines import AbstractTrial, Repetition
from raygrow.data import AbstractSource, Dataset, Split, prepare
from raygrow.data.lorenz96 import Lorenz96
from raygrow.data.teacher import Teacher
from raygrow.errors import Refused
from raygrow.growth.initializers import INITIALIZERS
from raygrow.population.plan import Budget, Campaign, Facts, Growth, Member, NetworkPlan, Plan, Training
from raygrow.strategies import STRATEGIES

SUMMARY = (
    "campaign", "seed", "task", "rounds", "wall_seconds", "train_flops", "interrupted", "stopped_because", "best", "members",
)  # fmt: skip
MEMBER = (
    "member", "strategy", "initializer", "arch_id", "validation_loss", "validation_{}", "test_loss", "test_{}", "checkpoint",
    "params", "flops_per_example", "train_flops", "moves_accepted", "moves_probed", "stopped_because", "history",
)  # fmt: skip
METRICS = {"classification": "accuracy", "regression": "r2"}
EASY: tuple[AbstractSource, ...] = (
    Teacher(inputs=4, units=4, classes=3, rows=400),
    Lorenz96(variables=4, rows=400, interval=0.02),
)
"""A classification and a regression of which even a linear model learns something."""


def some_repetition(
    source: AbstractSource = EASY[0],
    seed: int = 0,
    train_flops: float | None = None,
    max_flops_per_example: int | None = None,
    network: NetworkPlan | None = None,
    folder: Path = Path(),
) -> Repetition:
    """A repetition on a small data set, with short lengths of training."""
    dataset = prepare(source, seed)
    training = Training(lr=0.01, final_lr=0.02, batch_size=16, examples_per_round=160, final_examples="2 epochs")
    growth = Growth(units=(2, 4))
    member = Member(
        name="one", strategy=STRATEGIES[0](), initializer=INITIALIZERS[0](), training=training, growth=growth
    )
    plan = Plan(
        data=source,
        members=(member,),
        campaign=Campaign(seed=seed),
        network=network or NetworkPlan(),
        training=training,
        growth=growth,
        budget=Budget(max_flops_per_example=max_flops_per_example, max_train_flops=train_flops),
    )
    facts = Facts(
        dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss(), dataset.shape
    )
    return Repetition(plan, facts, dataset, folder)


def counted() -> FlopCounterMode:
    """torch's counter, which counts the products that make a tensor; those that are added to one count here too."""

    def product(total: Sequence[int], one: Sequence[int], other: Sequence[int], **_: object) -> int:
        return 2 * math.prod(one) * other[-1]

    added = {torch.ops.aten.addmm_: product, torch.ops.aten.baddbmm_: product}
    return FlopCounterMode(display=False, custom_mapping=added)


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what differs from run to run, and without the test figures."""
    best = {key: value for key, value in summary["best"].items() if not key.startswith("test_")}
    return {**summary, "wall_seconds": 0.0, "best": best, "members": [best]}


class BaselineContract:
    """What every baseline that is no search of Ray Tune must keep.

    Attributes:
        subject: the one under test, small: a second on a few hundred rows.
    """

    subject: AbstractTrial

    def test_gives_the_summary_of_a_campaign(self) -> None:
        for source in EASY:
            summary = self.subject.run(some_repetition(source))
            metric = METRICS[summary["task"]]
            best = summary["best"]
            assert tuple(summary) == SUMMARY
            assert tuple(best) == tuple(key.format(metric) for key in MEMBER)
            assert summary["members"] == [best]
            assert (best["strategy"], best["initializer"]) == (best["member"], None)
            assert json.loads(json.dumps(summary, allow_nan=False)) == summary
            assert 0 < best["train_flops"] <= summary["train_flops"]
            steps = best["history"]
            assert [step["round"] for step in steps] == list(range(len(steps)))
            spent = [step["train_flops"] for step in steps]
            assert spent == sorted(spent) and spent[-1] <= summary["train_flops"]
            for key in ("arch_id", "validation_loss", f"validation_{metric}", "flops_per_example"):
                assert steps[-1][key] == best[key]
            assert best[f"validation_{metric}"] >= max(step[f"validation_{metric}"] for step in steps) - self.slack

    slack = 0.0
    """What the chosen network may lie below the best of its history: of a baseline that weighs size against it."""

    def test_is_the_same_again(self) -> None:
        one, two = (self.subject.run(some_repetition()) for _ in range(2))
        assert {**one, "wall_seconds": 0.0} == {**two, "wall_seconds": 0.0}

    def test_counts_the_training_flops_that_torch_counts(self) -> None:
        for source in EASY:
            # The counter is slow.
            repetition = some_repetition(replace(source, rows=80))  # type: ignore[call-arg]
            with counted() as counter:
                summary = self.subject.run(repetition)
            read = len(repetition.dataset.test) * summary["best"]["flops_per_example"]
            assert summary["train_flops"] + read == counter.get_total_flops()

    def test_keeps_to_a_budget_of_training_flops(self) -> None:
        whole = self.subject.run(some_repetition())
        repetition = some_repetition(train_flops=0.6 * whole["train_flops"])
        cut = self.subject.run(repetition)
        # A training step costs three forward passes at most.
        epoch = 3 * len(repetition.dataset.train) * cut["best"]["flops_per_example"]
        assert 0.3 * repetition.train_flops <= cut["train_flops"] <= repetition.train_flops + epoch  # type: ignore[operator]

    def test_refuses_a_budget_that_pays_for_nothing(self) -> None:
        with pytest.raises(Refused, match="train_flops"):
            self.subject.run(some_repetition(train_flops=10.0))

    def test_a_network_above_the_flops_allowed_is_never_chosen(self) -> None:
        limit = max(self.subject.run(some_repetition())["best"]["flops_per_example"] // 2, 24)
        refused: list[Refused] = []
        try:
            assert self.subject.run(some_repetition(max_flops_per_example=limit))["best"]["flops_per_example"] <= limit
        except Refused as error:
            refused.append(error)
        assert all("budget" in str(error) for error in refused)

    def test_nothing_is_decided_by_the_test_split(self) -> None:
        for source in EASY:
            repetition = some_repetition(source)
            honest, blind = (self.subject.run(one) for one in (repetition, _poisoned(repetition)))
            assert _figures(honest) == _figures(blind)
            assert honest["best"]["test_loss"] != blind["best"]["test_loss"]

    def test_is_better_than_a_constant(self) -> None:
        for source in EASY:
            repetition = some_repetition(source)
            best = self.subject.run(repetition)["best"]
            assert best["test_loss"] < 0.9 * repetition.facts.constant_loss


def _poisoned(repetition: Repetition) -> Repetition:
    """The same repetition with a test split of wrong answers to no question."""
    data: Dataset = repetition.dataset
    test = Split(np.full_like(data.test.x, 3.0), data.test.y[::-1].copy())
    return replace(repetition, dataset=replace(data, test=test))
