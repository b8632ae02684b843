"""A mirror of the ledger in MLflow: one run a campaign, one a member, one an adopted architecture.

The ledger is the truth. ``pages`` says which runs MLflow should show; a writer adds what MLflow, asked by tag, does not
hold. So a crash in the middle, an outage or a second catch-up leaves no gaps, no duplicates. A campaign
never waits for the tracking server: ``MlflowMirror`` writes in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raygrow.adapters.mlflow_pages import Page, pages
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import Event, Ledger

ENVIRONMENT = {"HTTP_REQUEST_MAX_RETRIES": "1", "HTTP_REQUEST_TIMEOUT": "10", "DISABLE_TELEMETRY": "true",
               "LOGGING_LEVEL": "ERROR", "SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}  # fmt: skip
"""MLFLOW_ variables, set where the user set none: the mirror retries by itself, and tells its trouble in one line."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a failed pass is tried again; doubled each time."""
SHARE_OF_TIME = 0.01
"""The mirror rests between passes so that it takes at most this share of the driver's time."""
Log = Callable[[str], None]


class _GivenUp(Exception):
    """The mirror was closed in the middle of a pass."""


class _Writer:
    """Makes MLflow show pages. It remembers what it has shown; a new one asks MLflow.

    ``step`` is called before every request; it may raise to end the pass.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None, step: Callable[[], None]) -> None:
        self._step = step
        self._client, self._experiment = connected(uri, experiment, artifacts, step)
        self._runs: dict[str, tuple[str, str]] = {}
        self._shown: dict[str, Page] = {}
        self._model_shown = False

    def show(self, events: Sequence[Event], folder: CampaignFolder, files: bool) -> None:
        """Bring MLflow level with these events.

        Args:
            files: also with the report and its figures, which are there and say what the events do.
        """
        found = pages(events)
        if not found:
            return
        campaign, *others = found
        if not self._runs:
            self._look_up(campaign.tags["raygrow.campaign_id"])
        for page in found:
            if page.key not in self._runs:
                self._create(page)
        if files:
            self._show_files(events, folder)
        # The campaign comes last: it is finished when all that it holds is.
        for page in [*others, campaign]:
            self._fill(page)
        if campaign.status == "FINISHED" and not self._model_shown:
            self._show_best(events, folder, campaign)
            self._model_shown = True

    def _look_up(self, campaign_id: str) -> None:
        wanted, token = f"tags.`raygrow.campaign_id` = '{campaign_id}'", ""
        runs: list[Any] = []
        while token is not None:
            self._step()
            found = self._client.search_runs([self._experiment], wanted, order_by=["run_id"], page_token=token or None)
            runs, token = runs + list(found), found.token
        linked = {run.data.tags.get(tag) for run in runs for tag in ("mlflow.parentRunId", "raygrow.parent_run_id")}
        # A request whose answer was lost may have been carried out twice: the run that others point to stays.
        for run in sorted(runs, key=lambda run: run.info.run_id not in linked):
            seen = (run.info.run_id, run.info.status)
            if self._runs.setdefault(run.data.tags["raygrow.key"], seen) != seen:
                self._client.delete_run(run.info.run_id)

    def _create(self, page: Page) -> None:
        tags = {**page.tags, "raygrow.key": page.key, "mlflow.source.name": "raygrow"}
        if page.parent is not None:
            tags["mlflow.parentRunId"] = self._runs[page.parent][0]
        if page.key.startswith("architecture/"):
            tags["raygrow.parent_run_id"] = self._runs[page.origin][0] if page.origin else ""
        self._step()
        run = self._client.create_run(self._experiment, page.begun, tags, page.name)
        self._runs[page.key] = (run.info.run_id, "RUNNING")

    def _fill(self, page: Page) -> None:
        """Log what the run lacks. Its status is written last and says that the rest is there."""
        from mlflow.entities import Metric, Param

        (run_id, status), shown = self._runs[page.key], self._shown.get(page.key)
        if status == "FINISHED" or page == shown:
            return
        # A longer ledger only adds metrics.
        metrics = [Metric(*point) for point in page.metrics[len(shown.metrics) if shown else 0 :]]
        self._step()
        self._client.log_batch(run_id, metrics, [] if shown else [Param(*item) for item in page.params.items()])
        for name, content in {} if shown else page.documents.items():
            self._step()
            self._client.log_dict(run_id, dict(content), name)
        if page.status != status:
            self._step()
            if page.status == "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            else:
                self._client.set_terminated(run_id, status=page.status, end_time=page.ended)
        self._runs[page.key], self._shown[page.key] = (run_id, page.status), page

    def _show_files(self, events: Sequence[Event], folder: CampaignFolder) -> None:
        """The report and its figures as artifacts of the campaign's run; a tag says of how many events they tell."""
        run_id, told = self._runs["campaign"][0], str(len(events))
        files = [(folder.report, None), *((file, "figures") for file in sorted(folder.figures.glob("*.*g")))]
        if not folder.report.exists() or self._client.get_run(run_id).data.tags.get("raygrow.report") == told:
            return
        for path, place in files:
            self._step()
            self._client.log_artifact(run_id, str(path), place)
        self._step()
        self._client.set_tag(run_id, "raygrow.report", told)

    def _show_best(self, events: Sequence[Event], folder: CampaignFolder, campaign: Page) -> None:
        heads = {e["task"]["member"]: e["report"].get("head") for e in events if e["type"] == "reported"
                 and e["task"]["phase"] == "finish"}  # fmt: skip
        for member in [event["best"] for event in events if event["type"] == "chosen"]:
            tags = {f"raygrow.{what}": heads[member][what] for what in ("arch_id", "checkpoint")}
            tags = {**campaign.tags, "raygrow.member": member, **tags}
            name = re.sub(r"[^\w-]", "-", campaign.name) + "-best"
            self._step()
            log_best(self._client, self._experiment, self._runs["campaign"][0], name, tags, folder.store)


