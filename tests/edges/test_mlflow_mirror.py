"""The mirror shows the ledger, whatever happens to it or to MLflow on the way."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from raygrow.adapters import mlflow_mirror
from raygrow.adapters.mlflow_mirror import MlflowMirror, _Writer, synchronise
from raygrow.adapters.mlflow_pages import NODE_METRICS, pages
from raygrow.config import load_plan, resolved
from raygrow.data import prepare
from raygrow.population.campaign import run_campaign
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import Event, Ledger
from raygrow.population.lineage import lineage
from raygrow.population.plan import Facts
from raygrow.population.serial_pool import SerialPool
from raygrow.population.worker import Worker
from raygrow.predictor import Predictor


def grow(root: Path, data: str, rounds: int) -> CampaignFolder:
    """A tiny campaign on the serial pool, as the app would run it."""
    plan = load_plan(
        {
            "campaign": {"name": f"tiny.{data}", "rounds": rounds},
            "data": {"kind": data},
            "training": {"examples_per_round": 200, "final_examples": 200},
            "probe": {"examples": 300},
            "growth": {"candidates": 1, "units": [4], "statistics_examples": 200, "price": 0, "patience": 9},
            "selection": {"kind": "independent"},
            "members": [{"name": name, "seed": i, "strategy": {"kind": "periodic"}} for i, name in enumerate("ab")],
        }
    )
    dataset = prepare(plan.data, plan.campaign.seed)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())
    folder = CampaignFolder(root)
    root.mkdir()
    folder.ledger.append(
        {
            "type": "started",
            "campaign_id": f"{data}0",
            "config": resolved(plan),
            "facts": asdict(facts),
            "data": {"digest": dataset.digest},
            "versions": {"torch": str(torch.__version__)},
        }
    )
    pool = SerialPool(Worker(plan, facts, dataset, folder.store))
    run_campaign(Coordinator(plan, facts), folder.ledger, folder.store, pool)
    folder.ledger.append({"type": "ended"})
    return folder


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> CampaignFolder:
    return grow(tmp_path_factory.mktemp("campaign") / "c", "breast_cancer", 2)


@pytest.fixture(scope="module")
def events(campaign: CampaignFolder) -> list[Event]:
    found = campaign.ledger.read()
    assert len(lineage(found)) > 2, "the tests want adopted moves"
    return found


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: its schema takes seconds. Tests keep apart by the name of the experiment."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def without_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs for which the best network would have been logged."""
    logged: list[str] = []
    monkeypatch.setattr(mlflow_mirror, "log_best", lambda client, experiment, run_id, *rest: logged.append(run_id))
    return logged


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def snapshot(uri: str, experiment: str) -> dict[str, Any]:
    """What the experiment shows, with the keys of runs in place of their ids; fails on two runs of one key."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    keys = {run.info.run_id: run.data.tags["raygrow.key"] for run in runs}
    assert len(set(keys.values())) == len(keys)
    links = ("mlflow.parentRunId", "raygrow.parent_run_id")
    shown = {}
    for run in runs:
        shown[keys[run.info.run_id]] = {
            "tags": {k: keys.get(v, v) if k in links else v for k, v in run.data.tags.items()},
            "params": run.data.params,
            "metrics": {
                key: [(m.value, m.timestamp, m.step) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
            "artifacts": [file.path for file in client.list_artifacts(run.info.run_id)],
            "run": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
        }
    return shown


def ledger_of(events: list[Event], root: Path) -> Ledger:
    root.mkdir(parents=True, exist_ok=True)
    numbered = [{**event, "n": n} for n, event in enumerate(events)]
    (root / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in numbered))
    return Ledger(root / "events.jsonl")


@pytest.fixture(scope="module")
def one_pass(events: list[Event], uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MLflow shows when the whole ledger is mirrored at once."""
    root = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_mirror, "log_best", lambda *args: None)
        synchronise(ledger_of(events, root), uri, "one pass", root / "files")
    return snapshot(uri, "one pass")


