"""Augmentation as part of training: what varies, what does not, and who sees the same. What it draws: test_data_images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raygrow.app import prepare_campaign
from raygrow.architecture import digest_seed
from raygrow.config import load_plan
from raygrow.errors import ConfigError
from raygrow.nn import Network, OptimizerPlan
from raygrow.nn.losses import CrossEntropy
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.tasks import Task
from raygrow.population.worker import Worker
from raygrow.testing import a_network
from raygrow.training import Examples, Fork, Lesson, examples, teach
from raygrow.training.augment import Augment, augmented
from tests.core.test_autograd import some
from tests.core.test_maps import a_map_network

VARIED = Augment(shift=1, flip=True, cutout=2)


def learned(network: Network, data: Examples, order: torch.Tensor, forks: int = 1) -> list[Network]:
    lesson = Lesson([Fork(network, {})] * forks, data, [order], 8, CrossEntropy(), OptimizerPlan("adam", 0.01))
    return [fork.network for fork in teach([lesson])[0]]


@pytest.mark.parametrize(
    ("network", "shape"),
    [(a_network("gelu"), (1, 5)), (a_map_network("batch"), (2, 8, 7))],
    ids=["packed", "through autograd"],
)
def test_training_sees_each_example_anew(
    network: Network, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the augmented rows, drawn piece by piece from the seed of the order, had been the data."""
    monkeypatch.setattr(examples, "GATHER", 16)
    plain = some(40, math.prod(shape))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(digest_seed("augment", *order[:8].tolist()))
    pieces = [augmented(x, shape, VARIED, generator) for x in torch.split(plain.x[order], 16)]
    wanted = learned(network, Examples(torch.cat(pieces), plain.y[order]), torch.arange(40))[0]
    for fork in learned(network, replace(plain, augment=VARIED, shape=shape), order, forks=2):
        for name, tensor in wanted.named.items():
            assert torch.allclose(fork.named[name], tensor, rtol=1e-9, atol=1e-11), name
    assert any(
        not torch.allclose(tensor, wanted.named[name])
        for name, tensor in learned(network, plain, order)[0].named.items()
    )


def test_what_is_taken_for_statistics_does_not_vary() -> None:
    data = replace(some(9, 112), augment=VARIED, shape=(2, 8, 7))
    assert torch.equal(data.take(torch.arange(9)).x, data.x)


def config(**changes: object) -> dict[str, object]:
    return {
        "data": {"kind": "patterns", "size": 8, "rows": 300},
        "network": {"family": "vgg"},
        "training": {"examples_per_round": 64, "final_examples": 64, **changes},
        "growth": {"statistics_examples": 32, "candidates": 1, "units": [2]},
        "probe": {"examples": 32},
        "members": [{"strategy": {"kind": "periodic"}, "initializer": {"kind": "random"}}],
    }


def test_every_lesson_of_a_member_is_augmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Augment] = []

    def noting(data: Examples, *rest: object) -> object:
        seen.append(data.augment)
        return gathered(data, *rest)  # type: ignore[arg-type]

    gathered = examples.gathered
    monkeypatch.setattr("raygrow.training.autograd.gathered", noting)
    ready = prepare_campaign(load_plan(config(augment={"shift": 1})))
    worker = Worker(ready.plan, ready.facts, ready.dataset, CheckpointStore(tmp_path))
    name = ready.plan.members[0].name
    (begun,) = worker.run([Task("start", name, 0)])
    for phase in ("round", "finish"):
        worker.run([Task(phase, name, 1, begun["head"]["checkpoint"])])
    assert len(seen) >= 3
    assert set(seen) == {Augment(shift=1)}


def test_vectors_and_unknown_keys_are_refused() -> None:
    vectors = load_plan({**config(augment={"flip": True}), "data": {"kind": "digits"}, "network": {}})
    with pytest.raises(ConfigError, match=r"`members\.0\.training\.augment`: .* these are vectors: set data\.shape"):
        prepare_campaign(vectors)
    with pytest.raises(ConfigError, match=r"unknown key `training\.augment\.flips` \(did you mean `flip`\?\)"):
        load_plan(config(augment={"flips": True}))
