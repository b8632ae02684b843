"""What users would pick instead of growing: one file each, and the one list of them."""

from raygrow.baselines.asha import Asha
from raygrow.baselines.base import AbstractBaseline, AbstractSearch, AbstractTrial, Repetition, Trained, entry
from raygrow.baselines.fixed import Fixed
from raygrow.baselines.neat import Neat
from raygrow.baselines.pbt import Pbt
from raygrow.baselines.pruned import Pruned
from raygrow.baselines.random_search import RandomSearch
from raygrow.baselines.relaxed import Relaxed

BASELINES: tuple[type[AbstractBaseline], ...] = (Fixed, RandomSearch, Asha, Pbt, Pruned, Relaxed, Neat)

__all__ = [
    "BASELINES", "AbstractBaseline", "AbstractSearch", "AbstractTrial", "Asha", "Fixed", "Neat", "Pbt", "Pruned",
    "RandomSearch", "Relaxed", "Repetition", "Trained", "entry",
]  # fmt: skip
