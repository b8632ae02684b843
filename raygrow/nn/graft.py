"""Surgery: the grown network of a parent, a move and the new weights that an initializer wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from raygrow.architecture import OUTPUT, AbstractMove, AddEdge, Architecture, Hold, InsertLayer, Prune
from raygrow.errors import MoveError
from raygrow.nn.heritage import Heritage
from raygrow.nn.layers import EPS
from raygrow.nn.network import Network, bias_name, gain_name, moment_names, shift_name, weight_name


@dataclass(frozen=True)
class Extension:
    """New weights of one move.

    Attributes:
        fan_in: of new units, by source, each [k, source size] and the taps of the reading.
        bias: of new units, [k].
        fan_out: of new units, by target, each [target size, k] and the taps of the reading.
        edge: the weight of a new edge, or into a new layer in series, [target size, source size] and the taps; then the three
            above are empty.
        moments: mean and variance of the pre-activations of new units with batch norm, each [k].
        rewritten: existing parameters that change with the growth, whole, by their names in ``state_dict``. Only where a
            unit's work is shared among its offspring (Net2Net, splitting), so that old and new weights together compute the
            parent's function, or taken over by those that stay when it is pruned: any other change of existing weights is
            training.
        kept: of a pruned node, the positions of the units that stay, ascending.
    """

    fan_in: Mapping[str, Tensor] = field(default_factory=dict)
    bias: Tensor | None = None
    fan_out: Mapping[str, Tensor] = field(default_factory=dict)
    edge: Tensor | None = None
    rewritten: Mapping[str, Tensor] = field(default_factory=dict)
    moments: tuple[Tensor, Tensor] | None = None
    kept: Tensor | None = None

    def scaled(self, factor: float) -> Extension:
        """The fan-out (or the edge) multiplied by ``factor``; the fan-in stays."""
        fan_out = {target: factor * w for target, w in self.fan_out.items()}
        return replace(self, fan_out=fan_out, edge=None if self.edge is None else factor * self.edge)


@torch.no_grad()
def graft(network: Network, move: AbstractMove, extension: Extension) -> Network:
    """The network after ``move``: a new module; ``network`` is left as it was.

    Old entries keep their value and their order: they are the leading block of every tensor.

    Raises:
        MoveError: the move is illegal or the extension does not fit it.
    """
    arch, like = network.arch, network.named[bias_name(OUTPUT)]
    grown = Network(move.apply(arch), dtype=like.dtype)
    if like.device.type != "cpu":
        grown.to(like.device)
    new = grown.named | grown.moments
    for name, old in Heritage.of(move, arch, extension.kept).tensors(network.named | network.moments).items():
        place: torch.Tensor = new[name]
        if place.shape != old.shape:
            place = place[tuple(slice(0, size) for size in old.shape)]
        place.copy_(extension.rewritten.get(name, old))
    for name, block, value in _blocks(arch, move, extension):
        place = new[name][block]
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
    if isinstance(move, (Hold, Prune)):
        return []
    if isinstance(move, AddEdge):
        if ext.edge is None:
            raise MoveError(f"{move!r} needs the edge's matrix, but the extension has none")
        return [(weight_name(move.source, move.target), (_ALL,), ext.edge)]
    heirs = dict([succession]) if (succession := move.succession(arch)) else {}
    if isinstance(move, InsertLayer):
        if ext.edge is None:
            raise MoveError(f"{move!r} needs the matrix of the new layer, but the extension has none")
        layer = heirs[move.after]
        return [(weight_name(move.after, layer), (_ALL,), ext.edge), *_norm_blocks(move, ext, move.norm, layer, _ALL)]
    node, first = move.landing(arch)
    if ext.bias is None:
        raise MoveError(f"{move!r} needs the bias of the new units, but the extension has none")
    site = move.place(arch)
    assert site is not None
    for side, given, wanted in (("fan_in", ext.fan_in, site.sources), ("fan_out", ext.fan_out, site.targets)):
        if set(given) != set(wanted):
            raise MoveError(
                f"{move!r}: `{side}` must have a block for each of {sorted(wanted)}, but has {sorted(given)}"
            )
    new = slice(first, None)
    return [
        *((weight_name(source, node), (new,), w) for source, w in ext.fan_in.items()),
        (bias_name(node), (new,), ext.bias),
        *((weight_name(node, heirs.get(target, target)), (_ALL, new), w) for target, w in ext.fan_out.items()),
        *_norm_blocks(move, ext, site.norm, node, new),
    ]


def _norm_blocks(
    move: AbstractMove, ext: Extension, norm: str, node: str, new: slice
) -> list[tuple[str, Block, Tensor]]:
    """Batch norm of new units begins as the identity on the statistics examples: in training it would else undo the
    scale of their fan-in (growth_math 1.7)."""
    if norm != "batch":
        return []
    if ext.moments is None:
        raise MoveError(f"{move!r} needs the moments of the new units, but the extension has none")
    mean, variance = ext.moments
    entries = (gain_name(node), (variance + EPS).sqrt()), (shift_name(node), mean)
    running = zip(moment_names(node), ext.moments, strict=True)
    return [(name, (new,), value) for name, value in (*entries, *running)]


def clone(network: Network) -> Network:
    """An independent copy."""
    twin = graft(network, Hold(), Extension())
    assert not any(a is b for a, b in zip(twin.parameters(), network.parameters(), strict=True))
    return twin


def all_finite(network: Network) -> bool:
    """Whether no weight has become infinite or not a number."""
    return all(bool(torch.isfinite(p).all()) for p in network.parameters())
