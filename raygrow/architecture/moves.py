"""Moves: the ways one architecture becomes another, their legality and their enumeration.

Everything here follows from the architecture alone, without a model or a tensor, so that every process that enumerates
the moves of an architecture finds the same ones in the same order.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from raygrow.architecture.activations import ACTIVATIONS
from raygrow.architecture.cost import forward_flops, params
from raygrow.architecture.spec import INPUT, OUTPUT, Architecture, Edge, Node
from raygrow.errors import MoveError


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A place where weights can be added: what the new weights read and what they feed.

    A new unit at a site reads the values of ``sources`` and adds to the pre-activations of ``targets``. Widening a node
    and adding a node are the same mathematics at different sites (growth_math 1.2 and 2.2); an edge has one source
    and one target and no unit between.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    activation: str | None

    def __str__(self) -> str:
        return f"{'+'.join(self.sources)}>{'+'.join(self.targets)}"


class AbstractMove(ABC):
    """One change of an architecture: a frozen value without weights."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def site(self) -> str:
        """Where it acts, in one word of a table."""

    @property
    @abstractmethod
    def units(self) -> int:
        """New units (0 where a move adds none)."""

    @abstractmethod
    def apply(self, arch: Architecture) -> Architecture:
        """The architecture after the move.

        Raises:
            MoveError: the move is illegal here.
        """

    @abstractmethod
    def place(self, arch: Architecture) -> Site | None:
        """The site whose statistics the initializer needs; None where nothing is initialised."""

    @classmethod
    @abstractmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], activation: str) -> Iterator[AbstractMove]:
        """Every legal move of this kind on ``arch``, in the given sizes."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain form, with ``kind``; inverse of ``move_from_json``."""

    @property
    def key(self) -> str:
        """A name that is unique among the moves of one architecture."""
        return f"{self.kind}:{self.site}:{self.units}"


def _check_units(move: AbstractMove) -> None:
    if move.units < 1:
        raise MoveError(f"{move!r}: `units >= 1` must hold")


@final
@dataclass(frozen=True, slots=True)
class Widen(AbstractMove):
    """More units in an existing hidden node."""

    kind: ClassVar[str] = "widen"
    node: str
    added: int

    @property
    def site(self) -> str:
        return self.node

    @property
    def units(self) -> int:
        return self.added

    def apply(self, arch: Architecture) -> Architecture:
        _check_units(self)
        if self.node not in arch.hidden:
            raise MoveError(f"{self!r}: {self.node!r} is no hidden node; hidden nodes: {arch.hidden}")
        grown = tuple(replace(n, size=n.size + self.added) if n.name == self.node else n for n in arch.nodes)
        return Architecture(grown, arch.edges)

    def place(self, arch: Architecture) -> Site:
        return Site(arch.parents(self.node), arch.children(self.node), arch.by_name[self.node].activation)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], activation: str) -> Iterator[Widen]:
        for node in arch.hidden:
            for count in units:
                yield cls(node, count)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "node": self.node, "added": self.added}


@final
@dataclass(frozen=True, slots=True)
class AddNode(AbstractMove):
    """A new hidden node between any parents and children: how depth and parallel paths grow."""

    kind: ClassVar[str] = "add_node"
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    size: int
    activation: str

    @property
    def site(self) -> str:
        return str(Site(self.sources, self.targets, self.activation))

    @property
    def units(self) -> int:
        return self.size

    def name_in(self, arch: Architecture) -> str:
        """The name the new node gets: ``h`` and the number after the highest there is."""
        numbers = [int(name[1:]) for name in arch.hidden if re.fullmatch(r"h\d+", name)]
        return f"h{1 + max(numbers, default=0)}"

    def apply(self, arch: Architecture) -> Architecture:
        _check_units(self)
        _check_ends(self, arch, self.sources, self.targets)
        if self.activation not in ACTIVATIONS:
            raise MoveError(f"{self!r}: unknown activation; known: {', '.join(ACTIVATIONS)}")
        name = self.name_in(arch)
        node = Node(name, self.size, self.activation)
        edges = (*(Edge(s, name) for s in self.sources), *(Edge(name, t) for t in self.targets))
        return Architecture((*arch.nodes[:-1], node, arch.nodes[-1]), (*arch.edges, *edges))

    def place(self, arch: Architecture) -> Site:
        return Site(self.sources, self.targets, self.activation)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], activation: str) -> Iterator[AddNode]:
        """One node between every ordered pair, and one reading all the inputs of a node that has several.

        Any other set of parents and children is legal too; listing them all would be exponential.
        """
        for source, target in _ordered_pairs(arch):
            for count in units:
                yield cls((source,), (target,), count, activation)
        for target in arch.order[1:]:
            if len(arch.parents(target)) > 1:
                for count in units:
                    yield cls(arch.parents(target), (target,), count, activation)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "sources": list(self.sources),
            "targets": list(self.targets),
            "size": self.size,
            "activation": self.activation,
        }


