"""Progress of a campaign or a comparison: one living line on a terminal, plain lines elsewhere, or one JSON object a line.

Always on standard error.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from raygrow.population.ledger import Event, finite
from raygrow.population.standing import granted_gain_per_flop, standing

if TYPE_CHECKING:
    from raygrow.population.coordinator import Coordinator

LogFormat = Literal["text", "json"]
Level = Literal["info", "warning", "error"]


def json_line(event: str, level: Level = "info", **figures: Any) -> str:
    """One entry of a structured log: ``time`` (ISO 8601, UTC), ``level``, ``event``, then the figures."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": level, "event": event, **finite(figures)}, allow_nan=False)


class Lines:
    """Lines on a stream: those that stay, and on a terminal a living one below them.

    Args:
        stream: standard error by default.
        quiet: say nothing.
        form: ``text`` for people, ``json`` for what collects logs.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False, form: LogFormat = "text") -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._form = form
        self._living = form == "text" and self._stream.isatty()
        self._begun = time.monotonic()
        self._width = 0

    @property
    def seconds(self) -> float:
        """Since the first line could be written."""
        return time.monotonic() - self._begun

    def note(self, text: str, level: Level = "info", event: str = "note", **figures: Any) -> None:
        """A line that stays. In JSON the text is its ``message``."""
        if self._quiet:
            return
        if self._form == "json":
            self._print(json_line(event, level, message=text, **figures) + "\n")
            return
        self._clear()
        self._print(("warning: " if level == "warning" else "") + text + "\n")

    def _print(self, text: str) -> None:
        """A reader that has gone (a closed terminal, ``| head``) must not end a campaign."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._quiet = True

    def _live(self, text: str) -> None:
        """Show a line until the next one; for terminals."""
        self._clear()
        self._print(f"\r{text}")
        self._width = len(text)

    def end(self) -> None:
        """Leave the terminal clean."""
        self._clear()

    def _clear(self) -> None:
        if self._living and self._width:
            self._print("\r" + " " * self._width + "\r")
            self._width = 0


class Progress(Lines):
    """Says where a campaign stands after every event.

    Args:
        coordinator: read only.
        stream, quiet, form: as of ``Lines``.
    """

    def __init__(
        self, coordinator: Coordinator, stream: TextIO | None = None, quiet: bool = False, form: LogFormat = "text"
    ) -> None:
        super().__init__(stream, quiet, form)
        self._coordinator = coordinator
        self._first_round: int | None = None

    def heard(self, event: Event) -> None:
        """Told after every event."""
        if event["type"] == "retried":
            task = {key: event["task"][key] for key in ("member", "phase", "round")}
            self.note(
                f"retrying {task['member']} round {task['round']}: {event['reason']}", "warning", "retried", **task
            )
        elif self._form == "json" and not self._quiet:
            self._print(self._entry(event) + "\n")
            return
        if self._quiet or event["type"] not in ("reported", "decided", "closed", "chosen"):
            return
        text = self._line()
        if self._living:
            self._live(text)
        elif event["type"] in ("decided", "chosen"):
            granted = f" | granted {len(event['granted'])}" if event["type"] == "decided" else ""
            self._print(f"{text}{granted}\n")

    def _entry(self, event: Event) -> str:
        figures = asdict(standing(self._coordinator))
        if event["type"] == "reported":
            figures["member"] = event["task"]["member"]
        elif event["type"] == "decided":
            # The coordinator has opened the next round.
            figures |= {"phase": "round", "round": event["round"], "granted": len(event["granted"])}
            figures["gain_per_flop"] = granted_gain_per_flop(event)
        return json_line(event["type"], **figures, seconds=round(self.seconds, 3))

    def _line(self) -> str:
        c = self._coordinator
        rounds = c.plan.campaign.rounds
        phase = {"start": "start", "round": f"round {c.round}/{rounds}", "finish": "final anneal", "test": "test"}
        now = standing(c)
        parts = [phase.get(now.phase, "done")]
        if c.heads:
            if now.best_validation_loss is not None:
                parts.append(f"best validation loss {now.best_validation_loss:.4g}")
                parts.append(f"{now.flops_per_example} FLOPs/example")
            budget = c.plan.budget.max_flops_per_example
            if budget:
                largest = max(h.network["flops_per_example"] for h in c.heads.values())
                parts.append(f"{100 * largest / budget:.0f} % of budget")
        spent = self.seconds
        if c.phase == "round":
            # On a resumed campaign the rounds before this session say nothing of its speed.
            if self._first_round is None:
                self._first_round = c.round
            here = c.round - self._first_round
            if here > 0:
                parts.append(f"at most {spent / here * (rounds - c.round + 1):.0f} s left")
        parts.append(f"{spent:.0f} s")
        return " | ".join(parts)


class ComparisonProgress(Lines):
    """Says which trials of a comparison began and ended.

    Args:
        trials: of the whole comparison.
        done: of these, before this session.
        stream, quiet, form: as of ``Lines``.
    """

    def __init__(
        self, trials: int, done: int, stream: TextIO | None = None, quiet: bool = False, form: LogFormat = "text"
    ) -> None:
        super().__init__(stream, quiet, form)
        self._trials, self._before, self._ended = trials, done, 0
        self._running: set[str] = set()

    def began(self, trial: str) -> None:
        self._running.add(trial)
        self._show()

    def ended(self, trial: str, status: str, words: str) -> None:
        """A trial came to its end; words say with what."""
        self._running.discard(trial)
        self._ended += 1
        level: Level = "info" if status in ("done", "stopped") else "warning"
        if self._form == "json":
            self.note(words, level, "trial", trial=trial, status=status, seconds=round(self.seconds, 3))
        else:
            self.note(f"{status} {trial}: {words}", level)
            self._show()

    def _show(self) -> None:
        if not self._living or self._quiet:
            return
        left = self._trials - self._before - self._ended
        parts = [f"{self._trials - left}/{self._trials} trials", f"{len(self._running)} running"]
        if self._ended and left:
            parts.append(f"about {self.seconds / self._ended * left:.0f} s left")
        self._live(" | ".join([*parts, f"{self.seconds:.0f} s"]))
