"""Arrays of the user's own, in NumPy's .npz: trailing dimensions are the shape, the type of y decides the task."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import AbstractSource, Array, Preprocessing, Raw, elements
from raygrow.data.naming import SPLIT_VALUES, missing
from raygrow.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Npz(AbstractSource):
    """A NumPy .npz file with arrays x and y: integer, boolean or text y is a label, float y a target."""

    kind: Literal["npz"] = "npz"
    """The name of this kind of data."""
    path: str
    """The file; it is never unpickled."""
    x: str = "x"
    """Name of the array of examples, numbers [rows, features], [rows, channels, length] or
    [rows, channels, height, width]."""
    y: str = "y"
    """Name of the array of labels [rows] (integers, booleans, text) or targets [rows] or [rows, targets] (floats)."""
    split: str | None = None
    """Name of the array [rows] that says train, validation (or val) or test for each row; null: use fractions."""
    shape: tuple[int, ...] | None = None
    """Of an example, [channels, height, width] or [channels, length]; null: the trailing dimensions of x. Grey images
    [rows, 28, 28] need [1, 28, 28]."""
    channels_last: bool = False
    """Whether the channels are the last dimension of x instead of the first after the rows; they are moved there."""

    def load(self, seed: int) -> Raw:
        arrays = _read(self.path, {"x": self.x, "y": self.y} | ({"split": self.split} if self.split else {}))
        x, y = arrays["x"], arrays["y"]
        file = str(Path(self.path).expanduser())
        for key, array in arrays.items():
            if array.ndim == 0 or len(array) != len(x):
                raise DataError(
                    f"{file}: array {getattr(self, key)!r} (data.{key}) has shape {array.shape}, but {self.x!r} has "
                    f"{x.shape}: give both as many rows"
                )
        values = _examples(file, self.x, x)
        if self.channels_last:
            values = np.moveaxis(values, -1, 1)
        shape = values.shape[1:] if values.ndim > 2 else ()
        if self.shape is None and values.ndim > 4:
            raise DataError(
                f"{file}: array {self.x!r} has {values.ndim} dimensions, but an example is an image or a signal: "
                "name data.shape"
            )
        labels = y.dtype.kind in "biuU"
        split = arrays.get("split")
        flat = values.reshape(len(values), -1)
        outcome = _labels(file, self.y, y) if labels else _targets(file, self.y, y)
        return Raw(
            name=Path(self.path).stem,
            task="classification" if labels else "regression",
            x=flat,
            y=outcome,
            features=elements(self.x, flat.shape[1]),
            targets=elements(self.y, outcome.shape[1]) if outcome.ndim == 2 and outcome.shape[1] > 1 else (self.y,),
            split=None if split is None else _splits(file, str(self.split), split),
            parts=((file, len(flat)),),
            shape=self.shape or shape,
        )


def read_npz_features(path: str, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Examples [rows, features] of new rows: the array that was trained on, channels first or last, or flat.

    Raises:
        DataError: the file cannot be read, or holds no array of that name and size.
    """
    name = preprocessing.features[0].rpartition("[")[0]
    x = _examples(path, name, _read(path, {"x": name})["x"])
    shape = preprocessing.shape
    if shape and x.shape[1:] != shape and x.shape[1:] == (*shape[1:], shape[0]):
        x = np.moveaxis(x, -1, 1)
    x = x.reshape(len(x), -1)
    if x.shape[1] != len(preprocessing.features) or not np.isfinite(x).all():
        raise DataError(
            f"{path}: array {name!r} has {x.shape[1]} values an example, the network takes "
            f"{len(preprocessing.features)}, all finite: give the array it was trained on"
        )
    return x


def _read(path: str, wanted: dict[str, str]) -> dict[str, Array]:
    """Arrays of a file by their role."""
    place = Path(path).expanduser()
    try:
        held = np.load(place, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{place}: no such file: correct data.path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        held = None
    if not isinstance(held, np.lib.npyio.NpzFile):
        raise DataError(f"{place}: is not an .npz file: write it with numpy.savez(path, x=..., y=...)")
    found = {}
    with held:
        for key, name in wanted.items():
            if name not in held.files:
                raise missing(str(place), name, held.files, f"data.{key}", "array")
            try:
                found[key] = held[name]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                if "allow_pickle" in str(error):
                    raise DataError(
                        f"{place}: array {name!r} holds Python objects, which are refused because reading them can "
                        "run code: save numbers or fixed-width text, for example array.astype(str)"
                    ) from None
                raise DataError(f"{place}: array {name!r} is damaged: write the file again") from None
    return found


def _examples(file: str, name: str, x: Array) -> NDArray[np.float64]:
    """Examples as float64, in the shape they have."""
    if x.dtype.kind not in "biuf" or x.ndim < 2:
        raise DataError(
            f"{file}: array {name!r} must hold numbers [rows, ...], got {x.dtype} {list(x.shape)}: "
            "save it as numbers with one row an example"
        )
    return x.astype(np.float64)


def _labels(file: str, name: str, y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"{file}: array {name!r} of {y.dtype} must hold one label a row, got {list(y.shape)}: "
            "for one-hot labels save y.argmax(1), for targets of a regression save floats"
        )
    if y.dtype.kind == "U" or (y.dtype == np.uint64 and y.max(initial=0) > np.iinfo(np.int64).max):
        return y.astype(np.object_)
    return y if y.dtype == np.bool_ else y.astype(np.int64)


def _targets(file: str, name: str, y: Array) -> NDArray[np.float64]:
    if y.dtype.kind != "f" or y.ndim > 2:
        raise DataError(
            f"{file}: array {name!r} must hold labels (integers, booleans, text) [rows] or targets (floats) [rows] or "
            f"[rows, targets], got {y.dtype} {list(y.shape)}: save it as one of these"
        )
    return y.astype(np.float64).reshape(len(y), -1)


def _splits(file: str, name: str, split: Array) -> Array:
    bad = [value for value in np.unique(split).tolist() if value not in SPLIT_VALUES]
    if bad or split.ndim != 1:
        raise DataError(
            f"{file}: array {name!r} (data.split) must hold train, validation (or val) and test, one a row, "
            f"got {bad[0] if bad else list(split.shape)!r}: correct it"
        )
    return np.array([SPLIT_VALUES[value] for value in split.tolist()], dtype=np.object_)
