"""Tables, texts and the page of a campaign, against the contract and against the checkpoints they speak of."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from raygrow.config import load_plan, resolved
from raygrow.data import Dataset, prepare
from raygrow.errors import Refused
from raygrow.population.campaign import run_campaign
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.ledger import finite
from raygrow.population.lineage import LineageNode, lineage
from raygrow.population.plan import Facts, Plan
from raygrow.population.serial_pool import SerialPool
from raygrow.population.worker import Worker
from raygrow.report import (
    lineage_dot,
    lineage_json,
    lineage_svg,
    lineage_text,
    moves_table,
    page,
    summary,
    summary_text,
    write_moves,
    write_page,
    write_summary,
)
from raygrow.report.figures import decimal, duration, flops, scaled
from raygrow.report.record import read
from raygrow.report.scales import LOG, ROOT, scale_over
from raygrow.strategies.features import FEATURES
from tests.core.checked_pages import Checker, check_page

Events = list[dict[str, Any]]

COLUMNS = [
    "campaign", "round", "member", "strategy", "initializer", "parent_arch", "arch", "move", "site", "units",
    "predicted_gain", "gain", "gain_stderr", "added_flops", "gain_per_flop", "probe_train_flops", "control_loss",
    "candidate_loss", "verdict", "statistic", "threshold", "reason", "granted", "adopted", "control_checkpoint",
    "candidate_checkpoint", "seed", "seconds", "features", "measurements",
    "newborn_gradient_ratio",
]  # fmt: skip
SUMMARY = [
    "campaign",
    "seed",
    "task",
    "rounds",
    "wall_seconds",
    "train_flops",
    "interrupted",
    "stopped_because",
    "best",
    "members",
]
HISTORY = ["round", "arch_id", "checkpoint", "flops_per_example", "train_flops", "validation_loss"]


def member_keys(metric: str) -> list[str]:
    return [
        "member", "strategy", "initializer", "arch_id", "validation_loss", f"validation_{metric}", "test_loss",
        f"test_{metric}", "checkpoint", "params", "flops_per_example", "train_flops", "moves_accepted", "moves_probed",
        "stopped_because", "history",
    ]  # fmt: skip


@dataclass
class Grown:
    """A campaign that was run, with what it was run on."""

    plan: Plan
    facts: Facts
    dataset: Dataset
    folder: CampaignFolder
    events: Events

    def coordinator(self, events: Events | None = None) -> Coordinator:
        return Coordinator.replay(self.plan, self.facts, self.events if events is None else events)


def grow(
    root: Path, data: dict[str, Any], keep: str = "all", rounds: int = 3, units: tuple[int, ...] = (2, 8)
) -> Grown:
    plan = load_plan(
        {
            "campaign": {"name": "tiny", "rounds": rounds},
            "data": data,
            "members": [{"name": kind, "strategy": {"kind": kind}} for kind in ("rl", "mdl", "periodic")],
            "training": {"examples_per_round": 1000, "final_examples": 1000},
            "probe": {"examples": 500, "blocks": 4},
            "growth": {"units": list(units), "statistics_examples": 512},
            "checkpoints": {"keep": keep},
        }
    )
    dataset = prepare(plan.data, plan.campaign.seed)
    facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())
    folder = CampaignFolder(root)
    root.mkdir(parents=True)
    started = {
        "type": "started",
        "campaign_id": "0123456789abcdef",
        "config": resolved(plan),
        "facts": asdict(facts),
        "data": {
            "name": data["kind"],
            "digest": "d1",
            "rows": {"train": facts.train_rows},
            "used": ["a"],
            "dropped": [],
        },
        "versions": {"python": "3", "torch": torch.__version__},
        "machine": {"cpus": 1},
    }
    folder.ledger.append(started)
    pool = SerialPool(Worker(plan, facts, dataset, folder.store))
    run_campaign(Coordinator(plan, facts), folder.ledger, folder.store, pool)
    folder.ledger.append({"type": "ended"})
    return Grown(plan, facts, dataset, folder, folder.ledger.read())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return grow(tmp_path_factory.mktemp("digits") / "run", {"kind": "digits"})


@pytest.fixture(scope="module")
def lorenz(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return grow(tmp_path_factory.mktemp("lorenz") / "run", {"kind": "lorenz96", "rows": 1500}, keep="heads")


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A campaign without a round, so without a move."""
    return grow(tmp_path_factory.mktemp("still") / "run", {"kind": "diabetes"}, rounds=0)


