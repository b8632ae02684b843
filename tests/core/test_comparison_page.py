"""The page and figures of a comparison, against the tables and statistics that they are drawn from."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raygrow.comparison.statistics import statistics
from raygrow.report import write_comparison_page
from raygrow.report.comparison_charts import curves_chart, rank_chart
from raygrow.report.comparison_view import ComparisonView, slugs
from raygrow.report.drawing import Drawing
from raygrow.report.figures import decimal, signed
from tests.core.checked_pages import Checker, check_page
from tests.core.comparison_tables import growing, tables

SPACE = "{http://www.w3.org/2000/svg}"
LEVELS = {"mdl": 0.90, "rl": 0.94, "random": 0.80, "fixed-16": 0.85}
FAILED = {("rl", "teacher", 2): ("failed", "RuntimeError: out of <memory> & luck")}


def left_behind(folder: Path, trials: pa.Table, curves: pa.Table, reference: str | None = None) -> ComparisonView:
    """A comparison's folder, before its page."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(trials, folder / "trials.parquet")
    pq.write_table(curves, folder / "curves.parquet")
    (folder / "comparison.json").write_text(json.dumps(statistics(trials, curves, reference), allow_nan=False))
    (folder / "comparison.yaml").write_text("comparison: {name: made}  # as <resolved>\n")
    began = {"n": 0, "time": 1.0, "type": "began", "versions": {"torch": "2.13.0+cpu"}, "machine": {"cores": 2}}
    (folder / "events.jsonl").write_text(json.dumps(began) + "\n")
    return ComparisonView.read(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tables(list(LEVELS), ["digits", "teacher"], 4, growing(LEVELS, noise=0.01), FAILED, baselines=("fixed-16",))
    root = tmp_path_factory.mktemp("compared")
    left_behind(root, *made)
    write_comparison_page(root)
    return root


@pytest.fixture(scope="module")
def view(folder: Path) -> ComparisonView:
    return ComparisonView.read(folder)


def parsed(drawing: Drawing) -> ET.Element:
    return ET.fromstring(drawing.svg())


def title(element: ET.Element) -> str:
    found = element.find(f"{SPACE}title")
    return (found.text or "") if found is not None else ""


def test_the_page_is_whole_and_says_what_the_statistics_say(folder: Path, view: ComparisonView) -> None:
    checker = check_page((folder / "report.html").read_text())
    found = view.statistics
    for row in found["comparisons"]:
        assert signed(row["mean"]) in checker.text
        assert (row["verdict"] or "") in checker.text
    for row in found["by_data"]:
        assert decimal(row["equal_validation_score"]["mean"]) in checker.text
        assert f"{row['done']} / {row['trials']}" in checker.text
    for note in [*found["notes"], *found["methods"].values()]:
        assert note in checker.text
    assert "RuntimeError: out of <memory> & luck" in checker.text
    assert "1 not done" in checker.text
    assert "2.13.0+cpu" in checker.text
    assert "as <resolved>" in checker.text


def test_every_figure_stands_in_the_page_and_as_files(folder: Path, view: ComparisonView) -> None:
    checker = check_page((folder / "report.html").read_text())
    drawn = {
        f"{what}-{data}"
        for what in ("quality-inference", "quality-training", "curves")
        for data in ("digits", "teacher")
    }
    drawn |= {"differences", "ranks"}
    assert set(view.drawings) == drawn
    assert {attributes["id"] for _, attributes in checker.tags if "id" in attributes} == {
        f"figure-{name}" for name in drawn
    }
    assert {path.name for path in (folder / "figures").iterdir()} == {f"{n}.{e}" for n in drawn for e in ("svg", "png")}
    for name in drawn:
        ET.fromstring((folder / "figures" / f"{name}.svg").read_text())
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert image.width > 600


def test_differences_lie_where_their_axis_says(view: ComparisonView) -> None:
    root = parsed(view.drawings["differences"])
    ticks = {
        (t.text or ""): float(t.get("x", "nan"))
        for t in root.iter(f"{SPACE}text")
        if re.match(r"[+-][\d.]+$", t.text or "")
    }
    (low, at_low), (high, at_high) = (
        min((float(k), v) for k, v in ticks.items()),
        max((float(k), v) for k, v in ticks.items()),
    )
    rows = [row for row in view.statistics["comparisons"] if row["measure"] == "equal_validation_score"]
    marks = [circle for circle in root.iter(f"{SPACE}circle") if title(circle)]
    assert len(marks) == len(rows) == 3 * 3
    for row, mark in zip(rows, marks, strict=True):
        expected = at_low + (row["mean"] - low) / (high - low) * (at_high - at_low)
        assert float(mark.get("cx", "nan")) == pytest.approx(expected, abs=0.05)
        assert f"{row['n']} pairs" in title(mark)
    wide = [line for line in root.iter(f"{SPACE}line") if "trail" in (line.get("class") or "")]
    assert len(wide) == sum(row["low"] is not None for row in rows)


def test_the_diagram_joins_what_the_critical_difference_does_not_separate(view: ComparisonView) -> None:
    ranks = view.statistics["ranks"]["equal_validation_score"]
    root = parsed(view.drawings["ranks"])
    dots = {title(path).split(":")[0]: float(re.match(r"M([\d.]+)", path.get("d", ""))[1])  # type: ignore[index]
            for path in root.iter(f"{SPACE}path")}  # fmt: skip
    assert dots.keys() == ranks["average"].keys()
    order = sorted(dots, key=dots.__getitem__)
    assert order == sorted(ranks["average"], key=ranks["average"].__getitem__)
    bars = [line for line in root.iter(f"{SPACE}line") if line.get("class") == "bar-of-ranks"]
    unit = (dots[order[-1]] - dots[order[0]]) / (ranks["average"][order[-1]] - ranks["average"][order[0]])
    first = bars[0]
    assert float(first.get("x2", "0")) - float(first.get("x1", "0")) == pytest.approx(
        ranks["critical_difference"] * unit, abs=0.1
    )
    assert len(bars) == 1 + len(ranks["groups"]) > 1
    for bar, group in zip(bars[1:], ranks["groups"], strict=True):
        within = [arm for arm, x in dots.items() if float(bar.get("x1", "0")) <= x <= float(bar.get("x2", "0"))]
        assert set(within) == set(group)


@pytest.mark.parametrize("what", ["quality-inference", "quality-training"])
def test_every_done_trial_and_every_arms_mean_is_a_mark(view: ComparisonView, what: str) -> None:
    root = parsed(view.drawings[f"{what}-teacher"])
    circles = [mark for mark in root.iter(f"{SPACE}circle") if title(mark)]
    squares = [mark for mark in root.iter(f"{SPACE}rect") if title(mark)]
    assert len([mark for mark in circles if "seed" in title(mark)]) == 3 * 4 - 1
    assert len([mark for mark in squares if "seed" in title(mark)]) == 4
    assert sorted(title(mark).split(":")[0] for mark in [*circles, *squares] if "mean of" in title(mark)) == [
        "fixed-16, mean of 4", "mdl, mean of 4", "random, mean of 4", "rl, mean of 3",
    ]  # fmt: skip


def test_the_mean_curve_is_the_mean_of_the_best_so_far(view: ComparisonView) -> None:
    curves = {arm: view.steps(arm, "digits") for arm in view.arms}
    root = parsed(curves_chart("c", "digits", curves, "accuracy", view.colours))
    (line,) = [element for element in root.iter(f"{SPACE}polyline") if title(element).startswith("rl")]
    last = float((line.get("points") or "").split()[-1].split(",")[1])
    ticks = {float(t.text or ""): float(t.get("y", "nan")) - 4 for t in root.iter(f"{SPACE}text")
             if t.get("text-anchor") == "end" and re.fullmatch(r"[\d.]+", t.text or "")}  # fmt: skip
    (low, at_low), (high, at_high) = min(ticks.items()), max(ticks.items())
    ends = [min(curve, key=lambda step: step.loss or 9.0).score or 0.0 for curve in curves["rl"]]
    assert len(ends) == 4
    expected = at_low + (sum(ends) / 4 - low) / (high - low) * (at_high - at_low)
    assert last == pytest.approx(expected, abs=0.1)
    assert len([p for p in root.iter(f"{SPACE}path") if "thin" in (p.get("class") or "")]) == 4 * 4


def test_a_comparison_that_came_to_nothing_still_has_a_page(tmp_path: Path) -> None:
    failed = {(arm, "digits", 0): ("unplaced", "no CPU") for arm in LEVELS}
    left_behind(tmp_path, *tables(list(LEVELS), ["digits"], 1, growing(LEVELS), failed))
    write_comparison_page(tmp_path)
    checker = check_page((tmp_path / "report.html").read_text())
    assert checker.text.count("no CPU") == 4
    assert "0 / 4" in checker.text
    assert len(list((tmp_path / "figures").iterdir())) == 2 * 5


def test_one_arm_alone_and_many_arms(tmp_path: Path) -> None:
    for names in (["mdl"], [f"arm-with-a-long-name-{i:02d}" for i in range(12)]):
        levels = {name: 0.7 + 0.01 * i for i, name in enumerate(names)}
        view = left_behind(tmp_path / str(len(names)), *tables(names, ["x"], 3, growing(levels)))
        write_comparison_page(tmp_path / str(len(names)))
        check_page((tmp_path / str(len(names)) / "report.html").read_text())
        assert all(drawing.width > 0 and drawing.height > 0 for drawing in view.drawings.values())
    diagram: Any = view.statistics["ranks"]["equal_validation_score"]
    texts = [t for t in parsed(rank_chart(diagram, view.colours)).iter(f"{SPACE}text") if "arm-with" in (t.text or "")]
    # Two columns of names, no two of them in one place.
    assert len({(t.get("x"), t.get("y")) for t in texts}) == 12


def test_words_from_outside_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('x')</script>&\"<b"
    failed = {(bad, bad, 0): ("failed", bad)}
    left_behind(tmp_path, *tables([bad, "mdl"], [bad], 2, growing({bad: 0.7, "mdl": 0.8}), failed), "mdl")
    write_comparison_page(tmp_path)
    text = (tmp_path / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "<script" not in text
    assert not {"script", "b<"} & {tag for tag, _ in checker.tags}
    for path in (tmp_path / "figures").glob("*.svg"):
        ET.fromstring(path.read_text())


def test_files_of_all_data_sets_have_names_of_their_own() -> None:
    assert slugs(["digits", "My Data!", "my-data", "…", "ü/../x"]) == ["digits", "my-data", "my-data-2", "3", "x"]
