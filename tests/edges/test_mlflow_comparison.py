"""A comparison in MLflow: its figures, tables and statistics, once, however often it is logged."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from raygrow.adapters import mlflow_comparison
from raygrow.adapters.mlflow_comparison import ARTIFACTS, log_comparison
from raygrow.comparing import ComparisonFolder, _Session
from raygrow.comparison.statistics import statistics
from raygrow.comparison_config import load_comparison
from raygrow.progress import ComparisonProgress
from raygrow.report import write_comparison_page
from tests.core.comparison_tables import growing, tables


def test_a_comparison_is_one_run_with_all_that_it_left(tmp_path: Path) -> None:
    levels = {"mdl": 0.8, "rl": 0.9, "odd (1)": 0.7}
    trials, curves = tables(list(levels), ["digits"], 6, growing(levels, noise=0.01))
    pq.write_table(trials, tmp_path / "trials.parquet")
    pq.write_table(curves, tmp_path / "curves.parquet")
    found = statistics(trials, curves, "mdl")
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    (tmp_path / "comparison.yaml").write_text("comparison: {name: made}\n")
    events = [{"n": 0, "time": 5.0, "type": "began"}, {"n": 1, "time": 9.0, "type": "interrupted"}]
    uri, client = f"sqlite:///{tmp_path}/mlflow.db", MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    for last, status in (("interrupted", "KILLED"), ("ended", "FINISHED")):
        events[1]["type"] = last
        (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        write_comparison_page(tmp_path)
        log_comparison(tmp_path, uri, "compared", tmp_path / "files")
        (run,) = client.search_runs([client.get_experiment_by_name("compared").experiment_id])
        assert run.info.status == status
    names = {file.path for where in (None, "figures") for file in client.list_artifacts(run.info.run_id, where)}
    figures = {f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()}
    assert len(figures) == 10
    assert names == {*ARTIFACTS, "figures", *figures}
    ahead = next(row for row in found["comparisons"] if row["arm"] == "rl" and row["data"] is None)
    assert run.data.metrics["equal_validation_score/rl less mdl/mean"] == ahead["mean"]
    assert "equal_validation_score/odd _1_ less mdl/mean" in run.data.metrics
    assert run.data.params == {"reference": "mdl", "arms": "mdl, odd (1), rl", "data": "digits"}
    page = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="report.html", tracking_uri=uri, dst_path=str(tmp_path / "read")
    )
    assert Path(page).read_bytes() == (tmp_path / "report.html").read_bytes()


def test_a_comparison_is_shown_where_that_is_asked_for_and_trouble_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[object, ...]] = []
    told: list[str] = []

    def track(tracking: dict[str, object]) -> None:
        plan = load_comparison(
            {"comparison": {"name": "x"}, "data": {"digits": {"kind": "digits"}}, "tracking": tracking}
        )
        progress = ComparisonProgress(1, 0, quiet=True)
        monkeypatch.setattr(progress, "note", lambda words, **more: told.append(words))
        _Session(plan, ComparisonFolder(tmp_path), progress, lambda: None)._track()

    monkeypatch.setattr(mlflow_comparison, "log_comparison", lambda *given: shown.append(given))
    track({"enabled": False})
    assert shown == []
    track({"enabled": True, "experiment": "mine"})
    track({"enabled": True, "uri": "http://127.0.0.1:1"})
    root = tmp_path.resolve()
    assert shown == [
        (tmp_path, f"sqlite:///{root}/mlflow.db", "mine", root / "mlartifacts"),
        (tmp_path, "http://127.0.0.1:1", "raygrow", None),
    ]
    assert told == []

    def down(*given: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(mlflow_comparison, "log_comparison", down)
    track({"enabled": True, "uri": "http://127.0.0.1:1"})
    assert told == ["MLflow at http://127.0.0.1:1 does not show the comparison (ConnectionError: nobody there)"]
