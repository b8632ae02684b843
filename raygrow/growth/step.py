"""One growth step at one site out of its parts: new weights, their amplitude, the grown network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from raygrow.architecture import AbstractMove, Site
from raygrow.errors import MoveError
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers.base import AbstractInitializer
from raygrow.growth.line_search import LineSearch, Searched, line_search
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import response
from raygrow.growth.statistics import Sample
from raygrow.growth.sweep import passed
from raygrow.nn import Extension, Network, graft
from raygrow.nn.losses import AbstractLoss


def unrecorded(network: Network, *, differentiates: bool) -> AbstractContextManager[object]:
    """The mode that a growth step is computed in: torch's inference mode where nothing in it asks autograd for anything.

    A step of a small network is some three hundred calls of a few microseconds, and autograd's bookkeeping is part of each
    even where it records nothing. Norms are differentiated by autograd, and on maps arithmetic outweighs the calls.

    Args:
        differentiates: whether the initializer, or anything else that takes part, may.
    """
    return nullcontext() if differentiates or not network.arch.plain else torch.inference_mode()


def amplified(extension: Extension, site: Site, search: Searched, meter: Meter) -> tuple[Extension, LineSearch]:
    """The extension with its fan-out scaled to the amplitude of least loss on ``search``; scale 0 where there is none."""
    deltas = response(extension, site, search.trace.values, meter)
    found = line_search(search, deltas, meter)
    return extension.scaled(found.scale), found


@dataclass(frozen=True)
class Growth:
    """A network after one growth step.

    Attributes:
        network: the grown network; the parent's weights are as they were.
        found: amplitude and drop of the loss on the search examples.
    """

    network: Network
    found: LineSearch


def grow(
    network: Network,
    move: AbstractMove,
    initializer: AbstractInitializer,
    sample: Sample,
    search: tuple[torch.Tensor, torch.Tensor],
    loss: AbstractLoss,
    generator: torch.Generator,
    meter: Meter,
) -> Growth:
    """Grow a network by one move at a given site, without a prediction: statistics, solve, line search, apply.

    Args:
        sample: statistics examples; keep it from one step to the next, and what depends on the input alone is not redone.
        search: x [n, inputs] and y of the examples that choose the amplitude.

    Raises:
        MoveError: the move has no site or the initializer does not support it.
        FloatingPointError: the network has diverged on the statistics examples.
    """
    site = move.place(network.arch)
    if site is None or type(move) not in initializer.supports:
        raise MoveError(f"{move!r}: {type(initializer).__name__} cannot begin the weights of this move")
    found = LineSearch(1.0, 0.0)
    with unrecorded(network, differentiates=initializer.differentiates):
        statistics = passed(network, sample, loss, meter).statistics(site.targets, meter)
        residuals = Residuals(statistics.whole, meter)
        extension = initializer.begin(residuals, site, (move.units,), generator, meter)[move.units]
        if initializer.line_searched:
            extension, found = amplified(extension, site, Searched(network, *search, loss, meter), meter)
    return Growth(graft(network, move, extension), found)
