"""Comparisons without Ray: what is compared, the tables, and a session whose trials run in this process."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import raygrow.comparing
from raygrow.adapters.ray_tune import Job
from raygrow.cli import main
from raygrow.comparing import Compared, compare, rebuild_comparison
from raygrow.comparison.curves import best_by
from raygrow.comparison.placement import misfit
from raygrow.comparison.statistics import statistics
from raygrow.comparison.table import Outcome
from raygrow.comparison_config import load_comparison
from raygrow.config import build_plan
from raygrow.errors import ConfigError, DataError, Refused
from raygrow.population.pool_plan import PoolPlan
from raygrow.population.worker import Worker
from raygrow.process import Interrupted
from raygrow.report.standings import calibration_text, comparison_text
from raygrow.strategies import STRATEGIES

TINY: dict[str, Any] = {
    "comparison": {"name": "tiny", "seeds": [0, 1]},
    "grid": {"strategy": ["periodic", "random"], "initializer": ["tiny", "random"]},
    "data": {
        "teacher": {"kind": "teacher", "inputs": 5, "units": 4, "classes": 3, "rows": 300},
        "diabetes": "diabetes",
    },
    "campaign": {"rounds": 2},
    "training": {"examples_per_round": 64, "final_examples": 64},
    "growth": {"units": [2, 4], "price": 0.0, "statistics_examples": 64},
    "probe": {"examples": 64, "blocks": 2},
}


def changed(base: dict[str, Any] = TINY, **sections: Any) -> dict[str, Any]:
    """A comparison with keys of sections replaced."""
    return {**base, **{k: {**base.get(k, {}), **v} if isinstance(v, dict) else v for k, v in sections.items()}}


# What is compared


def test_arms_are_the_product_of_the_grid_and_differ_in_nothing_else() -> None:
    plan = load_comparison(changed(grid={"training.lr": [0.01, 0.001]}))
    assert [arm.name for arm in plan.arms] == [
        f"{strategy}+{initializer}+lr={lr}"
        for strategy in ("periodic", "random")
        for initializer in ("tiny", "random")
        for lr in ("0.01", "0.001")
    ]
    assert plan.axes == ("strategy", "initializer", "training.lr")
    plans = {arm.name: build_plan(plan.document(next(t for t in plan.trials if t.arm is arm))) for arm in plan.arms}
    for arm in plan.arms:
        (member,) = plans[arm.name].members
        assert (arm.strategy, arm.initializer) == (member.strategy.kind, member.initializer.kind)
        assert member.training.lr == arm.settings["training.lr"]
    one, other = plans["periodic+tiny+lr=0.01"], plans["random+tiny+lr=0.01"]
    # The strategy and nothing else: draws depend on the member's name, orders on its seed.
    assert one.members[0].name == other.members[0].name
    assert {f for f in vars(one) if getattr(one, f) != getattr(other, f)} == {"members"}
    assert {f for f in vars(one.members[0]) if getattr(one.members[0], f) != getattr(other.members[0], f)} == {
        "strategy"
    }


def test_repetitions_share_data_and_seeds_and_trials_follow_one_another() -> None:
    plan = load_comparison(TINY)
    assert [trial.id for trial in plan.trials[:5]] == [
        "periodic+random/diabetes-0", "periodic+tiny/diabetes-0", "random+random/diabetes-0", "random+tiny/diabetes-0",
        "periodic+random/diabetes-1",
    ]  # fmt: skip
    assert len({trial.id for trial in plan.trials}) == 4 * 2 * 2
    for trial in plan.trials:
        document = plan.document(trial)
        assert document["campaign"]["seed"] == trial.seed
        assert document["data"] == plan.data[trial.data]


def test_what_is_not_said_is_made_for_comparisons() -> None:
    plan = build_plan(
        load_comparison({"data": {"digits": "digits"}}).trials[0].arm.document | {"data": {"kind": "digits"}}
    )
    assert plan.selection.kind == "independent"
    assert plan.pool.kind == "serial"
    assert not plan.tracking.enabled
    assert [arm.name for arm in load_comparison({"data": {"digits": "digits"}}).arms] == ["mdl", "significance", "rl"]


def test_a_limit_of_training_flops_is_the_budget_of_every_trial() -> None:
    plan = load_comparison(changed(comparison={"train_flops": 1e6}))
    assert {plan.document(trial)["budget"]["max_train_flops"] for trial in plan.trials} == {1e6}
    with pytest.raises(ConfigError, match="two words for one limit"):
        load_comparison(changed(comparison={"train_flops": 1e6}, budget={"max_train_flops": 2e6}))


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        changed(grid={"growth.units": [[2], [2, 4]], "training.augment.flip": [False]}, comparison={"stop": "asha"}),
        changed(grid={"strategy": [{"kind": cls.kind} for cls in STRATEGIES]}, comparison={"train_flops": 1e7}),
    ],
    ids=["plain", "keys", "strategies"],
)
def test_what_is_resolved_reads_back_as_the_same(config: dict[str, Any]) -> None:
    plan = load_comparison(config)
    again = load_comparison(yaml.safe_load(yaml.safe_dump(plan.resolved)))
    assert again == plan


def test_arms_of_one_kind_are_told_apart_by_what_differs() -> None:
    strategies = [{"kind": "periodic", "units": 4}, {"kind": "periodic", "units": 8, "every": 2}, "mdl"]
    plan = load_comparison(changed(grid={"strategy": strategies, "initializer": ["tiny"]}))
    assert [arm.name for arm in plan.arms] == ["periodic-every=1-units=4", "periodic-every=2-units=8", "mdl"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(grid={"strategy": ["mdll"]}), r"`grid.strategy.0.kind`: unknown kind 'mdll' \(did you mean `mdl`\?\)"),
        (changed(grid={"initializer": [{"kind": "tiny", "rigde": 1}]}), "unknown key `grid.initializer.0.rigde`"),
        (changed(grid={"trainng.lr": [0.1]}), r"arm 'periodic\+tiny': unknown key `trainng` \(did you mean `training`"),
        (changed(grid={"training.lrr": [1, 2]}), r"arm '.*lrr=1': unknown key `training.lrr` \(did you mean `lr`\?\)"),
        (changed(grid={"training.lr": [0.1, -1]}), r"arm '.*lr=-1': `training`: `lr > 0` must hold, but got -1"),
        (changed(grid={"training.lr": [0.1, 0.1]}), "`grid.training.lr` must name each value once"),
        (changed(grid={"strategy": []}), "`grid.strategy` must be a list of at least one value"),
        (changed(grid={"strategy": "mdl"}), "`grid.strategy` must be a list"),
        (changed(grid={"campaign.seed": [1, 2]}), "`grid.campaign.seed`: all arms see the same"),
        (changed(grid={"data.rows": [10]}), "`grid.data.rows`: all arms see the same"),
        (changed(grid={"initializer": ["splitting"]}), r"arm 'periodic': `members.0.initializer`: splitting cannot begin"),
        (changed(campaign={"seed": 3}), "`campaign.seed`: of all campaigns of a comparison it follows from `comparison.seeds`"),
        (changed(comparison={"sedes": [1]}), r"unknown key `comparison.sedes` \(did you mean `seeds`\?\)"),
        (changed(comparison={"seeds": [1, 1]}), "`seeds` must name at least one, each once"),
        (changed(comparison={"seeds": []}), "`seeds` must name at least one"),
        (changed(comparison={"cpus_per_trial": 0}), "`cpus_per_trial > 0` must hold"),
        (changed(comparison={"stop": {"kind": "asha", "grace": 1}}), "unknown key `comparison.stop.grace`"),
        (changed(comparison={"stop": {"reduction": 1}}), "`reduction >= 2` must hold"),
        (changed(comparison={"name": "a/b"}), "`name` takes letters"),
        (changed(comparison={"reference": "periodic"}), r"no arm 'periodic' \(did you mean `periodic\+tiny`"),
        ({**TINY, "data": {}}, "`data` must name at least one data set"),
        ({**TINY, "data": {"kind": "digits"}}, r"write `data: \{digits: \{kind: digits\}\}`"),
        ({**TINY, "data": {"x/y": "digits"}}, "names take letters"),
        ({**TINY, "data": {"x": {"kind": "digitz"}}}, r"`data.x.kind`: unknown kind 'digitz' \(did you mean `digits`"),
        ({**TINY, "members": []}, "unknown key `members`"),
        ({**TINY, "baselines": ["fixd"]}, "`baselines.0.kind`: unknown kind 'fixd'"),
        ({**TINY, "baselines": {}}, "`baselines` must be a list"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_comparison(config)


# The parts


def test_a_trial_fits_where_each_of_its_bundles_is_whole_on_a_node() -> None:
    trial = ({"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 2.0})
    assert misfit(trial, [{"CPU": 4.0}, {"CPU": 1.0, "memory": 9.0}]) is None
    assert misfit(trial, [{"CPU": 5.0}]) is None
    # Five CPUs, but no two nodes that hold two each.
    assert misfit(trial, [{"CPU": 3.0}, {"CPU": 1.0}, {"CPU": 1.0}]) == (
        "it needs 1 CPU, 2 times 2 CPUs, but the cluster has 3 CPUs, 2 times 1 CPU"
    )
    assert misfit(({"CPU": 0.5, "GPU": 1.0},), [{"CPU": 8.0}]) == (
        "it needs 0.5 CPUs with 1 GPU, but the cluster has 8 CPUs"
    )
    assert misfit(({"CPU": 0.5, "GPU": 0.5},), [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}]) is None
    assert misfit(({"CPU": 1.0},), []) == "it needs 1 CPU, but the cluster has no node"


def test_the_best_network_by_a_bill_is_not_one_that_came_later() -> None:
    history = [
        {"train_flops": 10, "validation_loss": 2.0},
        {"train_flops": 20, "validation_loss": 1.0},
        {"train_flops": 30, "validation_loss": None},
        {"train_flops": 40, "validation_loss": 1.5},
        {"train_flops": 50, "validation_loss": 0.5},
    ]
    assert best_by(history, 9) is None
    assert best_by(history, 19) is history[0]
    assert best_by(history, 49) is history[1]
    assert best_by(history, 50) is history[4]


def test_trials_that_may_be_stopped_are_not_handed_out_together() -> None:
    with pytest.raises(ConfigError, match=r"`together` must be 1 where `stop` ends trials early, but got 2"):
        load_comparison(changed(comparison={"together": 2, "stop": "asha"}))


# Sessions


class Runner:
    """Runs trials in this process, in the order they are given, as ``run_trials`` does on Ray.

    Args:
        stop_after: trials after whose end the process is told to stop.
        cut: the trial that is cut off after its first round, at the end of the session.
        hopeless: trials that the scheduler would stop after their first round.
        broken: the trial whose training raises.
    """

    def __init__(
        self,
        stop_after: int | None = None,
        cut: str | None = None,
        hopeless: Sequence[str] = (),
        broken: str | None = None,
    ) -> None:
        self.stop_after, self.cut, self.hopeless, self.broken = stop_after, cut, hopeless, broken
        self.ran: list[str] = []
        self.told: dict[str, list[tuple[int, float | None]]] = {}

        self.shared_out: list[list[str]] = []

    def __call__(
        self,
        jobs: Sequence[Job],
        work: Callable[[Any, Callable[[int, float | None], None]], Outcome],
        storage: Path,
        concurrent: int | None,
        stop: Any,
        rounds: int,
        began: Callable[[str], None],
        ended: Callable[[str, Outcome], None],
    ) -> None:
        self.shared_out = [list(job.contents) for job in jobs]
        for name, content in ((name, content) for job in jobs for name, content in job.contents.items()):

            def report(round_: int, loss: float | None, name: str = name) -> None:
                self.told.setdefault(name, []).append((round_, loss))
                if name in self.hopeless or name == self.cut:
                    raise SystemExit

            began(name)
            try:
                with pytest.MonkeyPatch.context() as patch:
                    if name == self.broken:
                        patch.setattr(Worker, "run", bug)
                    outcome = work(content, report)
            except SystemExit:
                if name == self.cut:
                    raise Interrupted("SIGTERM") from None
                outcome = Outcome("stopped", "hopeless")
            ended(name, outcome)
            self.ran.append(name)
            if len(self.ran) == self.stop_after:
                raise Interrupted("SIGTERM")


def bug(*arguments: Any) -> None:
    raise ValueError("a bug\nof two lines")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runner]:
    """Makes sessions use a runner of this process, on a cluster of one node of two CPUs."""

    @contextmanager
    def no_ray(pool: PoolPlan, members: int, address: str | None) -> Iterator[None]:
        yield

    def use(runner: Runner | None = None) -> Runner:
        runner = runner or Runner()
        monkeypatch.setattr(raygrow.comparing, "run_trials", runner)
        monkeypatch.setattr(raygrow.comparing, "ahead", no_ray)
        monkeypatch.setattr(raygrow.comparing, "connect", lambda *where: lambda: None)
        monkeypatch.setattr(raygrow.comparing, "nodes", lambda: [{"CPU": 2.0}])
        return runner

    return use


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A comparison that ran from beginning to end."""
    with pytest.MonkeyPatch.context() as patch:
        runs.__wrapped__(patch)()  # type: ignore[attr-defined]
        return compare(TINY, out=tmp_path_factory.mktemp("whole") / "c", quiet=True)


