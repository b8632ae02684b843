"""Progress of a campaign: one living line on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event


class Progress:
    """Says where a campaign stands after every event.

    Args:
        coordinator: read only.
        stream: standard error by default.
        quiet: say nothing.
    """

    def __init__(self, coordinator: Coordinator, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._coordinator = coordinator
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._living = self._stream.isatty()
        self._begun = time.monotonic()
        self._first_round: int | None = None
        self._width = 0

    def note(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._clear()
            self._print(text + "\n")

    def _print(self, text: str) -> None:
        """A reader that has gone (a closed terminal, ``| head``) must not end a campaign."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._quiet = True

    def heard(self, event: Event) -> None:
        """Told after every event."""
        if event["type"] == "retried":
            self.note(f"retrying {event['task']['member']} round {event['task']['round']}: {event['reason']}")
        if self._quiet or event["type"] not in ("reported", "decided", "closed", "chosen"):
            return
        text = self._line()
        if self._living:
            self._clear()
            self._print(f"\r{text}")
            self._width = len(text)
        elif event["type"] in ("decided", "chosen"):
            granted = f" | granted {len(event['granted'])}" if event["type"] == "decided" else ""
            self._print(f"{text}{granted}\n")

    def end(self) -> None:
        """Leave the terminal clean."""
        self._clear()

    def _clear(self) -> None:
        if self._living and self._width:
            self._print("\r" + " " * self._width + "\r")
            self._width = 0

    def _line(self) -> str:
        c = self._coordinator
        rounds = c.plan.campaign.rounds
        phase = {"start": "start", "round": f"round {c.round}/{rounds}", "finish": "final anneal", "test": "test"}
        parts = [phase.get(c.phase or "", "done")]
        if c.heads:
            finite = [h.network for h in c.heads.values() if h.network["validation_loss"] is not None]
            if finite:
                best = min(finite, key=lambda network: float(network["validation_loss"]))
                parts.append(f"best validation loss {best['validation_loss']:.4g}")
                parts.append(f"{best['flops_per_example']} FLOPs/example")
            budget = c.plan.budget.max_flops_per_example
            if budget:
                largest = max(h.network["flops_per_example"] for h in c.heads.values())
                parts.append(f"{100 * largest / budget:.0f} % of budget")
        spent = time.monotonic() - self._begun
        if c.phase == "round":
            # On a resumed campaign the rounds before this session say nothing of its speed.
            if self._first_round is None:
                self._first_round = c.round
            here = c.round - self._first_round
            if here > 0:
                parts.append(f"at most {spent / here * (rounds - c.round + 1):.0f} s left")
        parts.append(f"{spent:.0f} s")
        return " | ".join(parts)
