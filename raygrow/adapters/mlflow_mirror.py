"""A mirror of the ledger in MLflow: one run a campaign, one a member, one an adopted architecture.

The ledger is the truth. ``pages`` folds its events into the runs that MLflow should show; a writer compares them with what
MLflow holds, found by tag, and adds what is missing. So a crash in the middle, an outage or a second catch-up leaves neither
gaps nor duplicates, and a campaign never waits for the tracking server: ``MlflowMirror`` writes in a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raygrow.errors import RaygrowError
from raygrow.population.checkpoints import Checkpoint
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import Event, Ledger
from raygrow.population.lineage import LineageNode, lineage

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""Set for this process where the user set nothing: the mirror retries by itself, and its trouble is told in one line."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a failed pass is tried again; doubled each time."""
SHARE_OF_TIME = 0.1
"""The mirror rests between passes so that it takes at most this share of the driver's time."""
SILENCE = 60.0
"""Seconds without an answer after which the user is told."""
PARAM_LENGTH, PARAM_KEY_LENGTH = 500, 250
"""What every MLflow server takes; the whole configuration is an artifact."""

STATUS = {"interrupted": "KILLED", "failed": "FAILED", "resumed": "RUNNING", "ended": "FINISHED"}


class _GivenUp(RaygrowError):
    """The mirror was closed in the middle of a pass."""


@dataclass(frozen=True)
class Figure:
    """One point of a metric. The time is the event's, so that the same point logged again is the same point."""

    key: str
    value: float
    time: int
    step: int


@dataclass
class Page:
    """One MLflow run as the ledger has it.

    Attributes:
        key: unique in a campaign: ``campaign``, ``member/NAME`` or ``architecture/NAME/ROUND``.
        parent: key of the run it is nested under.
        origin: key of the run of the architecture it grew from; architectures other than the start only.
        begun, ended: milliseconds since 1970; ``ended`` is None while it runs.
        figures: in the order of the ledger; a longer ledger only adds to them.
        documents: file name to content, written as JSON or YAML.
    """

    key: str
    name: str
    parent: str | None
    begun: int
    tags: dict[str, str]
    origin: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    ended: int | None = None

    def measure(self, time: int, step: int, values: Mapping[str, float | None]) -> None:
        """Add the figures that are defined."""
        self.figures += [Figure(key, float(v), time, step) for key, v in values.items() if v is not None]


def pages(events: Sequence[Event]) -> list[Page]:
    """Every run that MLflow should show: the campaign, its members, then architectures, each after the one it grew from."""
    started = next((event for event in events if event["type"] == "started"), None)
    if started is None:
        return []
    config, begun = started["config"], _milliseconds(started)
    metric = "accuracy" if started["facts"]["task"] == "classification" else "r2"
    campaign = Page("campaign", config["campaign"]["name"], None, begun, {"raygrow.campaign_id": started["campaign_id"]})
    shared = {key: value for key, value in config.items() if key != "members"}
    versions = {"facts": started["facts"], "versions": started.get("versions", {})}
    campaign.params = _flat({**shared, "members": [member["name"] for member in config["members"]], **versions})
    campaign.documents = {"config.yaml": config}
    members = {member["name"]: _member_page(member, campaign) for member in config["members"]}
    spent = dict.fromkeys(members, 0)
    reports: dict[str, dict[str, Any]] = {}
    grown: dict[str, int] = {}

    def head(name: str, network: Mapping[str, Any], event: Event, step: int, page: Page | None = None) -> None:
        figures = {
            "validation_loss": network["validation_loss"],
            f"validation_{metric}": network["validation_metric"],
            "flops_per_example": network["flops_per_example"],
            "train_flops": spent[name],
        }
        (page or members[name]).measure(_milliseconds(event), step, figures)

    best = None
    for event in events:
        kind = event["type"]
        if kind == "reported":
            name, report = event["task"]["member"], event["report"]
            spent[name] += report["train_flops"]["total"]
            reports[name] = {**report, "round": event["task"]["round"]}
            if event["task"]["phase"] == "start":
                grown[f"{name}/0"] = _milliseconds(event)
                head(name, report["head"], event, 0)
        elif kind == "decided":
            for name, report in reports.items():
                row = next((row for row in report["candidates"] if row["id"] in event["granted"]), None)
                if row is not None:
                    grown[f"{name}/{event['round']}"] = _milliseconds(event)
                    row = {**row, "validation_loss": row["candidate_loss"], "validation_metric": row["candidate_metric"]}
                head(name, row or report["control"], event, event["round"])
            reports = {}
        elif kind == "chosen":
            best = event["best"]
            for name, report in reports.items():
                head(name, report["head"], event, report["round"])
            head(best, reports[best]["head"], event, reports[best]["round"], campaign)
            reports = {}
        elif kind == "closed":
            for name, report in reports.items():
                if "test_loss" in report:
                    figures = {"test_loss": report["test_loss"], f"test_{metric}": report["test_metric"]}
                    for page in (members[name], campaign) if name == best else (members[name],):
                        page.measure(_milliseconds(event), report["round"], figures)
            reports = {}
        elif kind in STATUS and campaign.status != "FINISHED":
            for page in (campaign, *members.values()):
                page.status = STATUS[kind]
                page.ended = None if page.status == "RUNNING" else _milliseconds(event)
    return [
        campaign,
        *members.values(),
        *(_architecture_page(node, campaign, grown[node.key]) for node in lineage(events)),
    ]


