"""Single decisions on fresh data sets: what the statistical tests of the judgement count.

A decision is one member's first round. Both strategies judge the same evidence, so that a cell costs its probes once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raygrow.data import AbstractSource, Raw, prepare
from raygrow.data.base import stream
from raygrow.data.teacher import Teacher
from raygrow.growth.initializers import Tiny
from raygrow.nn import Network, State, clone
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.growing import Growing
from raygrow.population.member_round import MemberRound
from raygrow.population.plan import Campaign, Facts, Growth, Member, Plan, Training
from raygrow.population.serial_pool import one_thread
from raygrow.population.tasks import Task
from raygrow.population.worker import Worker
from raygrow.strategies import AbstractStrategy, Evidence, Mdl, Proposal, Significance, Situation, Verdict
from raygrow.training import Examples, Fork, ForkResult, ProbePlan, run_probe, teach

JUDGES: dict[str, AbstractStrategy] = {"mdl": Mdl(), "significance": Significance()}
INPUTS, CLASSES = 16, 4
TRAIN, VALIDATION, TEST = 1000, 400, 100
"""Rows of a null data set; train includes search, which the line search and the clipping constant read."""


@dataclass(frozen=True, kw_only=True)
class Drawn(AbstractSource):
    """Normal inputs; labels drawn from fixed class probabilities, or from the softmax of a linear map of the inputs."""

    kind: str = "drawn"
    shares: tuple[float, ...] = (1 / CLASSES,) * CLASSES
    """Probability of each class, where ``scale`` is 0."""
    scale: float = 0.0
    """Standard deviation of each logit beside the log shares; 0: labels do not depend on the inputs."""

    def load(self, seed: int) -> Raw:
        draws = stream("judgement", seed)
        rows = TRAIN + VALIDATION + TEST
        x = draws.standard_normal((rows, INPUTS))
        linear = x @ draws.standard_normal((INPUTS, len(self.shares))) / np.sqrt(INPUTS)
        logits = np.log(self.shares) + self.scale * linear
        labels = np.argmax(logits + draws.gumbel(size=logits.shape), axis=1)
        split = np.repeat(np.array(["train", "validation", "test"], object), (TRAIN, VALIDATION, TEST))
        return Raw("drawn", "classification", x, labels, tuple(f"x{i}" for i in range(INPUTS)), ("label",), split)


@dataclass(frozen=True)
class Heard:
    """One candidate as both strategies judged it."""

    gain: float
    verdicts: dict[str, Verdict]

    def accepted(self, judge: str) -> bool:
        # A member's round rejects what does not pay, whatever its strategy says; the price here is 0.
        return self.verdicts[judge].accepted and self.gain > 0


@dataclass(frozen=True)
class Both(AbstractStrategy):
    """Every strategy's verdict on the same evidence."""

    screened: bool
    """Shortlist as ``mdl`` and ``significance`` do (they share the screen); else the best predictions."""
    heard: list[Heard] = field(default_factory=list, compare=False)
    kind: str = "both"

    def initial_state(self, constant_loss: float) -> Any:
        return JUDGES["mdl"].initial_state(constant_loss)

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: Any, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        if self.screened:
            return JUDGES["mdl"].shortlist(proposals, situation, state, rng)
        best = sorted(proposals, key=lambda p: (-(p.predicted_gain or 0.0), p.id))
        return tuple(best[: situation.candidates])

    def judge(self, evidence: Evidence, situation: Situation, state: Any) -> Verdict:
        verdicts = {name: judge.judge(evidence, situation, state) for name, judge in JUDGES.items()}
        self.heard.append(Heard(evidence.gain, verdicts))
        return Verdict(False, None, None, "heard")


@dataclass(frozen=True)
class Decision:
    """What one member's round came to."""

    heard: tuple[Heard, ...]

    def accepted(self, judge: str) -> bool:
        return any(one.accepted(judge) for one in self.heard)


Arm = Literal["round", "screened", "reseeded", "resolved"]
"""``round``: the best predictions are probed, screen or no screen; ``screened``: a round as shipped; ``reseeded``: the
candidate is the control again, on other batches; ``resolved``: the candidate is the control with one more closed-form
step of its weights."""


@dataclass(frozen=True)
class Cell:
    """One row of the table: where data sets come from, what plays the candidates, how long the control has trained."""

    name: str
    arm: Arm
    source: AbstractSource
    examples: int

    def __str__(self) -> str:
        return f"{self.name}, first decision after {self.examples} examples"


