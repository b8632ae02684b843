"""Signals of one waveform at random phase: what a short convolution sees at once, and no single sample tells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raygrow.data.base import AbstractSource, Raw, elements, stream

CLASSES = ("sine", "triangle", "square", "rising_saw", "falling_saw", "pulses")


@dataclass(frozen=True, kw_only=True)
class Waveforms(AbstractSource):
    """Generated signals, 6 classes: sine, triangle, square, two sawtooths and pulses at random phase and frequency."""

    kind: Literal["waveforms"] = "waveforms"
    """The name of this kind of data."""
    length: int = 64
    """Samples of a signal, at least 16."""
    rows: int = 4000
    """Signals in all, before the split; at least 12."""
    noise: float = 0.3
    """Standard deviation of the noise of a sample, above 0 and at most 4; a waveform has unit variance."""
    seed: int | None = None
    """Seed of the signals, an integer >= 0; null: the campaign's seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("length", 16), ("rows", 12), ("seed", 0)):
            self._at_least(field, least)
        self._within("noise", 0.0, 4.0)

    def load(self, seed: int) -> Raw:
        draws = stream("waveforms", seed if self.seed is None else self.seed)
        labels = draws.permutation(np.arange(self.rows) % len(CLASSES))
        period, start, size = draws.uniform([8.0, 0.0, 0.7], [16.0, 1.0, 1.4], (self.rows, 3)).T[:, :, None]
        # Position within the period, 0 to 1. Every waveform has mean 0 and variance 1 over a whole one.
        at = (np.arange(self.length) / period + start) % 1.0
        saw = math.sqrt(3.0) * (2.0 * at - 1.0)
        waves = (
            math.sqrt(2.0) * np.sin(2.0 * math.pi * at),
            math.sqrt(3.0) * (4.0 * np.abs(at - 0.5) - 1.0),
            np.where(at < 0.5, 1.0, -1.0),
            saw,
            -saw,
            np.where(at < 0.2, 2.0, -0.5),
        )
        x = size * np.choose(labels[:, None], waves) + self.noise * draws.standard_normal(at.shape)
        return Raw(
            name=self.kind,
            task="classification",
            x=x,
            y=np.array(CLASSES, dtype=np.object_)[labels],
            features=elements("signal", self.length),
            targets=("waveform",),
            shape=(1, self.length),
        )
