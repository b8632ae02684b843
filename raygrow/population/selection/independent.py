"""Every member for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from raygrow.population.selection.base import AbstractSelection, Bid, Grants


@final
@dataclass(frozen=True, kw_only=True)
class Independent(AbstractSelection):
    """Every member takes its own best accepted move: the rule to compare strategies with."""

    kind: Literal["independent"] = "independent"

    def grant(self, bids: Sequence[Bid], allowance: float) -> Grants:
        best: dict[str, str] = {}
        refused: dict[str, str] = {}
        for bid in bids:
            if bid.member in best:
                refused[bid.id] = f"the member's better move {best[bid.member]} was granted"
            else:
                best[bid.member] = bid.id
        return Grants(tuple(best.values()), refused, allowance)
