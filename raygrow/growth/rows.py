"""Rows that something reads, and the regressions on them: Gram matrix, factors and projections, each computed once.

A site's statistics are of two kinds only: the rows that its units read, and the gradients at what they feed. Everything
here is in terms of rows, whatever they are: values of a layer, or patches of an image, one row a position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from raygrow.growth.meter import Factor, Meter

ROWS_PER_COLUMN = 20
"""Fewer rows than this a column, and the ridge is set to the noise level (growth_math 1.6)."""

UPDATE_RIDGE = 1e-4
REFIT_RIDGE = 1e-6
WHITENING_RIDGE = 1e-6
RANK_TOLERANCE = 1e-6

WHOLE = 192
"""Up to this many columns a symmetric product is computed whole."""

Weigh = Callable[[Tensor, Meter], Tensor]


def ridge_for(trace: float, columns: int, rows: int, relative: float) -> float:
    """Ridge of a regression with a Gram matrix of this trace.

    ``relative`` times the mean eigenvalue where the data allow it; with fewer than 20 rows a column, the sampling noise
    of an eigenvalue: the mean eigenvalue times columns / rows.
    """
    mean = trace / max(columns, 1)
    return mean * (relative if rows >= ROWS_PER_COLUMN * columns else columns / rows)


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Matrices of the same rows as one; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def cut(matrix: Tensor, sizes: Sequence[int], dim: int) -> Sequence[Tensor]:
    """The parts of these sizes, as views; a single one is the matrix itself."""
    return (matrix,) if len(sizes) == 1 else torch.split(matrix, list(sizes), dim)


def _squared(b: Tensor, meter: Meter) -> Tensor:
    """b^T b, by halves of the columns where they are many: a product of the whole would compute both triangles."""
    p = b.shape[1]
    if p <= WHOLE:
        return meter.mm(b.T, b)
    left, right = torch.tensor_split(b, 2, 1)
    corner = meter.mm(left.T, right)
    above = torch.cat([_squared(left, meter), corner], 1)
    below = torch.cat([corner.T, _squared(right, meter)], 1)
    return torch.cat([above, below])


class Rows:
    """A matrix b of rows, [n, p], the constant last, with what regressions on it and whitening by it need.

    With fewer rows than columns the n x n dual takes the place of the p x p Gram matrix. Products are in the precision
    of the rows. Factors are in float64, except where the ridge is at the noise level: there it bounds the condition
    number by n, and the precision of the rows is enough.

    What is kept may outlive the step that asked for it, so that it is computed outside of inference mode: autograd takes
    nothing else.

    Args:
        matrix: the rows.
        whole: the rows of which these are a half, and where. Whitening is the whole's: it sees no labels, so that halves
            stay independent in what counts.
    """

    def __init__(self, matrix: Tensor, whole: tuple[Rows, slice] | None = None) -> None:
        self.matrix = matrix
        self.n, self.p = matrix.shape
        self.dual = self.n < self.p
        self.whole = whole
        self.halves: tuple[Rows, Rows] | None = None
        self._gram: Tensor | None = None
        self._factors: dict[float, Factor] = {}
        self._white: tuple[Tensor, Tensor, Weigh] | None = None

    def split(self, first: int) -> tuple[Rows, Rows]:
        """The rows before ``first`` and those from there on, as views."""
        if self.halves is None:
            cuts = (slice(0, first), slice(first, None))
            one, two = (Rows(self.matrix[cut], (self, cut)) for cut in cuts)
            self.halves = (one, two)
        return self.halves

    @cached_property
    def varying(self) -> int:
        """Columns that are not 0 in every row."""
        return int((self.matrix.abs().amax(0) > 0).sum())

    def gram(self, meter: Meter) -> Tensor:
        """E[b b^T], [p, p]; in the dual b b^T / n, [n, n]. Sums in float64 where p is small enough for it to matter."""
        if self._gram is None:
            with torch.inference_mode(False):
                self._gram = self._squares(meter)
        return self._gram

    def _squares(self, meter: Meter) -> Tensor:
        b = self.matrix
        if self.dual:
            return _squared(b.T, meter) / self.n
        if self.halves is not None and not self.halves[1].dual:
            first, second = (half.n / self.n * half.gram(meter) for half in self.halves)
            return first + second
        return _squared(b, meter).to(self._precision) / self.n

    def factor(self, relative: float, meter: Meter) -> Factor:
        """Of the Gram matrix (or its dual) with the ridge of growth_math 1.6."""
        noise = self.n < ROWS_PER_COLUMN * self.p
        key = 0.0 if noise else relative
        if key not in self._factors:
            gram = self.gram(meter)
            # The trace of b b^T / n and that of E[b b^T] are one number.
            trace = float(gram.diagonal().double().sum())
            with torch.inference_mode(False):
                self._factors[key] = meter.factor(gram, ridge_for(trace, self.p, self.n, relative), trace)
        return self._factors[key]

    def coefficients(self, target: Tensor, meter: Meter, relative: float = UPDATE_RIDGE) -> Tensor:
        """argmin of E|target - b W|^2 + ridge |W|^2 for a target of shape [n, q]; [p, q]."""
        factor = self.factor(relative, meter)
        if self.dual:
            return meter.mm(self.matrix.T, meter.apply_inverse(factor, target)) / self.n
        return meter.apply_inverse(factor, meter.mm(self.matrix.T, target) / self.n)

    def free(self, target: Tensor, meter: Meter, relative: float = UPDATE_RIDGE) -> Tensor:
        """What the regression leaves of the target, R target, [n, q]; R is symmetric.

        In the dual R = ridge (b b^T / n + ridge)^-1, without a product with the rows.
        """
        if self.dual:
            factor = self.factor(relative, meter)
            return factor.ridge * meter.apply_inverse(factor, target)
        return target - meter.mm(self.matrix, self.coefficients(target, meter, relative))

    def whitened(self, meter: Meter) -> Tensor:
        """z, the rows without the constant, centred and whitened: E[z z^T] = 1 up to the ridge, [n, rank]."""
        if self.whole is not None:
            rows, cut = self.whole
            return rows.whitened(meter)[cut]
        return self._whitening(meter)[0]

    def reading(self, directions: Tensor, meter: Meter) -> Tensor:
        """Fan-in [k, p], the bias last, of units whose pre-activation is z u for the columns u of [rank, k]."""
        if self.whole is not None:
            return self.whole[0].reading(directions, meter)
        _, centre, weigh = self._whitening(meter)
        weights = weigh(directions, meter).T
        return torch.cat([weights, -(weights @ centre)[:, None]], 1)

    @property
    def _precision(self) -> torch.dtype:
        return self.matrix.dtype if self.n < ROWS_PER_COLUMN * self.p else torch.float64

    def _whitening(self, meter: Meter) -> tuple[Tensor, Tensor, Weigh]:
        if self._white is None:
            with torch.inference_mode(False):
                self._white = self._whiten(meter)
        return self._white

    def _whiten(self, meter: Meter) -> tuple[Tensor, Tensor, Weigh]:
        """z, the mean of the rows, and how a direction of z reads the rows."""
        read = self.matrix[:, :-1]
        centre = read.mean(0)
        centred = read - centre
        columns = max(self.p - 1, 1)
        # With fewer rows than columns z comes from the eigenpairs of the n x n dual, without a p x p matrix.
        dual = self.n < columns
        gram = _squared(centred.T, meter) if dual else _squared(centred, meter).to(self._precision)
        gram = gram / self.n
        trace = float(gram.diagonal().double().sum())
        ridge = ridge_for(trace, columns, self.n, WHITENING_RIDGE)
        if not dual:
            factor = meter.factor(gram, ridge, trace)
            z = meter.apply_root(factor, centred.T).T.contiguous()
            return z, centre, lambda u, bill: bill.apply_root(factor, u, transposed=True)
        values, vectors = meter.eigh(gram)
        keep = values > max(RANK_TOLERANCE * float(values[-1]), torch.finfo(values.dtype).tiny)
        values, vectors = values[keep], vectors[:, keep]
        shrunk = (values + ridge).rsqrt()
        z = vectors * (self.n * values).sqrt() * shrunk
        spread = vectors * (self.n * values).rsqrt() * shrunk
        return z, centre, lambda u, bill: bill.mm(centred.T, bill.mm(spread, u))
