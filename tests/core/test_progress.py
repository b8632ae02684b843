"""What a campaign says while it runs: text for people, one JSON object a line for what collects logs, gauges for Ray."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import types
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner

import raygrow
from raygrow.cli import main
from raygrow.config import load_plan
from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event, Ledger
from raygrow.population.plan import Facts
from raygrow.progress import ComparisonProgress, Progress, json_line
from tests.end_to_end.campaigns import SMALL, moves_without_times


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], str]:
    """A campaign that grew: its folder, the entries of its log, and what went to standard output."""
    place = tmp_path_factory.mktemp("logged")
    (place / "small.yaml").write_text(yaml.safe_dump(SMALL))
    out = str(place / "run")
    result = CliRunner().invoke(main, ["run", str(place / "small.yaml"), "--out", out, "--log-format", "json"])
    assert result.exit_code == 0, result.output
    return Path(out), [json.loads(line) for line in result.stderr.splitlines()], result.stdout


def replayed(folder: Path) -> Iterator[tuple[Event, Coordinator]]:
    """Every event of a ledger, each with the coordinator that has just heard it."""
    events = Ledger(folder / "events.jsonl").read()
    coordinator = Coordinator(load_plan(folder / "config.yaml"), Facts(**events[0]["facts"]))
    for event in events:
        coordinator.tell(event)
        yield event, coordinator


def test_each_entry_has_a_time_a_level_and_an_event(logged: tuple[Path, list[dict[str, Any]], str]) -> None:
    folder, entries, _ = logged
    for entry in entries:
        assert list(entry)[:3] == ["time", "level", "event"]
        assert datetime.fromisoformat(entry["time"]).utcoffset() is not None
        assert entry["level"] == "info"
    assert entries[0]["event"] == "folder"
    assert entries[0]["folder"] == str(folder)
    told = [event["type"] for event, _ in replayed(folder) if event["type"] not in ("started", "ended")]
    assert [entry["event"] for entry in entries[1:]] == told


def test_the_figures_are_those_of_the_result(logged: tuple[Path, list[dict[str, Any]], str]) -> None:
    """Held against the table of moves and the summary, which are made from the ledger in another way."""
    folder, entries, _ = logged
    rows, summary = moves_without_times(folder), json.loads((folder / "summary.json").read_text())
    decided = [entry for entry in entries if entry["event"] == "decided"]
    assert [entry["round"] for entry in decided] == list(range(1, len(decided) + 1))
    for entry in decided:
        adopted = [row for row in rows if row["adopted"] and row["round"] <= entry["round"]]
        now = [row for row in adopted if row["round"] == entry["round"]]
        assert entry["granted"] == len(now)
        assert entry["granted_flops"] == sum(row["added_flops"] for row in adopted)
        assert entry["gain_per_flop"] == max(
            (row["gain_per_flop"] for row in now if row["added_flops"] > 0), default=None
        )
    assert decided[-1]["granted_flops"] > 0
    last = entries[-1]
    assert (last["phase"], last["outstanding"]) == ("done", 0)
    assert last["best_validation_loss"] == summary["best"]["validation_loss"]
    assert last["flops_per_example"] == summary["best"]["flops_per_example"]
    assert last["train_flops"] == summary["train_flops"]
    waiting = [entry["outstanding"] for entry in entries if entry["event"] == "reported" and entry["phase"] == "start"]
    assert waiting == [2, 1, 0]


def test_results_stay_on_standard_output_and_for_people(logged: tuple[Path, list[dict[str, Any]], str]) -> None:
    folder, _, stdout = logged
    assert f"report: {folder / 'report.html'}" in stdout


@pytest.mark.parametrize(
    ("words", "event"),
    [
        (["run", "none.yaml"], "none.yaml: cannot be read"),
        (["resume", "nowhere"], "nowhere: no campaign here"),
    ],
)
def test_a_refusal_is_an_entry_too(
    words: list[str], event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*words, "--log-format", "json"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["event"]) == ("error", "refused")
    assert event in entry["message"]


def test_what_is_not_finite_is_null() -> None:
    entry = json.loads(json_line("reported", best_validation_loss=math.inf))
    assert entry["best_validation_loss"] is None


RETRIED = {"type": "retried", "task": {"member": "mdl", "phase": "round", "round": 2}, "reason": "its actor died"}


def test_retries_and_warnings_carry_their_level(logged: tuple[Path, list[dict[str, Any]], str]) -> None:
    *_, (_, coordinator) = replayed(logged[0])
    text, form = io.StringIO(), io.StringIO()
    for progress in (Progress(coordinator, text), Progress(coordinator, form, form="json")):
        progress.heard(RETRIED)
        progress.note("class 'a' is absent from train", "warning")
        progress.note("campaign folder: runs/x")
    assert text.getvalue().splitlines() == [
        "warning: retrying mdl round 2: its actor died",
        "warning: class 'a' is absent from train",
        "campaign folder: runs/x",
    ]
    entries = [json.loads(line) for line in form.getvalue().splitlines()]
    assert [entry["level"] for entry in entries] == ["warning", "warning", "info"]
    assert entries[0]["member"] == "mdl"
    assert entries[1]["message"] == "class 'a' is absent from train"


@pytest.mark.parametrize("form", ["text", "json"])
def test_quiet_is_quiet(form: Any, logged: tuple[Path, list[dict[str, Any]], str]) -> None:
    stream = io.StringIO()
    for event, coordinator in replayed(logged[0]):
        progress = Progress(coordinator, stream, quiet=True, form=form)
        progress.heard(event)
        progress.heard(RETRIED)
        progress.note("nothing")
    assert stream.getvalue() == ""


# Gauges


class FakeGauge:
    """In the place of Ray's."""

    made: dict[str, FakeGauge]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description.endswith(".") and tag_keys == ("campaign",)
        self.value: float | None = None
        self.made[name] = self

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tags == {"campaign": "small"}
        assert isinstance(value, int | float) and math.isfinite(value)
        self.value = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeGauge]:
    """Gauges that are made from here on, by name."""
    metrics = types.ModuleType("ray.util.metrics")
    metrics.Gauge = FakeGauge  # type: ignore[attr-defined]
    monkeypatch.setattr(FakeGauge, "made", {}, raising=False)
    monkeypatch.setitem(sys.modules, "ray.util.metrics", metrics)
    return FakeGauge.made


