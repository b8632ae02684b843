"""Small grey images of one pattern somewhere: local features at any place tell the classes apart, single pixels do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Raw, elements, stream

# Gratings at four angles, then figures made of the same strokes: no class is told by its mean, since signs are random.
CLASSES = ("horizontal", "rising", "vertical", "falling", "plus", "cross", "ring", "checker")
JITTER = math.radians(10.0)
PERIOD = (2.8, 4.0)
CONTRAST = (0.6, 1.0)
CLUTTER = 3
"""Blurred spots an image, each of half the contrast of the pattern at most."""


@dataclass(frozen=True, kw_only=True)
class Patterns(AbstractSource):
    """Generated grey images, 8 classes: gratings at four angles, plus, cross, ring and checker at random places."""

    kind: Literal["patterns"] = "patterns"
    """The name of this kind of data."""
    size: int = 16
    """Height and width in pixels, at least 8."""
    rows: int = 4000
    """Images in all, before the split; at least 16."""
    noise: float = 0.15
    """Standard deviation of the noise of a pixel, above 0 and at most 2; a pattern's contrast is 0.6 to 1."""
    seed: int | None = None
    """Seed of the images, an integer >= 0; null: the campaign's seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("size", 8), ("rows", 16), ("seed", 0)):
            self._at_least(field, least)
        self._within("noise", 0.0, 2.0)

    def load(self, seed: int) -> Raw:
        draws = stream("patterns", seed if self.seed is None else self.seed)
        labels = draws.permutation(np.arange(self.rows) % len(CLASSES))
        images = _drawn(draws, labels, self.size) + _clutter(draws, self.rows, self.size)
        images += self.noise * draws.standard_normal(images.shape)
        return Raw(
            name=self.kind,
            task="classification",
            x=images.reshape(self.rows, -1),
            y=np.array(CLASSES, dtype=np.object_)[labels],
            features=elements("image", self.size**2),
            targets=("pattern",),
            shape=(1, self.size, self.size),
        )


def _drawn(draws: np.random.Generator, labels: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """One pattern an image, of random place, extent, angle, phase, contrast and sign; [rows, size, size]."""

    def drawn(low: float, high: float) -> NDArray[np.float64]:
        return draws.uniform(low, high, len(labels))[:, None, None]

    radius = drawn(0.2 * size, 0.3 * size)
    x, y = _around(size, drawn(0.0, 1.0), drawn(0.0, 1.0), radius)
    angle = drawn(-JITTER, JITTER)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    rate, phase, other = 2.0 * math.pi / drawn(*PERIOD), drawn(0.0, 2.0 * math.pi), drawn(0.0, 2.0 * math.pi)
    distance = np.hypot(x, y)
    p, q = (u + v) / math.sqrt(2.0), (u - v) / math.sqrt(2.0)
    figures = (
        np.cos(rate * v + phase),
        np.cos(rate * q + phase),
        np.cos(rate * u + phase),
        np.cos(rate * p + phase),
        np.maximum(_stroke(u), _stroke(v)),
        np.maximum(_stroke(p), _stroke(q)),
        _stroke(distance - 0.75 * radius),
        np.cos(rate * u + phase) * np.cos(rate * v + other),
    )
    chosen = np.choose(labels[:, None, None], figures)
    window = 1.0 / (1.0 + np.exp(4.0 * (distance - radius)))
    sign = np.where(drawn(-1.0, 1.0) < 0.0, -1.0, 1.0)
    images: NDArray[np.float64] = sign * drawn(*CONTRAST) * window * chosen
    return images


def _clutter(draws: np.random.Generator, rows: int, size: int) -> NDArray[np.float64]:
    """Blurred spots of both signs at random places; [rows, size, size]."""
    clutter = np.zeros((rows, size, size))
    for _ in range(CLUTTER):
        across, down, height = draws.uniform(0.0, 1.0, (3, rows, 1, 1))
        x, y = _around(size, across, down, 0.0)
        clutter += 0.5 * CONTRAST[1] * (2.0 * height - 1.0) * np.exp(-(np.square(x) + np.square(y)) / 3.0)
    return clutter


def _around(
    size: int, across: NDArray[np.float64], down: NDArray[np.float64], margin: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel coordinates from a centre at shares of what lies within the margins; x to the right, y up."""
    pixels = np.arange(size, dtype=np.float64)
    room = size - 1.0 - 2.0 * margin
    return pixels - (margin + across * room), (margin + down * room) - pixels[:, None]


def _stroke(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """A line about one and a half pixels wide, at this distance from it."""
    line: NDArray[np.float64] = np.exp(-np.square(distance / 0.8))
    return line
