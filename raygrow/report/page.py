"""``report.html``: one page that holds all it shows, works without scripts and escapes every word it was given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event, write_atomically
from raygrow.report.drawing import write_drawings
from raygrow.report.markup import Content, Markup, el
from raygrow.report.sections import SECTIONS
from raygrow.report.style import DRAWING_STYLE, PAGE_STYLE
from raygrow.report.view import View


def write_page(coordinator: Coordinator, events: Iterable[Event], path: Path, figures: Path) -> None:
    """Write the page whole or not at all, and before it every figure as SVG and PNG.

    Args:
        coordinator: as replayed from ``events``.
        events: of the ledger, whole or cut anywhere.
        figures: folder of the figures' files.
    """
    view = View(coordinator, list(events))
    write_drawings(view.drawings.values(), figures)
    write_atomically(path, _page(view).encode())


def page(coordinator: Coordinator, events: Sequence[Event]) -> str:
    """The page as text."""
    return _page(View(coordinator, events))


def _page(view: View) -> str:
    return document(view.summary["campaign"], [section(view) for section in SECTIONS])


def document(title: str, sections: Iterable[Content]) -> str:
    """A page that holds all it shows."""
    # The browser itself then refuses to fetch or run anything.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{title} · raygrow"),
        el("style", Markup(DRAWING_STYLE + PAGE_STYLE)),
    )
    return f"<!DOCTYPE html>\n{el('html', head, el('body', el('main', sections)), lang='en')}\n"
