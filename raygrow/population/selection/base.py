"""How accepted moves of a whole population are granted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Bid:
    """An accepted candidate as the coordinator sees it: figures, no tensors.

    Attributes:
        id, member: of the candidate.
        gain: mean paired loss difference on validation.
        value: gain less price x added FLOPs, above 0.
        added_flops: per example.
    """

    id: str
    member: str
    gain: float
    value: float
    added_flops: int

    @property
    def gain_per_flop(self) -> float | None:
        """None for added FLOPs <= 0, which never divide."""
        return self.gain / self.added_flops if self.added_flops > 0 else None


def ranked(bids: Sequence[Bid]) -> tuple[Bid, ...]:
    """By gain per added FLOP; moves that save FLOPs come first, by value; ties by id."""

    def key(bid: Bid) -> tuple[int, float, str]:
        ratio = bid.gain_per_flop
        return (0, -bid.value, bid.id) if ratio is None else (1, -ratio, bid.id)

    return tuple(sorted(bids, key=key))


@dataclass(frozen=True)
class Grants:
    """What a selection rule decided.

    Attributes:
        granted: candidate ids, at most one a member.
        refused: why each other bid was not granted, by id.
        carried: allowance of added FLOPs left for the next round.
    """

    granted: tuple[str, ...]
    refused: dict[str, str]
    carried: float


class AbstractSelection(ABC):
    """One selection rule. Concrete classes are final frozen dataclasses with a ``kind`` field."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}

    def allowance(self, members: int, flops_scale: int, rounds: int) -> float:
        """Added FLOPs that the population may spend in a round; infinite where the rule has no such budget."""
        return float("inf")

    @abstractmethod
    def grant(self, bids: Sequence[Bid], allowance: float) -> Grants:
        """Grant at most one bid a member.

        Args:
            bids: as ``ranked``.
            allowance: added FLOPs to spend now, what was carried over included.
        """
