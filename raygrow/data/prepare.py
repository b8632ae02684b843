"""From raw rows to a data set: check, split, fit the standardisation on train, and apply it to all."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from raygrow.data.base import SPLITS, AbstractSource, Array, Dataset, Label, Preprocessing, Raw, Split, stream
from raygrow.errors import DataError

Rows = NDArray[np.int64]

LARGEST_TARGET = 1e6
FLOAT32_MAX = float(np.finfo(np.float32).max)


def prepare(source: AbstractSource, campaign_seed: int) -> Dataset:
    """Load a source and make it ready for training.

    Args:
        source: where the rows come from and how to split them.
        campaign_seed: seed of the split unless the source names its own, and of generated rows.

    Returns:
        Four disjoint splits of at least 2 rows each, standardised with figures from train alone.

    Raises:
        DataError: the data cannot be used; one line that names the file, column and row, or the key.
    """
    raw = source.load(campaign_seed)
    _check_finite(raw)
    labels, y = _classes(raw) if raw.task == "classification" else ((), raw.y)
    seed = campaign_seed if source.split_seed is None else source.split_seed
    rows = _split(raw, y if raw.task == "classification" and source.stratify else None, source, seed)
    for name in SPLITS:
        if len(rows[name]) < 2:
            held = ", ".join(f"{split} {len(rows[split])}" for split in SPLITS)
            cure = "add rows or change data.fractions" if raw.split is None else "add rows to it in the split column"
            raise DataError(f"{raw.place}: each split needs at least 2 rows, {name} has too few ({held}): {cure}")
    preprocessing = _fit(raw, rows["train"], labels, source.standardize)
    if not source.standardize:
        _check_float32(raw)
    outputs = y if raw.task == "classification" else _standardised_targets(raw, preprocessing)
    splits = {name: Split(preprocessing.transform(raw.x[rows[name]]), outputs[rows[name]]) for name in SPLITS}
    return Dataset(
        name=raw.name,
        task=raw.task,
        **splits,
        preprocessing=preprocessing,
        digest=_digest(raw, labels, y),
        used=raw.features + raw.targets,
        dropped=raw.dropped,
        warnings=_warnings(raw, rows["train"], labels, y),
    )


def _check_finite(raw: Raw) -> None:
    """Refuse anything that is not a finite number; files are checked while they are read, generators here."""
    if not raw.features or not len(raw.x):
        raise DataError(
            f"{raw.place}: at least one feature and one row are needed, got {raw.x.shape}: check the source"
        )
    columns = [(raw.features, raw.x)] + ([(raw.targets, raw.y)] if raw.task == "regression" else [])
    for names, values in columns:
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, column = bad[0]
            raise DataError(
                f"{raw.where(row)}, column {names[column]!r}: {values[row, column]} is not finite: remove the row"
            )


def _check_float32(raw: Raw) -> None:
    """Unstandardised features go to the network as float32, so they must fit."""
    bad = np.argwhere(np.abs(raw.x) > FLOAT32_MAX)
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{raw.where(row)}, column {raw.features[column]!r}: {raw.x[row, column]:g} does not fit in float32: "
            "set data.standardize to true"
        )


def _classes(raw: Raw) -> tuple[tuple[Label, ...], NDArray[np.int64]]:
    """The sorted distinct labels of all rows, and every row's index among them."""
    distinct, index = np.unique(raw.y, return_inverse=True)
    labels: tuple[Label, ...] = tuple(distinct.tolist())
    if len(labels) < 2:
        raise DataError(
            f"{raw.place}: a classification needs at least 2 classes, column {raw.targets[0]!r} holds "
            f"only {labels[0]!r}: choose another label"
        )
    return labels, index.astype(np.int64).reshape(-1)


def _split(raw: Raw, classes: NDArray[np.int64] | None, source: AbstractSource, seed: int) -> dict[str, Rows]:
    """Row numbers of each split, ascending; disjoint, and together all rows."""
    draws = stream("split", seed)
    if raw.split is None:
        parts = _allocate(np.arange(len(raw.x)), classes, source.fractions, draws)
    else:
        parts = [np.flatnonzero(raw.split == name) for name in ("train", "validation", "test")]
        # What comes with a test part alone has its validation cut from train, and the other way round.
        absent = [i for i in (1, 2) if not len(parts[i])]
        shares = np.asarray([source.fractions[i] for i in (0, *absent)])
        if absent and len(parts[0]):
            cut = _allocate(parts[0], classes, tuple(shares / shares.sum()), draws)
            for i, piece in zip((0, *absent), cut, strict=True):
                parts[i] = piece
    train, validation, test = parts
    train, search = _take_search(train, classes, source.search_fraction, draws)
    found = {"train": train, "search": search, "validation": validation, "test": test}
    return {name: np.sort(found[name]) for name in SPLITS}


def _take_search(
    train: Rows, classes: NDArray[np.int64] | None, fraction: float, draws: np.random.Generator
) -> tuple[Rows, Rows]:
    """Take ``search`` out of ``train``, in a random order; 2 rows where the fraction gives fewer."""
    train, search = _allocate(train, classes, (1 - fraction, fraction), draws)
    while len(search) < 2 < len(train):
        # The commonest class of train spares a row most easily.
        group = np.zeros(len(train), np.int64) if classes is None else classes[train]
        spare = int(np.flatnonzero(group == np.bincount(group).argmax())[-1])
        search = np.append(search, train[spare])
        train = np.delete(train, spare)
    return train, search