def test_gauges_follow_the_log(logged: tuple[Path, list[dict[str, Any]], str], gauges: dict[str, FakeGauge]) -> None:
    from raygrow.adapters.ray_metrics import GAUGES, Gauges

    folder, entries, _ = logged
    by_event = iter(entries[1:])
    shown = None
    for event, coordinator in replayed(folder):
        shown = shown or Gauges(coordinator)
        shown.heard(event)
        if event["type"] in ("started", "ended"):
            continue
        entry = next(by_event)
        assert gauges["raygrow_granted_flops"].value == entry["granted_flops"]
        assert gauges["raygrow_outstanding_tasks"].value == entry["outstanding"]
        assert gauges["raygrow_best_validation_loss"].value == entry["best_validation_loss"]
        if entry.get("gain_per_flop") is not None:
            assert gauges["raygrow_gain_per_flop"].value == entry["gain_per_flop"]
    assert set(gauges) == set(GAUGES)
    assert all(gauge.value is not None for gauge in gauges.values())


def test_a_serial_campaign_sets_no_gauge(tmp_path: Path, gauges: dict[str, FakeGauge]) -> None:
    raygrow.run(SMALL, {"campaign.rounds": 1}, out=tmp_path / "run", quiet=True)
    assert gauges == {}


def test_the_dashboard_shows_every_gauge_and_no_other() -> None:
    """Ray puts ``ray_`` before each name."""
    from raygrow.adapters.ray_metrics import GAUGES

    path = Path(__file__).parents[2] / "cluster" / "grafana" / "raygrow.json"
    dashboard = json.loads(path.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert sorted(asked) == sorted(f'ray_{name}{{campaign=~"$campaign"}}' for name in GAUGES)
    assert set(re.findall(r"ray_(raygrow_\w+)", path.read_text())) == set(GAUGES)
    assert set(re.findall(r"`ray_(raygrow_\w+)`", (path.parents[1] / "README.md").read_text())) == set(GAUGES)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(ids)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_comparison_says_what_began_and_what_came_of_it() -> None:
    stream = Terminal()
    shown = ComparisonProgress(5, 2, stream)
    shown.began("a/x-0")
    shown.began("b/x-0")
    assert stream.getvalue().endswith("\r2/5 trials | 2 running | 0 s")
    shown.ended("b/x-0", "failed", "ValueError: no")
    assert "warning: failed b/x-0: ValueError: no\n" in stream.getvalue()
    assert re.search(r"\r3/5 trials \| 1 running \| about \d+ s left \| \d+ s$", stream.getvalue())
    shown.ended("a/x-0", "done", "test r2 0.5")
    shown.end()
    assert stream.getvalue().endswith("\r") and "\ndone a/x-0: test r2 0.5\n" in stream.getvalue().replace("\r", "\n")


def test_a_comparison_logs_one_object_a_trial() -> None:
    stream = io.StringIO()
    shown = ComparisonProgress(1, 0, stream, form="json")
    shown.began("a/x-0")
    shown.ended("a/x-0", "missing", "gone")
    (entry,) = map(json.loads, stream.getvalue().splitlines())
    assert {key: entry[key] for key in ("level", "event", "trial", "status", "message")} == {
        "level": "warning", "event": "trial", "trial": "a/x-0", "status": "missing", "message": "gone",
    }  # fmt: skip
