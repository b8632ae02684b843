"""Campaigns from start to end: what they leave, and that neither pools, crashes nor interrupts change it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.datasets import load_diabetes

import raygrow
from raygrow.growth.meter import Meter
from raygrow.population.checkpoints import CheckpointStore
from raygrow.testing import counted as counter

from .campaigns import (
    HELD,
    SMALL,
    events,
    moves_without_times,
    run_to_end,
    run_with,
    same_outcome,
    signal_after,
    start_with,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "checkpoints": {"keep": "all"}}))
    return path


@pytest.fixture(scope="module")
def serial(config: Path, tmp_path_factory: pytest.TempPathFactory) -> raygrow.Result:
    """The reference run, in this process."""
    return raygrow.run(config, out=tmp_path_factory.mktemp("serial") / "run", quiet=True)


def test_some_moves_were_adopted_and_some_rejected(serial: raygrow.Result) -> None:
    rows = moves_without_times(serial.folder)
    assert any(row["adopted"] for row in rows)
    assert any(row["verdict"] == "reject" for row in rows)
    assert serial.summary["interrupted"] is False


def test_gain_added_flops_and_test_accuracy_follow_from_the_checkpoints(serial: raygrow.Result) -> None:
    """Recomputed with plain torch from the weights on disk."""
    from raygrow.config import load_plan
    from raygrow.data import prepare

    plan = load_plan(serial.folder / "config.yaml")
    data = prepare(plan.data, plan.campaign.seed)
    store = CheckpointStore(serial.folder / "checkpoints")

    def loss(digest: str) -> tuple[np.ndarray[Any, Any], int]:
        network = store.load(digest).network
        x, y = torch.tensor(data.validation.x), torch.tensor(data.validation.y)
        with counter() as counted, torch.no_grad():
            output = network(x)
        each = torch.nn.functional.cross_entropy(output, y, reduction="none")
        return each.double().numpy(), counted.get_total_flops() // len(x)

    for row in moves_without_times(serial.folder):
        control, before = loss(row["control_checkpoint"])
        candidate, after = loss(row["candidate_checkpoint"])
        assert row["gain"] == pytest.approx(float((control - candidate).mean()), abs=1e-6)
        assert row["gain_stderr"] == pytest.approx(
            float((control - candidate).std(ddof=1) / np.sqrt(len(control))), rel=1e-3
        )
        assert row["added_flops"] == after - before
        assert row["gain_per_flop"] == pytest.approx(row["gain"] / row["added_flops"])
    for name, grown in serial.members.items():
        predictor = grown.load()
        network = store.load(grown.figures["checkpoint"]).network
        with torch.no_grad():
            hits = network(torch.tensor(data.test.x)).argmax(1).numpy() == data.test.y
        assert grown.figures["test_accuracy"] == pytest.approx(float(hits.mean())), name
        assert predictor.labels == data.preprocessing.labels


def test_train_flops_agree_with_an_independent_count(tmp_path: Path) -> None:
    """Products by torch's counter around the whole campaign; factorisations, which it counts as 0, by the meter."""
    solves = 0
    names = ("factor", "apply_inverse", "apply_root", "eigh", "basis")
    original = [getattr(Meter, name) for name in names]

    def counted(method: Any) -> Any:
        def call(self: Meter, *args: Any, **options: Any) -> Any:
            nonlocal solves
            before = self.solves
            result = method(self, *args, **options)
            solves += self.solves - before
            return result

        return call

    for name, method in zip(names, original, strict=True):
        setattr(Meter, name, counted(method))
    try:
        with counter() as counted_products:
            result = raygrow.run(SMALL, out=tmp_path / "run", quiet=True)
    finally:
        for name, method in zip(names, original, strict=True):
            setattr(Meter, name, method)
    counts = counted_products.get_total_flops() + solves
    test_rows = next(events(result.folder))["data"]["rows"]["test"]
    read_once = sum(member["flops_per_example"] * test_rows for member in result.summary["members"])
    assert result.summary["train_flops"] == pytest.approx(counts - read_once, rel=0.05)


def test_same_seed_same_campaign_and_another_seed_another(serial: raygrow.Result, config: Path, tmp_path: Path) -> None:
    again = raygrow.run(config, out=tmp_path / "again", quiet=True)
    same_outcome(serial.folder, again.folder)
    other = raygrow.run(config, {"campaign.seed": 1}, out=tmp_path / "other", quiet=True)
    assert other.summary["best"]["checkpoint"] != serial.summary["best"]["checkpoint"]


@pytest.mark.parametrize(
    ("count", "name", "module", "owner"),
    [
        (5, "append", "raygrow.population.ledger", "Ledger"),
        (7, "run", "raygrow.population.member_round", "MemberRound"),
    ],
)
def test_killed_and_resumed_is_the_same(
    serial: raygrow.Result, config: Path, tmp_path: Path, count: int, name: str, module: str, owner: str
) -> None:
    out = tmp_path / "run"
    assert run_with(signal_after(count, name, module, owner), "run", config, "--out", out).returncode == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    resumed = run_to_end("resume", out)
    assert resumed.returncode == 0, resumed.stderr
    same_outcome(serial.folder, out)


