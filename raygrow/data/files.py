"""Tables of the user's own, in Parquet or CSV: a label makes a classification of them, a target a regression."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrow.data import columns
from raygrow.data.arrays import read_npz_features
from raygrow.data.base import AbstractSource, Array, Preprocessing, Raw, elements
from raygrow.data.reading import Part, open_parts
from raygrow.errors import DataError

LIST_VALUE = re.compile(r"\[\d+\]$")


@dataclass(frozen=True, kw_only=True)
class TableSource(AbstractSource):
    """What Parquet and CSV share: which columns are features, label or target, and split."""

    path: str
    label: str | None = field(
        default=None,
        metadata={
            "description": "Classification: the column of labels (integers, booleans or text). Either this or target."
        },
    )
    target: str | tuple[str, ...] | None = field(
        default=None,
        metadata={
            "description": 'Regression: one numeric column, a list, or a glob such as "t*". Either this or label.'
        },
    )
    features: str | tuple[str, ...] | None = field(
        default=None,
        metadata={
            "description": 'A glob such as "f*", or a list of names and globs; null: all other numeric columns. '
            "A column of lists gives as many features as a list has values; null takes those of a fixed size alone."
        },
    )
    split: str | None = field(
        default=None,
        metadata={
            "description": "The column that says train, validation (or val) or test for each row; null: use fractions."
        },
    )
    shape: tuple[int, ...] | None = field(
        default=None,
        metadata={
            "description": "Views the features as an image [channels, height, width] or a signal [channels, length], "
            "channel after channel; null: a plain vector."
        },
    )

    @abstractmethod
    def _parts(self) -> tuple[Part, ...]:
        """Open the file or files."""

    def load(self, seed: int) -> Raw:
        if (self.label is None) == (self.target is None):
            given = "neither" if self.label is None else "both"
            raise DataError(
                f"data.label, data.target: exactly one is needed, got {given}: label for classification, "
                "target for regression"
            )
        parts = self._parts()
        names, outputs, dropped = self._choose(parts[0])
        _check_names(parts, [*names, *outputs, *([self.split] if self.split else [])], closed=self.features is None)
        x, y, split = [], [], []
        features: tuple[str, ...] = ()
        for part in parts:
            table = part.read([*names, *outputs, *([self.split] if self.split else [])])
            held, values = _features(part, names, table)
            if features and held != features:
                raise DataError(
                    f"{part.file}: its lists give {len(held)} features, but {len(features)} in {parts[0].file}: "
                    "give all files lists of the same lengths"
                )
            features = held
            x.append(values)
            if self.label is not None:
                y.append(columns.labels(part, self.label, table.column(self.label)))
            else:
                y.append(np.stack([columns.numbers(part, name, table.column(name)) for name in outputs], axis=1))
            if self.split is not None:
                split.append(columns.splits(part, self.split, table.column(self.split)))
        if self.label is not None:
            _check_one_kind(self.label, parts, y)
        return Raw(
            name=Path(self.path).stem,
            task="regression" if self.label is None else "classification",
            x=np.concatenate(x),
            y=np.concatenate(y),
            features=features,
            targets=tuple(outputs),
            split=np.concatenate(split) if split else None,
            dropped=tuple(dropped),
            parts=tuple((part.file, part.rows) for part in parts),
            shape=self.shape or (),
        )

    def _choose(self, part: Part) -> tuple[list[str], list[str], list[str]]:
        """Features, label or targets, and the columns not used, from the first file's columns."""
        _check_duplicates(part, part.duplicates)
        file, names = part.file, part.schema.names
        key = "data.target" if self.label is None else "data.label"
        if self.label is not None and self.label not in names:
            raise columns.missing(file, self.label, names, key)
        outputs = [self.label] if self.label is not None else columns.expand(file, self.target or (), names, key)
        if self.split is not None and self.split not in names:
            raise columns.missing(file, self.split, names, "data.split")
        if self.split in outputs:
            raise DataError(f"{file}: column {self.split!r} is both data.split and {key}: name two columns")
        if self.features is None:
            taken = {*outputs, self.split}
            chosen = [
                column.name
                for column in part.schema
                if column.name not in taken
                and columns.is_fixed_size(column.type)
                and not columns.INDEX_COLUMN.fullmatch(column.name)
            ]
            if not chosen:
                raise DataError(f"{file}: no numeric column is left for features: the network needs at least one")
        else:
            chosen = columns.expand(file, self.features, names, "data.features")
            for name in chosen:
                if name in outputs or name == self.split:
                    role = key if name in outputs else "data.split"
                    raise DataError(
                        f"{file}: column {name!r} is {role} and also among data.features: take it out there"
                    )
        used = {*chosen, *outputs, self.split}
        return chosen, outputs, [name for name in names if name not in used]