def _allocate(
    rows: Rows, classes: NDArray[np.int64] | None, fractions: tuple[float, ...], draws: np.random.Generator
) -> list[Rows]:
    """Deal rows out by fractions, class by class, by largest remainder on a random permutation.

    What a class's whole numbers leave over is carried to the next class, so that many small classes do not all round
    the same way and the totals stay right. A class's first row goes to the first part (train), because a class that
    train never shows cannot be learnt.
    """
    rows = draws.permutation(rows)
    groups = [rows]
    if classes is not None:
        order = np.argsort(classes[rows], kind="stable")
        groups = np.split(rows[order], np.flatnonzero(np.diff(classes[rows][order])) + 1)
    parts: list[list[Rows]] = [[] for _ in fractions]
    carry = np.zeros(len(fractions))
    for group in groups:
        quota = len(group) * np.asarray(fractions)
        # 0.6 * 5 must count as 3 although it is a little less in binary.
        counts = np.floor(quota + 1e-9).astype(np.int64)
        for _ in range(len(group) - int(counts.sum())):
            due = quota + carry - counts
            counts[0 if counts[0] == 0 else int(np.argmax(due))] += 1
        carry += quota - counts
        for part, piece in zip(parts, np.split(group, np.cumsum(counts)[:-1]), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (0 if constant) of each column, with no overflow up to the largest doubles.

    Columns are first divided by a power of two near their largest magnitude, which is exact.
    """
    _, exponent = np.frexp(np.abs(values).max(axis=0))
    scaled = np.ldexp(values, -exponent)
    centre = scaled.mean(axis=0)
    deviation = np.sqrt(np.square(scaled - centre).mean(axis=0))
    constant = values.max(axis=0) == values.min(axis=0)
    mean = np.where(constant, values[0], np.ldexp(centre, exponent))
    return mean, np.where(constant, 0.0, np.ldexp(deviation, exponent))


def _channels(raw: Raw, train: Rows) -> NDArray[np.float64]:
    """What is standardised as one, in columns: the features [rows, features], or with a shape the channels
    [rows * positions, channels], so that a position means what every other does."""
    values = raw.x[train]
    if not raw.shape:
        return values
    return np.moveaxis(values.reshape(len(values), raw.shape[0], -1), 1, -1).reshape(-1, raw.shape[0])


def _fit(raw: Raw, train: Rows, labels: tuple[Label, ...], standardize: bool) -> Preprocessing:
    """Fit the standardisation on train's rows."""
    mean, scale = np.zeros(len(raw.features)), np.ones(len(raw.features))
    positions = math.prod(raw.shape[1:])
    if standardize:
        mean, scale = (np.repeat(moment, positions) for moment in _moments(_channels(raw, train)))
    targets: tuple[str, ...] = ()
    target_mean = target_scale = np.empty(0)
    if raw.task == "regression":
        targets = raw.targets
        target_mean, target_scale = _moments(raw.y[train])
        for name, deviation in zip(targets, target_scale, strict=True):
            if deviation == 0.0:
                raise DataError(
                    f"{raw.place}: target {name!r} does not vary on the training rows: choose another target or split"
                )
    return Preprocessing(
        task=raw.task,
        features=raw.features,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        # Of n values with unit variance none exceeds the square root of n, so train itself is never clipped.
        bound=math.sqrt(len(train) * positions) if standardize else FLOAT32_MAX,
        standardize=standardize,
        labels=labels,
        targets=targets,
        target_mean=tuple(target_mean.tolist()),
        target_scale=tuple(target_scale.tolist()),
        shape=raw.shape,
    )


def _standardised_targets(raw: Raw, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Standardised targets of all rows, refused where one is so far off that it would drown every other."""
    z = preprocessing.transform_targets(raw.y)
    bad = np.argwhere(~(np.abs(z) <= LARGEST_TARGET))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{raw.where(row)}, target {raw.targets[column]!r}: {raw.y[row, column]:g} lies more than "
            f"{LARGEST_TARGET:g} training standard deviations from the mean: correct or remove the row"
        )
    return z.astype(np.float32)


def _warnings(raw: Raw, train: Rows, labels: tuple[Label, ...], y: Array) -> tuple[str, ...]:
    """Remarks on data that can be used but may surprise."""
    found = []
    if labels:
        absent = np.flatnonzero(np.bincount(y[train], minlength=len(labels)) == 0)
        if len(absent):
            found.append(f"train holds no row of {_some([repr(labels[i]) for i in absent], 'class', 'classes')}")
    values = _channels(raw, train)
    constant = np.flatnonzero(values.max(axis=0) == values.min(axis=0))
    if len(constant) and raw.shape:
        found.append(f"constant on train: {_some([str(i) for i in constant], 'channel', 'channels')}")
    elif len(constant):
        found.append(f"constant on train: {_some([repr(raw.features[i]) for i in constant], 'feature', 'features')}")
    return tuple(f"{raw.place}: {warning}" for warning in found)


def _some(names: list[str], one: str, many: str) -> str:
    """``class 'a'``, or ``12 classes ('a', 'b', 'c', ...)``: a list that stays on one line."""
    if len(names) == 1:
        return f"{one} {names[0]}"
    return f"{len(names)} {many} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _digest(raw: Raw, labels: tuple[Label, ...], y: Array) -> str:
    """Digest of the raw content: names, shape, features, labels or targets (in original units), and the split.

    Byte orders are fixed, so that it is the same on every machine.
    """
    # A plain vector adds nothing, so that digests of tables stay what they were.
    shape = [raw.shape] if raw.shape else []
    head = json.dumps([raw.task, raw.x.shape, raw.features, raw.targets, labels, *shape])
    digest = hashlib.blake2b(head.encode(), digest_size=32)
    digest.update(np.ascontiguousarray(raw.x, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(y, dtype="<i8" if raw.task == "classification" else "<f8").tobytes())
    if raw.split is not None:
        digest.update("\n".join(raw.split.tolist()).encode())
    return digest.hexdigest()
