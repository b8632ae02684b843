"""What the configuration of a comparison says, checked whole before any work: every arm on every data set is a plan."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raygrow.comparison.plan import SAFE, Arm, Comparison, ComparisonPlan, Stop
from raygrow.config import (
    SECTIONS,
    build_plan,
    check_keys,
    closest,
    kind_names,
    mapping,
    of_kind,
    plain,
    section,
)
from raygrow.document import DEFAULT_MEMBERS, copied, override, read_document
from raygrow.errors import ConfigError
from raygrow.population.plan import kind_of

DEFAULT_GRID: Mapping[str, Sequence[Any]] = {
    "strategy": [member["strategy"] for member in DEFAULT_MEMBERS],
    "initializer": [{"kind": "tiny"}],
}
MEMBER = "grown"
"""The one member of every trial: draws depend on its name, so all arms have the same."""
OF_REPETITIONS = ("campaign.seed", "campaign.name", "data", "members", "comparison", "grid", "baselines")
"""Keys that no arm may change."""


def is_comparison(document: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a comparison rather than of a campaign."""
    return any(key in document for key in ("comparison", "grid", "baselines"))


def load_comparison(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> ComparisonPlan:
    """Read, override, check and resolve a comparison. No data are read.

    Raises:
        ConfigError: names the arm and the key, echoes the value and says what is known or allowed.
    """
    return build_comparison(read_document(source, overrides))


def build_comparison(raw: Mapping[str, Any]) -> ComparisonPlan:
    """Check a mapping and build the comparison."""
    check_keys("", raw, ["comparison", "grid", "data", "baselines", *SECTIONS, "selection"])
    comparison = _comparison(raw.get("comparison"))
    data = _data(raw.get("data"))
    shared = _shared(raw, comparison)
    grid = _grid(raw.get("grid"))
    arms = [*_grid_arms(grid, shared), *_baselines(raw.get("baselines"), grid, shared)]
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"`grid` and `baselines`: two arms would be called {twice!r}; values of a key must differ")
    if comparison.reference is not None and comparison.reference not in names:
        raise ConfigError(
            f"`comparison.reference`: no arm {comparison.reference!r}{closest(comparison.reference, names)}; arms: "
            f"{', '.join(names)}"
        )
    plan = ComparisonPlan(
        comparison,
        tuple(arms),
        tuple(key for key, values in grid.items() if len(values) > 1),
        data,
        {
            "comparison": plain(comparison),
            "grid": grid,
            "data": data,
            "baselines": [plain(arm.baseline) for arm in arms if arm.baseline is not None],
            **shared,
        },
    )
    for arm in arms:
        for name in data:
            try:
                build_plan({**arm.document, "data": data[name]})
            except ConfigError as error:
                raise ConfigError(f"arm {arm.name!r}: {error}") from None
    return plan


def _comparison(raw: Any) -> Comparison:
    raw = mapping("comparison", raw)
    check_keys("comparison", raw, [field.name for field in dataclasses.fields(Comparison)])
    stop = raw.get("stop")
    if isinstance(stop, str):
        stop = {"kind": stop}
    return section(
        "comparison", Comparison, {**raw, "stop": None if stop is None else section("comparison.stop", Stop, stop)}
    )


def _data(raw: Any) -> dict[str, dict[str, Any]]:
    """Sections by name, every key explicit; a path is made absolute, since trials may run from another folder."""
    sets = mapping("data", raw)
    if not sets:
        raise ConfigError(
            f"`data` must name at least one data set, for example `data: {{digits: {{kind: digits}}}}`; kinds: "
            f"{kind_names('data')}"
        )
    found = {}
    for name, value in sets.items():
        if not isinstance(name, str) or not re.fullmatch(SAFE, name) or name.startswith("."):
            raise ConfigError(f"`data`: names take letters, digits, dots, dashes and underscores, but got {name!r}")
        if name == "kind" and isinstance(value, str):
            raise ConfigError(
                f"`data` of a comparison holds a section a data set: write `data: {{{value}: {{kind: {value}}}}}`"
            )
        source = of_kind("data", f"data.{name}", value)
        if hasattr(source, "path"):
            source = replace(source, path=str(Path(source.path).resolve()))
        found[name] = plain(source)
    return found


