"""Readings of values with positions: their tensors, their costs, and networks and grafts made of them."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raygrow.architecture import (
    INPUT,
    LINEAR,
    OUTPUT,
    READINGS,
    AbstractReading,
    AddEdge,
    AddNode,
    Architecture,
    Convolution,
    Edge,
    Grid,
    Identity,
    Node,
    Palette,
    Pooled,
    Transposed,
    Widen,
    backward_flops,
    forward_flops,
    legal_moves,
    move_from_json,
    params,
    training_flops,
)
from raygrow.errors import MoveError
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.meter import Meter
from raygrow.nn import Extension, Network, clone, graft
from raygrow.nn.layers import Layer
from raygrow.nn.maps import MAPS, map_of

CASES: list[tuple[AbstractReading, Grid]] = [
    (LINEAR, ()),
    *(
        (Convolution((k, k), (s, s), (p, p)), (7, 6))
        for k in (1, 3, 5)
        for s in (1, 2)
        for p in (0, k // 2)
    ),
    (Convolution((3, 1), (2, 1), (1, 0)), (7, 6)),
    *((Convolution((k,), (s,), (k // 2,)), (9,)) for k in (1, 3, 5) for s in (1, 2)),
    (Pooled((1, 1)), (7, 6)),
    (Pooled((3, 4)), (7, 6)),
    (Pooled((7, 6)), (7, 6)),
    (Pooled((4,)), (9,)),
    (Identity(), (7, 6)),
    (Transposed((3,)), (7, 6)),
    (Transposed((1, 3)), (9,)),
]  # fmt: skip


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_reading_has_a_case_and_a_map() -> None:
    assert {type(reading) for reading, _ in CASES} == set(READINGS) == set(MAPS)


@pytest.mark.parametrize(("reading", "grid"), CASES, ids=str)
def test_a_map_is_a_matrix_on_rows_and_its_adjoint(reading: AbstractReading, grid: Grid) -> None:
    n, units = 4, 3
    outputs = 5 if reading.weighted else reading.units(units, grid)
    found = map_of(reading, grid)
    values = draw(n, units, *grid).requires_grad_()
    weight = draw(*reading.weight_shape(units, grid, outputs), seed=1) if reading.weighted else None
    bias = draw(outputs, seed=2)
    read = found.read(values, weight, bias)
    assert read.shape == (n, outputs, *reading.grid(grid)) == (n, outputs, *found.target)
    if weight is not None:
        rows = found.rows(values.detach())
        by_rows = rows @ weight.flatten(1).T + bias
        assert torch.allclose(by_rows.transpose(1, 2).reshape(read.shape), read, atol=1e-12)
        at = torch.randint(rows.shape[1], (n, 6), generator=torch.Generator().manual_seed(3))
        picked = found.rows(values.detach(), at if grid else None)
        if found.target:
            assert torch.equal(picked, rows.gather(1, at[..., None].expand(-1, -1, rows.shape[2])))
    gradient = draw(*read.shape, seed=4)
    (wanted,) = torch.autograd.grad(read, values, gradient)
    assert torch.allclose(found.pull(gradient, weight), wanted, atol=1e-12)
    many = torch.stack([values.detach(), 2 * values.detach()])
    assert torch.allclose(found.read(many, weight, bias)[1], found.read(2 * values, weight, bias), atol=1e-12)


EVEN = [
    (reading, grid)
    for reading, grid in CASES
    if not any(n % c for n, c in zip(grid, getattr(reading, "cells", ()), strict=False))
]
"""Cells that do not divide the positions weigh them unevenly; ``spread`` does not."""


@pytest.mark.parametrize(("reading", "grid"), EVEN, ids=str)
def test_spread_is_the_adjoint_of_the_centre_tap(reading: AbstractReading, grid: Grid) -> None:
    found = map_of(reading, grid)
    weight = None
    if reading.weighted:
        weight = torch.zeros(reading.weight_shape(2, grid, 2), dtype=torch.float64)
        for unit in range(2):
            if isinstance(reading, Convolution):
                weight[(unit, unit, *(k // 2 for k in reading.kernel))] = 1.0
            else:
                weight[unit, unit] = 1.0 / prod(reading.taps(grid))
    gradient = draw(3, 2 if reading.weighted else reading.units(3, grid), *found.target)
    assert torch.allclose(found.spread(gradient), found.pull(gradient, weight), atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("grid", [(), (6, 5), (8,)], ids=str)
def test_a_norm_is_torchs(norm: str, grid: Grid) -> None:
    blocks = (4,) if norm in ("layer", "group") else ()
    node = Node("h", 4, "identity", grid, norm, blocks)
    gain, shift, mean, variance = draw(4), draw(4, seed=1), draw(4, seed=2), draw(4, seed=3).square()
    z = draw(5, 4, *grid, seed=4)
    found = Layer(node, gain, shift, mean, variance).value(z)
    if norm == "none":
        wanted = z
    elif norm == "batch":
        wanted = torch.nn.functional.batch_norm(z, mean, variance, gain, shift)
    elif norm == "group":
        wanted = torch.nn.functional.group_norm(z, 1, gain, shift)
    else:
        wanted = torch.nn.functional.layer_norm(z.movedim(1, -1), (4,), gain, shift).movedim(-1, 1)
    assert torch.allclose(found, wanted, atol=1e-10)


def a_map_network(norm: str = "none", dtype: torch.dtype = torch.float64, seed: int = 0) -> Network:
    """Two images of 8 x 7, a strided and a pooled map, a skip, a stream and a dense layer; random weights; 3 outputs."""
    blocks = (4,) if norm in ("layer", "group") else ()
    nodes = (
        Node(INPUT, 2, "identity", (8, 7)),
        Node("h1", 4, "tanh", (8, 7), norm, blocks, pool=2),
        Node("h2", 4, "relu", (4, 3), norm, blocks),
        Node("h3", 4, "gelu", (4, 3)),
        Node("h4", 4, "silu", (), norm, blocks),
        Node(OUTPUT, 3, "identity"),
    )
    edges = (
        Edge(INPUT, "h1", Convolution.same(3, 2)),
        Edge("h1", "h2", Convolution.same(3, 2)),
        Edge("h1", "h3", Convolution.same(1, 2)),
        Edge("h2", "h3", Identity()),
        Edge("h3", "h4", Pooled((2, 2))),
        Edge("h3", OUTPUT, Pooled((1, 1))),
        Edge("h4", OUTPUT),
        Edge(INPUT, OUTPUT, Pooled((8, 7))),
    )
    network = Network(Architecture(nodes, edges), dtype)
    for i, (name, parameter) in enumerate(network.named.items()):
        parameter.data = (0.4 * draw(*parameter.shape, seed=seed + i) + name.startswith("gains")).to(dtype)
    for i, (name, buffer) in enumerate(network.moments.items()):
        buffer.copy_(0.3 * draw(*buffer.shape, seed=50 + i).abs() + name.endswith("variance"))
    return network


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
def test_gradients_at_preactivations_are_autograds(norm: str) -> None:
    network = a_map_network(norm)
    x = draw(6, 2 * 8 * 7, seed=9)
    trace = network.trace(x)
    nodes = [node.name for node in network.arch.nodes[1:]]
    at_output = draw(6, 3, seed=10)
    wanted = torch.autograd.grad(trace.output, [trace.preactivations[name] for name in nodes], at_output)
    found = backpropagate(network, trace, at_output, nodes, Meter())
    for name, gradient in zip(nodes, wanted, strict=True):
        assert torch.allclose(found[name], gradient, atol=1e-12), name


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_tail_and_moved_follow_a_change_of_preactivations(norm: str) -> None:
    network = a_map_network(norm)
    x = draw(6, 2 * 8 * 7, seed=9)
    trace = network.trace(x)
    deltas = {"h1": draw(6, 4, 8, 7, seed=11), "h4": draw(6, 4, seed=12)}
    outputs = network.tail(trace, deltas, torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64))
    assert torch.allclose(outputs[0], trace.output, atol=1e-12)
    for i, scale in ((1, 0.5), (2, 2.0)):
        moved = network.moved(trace, {name: scale * delta for name, delta in deltas.items()})
        assert torch.allclose(outputs[i], moved.output, atol=1e-12)


def test_costs_are_those_that_torch_counts() -> None:
    network = a_map_network(dtype=torch.float32)
    arch, n = network.arch, 5
    assert params(arch) == sum(p.numel() for p in network.parameters())
    x = torch.randn(n, 2 * 8 * 7)
    with FlopCounterMode(display=False) as counter:
        output = network(x)
    assert counter.get_total_flops() == n * forward_flops(arch)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(output.sum(), list(network.parameters()))
    assert counter.get_total_flops() == n * backward_flops(arch) == n * (training_flops(arch) - forward_flops(arch))


def test_an_architecture_and_its_moves_survive_json() -> None:
    arch = a_map_network("group").arch
    assert Architecture.from_json(arch.to_json()) == arch
    palette = Palette("relu", "group", kernels=(1, 3), dense_on_maps=True)
    moves = legal_moves(arch, kinds=("widen", "add_node", "add_edge"), units=(1, 2), palette=palette)
    assert len({move.key for move in moves}) == len(moves) > 20
    for move in moves:
        assert move_from_json(move.to_json()) == move
        grown = move.apply(arch)
        assert forward_flops(grown) > forward_flops(arch)
    assert not any(isinstance(move, Widen) and move.node in ("h2", "h3") for move in moves), "streams keep their size"


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
def test_a_graft_without_fan_out_changes_nothing_and_keeps_what_was_there(norm: str) -> None:
    network = a_map_network(norm)
    x = draw(6, 2 * 8 * 7, seed=9)
    palette = Palette("relu", norm, kernels=(1, 3, 5), dense_on_maps=True)
    moves = legal_moves(network.arch, kinds=("widen", "add_node", "add_edge"), units=(2,), palette=palette)
    for move in moves:
        site = move.place(network.arch)
        assert site is not None
        size, arch = move.units, network.arch

        def shape(reading: AbstractReading, source: str, outputs: int, arch: Architecture = arch) -> tuple[int, ...]:
            return reading.weight_shape(arch.size(source), arch.by_name[source].value_grid, outputs)

        if isinstance(move, AddEdge):
            edge = torch.zeros(shape(move.reading, move.source, arch.size(move.target)), dtype=torch.float64)
            extension = Extension(edge=edge)
        else:
            extension = Extension(
                {s: draw(*shape(r, s, size)) for s, r in zip(site.sources, site.reads, strict=True)},
                draw(size),
                {
                    t: torch.zeros(r.weight_shape(size, site.value_grid, arch.size(t)), dtype=torch.float64)
                    for t, r in zip(site.targets, site.feeds, strict=True)
                },
                moments=(draw(size), draw(size).square()),
            )
        grown = graft(network, move, extension)
        assert grown.arch == move.apply(network.arch)
        assert torch.allclose(grown(x), network(x), atol=1e-10), move
        for name, tensor in (network.named | network.moments).items():
            old = (grown.named | grown.moments)[name][tuple(slice(0, size) for size in tensor.shape)]
            assert torch.equal(old, tensor), (move, name)
    assert torch.equal(clone(network)(x), network(x))


def test_readings_that_do_not_fit_are_refused() -> None:
    image, out = Node(INPUT, 1, "identity", (4, 4)), Node(OUTPUT, 2, "identity")
    for edge, words in (
        (Edge(INPUT, OUTPUT), "takes a vector"),
        (Edge(INPUT, OUTPUT, Convolution.same(3, 2)), "gives positions"),
        (Edge(INPUT, OUTPUT, Pooled((5, 5))), "at least"),
        (Edge(INPUT, OUTPUT, Pooled((2,))), "at least"),
    ):
        with pytest.raises(MoveError, match=words):
            Architecture((image, out), (edge,))
    edges = Edge(INPUT, "h1", Identity()), Edge("h1", OUTPUT, Pooled((1, 1)))
    with pytest.raises(MoveError, match="as many units"):
        Architecture((image, Node("h1", 2, "relu", (4, 4)), out), edges)
    for field in (
        {"norm": "odd"},
        {"norm": "layer"},
        {"pool": 2},
        {"dropout": 1.0},
        {"norm": "layer", "blocks": (1, 1)},
    ):
        with pytest.raises(MoveError):
            Node("h1", 2, "relu", **field)  # type: ignore[arg-type]
    assert AddNode(("input",), ("output",), 2, "relu").site == "input>output"
