"""One budget of growth for the whole population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from raygrow.population.selection.base import AbstractSelection, Bid, Grants


@final
@dataclass(frozen=True, kw_only=True)
class Auction(AbstractSelection):
    """A population-wide budget of added FLOPs a round, granted greedily by gain per added FLOP."""

    kind: Literal["auction"] = "auction"
    added_flops_per_round: float | None = None
    """FLOPs per example, above 0; what is left carries over. Null: members x FLOP budget (or 16 x start) / rounds."""

    def __post_init__(self) -> None:
        if self.added_flops_per_round is not None and not self.added_flops_per_round > 0:
            raise ValueError(f"`added_flops_per_round > 0` must hold, but got {self.added_flops_per_round}")

    def allowance(self, members: int, flops_scale: int, rounds: int) -> float:
        if self.added_flops_per_round is not None:
            return self.added_flops_per_round
        return members * flops_scale / max(rounds, 1)

    def grant(self, bids: Sequence[Bid], allowance: float) -> Grants:
        granted: dict[str, str] = {}
        refused: dict[str, str] = {}
        left = allowance
        for bid in bids:
            if bid.member in granted:
                refused[bid.id] = f"the member's better move {granted[bid.member]} was granted"
            elif bid.added_flops > left:
                refused[bid.id] = f"its {bid.added_flops} added FLOPs exceed the {left:.0f} left in the round's budget"
            else:
                granted[bid.member] = bid.id
                left -= bid.added_flops
        return Grants(tuple(granted.values()), refused, left)
