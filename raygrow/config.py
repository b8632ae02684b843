"""What a configuration says, checked and resolved into a ``Plan``.

The schema is the dataclasses of ``raygrow.population.plan`` and the registry tuples; nothing is listed twice.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml  # type: ignore[import-untyped]
from pydantic import TypeAdapter, ValidationError

from raygrow.baselines import BASELINES, AbstractBaseline
from raygrow.data import SOURCES, AbstractSource
from raygrow.document import DEFAULT_MEMBERS, read_document
from raygrow.errors import ConfigError
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer
from raygrow.population.plan import (
    Budget,
    Campaign,
    CheckpointPlan,
    Growth,
    Member,
    NetworkPlan,
    Plan,
    Probe,
    Tracking,
    Training,
    kind_of,
)
from raygrow.population.pool_plan import PoolPlan
from raygrow.population.selection import SELECTIONS, AbstractSelection, Auction
from raygrow.strategies import STRATEGIES, AbstractStrategy

T = TypeVar("T")

FAMILIES: Mapping[str, tuple[type[Any], tuple[type[Any], ...]]] = {
    "data": (AbstractSource, SOURCES),
    "strategy": (AbstractStrategy, STRATEGIES),
    "initializer": (AbstractInitializer, INITIALIZERS),
    "selection": (AbstractSelection, SELECTIONS),
    "baseline": (AbstractBaseline, BASELINES),
}
"""Keys whose value names a ``kind``: the base class and the one list of what ships."""

SECTIONS: Mapping[str, type[Any]] = {
    "campaign": Campaign,
    "network": NetworkPlan,
    "training": Training,
    "growth": Growth,
    "probe": Probe,
    "budget": Budget,
    "pool": PoolPlan,
    "checkpoints": CheckpointPlan,
    "tracking": Tracking,
}
MEMBER_SECTIONS = ("training", "growth", "probe")


def load_plan(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Plan:
    """Read, override, check and resolve a configuration.

    Args:
        source: a YAML file, or its content as a mapping (which may hold strategy, initializer and selection objects).
        overrides: dotted path to value.

    Raises:
        ConfigError: names the key, echoes the value and says what is known or allowed.
    """
    return build_plan(read_document(source, overrides))


def build_plan(raw: Mapping[str, Any]) -> Plan:
    """Check a mapping and build the plan."""
    check_keys("", raw, [*SECTIONS, "data", "members", "selection"])
    if "data" not in raw:
        raise ConfigError(f"`data` is required, for example `data: {{kind: digits}}`; kinds: {kind_names('data')}")
    sections = {name: section(name, cls, raw.get(name, {})) for name, cls in SECTIONS.items()}
    members = raw.get("members", DEFAULT_MEMBERS)
    if not isinstance(members, list | tuple):
        raise ConfigError(f"`members` must be a list, but got {members!r}")
    shared = {name: mapping(name, raw.get(name, {})) for name in MEMBER_SECTIONS}
    try:
        return Plan(
            data=of_kind("data", "data", raw["data"]),
            members=tuple(_member(f"members.{i}", m, shared) for i, m in enumerate(members)),
            selection=of_kind("selection", "selection", raw["selection"]) if "selection" in raw else Auction(),
            **sections,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _member(path: str, raw: Any, shared: Mapping[str, Mapping[str, Any]]) -> Member:
    raw = mapping(path, raw)
    check_keys(path, raw, ["name", "strategy", "initializer", "seed", *MEMBER_SECTIONS])
    if "strategy" not in raw:
        raise ConfigError(f"`{path}.strategy` is required; kinds: {kind_names('strategy')}")
    strategy = of_kind("strategy", f"{path}.strategy", raw["strategy"])
    merged = {
        name: section(
            f"{path}.{name}", SECTIONS[name], {**shared[name], **mapping(f"{path}.{name}", raw.get(name, {}))}
        )
        for name in MEMBER_SECTIONS
    }
    try:
        return Member(
            name=_value(f"{path}.name", str, raw.get("name", kind_of(strategy).rpartition(":")[2])),
            strategy=strategy,
            initializer=of_kind("initializer", f"{path}.initializer", raw.get("initializer", {"kind": "tiny"})),
            seed=_value(f"{path}.seed", int, raw.get("seed", 0)),
            **merged,
        )
    except ValueError as error:
        raise ConfigError(f"`{path}`: {error}") from None


def resolved(plan: Plan) -> dict[str, Any]:
    """The plan as plain YAML values, every key explicit; ``load_plan`` reads it back."""
    return {
        name: [plain(member) for member in plan.members] if name == "members" else plain(getattr(plan, name))
        for name in ("campaign", "data", "network", *MEMBER_SECTIONS, "members", "selection", "budget", "pool",
                     "checkpoints", "tracking")
    }  # fmt: skip


def to_yaml(value: Mapping[str, Any]) -> str:
    """Block style, in the given order."""
    return str(yaml.safe_dump(dict(value), sort_keys=False, default_flow_style=None, width=120))


def fields_of(cls: type[Any]) -> list[tuple[str, Any, str]]:
    """Name, default and description of every parameter of a ``kind``."""
    schema = _adapter(cls).json_schema()["properties"]
    found = []
    for field in dataclasses.fields(cls):
        if field.name != "kind":
            default = None if field.default is dataclasses.MISSING else field.default
            found.append((field.name, default, schema.get(field.name, {}).get("description", "")))
    return found


def plain(value: Any) -> Any:
    """The same in what YAML has words for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        bases = tuple(base for base, _ in FAMILIES.values())
        # A user's own class is named by where it is found, whatever ``kind`` it may have as a field.
        return (
            {"kind": kind_of(value), **{k: v for k, v in found.items() if k != "kind"}}
            if isinstance(value, bases)
            else found
        )
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def section(path: str, cls: type[T], raw: Any) -> T:
    """A section of the configuration, its keys checked."""
    raw = mapping(path, raw)
    check_keys(path, raw, [field.name for field in dataclasses.fields(cls)])  # type: ignore[arg-type]
    for name, inner in get_type_hints(cls).items():
        if dataclasses.is_dataclass(inner) and isinstance(raw.get(name), Mapping):
            check_keys(f"{path}.{name}", raw[name], [field.name for field in dataclasses.fields(inner)])
    return _value(path, cls, raw)


