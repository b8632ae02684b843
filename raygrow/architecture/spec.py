"""What a network is: nodes, edges and sizes, without weights.

A node v computes its pre-activation ``a_v = bias_v + sum over edges u->v of W_uv h_u`` and its value
``h_v = activation(a_v)``. The graph is directed and acyclic, from the single node ``input`` to the single node
``output`` (whose activation is the identity). This is the growing DAG of Douka et al. (ESANN 2025).

Node and edge *kinds* are written to the JSON form, so that a later kind (convolution, token) is a new value and not a
new format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raygrow.architecture.activations import ACTIVATIONS
from raygrow.errors import MoveError

INPUT, OUTPUT = "input", "output"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Node:
    """A dense layer of ``size`` units."""

    name: str
    size: int
    activation: str

    def __post_init__(self) -> None:
        if self.size < 1:
            raise MoveError(f"node {self.name!r}: `size >= 1` must hold, but got {self.size}")
        if self.activation not in ACTIVATIONS:
            raise MoveError(
                f"node {self.name!r}: unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}"
            )


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """A linear map from the value of ``source`` to the pre-activation of ``target``."""

    source: str
    target: str


@dataclass(frozen=True)
class Architecture:
    """An immutable network description.

    Attributes:
        nodes: ``input`` first, then hidden nodes in order of creation, then ``output``.
        edges: sorted, without repetition.

    Raises:
        MoveError: the graph has a cycle, an unknown or repeated name, or a node that no path joins to both ends.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise MoveError(f"node names must be distinct, but got {names}")
        if not names or names[0] != INPUT or names[-1] != OUTPUT:
            raise MoveError(f"nodes must run from {INPUT!r} to {OUTPUT!r}, but got {names}")
        object.__setattr__(self, "edges", tuple(sorted(set(self.edges))))
        for edge in self.edges:
            if edge.source not in self.by_name or edge.target not in self.by_name:
                raise MoveError(f"edge {edge.source}->{edge.target} names an unknown node; known: {', '.join(names)}")
            if edge.target == INPUT or edge.source == OUTPUT:
                raise MoveError(f"edge {edge.source}->{edge.target}: nothing may enter {INPUT!r} or leave {OUTPUT!r}")
        for name in names[1:-1]:
            if not self.parents(name) or not self.children(name):
                raise MoveError(f"hidden node {name!r} must have at least one parent and one child")
        if len(self.order) != len(self.nodes):
            stuck = [name for name in names if name not in self.order]
            raise MoveError(f"the graph must be acyclic; a cycle runs through or before these nodes: {stuck}")

    @classmethod
    def simplest(cls, inputs: int, outputs: int) -> Architecture:
        """The start of every campaign: ``input -> output``, a linear model."""
        return cls(
            nodes=(Node(INPUT, inputs, "identity"), Node(OUTPUT, outputs, "identity")), edges=(Edge(INPUT, OUTPUT),)
        )

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

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
            "nodes": [
                {"kind": "dense", "name": n.name, "size": n.size, "activation": n.activation} for n in self.nodes
            ],
            "edges": [{"kind": "linear", "source": e.source, "target": e.target} for e in self.edges],
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Architecture:
        if form.get("format") != FORMAT:
            raise MoveError(f"architecture format {form.get('format')!r} is not {FORMAT}: written by another version")
        return cls(
            nodes=tuple(Node(n["name"], n["size"], n["activation"]) for n in form["nodes"]),
            edges=tuple(Edge(e["source"], e["target"]) for e in form["edges"]),
        )

    def canonical(self) -> str:
        """The one JSON text of this architecture."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @cached_property
    def arch_id(self) -> str:
        """Digest of the canonical JSON, 16 hexadecimal digits."""
        return hashlib.blake2b(self.canonical().encode(), digest_size=8).hexdigest()

    def __str__(self) -> str:
        hidden = " ".join(f"{n.name}[{n.size}]" for n in self.nodes[1:-1]) or "linear"
        return f"{self.size(INPUT)} -> {hidden} -> {self.size(OUTPUT)}"
