"""Architectures, their costs and their moves: held against torch's FLOP counter, networkx and brute force."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable, Sequence

import networkx as nx  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raygrow.architecture import (
    ACTIVATIONS,
    GROWING_MOVES,
    INPUT,
    MOVES,
    OUTPUT,
    AbstractMove,
    AddBlock,
    AddEdge,
    AddNode,
    Architecture,
    Candidate,
    Edge,
    Hold,
    InsertLayer,
    Node,
    Palette,
    Prune,
    Site,
    Widen,
    backward_flops,
    digest_seed,
    forward_flops,
    legal_moves,
    move_from_json,
    params,
    training_flops,
)
from raygrow.errors import MoveError
from raygrow.nn import Network
from raygrow.testing import SOME_MOVES, a_network

LINEAR = Architecture.simplest(5, 3)
KINDS = tuple(move.kind for move in GROWING_MOVES)


def chain(*sizes: int) -> Architecture:
    """Input, hidden layers of these sizes one after the other, output."""
    names = [INPUT, *(f"h{i}" for i in range(1, len(sizes) - 1)), OUTPUT]
    hidden = [Node(name, size, "tanh") for name, size in zip(names[1:-1], sizes[1:-1], strict=True)]
    return Architecture(
        (Node(INPUT, sizes[0], "identity"), *hidden, Node(OUTPUT, sizes[-1], "identity")),
        tuple(Edge(a, b) for a, b in itertools.pairwise(names)),
    )


def graph_of(arch: Architecture) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(node.name for node in arch.nodes)
    graph.add_edges_from((edge.source, edge.target) for edge in arch.edges)
    return graph


def random_dag(seed: int) -> Architecture:
    """A DAG of up to five hidden nodes whose edges follow a shuffled order of the names."""
    rng = np.random.default_rng(seed)
    names = [f"h{i}" for i in range(1, 2 + int(rng.integers(1, 5)))]
    walk = [INPUT, *(str(name) for name in rng.permutation(names)), OUTPUT]
    pairs = set(itertools.pairwise(walk))
    pairs |= {pair for pair in itertools.combinations(walk, 2) if rng.random() < 0.4}
    kinds = list(ACTIVATIONS)
    hidden = [Node(name, int(rng.integers(1, 7)), kinds[int(rng.integers(len(kinds)))]) for name in names]
    ends = Node(INPUT, int(rng.integers(1, 8)), "identity"), Node(OUTPUT, int(rng.integers(1, 5)), "identity")
    return Architecture((ends[0], *hidden, ends[1]), tuple(Edge(*pair) for pair in pairs))


SEVERAL: tuple[Architecture, ...] = (
    LINEAR,
    chain(7, 4, 2),
    chain(6, 8, 3, 5, 2),
    a_network("tanh").arch,
    *(random_dag(seed) for seed in range(6)),
)


def counted(work: Callable[[], object]) -> int:
    """FLOPs of what ``work`` does, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


# --- costs


@pytest.mark.parametrize("arch", SEVERAL, ids=lambda arch: arch.arch_id)
def test_costs_are_those_torch_counts(arch: Architecture) -> None:
    n = 3
    network = Network(arch)
    x = torch.randn(n, arch.size(INPUT))
    parameters = list(network.parameters())
    assert params(arch) == sum(p.numel() for p in parameters)
    assert counted(lambda: network(x)) == n * forward_flops(arch) == n * network.flops
    output = network(x).sum()
    assert counted(lambda: torch.autograd.grad(output, parameters)) == n * backward_flops(arch)
    assert counted(lambda: torch.autograd.grad(network(x).sum(), parameters)) == n * training_flops(arch)
    trace = network.trace(x)
    at = list(trace.preactivations.values())
    to_preactivations = counted(lambda: torch.autograd.grad(trace.output.sum(), at))
    assert to_preactivations == n * backward_flops(arch, weights=False)


def test_costs_of_a_layer_by_hand() -> None:
    arch = chain(64, 128, 10)
    assert params(arch) == 64 * 128 + 128 + 128 * 10 + 10
    assert forward_flops(arch) == 2 * (64 * 128 + 128 * 10)
    # growth_math 6: a training step is 3 forward passes minus the first layer's input gradient, 2.135 for this one.
    assert training_flops(arch) / forward_flops(arch) == pytest.approx(2.135, abs=5e-4)


