"""Growth on maps: every initializer, move and kind of layer, read from the registries, against the network itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from raygrow.architecture import (
    INPUT,
    MOVES,
    OUTPUT,
    AbstractMove,
    AddEdge,
    Architecture,
    Convolution,
    Edge,
    Node,
    Palette,
    Pooled,
    Widen,
    legal_moves,
)
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer, GradMax
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import derivative, response, response_rows
from raygrow.growth.statistics import Sample
from raygrow.growth.step import grow
from raygrow.growth.sweep import collect, passed
from raygrow.nn import Extension, Network, bias_name, graft, weight_name
from raygrow.nn.losses import CrossEntropy
from tests.core.test_maps import a_map_network, draw

N = 50
"""Few enough examples that every position of these small maps is looked at: then the derivative is exact."""
NORMS = ("none", "batch", "layer", "group")
LOSS = CrossEntropy()


def a_strided_network(dtype: torch.dtype = torch.float64) -> Network:
    """Kernels of 5, 3 and 1, strides of 1 and 2, with and without padding."""
    nodes = (
        Node(INPUT, 1, "identity", (7, 7)),
        Node("h1", 3, "tanh", (7, 7)),
        Node("h2", 3, "gelu", (3, 3)),
        Node("h3", 2, "relu", (2, 2)),
        Node(OUTPUT, 3, "identity"),
    )
    edges = (
        Edge(INPUT, "h1", Convolution((5, 5), (1, 1), (2, 2))),
        Edge("h1", "h2", Convolution((3, 3), (2, 2), (0, 0))),
        Edge("h2", "h3", Convolution((3, 3), (2, 2), (1, 1))),
        Edge("h3", OUTPUT, Pooled((2, 2))),
    )
    network = Network(Architecture(nodes, edges), dtype)
    for i, parameter in enumerate(network.parameters()):
        parameter.data = (0.5 * draw(*parameter.shape, seed=30 + i)).to(dtype)
    return network


def networks() -> dict[str, Network]:
    return {norm: a_map_network(norm) for norm in NORMS} | {"strided": a_strided_network()}


@cache
def measured(kind: str) -> tuple[Network, Tensor, Tensor, Residuals]:
    network = networks()[kind]
    node = network.arch.by_name[INPUT]
    x = draw(N, node.size * node.grid[0] * node.grid[1], seed=40)
    y = (x[:, :3] + x[:, 5:8] * x[:, 20:23]).argmax(1)
    statistics = collect(network, x, y, LOSS, torch.Generator().manual_seed(0), Meter())
    return network, x, y, Residuals(statistics.whole, Meter())


def moves_of(network: Network, norm: str, initializer: AbstractInitializer) -> list[AbstractMove]:
    palette = Palette("tanh", "none" if norm == "strided" else norm, kernels=(1, 3, 5), dense_on_maps=True)
    kinds = [move.kind for move in MOVES if move in initializer.supports]
    moves = legal_moves(network.arch, kinds=kinds, units=(3,), palette=palette)
    return [move for move in moves if move.place(network.arch) is not None]


CASES = [(kind, cls) for kind in (*NORMS, "strided") for cls in INITIALIZERS]


def begun(initializer: AbstractInitializer, residuals: Residuals, move: AbstractMove) -> Extension | None:
    """None where the initializer cannot begin units with this activation or norm."""
    site = move.place(residuals.fold.arch)
    assert site is not None
    if not initializer.can_begin(site):
        return None
    return initializer.begin(residuals, site, (move.units,), torch.Generator().manual_seed(1), Meter())[move.units]


@pytest.mark.parametrize(("kind", "cls"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_new_weights_on_maps_are_what_they_claim_to_be(kind: str, cls: type[AbstractInitializer]) -> None:
    network, x, y, residuals = measured(kind)
    initializer = cls()
    fold, before = residuals.fold, network(x)
    tried = 0
    for move in moves_of(network, kind, initializer):
        extension = begun(initializer, residuals, move)
        if extension is None:
            continue
        tried += 1
        grown = graft(network, move, extension)
        assert grown.arch == move.apply(network.arch), move
        after = grown(x)
        site = move.place(network.arch)
        assert site is not None
        preserved = isinstance(move, AddEdge) or initializer.preserves_function(site.activation or "identity")
        if preserved and not initializer.line_searched:
            assert torch.allclose(after, before, atol=1e-10), move
        elif not extension.rewritten:
            # -dloss/dgamma at birth, gamma the amplitude of the fan-out (growth_math 1.3).
            rows = response_rows(extension, site, fold, Meter())
            predicted = float(derivative(rows, fold.gradients, fold).mean())
            step = 1e-6
            with torch.no_grad():
                a, b = (LOSS.mean(graft(network, move, extension.scaled(s))(x), y) for s in (step, -step))
            assert float(b - a) / (2 * step) == pytest.approx(predicted, rel=1e-3, abs=1e-6), move
            if not any(n in network.arch.ancestors(m) for n in site.targets for m in site.targets):
                # What the response says is added is what the grown network adds. The sample has the even examples first.
                order = torch.cat([torch.arange(0, N, 2), torch.arange(1, N, 2)])
                deltas = response(extension, site, fold.values, Meter())
                moved = network.moved(network.trace(x[order]), deltas).output
                assert torch.allclose(moved, after[order], atol=1e-8), move
        gradients = torch.autograd.grad(LOSS.mean(after, y), list(grown.parameters()), allow_unused=True)
        old = dict(network.named)
        alive = False
        for (name, _), gradient in zip(grown.named.items(), gradients, strict=True):
            if gradient is None:
                continue
            fresh = torch.ones_like(gradient, dtype=torch.bool)
            if name in old:
                fresh[tuple(slice(0, size) for size in old[name].shape)] = False
            alive = alive or bool((gradient[fresh] != 0).any())
        assert alive, f"{move}: no new entry has a gradient"
    assert tried or not initializer.supports & {Widen}, "nothing was tried"


@pytest.mark.parametrize("kind", [*NORMS, "strided"])
def test_single_precision_preserves_the_function_too(kind: str) -> None:
    network, x, _, residuals = measured(kind)
    small = Network(network.arch)
    small.load_state_dict({name: tensor.float() for name, tensor in network.state_dict().items()})
    for cls in INITIALIZERS:
        initializer = cls()
        for move in moves_of(network, kind, initializer):
            site = move.place(network.arch)
            assert site is not None
            extension = begun(initializer, residuals, move)
            if extension is None or initializer.line_searched or not site.activation:
                continue
            if initializer.preserves_function(site.activation):
                grown = graft(small, move, extension)
                assert torch.allclose(grown(x.float()), small(x.float()), atol=1e-5), (cls, move)


@pytest.mark.parametrize("kind", [*NORMS, "strided"])
def test_a_growth_step_lowers_the_loss_that_chose_its_amplitude(kind: str) -> None:
    network, x, y, _ = measured(kind)
    dropped = 0
    for cls in INITIALIZERS:
        initializer = cls()
        if not initializer.line_searched:
            continue
        for move in moves_of(network, kind, initializer):
            generator = torch.Generator().manual_seed(2)
            found = grow(network, move, initializer, Sample(x, y), (x, y), LOSS, generator, Meter())
            with torch.no_grad():
                drop = float(LOSS.mean(network(x), y) - LOSS.mean(found.network(x), y))
            assert drop == pytest.approx(found.found.drop, abs=1e-9), move
            dropped += drop > 0
    assert dropped > 3


def test_maps_behind_the_nodes_that_are_fed_are_not_kept() -> None:
    """Nothing that feeds these nodes could read them; vectors cost nothing."""
    network, x, y, _ = measured("strided")
    everything = {INPUT, "h1", "h2", "h3", OUTPUT}
    for fed, kept in (("h2", {INPUT, "h1", OUTPUT}), ("h3", everything - {"h3"}), (OUTPUT, everything)):
        statistics = passed(network, Sample(x, y), LOSS, Meter()).statistics([fed], Meter())
        assert set(statistics.whole.values) == kept, fed


@pytest.mark.parametrize("kind", ["none", "strided"])
def test_gradmax_has_the_fan_out_of_the_largest_gradient_on_maps_too(kind: str) -> None:
    """Of all orthonormal fan-outs, whatever the target follows already: G, and not what is left of it, drives new units."""
    network, x, y, residuals = measured(kind)
    initializer = GradMax(scale=1.0)

    def squared(move: AbstractMove, fan_out: dict[str, Tensor], extension: Extension) -> float:
        grown = graft(network, move, replace(extension, fan_out=fan_out))
        node, first = move.landing(network.arch)
        names = [bias_name(node), *(weight_name(s, node) for s in grown.arch.parents(node))]
        found = torch.autograd.grad(LOSS.mean(grown(x), y), [grown.named[name] for name in names])
        return sum(float(gradient[first:].square().sum()) for gradient in found)

    for move in moves_of(network, kind, initializer):
        extension = begun(initializer, residuals, move)
        site = move.place(network.arch)
        if extension is None or not extension.fan_in or site is None or site.pool > 1 or site.activation == "relu":
            # The slope of a pooled unit at a fan-in of 0 is that of whichever position comes first, and relu's is 0.
            continue
        shapes = {target: weight.shape for target, weight in extension.fan_out.items()}
        columns = sum(shape.numel() // shape[1] for shape in shapes.values())
        if columns < move.units:
            # More units than columns have no orthonormal fan-out.
            continue
        best = squared(move, dict(extension.fan_out), extension)
        generator = torch.Generator().manual_seed(7)
        for _ in range(5):
            drawn = torch.linalg.qr(torch.randn(columns, 3, generator=generator, dtype=torch.float64))[0]
            parts = torch.split(drawn, [shape.numel() // shape[1] for shape in shapes.values()])
            fan_out = {
                target: part.view(shape[0], -1, shape[1]).transpose(1, 2).reshape(shape)
                for (target, shape), part in zip(shapes.items(), parts, strict=True)
            }
            assert squared(move, fan_out, extension) <= best * (1 + 1e-9), move
