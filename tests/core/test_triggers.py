"""Measurements against brute force, the rules that read them on scripted rounds, and the campaigns they grow."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import raygrow
from raygrow.architecture import (
    INPUT,
    OUTPUT,
    AbstractMove,
    AddEdge,
    AddNode,
    Architecture,
    Edge,
    Node,
    Palette,
    Widen,
    legal_moves,
)
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer, GradMax, RandomInitializer, Tiny
from raygrow.growth.measurements import (
    MEASUREMENTS,
    AbstractMeasurement,
    AddedDepth,
    EffectiveDimension,
    IntegratedGradient,
    NaturalExpansion,
    NaturalGradient,
    Subject,
    Width,
    measurement_named,
)
from raygrow.growth.measurements.effective_dimension import effective_dimension
from raygrow.growth.measurements.integrated_gradient import POINTS, Way
from raygrow.growth.measurements.natural_gradient import existing_score, output_fisher
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Pass, Sample
from raygrow.growth.sweep import passed as pass_of
from raygrow.nn import Extension, Network, OptimizerPlan, graft
from raygrow.nn.losses import LOSSES
from raygrow.population.growing import Growing
from raygrow.population.plan import Member
from raygrow.population.tasks import Report, Task
from raygrow.population.worker import Worker
from raygrow.strategies import (
    FEATURES,
    STRATEGIES,
    AbstractStrategy,
    AutoGrow,
    Evidence,
    Firefly,
    FraGrow,
    North,
    Outcome,
    Proposal,
    Senn,
    Situation,
    State,
    Verdict,
)
from raygrow.testing import a_network, some_evidence, some_examples
from raygrow.training import Fork, example_order, fit, score
from tests.core.test_growing import a_worker, plain, started
from tests.end_to_end.campaigns import SMALL, moves_without_times, same_outcome

TRIGGERS: tuple[AbstractStrategy, ...] = (North(), Senn(), Firefly(), AutoGrow(units=4), FraGrow(longest=1.0, units=4))
SITUATION = Situation(round=1, tests=0, candidates=2, price=0.0, constant_loss=1.0)
RNG = np.random.default_rng(0)


# Measurements against brute force


def subject(
    network: Network,
    move: AbstractMove,
    task: str = "regression",
    n: int = 400,
    sizes: Sequence[int] = (),
    initializer: AbstractInitializer | None = None,
) -> Subject:
    """A move on offer at some sizes, on n examples in float64."""
    sample = Sample(*some_examples(task, n))
    passed = Pass(network, sample, LOSSES[task], Meter())
    nodes = [node.name for node in network.arch.nodes[1:]]
    statistics = passed.statistics(nodes, Meter(), torch.Generator().manual_seed(0))
    site = move.place(network.arch)
    assert site is not None
    field = "added" if isinstance(move, Widen) else "size"
    moves = {size: dataclasses.replace(move, **{field: size}) for size in sizes} or {move.units: move}  # type: ignore[type-var]
    return Subject(
        site, moves, passed, Residuals(statistics.whole, Meter()), initializer or RandomInitializer(), 7, Meter()
    )


@pytest.mark.parametrize("n", [200, 12])
def test_effective_dimension_is_the_planted_rank(n: int) -> None:
    """Also with fewer rows than units; directions below 0.01 do not count, whatever their number."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(m, 8, generator=generator).double())[0] for m in (n, 20))
    singular = torch.tensor([5.0, 1.0, 0.3, 0.0101, 0.0099, 1e-3, 1e-6, 0.0])
    rows = math.sqrt(n) * (left * singular) @ right.T
    meter = Meter()
    assert effective_dimension(rows.float(), meter) == 4 / 20
    assert int((torch.linalg.svdvals(rows / math.sqrt(n)) > 0.01).sum()) == 4
    assert meter.products > 0
    assert meter.solves == 25 * min(n, 20) ** 3


def test_twins_and_dead_units_do_not_count_in_a_network() -> None:
    network = a_network("relu")
    with torch.no_grad():
        for name in ("weights.input>h1", "weights.h2>h1", "biases.h1"):
            network.named[name][1] = 2 * network.named[name][0]
            network.named[name][2] = -1.0 if name == "biases.h1" else 0.0
    at = subject(network, Widen("h1", 2), sizes=(2, 4))
    assert EffectiveDimension().measure(at) == {2: 0.5, 4: 0.5}
    assert Width().measure(at) == {2: 4.0, 4: 4.0}
    assert EffectiveDimension().measure(subject(network, AddNode((INPUT,), (OUTPUT,), 4, "relu"))) == {}