TIMES = ("wall_seconds",)


def without_times(table: pa.Table) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in table.to_pylist()]


def test_the_tables_follow_from_what_the_trials_left(whole: Compared) -> None:
    """Recomputed with pandas from summary.json and moves.parquet alone."""
    rows, steps = [], []
    for path in sorted(whole.folder.glob("trials/*/*/summary.json")):
        arm, (data, _, seed) = path.parts[-3], path.parts[-2].rpartition("-")
        summary = json.loads(path.read_text())
        best = summary["best"]
        metric = {"classification": "accuracy", "regression": "r2"}[summary["task"]]
        moves = pd.read_parquet(path.parent / "moves.parquet")
        assert set(moves["strategy"]) <= {best["strategy"]}
        rows.append(
            {
                "data": data, "seed": int(seed), "arm": arm, "test_score": best[f"test_{metric}"],
                "test_loss": best["test_loss"], "validation_loss": best["validation_loss"],
                "train_flops": summary["train_flops"], "flops_per_example": best["flops_per_example"],
                "moves_probed": len(moves), "moves_accepted": int(moves["adopted"].sum()),
            }
        )  # fmt: skip
        history = pd.DataFrame(best["history"]).rename(columns={f"validation_{metric}": "validation_score"})
        steps.append(history.assign(data=data, seed=int(seed), arm=arm, step=range(len(history))))
    expected = pd.DataFrame(rows).sort_values(["data", "seed", "arm"], ignore_index=True)
    assert expected["moves_probed"].sum() > 0 < expected["moves_accepted"].sum()
    expected["equal_train_flops"] = expected.groupby(["data", "seed"])["train_flops"].transform("min")
    curves = pd.concat(steps).merge(expected[["data", "seed", "arm", "equal_train_flops"]])
    there = curves[curves["train_flops"] <= curves["equal_train_flops"]].reset_index(drop=True)
    chosen = there.loc[there.groupby(["data", "seed", "arm"])["validation_loss"].idxmin()]
    chosen = chosen.rename(
        columns={"validation_score": "equal_validation_score", "validation_loss": "equal_validation_loss"}
    )
    expected = expected.merge(chosen[["data", "seed", "arm", "equal_validation_score", "equal_validation_loss"]])

    table = pd.read_parquet(whole.folder / "trials.parquet")
    assert len(table) == len(expected) == 16
    assert set(table["status"]) == {"done"}
    pd.testing.assert_frame_equal(table[expected.columns], expected, check_dtype=False)
    # Somebody spent least, and not all spent the same.
    assert (table["train_flops"] >= table["equal_train_flops"]).all()
    assert table["train_flops"].nunique() > 1
    drawn = pd.read_parquet(whole.folder / "curves.parquet")
    again = curves.sort_values(["data", "seed", "arm", "step"], ignore_index=True)
    pd.testing.assert_frame_equal(drawn, again[drawn.columns], check_dtype=False)

    # The printed table.
    text = comparison_text(whole.plan, whole.trials)
    for (data, arm), group in expected.groupby(["data", "arm"]):
        (line,) = [line for line in text.splitlines() if line.split()[:3] == [data, arm, "2/2"]]
        for name in ("test_score", "equal_validation_score"):
            assert f"{group[name].mean():.4f} +- {group[name].std():.4f}" in line
        assert f"{group['flops_per_example'].mean():,.0f} +- {group['flops_per_example'].std():,.0f}" in line


