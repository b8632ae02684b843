"""What a baseline gives back has the form of a campaign's summary, so that tables read one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pytest

from raygrow.app import prepare_campaign, run
from raygrow.architecture import forward_flops, params
from raygrow.baselines import AbstractTrial, Repetition, Trained, entry
from raygrow.config import load_plan
from raygrow.data import AbstractSource
from raygrow.data.builtin import Diabetes
from raygrow.data.teacher import Teacher
from raygrow.population.plan import kind_of
from raygrow.training import Score


@final
@dataclass(frozen=True, kw_only=True)
class Still(AbstractTrial):
    """The start as it is."""

    kind: Literal["still"] = "still"

    def run(self, repetition: Repetition) -> dict[str, Any]:
        arch = repetition.facts.start(repetition.plan.network)
        score = Score(np.array([0.5, np.nan]), 0.25, 7)
        steps = [entry(repetition, 0, arch, score, 7), entry(repetition, 1, arch, score, 12)]
        return Trained(arch, score, score, 12, steps, 1, 0.12345, tried=3, taken=2).summary(self, repetition)


@pytest.mark.parametrize("data", [Teacher(inputs=4, units=4, classes=3, rows=200), Diabetes()], ids=lambda d: d.kind)
def test_a_baselines_summary_has_the_keys_of_a_campaigns(data: AbstractSource, tmp_path: Path) -> None:
    config = {
        "campaign": {"seed": 5, "rounds": 1},
        "data": data,
        "training": {"examples_per_round": 32, "final_examples": 32},
        "growth": {"units": [2]},
        "probe": {"examples": 32, "blocks": 2},
        "members": [{"strategy": "mdl"}],
        "budget": {"max_train_flops": 1e12},
        "pool": {"kind": "serial"},
        "tracking": {"enabled": False},
    }
    campaign = run(config, out=tmp_path / "campaign", quiet=True).summary
    ready = prepare_campaign(load_plan(config))
    plan, facts = ready.plan, ready.facts

    repetition = Repetition(plan, facts, ready.dataset, tmp_path)
    assert (repetition.seed, repetition.train_flops, repetition.member) == (5, 1e12, plan.members[0])
    found = Still().run(repetition)
    assert list(found) == list(campaign)
    assert list(found["best"]) == list(campaign["best"])
    for step in found["best"]["history"]:
        assert list(step) == list(campaign["best"]["history"][0])
    arch = facts.start(plan.network)
    best = found["best"]
    assert found["members"] == [best]
    assert (best["strategy"], best["initializer"]) == (kind_of(Still()), None)
    assert (best["flops_per_example"], best["params"]) == (forward_flops(arch), params(arch))
    assert (best["moves_probed"], best["moves_accepted"]) == (3, 2)
    assert (found["train_flops"], best["train_flops"], found["wall_seconds"]) == (12, 12, 0.123)
    # A loss that is not finite has no word in JSON.
    assert best["validation_loss"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found
