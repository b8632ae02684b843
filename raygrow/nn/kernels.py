"""Activations and their derivatives on buffers: what training by hand needs of them.

The operators are those that autograd itself calls, so a hand-written backward pass gives autograd's gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_aten = torch.ops.aten


@dataclass(frozen=True)
class Kernel:
    """One activation h = f(z).

    Attributes:
        forward: ``(z, h)``: writes f(z) to h, of the same shape.
        backward: ``(gradient, z, h)``: turns dloss/dh into dloss/dz in place.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]


KERNELS: Mapping[str, Kernel] = {
    "relu": Kernel(
        lambda z, h: torch.clamp_min(z, 0.0, out=h),
        lambda g, z, h: _aten.threshold_backward.grad_input(g, h, 0.0, grad_input=g),
    ),
    "tanh": Kernel(
        lambda z, h: torch.tanh(z, out=h),
        lambda g, z, h: _aten.tanh_backward.grad_input(g, h, grad_input=g),
    ),
    "gelu": Kernel(
        lambda z, h: _aten.gelu.out(z, out=h),
        lambda g, z, h: _aten.gelu_backward.grad_input(g, z, grad_input=g),
    ),
    "silu": Kernel(
        lambda z, h: _aten.silu.out(z, out=h),
        lambda g, z, h: _aten.silu_backward.grad_input(g, z, grad_input=g),
    ),
    "elu": Kernel(
        lambda z, h: _aten.elu.out(z, out=h),
        lambda g, z, h: _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, h, grad_input=g),
    ),
    "softplus": Kernel(
        lambda z, h: _aten.softplus.out(z, out=h),
        lambda g, z, h: _aten.softplus_backward.grad_input(g, z, 1.0, 20.0, grad_input=g),
    ),
    "identity": Kernel(lambda z, h: h.copy_(z), lambda g, z, h: None),
}
