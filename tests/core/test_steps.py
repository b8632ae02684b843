"""The step of a store: what it holds, and how it treats new entries, held against torch.optim."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from raygrow.nn import MOMENTS, Network, OptimizerKind, OptimizerPlan
from raygrow.training import Fork
from raygrow.training.place import ALIGNMENT, Place, whole_parameters
from raygrow.training.store import Store

KINDS: tuple[OptimizerKind, ...] = ("adam", "sgd")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def holder(named: Mapping[str, Tensor]) -> Network:
    """What a store needs of a network: parameters of any rank, by name."""
    own = {name: value.clone().requires_grad_() for name, value in named.items()}
    return cast(Network, SimpleNamespace(named=own, parameters=lambda: iter(own.values())))


KERNELS = {"kernel": draw(4, 3, 5, 5), "bias": draw(4, seed=1), "scale": draw(seed=2), "weights": draw(7, 4, seed=3)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_holds_whole_parameters_of_any_rank(kind: OptimizerKind) -> None:
    """One network, gradients filled in from outside: as torch.optim steps, and out and in again at any step."""
    plan, network = OptimizerPlan(kind, 0.03), holder(KERNELS)
    places = whole_parameters(0, network)
    assert all(place.start % ALIGNMENT == 0 for place in places)
    store = Store([Fork(network, {})], [places], plan)
    theirs = holder(KERNELS)
    optimizer: torch.optim.Optimizer
    if kind == "adam":
        optimizer = torch.optim.Adam(theirs.parameters(), lr=0.03, fused=True)
    else:
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.03, momentum=0.9, fused=True)
    for step in range(8):
        if step == 5:
            (state,), network = store.states(), holder(KERNELS)
            store.write([network])
            store = Store([Fork(network, state)], [places], plan)
        for i, (place, parameter) in enumerate(zip(places, theirs.named.values(), strict=True)):
            parameter.grad = draw(*parameter.shape, seed=100 * step + i)
            place.within(store.gradients).copy_(parameter.grad)
        store.step()
        optimizer.step()
    found = holder(KERNELS)
    store.write([found])
    (state,) = store.states()
    for name, parameter in theirs.named.items():
        # Not to the bit: where an entry stands in a vector decides whether its product and sum are rounded once or twice.
        torch.testing.assert_close(found.named[name], parameter, rtol=1e-14, atol=1e-14)
        assert float(state[name]["step"]) == 8
        for key in MOMENTS[kind]:
            torch.testing.assert_close(state[name][key], optimizer.state[parameter][key], rtol=1e-14, atol=1e-14)


def test_a_piece_names_the_leading_dimensions_only() -> None:
    parameter, buffer = draw(4, 3, 2, 2), torch.arange(100.0, dtype=torch.float64)
    place = Place(0, "kernel", (slice(1, None), slice(0, 2)), (3, 2, 2, 2), 10)
    assert place.of(parameter).shape == place.within(buffer).shape == (3, 2, 2, 2)
    assert torch.equal(place.within(buffer).flatten(), buffer[10 : place.stop])
    assert place.stop == 34