def _member_page(member: Mapping[str, Any], campaign: Page) -> Page:
    tags = {
        **campaign.tags,
        "raygrow.member": member["name"],
        "raygrow.strategy": member["strategy"]["kind"],
        "raygrow.initializer": member["initializer"]["kind"],
    }
    page = Page(f"member/{member['name']}", member["name"], campaign.key, campaign.begun, tags)
    page.params = _flat(member)
    return page


def _architecture_page(node: LineageNode, campaign: Page, time: int) -> Page:
    move = f"{node.move} {node.site}" if node.move else "start"
    page = Page(
        f"architecture/{node.key}",
        f"{node.key} {move}",
        f"member/{node.member}",
        time,
        {
            **campaign.tags,
            "raygrow.member": node.member,
            "raygrow.strategy": node.strategy,
            "raygrow.initializer": node.initializer,
            "raygrow.round": str(node.round),
            "raygrow.depth": str(node.depth),
            "raygrow.arch_id": node.arch_id,
            "raygrow.parent_arch_id": node.parent_arch_id or "",
            "raygrow.move": node.move or "",
        },
        origin=f"architecture/{node.parent}" if node.parent else None,
        documents={"architecture.json": node.arch},
        status="FINISHED",
        ended=time,
    )
    figures = {
        "validation_loss": node.validation_loss,
        "flops_per_example": node.flops_per_example,
        "params": node.params,
        "gain": node.gain,
        "gain_per_flop": node.gain_per_flop,
        "train_flops": node.train_flops,
    }
    page.measure(time, node.round, figures)
    return page


