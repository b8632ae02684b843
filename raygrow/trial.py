"""What one trial of a comparison does in its process: a campaign or a baseline, and what came of it. It raises nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygrow.app import prepare_campaign, resume, run
from raygrow.baselines import AbstractSearch, AbstractTrial, Repetition
from raygrow.comparison.curves import is_finished, summary_of
from raygrow.comparison.table import DONE, Outcome
from raygrow.config import build_plan
from raygrow.errors import DataError, RaygrowError, Refused
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import Event, write_atomically
from raygrow.population.serial_pool import one_thread

Report = Callable[[int, float | None], None]


@dataclass(frozen=True)
class Content:
    """What a trial is told.

    Attributes:
        folder: of the trial; absolute.
        document: the configuration of its campaign.
        baseline: instead of the campaign; None: the campaign.
        over: it is not to be run: what it reported in an earlier session is told again, and no more.
    """

    folder: Path
    document: Mapping[str, Any]
    baseline: AbstractTrial | AbstractSearch | None = None
    over: bool = False


def run_trial(content: Content, report: Report) -> Outcome:
    """Run a trial to its end, or go on with it.

    Args:
        report: told the round and the validation loss after each round. It may end the trial by raising ``SystemExit``.
    """
    return guarded(lambda: _run(content, report))


def guarded(act: Callable[[], None]) -> Outcome:
    """What came of an act: its error, if it raised one, in one line."""
    try:
        act()
    except DataError as error:
        return Outcome("missing", _line(error))
    except Refused as error:
        return Outcome("refused", _line(error))
    except RaygrowError as error:
        return Outcome("failed", _line(error))
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {_line(error)}")
    return Outcome(DONE, "")


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _run(content: Content, report: Report) -> None:
    if content.over:
        _tell_again(content, report)
    elif is_finished(summary_of(content.folder)):
        # Its process was lost after it, with another trial that it had been given.
        return
    elif content.baseline is None:
        _grow(content, report)
    else:
        assert isinstance(content.baseline, AbstractTrial)
        repetition = begin_repetition(content)
        with one_thread():
            finish_repetition(content, content.baseline.run(repetition))


def _tell_again(content: Content, report: Report) -> None:
    summary = summary_of(content.folder)
    # The start is no round, and the final anneal is none either.
    history = summary["members"][0]["history"][1:] if summary else []
    for entry in history[:-1] if is_finished(summary) else history:
        report(entry["round"], entry["validation_loss"])


def _grow(content: Content, report: Report) -> None:
    def heard(coordinator: Coordinator, event: Event) -> None:
        if event["type"] == "decided":
            (head,) = coordinator.heads.values()
            report(event["round"], head.network["validation_loss"])

    events = CampaignFolder(content.folder).ledger.read()
    if events and events[0]["type"] == "started":
        resume(content.folder, quiet=True, heard=heard, page=False)
    else:
        # Cut off before its first event: there is nothing to go on with.
        shutil.rmtree(content.folder, ignore_errors=True)
        run(content.document, out=content.folder, quiet=True, heard=heard, page=False)


def begin_repetition(content: Content) -> Repetition:
    """Prepare the data of a baseline, in a folder of its own; what an earlier try left there is gone."""
    ready = prepare_campaign(build_plan(content.document))
    shutil.rmtree(content.folder, ignore_errors=True)
    content.folder.mkdir(parents=True)
    return Repetition(ready.plan, ready.facts, ready.dataset, content.folder)


def finish_repetition(content: Content, summary: Mapping[str, Any]) -> None:
    """Write what a baseline came to."""
    text = json.dumps(summary, indent=2, allow_nan=False)
    write_atomically(content.folder / "summary.json", text.encode() + b"\n")
