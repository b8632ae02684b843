"""Settings every test shares."""

from __future__ import annotations

import os
import re

import pytest

# The result must not depend on a token file of this account, nor on another cluster, nor on a tracking server.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# Ray lets its actors step back before everything else, which here are the tests of another process.
os.environ.update(RAY_worker_niceness="0")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process for benchmarks: what is timed has the machine to itself."""
    return 0 if re.search(r"(?<!not )\bbench\b", config.getoption("markexpr")) else None


LONGEST = ("test_slurm.py", "test_slurm_interrupted.py", "test_slurm_forms.py", "test_tracking_server.py")
"""Files in the order in which two processes take them and end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longer than all else of its marker begins first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Bit-for-bit comparisons need the thread count that the pools set."""
    import torch

    torch.set_num_threads(1)