def test_trials_handed_out_together_come_to_the_same(
    whole: Compared, runs: Callable[..., Runner], tmp_path: Path
) -> None:
    runner = runs(Runner(stop_after=4))
    config = changed(comparison={"together": 3})
    with pytest.raises(Interrupted):
        compare(config, out=tmp_path / "c", quiet=True)
    assert [len(names) for names in runner.shared_out] == [3, 3, 3, 3, 3, 1]
    goes_on = runs(Runner())
    found = compare(config, out=tmp_path / "c", quiet=True)
    assert [len(names) for names in goes_on.shared_out] == [3, 3, 3, 3]
    assert runner.ran + goes_on.ran == [trial.id for trial in whole.plan.trials]
    assert without_times(found.trials) == without_times(whole.trials)


def test_planted_data_show_how_often_arms_accept(runs: Callable[..., Runner], tmp_path: Path) -> None:
    runs()
    planted = {
        "kind": "planted",
        "linear": 0.0,
        "rows": 300,
        "inputs": 5,
        "directions": 2,
        "fractions": [0.5, 0.3, 0.2],
    }
    config = changed(
        grid={"strategy": ["blind", "random"], "initializer": ["random"]},
    )
    config["data"] = {"noise": {**planted, "effect": 0.0}, "gap": {**planted, "effect": 8.0}}
    found = compare(config, out=tmp_path / "c", quiet=True)
    assert found.calibration is not None
    rows = found.calibration.to_pylist()
    assert pq.read_table(tmp_path / "c" / "calibration.parquet").to_pylist() == rows
    assert {(row["data"], row["arm"], row["looks"]) for row in rows} == {
        (data, arm, looks) for data in ("noise", "gap") for arm in ("blind", "random") for looks in (1, 2)
    }
    for row in rows:
        campaigns = [pd.read_parquet(tmp_path / "c" / "trials" / row["arm"] / f"{row['data']}-{seed}" / "moves.parquet")
                     for seed in (0, 1)]  # fmt: skip
        accepted = [((moves["verdict"] == "accept") & (moves["round"] <= row["looks"])).any() for moves in campaigns]
        assert (row["campaigns"], row["accepted"]) == (2, sum(accepted))
        assert (row["guarantee"] is None) == (row["data"] == "gap" or row["arm"] == "random")
    words = calibration_text(found.calibration)
    assert "blind: level 0.05" in words
    assert "no guarantee: random" in words
    assert rebuild_comparison(tmp_path / "c").calibration == found.calibration


