"""Every member of every registry tuple passes the contract tests that ship with the package."""

from __future__ import annotations

from typing import Any

from raygrow.growth.initializers import INITIALIZERS
from raygrow.population.selection import SELECTIONS
from raygrow.strategies import STRATEGIES
from raygrow.testing import InitializerContract, SelectionContract, StrategyContract


def _contract(base: type[Any], subject: type[Any]) -> type[Any]:
    return type(f"Test{subject.__name__}", (base,), {"subject": subject()})


for _base, _family in (
    (StrategyContract, STRATEGIES),
    (InitializerContract, INITIALIZERS),
    (SelectionContract, SELECTIONS),
):
    for _cls in _family:
        globals()[f"Test{_cls.__name__}"] = _contract(_base, _cls)


def test_the_tuples_hold_what_they_should() -> None:
    kinds = [[cls().kind for cls in family] for family in (STRATEGIES, INITIALIZERS, SELECTIONS)]
    assert all(len(set(names)) == len(names) for names in kinds)
    assert {"mdl", "significance", "rl", "periodic", "random"} <= set(kinds[0])
    assert {"tiny", "gradmax", "random", "orthogonal", "north", "net2net", "firefly", "splitting", "senn"} <= set(
        kinds[1]
    )
    assert "variance_transfer" in kinds[1]
    assert {"independent", "auction"} <= set(kinds[2])
