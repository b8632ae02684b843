"""Every source, and what preparation promises: splits, standardisation, digests and what travels with them."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from raygrow.data import SOURCES, AbstractSource, Dataset, Preprocessing, Raw, Split, prepare
from raygrow.data.builtin import Digits
from raygrow.data.burgers import Burgers
from raygrow.data.lorenz96 import Lorenz96
from raygrow.data.planted import Planted
from raygrow.data.teacher import Teacher
from raygrow.errors import DataError

from .image_files import stand_in_torchvision, write_images

PARTS = ("train", "search", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(AbstractSource):
    """Arrays handed over by a test."""

    kind: str = "given"
    x: Any
    y: Any
    split: Any = None

    def load(self, seed: int) -> Raw:
        x = np.asarray(self.x, dtype=np.float64)
        y = np.asarray(self.y)
        regression = y.ndim == 2
        return Raw(
            name="given",
            task="regression" if regression else "classification",
            x=x,
            y=y.astype(np.float64) if regression else y,
            features=tuple(f"f{i}" for i in range(x.shape[1])),
            targets=tuple(f"t{i}" for i in range(y.shape[1])) if regression else ("label",),
            split=None if self.split is None else np.asarray(self.split, dtype=object),
        )


def numbered(rows: int, classes: Any = 3, **fields: Any) -> Dataset:
    """A data set whose only feature is the row's number, so that splits can be read back."""
    y = np.arange(rows) % classes if isinstance(classes, int) else classes
    return prepare(Given(x=np.arange(rows)[:, None], y=y, standardize=False, **fields), 0)


def row_numbers(split: Split) -> list[int]:
    return [int(value) for value in split.x[:, 0]]


def example(kind: type[AbstractSource], folder: Path) -> AbstractSource:
    """A small instance of any source of the registry."""
    draws = np.random.default_rng(0)
    table = pa.table({"a": draws.normal(size=40), "b": draws.normal(size=40), "label": ["no", "yes"] * 20})
    name = kind.__dataclass_fields__["kind"].default
    fields: dict[str, Any] = {}
    if name == "parquet":
        pq.write_table(table, folder / "x.parquet")
        fields = {"path": str(folder / "x.parquet"), "label": "label"}
    elif name == "csv":
        pa_csv.write_csv(table, folder / "x.csv")
        fields = {"path": str(folder / "x.csv"), "label": "label"}
    elif name == "npz":
        np.savez(folder / "x.npz", x=draws.normal(size=(40, 2, 3, 4)), y=np.arange(40) % 2)
        fields = {"path": str(folder / "x.npz")}
    elif name == "image_folder":
        write_images(folder / "images", {"no": 20, "yes": 20})
        fields = {"path": str(folder / "images"), "size": (8, 6)}
    elif name == "torchvision":
        fields = {"name": "CIFAR10", "root": str(folder)}
    elif name in ("lorenz96", "patterns", "waveforms"):
        fields = {"rows": 200}
    return kind(**fields)


@pytest.fixture(params=SOURCES, ids=lambda kind: kind.__dataclass_fields__["kind"].default)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AbstractSource:
    stand_in_torchvision(monkeypatch)
    return example(request.param, tmp_path)


def same(one: Dataset, other: Dataset) -> bool:
    mine, theirs = one.arrays(), other.arrays()
    return one.meta() == other.meta() and all(
        mine[key].dtype == theirs[key].dtype and np.array_equal(mine[key], theirs[key]) for key in mine
    )