def test_the_tree_is_that_of_the_ledger(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str]
) -> None:
    synchronise(ledger_of(events, tmp_path), uri, "tree", tmp_path / "files")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tree").experiment_id
    runs = client.search_runs([experiment], "tags.`raygrow.arch_id` != ''")
    by_id = {run.info.run_id: run for run in runs}
    nodes = {node.key: node for node in lineage(events)}
    assert len(runs) == len(nodes)
    for run in runs:
        tags = run.data.tags
        node = nodes[f"{tags['raygrow.member']}/{tags['raygrow.round']}"]
        assert tags["raygrow.arch_id"] == node.arch_id
        assert tags["raygrow.depth"] == str(node.depth)
        assert tags["raygrow.move"] == (node.move or "")
        assert tags["raygrow.parent_arch_id"] == (node.parent_arch_id or "")
        if node.parent is None:
            assert tags["raygrow.parent_run_id"] == ""
        else:
            parent = by_id[tags["raygrow.parent_run_id"]].data.tags
            assert f"{parent['raygrow.member']}/{parent['raygrow.round']}" == node.parent
        member = client.get_run(tags["mlflow.parentRunId"])
        assert member.data.tags["raygrow.member"] == node.member
        assert client.get_run(member.data.tags["mlflow.parentRunId"]).data.tags["raygrow.key"] == "campaign"
        expected = {what: getattr(node, what) for what in NODE_METRICS}
        assert run.data.metrics == {key: value for key, value in expected.items() if value is not None}
        file = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="architecture.json", tracking_uri=uri, dst_path=str(tmp_path)
        )
        assert json.loads(Path(file).read_text()) == node.arch


def test_the_campaign_shows_its_best(events: list[Event], uri: str, tmp_path: Path, without_model: list[str]) -> None:
    synchronise(ledger_of(events, tmp_path), uri, "best", tmp_path / "files")
    shown = snapshot(uri, "best")
    best = next(event["best"] for event in events if event["type"] == "chosen")
    own = [event for event in events if event["type"] == "reported" and event["task"]["member"] == best]
    reports = {event["task"]["phase"]: event["report"] for event in own}
    head, spent = reports["finish"]["head"], sum(event["report"]["train_flops"]["total"] for event in own)
    latest = {key: points[-1][0] for key, points in shown["campaign"]["metrics"].items()}
    assert latest == {
        "validation_loss": head["validation_loss"],
        "validation_accuracy": head["validation_metric"],
        "test_loss": reports["test"]["test_loss"],
        "test_accuracy": reports["test"]["test_metric"],
        "flops_per_example": head["flops_per_example"],
        "train_flops": spent,
    }
    assert len(shown[f"member/{best}"]["metrics"]["validation_loss"]) == 2 + 2
    assert shown["campaign"]["run"][:2] == ("tiny.breast_cancer", "FINISHED")
    assert shown["campaign"]["artifacts"] == ["config.yaml"]
    assert shown["campaign"]["params"]["data.kind"] == "breast_cancer"
    assert shown[f"member/{best}"]["params"]["strategy.kind"] == "periodic"
    assert len(without_model) == 1


