"""The ledger as the runs that MLflow should show: one a campaign, one a member, one an adopted architecture. No MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raygrow.population.ledger import Event
from raygrow.population.lineage import LineageNode, lineage

PARAM_LENGTH = 500
"""Characters that every MLflow server takes; the whole configuration is an artifact."""
STATUS = {"interrupted": "KILLED", "failed": "FAILED", "resumed": "RUNNING", "ended": "FINISHED"}
NODE_TAGS = ("member", "strategy", "initializer", "round", "depth", "arch_id", "parent_arch_id", "move")
NODE_METRICS = (
    "validation_loss", "flops_per_example", "params", "gain", "gain_per_flop", "newborn_gradient_ratio", "train_flops",
)  # fmt: skip


@dataclass
class Page:
    """One MLflow run as the ledger has it.

    Attributes:
        key: unique in a campaign: ``campaign``, ``member/NAME`` or ``architecture/NAME/ROUND``.
        parent, origin: key of the run it is nested under, and of that of the architecture it grew from.
        begun, ended: milliseconds since 1970; ``ended`` is None while it runs.
        metrics: key, value, time and step, in the order of the ledger. The time is the event's, so that a point logged
            again is the same point.
        documents: file name to content, written as JSON or YAML.
    """

    key: str
    name: str
    parent: str | None
    begun: int
    tags: dict[str, str]
    origin: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    ended: int | None = None

    def measure(self, time: int, step: int, values: Mapping[str, float | None]) -> None:
        """Add the figures that are defined."""
        self.metrics += [(key, float(value), time, step) for key, value in values.items() if value is not None]


def pages(events: Sequence[Event]) -> list[Page]:
    """Every run that MLflow should show: campaign, members, then architectures, each after the one it grew from."""
    started = next((event for event in events if event["type"] == "started"), None)
    if started is None:
        return []
    config, begun = started["config"], round(started["time"] * 1000)
    metric = "accuracy" if started["facts"]["task"] == "classification" else "r2"
    tags = {"raygrow.campaign_id": started["campaign_id"]}
    campaign = Page("campaign", config["campaign"]["name"], None, begun, tags, documents={"config.yaml": config})
    # The members' own sections are parameters of their runs.
    extra = {"members": [member["name"] for member in config["members"]], "facts": started["facts"]}
    campaign.params = _flat({**config, **extra, "versions": started.get("versions", {})})
    members: dict[str, Page] = {}
    for member in config["members"]:
        name, kinds = member["name"], {f"raygrow.{what}": member[what]["kind"] for what in ("strategy", "initializer")}
        own = {**tags, "raygrow.member": name, **kinds}
        members[name] = Page(f"member/{name}", name, "campaign", begun, own, params=_flat(member))
    spent = dict.fromkeys(members, 0)
    adopted: dict[str, int] = {}
    reports: dict[str, dict[str, Any]] = {}
    best: str | None = None

    def head(page: Page, name: str, network: Mapping[str, Any], step: int, now: int) -> None:
        loss, score = network["validation_loss"], network["validation_metric"]
        page.measure(now, step, {"validation_loss": loss, f"validation_{metric}": score})
        page.measure(now, step, {"flops_per_example": network["flops_per_example"], "train_flops": spent[name]})

    for event in events:
        kind, now = event["type"], round(event["time"] * 1000)
        if kind == "reported":
            task, report = event["task"], event["report"]
            name = task["member"]
            spent[name] += report["train_flops"]["total"]
            reports[name] = {**report, "round": task["round"]}
            if task["phase"] == "start":
                adopted[f"{name}/0"] = now
                head(members[name], name, report["head"], 0, now)
        elif kind in ("decided", "chosen", "closed"):
            best = event.get("best", best)
            for name, report in reports.items():
                shown_on = [members[name], campaign] if name == best else [members[name]]
                network = report["head"] if kind == "chosen" else report.get("control")
                for row in report.get("candidates", []):
                    if row["id"] in event["granted"]:
                        adopted[f"{name}/{event['round']}"] = now
                        network = {**row, **{f"validation_{w}": row[f"candidate_{w}"] for w in ("loss", "metric")}}
                for page in shown_on:
                    if network is not None:
                        head(page, name, network, report["round"], now)
                    if "test_loss" in report:
                        figures = {"test_loss": report["test_loss"], f"test_{metric}": report["test_metric"]}
                        page.measure(now, report["round"], figures)
            reports = {}
        elif kind in STATUS and campaign.status != "FINISHED":
            for page in (campaign, *members.values()):
                page.status, page.ended = STATUS[kind], None if kind == "resumed" else now
    nodes = (_architecture(node, tags, adopted[node.key]) for node in lineage(events))
    return [campaign, *members.values(), *nodes]


def _architecture(node: LineageNode, tags: Mapping[str, str], now: int) -> Page:
    values = {f"raygrow.{what}": getattr(node, what) for what in NODE_TAGS}
    page = Page(
        f"architecture/{node.key}",
        f"{node.key} {node.move} {node.site}"[:100] if node.move else f"{node.key} start",
        f"member/{node.member}", now,
        {**tags, **{key: "" if value is None else str(value) for key, value in values.items()}},
        origin=f"architecture/{node.parent}" if node.parent else None,
        documents={"architecture.json": node.arch}, status="FINISHED", ended=now,
    )  # fmt: skip
    page.measure(now, node.round, {what: getattr(node, what) for what in NODE_METRICS})
    return page


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Dotted path to text, in names and lengths that MLflow takes."""
    found: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= _flat(item, f"{path}{key}.")
        else:
            text = item if isinstance(item, str) else json.dumps(item)
            cut = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 3] + "..."
            found[re.sub(r"[^\w.\- /]", "_", f"{path}{key}")[:250]] = cut
    return found