def test_depth_is_added_in_series_only() -> None:
    network = a_network("relu")
    for move, added in (
        (Widen("h1", 2), 0),
        (AddNode((INPUT,), (OUTPUT,), 2, "relu"), 0),
        (AddNode(("h3",), (OUTPUT,), 2, "relu"), 1),
        (AddNode(("h1",), ("h3",), 2, "relu"), 1),
        (AddEdge(INPUT, "h3"), 0),
    ):
        assert AddedDepth().measure(subject(network, move)) == {move.units: added}


def values_of(at: Subject) -> torch.Tensor:
    return at.read_by(at.extensions[max(at.moves)])[at.site.targets[0]]


@pytest.mark.parametrize(
    "move", [Widen("h1", 3), AddNode((INPUT, "h1"), ("h3", OUTPUT), 3, "tanh"), AddNode((INPUT,), ("h1",), 3, "tanh")]
)
def test_natural_expansion_is_the_score_in_k_facs_fisher(move: AbstractMove) -> None:
    """g^T F^-1 g with F = A_p (x) S_o formed and solved whole, for every size; the same for any fan-out."""
    at = subject(a_network("tanh"), move, sizes=(1, 2, 3))
    values, fold = values_of(at), at.residuals.fold
    measured = NaturalExpansion().measure(at)
    for size in (1, 2, 3):
        expected = 0.0
        for target in at.site.targets:
            a, g, r = values[:, :size], at.residuals.perp_of(target), fold.curvature[target]
            slope = torch.einsum("nk,nq->kq", a, g).reshape(-1) / len(a)
            s_o = r.T @ r / len(a)
            s_o += 1e-3 * s_o.diagonal().mean() * torch.eye(len(s_o))
            fisher = torch.kron(a.T @ a / len(a), s_o)
            expected += float(slope @ torch.linalg.solve(fisher, slope))
        assert measured[size] == pytest.approx(expected, rel=1e-4)


def least_loss(rows: torch.Tensor, wanted: torch.Tensor) -> float:
    residual = wanted - rows @ torch.linalg.lstsq(rows, wanted).solution
    return float(residual.square().mean())


def test_natural_scores_are_twice_the_decrease_of_a_squared_error() -> None:
    """Least squares says how far output weights can go: old ones exactly eta / 2, with the new ones at least that of both."""
    n = 4000
    network = a_network("tanh")
    at = subject(network, AddNode((INPUT,), (OUTPUT,), 6, "tanh"), n=n)
    sample, fold = at.passed.sample, at.residuals.fold
    old = fold.reads(network.arch.parents(OUTPUT)).matrix
    now = float(LOSSES["regression"].per_example(at.passed.trace.output, sample.y).mean())
    fitted = least_loss(old, sample.y)
    assert existing_score(at.residuals, OUTPUT, Meter()) == pytest.approx(2 * (now - fitted), rel=0.03)
    whole = NaturalGradient().measure(at)[6]
    assert whole > existing_score(at.residuals, OUTPUT, Meter())
    both = least_loss(torch.cat([old, values_of(at)], 1), sample.y)
    score = NaturalExpansion().measure(at)[6]
    assert 0.3 * (fitted - both) < score / 2 < 1.03 * (fitted - both)
    # The Schur complement in the place of A_p makes the bound an equality: the units, free of what old ones say.
    free = values_of(at) - old @ torch.linalg.lstsq(old, values_of(at)).solution
    exact = float(NaturalExpansion().of_columns(at, free, OUTPUT).sum())
    assert exact / 2 == pytest.approx(fitted - both, rel=0.03)


def test_units_that_repeat_existing_ones_score_nothing() -> None:
    at = subject(a_network("tanh"), Widen("h1", 4))
    old, (target, *_) = at.residuals.fold.values["h1"], at.site.targets
    of_new = float(NaturalExpansion().of_columns(at, values_of(at), target).sum())
    of_old = float(NaturalExpansion().of_columns(at, old, target).sum())
    assert of_old < 1e-3 * of_new


