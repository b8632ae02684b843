"""The entrypoint of the RayJob, run by bash: it begins, goes on after its process was killed, and keeps exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import raygrow
from tests.cluster.tools import CLUSTER
from tests.end_to_end.campaigns import SMALL, STOP_AT, at_call, same_outcome, signal_after, summary_without_times

pytestmark = pytest.mark.soak

SCRIPT = CLUSTER / "kubernetes" / "base" / "campaign.sh"
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> raygrow.Result:
    return raygrow.run(SMALL, out=tmp_path_factory.mktemp("serial") / "run", quiet=True)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Runs the script on a small campaign with a ``raygrow`` that a patch may stop."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))

    def run(out: Path, patch: str = "", config: str = "small.yaml", **more: str) -> subprocess.CompletedProcess[str]:
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "patched.py").write_text(STOP_AT.format(patch=patch))
        (programs / "raygrow").write_text(f'#!/bin/sh\nexec {sys.executable} {programs}/patched.py "$@"\n')
        (programs / "raygrow").chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            ["bash", str(SCRIPT), str(tmp_path / config), str(out)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,
            env={**os.environ, "PATH": path, "RAYGROW_ADDRESS": "", **more},
        )

    return run


def test_a_campaign_whose_head_died_is_gone_on_with(start: Start, serial: raygrow.Result, tmp_path: Path) -> None:
    """Killed after some events, as by the death of a node; the second start knows nothing but the folder."""
    out, copied = tmp_path / "run", tmp_path / "bucket" / "run"
    copied.parent.mkdir()
    first = start(
        out, signal_after(7, "append", "raygrow.population.ledger", "Ledger"), RAYGROW_COPY_TO=copied.as_uri()
    )
    assert first.returncode == 128 + signal.SIGKILL, first.stderr
    assert not (out / "summary.json").exists()
    begun = (out / "events.jsonl").read_text()
    second = start(out, RAYGROW_COPY_TO=copied.as_uri())
    assert second.returncode == 0, second.stderr
    assert (out / "events.jsonl").read_text().startswith(begun)
    same_outcome(serial.folder, out)
    # The copy is whole, and a campaign folder like any other.
    assert summary_without_times(copied) == summary_without_times(out)
    assert {p.relative_to(copied) for p in copied.rglob("*")} >= {
        p.relative_to(out) for p in out.rglob("*.safetensors")
    }
    # A finished one is summarised: a job that is started once more does no work.
    ended = (out / "events.jsonl").read_bytes()
    third = start(out)
    assert third.returncode == 0, third.stderr
    assert (out / "events.jsonl").read_bytes() == ended


def test_a_beginning_that_left_no_event_is_begun_anew(start: Start, serial: raygrow.Result, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    (out / "config.yaml").write_text("campaign: {name: torn")
    (out / "events.jsonl").write_text('{"n":0,"type":"started","config":{"camp')
    done = start(out)
    assert done.returncode == 0, done.stderr
    same_outcome(serial.folder, out)


@pytest.mark.parametrize(
    "send", ["os.kill(os.getppid(), signal.SIGTERM)", "os.killpg(0, signal.SIGTERM)"], ids=["the script", "all"]
)
def test_sigterm_ends_it_whole(send: str, start: Start, tmp_path: Path) -> None:
    """Sent to the script alone, or to all its processes as Ray does: raygrow is waited for, and what it leaves is copied."""
    out, copied = tmp_path / "run", tmp_path / "copy"
    patch = at_call(2, "run", "raygrow.population.member_round", "MemberRound", send)
    done = start(out, patch, RAYGROW_COPY_TO=copied.as_uri())
    assert done.returncode == 130, done.stderr
    assert (out / "summary.json").exists()
    assert (copied / "summary.json").read_bytes() == (out / "summary.json").read_bytes()


def test_exit_codes_are_raygrow_s(start: Start, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**SMALL, "campaign": {"rounds": -1}}))
    refused = start(tmp_path / "refused", config="bad.yaml")
    assert refused.returncode == 2
    assert '"event": "refused"' in refused.stderr
    assert not (tmp_path / "refused").exists()
    raising = (
        "import raygrow.population.member_round as m\ndef run(*a): raise ValueError('broken')\nm.MemberRound.run = run"
    )
    failed = start(tmp_path / "failed", raising)
    assert failed.returncode == 3, failed.stderr
    # A copy that cannot be made is told where the campaign itself has nothing worse to tell.
    uncopied = start(tmp_path / "failed", RAYGROW_COPY_TO="nonsense://bucket")
    assert uncopied.returncode == 3, uncopied.stderr


def test_keys_of_the_environment_reach_a_new_campaign(start: Start, tmp_path: Path) -> None:
    words = "campaign.rounds=1 campaign.name=other"
    done = start(tmp_path / "run", RAYGROW_SET=words, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/m.db")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["campaign"]["rounds"], config["campaign"]["name"]) == (1, "other")
    assert config["tracking"]["uri"] == f"sqlite:///{tmp_path}/m.db"
