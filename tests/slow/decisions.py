"""Single decisions on fresh data sets: what the statistical tests of the judgement count.

A decision is one member's first round. Both strategies judge the same evidence, so that a cell costs its probes once.
Cells are cut in pieces that two processes share, with one thread each.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raygrow.data import AbstractSource, Dataset, Raw, prepare
from raygrow.data.base import stream
from raygrow.growth.initializers import Tiny
from raygrow.growth.update import update_existing
from raygrow.nn import Network, State, clone
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.member_round import MemberRound
from raygrow.population.plan import Campaign, Facts, Growth, Member, Plan, Probe, Training
from raygrow.population.serial_pool import one_thread
from raygrow.population.tasks import Task
from raygrow.population.worker import Worker
from raygrow.strategies import AbstractStrategy, Evidence, Mdl, Proposal, Significance, Situation, Verdict
from raygrow.training import Examples, Fork, ForkResult, ProbePlan, run_probe

JUDGES: dict[str, AbstractStrategy] = {"mdl": Mdl(), "significance": Significance()}
INPUTS, CLASSES = 16, 4
TRAIN, VALIDATION, TEST = 1000, 400, 40
PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Drawn(AbstractSource):
    """Normal inputs; labels drawn from fixed class probabilities, or from the softmax of a linear map of the inputs."""

    kind: str = "drawn"
    shares: tuple[float, ...] = (1 / CLASSES,) * CLASSES
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
    """Shortlist as ``mdl`` and ``significance`` do (they share the screen), or the best predictions, screen or no screen."""
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


def member(examples: int, screened: bool = False) -> Member:
    """A member with the shipped settings but for K, the price and the examples before its first decision."""
    return Member(
        name="m",
        strategy=Both(screened),
        initializer=Tiny(),
        training=Training(examples_per_round=examples),
        growth=Growth(candidates=4, price=0.0),
        probe=Probe(),
    )


def worker_of(plan: Plan, folder: Path) -> Worker:
    dataset = prepare(plan.data, plan.campaign.seed)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())
    return Worker(plan, facts, dataset, CheckpointStore(folder))


def first_round(source: AbstractSource, who: Member, seed: int) -> Decision:
    """The first round of one member, as a campaign runs it."""
    with tempfile.TemporaryDirectory() as folder:
        worker = worker_of(Plan(data=source, members=(who,), campaign=Campaign(seed=seed)), Path(folder))
        head = worker.run(Task("start", who.name, 0))["head"]["checkpoint"]
        worker.run(Task("round", who.name, 1, head))
    assert isinstance(who.strategy, Both)
    return Decision(tuple(who.strategy.heard))


def twin_round(source: AbstractSource, who: Member, seed: int, resolve: bool) -> Decision:
    """A first round whose candidate has the control's architecture.

    Args:
        resolve: the candidate takes one more closed-form step of its weights before the probe; else it is the control
            again, on other batches.
    """
    with tempfile.TemporaryDirectory() as folder:
        worker = worker_of(Plan(data=source, members=(who,), campaign=Campaign(seed=seed)), Path(folder))
        head = worker.run(Task("start", who.name, 0))["head"]["checkpoint"]
        round_ = MemberRound(worker, Task("round", who.name, 1, head))
        network, state, _ = round_._train(worker.load(head))
        round_._update_existing(network)
        twin, plan, data = clone(network), round_._probe_plan(), worker.data
        (control,) = _probe(round_, network, state, plan, data.validation)
        if resolve:
            sample = round_._statistics_examples()
            update_existing(twin, (sample.x, sample.y), (data.search.x, data.search.y), data.loss, round_.meter)
            (candidate,) = _probe(round_, twin, state, plan, data.validation)
        else:
            other = ProbePlan(plan.examples, plan.blocks, plan.batch_size, plan.seed ^ 1)
            # Both are to meet the validation examples in the same order, block by block.
            order = _permutation(data.validation, plan)[torch.argsort(_permutation(data.validation, other))]
            (candidate,) = _probe(round_, twin, state, other, data.validation.take(order))
        # A twin is one candidate: K = 1 asks the least of it.
        proposal = Proposal("twin", "hold", "", 0, 0, 0, None, None, ())
        evidence = Evidence(
            proposal,
            1,
            control.validation.losses,
            candidate.validation.losses,
            control.blocks,
            candidate.blocks,
            control.search.losses,
            candidate.search.losses,
            1.0,
        )
        who.strategy.judge(evidence, round_.situation, {})
    assert isinstance(who.strategy, Both)
    return Decision(tuple(who.strategy.heard))


def _probe(round_: MemberRound, network: Network, state: State, plan: ProbePlan, validation: Examples) -> list[ForkResult]:
    data = round_.data
    return run_probe([Fork(network, state)], data.train, data.search, validation, data.loss, plan, round_.optimizer)


def _permutation(validation: Examples, plan: ProbePlan) -> torch.Tensor:
    return torch.randperm(len(validation), generator=torch.Generator().manual_seed(plan.seed))
