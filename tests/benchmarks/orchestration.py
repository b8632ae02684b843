"""What the population costs beside the training itself: start, idle actors, the driver's own work, memory, scaling.

Run ``python -m tests.benchmarks.orchestration`` for the full form. It prints tables and writes the JSON file named by
``--out``. Linux only: it reads the processors' time and the memory of actors from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import raygrow
from raygrow.adapters.ray_pool import RayPool
from raygrow.population.ledger import Event
from raygrow.progress import Progress
from tests.benchmarks.harness import in_turns, json_file, print_table, ratios, spread, write_json

MEMBERS = 3
QUIET = 0.05
"""Of the cores; a round in which other processes took more says little of how the actors would fill them."""
DATA = ("lorenz96", "digits")
"""One that is integrated, one that is read."""
TICKS = os.sysconf("SC_CLK_TCK")
MIXED: list[dict[str, Any]] = [{"name": kind, "strategy": {"kind": kind}} for kind in ("mdl", "significance", "rl")]
# The shipped strategies differ in how much they probe; these probe the same in every round.
EVEN: list[dict[str, Any]] = [
    {"name": f"m{i}", "seed": i, "strategy": {"kind": "periodic", "every": 1, "units": 4}} for i in range(4)
]

BARE = """
import os, time, ray
begun = time.perf_counter()
ray.init(address="local", num_cpus=max(os.cpu_count(), 2), include_dashboard=False, log_to_driver=False,
         logging_level="ERROR", namespace="raygrow")
class Bare:
    def __init__(self):
        import torch
        torch.set_num_threads(1)
    def ready(self):
        return True
Remote = ray.remote(Bare).options(num_cpus=0.5, scheduling_strategy="SPREAD")
actors = [Remote.remote() for _ in range({members})]
ray.get([actor.ready.remote() for actor in actors])
print(time.perf_counter() - begun)
"""


def a_campaign(members: Sequence[Mapping[str, Any]], rounds: int, examples: int, **more: Any) -> dict[str, Any]:
    """Digits, with networks that stay as small as they are, so that all rounds cost the same."""
    return {
        "campaign": {"name": "orchestration", "rounds": rounds},
        "data": {"kind": "digits"},
        "training": {"examples_per_round": examples, "final_examples": 32},
        "growth": {"price": 1e3, "patience": rounds + 1},
        "probe": {"examples": examples},
        "members": list(members),
        "selection": {"kind": "independent"},
        "tracking": {"enabled": False},
        **more,
    }


# Start


def start_seconds(data: str) -> float:
    """From the command to the moment when the first round is handed out."""
    with tempfile.TemporaryDirectory() as folder:
        return _start_seconds(data, Path(folder))


def _start_seconds(data: str, folder: Path) -> float:
    config = a_campaign(MIXED, rounds=1, examples=64, data={"kind": data}, tracking={"enabled": True})
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    begun = time.time()
    command = [sys.executable, "-m", "raygrow.cli", "run", str(file), "--out", str(folder / "run")]
    subprocess.run(command, check=True, capture_output=True)
    lines = (folder / "run" / "events.jsonl").read_text().splitlines()
    closed = next(event for event in map(json.loads, lines) if event["type"] == "closed")
    return float(closed["time"]) - begun


def bare_seconds() -> float:
    """``ray.init`` and one ready torch actor a member; the imports of Ray and of Python itself are not counted."""
    script = BARE.replace("{members}", str(MEMBERS))
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return float(done.stdout)


def help_seconds() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "raygrow.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - begun


def measure_start(repeats: int, sets: Sequence[str]) -> dict[str, Any]:
    """Both starts in turns; each in processes of its own."""
    ours = in_turns(
        {data: partial(start_seconds, data) for data in sets} | {"bare": bare_seconds, "help": help_seconds}, repeats
    )
    bare, helps = ours.pop("bare"), ours.pop("help")
    print_table(
        [
            {
                "data": data,
                "ray.init and 3 torch actors": spread(bare, "s"),
                "command to first round": spread(seconds, "s"),
                "ratio": spread(ratios(seconds, bare)),
                "ratio of medians": f"{statistics.median(seconds) / statistics.median(bare):.3g}",
                "raygrow --help": spread(helps, "s"),
            }
            for data, seconds in ours.items()
        ]
    )
    ratio = {data: ratios(seconds, bare) for data, seconds in ours.items()}
    return {"bare": bare, "campaign": ours, "ratio": ratio, "help": helps}


# Work


def cpu_of(pid: int) -> float:
    """Seconds of processor of a process, all its threads, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def machine_cpu() -> float:
    """Seconds of processor of everything that runs here."""
    user, nice, system, _, _, irq, soft_irq, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + soft_irq) / TICKS


