"""What the commands do, as functions: run, resume, validate, predict. The only place where all the parts meet."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrow.adapters.ray_start import ahead
from raygrow.architecture import forward_flops, params
from raygrow.config import load_plan, resolved, to_yaml
from raygrow.data import Dataset, prepare
from raygrow.errors import CampaignFailed, DataError, LedgerError, RaygrowError, Refused
from raygrow.population.campaign import run_campaign
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import Event, write_atomically
from raygrow.population.plan import Facts, Plan
from raygrow.population.tasks import Pool
from raygrow.process import Interrupted, machine, refuse_unwritable, signals, versions
from raygrow.progress import LogFormat, Progress
from raygrow.result import Result

if TYPE_CHECKING:
    from raygrow.adapters.mlflow_mirror import MlflowMirror

LEAST_CONSTANT_LOSS = 1e-6
MIRROR_AFTER = 60.0
"""Seconds a campaign runs before MLflow begins to show it; a shorter one is shown at its end."""
MIRROR_PATIENCE, INTERRUPTED_PATIENCE = 60.0, 5.0
"""Seconds that a finished, an interrupted campaign waits for MLflow to show it all."""


@dataclass(frozen=True)
class Prepared:
    """A configuration with its data: everything that is known before any work begins."""

    plan: Plan
    facts: Facts
    dataset: Dataset


def prepare_campaign(plan: Plan) -> Prepared:
    """Load the data and settle what follows from them.

    Raises:
        DataError, ConfigError, Refused: before anything was created.
    """
    return settled(plan, prepare(plan.data, plan.campaign.seed))


def settled(plan: Plan, dataset: Dataset) -> Prepared:
    """What follows from the data for a plan.

    Raises:
        ConfigError, Refused: they do not go together.
    """
    # A train split of a single class leaves a constant nothing to lose; gains still need a unit.
    unit = max(dataset.constant_loss(), LEAST_CONSTANT_LOSS)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), unit, dataset.shape)
    facts.check(plan)
    budget, begun = plan.budget, facts.start(plan.network)
    for what, start, limit in (
        ("max_flops_per_example", forward_flops(begun), budget.max_flops_per_example),
        ("max_params", params(begun), budget.max_params),
    ):
        if limit is not None and start > limit:
            raise Refused(
                f"`budget.{what}`: the start ({facts.inputs} inputs -> {facts.outputs} outputs) needs {start}, above the "
                f"{limit} allowed; raise the budget or use fewer features"
            )
    return Prepared(plan, facts, dataset)


def run(
    config: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    pool: str | None = None,
    address: str | None = None,
    quiet: bool = False,
    log_format: LogFormat = "text",
    heard: Callable[[Coordinator, Event], None] | None = None,
    page: bool = True,
) -> Result:
    """Grow a population: the same as ``raygrow run``.

    Args:
        config: a YAML file, or its content as a mapping.
        overrides: dotted path to value.
        out: folder of the campaign; by default ``runs/<name>-<time>``.
        pool: ``ray`` or ``serial`` instead of the configuration's.
        address: of a running Ray cluster.
        quiet: no progress.
        log_format: of the progress on standard error.
        heard: told every event after it is in the ledger, with the coordinator that has heard it.
        page: write ``report.html`` and its figures; ``raygrow report`` does so at any time.

    Raises:
        Refused: no folder was created; a Ray that was coming up meanwhile ends by itself.
        CampaignFailed: it began and could not finish; ``resume`` goes on.
    """
    plan = load_plan(config, {**(overrides or {}), **({"pool.kind": pool} if pool else {})})
    root = Path(out) if out else Path("runs") / f"{plan.campaign.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = CampaignFolder(root)
    folder.refuse_if_used()
    _check_pool(plan, address)
    if hasattr(plan.data, "path"):
        # ``resume`` may be called from another folder.
        plan = replace(plan, data=replace(plan.data, path=str(Path(plan.data.path).resolve())))  # type: ignore[call-arg]
    with ahead(plan.pool, len(plan.members), address):
        ready = prepare_campaign(plan)
        refuse_unwritable(root)
        coordinator = Coordinator(plan, ready.facts)
        progress = Progress(coordinator, quiet=quiet, form=log_format)
        progress.note(f"campaign folder: {root}", event="folder", folder=str(root))
        for warning in ready.dataset.warnings:
            progress.note(warning, "warning")
        with signals(), _pool(ready, folder, address, progress.note) as workers, folder.locked():
            # Again, now alone: another process may have run a whole campaign here in the meantime.
            folder.refuse_if_begun()
            write_atomically(folder.config, to_yaml(resolved(plan)).encode())
            folder.ledger.append(_started(ready))
            return _execute(folder, coordinator, workers, progress, heard, page)


def resume(
    folder: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    pool: str | None = None,
    address: str | None = None,
    quiet: bool = False,
    log_format: LogFormat = "text",
    heard: Callable[[Coordinator, Event], None] | None = None,
    page: bool = True,
) -> Result:
    """Go on with an interrupted campaign: the same as ``raygrow resume``. A finished one gives its summary.

    Args:
        overrides: ``data.path`` alone, for data that were moved.
        log_format: of the progress on standard error.
        heard, page: as in ``run``.

    Raises:
        Refused, LedgerError: no campaign, another process in it, or other data than it began with.
        CampaignFailed: it could not finish this time either.
    """
    home = CampaignFolder(Path(folder))
    home.refuse_if_absent()
    for key in overrides or {}:
        if key != "data.path":
            raise Refused(
                f"--set {key}: a resumed campaign takes `data.path` alone; begin a new one to change the rest"
            )
    plan = load_plan(home.config, {**(overrides or {}), **({"pool.kind": pool} if pool else {})})
    _check_pool(plan, address)
    with home.locked():
        events = home.ledger.read()
        if not events or events[0]["type"] != "started":
            raise LedgerError(f"{home.ledger.path}: does not begin with the start of a campaign")
        facts = Facts(**events[0]["facts"])
        coordinator = Coordinator.replay(plan, facts, events)
        progress = Progress(coordinator, quiet=quiet, form=log_format)
        if any(event["type"] == "ended" for event in events):
            return _finished(home, coordinator, progress, page)
        with ahead(plan.pool, len(plan.members), address):
            return _go_on(home, plan, events, coordinator, progress, address, heard, page)


def _go_on(
    home: CampaignFolder,
    plan: Plan,
    events: list[Event],
    coordinator: Coordinator,
    progress: Progress,
    address: str | None,
    heard: Callable[[Coordinator, Event], None] | None,
    page: bool,
) -> Result:
    """With the folder locked and the same data."""
    ready = prepare_campaign(plan)
    if ready.dataset.digest != events[0]["data"]["digest"]:
        raise DataError(
            f"{home.root}: the data are not those the campaign began with (digest {ready.dataset.digest[:12]} instead of "
            f"{events[0]['data']['digest'][:12]}); name the right file with --set data.path=FILE"
        )
    changed = [n for n, v in versions().items() if events[0]["versions"].get(n) != v]
    if changed:
        progress.note(
            f"other versions than at the start ({', '.join(changed)}): figures may differ in last bits", "warning"
        )
    with signals(), _pool(ready, home, address, progress.note) as workers:
        home.ledger.append({"type": "resumed", "versions": versions(), "machine": machine()})
        return _execute(home, coordinator, workers, progress, heard, page)


def _execute(
    folder: CampaignFolder,
    coordinator: Coordinator,
    workers: Pool,
    progress: Progress,
    listener: Callable[[Coordinator, Event], None] | None,
    page: bool,
) -> Result:
    """Run to the end, or leave a folder that can be resumed; either way the derived files are written."""
    mirror = _mirror(folder, coordinator, progress.note)
    measure = _metrics(coordinator)

    def heard(event: Event) -> None:
        progress.heard(event)
        measure(event)
        mirror.poke()
        if listener is not None:
            listener(coordinator, event)

    patience = MIRROR_PATIENCE
    try:
        with signals():
            try:
                mirror.start()
                run_campaign(coordinator, folder.ledger, folder.store, workers, heard)
                folder.ledger.append({"type": "ended"})
            except (Interrupted, KeyboardInterrupt):
                patience = INTERRUPTED_PATIENCE
                # Slurm tells a job that it cancels twice, itself and through the job's script.
                with signals(ignore=True):
                    folder.ledger.append({"type": "interrupted"})
                raise
            except Exception as error:
                folder.ledger.append({"type": "failed", "reason": f"{type(error).__name__}: {error}"})
                raise
    except (Interrupted, KeyboardInterrupt):
        progress.end()
        progress.note(f"interrupted; `raygrow resume {folder.root}` goes on", event="interrupted")
        raise
    except Exception as error:
        progress.end()
        what = str(error) if isinstance(error, RaygrowError) else f"{type(error).__name__}: {error}"
        raise CampaignFailed(f"{what}; what was done is kept, `raygrow resume {folder.root}` goes on") from error
    finally:
        # A second Ctrl-C must not tear what is being written here.
        with signals(ignore=True):
            # A cluster that is gone must not cost the files that say what was done: to take leave of it may take a minute.
            result = _write_derived(folder, coordinator, page)
            with suppress(Exception):
                workers.close()
            mirror.poke()
            mirror.close(patience, begin=patience == MIRROR_PATIENCE)
    progress.end()
    return result


def _finished(folder: CampaignFolder, coordinator: Coordinator, progress: Progress, page: bool) -> Result:
    """Nothing is left to do but to let the derived files and MLflow catch up."""
    result = _write_derived(folder, coordinator, page)
    mirror = _mirror(folder, coordinator, progress.note)
    mirror.start()
    mirror.close(MIRROR_PATIENCE)
    return result


def _write_derived(folder: CampaignFolder, coordinator: Coordinator, page: bool = True) -> Result:
    from raygrow.report import summary, write_moves, write_page, write_summary

    events = folder.ledger.read()
    # From the ledger alone: an interrupt may have fallen between an event's line and its being heard.
    coordinator = Coordinator.replay(coordinator.plan, coordinator.facts, events)
    write_moves(events, folder.moves)
    write_summary(coordinator, events, folder.summary)
    if page:
        write_page(coordinator, events, folder.report, folder.figures)
    return Result(folder.root, summary(coordinator, events))


class _NoMirror:
    """Stands in for the mirror of a campaign without tracking."""

    def start(self) -> None: ...

    def poke(self) -> None: ...

    def close(self, timeout: float, begin: bool = True) -> bool:
        return True


def _mirror(folder: CampaignFolder, coordinator: Coordinator, log: Callable[[str], None]) -> MlflowMirror | _NoMirror:
    tracking = coordinator.plan.tracking
    if not tracking.enabled:
        return _NoMirror()
    from raygrow.adapters.mlflow_mirror import MlflowMirror

    root = folder.root.resolve()
    artifacts: Path | None
    if tracking.uri is None:
        uri, artifacts = f"sqlite:///{root}/mlflow.db", root / "mlartifacts"
    else:
        uri, artifacts = tracking.uri, None
    return MlflowMirror(folder.ledger, uri, tracking.experiment, artifacts, log, MIRROR_AFTER)


def _metrics(coordinator: Coordinator) -> Callable[[Event], None]:
    """What shows the campaign's figures beside those of Ray, where there is a Ray."""
    if coordinator.plan.pool.kind != "ray":
        return lambda event: None
    from raygrow.adapters.ray_metrics import Gauges

    return Gauges(coordinator).heard


