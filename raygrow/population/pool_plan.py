"""The section of a configuration that a pool can be started from, read without torch; ``plan`` has the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


def check_least(least: float, **values: float | None) -> None:
    """Refuse, with the name, a value below ``least`` or not finite."""
    for name, value in values.items():
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ValueError(f"`{name} >= {least}` must hold, but got {value}")


class Section:
    """A part of the configuration; unknown keys are refused."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class PoolPlan(Section):
    """Where the work runs; no figure of a campaign depends on it."""

    kind: Literal["ray", "serial"] = "ray"
    """``ray``: actors on this machine or a cluster; ``serial``: in this process."""
    actors: int | None = None
    """Ray actors, at least 1; null: one a member. With fewer, an actor serves several members."""
    cpus_per_actor: float = 0.5
    """CPUs that Ray sets aside for an actor, above 0. An actor computes on one thread."""
    gpus_per_actor: float = 0.0
    """GPUs that Ray sets aside for an actor, 0 or more; above 0 the networks live on it, with the serial pool too."""
    ready_seconds: float = 180.0
    """Seconds that a cluster may take to place an actor, 1 or more, before the campaign is refused (or, in the place of one
    that it lost, ends): more where nodes are made on demand."""

    def __post_init__(self) -> None:
        check_least(1, actors=self.actors, ready_seconds=self.ready_seconds)
        check_least(0, gpus_per_actor=self.gpus_per_actor)
        if not 0 < self.cpus_per_actor < math.inf:
            raise ValueError(f"`cpus_per_actor > 0` must hold and be finite, but got {self.cpus_per_actor}")

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where networks live."""
        return "cuda" if self.gpus_per_actor > 0 else "cpu"

    def actors_for(self, members: int) -> int:
        """No more than there are members."""
        return min(self.actors or members, members)
