"""Families: where they start, what they refuse, and networks grown from them at random."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raygrow.architecture import (
    FAMILIES,
    INPUT,
    MOVES,
    OUTPUT,
    AbstractFamily,
    Architecture,
    Hold,
    Transposed,
    backward_flops,
    forward_flops,
    legal_moves,
    params,
)
from raygrow.data import AbstractSource, prepare
from raygrow.data.patterns import Patterns
from raygrow.data.teacher import Teacher
from raygrow.errors import ConfigError
from raygrow.growth.backpropagation import backpropagate
from raygrow.growth.initializers import RandomInitializer, Tiny
from raygrow.growth.meter import Meter
from raygrow.nn import Network, begun
from raygrow.population.campaign import run_campaign
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.plan import Budget, Campaign, Facts, Growth, Member, NetworkPlan, Plan, Probe, Training
from raygrow.population.selection import Independent
from raygrow.population.serial_pool import SerialPool
from raygrow.population.tasks import Task
from raygrow.population.worker import Worker
from raygrow.strategies import AbstractStrategy, AutoGrow, Mdl, RandomStrategy, Rl

SHAPES: dict[int, tuple[int, ...]] = {0: (), 1: (2, 12), 2: (2, 8, 8)}
CASES = [(family, SHAPES[d]) for family in FAMILIES for d in family.dimensions]
NAMES = [f"{family.name}{len(shape)}" for family, shape in CASES]
NORMS = ("none", "batch", "layer", "group")


def a_start(family: AbstractFamily, shape: tuple[int, ...], outputs: int = 3, **choices: object) -> Architecture:
    network = NetworkPlan(family=family.name, **choices)  # type: ignore[arg-type]
    return Facts("classification", prod(shape) if shape else 5, outputs, 100, 1.0, shape).start(network)


def moved(arch: Architecture, steps: int, seed: int, network: NetworkPlan) -> Architecture:
    """After a few legal moves drawn at random."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        moves = legal_moves(arch, kinds=network.moves, units=(2, 3), palette=network.palette)
        arch = moves[int(rng.integers(len(moves)))].apply(arch)
    return arch


def test_every_family_has_a_name_of_its_own_and_moves_that_exist() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert {*family.moves, *family.more_moves} <= {move.kind for move in MOVES if move is not Hold}


@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
@pytest.mark.parametrize("norm", NORMS)
def test_a_start_is_tiny_and_grows_by_every_move_it_names(
    family: AbstractFamily, shape: tuple[int, ...], norm: str
) -> None:
    network = NetworkPlan(family=family.name, norm=norm)  # type: ignore[arg-type]
    arch = a_start(family, shape, norm=norm)
    assert params(arch) < 2500
    grown = moved(arch, 3, 0, network)
    kinds = {m.kind for m in legal_moves(grown, kinds=network.moves, units=(1, 2), palette=network.palette)}
    blocked = {"prune"} if norm in ("layer", "group") else set()
    assert kinds >= {*family.moves} - {"prune"} - blocked
    assert Architecture.from_json(json.loads(arch.canonical())) == arch


@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
def test_costs_of_what_a_family_grows_are_those_torch_counts(family: AbstractFamily, shape: tuple[int, ...]) -> None:
    chosen = NetworkPlan(family=family.name, kernels=(3, 1))
    for seed in range(3):
        arch = moved(a_start(family, shape, kernels=(3, 1)), seed * 2, seed, chosen)
        network = Network(arch)
        assert params(arch) == sum(p.numel() for p in network.parameters())
        x = torch.randn(4, prod(shape) if shape else 5)
        with FlopCounterMode(display=False) as counter:
            output = network(x)
        assert counter.get_total_flops() == 4 * forward_flops(arch) == 4 * network.flops
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(output.sum(), list(network.parameters()), allow_unused=True)
        assert counter.get_total_flops() == 4 * backward_flops(arch)


@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
def test_a_start_is_a_constant_that_learns(family: AbstractFamily, shape: tuple[int, ...]) -> None:
    """Nothing reaches the output at first; the head and, after one step of it, every other weight has a gradient."""
    network = begun(a_start(family, shape), torch.Generator().manual_seed(0))
    x = torch.randn(64, prod(shape) if shape else 5, generator=torch.Generator().manual_seed(1))
    y = torch.randint(3, (64,), generator=torch.Generator().manual_seed(2))
    assert not network(x).any()
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(network(x), y)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(gradient)
    dead = [name for (name, _), g in zip(network.named_parameters(), gradients, strict=True) if not g.any()]
    assert not dead
    assert not network.named[f"biases.{OUTPUT}"].isnan().any()


