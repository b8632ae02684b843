"""Linear algebra that keeps the bill.

Products are counted as ``torch.utils.flop_counter`` counts them; factorisations, which it counts as 0, by hand:
n^3/3 a Cholesky, 25 n^3 a symmetric eigenproblem, 10 m n min(m, n) a thin SVD, 4 m n^2 a QR of m x n (blueprint 2,
growth_math 1.6).
"""

from __future__ import annotations

import torch
from torch import Tensor


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

    def mm(self, a: Tensor, b: Tensor) -> Tensor:
        """``a @ b`` for matrices."""
        self.products += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    def solve(self, spd: Tensor, right: Tensor, ridge: float) -> Tensor:
        """``(spd + ridge I)^-1 right`` by Cholesky, with the ridge raised tenfold until the factorisation exists.

        Raises:
            FloatingPointError: the matrix is not finite; no ridge would mend it.
        """
        n = spd.shape[0]
        eye = torch.eye(n, dtype=spd.dtype, device=spd.device)
        if not bool(torch.isfinite(spd).all()):
            raise FloatingPointError(f"a Gram matrix of {n} columns is not finite")
        smallest = float(spd.diagonal().mean()) * 1e-12 + torch.finfo(spd.dtype).tiny
        ridge = max(ridge, smallest)
        while True:
            self.solves += n**3 // 3
            factor, info = torch.linalg.cholesky_ex(spd + ridge * eye)
            if int(info) == 0:
                break
            ridge *= 10.0
        self.solves += 2 * n * n * right.shape[1]
        return torch.cholesky_solve(right, factor)

    def eigh(self, symmetric: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues, ascending, and eigenvectors as columns."""
        self.solves += 25 * symmetric.shape[0] ** 3
        values, vectors = torch.linalg.eigh(symmetric)
        return values, vectors

    def svdvals(self, matrix: Tensor) -> Tensor:
        """Singular values, descending."""
        self.solves += 10 * matrix.shape[0] * matrix.shape[1] * min(matrix.shape)
        values: Tensor = torch.linalg.svdvals(matrix)
        return values

    def basis(self, matrix: Tensor) -> Tensor:
        """Orthonormal columns that span those of a tall matrix."""
        rows, columns = matrix.shape
        self.solves += 4 * rows * columns * columns
        q: Tensor = torch.linalg.qr(matrix)[0]
        return q

    def svd(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Thin SVD: left vectors as columns, singular values descending, right vectors as rows."""
        self.solves += 10 * matrix.shape[0] * matrix.shape[1] * min(matrix.shape)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left, values, right
