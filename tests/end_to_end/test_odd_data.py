"""Data that people really have: odd but fine ends with finite figures, broken is refused with nothing created."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import raygrow
from raygrow.cli import main

from .campaigns import SMALL

RNG = np.random.default_rng(0)


def _table(rows: int = 120, features: int = 4, **columns: Any) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(rows, features))
    base = {f"f{i}": x[:, i] for i in range(features)}
    base["label"] = (x[:, 0] * x[:, 1] > 0).astype(int)
    return {**base, **columns}


def _run(table: dict[str, Any], folder: Path, **data: Any) -> raygrow.Result:
    path = folder / "data.parquet"
    pq.write_table(pa.table(table), path)
    plan = {**SMALL, "campaign": {"name": "odd", "rounds": 2}, "members": SMALL["members"][:2]}
    plan["data"] = {"kind": "parquet", "path": str(path), "label": "label", **data}
    return raygrow.run(plan, out=folder / "run", quiet=True)


ODD: dict[str, dict[str, Any]] = {
    "constant feature": _table(f2=np.ones(120)),
    "constant in train only": _table(
        f2=np.r_[np.ones(80), RNG.normal(size=40)], split=["train"] * 80 + ["val"] * 20 + ["test"] * 20
    ),
    "string labels": _table(label=np.where(RNG.random(120) < 0.5, "yes", "no")),
    "boolean labels": _table(label=RNG.random(120) < 0.5),
    "negative labels": _table(label=np.where(RNG.random(120) < 0.5, -7, 3)),
    "non-contiguous labels": _table(label=RNG.choice([5, 1000, 70], 120)),
    "mixed numeric types": _table(
        f0=RNG.integers(-9, 9, 120).astype(np.int8), f1=RNG.random(120).astype(np.float32), f2=RNG.random(120) < 0.3
    ),
    "identical columns": _table(f1=np.arange(120.0), f2=np.arange(120.0), f3=np.arange(120.0)),
    "values of 1e30": _table(f0=1e30 * RNG.normal(size=120), f1=np.r_[np.zeros(119), 1e30]),
    "one class in train": _table(
        label=np.r_[np.zeros(80, int), np.tile([0, 1], 20)], split=["train"] * 80 + ["val"] * 20 + ["test"] * 20
    ),
    "10,000 features, 20 rows": _table(20, 10000),
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_but_fine(name: str, tmp_path: Path) -> None:
    table = ODD[name]
    result = _run(table, tmp_path, **({"split": "split"} if "split" in table else {}))
    assert result.summary["interrupted"] is False
    for member in result.summary["members"]:
        for key in ("validation_loss", "test_loss", "validation_accuracy", "test_accuracy"):
            assert math.isfinite(member[key]), (key, member)
        assert member["stopped_because"]


def _write(folder: Path, table: dict[str, Any], name: str = "x.parquet") -> Path:
    path = folder / name
    pq.write_table(pa.table(table), path)
    return path


def _broken(folder: Path) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Data section and the words that the refusal must hold."""
    nan = _table()
    nan["f1"] = np.where(np.arange(120) == 17, np.nan, nan["f1"])
    infinite = _table(split=["train"] * 80 + ["val"] * 20 + ["test"] * 20)
    infinite["f3"] = np.where(np.arange(120) == 119, np.inf, infinite["f3"])
    x = RNG.normal(size=(30, 2))
    twice = pa.Table.from_arrays([pa.array(x[:, 0]), pa.array(x[:, 1]), pa.array([0, 1] * 15)], ["a", "a", "label"])
    pq.write_table(twice, folder / "twice.parquet")
    (folder / "empty.parquet").write_bytes(b"")
    whole = _write(folder, _table(), "whole.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "text.parquet").write_text("a,b\n1,2\n")
    good = str(_write(folder, _table()))
    text = _table(f2=["word"] * 120)
    dates = _table(f2=np.array(["2020-01-01"] * 120, dtype="datetime64[s]"))
    return {
        "nan": ({"path": str(_write(folder, nan, "nan.parquet"))}, ["nan.parquet", "f1", "17"]),
        "infinity in test": (
            {"path": str(_write(folder, infinite, "inf.parquet")), "split": "split"}, ["inf.parquet", "f3", "119"],
        ),
        "missing column": ({"path": good, "features": ["f0", "f9"]}, ["x.parquet", "f9"]),
        "duplicate columns": ({"path": str(folder / "twice.parquet")}, ["twice.parquet", "a"]),
        "text feature": (
            {"path": str(_write(folder, text, "text2.parquet")), "features": ["f0", "f2"]}, ["text2.parquet", "f2"],
        ),
        "date feature": (
            {"path": str(_write(folder, dates, "dates.parquet")), "features": "f*"}, ["dates.parquet", "f2"],
        ),
        "no such label": ({"path": good, "label": "lable"}, ["x.parquet", "lable"]),
        "no such target": ({"path": good, "label": None, "target": "nope"}, ["x.parquet", "nope"]),
        "empty file": ({"path": str(folder / "empty.parquet")}, ["empty.parquet"]),
        "truncated file": ({"path": str(folder / "cut.parquet")}, ["cut.parquet"]),
        "wrong format": ({"path": str(folder / "text.parquet")}, ["text.parquet"]),
        "no file": ({"path": str(folder / "none.parquet")}, ["none.parquet"]),
        "one class": (
            {"path": str(_write(folder, _table(label=np.ones(120, int)), "one.parquet"))}, ["one.parquet", "label"],
        ),
        "one row": ({"path": str(_write(folder, {k: v[:1] for k, v in _table().items()}, "row.parquet"))}, ["row.parquet"]),
    }  # fmt: skip


CASES = (
    "nan", "infinity in test", "missing column", "duplicate columns", "text feature", "date feature", "no such label",
    "no such target", "empty file", "truncated file", "wrong format", "no file", "one class", "one row",
)  # fmt: skip


def test_the_cases_are_all_of_them(tmp_path: Path) -> None:
    assert set(_broken(tmp_path)) == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_broken_is_refused_before_anything_is_created(case: str, tmp_path: Path) -> None:
    data, words = _broken(tmp_path)[case]
    section = {key: value for key, value in {"kind": "parquet", "label": "label", **data}.items() if value is not None}
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "data": section}))
    before = sorted(path.name for path in tmp_path.iterdir())
    result = CliRunner().invoke(main, ["run", str(config), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0], lines
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.lrr=1", ["training.lrr", "training.lr"]),
        ("training.lr=-1", ["training", "lr > 0", "-1"]),
        ("campaign.rounds=many", ["campaign.rounds", "many"]),
        ("budget.max_flops_per_example=10", ["budget.max_flops_per_example", "10"]),
        ("data.kind=digit", ["data.kind", "digits"]),
    ],
)
def test_a_bad_key_is_refused(override: str, words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "data": {"kind": "digits"}}))
    result = CliRunner().invoke(main, ["run", str(config), "--set", override, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "data": {"kind": "digits"}}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(json.dumps({}))
    result = CliRunner().invoke(main, ["run", str(config), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "already holds a campaign" in result.stderr


@pytest.mark.parametrize(
    "override",
    [
        {"campaign.rounds": 0},
        {"training.final_examples": 0},
        {"training.examples_per_round": 0},
        {"training.optimizer": "sgd"},
        {"training.batch_size": 5000},
        {"probe.blocks": 200},
        {"probe.examples": 1},
        {"budget.max_train_flops": 1},
        {"data.search_fraction": 0.01},
    ],
)
def test_extreme_but_allowed_settings_end(override: dict[str, Any], tmp_path: Path) -> None:
    plan = {**SMALL, "data": {"kind": "diabetes"}, "members": SMALL["members"][:1]}
    result = raygrow.run(plan, override, out=tmp_path / "run", quiet=True)
    assert math.isfinite(result.summary["best"]["test_loss"])
    assert result.summary["best"]["stopped_because"]


def test_huge_features_that_are_not_standardised_end(tmp_path: Path) -> None:
    """Squares of 1e25 overflow float32, in which the statistics are gathered; they are summed in float64."""
    table = _table(f0=1e25 * np.random.default_rng(0).normal(size=120))
    result = _run(table, tmp_path, standardize=False)
    for member in result.summary["members"]:
        assert math.isfinite(member["test_loss"])
        assert member["stopped_because"]
