"""The other two launch files for Slurm: the short form, and arrays."""

from __future__ import annotations

import json

import pytest
import yaml

import raygrow
from tests.end_to_end.campaigns import events, same_outcome

from .slurm_jobs import ENDED, LAUNCH, environment, gated, nothing_is_left, submit
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.cluster


def test_the_short_form_gives_the_same(slurm: SlurmLab, alone: raygrow.Result) -> None:
    job = submit(slurm, "short", script="raygrow-symmetric.sbatch")
    job.until_both_wait()
    job.open()
    assert job.ended() == ("COMPLETED", "0:0"), job.log()
    same_outcome(alone.folder, job.out)
    nothing_is_left(slurm)


def test_an_array_runs_every_arm_with_every_seed(slurm: SlurmLab) -> None:
    config = gated(slurm.shared, slurm.shared / "array-gate")
    (slurm.shared / "array-gate" / "open").touch()
    (slurm.shared / "arms").write_text(
        "# strategies\n--set members.0.strategy.grows=mdl\n\n--set members.0.strategy.grows=periodic --set campaign.rounds=2\n"
    )
    array = slurm.submit(
        "--job-name=array", "--array=0-3", "--mem-per-cpu=0", LAUNCH / "raygrow-array.sbatch", config, "arms",
        RAYGROW_OUT="array", **environment(slurm),
    )  # fmt: skip
    assert array.stdout is not None
    assert array.stdout.readline().startswith("Submitted")
    # `sbatch --wait` looks more and more rarely.
    slurm.until(lambda: not slurm.on("control", "squeue", "-h"), ENDED, "the array has ended")
    said = "".join(path.read_text() for path in slurm.shared.glob("array-*.log"))
    for task in range(4):
        folder = slurm.shared / "array" / str(task)
        assert (folder / "config.yaml").exists(), said
        plan = yaml.safe_load((folder / "config.yaml").read_text())
        assert plan["campaign"]["seed"] == task // 2
        assert plan["members"][0]["strategy"]["grows"] == ("mdl", "periodic")[task % 2]
        assert plan["campaign"]["rounds"] == (3, 2)[task % 2]
        assert list(events(folder))[-1]["type"] == "ended", said
    one, other = (json.loads((slurm.shared / "array" / task / "summary.json").read_text()) for task in ("0", "2"))
    assert one["best"]["checkpoint"] != other["best"]["checkpoint"]
