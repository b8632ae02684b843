"""The launch files for Slurm on a real Slurm: two nodes, Ray on both, and what may happen to a job."""

from __future__ import annotations

import json
import os
import re
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
from tests.end_to_end.campaigns import SMALL, events, same_outcome

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "cluster" / "slurm"
ENDED = 150.0
"""Seconds a job may take on a busy machine; a quiet one needs a quarter."""

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
        return {path.name.split("-")[0] for path in self.gate.iterdir()} & set(NODES)

    def until_both_wait(self) -> None:
        self.lab.until(self._waiting, ENDED, f"members of {self.out.name} wait on both nodes")

    def _waiting(self) -> bool:
        assert self.shown("JobState") in ("PENDING", "CONFIGURING", "RUNNING"), f"the job ended early: {self.log()}"
        return self.nodes() == set(NODES)

    def open(self) -> None:
        (self.gate / "open").touch()

    def ended(self) -> tuple[str, str]:
        """How it ended, and its exit code as Slurm has it; seen sooner than ``sbatch --wait`` looks again."""
        going = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
        self.lab.until(lambda: self.shown("JobState") not in going, ENDED, f"job {self.out.name} has ended")
        return self.shown("JobState"), self.shown("ExitCode")

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.lab.shared.glob(f"{self.out.name}-*.log")))

    def events(self) -> list[str]:
        return [event["type"] for event in events(self.out)]


@pytest.fixture(scope="module")
def lab() -> Iterator[SlurmLab]:
    why = missing()
    if why:
        pytest.skip(f"a Slurm of its own {why}")
    with SlurmLab() as slurm:
        (slurm.shared / "gated_strategy.py").write_text(GATED)
        yield slurm


def _config(folder: Path, gate: Path) -> Path:
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


def _submit(lab: SlurmLab, name: str, *words: str, script: str = "raygrow.sbatch", sbatch: tuple[str, ...] = ()) -> Job:
    gate = lab.shared / f"{name}-gate"
    config = _config(lab.shared, gate)
    environment = {
        "RAYGROW_VENV": sys.prefix,
        "RAYGROW_SCRATCH": SCRATCH,
        "RAYGROW_STORE_BYTES": "100000000",
        "PYTHONPATH": os.pathsep.join([str(lab.shared), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    process = lab.submit(
        f"--job-name={name}", "--time=10", "--cpus-per-task=2", "--mem-per-cpu=0", *sbatch, LAUNCH / script,
        config, "--out", name, *words, **environment,
    )  # fmt: skip
    assert process.stdout is not None
    return Job(lab, gate, lab.shared / name, process, process.stdout.readline().split()[-1])


def _nothing_is_left(lab: SlurmLab) -> None:
    """No token, and on no node a process or a file of the job."""
    assert not list(lab.shared.glob(".raygrow-*.token"))
    for node in NODES:
        lab.until(lambda node=node: not lab.processes(node), 30, f"no process is left on {node}")
        assert lab.on(node, "ls", SCRATCH) == ""


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
    assert json.loads(with_it) == {"nodes": 2, "CPU": 4, "GPU": 2}
    assert unreadable == "unreadable"
    assert without_it.startswith("AuthenticationError"), without_it
    job.open()
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    same_outcome(serial.folder, job.out)
    _nothing_is_left(lab)