def test_other_data_calibrate_nothing(whole: Compared) -> None:
    assert whole.calibration is None
    assert not (whole.folder / "calibration.parquet").exists()


def test_statistics_and_the_page_are_left_too(whole: Compared) -> None:
    found = json.loads((whole.folder / "comparison.json").read_text())
    assert found == json.loads(
        json.dumps(statistics(whole.trials, pq.read_table(whole.folder / "curves.parquet"), None))
    )
    assert found["reference"] in found["arms"] == [*dict.fromkeys(row["arm"] for row in whole.trials.to_pylist())]
    page = (whole.folder / "report.html").read_text()
    assert all(arm in page for arm in found["arms"])
    assert list((whole.folder / "figures").glob("*.svg"))
    before = {path: path.read_bytes() for path in (whole.folder / "report.html", whole.folder / "trials.parquet")}
    said = CliRunner().invoke(main, ["report", str(whole.folder)])
    assert (said.exit_code, said.stdout) == (0, f"report: {whole.folder / 'report.html'}\n")
    assert {path: path.read_bytes() for path in before} == before


def test_baselines_are_arms_of_the_same_table(runs: Callable[..., Runner], tmp_path: Path) -> None:
    baselines = [{"kind": "fixed", "hidden": [4], "examples": 64}, {"kind": "fixed", "hidden": [8], "examples": 64}]
    config = {**changed(comparison={"seeds": [3]}, grid={"strategy": ["periodic"], "initializer": ["tiny"]})}
    runner = runs()
    compared = compare({**config, "baselines": baselines}, out=tmp_path / "c", quiet=True)
    table = compared.trials.to_pandas().set_index(["arm", "data"])
    assert set(table["status"]) == {"done"}
    assert table["baseline"].to_dict() == {key: key[0].startswith("fixed") for key in table.index}
    for arm, hidden in (("fixed-hidden=4", 4), ("fixed-hidden=8", 8)):
        row = table.loc[(arm, "diabetes")]
        assert (row["strategy"], json.loads(row["settings"])["hidden"]) == ("fixed", [hidden])
        assert pd.isna(row["initializer"])
        assert row["flops_per_example"] == 2 * (10 * hidden + hidden)
        summary = json.loads((tmp_path / "c" / row["folder"] / "summary.json").read_text())
        assert row["test_score"] == summary["best"]["test_r2"]
        # Six tenths of 442 rows are train; a backward pass but for the first layer's inputs.
        assert row["train_flops"] > 64 * 2 * (10 * hidden + hidden)
    assert len(runner.ran) == 6
    # The same repetition again gives the same.
    again = compare({**config, "baselines": baselines}, out=tmp_path / "d", quiet=True)
    assert without_times(again.trials) == without_times(compared.trials)


