"""One growth step: in torch's inference mode where nothing in it asks autograd for anything, and what it leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

import pytest
import torch

from raygrow.architecture import Site, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer, Tiny
from raygrow.growth.initializers.base import prefixes
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Sample
from raygrow.growth.step import Growth, grow
from raygrow.nn import Extension
from raygrow.nn.losses import LOSSES
from raygrow.testing import a_network, some_examples

LOSS = LOSSES["classification"]


def step(initializer: AbstractInitializer, sample: Sample) -> Growth:
    activation = "relu" if initializer.supports_activation("relu") else "tanh"
    generator = torch.Generator().manual_seed(0)
    search = some_examples("classification", 100, seed=2)
    return grow(a_network(activation), Widen("h2", 2), initializer, sample, search, LOSS, generator, Meter())


@pytest.mark.parametrize("first", INITIALIZERS, ids=lambda cls: cls.__name__)
def test_a_sample_serves_every_initializer_after_any_other(first: type[AbstractInitializer]) -> None:
    """What one left solved in a sample is what the next would have found, and what is grown can be trained."""
    examples = some_examples("classification")
    for second in INITIALIZERS:
        sample = Sample(*examples)
        step(first(), sample)
        after, fresh = step(second(), sample), step(second(), Sample(*examples))
        for a, b in zip(after.network.parameters(), fresh.network.parameters(), strict=True):
            assert torch.equal(a, b)
        assert after.found == fresh.found
        output = after.network(examples[0])
        torch.autograd.backward(LOSS.mean(output, examples[1]))
        assert all(parameter.grad is not None for parameter in after.network.parameters())


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class OneAscent(AbstractInitializer):
    """New units whose fan-in is a gradient that autograd takes; it says nothing of that."""

    supports = frozenset({Widen})
    line_searched = True

    def preserves_function(self, activation: str) -> bool:
        return False

    def extend(
        self, residuals: Residuals, site: Site, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        rows = residuals.fold.reads(site.sources)
        white = rows.whitened(meter)
        drawn = torch.randn(white.shape[1], max(sizes), generator=generator, dtype=torch.float64)
        directions = drawn.to(white).requires_grad_()
        # What was read, and what the sample has solved, takes part in the graph.
        read = torch.tanh(rows.matrix @ rows.reading(directions, meter).T) + (white @ directions).square()
        ascent = (read * residuals.perp(site.targets).sum(1, keepdim=True)).mean()
        (found,) = torch.autograd.grad(ascent, directions)
        found = rows.reading(found, meter)
        omega = torch.ones(residuals.perp(site.targets).shape[1], max(sizes)).to(found)
        return prefixes(residuals, site, sizes, found, omega)


def test_an_initializer_that_says_nothing_may_ask_autograd() -> None:
    """Also of what a step in inference mode left in the sample: autograd takes no tensor of that mode."""
    sample = Sample(*some_examples("classification"))
    step(Tiny(), sample)
    grown = step(OneAscent(), sample)
    assert all(torch.isfinite(parameter).all() for parameter in grown.network.parameters())
