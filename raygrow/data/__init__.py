"""Where examples come from: files, images, shipped sets, generators; splits and standardisation."""

from __future__ import annotations

from raygrow.data.arrays import Npz
from raygrow.data.base import METRICS, AbstractSource, Dataset, Preprocessing, Raw, Split
from raygrow.data.builtin import BreastCancer, Diabetes, Digits
from raygrow.data.burgers import Burgers
from raygrow.data.files import Csv, Parquet
from raygrow.data.images import ImageFolder, Torchvision
from raygrow.data.lorenz96 import Lorenz96
from raygrow.data.patterns import Patterns
from raygrow.data.planted import Planted
from raygrow.data.prepare import prepare
from raygrow.data.teacher import Teacher
from raygrow.data.waveforms import Waveforms

# The only registry: the configuration's schema, the listings and the contract tests read it.
SOURCES: tuple[type[AbstractSource], ...] = (
    Digits, BreastCancer, Diabetes, Teacher, Planted, Lorenz96, Burgers, Patterns, Waveforms, Parquet, Csv, Npz, ImageFolder,
    Torchvision,
)  # fmt: skip

__all__ = [
    "METRICS", "SOURCES", "AbstractSource", "Dataset", "Preprocessing", "Raw", "Split", "prepare",
]  # fmt: skip
