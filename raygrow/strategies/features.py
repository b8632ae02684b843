"""The state vector of a candidate, the same for every strategy and every record of a move."""

from __future__ import annotations

import math
from collections.abc import Mapping

from raygrow.architecture import GROWING_MOVES

FEATURES: tuple[str, ...] = (
    "constant",
    "predicted_gain",
    "prediction_t",
    "log_flops_ratio",
    "log_units",
    *(f"is_{kind.kind}" for kind in GROWING_MOVES),
    "bottleneck_share",
    "validation_loss",
    "budget_used",
    "rounds_since_growth",
    "last_gain",
    "progress",
)


MEASURED = ("predicted_gain", "prediction_t", "bottleneck_share")
"""Those that need statistics, which are not collected for a strategy that makes no use of predictions."""


def describe(known: Mapping[str, float], move: str) -> tuple[float | None, ...]:
    """The vector named by ``FEATURES``, of order one.

    Args:
        known: ``predicted_gain``, ``validation_loss`` and ``last_gain`` in units of the constant prediction's loss;
            ``prediction_t``; ``flops_ratio`` (added over parent's); ``units``; ``bottleneck_share``; ``budget_used`` and
            ``progress`` in [0, 1]; ``rounds_since_growth``. Those in ``MEASURED`` may be absent and are then None.
        move: kind of the move.
    """
    t = known.get("prediction_t")
    values: dict[str, float | None] = {
        "constant": 1.0,
        "predicted_gain": known.get("predicted_gain"),
        "prediction_t": None if t is None else min(max(t, -10.0), 10.0) / 10.0,
        "log_flops_ratio": math.log1p(max(known["flops_ratio"], 0.0)),
        "log_units": math.log2(1.0 + known["units"]) / 8.0,
        **{f"is_{kind.kind}": float(move == kind.kind) for kind in GROWING_MOVES},
        "bottleneck_share": known.get("bottleneck_share"),
        "validation_loss": known["validation_loss"],
        "budget_used": known["budget_used"],
        "rounds_since_growth": min(known["rounds_since_growth"], 10.0) / 10.0,
        "last_gain": known["last_gain"],
        "progress": known["progress"],
    }
    return tuple(None if (value := values[name]) is None else float(value) for name in FEATURES)
