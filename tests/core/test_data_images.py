"""Examples with a shape: standardisation by channel, what brings them from files, generated sets, augmentation."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from raygrow.config import load_plan
from raygrow.data import Dataset, Preprocessing, Raw, prepare
from raygrow.data.arrays import Npz
from raygrow.data.builtin import Digits
from raygrow.data.files import Csv, Parquet
from raygrow.data.images import ImageFolder, Torchvision
from raygrow.data.patterns import CLASSES, Patterns
from raygrow.data.tables import read_features
from raygrow.data.waveforms import Waveforms
from raygrow.errors import ConfigError, DataError
from raygrow.training.augment import Augment, augmented

from .image_files import official_part, stand_in_torchvision, write_images

ROWS = 40
LABELS = np.arange(ROWS) % 2
PARTS = ("train", "search", "validation", "test")
OLD_DIGITS = "66812bc72c274a55cd6628aa7cef16c1340c1c62bb2acc8636d4937f07ad83ff"


def pixels(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(3.0, 2.0, (ROWS, *shape))


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "x.npz", **arrays)
    return str(folder / "x.npz")


def originals(data: Dataset) -> Any:
    """All rows in original units, in the order of the splits."""
    z = np.concatenate([getattr(data, name).x for name in PARTS]).astype(float)
    return z * np.array(data.preprocessing.scale) + np.array(data.preprocessing.mean)


class TestShape:
    def test_a_dead_border_is_not_blown_up(self, tmp_path: Path) -> None:
        # One bright border pixel in one training row would be 5 standard deviations of its own, and far less of a channel.
        x = pixels(1, 4, 4)
        x[:, 0, 0, :] = 0.0
        flat = np.where(np.arange(16) == 0, 1e-3 * (np.arange(ROWS) == 7)[:, None], x.reshape(ROWS, 16))
        split = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
        path = saved(tmp_path, x=flat.reshape(x.shape), y=LABELS, part=split)
        data = prepare(Npz(path=path, split="part", stratify=False, search_fraction=0.09), 0)
        assert np.ptp(data.train.x[:, 0]) < 1e-2
        assert data.warnings == ()

    @pytest.mark.parametrize("shape", [(3, 4, 5), (2, 6)])
    def test_figures_are_those_of_a_channel_on_train(self, shape: tuple[int, ...], tmp_path: Path) -> None:
        x = pixels(*shape) * np.logspace(-3, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        data = prepare(Npz(path=saved(tmp_path, x=x, y=LABELS)), 1)
        rows = [int(np.argmin(np.abs(x.reshape(ROWS, -1) - row).sum(1))) for row in originals(data)[: len(data.train)]]
        assert len(set(rows)) == len(data.train)
        positions = math.prod(shape[1:])
        for channel in range(shape[0]):
            values = x[rows, channel].ravel()
            span = slice(channel * positions, (channel + 1) * positions)
            assert data.preprocessing.mean[span] == pytest.approx(np.full(positions, values.mean()), rel=1e-10)
            assert data.preprocessing.scale[span] == pytest.approx(np.full(positions, values.std()), rel=1e-10)
        assert data.preprocessing.bound == math.sqrt(len(rows) * positions)

    def test_no_training_value_is_clipped(self, tmp_path: Path) -> None:
        x = np.zeros((ROWS, 1, 3, 3))
        x[5, 0, 1, 1] = 1.0
        split = np.where(np.arange(ROWS) < 30, "train", np.where(np.arange(ROWS) < 35, "val", "test"))
        path = saved(tmp_path, x=x, y=LABELS, s=split)
        largest = {prepare(Npz(path=path, split="s"), seed).train.x.max() for seed in range(9)}
        # Where the row is not in search, it lies as far out as a value of 27 x 9 can.
        assert max(largest) == pytest.approx(math.sqrt(27 * 9 - 1))

    def test_a_constant_channel_is_a_warning_and_zero(self, tmp_path: Path) -> None:
        x = pixels(2, 3, 3)
        x[:, 1] = 7.0
        data = prepare(Npz(path=saved(tmp_path, x=x, y=LABELS)), 0)
        assert [w.partition(": ")[2] for w in data.warnings] == ["constant on train: channel 1"]
        assert (data.test.x[:, 9:] == 0).all()

    def test_travels_and_old_preprocessing_is_read(self) -> None:
        data = prepare(Digits(shape=(1, 8, 8)), 0)
        assert data.shape == data.preprocessing.shape == (1, 8, 8)
        back = Dataset.from_arrays(data.arrays(), json.loads(json.dumps(data.meta())))
        assert back.shape == (1, 8, 8)
        plain = prepare(Digits(), 0).preprocessing
        old = {key: value for key, value in json.loads(plain.to_json()).items() if key != "shape"}
        assert Preprocessing.from_json(json.dumps(old)) == plain
        assert plain.shape == ()

    def test_the_digest_depends_on_a_shape_and_not_on_none(self) -> None:
        plain, image, signal = (prepare(Digits(shape=s), 0) for s in (None, (1, 8, 8), (8, 8)))
        # Written by the version before there were shapes.
        assert plain.digest == OLD_DIGITS
        assert len({plain.digest, image.digest, signal.digest}) == 3
        assert image.shape == (1, 8, 8)
        np.testing.assert_array_equal(image.train.y, plain.train.y)

    @pytest.mark.parametrize("shape", [(8, 8, 8), (1, 7, 9), (3, 21)])
    def test_a_shape_of_another_size_is_refused(self, shape: tuple[int, ...]) -> None:
        count = math.prod(shape)
        with pytest.raises(DataError, match=rf"data\.shape .* holds {count} values, but an example has 64 .*: correct"):
            prepare(Digits(shape=shape), 0)
        with pytest.raises(DataError, match=f"holds {count} values"):
            dataclasses.replace(prepare(Digits(), 0).preprocessing, shape=shape)
        with pytest.raises(DataError, match=f"holds {count} values"):
            dataclasses.replace(Digits().load(0), shape=shape)

    @pytest.mark.parametrize("shape", [(64,), (1, 1, 8, 8), (0, 8, 8), (-1, -64), ()])
    @pytest.mark.parametrize("kind", ["digits", "parquet", "csv", "npz"])
    def test_what_is_no_shape_is_refused_by_key(self, kind: str, shape: tuple[int, ...]) -> None:
        path = {} if kind == "digits" else {"path": "x"}
        with pytest.raises(ConfigError, match=r"`data`: shape must be \[channels, height, width\] or .* for example"):
            load_plan({"data": {"kind": kind, "shape": list(shape), **path}})

    def test_a_split_without_validation_has_it_cut_from_train(self, tmp_path: Path) -> None:
        split = np.where(np.arange(ROWS) < 30, "train", "test")
        path = saved(tmp_path, x=np.arange(ROWS)[:, None], y=LABELS, s=split)
        data = prepare(Npz(path=path, split="s", fractions=(0.6, 0.3, 0.1), standardize=False), 0)
        assert (data.test.x >= 30).all() and len(data.test) == 10
        assert len(data.validation) == 10
        assert len(data.train) + len(data.search) == 20
        assert np.bincount(data.validation.y).tolist() == [5, 5]
        split = np.where(np.arange(ROWS) < 30, "train", "val")
        path = saved(tmp_path, x=np.arange(ROWS)[:, None], y=LABELS, s=split)
        data = prepare(Npz(path=path, split="s", fractions=(0.8, 0.1, 0.1), standardize=False), 0)
        assert (data.validation.x >= 30).all() and len(data.validation) == 10
        assert 3 <= len(data.test) <= 4
        path = saved(tmp_path, x=np.arange(ROWS)[:, None], y=LABELS, s=np.array(["test"] * ROWS))
        with pytest.raises(DataError, match="train has too few"):
            prepare(Npz(path=path, split="s"), 0)


class TestTables:
    def table(self, folder: Path, images: Any, name: str = "x.parquet", **more: Any) -> str:
        pq.write_table(pa.table({"image": images, "label": LABELS, **more}), folder / name)
        return str(folder / name)

    def test_columns_of_numbers_become_an_image(self, tmp_path: Path) -> None:
        x = pixels(1, 2, 3).reshape(ROWS, 6)
        columns = {f"p{i}": x[:, i] for i in range(6)}
        pq.write_table(pa.table({**columns, "label": LABELS}), tmp_path / "x.parquet")
        pa_csv.write_csv(pa.table({**columns, "label": LABELS}), tmp_path / "x.csv")
        for source in (
            Parquet(path=str(tmp_path / "x.parquet"), label="label", shape=(1, 2, 3)),
            Csv(path=str(tmp_path / "x.csv"), label="label", shape=(1, 2, 3)),
        ):
            data = prepare(source, 0)
            assert data.shape == (1, 2, 3)
            assert data.preprocessing.features == tuple(columns)
            assert len(set(data.preprocessing.mean)) == 1

    @pytest.mark.parametrize("sort", ["lists", "fixed", "nested", "nested fixed", "large", "bytes"])
    def test_a_list_column_is_as_many_features(self, sort: str, tmp_path: Path) -> None:
        x = np.random.default_rng(0).integers(0, 256, (ROWS, 2, 3)).astype(float)
        flat = pa.array(x.ravel())
        images = {
            "lists": lambda: pa.array(x.reshape(ROWS, 6).tolist()),
            "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 6),
            "nested": lambda: pa.array(x.tolist()),
            "nested fixed": lambda: pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(flat, 3), 2),
            "large": lambda: pa.array(x.reshape(ROWS, 6).tolist(), pa.large_list(pa.float32())),
            "bytes": lambda: pa.array(x.reshape(ROWS, 6).astype(int).tolist(), pa.list_(pa.uint8())),
        }[sort]()
        path = self.table(tmp_path, images)
        data = prepare(Parquet(path=path, label="label", features="image", shape=(1, 2, 3)), 0)
        assert data.preprocessing.features == tuple(f"image[{i}]" for i in range(6))
        raw = Parquet(path=path, label="label", features="image", shape=(1, 2, 3)).load(0)
        np.testing.assert_array_equal(raw.x, x.reshape(ROWS, 6))
        np.testing.assert_array_equal(read_features(path, data.preprocessing), raw.x)

    def test_null_takes_lists_of_a_fixed_size_alone(self, tmp_path: Path) -> None:
        fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * ROWS)), 2)
        words = pa.FixedSizeListArray.from_arrays(pa.array(["a"] * ROWS), 1)
        path = self.table(tmp_path, fixed, a=np.arange(ROWS), tags=[[1.0] * (i % 3) for i in range(ROWS)], words=words)
        data = prepare(Parquet(path=path, label="label"), 0)
        assert data.preprocessing.features == ("image[0]", "image[1]", "a")
        assert data.dropped == ("tags", "words")

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([[1.0, 2.0]] * 7 + [[1.0]] * 33, "column 'image', row 7: a list of 1 values, but 2 in row 0"),
            ([[[1.0], [2.0]]] * 5 + [[[1.0], [2.0, 3.0]]] * 35, "row 5: a list of 2 values, but 1 in row 0"),
            ([[1.0, 2.0]] * 9 + [[1.0, None]] * 31, "row 9: the value is missing"),
            ([[1.0, 2.0]] * 9 + [None] * 31, "row 9: the value is missing"),
            ([[1.0, 2.0]] * 9 + [[math.nan, 1.0]] * 31, "row 9: nan is not a finite number"),
            ([["a"]] * 40, "holds text"),
            ([[]] * 40, "row 0: the list is empty"),
        ],
    )
    def test_lists_that_are_no_features_are_refused(self, images: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=message):
            prepare(Parquet(path=self.table(tmp_path, images), label="label", features="image"), 0)

    def test_files_with_lists_of_other_lengths_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "all").mkdir()
        first = self.table(tmp_path / "all", [[1.0, 2.0]] * ROWS, "a.parquet", b=np.arange(ROWS))
        self.table(tmp_path / "all", [[1.0, 2.0, 3.0]] * ROWS, "b.parquet", b=np.arange(ROWS))
        with pytest.raises(DataError, match=r"b\.parquet: its lists give 3 features, but 2 in .*a\.parquet"):
            prepare(Parquet(path=str(tmp_path / "all"), label="label", features="image"), 0)
        known = prepare(Parquet(path=first, label="label", features=["image", "b"]), 0).preprocessing
        with pytest.raises(DataError, match="give 4 features, but the network takes 3"):
            read_features(str(tmp_path / "all"), known)

    def test_a_list_is_no_target(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, [[1.0, 2.0]] * ROWS)
        with pytest.raises(DataError, match="'image' holds values of type"):
            prepare(Parquet(path=path, target="image", features="label"), 0)

    def test_names_with_brackets_are_columns_where_there_are_such(self, tmp_path: Path) -> None:
        columns = {"x[0]": np.arange(ROWS) * 1.0, "x[1]": np.arange(ROWS) * 2.0}
        pq.write_table(pa.table({**columns, "label": LABELS}), tmp_path / "x.parquet")
        known = prepare(Parquet(path=str(tmp_path / "x.parquet"), label="label"), 0).preprocessing
        assert known.features == ("x[0]", "x[1]")
        np.testing.assert_array_equal(read_features(tmp_path / "x.parquet", known)[:, 1], columns["x[1]"])


class TestNpz:
    @pytest.mark.parametrize(
        ("shape", "fields", "expected"),
        [
            ((5,), {}, ()),
            ((2, 6), {}, (2, 6)),
            ((3, 4, 5), {}, (3, 4, 5)),
            ((4, 5), {"shape": (1, 4, 5)}, (1, 4, 5)),
            ((20,), {"shape": (1, 4, 5)}, (1, 4, 5)),
            ((4, 5, 3), {"channels_last": True}, (3, 4, 5)),
            ((6, 2), {"channels_last": True}, (2, 6)),
        ],
    )
    def test_trailing_dimensions_are_the_shape(
        self, shape: tuple[int, ...], fields: dict[str, Any], expected: tuple[int, ...], tmp_path: Path
    ) -> None:
        x = pixels(*shape)
        source = Npz(path=saved(tmp_path, x=x, y=LABELS), **fields)
        raw = source.load(0)
        assert raw.shape == expected
        moved = x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)) if fields.get("channels_last") else x
        np.testing.assert_array_equal(raw.x, moved.reshape(ROWS, -1))
        assert raw.features[:2] == ("x[0]", "x[1]")
        np.testing.assert_array_equal(read_features(source.path, prepare(source, 0).preprocessing), raw.x)

    @pytest.mark.parametrize(
        ("y", "task", "outputs"),
        [
            (LABELS, "classification", 2),
            (LABELS[:, None].astype(np.uint8), "classification", 2),
            (LABELS == 1, "classification", 2),
            (np.array(["a", "b", "c", "d"] * 10), "classification", 4),
            (LABELS.astype(np.uint64) + np.uint64(2**63), "classification", 2),
            (np.arange(ROWS) * 0.5, "regression", 1),
            (pixels(3), "regression", 3),
            (pixels(1).astype(np.float16), "regression", 1),
        ],
    )
    def test_the_type_of_y_is_the_task(self, y: Any, task: str, outputs: int, tmp_path: Path) -> None:
        data = prepare(Npz(path=saved(tmp_path, a=pixels(2), b=y), x="a", y="b"), 0)
        assert (data.task, data.outputs) == (task, outputs)
        expected = sorted(set(np.ravel(y).tolist())) if task == "classification" else []
        assert list(data.preprocessing.labels) == expected
        assert json.loads(data.preprocessing.to_json())["labels"] == expected

    def test_targets_have_names(self, tmp_path: Path) -> None:
        assert prepare(Npz(path=saved(tmp_path, x=pixels(2), y=pixels(2))), 0).used[2:] == ("y[0]", "y[1]")
        assert prepare(Npz(path=saved(tmp_path, x=pixels(2), y=pixels(1))), 0).used[2:] == ("y",)

    @pytest.mark.parametrize(
        ("arrays", "fields", "message"),
        [
            ({"x": pixels(2)}, {}, r"no array 'y' \(data.y\): the arrays are 'x'"),
            ({"images": pixels(2), "y": LABELS}, {"x": "image"}, "did you mean 'images'"),
            ({"x": pixels(2), "y": LABELS[:9]}, {}, r"array 'y' \(data.y\) has shape \(9,\).*as many rows"),
            ({"x": pixels(2), "y": np.array(1)}, {}, "as many rows"),
            ({"x": pixels(2)[:, 0], "y": LABELS}, {}, r"'x' must hold numbers \[rows, ...\], got float64 \[40\]"),
            ({"x": pixels(2).astype(str), "y": LABELS}, {}, "'x' must hold numbers"),
            ({"x": pixels(2), "y": np.eye(2, dtype=int)[LABELS]}, {}, r"one-hot labels save y.argmax\(1\)"),
            ({"x": pixels(2), "y": LABELS * 1j}, {}, "got complex128"),
            ({"x": pixels(2), "y": pixels(2, 2)}, {}, r"got float64 \[40, 2, 2\]"),
            ({"x": pixels(1, 2, 2, 2), "y": LABELS}, {}, "name data.shape"),
            ({"x": pixels(2, 3), "y": LABELS}, {"shape": (1, 2, 2)}, "holds 4 values, but an example has 6"),
            ({"x": pixels(2), "y": LABELS, "s": ["trian"] * ROWS}, {"split": "s"}, "got 'trian'"),
            ({"x": pixels(2), "y": LABELS, "s": LABELS}, {"split": "s"}, "got 0"),
            ({"x": np.where(np.eye(ROWS, 2), math.nan, 1), "y": LABELS}, {}, r"row 0, column 'x\[0\]': nan is not"),
        ],
    )
    def test_what_cannot_be_used_is_refused(
        self, arrays: dict[str, Any], fields: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match=message) as caught:
            prepare(Npz(path=saved(tmp_path, **arrays), **fields), 0)
        assert "x.npz" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("which", ["x", "y"])
    def test_nothing_is_unpickled(self, which: str, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return (pytest.fail, ("was unpickled",))

        trap = np.empty(ROWS, dtype=object)
        trap[:] = [Trap() for _ in range(ROWS)]
        path = saved(tmp_path, **{"x": pixels(2), "y": LABELS, which: trap})
        with pytest.raises(DataError, match=rf"array '{which}' holds Python objects, which are refused.*astype\(str\)"):
            prepare(Npz(path=path), 0)
        (tmp_path / "x.pickle").write_bytes(pickle.dumps({"x": 1}))
        with pytest.raises(DataError, match=r"is not an \.npz file"):
            prepare(Npz(path=str(tmp_path / "x.pickle")), 0)

    def test_files_that_are_none_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", pixels(2))
        (tmp_path / "empty.npz").write_bytes(b"")
        whole = Path(saved(tmp_path, x=pixels(2), y=LABELS)).read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "text.npz").write_text("x,y\n1,2\n")
        for name in ("x.npy", "empty.npz", "cut.npz", "text.npz", "."):
            with pytest.raises(DataError, match=r"is not an \.npz file: write it with"):
                prepare(Npz(path=str(tmp_path / name)), 0)
        with pytest.raises(DataError, match="no such file"):
            prepare(Npz(path=str(tmp_path / "none.npz")), 0)
        with zipfile.ZipFile(tmp_path / "x.npz") as archive:
            at = archive.getinfo("x.npy").header_offset + 200
        (tmp_path / "bad.npz").write_bytes(whole[:at] + bytes(99) + whole[at + 99 :])
        with pytest.raises(DataError, match="array 'x' is damaged"):
            prepare(Npz(path=str(tmp_path / "bad.npz")), 0)

    def test_new_rows_of_another_size_are_refused(self, tmp_path: Path) -> None:
        known = prepare(Npz(path=saved(tmp_path, x=pixels(3, 4, 5), y=LABELS)), 0).preprocessing
        last = saved(tmp_path, x=np.moveaxis(pixels(3, 4, 5), 1, -1))
        np.testing.assert_array_equal(read_features(last, known), pixels(3, 4, 5).reshape(ROWS, -1))
        with pytest.raises(DataError, match="has 40 values an example, the network takes 60"):
            read_features(saved(tmp_path, x=pixels(2, 4, 5)), known)


class TestImageFolder:
    def test_classes_are_folders_in_a_fixed_order(self, tmp_path: Path) -> None:
        write_images(tmp_path / "pets", {"dog": 12, "cat": 18}, (8, 6))
        (tmp_path / "pets" / "cat" / "Thumbs.db").write_text("x")
        (tmp_path / "pets" / ".cache").mkdir()
        raw = ImageFolder(path=str(tmp_path / "pets"), size=(8, 6)).load(0)
        assert (raw.name, raw.shape, raw.y.tolist()) == ("pets", (3, 8, 6), ["cat"] * 18 + ["dog"] * 12)
        for row, name in ((0, "cat/000.png"), (17, "cat/017.png"), (18, "dog/000.png")):
            with Image.open(tmp_path / "pets" / name) as image:
                expected = np.asarray(image).transpose(2, 0, 1).ravel() / 255.0
            np.testing.assert_array_equal(raw.x[row], expected)

    def test_grey_and_resized(self, tmp_path: Path) -> None:
        # A ramp stays a ramp under bilinear resizing, and the sides do not change places.
        ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[:, None], 64, axis=1)
        for name, image in {"a": ramp, "b": ramp[::-1]}.items():
            (tmp_path / name).mkdir()
            for i in range(5):
                Image.fromarray(image).save(tmp_path / name / f"{i}.{['png', 'JPG', 'bmp', 'gif', 'tif'][i]}")
        raw = ImageFolder(path=str(tmp_path), size=(8, 16), channels=1).load(0)
        assert raw.shape == (1, 8, 16)
        for row, sign in ((0, 1), (5, -1)):
            picture = raw.x[row].reshape(8, 16)
            assert np.ptp(picture, axis=1).max() < 0.02
            steps = sign * np.diff(picture[1:-1, 0])
            assert steps == pytest.approx(np.full(5, 4 / 31), abs=0.02)
        assert raw.x.min() >= 0 and raw.x.max() <= 1

    def test_split_folders(self, tmp_path: Path) -> None:
        for i, (part, count) in enumerate({"train": 10, "val": 4, "test": 5}.items()):
            write_images(tmp_path / part, {"a": count, "b": count}, seed=i)
        data = prepare(ImageFolder(path=str(tmp_path), size=(4, 4)), 0)
        assert [len(getattr(data, name)) for name in PARTS] == [18, 2, 8, 10]
        assert data.outputs == 2

    def test_a_missing_validation_folder_is_cut_from_train(self, tmp_path: Path) -> None:
        write_images(tmp_path / "train", {"a": 20, "b": 20})
        write_images(tmp_path / "test", {"a": 3, "b": 3}, seed=1)
        data = prepare(ImageFolder(path=str(tmp_path), size=(4, 4)), 0)
        assert [len(getattr(data, name)) for name in PARTS] == [27, 3, 10, 6]

    @pytest.mark.parametrize("broken", ["text", "cut", "deep"])
    def test_a_broken_image_is_named(self, broken: str, tmp_path: Path) -> None:
        write_images(tmp_path, {"a": 3, "b": 3})
        file = tmp_path / "b" / "001.png"
        if broken == "text":
            file.write_text("no image")
        elif broken == "cut":
            file.write_bytes(file.read_bytes()[:100])
        else:
            Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(file)
        with pytest.raises(DataError, match=r"b/001\.png: .*: (write it again or remove it|save it with 8)"):
            prepare(ImageFolder(path=str(tmp_path)), 0)

    def test_folders_that_are_none_are_refused(self, tmp_path: Path) -> None:
        def refusal(path: Path) -> str:
            with pytest.raises(DataError) as caught:
                prepare(ImageFolder(path=str(path)), 0)
            return str(caught.value)

        assert "no such folder" in refusal(tmp_path / "none")
        assert "holds no folder of images" in refusal(tmp_path)
        (tmp_path / "a").mkdir()
        assert "the class holds no image" in refusal(tmp_path)
        write_images(tmp_path, {"b": 3, "train": 3})
        assert "holds the split 'train' and 'a', which is none" in refusal(tmp_path)

    def test_refuses_values_out_of_range(self) -> None:
        with pytest.raises(ValueError, match=r"size must be at least 1 x 1, got \[0, 8\]"):
            ImageFolder(path="x", size=(0, 8))
        with pytest.raises(ConfigError, match=r"`data.channels`.*4"):
            load_plan({"data": {"kind": "image_folder", "path": "x", "channels": 4}})


class TestTorchvision:
    @pytest.mark.parametrize(("name", "shape"), [("MNIST", (1, 28, 28)), ("CIFAR10", (3, 32, 32))])
    def test_the_official_test_part_is_test(
        self, name: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in_torchvision(monkeypatch)
        data = prepare(Torchvision(name=name, root="files"), 0)
        assert data.shape == shape
        assert len(data.test) == 20
        assert len(data.validation) == 15
        raw = Torchvision(name=name, root="files").load(0)
        pictures = official_part(name, False).data
        expected = pictures if shape[0] == 1 else pictures.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(raw.x[60:] * 255, expected.reshape(20, -1), rtol=1e-12)
        assert (raw.split is not None) and raw.split.tolist() == ["train"] * 60 + ["test"] * 20

    def test_absent_files_say_how_to_get_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stand_in_torchvision(monkeypatch)
        with pytest.raises(
            DataError, match=r"nowhere: CIFAR10 is not there.*downloads nothing: run .*download=True"
        ) as e:
            prepare(Torchvision(name="CIFAR10", root="nowhere"), 0)
        assert "\n" not in str(e.value)

    def test_without_the_extra_or_with_one_that_is_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchvision", None)
        with pytest.raises(DataError, match="needs the extra `vision`: pip install torchvision"):
            prepare(Torchvision(name="MNIST", root="x"), 0)
        monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
        with pytest.raises(DataError, match=r"does not work .*install the torchvision that belongs to this torch"):
            prepare(Torchvision(name="MNIST", root="x"), 0)


class TestGenerated:
    @pytest.mark.parametrize(
        ("source", "fields", "message"),
        [
            (Patterns, {"size": 7}, "size must be at least 8, got 7"),
            (Patterns, {"rows": 15}, "rows must be at least 16"),
            (Patterns, {"noise": 0.0}, "noise must be above 0 and at most 2, got 0.0"),
            (Patterns, {"noise": math.nan}, "noise"),
            (Patterns, {"seed": -1}, "seed"),
            (Waveforms, {"length": 15}, "length must be at least 16, got 15"),
            (Waveforms, {"rows": 11}, "rows"),
            (Waveforms, {"noise": math.inf}, "noise"),
            (Waveforms, {"seed": -1}, "seed"),
        ],
    )
    def test_refuse_values_out_of_range(self, source: Any, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            source(**fields)

    @pytest.mark.parametrize("source", [Patterns, Waveforms])
    def test_own_seed_goes_before_the_campaigns(self, source: Any) -> None:
        small = source(rows=48)
        assert prepare(dataclasses.replace(small, seed=1), 5).digest == prepare(small, 1).digest
        assert prepare(small, 5).digest != prepare(small, 6).digest

    @pytest.mark.parametrize(("source", "least"), [(Patterns, 1 / 8), (Waveforms, 1 / 6)])
    def test_no_linear_model_does_it(self, source: Any, least: float) -> None:
        data = prepare(source(), 0)
        score = LogisticRegression(max_iter=60).fit(data.train.x, data.train.y).score(data.test.x, data.test.y)
        assert least - 0.05 < score < 0.35

    @pytest.mark.parametrize("size", [8, 16, 33])
    def test_patterns_lie_anywhere_and_are_whole(self, size: int) -> None:
        raw = Patterns(rows=800, size=size, noise=1e-9).load(0)
        assert raw.shape == (1, size, size)
        assert np.bincount(np.unique(raw.y, return_inverse=True)[1]).tolist() == [100] * 8
        energy = np.square(raw.x).mean(0).reshape(size, size) / np.square(raw.x).mean()
        half = size // 2
        quarters = [
            energy[a, b].mean() for a in (slice(half), slice(-half, None)) for b in (slice(half), slice(-half, None))
        ]
        assert quarters == pytest.approx([np.mean(quarters)] * 4, rel=0.15)
        assert energy[half // 2 : -(half // 2), half // 2 : -(half // 2)].min() > 0.5
        # Nothing is cut off: little is left at the border.
        assert energy[0].mean() < 0.3 > energy[:, -1].mean()

    def test_gratings_vary_across_their_stripes(self) -> None:
        """By their own names: differences along the stripes are small beside those across."""
        raw = Patterns(rows=1600, size=32, noise=1e-9).load(3)
        images = raw.x.reshape(-1, 32, 32)
        # Rows run down, so that what rises goes one row up for a column to the right.
        change = {
            "horizontal": images[:, :, 1:] - images[:, :, :-1],
            "vertical": images[:, 1:, :] - images[:, :-1, :],
            "rising": images[:, :-1, 1:] - images[:, 1:, :-1],
            "falling": images[:, 1:, 1:] - images[:, :-1, :-1],
        }
        assert set(change) < set(CLASSES)
        for name in change:
            energy = {along: float(np.square(values[raw.y == name]).mean()) for along, values in change.items()}
            assert min(energy, key=lambda along: energy[along]) == name

    def test_waveforms_have_unit_variance_and_their_own_form(self) -> None:
        raw = Waveforms(rows=1200, length=4096, noise=1e-9).load(0)
        x = raw.x / raw.x.std(1, keepdims=True)
        assert np.abs(x.mean(1)).max() < 0.05
        kurtosis = {name: float((x[raw.y == name] ** 4).mean()) for name in np.unique(raw.y)}
        # Of a uniform distribution 9/5, of a sine 3/2, of a square 1, of pulses of a fifth 3.25; known moments.
        expected = {"sine": 1.5, "triangle": 1.8, "square": 1.0, "rising_saw": 1.8, "falling_saw": 1.8, "pulses": 3.25}
        assert kurtosis == pytest.approx(expected, rel=0.02)
        skew = {name: float((np.diff(x[raw.y == name]) ** 3).mean()) for name in ("rising_saw", "falling_saw")}
        assert skew["rising_saw"] < -0.1 < 0.1 < skew["falling_saw"]


SHAPES = [(1, 5, 7), (3, 4, 4), (2, 9)]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Values that are all different and none 0, so that each output shows what it was read from."""
    return torch.arange(1, n * math.prod(shape) + 1, dtype=dtype).view(n, -1)


