"""Choosing columns and arrays by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from raygrow.errors import DataError

# pandas writes a row index as a column of such a name; it numbers the rows and says nothing about them.
INDEX_COLUMN = re.compile(r"|__index_level_\d+__")
SPLIT_VALUES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def missing(file: str, name: str, names: Sequence[str], key: str = "", what: str = "column") -> DataError:
    """The error for a column (or other named thing) that does not exist, with the closest one that does."""
    wanted = f" ({key})" if key else ""
    close = get_close_matches(name.casefold(), [n.casefold() for n in names], n=1)
    if close:
        cure = f"did you mean {next(n for n in names if n.casefold() == close[0])!r}?"
    else:
        cure = f"the {what}s are {', '.join(map(repr, names[:8]))}{', ...' if len(names) > 8 else ''}"
    return DataError(f"{file}: no {what} {name!r}{wanted}: {cure}")


def expand(file: str, patterns: str | Sequence[str], names: Sequence[str], key: str) -> list[str]:
    """Columns named by a name, a glob or a list of them; in the list's order, a glob's in the file's order.

    Raises:
        DataError: a name or glob matches no column, or the list is empty.
    """
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    known = set(names)
    found: dict[str, None] = {}
    for pattern in listed:
        # A column may be called "x[0]": an exact name goes before a glob.
        matched = [pattern] if pattern in known else [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise missing(file, pattern, names, key)
        found.update(dict.fromkeys(matched))
    if not found:
        raise DataError(f"{file}: {key} names no column: name at least one, or leave the key out")
    return list(found)
