"""What is compared: arms, the repetitions they all run in, and the trials that follow. Plain values.

``raygrow.comparison_config`` builds these from YAML; the text under each field is what the documentation shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raygrow.population.pool_plan import Section, check_least

SAFE = r"[\w.-]+"
"""What names of comparisons and data sets are made of: they become folders."""


@dataclass(frozen=True, kw_only=True)
class Stop(Section):
    """How hopeless trials end early."""

    kind: Literal["asha"] = "asha"
    """``asha``: successive halving without waiting (Li et al., MLSys 2020), among the arms of a repetition, on validation
    loss by rounds."""
    grace_rounds: int = 2
    """Rounds before a trial may be stopped, at least 1."""
    reduction: int = 3
    """At each rung the best 1/reduction of what has come that far go on, at least 2."""

    def __post_init__(self) -> None:
        check_least(1, grace_rounds=self.grace_rounds)
        check_least(2, reduction=self.reduction)


@dataclass(frozen=True, kw_only=True)
class Comparison(Section):
    """Name, repetitions and means of a comparison."""

    name: str = "compare"
    """Name of the comparison: letters, digits, dots, dashes and underscores."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One repetition a data set and seed; distinct, 0 or more."""
    concurrent: int | None = None
    """Most trials at once, at least 1; null: as many as the cluster holds."""
    cpus_per_trial: float = 1.0
    """CPUs that Ray sets aside for a trial, beside those of its actors; above 0. A trial computes on one thread."""
    together: int = 1
    """Trials that a process of the cluster is given at once and runs one after another, at least 1: handing out trials of a
    second each costs more than they do. Not with ``stop``."""
    train_flops: float | None = None
    """Most training FLOPs of a trial, checked between rounds, at least 1; null: no limit."""
    stop: Stop | None = None
    """How hopeless trials end early; null: none does. Which ones do depends on the order in which trials come in."""
    reference: str | None = None
    """The arm that the others are compared with; null: the first."""

    def __post_init__(self) -> None:
        if not re.fullmatch(SAFE, self.name) or self.name.startswith("."):
            raise ValueError(f"`name` takes letters, digits, dots, dashes and underscores, but got {self.name!r}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"`seeds` must name at least one, each once, but got {list(self.seeds)}")
        for seed in self.seeds:
            check_least(0, seeds=seed)
        check_least(1, concurrent=self.concurrent, together=self.together, train_flops=self.train_flops)
        if self.together > 1 and self.stop is not None:
            raise ValueError(f"`together` must be 1 where `stop` ends trials early, but got {self.together}")
        if not 0 < self.cpus_per_trial < math.inf:
            raise ValueError(f"`cpus_per_trial > 0` must hold and be finite, but got {self.cpus_per_trial}")


@dataclass(frozen=True)
class Arm:
    """What is compared: one choice on every axis of the grid, or a baseline.

    Attributes:
        name: unique; the choices on the axes that vary.
        strategy: kind of the strategy, or of the baseline.
        initializer: its kind; None for a baseline.
        settings: values of the other grid keys, by dotted path; of a baseline its parameters.
        levels: what the choice on each axis is called; empty for a baseline.
        document: the campaign, all but its data and seed.
        baseline: the baseline itself, or None.
    """

    name: str
    strategy: str
    initializer: str | None
    settings: Mapping[str, Any]
    levels: Mapping[str, str]
    document: Mapping[str, Any]
    baseline: Any = None


@dataclass(frozen=True)
class Trial:
    """One arm in one repetition."""

    arm: Arm
    data: str
    seed: int

    @property
    def id(self) -> str:
        """Also its folder, below ``trials``."""
        return f"{self.arm.name}/{self.data}-{self.seed}"


@dataclass(frozen=True)
class ComparisonPlan:
    """Everything a comparison is told.

    Attributes:
        axes: grid keys that have more than one value.
        data: a section of a configuration by the name of the data set.
        resolved: the whole as plain YAML values, every key explicit; it reads back as the same plan.
    """

    comparison: Comparison
    arms: tuple[Arm, ...]
    axes: tuple[str, ...]
    data: Mapping[str, Mapping[str, Any]]
    resolved: Mapping[str, Any]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Sorted by data set, seed and arm: all arms of a repetition follow one another."""
        found = [Trial(arm, data, seed) for arm in self.arms for data in self.data for seed in self.comparison.seeds]
        return tuple(sorted(found, key=lambda trial: (trial.data, trial.seed, trial.arm.name)))

    def document(self, trial: Trial) -> dict[str, Any]:
        """The configuration of a trial's campaign."""
        document = dict(trial.arm.document)
        document["campaign"] = {**document["campaign"], "seed": trial.seed}
        return {**document, "data": self.data[trial.data]}
