"""Pure facts about activations; ``raygrow.nn.activations`` holds the functions themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ActivationFacts:
    """What the mathematics of growth needs to know of an activation.

    Attributes:
        at_zero: value at 0.
        slope_at_zero: derivative at 0 as autograd computes it (torch takes relu'(0) = 0).
        gain_at_zero: derivative at 0 of the linearised unit, the mean of both one-sided slopes.
        odd: ``f(-z) = -f(z)``, so that the sign of a fan-in does not matter.
    """

    at_zero: float
    slope_at_zero: float
    gain_at_zero: float
    odd: bool


ACTIVATIONS: Mapping[str, ActivationFacts] = {
    "relu": ActivationFacts(0.0, 0.0, 0.5, odd=False),
    "tanh": ActivationFacts(0.0, 1.0, 1.0, odd=True),
    "gelu": ActivationFacts(0.0, 0.5, 0.5, odd=False),
    "silu": ActivationFacts(0.0, 0.5, 0.5, odd=False),
    "elu": ActivationFacts(0.0, 1.0, 1.0, odd=False),
    "softplus": ActivationFacts(0.6931471805599453, 0.5, 0.5, odd=False),
    "identity": ActivationFacts(0.0, 1.0, 1.0, odd=True),
}