@pytest.mark.parametrize("task", LOSSES)
def test_the_output_fisher_is_that_of_the_models_own_answers(task: str) -> None:
    """At the output, in closed form: diag(p) - p p^T of softmax, 2 / T of the squared error."""
    at = subject(a_network("tanh"), Widen("h1", 1), task, n=4000)
    if task == "classification":
        p = at.passed.trace.output.softmax(1)
        exact = torch.diag(p.mean(0)) - p.T @ p / len(p)
    else:
        exact = 2 / 3 * torch.eye(3).double()
    factor = output_fisher(at.residuals, OUTPUT, Meter())
    torch.testing.assert_close(factor.lower @ factor.lower.T, exact, rtol=0.05, atol=0.03)


SCALED = [Widen("h1", 3), AddNode((INPUT, "h1"), ("h3", OUTPUT), 3, "tanh"), AddEdge(INPUT, "h3")]


@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("move", SCALED)
def test_integrated_gradient_is_the_decrease_of_the_loss_on_the_way(move: AbstractMove, task: str) -> None:
    """Slopes by autograd through the grown network, and the loss at both ends."""
    network = a_network("tanh")
    at = subject(network, move, task, initializer=Tiny())
    extension = at.extensions[move.units]
    x, y, loss = at.passed.sample.x, at.passed.sample.y, LOSSES[task]
    whole_way, start = graft(network, move, extension).named, graft(network, move, extension.scaled(0.0)).named

    def at_amplitude(e: float) -> tuple[float, float]:
        """Loss and -dloss/de."""
        grown = graft(network, move, extension.scaled(e))
        found = loss.per_example(grown(x), y).mean()
        torch.autograd.backward(found)
        along = sum(
            float((p.grad * (whole_way[k] - start[k]).detach()).sum())
            for k, p in grown.named.items()
            if p.grad is not None
        )
        return float(found.detach()), -along

    with torch.no_grad():
        delta = Way(at, move, extension).change(at.passed.trace)
    bend = sum((at.residuals.fold.curvature[t] * part).sum(1) for t, part in delta.items())
    assert isinstance(bend, torch.Tensor)
    whole = at_amplitude(0.0)[1] / float(bend.square().mean())
    measured = IntegratedGradient().measure(at)[move.units]
    assert Way(at, move, extension).amplitude() == pytest.approx(whole, rel=1e-8)
    assert measured == pytest.approx(whole * sum(at_amplitude(p * whole)[1] for p in POINTS) / 3, rel=1e-8)
    drop = at_amplitude(0.0)[0] - at_amplitude(whole)[0]
    assert drop > 0
    assert measured == pytest.approx(drop, rel=0.02)
    # The scale of what an initializer wrote is of no account.
    twice = dataclasses.replace(at)
    twice.__dict__["extensions"] = {move.units: extension.scaled(-30.0).scaled(-0.1)}
    assert IntegratedGradient().measure(twice)[move.units] == pytest.approx(measured, rel=1e-6)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Halved(AbstractInitializer):
    """A split in two: offspring at theta +- step, half of the fan-out each."""

    supports = frozenset({Widen})
    line_searched = False
    step: float = 0.5

    def preserves_function(self, activation: str) -> bool:
        return self.step == 0

    def extend(
        self, residuals: Residuals, site: Any, sizes: Sequence[int], generator: torch.Generator, meter: Meter
    ) -> Mapping[int, Extension]:
        named = residuals.fold.network.named
        (child,) = site.targets
        fan_in = {source: named[f"weights.{source}>{site.node}"].data for source in site.sources}
        bias, out = named[f"biases.{site.node}"].data, named[f"weights.{site.node}>{child}"].data
        halved = out.clone()
        halved[:, 0] /= 2
        moved = bias.clone()
        moved[0] -= self.step
        rewritten = {f"weights.{site.node}>{child}": halved, f"biases.{site.node}": moved}
        new = {source: weight[:1] for source, weight in fan_in.items()}
        return {1: Extension(new, bias[:1] + self.step, {child: halved[:, :1]}, rewritten=rewritten)}