@dataclass(frozen=True, kw_only=True)
class Parquet(TableSource):
    """A Parquet file or a folder of Parquet files: label for classification, target for regression."""

    kind: Literal["parquet"] = "parquet"
    """The name of this kind of data."""
    path: str
    """The file, or a folder whose .parquet files are read in the order of their names."""

    def _parts(self) -> tuple[Part, ...]:
        return open_parts(self.path, "parquet")


@dataclass(frozen=True, kw_only=True)
class Csv(TableSource):
    """A CSV file (comma-separated, UTF-8, with a header): label for classification, target for regression."""

    kind: Literal["csv"] = "csv"
    """The name of this kind of data."""
    path: str
    """The file; .csv.gz is read too."""

    def _parts(self) -> tuple[Part, ...]:
        return open_parts(self.path, "csv")


def read_features(path: str | PathLike[str], preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Read the features of new rows, for prediction.

    Args:
        path: a Parquet file, a folder of Parquet files, a CSV or an .npz file, told apart by extension.
        preprocessing: names the features wanted; other columns and arrays are ignored.

    Returns:
        float64 [rows, features] in original units, in the order of the rows; ``preprocessing.transform`` takes it.

    Raises:
        DataError: the file cannot be read, a column is missing or not numeric, or a cell is missing or not finite.
    """
    if fspath(path).endswith(".npz"):
        return read_npz_features(fspath(path), preprocessing)
    parts = open_parts(fspath(path))
    names = _columns_of(preprocessing.features, parts[0])
    for part in parts:
        _check_duplicates(part, [name for name in part.duplicates if name in set(names)])
    _check_names(parts, names)
    found = []
    for part in parts:
        held, values = _features(part, names, part.read(names))
        if held != preprocessing.features:
            raise DataError(
                f"{part.file}: its lists give {len(held)} features, but the network takes "
                f"{len(preprocessing.features)}: give lists of the length it was trained on"
            )
        found.append(values)
    return np.concatenate(found)


def _columns_of(features: Sequence[str], part: Part) -> list[str]:
    """The columns that hold features: of their own name, or of the list that ``name[0]``, ``name[1]``, ... came from."""
    known = {column.name: columns.is_list(column.type) for column in part.schema}
    found: dict[str, None] = {}
    for feature in features:
        whole = LIST_VALUE.sub("", feature)
        found[whole if feature not in known and known.get(whole) else feature] = None
    return list(found)


def _features(part: Part, names: Sequence[str], table: pa.Table) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Feature names, and columns as float64 [rows, features]; a column of lists gives as many as its lists are long."""
    found: list[str] = []
    values = []
    for name in names:
        column = table.column(name)
        held = columns.matrix(part, name, column)
        found += elements(name, held.shape[1]) if columns.is_list(column.type) else [name]
        values.append(held)
    return tuple(found), np.concatenate(values, axis=1)


def _check_duplicates(part: Part, duplicates: Sequence[str]) -> None:
    if duplicates:
        raise DataError(f"{part.file}: two columns are called {duplicates[0]!r}: rename one of them")


def _check_names(parts: Sequence[Part], wanted: Sequence[str], closed: bool = False) -> None:
    """Every file must hold the wanted columns; where all columns are used (closed), no others than the first file's."""
    known = set(parts[0].schema.names)
    for part in parts:
        _check_duplicates(part, [name for name in part.duplicates if closed or name in set(wanted)])
        names = part.schema.names
        held = set(names)
        for name in wanted:
            if name not in held:
                raise columns.missing(part.file, name, names)
        for name in names:
            if closed and name not in known:
                raise DataError(
                    f"{part.file}: column {name!r} is not in {parts[0].file}: give all files the same columns, "
                    "or name data.features"
                )


def _check_one_kind(label: str, parts: Sequence[Part], found: Sequence[Array]) -> None:
    """Labels of several files must be of one kind, else 1 and "1" would become two classes."""
    held = [(part.file, columns.kind_of(values)) for part, values in zip(parts, found, strict=True)]
    for file, kind in held:
        if kind != held[0][1]:
            raise DataError(f"{file}: label {label!r} holds {kind}, but {held[0][1]} in {held[0][0]}: write them alike")
