"""Calibration of the strategies on the page of a comparison: false accepts and power, and the levels that hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raygrow.comparison.calibration import CONFIDENCE, exact_interval
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.figures import count, decimal
from raygrow.report.markup import Content, Markup, el
from raygrow.report.plot import LEFT, RIGHT, WIDTH, across, chart, upward
from raygrow.report.tables import table

Row = Mapping[str, Any]


def calibration_charts(rows: Sequence[Row], colours: Colours) -> list[Drawing]:
    """Share of campaigns that accepted a move: by number of looks where nothing is planted, and by effect for each number of
    rows.

    Args:
        rows: of ``calibration.parquet``.
    """
    drawn = []
    null = [row for row in rows if row["effect"] == 0]
    if null:
        looks = sorted({row["looks"] for row in null})
        lines = {
            arm: [
                (look, *_pooled([row for row in null if (row["arm"], row["looks"]) == (arm, look)])) for look in looks
            ]
            for arm in dict.fromkeys(row["arm"] for row in null)
        }
        sets = ", ".join(dict.fromkeys(row["data"] for row in null))
        words = f"All campaigns on data where nothing can be gained ({sets}); dashed: levels that strategies guarantee."
        drawn.append(_chart("accepts-looks", "False accepts by number of looks", "looks", lines, rows, colours, words))
    last = max((row["looks"] for row in rows), default=0)
    for size in sorted({row["rows"] for row in rows}):
        own = [row for row in rows if row["rows"] == size and row["looks"] == last]
        effects = sorted({row["effect"] for row in own})
        if len(effects) > 1:
            lines = {
                arm: [(e, *_pooled([row for row in own if (row["arm"], row["effect"]) == (arm, e)])) for e in effects]
                for arm in dict.fromkeys(row["arm"] for row in own)
            }
            title = f"Accepted within {last} looks by effect, {count(size)} rows"
            words = "At effect 0 every accepted move is a false one; beyond it, the share is the power."
            label = "effect, standard deviation of a logit that no linear model follows"
            drawn.append(_chart(f"accepts-effect-{size}", title, label, lines, own, colours, words))
    return drawn


def calibration_section(rows: Sequence[Row], drawings: Sequence[Drawing]) -> Iterator[Content]:
    """The verdict on every level, the charts, and the figures behind them."""
    yield el("h2", "Calibration")
    words = (
        "A decision is a campaign's round; a campaign counts as accepting once any of its candidates was accepted in the looks "
        "so far. Data are planted: what a linear model misses in them is known."
    )
    yield el("p", words, class_="quiet")
    judged = [row for row in rows if row["guarantee"] is not None]
    verdicts = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in judged if row["arm"] == arm]
        broken = list(dict.fromkeys(row["data"] for row in own if row["guarantee"] != "holds"))
        if not own:
            verdicts.append((arm, "guarantees nothing", "", ""))
            continue
        worst = max(own, key=lambda row: row["rate"])
        state = f"broken on {', '.join(broken)}" if broken else "holds"
        most = f"{worst['accepted']} of {worst['campaigns']} on {worst['data']} within {worst['looks']} looks"
        verdicts.append((arm, f"at most {own[0]['level']:g}", state, most))
    yield table(("arm", "guarantee", "within binomial error", "most false accepts"), verdicts, wide=(3,))
    yield el("div", [drawing.figure() for drawing in drawings], class_="pair")
    cells = [
        (
            row["data"],
            decimal(row["effect"]),
            count(row["rows"]),
            row["arm"],
            count(row["looks"]),
            f"{row['accepted']} / {row['campaigns']}",
            decimal(row["rate"]),
            f"[{decimal(row['low'])}, {decimal(row['high'])}]",
            row["guarantee"] or "",
        )
        for row in rows
    ]
    columns = ("data", "effect", "rows", "arm", "looks", "accepted", "share", f"{CONFIDENCE:.0%} interval", "level")
    shown = table(columns, cells, numbers=(1, 2, 4, 5, 6, 7))
    yield el("details", el("summary", "Every cell, with exact (Clopper-Pearson) intervals"), shown)


Point = tuple[float, float, float, float]
"""Where, share, and its interval."""


def _pooled(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Share of accepting campaigns of several cells together, with its exact interval."""
    accepted, campaigns = (sum(row[key] for row in rows) for key in ("accepted", "campaigns"))
    if not campaigns:
        return float("nan"), float("nan"), float("nan")
    return accepted / campaigns, *exact_interval(accepted, campaigns)


def _chart(
    name: str,
    title: str,
    label: str,
    lines: Mapping[str, Sequence[Point]],
    rows: Sequence[Row],
    colours: Colours,
    words: str,
) -> Drawing:
    x = across([point[0] for points in lines.values() for point in points])
    y = upward([0.0, 1.0])
    marks: list[Markup] = []
    for level in sorted({row["level"] for row in rows if row["level"] is not None}):
        marks.append(el("line", el("title", f"level {level:g}"), x1=LEFT, x2=WIDTH - RIGHT, y1=y(level), y2=y(level),
                        class_="price"))  # fmt: skip
    for i, (arm, points) in enumerate(lines.items()):
        class_ = colours.of(arm)
        # Arms stand a little apart, so that equal shares can be told from one another.
        apart = 4.0 * (i - (len(lines) - 1) / 2)
        known = [(x(at) + apart, share, low, high) for at, share, low, high in points if share == share]
        path = " ".join(f"{px:.1f},{y(share):.1f}" for px, share, _, _ in known)
        marks.append(el("polyline", el("title", arm), points=path, class_=f"trail {class_}"))
        for px, share, low, high in known:
            bar = el("line", x1=px, x2=px, y1=y(low), y2=y(high), class_=f"thin {class_}")
            tip = f"{arm}: {share:.3g} [{low:.3g}, {high:.3g}]"
            marks += [bar, el("circle", el("title", tip), cx=px, cy=y(share), r=4.0, class_=f"head {class_}")]
    legend = [*colours.legend(), ("price", "level")]
    caption = f"{words} Bars are exact {CONFIDENCE:.0%} intervals."
    return chart(name, title, x, y, (label, "share of campaigns that accepted"), marks, legend, caption)
