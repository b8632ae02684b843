"""A Ray cluster of two machines on one: each node has a network, processes, shared memory and scratch of its own.

Nothing of it is seen from outside but through ``inside``, and all of it ends with its two holders.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .tools import ROOT

HEAD, WORKER = "10.89.8.1", "10.89.8.2"
NODE = """\
set -e
hostname "$1"
mount --bind "$2" /etc/hosts
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up
echo ready
read -r connected
shift 2
exec "$@"
"""
UP = "Ray runtime started."


def missing() -> str | None:
    """Why there can be no such cluster here, in words; None where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for network and process namespaces"
    absent = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install --no-install-recommends iproute2 util-linux"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--uts", "--mount", "--fork", "true"], capture_output=True, text=True
    )
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass
class Node:
    """A set of namespaces: the process that holds it, and its first process, seen from outside."""

    holder: subprocess.Popen[str]
    pid: int

    def actors(self) -> int:
        """Processes here that are actors of a campaign."""
        here = os.readlink(f"/proc/{self.pid}/ns/net")
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                if os.readlink(process / "ns" / "net") == here and b"ray::Actor" in (process / "cmdline").read_bytes():
                    found += 1
        return found


class RayLab:
    """Use as a context manager.

    Args:
        token: that every connection needs.
        cpus: of the head and of the worker.

    Attributes:
        environment: what a process needs to be let in.
        nodes: the head and the worker.
    """

    def __init__(self, token: str, cpus: tuple[int, int]) -> None:
        self._cpus = cpus
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment["PYTHONPATH"] = str(ROOT)
        # Figures of a campaign that is over in seconds must be seen while it runs.
        self.environment["RAY_metrics_report_interval_ms"] = "500"
        # A client's server on the head imports what takes long on a machine that has other work.
        self.environment["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = "120"
        # Without this the server of a client dies now and then as it is forked: github.com/ray-project/ray/issues/63202.
        self.environment["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        self._log = Path(tempfile.mkdtemp(prefix="raygrow-ray-"))
        self._hosts = self._log / "hosts"
        self.nodes: list[Node] = []

    def __enter__(self) -> RayLab:
        try:
            Path("/tmp/ray").mkdir(exist_ok=True)
            # A name that nothing resolves would be asked for again and again.
            self._hosts.write_text(f"127.0.0.1 localhost\n{HEAD} head\n{WORKER} worker\n")
            ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=100000000"]
            head = self._node("head", *ray, "--head", f"--node-ip-address={HEAD}", f"--num-cpus={self._cpus[0]}",
                              "--include-dashboard=true", f"--dashboard-host={HEAD}", "--metrics-export-port=8080")  # fmt: skip
            worker = self._node("worker", *ray, f"--address={HEAD}:6379", f"--node-ip-address={WORKER}",
                                f"--num-cpus={self._cpus[1]}")  # fmt: skip
            self._connect(head, worker)
            self._begin(head)
            self._begin(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _node(self, name: str, *command: str) -> Node:
        namespaces = ["unshare", "--net", "--pid", "--uts", "--mount", "--fork", "--kill-child", "--mount-proc"]
        holder = subprocess.Popen(
            [*namespaces, "bash", "-c", NODE, "bash", name, str(self._hosts), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self._log / name).open("w"), text=True,
            env=self.environment, start_new_session=True,
        )  # fmt: skip
        (first,) = self._children(holder) if self._said(holder, "ready") else (0,)
        node = Node(holder, first)
        self.nodes.append(node)
        return node

    @staticmethod
    def _children(process: subprocess.Popen[str]) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    @staticmethod
    def _said(process: subprocess.Popen[str], words: str) -> bool:
        assert process.stdout is not None
        return any(words in line for line in process.stdout)

    def _connect(self, one: Node, other: Node) -> None:
        """A cable between the two."""
        add = f"link add cable0 netns {one.pid} type veth peer name cable0 netns {other.pid}"
        subprocess.run(["ip", *add.split()], check=True)
        for node, address in ((one, HEAD), (other, WORKER)):
            for words in (f"address add {address}/24 dev cable0", "link set cable0 up"):
                subprocess.run(["nsenter", "--target", str(node.pid), "--net", "ip", *words.split()], check=True)

    def _begin(self, node: Node) -> None:
        assert node.holder.stdin is not None
        node.holder.stdin.write("connected\n")
        node.holder.stdin.flush()
        if not self._said(node.holder, UP):
            raise RuntimeError(f"a node of the Ray cluster did not come up: {self._logs()}")

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._log.iterdir()))

    def client_logs(self) -> str:
        """What the servers of clients on the head have said."""
        logs = Path(f"/proc/{self.nodes[0].pid}/root/tmp/ray").glob("session_2*/logs/ray_client_server*")
        return "\n".join(f"{path.name}: {path.read_text()[-4000:]}" for path in sorted(logs))

    def on_the_head(self, *command: str) -> list[str]:
        """What runs a command there."""
        return ["nsenter", "--target", str(self.nodes[0].pid), "--net", "--pid", "--uts", "--mount", *command]

    def outside(self, *command: str) -> list[str]:
        """What runs a command with no more of the cluster than a cable to it."""
        return ["nsenter", "--target", str(self.nodes[1].pid), "--net", *command]

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            # The first process of a set of namespaces takes all others with it.
            node.holder.kill()
            node.holder.wait()
            for stream in (node.holder.stdin, node.holder.stdout):
                if stream is not None:
                    stream.close()
        shutil.rmtree(self._log, ignore_errors=True)
