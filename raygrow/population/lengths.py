"""Lengths of training: a number of examples, or epochs of the training rows."""

from __future__ import annotations

import math
import re
from fractions import Fraction

Length = int | str
_EPOCHS = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*epochs?\s*(?:,\s*at least\s+([0-9]+)\s*)?")


def examples_of(length: Length, rows: int) -> int:
    """A length in examples: a whole number, or ``"1.5 epochs"`` of the training rows, ``"0.5 epochs, at least 2000"``."""
    if isinstance(length, int):
        return length
    found = _EPOCHS.fullmatch(length)
    assert found is not None, length
    return max(math.ceil(Fraction(found[1]) * rows), int(found[2] or 1))


def check_length(name: str, length: Length, least: int) -> None:
    """Refuse, with the name, what is no length or below ``least``."""
    if isinstance(length, int) and not isinstance(length, bool):
        if length < least:
            raise ValueError(f"`{name} >= {least}` examples must hold, but got {length}")
    elif not _EPOCHS.fullmatch(str(length)):
        raise ValueError(f'`{name}` must be a number of examples or epochs such as "1 epoch", but got {length!r}')
