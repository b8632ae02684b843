"""Everything README shows is run: its commands, its Python, its YAML; and CI does what it says."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raygrow.comparing import check_data
from raygrow.comparison_config import load_comparison
from raygrow.config import load_plan
from raygrow.document import parse_assignments

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SMALL = (
    "campaign.rounds=1", "training.examples_per_round=200", "training.final_examples=200", "probe.examples=200",
    "pool.kind=serial", "tracking.enabled=false",
)  # fmt: skip

FEW = ("comparison.seeds=[0]", "grid.strategy=[mdl]", "baselines=[]")
"""Of a comparison: one trial a data set."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as README's reader has it: the configs, their own file, their own YAML."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "runs").mkdir()
    x = np.random.default_rng(0).normal(size=(150, 3))
    columns = {f"f{i}": x[:, i] for i in range(3)}
    pq.write_table(pa.table({**columns, "species": np.where(x[:, 0] > 0, "a", "b")}), folder / "mine.parquet")
    (folder / "mine.yaml").write_text(
        next(block for block in blocks("yaml") if "parquet" in block and "grid:" not in block)
    )
    return folder


def test_readme_opens_with_what_it_is_and_a_printout() -> None:
    assert README.index("```") < README.index("## Install and run") < README.index("-m pytest")


def test_every_command_runs(place: Path) -> None:
    """In the order of the text; campaigns are made short, nothing else is changed."""
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("raygrow ")]
    assert len(commands) >= 8
    for line in commands:
        words = shlex.split(line)[1:]
        if words[0] in ("run", "compare"):
            short = SMALL if words[0] == "run" else (*SMALL, *FEW)
            words += [word for key in short for word in ("--set", key)]
        done = subprocess.run(
            [sys.executable, "-m", "raygrow.cli", *words], cwd=place, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout.strip(), line


def test_every_line_of_data_is_a_plan() -> None:
    lines = [line for block in blocks("yaml") for line in block.splitlines() if line.startswith("data: {")]
    found = {load_plan(yaml.safe_load(line)).data.kind for line in lines}
    assert found >= {"parquet", "npz", "image_folder", "torchvision", "patterns", "waveforms"}


def test_the_comparison_shown_is_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (shown,) = [block for block in blocks("yaml") if "comparison:" in block]
    plan = load_comparison(yaml.safe_load(shown))
    assert len(plan.arms) == 3 * 2 * 2 + 2
    assert check_data(plan, set(plan.data)) == {}


def test_the_python_runs(place: Path) -> None:
    for block in blocks("python"):
        short = ", ".join(
            f"{key!r}: {value!r}" for key, value in parse_assignments(SMALL).items() if key != "pool.kind"
        )
        text = block.replace('"campaign.seed": 1', f'"campaign.seed": 1, {short}')
        assert text != block
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=place, capture_output=True, text=True, timeout=120, env={**os.environ}
        )
        assert done.returncode == 0, done.stderr


def test_every_benchmark_says_what_it_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In full they take minutes; their small forms are tests of the marker ``bench``."""
    modules = [line.split()[2] for block in blocks("bash") for line in block.splitlines() if "tests.benchmarks" in line]
    assert len(modules) >= 5
    for module in modules:
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        # What `python -m` runs, but in this process: torch is imported once.
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_path(str(ROOT / f"{module.replace('.', '/')}.py"), run_name="__main__")
        assert "--out" in capsys.readouterr().out


def test_ci_installs_and_tests_as_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    install, test = (block.strip() for block in blocks("bash")[:2])
    for command in (install, test):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install . && ")
    assert "python3 -m venv '$venv' && '$venv/bin/pip' install --quiet ." in script
    assert test.endswith(".venv/bin/python -m pytest")
    assert '"$venv/bin/python" -m pytest\n' in script
    assert install.endswith("raygrow run configs/lorenz96.yaml")
