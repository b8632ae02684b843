"""Tables of the user's own, in Parquet or CSV: a label makes a classification of them, a target a regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from raygrow.data.base import AbstractSource, Raw


@dataclass(frozen=True, kw_only=True)
class TableSource(AbstractSource):
    """What Parquet and CSV share: which columns are features, label or target, and split."""

    kind: Literal["parquet", "csv"]
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

    def load(self, seed: int) -> Raw:
        # Reading takes pyarrow, which an actor never needs: it is given arrays.
        from raygrow.data.tables import read_table

        return read_table(self)


@dataclass(frozen=True, kw_only=True)
class Parquet(TableSource):
    """A Parquet file or a folder of Parquet files: label for classification, target for regression."""

    kind: Literal["parquet"] = "parquet"
    """The name of this kind of data."""
    path: str
    """The file, or a folder whose .parquet files are read in the order of their names."""


@dataclass(frozen=True, kw_only=True)
class Csv(TableSource):
    """A CSV file (comma-separated, UTF-8, with a header): label for classification, target for regression."""

    kind: Literal["csv"] = "csv"
    """The name of this kind of data."""
    path: str
    """The file; .csv.gz is read too."""
