"""Effective dimension: widen a layer whose units all say something of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from raygrow.strategies.base import AbstractStrategy, Evidence, Proposal, Situation, State, Verdict
from raygrow.strategies.sizes import nearest

PHI, WIDTH = "effective_dimension", "width"


@final
@dataclass(frozen=True, kw_only=True)
class North(AbstractStrategy):
    """NORTH*: grow where activations are as diverse as they were at birth (Maile et al., AutoML 2022; growth_math 3).

    A layer of M units with effective dimension phi asks for max(0, floor(M (phi - gamma phi_0))) more, phi_0 its effective
    dimension when first seen. Those that ask for most are probed first, in the nearest size on offer. It is a sign of
    saturation and blind to the loss. The published method starts with all its layers and adds none: here a network without
    a hidden layer gets its first one, at a place drawn at random and in the smallest size that may be full, and no other.

    The published rule has no control: what is probed is accepted. As for every strategy, what does not gain its price
    against the control is rejected all the same.
    """

    predicts = False
    measures = (PHI, WIDTH)

    kind: Literal["north"] = "north"
    gamma: float = 0.9
    """Share of phi_0 below which a layer is not full, in (0, 1). A layer of fewer than 1 / (1 - gamma) units may never be."""
    reference: Literal["birth", "highest"] = "birth"
    """phi_0: of the layer when first seen, or the highest since (published for convolutions, which begin undiverse)."""

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma < 1.0:
            raise ValueError(f"`0 < gamma < 1` must hold, but got {self.gamma}")

    def initial_state(self, constant_loss: float) -> State:
        return {"reference": {}}

    def observe(self, state: State, proposals: Sequence[Proposal], situation: Situation) -> State:
        known = dict(state["reference"])
        for proposal in proposals:
            if (phi := proposal.measurements.get(PHI)) is not None:
                before = known.get(proposal.site, phi)
                known[proposal.site] = max(before, phi) if self.reference == "highest" else before
        return {"reference": known}

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        if not state["reference"]:
            return self._first_layers(proposals, situation.candidates, rng)
        sites: dict[str, list[Proposal]] = {}
        for proposal in proposals:
            if self._wanted(proposal, state) > 0:
                sites.setdefault(proposal.site, []).append(proposal)
        full = sorted(sites, key=lambda site: (-self._wanted(sites[site][0], state), site))
        return tuple(nearest(sites[site], self._wanted(sites[site][0], state)) for site in full[: situation.candidates])

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        proposal = evidence.proposal
        wanted = self._wanted(proposal, state)
        if wanted == 0:
            return Verdict(True, None, None, "there is no hidden layer yet")
        phi, reference = proposal.measurements[PHI], state["reference"][proposal.site]
        return Verdict(
            True,
            float(wanted),
            1.0,
            f"effective dimension {phi:.3g} beside {reference:.3g}: the layer asks for {wanted} more units",
        )

    def _wanted(self, proposal: Proposal, state: State) -> int:
        """Units that the layer asks for."""
        phi, reference = proposal.measurements.get(PHI), state["reference"].get(proposal.site)
        if phi is None or reference is None:
            return 0
        # A whole number of units must not be lost to rounding: 20 (1 - 0.9) is 1.9999999999999996.
        return max(0, math.floor(proposal.measurements[WIDTH] * (phi - self.gamma * float(reference)) + 1e-9))

    def _first_layers(
        self, proposals: Sequence[Proposal], count: int, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        """New nodes of the smallest size on offer that may ask for more units, in random order."""
        nodes = [p for p in proposals if p.move == "add_node"]
        sizes = sorted({p.units for p in nodes})
        enough = [size for size in sizes if math.floor(size * (1 - self.gamma) + 1e-9) > 0] or sizes[-1:]
        there = [p for p in nodes if p.units in enough[:1]]
        return tuple(there[i] for i in rng.permutation(len(there))[:count])
