"""What a network is: nodes, edges and sizes, without weights.

A node v computes its pre-activation ``a_v = bias_v + sum over edges u->v of what v reads of h_u`` and its value ``h_v``: the
pre-activation normalised, through the activation, pooled. The graph is directed and acyclic, from the single node ``input`` to
the single node ``output`` (whose activation is the identity). This is the growing DAG of Douka et al. (ESANN 2025), with
positions: a vector has none, a signal a line of them, an image a grid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from raygrow.architecture.activations import ACTIVATIONS
from raygrow.architecture.readings import LINEAR, AbstractReading, Grid, Linear, Pooled, reading_from_json
from raygrow.errors import MoveError

INPUT, OUTPUT = "input", "output"
FORMAT = 1
NORMS = ("none", "batch", "layer", "group")


def least_units(norm: str, grid: Grid) -> int:
    """Units of the smallest block that a norm does not flatten: it must see two numbers."""
    return 2 if norm == "layer" or (norm == "group" and prod(grid) == 1) else 1


@dataclass(frozen=True, slots=True)
class Node:
    """A layer of ``size`` units (channels) at every position of its grid.

    Attributes:
        grid: positions of the pre-activation; () for a vector.
        norm: of the pre-activation, before the activation. ``batch``: every unit over examples and positions; ``layer``: the
            units of a block at every position; ``group``: the units of a block and all positions together.
        blocks: sizes of the blocks of units that ``layer`` and ``group`` normalise together; their sum is ``size``. New units
            are a block of their own, so that old ones compute what they did.
        pool: window and stride of a maximum over positions, after the activation; 1 for none.
        dropout: share of the values that training sets to 0, in [0, 1).

    Raises:
        MoveError: a field is out of range.
    """

    name: str
    size: int
    activation: str
    grid: Grid = ()
    norm: str = "none"
    blocks: tuple[int, ...] = ()
    pool: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise MoveError(f"node {self.name!r}: `size >= 1` must hold, but got {self.size}")
        if self.activation not in ACTIVATIONS:
            raise MoveError(
                f"node {self.name!r}: unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}"
            )
        if self.norm not in NORMS:
            raise MoveError(f"node {self.name!r}: unknown norm {self.norm!r}; known: {', '.join(NORMS)}")
        if (sum(self.blocks) != self.size) if self.norm in ("layer", "group") else self.blocks:
            raise MoveError(f"node {self.name!r}: blocks {self.blocks} do not add up to {self.size} normalised units")
        if min(self.blocks, default=self.size) < (least := least_units(self.norm, self.grid)):
            raise MoveError(
                f"node {self.name!r}: a block of {self.norm} norm must have at least {least} units here, but got {self.blocks}"
            )
        if self.pool < 1 or any(n < self.pool for n in self.grid):
            raise MoveError(f"node {self.name!r}: `1 <= pool <= positions` must hold, but got {self.pool}")
        if self.pool > 1 and not self.grid:
            raise MoveError(f"node {self.name!r}: a vector has no positions to pool, but `pool` is {self.pool}")
        if not 0 <= self.dropout < 1:
            raise MoveError(f"node {self.name!r}: `0 <= dropout < 1` must hold, but got {self.dropout}")

    @property
    def value_grid(self) -> Grid:
        """Positions of the value."""
        return self.grid if self.pool == 1 else tuple(n // self.pool for n in self.grid)

    @property
    def linear(self) -> bool:
        """Whether the value is the pre-activation itself, in training too."""
        return self.activation == "identity" and self.norm == "none" and self.pool == 1 and self.dropout == 0

    @property
    def plain(self) -> bool:
        """A dense layer and nothing else."""
        return not self.grid and self.norm == "none" and self.dropout == 0

    def widened(self, added: int) -> Node:
        """With so many more units."""
        blocks = (*self.blocks, added) if self.blocks else ()
        return replace(self, size=self.size + added, blocks=blocks)

    def to_json(self) -> dict[str, Any]:
        form: dict[str, Any] = {
            "kind": "map" if self.grid else "dense",
            "name": self.name,
            "size": self.size,
            "activation": self.activation,
        }
        more = {"grid": list(self.grid), "norm": self.norm, "blocks": list(self.blocks), "pool": self.pool,
                "dropout": self.dropout}  # fmt: skip
        plain = {"grid": [], "norm": "none", "blocks": [], "pool": 1, "dropout": 0.0}
        return form | {key: value for key, value in more.items() if value != plain[key]}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Node:
        """Inverse of ``to_json``."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in form.items() if k != "kind"}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Edge:
    """``target`` reads the value of ``source``."""

    source: str
    target: str
    reading: AbstractReading = LINEAR

    def to_json(self) -> dict[str, Any]:
        return self.reading.to_json() | {"source": self.source, "target": self.target}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Edge:
        """Inverse of ``to_json``."""
        ends = {"source": form["source"], "target": form["target"]}
        return cls(**ends, reading=reading_from_json({k: v for k, v in form.items() if k not in ends}))


