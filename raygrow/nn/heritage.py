"""What a network takes over from its parent: every tensor under the name, and with the units, that it has after a move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from raygrow.architecture import AbstractMove, Architecture, Prune
from raygrow.errors import MoveError
from raygrow.nn.network import bias_name, gain_name, moment_names, shift_name, weight_name
from raygrow.nn.optimizer import State


@dataclass(frozen=True)
class Heritage:
    """Parameters, moments of norms and states of optimisers alike, before anything new is added to them.

    Attributes:
        names: the new names of those that change theirs.
        axes: by old name, the dimension that loses units.
        kept: positions of the units that stay there, ascending; None where none goes.
    """

    names: Mapping[str, str]
    axes: Mapping[str, int]
    kept: Tensor | None

    @classmethod
    def of(cls, move: AbstractMove, arch: Architecture, kept: Tensor | None = None) -> Heritage:
        """Of a move on this architecture.

        Args:
            kept: of a ``Prune``.

        Raises:
            MoveError: a ``Prune`` without the units that stay, or with another number of them.
        """
        names: dict[str, str] = {}
        if succession := move.succession(arch):
            before, after = succession
            names = {weight_name(before, child): weight_name(after, child) for child in arch.children(before)}
        if not isinstance(move, Prune):
            return cls(names, {}, None)
        node, stay = move.node, arch.size(move.node) - move.removed
        if kept is None or len(kept) != stay:
            raise MoveError(f"{move!r} needs the {stay} units that stay, but got {None if kept is None else len(kept)}")
        axes = dict.fromkeys((bias_name(node), gain_name(node), shift_name(node), *moment_names(node)), 0)
        axes |= {weight_name(parent, node): 0 for parent in arch.parents(node)}
        axes |= {weight_name(node, child): 1 for child in arch.children(node)}
        return cls(names, axes, kept)

    def tensors(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names of parameters or moments."""
        return {self.names.get(name, name): self._left(name, tensor) for name, tensor in given.items()}

    def state(self, given: State) -> dict[str, dict[str, Tensor]]:
        """The state of an optimiser."""
        return {
            self.names.get(name, name): {
                # A step count has no units.
                key: self._left(name, tensor) if tensor.dim() else tensor
                for key, tensor in entry.items()
            }
            for name, entry in given.items()
        }

    def _left(self, name: str, tensor: Tensor) -> Tensor:
        if self.kept is None or name not in self.axes:
            return tensor
        return tensor.index_select(self.axes[name], self.kept.to(tensor.device))