class TestAugment:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(
        "augment", [Augment(shift=2), Augment(flip=True), Augment(cutout=3), Augment(shift=1, flip=True, cutout=2)]
    )
    def test_every_example_is_one_of_all_that_can_come(self, augment: Augment, shape: tuple[int, ...]) -> None:
        """Against an enumeration by slices of NumPy: every flip, every shift, every square."""
        x = batch(60, shape)
        out = augmented(x, shape, augment, drawn())
        assert out.shape == x.shape and out.dtype == x.dtype
        for before, after in zip(x.numpy().reshape(60, *shape), out.numpy().reshape(60, *shape), strict=True):
            assert any(np.array_equal(after, possible) for possible in possibilities(before, augment))

    def test_all_of_them_come(self) -> None:
        x = batch(1, (1, 4, 4)).expand(4000, -1)
        out = augmented(x, (1, 4, 4), Augment(shift=1, flip=True), drawn())
        shown, counts = np.unique(out.numpy(), axis=0, return_counts=True)
        assert len(shown) == 18
        assert counts.min() > 4000 / 18 * 0.7
        out = augmented(x, (1, 4, 4), Augment(cutout=2), drawn())
        shown, counts = np.unique(out.numpy(), axis=0, return_counts=True)
        assert len(shown) == 16
        assert counts.min() > 250 * 0.7

    def test_draws_follow_the_generator_alone(self) -> None:
        shape, augment = (2, 6, 6), Augment(shift=2, flip=True, cutout=3)
        x = torch.randn(32, 72, generator=drawn())
        kept = x.clone()
        torch.manual_seed(1)
        one = augmented(x, shape, augment, drawn(3))
        torch.manual_seed(2)
        assert torch.equal(one, augmented(x, shape, augment, drawn(3)))
        assert not torch.equal(one, augmented(x, shape, augment, drawn(4)))
        assert torch.equal(x, kept)
        # The same draws whatever the values are.
        double = augmented(x.double(), shape, augment, drawn(3))
        assert double.dtype == torch.float64
        assert torch.equal(double.float(), one)

    def test_channels_move_together(self) -> None:
        x = batch(40, (1, 5, 5))
        both = torch.cat([x, x + 10000], 1)
        out = augmented(both, (2, 5, 5), Augment(shift=2, flip=True, cutout=2), drawn()).view(40, 2, 25)
        assert torch.equal(out[:, 0] == 0, out[:, 1] == 0)
        assert torch.equal(out[:, 0][out[:, 0] > 0] + 10000, out[:, 1][out[:, 1] > 0])

    def test_nothing_to_do_is_the_batch_itself(self) -> None:
        x = batch(3, (4,))
        assert augmented(x, (), Augment(), drawn()) is x
        assert len(augmented(x[:0], (1, 4), Augment(shift=1), drawn())) == 0

    def test_a_shift_beyond_the_image_leaves_the_mean(self) -> None:
        out = augmented(batch(500, (1, 2, 2)), (1, 2, 2), Augment(shift=9), drawn())
        assert (out == 0).all(1).any()

    def test_a_shape_is_needed(self) -> None:
        for shape in ((), (9,)):
            with pytest.raises(ValueError, match="needs examples with a shape, and these are vectors"):
                augmented(batch(2, (9,)), shape, Augment(flip=True), drawn())
        with pytest.raises(ValueError, match="9 features do not fill the shape"):
            augmented(batch(2, (9,)), (1, 2, 5), Augment(flip=True), drawn())

    @pytest.mark.parametrize("field", ["shift", "cutout"])
    def test_refuses_values_out_of_range(self, field: str) -> None:
        with pytest.raises(ValueError, match=f"`{field} >= 0` must hold, but got -1"):
            Augment(**{field: -1})


