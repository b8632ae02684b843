"""A network of a fixed size, trained once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

from raygrow.architecture import Architecture, forward_flops
from raygrow.baselines.base import AbstractTrial, Repetition
from raygrow.baselines.course import CHECKS, Course
from raygrow.baselines.nets import fixed_architecture, started, within_budget
from raygrow.errors import ConfigError
from raygrow.population.lengths import Length, check_length
from raygrow.population.pool_plan import check_least


@final
@dataclass(frozen=True, kw_only=True)
class Fixed(AbstractTrial):
    """A network of these widths from the first step to the last: He start, half a cosine, the best of ten looks.

    Dense layers where the campaigns grow a dag or an mlp, else the stages of their family.
    """

    kind: Literal["fixed"] = "fixed"
    hidden: tuple[int, ...] = (64,)
    """Units of each hidden layer, or channels of each stage, each at least 1; none is the linear model."""
    flops_per_example: int | None = None
    """The widths, in their proportions, of the least network of so many forward FLOPs per example; null: as they are."""
    examples: Length = "40 epochs"
    """Training examples, at least 1; also epochs. A budget of training FLOPs cuts them."""
    lr: float | None = None
    """Learning rate at the first step, above 0; null: that of the campaign's final anneal."""

    def __post_init__(self) -> None:
        check_widths(self.hidden)
        check_least(1, flops_per_example=self.flops_per_example)
        check_length("examples", self.examples, 1)
        check_rate(self.lr)
        if self.flops_per_example is not None and not self.hidden:
            raise ValueError("`flops_per_example` scales `hidden`, which must then name at least one width")

    def run(self, repetition: Repetition) -> dict[str, Any]:
        arch = sized(repetition, self.hidden, self.flops_per_example)
        course = Course(repetition)
        count = course.begin(arch, course.length(self.examples), CHECKS)
        network, found = course.train(started(arch, repetition.seed), count, self.lr, CHECKS)
        return course.finish(self, network, found)


def sized(repetition: Repetition, hidden: tuple[int, ...], flops_per_example: int | None = None) -> Architecture:
    """The fixed network of these widths, or in their proportions of so many FLOPs.

    Raises:
        ConfigError: it is above the budget.
    """

    def scaled(first: int) -> Architecture:
        return fixed_architecture(repetition, [max(round(width * first / hidden[0]), 1) for width in hidden])

    if flops_per_example is None:
        arch = fixed_architecture(repetition, hidden)
    else:
        high = 1
        while forward_flops(scaled(high)) < flops_per_example:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if forward_flops(scaled(middle)) >= flops_per_example else (middle, high)
        arch = scaled(high)
    if not within_budget(repetition, arch):
        raise ConfigError(
            f"`budget`: the fixed network {arch} takes {forward_flops(arch)} FLOPs per example, above what any network may "
            "have: give smaller widths, or raise the budget"
        )
    return arch


def check_widths(hidden: tuple[int, ...]) -> None:
    """Raises ValueError unless every layer has a unit."""
    check_least(1, **{f"hidden.{i}": width for i, width in enumerate(hidden)})


def check_rate(lr: float | None) -> None:
    """Raises ValueError unless ``lr > 0``."""
    check_least(0, lr=lr)
    if lr == 0:
        raise ValueError("`lr > 0` must hold, but got 0")
