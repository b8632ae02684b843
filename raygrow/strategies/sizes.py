"""Sizes on offer, and the one that comes nearest to what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

from raygrow.strategies.base import Proposal

DEPTH = "added_depth"


def nearest(proposals: Sequence[Proposal], units: int) -> Proposal:
    """The proposal whose size is nearest to ``units``; the smaller of two."""
    return min(proposals, key=lambda p: (abs(p.units - units), p.units, p.id))


def next_layer(proposals: Sequence[Proposal], units: int, turn: int) -> tuple[Proposal, ...]:
    """The next place in turn where a layer makes the network deeper, in the size nearest to ``units``; none: nothing."""
    deeper = [p for p in proposals if p.measurements.get(DEPTH, 0.0) > 0]
    places = sorted({(p.move, p.site) for p in deeper})
    if not places:
        return ()
    place = places[turn % len(places)]
    return (nearest([p for p in deeper if (p.move, p.site) == place], units),)