class TestEverySource:
    def test_arrays_fit_together(self, source: AbstractSource) -> None:
        data = prepare(source, 3)
        for name in PARTS:
            split = getattr(data, name)
            assert len(split) >= 2
            assert split.x.shape == (len(split), data.inputs)
            assert split.x.dtype == np.float32
            assert np.isfinite(split.x).all()
            if data.task == "classification":
                assert split.y.dtype == np.int64
                assert split.y.shape == (len(split),)
                assert split.y.min() >= 0
                assert split.y.max() < data.outputs
            else:
                assert split.y.dtype == np.float32
                assert split.y.shape == (len(split), data.outputs)

    def test_a_shape_holds_the_features_and_shares_figures_a_channel(self, source: AbstractSource) -> None:
        data = prepare(source, 3)
        if data.shape:
            assert math.prod(data.shape) == data.inputs
            for figures in (data.preprocessing.mean, data.preprocessing.scale):
                channels = np.reshape(figures, (data.shape[0], -1))
                assert (channels == channels[:, :1]).all()
            values = data.train.x.reshape(len(data.train), data.shape[0], -1)
            assert values.mean((0, 2)) == pytest.approx(0, abs=1e-5)
            assert values.std((0, 2)) == pytest.approx(1, abs=1e-5)

    def test_is_deterministic(self, source: AbstractSource) -> None:
        assert same(prepare(source, 3), prepare(source, 3))

    def test_split_seed_moves_rows_and_keeps_the_digest(self, source: AbstractSource) -> None:
        one = prepare(dataclasses.replace(source, split_seed=1), 3)
        other = prepare(dataclasses.replace(source, split_seed=2), 3)
        assert one.digest == other.digest
        assert not np.array_equal(one.train.x, other.train.x)

    def test_split_seed_null_means_the_campaigns(self, source: AbstractSource) -> None:
        assert same(prepare(source, 3), prepare(dataclasses.replace(source, split_seed=3), 3))

    def test_travels_as_arrays_and_json(self, source: AbstractSource) -> None:
        data = prepare(source, 3)
        assert same(data, Dataset.from_arrays(data.arrays(), json.loads(json.dumps(data.meta()))))

    def test_preprocessing_round_trip_is_exact(self, source: AbstractSource) -> None:
        fitted = prepare(source, 3).preprocessing
        back = Preprocessing.from_json(fitted.to_json())
        assert back == fitted
        assert [type(label) for label in back.labels] == [type(label) for label in fitted.labels]

    def test_has_one_line_of_description(self, source: AbstractSource) -> None:
        assert source.__doc__
        assert "\n" not in source.__doc__

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"fractions": (0.6, 0.2, 0.3)}, r"sum to 1, got \[0.6, 0.2, 0.3\]"),
            ({"fractions": (1.0, 0.0, 0.0)}, "positive"),
            ({"fractions": (math.nan, 0.5, 0.5)}, "positive"),
            ({"search_fraction": 0.0}, "search_fraction must lie between 0 and 1, got 0.0"),
            ({"search_fraction": 1.0}, "search_fraction"),
            ({"split_seed": -1}, "split_seed must be at least 0, got -1"),
        ],
    )
    def test_refuses_values_out_of_range(self, source: AbstractSource, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(source, **fields)


def test_import_is_light() -> None:
    """What an actor pays before its first step; and the driver of a campaign on digits before it asks for actors."""
    heavy = ("torch", "pandas", "sklearn", "pydantic", "pyarrow")
    script = (
        "import sys; from raygrow.data import Digits, prepare; prepare(Digits(), 0); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("found", [True, False])
def test_digits_are_those_of_scikit_learn(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not found:
        monkeypatch.setattr("raygrow.data.builtin.find_spec", lambda name: None)
    ours, shipped = Digits().load(0), load_digits()
    assert np.array_equal(ours.x, shipped.data) and ours.x.dtype == shipped.data.dtype
    assert np.array_equal(ours.y, shipped.target) and ours.y.dtype == shipped.target.dtype
    assert list(ours.features) == shipped.feature_names


def test_registry_has_distinct_kinds() -> None:
    kinds = [kind.__dataclass_fields__["kind"].default for kind in SOURCES]
    assert kinds == [
        "digits", "breast_cancer", "diabetes", "teacher", "planted", "lorenz96", "burgers", "patterns", "waveforms", "parquet",
        "csv", "npz", "image_folder", "torchvision",
    ]  # fmt: skip


class TestSplits:
    def test_are_disjoint_and_complete(self) -> None:
        data = numbered(501)
        rows = [row_numbers(getattr(data, name)) for name in PARTS]
        assert sorted(sum(rows, [])) == list(range(501))
        assert [len(part) for part in rows] == pytest.approx([270, 30, 100, 100], abs=2)

    def test_keep_class_frequencies(self) -> None:
        y = np.repeat([0, 1, 2], [700, 250, 50])
        data = numbered(1000, y)
        for name, total in zip(PARTS, (540, 60, 200, 200), strict=True):
            counts = np.bincount(getattr(data, name).y, minlength=3)
            assert counts == pytest.approx(total * np.array([0.7, 0.25, 0.05]), abs=1)

    def test_rare_classes_reach_train_and_totals_hold(self) -> None:
        y = np.r_[np.zeros(200), np.repeat(np.arange(1, 41), 2)].astype(int)  # 40 classes of two rows each
        data = numbered(len(y), y)
        assert set(data.train.y) == set(range(41))
        assert data.warnings == ()
        assert len(data.validation) == pytest.approx(56, abs=2)
        assert len(data.test) == pytest.approx(56, abs=2)

    def test_any_mix_of_classes_is_dealt_fairly(self) -> None:
        draws = np.random.default_rng(0)
        for seed in range(30):
            y = draws.integers(0, draws.integers(2, 60), 400) ** 2  # frequencies unalike, up to 60 classes
            data = prepare(Given(x=np.arange(400)[:, None], y=y, standardize=False), seed)
            rows = [row_numbers(getattr(data, name)) for name in PARTS]
            assert sorted(sum(rows, [])) == list(range(400))
            assert len(rows[0]) + len(rows[1]) == pytest.approx(240, abs=3)
            assert len(rows[2]) == pytest.approx(80, abs=3)
            assert data.warnings == ()

    def test_without_stratification(self) -> None:
        data = numbered(100, np.repeat([0, 1], [96, 4]), stratify=False)
        assert [len(getattr(data, name)) for name in PARTS] == [54, 6, 20, 20]

    def test_search_has_two_rows_at_least(self) -> None:
        data = prepare(Given(x=np.arange(10.0)[:, None], y=np.arange(10.0)[:, None]), 0)
        assert len(data.search) == 2

    @pytest.mark.parametrize("rows", [3, 5, 7])
    def test_too_few_rows_are_refused(self, rows: int) -> None:
        with pytest.raises(DataError, match="each split needs at least 2 rows"):
            prepare(Given(x=np.arange(rows)[:, None], y=np.arange(float(rows))[:, None]), 0)

    def test_a_split_column_is_used_as_given(self) -> None:
        split = ["test", "train", "validation", "train", "train"] * 20
        data = numbered(100, np.arange(100) % 2, split=split)
        assert row_numbers(data.test) == list(range(0, 100, 5))
        assert row_numbers(data.validation) == list(range(2, 100, 5))
        assert sorted(row_numbers(data.train) + row_numbers(data.search)) == [
            i for i in range(100) if i % 5 in (1, 3, 4)
        ]
        assert len(data.search) == 6

    def test_a_split_column_short_of_rows_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"test has too few .*test 1.*split column"):
            numbered(20, 2, split=["test"] + ["validation"] * 5 + ["train"] * 14)

    def test_a_class_absent_from_train_is_a_warning(self) -> None:
        split = ["train"] * 10 + ["validation"] * 5 + ["test"] * 5
        data = numbered(20, np.array([0, 1] * 5 + [2] * 10), split=split)
        assert data.outputs == 3
        assert data.warnings == ("given: train holds no row of class 2",)
        assert data.constant_loss() == pytest.approx(math.log(2), abs=0.05)

    def test_the_teachers_draws_are_not_the_splits(self) -> None:
        # Rows and permutation under one seed must not be one stream: the split would follow the values.
        data = prepare(Teacher(rows=2000, inputs=1, standardize=False), 0)
        assert abs(data.train.x.mean() - data.test.x.mean()) < 0.2


class TestStandardisation:
    def test_agrees_with_scikit_learn_on_train_alone(self) -> None:
        draws = np.random.default_rng(1)
        x = draws.normal(size=(300, 5)) * [1, 10, 1e-6, 1e6, 3] + [0, 5, 1, -1e6, 1e3]
        data = prepare(Given(x=np.c_[x, np.arange(300)], y=draws.normal(3, 2, (300, 2))), 0)
        number = np.round(
            data.train.x[:, -1].astype(float) * data.preprocessing.scale[-1] + data.preprocessing.mean[-1]
        )
        scaler = StandardScaler().fit(x[number.astype(int)])
        assert data.preprocessing.mean[:5] == pytest.approx(scaler.mean_, rel=1e-10)
        assert data.preprocessing.scale[:5] == pytest.approx(scaler.scale_, rel=1e-8)
        np.testing.assert_allclose(
            data.preprocessing.transform(np.c_[x, np.arange(300)])[:, :5], scaler.transform(x), 1e-5
        )
        assert data.train.y.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
        assert data.train.y.std(axis=0) == pytest.approx([1, 1], abs=1e-6)
        assert data.constant_loss() == pytest.approx(1.0, abs=1e-6)

    def test_targets_come_back_in_original_units(self) -> None:
        y = np.random.default_rng(2).normal(size=(100, 3)) * [1, 1e-3, 1e9] + [0, 7, 1e10]
        data = prepare(Given(x=np.arange(100)[:, None], y=y, standardize=False), 0)
        restored = data.preprocessing.restore_targets(data.test.y)
        np.testing.assert_allclose(restored, y[row_numbers(data.test)], rtol=1e-5, atol=1e-5)
        assert restored.dtype == np.float64

    def test_constant_features_become_zero_everywhere(self) -> None:
        x = np.c_[np.full(40, 0.1), np.arange(40), [7.0] * 20 + [9.0] * 20]
        split = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
        data = prepare(Given(x=x, y=np.arange(40) % 2, split=split), 0)
        assert data.preprocessing.scale[0] == data.preprocessing.scale[2] == 0.0
        assert all((getattr(data, name).x[:, [0, 2]] == 0).all() for name in PARTS)
        assert data.warnings == ("given: constant on train: 2 features ('f0', 'f2')",)

    def test_only_rows_unlike_train_are_clipped(self) -> None:
        x = np.zeros((100, 1))
        x[3] = 1e9  # in train: the farthest that a training row can lie
        x[99] = -1e30
        data = prepare(Given(x=x, y=np.arange(100) % 2, split=["train"] * 60 + ["validation"] * 20 + ["test"] * 20), 5)
        bound = data.preprocessing.bound
        assert bound == math.sqrt(len(data.train))
        assert np.abs(data.train.x).max() == pytest.approx(math.sqrt(len(data.train) - 1))
        assert data.test.x.min() == np.float32(-bound)
        assert data.preprocessing.transform(np.array([[1.7e308], [-1.7e308]])).tolist() == pytest.approx(
            np.float32([[bound], [-bound]])
        )

    @pytest.mark.parametrize("size", [1e-300, 1e30, 1e200, 1e300])
    def test_extreme_magnitudes_stay_finite_and_exact(self, size: float) -> None:
        x = np.random.default_rng(0).uniform(-1, 1, (60, 2))
        plain = prepare(Given(x=x, y=x[:, :1]), 0)
        scaled = prepare(Given(x=x * size, y=x[:, :1] * size), 0)
        for name in PARTS:
            np.testing.assert_allclose(getattr(scaled, name).x, getattr(plain, name).x, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(getattr(scaled, name).y, getattr(plain, name).y, rtol=1e-5, atol=1e-6)
        assert Preprocessing.from_json(scaled.preprocessing.to_json()) == scaled.preprocessing

    def test_off_leaves_features_as_they_are(self) -> None:
        x = np.random.default_rng(0).normal(5, 3, (40, 2))
        data = prepare(Given(x=x, y=np.arange(40) % 2, standardize=False), 0)
        assert {float(v) for v in data.train.x[:, 0]} <= {float(v) for v in x[:, 0].astype(np.float32)}

    def test_off_refuses_what_float32_cannot_hold(self) -> None:
        x = np.arange(40.0)[:, None]
        x[7] = 1e39
        with pytest.raises(DataError, match=r"row 7, column 'f0': 1e\+39 does not fit in float32"):
            prepare(Given(x=x, y=np.arange(40) % 2, standardize=False), 0)

    def test_wrong_width_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"takes \[rows, 1\] features"):
            numbered(30).preprocessing.transform(np.zeros((2, 3)))


class TestChecks:
    def test_a_target_that_does_not_vary_is_refused(self) -> None:
        y = np.c_[np.arange(40.0), np.full(40, 0.1)]
        with pytest.raises(DataError, match="target 't1' does not vary"):
            prepare(Given(x=np.arange(40)[:, None], y=y), 0)

    def test_a_far_off_target_is_refused_by_row(self) -> None:
        y = np.random.default_rng(0).normal(size=(40, 1))
        y[33] = 1e8
        split = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
        with pytest.raises(DataError, match=r"row 33, target 't0': 1e\+08 lies more than 1e\+06"):
            prepare(Given(x=np.arange(40)[:, None], y=y, split=split), 0)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_refused(self, bad: float) -> None:
        x = np.arange(40.0).reshape(20, 2)
        x[11, 1] = bad
        with pytest.raises(DataError, match="given: row 11, column 'f1'"):
            prepare(Given(x=x, y=np.arange(20) % 2), 0)
        with pytest.raises(DataError, match="given: row 11, column 't1'"):
            prepare(Given(x=np.arange(20)[:, None], y=x), 0)

    def test_one_class_is_refused(self) -> None:
        with pytest.raises(DataError, match="at least 2 classes, column 'label' holds only 0"):
            numbered(30, 1)

    def test_preprocessing_of_other_text_is_refused(self) -> None:
        for text in ("", "[]", '{"mean": 1}'):
            with pytest.raises(DataError, match=r"preprocessing\.json"):
                Preprocessing.from_json(text)

    def test_digest_follows_every_value_and_name(self) -> None:
        x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
        changed_x, changed_y = x.copy(), y.copy()
        changed_x[17, 2] = np.nextafter(changed_x[17, 2], 9)
        changed_y[5] ^= 1
        sources = [Given(x=x, y=y), Given(x=changed_x, y=y), Given(x=x, y=changed_y), Given(x=x, y=y + 1)]
        sources += [Given(x=x, y=y[:, None]), Given(x=x, y=y.astype(bool)), Given(x=x, y=y.astype(str).astype(object))]
        assert len({prepare(source, 0).digest for source in sources}) == len(sources)

    def test_constant_loss_is_the_entropy_of_train(self) -> None:
        data = numbered(1000, np.repeat([0, 1], [900, 100]))
        assert data.constant_loss() == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))

    def test_raw_must_fit_together(self) -> None:
        base = {"name": "x", "features": ("a",), "targets": ("t",)}
        for wrong in (
            {"task": "classification", "x": np.zeros((3, 2)), "y": np.zeros(3)},
            {"task": "classification", "x": np.zeros((3, 1)), "y": np.zeros(2)},
            {"task": "regression", "x": np.zeros((3, 1)), "y": np.zeros(3)},
            {"task": "classification", "x": np.zeros((1, 1)), "y": np.zeros(1), "split": np.array(["tset"], object)},
        ):
            with pytest.raises(ValueError, match="must"):
                Raw(**base, **wrong)