def of_kind(family: str, path: str, raw: Any) -> Any:
    """An object of a family: given as such, named by a shipped ``kind``, or by ``module:Class``."""
    base, members = FAMILIES[family]
    if isinstance(raw, base):
        _check_recordable(path, type(raw))
        return raw
    raw = mapping(path, {"kind": raw} if isinstance(raw, str) else raw)
    kind = raw.get("kind")
    if kind is None:
        raise ConfigError(f"`{path}.kind` is required; kinds: {kind_names(family)}")
    if isinstance(kind, str) and ":" in kind:
        return _imported(base, path, kind, {key: value for key, value in raw.items() if key != "kind"})
    known = {kind_name(cls): cls for cls in members}
    if not isinstance(kind, str) or kind not in known:
        raise ConfigError(
            f"`{path}.kind`: unknown kind {kind!r}{closest(str(kind), known)}; kinds: {kind_names(family)}"
        )
    check_keys(path, raw, [field.name for field in dataclasses.fields(known[kind])])
    return _value(path, known[kind], raw)


def _imported(base: type[Any], path: str, kind: str, fields: Mapping[str, Any]) -> Any:
    module, _, name = kind.partition(":")
    # A module beside the user's YAML, as `python -m` would find it; the installed command does not look there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"`{path}.kind`: cannot import {kind!r}: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigError(f"`{path}.kind`: {kind!r} must be a subclass of {base.__module__}.{base.__name__}")
    _check_recordable(path, cls)
    check_keys(path, fields, [field.name for field in dataclasses.fields(cls)])
    return _value(path, cls, dict(fields))


def _check_recordable(path: str, cls: type[Any]) -> None:
    """The ledger records every parameter and ``resume`` builds the object again, so it must be a dataclass by name."""
    if not dataclasses.is_dataclass(cls) or "<locals>" in cls.__qualname__:
        raise ConfigError(
            f"`{path}`: {cls.__qualname__} must be a dataclass of a module that can be imported: its parameters are "
            "recorded, and built again by `raygrow resume`"
        )


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Building an adapter costs more than using it."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _value(path: str, cls: type[T], raw: Any) -> T:
    """Build one value by pydantic; its first complaint becomes one line."""
    try:
        validated: T = _adapter(cls).validate_python(raw)
        return validated
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([path, *(str(part) for part in first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f", but got {first['input']!r}"
        raise ConfigError(f"`{where}`: {message}{got}") from None


def mapping(path: str, raw: Any) -> dict[str, Any]:
    """What must hold keys; nothing holds none."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(f"`{path}` must hold keys, but got {raw!r}")
    return dict(raw)


def check_keys(path: str, raw: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an unknown key, naming the closest known one."""
    for key in raw:
        if key not in known:
            where = f"{path}.{key}" if path else str(key)
            raise ConfigError(f"unknown key `{where}`{closest(str(key), known)}; known: {', '.join(known)}")


def closest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """A question that names the closest known word, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{found[0]}`?)" if found else ""


def kind_names(family: str) -> str:
    """The kinds that ship of a family, in words."""
    return ", ".join(kind_name(cls) for cls in FAMILIES[family][1])


def kind_name(cls: type[Any]) -> str:
    """The ``kind`` that names a shipped class."""
    return str(next(field.default for field in dataclasses.fields(cls) if field.name == "kind"))