@dataclass
class Watched:
    """A campaign's clocks at the beginning of the first round and at the end of every one.

    Attributes:
        wall, actors, driver, machine: seconds of the clock, and of processors: the actors', this process's, in all.
        tasks: seconds of each member's tasks, a list a round.
    """

    pids: list[int] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    actors: list[float] = field(default_factory=list)
    driver: list[float] = field(default_factory=list)
    machine: list[float] = field(default_factory=list)
    tasks: list[list[float]] = field(default_factory=list)

    def look(self) -> None:
        self.wall.append(time.perf_counter())
        self.actors.append(sum(map(cpu_of, self.pids)))
        self.driver.append(own_cpu())
        self.machine.append(machine_cpu())

    @property
    def rounds(self) -> list[float]:
        return [after - before for before, after in zip(self.wall, self.wall[1:], strict=False)]

    def shares(self, of: list[float]) -> list[float]:
        """Round by round, of the time of the cores that the actors could use."""
        cores = min(len(self.pids), os.cpu_count() or 1)
        return [(b - a) / (cores * seconds) for (a, b), seconds in zip(pairwise(of), self.rounds, strict=True)]

    def share(self, of: list[float]) -> float:
        """The same from the beginning of the first round to the end of the last."""
        return sum(s * r for s, r in zip(self.shares(of), self.rounds, strict=True)) / sum(self.rounds)

    @property
    def others(self) -> list[float]:
        """Shares that went to neither the actors nor this process: Ray's own, and whatever else runs here."""
        clocks = (self.machine, self.actors, self.driver)
        return [all_ - actors - own for all_, actors, own in zip(*map(self.shares, clocks), strict=True)]

    @property
    def quiet(self) -> list[float]:
        """Shares of the actors in the rounds that other work hardly disturbed."""
        return [share for share, other in zip(self.shares(self.actors), self.others, strict=True) if other < QUIET]


@contextlib.contextmanager
def watching() -> Iterator[Watched]:
    """Watch the campaign that runs inside."""
    watched = Watched()

    class Looking(Progress):
        def heard(self, event: Event) -> None:
            if event["type"] == "reported" and event["task"]["phase"] == "round":
                watched.tasks[-1].append(event["report"]["seconds"])
            if event["type"] == "decided" or (event["type"], event.get("phase")) == ("closed", "start"):
                watched.look()
                watched.tasks.append([])
            super().heard(event)

    class Known(RayPool):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            watched.pids = self.pids()

    with patch("raygrow.app.Progress", Looking), patch("raygrow.adapters.ray_pool.RayPool", Known):
        yield watched


def watch(config: Mapping[str, Any]) -> Watched:
    with tempfile.TemporaryDirectory() as folder, watching() as watched:
        raygrow.run(config, out=Path(folder) / "run", quiet=True)
    return watched


def examples_for(seconds: float) -> int:
    """Examples a round that keep a processor busy for so long with one member, in whole batches of the default size."""
    tried = 32768
    before, after = watch({**a_campaign(EVEN[:1], 2, tried), "pool": {"kind": "serial"}}).driver[-2:]
    took = after - before
    return 32 * max(round(tried * seconds / took / 32), 1)


def measure_work(rounds: int, examples: int) -> dict[str, Any]:
    """How much of the cores the actors use, and how much the driver takes, mirror and all."""
    found: dict[str, Any] = {}
    rows = []
    for name, members, actors in (
        ("even work", EVEN[:MEMBERS], MEMBERS),
        ("mdl, significance, rl", MIXED, MEMBERS),
        ("even work", EVEN[:MEMBERS], 2),
    ):
        pool = {"kind": "ray", "actors": actors}
        watched = watch(a_campaign(members, rounds, examples, pool=pool, tracking={"enabled": True}))
        busy, own = watched.share(watched.actors), watched.share(watched.driver)
        quiet = watched.quiet
        unequal = [max(each) / min(each) for each in watched.tasks[:-1]]
        found[f"{name}, {actors} actors"] = {
            "rounds": watched.rounds,
            "actors": busy,
            "driver": own,
            "others": watched.others,
            "quiet": quiet,
        }
        rows.append(
            {
                "3 members": name,
                "actors": actors,
                "a round": spread(watched.rounds, "s"),
                "actors compute": f"{100 * busy:.1f} %",
                "driver and mirror": f"{100 * own:.2f} %",
                "other processes": f"{100 * statistics.mean(watched.others):.1f} %",
                "actors in quiet rounds": f"{spread(quiet)} of {len(quiet)}" if quiet else "none was",
                "longest task / shortest": spread(unequal),
            }
        )
    print_table(rows)
    return found


def measure_overhead(rounds: int, repeats: int, examples: int) -> dict[str, Any]:
    """The same rounds in a plain loop in this process and by one actor, in turns, round by round."""
    loop: list[float] = []
    actor: list[float] = []
    for _ in range(repeats):
        loop += watch(a_campaign(EVEN[:MEMBERS], rounds, examples, pool={"kind": "serial"})).rounds
        actor += watch(a_campaign(EVEN[:MEMBERS], rounds, examples, pool={"kind": "ray", "actors": 1})).rounds
    found = {"loop": loop, "actor": actor, "ratio": ratios(actor, loop)}
    print_table(
        [
            {
                "3 members, a round in a plain loop": spread(loop, "s"),
                "by one actor": spread(actor, "s"),
                "ratio": spread(found["ratio"]),
            }
        ]
    )
    return found


