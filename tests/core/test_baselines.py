"""What a baseline gives back has the form of a campaign's summary, so that tables read one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pytest
import torch

from raygrow.app import prepare_campaign, run
from raygrow.architecture import Architecture, forward_flops, params, training_flops
from raygrow.baselines import (
    BASELINES,
    AbstractSearch,
    AbstractTrial,
    Fixed,
    Neat,
    Pruned,
    RandomSearch,
    Relaxed,
    Repetition,
    Trained,
    entry,
)
from raygrow.baselines.fixed import sized
from raygrow.baselines.neat import mutations, random_extension
from raygrow.baselines.nets import layered, started
from raygrow.baselines.pruned import magnitudes
from raygrow.baselines.relaxed import complete, remaining
from raygrow.config import load_plan
from raygrow.data import AbstractSource, Dataset, Split
from raygrow.data.base import SPLITS
from raygrow.data.builtin import Diabetes
from raygrow.data.lorenz96 import Lorenz96
from raygrow.data.patterns import Patterns
from raygrow.data.teacher import Teacher
from raygrow.errors import ConfigError
from raygrow.nn import graft
from raygrow.population.plan import NetworkPlan, kind_of
from raygrow.testing import BaselineContract, some_repetition
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


SMALL: tuple[AbstractTrial, ...] = (
    Fixed(hidden=(8, 6), examples="12 epochs"),
    RandomSearch(trials=4, width=(2, 8), examples="3 epochs"),
    Pruned(hidden=(10, 6), examples="4 epochs", fine_tune="1 epochs", tolerance=0.05),
    Relaxed(nodes=2, units=3, search_examples="2 epochs", examples="4 epochs"),
    Neat(population=4, generations=3),
)
"""Every baseline that is no search of Ray Tune, in small."""

for _small in SMALL:
    _slack = {"slack": _small.tolerance} if isinstance(_small, Pruned) else {}
    _name = f"Test{type(_small).__name__}"
    globals()[_name] = type(_name, (BaselineContract,), {"subject": _small, **_slack})


def test_the_tuple_holds_every_baseline_once() -> None:
    kinds = [cls.__dataclass_fields__["kind"].default for cls in BASELINES]  # type: ignore[attr-defined]
    assert kinds == ["fixed", "random_search", "asha", "pbt", "pruned", "relaxed", "neat"]
    assert {cls for cls in BASELINES if issubclass(cls, AbstractTrial)} == {type(small) for small in SMALL}
    assert all(issubclass(cls, AbstractTrial) != issubclass(cls, AbstractSearch) for cls in BASELINES)


@pytest.mark.parametrize("small", SMALL, ids=kind_of)
def test_images_are_read_as_vectors_or_refused(small: AbstractTrial) -> None:
    images = Patterns(size=8, rows=120)
    flat = small.run(some_repetition(images))
    assert flat["best"]["validation_loss"] is not None
    convolutions = some_repetition(images, network=NetworkPlan(family="vgg", widths=(2, 2)))
    if isinstance(small, Relaxed):
        with pytest.raises(ConfigError, match="graphs of dense layers"):
            small.run(convolutions)
    elif isinstance(small, RandomSearch):
        with pytest.raises(ConfigError, match="at least one stage"):
            replace(small, hidden_layers=(0,)).run(convolutions)
        assert replace(small, hidden_layers=(1, 2)).run(convolutions)["best"]["flops_per_example"] > 0
    else:
        assert small.run(convolutions)["best"]["flops_per_example"] > 0


def test_a_fixed_net_of_given_flops_is_the_least_that_has_them() -> None:
    repetition = some_repetition()
    for wanted in (1, 100, 1000, 5000):
        arch = sized(repetition, (8, 4), wanted)
        first, second = (arch.size(name) for name in arch.hidden)
        assert second == max(round(first / 2), 1)
        assert forward_flops(arch) >= wanted
        if first > 1:
            smaller = layered(4, [first - 1, max(round((first - 1) / 2), 1)], 3)
            assert forward_flops(smaller) < wanted


def test_a_search_pays_for_all_that_it_trains() -> None:
    repetition = some_repetition()
    search = RandomSearch(trials=5, width=(2, 8), examples="3 epochs")
    summary = search.run(repetition)
    rows, validation = (
        len(repetition.dataset.train) + len(repetition.dataset.search),
        len(repetition.dataset.validation),
    )
    assert summary["rounds"] == 5
    drawn = [arch for arch, _ in search._drawn(repetition)]
    assert len({arch.arch_id for arch in drawn}) > 2
    assert summary["train_flops"] == sum(
        3 * rows * training_flops(arch) + validation * forward_flops(arch) for arch in drawn
    )


def test_pruning_takes_the_units_of_least_magnitude_and_their_flops() -> None:
    network = started(layered(5, [4, 3], 2), 0)
    named = network.named
    with torch.no_grad():
        # Scaled on one side and back on the other, the function is the same, and so must be the magnitude.
        before = magnitudes(network, "h1")
        named["weights.input>h1"][1] *= 100
        named["weights.h1>h2"][:, 1] /= 100
        torch.testing.assert_close(magnitudes(network, "h1"), before)
        named["weights.h1>h2"][:, 2] = 0
    read, fed = (named[name].detach().numpy() for name in ("weights.input>h1", "weights.h1>h2"))
    by_hand = [float(np.linalg.norm(read[i]) * np.linalg.norm(fed[:, i])) for i in range(4)]
    assert magnitudes(network, "h1").tolist() == pytest.approx(by_hand)
    # A unit that nothing reads goes first, and takes nothing with it.
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        named["weights.h2>output"][:, 0] = 0
        smaller = Pruned(fraction=0.25)._smaller(network, some_repetition())
        assert smaller is not None
        torch.testing.assert_close(smaller(x), network(x))
    assert smaller.arch == layered(5, [3, 2], 2)
    assert forward_flops(smaller.arch) < forward_flops(network.arch)


def test_pruning_chooses_the_smallest_near_the_best() -> None:
    pruned = Pruned(hidden=(24,), examples="20 epochs", fine_tune="6 epochs", tolerance=0.03)
    best = pruned.run(some_repetition())["best"]
    whole = forward_flops(layered(4, [24], 3))
    assert best["flops_per_example"] < whole
    assert best["history"][-1]["validation_accuracy"] >= max(s["validation_accuracy"] for s in best["history"]) - 0.03


def test_a_relaxation_loses_edges_and_nothing_else() -> None:
    whole = complete(5, [3, 4], 2, "relu")
    assert len(whole.edges) == 6 and whole.depth == 3
    for count in range(2**6):
        kept = [edge for i, edge in enumerate(whole.edges) if count >> i & 1]
        arch = remaining(whole, kept)
        linear = Architecture.simplest(5, 2)
        assert set(arch.edges) <= set(kept) or arch == linear
        assert set(arch.nodes) <= set(whole.nodes)
        # Independent of how: an edge stays exactly where it lies on a path from the input to the output.
        graph = {(edge.source, edge.target) for edge in kept}
        paths = [p for p in (("input", "output"), ("input", "h1", "output"), ("input", "h2", "output"),
                             ("input", "h1", "h2", "output")) if set(pairwise(p)) <= graph]  # fmt: skip
        on_paths = {step for path in paths for step in pairwise(path)}
        assert {(e.source, e.target) for e in arch.edges} == (on_paths or {("input", "output")})


def test_gates_shut_where_they_cost_more_than_they_bring() -> None:
    """Of a linear task the linear edge alone is worth its price; of a nonlinear one at no price all are."""
    relaxed = Relaxed(nodes=2, units=3, search_examples=3200, examples=32, gate_lr=0.1)
    repetition = some_repetition(Lorenz96(variables=4, rows=400))

    def line(split: Split) -> Split:
        return Split(split.x, split.x[:, ::-1].copy())

    straight = replace(repetition.dataset, **{name: line(getattr(repetition.dataset, name)) for name in SPLITS})

    def edges(dataset: Dataset, price: float) -> int:
        (member,) = repetition.plan.members
        dear = replace(member, growth=replace(member.growth, price=price))
        plan = replace(repetition.plan, members=(dear,))
        return int(relaxed.run(replace(repetition, plan=plan, dataset=dataset))["best"]["moves_accepted"])

    assert edges(straight, 5e-3) == 1
    assert edges(repetition.dataset, 0.0) == 6


@pytest.mark.parametrize("family", ["dag", "mlp", "vgg", "resnet"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_mutations_leave_the_function_as_it_is_and_are_alive(family: str, norm: Any) -> None:
    plan = NetworkPlan(family=family, norm=norm, start="convolution" if family == "dag" else "linear")
    repetition = some_repetition(Patterns(size=8, rows=60), network=plan)
    network = started(repetition.facts.start(plan), 0)
    x = torch.tensor(repetition.dataset.train.x)
    moves = mutations(network, repetition)
    assert {move.kind for move in moves} == ({"widen", "add_node", "add_edge"} if family == "dag" else {"widen"})
    for move in moves:
        grown = graft(network, move, random_extension(network, move, torch.Generator().manual_seed(1)))
        with torch.no_grad():
            torch.testing.assert_close(grown(x), network(x), rtol=1e-4, atol=1e-5)
        loss = torch.nn.functional.cross_entropy(grown(x), torch.tensor(repetition.dataset.train.y))
        loss.backward()
        new = [
            parameter.grad[tuple(slice(n, None) for n in (0, *old.shape[1:]))] if old is not None else parameter.grad
            for name, parameter in grown.named.items()
            if (old := network.named.get(name)) is None or old.shape != parameter.shape
            if parameter.grad is not None
        ]
        assert any(bool((gradient != 0).any()) for gradient in new), move
