"""The judgement: one file a strategy, and the one list of them."""

from raygrow.strategies.base import AbstractStrategy, Evidence, Outcome, Proposal, Situation, State, Verdict
from raygrow.strategies.features import FEATURES, describe
from raygrow.strategies.mdl import Mdl
from raygrow.strategies.periodic import Periodic
from raygrow.strategies.random import RandomStrategy
from raygrow.strategies.rl import Rl
from raygrow.strategies.significance import Significance

STRATEGIES: tuple[type[AbstractStrategy], ...] = (Mdl, Significance, Rl, Periodic, RandomStrategy)

__all__ = [
    "FEATURES", "STRATEGIES", "AbstractStrategy", "Evidence", "Mdl", "Outcome", "Periodic", "Proposal", "RandomStrategy",
    "Rl", "Significance", "Situation", "State", "Verdict", "describe",
]  # fmt: skip
