"""Images on disk as users have them, and a torchvision that reads nothing: for tests of the kinds that need them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image


def write_images(folder: Path, classes: dict[str, int], size: tuple[int, int] = (8, 8), seed: int = 0) -> None:
    """Coloured PNG files of noise, ``count`` in a folder of each class; size is (height, width)."""
    draws = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = draws.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")


def official_part(name: str, train: bool) -> Any:
    """Data and targets of a part as torchvision holds them: bytes, grey [n, h, w] or coloured [n, h, w, 3]."""
    n = 60 if train else 20
    shape = (n, 28, 28) if name.endswith("MNIST") else (n, 32, 32, 3)
    part = type("Part", (), {})()
    part.data = np.random.default_rng(train).integers(0, 256, shape, dtype=np.uint8)
    part.targets = list(np.arange(n) % 10)
    return part


def stand_in_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a module in place of torchvision whose sets lie in every folder but one called ``nowhere``."""

    def opener(name: str) -> Any:
        def open_part(root: str, train: bool, download: bool) -> Any:
            assert not download
            if root.endswith("nowhere"):
                raise RuntimeError("Dataset not found.\nYou can use download=True to download it")
            return official_part(name, train)

        return open_part

    module, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    for name in ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"):
        setattr(datasets, name, opener(name))
    module.datasets = datasets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
