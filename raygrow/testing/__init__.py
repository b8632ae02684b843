"""Contract tests that ship with the package: what every strategy, initializer, selection rule, pool and baseline must pass.

A class of the user's own passes them by inheriting one contract in a test module::

    class TestMine(StrategyContract):
        subject = MyStrategy()
"""

from raygrow.testing.baselines import BaselineContract, counted, some_repetition
from raygrow.testing.contracts import (
    SOME_MOVES,
    InitializerContract,
    ScriptedPool,
    SelectionContract,
    StrategyContract,
    a_network,
    run_all,
    some_evidence,
    some_examples,
    some_proposals,
    with_activation,
)

__all__ = [
    "SOME_MOVES", "BaselineContract", "InitializerContract", "ScriptedPool", "SelectionContract", "StrategyContract",
    "a_network", "counted", "run_all", "some_evidence", "some_examples", "some_proposals", "some_repetition",
    "with_activation",
]  # fmt: skip
