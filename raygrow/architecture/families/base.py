"""What a family is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Protocol, final

from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import LINEAR, AbstractReading, Grid, Identity, Pooled
from raygrow.architecture.spec import INPUT, OUTPUT, Architecture, Edge, Node, least_units
from raygrow.errors import ConfigError

IDENTITY = Identity()


class Choices(Protocol):
    """What a family reads of a configuration: fields of ``raygrow.population.plan.NetworkPlan``, where they are described."""

    @property
    def activation(self) -> str: ...
    @property
    def norm(self) -> str: ...
    @property
    def dropout(self) -> float: ...
    @property
    def kernels(self) -> tuple[int, ...]: ...
    @property
    def cells(self) -> int: ...
    @property
    def dense_on_maps(self) -> bool: ...
    @property
    def start(self) -> str: ...
    @property
    def widths(self) -> tuple[int, ...] | None: ...
    @property
    def patch(self) -> int: ...


class AbstractFamily(ABC):
    """A kind of network: where growth starts, what it builds with and by which moves. Stateless.

    Attributes:
        name: value of ``network.family``.
        moves: kinds of move that it makes where the configuration names none.
        more_moves: kinds that it makes only where they are named.
        dimensions: of the positions of an example that it takes: 0 for a vector, 1 for a signal, 2 for an image.
        widths: of the start, where the configuration names none; () where it has no width to choose.
        starts: values of ``network.start`` that it knows.
    """

    name: ClassVar[str]
    moves: ClassVar[tuple[str, ...]]
    more_moves: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[tuple[int, ...]] = (0, 1, 2)
    widths: ClassVar[tuple[int, ...]] = ()
    starts: ClassVar[tuple[str, ...]] = ("linear",)

    @final
    def start(self, inputs: int, shape: tuple[int, ...], outputs: int, choices: Choices) -> Architecture:
        """The tiny network of the first round.

        Args:
            inputs: features of an example.
            shape: (channels, height, width) or (channels, length) of an example; () for a plain vector.
            outputs: classes or targets.

        Raises:
            ConfigError: the family cannot read such examples.
        """
        if len(shape[1:]) not in self.dimensions:
            raise ConfigError(
                f"`network.family` {self.name!r} reads images or signals, but an example is a plain vector of {inputs} "
                "features: set `data.shape`, or choose dag or mlp"
            )
        return self._start(Node(INPUT, shape[0] if shape else inputs, "identity", shape[1:]), outputs, choices)

    @abstractmethod
    def _start(self, source: Node, outputs: int, choices: Choices) -> Architecture:
        """The start for this input node."""

    def palette(self, choices: Choices) -> Palette:
        """What new nodes and edges are made of."""
        return Palette(
            choices.activation, choices.norm, choices.dropout, choices.kernels, choices.cells, choices.dense_on_maps
        )

    def chosen_widths(self, choices: Choices) -> tuple[int, ...]:
        """Widths of the start."""
        return self.widths if choices.widths is None else choices.widths


class Draft:
    """An architecture while it is laid out node by node: hidden nodes get the names that moves would give them."""

    def __init__(self, source: Node, palette: Palette) -> None:
        self.palette = palette
        self._nodes, self._edges = [source], list[Edge]()

    def add(self, node: Node, reads: Mapping[str, AbstractReading]) -> Node:
        """A hidden node that reads others, by their names."""
        self._nodes.append(node)
        self._edges += [Edge(source, node.name, reading) for source, reading in reads.items()]
        return node

    def layer(self, size: int, grid: Grid, reads: Mapping[str, AbstractReading], pool: int = 1) -> Node:
        """A node of the palette, of at least as many units as its norm needs."""
        units = max(size, least_units(self.palette.norm, grid))
        return self.add(replace(self.palette.node(self.name, units, grid), pool=pool), reads)

    def stream(self, size: int, grid: Grid, reads: Mapping[str, AbstractReading]) -> Node:
        """A node whose value is the sum of what it reads."""
        return self.add(Node(self.name, size, "identity", grid), reads)

    def block(self, before: Node, kernel: AbstractReading, units: int = 2) -> Node:
        """A residual block after a node of a stream: the new node of the stream."""
        inner = self.layer(units, before.grid, {before.name: kernel})
        return self.stream(before.size, before.grid, {before.name: IDENTITY, inner.name: kernel})

    def headed(self, outputs: int, last: Node, cells: int | None = None) -> Architecture:
        """The whole, with an output that reads the last node: a map through ``cells`` means a dimension (None: as many as
        it has positions)."""
        reading: AbstractReading = LINEAR
        if grid := last.value_grid:
            reading = Pooled(grid if cells is None else tuple(min(cells, n) for n in grid))
        nodes = (*self._nodes, Node(OUTPUT, outputs, "identity"))
        return Architecture(nodes, (*self._edges, Edge(last.name, OUTPUT, reading)))

    @property
    def name(self) -> str:
        """Of the next node."""
        return f"h{len(self._nodes)}"
