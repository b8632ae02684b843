"""What every benchmark shares: alternating timings, medians with their spread, a table, and JSON with the machine's facts.

Figures of different runs do not compare: machines differ, and other work comes and goes. Whatever is compared therefore
alternates within one process, and what a benchmark states is a ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t

VERSIONS_OF = ("torch", "numpy", "scikit-learn", "ray", "mlflow", "gromo")


def in_turns(arms: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each call gives, the arms taking turns, so that a slow moment of the machine falls on all of them.

    The order is drawn anew each turn: whoever comes straight after another arm finds what it left behind, caches full of its
    code or processes that are still ending, and in a fixed order that would always be the same one.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    order, draw = list(arms), random.Random(0)
    for _ in range(repeats):
        draw.shuffle(order)
        for name in order:
            found[name].append(arms[name]())
    return found


def alternate(
    arms: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call, the arms taking turns.

    Args:
        arms: what to time, by name.
        repeats: timed calls of each arm.
        warm_up: calls of each arm before those, not timed.
        clock: of wall time; ``time.process_time`` where all arms compute in one thread and other work shares the machine.
    """
    for _ in range(warm_up):
        for work in arms.values():
            work()

    def timed(work: Callable[[], object]) -> float:
        begun = clock()
        work()
        return clock() - begun

    return in_turns({name: partial(timed, work) for name, work in arms.items()}, repeats)


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Turn by turn: both calls of a turn met the same machine."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def spread(values: Sequence[float], unit: str = "", digits: int = 3) -> str:
    """Median and range, as ``median (least-most) unit``."""
    low, middle, high = (f"{v:.{digits}g}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high}){' ' + unit if unit else ''}"


def mean_sd(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard deviation over seeds."""
    deviation = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def difference(gaps: Sequence[float]) -> str:
    """Mean of differences paired by seed with its 90 % t-interval, which has no end for a single seed."""
    half = math.inf
    if len(gaps) > 1:
        half = float(t.ppf(0.95, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    mean = statistics.mean(gaps)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Rows with the same keys as a table, in Markdown, so that it can be quoted as it is."""
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(lines), flush=True)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions and threads: what a figure must be read with."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: found for name in VERSIONS_OF if (found := _version(name))},
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def json_file(name: str) -> Path:
    """For an option that names the file to write: refused before the work, not after it."""
    if Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"{name} is a folder: name a JSON file")
    return Path(name)


def write_json(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Write ``payload`` with the machine's facts beside it, by rename."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_text(json.dumps({"machine": machine(), **payload}, indent=1) + "\n")
    part.replace(target)


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