@pytest.fixture(params=["digits", "lorenz"])
def grown(request: pytest.FixtureRequest) -> Grown:
    found: Grown = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["digits", "lorenz", "still"])
def any_grown(request: pytest.FixtureRequest) -> Grown:
    found: Grown = request.getfixturevalue(request.param)
    return found


def test_the_campaigns_of_these_tests_adopt_some_moves_and_reject_others(digits: Grown, lorenz: Grown) -> None:
    # What follows would prove little otherwise.
    rows = [row for run in (digits, lorenz) for row in moves_table(run.events).to_pylist()]
    assert any(row["adopted"] for row in rows)
    assert any(row["verdict"] == "reject" for row in rows)
    assert any(row["verdict"] == "accept" and not row["granted"] for row in rows)
    assert all(any(row["adopted"] for row in moves_table(run.events).to_pylist()) for run in (digits, lorenz))


# moves.parquet


def test_the_moves_have_the_contracts_columns_in_its_order_and_plain_types(any_grown: Grown) -> None:
    table = moves_table(any_grown.events)
    assert table.column_names == COLUMNS
    types = {field.name: field.type for field in table.schema}
    for name in ("granted", "adopted"):
        assert types[name] == pa.bool_()
    for name in ("round", "units", "added_flops", "probe_train_flops", "seed"):
        assert pa.types.is_integer(types[name])
    for name in ("gain", "gain_per_flop", "statistic", "seconds", "control_loss"):
        assert types[name] == pa.float64()
    assert types["features"] == pa.list_(pa.float64())
    assert json.loads(table.schema.metadata[b"features"]) == list(FEATURES)


def test_every_probed_candidate_is_one_row_sorted_by_round_member_and_candidate(grown: Grown) -> None:
    rows = moves_table(grown.events).to_pylist()
    reported = [
        (event["task"]["round"], event["task"]["member"], row["id"], row["arch_id"])
        for event in grown.events
        if event["type"] == "reported" and event["task"]["phase"] == "round"
        for row in event["report"]["candidates"]
    ]
    assert [row["arch"] for row in rows] == [arch for _, _, _, arch in sorted(reported)]
    assert [(row["round"], row["member"]) for row in rows] == [found[:2] for found in sorted(reported)]
    granted = [id for event in grown.events if event["type"] == "decided" for id in event["granted"]]
    adopted = {node.arch_id for node in lineage(grown.events) if node.move is not None}
    assert sum(row["granted"] for row in rows) == len(granted)
    assert {row["arch"] for row in rows if row["adopted"]} == adopted
    assert all(len(row["features"]) == len(FEATURES) and row["features"][0] == 1.0 for row in rows)
    kinds = {member.name: member for member in grown.plan.members}
    assert all(row["strategy"] == row["member"] and row["initializer"] == "tiny" for row in rows)
    assert {row["member"] for row in rows} <= set(kinds)


def per_example(grown: Grown, digest: str) -> np.ndarray[Any, Any]:
    """Validation losses by plain torch."""
    network = grown.folder.store.load(digest).network
    split = grown.dataset.validation
    with torch.no_grad():
        output, y = network(torch.tensor(split.x)), torch.tensor(split.y)
        if grown.facts.task == "classification":
            losses = F.cross_entropy(output, y, reduction="none")
        else:
            losses = ((output - y) ** 2).mean(dim=1)
    return losses.double().numpy()


def counted(grown: Grown, digest: str) -> int:
    """Forward FLOPs of one example by torch's own counter."""
    network = grown.folder.store.load(digest).network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.tensor(grown.dataset.validation.x[:1]))
    return int(counter.get_total_flops())


