"""Readings: how the value of one node enters the pre-activation of another. One file each.

A value has *units* (channels) and a *grid* of positions: () for a vector, (length,) for a signal, (height, width) for an
image. Every weighted reading is a matrix applied to *rows*: the linear map to a vector, the patches of a convolution, the
cells of a pooled map. So one mathematics of growth serves them all; ``raygrow.nn.maps`` holds their tensors.

A new way to read is a file here, an entry in ``READINGS``, and its tensors under the same name in ``MAPS``. ``Transposed``
came in so: tokens, the positions of a map read as units, needed no branch elsewhere. Attention would too: a weighted reading of
[d, T] whose matrix acts on rows mixed over positions. With the attention pattern P fixed, one head adds P h W_v^T W_o^T, so
``rows`` are P h, the weight is the product W_o W_v by head, and the closed forms of growth_math 1.2 hold with these rows; the
queries and keys are a second pair of readings whose product is P, grown by the form of growth_math 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raygrow.architecture.readings.base import AbstractReading, Grid
from raygrow.architecture.readings.convolution import Convolution
from raygrow.architecture.readings.identity import Identity
from raygrow.architecture.readings.linear import Linear
from raygrow.architecture.readings.pooled import Pooled
from raygrow.architecture.readings.transposed import Transposed
from raygrow.errors import MoveError

__all__ = [
    "LINEAR", "READINGS", "AbstractReading", "Convolution", "Grid", "Identity", "Linear", "Pooled", "Transposed",
    "reading_from_json",
]  # fmt: skip

READINGS: tuple[type[AbstractReading], ...] = (Linear, Convolution, Pooled, Identity, Transposed)
LINEAR = Linear()


def reading_from_json(form: Mapping[str, Any]) -> AbstractReading:
    """Inverse of ``AbstractReading.to_json``."""
    for cls in READINGS:
        if cls.kind == form.get("kind"):
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in form.items() if k != "kind"}
            return cls(**given)
    raise MoveError(f"unknown reading {form.get('kind')!r}; known: {', '.join(r.kind for r in READINGS)}")
