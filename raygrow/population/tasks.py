"""What the coordinator asks of a worker, and the names of what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

Phase = Literal["start", "round", "finish", "test"]
Report = dict[str, Any]

NO_LEGAL_MOVE = "no legal move is left within the budget"
"""``why_nothing`` of a round that can never probe again, since its network alone says what is legal."""


@dataclass(frozen=True)
class Task:
    """One member's share of a phase: small and serialisable. Running it twice gives the same report, times excepted.

    Attributes:
        phase: ``start`` writes the simplest network; ``round`` trains, proposes, probes and judges; ``finish`` is the final
            anneal; ``test`` reads the test split.
        member: name.
        round: 0 for ``start``, then from 1; the last round for ``finish`` and ``test``.
        head: digest of the member's checkpoint; empty for ``start``.
        tests: rounds before this one in which the member tested something.
        rounds_since_growth: since its last adopted move (or the start).
        last_gain: of its last adopted move, 0 without one.
    """

    phase: Phase
    member: str
    round: int
    head: str = ""
    tests: int = 0
    rounds_since_growth: int = 0
    last_gain: float = 0.0

    @property
    def id(self) -> str:
        return f"{self.member}/{self.round:04d}/{self.phase}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Task:
        return cls(**form)


@dataclass(frozen=True)
class Costs:
    """Training FLOPs of a task by purpose; their sum is what the campaign spent."""

    training: int = 0
    statistics: int = 0
    solves: int = 0
    probes: int = 0
    evaluation: int = 0

    def to_json(self) -> dict[str, int]:
        return {
            "training": self.training,
            "statistics": self.statistics,
            "solves": self.solves,
            "probes": self.probes,
            "evaluation": self.evaluation,
            "total": self.training + self.statistics + self.solves + self.probes + self.evaluation,
        }


def named(tasks: Sequence[Task]) -> str:
    """Tasks in a message."""
    return f"task{'s' if len(tasks) > 1 else ''} {', '.join(task.id for task in tasks)}"


class Pool(Protocol):
    """Where tasks run. Any order of completion; the coordinator decides only on closed rounds.

    A worker gets several tasks at once where there are fewer workers than tasks, since it runs those of several members
    cheaper together than one by one. What is reported of a task does not depend on its company.
    """

    def submit(self, tasks: Sequence[Task]) -> None:
        """Take all tasks that can run now; they run now or later, in whatever company."""

    def wait(self) -> tuple[Task, Report]:
        """Block until a submitted task is done.

        Raises:
            WorkerLost: a worker died; its ``tasks`` were not reported and may be submitted again.
            CampaignFailed: a task itself failed and would fail again.
        """

    def close(self) -> None:
        """Stop every worker, also in the middle of a task."""
