"""Where the units and weights of several networks lie when they train as one: sizes and offsets.

The networks of a probe (a control and its candidates) are nearly the same graph. Their *union* has every node and edge of
any of them; its units are cut in *segments*, each the units of one node that the same networks have, and its weights in
*blocks*, one matrix a network between two segments. So a widened node costs its new units and nothing else, and
no unit is ever padded: what is computed is what each network alone would compute, for every activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import prod

from raygrow.architecture import INPUT, OUTPUT, Architecture
from raygrow.nn import bias_name, weight_name
from raygrow.training.place import Place, aligned

Key = tuple[str, ...]
"""A node of the union: its name, and for a node that not all networks have, what it reads, feeds and computes."""


@dataclass(frozen=True)
class Segment:
    """Units ``start`` to ``stop`` of one node, in every network that has them.

    Attributes:
        node: name of the node, the same in all of ``networks``.
        networks: ascending positions in the pack.
        level: edges on the longest path from the input in the union.
    """

    node: str
    start: int
    stop: int
    networks: tuple[int, ...]
    level: int
    activation: str

    @property
    def units(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> int:
        """Units of all its networks together."""
        return self.units * len(self.networks)


@dataclass(frozen=True)
class Block:
    """The weights from one segment to another, in every network that has the edge.

    Attributes:
        source: None where the examples themselves are read.
    """

    source: Segment | None
    target: Segment
    networks: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Networks of one pack.

    Attributes:
        archs: of the networks, in order.
        segments: by level; within one by activation, so that each level is a few elementwise calls.
        blocks: into each segment, in the order of ``segments``.
    """

    archs: tuple[Architecture, ...]
    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]

    @property
    def levels(self) -> int:
        """Levels with units, the output's included."""
        return self.segments[-1].level

    @classmethod
    def of(cls, archs: Sequence[Architecture]) -> Layout | None:
        """The union of these networks; None where it would have a cycle.

        Raises:
            ValueError: their inputs or outputs differ in size.
        """
        ends = {(arch.size(INPUT), arch.size(OUTPUT)) for arch in archs}
        if len(ends) != 1:
            raise ValueError(f"networks of one pack must have equal inputs and outputs, but got {sorted(ends)}")
        keys = _keys(archs)
        edges: dict[tuple[Key, Key], list[int]] = {}
        for i, (arch, named) in enumerate(zip(archs, keys, strict=True)):
            for edge in arch.edges:
                edges.setdefault((named[edge.source], named[edge.target]), []).append(i)
        levels = _levels(edges)
        if levels is None:
            return None
        segments = _segments(archs, keys, levels)
        by_key: dict[Key, list[Segment]] = {}
        for key, segment in segments:
            by_key.setdefault(key, []).append(segment)
        blocks: list[Block] = []
        for (source, target), having in edges.items():
            for read in by_key.get(source, [None]):
                for fed in by_key[target]:
                    both = set(having) & set(fed.networks) & set(read.networks if read else having)
                    if both:
                        blocks.append(Block(read, fed, tuple(sorted(both))))
        place = {segment: at for at, (_, segment) in enumerate(segments)}
        # What covers its target comes first, then by source: an order that follows from the networks alone.
        blocks.sort(key=lambda b: (place[b.target], -len(b.networks), -1 if b.source is None else place[b.source]))
        return cls(tuple(archs), tuple(segment for _, segment in segments), tuple(blocks))


def layouts(archs: Sequence[Architecture]) -> list[tuple[tuple[int, ...], Layout]]:
    """As few unions as it takes, each with the positions of its networks.

    Two networks can disagree on the order of two nodes (one adds an edge a->b, another b->a); then they share no union.
    """
    groups: list[tuple[list[int], Layout]] = []
    for i, arch in enumerate(archs):
        for at, (members, layout) in enumerate(groups):
            wider = Layout.of([*layout.archs, arch])
            if wider is not None:
                groups[at] = ([*members, i], wider)
                break
        else:
            alone = Layout.of([arch])
            assert alone is not None
            groups.append(([i], alone))
    return [(tuple(members), layout) for members, layout in groups]


