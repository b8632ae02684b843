"""The judgement: one file a strategy, and the one list of them."""

from raygrow.strategies.autogrow import AutoGrow
from raygrow.strategies.base import AbstractStrategy, Evidence, Outcome, Proposal, Situation, State, Verdict
from raygrow.strategies.blind import Blind
from raygrow.strategies.features import FEATURES, describe
from raygrow.strategies.firefly import Firefly
from raygrow.strategies.fragrow import FraGrow
from raygrow.strategies.mdl import Mdl
from raygrow.strategies.north import North
from raygrow.strategies.periodic import Periodic
from raygrow.strategies.random import RandomStrategy
from raygrow.strategies.rl import Rl
from raygrow.strategies.senn import Senn
from raygrow.strategies.significance import Significance

STRATEGIES: tuple[type[AbstractStrategy], ...] = (
    Mdl, Significance, Rl, North, Senn, Firefly, AutoGrow, FraGrow, Periodic, RandomStrategy, Blind,
)  # fmt: skip

__all__ = [
    "FEATURES", "STRATEGIES", "AbstractStrategy", "AutoGrow", "Blind", "Evidence", "Firefly", "FraGrow", "Mdl", "North",
    "Outcome", "Periodic", "Proposal", "RandomStrategy", "Rl", "Senn", "Significance", "Situation", "State", "Verdict",
    "describe",
]  # fmt: skip
