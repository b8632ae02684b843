"""``report.html``: one page that holds everything it shows, works without scripts and escapes every word it was given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event, write_atomically
from raygrow.population.lineage import lineage
from raygrow.report.charts import colour, price_chart, quality_chart, standing, swatch
from raygrow.report.figures import NOTHING, count, decimal, duration, flops, scaled, signed, signed_count
from raygrow.report.lineage import lineage_text
from raygrow.report.markup import Content, Markup, el
from raygrow.report.record import COSTS, Record, read
from raygrow.report.style import CHART_STYLE, PAGE_STYLE
from raygrow.report.summary import METRICS, summary
from raygrow.report.tree import tree

WORDS = {"accuracy": "accuracy", "r2": "R2"}


def write_page(coordinator: Coordinator, events: Iterable[Event], path: Path) -> None:
    """Write the page whole or not at all.

    Args:
        coordinator: as replayed from ``events``.
        events: of the ledger, whole or cut anywhere.
    """
    write_atomically(path, page(coordinator, list(events)).encode())


def page(coordinator: Coordinator, events: Sequence[Event]) -> str:
    """The page as text."""
    record, found = read(events), summary(coordinator, events)
    sections: list[Callable[[Coordinator, Sequence[Event], Record, Mapping[str, Any]], Content]] = [
        _head, _members, _charts, _tree, _costs, _moves, _rounds, _environment,
    ]  # fmt: skip
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        # The browser itself then refuses to fetch or run anything.
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{found['campaign']} · raygrow"),
        el("style", Markup(CHART_STYLE + PAGE_STYLE)),
    )
    main = el("main", [section(coordinator, events, record, found) for section in sections])
    return f"<!DOCTYPE html>\n{el('html', head, el('body', main), lang='en')}\n"


def _head(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    metric = METRICS[found["task"]]
    best: Mapping[str, Any] = found["best"] or {}
    data = record.started.get("data", {})
    state = el("span", "interrupted", class_="pill open") if found["interrupted"] else el("span", "done", class_="pill")
    subject = data.get("name") or coordinator.plan.data.kind
    facts = [
        (decimal(best.get(f"validation_{metric}")), f"validation {WORDS[metric]} of the best"),
        (decimal(best.get(f"test_{metric}")), f"test {WORDS[metric]} of the best"),
        (count(best.get("flops_per_example")), "FLOPs per example"),
        (count(best.get("params")), "parameters"),
        (flops(found["train_flops"]), "training, whole population"),
        (f"{found['rounds']} / {coordinator.plan.campaign.rounds}", "rounds"),
        (duration(found["wall_seconds"]), "wall time"),
    ]
    yield el("h1", found["campaign"], state)
    yield el(
        "p",
        f"{found['task'].capitalize()} on {subject}, {len(found['members'])} members, seed {found['seed']}. ",
        f"Best on validation: {best['member']} ({best['strategy']})." if best else "No network has been written yet.",
        class_="quiet",
    )
    if found["interrupted"]:
        yield el(
            "p", "This campaign is not over, so there are no test figures; ", el("code", "raygrow resume"), " goes on."
        )
    yield el("div", [el("div", el("b", figure), el("span", label), class_="fact") for figure, label in facts],
             class_="facts")  # fmt: skip


def _members(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    metric = METRICS[found["task"]]
    best = (found["best"] or {}).get("member")
    columns = ("member", "strategy", "initializer", "moves adopted", "probed", "FLOPs per example", "parameters",
               "validation loss", f"validation {WORDS[metric]}", "test loss", f"test {WORDS[metric]}", "training",
               "why it stopped")  # fmt: skip
    rows = [
        (
            _named(record, member["member"]),
            member["strategy"],
            member["initializer"],
            count(member["moves_accepted"]),
            count(member["moves_probed"]),
            count(member["flops_per_example"]),
            count(member["params"]),
            decimal(member["validation_loss"]),
            decimal(member[f"validation_{metric}"]),
            decimal(member["test_loss"]),
            decimal(member[f"test_{metric}"]),
            flops(member["train_flops"]),
            member["stopped_because"] or "it has not stopped",
        )
        for member in found["members"]
    ]
    marked = ["marked" if member["member"] == best else "" for member in found["members"]]
    yield el("h2", "Members and strategies")
    yield _table(columns, rows, numbers=range(3, 12), wide=(12,), classes=marked)


def _charts(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    word = WORDS[METRICS[found["task"]]]
    best = (found["best"] or {}).get("member")
    prices: dict[float, list[str]] = {}
    for member in coordinator.plan.members:
        prices.setdefault(coordinator.facts.price(member.growth, coordinator.plan.budget), []).append(member.name)
    names = [_legend(colour(i), name) for i, name in enumerate(record.members)]
    kinds = [
        _legend("granted", "granted"),
        _legend("accepted", "accepted, not granted"),
        _legend("rejected", "rejected"),
        _legend("price", f"price, {' and '.join(f'{price:.3g}' for price in prices)} loss per added FLOP"),
    ]
    ruined = sum(candidate.row["gain"] is None for candidate in record.probed)
    yield el("h2", "What growth bought")
    yield el(
        "div",
        el(
            "figure",
            el("h3", f"Validation {word} against FLOPs per example"),
            quality_chart(record.heads, list(record.members), best, word),
            el("ul", names, _legend("best", "best"), class_="legend"),
            el(
                "figcaption",
                "Every network that was a head. Filled: just grown; hollow: trained on without growing; "
                "square: after the final anneal. The untrained start is left out.",
            ),
        ),
        el(
            "figure",
            el("h3", "Gain against price"),
            price_chart(record.probed, prices),
            el("ul", kinds, class_="legend"),
            el(
                "figcaption",
                "Every probed candidate against the control trained on the same batches; bars are one standard error. "
                "What lies far below is drawn at the edge.",
                f" {ruined} diverged and have no gain." if ruined else "",
            ),
        ),
        class_="pair",
    )


def _tree(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    nodes = lineage(events)
    yield el("h2", "Lineage")
    if not nodes:
        yield el("p", "No network has been written yet.", class_="empty")
        return
    yield el("p", "Adopted architectures from left to right. The area of a circle, and the figure below it, are FLOPs per "
             "example; the ring marks the best network.", class_="quiet")  # fmt: skip
    best = (found["best"] or {}).get("member")
    yield el("div", tree(nodes, list(record.members), best), class_="scroll")
    yield el("details", el("summary", "As text, with gains and prices"), el("pre", lineage_text(nodes, None)))


def _costs(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    rows = [
        (
            _named(record, name),
            *(flops(costs[purpose]) for purpose in (*COSTS, "total")),
            _share(costs["total"], record),
        )
        for name, costs in record.costs.items()
    ]
    whole = {purpose: sum(costs[purpose] for costs in record.costs.values()) for purpose in (*COSTS, "total")}
    rows.append(
        (
            el("b", "population"),
            *(flops(whole[purpose]) for purpose in (*COSTS, "total")),
            _share(whole["total"], record),
        )
    )
    budget, networks = coordinator.plan.budget, [head.network for head in coordinator.heads.values()]
    limits = [
        ("rounds", record.rounds, coordinator.plan.campaign.rounds),
        ("FLOPs per example, largest head", max((n["flops_per_example"] for n in networks), default=0),
         budget.max_flops_per_example),
        ("parameters, largest head", max((n["params"] for n in networks), default=0), budget.max_params),
        ("training FLOPs, whole population", record.train_flops, budget.max_train_flops),
    ]  # fmt: skip
    yield el("h2", "Cost and budget")
    yield _table(("member", *COSTS, "total", "share"), rows, numbers=range(1, 8))
    yield el("p")
    used = [
        (
            name,
            scaled(amount),
            "no limit" if limit is None else scaled(limit),
            f"{amount / limit:.0%}" if limit else NOTHING,
        )
        for name, amount, limit in limits
    ]
    yield _table(("budget", "used", "limit", "share"), used, numbers=(1, 2, 3))


def _moves(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    columns = ("round", "member", "move", "site", "units", "predicted gain", "gain", "standard error", "added FLOPs",
               "gain per kFLOP", "statistic", "threshold", "verdict", "reason")  # fmt: skip
    rows = []
    for candidate in record.probed:
        row, per_flop = candidate.row, candidate.gain_per_flop
        rows.append(
            (
                count(candidate.round),
                _named(record, candidate.member),
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
    granted = sum(candidate.granted for candidate in record.probed)
    accepted = sum(candidate.row["verdict"] == "accept" for candidate in record.probed)
    yield el("h2", "Moves")
    yield el("p", f"{len(rows)} probed, {accepted} accepted, {granted} granted and adopted.", class_="quiet")
    if rows:
        classes = [standing(candidate) for candidate in record.probed]
        table = _table(columns, rows, numbers=(0, 4, 5, 6, 7, 8, 9, 10, 11), wide=(13,), classes=classes)
        # A few hundred rows would bury what follows.
        yield el("details", el("summary", "Every probed candidate"), table, open="open" if len(rows) <= 40 else None)


def _rounds(coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]) -> Content:
    rows = [
        (
            count(event["round"]),
            count(len(event["ranking"])),
            ", ".join(event["granted"]) or "nothing",
            scaled(event["allowance"]) if event["allowance"] is not None else "no limit",
            scaled(event["carried"]),
        )
        for event in record.decided
    ]
    silent = [
        (count(event["task"]["round"]), _named(record, event["task"]["member"]), why)
        for event in events
        if event["type"] == "reported" and (why := event["report"].get("why_nothing"))
    ]
    if rows:
        columns = ("round", "accepted", "granted", "added FLOPs allowed", "carried over")
        table = _table(columns, rows, numbers=(0, 1, 3, 4), wide=(2,))
        yield el("details", el("summary", "Decisions of the coordinator, round by round"), table)
    if silent:
        table = _table(("round", "member", "why nothing was probed"), silent, numbers=(0,), wide=(2,))
        yield el("details", el("summary", f"Member rounds without a probe ({len(silent)})"), table)


def _environment(
    coordinator: Coordinator, events: Sequence[Event], record: Record, found: Mapping[str, Any]
) -> Content:
    started, facts = record.started, coordinator.facts
    about = {
        "campaign": started.get("campaign_id"),
        "task": f"{facts.task}, {facts.inputs} inputs, {facts.outputs} outputs",
        "loss of the best constant": decimal(facts.constant_loss),
        "sessions": 1 + record.counts.get("resumed", 0),
        "workers lost": record.counts.get("retried", 0),
    }
    yield el("h2", "Data and environment")
    yield el(
        "div",
        _pairs("Campaign", about),
        _pairs("Data", started.get("data", {})),
        _pairs("Versions", started.get("versions", {})),
        _pairs("Machine", started.get("machine", {})),
        class_="pair",
    )
    config = json.dumps(record.config, indent=2, ensure_ascii=False)
    yield el("details", el("summary", "Resolved configuration"), el("pre", config))


def _pairs(title: str, values: Mapping[str, Any]) -> Content:
    if not values:
        return None
    rows = [(name, _plain(value)) for name, value in values.items() if value not in (None, [], {}, "")]
    return el("div", _table((title, ""), rows, wide=(1,)))


def _plain(value: Any) -> str:
    """A value of the first event in words; long lists are cut."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        more = f", and {len(value) - 24} more" if len(value) > 24 else ""
        return ", ".join(_plain(item) for item in value[:24]) + more
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _named(record: Record, member: str) -> Content:
    """A member with its colour."""
    return [swatch(colour(list(record.members).index(member))), member]


def _legend(kind: str, words: str) -> Markup:
    return el("li", swatch(kind), words)


def _share(part: int, record: Record) -> str:
    return f"{part / record.train_flops:.0%}" if record.train_flops else NOTHING


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Content]],
    numbers: Iterable[int] = (),
    wide: Iterable[int] = (),
    classes: Sequence[str] = (),
) -> Markup:
    """A table whose ``numbers`` stand to the right and whose ``wide`` columns wrap; ``classes`` of the rows."""
    kinds = {**dict.fromkeys(wide, "w"), **dict.fromkeys(numbers, "n")}
    head = el("tr", [el("th", name, class_=kinds.get(i), scope="col") for i, name in enumerate(columns)])
    body = [
        el(
            "tr",
            [el("td", cell, class_=kinds.get(i)) for i, cell in enumerate(row)],
            class_=(classes[r] or None) if classes else None,
        )
        for r, row in enumerate(rows)
    ]
    return el("div", el("table", el("thead", head), el("tbody", body)), class_="scroll")