def test_the_report_and_its_figures_are_artifacts_of_the_campaign(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str]
) -> None:
    client = MlflowClient(tracking_uri=uri)

    def shown(told: list[Event], report: str) -> tuple[list[str], str]:
        (tmp_path / "report.html").write_text(report)
        synchronise(ledger_of(told, tmp_path), uri, "files", tmp_path / "files")
        found = client.get_experiment_by_name("files")
        runs = {run.data.tags["raygrow.key"]: run.info.run_id for run in client.search_runs([found.experiment_id])}
        artifacts = [
            file.path for where in (None, "figures") for file in client.list_artifacts(runs["campaign"], where)
        ]
        read = mlflow.artifacts.download_artifacts(
            run_id=runs["campaign"], artifact_path="report.html", tracking_uri=uri, dst_path=str(tmp_path / "read")
        )
        return artifacts, Path(read).read_text()

    (tmp_path / "figures").mkdir()
    for name in ("lineage.svg", "lineage.png", ".lineage.svg.7.tmp"):
        (tmp_path / "figures" / name).write_text("drawn")
    half = [*events[: len(events) // 2], {"type": "interrupted", "time": events[-1]["time"]}]
    expected = ["config.yaml", "figures", "report.html", "figures/lineage.png", "figures/lineage.svg"]
    assert shown(half, "half") == (expected, "half")
    # A longer ledger has another report; the same one is not sent again.
    assert shown(events, "whole") == (expected, "whole")
    assert shown(events, "touched") == (expected, "whole")


def test_statuses_follow_the_ledger(events: list[Event]) -> None:
    def status(*kinds: str) -> str:
        return pages([*events[:-1], *({"type": kind, "time": 2e9} for kind in kinds)])[0].status

    assert status() == "RUNNING"
    assert status("interrupted") == "KILLED"
    assert status("interrupted", "resumed") == "RUNNING"
    assert status("failed") == "FAILED"
    assert status("failed", "resumed", "retried", "ended") == "FINISHED"
    assert pages([]) == []


def test_any_prefix_then_the_whole_is_as_one_pass(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str], one_pass: dict[str, Any]
) -> None:
    for count in range(0, len(events), 3):
        for known in (events[:count], events):
            synchronise(ledger_of(known, tmp_path), uri, f"prefix {count}", tmp_path / "files")
        assert snapshot(uri, f"prefix {count}") == one_pass
    for count in range(len(events) + 1):
        synchronise(ledger_of(events[:count], tmp_path), uri, "event by event", tmp_path / "files")
    assert snapshot(uri, "event by event") == one_pass


def test_interrupted_and_resumed_is_shown_on_the_way(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str]
) -> None:
    half, later = events[: len(events) // 2], events[-1]["time"]
    told = [*half, {"type": "interrupted", "time": later}]
    synchronise(ledger_of(told, tmp_path), uri, "resumed", tmp_path / "files")
    shown = snapshot(uri, "resumed")
    assert {shown[key]["run"][1] for key in ("campaign", "member/a")} == {"KILLED"}
    told = [*told, {"type": "resumed", "time": later}]
    synchronise(ledger_of(told, tmp_path), uri, "resumed", tmp_path / "files")
    shown = snapshot(uri, "resumed")
    assert {shown[key]["run"][1] for key in ("campaign", "member/a")} == {"RUNNING"}


def test_a_crash_before_any_request_leaves_nothing_half_filled(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str], one_pass: dict[str, Any]
) -> None:
    folder = CampaignFolder(tmp_path)
    ledger_of(events, tmp_path)
    requests = 0

    def count() -> None:
        nonlocal requests
        requests += 1

    _Writer(uri, "counted", tmp_path / "files", count).show(events, folder, files=False)
    for last in range(1, requests, max(requests // 6, 1)):
        left = last

        def crash() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionError

        with pytest.raises(ConnectionError):
            _Writer(uri, f"crash {last}", tmp_path / "files", crash).show(events, folder, files=False)
        synchronise(folder.ledger, uri, f"crash {last}", tmp_path / "files")
        assert snapshot(uri, f"crash {last}") == one_pass


def test_a_lost_answer_makes_no_duplicate(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str], one_pass: dict[str, Any]
) -> None:
    writer = _Writer(uri, "lost", tmp_path / "files", lambda: None)
    create_run = writer._client.create_run

    def twice(*args: Any) -> Any:
        create_run(*args)
        return create_run(*args)

    writer._client.create_run = twice
    writer.show(events[:5], CampaignFolder(tmp_path), files=False)
    synchronise(ledger_of(events, tmp_path), uri, "lost", tmp_path / "files")
    assert snapshot(uri, "lost") == one_pass


def test_the_thread_follows_a_growing_ledger(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str], one_pass: dict[str, Any]
) -> None:
    lines: list[str] = []
    ledger = ledger_of(events[:1], tmp_path)
    mirror = MlflowMirror(ledger, uri, "thread", tmp_path / "files", lines.append)
    mirror.start()
    for count in range(2, len(events) + 1):
        ledger_of(events[:count], tmp_path)
        mirror.poke()
    assert mirror.close(30)
    assert lines == []
    assert snapshot(uri, "thread") == one_pass


