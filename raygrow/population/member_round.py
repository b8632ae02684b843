"""One member's share of a round: train, measure, propose, probe, judge (blueprint 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raygrow.architecture import Candidate, Site, Widen, digest_seed, forward_flops, legal_moves, params
from raygrow.growth.bottleneck import Residuals, residuals
from raygrow.growth.line_search import line_search
from raygrow.growth.meter import Meter
from raygrow.growth.moments import collect
from raygrow.growth.prediction import Prediction, predict, response
from raygrow.growth.update import update_existing
from raygrow.nn import (
    Extension,
    Network,
    Optimizer,
    OptimizerPlan,
    State,
    all_finite,
    carry_state,
    clone,
    graft,
)
from raygrow.population.checkpoints import Checkpoint
from raygrow.population.plan import examples_of, kind_of
from raygrow.population.tasks import NO_LEGAL_MOVE, Costs, Report, Task
from raygrow.strategies import Evidence, Outcome, Proposal, Situation, describe
from raygrow.training import Examples, Fork, ForkResult, ProbePlan, example_order, fit, run_probe, score

if TYPE_CHECKING:
    from raygrow.population.worker import Worker

SEARCH_ROWS = 1024
"""At most this many search examples take part in a line search."""


class MemberRound:
    """The steps of one member's round, in order."""

    def __init__(self, worker: Worker, task: Task) -> None:
        self.worker, self.task = worker, task
        self.member = worker.plan.member(task.member)
        self.data, self.loss = worker.data, worker.data.loss
        training = self.member.training
        self.optimizer = OptimizerPlan(training.optimizer, training.lr)
        self.price = worker.facts.price(self.member.growth, worker.plan.budget)
        self.meter = Meter()
        self.search = self.data.search.take(torch.arange(min(SEARCH_ROWS, len(self.data.search))))
        self.situation = Situation(
            task.round, task.tests, self.member.growth.candidates, self.price, worker.facts.constant_loss
        )

    def _seed(self, purpose: str) -> int:
        return self.worker.seed(purpose, self.member, self.task.round)

    def run(self) -> Report:
        head = self.worker.load(self.task.head)
        network, state, trained = self._train(head)
        if not all_finite(network):
            return self._diverged(head, trained)
        try:
            return self._grow(head, network, state, trained)
        except FloatingPointError:
            return self._diverged(head, trained)

    def _diverged(self, head: Checkpoint, trained: int, probes: int = 0) -> Report:
        """The report of a round that diverged points at the head it began from."""
        found = score(head.network, self.data.validation, self.loss)
        costs = Costs(trained, self.meter.products, self.meter.solves, probes, found.flops)
        control = self.worker.described(head.network, self.task.head, found)
        return self._report(control, [], head.strategy["state"], costs, "", diverged=True)

    def _grow(self, head: Checkpoint, network: Network, state: State, trained: int) -> Report:
        """Everything after training; raises FloatingPointError where the network has diverged."""
        self._update_existing(network)
        candidates, proposals, predictions = self._propose(network)
        # One stream a member and round: two members never draw alike, however their seeds are set.
        rng = np.random.default_rng(
            digest_seed("strategy", self.worker.plan.campaign.seed, self.member.name, self.task.round)
        )
        shortlist = self.member.strategy.shortlist(proposals, self.situation, head.strategy["state"], rng)
        built = self._build(network, [candidates[p.id] for p in shortlist])
        probed = [(p, built[p.id]) for p in shortlist if p.id in built]
        grown = [(graft(network, candidates[p.id].move, extension), p) for p, extension in probed]
        forks = [Fork(network, state), *(Fork(net, carry_state(state, net)) for net, _ in grown)]
        mse = self._search_loss(network)
        results = run_probe(
            forks,
            self.data.train,
            self.data.search,
            self.data.validation,
            self.loss,
            self._probe_plan(),
            self.optimizer,
        )
        why = self._why_nothing(proposals, shortlist, probed)
        return self._judge(head, results, [p for p, _ in probed], candidates, predictions, mse, trained, why)

    def _train(self, head: Checkpoint) -> tuple[Network, State, int]:
        training = self.member.training
        network = clone(head.network)
        optimizer = Optimizer(network, self.optimizer, head.optimizer)
        count = examples_of(training.examples_per_round, len(self.data.train))
        order = example_order(len(self.data.train), count, self._seed("train"))
        spent = fit(network, optimizer, self.data.train, self.loss, order, training.batch_size)
        return network, optimizer.export(), spent

    def _statistics_examples(self) -> Examples:
        count = min(self.member.growth.statistics_examples, len(self.data.train))
        return self.data.train.take(example_order(len(self.data.train), count, self._seed("statistics")))

    def _generator(self, *parts: str) -> torch.Generator:
        seed = digest_seed("draw", self.worker.plan.campaign.seed, self.member.name, self.task.round, *parts)
        return torch.Generator().manual_seed(seed)

    def _update_existing(self, network: Network) -> None:
        """The dW* step, before the fork: control and candidates alike have it."""
        sample = self._statistics_examples()
        search = (self.search.x, self.search.y)
        update_existing(network, (sample.x, sample.y), search, self.loss, self.meter)

    def _propose(self, network: Network) -> tuple[dict[str, Candidate], list[Proposal], dict[str, Prediction | None]]:
        """Every legal move with its prediction, sorted by id."""
        growth, budget, arch = self.member.growth, self.worker.plan.budget, network.arch
        moves = [
            move
            for move in legal_moves(
                arch,
                kinds=growth.moves,
                units=growth.units,
                activation=self.worker.plan.network.activation,
                max_flops=budget.max_flops_per_example,
                max_params=budget.max_params,
            )
            if type(move) in self.member.initializer.supports
        ]
        # A new node that reads and feeds what an existing one does is that node, wider: one of the two is enough to probe,
        # and the wider node leaves the graph as it is.
        wider = {move.place(arch) for move in moves if isinstance(move, Widen)}
        moves = [move for move in moves if isinstance(move, Widen) or move.place(arch) not in wider]
        if not moves:
            return {}, [], {}
        sample = self._statistics_examples()
        found = collect(network, sample.x, sample.y, self.loss, self._generator("curvature"), self.meter)
        halves = [residuals(fold, self.meter) for fold in found.folds]
        self.whole = residuals(found.whole, self.meter)
        candidates: dict[str, Candidate] = {}
        predictions: dict[str, Prediction | None] = {}
        sizes: dict[Site, list[int]] = {}
        for move in moves:
            site = move.place(arch)
            assert site is not None
            sizes.setdefault(site, []).append(move.units)
        by_site = {
            site: predict(
                self.member.initializer, halves, site, counts, partial(self._generator, str(site)), self.meter
            )
            for site, counts in sizes.items()
        }
        initializer = kind_of(self.member.initializer)
        for move in moves:
            site = move.place(arch)
            assert site is not None
            # Sizes of a site share their draws, so that they differ in size alone.
            seed = digest_seed("draw", self.worker.plan.campaign.seed, self.member.name, self.task.round, str(site))
            candidate = Candidate(self.member.name, self.task.round, arch, move, initializer, seed)
            candidates[candidate.id] = candidate
            predictions[candidate.id] = by_site[site][move.units]
        control_loss = score(network, self.search, self.loss)
        self.meter.products += control_loss.flops
        proposals = [
            self._proposal(candidates[id], predictions[id], self.whole, control_loss.loss) for id in sorted(candidates)
        ]
        return candidates, proposals, predictions

    def _proposal(self, candidate: Candidate, prediction: Prediction | None, whole: Residuals, loss: float) -> Proposal:
        facts, budget, task = self.worker.facts, self.worker.plan.budget, self.task
        site = candidate.move.place(candidate.parent)
        assert site is not None
        flops = forward_flops(candidate.parent)
        features = describe(
            {
                "predicted_gain": prediction.gain / facts.constant_loss if prediction else 0.0,
                "prediction_t": prediction.t if prediction else 0.0,
                "flops_ratio": candidate.added_flops / max(flops, 1),
                "units": candidate.move.units,
                "bottleneck_share": float(np.mean([whole.share[t] for t in site.targets])),
                "validation_loss": loss / facts.constant_loss,
                "budget_used": flops / facts.flops_scale(budget),
                "rounds_since_growth": task.rounds_since_growth,
                "last_gain": task.last_gain / facts.constant_loss,
                "progress": task.round / max(self.worker.plan.campaign.rounds, 1),
            },
            candidate.move.kind,
        )
        return Proposal(
            candidate.id,
            candidate.move.kind,
            candidate.move.site,
            candidate.move.units,
            candidate.added_flops,
            candidate.added_params,
            prediction.gain if prediction else None,
            prediction.p_value if prediction else None,
            features,
        )

    def _build(self, network: Network, shortlist: Sequence[Candidate]) -> dict[str, Extension]:
        """New weights of the shortlisted candidates. Where the line search finds no amplitude the move is dead."""
        built: dict[str, Extension] = {}
        initializer = self.member.initializer
        trace = None
        for candidate in shortlist:
            site = candidate.move.place(candidate.parent)
            assert site is not None
            size = candidate.move.units
            generator = torch.Generator().manual_seed(candidate.seed)
            extension = initializer.extend(self.whole, site, (size,), generator, self.meter)[size]
            if initializer.line_searched:
                with torch.no_grad():
                    trace = trace or network.trace(self.search.x)
                    deltas = response(extension, site, trace.values, self.meter)
                found = line_search(network, trace, self.search.y, self.loss, deltas, self.meter)
                if found.scale == 0.0:
                    continue
                extension = extension.scaled(found.scale)
            built[candidate.id] = extension
        if trace is not None:
            self.meter.products += forward_flops(network.arch) * len(self.search)
        return built

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
            return f"none of {len(proposals)} legal moves was shortlisted"
        return f"no amplitude of the {len(shortlist)} shortlisted moves lowers the loss on search"

    def _judge(
        self,
        head: Checkpoint,
        results: Sequence[ForkResult],
        probed: Sequence[Proposal],
        candidates: dict[str, Candidate],
        predictions: dict[str, Prediction | None],
        mse: float,
        trained: int,
        why: str,
    ) -> Report:
        worker, strategy = self.worker, self.member.strategy
        state = head.strategy["state"]
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
            row = self._row(candidates[proposal.id], proposal, predictions[proposal.id], evidence, result, state)
            rows.append((row, result))
            if result.finite:
                outcomes.append(Outcome(proposal, evidence.gain, evidence.gain_stderr))
        learned = strategy.learn(state, outcomes, self.situation)
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
            "probe_train_flops": result.flops,
            "features": list(proposal.features),
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