def test_two_axes_are_printed_as_a_square(whole: Compared) -> None:
    lines = comparison_text(whole.plan, whole.trials).splitlines()
    table = pd.read_parquet(whole.folder / "trials.parquet")
    for data in ("teacher", "diabetes"):
        at = lines.index(f"{data}, test score: strategy by initializer")
        assert lines[at + 1].split() == ["tiny", "random"]
        for i, strategy in enumerate(("periodic", "random"), start=2):
            arms = [
                table[(table["data"] == data) & (table["arm"] == f"{strategy}+{begin}")] for begin in ("tiny", "random")
            ]
            scores = [(arm["test_score"].mean(), arm["test_score"].std()) for arm in arms]
            assert lines[at + i].split() == [
                strategy,
                *" ".join(f"{m:.4f} +- {s:.4f}" for m, s in scores).split(),
            ]


def test_all_arms_of_a_repetition_begin_alike(whole: Compared) -> None:
    started: dict[tuple[str, str], set[str]] = {}
    for path in whole.folder.glob("trials/*/*/events.jsonl"):
        first = json.loads(path.read_text().splitlines()[0])
        data, _, seed = path.parent.name.rpartition("-")
        started.setdefault((data, seed), set()).add(first["data"]["digest"])
        assert first["config"]["campaign"]["seed"] == int(seed)
    assert len(started) == 4
    assert all(len(digests) == 1 for digests in started.values())
    starts = pd.read_parquet(whole.folder / "curves.parquet").query("step == 0")
    assert (starts.groupby(["data", "seed"])["validation_loss"].nunique() == 1).all()


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of writing of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_comparison_that_was_cut_off_goes_on_and_repeats_nothing(
    whole: Compared, runs: Callable[..., Runner], tmp_path: Path
) -> None:
    root = tmp_path / "c"
    ids = [trial.id for trial in whole.plan.trials]
    first = runs(Runner(stop_after=3))
    with pytest.raises(Interrupted):
        compare(TINY, out=root, quiet=True)
    # Then one is cut off in its middle.
    second = runs(Runner(cut=ids[5]))
    with pytest.raises(Interrupted):
        compare(TINY, out=root, quiet=True)
    assert [*first.ran, *second.ran] == ids[:5]
    cut = json.loads((root / "trials" / ids[5] / "summary.json").read_text())
    assert cut["interrupted"]
    status = pd.read_parquet(root / "trials.parquet")["status"].tolist()
    assert status == ["done"] * 5 + ["open"] * 11
    before = {name: digests(root / "trials" / name) for name in ids[:5]}
    reported = (root / "trials" / ids[5] / "events.jsonl").read_text().splitlines()

    last = runs(Runner())
    compared = compare(TINY, out=root, quiet=True)
    assert last.ran == ids[5:]
    assert {name: digests(root / "trials" / name) for name in ids[:5]} == before
    # What the trial had done was not done again.
    assert (root / "trials" / ids[5] / "events.jsonl").read_text().splitlines()[: len(reported)] == reported
    assert without_times(compared.trials) == without_times(whole.trials)
    assert pq.read_table(root / "curves.parquet").equals(pq.read_table(whole.folder / "curves.parquet"))
    # And once more: nothing is left to do.
    nothing = runs(Runner())
    untouched = digests(root / "trials")
    assert without_times(compare(TINY, out=root, quiet=True).trials) == without_times(whole.trials)
    assert nothing.ran == []
    assert digests(root / "trials") == untouched


