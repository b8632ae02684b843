"""``report.html``: one page that holds all it shows, works without scripts and escapes every word it was given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event, write_atomically
from raygrow.report.markup import Markup, el
from raygrow.report.record import read
from raygrow.report.sections import SECTIONS, View
from raygrow.report.style import CHART_STYLE, PAGE_STYLE
from raygrow.report.summary import summary


def write_page(coordinator: Coordinator, events: Iterable[Event], path: Path) -> None:
    """Write the page whole or not at all.

    Args:
        coordinator: as replayed from ``events``.
        events: of the ledger, whole or cut anywhere.
    """
    write_atomically(path, page(coordinator, list(events)).encode())


def page(coordinator: Coordinator, events: Sequence[Event]) -> str:
    """The page as text."""
    view = View(coordinator, events, read(events), summary(coordinator, events))
    # The browser itself then refuses to fetch or run anything.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{view.summary['campaign']} · raygrow"),
        el("style", Markup(CHART_STYLE + PAGE_STYLE)),
    )
    main = el("main", [section(view) for section in SECTIONS])
    return f"<!DOCTYPE html>\n{el('html', head, el('body', main), lang='en')}\n"
