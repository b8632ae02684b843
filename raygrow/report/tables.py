"""HTML tables, and the words that stand in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raygrow.report.markup import Content, Markup, el

LISTED = 24
"""At most so many items of a list are spelt out."""


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Content]],
    numbers: Iterable[int] = (),
    wide: Iterable[int] = (),
    classes: Sequence[str] = (),
) -> Markup:
    """A table that scrolls sideways where it must.

    Args:
        numbers: columns that stand to the right.
        wide: columns of prose, which wrap.
        classes: of the rows.
    """
    kinds = {**dict.fromkeys(wide, "w"), **dict.fromkeys(numbers, "n")}
    head = el("tr", [el("th", name, class_=kinds.get(i), scope="col") for i, name in enumerate(columns)])
    body = []
    for i, row in enumerate(rows):
        cells = [el("td", cell, class_=kinds.get(j)) for j, cell in enumerate(row)]
        body.append(el("tr", cells, class_=classes[i] or None if classes else None))
    return el("div", el("table", el("thead", head), el("tbody", body)), class_="scroll")


def pairs(title: str, values: Mapping[str, Any]) -> Markup | None:
    """A table of names and values; None without any."""
    rows = [(name, in_words(value)) for name, value in values.items() if value not in (None, [], {}, "")]
    return el("div", table((title, ""), rows, wide=(1,))) if rows else None


def in_words(value: Any) -> str:
    """Plain JSON as prose; long lists are cut."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        more = f", and {len(value) - LISTED} more" if len(value) > LISTED else ""
        return ", ".join(in_words(item) for item in value[:LISTED]) + more
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