def test_the_folder_of_another_comparison_is_refused(runs: Callable[..., Runner], tmp_path: Path) -> None:
    runs(Runner(stop_after=1))
    with pytest.raises(Interrupted):
        compare(TINY, out=tmp_path / "c", quiet=True)
    before = digests(tmp_path)
    with pytest.raises(Refused, match="holds a comparison with another `training`; take another folder"):
        compare(changed(training={"lr": 0.5}), out=tmp_path / "c", quiet=True)
    with pytest.raises(Refused, match="another `comparison`, `grid`"):
        compare(changed(comparison={"seeds": [0]}, grid={"strategy": ["mdl"]}), out=tmp_path / "c", quiet=True)
    assert digests(tmp_path) == before
    # No figure depends on these.
    more = runs(Runner(stop_after=1))
    with pytest.raises(Interrupted):
        compare(changed(comparison={"concurrent": 1, "cpus_per_trial": 0.5}), out=tmp_path / "c", quiet=True)
    assert len(more.ran) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(Refused, match="it holds other files"):
        compare(TINY, out=tmp_path / "mine", quiet=True)


def test_what_comes_to_no_end_is_named_and_the_rest_is_done(runs: Callable[..., Runner], tmp_path: Path) -> None:
    """A data set that is missing, a trial that raises, one that no cluster of this size can hold."""
    config = changed(
        comparison={"seeds": [0]},
        grid={"strategy": ["periodic"], "initializer": ["tiny"], "pool.kind": ["serial", "ray"],
              "training.lr": [0.01, 0.02]},
        data={"absent": {"kind": "parquet", "path": str(tmp_path / "absent.parquet"), "label": "y"}},
        pool={"cpus_per_actor": 2},
    )  # fmt: skip
    serial, ray, bug = "kind=serial+lr=0.01", "kind=ray+lr=0.01", "kind=serial+lr=0.02"
    runs(Runner(broken=f"{bug}/diabetes-0"))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = CliRunner().invoke(main, ["compare", str(path), "--out", str(tmp_path / "c")])
    assert done.exit_code == 3, done.output
    table = pd.read_parquet(tmp_path / "c" / "trials.parquet").set_index(["data", "arm"])
    assert set(table.loc["absent"]["status"]) == {"missing"}
    assert "absent.parquet" in table.loc[("absent", serial), "reason"]
    assert table.loc[("teacher", serial), "status"] == table.loc[("diabetes", serial), "status"] == "done"
    assert table.loc[("teacher", ray), "status"] == "unplaced"
    assert "it needs 1 CPU, 2 CPUs, but the cluster has 2 CPUs; lower" in table.loc[("teacher", ray), "reason"]
    assert table.loc[("diabetes", bug), "status"] == "failed"
    assert "ValueError: a bug" in table.loc[("diabetes", bug), "reason"]
    assert "two lines" not in table.loc[("diabetes", bug), "reason"]
    # On both streams, so that neither a person nor a script takes it for done.
    assert "9 of 12 trials came to no end: missing" in done.stderr
    assert "1 unplaced" in done.stdout and "1 failed" in done.stdout and "1 missing" in done.stdout
    assert table.loc[("teacher", serial), "equal_train_flops"] > 0

    # Mended, the same command runs what is left, and only that.
    runner = runs()
    again = CliRunner().invoke(main, ["compare", str(path), "--out", str(tmp_path / "c")])
    assert again.exit_code == 3
    assert runner.ran == [f"{bug}/diabetes-0"]
    status = pd.read_parquet(tmp_path / "c" / "trials.parquet").set_index(["data", "arm"])["status"]
    assert status[("diabetes", bug)] == "done"


