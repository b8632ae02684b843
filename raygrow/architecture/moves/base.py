"""What a move is, and the site where it acts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import LINEAR, AbstractReading, Grid
from raygrow.architecture.spec import INPUT, OUTPUT, Architecture, Node
from raygrow.errors import MoveError


@dataclass(frozen=True, slots=True)
class Site:
    """A place where weights can be added: what the new weights read and what they feed.

    A new unit at a site reads the values of ``sources`` and adds to the pre-activations of ``targets``. Widening a node
    and adding a node are the same mathematics at different sites (growth_math 1.2 and 2.2); an edge has one source
    and one target and no unit between.

    Attributes:
        activation: of the units; None for an edge.
        reads: how they read each source (for an edge, how the target reads it); linear where nothing is said.
        feeds: how each target reads them; empty for an edge.
        grid: positions of the units' pre-activations.
        norm, pool: of the units.
        node: the widened node; None where the units are a new node's. Two moves at one place may differ in this alone.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    activation: str | None
    reads: tuple[AbstractReading, ...] = ()
    feeds: tuple[AbstractReading, ...] = ()
    grid: Grid = ()
    norm: str = "none"
    pool: int = 1
    node: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.reads:
            object.__setattr__(self, "reads", (LINEAR,) * len(self.sources))
        if not self.feeds and self.activation is not None:
            object.__setattr__(self, "feeds", (LINEAR,) * len(self.targets))

    @property
    def plain(self) -> bool:
        """Units of a dense layer between dense layers."""
        return self.norm == "none" and {*self.reads, *self.feeds} == {LINEAR}

    @property
    def value_grid(self) -> Grid:
        """Positions of the units' values."""
        return tuple(n // self.pool for n in self.grid)

    def unit(self, size: int) -> Node:
        """A node of such units, without a name."""
        assert self.activation is not None
        blocks = (size,) if self.norm in ("layer", "group") else ()
        return Node("", size, self.activation, self.grid, self.norm, blocks, self.pool)

    def __str__(self) -> str:
        labels = [reading.label for reading in (*self.reads, *self.feeds) if reading.label]
        how = f":{'+'.join(dict.fromkeys(labels))}" if labels else ""
        return f"{'+'.join(self.sources)}>{'+'.join(self.targets)}{how}"


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
        """Units that it adds, or removes; 0 where it does neither."""

    @abstractmethod
    def apply(self, arch: Architecture) -> Architecture:
        """The architecture after the move.

        Raises:
            MoveError: the move is illegal here.
        """

    @abstractmethod
    def place(self, arch: Architecture) -> Site | None:
        """The site whose statistics the initializer needs; None where no initializer is asked (``raygrow.growth.exact``)."""

    def landing(self, arch: Architecture) -> tuple[str, int]:
        """The node in which new units come to stand, and the first of their places there.

        Raises:
            MoveError: the move adds no units.
        """
        raise MoveError(f"{self!r} adds no units")

    def succession(self, arch: Architecture) -> tuple[str, str] | None:
        """A node and the new one that takes over its outgoing edges, with their weights; None where none does."""
        return None

    @classmethod
    @abstractmethod
    def enumerate(cls, arch: Architecture, units: Sequence[int], palette: Palette) -> Iterator[AbstractMove]:
        """Every legal move of this kind on ``arch``, in the given sizes."""

    def to_json(self) -> dict[str, Any]:
        """Plain form, with ``kind``; inverse of ``move_from_json``. Fields at their defaults are left out."""
        form: dict[str, Any] = {"kind": self.kind}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value != f.default:
                form[f.name] = _plain(value)
        return form

    @property
    def key(self) -> str:
        """A name that is unique among the moves of one architecture."""
        return f"{self.kind}:{self.site}:{self.units}"


def _plain(value: Any) -> Any:
    if isinstance(value, AbstractReading):
        return value.to_json()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def check_units(move: AbstractMove) -> None:
    """Raises MoveError unless the move adds a unit."""
    if move.units < 1:
        raise MoveError(f"{move!r}: `units >= 1` must hold")


def check_ends(move: AbstractMove, arch: Architecture, sources: Sequence[str], targets: Sequence[str]) -> None:
    """Raises MoveError unless every source may come before every target."""
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


def ordered_pairs(arch: Architecture) -> Iterator[tuple[str, str]]:
    """Every pair of nodes of which the first may feed the second."""
    for target in arch.order:
        for source in arch.order:
            closes = source == target or target in arch.ancestors(source)
            if not closes and target != INPUT and source != OUTPUT:
                yield source, target


def is_stream(arch: Architecture, name: str) -> bool:
    """Whether a weightless edge ties the size of the node to another's."""
    return any(not e.reading.weighted and name in (e.source, e.target) for e in arch.edges)


def new_name(arch: Architecture, after: int = 0) -> str:
    """The name that the next node gets: ``h`` and the number after the highest there is; or that of a node ``after`` it."""
    numbers = [int(name[1:]) for name in arch.hidden if re.fullmatch(r"h\d+", name)]
    return f"h{1 + after + max(numbers, default=0)}"
