"""Jobs of a real Slurm that run a campaign held in the middle of a round, and what has to be so after one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.slurm_lab import NODES, SCRATCH, SlurmLab
from tests.cluster.tools import CLUSTER, ROOT
from tests.end_to_end.campaigns import SMALL, events

LAUNCH = CLUSTER / "slurm"
ENDED = 240.0
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

    slurm: SlurmLab
    gate: Path
    out: Path
    process: subprocess.Popen[str]
    id: str

    def shown(self, field: str) -> str:
        """What Slurm says of the job."""
        found = re.search(rf" {field}=(\S+)", self.slurm.on("control", "scontrol", "show", "job", "-o", self.id))
        assert found
        return found[1]

    def nodes(self) -> set[str]:
        """Where members wait at the gate."""
        return {path.name.split("-")[0] for path in self.gate.iterdir()}

    def until_both_wait(self) -> None:
        self.slurm.until(self._waiting, ENDED, f"both members of {self.out.name} wait")
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
        self.slurm.until(lambda: not self._queued(), ENDED, f"job {self.out.name} has ended")
        return self.shown("JobState"), self.shown("ExitCode")

    def _queued(self) -> bool:
        """Waiting, running, or being ended."""
        return self.id in self.slurm.on("control", "squeue", "-h", "-o", "%A").split()

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.slurm.shared.glob(f"{self.out.name}-*.log")))

    def turns(self) -> list[str]:
        """What happened to the campaign but its rounds, in the words of its ledger."""
        told = ("interrupted", "failed", "resumed", "retried", "ended")
        return [event["type"] for event in events(self.out) if event["type"] in told]


def gated(folder: Path, gate: Path) -> Path:
    """A file of the campaign, its gate closed and nobody there."""
    shutil.rmtree(gate, ignore_errors=True)
    gate.mkdir()
    members = [
        {"name": grows, "strategy": {"kind": "gated_strategy:Strategy", "gate": str(gate), "grows": grows}}
        for grows in ("mdl", "periodic")
    ]
    path = folder / f"{gate.name}.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "members": members, "pool": {"kind": "ray", "cpus_per_actor": 1}}))
    return path


def environment(slurm: SlurmLab) -> dict[str, str]:
    """What sbatch is told of this site."""
    return {
        "RAYGROW_VENV": sys.prefix,
        "RAYGROW_SCRATCH": SCRATCH,
        "RAYGROW_STORE_BYTES": "100000000",
        "PYTHONPATH": os.pathsep.join([str(slurm.shared), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }


def submit(
    slurm: SlurmLab, name: str, *words: str, script: str = "raygrow.sbatch", sbatch: tuple[str, ...] = (), **more: str
) -> Job:
    """A job with this name, its campaign's folder and its gate; ``more`` goes into its environment."""
    gate = slurm.shared / f"{name}-gate"
    config = gated(slurm.shared, gate)
    process = slurm.submit(
        f"--job-name={name}", "--time=10", "--cpus-per-task=1", "--mem-per-cpu=0", *sbatch, LAUNCH / script,
        config, "--out", name, *words, **{**environment(slurm), **more},
    )  # fmt: skip
    assert process.stdout is not None
    return Job(slurm, gate, slurm.shared / name, process, process.stdout.readline().split()[-1])


def nothing_is_left(slurm: SlurmLab) -> None:
    """No token, and on no node a process or a file of the job."""
    assert not list(slurm.shared.glob(".raygrow-*.token"))
    for node in NODES:
        slurm.until(lambda node=node: not slurm.processes(node), 30, f"no process is left on {node}")
        assert slurm.on(node, "ls", SCRATCH) == "", slurm.on(node, "find", SCRATCH)