def _shared(raw: Mapping[str, Any], comparison: Comparison) -> dict[str, Any]:
    """The sections of a campaign that all arms begin from, every key explicit."""
    campaign = mapping("campaign", raw.get("campaign"))
    for key, instead in (("seed", "comparison.seeds"), ("name", "comparison.name")):
        if key in campaign:
            raise ConfigError(f"`campaign.{key}`: of all campaigns of a comparison it follows from `{instead}`")
    # A trial works in its own process, and leaves MLflow alone unless that is asked for.
    given = {"pool": {"kind": "serial"}, "tracking": {"enabled": False}, **raw}
    found = {name: plain(section(name, cls, given.get(name))) for name, cls in SECTIONS.items()}
    found["campaign"] = {key: value for key, value in found["campaign"].items() if key not in ("seed", "name")}
    found["selection"] = plain(of_kind("selection", "selection", raw.get("selection", {"kind": "independent"})))
    if comparison.train_flops is not None and found["budget"]["max_train_flops"] not in (None, comparison.train_flops):
        raise ConfigError(
            f"`comparison.train_flops` {comparison.train_flops:g} and `budget.max_train_flops` "
            f"{found['budget']['max_train_flops']:g} are two words for one limit: give one"
        )
    if comparison.train_flops is not None:
        found["budget"]["max_train_flops"] = comparison.train_flops
    return found


def _grid(raw: Any) -> dict[str, list[Any]]:
    """Lists by key, strategies and initializers with every parameter explicit."""
    given = {**DEFAULT_GRID, **mapping("grid", raw)}
    for key, values in given.items():
        if not isinstance(key, str):
            raise ConfigError(f"`grid`: keys are dotted paths, but got {key!r}")
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in OF_REPETITIONS):
            raise ConfigError(f"`grid.{key}`: all arms see the same data, seeds and names; it cannot be an axis")
        if not isinstance(values, list | tuple) or not values:
            raise ConfigError(f"`grid.{key}` must be a list of at least one value, but got {values!r}")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise ConfigError(f"`grid.{key}` must name each value once, but got {list(values)!r}")
    return {
        key: [
            plain(of_kind(key, f"grid.{key}.{i}", value)) if key in DEFAULT_GRID else copied(value)
            for i, value in enumerate(values)
        ]
        for key, values in given.items()
    }


def _grid_arms(grid: Mapping[str, Sequence[Any]], shared: Mapping[str, Any]) -> list[Arm]:
    called = {key: _labels(values) for key, values in grid.items()}
    arms = []
    for choice in itertools.product(*(range(len(values)) for values in grid.values())):
        chosen = dict(zip(grid, choice, strict=True))
        levels = {key: called[key][i] for key, i in chosen.items()}
        words = [
            levels[key] if key in DEFAULT_GRID else f"{key.rpartition('.')[2]}={levels[key]}"
            for key in grid
            if len(grid[key]) > 1
        ]
        settings = {key: grid[key][i] for key, i in chosen.items() if key not in DEFAULT_GRID}
        strategy, initializer = (grid[key][chosen[key]] for key in DEFAULT_GRID)
        arms.append(
            Arm(
                name=_safe("+".join(words) or levels["strategy"]),
                strategy=strategy["kind"],
                initializer=initializer["kind"],
                settings=settings,
                levels=levels,
                document=_document(shared, strategy, initializer, settings),
            )
        )
    return arms


def _baselines(raw: Any, grid: Mapping[str, Sequence[Any]], shared: Mapping[str, Any]) -> list[Arm]:
    if raw is not None and not isinstance(raw, list | tuple):
        raise ConfigError(f"`baselines` must be a list, but got {raw!r}")
    found = [of_kind("baseline", f"baselines.{i}", value) for i, value in enumerate(raw or ())]
    values = [plain(baseline) for baseline in found]
    arms = []
    for baseline, value, name in zip(found, values, _labels(values), strict=True):
        settings = {key: item for key, item in value.items() if key != "kind"}
        # It reads the training, the network and the budget; the member is there because a plan has one.
        document = _document(shared, grid["strategy"][0], grid["initializer"][0], {})
        arms.append(Arm(_safe(name), kind_of(baseline), None, settings, {}, document, baseline))
    return arms


def _document(
    shared: Mapping[str, Any], strategy: Any, initializer: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A campaign but for its data and seed."""
    document = copied({**shared, "members": [{"name": MEMBER, "strategy": strategy, "initializer": initializer}]})
    for path, value in settings.items():
        override(document, path, copied(value))
    return dict(document)


def _labels(values: Sequence[Any]) -> list[str]:
    """What values of one key are called: a kind by its name, with the parameters that tell it from others of its kind."""
    kinds = [
        value["kind"].rpartition(":")[2] if isinstance(value, Mapping) and "kind" in value else None for value in values
    ]
    labels = []
    for kind, value in zip(kinds, values, strict=True):
        if kind is None:
            labels.append(_word(value))
            continue
        alike = [other for name, other in zip(kinds, values, strict=True) if name == kind]
        telling = [key for key in value if any(other.get(key) != value[key] for other in alike)]
        labels.append("-".join([kind, *(f"{key}={_word(value[key])}" for key in telling)]))
    return labels


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(f"{key}={_word(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_word(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _safe(name: str) -> str:
    """As a folder may be called."""
    return re.sub(r"[^\w.=,+-]+", "_", name)