def teacher(validation: int) -> Teacher:
    """A hidden layer is missing: noisy labels of a random network, with ``TRAIN`` and ``validation`` rows."""
    rows = TRAIN + validation + TEST
    return Teacher(scale=2.0, rows=rows, fractions=(TRAIN / rows, validation / rows, TEST / rows))


def decide(cell: Cell, seed: int) -> Decision:
    """One decision on the data set of this seed."""
    strategy = Both(screened=cell.arm == "screened")
    who = Member(
        name="m",
        strategy=strategy,
        initializer=Tiny(),
        training=Training(examples_per_round=cell.examples),
        growth=Growth(candidates=4, price=0.0),
    )
    with tempfile.TemporaryDirectory() as folder, one_thread():
        worker = _worker(Plan(data=cell.source, members=(who,), campaign=Campaign(seed=seed)), Path(folder))
        head = worker.run([Task("start", who.name, 0)])[0]["head"]["checkpoint"]
        task = Task("round", who.name, 1, head)
        if cell.arm in ("round", "screened"):
            worker.run([task])
        else:
            round_ = MemberRound(worker, task)
            strategy.judge(_twins(round_, head, resolved=cell.arm == "resolved"), round_.situation, {})
    return Decision(tuple(strategy.heard))


def campaign_of(source: AbstractSource, judge: str, seed: int, rounds: int) -> list[str]:
    """Reasons of all accepted moves of a member with the shipped settings that never grows."""
    who = Member(name="m", strategy=JUDGES[judge], initializer=Tiny())
    accepted: list[str] = []
    with tempfile.TemporaryDirectory() as folder, one_thread():
        worker = _worker(Plan(data=source, members=(who,), campaign=Campaign(seed=seed)), Path(folder))
        head = worker.run([Task("start", who.name, 0)])[0]["head"]["checkpoint"]
        tests = 0
        for round_ in range(1, rounds + 1):
            (report,) = worker.run([Task("round", who.name, round_, head, tests, rounds_since_growth=round_ - 1)])
            accepted += [f"round {round_}: {c['reason']}" for c in report["candidates"] if c["verdict"] == "accept"]
            tests += bool(report["candidates"])
            head = report["control"]["checkpoint"]
    return accepted


def _worker(plan: Plan, folder: Path) -> Worker:
    dataset = prepare(plan.data, plan.campaign.seed)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())
    return Worker(plan, facts, dataset, CheckpointStore(folder))


def _twins(round_: MemberRound, head: str, resolved: bool) -> Evidence:
    """The control of a first round beside a candidate of the same architecture, from the same start."""
    (trained,) = teach([round_._lesson(round_.worker.load(head))])[0]
    network, state = trained.network, trained.state
    Growing(round_.worker, round_.member, round_.task, network, round_.meter).update()
    twin, plan, data = clone(network), round_._probe_plan(), round_.data
    control = _probe(round_, network, state, plan, data.validation)
    if resolved:
        Growing(round_.worker, round_.member, round_.task, twin, round_.meter).update()
        candidate = _probe(round_, twin, state, plan, data.validation)
    else:
        other = ProbePlan(plan.examples, plan.blocks, plan.batch_size, plan.seed ^ 1)
        # Both are to meet the validation examples in the same order, block by block.
        back = torch.argsort(_permutation(data.validation, other))
        same = data.validation.take(_permutation(data.validation, plan)[back])
        candidate = _probe(round_, twin, state, other, same)
    return Evidence(
        Proposal("twin", "hold", "", 0, 0, 0, None, None, ()),
        # One candidate is tested, and K = 1 asks the least of it.
        1,
        control.validation.losses,
        candidate.validation.losses,
        control.blocks,
        candidate.blocks,
        control.search.losses,
        candidate.search.losses,
        1.0,
    )


def _probe(round_: MemberRound, network: Network, state: State, plan: ProbePlan, validation: Examples) -> ForkResult:
    data = round_.data
    fork = Fork(network, state)
    (result,) = run_probe([fork], data.train, data.search, validation, data.loss, plan, round_.optimizer)
    return result


def _permutation(validation: Examples, plan: ProbePlan) -> torch.Tensor:
    """The order in which ``run_probe`` meets the validation examples."""
    return torch.randperm(len(validation), generator=torch.Generator().manual_seed(plan.seed))