def test_a_split_is_measured_with_the_weights_that_it_rewrites() -> None:
    network, move = a_network("tanh"), Widen("h3", 1)
    at = subject(network, move, initializer=Halved())
    with torch.no_grad():
        delta = Way(at, move, at.extensions[1]).change(at.passed.trace)
        grown = graft(network, move, at.extensions[1])(at.passed.sample.x)
    torch.testing.assert_close(delta, {OUTPUT: grown - at.passed.trace.output})
    assert IntegratedGradient().measure(at).keys() == {1}
    assert IntegratedGradient().measure(subject(network, move, initializer=Halved(step=0.0))) == {}


@pytest.mark.parametrize("measurement", [NaturalExpansion, IntegratedGradient])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_units_that_add_nothing_at_birth_are_measured_after_one_step(
    activation: str, measurement: type[AbstractMeasurement]
) -> None:
    """Zero fan-out, and zero fan-in (which GradMax gives a little noise where relu has no slope)."""
    network = a_network(activation)
    for initializer in (RandomInitializer(), GradMax()):
        for move in (Widen("h1", 2), AddNode((INPUT,), (OUTPUT,), 2, activation), AddEdge(INPUT, "h3")):
            found = measurement().measure(subject(network, move, initializer=initializer))
            assert found[move.units] > 1e-4, (initializer, move)


def image_network(activation: str, norm: str) -> Network:
    """Two convolutions in a row and a skip, with a linear reading of the image: 2 x 6 x 6 to 3 outputs."""
    palette = Palette(activation, norm)
    arch = Architecture.simplest(2, 3, (6, 6))
    for site in ("input>output", "h1>output"):
        moves = legal_moves(arch, kinds=["add_node"], units=[4], palette=palette)
        arch = next(m for m in moves if m.site.startswith(site)).apply(arch)
    network = Network(arch, torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named.items():
            if not name.startswith(("gains", "shifts")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


@pytest.mark.parametrize("initializer", [cls() for cls in INITIALIZERS], ids=lambda i: i.kind)
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_everything_is_measured_on_images(activation: str, norm: str, initializer: AbstractInitializer) -> None:
    """Every legal move; the integrated gradient is the decrease of the loss there too."""
    network = image_network(activation, norm)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(120, 72, generator=generator, dtype=torch.float64)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, :36].mean(1), x[:, 36:].square().mean(1)], 1)
    passed = pass_of(network, Sample(x, y), LOSSES["regression"], Meter())
    names = [node.name for node in network.arch.nodes[1:]]
    statistics = passed.statistics(names, Meter(), torch.Generator().manual_seed(0))
    residuals = Residuals(statistics.whole, Meter())
    kinds = ["widen", "add_node", "add_edge"]
    moves = legal_moves(network.arch, kinds=kinds, units=[2], palette=Palette(activation, norm))
    assert {move.kind for move in moves} == set(kinds)
    measurements = [cls() for cls in MEASUREMENTS]
    for move in moves:
        site = move.place(network.arch)
        if site is None or type(move) not in initializer.supports or not initializer.can_begin(site):
            continue
        at = Subject(site, {move.units: move}, passed, residuals, initializer, 3, Meter())
        found = {m.name: value for m in measurements for value in m.measure(at).values()}
        assert all(math.isfinite(value) and value >= 0 for value in found.values()), (move, found)
        assert ("effective_dimension" in found) == isinstance(move, Widen)
        assert found["natural_expansion"] > 0
        assert found["natural_gradient"] > 0
        extension = at.extensions[move.units]
        if found.get("integrated_gradient", 0.0) > 0 and not extension.rewritten:
            whole = Way(at, move, extension).amplitude()
            with torch.no_grad():
                before = LOSSES["regression"].per_example(network(passed.sample.x), passed.sample.y).mean()
                grown = graft(network, move, extension.scaled(whole))
                after = LOSSES["regression"].per_example(grown(passed.sample.x), passed.sample.y).mean()
            assert found["integrated_gradient"] == pytest.approx(float(before - after), rel=0.15)


@pytest.mark.parametrize("name", ["narrow", "no.such.module:Class", "tests.core.test_triggers:Halved"])
def test_a_measurement_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        measurement_named(name)


# The rules on scripted rounds


