"""``report.html`` of a comparison: which arm is better, on which data, at what price, and how far that can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raygrow.population.ledger import write_atomically
from raygrow.report.calibration import calibration_section
from raygrow.report.comparison_view import ComparisonView, Row
from raygrow.report.drawing import write_drawings
from raygrow.report.figures import NOTHING, count, decimal, duration, flops, signed
from raygrow.report.markup import Content, el
from raygrow.report.page import document
from raygrow.report.plot import swatch
from raygrow.report.tables import pairs, table


def write_comparison_page(folder: Path) -> None:
    """Write ``report.html`` and ``figures/`` of DIR of a comparison.

    Args:
        folder: holds ``trials.parquet``, ``curves.parquet``, ``comparison.json``, ``comparison.yaml`` and ``events.jsonl``.
    """
    view = ComparisonView.read(folder)
    write_drawings(view.drawings.values(), folder / "figures")
    write_atomically(folder / "report.html", document(view.name, [section(view) for section in SECTIONS]).encode())


def head(view: ComparisonView) -> Iterator[Content]:
    """What was compared, and what came of it in a sentence an arm."""
    counts: dict[str, int] = view.statistics["trials"]
    whole, done = len(view.trials), counts.get("done", 0)
    lost = whole - done - counts.get("stopped", 0)
    state = f"{lost} not done" if lost else "done"
    facts = [
        (count(len(view.arms)), "arms"),
        (count(len(view.data)), "data sets"),
        (count(len({row["seed"] for row in view.trials})), "seeds"),
        (f"{done} / {whole}", "trials done"),
        (flops(sum(row["train_flops"] or 0 for row in view.trials)), "training, all trials"),
        (duration(sum(row["wall_seconds"] or 0.0 for row in view.trials)), "work, all trials"),
    ]
    yield el("h1", view.name, el("span", state, class_="pill open" if lost else "pill"))
    others = ", ".join(f"{number} {status}" for status, number in counts.items() if status != "done")
    yield el(
        "p",
        f"Every arm against {view.reference}, paired by data set and seed: all arms of a repetition see the same splits, "
        f"batches and seeds. {f'Not done: {others}; they are named below.' if others else ''}",
        class_="quiet",
    )
    yield el("div", [el("div", el("b", figure), el("span", label), class_="fact") for figure, label in facts],
             class_="facts")  # fmt: skip


def verdicts(view: ComparisonView) -> Iterator[Content]:
    """The comparison that was asked for: figures, then the table of every measure."""
    yield el("h2", "Which arm is better?")
    notes = [el("li", note) for note in view.statistics["notes"]]
    if notes:
        yield el("ul", notes, class_="notes")
    yield el("div", [view.drawings[name].figure() for name in ("differences", "ranks")], class_="pair")
    for i, (measure, words) in enumerate(view.statistics["measures"].items()):
        rows = [row for row in view.statistics["comparisons"] if row["measure"] == measure]
        if not rows:
            continue
        title = f"{words[0].upper()}{words[1:]}"
        shown = _differences(view, rows)
        if i == 0:
            yield el("h3", title)
            yield shown
        else:
            yield el("details", el("summary", title), shown)


def by_data(view: ComparisonView) -> Iterator[Content]:
    """A table of arms for each data set."""
    yield el("h2", "Arms by data set")
    confidence = f"{view.statistics['confidence']:.0%}"
    yield el("p", f"Means over seeds with {confidence} bootstrap intervals where there are three seeds or more; FLOPs, "
             "parameters and moves are medians.", class_="quiet")  # fmt: skip
    for data in view.data:
        word = view.word(data)
        columns = ("arm", "done", f"validation {word} at equal training FLOPs", "equal at", f"test {word}",
                   "area", "volume", "training", "FLOPs per example", "parameters", "moves", "time")  # fmt: skip
        rows = [
            (
                _named(view, row["arm"]),
                f"{row['done']} / {row['trials']}",
                spread(row["equal_validation_score"]),
                flops(row["equal_train_flops"]),
                spread(row["test_score"]),
                decimal(row["area"]["mean"]),
                decimal(row["hypervolume"]["mean"]),
                flops(row["train_flops"]),
                count(row["flops_per_example"]),
                count(row["params"]),
                NOTHING
                if row["moves_probed"] is None
                else f"{count(row['moves_accepted'])} / {count(row['moves_probed'])}",
                NOTHING if row["wall_seconds"] is None else duration(row["wall_seconds"]),
            )
            for row in view.statistics["by_data"]
            if row["data"] == data
        ]
        marked = [
            "marked" if row["arm"] == view.reference else ""
            for row in view.statistics["by_data"]
            if row["data"] == data
        ]
        yield el("h3", data)
        yield table(columns, rows, numbers=range(1, 12), classes=marked)


def charts(view: ComparisonView) -> Iterator[Content]:
    """Quality against either cost, and the way there, for each data set."""
    yield el("h2", "What it costs")
    for name, drawing in view.drawings.items():
        if name.startswith("quality-inference-"):
            slug = name.removeprefix("quality-inference-")
            three = (drawing, view.drawings[f"quality-training-{slug}"], view.drawings[f"curves-{slug}"])
            yield el("div", [drawn.figure() for drawn in three], class_="pair")


def calibration(view: ComparisonView) -> Iterator[Content]:
    """Where data are planted: what each strategy accepts that it should, and what it should not."""
    if view.calibration:
        drawn = [drawing for name, drawing in view.drawings.items() if name.startswith("accepts-")]
        yield from calibration_section(view.calibration, drawn)


def failures(view: ComparisonView) -> Iterator[Content]:
    """Every trial that has no result, and why."""
    lost = view.statistics["not_done"]
    if lost:
        rows = [
            (_named(view, row["arm"]), row["data"], count(row["seed"]), row["status"], row["reason"] or "")
            for row in lost
        ]
        yield el("h2", "Trials without a result")
        yield table(("arm", "data", "seed", "status", "why"), rows, numbers=(2,), wide=(4,))


def methods(view: ComparisonView) -> Iterator[Content]:
    """Which test stands behind which figure."""
    rows = [(name.replace("_", " "), words) for name, words in view.statistics["methods"].items()]
    yield el("h2", "How it was compared")
    yield table(("", ""), rows, wide=(1,))
    ranks = [
        (
            words,
            count(found["repetitions"]),
            ", ".join(
                f"{arm} {rank:.2f}" for arm, rank in sorted((found["average"] or {}).items(), key=lambda pair: pair[1])
            ),
            NOTHING
            if found["friedman"] is None
            else f"{found['friedman']['chi_squared']:.2f}, p = {p_value(found['friedman']['p'])}",
            decimal(found["critical_difference"]),
            found["words"],
        )
        for measure, words in view.statistics["measures"].items()
        for found in [view.statistics["ranks"][measure]]
    ]
    columns = ("measure", "repetitions", "average ranks", "Friedman", "critical difference", "in words")
    yield el("details", el("summary", "Ranks by every measure"), table(columns, ranks, numbers=(1, 4), wide=(0, 2, 5)))


def environment(view: ComparisonView) -> Iterator[Content]:
    """What it takes to run the comparison again."""
    began = [event for event in view.events if event["type"] == "began"]
    last: dict[str, Any] = began[-1] if began else {}
    yield el("h2", "Environment")
    about = {"sessions": len(began), "reference": view.reference, "seeds": sorted({row["seed"] for row in view.trials})}
    yield el(
        "div",
        pairs("Comparison", about),
        pairs("Versions", last.get("versions", {})),
        pairs("Machine of the driver", last.get("machine", {})),
        class_="pair",
    )
    yield el("details", el("summary", "Resolved configuration"), el("pre", view.config))


SECTIONS = (head, verdicts, calibration, by_data, charts, failures, methods, environment)


def spread(found: Row) -> str:
    """Mean with its interval, or its standard deviation where there is none."""
    if found["mean"] is None:
        return NOTHING
    if found["low"] is not None:
        return f"{decimal(found['mean'])} [{decimal(found['low'])}, {decimal(found['high'])}]"
    return f"{decimal(found['mean'])} ± {decimal(found['sd'])}" if found["sd"] is not None else decimal(found["mean"])


def p_value(value: float | None) -> str:
    """Two significant digits."""
    return NOTHING if value is None else f"{value:.2g}"


def _differences(view: ComparisonView, rows: list[Row]) -> Content:
    columns = ("arm", "data", "pairs", f"mean difference to {view.reference}", "interval", "better", "worse", "equal", "p",
               "p, Holm", "verdict")  # fmt: skip
    cells = [
        (
            _named(view, row["arm"]),
            "all" if row["data"] is None else row["data"],
            count(row["n"]),
            signed(row["mean"]),
            NOTHING if row["low"] is None else f"[{signed(row['low'])}, {signed(row['high'])}]",
            count(row["better"]),
            count(row["worse"]),
            count(row["equal"]),
            p_value(row["p"]),
            p_value(row["p_holm"]),
            row["verdict"] or "",
        )
        for row in rows
    ]
    classes = ["marked" if row["data"] is None else "" for row in rows]
    return table(columns, cells, numbers=range(2, 10), wide=(10,), classes=classes)


def _named(view: ComparisonView, arm: str) -> Content:
    return [swatch(view.colours.of(arm)), arm]