def _keys(archs: Sequence[Architecture]) -> list[Mapping[str, Key]]:
    """The union's key of every node of every network.

    Two candidates both call their new node ``h3``; it is one node of the union only if it stands at the same place.
    """
    shared = {
        node.name
        for node in archs[0].nodes
        if all(node.name in a.by_name and a.by_name[node.name].activation == node.activation for a in archs)
    }
    return [
        {
            node.name: (node.name,)
            if node.name in shared
            else (node.name, node.activation, *arch.parents(node.name), ">", *arch.children(node.name))
            for node in arch.nodes
        }
        for arch in archs
    ]


def _levels(edges: Mapping[tuple[Key, Key], list[int]]) -> dict[Key, int] | None:
    """Longest path from the input to every node of the union; None where there is a cycle."""
    parents: dict[Key, list[Key]] = {(INPUT,): [], (OUTPUT,): []}
    for source, target in edges:
        parents.setdefault(target, []).append(source)
        parents.setdefault(source, [])
    found: dict[Key, int] = {}
    while len(found) < len(parents):
        ready = [k for k, before in parents.items() if k not in found and all(p in found for p in before)]
        if not ready:
            return None
        for key in ready:
            found[key] = max((found[p] + 1 for p in parents[key]), default=0)
    return found


def _segments(
    archs: Sequence[Architecture], keys: Sequence[Mapping[str, Key]], levels: Mapping[Key, int]
) -> list[tuple[Key, Segment]]:
    sizes: dict[Key, dict[int, int]] = {}
    activations: dict[Key, str] = {}
    for i, (arch, named) in enumerate(zip(archs, keys, strict=True)):
        for node in arch.nodes[1:]:
            sizes.setdefault(named[node.name], {})[i] = node.size
            activations[named[node.name]] = node.activation
    found: list[tuple[Key, Segment]] = []
    for key, by_network in sizes.items():
        for start, stop in pairwise([0, *sorted(set(by_network.values()))]):
            having = tuple(i for i, size in by_network.items() if size >= stop)
            found.append((key, Segment(key[0], start, stop, having, levels[key], activations[key])))
    return sorted(found, key=lambda pair: (pair[1].level, pair[1].activation))


class Part:
    """Where the parameters of a union lie in a pack's buffers.

    Args:
        forks: position in the pack of every network of the layout.
        start: of its region, aligned.

    Attributes:
        layout: the union.
        inputs: size of the examples.
        weights: where every block begins, [networks, target units, source units].
        biases: where the biases of every segment begin, [networks, units]; segments of one level and activation
            follow each other without a gap.
        places: of every piece, in the order of the buffers.
        stop: end of the region, aligned.
    """

    def __init__(self, forks: Sequence[int], layout: Layout, start: int) -> None:
        self.layout = layout
        self.inputs = layout.archs[0].size(INPUT)
        self.weights: dict[Block, int] = {}
        self.biases: dict[Segment, int] = {}
        self.places: list[Place] = []
        at = start

        def enter(networks: Sequence[int], name: str, piece: tuple[slice, ...]) -> None:
            nonlocal at
            shape = tuple(span.stop - span.start for span in piece)
            for network in networks:
                self.places.append(Place(forks[network], name, piece, shape, at))
                at += prod(shape)

        for block in layout.blocks:
            self.weights[block] = at
            source, target = block.source, block.target
            columns = slice(source.start, source.stop) if source else slice(0, self.inputs)
            name = weight_name(source.node if source else INPUT, target.node)
            enter(block.networks, name, (slice(target.start, target.stop), columns))
            at = aligned(at)
        for _, band in groupby(layout.segments, key=lambda s: (s.level, s.activation)):
            for segment in band:
                self.biases[segment] = at
                enter(segment.networks, bias_name(segment.node), (slice(segment.start, segment.stop),))
            at = aligned(at)
        self.stop = at
