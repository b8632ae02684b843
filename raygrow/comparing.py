"""What ``raygrow compare`` does: the twin of ``app`` for comparisons."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrow.adapters.ray_start import ahead, connect
from raygrow.adapters.ray_tune import Job, nodes, run_trials
from raygrow.app import rebuild, settled
from raygrow.baselines import AbstractSearch
from raygrow.comparison.calibration import PLANTED, calibration, watched
from raygrow.comparison.curves import curves_table, is_finished, summary_of
from raygrow.comparison.placement import Bundle, misfit
from raygrow.comparison.plan import ComparisonPlan, Trial
from raygrow.comparison.statistics import statistics
from raygrow.comparison.table import DONE, STOPPED, TROUBLE, Outcome, trials_table
from raygrow.comparison_config import load_comparison
from raygrow.config import build_plan, to_yaml
from raygrow.data import METRICS, prepare
from raygrow.document import read_yaml
from raygrow.errors import DataError, RaygrowError, Refused
from raygrow.population.folder import locked
from raygrow.population.ledger import Ledger, write_atomically
from raygrow.population.pool_plan import PoolPlan
from raygrow.process import Interrupted, machine, refuse_unwritable, signals, versions
from raygrow.progress import ComparisonProgress, LogFormat
from raygrow.report.comparison_page import write_comparison_page
from raygrow.report.figures import count, decimal
from raygrow.trial import Content, begin_repetition, finish_repetition, guarded, run_trial

MEANS = ("concurrent", "cpus_per_trial", "together")
"""Keys of ``comparison`` that no figure depends on: another session may have others."""


CURE = "try again where the machine has room, or name a cluster by `--address`"


class ComparisonFolder:
    """DIR of a comparison: its paths and what lies in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "comparison.yaml"
        self.ledger = Ledger(root / "events.jsonl")
        self.trials = root / "trials"
        self.table = root / "trials.parquet"
        self.curves = root / "curves.parquet"
        self.calibration = root / "calibration.parquet"
        self.statistics = root / "comparison.json"
        self.report = root / "report.html"
        self.tune = root / ".tune"

    def refuse_if_other(self, plan: ComparisonPlan) -> None:
        """Raises Refused when the folder holds anything but this comparison."""
        if not self.root.exists() or (self.root.is_dir() and {path.name for path in self.root.iterdir()} <= {".lock"}):
            return
        if not self.config.exists():
            raise Refused(
                f"--out {self.root}: the folder must be empty or new, or hold this comparison; it holds other files"
            )
        before, now = _figures_of(read_yaml(self.config)), _figures_of(plan.resolved)
        if differing := [key for key in {**before, **now} if before.get(key) != now.get(key)]:
            raise Refused(
                f"--out {self.root}: it holds a comparison with another `{'`, `'.join(differing)}`; take another folder, or "
                "the configuration it began with"
            )

    def outcomes(self) -> dict[str, Outcome]:
        """What the ledger says of each trial, the last word."""
        return {
            event["trial"]: Outcome(event["status"], event["reason"])
            for event in self.ledger.read()
            if event["type"] == "trial"
        }

    def folder(self, trial: Trial) -> Path:
        return self.trials / trial.id

    def pending(self, plan: ComparisonPlan) -> list[Trial]:
        """Trials that have neither their result nor been stopped."""
        outcomes = self.outcomes()
        stopped = {name for name, outcome in outcomes.items() if outcome.status == STOPPED}
        return [t for t in plan.trials if t.id not in stopped and not is_finished(summary_of(self.folder(t)))]


