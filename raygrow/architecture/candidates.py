"""Candidates: a move on an architecture with the way its weights begin. Small, serialisable, no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raygrow.architecture.cost import forward_flops, params
from raygrow.architecture.moves import AbstractMove, move_from_json
from raygrow.architecture.spec import Architecture


@dataclass(frozen=True)
class Candidate:
    """One move a member could make in one round.

    Attributes:
        member: name of the member.
        round: number of the round, from 1.
        parent: architecture the move acts on.
        move: the move.
        initializer: kind of the initializer that builds the new weights.
        seed: 63-bit seed of the initializer's draws.
    """

    member: str
    round: int
    parent: Architecture
    move: AbstractMove
    initializer: str
    seed: int

    @property
    def id(self) -> str:
        """Unique in a campaign; candidates are always sorted by it, never by arrival."""
        return f"{self.member}/{self.round:04d}/{self.move.key}"

    @property
    def arch(self) -> Architecture:
        return self.move.apply(self.parent)

    @property
    def added_flops(self) -> int:
        """Forward FLOPs per example of the grown architecture minus its parent's."""
        return forward_flops(self.arch) - forward_flops(self.parent)

    @property
    def added_params(self) -> int:
        return params(self.arch) - params(self.parent)

    def to_json(self) -> dict[str, Any]:
        return {
            "member": self.member,
            "round": self.round,
            "parent": self.parent.to_json(),
            "move": self.move.to_json(),
            "initializer": self.initializer,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Candidate:
        return cls(
            form["member"],
            form["round"],
            Architecture.from_json(form["parent"]),
            move_from_json(form["move"]),
            form["initializer"],
            form["seed"],
        )