def proposal(site: str, units: int = 4, move: str = "widen", flops: int = 100, **measured: float) -> Proposal:
    features = tuple(0.0 for _ in FEATURES)
    return Proposal(f"m/{move}/{site}/{units}", move, site, units, flops, 50, None, None, features, measured)


def situation(**changes: float) -> Situation:
    return dataclasses.replace(SITUATION, **changes)  # type: ignore[arg-type]


def layer(site: str, phi: float, width: int = 20) -> list[Proposal]:
    return [proposal(site, units, effective_dimension=phi, width=width) for units in (1, 2, 8)]


def test_north_asks_for_what_effective_dimension_exceeds() -> None:
    north = North(gamma=0.9)
    state = north.observe(north.initial_state(1.0), [*layer("h1", 0.5), *layer("h2", 1.0)], SITUATION)

    def chosen(state: State, *rows: Proposal) -> list[tuple[str, int]]:
        seen = north.observe(state, rows, SITUATION)
        return [(p.site, p.units) for p in north.shortlist(rows, SITUATION, seen, RNG)]

    # k = floor(20 (phi - 0.9 phi_0)): h1 1 at birth, h2 2.
    assert chosen(state, *layer("h1", 0.5), *layer("h2", 1.0)) == [("h2", 2), ("h1", 1)]
    assert chosen(state, *layer("h1", 0.45), *layer("h2", 0.9)) == []
    # k = floor(20 (0.9 - 0.45)) = 9, floor(20 (0.95 - 0.9)) = 1; a layer born later has its own reference.
    assert chosen(state, *layer("h1", 0.9), *layer("h2", 0.95), *layer("h3", 0.3)) == [("h1", 8), ("h2", 1)]
    assert chosen(state, *layer("h3", 0.3, width=200)) == [("h3", 8)]
    born = north.observe(state, layer("h3", 0.3), SITUATION)
    assert born["reference"] == {"h1": 0.5, "h2": 1.0, "h3": 0.3}
    assert north.observe(born, layer("h3", 0.6), SITUATION) == born
    highest = North(reference="highest")
    assert highest.observe(born, layer("h3", 0.6), SITUATION)["reference"]["h3"] == 0.6
    assert highest.observe(born, layer("h3", 0.1), SITUATION)["reference"]["h3"] == 0.3


def test_north_begins_a_first_layer_and_no_other() -> None:
    north, state = North(), North().initial_state(1.0)
    nodes = [proposal(site, units, "add_node") for site in ("a", "b", "c") for units in (4, 10, 16)]
    drawn = {north.shortlist(nodes, SITUATION, state, np.random.default_rng(seed)) for seed in range(30)}
    assert all(len(chosen) == 2 and {p.units for p in chosen} == {10} for chosen in drawn)
    assert len(drawn) > 3
    # Of less than ten units 0.1 is less than one; the largest comes nearest.
    assert {p.units for p in north.shortlist([p for p in nodes if p.units < 10], SITUATION, state, RNG)} == {4}
    state = north.observe(state, layer("h1", 0.2), SITUATION)
    assert north.shortlist(nodes, SITUATION, state, RNG) == ()


def test_senn_takes_the_largest_size_whose_every_unit_pays() -> None:
    senn = Senn(tau=0.1, least=0.01)

    def chosen(scores: Mapping[tuple[str, int], float], eta: float, unit: float = 1.0) -> list[tuple[str, int]]:
        rows = [proposal(s, k, natural_expansion=v, natural_gradient=eta) for (s, k), v in scores.items()]
        found = senn.shortlist(rows, situation(constant_loss=unit), {}, RNG)
        return [(p.site, p.units) for p in found]

    # Relative: (1.1^k - 1) eta is 0.1, 0.21 and 1.14.
    scores = {("a", 1): 0.11, ("a", 2): 0.2, ("b", 1): 0.3, ("b", 2): 0.4, ("b", 8): 0.9, ("c", 1): 0.05}
    assert chosen(scores, eta=1.0) == [("b", 2), ("a", 1)]
    # Absolute: 0.01 a unit, in the units of the constant's loss.
    assert chosen(scores, eta=0.0) == [("b", 8), ("a", 2)]
    assert chosen(scores, eta=0.0, unit=15.0) == [("b", 2)]
    assert chosen({("a", 10**6): 1e9}, eta=1.0) == []


