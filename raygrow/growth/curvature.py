"""Directions along which a residual bends: where the linearised theory ends, the next term of what a unit can follow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raygrow.growth.meter import Meter

CURVED_OUTPUTS = 16
"""At most this many output directions are searched for curvature."""

SPARE = 2
"""Columns of a block of trial directions beyond those wanted of each output."""

WHOLE_RANK = 40
"""Up to this rank the matrices themselves are cheaper than the products of block iteration."""


def worth_searching(rank: int, n: int) -> bool:
    """Whether a curved direction could stand out from noise.

    No eigenvalue exceeds sqrt(2) sd(G_perp v), by Cauchy-Schwarz for Gaussian z. With 4 rows a rank the noise edge is at
    sd(G_perp v): a direction would have to explain half of the residual by itself.
    """
    return 4 * rank < n


def curved_directions(
    z: Tensor, spread: Tensor, outputs: Tensor, wanted: int, generator: torch.Generator, meter: Meter
) -> Tensor:
    """Whitened directions along which the residual is most quadratic, best first, as columns, [rank, m].

    For each output direction v the symmetric matrix H_v = E[(G_perp v) (z z^T - I)]; its extreme eigenpairs, from the matrix
    itself or, where that takes more products, within the range of its square on a random block. Kept: eigenvalues beyond
    the edge 2 sqrt(rank/n) sd(G_perp v) that pure noise reaches, and directions that differ from those already taken.

    Args:
        z: whitened, centred rows, [n, rank].
        spread: rms of G_perp v for each v, descending, [m].
        outputs: G_perp v, [n, m].
    """
    n, rank = z.shape
    alive = spread > 1e-6 * spread[0]
    spread, outputs = spread[alive], outputs[:, alive]
    if len(spread) == 0:
        return z.new_zeros(rank, 0)
    outputs = outputs - outputs.mean(0)
    curvature, directions = extreme_eigenpairs(z, outputs, 2 * math.ceil(wanted / len(spread)), generator, meter)
    edge = 2 * math.sqrt(rank / n) * spread
    size = curvature.abs()
    output, column = torch.nonzero(size > edge[:, None], as_tuple=True)
    order = size[output, column].argsort(descending=True, stable=True)
    trial = directions[output[order], :, column[order]]
    return trial[_distinct(trial, wanted, meter)].T


def extreme_eigenpairs(
    z: Tensor,
    outputs: Tensor,
    wanted: int,
    generator: torch.Generator,
    meter: Meter,
    *,
    whole: int = WHOLE_RANK,
    steps: int = 1,
) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of E[v z z^T] for every column v of ``outputs``.

    All of them where the rank is small, else about the ``wanted`` of largest size, by block iteration.

    Args:
        z: rows, [n, rank].
        outputs: [n, m].
        whole: up to this rank the matrices are formed.
        steps: of block iteration.

    Returns:
        [m, found] and, as columns, [m, rank, found].
    """
    rank, block = z.shape[1], wanted + SPARE
    if rank <= max(whole, block):
        return meter.eigh(_hessians(z, outputs, meter))
    start = torch.randn(rank, block, generator=generator, dtype=torch.float64).to(z)
    return _extreme(z, outputs, start, steps, meter)


def _distinct(trial: Tensor, wanted: int, meter: Meter) -> list[int]:
    """The first unit vectors, at most ``wanted``, of which no two are nearly parallel."""
    close = (meter.mm(trial, trial.T).abs() >= 0.9).tolist()
    chosen: list[int] = []
    for i, row in enumerate(close):
        if len(chosen) < wanted and not any(row[j] for j in chosen):
            chosen.append(i)
    return chosen


def _hessians(z: Tensor, outputs: Tensor, meter: Meter) -> Tensor:
    """H_v of every output, [outputs, rank, rank], from the upper triangles of z z^T."""
    n, rank = z.shape
    i, j = torch.triu_indices(rank, rank, device=z.device)
    columns = z.T.contiguous()
    upper = meter.mm(columns[i] * columns[j], outputs).T / n
    full = z.new_zeros(outputs.shape[1], rank, rank)
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


def _extreme(z: Tensor, outputs: Tensor, start: Tensor, steps: int, meter: Meter) -> tuple[Tensor, Tensor]:
    """Eigenpairs of H_v within the range of H_v^(1 + steps) start, [outputs, block] and [outputs, rank, block]."""
    (n, rank), count, block = z.shape, outputs.shape[1], start.shape[1]
    weights = outputs.unsqueeze(2)

    def pulled(along: Tensor) -> Tensor:
        """z^T (output * along) of every output, [outputs, rank, block]."""
        weighted = (weights * along).reshape(n, count * block)
        return meter.mm(z.T, weighted).view(rank, count, block).transpose(0, 1)

    def pushed(basis: Tensor) -> Tensor:
        """z basis of every output, [n, outputs, block]."""
        return meter.mm(z, basis.transpose(0, 1).reshape(rank, count * block)).view(n, count, block)

    basis = meter.basis(pulled(meter.mm(z, start).unsqueeze(1)))
    for _ in range(steps):
        basis = meter.basis(pulled(pushed(basis)))
    along = pushed(basis)
    small = meter.bmm((along * weights).permute(1, 2, 0), along.transpose(0, 1)) / n
    curvature, inner = meter.eigh((small + small.transpose(1, 2)) / 2)
    return curvature, meter.bmm(basis, inner)