def test_a_campaign_that_is_over_before_the_mirror_began_is_shown_at_its_end(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str], one_pass: dict[str, Any]
) -> None:
    lines: list[str] = []
    mirror = MlflowMirror(ledger_of(events, tmp_path), uri, "late", tmp_path / "files", lines.append, after=86400.0)
    mirror.start()
    mirror.poke()
    assert mirror.close(30)
    assert lines == []
    assert snapshot(uri, "late") == one_pass


def test_a_campaign_interrupted_before_the_mirror_began_leaves_no_store_behind(
    events: list[Event], tmp_path: Path
) -> None:
    lines: list[str] = []
    store = tmp_path / "fresh" / "mlflow.db"
    ledger = ledger_of(events, tmp_path)
    mirror = MlflowMirror(ledger, f"sqlite:///{store}", "early", tmp_path / "files", lines.append, after=86400.0)
    mirror.start()
    mirror.poke()
    assert not mirror.close(30, begin=False)
    assert not store.parent.exists()
    assert len(lines) == 1
    assert "interrupted before it was begun" in lines[0]
    assert "catches up later" in lines[0]


def test_it_catches_up_after_an_outage(
    events: list[Event],
    uri: str,
    tmp_path: Path,
    without_model: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_mirror, "FIRST_PAUSE", 0.05)
    (tmp_path / "file").write_text("not a folder")
    lines: list[str] = []
    ledger = ledger_of(events, tmp_path)
    mirror = MlflowMirror(ledger, f"sqlite:///{tmp_path}/file/mlflow.db", "outage", tmp_path / "files", lines.append)
    mirror.start()
    until = time.monotonic() + 10
    while not lines and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(lines) == 1
    assert "the campaign goes on" in lines[0]
    assert not mirror.close(10)
    assert len(lines) == 2
    assert f"`raygrow resume {tmp_path}` catches up later" in lines[1]
    again = MlflowMirror(ledger, uri, "outage", tmp_path / "files", lines.append)
    again.start()
    assert again.close(30)
    assert len(lines) == 2
    assert snapshot(uri, "outage")["campaign"]["run"][1] == "FINISHED"


def test_it_recovers_by_itself(
    events: list[Event], uri: str, tmp_path: Path, without_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_mirror, "FIRST_PAUSE", 0.01)
    failures = iter(range(3))
    look_up = _Writer._look_up

    def down(self: _Writer, campaign_id: str) -> None:
        if next(failures, None) is not None:
            raise ConnectionError("down")
        look_up(self, campaign_id)

    monkeypatch.setattr(_Writer, "_look_up", down)
    lines: list[str] = []
    mirror = MlflowMirror(ledger_of(events, tmp_path), uri, "recovers", tmp_path / "files", lines.append)
    mirror.start()
    until = time.monotonic() + 20
    while next(failures, None) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert mirror.close(30)
    assert len(lines) <= 1
    assert snapshot(uri, "recovers")["campaign"]["run"][1] == "FINISHED"


