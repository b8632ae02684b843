"""Every member of every registry tuple passes the contract tests that ship with the package."""

from __future__ import annotations

from typing import Any

from raygrow.growth.initializers import INITIALIZERS
from raygrow.growth.measurements import MEASUREMENTS
from raygrow.population.selection import SELECTIONS
from raygrow.strategies import STRATEGIES
from raygrow.testing import InitializerContract, MeasurementContract, SelectionContract, StrategyContract


def _contract(base: type[Any], subject: type[Any]) -> type[Any]:
    return type(f"Test{subject.__name__}", (base,), {"subject": subject()})


for _base, _family in (
    (StrategyContract, STRATEGIES),
    (InitializerContract, INITIALIZERS),
    (SelectionContract, SELECTIONS),
):
    for _cls in _family:
        globals()[f"Test{_cls.__name__}"] = _contract(_base, _cls)


# Made anew for each network, so that the class itself is the subject.
for _measurement in MEASUREMENTS:
    _name = f"TestMeasured{_measurement.__name__}"
    globals()[_name] = type(_name, (MeasurementContract,), {"subject": _measurement})


def test_the_tuples_hold_what_they_should() -> None:
    kinds = [[cls().kind for cls in family] for family in (STRATEGIES, INITIALIZERS, SELECTIONS)]
    assert all(len(set(names)) == len(names) for names in kinds)
    assert {"mdl", "significance", "rl", "periodic", "random"} <= set(kinds[0])
    assert {"north", "senn", "firefly", "autogrow", "fragrow"} <= set(kinds[0])
    assert {"tiny", "gradmax", "random"} <= set(kinds[1])
    assert {"independent", "auction"} <= set(kinds[2])
