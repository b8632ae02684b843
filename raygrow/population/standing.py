"""Where a campaign stands, in figures: what its progress, its logs and its metrics show alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For type checkers only: it would bring torch with it.
    from raygrow.population.coordinator import Coordinator
    from raygrow.population.ledger import Event


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Figures of the whole population.

    Attributes:
        phase: ``start``, ``round``, ``finish`` (the final anneal), ``test`` or ``done``.
        round: the open one, from 1; 0 before.
        rounds: at most so many.
        outstanding: tasks of the open phase that were not reported.
        best_validation_loss, flops_per_example: of the head with the lowest; None before the first is finite.
        granted_flops: added FLOPs per example of all moves that were adopted; pruned ones take away.
        train_flops: spent in closed phases.
    """

    phase: str
    round: int
    rounds: int
    outstanding: int
    best_validation_loss: float | None
    flops_per_example: int | None
    granted_flops: int
    train_flops: int


def standing(coordinator: Coordinator) -> Standing:
    """Where a campaign stands after what its coordinator heard."""
    heads = coordinator.heads.values()
    finite = [head.network for head in heads if head.network["validation_loss"] is not None]
    best = min(finite, key=lambda network: float(network["validation_loss"]), default=None)
    return Standing(
        phase=coordinator.phase or "done",
        round=coordinator.round,
        rounds=coordinator.plan.campaign.rounds,
        outstanding=len(coordinator.tasks()),
        best_validation_loss=best["validation_loss"] if best else None,
        flops_per_example=best["flops_per_example"] if best else None,
        # A control has the FLOPs of its parent: whatever the heads have beyond their starts was granted.
        granted_flops=sum(h.network["flops_per_example"] - h.history[0]["flops_per_example"] for h in heads),
        train_flops=sum(head.train_flops for head in heads),
    )


def granted_gain_per_flop(decided: Event) -> float | None:
    """The highest gain per added FLOP that a ``decided`` event granted; None without one, or where FLOPs were saved."""
    granted = set(decided["granted"])
    found = [bid["gain_per_flop"] for bid in decided["ranking"] if bid["id"] in granted]
    return max((ratio for ratio in found if ratio is not None), default=None)
