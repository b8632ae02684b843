"""Images on disk: a folder with a subfolder for each class, or the files of a torchvision set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Array, Raw, elements
from raygrow.data.naming import SPLIT_VALUES
from raygrow.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
MODES = {1: "L", 3: "RGB"}
WIDE_MODES = ("I", "F")
"""Beginnings of the modes whose values do not fit in 8 bits; converted, they would be cut off without a word."""


@dataclass(frozen=True, kw_only=True)
class ImageFolder(AbstractSource):
    """A folder of images, <class>/*.png or <split>/<class>/*.png with splits train, validation (or val) and test."""

    kind: Literal["image_folder"] = "image_folder"
    """The name of this kind of data."""
    path: str
    """The folder. Folders of split names make the split; one that is missing is cut from train by fractions."""
    size: tuple[int, int] = (32, 32)
    """[height, width] that every image is resized to (bilinear), each at least 1."""
    channels: Literal[1, 3] = 3
    """3: red, green, blue; 1: grey. Values lie in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size) < 1:
            raise ValueError(f"size must be at least 1 x 1, got {list(self.size)}: write for example [32, 32]")

    def load(self, seed: int) -> Raw:
        found = _listed(Path(self.path).expanduser())
        shape = (self.channels, *self.size)
        features = elements("image", self.channels * self.size[0] * self.size[1])
        x = np.empty((len(found), len(features)))
        for row, (file, _, _) in enumerate(found):
            x[row] = read_image(file, shape)
        split = None if not found[0][2] else np.array([part for _, _, part in found], dtype=np.object_)
        return Raw(
            name=Path(self.path).expanduser().resolve().name,
            task="classification",
            x=x,
            y=np.array([label for _, label, _ in found], dtype=np.object_),
            features=features,
            targets=("class",),
            split=split,
            shape=shape,
        )


def read_image(file: Path, shape: Sequence[int]) -> NDArray[np.float64]:
    """An image as [channels * height * width] values in [0, 1].

    Args:
        file: of any format that Pillow decodes, with 8 bits a channel.
        shape: (channels, height, width); 1 channel is grey, 3 are red, green and blue.

    Raises:
        DataError: the file is broken, no image, or has more than 8 bits a channel.
    """
    from PIL import Image

    channels, height, width = shape
    try:
        with Image.open(file) as image:
            mode = image.mode
            small = image.convert(MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
    # A broken PNG raises SyntaxError, a huge one DecompressionBombError.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as an image ({error}): write it again or remove it") from None
    if mode.startswith(WIDE_MODES):
        raise DataError(f"{file}: has more than 8 bits a channel (mode {mode}): save it with 8, or as npz")
    values = np.asarray(small, dtype=np.float64).reshape(height, width, channels) / 255.0
    return np.moveaxis(values, -1, 0).reshape(-1)


def _listed(root: Path) -> list[tuple[Path, str, str]]:
    """File, class and split ("" without split folders) of every image, in the order of their names."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder: correct data.path")
    folders = _folders(root)
    splits = [folder for folder in folders if folder.name in SPLIT_VALUES]
    if splits and len(splits) < len(folders):
        other = next(folder.name for folder in folders if folder.name not in SPLIT_VALUES)
        raise DataError(
            f"{root}: holds the split {splits[0].name!r} and {other!r}, which is none: keep classes inside the folders "
            "train, validation (or val) and test, or have no such folder"
        )
    found = []
    for part, parent in [(SPLIT_VALUES[s.name], s) for s in splits] or [("", root)]:
        for folder in _folders(parent):
            files = sorted(
                file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            )
            if not files:
                raise DataError(f"{folder}: the class holds no image ({', '.join(SUFFIXES)}): add some or remove it")
            found += [(file, folder.name, part) for file in files]
    if not found:
        raise DataError(f"{root}: holds no folder of images: give every class a folder of its own, <class>/*.png")
    return found


def _folders(parent: Path) -> list[Path]:
    return sorted(folder for folder in parent.iterdir() if folder.is_dir() and not folder.name.startswith("."))


@dataclass(frozen=True, kw_only=True)
class Torchvision(AbstractSource):
    """A torchvision set whose files are on disk (the extra `vision`); nothing is downloaded."""

    kind: Literal["torchvision"] = "torchvision"
    """The name of this kind of data."""
    name: Literal["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"]
    """Which set. Its own test part is the test split; validation is cut from its train part by fractions."""
    root: str
    """The folder that torchvision keeps its files in."""

    def load(self, seed: int) -> Raw:
        try:
            from torchvision import datasets
        except ModuleNotFoundError:
            raise DataError("data.kind torchvision needs the extra `vision`: pip install torchvision") from None
        # A torchvision built for another torch.
        except (ImportError, OSError, RuntimeError) as error:
            raise DataError(
                f"data.kind torchvision: the one installed does not work ({_one_line(error)}): install the torchvision "
                "that belongs to this torch"
            ) from None
        root = Path(self.root).expanduser()
        opener = getattr(datasets, self.name)
        try:
            parts = [opener(str(root), train=train, download=False) for train in (True, False)]
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{root}: {self.name} is not there or damaged ({_one_line(error)}); raygrow downloads nothing: run "
                f'python -c "import torchvision; torchvision.datasets.{self.name}({str(root)!r}, download=True)" once'
            ) from None
        images = np.concatenate([_pixels(part) for part in parts])
        shape = images.shape[1:]
        sizes = [len(part.targets) for part in parts]
        x = images.reshape(len(images), -1) / 255.0
        return Raw(
            name=self.name,
            task="classification",
            x=x,
            y=np.concatenate([np.asarray(part.targets) for part in parts]).astype(np.int64),
            features=elements("image", x.shape[1]),
            targets=("class",),
            split=np.repeat(np.array(["train", "test"], dtype=np.object_), sizes),
            shape=shape,
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]


def _pixels(part: Any) -> Array:
    """Bytes [rows, channels, height, width]; torchvision keeps grey images without, and coloured ones with channels last."""
    data = np.asarray(part.data)
    return data[:, None] if data.ndim == 3 else np.moveaxis(data, -1, 1)