# --- description


@pytest.mark.parametrize("arch", SEVERAL, ids=lambda arch: arch.arch_id)
def test_canonical_json_goes_there_and_back_exactly(arch: Architecture) -> None:
    text = arch.canonical()
    twin = Architecture.from_json(json.loads(text))
    assert twin == arch
    assert hash(twin) == hash(arch)
    assert twin.canonical() == text
    assert twin.arch_id == arch.arch_id
    pickled = pickle.loads(pickle.dumps(arch))
    assert pickled == arch
    assert pickled.arch_id == arch.arch_id


def test_arch_id_is_stable() -> None:
    """Golden values: ledgers and checkpoints of earlier versions name architectures by them."""
    assert Architecture.simplest(5, 3).arch_id == "c0e72202ebfe4e6a"
    assert chain(64, 128, 10).arch_id == "2db520b927ebab40"


def test_arch_id_does_not_depend_on_the_order_in_which_edges_are_given() -> None:
    arch = a_network("tanh").arch
    assert Architecture(arch.nodes, (*arch.edges[::-1], arch.edges[0])) == arch


def test_different_architectures_have_different_ids() -> None:
    base = chain(6, 4, 4, 2)
    relu = Architecture((base.nodes[0], Node("h1", 4, "relu"), *base.nodes[2:]), base.edges)
    others = [base, relu, chain(6, 5, 4, 2), chain(6, 4, 5, 2), chain(6, 4, 2), AddEdge(INPUT, OUTPUT).apply(base)]
    moves = legal_moves(base, kinds=KINDS, units=(1, 2), palette=Palette("relu"))
    archs = {arch.canonical(): arch.arch_id for arch in [*others, *SEVERAL, *(move.apply(base) for move in moves)]}
    assert len(archs) > 25
    assert len(set(archs.values())) == len(archs)


def test_another_format_is_refused() -> None:
    with pytest.raises(MoveError, match="format 7"):
        Architecture.from_json({**LINEAR.to_json(), "format": 7})


@pytest.mark.parametrize("arch", SEVERAL, ids=lambda arch: arch.arch_id)
def test_order_ancestors_and_depth_are_those_of_networkx(arch: Architecture) -> None:
    graph = graph_of(arch)
    assert sorted(arch.order) == sorted(graph.nodes)
    assert all(arch.order.index(edge.source) < arch.order.index(edge.target) for edge in arch.edges)
    assert arch.order[0] == INPUT
    assert arch.order[-1] == OUTPUT
    assert arch.depth == nx.dag_longest_path_length(graph)
    for name in graph.nodes:
        assert arch.ancestors(name) == nx.ancestors(graph, name)
        assert set(arch.parents(name)) == set(graph.predecessors(name))
        assert set(arch.children(name)) == set(graph.successors(name))


START, H1, H2, END = (Node(name, 2, "tanh" if name[0] == "h" else "identity") for name in (INPUT, "h1", "h2", OUTPUT))
THROUGH = (Edge(INPUT, "h1"), Edge("h1", OUTPUT))


@pytest.mark.parametrize(
    ("nodes", "edges", "named"),
    [
        ((START, H1, H2, END), (*THROUGH, Edge("h1", "h2"), Edge("h2", "h1")), ("h1", "h2")),
        ((START, H1, END), (*THROUGH, Edge("h1", "h1")), ("h1",)),
        ((START, H1, END), (*THROUGH, Edge("h7", OUTPUT)), ("h7",)),
        ((START, H1, END), (*THROUGH, Edge(INPUT, "h8")), ("h8",)),
        ((START, H1, H2, END), (*THROUGH, Edge(INPUT, "h2")), ("h2",)),
        ((START, H1, H2, END), (*THROUGH, Edge("h2", OUTPUT)), ("h2",)),
        ((START, H1, H2, END), THROUGH, ("h2",)),
        ((START, H1, H1, END), THROUGH, ("h1",)),
        ((START, END), (Edge(OUTPUT, INPUT),), (INPUT, OUTPUT)),
        ((START, H1, END), (*THROUGH, Edge("h1", INPUT)), ("h1", INPUT)),
        ((START, H1, END), (*THROUGH, Edge(OUTPUT, "h1")), ("h1", OUTPUT)),
        ((H1, END), (Edge("h1", OUTPUT),), ("h1",)),
        ((END, H1, START), THROUGH, (INPUT, OUTPUT)),
        ((), (), (INPUT, OUTPUT)),
    ],
)
def test_a_graph_that_is_no_network_is_refused(
    nodes: tuple[Node, ...], edges: tuple[Edge, ...], named: Sequence[str]
) -> None:
    with pytest.raises(MoveError) as caught:
        Architecture(nodes, edges)
    assert all(name in str(caught.value) for name in named)


