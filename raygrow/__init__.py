"""raygrow grows neural networks from the simplest start, in populations.

``import raygrow`` is light; torch, Ray and MLflow are imported when something is run.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raygrow.app import resume as resume
    from raygrow.app import run as run
    from raygrow.result import Result as Result

try:
    __version__ = version("raygrow")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+source"

_LAZY = {"Result": "raygrow.result", "resume": "raygrow.app", "run": "raygrow.app"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'raygrow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