def possibilities(image: Any, augment: Augment) -> list[Any]:
    """All that ``augmented`` may make of one example [channels, ...], by plain slices."""
    found = [image, image[..., ::-1]] if augment.flip else [image]
    sizes = image.shape[1:]
    for axis, size in enumerate(sizes):
        moved = []
        for one in found:
            for by in range(-augment.shift, augment.shift + 1):
                place = np.zeros_like(one)
                to = [slice(None)] * one.ndim
                of = [slice(None)] * one.ndim
                to[axis + 1] = slice(max(by, 0), max(size + min(by, 0), 0))
                of[axis + 1] = slice(max(-by, 0), max(size - max(by, 0), 0))
                place[tuple(to)] = one[tuple(of)]
                moved.append(place)
        found = moved
    if augment.cutout:
        blanked = []
        for one in found:
            for centre in np.ndindex(*sizes):
                place = one.copy()
                hole = tuple(
                    slice(max(c - augment.cutout // 2, 0), c - augment.cutout // 2 + augment.cutout) for c in centre
                )
                place[(slice(None), *hole)] = 0
                blanked.append(place)
        found = blanked
    return found


def test_raw_without_a_shape_is_a_vector() -> None:
    raw = Raw(name="x", task="regression", x=np.ones((2, 1)), y=np.ones((2, 1)), features=("a",), targets=("t",))
    assert raw.shape == ()


def test_digits_as_images_are_those_of_scikit_learn() -> None:
    raw = Digits(shape=(1, 8, 8)).load(0)
    np.testing.assert_array_equal(raw.x.reshape(-1, 8, 8), load_digits().images)
