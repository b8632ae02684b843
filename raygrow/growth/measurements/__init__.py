"""What strategies may ask to be measured: one file each, and the one list of them."""

import importlib

from raygrow.growth.measurements.added_depth import AddedDepth
from raygrow.growth.measurements.base import AbstractMeasurement, Subject
from raygrow.growth.measurements.effective_dimension import EffectiveDimension
from raygrow.growth.measurements.integrated_gradient import IntegratedGradient
from raygrow.growth.measurements.natural_expansion import NaturalExpansion
from raygrow.growth.measurements.natural_gradient import NaturalGradient
from raygrow.growth.measurements.width import Width

MEASUREMENTS: tuple[type[AbstractMeasurement], ...] = (
    Width, AddedDepth, EffectiveDimension, NaturalGradient, NaturalExpansion, IntegratedGradient,
)  # fmt: skip


def measurement_named(name: str) -> type[AbstractMeasurement]:
    """A measurement by its name, or a user's own as ``module:Class``.

    Raises:
        ValueError: there is none of that name.
    """
    known = {measurement.name: measurement for measurement in MEASUREMENTS}
    if name in known:
        return known[name]
    module, colon, cls = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), cls) if colon else None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import the measurement {name!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, AbstractMeasurement)):
        raise ValueError(f"unknown measurement {name!r}; known: {', '.join(known)}, or `module:Class` of your own")
    return found


__all__ = [
    "MEASUREMENTS", "AbstractMeasurement", "AddedDepth", "EffectiveDimension", "IntegratedGradient", "NaturalExpansion",
    "NaturalGradient", "Subject", "Width", "measurement_named",
]  # fmt: skip