def _milliseconds(event: Event) -> int:
    return round(event["time"] * 1000)


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Dotted path to text, in names and lengths that MLflow takes."""
    found: dict[str, str] = {}
    for key, item in value.items():
        name = f"{path}{key}"
        if isinstance(item, Mapping) and item:
            found |= _flat(item, f"{name}.")
        else:
            text = item if isinstance(item, str) else json.dumps(item)
            cut = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 3] + "..."
            found[re.sub(r"[^\w.\- /]", "_", name)[:PARAM_KEY_LENGTH]] = cut
    return found


class _Writer:
    """Makes MLflow show pages. It remembers what it has shown; a new one asks MLflow.

    Args:
        step: called before every request; may raise to end the pass.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None, step: Callable[[], None]) -> None:
        self._step = step
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if logging.getLogger("alembic").level == logging.NOTSET:
            logging.getLogger("alembic").setLevel(logging.WARNING)
        _check_sqlite(uri)
        from mlflow import MlflowClient

        step()
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = self._experiment_id(experiment, artifacts)
        self._runs: dict[str, tuple[str, str]] | None = None
        self._shown: dict[str, Page] = {}
        self._model_shown = False

    def _experiment_id(self, name: str, artifacts: Path | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if artifacts is None else artifacts.resolve().as_uri()
            # Where another campaign creates it at the same moment, that one is found below.
            with contextlib.suppress(Exception):
                return str(self._client.create_experiment(name, artifact_location=location))
            found = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage != "active":
            raise RaygrowError(f"the MLflow experiment {name!r} is deleted; restore it or set `tracking.experiment`")
        return str(found.experiment_id)

    def show(self, events: Sequence[Event], folder: CampaignFolder) -> None:
        """Bring MLflow level with these events."""
        found = pages(events)
        if not found:
            return
        campaign = found[0]
        if self._runs is None:
            self._runs = self._look_up(campaign.tags["raygrow.campaign_id"])
        for page in found:
            if page.key not in self._runs:
                self._runs[page.key] = (self._create(page, self._runs), "RUNNING")
        # The campaign comes last: it is finished when all that it holds is.
        for page in [*found[1:], campaign]:
            self._fill(page, *self._runs[page.key])
        if campaign.status == "FINISHED" and not self._model_shown:
            self._show_best(events, folder, campaign)
            self._model_shown = True

    def _look_up(self, campaign_id: str) -> dict[str, tuple[str, str]]:
        """Run id and status of every run of the campaign, by key."""
        found: dict[str, tuple[str, str]] = {}
        token = None
        while True:
            self._step()
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`raygrow.campaign_id` = '{campaign_id}'",
                max_results=1000,
                order_by=["attributes.run_id ASC"],
                page_token=token,
            )
            for run in page:
                key = run.data.tags.get("raygrow.key", "")
                if key in found:
                    # A request that timed out here and was carried out there after all.
                    self._client.delete_run(run.info.run_id)
                else:
                    found[key] = (run.info.run_id, run.info.status)
            token = page.token
            if not token:
                return found

    def _create(self, page: Page, runs: Mapping[str, tuple[str, str]]) -> str:
        tags = {**page.tags, "raygrow.key": page.key, "mlflow.source.name": "raygrow"}
        if page.parent is not None:
            tags["mlflow.parentRunId"] = runs[page.parent][0]
        if page.key.startswith("architecture/"):
            tags["raygrow.parent_run_id"] = runs[page.origin][0] if page.origin else ""
        self._step()
        run = self._client.create_run(self._experiment, start_time=page.begun, tags=tags, run_name=page.name)
        return str(run.info.run_id)

    def _fill(self, page: Page, run_id: str, status: str) -> None:
        """Log what the run lacks. Its status is written last and says that the rest is there."""
        from mlflow.entities import Metric, Param

        shown = self._shown.get(page.key)
        if status == "FINISHED" or page == shown:
            return
        figures = page.figures[len(shown.figures) if shown else 0 :]
        metrics = [Metric(f.key, f.value, f.time, f.step) for f in figures]
        params = [] if shown else [Param(key, value) for key, value in page.params.items()]
        self._step()
        self._client.log_batch(run_id, metrics=metrics, params=params)
        for name, content in {} if shown else page.documents.items():
            self._step()
            self._client.log_dict(run_id, dict(content), name)
        if page.status != status:
            self._step()
            if page.status == "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            else:
                self._client.set_terminated(run_id, status=page.status, end_time=page.ended)
        assert self._runs is not None
        self._runs[page.key] = (run_id, page.status)
        self._shown[page.key] = page

    def _show_best(self, events: Sequence[Event], folder: CampaignFolder, campaign: Page) -> None:
        """The best network, once the campaign has ended; one that ended without a choice has none."""
        best = next((event["best"] for event in events if event["type"] == "chosen"), None)
        finish = [e for e in events if e["type"] == "reported" and e["task"]["phase"] == "finish"]
        head = next((e["report"]["head"] for e in finish if e["task"]["member"] == best), None)
        if head is None:
            return
        assert self._runs is not None
        tags = {**campaign.tags, "raygrow.member": best, "raygrow.arch_id": head["arch_id"]}
        name = re.sub(r"[^\w-]", "-", campaign.name) + "-best"
        self._step()
        log_best(
            self._client, self._experiment, self._runs["campaign"][0], name, tags, folder.store.load(head["checkpoint"])
        )


