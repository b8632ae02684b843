"""Parquet and CSV: which columns are taken, what is refused and in which words, and what is odd but fine."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from raygrow.data import Dataset, prepare
from raygrow.data.files import Csv, Parquet
from raygrow.data.tables import read_features
from raygrow.errors import DataError

ROWS = 40
Columns = dict[str, Any]


def columns(**more: Any) -> Columns:
    """A table that every case starts from: two features, a label, a target."""
    draws = np.random.default_rng(0)
    base = {"a": draws.normal(size=ROWS), "b": draws.normal(size=ROWS), "label": np.arange(ROWS) % 3}
    return base | {"target": draws.normal(size=ROWS)} | more


def with_value(column: str, row: int, value: Any) -> Columns:
    table = columns()
    values = table[column].tolist()
    values[row] = value
    return table | {column: values}


def write(folder: Path, table: Columns | pa.Table, kind: str = "parquet") -> str:
    path = folder / f"x.{kind}"
    arrow = table if isinstance(table, pa.Table) else pa.table(table)
    if kind == "parquet":
        pq.write_table(arrow, path)
    else:
        pa_csv.write_csv(arrow, path)
    return str(path)


def load(path: str, seed: int = 0, **fields: Any) -> Dataset:
    if "label" not in fields and "target" not in fields:
        fields["label"] = "label"
    return prepare((Csv if path.endswith(".csv") else Parquet)(path=path, **fields), seed)


class TestChoosingColumns:
    def test_null_takes_every_other_numeric_column(self, tmp_path: Path) -> None:
        day = datetime.date(2020, 1, 1)
        path = write(tmp_path, columns(flag=np.arange(ROWS) % 2 == 0, name=["x"] * ROWS, day=[day] * ROWS))
        data = load(path)
        assert data.preprocessing.features == ("a", "b", "target", "flag")
        assert data.dropped == ("name", "day")
        assert data.used == ("a", "b", "target", "flag", "label")
        assert data.name == "x"

    @pytest.mark.parametrize(
        ("features", "expected"),
        [
            ("b", ("b",)),
            ("[ab]", ("a", "b")),
            (("b", "a"), ("b", "a")),
            (["b", "?", "b"], ("b", "a")),
            ("x[0]", ("x[0]",)),
        ],
    )
    def test_names_globs_and_lists(self, tmp_path: Path, features: Any, expected: tuple[str, ...]) -> None:
        path = write(tmp_path, columns(**{"x[0]": np.arange(ROWS), "x0": np.arange(ROWS)}))
        assert load(path, features=features).preprocessing.features == expected

    @pytest.mark.parametrize("target", ["t*", ["t1", "t0"], "t0"])
    def test_targets(self, tmp_path: Path, target: Any) -> None:
        draws = np.random.default_rng(3)
        table = {"a": np.arange(ROWS), "t0": draws.normal(size=ROWS), "t1": draws.integers(0, 9, ROWS)}
        data = load(write(tmp_path, table), target=target)
        expected = {"t*": ("t0", "t1"), "t0": ("t0",)}.get(str(target), ("t1", "t0"))
        assert data.preprocessing.targets == expected
        assert data.outputs == len(expected)

    def test_a_row_index_saved_by_pandas_is_dropped(self, tmp_path: Path) -> None:
        for name in ("", "__index_level_0__"):
            data = load(write(tmp_path, {name: np.arange(ROWS), **columns()}), features=None)
            assert data.dropped == (name,)

    def test_split_column(self, tmp_path: Path) -> None:
        split = ["train", "train", "val", "train", "test"] * 8
        data = load(write(tmp_path, columns(part=split)), split="part")
        assert (len(data.train) + len(data.search), len(data.validation), len(data.test)) == (24, 8, 8)
        assert "part" not in data.used + data.dropped

    def test_csv_and_parquet_hold_the_same(self, tmp_path: Path) -> None:
        table = columns(name=['x,\n"y"'] * ROWS)
        one, other = load(write(tmp_path, table)), load(write(tmp_path, table, "csv"))
        assert one.digest == other.digest
        np.testing.assert_array_equal(one.train.x, other.train.x)


def test_digest_stays_when_the_file_moves(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one = load(write(tmp_path, columns()))
    moved = str(tmp_path / "elsewhere" / "renamed.parquet")
    Path(tmp_path / "x.parquet").rename(moved)
    assert load(moved, seed=9).digest == one.digest
    assert load(write(tmp_path, with_value("a", 20, 0.5))).digest != one.digest


class TestFolder:
    def parts(self, folder: Path, *tables: Columns | pa.Table) -> str:
        for number, table in enumerate(tables):
            pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), folder / f"part-{number}.parquet")
        (folder / "_SUCCESS").touch()
        (folder / "_metadata.parquet").touch()
        return str(folder)

    def test_is_read_in_the_order_of_names(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        whole = columns()
        halves = [{k: v[:15] for k, v in whole.items()}, {k: v[15:] for k, v in whole.items()}]
        assert load(self.parts(tmp_path / "folder", *halves)).digest == load(write(tmp_path, whole)).digest

    def test_files_without_rows_are_left_out(self, tmp_path: Path) -> None:
        empty = pa.table({"a": pa.array([], pa.string())})
        assert len(load(self.parts(tmp_path, empty, columns(), empty)).train) == 22

    def test_labels_of_mixed_width_agree(self, tmp_path: Path) -> None:
        narrow, wide = (
            columns(label=pa.array([1, 2] * 20, pa.int8())),
            columns(label=pa.array([300, 2] * 20, pa.uint64())),
        )
        assert load(self.parts(tmp_path, narrow, wide)).preprocessing.labels == (1, 2, 300)

    def test_rows_are_counted_in_their_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"part-1\.parquet: column 'a', row 7: nan"):
            load(self.parts(tmp_path, columns(), with_value("a", 7, float("nan"))))

    def test_a_far_off_target_is_named_in_its_file(self, tmp_path: Path) -> None:
        tables = [
            columns(s=["train"] * ROWS),
            columns(s=["val", "test"] * 20) | {"target": [1e30] + [0.0] * (ROWS - 1)},
        ]
        with pytest.raises(DataError, match=r"part-1\.parquet: row 0, target 'target'"):
            load(self.parts(tmp_path, *tables), target="target", split="s")

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ({"a": [1.0], "label": [1], "target": [0.0]}, r"part-1\.parquet: no column 'b'"),
            (columns(c=np.zeros(ROWS)), r"part-1\.parquet: column 'c' is not in"),
            (columns(label=["0", "1"] * 20), r"part-1\.parquet: label 'label' holds text, but integers in"),
            (columns(a=["x"] * ROWS), r"part-1\.parquet: column 'a' holds text \('x' in row 0\)"),
        ],
    )
    def test_files_that_do_not_fit_are_refused(self, tmp_path: Path, second: Columns, message: str) -> None:
        with pytest.raises(DataError, match=message):
            load(self.parts(tmp_path, columns(), second))

    def test_a_folder_without_parquet_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no \.parquet file"):
            load(str(tmp_path))


TABLES: list[tuple[str, Columns, dict[str, Any], str]] = [
    ("nan", with_value("a", 7, float("nan")), {}, r"x\.parquet: column 'a', row 7: nan is not a finite"),
    ("null", with_value("b", 39, None), {}, "column 'b', row 39: the value is missing"),
    ("infinite", with_value("a", 0, -np.inf), {}, "column 'a', row 0: -inf"),
    ("null label", with_value("label", 5, None), {}, "column 'label', row 5: the value is missing"),
    ("nan target", with_value("target", 4, float("nan")), {"target": "target"}, "column 'target', row 4: nan"),
    ("no value at all", columns(a=pa.nulls(ROWS)), {"features": "a"}, "column 'a', row 0: the value is missing"),
    ("missing label", columns(), {"label": "lable"}, r"no column 'lable' \(data.label\): did you mean 'label'"),
    ("missing target", columns(), {"target": "Target"}, "no column 'Target' .*did you mean 'target'"),
    ("missing feature", columns(), {"features": ["a", "zzz"]}, "no column 'zzz' .*the columns are 'a', 'b'"),
    ("glob without match", columns(), {"features": "q*"}, r"no column 'q\*' \(data.features\)"),
    ("empty list", columns(), {"features": []}, "data.features names no column"),
    ("text feature", columns(c=["u"] * ROWS), {"features": ["a", "c"]}, r"column 'c' holds text \('u' in row 0\)"),
    ("date", columns(c=[datetime.date(2020, 1, 1)] * ROWS), {"features": "c"}, "column 'c' holds dates or times"),
    ("text target", columns(c=["u"] * ROWS), {"target": "c"}, "column 'c' holds text"),
    (
        "label in features",
        columns(),
        {"features": ["a", "label"]},
        "'label' is data.label and also among data.features",
    ),
    ("target in glob", columns(), {"target": "target", "features": "*"}, "'target' is data.target and also among"),
    ("split in features", columns(s=["train"] * ROWS), {"split": "s", "features": "*s"}, "'s' is data.split and also"),
    ("split is label", columns(), {"split": "label"}, "'label' is both data.split and data.label"),
    ("missing split", columns(), {"split": "part"}, r"no column 'part' \(data.split\)"),
    ("both", columns(), {"label": "label", "target": "target"}, "exactly one is needed, got both"),
    ("neither", columns(), {"label": None}, "exactly one is needed, got neither"),
    ("continuous label", columns(), {"label": "target"}, "label 'target', row 0: .* use target instead of label"),
    ("date label", columns(c=[datetime.date(2020, 1, 1)] * ROWS), {"label": "c"}, "label 'c' holds dates or times"),
    ("list label", columns(c=[[1]] * ROWS), {"label": "c"}, "label 'c' holds values of type list"),
    ("one class", columns(label=["u"] * ROWS), {}, "at least 2 classes, column 'label' holds only 'u'"),
    ("one row", {"a": [1.0], "label": [1]}, {}, "at least 2 classes"),
    ("one row, target", {"a": [1.0], "t": [1.0]}, {"target": "t"}, "each split needs at least 2 rows"),
    ("no rows", {"a": pa.array([], pa.float64()), "label": pa.array([], pa.int64())}, {}, "holds no rows"),
    (
        "unknown split",
        columns(s=["train", "tset"] * 20),
        {"split": "s"},
        "split column 's', row 1: unknown split 'tset'",
    ),
    ("search split", columns(s=["train", "search"] * 20), {"split": "s"}, "search is taken from train"),
    ("null split", columns(s=["train", None] * 20), {"split": "s"}, "column 's', row 1: the value is missing"),
    ("number split", columns(s=[0, 1] * 20), {"split": "s"}, "split column 's', row 0: unknown split 0"),
    ("no features", {"label": np.arange(ROWS) % 2, "n": ["x"] * ROWS}, {}, "no numeric column is left for features"),
    ("still target", columns(t=np.full(ROWS, 0.3)), {"target": "t"}, "target 't' does not vary"),
]


@pytest.mark.parametrize(("table", "fields", "message"), [c[1:] for c in TABLES], ids=[c[0] for c in TABLES])
def test_refused_tables(tmp_path: Path, table: Columns, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        load(write(tmp_path, table), **fields)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_duplicate_columns_are_refused(tmp_path: Path) -> None:
    table = pa.table([np.arange(9), np.arange(9), np.arange(9)], names=["a", "label", "a"])
    for kind in ("parquet", "csv"):
        with pytest.raises(DataError, match="two columns are called 'a'"):
            load(write(tmp_path, table, kind))


def as_csv(text: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "x.csv").write_text(text)
        return str(folder / "x.csv")

    return make


def raw(name: str, content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def damaged(start: float, stop: float) -> Callable[[Path], str]:
    """Zero a share of a Parquet file's bytes, in fractions of its length."""

    def make(folder: Path) -> str:
        path = Path(write(folder, columns()))
        content = bytearray(path.read_bytes())
        first, last = int(start * len(content)), int(stop * len(content))
        content[first:last] = b"\xff" * (last - first)
        path.write_bytes(bytes(content))
        return str(path)

    return make