def test_without_ray_no_option_is_named_that_is_not_there(
    runs: Callable[..., Runner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs()

    def no_room(pool: PoolPlan, members: int, address: str | None, cure: str) -> Any:
        raise Refused(f"no room; {cure}")

    monkeypatch.setattr(raygrow.comparing, "connect", no_room)
    with pytest.raises(Refused) as refused:
        compare(TINY, out=tmp_path / "c", quiet=True)
    options = {option for parameter in main.commands["compare"].params for option in parameter.opts}
    assert set(re.findall(r"--\w+", str(refused.value))) == {"--address"} <= options
    assert not (tmp_path / "c").exists()


def test_without_any_data_nothing_is_begun(runs: Callable[..., Runner], tmp_path: Path) -> None:
    runs()
    absent = {"kind": "parquet", "path": str(tmp_path / "absent.parquet"), "label": "y"}
    with pytest.raises(DataError, match=r"absent\.parquet"):
        compare({**TINY, "data": {"absent": absent}}, out=tmp_path / "c", quiet=True)
    assert not (tmp_path / "c").exists()


def test_an_arm_that_cannot_read_a_data_set_is_refused_before_any_work(
    runs: Callable[..., Runner], tmp_path: Path
) -> None:
    runs()
    with pytest.raises(Refused, match=r"arm 'family=vgg' on 'diabetes': .*'vgg' reads images"):
        compare(
            changed(grid={"strategy": ["periodic"], "initializer": ["tiny"], "network.family": ["dag", "vgg"]}),
            out=tmp_path / "c",
            quiet=True,
        )
    assert not (tmp_path / "c").exists()


def test_hopeless_trials_leave_a_readable_folder_and_are_not_begun_again(
    runs: Callable[..., Runner], tmp_path: Path
) -> None:
    config = changed(comparison={"seeds": [0], "stop": {"kind": "asha", "grace_rounds": 1}}, data={})
    config["data"] = {"teacher": TINY["data"]["teacher"]}
    ids = [trial.id for trial in load_comparison(config).trials]
    runner = runs(Runner(hopeless=ids[1:2], stop_after=3))
    with pytest.raises(Interrupted):
        compare(config, out=tmp_path / "c", quiet=True)
    assert runner.ran == ids[:3]
    again = runs(Runner())
    compared = compare(config, out=tmp_path / "c", quiet=True)
    # Those that are over tell the halving what they had reported, and no work is done for them.
    assert again.ran == ids
    for name in ids[:3]:
        assert again.told[name] == runner.told[name]
    table = compared.trials.to_pandas().set_index("arm")
    assert table["status"].tolist() == ["done", "stopped", "done", "done"]
    stopped = table.loc[ids[1].split("/")[0]]
    assert stopped["validation_loss"] > 0 and pd.isna(stopped["test_score"])
    assert not compared.trouble
    # It reads like any campaign, and could be taken up by hand.
    folder = tmp_path / "c" / "trials" / ids[1]
    assert CliRunner().invoke(main, ["lineage", str(folder)]).exit_code == 0
    assert rebuild_comparison(tmp_path / "c").trials.equals(compared.trials)
