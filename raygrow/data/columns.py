"""Turning columns into numbers or labels: every bad cell is named by column and row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types
from numpy.typing import NDArray

from raygrow.data.base import Array
from raygrow.data.naming import SPLIT_VALUES
from raygrow.data.reading import Part
from raygrow.errors import DataError


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a feature or target: numbers of every width, decimals and booleans."""
    kind = _plain(kind)
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether the cells of a column are lists, of any or of a fixed size."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_fixed_size(kind: pa.DataType) -> bool:
    """Whether every cell of a column is bound to be one number or the same count of numbers."""
    while types.is_fixed_size_list(kind):
        kind = kind.value_type
    return is_numeric(kind)


def matrix(part: Part, name: str, column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A numeric column [rows, 1], or a column of lists (also of lists of lists), flattened, as [rows, values].

    Raises:
        DataError: the values are not numeric, one is missing, NaN or infinite, or the lists differ in length.
    """
    rows, width = len(column), 1
    while is_list(column.type):
        _check_complete(part, name, column, width)
        lengths = np.asarray(pc.list_value_length(column).to_numpy())
        if not lengths[0]:
            raise DataError(f"{part.file}: column {name!r}, row 0: the list is empty: leave the column out")
        other = np.flatnonzero(lengths != lengths[0])
        if len(other):
            raise DataError(
                f"{part.file}: column {name!r}, row {other[0] // width}: a list of {lengths[other[0]]} values, but "
                f"{lengths[0]} in row 0: give all rows as many, or leave the column out"
            )
        width *= int(lengths[0])
        column = pc.list_flatten(column)
    return numbers(part, name, column, width).reshape(rows, width)


def numbers(part: Part, name: str, column: pa.ChunkedArray, width: int = 1) -> NDArray[np.float64]:
    """A numeric column as float64; ``width`` values of it make a row, for messages.

    Raises:
        DataError: the column is not numeric, or a cell is missing, NaN or infinite.
    """
    column = _decoded(column)
    if not is_numeric(column.type):
        # A column with no value at all has no type either; it is its cells that are missing.
        _check_complete(part, name, column, width)
        raise DataError(
            f"{part.file}: column {name!r} holds {_described(column)}, not numbers: leave it out or encode it"
        )
    _check_complete(part, name, column, width)
    if types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values = np.asarray(column.to_numpy()).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{part.file}: column {name!r}, row {bad[0] // width}: {values[bad[0]]} is not a finite number: "
            "correct or remove the row (missing values are refused)"
        )
    return values


def labels(part: Part, name: str, column: pa.ChunkedArray) -> Array:
    """A label column as bool, int64, float64 (whole numbers) or object (str, or integers beyond int64).

    Raises:
        DataError: a cell is missing, the numbers are not whole, or the type cannot be a label.
    """
    column = _decoded(column)
    kind = column.type
    _check_complete(part, name, column)
    if types.is_boolean(kind):
        return np.asarray(column.to_numpy()).astype(np.bool_)
    if types.is_integer(kind):
        whole = np.asarray(column.to_numpy())
        fits = whole.dtype != np.uint64 or whole.max(initial=0) <= np.iinfo(np.int64).max
        return whole.astype(np.int64 if fits else np.object_)
    if is_numeric(kind):
        values = numbers(part, name, column)
        broken = np.flatnonzero(values != np.floor(values))
        if len(broken):
            raise DataError(
                f"{part.file}: label {name!r}, row {broken[0]}: {values[broken[0]]} is a measured value, not a class: "
                "use target instead of label"
            )
        return values
    if _is_text(kind):
        return np.array(column.to_pylist(), dtype=np.object_)
    raise DataError(
        f"{part.file}: label {name!r} holds {_described(column)}: a label must hold integers, booleans or text"
    )


def splits(part: Part, name: str, column: pa.ChunkedArray) -> Array:
    """A split column as an object array of ``train``, ``validation`` and ``test``.

    Raises:
        DataError: a cell is missing or holds something else.
    """
    column = _decoded(column)
    _check_complete(part, name, column)
    values = column.to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, str) or value not in SPLIT_VALUES:
            hint = " (search is taken from train)" if value == "search" else ""
            raise DataError(
                f"{part.file}: split column {name!r}, row {row}: unknown split {value!r}: "
                f"use train, validation (or val) and test{hint}"
            )
    return np.array([SPLIT_VALUES[value] for value in values], dtype=np.object_)


def kind_of(found: Array) -> str:
    """What ``labels`` returned, in words."""
    if found.dtype == np.object_:
        return "integers" if isinstance(found[0], int) else "text"
    return {"b": "booleans", "i": "integers"}.get(found.dtype.kind, "decimal numbers")


def _check_complete(part: Part, name: str, column: pa.ChunkedArray, width: int = 1) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) // width
        raise DataError(
            f"{part.file}: column {name!r}, row {row}: the value is missing: "
            "fill it in or remove the row (missing values are refused)"
        )


def _plain(kind: pa.DataType) -> Any:
    """The type of the values of a dictionary-encoded column, any other type as it is."""
    return kind.value_type if types.is_dictionary(kind) else kind


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(_plain(column.type)) if types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _described(column: pa.ChunkedArray) -> str:
    """What a column holds, in words, with the first cell that shows it."""
    if types.is_temporal(column.type):
        return f"dates or times ({column.type})"
    if not _is_text(column.type):
        return f"values of type {column.type}"
    for row, value in enumerate(column.to_pylist()):
        try:
            float(value)
        except ValueError:
            return f"text ({value[:40]!r} in row {row})"
    return f"text ({column[0].as_py()[:40]!r} in row 0)"
