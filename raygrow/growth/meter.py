"""Linear algebra that keeps the bill.

Products are counted as ``torch.utils.flop_counter`` counts them; factorisations and solves, which it counts as 0, by hand:
n^3/3 a Cholesky, n^2 a right-hand side and triangle, 25 n^3 a symmetric eigenproblem, 4 m n^2 a QR of m x n (blueprint 2,
growth_math 1.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrow.nn.maps import NARROW


@dataclass(frozen=True)
class Factor:
    """Cholesky factor L of a Gram matrix with a ridge on its diagonal.

    Attributes:
        lower: L, [n, n].
        ridge: what the diagonal carries; more than was asked for where the matrix was not positive with that.
    """

    lower: Tensor
    ridge: float


class Meter:
    """Products and solves, with the FLOPs they took.

    Attributes:
        products: FLOPs of matrix products (forward and backward passes included, where the caller adds them).
        solves: FLOPs of factorisations and triangular solves.
    """

    def __init__(self) -> None:
        self.products = 0
        self.solves = 0

    @property
    def flops(self) -> int:
        return self.products + self.solves

    def add(self, other: Meter) -> None:
        """Put another bill on this one."""
        self.products += other.products
        self.solves += other.solves

    def mm(self, a: Tensor, b: Tensor) -> Tensor:
        """``a @ b`` for matrices."""
        self.products += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return (b.T @ a.T).T if b.shape[1] < NARROW else a @ b

    def factor(self, spd: Tensor, ridge: float, trace: float | None = None) -> Factor:
        """Cholesky of ``spd + ridge I``, with the ridge raised tenfold until it exists.

        Args:
            trace: of ``spd``, where it is known: a ridge is chosen by it.

        Raises:
            FloatingPointError: the matrix is not finite; no ridge would mend it.
        """
        n = spd.shape[0]
        trace = float(spd.diagonal().sum()) if trace is None else trace
        ridge = max(ridge, trace / n * 1e-12 + torch.finfo(spd.dtype).tiny)
        while trace < math.inf:
            self.solves += n**3 // 3
            carried = spd.clone()
            carried.diagonal().add_(ridge)
            lower, info = torch.linalg.cholesky_ex(carried)
            if int(info) == 0:
                return Factor(lower, ridge)
            if not bool(torch.isfinite(spd).all()):
                break
            ridge *= 10.0
        raise FloatingPointError(f"a Gram matrix of {n} columns is not finite")

    def apply_inverse(self, factor: Factor, right: Tensor) -> Tensor:
        """``(spd + ridge I)^-1 right``, in the precision of ``right``."""
        self.solves += 2 * factor.lower.shape[0] ** 2 * right.shape[1]
        return torch.cholesky_solve(right.to(factor.lower.dtype), factor.lower).to(right.dtype)

    def apply_root(self, factor: Factor, right: Tensor, *, transposed: bool = False) -> Tensor:
        """``L^-1 right``, or ``L^-T right``, in the precision of ``right``."""
        self.solves += factor.lower.shape[0] ** 2 * right.shape[1]
        lower = factor.lower.T if transposed else factor.lower
        solved: Tensor = torch.linalg.solve_triangular(lower, right.to(lower.dtype), upper=transposed)
        return solved.to(right.dtype)

    def solve(self, spd: Tensor, right: Tensor, ridge: float, trace: float | None = None) -> Tensor:
        """``(spd + ridge I)^-1 right`` by Cholesky."""
        return self.apply_inverse(self.factor(spd, ridge, trace), right)

    def bmm(self, a: Tensor, b: Tensor) -> Tensor:
        """``a @ b`` for stacks of matrices."""
        self.products += 2 * a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2]
        return torch.bmm(a, b)

    def eigh(self, symmetric: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues, ascending, and eigenvectors as columns, of one matrix or a stack; solved in float64."""
        self.solves += 25 * symmetric.shape[-1] * symmetric.numel()
        values, vectors = torch.linalg.eigh(symmetric.double())
        return values.to(symmetric.dtype), vectors.to(symmetric.dtype)

    def basis(self, matrix: Tensor) -> Tensor:
        """Orthonormal columns that span those of a tall matrix, or of each of a stack."""
        self.solves += 4 * matrix.numel() * matrix.shape[-1]
        q: Tensor = torch.linalg.qr(matrix)[0]
        return q
