"""The report pages in a real browser: nothing complains, every figure is there, the tree can be read and stays usable."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raygrow.comparison.statistics import statistics
from raygrow.report import page, write_comparison_page
from tests.core.comparison_tables import growing, tables
from tests.core.drawn_campaigns import drawn_campaign
from tests.edges.browser import browser, opened

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no Chromium on the path: the Debian package `chromium` brings one, and a font with it"
)

CAMPAIGN_FIGURES = {"lineage", "quality-inference", "quality-training", "gain-price", "calibration", "sites"}

FIGURES = """
  const shown = [...document.querySelectorAll("svg[id^=figure-]")].filter(figure => figure.checkVisibility());
  const names = [...new Set(shown.map(figure => figure.id))].sort();
  const empty = shown.filter(figure => figure.querySelectorAll("circle, path, polyline, rect").length === 0);
  const wide = document.documentElement.scrollWidth > innerWidth;
"""

OVERLAP = """
  const span = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
  const overlap = (a, b) => span(a, b, "left", "right") > 0.5 && span(a, b, "top", "bottom") > 2;
"""

BOXES = (
    OVERLAP
    + """
  const lanes = [...document.querySelectorAll(".lane[open] svg.tree")];
  const overlapping = [], outside = [];
  let texts = 0, circles = 0;
  for (const lane of lanes) {
    const frame = lane.getBoundingClientRect();
    const boxes = [...lane.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    const discs = [...lane.querySelectorAll("circle.head")].map(disc => ["disc", disc.getBoundingClientRect()]);
    texts += boxes.length;
    circles += discs.length;
    boxes.forEach(([words, box], i) => {
      if (box.width < 2 || box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom) outside.push(words);
      for (const [other, beside] of [...boxes.slice(i + 1), ...discs])
        if (overlap(box, beside)) overlapping.push(words + " / " + other);
    });
  }
  const letters = [...document.querySelectorAll(".lane[open] svg.tree text")].map(text => getComputedStyle(text).fontSize);
  const size = Math.min(...letters.map(parseFloat));
"""
)


def test_the_tree_can_be_read_at_fifty_architectures(tmp_path: Path) -> None:
    coordinator, events = drawn_campaign({name: name for name in ("mdl", "significance", "rl")}, 16, 3)
    (tmp_path / "report.html").write_text(page(coordinator, events))
    script = FIGURES + BOXES + """
      const passed = document.getElementById("passed-over");
      passed.open = true;
      const crosses = passed.querySelectorAll("svg .rejected").length;
      const drawn = passed.querySelector("svg").getBoundingClientRect().height;
      return {names, empty: empty.length, wide, overlapping, outside, texts, circles, size, crosses, drawn};
    """  # fmt: skip
    shown = opened(tmp_path / "report.html", script, tmp_path)
    assert shown.complaints == []
    found = shown.found
    assert found["names"] == sorted(f"figure-{name}" for name in CAMPAIGN_FIGURES)
    assert found["empty"] == 0
    assert not found["wide"], "the page itself scrolls sideways"
    # 17 architectures a member: a figure and a loss under each, a move and its gain on each edge, a round above each column.
    assert found["circles"] == 51
    assert found["texts"] >= 51 * 2 + 48 * 2 + 3 * 17
    assert found["overlapping"] == []
    assert found["outside"] == []
    assert found["size"] >= 10
    # What was rejected appears when it is asked for, and its legend.
    assert found["crosses"] == 96 + 1
    assert found["drawn"] > 300


def test_the_page_stays_usable_at_a_thousand_moves(tmp_path: Path) -> None:
    coordinator, events = drawn_campaign({f"m{i}": "mdl" if i % 2 else "rl" for i in range(8)}, 125, 2)
    (tmp_path / "report.html").write_text(page(coordinator, events))
    assert sum(len(event["granted"]) for event in events if event["type"] == "decided") == 1000
    script = FIGURES + """
      const lanes = [...document.querySelectorAll(".lane")];
      const opened = lanes.filter(lane => lane.open).length;
      const first = lanes.find(lane => !lane.open), svg = first.querySelector("svg");
      const before = svg.checkVisibility();
      first.querySelector("summary").click();
      const after = svg.checkVisibility();
      const room = document.querySelector(".lanes");
      room.scrollLeft = room.scrollWidth;
      // The name of a lane stays in sight wherever one has scrolled to.
      const name = first.querySelector("summary").getBoundingClientRect();
      const last = [...svg.querySelectorAll("circle.head")].pop().getBoundingClientRect();
      const frame = room.getBoundingClientRect();
      return {
        names, empty: empty.length, wide, opened, before, after, lanes: lanes.length,
        nodes: document.querySelectorAll("*").length, scrolls: room.scrollLeft > 0,
        named: name.left >= frame.left - 1 && name.right <= frame.right, seen: last.right <= frame.right,
        long: [...document.querySelectorAll("details")].filter(d => !d.open).length,
      };
    """  # fmt: skip
    shown = opened(tmp_path / "report.html", script, tmp_path)
    assert shown.complaints == []
    found = shown.found
    assert found["names"] == sorted(f"figure-{name}" for name in CAMPAIGN_FIGURES)
    assert found["empty"] == 0
    assert not found["wide"]
    # Only the lane of the best is open; another opens by a click, scrolls to its end and keeps its name in sight.
    assert (found["lanes"], found["opened"]) == (8, 1)
    assert (found["before"], found["after"]) == (False, True)
    assert found["scrolls"] and found["named"] and found["seen"]
    # The table of moves, the text, the configuration and the candidates passed over wait until they are asked for.
    assert found["long"] >= 7 - 1 + 4
    assert found["nodes"] < 90_000
    assert (tmp_path / "report.html").stat().st_size < 8e6


def test_the_page_of_a_comparison_shows_every_figure(tmp_path: Path) -> None:
    levels = {"mdl-tiny": 0.9, "significance-tiny": 0.89, "rl-tiny": 0.92, "random": 0.8, "fixed": 0.85}
    failed = {("rl-tiny", "teacher", 2): ("failed", "RuntimeError: lost its worker")}
    trials, curves = tables(
        list(levels), ["digits", "teacher"], 4, growing(levels, noise=0.02), failed, baselines=("fixed",)
    )
    pq.write_table(trials, tmp_path / "trials.parquet")
    pq.write_table(curves, tmp_path / "curves.parquet")
    (tmp_path / "comparison.json").write_text(json.dumps(statistics(trials, curves, None)))
    (tmp_path / "comparison.yaml").write_text("comparison: {name: made}\n")
    write_comparison_page(tmp_path)
    script = FIGURES + OVERLAP + """
      const overlapping = [];
      for (const figure of shown) {
        const boxes = [...figure.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
        boxes.forEach(([words, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
          if (overlap(a, b)) overlapping.push(figure.id + ": " + words + " / " + other);
        }));
      }
      return {names, empty: empty.length, wide, overlapping, rows: document.querySelectorAll("tbody tr").length};
    """  # fmt: skip
    shown = opened(tmp_path / "report.html", script, tmp_path)
    assert shown.complaints == []
    kinds = ("quality-inference", "quality-training", "curves")
    expected = {f"figure-{kind}-{data}" for kind in kinds for data in ("digits", "teacher")}
    assert shown.found["names"] == sorted(expected | {"figure-differences", "figure-ranks"})
    assert shown.found["empty"] == 0
    assert not shown.found["wide"]
    assert shown.found["overlapping"] == []
    assert shown.found["rows"] > 4 * 4 * 3 + 2 * 5


def test_a_page_that_asks_for_something_from_elsewhere_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(*drawn_campaign({"mdl": "mdl"}, 2, 1)))
    broken = (
        (tmp_path / "report.html").read_text().replace("</main>", '<img src="https://example.invalid/x.png"></main>')
    )
    (tmp_path / "broken.html").write_text(broken)
    assert opened(tmp_path / "broken.html", "return 1;", tmp_path).complaints != []
