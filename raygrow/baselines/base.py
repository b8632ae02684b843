"""What every baseline is given, and what it gives back: the same figures as a campaign, counted alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raygrow.architecture import Architecture, forward_flops, params
from raygrow.data import METRICS, Dataset
from raygrow.population.ledger import finite
from raygrow.population.plan import Facts, Member, Plan, kind_of
from raygrow.training import Score


@dataclass(frozen=True, eq=False)
class Repetition:
    """One data set and seed: what every arm of a comparison sees alike.

    Attributes:
        plan: of a campaign with one member, with the seed of the repetition; a baseline reads ``training``, ``network`` and
            ``budget`` and leaves the rest.
        facts: of the data.
        dataset: as prepared. ``test`` is read once, for the chosen network.
        folder: of the trial, there already.
    """

    plan: Plan
    facts: Facts
    dataset: Dataset
    folder: Path

    @property
    def seed(self) -> int:
        """From which all randomness of the trial is derived."""
        return self.plan.campaign.seed

    @property
    def member(self) -> Member:
        """With the training that the campaigns of this repetition have."""
        return self.plan.members[0]

    @property
    def train_flops(self) -> float | None:
        """Most training FLOPs of the whole trial; None: no limit."""
        return self.plan.budget.max_train_flops


@dataclass(frozen=True, eq=False)
class Trained:
    """The network that a baseline arrived at, and what it took to get there.

    Attributes:
        arch: of the chosen network.
        validation: of the chosen network.
        test: likewise, read once.
        train_flops: of everything that was trained and evaluated to find it, the test read excepted.
        history: networks on the way, as ``entry`` makes them, the chosen one last; training FLOPs grow along it.
        rounds: of whatever the baseline repeats.
        wall_seconds: from the prepared data to the chosen network.
        lineage_train_flops: of the chosen network alone; None: the same as ``train_flops``.
        tried, taken: changes or configurations that were tried, and those that were taken.
        stopped_because: in words.
    """

    arch: Architecture
    validation: Score
    test: Score
    train_flops: int
    history: Sequence[Mapping[str, Any]]
    rounds: int
    wall_seconds: float
    lineage_train_flops: int | None = None
    tried: int = 0
    taken: int = 0
    stopped_because: str | None = None

    def summary(self, baseline: AbstractBaseline, repetition: Repetition) -> dict[str, Any]:
        """The content of ``summary.json``, with the keys that a campaign of one member has."""
        metric = METRICS[repetition.facts.task]
        kind = kind_of(baseline)
        lineage = self.train_flops if self.lineage_train_flops is None else self.lineage_train_flops
        member = {
            "member": kind,
            "strategy": kind,
            "initializer": None,
            "arch_id": self.arch.arch_id,
            "validation_loss": self.validation.loss,
            f"validation_{metric}": self.validation.metric,
            "test_loss": self.test.loss,
            f"test_{metric}": self.test.metric,
            "checkpoint": None,
            "params": params(self.arch),
            "flops_per_example": forward_flops(self.arch),
            "train_flops": lineage,
            "moves_accepted": self.taken,
            "moves_probed": self.tried,
            "stopped_because": self.stopped_because,
            "history": [dict(step) for step in self.history],
        }
        found: dict[str, Any] = finite(
            {
                "campaign": repetition.plan.campaign.name,
                "seed": repetition.seed,
                "task": repetition.facts.task,
                "rounds": self.rounds,
                "wall_seconds": round(self.wall_seconds, 3),
                "train_flops": self.train_flops,
                "interrupted": False,
                "stopped_because": self.stopped_because,
                "best": member,
                "members": [member],
            }
        )
        return found


def entry(
    repetition: Repetition, round_: int, arch: Architecture, validation: Score, train_flops: int
) -> dict[str, Any]:
    """One line of a history.

    Args:
        round_: from 0 on, of whatever the baseline repeats.
        train_flops: spent by the whole trial until this network was there and measured.
    """
    return {
        "round": round_,
        "arch_id": arch.arch_id,
        "checkpoint": None,
        "flops_per_example": forward_flops(arch),
        "train_flops": train_flops,
        "validation_loss": validation.loss,
        f"validation_{METRICS[repetition.facts.task]}": validation.metric,
    }


class AbstractBaseline:
    """One baseline. Concrete classes are final frozen dataclasses with a ``kind`` field."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}


class AbstractTrial(AbstractBaseline, ABC):
    """A baseline that runs in the trial's own process, on one thread."""

    @abstractmethod
    def run(self, repetition: Repetition) -> dict[str, Any]:
        """Train, choose on validation, read test once.

        Returns:
            ``Trained.summary``: the same figures for the same repetition, timings excepted.
        """


class AbstractSearch(AbstractBaseline):
    """A baseline that is a search of Ray Tune of its own; ``raygrow.adapters.ray_search`` runs it."""