def test_a_node_that_cannot_be_is_refused() -> None:
    with pytest.raises(MoveError, match=r"'h4'.*got 0"):
        Node("h4", 0, "tanh")
    with pytest.raises(MoveError, match=r"'h4'.*'sigmund'"):
        Node("h4", 1, "sigmund")


# --- moves


def by_hand(arch: Architecture, units: Sequence[int], activation: str) -> set[AbstractMove]:
    """Every legal move, found by adding it to a networkx graph and looking for cycles."""
    found: set[AbstractMove] = {Widen(name, k) for name in arch.hidden for k in units}
    found |= {Prune(name, k) for name in arch.hidden for k in units if k < arch.size(name)}
    for name in arch.hidden:
        if arch.by_name[name].activation == activation == "relu":
            found.add(InsertLayer(name, arch.size(name)))
        if arch.by_name[name].activation == "identity":
            found |= {AddBlock(name, k, activation) for k in units}
    graph = graph_of(arch)

    def stays_acyclic(pairs: Sequence[tuple[str, str]]) -> bool:
        grown = graph.copy()
        grown.add_edges_from(pairs)
        return nx.is_directed_acyclic_graph(grown) and not grown.pred[INPUT] and not grown.succ[OUTPUT]

    for source, target in itertools.product(graph.nodes, repeat=2):
        if stays_acyclic([(source, "new"), ("new", target)]):
            found |= {AddNode((source,), (target,), k, activation) for k in units}
        if not graph.has_edge(source, target) and stays_acyclic([(source, target)]):
            found.add(AddEdge(source, target))
    for target in graph.nodes:
        parents = sorted(graph.pred[target])
        if len(parents) > 1:
            found |= {AddNode(tuple(parents), (target,), k, activation) for k in units}
    return found


@pytest.mark.parametrize("arch", SEVERAL, ids=lambda arch: arch.arch_id)
def test_legal_moves_are_those_found_by_brute_force(arch: Architecture) -> None:
    expected = by_hand(arch, (2, 5), "relu")
    moves = legal_moves(arch, kinds=KINDS, units=(5, 2, 5), palette=Palette("relu"))
    assert len(moves) == len(expected)
    assert set(moves) == expected
    assert list(moves) == sorted(moves, key=lambda move: (move.kind, move.site, move.units))
    assert len({move.key for move in moves}) == len(moves)
    assert moves == legal_moves(
        Architecture.from_json(arch.to_json()), kinds=KINDS[::-1], units=(2, 5), palette=Palette("relu")
    )
    for kind in KINDS:
        of_kind = legal_moves(arch, kinds=(kind,), units=(2, 5), palette=Palette("relu"))
        assert of_kind == tuple(move for move in moves if move.kind == kind)


