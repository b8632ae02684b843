"""What the sections and drawings of a comparison's page draw from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raygrow.comparison.area import Step
from raygrow.data import METRICS
from raygrow.population.ledger import Event, Ledger
from raygrow.report.calibration import calibration_charts
from raygrow.report.colours import Colours
from raygrow.report.comparison_charts import curves_chart, difference_chart, quality_chart, rank_chart
from raygrow.report.drawing import Drawing
from raygrow.report.summary import WORDS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ComparisonView:
    """A comparison as its folder has it.

    Attributes:
        trials: rows of ``trials.parquet``.
        curves: rows of ``curves.parquet``.
        statistics: content of ``comparison.json``.
        config: text of ``comparison.yaml``.
        events: of its ledger.
        calibration: rows of ``calibration.parquet``; none unless all data are planted.
    """

    trials: Sequence[Row]
    curves: Sequence[Row]
    statistics: Mapping[str, Any]
    config: str
    events: Sequence[Event]
    calibration: Sequence[Row] = ()

    @staticmethod
    def read(folder: Path) -> ComparisonView:
        """Of DIR of a comparison."""
        planted = folder / "calibration.parquet"
        return ComparisonView(
            pq.read_table(folder / "trials.parquet").to_pylist(),
            pq.read_table(folder / "curves.parquet").to_pylist(),
            json.loads((folder / "comparison.json").read_text()),
            (folder / "comparison.yaml").read_text(),
            Ledger(folder / "events.jsonl").read(),
            pq.read_table(planted).to_pylist() if planted.exists() else (),
        )

    @property
    def name(self) -> str:
        return str(self.trials[0]["comparison"])

    @property
    def reference(self) -> str:
        return str(self.statistics["reference"])

    @cached_property
    def arms(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(row["arm"] for row in self.trials))

    @cached_property
    def data(self) -> list[str]:
        return list(dict.fromkeys(row["data"] for row in self.trials))

    @cached_property
    def colours(self) -> Colours:
        """A colour an arm."""
        return Colours({arm: arm for arm in self.arms})

    @cached_property
    def baselines(self) -> set[str]:
        return {row["arm"] for row in self.trials if row["baseline"]}

    def word(self, data: str) -> str:
        """Name of the score on a data set."""
        task = next((row["task"] for row in self.trials if row["data"] == data and row["task"]), None)
        return WORDS[METRICS[task]] if task else "score"

    def steps(self, arm: str, data: str) -> list[list[Step]]:
        """Curves of the trials of an arm on a data set."""
        found: dict[int, list[Step]] = {}
        for row in self.curves:
            if row["arm"] == arm and row["data"] == data:
                step = Step(
                    row["train_flops"], row["flops_per_example"], row["validation_loss"], row["validation_score"]
                )
                found.setdefault(row["seed"], []).append(step)
        return list(found.values())

    @cached_property
    def drawings(self) -> dict[str, Drawing]:
        """Every figure of the page, by name."""
        measure = next(iter(self.statistics["measures"]))
        rows = [row for row in self.statistics["comparisons"] if row["measure"] == measure]
        drawn = [
            difference_chart(rows, self.reference, self.colours),
            rank_chart(self.statistics["ranks"][measure], self.colours),
        ]
        for data, slug in zip(self.data, slugs(self.data), strict=True):
            done = [row for row in self.trials if row["data"] == data and row["status"] == "done"]
            curves = {arm: self.steps(arm, data) for arm in self.arms}
            word = self.word(data)
            drawn += [
                quality_chart(f"quality-inference-{slug}", data, done, word, self.colours, training=False),
                quality_chart(f"quality-training-{slug}", data, done, word, self.colours, training=True),
                curves_chart(f"curves-{slug}", data, curves, word, self.colours),
            ]
        drawn += calibration_charts(self.calibration, self.colours)
        return {drawing.name: drawing for drawing in drawn}


def slugs(names: Sequence[str]) -> list[str]:
    """Parts of file names, one for each, all different."""
    found: list[str] = []
    for i, name in enumerate(names):
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        found.append(slug if slug and slug not in found else f"{slug}-{i}".strip("-"))
    return found