def test_firefly_takes_the_most_loss_per_flop_one_size_a_place() -> None:
    rows = [
        proposal("a", 1, flops=100, integrated_gradient=0.1),
        proposal("a", 2, flops=200, integrated_gradient=0.3),
        proposal("b", 1, "add_node", flops=50, integrated_gradient=0.2),
        proposal("c", 0, "add_edge", flops=0, integrated_gradient=0.0),
        proposal("d", 1),
    ]
    chosen = Firefly().shortlist(rows, situation(candidates=9), {}, RNG)
    assert [(p.site, p.units) for p in chosen] == [("b", 1), ("a", 2)]


LAYERS = [
    *(proposal(site, units, "add_node", added_depth=1.0) for site in ("a", "b") for units in (4, 8)),
    proposal("w", added_depth=0.0),
]


def rounds(
    strategy: AbstractStrategy, metrics: Sequence[tuple[float, float]], offered: Sequence[Proposal] = LAYERS
) -> list[str]:
    """What is probed in a row of rounds with these metrics on train and search: its site and size, or a dash."""
    state, found = strategy.initial_state(1.0), []
    for number, (train, search) in enumerate(metrics, start=1):
        here = situation(round=number, train_metric=train, search_metric=search)
        state = strategy.observe(state, offered, here)
        chosen = strategy.shortlist(offered, here, state, RNG)
        if chosen:
            evidence = dataclasses.replace(some_evidence(0.1), proposal=chosen[0])
            assert strategy.judge(evidence, here, state).accepted
        state = strategy.learn(state, [Outcome(p, 0.1, 0.01) for p in chosen], here)
        found.append("+".join(f"{p.site}{p.units}" for p in chosen) or "-")
    return found


def test_autogrow_adds_layers_in_turn_until_accuracy_stands_still() -> None:
    rising = [(0.0, 0.1 * i) for i in range(6)]
    assert rounds(AutoGrow(units=7), rising) == ["a8", "b8", "a8", "b8", "a8", "b8"]
    assert rounds(AutoGrow(every=3, units=1), rising) == ["a4", "-", "-", "b4", "-", "-"]
    # 0.04 points over the last two rounds is too little; what comes after changes nothing.
    still = [0.5, 0.6, 0.7, 0.7002, 0.7004, 0.9, 0.99]
    assert rounds(AutoGrow(patience=2), [(0.0, a) for a in still]) == ["a8", "b8", "a8", "b8", "-", "-", "-"]
    assert rounds(AutoGrow(patience=2, threshold=0.0), [(0.0, a) for a in still])[4] == "a8"
    assert rounds(AutoGrow(), rising, [proposal("w", added_depth=0.0)]) == ["-"] * 6