def test_gains_losses_and_prices_are_those_of_the_checkpoints_they_name(digits: Grown) -> None:
    rows = moves_table(digits.events).to_pylist()
    assert rows
    for row in rows:
        control = per_example(digits, row["control_checkpoint"])
        candidate = per_example(digits, row["candidate_checkpoint"])
        paired = control - candidate
        assert row["control_loss"] == pytest.approx(control.mean(), abs=1e-5)
        assert row["candidate_loss"] == pytest.approx(candidate.mean(), abs=1e-5)
        assert row["gain"] == pytest.approx(paired.mean(), abs=1e-5)
        assert row["gain"] == pytest.approx(row["control_loss"] - row["candidate_loss"], abs=1e-6)
        assert row["gain_stderr"] == pytest.approx(paired.std(ddof=1) / math.sqrt(len(paired)), rel=1e-3)
        added = counted(digits, row["candidate_checkpoint"]) - counted(digits, row["control_checkpoint"])
        assert row["added_flops"] == added
        assert row["gain_per_flop"] == pytest.approx(row["gain"] / added, rel=1e-12)


def test_a_regressions_adopted_gains_are_those_of_the_heads(lorenz: Grown) -> None:
    adopted = [row for row in moves_table(lorenz.events).to_pylist() if row["adopted"]]
    assert adopted
    for row in adopted:
        losses = per_example(lorenz, row["candidate_checkpoint"])
        assert row["candidate_loss"] == pytest.approx(losses.mean(), abs=1e-5)
        # The control of a granted member is not its head, so it is gone.
        assert row["control_checkpoint"] is None


def test_a_checkpoint_is_named_exactly_when_it_stays(grown: Grown) -> None:
    table = moves_table(grown.events)
    for name in ("control_checkpoint", "candidate_checkpoint"):
        assert all(digest is None or grown.folder.store.has(digest) for digest in table[name].to_pylist())
    # At every moment the sweep, which asks the coordinator, keeps the same ones.
    for cut in range(1, len(grown.events) + 1):
        assert read(grown.events[:cut]).kept == grown.coordinator(grown.events[:cut]).referenced()


def test_what_is_undefined_is_null(digits: Grown) -> None:
    events = copy.deepcopy(digits.events)
    granted = {id for event in events if event["type"] == "decided" for id in event["granted"]}
    reports = [event["report"] for event in events if "candidates" in event.get("report", {})]
    # What was granted has figures; only other candidates may lack them.
    rows = [row for report in reports for row in report["candidates"] if row["id"] not in granted]
    rows[0].update(gain=None, gain_stderr=None, statistic=None, predicted_gain=None, candidate_loss=None)
    rows[1].update(added_flops=0)
    rows[2].update(gain=float("nan"), threshold=float("inf"))
    # One architecture may be probed in several rounds.
    found = {(row["member"], row["round"], row["arch"]): row for row in moves_table(events).to_pylist()}
    first, second, third = (
        found[member, int(round_), changed["arch_id"]]
        for changed in rows[:3]
        for member, round_ in [changed["id"].split("/")[:2]]
    )
    assert first["gain"] is first["gain_per_flop"] is first["statistic"] is first["predicted_gain"] is None
    assert second["gain_per_flop"] is None
    assert second["gain"] is not None
    assert third["gain"] is third["gain_per_flop"] is third["threshold"] is None
    # The page bears it too, as it stands in a ledger.
    check_page(page(digits.coordinator(), finite(events)))


def test_moves_of_a_round_that_is_not_decided_stand_as_not_granted(grown: Grown) -> None:
    first = next(i for i, event in enumerate(grown.events) if event["type"] == "decided")
    before, after = moves_table(grown.events[:first]), moves_table(grown.events[: first + 1])
    assert before.num_rows == after.num_rows > 0
    assert not any(before["granted"].to_pylist() + before["adopted"].to_pylist())
    assert any(after["granted"].to_pylist())


def test_the_table_is_read_back_from_its_file_as_it_was(digits: Grown, tmp_path: Path) -> None:
    write_moves(iter(digits.events), tmp_path / "moves.parquet")
    back = pq.read_table(tmp_path / "moves.parquet")
    assert back.to_pylist() == moves_table(digits.events).to_pylist()
    assert back.column_names == COLUMNS
    assert json.loads(back.schema.metadata[b"features"]) == list(FEATURES)
    assert [path.name for path in tmp_path.iterdir()] == ["moves.parquet"]


# summary.json


