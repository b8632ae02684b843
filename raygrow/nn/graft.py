"""Surgery: the grown network of a parent, a move and the new weights that an initializer wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT, AbstractMove, AddEdge, AddNode, Architecture, Hold, Widen
from raygrow.errors import MoveError
from raygrow.nn.network import Network, bias_name, weight_name


@dataclass(frozen=True)
class Extension:
    """New weights of one move.

    Attributes:
        fan_in: of new units, by source, each [k, source size].
        bias: of new units, [k].
        fan_out: of new units, by target, each [target size, k].
        edge: the matrix of a new edge, [target size, source size]; then the others are empty.
    """

    fan_in: Mapping[str, Tensor] = field(default_factory=dict)
    bias: Tensor | None = None
    fan_out: Mapping[str, Tensor] = field(default_factory=dict)
    edge: Tensor | None = None

    def scaled(self, factor: float) -> Extension:
        """The fan-out (or the edge) multiplied by ``factor``; the fan-in stays."""
        return Extension(
            self.fan_in,
            self.bias,
            {target: factor * w for target, w in self.fan_out.items()},
            None if self.edge is None else factor * self.edge,
        )


@torch.no_grad()
def graft(network: Network, move: AbstractMove, extension: Extension) -> Network:
    """The network after ``move``: a new module; ``network`` is left as it was.

    Old entries keep their value and their place: they are the leading block of every tensor.

    Raises:
        MoveError: the move is illegal or the extension does not fit it.
    """
    arch, like = network.arch, network.named[bias_name(OUTPUT)]
    grown = Network(move.apply(arch), dtype=like.dtype)
    if like.device.type != "cpu":
        grown.to(like.device)
    for name, old in network.named.items():
        place: torch.Tensor = grown.named[name]
        if place.shape != old.shape:
            place = place[tuple(slice(0, size) for size in old.shape)]
        place.copy_(old)
    for name, block, value in _blocks(arch, move, extension):
        place = grown.named[name][block]
        if place.shape != value.shape:
            raise MoveError(
                f"{move!r}: the extension of {name} must have shape {tuple(place.shape)}, but got {tuple(value.shape)}"
            )
        place.copy_(value)
    return grown


Block = tuple[slice, ...]
_ALL = slice(None)


def _blocks(arch: Architecture, move: AbstractMove, ext: Extension) -> list[tuple[str, Block, Tensor]]:
    """Which entries of which tensor of the grown network each new weight becomes."""
    if isinstance(move, Hold):
        return []
    if isinstance(move, AddEdge):
        if ext.edge is None:
            raise MoveError(f"{move!r} needs the edge's matrix, but the extension has none")
        return [(weight_name(move.source, move.target), (_ALL, _ALL), ext.edge)]
    if isinstance(move, Widen):
        node, first = move.node, arch.size(move.node)
    elif isinstance(move, AddNode):
        node, first = move.name_in(arch), 0
    else:
        raise MoveError(f"{move!r}: graft does not know this kind of move")
    if ext.bias is None:
        raise MoveError(f"{move!r} needs the bias of the new units, but the extension has none")
    site = move.place(arch)
    for side, given, wanted in (("fan_in", ext.fan_in, site.sources), ("fan_out", ext.fan_out, site.targets)):
        if set(given) != set(wanted):
            raise MoveError(
                f"{move!r}: `{side}` must have a block for each of {sorted(wanted)}, but has {sorted(given)}"
            )
    new = slice(first, None)
    return [
        *((weight_name(source, node), (new, _ALL), w) for source, w in ext.fan_in.items()),
        (bias_name(node), (new,), ext.bias),
        *((weight_name(node, target), (_ALL, new), w) for target, w in ext.fan_out.items()),
    ]


def clone(network: Network) -> Network:
    """An independent copy."""
    twin = graft(network, Hold(), Extension())
    assert not any(a is b for a, b in zip(twin.parameters(), network.parameters(), strict=True))
    return twin


def all_finite(network: Network) -> bool:
    """Whether no weight has become infinite or not a number."""
    return all(bool(torch.isfinite(p).all()) for p in network.parameters())