def test_fragrow_slows_down_where_the_network_overfits() -> None:
    even, over = (0.8, 0.8), (0.9, 0.8)
    # At ORL 0 an interval of 4 / (1 + e^4) = 0.07 rounds, at 10 points of 3.99, at 4 of 2.
    assert rounds(FraGrow(units=4), [even] * 3) == ["a4", "b4", "a4"]
    assert rounds(FraGrow(units=4), [over] * 9) == ["-", "-", "-", "a4", "-", "-", "-", "b4", "-"]
    assert rounds(FraGrow(units=4), [over, over, even, even]) == ["-", "-", "a4", "b4"]
    assert FraGrow().interval(situation(train_metric=0.5, search_metric=0.46)) == pytest.approx(2.0)
    assert FraGrow().interval(situation(train_metric=0.9, search_metric=-1e9)) == 4.0
    assert FraGrow().interval(situation(train_metric=-1e9, search_metric=0.0)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (North, {"gamma": 1.0}),
        (Senn, {"tau": 0.0}),
        (Senn, {"least": -1.0}),
        (AutoGrow, {"every": 0}),
        (AutoGrow, {"every": 4}),
        (AutoGrow, {"threshold": -0.1}),
        (AutoGrow, {"units": 0}),
        (FraGrow, {"longest": 0.0}),
        (FraGrow, {"units": 0}),
    ],
)
def test_parameters_out_of_range_are_refused(cls: type[AbstractStrategy], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        cls(**wrong)


# In a member's round


@pytest.mark.parametrize("strategy", TRIGGERS, ids=lambda s: s.kind)
def test_what_a_strategy_reads_is_measured_and_logged_and_nothing_else(
    strategy: AbstractStrategy, tmp_path: Path
) -> None:
    # So many that Firefly's move lowers the loss on the search examples: one that does not is not probed.
    worker = a_worker(tmp_path, strategy, rows=4000)
    head = started(worker)
    report = plain(worker.run([Task("round", "m", 1, head)])[0])
    assert report["candidates"]
    for row in report["candidates"]:
        assert row["predicted_gain"] is None
        # A new node has no units yet, so it has no effective dimension.
        assert set(row["measurements"]) == (set() if strategy.kind == "north" else set(strategy.measures))  # type: ignore[attr-defined]
    # Whatever the worker did before.
    assert plain(worker.run([Task("round", "m", 1, head)])[0]) == report
    assert plain(a_worker(tmp_path, strategy, rows=4000).run([Task("round", "m", 1, head)])[0]) == report


@final
class Shares(AbstractMeasurement):
    """A measurement of a user's own."""

    name = "shares"

    def measure(self, subject: Subject) -> Mapping[int, float]:
        share = float(np.mean([subject.residuals.share(target) for target in subject.site.targets]))
        return {size: share / size if size != 2 else math.nan for size in subject.moves}


OWN = "tests.core.test_triggers:Shares"


@dataclasses.dataclass(frozen=True)
class Own(AbstractStrategy):
    """Probes what its own measurement prefers."""

    measures = (OWN,)
    predicts = False
    kind: str = "own"

    def shortlist(
        self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
    ) -> tuple[Proposal, ...]:
        assert {p.units for p in proposals if OWN not in p.measurements} == {2}
        return tuple(sorted(proposals, key=lambda p: -p.measurements.get(OWN, 0.0)))[:1]

    def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
        return Verdict(True, evidence.proposal.measurements[OWN], 0.0, "mine")


def test_a_strategy_may_read_a_measurement_of_its_own(tmp_path: Path) -> None:
    """What is not finite is absent."""
    worker = a_worker(tmp_path, Own())
    (row,) = worker.run([Task("round", "m", 1, started(worker))])[0]["candidates"]
    assert row["units"] == 4
    assert row["measurements"] == {OWN: row["statistic"]}
    assert 0 < row["statistic"] <= 0.25


@dataclasses.dataclass(frozen=True)
class Unread(Own):
    measures = ("breadth",)


def test_a_plan_refuses_a_strategy_that_reads_what_nobody_measures() -> None:
    with pytest.raises(ValueError, match="unknown measurement 'breadth'; known: width, "):
        Member(name="m", strategy=Unread(), initializer=Tiny())


def test_measurements_are_billed_and_metrics_are_those_of_the_network_that_may_grow(tmp_path: Path) -> None:
    heard: list[Situation] = []

    @dataclasses.dataclass(frozen=True)
    class Listening(AbstractStrategy):
        predicts = False
        kind: str = "listening"

        def observe(self, state: State, proposals: Sequence[Proposal], situation: Situation) -> State:
            heard.append(situation)
            return {"rounds": [*state.get("rounds", []), situation.round]}

        def shortlist(
            self, proposals: Sequence[Proposal], situation: Situation, state: State, rng: np.random.Generator
        ) -> tuple[Proposal, ...]:
            assert state["rounds"][-1] == situation.round
            return ()

        def judge(self, evidence: Evidence, situation: Situation, state: State) -> Verdict:
            raise AssertionError

    def report(strategy: AbstractStrategy, name: str) -> tuple[Worker, Report]:
        worker = a_worker(tmp_path / name, strategy)
        return worker, worker.run([Task("round", "m", 1, started(worker))])[0]

    worker, found = report(Listening(), "listening")
    assert found["strategy_state"] == {"rounds": [1]}
    (situation,) = heard
    # The control goes on from there, so the network is made again: a round's training and its dW* step.
    head = worker.load(started(worker))
    order = example_order(len(worker.data.train), 400, worker.seed("train", worker.plan.member("m"), 1))
    network = fit(
        Fork(head.network, {}), worker.data.train, order, 32, worker.data.loss, OptimizerPlan("adam", 0.01)
    ).network
    growing = Growing(worker, worker.plan.member("m"), Task("round", "m", 1, ""), network, Meter())
    growing.update()
    sample = type(worker.data.train)(growing.sample.x, growing.sample.y)
    assert situation.train_metric == pytest.approx(score(network, sample, worker.data.loss).metric, abs=1e-6)
    assert situation.search_metric == pytest.approx(score(network, worker.data.search, worker.data.loss).metric)
    bills = [
        report(strategy, strategy.kind)[1]["train_flops"]["statistics"]  # type: ignore[attr-defined]
        for strategy in (AutoGrow(), Senn(), Firefly())
    ]
    assert found["train_flops"]["statistics"] <= bills[0] < bills[1]
    assert bills[0] < bills[2]


def squeezed(worker: Worker, at: int, seed: int) -> Network:
    """Three layers of 12 units in a row, one of them of 2, trained a little."""
    sizes = [2 if i == at else 12 for i in range(3)]
    ends = [worker.facts.start(worker.plan.network).by_name[name] for name in (INPUT, OUTPUT)]
    nodes = (ends[0], *(Node(f"h{i + 1}", size, "relu") for i, size in enumerate(sizes)), ends[1])
    edges = tuple(Edge(one.name, two.name) for one, two in itertools.pairwise(nodes))
    network = Network(Architecture(nodes, edges))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named.items():
            if name.startswith("weights"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / parameter.shape[1]) ** 0.5)
    train = worker.data.train
    order = example_order(len(train), 8000, seed)
    return fit(Fork(network, {}), train, order, 32, worker.data.loss, OptimizerPlan("adam", 0.01)).network


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("strategy", [Senn(), Firefly()], ids=lambda s: s.kind)
def test_a_planted_bottleneck_is_where_a_layer_is_widened_first(
    strategy: AbstractStrategy, at: int, tmp_path: Path
) -> None:
    worker = a_worker(tmp_path, strategy, statistics=1024, rows=4000)
    network = squeezed(worker, at, seed=0)
    growing = Growing(worker, worker.plan.member("m"), Task("round", "m", 1, ""), network, Meter())
    growing.update()
    wider = [p for p in growing.propose().proposals if p.move == "widen"]
    chosen = strategy.shortlist(wider, growing_situation(worker), {}, RNG)
    assert chosen[0].site == f"h{at + 1}"