@contextmanager
def _pool(ready: Prepared, folder: CampaignFolder, address: str | None, log: Callable[[str], None]) -> Iterator[Pool]:
    workers: Pool
    if ready.plan.pool.kind == "ray":
        from raygrow.adapters.ray_pool import RayPool

        workers = RayPool(ready.plan, ready.facts, ready.dataset, folder.store.root, address, log)
    else:
        from raygrow.population.serial_pool import SerialPool
        from raygrow.population.worker import Worker

        device = ready.plan.pool.device
        workers = SerialPool(Worker(ready.plan, ready.facts, ready.dataset, folder.store, device))
    try:
        yield workers
    finally:
        workers.close()


def _started(ready: Prepared) -> Event:
    data = ready.dataset
    return {
        "type": "started",
        "campaign_id": uuid.uuid4().hex,
        "config": resolved(ready.plan),
        "facts": asdict(ready.facts),
        "data": {
            "name": data.name,
            "digest": data.digest,
            "rows": {name: len(getattr(data, name)) for name in ("train", "search", "validation", "test")},
            "used": list(data.used),
            "dropped": list(data.dropped),
            "warnings": list(data.warnings),
        },
        "versions": versions(),
        "machine": machine(),
    }


def _check_pool(plan: Plan, address: str | None) -> None:
    """Refuse a pool that this process cannot have; what a cluster has, Ray says."""
    if plan.pool.kind == "ray":
        return
    if address is not None:
        raise Refused(f"--address {address}: goes with the Ray pool, but `pool.kind` is {plan.pool.kind}")
    if plan.pool.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise Refused(
                f"`pool.gpus_per_actor` is {plan.pool.gpus_per_actor:g}, but torch sees no GPU here: set it to 0, or use the "
                "Ray pool on a cluster that has GPUs"
            )


def rebuild(folder: str | Path) -> Result:
    """Write ``summary.json``, ``moves.parquet``, ``report.html`` and its figures again from the ledger.

    Raises:
        Refused, LedgerError: no campaign here, or a process runs in it.
    """
    home = CampaignFolder(Path(folder))
    home.refuse_if_absent()
    with home.locked():
        events = home.ledger.read()
        if not events or events[0]["type"] != "started":
            raise LedgerError(f"{home.ledger.path}: does not begin with the start of a campaign")
        coordinator = Coordinator.replay(load_plan(home.config), Facts(**events[0]["facts"]), events)
        return _write_derived(home, coordinator)
