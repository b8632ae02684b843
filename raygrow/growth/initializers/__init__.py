"""How new weights begin: one file each, and the one list of them."""

from raygrow.growth.initializers.base import AbstractInitializer
from raygrow.growth.initializers.gradmax import GradMax
from raygrow.growth.initializers.random import RandomInitializer
from raygrow.growth.initializers.tiny import Tiny

INITIALIZERS: tuple[type[AbstractInitializer], ...] = (Tiny, GradMax, RandomInitializer)

__all__ = ["INITIALIZERS", "AbstractInitializer", "GradMax", "RandomInitializer", "Tiny"]
