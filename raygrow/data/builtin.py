"""The small sets that scikit-learn ships, which need no download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from raygrow.data.base import AbstractSource, Raw, Task


def _raw(name: str, task: Task, shipped: Any, shape: tuple[int, ...] = ()) -> Raw:
    """Turn one of scikit-learn's Bunches into raw rows."""
    y = np.asarray(shipped.target)
    return Raw(
        name=name,
        task=task,
        x=np.asarray(shipped.data, dtype=np.float64),
        y=y if task == "classification" else y.astype(np.float64).reshape(-1, 1),
        features=tuple(str(feature) for feature in shipped.feature_names),
        targets=("target",),
        shape=shape,
    )


def _digits() -> Any:
    """As scikit-learn gives them, but without importing it where its file is found.

    Most first campaigns are of this set, and the import takes a processor for a second in which Ray could come up.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            pixels = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
            return SimpleNamespace(data=rows[:, :-1], target=rows[:, -1].astype(np.int64), feature_names=pixels)
    from sklearn.datasets import load_digits

    return load_digits()


@dataclass(frozen=True, kw_only=True)
class Digits(AbstractSource):
    """Handwritten digits: 1,797 images of 8 x 8 pixels, 10 classes (scikit-learn)."""

    kind: Literal["digits"] = "digits"
    """The name of this kind of data."""
    shape: tuple[int, ...] | None = None
    """[1, 8, 8] keeps the images as images; null: 64 plain features."""

    def load(self, seed: int) -> Raw:
        return _raw(self.kind, "classification", _digits(), self.shape or ())


@dataclass(frozen=True, kw_only=True)
class BreastCancer(AbstractSource):
    """Breast cancer, Wisconsin: 569 biopsies, 30 features, 0 malignant and 1 benign (scikit-learn)."""

    kind: Literal["breast_cancer"] = "breast_cancer"
    """The name of this kind of data."""

    def load(self, seed: int) -> Raw:
        from sklearn.datasets import load_breast_cancer

        return _raw(self.kind, "classification", load_breast_cancer())


@dataclass(frozen=True, kw_only=True)
class Diabetes(AbstractSource):
    """Diabetes progression after a year: 442 patients, 10 features, one target (scikit-learn)."""

    kind: Literal["diabetes"] = "diabetes"
    """The name of this kind of data."""

    def load(self, seed: int) -> Raw:
        from sklearn.datasets import load_diabetes

        return _raw(self.kind, "regression", load_diabetes())
