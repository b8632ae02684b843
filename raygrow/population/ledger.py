"""The ledger: an append-only file of events, one JSON object a line, written before the act it describes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raygrow.errors import LedgerError

Event = dict[str, Any]


class Ledger:
    """Events of one campaign folder. One writer at a time (the folder is locked); any number of readers.

    Args:
        path: of ``events.jsonl``; created with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count: int | None = None

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write one event and wait until it is on the disk.

        Returns:
            The event as it will be read back, with its number ``n`` (from 0) and ``time`` (seconds since 1970).
        """
        count = len(self._repaired()) if self._count is None else self._count
        # Known again only when all is done: an interrupt in between leaves a line whole, torn or absent.
        self._count = None
        whole = {"n": count, "time": round(time.time(), 3), **event}
        text = json.dumps(finite(whole), separators=(",", ":"), allow_nan=False)
        created = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if created:
            sync_folder(self.path.parent)
        self._count = count + 1
        read_back: Event = json.loads(text)
        return read_back

    def read(self, since: int = 0) -> list[Event]:
        """Events from number ``since`` on. A last line that was torn by a crash does not count.

        Raises:
            LedgerError: a line other than the last is damaged.
        """
        return [event for event, _ in self._lines()][since:]

    def _lines(self) -> list[tuple[Event, int]]:
        """Events with the offset at which each one's line ends."""
        if not self.path.exists():
            return []
        raw = self.path.read_bytes()
        found: list[tuple[Event, int]] = []
        start = 0
        while start < len(raw):
            end = raw.find(b"\n", start)
            if end < 0:
                break
            try:
                event = json.loads(raw[start:end])
            except ValueError as error:
                if end + 1 == len(raw):
                    break
                raise LedgerError(f"{self.path}: line {len(found) + 1} is damaged ({error})") from None
            if not isinstance(event, dict):
                raise LedgerError(f"{self.path}: line {len(found) + 1} is damaged (it holds no event)")
            if event.get("n") != len(found):
                raise LedgerError(
                    f"{self.path}: line {len(found) + 1} holds event {event.get('n')!r}, a line is missing"
                )
            found.append((event, end + 1))
            start = end + 1
        return found

    def _repaired(self) -> list[Event]:
        """Cut a torn last line off, so that the next event starts a line of its own."""
        lines = self._lines()
        if self.path.exists():
            whole = lines[-1][1] if lines else 0
            if whole < self.path.stat().st_size:
                with self.path.open("r+b") as file:
                    file.truncate(whole)
                    os.fsync(file.fileno())
        return [event for event, _ in lines]


def finite(value: Any) -> Any:
    """The same plain structure with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def sync_folder(path: Path) -> None:
    """Make a new name in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: to a neighbour first, then rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)
