"""A Slurm of three machines on one: a controller and two nodes, each in namespaces of its own.

A node has its own addresses, host name, processes, shared memory and scratch, so that what Ray starts on one is neither seen
nor reached from another but over the network between them. Daemons and namespaces live and die with this process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "ip", "nsenter", "unshare")
PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
ADDRESSES = {"control": "10.89.7.1", "n0": "10.89.7.10", "n1": "10.89.7.11"}
NODES = ("n0", "n1")
SCRATCH = "/mnt"
"""Where each machine has a file system of its own; everything else they share."""

CONFIG = """\
ClusterName=lab
SlurmctldHost=control({control})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until the credentials of its first run have expired.
AuthInfo=socket={home}/munge.socket,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
# The limits of this process hold: raising them may not be allowed to it.
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SchedulerParameters=batch_sched_delay=0,sched_interval=1
GresTypes=gpu
NodeName={nodes} CPUs=8 RealMemory=16000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

MACHINE = f"""\
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs tmpfs {SCRATCH}
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up
echo ready
read -r connected
shift 2
"$@" &
wait
"""


class LabDied(RuntimeError):
    """A daemon of the lab ended, or something did not happen in time."""


def missing() -> str | None:
    """Why there can be no lab here, in words; None where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for network and process namespaces"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install --no-install-recommends {PACKAGES}"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--uts", "--ipc", "--mount", "--fork", "true"], capture_output=True, text=True
    )
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass
class Machine:
    """One namespace set: the process that holds it, and its first process, seen from outside."""

    holder: subprocess.Popen[str]
    pid: int

    def inside(self, folder: Path) -> list[str]:
        """What a command is prefixed with to run there, in a folder."""
        entering = ["nsenter", "--target", str(self.pid), "--net", "--uts", "--ipc", "--mount", "--pid"]
        return [*entering, "env", f"--chdir={folder}"]


class SlurmLab:
    """Use as a context manager.

    Attributes:
        shared: a folder that all machines see under the same path, as on a shared file system.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="raygrow-slurm-", dir="/var/tmp"))
        self.home.chmod(0o755)
        self.shared = self.home / "shared"
        self._machines: dict[str, Machine] = {}
        self._daemons: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> SlurmLab:
        try:
            self._configure()
            self._boot("control", "slurmctld", "-D", "-f", str(self.home / "slurm.conf"))
            self._bridge()
            for node in NODES:
                self.boot(node)
            self.until(lambda: self._idle() == len(NODES), 60, "the nodes are idle")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of the lab."""
        processes = [*(machine.holder for machine in self._machines.values()), *self._daemons.values()]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        self._machines, self._daemons = {}, {}
        shutil.rmtree(self.home, ignore_errors=True)

    def _configure(self) -> None:
        for folder in ("state", "shared", *(f"spool-{node}" for node in NODES)):
            (self.home / folder).mkdir()
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in ADDRESSES.items())]
        (self.home / "hosts").write_text("\n".join(lines) + "\n")
        fields = {"home": self.home, "control": ADDRESSES["control"], "nodes": ",".join(NODES)}
        (self.home / "slurm.conf").write_text(CONFIG.format(**fields))
        # Any device file will do for a GPU that nobody computes on.
        (self.home / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File=/dev/null\n")
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        plugin = "autodetect" if unified else "cgroup/v1"
        (self.home / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\nConstrainCores=no\nConstrainRAMSpace=no\n")
        key = self.home / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._daemons["munged"] = self._start(
            "munged", "--foreground", f"--key-file={key}", f"--socket={self.home}/munge.socket",
            f"--pid-file={self.home}/munged.pid", f"--seed-file={self.home}/munge.seed", "--log-file=/dev/stderr",
        )  # fmt: skip
        self.until((self.home / "munge.socket").exists, 20, "munged listens")

    def _start(self, *command: str) -> subprocess.Popen[str]:
        """A process that the kernel ends with this one, however this one ends; its words go to a file."""
        log = (self.home / f"{command[0]}.out").open("a")
        with log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, preexec_fn=_die_with_parent
            )

    def boot(self, node: str) -> None:
        """Start a node that is not there, or not any more."""
        machine = self._boot(node, "slurmd", "-D", "-N", node, "-f", str(self.home / "slurm.conf"))
        control = self._machines["control"]
        link = f"to-{node}"
        _run("ip", "link", "add", link, "netns", str(control.pid), "type", "veth",
             "peer", "name", "eth0", "netns", str(machine.pid))  # fmt: skip
        self.on("control", "ip", "link", "set", link, "master", "bridge", "up")
        self.on(node, "ip", "addr", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
        self.on(node, "ip", "link", "set", "eth0", "up")
        self._go(node)

    def _bridge(self) -> None:
        for words in (
            "link add bridge type bridge",
            f"addr add {ADDRESSES['control']}/24 dev bridge",
            "link set bridge up",
        ):
            self.on("control", "ip", *words.split())
        self._go("control")

    def _boot(self, name: str, *daemon: str) -> Machine:
        """New namespaces with a shell as their first process, which waits for the network."""
        with (self.home / f"{name}.out").open("a") as log:
            holder = subprocess.Popen(
                ["unshare", "--net", "--pid", "--uts", "--ipc", "--mount", "--fork", "--mount-proc", "--kill-child=KILL",
                 "bash", "-c", MACHINE, "machine", name, str(self.home), *daemon],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=_die_with_parent,
                env={**os.environ, "SLURM_CONF": str(self.home / "slurm.conf")},
            )  # fmt: skip
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            holder.kill()
            raise LabDied(f"machine {name} did not come up: {(self.home / f'{name}.out').read_text()}")
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        self._machines[name] = Machine(holder, int(children[0]))
        return self._machines[name]

    def _go(self, name: str) -> None:
        holder = self._machines[name].holder
        assert holder.stdin is not None
        holder.stdin.write("connected\n")
        holder.stdin.flush()

    def kill(self, node: str) -> None:
        """As if its power were cut: every process of the node is gone, with its network."""
        machine = self._machines.pop(node)
        machine.holder.send_signal(signal.SIGKILL)
        machine.holder.wait()

    def on(self, machine: str, *command: str, check: bool = True, **environment: str) -> str:
        """Run a command there to its end and return what it prints.

        Raises:
            LabDied: it failed.
        """
        done = subprocess.run(
            [*self._machines[machine].inside(self.shared), *command],
            capture_output=True, text=True, timeout=120, env=self._environment(environment),
        )  # fmt: skip
        if check and done.returncode:
            raise LabDied(f"{' '.join(command)} on {machine}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, *words: str | Path, **environment: str) -> subprocess.Popen[str]:
        """``sbatch --wait`` from the controller, which stands for a login node; its exit code is the job's."""
        command = [*self._machines["control"].inside(self.shared), "sbatch", "--wait", *map(str, words)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self._environment(environment), preexec_fn=_die_with_parent,
        )  # fmt: skip

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        return {**kept, "SLURM_CONF": str(self.home / "slurm.conf"), **more}

    def _idle(self) -> int:
        return self.on("control", "sinfo", "-h", "-N", "-o", "%T", check=False).split().count("idle")

    def until(self, happened: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something to be so.

        Raises:
            LabDied: it is not so in time, or a daemon has ended meanwhile.
        """
        limit = time.monotonic() + seconds
        while not happened():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            dead += [name for name, machine in self._machines.items() if machine.holder.poll() is not None]
            if dead or time.monotonic() > limit:
                why = f"{', '.join(dead)} ended" if dead else f"{seconds:.0f} s were not enough"
                raise LabDied(f"waiting until {what}: {why}\n{self._last_words()}")
            # Each look is a program of Slurm's.
            time.sleep(0.25)

    def _last_words(self) -> str:
        logs = sorted([*self.home.glob("*.log"), *self.home.glob("*.out"), *self.shared.glob("*.log")])
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}" for log in logs)

    def processes(self, node: str) -> list[str]:
        """Command lines of what runs on a node, but for the node's own daemons and kernel leftovers."""
        rows = self.on(node, "ps", "-e", "-o", "stat=,args=").splitlines()
        alive = [row.split(maxsplit=1)[1] for row in rows if not row.startswith("Z")]
        own = ("bash -c set -e", "slurmd ", "ps ")
        return [row for row in alive if not row.startswith(own)]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LabDied(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