def connected(uri: str, experiment: str, artifacts: Path | None, step: Callable[[], None]) -> tuple[Any, str]:
    """A client of MLflow and the id of an experiment, which is created if there is none of this name."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    _check_sqlite(uri)
    from mlflow import MlflowClient

    step()
    client = MlflowClient(tracking_uri=uri)
    found, place = client.get_experiment_by_name(experiment), artifacts and artifacts.resolve().as_uri()
    return client, str(found.experiment_id if found else client.create_experiment(experiment, place))


def log_best(client: Any, experiment: str, run: str, name: str, tags: dict[str, str], store: CheckpointStore) -> None:
    """Log the network of tag ``raygrow.checkpoint`` as a model of a run, unless the campaign has one.

    It is a pt2 graph with the preprocessing inside; ``mlflow.pyfunc.load_model`` opens it with pickle refused. It takes
    float64 rows [n, features] of any n, raw, in the order of ``metadata["features"]``.

    Raises:
        CheckpointError, MlflowException: it cannot be read; MLflow refused it or cannot be reached.
    """
    import mlflow.pytorch
    import torch
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    from raygrow.predictor import Predictor

    wanted = f"tags.`raygrow.campaign_id` = '{tags['raygrow.campaign_id']}'"
    model = next(iter(client.search_logged_models([experiment], filter_string=wanted)), None)
    if model is not None and model.status == "READY":
        return
    model = model or client.create_logged_model(experiment, name, run, tags, {}, "raygrow")
    best = store.load(tags["raygrow.checkpoint"])
    known, centre, width = best.preprocessing, np.asarray(best.preprocessing.mean), np.asarray(best.preprocessing.scale)
    metadata = {what: list(getattr(known, what)) for what in ("features", "labels", "targets")}
    card = Model(model.artifact_location, run, model_id=model.model_id, metadata=metadata)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        mlflow.pytorch.save_model(
            Predictor(best.network, known).eval(),
            path,
            mlflow_model=card,
            # More than one row: torch.export takes a size of 1 for a constant and would refuse every other batch.
            input_example=np.stack([centre, centre + width, centre - width]),
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        )
        client.log_model_artifacts(model.model_id, path)
    if model.model_id not in [output.model_id for output in client.get_run(run).outputs.model_outputs]:
        client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")


def _check_sqlite(uri: str) -> None:
    """Open the file of an SQLite store: MLflow itself would try a broken one for minutes."""
    if uri.startswith("sqlite:///") and (path := uri.removeprefix("sqlite:///").partition("?")[0]):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()


def synchronise(ledger: Ledger, uri: str, experiment: str, artifacts: Path | None) -> None:
    """Make MLflow show everything in the ledger, now and in this thread.

    Raises:
        LedgerError, CheckpointError: the campaign folder is damaged.
        Exception: whatever MLflow raises when it refuses or cannot be reached; another call goes on from there.
    """
    _Writer(uri, experiment, artifacts, lambda: None).show(
        ledger.read(), CampaignFolder(ledger.path.parent), files=True
    )


class MlflowMirror:
    """Shows a growing ledger in MLflow from a daemon thread; nothing it meets reaches the campaign.

    Args:
        ledger: of the campaign folder.
        uri: MLflow tracking URI.
        experiment: created if MLflow has none of this name.
        artifacts: where files go if the experiment is created here; None leaves it to the server.
        log: told one line when the mirror first fails, and one when it could not catch up; from any thread.
        after: seconds before MLflow is imported, unless the mirror is closed before: that and a new store take two
            seconds of a processor, when actors start or in a campaign that is over soon.
    """

    def __init__(
        self, ledger: Ledger, uri: str, experiment: str, artifacts: Path | None, log: Log, after: float = 0.0
    ) -> None:
        self._ledger, self._store, self._log, self._after = ledger, (uri, experiment, artifacts), log, after
        self._wake, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="raygrow-mlflow", daemon=True)
        self._problem: str | None = None
        self._complete = self._told = self._begun = False

    def start(self) -> None:
        """Begin; MLflow is imported in the thread."""
        self._wake.set()
        self._thread.start()

    def poke(self) -> None:
        """Say that the ledger has grown. Returns at once."""
        self._wake.set()

    def close(self, timeout: float, begin: bool = True) -> bool:
        """Let the mirror catch up for at most ``timeout`` seconds, then give up; ends sooner where MLflow is down.

        Args:
            begin: also where MLflow was not imported yet; false leaves a store that does not exist for ``resume`` to make.

        Returns:
            Whether MLflow shows everything in the ledger.
        """
        if not begin and not self._begun:
            self._problem = "interrupted before it was begun"
            self._given_up.set()
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(max(timeout, 0.0))
        self._given_up.set()
        if not self._complete:
            reason = self._problem or f"it did not catch up within {timeout:g} seconds"
            self._log(
                f"MLflow at {self._store[0]} does not show the whole campaign ({reason}); "
                f"`raygrow resume {self._ledger.path.parent}` catches up later"
            )
        return self._complete

    def _tell(self, problem: str) -> None:
        self._problem = problem
        if not self._told and not self._closing.is_set():
            self._told = True
            self._log(f"MLflow at {self._store[0]} cannot be written ({problem}); the campaign goes on, retrying")

    def _step(self) -> None:
        if self._given_up.is_set():
            raise _GivenUp

    def _run(self) -> None:
        writer: _Writer | None = None
        pause = FIRST_PAUSE
        self._closing.wait(self._after)
        while True:
            self._wake.wait()
            self._wake.clear()
            last, begun = self._closing.is_set(), time.monotonic()
            try:
                self._step()
                self._begun = True
                writer = writer or _Writer(*self._store, self._step)
                # What is derived from the ledger is written before the mirror is closed.
                writer.show(self._ledger.read(), CampaignFolder(self._ledger.path.parent), files=last)
                pause, self._problem, self._complete = FIRST_PAUSE, None, last
                rest = min((time.monotonic() - begun) * (1 / SHARE_OF_TIME - 1), LONGEST_PAUSE)
            except _GivenUp:
                return
            except Exception as error:
                # A request that failed here may have been carried out there: a new writer asks MLflow.
                writer = None
                rest, pause = pause, min(2 * pause, LONGEST_PAUSE)
                self._wake.set()
                self._tell(" ".join(f"{type(error).__name__}: {error}".split())[:300])
            if last:
                return
            self._closing.wait(rest)
