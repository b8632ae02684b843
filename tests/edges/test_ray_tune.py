"""Trials on a local Ray: the figures of this process, hopeless ones stopped, lost ones begun again, cut off and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from raygrow.adapters.ray_tune import RETRIES, Job, Report, run_trials
from raygrow.comparing import compare
from raygrow.comparison.plan import Stop
from raygrow.comparison.table import Outcome, trials_table
from raygrow.trial import Content, run_trial
from tests.core.test_comparison import TINY, changed, digests
from tests.end_to_end.campaigns import same_outcome

ray = pytest.importorskip("ray")

SMALL = changed(
    comparison={"seeds": [0]},
    grid={"strategy": ["periodic", "random"], "initializer": ["tiny"]},
    data={"diabetes": "diabetes", "teacher": TINY["data"]["teacher"]},
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One private cluster for all tests that ask for it."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="raygrow")
    yield
    ray.shutdown()


def tuned(
    work: Callable[[Any, Report], Outcome], jobs: list[Job], storage: Path, stop: Stop | None = None
) -> dict[str, Outcome]:
    """What comes of jobs that run one after the other."""
    found: dict[str, Outcome] = {}
    began: list[str] = []
    run_trials(jobs, work, storage, 1, stop, 4, began.append, found.__setitem__)
    assert set(began) == {name for job in jobs for name in job.contents}
    return found


@pytest.mark.usefixtures("cluster")
def test_what_lags_behind_its_own_repetition_is_stopped(tmp_path: Path) -> None:
    losses = {"a-good": 1.0, "a-bad": 2.0, "b-good": 8.0, "b-bad": 9.0, "b-nan": None}

    def work(content: tuple[str, float | None], report: Report) -> Outcome:
        name, loss = content
        for round_ in range(1, 5):
            (tmp_path / f"{name}-{round_}").touch()
            report(round_, loss)
        return Outcome("done", "")

    jobs = [Job(name[0], ({"CPU": 1},), {name: (name, loss)}) for name, loss in losses.items()]
    found = tuned(work, jobs, tmp_path / "tune", Stop(grace_rounds=2, reduction=2))
    # The good of b is far behind the bad of a: it is not measured against it.
    assert {name: outcome.status for name, outcome in found.items()} == {
        "a-good": "done", "a-bad": "stopped", "b-good": "done", "b-bad": "stopped", "b-nan": "stopped",
    }  # fmt: skip
    assert "after round 2" in found["b-bad"].reason
    # Stopped when it was told so, not later.
    assert {name: sum((tmp_path / f"{name}-{r}").exists() for r in range(1, 5)) for name in losses} == {
        "a-good": 4, "a-bad": 2, "b-good": 4, "b-bad": 2, "b-nan": 2,
    }  # fmt: skip
    assert {o.status for o in tuned(work, jobs, tmp_path / "again").values()} == {"done"}


@pytest.mark.usefixtures("cluster")
def test_a_lost_process_is_begun_again_until_it_is_given_up(tmp_path: Path) -> None:
    def work(content: tuple[str, int], report: Report) -> Outcome:
        name, deaths = content
        tries = len(list(tmp_path.glob(f"{name}-*")))
        (tmp_path / f"{name}-{tries}").touch()
        if tries < deaths:
            os._exit(1)
        return Outcome("done", f"at try {tries + 1}")

    jobs = [
        Job("", ({"CPU": 1},), {name: (name, deaths)}) for name, deaths in (("once", 1), ("ever", 99), ("never", 0))
    ]
    found = tuned(work, jobs, tmp_path / "tune")
    assert found["once"] == Outcome("done", "at try 2")
    assert found["never"] == Outcome("done", "at try 1")
    assert found["ever"].status == "failed"
    assert found["ever"].reason.startswith("its process was lost: ")
    assert len(list(tmp_path.glob("ever-*"))) == 1 + RETRIES


@pytest.mark.usefixtures("cluster")
def test_a_comparison_on_ray_gives_what_its_trials_give_here(tmp_path: Path) -> None:
    """With actors for the members too, in the placement groups of their trials; and one that can never be placed."""
    config = changed(
        {**SMALL, "data": {}},
        grid={"strategy": ["periodic"], "pool.kind": ["serial", "ray"], "pool.cpus_per_actor": [0.5, 64]},
        data={"diabetes": "diabetes"},
        comparison={"seeds": [0], "cpus_per_trial": 0.5},
    )  # fmt: skip
    compared = compare(config, out=tmp_path / "c", quiet=True)
    table = compared.trials.to_pandas().set_index(["arm", "data"])
    assert len(table) == 4
    far = table.index.get_level_values("arm").str.contains("kind=ray+cpus_per_actor=64", regex=False)
    assert set(table[far]["status"]) == {"unplaced"}
    assert set(table[~far]["status"]) == {"done"}
    for trial in compared.plan.trials:
        if trial.arm.levels["pool.cpus_per_actor"] == "0.5":
            here = tmp_path / "here" / trial.id
            document = {**compared.plan.document(trial), "pool": {"kind": "serial"}}
            assert run_trial(Content(here, document), lambda round_, loss: None) == Outcome("done", "")
            same_outcome(here, tmp_path / "c" / "trials" / trial.id)


@pytest.mark.usefixtures("cluster")
def test_a_terminated_comparison_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGTERM as soon as the first trial is said to be done; other trials run at that moment."""
    root, config = tmp_path / "c", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    words = [sys.executable, "-m", "raygrow.cli", "compare", str(config), "--out", str(root)]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    said = [first.stderr.readline()]
    while not said[-1].startswith("done "):
        said.append(first.stderr.readline())
        assert said[-1], f"it ended by itself: {said}"
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=300)
    assert (first.returncode, out) == (130, ""), err
    assert "goes on" in err and "Traceback" not in err
    finished = [p.parent for p in root.glob("trials/*/*/summary.json") if not json.loads(p.read_text())["interrupted"]]
    assert 1 <= len(finished) < 4
    before = {folder: digests(folder) for folder in finished}
    status = pd.read_parquet(root / "trials.parquet")["status"].tolist()
    assert status.count("done") == len(finished) and set(status) == {"done", "open"}

    compared = compare(config, out=root, quiet=True)
    assert {folder: digests(folder) for folder in finished} == before
    assert not (root / ".tune").exists()
    for trial in compared.plan.trials:
        work = Content(tmp_path / "whole" / trial.id, compared.plan.document(trial))
        assert run_trial(work, lambda round_, loss: None) == Outcome("done", "")
    whole = trials_table(compared.plan, tmp_path / "whole", {})
    assert compared.trials.drop_columns("wall_seconds").equals(whole.drop_columns("wall_seconds"))