def truncated(folder: Path) -> str:
    path = Path(write(folder, columns()))
    path.write_bytes(path.read_bytes()[:-50])
    return str(path)


def parquet_called_csv(folder: Path) -> str:
    return str(Path(write(folder, columns())).rename(folder / "y.csv"))


FILES: list[tuple[str, Callable[[Path], str], str]] = [
    ("absent", lambda folder: str(folder / "no.parquet"), r"no\.parquet: no such file or folder"),
    ("absent csv", lambda folder: str(folder / "no.csv"), r"no\.csv: no such file or folder"),
    ("empty", raw("x.parquet", b""), r"x\.parquet: the file is empty"),
    ("empty csv", raw("x.csv", b""), r"x\.csv: the file is empty"),
    ("csv text in parquet", raw("x.parquet", b"a,label\n1,2\n"), "is not a Parquet file .*set data.kind to csv"),
    ("tiny", raw("x.parquet", b"P"), "is not a Parquet file"),
    ("only the magic", raw("x.parquet", b"PAR1"), r"x\.parquet: cannot be read as Parquet"),
    ("truncated", truncated, "truncated Parquet"),
    ("damaged footer", damaged(0.6, 0.9), r"x\.parquet: cannot be read as Parquet"),
    ("damaged pages", damaged(0.01, 0.3), r"x\.parquet: is damaged"),
    ("parquet in csv", parquet_called_csv, r"y\.csv: is a Parquet file, not CSV"),
    ("header only", as_csv("a,label\n"), "holds no rows"),
    ("short row", as_csv("a,b,label\n1,2,0\n3,4\n5,6,1\n"), "row 1: Expected 3 columns, got 2"),
    ("missing cell", as_csv("a,label\n1,0\n,1\n"), "column 'a', row 1: the value is missing"),
    ("missing text label", as_csv("a,label\n1,u\n2,v\n3,\n"), "column 'label', row 2: the value is missing"),
    ("NA", as_csv("a,label\n1,0\nNA,1\n"), "column 'a', row 1: the value is missing"),
    ("infinite cell", as_csv("a,label\n1.5,0\ninf,1\n"), "column 'a', row 1: inf"),
    ("no UTF-8 header", raw("x.csv", b"a,l\xe4bel\n1,2\n"), "UTF-8"),
    ("folder as csv", lambda folder: (folder / "x.csv").mkdir() or str(folder / "x.csv"), "CSV takes one file"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_refused_files(tmp_path: Path, make: Callable[[Path], str], message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=message) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)


class TestOddButFine:
    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (["u", "", "é"], ("", "u", "é")),
            ([True, False, True], (False, True)),
            ([-5, 1000, 7], (-5, 7, 1000)),
            ([2.0, 0.0, 9.0], (0.0, 2.0, 9.0)),
            (pa.array([2**64 - 1, 0, 5], pa.uint64()), (0, 5, 2**64 - 1)),
            ([decimal.Decimal("1.0"), decimal.Decimal("3.0"), decimal.Decimal("2.0")], (1.0, 2.0, 3.0)),
            (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b")),
        ],
    )
    def test_labels(self, tmp_path: Path, labels: Any, expected: tuple[Any, ...]) -> None:
        table = columns()
        picks = np.arange(ROWS) % 3
        label = labels.take(pa.array(picks)) if isinstance(labels, pa.Array) else [labels[i] for i in picks]
        data = load(write(tmp_path, table | {"label": label}), features=["a"])
        assert data.preprocessing.labels == expected
        assert [type(v) for v in data.preprocessing.labels] == [type(v) for v in expected]
        # Every training row's class index must point at its own original label.
        original = labels.to_pylist() if isinstance(labels, pa.Array) else labels
        raw_a = np.asarray(table["a"])
        restored = data.train.x[:, 0] * data.preprocessing.scale[0] + data.preprocessing.mean[0]
        rows = np.abs(raw_a[None, :] - restored[:, None]).argmin(axis=1)
        assert [expected[i] for i in data.train.y] == [original[row % 3] for row in rows]

    def test_mixed_numeric_types(self, tmp_path: Path) -> None:
        whole = np.arange(ROWS)
        kinds = {
            "i8": pa.int8(),
            "u64": pa.uint64(),
            "f16": pa.float16(),
            "f32": pa.float32(),
            "d": pa.decimal128(9, 2),
        }
        table = {name: pa.array(whole).cast(pa.float32()).cast(kind) for name, kind in kinds.items()}
        table["coded"] = pa.array(whole).dictionary_encode()
        data = load(write(tmp_path, table | {"label": whole % 2}))
        assert data.preprocessing.features == ("i8", "u64", "f16", "f32", "d", "coded")
        assert all(np.array_equal(data.train.x[:, 0], column) for column in data.train.x.T)

    def test_ten_thousand_features(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).normal(size=(10_000, 20))
        table = {f"f{i}": column for i, column in enumerate(values)}
        data = load(write(tmp_path, table | {"label": np.arange(20) % 2}))
        assert data.inputs == 10_000
        assert all(np.isfinite(data.arrays()[key]).all() for key in data.arrays())

    def test_identical_constant_and_huge_columns(self, tmp_path: Path) -> None:
        huge = np.linspace(-1e300, 1e300, ROWS)
        data = load(write(tmp_path, columns(same=columns()["a"], still=np.ones(ROWS), huge=huge, big=huge / 1e270)))
        assert all(np.isfinite(array).all() for array in data.arrays().values())

    def test_csv_with_a_mark_quoted_na_and_mixed_numbers(self, tmp_path: Path) -> None:
        lines = "".join(f'{i if i < 30 else i + 0.5},"{"NA" if i % 2 else "x"}",true\r\n' for i in range(ROWS))
        (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf" + f"a,label,flag\r\n{lines}".encode())
        data = load(str(tmp_path / "x.csv"))
        assert data.preprocessing.labels == ("NA", "x")
        assert data.preprocessing.features == ("a", "flag")


class TestReadFeatures:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Dataset:
        return load(write(tmp_path, columns()), features=["b", "a"])

    @pytest.mark.parametrize("kind", ["parquet", "csv"])
    def test_picks_columns_by_name(self, tmp_path: Path, data: Dataset, kind: str) -> None:
        table = {"name": ["x"] * ROWS, "a": np.arange(ROWS), "b": np.arange(ROWS) / 4, "other": [None] * ROWS}
        x = read_features(write(tmp_path, table, kind), data.preprocessing)
        assert x.dtype == np.float64
        np.testing.assert_array_equal(x, np.c_[table["b"], table["a"]])

    def test_reads_a_folder(self, tmp_path: Path, data: Dataset) -> None:
        folder = tmp_path / "new"
        folder.mkdir()
        for number in (2, 1):
            pq.write_table(pa.table({"a": [number], "b": [-number]}), folder / f"{number}.parquet")
        assert read_features(folder, data.preprocessing).tolist() == [[-1, 1], [-2, 2]]

    def test_gives_back_the_training_rows(self, tmp_path: Path, data: Dataset) -> None:
        z = data.preprocessing.transform(read_features(tmp_path / "x.parquet", data.preprocessing))
        everything = np.concatenate([getattr(data, name).x for name in ("train", "search", "validation", "test")])
        assert sorted(map(tuple, z.tolist())) == sorted(map(tuple, everything.tolist()))

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"a": [1.0], "B": [1.0]}, "no column 'b': did you mean 'B'"),
            ({"a": [1.0, float("nan")], "b": [1.0, 2.0]}, "column 'a', row 1: nan"),
            ({"a": [1.0, 2.0], "b": [None, 2.0]}, "column 'b', row 0: the value is missing"),
            ({"a": [1.0, 2.0], "b": ["1", "u"]}, r"column 'b' holds text \('u' in row 1\)"),
            ({"a": pa.array([], pa.float64()), "b": pa.array([], pa.float64())}, "holds no rows"),
        ],
    )
    def test_refusals(self, tmp_path: Path, data: Dataset, table: Columns, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_features(write(tmp_path, table), data.preprocessing)

    def test_duplicates_matter_only_where_used(self, tmp_path: Path, data: Dataset) -> None:
        two = [np.arange(3)] * 4
        with pytest.raises(DataError, match="two columns are called 'a'"):
            read_features(write(tmp_path, pa.table(two, names=["a", "b", "a", "c"])), data.preprocessing)
        assert read_features(write(tmp_path, pa.table(two, names=["a", "b", "c", "c"])), data.preprocessing).shape == (
            3,
            2,
        )

    def test_unknown_extension(self, tmp_path: Path, data: Dataset) -> None:
        (tmp_path / "x.txt").write_text("a,b\n1,2\n")
        with pytest.raises(DataError, match=r"unknown extension '\.txt'"):
            read_features(tmp_path / "x.txt", data.preprocessing)