# Memory


def memory_of(pid: int) -> float:
    """MB that are a process's own (USS) and its share of shared memory."""
    sizes = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    }
    return (sizes["Private_Clean"] + sizes["Private_Dirty"] + sizes.get("Pss_Shmem", 0)) / 1024


class Peak(threading.Thread):
    """The largest figure that the processes ever show, each by itself."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(daemon=True)
        self.watched, self.highest, self.over = watched, dict[int, float](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            for pid in self.watched.pids:
                # An actor may be gone by now.
                with contextlib.suppress(OSError, IndexError, KeyError):
                    self.highest[pid] = max(self.highest.get(pid, 0.0), memory_of(pid))


def measure_memory(rounds: int) -> dict[str, Any]:
    """Actors of the shipped settings on digits beside actors that have imported torch and nothing else."""
    import ray

    class Bare:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(1)

        def pid(self) -> int:
            return os.getpid()

    remote = ray.remote(Bare).options(num_cpus=0.1)
    actors = [remote.remote() for _ in range(MEMBERS)]
    bare = [memory_of(pid) for pid in ray.get([actor.pid.remote() for actor in actors])]
    for actor in actors:
        ray.kill(actor)
    config = {"campaign": {"rounds": rounds}, "data": {"kind": "digits"}, "members": MIXED,
              "budget": {"max_flops_per_example": 5000}, "tracking": {"enabled": False}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, watching() as watched:
        peak = Peak(watched)
        peak.start()
        raygrow.run(config, out=Path(folder) / "run", quiet=True)
        peak.over.set()
        peak.join()
    highest = list(peak.highest.values())
    found = {"bare": bare, "actor": highest, "ratio": max(highest) / statistics.median(bare)}
    print_table(
        [
            {
                "bare torch actor": spread(bare, "MB"),
                "actor on digits, peak": spread(highest, "MB"),
                "largest / bare": f"{found['ratio']:.3g}",
            }
        ]
    )
    return found


# Scaling


def measure_scaling(rounds: int, examples: int) -> dict[str, Any]:
    """What a round costs with more examples and with more members: processor seconds in one process."""
    cases = {"examples": [(1, examples * n) for n in (1, 2, 4)], "members": [(n, examples) for n in (1, 2, 4)]}
    found: dict[str, Any] = {}
    rows = []
    for what, sizes in cases.items():
        costs = []
        for members, each in sizes:
            driver = watch(a_campaign(EVEN[:members], rounds, each, pool={"kind": "serial"})).driver
            costs.append([after - before for before, after in pairwise(driver)])
        middle = [statistics.median(cost) for cost in costs]
        found[what] = {
            "cpu_seconds": costs,
            "per_unit": [m / n / middle[0] for m, n in zip(middle, (1, 2, 4), strict=True)],
        }
        rows.append(
            {
                "more": what,
                **{f"{n}x": spread(cost, "s") for n, cost in zip((1, 2, 4), costs, strict=True)},
                "2x / 1x": f"{middle[1] / middle[0]:.3g}",
                "4x / 1x": f"{middle[2] / middle[0]:.3g}",
            }
        )
    print_table(rows)
    return found


def measure(small: bool) -> dict[str, Any]:
    """All of it; the small form in less than 90 seconds."""
    import ray

    found: dict[str, Any] = {"start": measure_start(1, DATA[:1]) if small else measure_start(9, DATA)}
    # One Ray for the rest: its start has been measured.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        second = examples_for(1.0 if small else 1.5)
        found["work"] = measure_work(4 if small else 25, second)
        found["overhead"] = measure_overhead(3, 1 if small else 4, second // 4)
        found["memory"] = measure_memory(2 if small else 6)
        found["scaling"] = measure_scaling(3 if small else 9, second // (8 if small else 2))
    finally:
        ray.shutdown()
    return found


@pytest.mark.bench
def test_orchestration_stays_small() -> None:
    """Loose bounds: the machine may be loaded, and a single start varies."""
    found = measure(small=True)
    assert min(found["start"]["ratio"]["lorenz96"]) < 2.5
    assert found["work"]["even work, 3 actors"]["actors"] > 0.6
    assert found["work"]["even work, 3 actors"]["driver"] < 0.1
    assert statistics.median(found["overhead"]["ratio"]) < 1.5
    assert found["memory"]["ratio"] < 1.7
    assert all(each < 1.3 for case in found["scaling"].values() for each in case["per_unit"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the form that the tests run")
    parser.add_argument("--out", type=json_file, default=Path("runs/orchestration.json"))
    arguments = parser.parse_args()
    write_json(arguments.out, measure(arguments.small))


if __name__ == "__main__":
    main()
