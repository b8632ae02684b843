"""Examples in memory and the order in which they are met: no loader, no worker, indices drawn once a call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from raygrow.architecture import digest_seed
from raygrow.nn.losses import LOSSES, AbstractLoss
from raygrow.training.augment import Augment, augmented

GATHER = 8192
"""Examples gathered at once: one index operation serves many steps."""


@dataclass(frozen=True)
class Examples:
    """A split on the device of the network.

    Attributes:
        x: [n, inputs].
        y: [n] labels or [n, t] targets.
        augment: how examples vary when they are trained on; what is taken of them otherwise does not.
        shape: of an example, as ``augmented`` takes it.
    """

    x: Tensor
    y: Tensor
    augment: Augment = field(default_factory=Augment)
    shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any], device: torch.device) -> Examples:
        """Copies, so that arrays from a shared object store are never written to."""
        return cls(torch.tensor(x, device=device), torch.tensor(y, device=device))

    def take(self, index: Tensor) -> Examples:
        return Examples(self.x[index], self.y[index])


@dataclass(frozen=True)
class ExampleSets:
    """The four splits as tensors, and the task."""

    task: Literal["classification", "regression"]
    train: Examples
    search: Examples
    validation: Examples
    test: Examples

    @property
    def loss(self) -> AbstractLoss:
        return LOSSES[self.task]


def example_order(n: int, examples: int, seed: int) -> Tensor:
    """Indices of ``examples`` examples: whole permutations of the n rows one after the other, the last cut short."""
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(n, generator=generator) for _ in range(math.ceil(examples / n))]
    return torch.cat(passes)[:examples] if passes else torch.empty(0, dtype=torch.long)


def gathered(data: Examples, order: Tensor, batch_size: int) -> Iterator[Examples]:
    """The examples of ``order`` in pieces of many whole batches, augmented: alike for all that train on them."""
    piece = max(GATHER // batch_size, 1) * batch_size
    generator = torch.Generator().manual_seed(digest_seed("augment", *order[:8].tolist()))
    for start in range(0, len(order), piece):
        taken = data.take(order[start : start + piece].to(data.x.device))
        yield replace(taken, x=augmented(taken.x, data.shape, data.augment, generator))