@pytest.mark.parametrize("arch", SEVERAL, ids=lambda arch: arch.arch_id)
def test_legal_moves_stay_within_the_budgets(arch: Architecture) -> None:
    every = by_hand(arch, (1, 3), "tanh")
    grown = {move: move.apply(arch) for move in every}
    flops = {
        move: 2 * sum(a.size(e.source) * a.size(e.target) for e in a.edges if e.reading.weighted)
        for move, a in grown.items()
    }
    count = {move: flops[move] // 2 + sum(n.size for n in a.nodes if n.name != INPUT) for move, a in grown.items()}
    most_flops, most_params = sorted(flops.values())[len(every) // 2], sorted(count.values())[len(every) // 3]
    within = {move for move in every if flops[move] <= most_flops and count[move] <= most_params}
    found = legal_moves(
        arch, kinds=KINDS, units=(1, 3), palette=Palette("tanh"), max_flops=most_flops, max_params=most_params
    )
    assert set(found) == within
    assert 0 < len(within) < len(every)
    left = legal_moves(arch, kinds=KINDS, units=(1,), palette=Palette("tanh"), max_flops=forward_flops(arch))
    assert all(isinstance(move, Prune) for move in left)


@pytest.mark.parametrize("arch", [LINEAR, chain(3, 2, 2, 2), a_network("tanh").arch, random_dag(1)])
def test_a_node_between_any_sets_is_legal_iff_the_graph_stays_acyclic(arch: Architecture) -> None:
    names = [node.name for node in arch.nodes][:5]
    subsets = [s for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]
    graph = graph_of(arch)
    legal = 0
    for sources, targets in itertools.product(subsets, repeat=2):
        grown = graph.copy()
        grown.add_edges_from([*((s, "new") for s in sources), *(("new", t) for t in targets)])
        ok = nx.is_directed_acyclic_graph(grown) and INPUT not in targets and OUTPUT not in sources
        move = AddNode(sources, targets, 2, "relu")
        if ok:
            legal += 1
            after = move.apply(arch)
            name = move.landing(arch)[0]
            assert set(after.parents(name)) == set(sources)
            assert set(after.children(name)) == set(targets)
            assert set(arch.edges) < set(after.edges)
        else:
            with pytest.raises(MoveError):
                move.apply(arch)
    assert legal


@pytest.mark.parametrize(
    ("move", "named"),
    [
        (Widen("h9", 1), "h9"),
        (Widen(INPUT, 1), INPUT),
        (Widen(OUTPUT, 1), OUTPUT),
        (Widen("h1", 0), "added=0"),
        (Widen("h1", -2), "added=-2"),
        (AddNode(("input",), ("h9",), 2, "relu"), "h9"),
        (AddNode(("input",), ("output",), 0, "relu"), "size=0"),
        (AddNode(("input",), ("output",), 2, "sigmund"), "sigmund"),
        (AddNode((), ("output",), 2, "relu"), "source"),
        (AddNode(("input",), (), 2, "relu"), "target"),
        (AddNode(("input", "input"), ("output",), 2, "relu"), "distinct"),
        (AddNode(("h2",), ("h1",), 2, "relu"), "h2->h1"),
        (AddNode(("h1",), ("h1",), 2, "relu"), "h1->h1"),
        (AddNode(("input", "output"), ("h1",), 2, "relu"), "output->h1"),
        (AddEdge("input", "h1"), "exists"),
        (AddEdge("h2", "h1"), "h2->h1"),
        (AddEdge("output", "h1"), "output->h1"),
        (AddEdge("h1", "input"), "h1->input"),
        (AddEdge("h1", "h3"), "h3"),
    ],
)
def test_an_illegal_move_is_refused_by_name(move: AbstractMove, named: str) -> None:
    with pytest.raises(MoveError) as caught:
        move.apply(chain(3, 2, 2, 2))
    assert named in str(caught.value)


@pytest.mark.parametrize("arch", SEVERAL, ids=lambda arch: arch.arch_id)
def test_added_costs_are_the_difference_and_the_closed_form(arch: Architecture) -> None:
    kinds = ("widen", "add_node", "add_edge")
    for move in legal_moves(arch, kinds=kinds, units=(1, 4), palette=Palette("relu")):
        grown = move.apply(arch)
        candidate = Candidate("m", 1, arch, move, "tiny", 7)
        assert candidate.arch == grown
        assert candidate.added_flops == forward_flops(grown) - forward_flops(arch) > 0
        site = move.place(arch)
        assert isinstance(site, Site)
        read, fed = (sum(arch.size(name) for name in names) for names in (site.sources, site.targets))
        k = move.units
        weights, biases = (read * fed, 0) if isinstance(move, AddEdge) else (k * (read + fed), k)
        assert candidate.added_flops == 2 * weights
        assert candidate.added_params == params(grown) - params(arch) == weights + biases


def test_new_nodes_get_the_next_name_and_keep_the_old_ones() -> None:
    arch = LINEAR
    for number in range(1, 5):
        move = AddNode((INPUT,), (OUTPUT,), number, "tanh")
        assert move.landing(arch)[0] == f"h{number}"
        before, arch = arch, move.apply(arch)
        assert arch.nodes[:-2] == before.nodes[:-1]
        assert arch.nodes[-1] == before.nodes[-1]
    assert arch.hidden == ("h1", "h2", "h3", "h4")


def test_hold_changes_nothing() -> None:
    for arch in SEVERAL:
        hold: AbstractMove = Hold()
        assert hold.apply(arch) == arch
        assert hold.place(arch) is None
        assert hold.units == 0
        candidate = Candidate("m", 1, arch, hold, "tiny", 0)
        assert candidate.added_flops == candidate.added_params == 0
        assert hold not in legal_moves(arch, kinds=[move.kind for move in MOVES], units=(2,), palette=Palette("relu"))
    assert Hold not in GROWING_MOVES


EXAMPLES: tuple[AbstractMove, ...] = (
    *SOME_MOVES,
    InsertLayer("h1", 4),
    AddBlock("h1", 2, "relu"),
    Prune("h2", 1),
    Hold(),
)


def test_every_move_goes_to_json_and_back() -> None:
    assert {type(move) for move in EXAMPLES} == set(MOVES)
    for move in EXAMPLES:
        twin = move_from_json(json.loads(json.dumps(move.to_json())))
        assert twin == move
        assert type(twin) is type(move)
        assert hash(twin) == hash(move)
        assert pickle.loads(pickle.dumps(move)) == move
    assert len({move.kind for move in MOVES}) == len(MOVES)


@pytest.mark.parametrize("form", [{"kind": "shrink", "node": "h1"}, {"node": "h1", "added": 2}])
def test_an_unknown_kind_of_move_is_refused(form: dict[str, object]) -> None:
    with pytest.raises(MoveError, match=r"shrink|None"):
        move_from_json(form)


# --- candidates and seeds


def test_candidates_go_to_json_and_back() -> None:
    parent = a_network("relu").arch
    for round_number, move in enumerate(EXAMPLES, start=1):
        candidate = Candidate("mdl-0", round_number, parent, move, "gradmax", digest_seed("a", round_number))
        twin = Candidate.from_json(json.loads(json.dumps(candidate.to_json())))
        assert twin == candidate
        assert twin.id == candidate.id
        # No node of this network is linear.
        if not isinstance(move, AddBlock):
            assert twin.arch.arch_id == candidate.arch.arch_id
        assert pickle.loads(pickle.dumps(candidate)) == candidate


def test_candidate_ids_are_unique_in_a_campaign_and_sort_by_round() -> None:
    parent = a_network("relu").arch
    moves = legal_moves(parent, kinds=KINDS, units=(1, 2, 16), palette=Palette("relu"))
    ids = [Candidate(m, r, parent, move, "tiny", 0).id for m in ("a", "b") for r in (1, 2, 10) for move in moves]
    assert len(set(ids)) == len(ids) == 6 * len(moves)
    assert sorted(f"a/{r:04d}" for r in (10, 2)) == [i[:6] for i in (ids[len(moves)], ids[2 * len(moves)])]


def test_digest_seeds_are_63_bit_and_spread() -> None:
    seeds = [digest_seed("train", i) for i in range(400)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 400
    assert 140 < sum(seed >= 2**62 for seed in seeds) < 260
    assert 140 < sum(seed % 2 for seed in seeds) < 260
    for seed in (max(seeds), min(seeds)):
        assert torch.Generator().manual_seed(seed).initial_seed() == seed
        np.random.default_rng(seed)


def test_digest_seeds_depend_on_every_part_its_type_and_the_order() -> None:
    parts: list[tuple[int | str, ...]] = [
        (), ("",), ("a",), ("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("a,b",), ('a","b',), (1,), ("1",), (1, 2),
        (12,), (2, 1), (-1,), (2**63,), ("é",), ("e",),
    ]  # fmt: skip
    assert len({digest_seed(*p) for p in parts}) == len(parts)
    assert all(digest_seed(*p) == digest_seed(*p) for p in parts)
    assert digest_seed("campaign", 0, "member", 3) == 2895200387056047131