def test_the_summary_has_the_contracts_keys_and_the_heads_figures(any_grown: Grown) -> None:
    coordinator = any_grown.coordinator()
    found = summary(coordinator, any_grown.events)
    metric = "accuracy" if any_grown.facts.task == "classification" else "r2"
    assert list(found) == SUMMARY
    assert [list(member) for member in [found["best"], *found["members"]]] == [member_keys(metric)] * 4
    assert [member["member"] for member in found["members"]] == ["rl", "mdl", "periodic"]
    assert not found["interrupted"]
    assert found["rounds"] == sum(event["type"] == "decided" for event in any_grown.events)
    assert found["wall_seconds"] == pytest.approx(any_grown.events[-1]["time"] - any_grown.events[0]["time"], abs=0.01)
    assert found["best"] == min(found["members"], key=lambda member: (member["validation_loss"], member["member"]))
    totals = [e["report"]["train_flops"]["total"] for e in any_grown.events if e["type"] == "reported"]
    assert found["train_flops"] == sum(totals) == sum(member["train_flops"] for member in found["members"])
    rows = moves_table(any_grown.events).to_pylist()
    for member in found["members"]:
        head = coordinator.heads[member["member"]]
        own = [row for row in rows if row["member"] == member["member"]]
        assert member["moves_probed"] == len(own) == head.probed
        assert member["moves_accepted"] == sum(row["adopted"] for row in own) == head.adopted
        assert head.test is not None
        assert member["test_loss"] == head.test["test_loss"] is not None
        assert member[f"test_{metric}"] == head.test["test_metric"]
        assert member["stopped_because"]
        assert [list(e) for e in member["history"]] == [[*HISTORY, f"validation_{metric}"]] * len(member["history"])
        last = member["history"][-1]
        # The start, every round this member took part in, and the final anneal.
        tasks = [event["task"] for event in any_grown.events if event["type"] == "reported"]
        rounds = [task for task in tasks if task["member"] == member["member"] and task["phase"] == "round"]
        assert len(member["history"]) == len(rounds) + 2
        for key in (*HISTORY[1:], f"validation_{metric}"):
            assert last[key] == member[key]
        assert per_example(any_grown, member["checkpoint"]).mean() == pytest.approx(member["validation_loss"], abs=1e-5)


def test_every_cut_of_the_ledger_gives_a_whole_set_of_results(any_grown: Grown, tmp_path: Path) -> None:
    metric = "accuracy" if any_grown.facts.task == "classification" else "r2"
    for cut in range(1, len(any_grown.events)):
        events = any_grown.events[:cut]
        coordinator = any_grown.coordinator(events)
        found = summary(coordinator, events)
        assert list(found) == SUMMARY
        assert found["interrupted"]
        assert [list(member) for member in found["members"]] == [member_keys(metric)] * 3
        assert all(member["test_loss"] is member[f"test_{metric}"] is None for member in found["members"])
        started = any(event["type"] == "closed" for event in events)
        assert (found["best"] is not None) == started
        if started:
            lowest = min(member["validation_loss"] for member in found["members"])
            assert found["best"]["validation_loss"] == lowest
        assert moves_table(events).num_rows == sum(member["moves_probed"] for member in found["members"])
        assert "interrupted" in summary_text(found)
        assert len(lineage_text(lineage(events)).splitlines()) >= (6 if started else 0)
        check_page(page(coordinator, events))
    write_summary(any_grown.coordinator(), any_grown.events, tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text()) == summary(any_grown.coordinator(), any_grown.events)


def test_time_between_sessions_does_not_count(digits: Grown) -> None:
    events: Events = [
        {**digits.events[0], "time": 100.0},
        {"type": "interrupted", "time": 130.0},
        {"type": "resumed", "time": 5000.0},
        {"type": "retried", "time": 5004.5},
    ]
    assert read(events).wall_seconds == pytest.approx(34.5)


def test_the_summary_in_words_names_every_member_the_best_and_the_cost(any_grown: Grown) -> None:
    found = summary(any_grown.coordinator(), any_grown.events)
    lines = summary_text(found).splitlines()
    assert len({line.index("stopped because") for line in lines[:1]}) == 1
    assert [line.split()[0 if line[0] == " " else 1] for line in lines[1:4]] == ["rl", "mdl", "periodic"]
    assert [line[0] == "*" for line in lines[1:4]] == [m["member"] == found["best"]["member"] for m in found["members"]]
    at = lines[0].index("stopped because")
    assert [line[at:] for line in lines[1:4]] == [member["stopped_because"] for member in found["members"]]
    assert any(line.startswith("best: ") and found["best"]["checkpoint"] in line for line in lines)
    assert any(line.startswith("cost: ") and "FLOP" in line for line in lines)


