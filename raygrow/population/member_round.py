"""One member's share of a round: train, measure, propose, probe, judge (blueprint 4)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raygrow.architecture import Candidate, digest_seed, forward_flops, params
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import Prediction
from raygrow.nn import Heritage, Network, State, all_finite, carry_state, graft
from raygrow.population.checkpoints import Checkpoint
from raygrow.population.growing import Growing
from raygrow.population.lengths import examples_of
from raygrow.population.plan import kind_of
from raygrow.population.tasks import NO_LEGAL_MOVE, Costs, Report, Task
from raygrow.strategies import Evidence, Outcome, Proposal, Situation
from raygrow.training import Fork, ForkResult, Learned, Lesson, Probe, ProbePlan, example_order, score

if TYPE_CHECKING:
    from raygrow.population.worker import Worker


Work = Generator[Lesson, list[Learned], Report]
"""A task on its way: it yields each lesson it needs, is sent what was learned, and returns its report."""


class MemberRound:
    """The steps of one member's round, in order."""

    def __init__(self, worker: Worker, task: Task) -> None:
        self.worker, self.task = worker, task
        self.member = worker.plan.member(task.member)
        self.data, self.loss = worker.data, worker.data.loss
        self.train = worker.training_examples(self.member)
        training = self.member.training
        self.optimizer = training.optimizer_plan(training.lr)
        self.price = worker.facts.price(self.member.growth, worker.plan)
        self.meter = Meter()
        self.situation = Situation(
            task.round, task.tests, self.member.growth.candidates, self.price, worker.facts.constant_loss
        )

    def _seed(self, purpose: str) -> int:
        return self.worker.seed(purpose, self.member, self.task.round)

    def run(self) -> Work:
        head = self.worker.load(self.task.head)
        lesson = self._lesson(head)
        (trained,) = yield lesson
        if not all_finite(trained.network):
            return self._diverged(head, lesson.flops)
        try:
            return (yield from self._grow(head, trained.network, trained.state, lesson.flops))
        except FloatingPointError:
            return self._diverged(head, lesson.flops)

    def _diverged(self, head: Checkpoint, trained: int, probes: int = 0) -> Report:
        """The report of a round that diverged points at the head it began from."""
        found = score(head.network, self.data.validation, self.loss)
        costs = Costs(trained, self.meter.products, self.meter.solves, probes, found.flops)
        control = self.worker.described(head.network, self.task.head, found)
        return self._report(control, [], head.strategy["state"], costs, "", diverged=True)

    def _grow(self, head: Checkpoint, network: Network, state: State, trained: int) -> Work:
        """Everything after training; raises FloatingPointError where the network has diverged."""
        growing = Growing(self.worker, self.member, self.task, network, self.meter)
        with growing.unrecorded():
            growing.update()
            proposed = growing.propose()
            train_metric, search_metric = growing.metrics()
        candidates, proposals, predictions = proposed.candidates, proposed.proposals, proposed.predictions
        self.situation = replace(self.situation, train_metric=train_metric, search_metric=search_metric)
        seen = self.member.strategy.observe(head.strategy["state"], proposals, self.situation)
        # One stream a member and round: two members never draw alike, however their seeds are set.
        rng = np.random.default_rng(
            digest_seed("strategy", self.worker.plan.campaign.seed, self.member.name, self.task.round)
        )
        shortlist = self.member.strategy.shortlist(proposals, self.situation, seen, rng)
        with growing.unrecorded():
            built = growing.build([candidates[p.id] for p in shortlist])
        probed = [(p, built[p.id]) for p in shortlist if p.id in built]
        forks = [Fork(network, state)]
        for proposal, extension in probed:
            move = candidates[proposal.id].move
            inherited = Heritage.of(move, network.arch, extension.kept).state(state)
            grown = graft(network, move, extension)
            forks.append(Fork(grown, carry_state(inherited, grown, self.optimizer.new_moments)))
        mse = self._search_loss(network)
        search, validation = self.data.search, self.data.validation
        probe = Probe(forks, self.train, search, validation, self.loss, self._probe_plan(), self.optimizer)
        results = probe.results((yield probe.lesson))
        why = self._why_nothing(proposals, shortlist, probed)
        return self._judge(head, seen, results, [p for p, _ in probed], candidates, predictions, mse, trained, why)

    def _lesson(self, head: Checkpoint) -> Lesson:
        """Training before the probe."""
        training = self.member.training
        count = examples_of(training.examples_per_round, len(self.data.train))
        order = example_order(len(self.data.train), count, self._seed("train"))
        fork = Fork(head.network, head.optimizer)
        return Lesson([fork], self.train, [order], training.batch_size, self.loss, self.optimizer)

    def _probe_plan(self) -> ProbePlan:
        probe = self.member.probe
        examples = examples_of(probe.examples, len(self.data.train))
        return ProbePlan(examples, probe.blocks, self.member.training.batch_size, self._seed("probe"))

    def _search_loss(self, network: Network) -> float:
        """The control's loss on ``search`` as the probe begins: the noise level of regression codes."""
        found = score(network, self.data.search, self.loss)
        self.meter.products += found.flops
        return found.loss

    def _nats_per_loss(self, mse: float) -> float:
        if self.loss.task == "classification":
            return 1.0
        floor = 1e-12 * self.worker.facts.constant_loss
        return self.worker.facts.outputs / (2.0 * max(mse, floor))

    def _why_nothing(self, proposals: Sequence[Proposal], shortlist: Sequence[Proposal], probed: Sequence[Any]) -> str:
        if probed:
            return ""
        if not proposals:
            return NO_LEGAL_MOVE
        if not shortlist:
            return f"none of {len(proposals)} moves looked at was shortlisted"
        return f"no amplitude of the {len(shortlist)} shortlisted moves lowers the loss on search"

    def _judge(
        self,
        head: Checkpoint,
        seen: Any,
        results: Sequence[ForkResult],
        probed: Sequence[Proposal],
        candidates: Mapping[str, Candidate],
        predictions: Mapping[str, Prediction | None],
        mse: float,
        trained: int,
        why: str,
    ) -> Report:
        worker, strategy = self.worker, self.member.strategy
        control, forks = results[0], results[1:]
        costs = Costs(trained, self.meter.products, self.meter.solves, sum(r.flops for r in results))
        if not control.finite:
            return self._diverged(head, trained, costs.probes)
        rows: list[tuple[Report, ForkResult]] = []
        outcomes: list[Outcome] = []
        for proposal, result in sorted(zip(probed, forks, strict=True), key=lambda pair: pair[0].id):
            evidence = Evidence(
                proposal,
                len(probed),
                control.validation.losses,
                result.validation.losses,
                control.blocks,
                result.blocks,
                control.search.losses,
                result.search.losses,
                self._nats_per_loss(mse),
            )
            row = self._row(candidates[proposal.id], proposal, predictions[proposal.id], evidence, result, seen)
            rows.append((row, result))
            if result.finite:
                outcomes.append(Outcome(proposal, evidence.gain, evidence.gain_stderr))
        learned = strategy.learn(seen, outcomes, self.situation)
        saved = {"kind": kind_of(strategy), "state": learned}
        keep_all = worker.plan.checkpoints.keep == "all"
        for row, result in rows:
            wanted = row["verdict"] == "accept" or (keep_all and result.finite)
            row["checkpoint"] = worker.save(result.network, result.state, saved) if wanted else None
        digest = worker.save(control.network, control.state, saved)
        described = worker.described(control.network, digest, control.validation)
        return self._report(described, [row for row, _ in rows], learned, costs, why)

    def _row(
        self,
        candidate: Candidate,
        proposal: Proposal,
        prediction: Prediction | None,
        evidence: Evidence,
        result: ForkResult,
        state: Any,
    ) -> Report:
        charge = self.price * proposal.added_flops
        if result.finite:
            verdict = self.member.strategy.judge(evidence, self.situation, state)
            gain, error = evidence.gain, evidence.gain_stderr
            accepted, reason = verdict.accepted, verdict.reason
            statistic, threshold = verdict.statistic, verdict.threshold
            # The same for every strategy: what does not pay its price is rejected before ranking.
            if accepted and not gain - charge > 0:
                accepted, reason = False, f"{reason}; but gain {gain:+.4g} is not above its price {charge:.4g}"
        else:
            accepted, reason, statistic, threshold = False, "the fork diverged: its loss is not finite", None, None
            gain = error = float("nan")
        arch = candidate.arch
        return {
            "id": candidate.id,
            "move": candidate.move.to_json(),
            "site": proposal.site,
            "units": proposal.units,
            "initializer": candidate.initializer,
            "seed": candidate.seed,
            "parent_arch_id": candidate.parent.arch_id,
            "arch": arch.to_json(),
            "arch_id": arch.arch_id,
            "params": params(arch),
            "flops_per_example": forward_flops(arch),
            "added_flops": proposal.added_flops,
            "predicted_gain": prediction.gain if prediction else None,
            "gain": gain,
            "gain_stderr": error,
            "value": gain - charge,
            "control_loss": float(np.mean(evidence.control)),
            "candidate_loss": float(np.mean(evidence.candidate)),
            "candidate_metric": result.validation.metric,
            "verdict": "accept" if accepted else "reject",
            "statistic": statistic,
            "threshold": threshold,
            "reason": reason,
            "newborn_gradient_ratio": result.newborn_gradient_ratio,
            "probe_train_flops": result.flops,
            "features": list(proposal.features),
            "measurements": dict(proposal.measurements),
        }

    def _report(
        self,
        control: Report,
        rows: list[Report],
        state: Any,
        costs: Costs,
        why: str,
        diverged: bool = False,
    ) -> Report:
        return {
            "control": control,
            "candidates": rows,
            "strategy_state": state,
            "train_flops": costs.to_json(),
            "why_nothing": why,
            "diverged": diverged,
        }
