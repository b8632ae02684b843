"""Campaigns on a Ray cluster that runs already, of two nodes with a network, processes and memory of their own each."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

import raygrow
from raygrow.adapters.ray_metrics import GAUGES
from raygrow.config import load_plan
from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Ledger
from raygrow.population.plan import Facts
from raygrow.population.standing import granted_gain_per_flop, standing
from tests.end_to_end.campaigns import SMALL, STOP_AT, at_call, same_outcome

from . import ray_lab
from .ray_lab import HEAD, RayLab

pytestmark = pytest.mark.cluster

pytest.importorskip("aiohttp_cors", reason="no ray[default]: pip install '.[cluster]'")

RAYGROW = (sys.executable, "-m", "raygrow.cli")
POOL = {"pool": {"kind": "ray", "cpus_per_actor": 1}}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> raygrow.Result:
    return raygrow.run(SMALL, out=tmp_path_factory.mktemp("serial") / "run", quiet=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[RayLab]:
    """One CPU on the head and two on the worker: neither holds the three actors alone."""
    if why := ray_lab.missing():
        pytest.skip(f"no cluster of two nodes on this machine: {why}")
    with RayLab(secrets.token_hex(32), cpus=(1, 2)) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **POOL}))
    return path


def run(command: list[str], lab: RayLab, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**lab.environment, **more}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


HELD = at_call(14, "append", "raygrow.population.ledger", "Ledger", "print('held', flush=True); sys.stdin.read()")
"""Holds a campaign in its third round until its standard input is closed."""

SCRAPE = """
import json, math, re, sys, time, urllib.request
wanted, end, found = json.loads(sys.argv[2]), time.monotonic() + 60, {}
while time.monotonic() < end:
    page = urllib.request.urlopen(sys.argv[1], timeout=10).read().decode()
    lines = re.findall(r'^ray_(raygrow_\\w+)\\{[^}]*campaign="small"[^}]*\\} (\\S+)$', page, re.MULTILINE)
    found = {name: float(value) for name, value in lines}
    # What was set last may not have been handed on yet.
    if found.keys() == wanted.keys() and all(math.isclose(found[name], wanted[name], rel_tol=1e-6) for name in wanted):
        break
    time.sleep(0.2)
print(json.dumps(found))
"""


def test_both_nodes_work_and_prometheus_sees_the_figures(
    lab: RayLab, serial: raygrow.Result, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["run", str(config), "--out", str(out), "--address", "auto"]
    process = subprocess.Popen(
        lab.on_the_head(sys.executable, "-c", STOP_AT.format(patch=HELD), *words),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=lab.environment,
    )  # fmt: skip
    assert process.stdout is not None
    held = any(line == "held\n" for line in process.stdout)
    assert held, process.communicate()[1]
    assert [node.actors() for node in lab.nodes] == [1, 2]
    # What the ledger holds by now, folded again.
    events = Ledger(out / "events.jsonl").read()
    coordinator = Coordinator.replay(load_plan(out / "config.yaml"), Facts(**events[0]["facts"]), events)
    figures = asdict(standing(coordinator))
    figures["gain_per_flop"] = granted_gain_per_flop([event for event in events if event["type"] == "decided"][-1])
    assert figures["gain_per_flop"] is not None and figures["granted_flops"] > 0
    expected = {name: float(figures[figure]) for name, (figure, _) in GAUGES.items()}
    page = (f"http://{HEAD}:8080/metrics", json.dumps(expected))
    scraped = run(lab.on_the_head(sys.executable, "-c", SCRAPE, *page), lab)
    _, stderr = process.communicate("go on", timeout=300)
    assert process.returncode == 0, stderr
    same_outcome(serial.folder, out)
    assert json.loads(scraped.stdout) == {name: pytest.approx(value) for name, value in expected.items()}


def test_a_campaign_is_submitted_as_a_job(lab: RayLab, serial: raygrow.Result, config: Path, tmp_path: Path) -> None:
    """From outside the cluster, through its Jobs API; the driver runs on the head."""
    out = tmp_path / "run"
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", f"http://{HEAD}:8265", "--"]
    done = run(lab.outside(*submit, *RAYGROW, "run", str(config), "--out", str(out), "--address", "auto"), lab)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"report: {out / 'report.html'}" in done.stdout, "the job's output comes back"
    same_outcome(serial.folder, out)
    # What is refused fails as a job too, and says why.
    again = run(lab.outside(*submit, *RAYGROW, "run", str(config), "--out", str(out), "--address", "auto"), lab)
    assert again.returncode != 0
    assert "the folder must be empty or new" in again.stdout + again.stderr


def test_a_client_from_outside_has_its_campaign_run_there(
    lab: RayLab, serial: raygrow.Result, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(lab.outside(*RAYGROW, "run", str(config), "--out", str(out), "--address", f"ray://{HEAD}:10001"), lab)
    assert done.returncode == 0, done.stderr + lab.client_logs()
    same_outcome(serial.folder, out)


def test_without_the_token_nobody_is_let_in(lab: RayLab, config: Path, tmp_path: Path) -> None:
    hasty = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    words = ("run", str(config), "--out", str(tmp_path / "run"), "--address", f"{HEAD}:6379")
    for wrong in ({"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        done = run(lab.on_the_head(*RAYGROW, *words), lab, **wrong, **hasty)
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"raygrow: pool: cannot use the Ray cluster at {HEAD}:6379: ")
        assert "is the token (RAY_AUTH_MODE, RAY_AUTH_TOKEN) its own?" in done.stderr
        assert not (tmp_path / "run").exists()
    jobs = (sys.executable, "-m", "ray.scripts.scripts", "job", "list", "--address", f"http://{HEAD}:8265")
    assert run(lab.outside(*jobs), lab).returncode == 0
    refused = run(lab.outside(*jobs), lab, RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "RayJobStatus" not in refused.stdout and "JobDetails" not in refused.stdout
