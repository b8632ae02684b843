"""The MLflow server of cluster/kubernetes, with the arguments and settings of its Deployment, before SQLite here."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import raygrow
from raygrow.adapters.mlflow_mirror import synchronise
from raygrow.population.folder import CampaignFolder
from tests.end_to_end.campaigns import SMALL

from .tools import CLUSTER

pytestmark = pytest.mark.cluster

pytest.importorskip("flask_wtf", reason="no mlflow[auth]: pip install '.[cluster-test]'")

SERVER = CLUSTER / "kubernetes" / "components" / "mlflow" / "server.yaml"


@dataclass
class Server:
    port: int
    password: str

    def status(self, password: str | None, host: str | None = None) -> int:
        """HTTP status of a harmless question."""
        asked = urllib.request.Request(f"http://localhost:{self.port}/api/2.0/mlflow/experiments/search?max_results=1")
        if password is not None:
            asked.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
        if host is not None:
            asked.add_header("Host", host)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """What Kubernetes would start, with a database, artifacts and a port of this test."""
    deployment = next(thing for thing in yaml.safe_load_all(SERVER.read_text()) if thing["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database, password = f"sqlite:///{tmp_path}/mlflow.db", "a-password-of-this-test"
    (tmp_path / "basic_auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    secrets = {"database": database, "session-key": "k" * 32, "admin-password": password}
    settings = {
        entry["name"]: entry["value"] if "value" in entry else secrets[entry["valueFrom"]["secretKeyRef"]["key"]]
        for entry in container["env"]
    }
    settings["MLFLOW_AUTH_CONFIG_PATH"] = str(tmp_path / "basic_auth.ini")
    words = [
        word.replace("$(DATABASE)", database)
        .replace("/artifacts", str(tmp_path / "artifacts"))
        .replace("5000", str(port))
        for word in container["args"]
        # One process is up sooner than several.
        if not word.startswith("--workers")
    ] + ["--workers=1"]
    assert container["command"] == ["mlflow", "server"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        cwd=tmp_path, env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            try:
                with socket.create_connection(("localhost", port), timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield Server(port, password)
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        log.close()


def test_it_asks_who_is_there_and_shows_a_campaign(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.status(None) == 401
    assert server.status("wrong") == 401
    assert server.status(server.password) == 200
    assert server.status(server.password, host="elsewhere.example") == 403
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)
    result = raygrow.run(SMALL, {"campaign.rounds": 1}, out=tmp_path / "run", quiet=True)
    uri = f"http://localhost:{server.port}"
    synchronise(CampaignFolder(result.folder).ledger, uri, "here", None)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("here")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    adopted = sum(member["moves_accepted"] for member in result.summary["members"])
    # The campaign, each member, each start and each adopted architecture.
    assert len(runs) == 1 + 2 * len(result.summary["members"]) + adopted
    assert all(run.info.status == "FINISHED" for run in runs)
    (model,) = client.search_logged_models([found.experiment_id])
    assert model.tags["raygrow.checkpoint"] == result.summary["best"]["checkpoint"]