def log_best(
    client: Any, experiment_id: str, run_id: str, name: str, tags: Mapping[str, str], checkpoint: Checkpoint
) -> str:
    """Log a network as a model of a run, unless the campaign has one: raw feature rows in, predictions out.

    The model is a pt2 graph with the preprocessing inside; ``mlflow.pyfunc.load_model`` opens it with pickle refused. It
    takes float64 rows [n, features] of any n in the order of ``metadata["features"]``.

    Args:
        tags: must hold ``raygrow.campaign_id``.

    Returns:
        Its model id, for ``models:/ID``.

    Raises:
        MlflowException: MLflow refused it or cannot be reached.
    """
    import mlflow.pytorch
    import torch
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    from raygrow.predictor import Predictor

    found = client.search_logged_models(
        [experiment_id], filter_string=f"tags.`raygrow.campaign_id` = '{tags['raygrow.campaign_id']}'"
    )
    for model in found:
        if str(model.status) == "READY":
            return str(model.model_id)
    model = found[0] if found else client.create_logged_model(experiment_id, name, run_id, dict(tags), {}, "raygrow")
    preprocessing = checkpoint.preprocessing
    centre, width = np.asarray(preprocessing.mean), np.asarray(preprocessing.scale)
    # More than one row: torch.export takes a size of 1 for a constant, and the model would refuse every other batch.
    example = np.stack([centre, centre + width, centre - width])
    card = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id,
        metadata={
            "features": list(preprocessing.features),
            "labels": list(preprocessing.labels),
            "targets": list(preprocessing.targets),
        },
    )
    requirements = [f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        mlflow.pytorch.save_model(
            Predictor(checkpoint.network, preprocessing).eval(),
            path,
            mlflow_model=card,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=requirements,
        )
        client.log_model_artifacts(model.model_id, path)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _check_sqlite(uri: str) -> None:
    """Open an SQLite store's file: MLflow itself would try a broken one for minutes.

    Raises:
        OSError, sqlite3.Error: it cannot be used.
    """
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if path and path != uri:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()


def synchronise(ledger: Ledger, uri: str, experiment: str, artifacts: Path | None) -> None:
    """Make MLflow show everything in the ledger, now and in this thread.

    Args:
        uri: MLflow tracking URI.
        artifacts: where files go if the experiment is created here; None leaves it to the server.

    Raises:
        LedgerError: the ledger is damaged.
        CheckpointError: the best network's checkpoint is missing or altered.
        Exception: whatever MLflow raises when it refuses or cannot be reached; another call goes on from there.
    """
    writer = _Writer(uri, experiment, artifacts, lambda: None)
    writer.show(ledger.read(), CampaignFolder(ledger.path.parent))


class MlflowMirror:
    """Shows a growing ledger in MLflow from a daemon thread; nothing it meets reaches the campaign.

    Args:
        ledger: of the campaign folder.
        uri: MLflow tracking URI.
        experiment: created if MLflow has none of this name.
        artifacts: where files go if the experiment is created here; None leaves it to the server.
        log: told one line when the mirror first fails, and one when it could not catch up; from any thread.
    """

    def __init__(
        self, ledger: Ledger, uri: str, experiment: str, artifacts: Path | None, log: Callable[[str], None]
    ) -> None:
        self._ledger, self._log = ledger, log
        self._store = (uri, experiment, artifacts)
        self._wake, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="raygrow-mlflow", daemon=True)
        self._waiting_since: float | None = None
        self._problem: str | None = None
        self._complete = self._told = False

    def start(self) -> None:
        """Begin; MLflow is imported in the thread."""
        self._wake.set()
        self._thread.start()

    def poke(self) -> None:
        """Say that the ledger has grown. Returns at once."""
        self._wake.set()
        since = self._waiting_since
        if since is not None and time.monotonic() - since > SILENCE:
            self._tell(f"no answer for {SILENCE:.0f} seconds")

    def close(self, timeout: float) -> bool:
        """Let the mirror catch up for at most ``timeout`` seconds, then give up; ends at once where MLflow is down.

        Returns:
            Whether MLflow shows everything in the ledger.
        """
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(max(timeout, 0.0))
        self._given_up.set()
        if not self._complete:
            reason = self._problem or f"it did not catch up within {timeout:g} seconds"
            self._log(
                f"MLflow at {self._store[0]} does not show the whole campaign: {reason}; "
                f"`raygrow resume {self._ledger.path.parent}` catches up later"
            )
        return self._complete

    def _tell(self, problem: str) -> None:
        self._problem = problem
        if not self._told and not self._closing.is_set():
            self._told = True
            self._log(
                f"MLflow at {self._store[0]} cannot be written: {problem}; the campaign goes on, and the mirror tries again"
            )

    def _step(self) -> None:
        if self._given_up.is_set():
            raise _GivenUp("the mirror is closed")
        self._waiting_since = time.monotonic()

    def _run(self) -> None:
        writer: _Writer | None = None
        folder = CampaignFolder(self._ledger.path.parent)
        pause = FIRST_PAUSE
        while not self._given_up.is_set():
            self._wake.wait()
            self._wake.clear()
            last = self._closing.is_set()
            begun = time.monotonic()
            try:
                self._step()
                writer = writer or _Writer(*self._store, self._step)
                writer.show(self._ledger.read(), folder)
                pause, self._problem, self._complete = FIRST_PAUSE, None, last
                rest = min((time.monotonic() - begun) * (1 / SHARE_OF_TIME - 1), LONGEST_PAUSE)
            except _GivenUp:
                return
            except Exception as error:
                # What was shown is asked of MLflow again: a request that failed here may have been carried out there.
                writer = None
                rest, pause = pause, min(2 * pause, LONGEST_PAUSE)
                self._wake.set()
                self._tell(" ".join(f"{type(error).__name__}: {error}".split())[:300])
            self._waiting_since = None
            if last:
                return
            self._closing.wait(rest)
