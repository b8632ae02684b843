"""What users would pick instead of growing: one file each, and the one list of them."""

from raygrow.baselines.base import AbstractBaseline, AbstractSearch, AbstractTrial, Repetition, Trained, entry

BASELINES: tuple[type[AbstractBaseline], ...] = ()

__all__ = ["BASELINES", "AbstractBaseline", "AbstractSearch", "AbstractTrial", "Repetition", "Trained", "entry"]
