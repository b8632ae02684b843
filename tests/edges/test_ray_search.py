"""Searches of Ray Tune as baselines: whole cost counted, budgets kept, the same again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrow.architecture import forward_flops, training_flops
from raygrow.baselines import BASELINES, AbstractSearch, Asha, Pbt
from raygrow.baselines.nets import fixed_architecture
from raygrow.data import Split
from raygrow.errors import ConfigError
from raygrow.testing import some_repetition
from raygrow.testing.baselines import MEMBER, SUMMARY

ray = pytest.importorskip("ray")

SMALL = (
    Asha(trials=4, width=(2, 8), epochs=4, grace_epochs=1, reduction_factor=2),
    Pbt(hidden=(4,), population=2, epochs=4, interval=2),
)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One private cluster for all tests here: starting Ray costs more than any of them."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def run(baseline: AbstractSearch, folder: Path, **given: Any) -> dict[str, Any]:
    from raygrow.adapters.ray_search import run_search

    # One at a time: what asha stops depends on the order of arrival.
    return run_search(baseline, some_repetition(folder=folder, **given), concurrent=1)


def test_every_search_is_here() -> None:
    assert {cls for cls in BASELINES if issubclass(cls, AbstractSearch)} == {type(small) for small in SMALL}


@pytest.fixture(scope="module", params=SMALL, ids=lambda small: small.kind)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A search without a budget, and what it gave."""
    return request.param, run(request.param, tmp_path_factory.mktemp("whole"))


def test_a_search_gives_a_campaigns_summary_and_the_same_again(whole: tuple[Any, Any], tmp_path: Path) -> None:
    small, one = whole
    two = run(small, tmp_path)
    assert {**one, "wall_seconds": 0.0} == {**two, "wall_seconds": 0.0}
    best = one["best"]
    assert tuple(one) == SUMMARY
    assert tuple(best) == tuple(key.format("accuracy") for key in MEMBER)
    assert best["history"][-1]["validation_loss"] == best["validation_loss"]
    assert best["test_loss"] < 1.1
    assert not list(tmp_path.iterdir())
    repetition = some_repetition()
    rows = len(repetition.dataset.train) + len(repetition.dataset.search)
    validation = len(repetition.dataset.validation)
    if isinstance(small, Pbt):
        arch = fixed_architecture(repetition, small.hidden)
        epoch = rows * training_flops(arch) + validation * forward_flops(arch)
        assert one["train_flops"] == small.population * small.epochs * epoch
        assert best["train_flops"] == small.epochs * epoch
        # The worse of the two, once: after the last epoch there is nothing to train on.
        assert best["moves_accepted"] == 1
    else:
        assert 4 <= one["rounds"] < 16
        assert best["train_flops"] < one["train_flops"]


def test_a_search_ends_with_its_budget_and_reads_no_test_before(whole: tuple[Any, Any], tmp_path: Path) -> None:
    from raygrow.adapters.ray_search import search

    small, half = whole[0], whole[1]["train_flops"] / 2
    repetition = some_repetition(folder=tmp_path, train_flops=half)
    blind = Split(repetition.dataset.test.x * float("nan"), repetition.dataset.test.y)
    found = search(small, replace(repetition, dataset=replace(repetition.dataset, test=blind)), concurrent=1)
    assert found.stopped_because == "the budget of training FLOPs is spent"
    # Asha ends with the epoch that spends it, networks in step with the last one that all can pay for.
    epoch = 400 * training_flops(fixed_architecture(repetition, (8, 8)))
    assert abs(found.train_flops - half) <= epoch
    assert (found.train_flops <= half) == isinstance(small, Pbt)
    assert found.validation.loss < 1.1


def test_networks_above_the_budget_are_not_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the 4 networks"):
        run(replace(SMALL[0], width=(64, 128), hidden_layers=(1,)), tmp_path, max_flops_per_example=100)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give smaller widths"):
        run(Pbt(hidden=(64,)), tmp_path, max_flops_per_example=100)
    with pytest.raises(ConfigError, match="does not pay for an epoch of 4 networks"):
        run(Pbt(), tmp_path, train_flops=1000)