class TestTeacher:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"scale": 0.0}, "scale must be above 0 and at most 1000, got 0.0"),
            ({"scale": math.nan}, "scale"),
            ({"classes": 1}, "classes must be at least 2, got 1"),
            ({"inputs": 0}, "inputs"),
            ({"units": 0}, "units"),
            ({"depth": 0}, "depth"),
            ({"rows": 9}, "rows"),
            ({"seed": -1}, "seed"),
        ],
    )
    def test_refuses_values_out_of_range(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Teacher(**fields)

    def test_own_seed_goes_before_the_campaigns(self) -> None:
        assert prepare(Teacher(seed=1), 5).digest == prepare(Teacher(seed=1), 6).digest == prepare(Teacher(), 1).digest
        assert prepare(Teacher(), 5).digest != prepare(Teacher(), 6).digest

    def test_needs_a_hidden_layer(self) -> None:
        raw = Teacher(standardize=False).load(0)
        linear = LogisticRegression(max_iter=500).fit(raw.x[:4800], raw.y[:4800]).score(raw.x[4800:], raw.y[4800:])
        net = MLPClassifier((64,), learning_rate_init=0.01, max_iter=15, random_state=0)
        with pytest.warns(match="Maximum iterations"):
            net.fit(raw.x[:4800], raw.y[:4800])
        assert net.score(raw.x[4800:], raw.y[4800:]) > linear + 0.12

    def test_a_small_scale_makes_labels_noisier(self) -> None:
        scores = []
        for scale in (0.5, 2.0, 8.0):
            raw = Teacher(scale=scale, rows=3000).load(0)
            scores.append(LogisticRegression(max_iter=300).fit(raw.x, raw.y).score(raw.x, raw.y))
        assert scores == sorted(scores)

    def test_depth_and_more_units_than_inputs(self) -> None:
        data = prepare(Teacher(inputs=3, units=7, depth=3, rows=300), 0)
        assert (data.inputs, data.outputs) == (3, 6)


class TestPlanted:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"effect": -0.1}, "effect must be at least 0 and at most 1000, got -0.1"),
            ({"linear": math.nan}, "linear"),
            ({"directions": 17}, r"directions must be at most inputs \(16\), got 17"),
            ({"directions": 0}, "directions"),
            ({"classes": 1}, "classes"),
            ({"rows": 9}, "rows"),
        ],
    )
    def test_refuses_values_out_of_range(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Planted(**fields)

    def test_no_linear_model_follows_what_is_planted(self) -> None:
        raw = Planted(effect=4.0, linear=0.0, rows=20_000).load(0)
        train, test = slice(0, 15_000), slice(15_000, None)
        linear = LogisticRegression(max_iter=300).fit(raw.x[train], raw.y[train]).score(raw.x[test], raw.y[test])
        # 5,000 rows and the largest class: chance with three standard errors.
        chance = np.bincount(raw.y[test]).max() / 5_000
        assert linear < chance + 3 * math.sqrt(0.25 / 5_000)
        folded = MLPClassifier((32,), learning_rate_init=0.01, max_iter=20, random_state=0)
        with pytest.warns(match="Maximum iterations"):
            folded.fit(raw.x[train], raw.y[train])
        assert folded.score(raw.x[test], raw.y[test]) > chance + 0.3

    def test_without_an_effect_a_linear_model_is_the_truth(self) -> None:
        scores = {}
        for linear in (0.0, 2.0):
            raw = Planted(effect=0.0, linear=linear, rows=8_000).load(1)
            model = LogisticRegression(max_iter=300).fit(raw.x[:6_000], raw.y[:6_000])
            scores[linear] = model.score(raw.x[6_000:], raw.y[6_000:])
        assert scores[0.0] < 0.25 + 0.04 < 0.45 < scores[2.0]


class TestLorenz96:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"variables": 3}, "variables must be at least 4, got 3"),
            ({"rows": 1}, "rows"),
            ({"forcing": 0.0}, "forcing"),
            ({"forcing": math.inf}, "forcing must be above 0 and at most 32, got inf"),
            ({"interval": 0.0}, "interval"),
            ({"seed": -2}, "seed"),
        ],
    )
    def test_refuses_values_out_of_range(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Lorenz96(**fields)

    def test_increments_agree_with_a_finer_integration(self) -> None:
        # An independent integrator: explicit loops over the ring and scipy's adaptive Runge-Kutta.
        from scipy.integrate import solve_ivp

        raw = Lorenz96(rows=10, variables=5).load(0)

        def derivative(_: float, x: np.ndarray) -> list[float]:
            return [(x[(i + 1) % 5] - x[i - 2]) * x[i - 1] - x[i] + 8.0 for i in range(5)]

        for start, increment in zip(raw.x[:5], raw.y[:5], strict=True):
            end = solve_ivp(derivative, (0.0, 0.1), start, rtol=1e-11, atol=1e-11).y[:, -1]
            np.testing.assert_allclose(increment, end - start, atol=1e-5)

    def test_a_linear_model_explains_a_third(self) -> None:
        data = prepare(Lorenz96(), 0)
        fit = LinearRegression().fit(data.train.x, data.train.y)
        assert fit.score(data.test.x, data.test.y) == pytest.approx(0.34, abs=0.02)

    def test_the_strongest_forcing_stays_finite(self) -> None:
        assert np.isfinite(Lorenz96(rows=100, forcing=32.0, variables=40).load(0).y).all()


class TestBurgers:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"variables": 3}, "variables must be at least 4, got 3"),
            ({"rows": 1}, "rows"),
            ({"modes": 0}, "modes"),
            ({"viscosity": 0.001}, "viscosity must be at least 0.01, got 0.001"),
            ({"viscosity": math.nan}, "viscosity"),
            ({"interval": math.inf}, "interval must be above 0 and at most 10, got inf"),
            ({"interval": 0.0}, "interval must be at least 0.01, got 0.0"),
            ({"seed": -2}, "seed"),
        ],
    )
    def test_refuses_values_out_of_range(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Burgers(**fields)

    @pytest.mark.parametrize(("viscosity", "interval"), [(0.2, 0.3), (0.05, 1.0), (1.0, 2.0)])
    def test_increments_agree_with_a_finite_difference_solution(self, viscosity: float, interval: float) -> None:
        # Independent of the closed form: the equation itself, space by the Fourier derivative of a finer ring through the
        # points (the wave has two modes, so eight points fix it), time by scipy's stiff integrator.
        from scipy.integrate import solve_ivp

        raw = Burgers(rows=10, viscosity=viscosity, interval=interval).load(0)
        fine = 256
        number = np.fft.rfftfreq(fine, 1.0 / fine)

        def derivative(_: float, u: np.ndarray) -> np.ndarray:
            spectrum = np.fft.rfft(u)
            slope = np.fft.irfft(1j * number * spectrum, fine)
            bend = np.fft.irfft(-(number**2) * spectrum, fine)
            return viscosity * bend - u * slope

        for start, increment in zip(raw.x[:4], raw.y[:4], strict=True):
            spectrum = np.zeros(fine // 2 + 1, dtype=complex)
            spectrum[:3] = np.fft.rfft(start)[:3] * fine / 8
            initial = np.fft.irfft(spectrum, fine)
            np.testing.assert_allclose(initial[:: fine // 8], start, atol=1e-12)
            end = solve_ivp(derivative, (0.0, interval), initial, method="LSODA", rtol=1e-8, atol=1e-9).y[:, -1]
            np.testing.assert_allclose(increment, end[:: fine // 8] - start, atol=2e-5)

    def test_a_small_net_does_what_a_linear_model_cannot(self) -> None:
        data = prepare(Burgers(), 0)
        linear = LinearRegression().fit(data.train.x, data.train.y).score(data.test.x, data.test.y)
        assert linear == pytest.approx(0.30, abs=0.03)
        net = MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.01, max_iter=15, random_state=0)
        with pytest.warns(match="Maximum iterations"):
            net.fit(data.train.x, data.train.y)
        assert net.score(data.test.x, data.test.y) > 0.88

    @pytest.mark.parametrize("interval", [0.01, 10.0])
    def test_the_steepest_waves_stay_finite_and_within_their_bounds(self, interval: float) -> None:
        raw = Burgers(rows=200, viscosity=0.01, interval=interval, modes=8, variables=64).load(0)
        later = raw.x + raw.y
        assert np.isfinite(later).all()
        # The maximum principle: no wave grows. (64 points see a little less than the whole initial wave.)
        assert (np.abs(later).max(1) <= np.abs(raw.x).max(1) * 1.05).all()
        # And what diffusion takes away it does not give back.
        assert (np.var(later, axis=1) <= np.var(raw.x, axis=1) + 1e-9).all()