@pytest.mark.parametrize("content", [b"not a database" * 100, None])
def test_a_broken_store_ends_the_wait_at_once(events: list[Event], tmp_path: Path, content: bytes | None) -> None:
    broken = tmp_path / "broken.db"
    broken.mkdir() if content is None else broken.write_bytes(content)
    lines: list[str] = []
    mirror = MlflowMirror(ledger_of(events, tmp_path), f"sqlite:///{broken}", "e", None, lines.append)
    mirror.start()
    begun = time.monotonic()
    assert not mirror.close(30)
    assert time.monotonic() - begun < 10
    assert "catches up later" in lines[-1]


def test_close_keeps_its_time_when_the_server_hangs(events: list[Event], tmp_path: Path, hanging: str) -> None:
    lines: list[str] = []
    begun = time.monotonic()
    mirror = MlflowMirror(ledger_of(events, tmp_path), hanging, "hangs", None, lines.append)
    mirror.start()
    for _ in range(100):
        mirror.poke()
    assert time.monotonic() - begun < 0.5
    assert not mirror.close(1.0)
    assert time.monotonic() - begun < 2.0
    assert len(lines) == 1
    assert "did not catch up within 1 seconds" in lines[0]


def test_a_refused_connection_is_no_error_and_an_unstarted_mirror_closes(events: list[Event], tmp_path: Path) -> None:
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    mirror = MlflowMirror(ledger_of(events, tmp_path), f"http://127.0.0.1:{port}", "refused", None, lines.append)
    mirror.start()
    assert not mirror.close(20)
    assert len(lines) in (1, 2)
    assert not MlflowMirror(ledger_of(events, tmp_path), "http://127.0.0.1:1", "e", None, lines.append).close(0)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_best_network_opens_without_pickle(
    kind: str, campaign: CampaignFolder, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = campaign if kind == "classification" else grow(tmp_path / "c", "diabetes", 1)
    tracked = mlflow.get_tracking_uri()
    for _ in range(2):
        synchronise(folder.ledger, uri, f"model {kind}", tmp_path / "files")
    assert mlflow.get_tracking_uri() == tracked
    assert mlflow.active_run() is None
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(f"model {kind}").experiment_id
    (model,) = client.search_logged_models([experiment])
    (run,) = client.search_runs([experiment], "tags.`raygrow.key` = 'campaign'")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(uri)
    try:
        opened = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    finally:
        mlflow.set_tracking_uri(tracked)
    events = folder.ledger.read()
    best = next(event["best"] for event in events if event["type"] == "chosen")
    digest = next(
        e["report"]["head"]["checkpoint"]
        for e in events
        if e["type"] == "reported" and (e["task"]["phase"], e["task"]["member"]) == ("finish", best)
    )
    checkpoint = folder.store.load(digest)
    known = checkpoint.preprocessing
    assert opened.metadata.metadata["features"] == list(known.features)
    own = Predictor(checkpoint.network, known).eval()
    draws = np.random.default_rng(0)
    for rows in (1, 2, 57):
        x = np.asarray(known.mean) + draws.normal(size=(rows, len(known.features))) * 5 * np.asarray(known.scale)
        with torch.no_grad():
            expected = own(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(opened.predict(x), expected, rtol=1e-5, atol=1e-7)


def test_a_model_left_half_logged_is_completed(
    campaign: CampaignFolder, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: MlflowClient, model_id: str, status: str) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "finalize_logged_model", crash)
        with pytest.raises(ConnectionError):
            synchronise(campaign.ledger, uri, "half a model", tmp_path / "files")
    synchronise(campaign.ledger, uri, "half a model", tmp_path / "files")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("half a model").experiment_id
    (model,) = client.search_logged_models([experiment])
    (run,) = client.search_runs([experiment], "tags.`raygrow.key` = 'campaign'")
    assert model.status == "READY"
    assert len(run.outputs.model_outputs) == 1


def test_the_callers_thread_never_imports_mlflow() -> None:
    assert threading.current_thread() is threading.main_thread()
    source = Path(mlflow_mirror.__file__).read_text()
    assert not [line for line in source.splitlines() if line.startswith(("import mlflow", "from mlflow"))]