@dataclass(frozen=True)
class Architecture:
    """An immutable network description.

    Attributes:
        nodes: ``input`` first, then hidden nodes in order of creation, then ``output``.
        edges: sorted; at most one between two nodes.

    Raises:
        MoveError: the graph has a cycle, an unknown or repeated name, a node that no path joins to both ends, or an edge whose
            reading does not give what its target takes.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise MoveError(f"node names must be distinct, but got {names}")
        if not names or names[0] != INPUT or names[-1] != OUTPUT:
            raise MoveError(f"nodes must run from {INPUT!r} to {OUTPUT!r}, but got {names}")
        object.__setattr__(self, "edges", tuple(sorted(set(self.edges), key=lambda e: (e.source, e.target))))
        for edge in self.edges:
            if edge.source not in self.by_name or edge.target not in self.by_name:
                raise MoveError(f"edge {edge.source}->{edge.target} names an unknown node; known: {', '.join(names)}")
            if edge.target == INPUT or edge.source == OUTPUT:
                raise MoveError(f"edge {edge.source}->{edge.target}: nothing may enter {INPUT!r} or leave {OUTPUT!r}")
            self._check_reading(edge)
        if len(self.readings) != len(self.edges):
            raise MoveError("two nodes may be joined by one edge only")
        for name in names[1:-1]:
            if not self.parents(name) or not self.children(name):
                raise MoveError(f"hidden node {name!r} must have at least one parent and one child")
        if len(self.order) != len(self.nodes):
            stuck = [name for name in names if name not in self.order]
            raise MoveError(f"the graph must be acyclic; a cycle runs through or before these nodes: {stuck}")

    def _check_reading(self, edge: Edge) -> None:
        source, target = self.by_name[edge.source], self.by_name[edge.target]
        found = edge.reading.grid(source.value_grid)
        if found != target.grid:
            raise MoveError(
                f"edge {edge.source}->{edge.target}: {edge.reading.kind} gives positions {found}, but {edge.target!r} has "
                f"{target.grid}"
            )
        if not edge.reading.weighted and (units := edge.reading.units(source.size, source.value_grid)) != target.size:
            raise MoveError(
                f"edge {edge.source}->{edge.target}: {edge.reading.kind} has no weight and so gives as many units as it "
                f"reads, {units}, but {edge.target!r} has {target.size}"
            )

    @classmethod
    def simplest(cls, inputs: int, outputs: int, grid: Grid = ()) -> Architecture:
        """The start of every campaign: ``input -> output``, a linear model of all inputs.

        Args:
            inputs: features, or channels where there is a grid.
        """
        reading: AbstractReading = Pooled(grid) if grid else LINEAR
        return cls(
            nodes=(Node(INPUT, inputs, "identity", grid), Node(OUTPUT, outputs, "identity")),
            edges=(Edge(INPUT, OUTPUT, reading),),
        )

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def readings(self) -> Mapping[tuple[str, str], AbstractReading]:
        """By source and target."""
        return {(e.source, e.target): e.reading for e in self.edges}

    @cached_property
    def plain(self) -> bool:
        """Dense layers joined by matrices and nothing else."""
        return all(n.plain for n in self.nodes) and all(isinstance(e.reading, Linear) for e in self.edges)

    @cached_property
    def _parents(self) -> Mapping[str, tuple[str, ...]]:
        return {n.name: tuple(e.source for e in self.edges if e.target == n.name) for n in self.nodes}

    @cached_property
    def _children(self) -> Mapping[str, tuple[str, ...]]:
        return {n.name: tuple(e.target for e in self.edges if e.source == n.name) for n in self.nodes}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Topological order, ties broken by the order of ``nodes``: every node stands after all its parents."""
        waiting = {node.name: len(self.parents(node.name)) for node in self.nodes}
        placed: list[str] = []
        while ready := [name for name, missing in waiting.items() if missing == 0]:
            name = ready[0]
            del waiting[name]
            placed.append(name)
            for child in self.children(name):
                waiting[child] -= 1
        return tuple(placed)

    @cached_property
    def _ancestors(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for name in self.order:
            found[name] = frozenset().union(*({p} | found[p] for p in self.parents(name)))
        return found

    def parents(self, name: str) -> tuple[str, ...]:
        return self._parents[name]

    def children(self, name: str) -> tuple[str, ...]:
        return self._children[name]

    def ancestors(self, name: str) -> frozenset[str]:
        """Every node from which a path leads to ``name``."""
        return self._ancestors[name]

    @property
    def hidden(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes[1:-1])

    def size(self, name: str) -> int:
        return self.by_name[name].size

    @cached_property
    def depth(self) -> int:
        """Edges on the longest path from input to output."""
        longest: dict[str, int] = {}
        for name in self.order:
            longest[name] = max((longest[p] + 1 for p in self.parents(name)), default=0)
        return longest[OUTPUT]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "nodes": [node.to_json() for node in self.nodes],
            "edges": [edge.to_json() for edge in self.edges],
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Architecture:
        if form.get("format") != FORMAT:
            raise MoveError(f"architecture format {form.get('format')!r} is not {FORMAT}: written by another version")
        return cls(tuple(map(Node.from_json, form["nodes"])), tuple(map(Edge.from_json, form["edges"])))

    def canonical(self) -> str:
        """The one JSON text of this architecture."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @cached_property
    def arch_id(self) -> str:
        """Digest of the canonical JSON, 16 hexadecimal digits."""
        return hashlib.blake2b(self.canonical().encode(), digest_size=8).hexdigest()

    def __str__(self) -> str:
        hidden = " ".join(f"{n.name}[{_shape(n)}]" for n in self.nodes[1:-1]) or "linear"
        return f"{_shape(self.by_name[INPUT])} -> {hidden} -> {self.size(OUTPUT)}"


def _shape(node: Node) -> str:
    return "x".join(map(str, (node.size, *node.grid)))
