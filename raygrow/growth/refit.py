"""Fan-out of new units, or a new edge, by ridge regression on what they really compute (growth_math 1.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from raygrow.architecture import Site
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.meter import Meter
from raygrow.growth.prediction import hidden_rows
from raygrow.growth.rows import REFIT_RIDGE, ridge_for
from raygrow.nn import Extension


@dataclass(frozen=True)
class Refit:
    """Ridge refit of G_perp on [b1, h], reduced to h: b1 is projected out of h once, for every number of units."""

    columns: Mapping[str, Tensor]
    cross: Mapping[str, Tensor]
    rows: Mapping[str, int]

    @classmethod
    def of(cls, residuals: Residuals, hidden: Mapping[str, Tensor], meter: Meter) -> Refit:
        """Args:
        hidden: what each target would read of the new units, one row for each of its own rows, [rows, columns].
        """
        columns: dict[str, Tensor] = {}
        cross: dict[str, Tensor] = {}
        for target, rows in hidden.items():
            free = residuals.regression(target).free(rows, meter)
            columns[target] = meter.mm(free.T, free).double() / len(rows)
            cross[target] = residuals.cross(free, target).double()
        return cls(columns, cross, {target: len(rows) for target, rows in hidden.items()})

    def fan_out(self, share: float, meter: Meter) -> dict[str, Tensor]:
        """omega of the first columns, by target, each [target size, columns]; ``share`` of them in (0, 1]."""
        result: dict[str, Tensor] = {}
        for target, gram in self.columns.items():
            k = round(share * len(gram))
            trace = float(gram.diagonal()[:k].sum())
            ridge = ridge_for(trace, k, self.rows[target], REFIT_RIDGE)
            result[target] = meter.solve(gram[:k, :k], self.cross[target][:k], ridge, trace).T
        return result


def refitted(
    residuals: Residuals, site: Site, extensions: Mapping[int, Extension], sizes: Sequence[int], meter: Meter
) -> dict[int, Extension]:
    """The same units with whole kernels as fan-out, each size by its own refit."""
    most = max(sizes)
    apart = site.norm in ("layer", "group")
    found: dict[int, Extension] = {}
    refit: Refit | None = None
    for k in sorted(sizes, reverse=True):
        if refit is None or apart:
            refit = Refit.of(residuals, hidden_rows(extensions[k], site, residuals.fold, meter), meter)
        omega = refit.fan_out(1.0 if apart else k / most, meter)
        fan_out = {
            target: block.reshape(len(block), k, *reading.taps(site.value_grid)).to(extensions[k].fan_out[target])
            for (target, block), reading in zip(omega.items(), site.feeds, strict=True)
        }
        found[k] = replace(extensions[k], fan_out=fan_out)
    return found