def growing_situation(worker: Worker) -> Situation:
    return situation(constant_loss=worker.facts.constant_loss)


# Campaigns


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> raygrow.Result:
    return raygrow.run(config(), out=tmp_path_factory.mktemp("triggers") / "run", quiet=True)


def config() -> dict[str, Any]:
    members = [{"name": s.kind, "strategy": s} for s in TRIGGERS]  # type: ignore[attr-defined]
    return {**SMALL, "members": members, "growth": {**SMALL["growth"], "patience": 4}}


def test_every_trigger_grows_from_the_linear_start_and_finishes(campaign: raygrow.Result) -> None:
    """The teacher is not linear: the network without a layer is the bottleneck."""
    assert campaign.summary["interrupted"] is False
    for member in campaign.summary["members"]:
        assert member["moves_accepted"] > 0, member["member"]
        assert member["test_loss"] is not None
    table = pq.read_table(campaign.folder / "moves.parquet")
    first = [row for row in table.to_pylist() if row["round"] == 1]
    assert {row["member"] for row in first if row["move"] == "add_node"} >= {s.kind for s in TRIGGERS}  # type: ignore[attr-defined]
    for row in table.to_pylist():
        strategy = next(s for s in STRATEGIES if s().kind == row["strategy"])  # type: ignore[attr-defined]
        assert {name for name, _ in row["measurements"]} <= set(strategy.measures)
    assert any(dict(row["measurements"]).get("natural_expansion", 0.0) > 0 for row in table.to_pylist())


def test_the_same_seed_gives_the_same_campaign(campaign: raygrow.Result, tmp_path: Path) -> None:
    again = raygrow.run(config(), out=tmp_path / "run", quiet=True)
    assert moves_without_times(again.folder)
    same_outcome(campaign.folder, again.folder)
