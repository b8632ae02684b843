"""What a node makes of its pre-activation: norm, activation, pooling, dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from raygrow.architecture import Node
from raygrow.nn.activations import FUNCTIONS
from raygrow.nn.kernels import KERNELS
from raygrow.nn.maps import over_examples

EPS = 1e-5
MOMENTUM = 0.1
"""Weight of a batch in the running moments of batch norm."""


class Layer:
    """The function of one node.

    Args:
        gain, shift: of a normalised node, [units].
        mean, variance: running moments of a node with batch norm, [units]; training updates them in place.
    """

    def __init__(
        self,
        node: Node,
        gain: Tensor | None = None,
        shift: Tensor | None = None,
        mean: Tensor | None = None,
        variance: Tensor | None = None,
    ) -> None:
        self.node = node
        self._gain, self._shift, self._mean, self._variance = gain, shift, mean, variance
        self._activation = FUNCTIONS[node.activation]
        self._units = -1 - len(node.grid)

    @property
    def function(self) -> Callable[[Tensor], Tensor]:
        """``value`` by the shortest way."""
        return self._activation if self.node.norm == "none" and self.node.pool == 1 else self.value

    def value(self, z: Tensor) -> Tensor:
        """Values [..., units, *value grid] of pre-activations [..., units, *grid], as in use: running moments, no dropout."""
        return self._pooled(self._activation(self._normalised(z)))

    def over(self, z: Tensor) -> Tensor:
        """``value``, written over ``z`` where it has the same shape; autograd must not watch."""
        if self.node.norm != "none" or self.node.pool != 1:
            return self.value(z)
        KERNELS[self.node.activation].forward(z, z)
        return z

    def at_rows(self, z: Tensor) -> Tensor:
        """Values before pooling of pre-activations at some positions, [rows, units]; a group is normalised as if it had one."""
        alone = replace(self.node, grid=(), pool=1, norm="layer" if self.node.norm == "group" else self.node.norm)
        if min(alone.blocks, default=2) < 2:
            return self._activation(z)
        return Layer(alone, self._gain, self._shift, self._mean, self._variance).value(z)

    def trained(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """The same as in training: moments of the batch, which the running ones follow, and dropout.

        Args:
            z: [n, units, *grid].
            generator: of the dropout, on the CPU.
        """
        node = self.node
        # One number has no spread: a last batch of one example is normalised as in use.
        if node.norm == "batch" and z[:, 0].numel() > 1:
            z = F.batch_norm(z, self._mean, self._variance, self._gain, self._shift, True, MOMENTUM, EPS)
        else:
            z = self._normalised(z)
        h = self._pooled(self._activation(z))
        if node.dropout:
            kept = torch.rand(h.shape, generator=generator).to(h.device) >= node.dropout
            h = h * kept / (1 - node.dropout)
        return h

    def calibrate(self, z: Tensor) -> None:
        """Set the running moments to those of these pre-activations."""
        if self._mean is not None and self._variance is not None:
            over = [axis for axis in range(z.dim()) if axis != 1]
            variance, mean = torch.var_mean(z, over)
            self._mean.copy_(mean)
            self._variance.copy_(variance)

    def pull(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        """dloss/dz from dloss/dh, as in use; may write to ``gradient``."""
        if self.node.norm == "none" and self.node.pool == 1:
            KERNELS[self.node.activation].backward(gradient, z, h)
            return gradient
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.value(z), z, gradient)
        return found

    def _wide(self, vector: Tensor) -> Tensor:
        return vector.view(-1, *(1 for _ in self.node.grid))

    def _normalised(self, z: Tensor) -> Tensor:
        node = self.node
        if node.norm == "none":
            return z
        if node.norm == "batch":
            if self._mean is None or self._variance is None:
                return z
            spread = (self._variance + EPS).sqrt()
            z = (z - self._wide(self._mean)) / self._wide(spread)
        else:
            over = list(range(self._units, 0)) if node.norm == "group" else [self._units]
            parts = []
            for block in torch.split(z, list(node.blocks), self._units):
                variance, mean = torch.var_mean(block, over, correction=0, keepdim=True)
                parts.append((block - mean) * (variance + EPS).rsqrt())
            z = parts[0] if len(parts) == 1 else torch.cat(parts, self._units)
        if self._gain is not None and self._shift is not None:
            z = z * self._wide(self._gain) + self._wide(self._shift)
        return z

    def _pooled(self, h: Tensor) -> Tensor:
        if self.node.pool == 1:
            return h
        pool: Callable[..., Tensor] = F.max_pool2d if len(self.node.grid) == 2 else F.max_pool1d
        return over_examples(lambda flat: pool(flat, self.node.pool), h, 1 + len(self.node.grid))