@final
@dataclass(frozen=True, slots=True)
class AddEdge(AbstractMove):
    """A linear skip connection between two nodes that no edge joins yet."""

    kind: ClassVar[str] = "add_edge"
    source: str
    target: str

    @property
    def site(self) -> str:
        return f"{self.source}>{self.target}"

    @property
    def units(self) -> int:
        return 0

    def apply(self, arch: Architecture) -> Architecture:
        _check_ends(self, arch, (self.source,), (self.target,))
        edge = Edge(self.source, self.target)
        if edge in arch.edges:
            raise MoveError(f"{self!r}: the edge exists already")
        return Architecture(arch.nodes, (*arch.edges, edge))

    def place(self, arch: Architecture) -> Site:
        return Site((self.source,), (self.target,), None)

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], activation: str) -> Iterator[AddEdge]:
        for source, target in _ordered_pairs(arch):
            if Edge(source, target) not in arch.edges:
                yield cls(source, target)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "source": self.source, "target": self.target}


@final
@dataclass(frozen=True, slots=True)
class Hold(AbstractMove):
    """No change: the control arm of every probe."""

    kind: ClassVar[str] = "hold"

    @property
    def site(self) -> str:
        return ""

    @property
    def units(self) -> int:
        return 0

    def apply(self, arch: Architecture) -> Architecture:
        return arch

    def place(self, arch: Architecture) -> None:
        return None

    @classmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], activation: str) -> Iterator[Hold]:
        yield cls()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}


MOVES: tuple[type[AbstractMove], ...] = (Widen, AddNode, AddEdge, Hold)
GROWING_MOVES: tuple[type[AbstractMove], ...] = tuple(move for move in MOVES if move is not Hold)


def move_from_json(form: Mapping[str, Any]) -> AbstractMove:
    """Inverse of ``AbstractMove.to_json``."""
    for cls in MOVES:
        if cls.kind == form.get("kind"):
            fields = {k: tuple(v) if isinstance(v, list) else v for k, v in form.items() if k != "kind"}
            return cls(**fields)
    raise MoveError(f"unknown move kind {form.get('kind')!r}; known: {', '.join(m.kind for m in MOVES)}")


def legal_moves(
    arch: Architecture,
    *,
    kinds: Iterable[str],
    units: Sequence[int],
    activation: str,
    max_flops: int | None = None,
    max_params: int | None = None,
) -> tuple[AbstractMove, ...]:
    """Every legal growing move, sorted, that stays within the budget.

    Args:
        kinds: kinds of move to consider (``widen``, ``add_node``, ``add_edge``).
        units: sizes to offer, ascending.
        activation: of new nodes.
        max_flops: forward FLOPs per example that the grown architecture may not exceed.
        max_params: parameters that it may not exceed.
    """
    wanted = set(kinds)
    found: list[AbstractMove] = []
    for cls in GROWING_MOVES:
        if cls.kind not in wanted:
            continue
        for move in cls.enumerate(arch, sorted(set(units)), activation):
            grown = move.apply(arch)
            if max_flops is not None and forward_flops(grown) > max_flops:
                continue
            if max_params is not None and params(grown) > max_params:
                continue
            found.append(move)
    return tuple(sorted(found, key=lambda move: (move.kind, move.site, move.units)))


def _check_ends(move: AbstractMove, arch: Architecture, sources: Sequence[str], targets: Sequence[str]) -> None:
    for name in (*sources, *targets):
        if name not in arch.by_name:
            raise MoveError(f"{move!r}: unknown node {name!r}; known: {', '.join(arch.by_name)}")
    if not sources or not targets:
        raise MoveError(f"{move!r}: at least one source and one target are needed")
    if len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise MoveError(f"{move!r}: sources and targets must each be distinct")
    for source in sources:
        for target in targets:
            if source == target or target in arch.ancestors(source) or target == INPUT or source == OUTPUT:
                raise MoveError(f"{move!r}: {source}->{target} would close a cycle or enter {INPUT!r}")


def _ordered_pairs(arch: Architecture) -> Iterator[tuple[str, str]]:
    for target in arch.order:
        for source in arch.order:
            closes = source == target or target in arch.ancestors(source)
            if not closes and target != INPUT and source != OUTPUT:
                yield source, target
