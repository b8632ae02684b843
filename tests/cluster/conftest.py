"""A Slurm for the tests of its launch files; each file of tests has one of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import raygrow

from .slurm_jobs import GATED, gated
from .slurm_lab import SlurmLab, missing


@pytest.fixture(scope="module")
def slurm_lab() -> Iterator[SlurmLab]:
    why = missing()
    if why:
        pytest.skip(f"a Slurm of its own {why}")
    with SlurmLab() as lab:
        (lab.shared / "gated_strategy.py").write_text(GATED)
        yield lab


@pytest.fixture
def slurm(slurm_lab: SlurmLab) -> Iterator[SlurmLab]:
    """Jobs end with their test: one that failed takes no other with it."""
    yield slurm_lab
    slurm_lab.on("control", "scancel", "--user=root")
    slurm_lab.until(lambda: not slurm_lab.on("control", "squeue", "-h"), 60, "all jobs have ended")


@pytest.fixture(scope="module")
def alone(slurm_lab: SlurmLab) -> raygrow.Result:
    """The gated campaign without a cluster."""
    config = gated(slurm_lab.shared, slurm_lab.shared / "serial-gate")
    (slurm_lab.shared / "serial-gate" / "open").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(slurm_lab.shared))
        return raygrow.run(config, pool="serial", out=slurm_lab.shared / "serial", quiet=True)
