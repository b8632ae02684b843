"""The growth part of a member's round: dW* step, proposals with their predictions, new weights of the shortlisted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from raygrow.architecture import AbstractMove, Candidate, Prune, Site, Widen, digest_seed, forward_flops, legal_moves
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.exact import BUILDERS
from raygrow.growth.line_search import Searched
from raygrow.growth.measurements import Subject, measurement_named
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import Prediction, predict
from raygrow.growth.pruning import prune
from raygrow.growth.statistics import Sample, Statistics
from raygrow.growth.step import amplified, unrecorded
from raygrow.growth.sweep import passed
from raygrow.growth.update import update_existing
from raygrow.nn import Extension, Network
from raygrow.population.plan import Member, kind_of
from raygrow.population.tasks import Task
from raygrow.strategies import Proposal, describe
from raygrow.strategies.screen import PRIOR_FACTOR
from raygrow.training import ExampleSets, example_order, metric_of

if TYPE_CHECKING:
    from raygrow.population.worker import Worker

SEARCH_ROWS = 1024
"""At most this many search examples take part in a line search."""

SITES_A_PROBE = 2
"""Sites that are looked at closely, for each candidate that may be probed."""


class Samples:
    """The statistics examples of members, drawn once a campaign; kept by a worker from one task to the next.

    What depends on the input alone, its covariance and factors, is then solved once. It is charged to every member's first
    round, as if each had a worker of its own: what a task reports must not depend on what its worker did before.
    """

    def __init__(self, data: ExampleSets) -> None:
        self._data = data
        self._kept: dict[tuple[int, int], tuple[Sample, dict[bool, Meter]]] = {}

    def of(self, seed: int, examples: int, whitens: bool) -> tuple[Sample, Meter]:
        """The sample with this seed, prepared for an initializer that whitens or does not, and the bill of that."""
        train = self._data.train
        count = min(examples, len(train))
        if (seed, count) not in self._kept:
            drawn = train.take(example_order(len(train), count, seed).to(train.x.device))
            sample = Sample(drawn.x, drawn.y)
            self._kept[seed, count] = sample, {False: sample.prepare(whitens=False)}
        sample, bills = self._kept[seed, count]
        if whitens not in bills:
            bills[whitens] = sample.prepare(whitens=True)
            bills[whitens].add(bills[False])
        return sample, bills[whitens]


@dataclass(frozen=True)
class Proposed:
    """The candidates of a round that were looked at closely.

    Attributes:
        candidates: by id.
        proposals: sorted by id.
        predictions: by id; None where there is none.
    """

    candidates: Mapping[str, Candidate]
    proposals: Sequence[Proposal]
    predictions: Mapping[str, Prediction | None]


class Growing:
    """What growth does with one member's network in one round; the statistics are shared by its three steps.

    Args:
        network: after training; ``update`` changes it.
        meter: takes the bill.
    """

    def __init__(self, worker: Worker, member: Member, task: Task, network: Network, meter: Meter) -> None:
        self.worker, self.member, self.task, self.network, self.meter = worker, member, task, network, meter
        seed = worker.seed("statistics", member)
        self.sample, preparing = worker.samples.of(seed, member.growth.statistics_examples, member.initializer.whitens)
        if task.round == 1:
            meter.add(preparing)
        self._measures = {name: measurement_named(name)() for name in member.strategy.measures}
        self._differentiates = member.initializer.differentiates or any(
            measurement.differentiates for measurement in self._measures.values()
        )
        loss = worker.data.loss
        rows = worker.data.search.take(torch.arange(min(SEARCH_ROWS, len(worker.data.search))))
        with self.unrecorded():
            self.search = Searched(network, rows.x, rows.y, loss, meter)
            self.passed = passed(network, self.sample, loss, meter)
        self._whole: Residuals | None = None

    def unrecorded(self) -> AbstractContextManager[object]:
        """The mode that its other methods are called in (``step.unrecorded``)."""
        return unrecorded(self.network, differentiates=self._differentiates)

    def update(self) -> None:
        """The dW* step, before the fork: control and candidates alike have it."""
        update_existing(self.passed, self.search, self.meter)

    def metrics(self) -> tuple[float, float]:
        """Accuracy (or R2) as the network is now, on the statistics examples and on ``search``."""
        loss = self.worker.data.loss
        train = metric_of(self.passed.trace.output, self.sample.y, loss)
        return train, metric_of(self.search.trace.output, self.search.y, loss)

    def propose(self) -> Proposed:
        """Legal moves at the sites worth it, with a prediction where the strategy uses one and the initializer allows it."""
        moves, exact = self._moves()
        if not moves and not exact:
            return Proposed({}, (), {})
        predicts = self.member.strategy.predicts
        blind = self.member.initializer.preserves_function(self.worker.plan.network.activation)
        sizes: dict[Site, list[int]] = {}
        for site, move in moves:
            sizes.setdefault(site, []).append(move.units)
        by_site: dict[Site, Mapping[int, Prediction | None]] = {}
        curved = any(measurement.curved for measurement in self._measures.values())
        predicted = predicts and not blind
        statistics = self._measure(self._generator("curvature")) if predicted or curved else None
        if predicted and statistics is not None:
            halves = [Residuals(fold, self.meter) for fold in statistics.folds]
            close = self._first_look(halves, moves)
            moves = [(site, move) for site, move in moves if site in close]
            by_site = {site: self._predict(halves, site, sizes[site]) for site in sizes if site in close}
        initializer = kind_of(self.member.initializer)
        candidates: dict[str, Candidate] = {}
        predictions: dict[str, Prediction | None] = {}
        for site, move in moves:
            # Sizes of a site share their draws, so that they differ in size alone.
            seed = self._seed(str(site))
            candidate = Candidate(self.member.name, self.task.round, self.network.arch, move, initializer, seed)
            candidates[candidate.id] = candidate
            predictions[candidate.id] = by_site[site][move.units] if site in by_site else None
        for move in exact:
            candidate = Candidate(self.member.name, self.task.round, self.network.arch, move, initializer, 0)
            candidates[candidate.id] = candidate
            predictions[candidate.id] = self._loss_of(move) if predicts and isinstance(move, Prune) else None
        measured = self._measurements(moves) if self._measures else {}
        for move in exact:
            found = {name: m.unplaced(move, self.network.arch) for name, m in self._measures.items()}
            measured[move] = {name: value for name, value in found.items() if value is not None}
        share: Callable[[str], float] | None = self._residuals().share if predicts else None
        proposals = [
            self._proposal(candidates[id], predictions[id], share, measured.get(candidates[id].move, {}))
            for id in sorted(candidates)
        ]
        return Proposed(candidates, proposals, predictions)

    def _measurements(self, moves: Sequence[tuple[Site, AbstractMove]]) -> dict[AbstractMove, dict[str, float]]:
        """What the strategy asks to be measured, by move and name; what is undefined or not finite is absent."""
        # Two nodes that stand beside each other are one site, but each has values of its own.
        by_site: dict[tuple[Site, str | None], dict[int, AbstractMove]] = {}
        for site, move in moves:
            by_site.setdefault((site, site.node), {})[move.units] = move
        found: dict[AbstractMove, dict[str, float]] = {move: {} for _, move in moves}
        for (site, _), sizes in by_site.items():
            seed = self._seed(str(site))
            subject = Subject(site, sizes, self.passed, self._residuals(), self.member.initializer, seed, self.meter)
            for name, measurement in self._measures.items():
                for size, value in measurement.measure(subject).items():
                    if math.isfinite(value):
                        found[sizes[size]][name] = value
        return found

    def _predict(
        self, halves: Sequence[Residuals], site: Site, sizes: Sequence[int], both_ways: bool = True
    ) -> Mapping[int, Prediction | None]:
        draw = self._generator(str(site))
        return predict(self.member.initializer, halves, site, sizes, draw, self.meter, both_ways=both_ways)

    def _loss_of(self, move: Prune) -> Prediction:
        """What a smaller layer is expected to lose: an estimate that no test stands behind."""
        return Prediction(0.0, 0.0, None, -prune(self._residuals(), move, self.meter).cost)

    def _first_look(self, halves: Sequence[Residuals], moves: Sequence[tuple[Site, AbstractMove]]) -> set[Site]:
        """The sites worth a whole prediction: those of the highest value at their smallest size, learned one way only.

        The sites of a graph grow with the square of its nodes, and with them what predictions cost. All examples take part:
        with fewer, the best site of many is easily missed.
        """
        smallest: dict[Site, AbstractMove] = {}
        for site, move in moves:
            if site not in smallest or move.units < smallest[site].units:
                smallest[site] = move
        wanted = SITES_A_PROBE * self.member.growth.candidates
        if len(smallest) <= wanted:
            return set(smallest)
        arch, price = self.network.arch, self.worker.facts.price(self.member.growth, self.worker.plan)
        values: dict[Site, float] = {}
        for site, move in smallest.items():
            found = self._predict(halves, site, (move.units,), both_ways=False)[move.units]
            added = forward_flops(move.apply(arch)) - forward_flops(arch)
            # As the strategies see it: a probe makes more of a move than its first step, and a bare prediction would
            # rank by price alone.
            values[site] = (PRIOR_FACTOR * found.gain if found else 0.0) - price * added
        return set(sorted(values, key=lambda site: (-values[site], str(site)))[:wanted])

    def build(self, shortlist: Sequence[Candidate]) -> dict[str, Extension]:
        """New weights of the shortlisted candidates. Where the line search finds no amplitude the move is dead."""
        built: dict[str, Extension] = {}
        initializer = self.member.initializer
        for candidate in shortlist:
            site = candidate.move.place(candidate.parent)
            if site is None:
                built[candidate.id] = BUILDERS[type(candidate.move)](self._residuals(), candidate.move, self.meter)
                continue
            size = candidate.move.units
            generator = torch.Generator().manual_seed(candidate.seed)
            extension = initializer.begin(self._residuals(), site, (size,), generator, self.meter)[size]
            if initializer.line_searched:
                extension, found = amplified(extension, site, self.search, self.meter)
                if found.scale == 0.0:
                    continue
            built[candidate.id] = extension
        return built

    def _moves(self) -> tuple[list[tuple[Site, AbstractMove]], list[AbstractMove]]:
        """Legal moves: those that the member's initializer can begin, with their sites, and those that need none."""
        growth, plan, arch = self.member.growth, self.worker.plan, self.network.arch
        moves = [
            move
            for move in legal_moves(
                arch,
                kinds=plan.moves(self.member),
                units=growth.units,
                palette=plan.network.palette,
                max_flops=plan.budget.max_flops_per_example,
                max_params=plan.budget.max_params,
            )
        ]
        exact = [move for move in moves if type(move) in BUILDERS]
        initializer = self.member.initializer
        moves = [move for move in moves if type(move) in initializer.supports]
        # A new node that reads and feeds what an existing one does is that node, wider: one of the two is enough to probe,
        # and the wider node leaves the graph as it is.
        wider = {move.place(arch) for move in moves if isinstance(move, Widen)}
        placed = [(move.place(arch), move) for move in moves]
        return [
            (site, move)
            for site, move in placed
            if site is not None and initializer.can_begin(site) and (isinstance(move, Widen) or site not in wider)
        ], exact

    def _measure(self, curvature: torch.Generator | None = None) -> Statistics:
        nodes = [node.name for node in self.network.arch.nodes[1:]]
        statistics = self.passed.statistics(nodes, self.meter, curvature)
        self._whole = Residuals(statistics.whole, self.meter)
        return statistics

    def _residuals(self) -> Residuals:
        """Of the whole sample: for building, and for the features of proposals."""
        if self._whole is None:
            self._measure()
        assert self._whole is not None
        return self._whole

    def _seed(self, *parts: str) -> int:
        return digest_seed("draw", self.worker.plan.campaign.seed, self.member.name, self.task.round, *parts)

    def _generator(self, *parts: str) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(*parts))

    def _proposal(
        self,
        candidate: Candidate,
        prediction: Prediction | None,
        share: Callable[[str], float] | None,
        measured: Mapping[str, float],
    ) -> Proposal:
        facts, task, plan = self.worker.facts, self.task, self.worker.plan
        site = candidate.move.place(candidate.parent)
        flops = forward_flops(candidate.parent)
        known = {
            "flops_ratio": candidate.added_flops / max(flops, 1),
            "units": candidate.move.units,
            "validation_loss": self.search.before / facts.constant_loss,
            "budget_used": flops / facts.flops_scale(plan),
            "rounds_since_growth": task.rounds_since_growth,
            "last_gain": task.last_gain / facts.constant_loss,
            "progress": task.round / max(plan.campaign.rounds, 1),
        }
        if share is not None:
            known["predicted_gain"] = prediction.gain / facts.constant_loss if prediction else 0.0
            known["prediction_t"] = prediction.t if prediction else 0.0
            # A move without a site follows no bottleneck.
            known["bottleneck_share"] = float(np.mean([share(target) for target in site.targets])) if site else 0.0
        return Proposal(
            candidate.id,
            candidate.move.kind,
            candidate.move.site,
            candidate.move.units,
            candidate.added_flops,
            candidate.added_params,
            prediction.gain if prediction else None,
            prediction.p_value if prediction else None,
            describe(known, candidate.move.kind),
            measured,
        )
