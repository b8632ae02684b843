"""The sections of a campaign's page, from top to bottom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from raygrow.report.charts import standing
from raygrow.report.figures import NOTHING, count, decimal, duration, flops, scaled, signed, signed_count
from raygrow.report.lineage import lineage_text
from raygrow.report.markup import Content, el
from raygrow.report.plot import swatch
from raygrow.report.record import COSTS
from raygrow.report.tables import pairs, table
from raygrow.report.tree import tree
from raygrow.report.view import View

SHOWN = 200
"""With more architectures the lanes of the lineage are closed at first, but for that of the best."""


def head(view: View) -> Iterator[Content]:
    """What the campaign was and what came of it."""
    best: Mapping[str, Any] = view.summary["best"] or {}
    data = view.record.started.get("data", {})
    interrupted = view.summary["interrupted"]
    state = el("span", "interrupted" if interrupted else "done", class_="pill open" if interrupted else "pill")
    subject = data.get("name") or view.coordinator.plan.data.kind
    facts = [
        (decimal(best.get(f"validation_{view.metric}")), f"validation {view.word} of the best"),
        (decimal(best.get(f"test_{view.metric}")), f"test {view.word} of the best"),
        (count(best.get("flops_per_example")), "FLOPs per example"),
        (count(best.get("params")), "parameters"),
        (flops(view.summary["train_flops"]), "training, whole population"),
        (f"{view.summary['rounds']} / {view.coordinator.plan.campaign.rounds}", "rounds"),
        (duration(view.summary["wall_seconds"]), "wall time"),
    ]
    yield el("h1", view.summary["campaign"], state)
    yield el(
        "p",
        f"{view.summary['task'].capitalize()} on {subject}, members: {len(view.summary['members'])}, ",
        f"seed {view.summary['seed']}. ",
        f"Best on validation: {best['member']} ({best['strategy']})." if best else "No network has been written yet.",
        class_="quiet",
    )
    if interrupted:
        yield el(
            "p", "This campaign is not over, so there are no test figures; ", el("code", "raygrow resume"), " goes on."
        )
    if view.summary["stopped_because"] is not None:
        yield el("p", f"Growth ended: {view.summary['stopped_because']}.")
    yield el("div", [el("div", el("b", figure), el("span", label), class_="fact") for figure, label in facts],
             class_="facts")  # fmt: skip


def members(view: View) -> Iterator[Content]:
    """A row a member."""
    columns = ("member", "strategy", "initializer", "moves adopted", "probed", "FLOPs per example", "parameters",
               "validation loss", f"validation {view.word}", "test loss", f"test {view.word}", "training",
               "why it stopped")  # fmt: skip
    rows = [
        (
            _named(view, member["member"]),
            member["strategy"],
            member["initializer"],
            count(member["moves_accepted"]),
            count(member["moves_probed"]),
            count(member["flops_per_example"]),
            count(member["params"]),
            decimal(member["validation_loss"]),
            decimal(member[f"validation_{view.metric}"]),
            decimal(member["test_loss"]),
            decimal(member[f"test_{view.metric}"]),
            flops(member["train_flops"]),
            member["stopped_because"] or "it has not stopped",
        )
        for member in view.summary["members"]
    ]
    marked = ["marked" if member["member"] == view.best else "" for member in view.summary["members"]]
    yield el("h2", "Members and strategies")
    yield table(columns, rows, numbers=range(3, 12), wide=(12,), classes=marked)


def charts(view: View) -> Iterator[Content]:
    """What growth bought, at what price, and whether it was foreseen."""
    drawn = view.drawings
    yield el("h2", "What growth bought")
    yield el("div", [drawn[f"quality-{cost}"].figure() for cost in ("inference", "training")], class_="pair")
    yield el("h2", "What was worth its price, and was it foreseen?")
    yield el("div", [drawn[name].figure() for name in ("gain-price", "calibration")], class_="pair")


def family(view: View) -> Iterator[Content]:
    """The tree of adopted architectures, a part for each member that can be closed."""
    nodes, colours = view.nodes, view.colours
    yield el("h2", "Lineage")
    if not nodes:
        yield el("p", "No network has been written yet.", class_="empty")
        return
    yield el("p", "Adopted architectures. ", view.drawings["lineage"].caption, " The ring marks the best network.",
             class_="quiet")  # fmt: skip
    columns = sorted({node.round for node in nodes})
    lanes = []
    for name in view.record.members:
        own = [node for node in nodes if node.member == name]
        if not own:
            continue
        words = f"{name}: {own[0].strategy}, initializer {own[0].initializer}; {len(own) - 1} moves adopted, "
        words += f"{count(own[-1].flops_per_example)} FLOPs per example"
        drawn = tree(own, colours, view.best, columns=columns, legend_below=False).inline("tree", fixed=True)
        # Many long lanes are opened one by one.
        opened = "open" if len(nodes) <= SHOWN or name == view.best else None
        lanes.append(el("details", el("summary", words), drawn, open=opened, class_="lane"))
    yield el("div", lanes, class_="scroll lanes")
    passed = [candidate for candidate in view.record.probed if not candidate.granted]
    if passed:
        whole = tree(nodes, colours, view.best, passed).inline("tree", fixed=True)
        words = f"With the {len(passed)} candidates that were probed and not adopted"
        note = "Under the architecture that they would have grown from; what each was, and why not, is in the table of moves."
        yield el("details", el("summary", words), el("p", note, class_="quiet"), el("div", whole, class_="scroll"),
                 id="passed-over")  # fmt: skip
    yield el("details", el("summary", "As text, with gains and prices"), el("pre", lineage_text(nodes, None)))


def places(view: View) -> Iterator[Content]:
    """Where and when growth happened."""
    drawn = view.drawings["sites"]
    yield el("h2", drawn.title)
    yield el("div", drawn.inline("sites", fixed=True), class_="scroll")
    yield el("p", drawn.caption, class_="quiet")


def costs(view: View) -> Iterator[Content]:
    """Where the training FLOPs went, and what the budgets left."""
    purposes = (*COSTS, "total")
    whole = {purpose: sum(spent[purpose] for spent in view.record.costs.values()) for purpose in purposes}
    parts = [(_named(view, name), spent) for name, spent in view.record.costs.items()]
    rows = [
        (name, *(flops(spent[purpose]) for purpose in purposes), _share(spent["total"], whole["total"]))
        for name, spent in [*parts, (el("b", "population"), whole)]
    ]
    budget, networks = view.coordinator.plan.budget, [head.network for head in view.coordinator.heads.values()]
    limits = [
        ("rounds", view.record.rounds, view.coordinator.plan.campaign.rounds),
        ("FLOPs per example, largest head", max((n["flops_per_example"] for n in networks), default=0),
         budget.max_flops_per_example),
        ("parameters, largest head", max((n["params"] for n in networks), default=0), budget.max_params),
        ("training FLOPs, whole population", view.record.train_flops, budget.max_train_flops),
    ]  # fmt: skip
    yield el("h2", "Cost and budget")
    reasons = [el("li", _named(view, m["member"]), f": {m['stopped_because'] or 'it has not stopped'}.")
               for m in view.summary["members"]]  # fmt: skip
    ended = view.summary["stopped_because"] or "it has not ended"
    yield el("p", f"Why growth ended: {ended}. By member:")
    yield el("ul", reasons)
    yield table(("member", *purposes, "share"), rows, numbers=range(1, 8))
    yield el("p")  # Keeps the two tables apart.
    used = [
        (name, scaled(amount), "no limit" if limit is None else scaled(limit), _share(amount, limit))
        for name, amount, limit in limits
    ]
    yield table(("budget", "used", "limit", "share"), used, numbers=(1, 2, 3))


def moves(view: View) -> Iterator[Content]:
    """A row a probed candidate."""
    columns = ("round", "member", "move", "site", "units", "predicted gain", "gain", "standard error", "added FLOPs",
               "gain per kFLOP", "statistic", "threshold", "verdict", "reason")  # fmt: skip
    rows = []
    for candidate in view.record.probed:
        row, per_flop = candidate.row, candidate.gain_per_flop
        rows.append(
            (
                count(candidate.round),
                _named(view, candidate.member),
                row["move"]["kind"],
                row["site"],
                count(row["units"]),
                signed(row["predicted_gain"]),
                signed(row["gain"]),
                decimal(row["gain_stderr"]),
                signed_count(row["added_flops"]),
                NOTHING if per_flop is None else f"{1000 * per_flop:+.3g}",
                decimal(row["statistic"]),
                decimal(row["threshold"]),
                [swatch(standing(candidate)), standing(candidate)],
                f"{row['reason']}; not granted: {candidate.refused}" if candidate.refused else row["reason"],
            )
        )
    granted = sum(candidate.granted for candidate in view.record.probed)
    accepted = sum(candidate.row["verdict"] == "accept" for candidate in view.record.probed)
    yield el("h2", "Moves")
    yield el("p", f"{len(rows)} probed, {accepted} accepted, {granted} granted and adopted.", class_="quiet")
    if rows:
        classes = [standing(candidate) for candidate in view.record.probed]
        shown = table(columns, rows, numbers=(0, 4, 5, 6, 7, 8, 9, 10, 11), wide=(13,), classes=classes)
        # A few hundred rows would bury what follows.
        yield el("details", el("summary", "Every probed candidate"), shown, open="open" if len(rows) <= 60 else None)


def rounds(view: View) -> Iterator[Content]:
    """What the coordinator decided, and why some members probed nothing."""
    rows = [
        (
            count(event["round"]),
            count(len(event["ranking"])),
            ", ".join(event["granted"]) or "nothing",
            scaled(event["allowance"]) if event["allowance"] is not None else "no limit",
            scaled(event["carried"]),
        )
        for event in view.record.decided
    ]
    silent = [
        (count(event["task"]["round"]), _named(view, event["task"]["member"]), why)
        for event in view.events
        if event["type"] == "reported" and (why := event["report"].get("why_nothing"))
    ]
    if rows:
        columns = ("round", "accepted", "granted", "added FLOPs allowed", "carried over")
        shown = table(columns, rows, numbers=(0, 1, 3, 4), wide=(2,))
        yield el("details", el("summary", "Decisions of the coordinator, round by round"), shown)
    if silent:
        shown = table(("round", "member", "why nothing was probed"), silent, numbers=(0,), wide=(2,))
        yield el("details", el("summary", f"Member rounds without a probe ({len(silent)})"), shown)


def environment(view: View) -> Iterator[Content]:
    """What it takes to run the campaign again."""
    started, facts = view.record.started, view.coordinator.facts
    about = {
        "campaign": started.get("campaign_id"),
        "task": f"{facts.task}, {facts.inputs} inputs, {facts.outputs} outputs",
        "loss of the best constant": decimal(facts.constant_loss),
        "sessions": 1 + view.record.counts.get("resumed", 0),
        "workers lost": view.record.counts.get("retried", 0),
    }
    yield el("h2", "Data and environment")
    yield el(
        "div",
        pairs("Campaign", about),
        pairs("Data", started.get("data", {})),
        pairs("Versions", started.get("versions", {})),
        pairs("Machine", started.get("machine", {})),
        class_="pair",
    )
    config = json.dumps(view.record.config, indent=2, ensure_ascii=False)
    yield el("details", el("summary", "Resolved configuration"), el("pre", config))


SECTIONS = (head, members, family, charts, places, costs, moves, rounds, environment)


def _named(view: View, member: str) -> Content:
    """A member with its colour."""
    return [swatch(view.colours.of(member)), member]


def _share(part: float, whole: float | None) -> str:
    return f"{part / whole:.0%}" if whole else NOTHING
