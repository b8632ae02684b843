"""The calibration of strategies on the page of a comparison, against the table that it is drawn from."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raygrow.comparison.calibration import Watched, calibration
from raygrow.report import write_comparison_page
from raygrow.report.comparison_view import ComparisonView
from tests.core.checked_pages import check_page
from tests.core.comparison_tables import growing, tables
from tests.core.test_comparison_page import left_behind

SPACE = "{http://www.w3.org/2000/svg}"
ACCEPTED = {("mdl", "noise"): 2, ("mdl", "linear"): 0, ("mdl", "gap"): 18, ("rl", "noise"): 11, ("rl", "linear"): 9,
            ("rl", "gap"): 20}  # fmt: skip
"""Of 20 campaigns each, in the first of two looks."""


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ComparisonView]:
    folder = tmp_path_factory.mktemp("calibrated")
    members = [
        Watched(arm, 0.05 if arm == "mdl" else None, data, 1.0 if data == "gap" else 0.0, 0.0, 1000, 2,
                (1,) if i < count else ())
        for (arm, data), count in ACCEPTED.items()
        for i in range(20)
    ]  # fmt: skip
    pq.write_table(calibration(members), folder / "calibration.parquet")
    levels = {"mdl": 0.9, "rl": 0.8}
    left_behind(folder, *tables(list(levels), ["noise", "linear", "gap"], 2, growing(levels, noise=0.01), {}))
    write_comparison_page(folder)
    return folder, ComparisonView.read(folder)


def test_the_page_says_which_levels_hold_and_who_guarantees_nothing(view: tuple[Path, ComparisonView]) -> None:
    folder, _ = view
    text = check_page((folder / "report.html").read_text()).text
    assert "at most 0.05" in text
    assert "2 of 20 on noise within 1 looks" in text
    assert "guarantees nothing" in text
    for count in ACCEPTED.values():
        assert f"{count} / 20" in text


def test_points_stand_at_the_shares(view: tuple[Path, ComparisonView]) -> None:
    folder, found = view
    assert {name for name in found.drawings if name.startswith("accepts-")} == {"accepts-looks", "accepts-effect-1000"}
    assert (folder / "figures" / "accepts-looks.png").exists()
    tips = {
        name: [
            tip.text or ""
            for circle in ET.fromstring(found.drawings[name].svg()).iter(f"{SPACE}circle")
            for tip in circle.iter(f"{SPACE}title")
        ]
        for name in ("accepts-looks", "accepts-effect-1000")
    }
    # Both null sets together, in each of two looks; then by effect.
    assert [tip.split(" [")[0] for tip in tips["accepts-looks"]] == ["mdl: 0.05", "mdl: 0.05", "rl: 0.5", "rl: 0.5"]
    assert [tip.split(" [")[0] for tip in tips["accepts-effect-1000"]] == ["mdl: 0.05", "mdl: 0.9", "rl: 0.5", "rl: 1"]
