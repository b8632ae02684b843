"""What may happen to a job of Slurm: it is told to stop, cancelled, and loses a node, the first one too."""

from __future__ import annotations

import re

import pytest

import raygrow
from tests.end_to_end.campaigns import same_outcome

from .slurm_jobs import ENDED, nothing_is_left, submit
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.cluster


def test_told_to_stop_it_is_requeued_and_goes_on(slurm: SlurmLab, alone: raygrow.Result) -> None:
    """By the signal of ``#SBATCH --signal``. Then it survives the loss of a node in the middle of a round."""
    job = submit(slurm, "stopped")
    job.until_both_wait()
    slurm.on("control", "scancel", "--signal=TERM", "--batch", job.id)
    slurm.until(lambda: "interrupted" in job.turns(), 60, "the campaign is interrupted")
    job.clear()
    job.until_both_wait()
    slurm.kill("n1")
    job.open()
    try:
        assert job.ended() == ("COMPLETED", "0:0"), job.log()
    finally:
        slurm.boot("n1")
    assert job.shown("Restarts") == "1"
    assert job.turns() == ["interrupted", "resumed", "retried", "ended"]
    same_outcome(alone.folder, job.out)
    nothing_is_left(slurm)


def test_cancelled_and_submitted_again_it_goes_on(slurm: SlurmLab, alone: raygrow.Result) -> None:
    """Then it loses its first node, and with it whatever could end the job, and begins again."""
    cancelled = submit(slurm, "cancelled")
    cancelled.until_both_wait()
    slurm.on("control", "scancel", cancelled.id)
    assert cancelled.ended()[0] == "CANCELLED"
    nothing_is_left(slurm)
    # Slurm tells raygrow and Ray at once. What raygrow gets to say depends on which of them is faster: it may have seen
    # nodes go before it hears of it, or it goes with them.
    said = cancelled.turns()
    assert re.fullmatch("(retried )*(interrupted )?", "".join(f"{turn} " for turn in said)), cancelled.log()

    # Seconds after which a node takes the first one for lost.
    job = submit(slurm, "cancelled", RAY_gcs_rpc_server_reconnect_timeout_s="5")
    job.until_both_wait()
    slurm.kill("n0")
    job.open()
    try:
        slurm.until(lambda: job.shown("Restarts") == "1", ENDED, "the job is requeued")
    finally:
        slurm.boot("n0")
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    assert job.turns() == [*said, "resumed", "resumed", "ended"]
    same_outcome(alone.folder, job.out)
    nothing_is_left(slurm)