def test_killed_while_a_checkpoint_is_written(serial: raygrow.Result, config: Path, tmp_path: Path) -> None:
    """The process dies between two files of a checkpoint; what it left half-written is swept, the rest is repeated."""
    out = tmp_path / "run"
    patch = """
import raygrow.population.checkpoints as module
calls = 0
original = os.fsync
def counted(handle):
    global calls
    calls += 1
    path = os.readlink(f"/proc/self/fd/{{handle}}")
    if path.endswith("optimizer.safetensors") and calls > 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(handle)
os.fsync = counted
""".replace("{{", "{").replace("}}", "}")
    assert run_with(patch, "run", config, "--out", out).returncode == -signal.SIGKILL
    assert any(path.name.endswith(".tmp") for path in (out / "checkpoints").iterdir())
    resumed = run_to_end("resume", out)
    assert resumed.returncode == 0, resumed.stderr
    same_outcome(serial.folder, out)
    assert not any(path.name.endswith(".tmp") for path in (out / "checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(serial: raygrow.Result, config: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    patch = signal_after(2, "run", "raygrow.population.member_round", "MemberRound", number)
    stopped = run_with(patch, "run", config, "--out", out)
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert f"raygrow resume {out}" in stopped.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["best"]["test_loss"] is None
    assert pq.read_table(out / "moves.parquet").num_rows >= 0
    resumed = run_to_end("resume", out)
    assert resumed.returncode == 0, resumed.stderr
    same_outcome(serial.folder, out)
    finished = run_to_end("resume", out)
    assert finished.returncode == 0
    assert "best" in finished.stdout


def test_two_processes_cannot_share_a_folder(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start_with(HELD, "run", config, "--out", out)
    assert process.stderr is not None
    try:
        assert any(line.strip() == "held" for line in process.stderr)
        second = run_to_end("resume", out)
        assert second.returncode == 2
        assert "another raygrow process runs in this folder" in second.stderr
        third = run_to_end("run", config, "--out", out)
        assert third.returncode == 2
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_moved_data_are_found_by_their_digest(tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    table = pa.table({**{f"f{i}": x[:, i] for i in range(x.shape[1])}, "target": y})
    first, second, other = tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "c.parquet"
    pq.write_table(table, first)
    pq.write_table(table.slice(0, 400), other)
    plan = {**SMALL, "data": {"kind": "parquet", "path": str(first), "target": "target"}}
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump(plan))
    out = tmp_path / "run"
    killed = run_with(signal_after(6, "append", "raygrow.population.ledger", "Ledger"), "run", config, "--out", out)
    assert killed.returncode == -signal.SIGKILL
    first.rename(second)
    missing = run_to_end("resume", out)
    assert missing.returncode == 2
    assert str(first) in missing.stderr
    wrong = run_to_end("resume", out, "--set", f"data.path={other}")
    assert wrong.returncode == 2
    assert "the data are not those the campaign began with" in wrong.stderr
    refused = run_to_end("resume", out, "--set", "training.lr=1")
    assert refused.returncode == 2
    assert "`data.path` alone" in refused.stderr
    right = run_to_end("resume", out, "--set", f"data.path={second}")
    assert right.returncode == 0, right.stderr


def test_predict_equals_the_network_in_the_users_units(tmp_path: Path) -> None:
    """String labels and raw features in, the original labels and their probabilities out, in the order of the rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 10.0, size=(300, 4))
    labels = np.where(x[:, 0] * x[:, 1] > 20, "hot", np.where(x[:, 2] > 3, "mild", "cold"))
    table = pa.table({**{f"f{i}": x[:, i] for i in range(4)}, "label": labels, "note": ["n"] * 300})
    pq.write_table(table, tmp_path / "data.parquet")
    data = {"kind": "parquet", "path": str(tmp_path / "data.parquet"), "label": "label"}
    result = raygrow.run({**SMALL, "data": data}, out=tmp_path / "run", quiet=True)
    fresh = table.select(["note", "f3", "f2", "f1", "f0"]).slice(0, 50)
    pq.write_table(fresh, tmp_path / "fresh.parquet")
    done = run_to_end(
        "predict", result.folder, "--data", tmp_path / "fresh.parquet", "--output", tmp_path / "out.parquet"
    )
    assert done.returncode == 0, done.stderr
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.column_names == ["prediction", "probability_cold", "probability_hot", "probability_mild"]
    with torch.no_grad():
        probability = result.best.load()(torch.tensor(x[:50])).numpy()
    np.testing.assert_allclose(np.column_stack([written[name] for name in written.column_names[1:]]), probability)
    assert written["prediction"].to_pylist() == [("cold", "hot", "mild")[i] for i in probability.argmax(1)]
    again = run_to_end(
        "predict", result.folder, "--data", tmp_path / "fresh.parquet", "--output", tmp_path / "out.parquet"
    )
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_lineage_of_a_finished_campaign(serial: raygrow.Result) -> None:
    tree = run_to_end("lineage", serial.folder)
    assert tree.returncode == 0
    nodes = json.loads(run_to_end("lineage", serial.folder, "--format", "json").stdout)
    adopted = [row for row in moves_without_times(serial.folder) if row["adopted"]]
    assert len(nodes) == len(adopted) + len(serial.summary["members"])
    for node in nodes:
        assert node["arch_id"] in tree.stdout
        if node["parent"] is not None:
            assert any(
                row["arch"] == node["arch_id"] and row["parent_arch"] == node["parent_arch_id"] for row in adopted
            )
