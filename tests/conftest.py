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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slurm takes longer than all else of its marker, and so begins first."""
    items.sort(key=lambda item: item.path.name != "test_slurm.py")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Bit-for-bit comparisons need the thread count that the pools set."""
    import torch

    torch.set_num_threads(1)
