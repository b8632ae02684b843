"""From the columns of tables to rows: which are features, label or target, and split, and whether all files have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrow.data import columns
from raygrow.data.arrays import read_npz_features
from raygrow.data.base import Array, Preprocessing, Raw, elements
from raygrow.data.files import TableSource
from raygrow.data.naming import INDEX_COLUMN, expand, missing
from raygrow.data.reading import Part, open_parts
from raygrow.errors import DataError

LIST_VALUE = re.compile(r"\[\d+\]$")


def read_table(source: TableSource) -> Raw:
    """The rows of a Parquet file or folder, or of a CSV file.

    Raises:
        DataError: the file cannot be read, the keys and its columns do not fit, or a cell cannot be used.
    """
    if (source.label is None) == (source.target is None):
        given = "neither" if source.label is None else "both"
        raise DataError(
            f"data.label, data.target: exactly one is needed, got {given}: label for classification, "
            "target for regression"
        )
    parts = open_parts(source.path, source.kind)
    names, outputs, dropped = _choose(source, parts[0])
    _check_names(parts, [*names, *outputs, *([source.split] if source.split else [])], closed=source.features is None)
    x, y, split = [], [], []
    features: tuple[str, ...] = ()
    for part in parts:
        table = part.read([*names, *outputs, *([source.split] if source.split else [])])
        held, values = _features(part, names, table)
        if features and held != features:
            raise DataError(
                f"{part.file}: its lists give {len(held)} features, but {len(features)} in {parts[0].file}: "
                "give all files lists of the same lengths"
            )
        features = held
        x.append(values)
        if source.label is not None:
            y.append(columns.labels(part, source.label, table.column(source.label)))
        else:
            y.append(np.stack([columns.numbers(part, name, table.column(name)) for name in outputs], axis=1))
        if source.split is not None:
            split.append(columns.splits(part, source.split, table.column(source.split)))
    if source.label is not None:
        _check_one_kind(source.label, parts, y)
    return Raw(
        name=Path(source.path).stem,
        task="regression" if source.label is None else "classification",
        x=np.concatenate(x),
        y=np.concatenate(y),
        features=features,
        targets=tuple(outputs),
        split=np.concatenate(split) if split else None,
        dropped=tuple(dropped),
        parts=tuple((part.file, part.rows) for part in parts),
        shape=source.shape or (),
    )


def _choose(source: TableSource, part: Part) -> tuple[list[str], list[str], list[str]]:
    """Features, label or targets, and the columns not used, from the first file's columns."""
    _check_duplicates(part, part.duplicates)
    file, names = part.file, part.schema.names
    key = "data.target" if source.label is None else "data.label"
    if source.label is not None and source.label not in names:
        raise missing(file, source.label, names, key)
    outputs = [source.label] if source.label is not None else expand(file, source.target or (), names, key)
    if source.split is not None and source.split not in names:
        raise missing(file, source.split, names, "data.split")
    if source.split in outputs:
        raise DataError(f"{file}: column {source.split!r} is both data.split and {key}: name two columns")
    if source.features is None:
        taken = {*outputs, source.split}
        chosen = [
            column.name
            for column in part.schema
            if column.name not in taken
            and columns.is_fixed_size(column.type)
            and not INDEX_COLUMN.fullmatch(column.name)
        ]
        if not chosen:
            raise DataError(f"{file}: no numeric column is left for features: the network needs at least one")
    else:
        chosen = expand(file, source.features, names, "data.features")
        for name in chosen:
            if name in outputs or name == source.split:
                role = key if name in outputs else "data.split"
                raise DataError(f"{file}: column {name!r} is {role} and also among data.features: take it out there")
    used = {*chosen, *outputs, source.split}
    return chosen, outputs, [name for name in names if name not in used]


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
                raise missing(part.file, name, names)
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
