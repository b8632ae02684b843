"""A small campaign that grows, and how to compare what two runs of it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SMALL: dict[str, Any] = {
    "campaign": {"name": "small", "rounds": 3},
    "data": {"kind": "teacher", "rows": 1500},
    "training": {"examples_per_round": 600, "final_examples": 1000},
    "growth": {"units": [2, 4], "price": 0.0, "statistics_examples": 400},
    "probe": {"examples": 600, "blocks": 4},
    "members": [
        {"name": "mdl", "strategy": {"kind": "mdl"}},
        {"name": "significance", "strategy": {"kind": "significance"}},
        {"name": "periodic", "strategy": {"kind": "periodic", "units": 4}},
    ],
    "selection": {"kind": "independent"},
    "pool": {"kind": "serial"},
    # MLflow has tests of its own; here it would only cost each process its import and a model export.
    "tracking": {"enabled": False},
}


def moves_without_times(folder: Path) -> list[dict[str, Any]]:
    """Rows of moves.parquet but for what a clock wrote."""
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in pq.read_table(folder / "moves.parquet").to_pylist()
    ]


def summary_without_times(folder: Path) -> dict[str, Any]:
    """summary.json but for what a clock wrote."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    found.pop("wall_seconds")
    return found


def same_outcome(one: Path, two: Path) -> None:
    """Both folders hold the same decisions, losses and weights, bit for bit (checkpoints are named by their content)."""
    assert moves_without_times(one) == moves_without_times(two)
    assert summary_without_times(one) == summary_without_times(two)


def run_to_end(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own and wait."""
    return subprocess.run(
        [sys.executable, "-m", "raygrow.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        start_new_session=True,
    )


STOP_AT = """
import os, signal, sys
{patch}
from raygrow.cli import main
main(sys.argv[1:])
"""


def start_with(patch: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """The command line in a process that a patch stops, signals or holds at a chosen moment."""
    return subprocess.Popen(
        [sys.executable, "-c", STOP_AT.format(patch=patch), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_with(patch: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same, waited for."""
    process = start_with(patch, *arguments)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def at_call(count: int, name: str, module: str, owner: str, act: str) -> str:
    """A patch that acts on the n-th call of a method, before its work is done."""
    return f"""
import {module} as module
calls = 0
original = module.{owner}.{name}
def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == {count}:
        {act}
    return original(*args, **kwargs)
module.{owner}.{name} = counted
"""


def signal_after(count: int, name: str, module: str, owner: str, number: int = signal.SIGKILL) -> str:
    """A patch that sends its own process a signal on the n-th call of a method: no timing decides the moment."""
    return at_call(count, name, module, owner, f"os.kill(os.getpid(), {int(number)})")


HELD = at_call(
    4, "append", "raygrow.population.ledger", "Ledger", "print('held', file=sys.stderr, flush=True); sys.stdin.read()"
)
"""A patch that holds a campaign after three events until its standard input is closed."""


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """Events of the ledger."""
    for line in (folder / "events.jsonl").read_text().splitlines():
        yield json.loads(line)