@pytest.mark.parametrize(("family", "shape"), CASES, ids=NAMES)
def test_gradients_at_preactivations_are_autograds(family: AbstractFamily, shape: tuple[int, ...]) -> None:
    network = Network(a_start(family, shape), torch.float64)
    for i, parameter in enumerate(network.parameters()):
        parameter.data = 0.5 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64
        )
    trace = network.trace(torch.randn(6, prod(shape) if shape else 5, dtype=torch.float64))
    nodes = [name for name in network.arch.order if name != INPUT]
    at_output = torch.randn(6, 3, dtype=torch.float64)
    wanted = torch.autograd.grad(trace.output, [trace.preactivations[name] for name in nodes], at_output)
    found = backpropagate(network, trace, at_output, nodes, Meter())
    for name, gradient in zip(nodes, wanted, strict=True):
        assert torch.allclose(found[name], gradient, atol=1e-12), name


def test_a_block_over_positions_is_that_of_a_mixer() -> None:
    """Against the formula: tokens T = X^T, T + D relu(U T) along the positions of every channel, and back."""
    (mixer,) = (family for family in FAMILIES if family.name == "mixer")
    network = Network(a_start(mixer, (2, 8, 8), widths=(5,), patch=2), torch.float64)
    for i, parameter in enumerate(network.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
    trace = network.trace(torch.randn(3, 128, dtype=torch.float64))
    patches = trace.values["h1"].flatten(2)
    named, bias = network.named, network.named["biases.h4"]
    tokens = patches + named["biases.h2"].view(1, 1, -1)
    hidden = torch.relu(torch.einsum("kp,ncp->nck", named["weights.h2>h3"][..., 0], tokens) + named["biases.h3"])
    mixed = tokens + torch.einsum("pk,nck->ncp", named["weights.h3>h4"][..., 0], hidden) + bias
    wanted = mixed + named["biases.h5"].view(1, -1, 1)
    assert torch.allclose(trace.values["h5"].flatten(2), wanted, atol=1e-12)
    assert network.arch.readings["h4", "h5"] == Transposed((4, 4))


def test_the_linear_start_is_the_one_of_before() -> None:
    """Ledgers of earlier versions begin there."""
    facts = Facts("classification", 5, 3, 100, 1.0)
    assert facts.start(NetworkPlan()) == Architecture.simplest(5, 3)
    assert replace(facts, shape=(5,)).start(NetworkPlan()) == Architecture.simplest(5, 3)
    image = Facts("classification", 128, 3, 100, 1.0, (2, 8, 8))
    assert image.start(NetworkPlan()) == Architecture.simplest(2, 3, (8, 8))
    convolution = image.start(NetworkPlan(start="convolution"))
    assert [str(node.size) for node in convolution.nodes] == ["2", "1", "3"]
    assert image.flops_scale(a_plan(NetworkPlan())) == 16 * 2 * 128 * 3


def a_plan(network: NetworkPlan, growth: Growth | None = None) -> Plan:
    member = Member(name="m", strategy=Mdl(), initializer=Tiny(), growth=growth or Growth())
    return Plan(data=Teacher(), members=(member,), network=network, budget=Budget())


@pytest.mark.parametrize("name", ["vgg", "resnet", "mixer"])
def test_a_family_of_maps_refuses_vectors(name: str) -> None:
    with pytest.raises(ConfigError, match=r"'" + name + r"'.*plain vector of 5 features.*data\.shape"):
        Facts("classification", 5, 3, 100, 1.0).start(NetworkPlan(family=name))


def test_starts_that_do_not_fit_are_refused() -> None:
    image = Facts("classification", 36, 3, 100, 1.0, (1, 6, 6))
    with pytest.raises(ConfigError, match=r"`network\.patch` must divide 6 and 6"):
        image.start(NetworkPlan(family="mixer"))
    with pytest.raises(ConfigError, match="more than one patch"):
        image.start(NetworkPlan(family="mixer", patch=6))
    with pytest.raises(ConfigError, match="one stream"):
        image.start(NetworkPlan(family="mixer", patch=3, widths=(4, 4)))
    with pytest.raises(ConfigError, match="6x6"):
        image.start(NetworkPlan(family="vgg", widths=(2, 2, 2, 2)))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"family": "vggg"}, "dag, mlp, vgg, resnet, mixer, but got 'vggg'"),
        ({"activation": "sigmund"}, "sigmund"),
        ({"dropout": 1.0}, "dropout < 1"),
        ({"kernels": (2,)}, "odd"),
        ({"kernels": ()}, "odd"),
        ({"cells": 0}, "cells >= 1"),
        ({"patch": 0}, "patch >= 1"),
        ({"widths": (4,)}, "write null"),
        ({"family": "mlp", "widths": ()}, "at least one"),
        ({"family": "mlp", "widths": (4, 0)}, "widths.1 >= 1"),
        ({"family": "mlp", "start": "convolution"}, "for dag"),
    ],
)
def test_choices_out_of_range_are_refused(choices: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NetworkPlan(**choices)  # type: ignore[arg-type]


def test_a_move_that_the_family_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'mlp' has no add_edge; it has widen"):
        a_plan(NetworkPlan(family="mlp"), Growth(moves=("widen", "add_edge")))
    plan = a_plan(NetworkPlan(family="mlp"), Growth(moves=("widen",)))
    assert plan.moves(plan.members[0]) == ("widen",)
    every = a_plan(NetworkPlan(family="mlp"))
    assert every.moves(every.members[0]) == every.network.moves


def test_a_schedule_of_depth_finds_the_layers_of_a_chain(tmp_path: Path) -> None:
    """autogrow reads how much deeper a move makes the network, of moves without a site too."""
    data = Teacher(inputs=6, units=6, classes=3, rows=300)
    member = Member(
        name="m",
        strategy=AutoGrow(),
        initializer=Tiny(),
        training=Training(examples_per_round=96, final_examples=64),
        probe=Probe(examples=64, blocks=2),
    )
    plan = Plan(data=data, members=(member,), network=NetworkPlan(family="mlp"), campaign=Campaign(rounds=1))
    dataset = prepare(data, 0)
    facts = Facts("classification", dataset.inputs, dataset.outputs, len(dataset.train), 1.0)
    worker = Worker(plan, facts, dataset, CheckpointStore(tmp_path))
    (start,) = worker.run([Task("start", "m", 0)])
    (report,) = worker.run([Task("round", "m", 1, start["head"]["checkpoint"])])
    assert [row["move"]["kind"] for row in report["candidates"]] == ["insert_layer"]
    assert report["candidates"][0]["measurements"] == {"added_depth": 1.0}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("dimensions", [0, 2])
def test_a_campaign_of_a_family_runs_to_its_end(family: AbstractFamily, dimensions: int, tmp_path: Path) -> None:
    """Every kind of move is probed by one of the members, and what is adopted goes on."""
    if dimensions not in family.dimensions:
        return
    data: AbstractSource = Patterns(size=8, rows=300) if dimensions else Teacher(inputs=6, units=6, classes=3, rows=900)
    network = NetworkPlan(family=family.name, patch=2, norm="batch" if dimensions else "none")
    strategies: dict[str, AbstractStrategy] = {"mdl": Mdl(), "rl": Rl()}
    strategies |= {kind: RandomStrategy() for kind in network.known_moves}
    # A dag has no node to prune or to go on from before it has added one.
    first = {"add_node"} & {*network.known_moves}
    members = tuple(
        Member(
            name=name,
            strategy=strategy,
            initializer=RandomInitializer() if isinstance(strategy, RandomStrategy) else Tiny(),
            training=Training(examples_per_round=96, final_examples=64),
            growth=Growth(
                moves=(name, *sorted(first - {name})) if name in network.known_moves else None,
                units=(1, 2),
                price=0.0,
                statistics_examples=64,
                candidates=8,
                patience=9,
            ),
            probe=Probe(examples=64, blocks=2),
        )
        for name, strategy in strategies.items()
    )
    plan = Plan(data=data, members=members, network=network, campaign=Campaign(rounds=4), selection=Independent())
    dataset = prepare(data, 0)
    facts = Facts("classification", dataset.inputs, dataset.outputs, len(dataset.train), 1.0, dataset.shape)
    folder = CampaignFolder(tmp_path)
    coordinator = Coordinator(plan, facts)
    run_campaign(coordinator, folder.ledger, folder.store, SerialPool(Worker(plan, facts, dataset, folder.store)))
    assert coordinator.done
    events = list(folder.ledger.read())
    rows = [row for event in events if "report" in event for row in event["report"].get("candidates", [])]
    # An edge needs two nodes that none joins yet, which a few rounds need not come to.
    assert {row["move"]["kind"] for row in rows} >= {*network.known_moves} - {"add_edge"}
    assert all(np.isfinite(row["gain"]) for row in rows)
    assert sum(head.adopted for head in coordinator.heads.values())
    for head in coordinator.heads.values():
        assert folder.store.load(head.network["checkpoint"]).network.arch.arch_id == head.network["arch_id"]
