"""The process that a command runs in: its signals, and what it runs on."""

from __future__ import annotations

import gc
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import raygrow
from raygrow.errors import Refused

PACKAGES = ("raygrow", "torch", "numpy", "ray", "mlflow", "pyarrow")


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an ``Exception``: nothing on the way may swallow it."""


@contextmanager
def imports() -> Iterator[None]:
    """For the imports of a process that is ours: Python does not look through them for garbage, now or later.

    Torch alone makes some 200,000 objects that stay. Python's collector goes through all of them several times while they
    are made, 0.25 to 0.35 s, and for 0.1 s in each full collection of the training afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


@contextmanager
def signals(ignore: bool = False) -> Iterator[None]:
    """SIGINT and SIGTERM as ``Interrupted`` (or not at all) inside; a thread that is not the main one has no say."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        raise Interrupted(signal.Signals(number).name)

    handler: Any = signal.SIG_IGN if ignore else stop
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def versions() -> dict[str, str]:
    """Of Python and the packages that figures may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = raygrow.__version__ if name == "raygrow" else version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the process runs on."""
    return {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}


def refuse_unwritable(root: Path) -> None:
    """Refuse a folder that could not be made, before any work."""
    place = root
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise Refused(f"--out {root}: {place} is not a folder that can be written to")
