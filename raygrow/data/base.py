"""What a data set is: the source it comes from, its raw arrays, its four splits and the preprocessing it was given."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from raygrow.errors import DataError

Task: TypeAlias = Literal["classification", "regression"]
Label: TypeAlias = int | float | str | bool
Array: TypeAlias = NDArray[Any]

SPLITS = ("train", "search", "validation", "test")

METRICS: Mapping[Task, str] = {"classification": "accuracy", "regression": "r2"}
"""The figure beside the loss, by task."""


def stream(purpose: str, seed: int) -> np.random.Generator:
    """A random generator of its own for one purpose, so that no two purposes share draws under the same seed.

    Args:
        purpose: what the draws are for, such as ``"split"``.
        seed: any integer.
    """
    digest = hashlib.blake2b(f"raygrow.data/{purpose}/{seed}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def elements(name: str, count: int) -> tuple[str, ...]:
    """Feature names ``name[0]``, ``name[1]``, ... of an array that was flattened in C order."""
    return tuple(f"{name}[{i}]" for i in range(count))


def check_shape(place: str, shape: tuple[int, ...], features: int) -> None:
    """Refuse a shape that does not hold exactly the features of an example; () always fits.

    Raises:
        DataError: the numbers differ; names the key, both numbers and the cure.
    """
    if shape and math.prod(shape) != features:
        raise DataError(
            f"{place}: data.shape {list(shape)} holds {math.prod(shape)} values, but an example has {features} features: "
            "correct data.shape, or choose the features that belong to it"
        )


@dataclass(frozen=True, eq=False)
class Raw:
    """What a source yields: every row in original units, not yet split or standardised.

    Raises:
        ValueError: the arrays do not fit each other or the names.
        DataError: the shape does not hold as many values as there are features.
    """

    name: str
    """Short name of the data set, for listings."""
    task: Task
    """``classification`` or ``regression``."""
    x: NDArray[np.float64]
    """Features, float64 [rows, features]."""
    y: Array
    """Classification: labels [rows] (bool, integer, float or str objects). Regression: float64 [rows, targets]."""
    features: tuple[str, ...]
    """Feature names, in the order of the columns of ``x``."""
    targets: tuple[str, ...]
    """Regression: target names, in the order of the columns of ``y``. Classification: the name of the label."""
    split: Array | None = None
    """``train``, ``validation`` or ``test`` for every row (str objects), or None: split by fractions. A validation or
    test that names no row is cut from train by fractions."""
    dropped: tuple[str, ...] = ()
    """Columns of the file that are not used."""
    parts: tuple[tuple[str, int], ...] = ()
    """The files the rows came from, in order, with their row counts, so that a message can name a row of a file."""
    shape: tuple[int, ...] = ()
    """Of an example: (channels, height, width), (channels, length), or () for a plain vector. Rows of ``x`` hold it
    flattened in C order, channel after channel."""

    def __post_init__(self) -> None:
        rows = len(self.x)
        if self.x.ndim != 2 or self.x.shape[1] != len(self.features):
            raise ValueError(f"x must be [rows, {len(self.features)} features], got {self.x.shape}")
        expected = (rows,) if self.task == "classification" else (rows, len(self.targets))
        if self.y.shape != expected:
            raise ValueError(f"y must have shape {expected} for {self.task}, got {self.y.shape}")
        if self.split is not None and self.split.shape != (rows,):
            raise ValueError(f"split must name one split a row ({rows}), got shape {self.split.shape}")
        if self.split is not None and (unknown := set(self.split.tolist()) - {"train", "validation", "test"}):
            raise ValueError(f"split must hold train, validation and test only, got {sorted(map(str, unknown))[0]!r}")
        check_shape(self.place, self.shape, len(self.features))

    @property
    def place(self) -> str:
        """What messages about the whole call it: the file, the first of several files, or the name of the data set."""
        if not self.parts:
            return self.name
        return self.parts[0][0] if len(self.parts) == 1 else f"{self.parts[0][0]} and {len(self.parts) - 1} more"

    def where(self, row: int) -> str:
        """Name a row for a message: the file and its 0-based row there, or the data set and the row."""
        offset = row
        for file, rows in self.parts:
            if offset < rows:
                return f"{file}: row {offset}"
            offset -= rows
        return f"{self.name}: row {row}"


@dataclass(frozen=True, eq=False)
class Split:
    """One of the four disjoint parts of a data set, ready for a network."""

    x: NDArray[np.float32]
    """Features, float32 [rows, features], standardised."""
    y: Array
    """Classification: class indices, int64 [rows]. Regression: standardised targets, float32 [rows, targets]."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Preprocessing:
    """How raw rows become network inputs, and outputs original units; fitted on train, kept with every checkpoint.

    Raises:
        DataError: the shape does not hold as many values as there are features.
    """

    task: Task
    """``classification`` or ``regression``."""
    features: tuple[str, ...]
    """Feature names, in the network's input order."""
    mean: tuple[float, ...]
    """Per feature, in its original units: what is subtracted. With a shape, the same for all positions of a channel."""
    scale: tuple[float, ...]
    """Per feature, in its original units: the divisor; 0 for a feature that is constant in train (mapped to 0). With a
    shape, the same for all positions of a channel."""
    bound: float
    """Standardised features are clipped to [-bound, bound]; the square root of the number of values that a mean was
    taken over (train's rows, times positions with a shape), which no row of train can exceed. Unstandardised: the
    largest float32."""
    standardize: bool
    """Whether features are standardised at all; targets always are."""
    labels: tuple[Label, ...] = ()
    """Classification: the original label of every class index, sorted. Regression: empty."""
    targets: tuple[str, ...] = ()
    """Regression: target names, in the network's output order. Classification: empty."""
    target_mean: tuple[float, ...] = ()
    """Regression, per target, in its original units."""
    target_scale: tuple[float, ...] = ()
    """Regression, per target, in its original units; positive."""
    shape: tuple[int, ...] = ()
    """Of an example: (channels, height, width), (channels, length), or () for a plain vector."""

    def __post_init__(self) -> None:
        check_shape("preprocessing", self.shape, len(self.features))

    def transform(self, raw: Array) -> NDArray[np.float32]:
        """Standardise features.

        Args:
            raw: [rows, features] in original units, finite, columns in the order of ``features``.

        Returns:
            float32 [rows, features], within [-bound, bound].

        Raises:
            DataError: the number of columns differs from the number of features.
        """
        if raw.ndim != 2 or raw.shape[1] != len(self.features):
            raise DataError(f"the network takes [rows, {len(self.features)}] features, got an array of {raw.shape}")
        scale = np.asarray(self.scale, dtype=np.float64)
        varies = scale > 0.0
        # A row far outside train may overflow to infinity here; the clip brings it back to the bound.
        with np.errstate(over="ignore"):
            z = (np.asarray(raw, dtype=np.float64) - np.asarray(self.mean)) / np.where(varies, scale, 1.0)
        z[:, ~varies] = 0.0
        return cast(NDArray[np.float32], np.clip(z, -self.bound, self.bound).astype(np.float32))

    def transform_targets(self, raw: Array) -> NDArray[np.float64]:
        """Standardise targets [rows, targets] of a regression; float64, infinite where the division overflows."""
        with np.errstate(over="ignore"):
            z = (np.asarray(raw, dtype=np.float64) - np.asarray(self.target_mean)) / np.asarray(self.target_scale)
        return cast(NDArray[np.float64], z)

    def restore_targets(self, y: Array) -> NDArray[np.float64]:
        """Bring standardised targets or predictions [rows, targets] back to original units, in float64."""
        with np.errstate(over="ignore"):
            restored = np.asarray(y, dtype=np.float64) * np.asarray(self.target_scale) + np.asarray(self.target_mean)
        return cast(NDArray[np.float64], restored)

    def to_json(self) -> str:
        """Write as JSON text; ``from_json`` gives back an equal object, every float bit for bit."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what ``to_json`` wrote.

        Raises:
            DataError: the text is not the JSON of a preprocessing.
        """
        try:
            read: dict[str, Any] = json.loads(text)
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
            return cls(**fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"preprocessing.json cannot be read ({error}): restore it from the checkpoint") from None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Four disjoint standardised splits, the preprocessing that made them, and what to tell the user about them."""

    name: str
    """Short name, for listings."""
    task: Task
    """``classification`` or ``regression``."""
    train: Split
    """Trained on; standardisation was fitted here."""
    search: Split
    """Line searches and clipping constants."""
    validation: Split
    """Verdicts, gains and the choice of the best."""
    test: Split
    """Read once, at the end."""
    preprocessing: Preprocessing
    """From original units to the splits, and back."""
    digest: str
    """Hex blake2b digest of the raw content; the same wherever the files lie and however they are split by seed."""
    used: tuple[str, ...]
    """Columns used: features, then the label or targets."""
    dropped: tuple[str, ...] = ()
    """Columns of the file that are not used."""
    warnings: tuple[str, ...] = ()
    """Remarks for the user, one line each."""

    @property
    def inputs(self) -> int:
        """Number of features."""
        return len(self.preprocessing.features)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an example: (channels, height, width), (channels, length), or () for a plain vector."""
        return self.preprocessing.shape

    @property
    def outputs(self) -> int:
        """Number of classes, or of targets."""
        return len(self.preprocessing.labels) or len(self.preprocessing.targets)

    def constant_loss(self) -> float:
        """Loss, on train, of the best constant prediction fitted on train.

        Returns:
            Classification: the entropy of train's class frequencies, nats per example (0 if train holds one class).
            Regression: the mean over targets of the variance of the standardised targets, 1 up to rounding.
        """
        if self.task == "regression":
            return float(np.var(self.train.y, axis=0, dtype=np.float64).mean())
        counts = np.bincount(self.train.y)
        frequencies = counts[counts > 0] / len(self.train)
        return max(0.0, -math.fsum(frequencies * np.log(frequencies)))

    def arrays(self) -> dict[str, Array]:
        """The splits as plain arrays, ``<split>_x`` and ``<split>_y``, to be put once into an object store."""
        splits = {name: cast(Split, getattr(self, name)) for name in SPLITS}
        return {f"{name}_{part}": getattr(split, part) for name, split in splits.items() for part in ("x", "y")}

    def meta(self) -> dict[str, Any]:
        """Everything but the arrays, as a small dictionary of JSON values."""
        return {
            "name": self.name,
            "task": self.task,
            "preprocessing": self.preprocessing.to_json(),
            "digest": self.digest,
            "used": list(self.used),
            "dropped": list(self.dropped),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Dataset:
        """Rebuild a data set from ``arrays()`` and ``meta()``; the arrays are used as they are, not copied."""
        splits = {name: Split(arrays[f"{name}_x"], arrays[f"{name}_y"]) for name in SPLITS}
        return cls(
            name=meta["name"],
            task=meta["task"],
            **splits,
            preprocessing=Preprocessing.from_json(meta["preprocessing"]),
            digest=meta["digest"],
            used=tuple(meta["used"]),
            dropped=tuple(meta["dropped"]),
            warnings=tuple(meta["warnings"]),
        )


@dataclass(frozen=True, kw_only=True)
class AbstractSource(ABC):
    """Where a data set comes from, and how it is to be split.

    A new kind is a frozen keyword-only dataclass with a ``kind`` and a ``load``, entered in ``SOURCES``.

    Raises:
        ValueError: a field is out of range.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    # pydantic reads docstrings below the fields of a class, but not those of its bases: hence descriptions as metadata.
    kind: str
    fractions: tuple[float, float, float] = field(
        default=(0.6, 0.2, 0.2),
        metadata={
            "description": "Shares of the rows for train, validation and test: each positive, their sum 1. "
            "With a split column they serve only to cut a validation or test that it does not name from train."
        },
    )
    split_seed: int | None = field(
        default=None, metadata={"description": "Seed of the split, an integer >= 0; null: the campaign's seed."}
    )
    search_fraction: float = field(
        default=0.1,
        metadata={"description": "Share of train set apart as search (at least 2 rows), above 0 and below 1."},
    )
    stratify: bool = field(
        default=True,
        metadata={"description": "Classification: keep class frequencies alike in all splits. No use in regression."},
    )
    standardize: bool = field(
        default=True,
        metadata={"description": "Standardise features to mean 0, variance 1 on train. Regression targets always are."},
    )

    def __post_init__(self) -> None:
        if len(self.fractions) != 3 or any(not f > 0 for f in self.fractions) or abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(
                "fractions must be three positive shares (train, validation, test) that sum to 1, got "
                f"{list(self.fractions)}: write for example [0.6, 0.2, 0.2]"
            )
        if not 0 < self.search_fraction < 1:
            raise ValueError(
                f"search_fraction must lie between 0 and 1, got {self.search_fraction}: write for example 0.1"
            )
        self._at_least("split_seed", 0)

        # A shape is a key of some kinds only.
        shape = getattr(self, "shape", None)
        if shape is not None and (len(shape) not in (2, 3) or min(shape) < 1):
            raise ValueError(
                f"shape must be [channels, height, width] or [channels, length], each at least 1, got {list(shape)}: "
                "write for example [1, 28, 28], or null for plain features"
            )

    @abstractmethod
    def load(self, seed: int) -> Raw:
        """Read or generate the rows.

        Args:
            seed: the campaign's seed, for generators whose own seed is null.

        Raises:
            DataError: the data cannot be used.
        """

    def _at_least(self, name: str, least: float) -> None:
        """Check a field (or null) against its least value."""
        value = getattr(self, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}: raise it")

    def _within(self, name: str, low: float, high: float) -> None:
        """Check a positive field against the range (low, high], which is never infinite."""
        value = getattr(self, name)
        if not low < value <= high:
            raise ValueError(f"{name} must be above {low:g} and at most {high:g}, got {value}: choose one in between")
