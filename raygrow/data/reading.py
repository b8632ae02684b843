"""Opening Parquet and CSV files: what can go wrong with a file as a whole, told in one line."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from raygrow.errors import DataError

PARQUET_SUFFIXES = (".parquet", ".pq")
MAGIC = b"PAR1"


class Part(ABC):
    """One open file of a table: ``file`` names it in messages, ``schema`` holds names and types, ``rows`` the count."""

    file: str
    schema: pa.Schema
    rows: int

    @abstractmethod
    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read the named columns.

        Raises:
            DataError: the file is damaged.
        """

    @property
    def duplicates(self) -> tuple[str, ...]:
        """Column names that occur more than once."""
        return tuple(name for name, count in Counter(self.schema.names).items() if count > 1)


class ParquetPart(Part):
    """A Parquet file; only the footer is read until columns are asked for."""

    def __init__(self, path: Path) -> None:
        self.file = str(path)
        magic = _ends(path)
        if magic[0] != MAGIC:
            raise DataError(
                f"{path}: is not a Parquet file (it does not begin with PAR1): for CSV set data.kind to csv"
            )
        if magic[1] != MAGIC:
            raise DataError(f"{path}: is a truncated Parquet file (it does not end with PAR1): copy or write it again")
        try:
            self._parquet = pq.ParquetFile(path)
            self.schema = self._parquet.schema_arrow
            self.rows = self._parquet.metadata.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({_one_line(error)}): write it again") from None

    def read(self, columns: Sequence[str]) -> pa.Table:
        try:
            table = self._parquet.read(columns=list(columns))
            # A name with a dot may bring its neighbours along; select keeps what was asked for.
            return table.select(list(columns))
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(f"{self.file}: is damaged ({_one_line(error)}): copy or write it again") from None


class CsvPart(Part):
    """A CSV file with a header line, comma-separated, UTF-8; read at once, since types follow from the values."""

    def __init__(self, path: Path) -> None:
        self.file = str(path)
        if _ends(path)[0] == MAGIC:
            raise DataError(f"{path}: is a Parquet file, not CSV: set data.kind to parquet and name it .parquet")
        try:
            self._table = _read_csv(path, threads=True)
        except pa.ArrowInvalid:
            # Row numbers are told by one thread only.
            try:
                self._table = _read_csv(path, threads=False)
            except pa.ArrowInvalid as error:
                raise DataError(f"{path}: cannot be read as CSV ({_csv_problem(error)}): correct the row") from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as CSV ({_one_line(error)}): write it again") from None
        try:
            self.schema = self._table.schema
            self.rows = self._table.num_rows
            _ = self.schema.names
        except UnicodeDecodeError:
            raise DataError(f"{path}: the header is not UTF-8 text: save the file as UTF-8") from None

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self._table.select(list(columns))


def open_parts(path: str, kind: Literal["parquet", "csv"] | None = None) -> tuple[Part, ...]:
    """Open a table: one file, or for Parquet a folder whose Parquet files are read in the order of their names.

    Files of a folder that hold no rows are left out (parallel writers leave such files).

    Args:
        path: the file or folder; ``~`` is the home folder.
        kind: what to read it as; None goes by the extension, and takes a folder for Parquet.

    Raises:
        DataError: there is nothing to read at the path, it holds no rows, or it is not what the kind says.
    """
    place = Path(path).expanduser()
    try:
        if not place.exists():
            raise DataError(f"{place}: no such file or folder: correct the path")
        if kind is None:
            kind = _kind_of(place)
        if not place.is_dir():
            return _with_rows(place, [_open(place, kind)])
        if kind == "csv":
            raise DataError(
                f"{place}: is a folder, CSV takes one file: name the file, or use a folder of Parquet files"
            )
        # Writers leave files of their own (_SUCCESS, .crc) beside the data.
        files = [f for f in place.iterdir() if f.suffix in PARQUET_SUFFIXES and not f.name.startswith(("_", "."))]
        if not files:
            raise DataError(f"{place}: the folder holds no .parquet file: name a folder that does (not its parent)")
        return _with_rows(place, [_open(file, kind) for file in sorted(files)])
    except OSError as error:
        raise DataError(f"{place}: cannot be opened ({_one_line(error)}): check the path and its permissions") from None


def _with_rows(place: Path, parts: Sequence[Part]) -> tuple[Part, ...]:
    filled = tuple(part for part in parts if part.rows)
    if not filled:
        raise DataError(f"{place}: holds no rows: write the data again")
    return filled


def _kind_of(place: Path) -> Literal["parquet", "csv"]:
    if place.is_dir() or place.suffix in PARQUET_SUFFIXES:
        return "parquet"
    if ".csv" in place.suffixes[-2:]:
        return "csv"
    raise DataError(
        f"{place}: unknown extension {place.suffix!r}: give a .parquet or .csv file, or a folder of .parquet"
    )


def _open(path: Path, kind: Literal["parquet", "csv"]) -> Part:
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes): copy or write it again")
    return ParquetPart(path) if kind == "parquet" else CsvPart(path)


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and last four bytes."""
    with path.open("rb") as file:
        first = file.read(4)
        file.seek(max(0, path.stat().st_size - 4))
        return first, file.read(4)


def _read_csv(path: Path, threads: bool) -> pa.Table:
    return pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(use_threads=threads),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        # An empty cell is missing in a column of text too; "NA" in quotes stays text.
        convert_options=pa_csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
    )


def _csv_problem(error: Exception) -> str:
    """Arrow counts rows from 1 and the header as one; messages here count rows of data from 0."""
    text = _one_line(error).removeprefix("CSV parse error: ")
    return re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) - 2}", text)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