def _figures_of(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration but for what no figure depends on, as it is read back."""
    found = dict(resolved)
    found["comparison"] = {key: value for key, value in found.get("comparison", {}).items() if key not in MEANS}
    return found


@dataclass(frozen=True)
class Compared:
    """What a comparison left.

    Attributes:
        folder: DIR.
        plan: what was compared.
        trials: ``trials.parquet``.
        calibration: ``calibration.parquet``; None unless all data are planted.
    """

    folder: Path
    plan: ComparisonPlan
    trials: pa.Table
    calibration: pa.Table | None = None

    @property
    def trouble(self) -> list[dict[str, Any]]:
        """Rows of the trials that came to no end."""
        return [row for row in self.trials.to_pylist() if row["status"] in TROUBLE]


def compare(
    config: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    address: str | None = None,
    quiet: bool = False,
    log_format: LogFormat = "text",
) -> Compared:
    """Compare arms: the same as ``raygrow compare``. In a folder that holds this comparison it goes on with it.

    Args:
        config: a YAML file, or its content as a mapping.
        overrides: dotted path to value.
        out: folder of the comparison; by default ``runs/<name>-<time>``.
        address: of a running Ray cluster.
        quiet: no progress.
        log_format: of the progress on standard error.

    Raises:
        Refused: before any work; no folder was created.
    """
    plan = load_comparison(config, overrides)
    root = Path(out) if out else Path("runs") / f"{plan.comparison.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    home = ComparisonFolder(root)
    home.refuse_if_other(plan)
    pending = home.pending(plan)
    with ahead(PoolPlan(kind="ray" if pending else "serial"), 1, address):
        missing = check_data(plan, {trial.data for trial in pending})
        if len(missing) == len(plan.data):
            raise next(iter(missing.values()))
        refuse_unwritable(root)
        progress = ComparisonProgress(len(plan.trials), len(plan.trials) - len(pending), quiet=quiet, form=log_format)
        progress.note(f"comparison folder: {root}", event="folder", folder=str(root))
        needed = any(trial.data not in missing for trial in pending)
        with signals():
            end = connect(PoolPlan(), 1, address, CURE) if needed else lambda: None
            try:
                with locked(root):
                    # Again, now alone: another process may have worked here in the meantime.
                    home.refuse_if_other(plan)
                    return _Session(plan, home, progress, end).run(home.pending(plan), missing)
            finally:
                end()


def check_data(plan: ComparisonPlan, names: set[str]) -> dict[str, DataError]:
    """Read every data set once, and see that every arm fits it.

    Returns:
        Why data sets cannot be had, by name.

    Raises:
        Refused: an arm does not go together with a data set.
    """
    missing: dict[str, DataError] = {}
    seed = plan.comparison.seeds[0]
    for name in sorted(names):
        dataset = None
        for arm in plan.arms:
            arm_plan = build_plan(plan.document(Trial(arm, name, seed)))
            try:
                dataset = dataset or prepare(arm_plan.data, seed)
                settled(arm_plan, dataset)
            except DataError as error:
                missing[name] = error
                break
            except Refused as error:
                raise Refused(f"arm {arm.name!r} on {name!r}: {error}") from None
    return missing


class _Session:
    """One run of a comparison, in a folder that is locked.

    Args:
        end: ends the connection to Ray, and with it every trial that runs; may be called again.
    """

    def __init__(
        self, plan: ComparisonPlan, home: ComparisonFolder, progress: ComparisonProgress, end: Callable[[], None]
    ) -> None:
        self._plan, self._home, self._progress, self._end = plan, home, progress, end

    def run(self, pending: Sequence[Trial], missing: Mapping[str, DataError]) -> Compared:
        home = self._home
        if not home.config.exists():
            write_atomically(home.config, to_yaml(self._plan.resolved).encode())
        home.ledger.append({"type": "began", "versions": versions(), "machine": machine()})
        try:
            # Once more: Ray, which has come up, has put handlers of its own in their place.
            with signals():
                for trial in pending:
                    if trial.data in missing:
                        self._ended(trial.id, Outcome("missing", str(missing[trial.data])))
                there = [trial for trial in pending if trial.data not in missing]
                if there:
                    self._run(there)
            home.ledger.append({"type": "ended"})
        except (Interrupted, KeyboardInterrupt):
            home.ledger.append({"type": "interrupted"})
            self._progress.end()
            self._progress.note(f"interrupted; the same command with --out {home.root} goes on")
            raise
        finally:
            # A second Ctrl-C must not tear what is being written here.
            with signals(ignore=True):
                self._progress.end()
                # Before the tables are made: a trial that runs on would leave what they do not have.
                with suppress(Exception):
                    self._end()
                shutil.rmtree(home.tune, ignore_errors=True)
                found = write_comparison(self._plan, home)
                self._track()
        return found

    def _track(self) -> None:
        """Show the comparison in MLflow, where that is asked for; trouble there costs a line and nothing else."""
        tracking = self._plan.resolved["tracking"]
        if not tracking["enabled"]:
            return
        from raygrow.adapters.mlflow_comparison import log_comparison

        root = self._home.root.resolve()
        own = tracking["uri"] is None
        uri, artifacts = (f"sqlite:///{root}/mlflow.db", root / "mlartifacts") if own else (tracking["uri"], None)
        try:
            log_comparison(self._home.root, uri, tracking["experiment"], artifacts)
        except Exception as error:
            self._progress.note(f"MLflow at {uri} does not show the comparison ({type(error).__name__}: {error})")

    def _run(self, trials: Sequence[Trial]) -> None:
        here = nodes()
        placed: dict[str, Trial] = {}
        for trial in trials:
            why = misfit(self._bundles(trial), here)
            if why is None:
                placed[trial.id] = trial
            else:
                cure = "lower `comparison.cpus_per_trial` or the needs of `pool`, or use a larger cluster"
                self._ended(trial.id, Outcome("unplaced", f"{why}; {cure}"))
        if not placed:
            return

        def ended(name: str, outcome: Outcome) -> None:
            if placed.pop(name, None) is not None:
                self._ended(name, outcome)

        comparison = self._plan.comparison
        searches = [trial for trial in placed.values() if isinstance(trial.arm.baseline, AbstractSearch)]
        others = [trial for trial in placed.values() if trial not in searches]
        known = self._told_again(trials) if comparison.stop is not None else []
        shutil.rmtree(self._home.tune, ignore_errors=True)
        if others:
            run_trials(
                [
                    *(self._job([trial], over=True) for trial in known),
                    *(self._job(several, over=False) for several in self._shared_out(others)),
                ],
                run_trial,
                self._home.tune,
                comparison.concurrent,
                comparison.stop,
                max(arm.document["campaign"]["rounds"] for arm in self._plan.arms),
                self._progress.began,
                ended,
            )
        # One after the other, each with the whole cluster: a search that waited inside a trial for trials of its own would
        # wait for ever where trials fill the cluster.
        for trial in searches:
            self._search(trial)

    def _search(self, trial: Trial) -> None:
        from raygrow.adapters.ray_search import run_search

        comparison, content = self._plan.comparison, self._content(trial, over=False)

        def act() -> None:
            repetition = begin_repetition(content)
            found = run_search(trial.arm.baseline, repetition, comparison.concurrent, comparison.cpus_per_trial)
            finish_repetition(content, found)

        self._progress.began(trial.id)
        self._ended(trial.id, guarded(act))

    def _told_again(self, pending: Sequence[Trial]) -> list[Trial]:
        """Trials of an earlier session: the halving of their repetition must know how they did."""
        return [trial for trial in self._plan.trials if trial not in pending and trial.arm.baseline is None]

    def _bundles(self, trial: Trial) -> tuple[Bundle, ...]:
        """Of the trial's process, and of the actor that its member has where its pool is Ray."""
        pool = PoolPlan(**trial.arm.document["pool"])
        cpus = self._plan.comparison.cpus_per_trial
        gpus = {"GPU": pool.gpus_per_actor} if pool.gpus_per_actor else {}
        if pool.kind == "serial" or trial.arm.baseline is not None:
            return ({"CPU": cpus, **gpus},)
        return ({"CPU": cpus}, {"CPU": pool.cpus_per_actor, **gpus})

    def _shared_out(self, trials: Sequence[Trial]) -> Iterator[list[Trial]]:
        """Trials that go to a process together; they need the same of it."""
        for _, alike in groupby(trials, self._bundles):
            left = list(alike)
            for start in range(0, len(left), self._plan.comparison.together):
                yield left[start : start + self._plan.comparison.together]

    def _job(self, trials: Sequence[Trial], over: bool) -> Job:
        contents = {trial.id: self._content(trial, over) for trial in trials}
        return Job(f"{trials[0].data}-{trials[0].seed}", self._bundles(trials[0]), contents)

    def _content(self, trial: Trial, over: bool) -> Content:
        return Content(self._home.folder(trial).resolve(), self._plan.document(trial), trial.arm.baseline, over)

    def _ended(self, name: str, outcome: Outcome) -> None:
        self._home.ledger.append({"type": "trial", "trial": name, "status": outcome.status, "reason": outcome.reason})
        summary = summary_of(self._home.trials / name)
        words = outcome.reason
        if summary is not None and outcome.status == DONE:
            member, metric = summary["members"][0], METRICS[summary["task"]]
            words = (
                f"test {metric} {decimal(member[f'test_{metric}'])}, {count(member['flops_per_example'])} FLOPs/example"
            )
        self._progress.ended(name, outcome.status, words)


def rebuild_comparison(folder: str | Path) -> Compared:
    """Write the tables again, from the folders of the trials and the ledger.

    Raises:
        Refused: a process runs in it.
    """
    home = ComparisonFolder(Path(folder))
    with locked(home.root):
        return write_comparison(load_comparison(home.config), home)


def write_comparison(plan: ComparisonPlan, home: ComparisonFolder) -> Compared:
    """Write everything that follows from the folders of the trials and the ledger."""
    outcomes = home.outcomes()
    for name, outcome in outcomes.items():
        # Its process may have been ended in the middle of what it leaves; its ledger has it all.
        if outcome.status == STOPPED and summary_of(home.trials / name) is None:
            with suppress(RaygrowError):
                rebuild(home.trials / name)
    trials = trials_table(plan, home.trials, outcomes)
    curves = curves_table(plan, home.trials)
    calibrated = _calibration(plan, home.trials)
    for table, path in ((trials, home.table), (curves, home.curves), (calibrated, home.calibration)):
        if table is not None:
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            write_atomically(path, buffer.getvalue())
    found = statistics(trials, curves, plan.comparison.reference)
    write_atomically(home.statistics, json.dumps(found, indent=2, allow_nan=False).encode() + b"\n")
    write_comparison_page(home.root)
    return Compared(home.root, plan, trials, calibrated)


def _calibration(plan: ComparisonPlan, trials: Path) -> pa.Table | None:
    """How often grown arms accepted moves, where all data are planted: what it is to be calibrated on."""
    data = next(iter(plan.data.values()))
    if any(source["kind"] != PLANTED for source in plan.data.values()):
        return None
    grown = [arm for arm in plan.arms if arm.baseline is None]
    strategies = {arm.name: build_plan({**arm.document, "data": data}).members[0].strategy for arm in grown}
    levels = {name: strategy.level for name, strategy in strategies.items()}
    return calibration(watched(plan, trials, levels))
