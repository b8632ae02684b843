"""Moves of depth and of pruning, on networks of every family: function, liveness, what is carried, what pruning costs."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor

from raygrow.architecture import (
    FAMILIES,
    INPUT,
    MOVES,
    NORMS,
    OUTPUT,
    AbstractFamily,
    AbstractMove,
    AddBlock,
    Architecture,
    Edge,
    Hold,
    InsertLayer,
    Node,
    Prune,
    legal_moves,
)
from raygrow.errors import MoveError
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.exact import BUILDERS
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer, Tiny
from raygrow.growth.line_search import Searched, line_search
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import predict, response
from raygrow.growth.pruning import prune
from raygrow.growth.sweep import collect
from raygrow.nn import Extension, Heritage, Network, begun, carry_state, clone, graft
from raygrow.nn.losses import LOSSES
from raygrow.population.plan import Facts, NetworkPlan

SHAPES: dict[int, tuple[int, ...]] = {0: (), 1: (2, 12), 2: (2, 8, 8)}
CASES = [(family, SHAPES[d]) for family in FAMILIES for d in family.dimensions]
NAMES = [f"{family.name}{len(shape)}" for family, shape in CASES]
BLOCKS = [pytest.param(*case, id=name) for case, name in zip(CASES, NAMES, strict=True) if "add_block" in case[0].moves]
LOSS = LOSSES["classification"]


def examples(shape: tuple[int, ...], n: int = 96, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, prod(shape) if shape else 5, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()


def drawn(arch: Architecture, dtype: torch.dtype = torch.float64, seed: int = 0) -> Network:
    """With random weights, and moments of norms that are not those of the start."""
    network = Network(arch, dtype)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named.items():
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        fan_in = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 4
        parameter.data = (1.5 * draw / fan_in**0.5 + name.startswith("gains")).to(dtype)
    for name, buffer in network.moments.items():
        draw = torch.randn(buffer.shape, generator=generator, dtype=torch.float64)
        buffer.copy_(draw.abs() + 0.5 if name.endswith("variance") else 0.3 * draw)
    return network


def a_case(
    family: AbstractFamily,
    shape: tuple[int, ...],
    norm: str = "none",
    dtype: torch.dtype = torch.float64,
    steps: int = 2,
) -> tuple[Network, Residuals, tuple[AbstractMove, ...]]:
    """A network of the family after some moves, its statistics, and its legal moves."""
    plan = NetworkPlan(family=family.name, norm=norm, kernels=(3, 1))  # type: ignore[arg-type]
    arch = Facts("classification", prod(shape) if shape else 5, 3, 100, 1.0, shape).start(plan)
    rng = np.random.default_rng(len(shape))
    for _ in range(steps):
        growing = legal_moves(arch, kinds={*plan.known_moves} - {"prune"}, units=(4,), palette=plan.palette)
        arch = growing[int(rng.integers(len(growing)))].apply(arch)
    network = drawn(arch, dtype)
    x, y = examples(shape)
    whole = collect(network, x.to(dtype), y, LOSS, torch.Generator().manual_seed(0), Meter()).whole
    return (
        network,
        Residuals(whole, Meter()),
        legal_moves(arch, kinds=plan.known_moves, units=(2,), palette=plan.palette),
    )


def built(found: Residuals, move: AbstractMove, initializer: AbstractInitializer) -> Extension:
    site = move.place(found.fold.arch)
    if site is None:
        return BUILDERS[type(move)](found, move, Meter())
    generator = torch.Generator().manual_seed(3)
    return initializer.begin(found, site, (move.units,), generator, Meter())[move.units]


def gradients(network: Network, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    loss = torch.nn.functional.cross_entropy(network(x), y)
    return dict(zip(network.named, torch.autograd.grad(loss, list(network.named.values())), strict=True))


def test_a_move_without_a_site_has_a_builder() -> None:
    arch = Architecture(
        (Node(INPUT, 3, "identity"), Node("h1", 4, "relu"), Node(OUTPUT, 2, "identity")),
        (Edge(INPUT, "h1"), Edge("h1", OUTPUT)),
    )
    without = {type(move) for move in (InsertLayer("h1", 4), Prune("h1", 1)) if move.place(arch) is None}
    assert without == set(BUILDERS)
    assert all(cls in MOVES for cls in BUILDERS)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
def test_a_layer_in_series_changes_nothing_and_is_alive(
    family: AbstractFamily, shape: tuple[int, ...], norm: str
) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        network, found, moves = a_case(family, shape, norm, dtype)
        inserts = [move for move in moves if isinstance(move, InsertLayer)]
        assert bool(inserts) == ("insert_layer" in (*family.moves, *family.more_moves))
        x, y = (t.to(dtype) if t.is_floating_point() else t for t in examples(shape, seed=7))
        for move in inserts:
            grown = graft(network, move, built(found, move, Tiny()))
            scale = float(network(x).detach().abs().amax())
            assert torch.allclose(grown(x), network(x), atol=tolerance * max(scale, 1.0)), move
            # All of the matrix: what each unit that fires reads and what it gives.
            before, after = move.succession(network.arch)
            firing = (network.trace(x).values[before].transpose(0, 1).flatten(1) > 0).any(1)
            whole = gradients(grown, x, y)[f"weights.{before}>{after}"]
            alive = whole.abs().flatten(2).sum(2) > 0 if whole.dim() > 2 else whole != 0
            assert firing.any()
            assert alive.any(0)[firing].all(), move
            assert alive.any(1)[firing].double().mean() > 0.5, move


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_layer_in_series_is_no_move_where_it_would_change_the_function(activation: str) -> None:
    plan = NetworkPlan(family="mlp", activation=activation)
    arch = Facts("classification", 5, 3, 100, 1.0).start(plan)
    assert not legal_moves(arch, kinds=("insert_layer",), units=(2,), palette=plan.palette)
    for move, words in (
        (InsertLayer("h1", 4), "only after relu"),
        (InsertLayer(OUTPUT, 3), "no hidden node"),
        (InsertLayer("h9", 3), "no hidden node"),
    ):
        with pytest.raises(MoveError, match=words):
            move.apply(arch)


def test_moves_of_depth_that_do_not_fit_are_refused() -> None:
    relu = Facts("classification", 5, 3, 100, 1.0).start(NetworkPlan(family="mlp"))
    resnet = Facts("classification", 64, 3, 100, 1.0, (1, 8, 8)).start(NetworkPlan(family="resnet", norm="layer"))
    for arch, move, words in (
        (relu, InsertLayer("h1", 4, norm="layer"), "norm over units"),
        (relu, InsertLayer("h1", 5), "the 4 units"),
        (relu, AddBlock("h1", 2, "relu"), "linear hidden node"),
        (relu, AddBlock(INPUT, 2, "relu"), "linear hidden node"),
        (relu, Prune("h1", 4), "at least one of the 4"),
        (relu, Prune("h1", 0), "units >= 1"),
        (relu, Prune("h7", 1), "no hidden node"),
        (resnet, AddBlock("h1", 2, "relu"), "takes a vector"),
        (resnet, AddBlock("h1", 2, "sigmund"), "unknown activation"),
        (resnet, Prune("h1", 2), "tied to others"),
        (resnet, Prune("h2", 1), "tied to others"),
    ):
        with pytest.raises(MoveError, match=words):
            move.apply(arch)


@pytest.mark.parametrize("initializer", INITIALIZERS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize(("family", "shape"), BLOCKS)
def test_a_block_is_begun_by_every_initializer(
    family: AbstractFamily, shape: tuple[int, ...], norm: str, initializer: type[AbstractInitializer]
) -> None:
    """What the site predicts is what the grown network does: its function, and its derivative along the fan-out."""
    network, found, moves = a_case(family, shape, norm)
    x, y = examples(shape)
    blocks = [move for move in moves if isinstance(move, AddBlock)]
    assert blocks
    for move in blocks:
        begun_at = move.place(network.arch)
        assert begun_at is not None
        if not initializer().can_begin(begun_at):
            # Where it declares that it cannot, it must not be for every norm and activation alike.
            assert initializer.norms != NORMS or not initializer().supports_activation("relu")
            continue
        extension = built(found, move, initializer())
        site = move.place(network.arch)
        grown = graft(network, move, extension)
        assert grown.arch == move.apply(network.arch)
        if initializer().preserves_function("relu"):
            assert torch.allclose(grown(x), network(x), atol=1e-10)
        trace = network.trace(x)
        deltas = response(extension, site, trace.values, Meter())
        assert torch.allclose(network.moved(trace, deltas).output, grown(x), atol=1e-9)
        small = graft(network, move, extension.scaled(1e-6))
        slope = float((LOSS.per_example(network(x), y) - LOSS.per_example(small(x), y)).mean()) / 1e-6
        wanted = (deltas[move.after] * _gradients_at(network, x, y, move.after)).flatten(1).sum(1).mean()
        assert slope == pytest.approx(float(wanted), rel=1e-2, abs=1e-6)
        inner = move.landing(network.arch)[0]
        found_gradients = gradients(grown, x, y)
        new = [name for name in grown.named if inner in name]
        assert any(found_gradients[name].any() for name in new), move


def _gradients_at(network: Network, x: Tensor, y: Tensor, node: str) -> Tensor:
    """G at a node by autograd, per example."""
    trace = network.trace(x)
    total = LOSS.per_example(trace.output, y).sum()
    (gradient,) = torch.autograd.grad(total, trace.preactivations[node])
    return -gradient


def test_a_predicted_block_is_searched_for_and_lowers_the_loss() -> None:
    """A stream that lacks a layer: tiny finds it, its cross-fitted prediction is positive, and the line search agrees."""
    plan = NetworkPlan(family="resnet", widths=(8,))
    arch = Facts("classification", 64, 3, 100, 1.0, (1, 8, 8)).start(plan)
    network = begun(arch, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(600, 64, generator=generator, dtype=torch.float64)
    y = (x.view(-1, 8, 8)[:, 1:, 1:] * x.view(-1, 8, 8)[:, :-1, :-1]).relu().mean((1, 2)).gt(0.3).long()
    with torch.no_grad():
        head = network.named[f"weights.h3>{OUTPUT}"]
        head.copy_(torch.randn(head.shape, generator=generator, dtype=torch.float64))
    statistics = collect(network, x, y, LOSS, torch.Generator().manual_seed(0), Meter())
    (move,) = (
        m for m in legal_moves(arch, kinds=("add_block",), units=(8,), palette=plan.palette) if m.site[:2] == "h3"
    )
    site = move.place(arch)
    halves = [Residuals(fold, Meter()) for fold in statistics.folds]
    found = predict(Tiny(), halves, site, (8,), torch.Generator().manual_seed(0), Meter())[8]
    assert found is not None
    assert found.t > 2
    extension = built(Residuals(statistics.whole, Meter()), move, Tiny())
    search = Searched(network, x, y, LOSS, Meter())
    line = line_search(search, response(extension, site, search.trace.values, Meter()), Meter())
    assert line.drop > 0
    grown = graft(network, move, extension.scaled(line.scale))
    drop = float((LOSS.per_example(network(x), y) - LOSS.per_example(grown(x), y)).mean())
    assert drop == pytest.approx(line.drop, rel=1e-6)


@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
@pytest.mark.parametrize("plan", ["adam", "sgd"])
def test_weights_and_moments_follow_to_their_new_places(
    family: AbstractFamily, shape: tuple[int, ...], plan: str
) -> None:
    """Every entry of the parent that is still there has its value and its moments, wherever it is now."""
    network, found, moves = a_case(family, shape, "batch", steps=4)
    keys = ("exp_avg", "exp_avg_sq") if plan == "adam" else ("momentum_buffer",)
    state = {
        name: {"step": torch.tensor(9.0)} | {key: (i + 2) * p.detach().clone() for i, key in enumerate(keys)}
        for name, p in network.named.items()
    }
    for move in moves:
        extension = built(found, move, Tiny())
        grown = graft(network, move, extension)
        heritage = Heritage.of(move, network.arch, extension.kept)
        carried = carry_state(heritage.state(state), grown)
        values = heritage.tensors(network.named | network.moments)
        assert {*values} <= {*grown.named, *grown.moments}
        for name, entry in heritage.state(state).items():
            assert carried[name][keys[0]].shape == grown.named[name].shape
            old = tuple(slice(0, size) for size in values[name].shape)
            assert torch.equal(carried[name][keys[0]][old], 2 * values[name].detach())
            assert float(entry["step"]) == 9.0
            if name not in extension.rewritten:
                assert torch.equal(grown.named[name][old], values[name]), (move, name)
        if isinstance(move, Prune):
            assert values[f"biases.{move.node}"].shape[0] == network.arch.size(move.node) - move.removed


# --- pruning


@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
def test_what_stays_makes_up_for_what_goes_as_well_as_least_squares_can(
    family: AbstractFamily, shape: tuple[int, ...]
) -> None:
    network, found, moves = a_case(family, shape, steps=4)
    x, _ = examples(shape)
    prunes = [move for move in moves if isinstance(move, Prune)]
    assert prunes
    for move in prunes:
        pruned = prune(found, move, Meter())
        kept = pruned.extension.kept
        assert kept is not None
        fold, node = found.fold, network.arch.by_name[move.node]
        lost = [i for i in range(node.size) if i not in kept.tolist()]
        values = fold.values[move.node]
        at = fold.positions(node.value_grid)
        rows = values if at is None else values.flatten(2).gather(2, at[:, None].expand(-1, node.size, -1))
        rows = rows if at is None else rows.transpose(1, 2).flatten(0, 1)
        design = torch.cat([rows[:, kept], torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
        stand_in = torch.linalg.lstsq(design, rows[:, lost], driver="gelsd").solution[:-1]
        for target in network.arch.children(move.node):
            weight = network.named[f"weights.{move.node}>{target}"].detach()
            wanted = weight[:, kept] + torch.einsum("qr...,kr->qk...", weight[:, lost], stand_in)
            new = pruned.extension.rewritten[f"weights.{move.node}>{target}"]
            # On examples: where units repeat each other, other weights do as well.
            read = next(r for step in network.steps if step.name == target for r in step.reads if r.source == move.node)
            ours, best = (read.map.read(values[:, kept], w) for w in (new, wanted))
            close = (ours - ours.mean(0)) - (best - best.mean(0))
            assert close.abs().amax() < 1e-4 * max(1.0, float(best.abs().amax())), move
        grown = graft(network, move, pruned.extension)
        before, after = network.trace(x), grown.trace(x)
        for target in network.arch.children(move.node):
            change = after.preactivations[target] - before.preactivations[target]
            if not _downstream_of_another(network, move, target):
                assert change.transpose(0, 1).flatten(1).mean(1).abs().amax() < 1e-9, "the biases take up the mean"


def _downstream_of_another(network: Network, move: Prune, target: str) -> bool:
    """Whether the target reads the pruned node also by way of others."""
    arch = network.arch
    return any(move.node in arch.ancestors(parent) for parent in arch.parents(target))


def test_units_that_others_can_stand_in_for_go_first() -> None:
    """Copies, sums, dead and constant units cost nothing; the function stays."""
    arch = Architecture(
        (Node(INPUT, 5, "identity"), Node("h1", 8, "relu"), Node("h2", 6, "tanh"), Node(OUTPUT, 3, "identity")),
        (Edge(INPUT, "h1"), Edge("h1", "h2"), Edge("h2", OUTPUT), Edge("h1", OUTPUT)),
    )
    network = drawn(arch)
    weight, bias = network.named["weights.input>h1"].data, network.named["biases.h1"].data
    weight[3], bias[3] = 2 * weight[1], 2 * bias[1]
    weight[5], bias[5] = 0.0, 0.7
    bias[6] = -100.0
    x, y = examples((), 400)
    whole = collect(network, x, y, LOSS, torch.Generator().manual_seed(0), Meter()).whole
    pruned = prune(Residuals(whole, Meter()), Prune("h1", 3), Meter())
    kept = pruned.extension.kept
    assert kept is not None
    assert 5 not in kept
    assert 6 not in kept
    assert len({1, 3} & set(kept.tolist())) == 1
    grown = graft(network, Prune("h1", 3), pruned.extension)
    assert torch.allclose(grown(x), network(x), atol=1e-6)
    assert pruned.cost < 1e-10
    assert clone(network).arch == network.arch


def test_one_unit_goes_as_brute_force_would_have_it() -> None:
    """Of every unit in turn: the curvature-weighted square of what its best stand-in leaves, at one target."""
    arch = Architecture(
        (Node(INPUT, 5, "identity"), Node("h1", 7, "relu"), Node(OUTPUT, 3, "identity")),
        (Edge(INPUT, "h1"), Edge("h1", OUTPUT)),
    )
    for seed in range(6):
        network = drawn(arch, seed=seed)
        x, y = examples((), 300, seed)
        whole = collect(network, x, y, LOSS, torch.Generator().manual_seed(0), Meter()).whole
        curvature = whole.curvature[OUTPUT]
        metric = curvature.T @ curvature / len(curvature)
        values, fan_out = whole.values["h1"], network.named[f"weights.h1>{OUTPUT}"].detach()
        costs, estimates = [], []
        for unit in range(7):
            others = [i for i in range(7) if i != unit]
            design = torch.cat([values[:, others], torch.ones(len(x), 1, dtype=x.dtype)], 1)
            left = values[:, unit] - design @ torch.linalg.lstsq(design, values[:, unit], driver="gelsd").solution
            estimates.append(0.5 * float((curvature @ fan_out[:, unit] * left).square().mean()))
            costs.append(float(left.square().mean() * (fan_out[:, unit] @ metric @ fan_out[:, unit])))
        pruned = prune(Residuals(whole, Meter()), Prune("h1", 1), Meter())
        assert pruned.extension.kept is not None
        assert set(range(7)) - set(pruned.extension.kept.tolist()) == {int(np.argmin(costs))}
        # The estimate of the loss is of the same curvature, example by example.
        assert pruned.cost == pytest.approx(estimates[int(np.argmin(costs))], rel=1e-4, abs=1e-12)


def test_a_prune_needs_the_units_that_stay() -> None:
    network = drawn(Facts("classification", 5, 3, 100, 1.0).start(NetworkPlan(family="mlp")))
    with pytest.raises(MoveError, match="the 3 units that stay, but got None"):
        graft(network, Prune("h1", 1), Extension())
    with pytest.raises(MoveError, match="but got 4"):
        graft(network, Prune("h1", 1), Extension(kept=torch.arange(4)))
    with pytest.raises(MoveError, match="matrix of the new layer"):
        graft(network, InsertLayer("h1", 4), Extension())
    assert Hold().succession(network.arch) is None
