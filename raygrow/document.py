"""One YAML file a run, read and overridden: what the user wrote, not checked yet. No inheritance, no interpolation.

It is read without torch, so that a command can begin what takes long before it imports the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from raygrow.errors import ConfigError
from raygrow.population.pool_plan import PoolPlan

DEFAULT_MEMBERS = tuple({"name": kind, "strategy": {"kind": kind}} for kind in ("mdl", "significance", "rl"))


def read_document(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration with its overrides, as a mapping.

    Args:
        source: a YAML file, or its content.
        overrides: dotted path to value.

    Raises:
        ConfigError: the file cannot be read, or an override points to nothing.
    """
    raw = read_yaml(Path(source)) if isinstance(source, str | Path) else copied(source)
    for path, value in (overrides or {}).items():
        override(raw, path, value)
    return raw


def local_pool(document: Mapping[str, Any]) -> tuple[PoolPlan, int]:
    """The pool and the number of members of a document; a serial pool where it makes no sense, which is told later."""
    try:
        return PoolPlan(**(document.get("pool") or {})), len(document.get("members", DEFAULT_MEMBERS))
    except (TypeError, ValueError):
        return PoolPlan(kind="serial"), 0


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file as a mapping."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold keys such as `data:`, but holds {type(raw).__name__}")
    return raw


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """``KEY.PATH=VALUE`` words as a mapping; values are read as YAML."""
    found: dict[str, Any] = {}
    for word in assignments:
        path, equals, value = word.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set takes KEY.PATH=VALUE, but got {word!r}")
        try:
            found[path] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"--set {path}: {value!r} is not a YAML value") from None
    return found


def override(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set one dotted path in place; unknown keys are found later, when the plan is built."""
    *parents, last = path.split(".")
    place: Any = raw
    if parents[:1] == ["members"] and "members" not in raw:
        raw["members"] = copied(list(DEFAULT_MEMBERS))
    for depth, part in enumerate([*parents, last]):
        here = ".".join(path.split(".")[: depth + 1])
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ConfigError(f"--set {path}: `{here}` must be an index from 0 to {len(place) - 1}")
            key: Any = int(part)
        elif isinstance(place, dict):
            key = part
        else:
            raise ConfigError(f"--set {path}: `{here}` lies below a plain value")
        if depth == len(parents):
            place[key] = value
        else:
            if isinstance(place, dict) and place.get(key) is None:
                place[key] = {}
            place = place[key]


def copied(value: Any) -> Any:
    """Mappings and lists anew, so that they can be changed."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value
