"""HTML and SVG from Python values. Whatever is not itself markup is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is markup already and stands as it is."""


Content = str | float | None | Iterable["Content"]

_VOID = frozenset({"meta", "br"})


def el(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """One element.

    Args:
        content: markup stands as it is, other values are escaped; None is left out, iterables are laid out.
        attributes: ``class_`` is class, ``stroke_width`` is stroke-width; None is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            text = _number(value) if isinstance(value, float) else str(value)
            words.append(f'{key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    opening = f"<{' '.join(words)}>"
    return Markup(opening) if name in _VOID else Markup(f"{opening}{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Markup:
    """Pieces of content one after the other."""
    return Markup("".join(_text(piece) for piece in content))


def _text(piece: Content) -> str:
    if piece is None:
        return ""
    if isinstance(piece, Markup):
        return piece
    if isinstance(piece, str):
        return escape(piece)
    if isinstance(piece, int | float):
        return str(piece)
    return join(piece)


def _number(value: float) -> str:
    """A coordinate: a hundredth of a pixel is enough."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