# lineage


def node(key: str, parent: str | None, member: str = "m") -> LineageNode:
    """A node of a made-up lineage."""
    number = int(key.split("/")[1])
    start = parent is None
    return LineageNode(
        key, member, "rl", "tiny", number, f"{number:016x}", "c", parent, None, number, None if start else "widen",
        None if start else "h1", None if start else 4, None if start else 0.25, None if start else 0.01,
        None if start else 500, None if start else 0.0005, None if start else 0.7, 0.5, 1000 + 500 * number, 10, 1, {},
    )  # fmt: skip


def test_a_long_chain_runs_straight_down() -> None:
    nodes = [node("m/0", None), *(node(f"m/{i}", f"m/{i - 1}") for i in range(1, 31))]
    lines = lineage_text(nodes).splitlines()
    assert lines[0] == "m: strategy rl, initializer tiny"
    assert [line[:3] for line in lines[1:]] == ["├─ "] * 30 + ["└─ "]
    assert max(map(len, lines)) < 160
    expected = "├─ round 0 start 1,000 FLOPs/example validation loss 0.5000 0000000000000000"
    assert " ".join(lines[1].split()) == expected
    expected = (
        "├─ round 2 widen h1 +4 gain +0.2500 ± 0.0100 +500 FLOPs 0.5 per kFLOP "
        "2,000 FLOPs/example validation loss 0.5000 0000000000000002"
    )
    assert " ".join(lines[3].split()) == expected
    assert len({line.index("gain") for line in lines[2:]}) == 1


def test_a_lineage_is_indented_where_it_branches() -> None:
    nodes = [
        node("m/0", None), node("m/1", "m/0"), node("m/2", "m/1"), node("m/3", "m/2"), node("m/4", "m/3"),
        node("m/5", "m/1"), node("m/6", "m/1"), node("m/7", "m/6"),
    ]  # fmt: skip
    shapes = [
        line.split("round")[0] + line.split("round")[1].split()[0] for line in lineage_text(nodes).splitlines()[1:]
    ]
    assert shapes == [
        "├─ 0",
        "└─ 1",
        "   ├─┬ 2",
        "   │ ├ 3",
        "   │ └ 4",
        "   ├── 5",
        "   └─┬ 6",
        "     └ 7",
    ]


def test_each_member_has_its_tree_and_one_can_be_asked_for(grown: Grown) -> None:
    nodes = lineage(grown.events)
    whole = lineage_text(nodes).splitlines()
    assert len(whole) == len(nodes) + 3
    assert [line.split(":")[0] for line in whole if ": strategy" in line] == ["rl", "mdl", "periodic"]
    for item in nodes:
        assert sum(item.arch_id in line and f"round {item.round} " in line for line in whole) >= 1
    own = [item for item in nodes if item.member == "rl"]
    assert len(lineage_text(nodes, "rl").splitlines()) == len(own) + 1
    assert lineage_json(nodes, "rl") == json.loads(json.dumps([asdict(item) for item in own]))
    assert lineage_json(nodes) == [asdict(item) for item in nodes]
    for form in (lineage_text, lineage_json, lineage_dot, lineage_svg):
        with pytest.raises(Refused, match=r"no member 'rk'.*did you mean 'rl'.*members: rl, mdl, periodic"):
            form(nodes, "rk")


def test_the_drawn_lineage_holds_every_node_and_link(grown: Grown) -> None:
    nodes = lineage(grown.events)
    dot = lineage_dot(nodes)
    assert dot.count(" -> ") == sum(item.parent is not None for item in nodes)
    assert all(f'"{item.key}" [label=' in dot for item in nodes)
    root = ET.fromstring(lineage_svg(nodes))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    # The legend has a circle a strategy.
    assert len(root.findall(f".//{space}circle")) == len(nodes) + len({item.strategy for item in nodes})
    assert len(root.findall(f".//{space}path")) == sum(item.parent is not None for item in nodes)
    # A quotation mark in a site stays inside its string.
    odd = [nodes[0], dataclasses.replace(node("rl/9", nodes[0].key, "rl"), site='a"b<c')]
    assert r"a\"b<c" in lineage_dot(odd)
    ET.fromstring(lineage_svg(odd))


