"""The coordinator: a fold over events. No handle, no clock, no file, no tensor.

``tell`` is the only door in; ``tasks`` says what is still to be run, ``ask`` what is now decided. Rebuilding it from the ledger
(``replay``) gives the same coordinator, so a crash costs the tasks in flight and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from raygrow.errors import LedgerError
from raygrow.population.ledger import Event
from raygrow.population.plan import Facts, Plan, kind_of
from raygrow.population.selection import Bid, ranked
from raygrow.population.tasks import NO_LEGAL_MOVE, Phase, Report, Task

NOT_WORTH = "no move is worth its price"

CLEARLY = 2.0
"""Standard errors that a gain lies below its price where the probe leaves no doubt of it."""


@dataclass(frozen=True)
class Head:
    """A member as the coordinator sees it: figures and a digest.

    Attributes:
        network: the described network (``checkpoint``, ``arch``, ``arch_id``, ``params``, ``flops_per_example``,
            ``validation_loss``, ``validation_metric``).
        tests: rounds in which the member tested something.
        rounds_since_growth, last_gain: since and of its last adopted move.
        adopted, probed: moves so far.
        train_flops: of this lineage, all its probes.
        doubts: rounds that spoke against growth since its last adopted move; a clear one counts twice.
        stopped_because: None while it grows.
        settled: it stopped because no move is worth its price, not because something ran out.
        history: one entry a head.
        test: ``test_loss`` and ``test_metric`` once read.
    """

    network: Report
    train_flops: int
    tests: int = 0
    rounds_since_growth: int = 0
    last_gain: float = 0.0
    adopted: int = 0
    probed: int = 0
    doubts: int = 0
    stopped_because: str | None = None
    settled: bool = False
    history: tuple[Report, ...] = ()
    test: Report | None = None

    def followed_by(self, network: Report, round_: int, train_flops: int) -> Head:
        """The head after another network took its place."""
        entry = {
            "round": round_,
            "arch_id": network["arch_id"],
            "checkpoint": network["checkpoint"],
            "flops_per_example": network["flops_per_example"],
            "train_flops": train_flops,
            "validation_loss": network["validation_loss"],
            "validation_metric": network["validation_metric"],
        }
        return replace(self, network=network, train_flops=train_flops, history=(*self.history, entry))


@dataclass
class Coordinator:
    """Which task comes next, which moves are granted, and when it is enough.

    Args:
        plan, facts: of the campaign.
    """

    plan: Plan
    facts: Facts
    phase: Phase | None = "start"
    round: int = 0
    carried: float = 0.0
    heads: dict[str, Head] = field(default_factory=dict)
    best: str | None = None
    _reports: dict[str, Report] = field(default_factory=dict)
    _kept: set[str | None] = field(default_factory=set)

    @classmethod
    def replay(cls, plan: Plan, facts: Facts, events: Iterable[Event]) -> Coordinator:
        """The coordinator that heard exactly these events."""
        coordinator = cls(plan, facts)
        for event in events:
            coordinator.tell(event)
        return coordinator

    @property
    def done(self) -> bool:
        """Every phase is over; the campaign has its result."""
        return self.phase is None

    @property
    def stopped_because(self) -> str | None:
        """Why the whole population grows no more; None while a member grows."""
        reasons: dict[str, list[str]] = {}
        for name, head in self.heads.items():
            if head.stopped_because is None:
                return None
            reasons.setdefault(NOT_WORTH if head.settled else head.stopped_because, []).append(name)
        if len(reasons) < 2:
            return next(iter(reasons), None)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())

    def _active(self) -> list[str]:
        names = [member.name for member in self.plan.members]
        if self.phase == "round":
            return [name for name in names if self.heads[name].stopped_because is None]
        return names

    def tasks(self) -> list[Task]:
        """Tasks of the open phase that have not been reported, in the order of the members."""
        if self.phase is None:
            return []
        if self.phase == "start":
            return [Task("start", name, 0) for name in self._active() if name not in self._reports]
        return [
            Task(
                self.phase,
                name,
                self.round,
                self.heads[name].network["checkpoint"],
                self.heads[name].tests,
                self.heads[name].rounds_since_growth,
                self.heads[name].last_gain,
            )
            for name in self._active()
            if name not in self._reports
        ]

    def referenced(self) -> set[str]:
        """Checkpoints that must stay: every head there was, and those reported in the open phase."""
        kept = self._kept | {entry["checkpoint"] for head in self.heads.values() for entry in head.history}
        for report in self._reports.values():
            kept |= {described["checkpoint"] for described in _described(report)}
        return {digest for digest in kept if digest is not None}

    def ask(self) -> Event | None:
        """The event that closes the open phase, once all its reports are in."""
        if self.phase is None or self.tasks():
            return None
        if self.phase == "round":
            return self._decision()
        if self.phase == "finish":
            losses = {name: _number(r["head"]["validation_loss"]) for name, r in self._reports.items()}
            best = min(losses, key=lambda name: (losses[name], name))
            return {"type": "chosen", "best": best, "validation_loss": losses[best]}
        return {"type": "closed", "phase": self.phase}

    def tell(self, event: Event) -> None:
        """Hear one event. Events that do not concern the coordinator (timings, retries) change nothing.

        Raises:
            LedgerError: a report that was not asked for.
        """
        kind = event["type"]
        if kind == "reported":
            task = Task.from_json(event["task"])
            if task not in self.tasks():
                raise LedgerError(f"event {event.get('n')}: a report of {task.id} was not asked for in this state")
            self._reports[task.member] = event["report"]
        elif kind == "decided":
            self._adopt(event)
        elif kind == "chosen":
            for name, report in self._reports.items():
                head = self.heads[name]
                spent = head.train_flops + report["train_flops"]["total"]
                self.heads[name] = head.followed_by(report["head"], self.round, spent)
            self.best = event["best"]
            self._open("test")
        elif kind == "closed" and event["phase"] == "start":
            # In the order of the members, not of arrival.
            for name in self._active():
                report = self._reports[name]
                head = Head(report["head"], 0)
                self.heads[name] = head.followed_by(report["head"], 0, report["train_flops"]["total"])
            self._next_round()
        elif kind == "closed":
            for name, report in self._reports.items():
                self.heads[name] = replace(self.heads[name], test=report)
            self._reports = {}
            self.phase = None

    def _open(self, phase: Phase) -> None:
        self.phase, self._reports = phase, {}

    def _next_round(self) -> None:
        self._open("round")
        spent = sum(head.train_flops for head in self.heads.values())
        limit = self.plan.budget.max_train_flops
        for name, head in self.heads.items():
            if head.stopped_because is None:
                why = None
                if self.round >= self.plan.campaign.rounds:
                    why = f"all {self.plan.campaign.rounds} rounds are over"
                elif limit is not None and spent >= limit:
                    why = f"the population spent {spent:.3g} of {limit:.3g} training FLOPs"
                self.heads[name] = replace(head, stopped_because=why)
        if self._active():
            self.round += 1
        else:
            self._open("finish")

    def _bids(self) -> list[Bid]:
        return [
            Bid(row["id"], name, row["gain"], row["value"], row["added_flops"])
            for name, report in self._reports.items()
            for row in report["candidates"]
            # Whatever a worker says: what does not pay its price never reaches the ranking.
            if row["verdict"] == "accept" and row["value"] > 0
        ]

    def _decision(self) -> Event:
        """Rank the accepted candidates of the closed round and grant growth."""
        # Sorted before anything else: the order of arrival decides nothing.
        bids = ranked(sorted(self._bids(), key=lambda bid: bid.id))
        rule = self.plan.selection
        each = rule.allowance(len(self.plan.members), self.facts.flops_scale(self.plan), self.plan.campaign.rounds)
        allowance = each + self.carried
        grants = rule.grant(bids, allowance)
        return {
            "type": "decided",
            "round": self.round,
            "selection": kind_of(rule),
            "ranking": [
                {"id": b.id, "member": b.member, "value": b.value, "gain_per_flop": b.gain_per_flop} for b in bids
            ],
            "granted": list(grants.granted),
            "refused": grants.refused,
            "allowance": allowance,
            "carried": grants.carried if math.isfinite(grants.carried) else 0.0,
        }

    def _adopt(self, event: Event) -> None:
        granted = set(event["granted"])
        for name in self._active():
            report, head = self._reports[name], self.heads[name]
            rows = report["candidates"]
            spent = head.train_flops + report["train_flops"]["total"]
            won = next((row for row in rows if row["id"] in granted), None)
            if won is None:
                grown = head.followed_by(report["control"], self.round, spent)
                grown = replace(
                    grown, rounds_since_growth=head.rounds_since_growth + 1, doubts=head.doubts + _doubts(report)
                )
            else:
                network = {
                    "checkpoint": won["checkpoint"],
                    "arch": won["arch"],
                    "arch_id": won["arch_id"],
                    "params": won["params"],
                    "flops_per_example": won["flops_per_example"],
                    "validation_loss": won["candidate_loss"],
                    "validation_metric": won["candidate_metric"],
                }
                grown = head.followed_by(network, self.round, spent)
                grown = replace(grown, rounds_since_growth=0, doubts=0, last_gain=won["gain"], adopted=head.adopted + 1)
            grown = replace(grown, tests=head.tests + bool(rows), probed=head.probed + len(rows))
            self.heads[name] = self._judged(name, grown, report)
            if self.plan.checkpoints.keep == "all":
                self._kept |= {described["checkpoint"] for described in _described(report)}
        self.carried = event["carried"]
        self._next_round()

    def _judged(self, name: str, head: Head, report: Report) -> Head:
        """The head, stopped where its round shows that more of them are not worth their training."""
        if report["diverged"]:
            why = "training diverged: the loss is not finite; a lower `training.lr` may help"
            return replace(head, stopped_because=why)
        if report["why_nothing"] == NO_LEGAL_MOVE:
            # What is legal follows from the network alone, which will not change any more.
            return replace(head, stopped_because=NO_LEGAL_MOVE)
        if head.doubts >= self.plan.member(name).growth.patience:
            rounds = head.rounds_since_growth
            since = "1 round" if rounds == 1 else f"{rounds} rounds"
            # What diverged measured nothing, so it says nothing of what a move is worth.
            settled = bool(_measured(report)) or not report["candidates"]
            found = NOT_WORTH if settled else "no move could be measured"
            why = f"{found}: {since} without an adopted move; in the last, {_against(report)}"
            return replace(head, stopped_because=why, settled=settled)
        return head


def _doubts(report: Report) -> int:
    """How much a round without an adopted move speaks against growth, in rounds.

    A move that paid its price and was outbid speaks for growth. Probes that all lie clearly below their price speak twice as
    loudly as a shortlist that stayed empty or a probe that left it open: training on changes nothing that a probe would see.
    """
    rows = report["candidates"]
    if any(row["verdict"] == "accept" for row in rows):
        return 0
    measured = _measured(report)
    return 2 if measured and all(row["value"] + CLEARLY * row["gain_stderr"] < 0 for row in measured) else 1


def _measured(report: Report) -> list[Report]:
    """Candidates whose probe gave a figure."""
    return [row for row in report["candidates"] if math.isfinite(_number(row["value"]))]


def _against(report: Report) -> str:
    """In words, what a round had to say against growth."""
    measured = _measured(report)
    if not measured:
        return report["why_nothing"] or "every probed move diverged"
    best = max(measured, key=lambda row: (row["value"], row["id"]))
    return (
        f"the best of {len(measured)} probed moves, {best['move']['kind']} {best['site']} by {best['units']}, gained "
        f"{best['gain']:.3g} +- {best['gain_stderr']:.2g} where its {best['added_flops']} FLOPs cost "
        f"{best['gain'] - best['value']:.3g}"
    )


def _described(report: Report) -> list[dict[str, Any]]:
    """Every network with a checkpoint that a report names."""
    return [*(report[key] for key in ("head", "control") if key in report), *report.get("candidates", [])]


def _number(value: float | None) -> float:
    """A figure read back from the ledger, where what is not finite stands as null."""
    return math.inf if value is None else value
