"""Figures as people read them, the same in every table and chart."""

from __future__ import annotations

import math

NOTHING = "–"
"""Stands where a figure is undefined."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def count(value: float | None) -> str:
    """A whole number with thousands marked: ``1,280``."""
    return NOTHING if value is None else f"{value:,.0f}"


def signed_count(value: float | None) -> str:
    """A whole number with its sign: ``+592``."""
    return NOTHING if value is None else f"{value:+,.0f}"


def decimal(value: float | None) -> str:
    """Four decimals, or four significant digits where these would show nothing."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A decimal with its sign."""
    text = decimal(value)
    return text if text == NOTHING or text.startswith("-") else f"+{text}"


def scaled(value: float | None) -> str:
    """Three significant digits and a prefix: ``1.28k``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) < 1000:
        return f"{value:.4g}"
    power = min(int(math.log10(abs(value)) / 3), len(_PREFIXES) - 1)
    figure = value / 1000**power
    # 999.9 rounds to 1000: one prefix further.
    if abs(figure) >= 999.5 and power + 1 < len(_PREFIXES):
        figure, power = figure / 1000, power + 1
    return f"{figure:.3g}{_PREFIXES[power]}"


def flops(value: float | None) -> str:
    """Training FLOPs with their unit: ``3.21 GFLOP``."""
    text = scaled(value)
    if text == NOTHING:
        return text
    digits = text.rstrip("".join(_PREFIXES))
    return f"{digits} {text[len(digits) :]}FLOP"


def duration(seconds: float) -> str:
    """Two units at most: ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"