# report.html


def test_the_page_is_whole_and_holds_nothing_from_elsewhere(any_grown: Grown, tmp_path: Path) -> None:
    coordinator = any_grown.coordinator()
    write_page(coordinator, any_grown.events, tmp_path / "report.html", tmp_path / "figures")
    checker = check_page((tmp_path / "report.html").read_text())
    found = summary(coordinator, any_grown.events)
    assert f"Growth ended: {coordinator.stopped_because}." in checker.text
    for member in found["members"]:
        assert member["member"] in checker.text
        assert member["stopped_because"] in checker.text
        assert f"{member['flops_per_example']:,}" in checker.text
    assert torch.__version__ in checker.text
    assert any_grown.plan.data.kind in checker.text
    names = {attributes["id"] for _, attributes in checker.tags if attributes.get("id", "").startswith("figure-")}
    drawn = {"lineage", "quality-inference", "quality-training", "gain-price", "calibration", "sites"}
    assert names == {f"figure-{name}" for name in drawn}
    files = {f"{name}.{ending}" for name in drawn for ending in ("svg", "png")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == files
    nodes = lineage(any_grown.events)
    for item in nodes:
        assert item.arch_id in checker.text


def test_the_page_escapes_every_word_it_was_given(digits: Grown) -> None:
    bad = "<script>alert('x')</script>&\"<b"
    events = copy.deepcopy(digits.events)
    events[0].update(
        campaign_id=bad,
        data={bad: bad, "name": bad, "used": [bad], "rows": {bad: 3}},
        versions={bad: bad},
        machine={bad: [bad, {bad: None}]},
    )
    for member in events[0]["config"]["members"]:
        member["strategy"]["kind"] = member["initializer"]["kind"] = bad
    for event in events:
        report = event.get("report", {})
        for row in report.get("candidates", []):
            row.update(site=bad, reason=bad, initializer=bad)
        if "why_nothing" in report:
            report["why_nothing"] = bad
        if event["type"] == "decided":
            event["refused"] = dict.fromkeys(event["refused"], bad)
    coordinator = digits.coordinator(events)
    for name, head in coordinator.heads.items():
        coordinator.heads[name] = dataclasses.replace(head, stopped_because=bad)
    text = page(coordinator, events)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not {"script", "b<"} & {tag for tag, _ in checker.tags}
    assert "<script" not in text
    assert checker.text.count(bad) > 20


# figures and axes


def test_figures_read_as_people_write_them() -> None:
    assert [flops(value) for value in (0, 999, 1280, 999_999, 3.21e9, None)] == [
        "0 FLOP", "999 FLOP", "1.28 kFLOP", "1 MFLOP", "3.21 GFLOP", "–",
    ]  # fmt: skip
    assert [scaled(value) for value in (-1500, 0.25, float("nan"))] == ["-1.5k", "0.25", "–"]
    assert [decimal(value) for value in (0.0, 1.5, -0.00012345, float("inf"))] == ["0.0000", "1.5000", "-0.000123", "–"]
    assert [duration(value) for value in (3.14, 200, 7500)] == ["3.1 s", "3 min 20 s", "2 h 5 min"]


@pytest.mark.parametrize("stretch", [None, LOG, ROOT])
@pytest.mark.parametrize("values", [[1.0, 2000.0], [3.0, 3.0], [1e-4, 2e-4]])
def test_ticks_lie_on_the_axis_in_order(stretch: Any, values: list[float]) -> None:
    scale = scale_over(values, 400, 20, stretch)
    assert all(20 <= scale(value) <= 400 for value in values)
    ticks = scale.ticks()
    assert ticks == sorted(ticks)
    assert all(20 - 1e-6 <= scale(tick) <= 400 + 1e-6 for tick in ticks)
    assert len(ticks) <= 10
    assert scale.clamped(1e9) == pytest.approx(20)
