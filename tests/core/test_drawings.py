"""The figures of a campaign: what they show, against the ledger they are drawn from, and that their files can be read."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event
from raygrow.report import lineage_dot, lineage_svg, page, write_page
from raygrow.report.charts import rank_correlation
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.plot import legend
from raygrow.report.sites import OTHERS, ROWS, sites_chart
from raygrow.report.style import DARK, DRAWING_STYLE, LIGHT, PAGE_STYLE, PLAIN_STYLE
from raygrow.report.tree import LARGEST, SMALLEST, edge_words, radius, tree
from raygrow.report.view import View
from tests.core.drawn_campaigns import drawn_campaign

SPACE = "{http://www.w3.org/2000/svg}"
MEMBERS = {"mdl": "mdl", "rl": "rl", "other": "mdl"}
ROUNDS, CANDIDATES = 5, 4


@pytest.fixture(scope="module")
def campaign() -> tuple[Coordinator, list[Event]]:
    return drawn_campaign(MEMBERS, ROUNDS, CANDIDATES)


@pytest.fixture(scope="module")
def view(campaign: tuple[Coordinator, list[Event]]) -> View:
    return View(*campaign)


def parsed(drawing: Drawing) -> ET.Element:
    return ET.fromstring(drawing.svg())


def of_class(root: ET.Element, class_: str) -> list[ET.Element]:
    return [element for element in root.iter() if class_ in (element.get("class") or "").split()]


def title(element: ET.Element) -> str:
    found = element.find(f"{SPACE}title")
    return (found.text or "") if found is not None else ""


def place(element: ET.Element) -> tuple[float, float]:
    return float(element.get("cx", "nan")), float(element.get("cy", "nan"))


def test_every_figure_is_a_file_that_can_be_read(
    campaign: tuple[Coordinator, list[Event]], view: View, tmp_path: Path
) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "gone.svg").write_text("of a figure that is no more")
    (figures / "My Notes.txt").write_text("a person's own")
    write_page(*campaign, tmp_path / "report.html", figures)
    assert not (figures / "gone.svg").exists()
    assert (figures / "My Notes.txt").exists()
    assert len(view.drawings) == 6
    for name, drawing in view.drawings.items():
        root = ET.fromstring((figures / f"{name}.svg").read_text())
        assert root.get("viewBox") == f"0 0 {drawing.width:.0f} {drawing.height + 34:.0f}"
        with Image.open(figures / f"{name}.png") as image:
            assert image.width / image.height == pytest.approx(drawing.width / (drawing.height + 34), rel=0.01)
            pixels = np.asarray(image.convert("RGB")).astype(np.int64) @ [65536, 256, 1]
        colours = set(np.unique(pixels).tolist())
        # Paper, grid, letters and marks; a rasteriser that knew no style would give black on white.
        assert 0xFFFFFF in colours
        assert len(colours) > 20
        assert (int(LIGHT["c0"][1:], 16) in colours) == ("c0" in drawing.marks)


def test_no_style_asks_for_a_colour_that_is_not_there() -> None:
    assert LIGHT.keys() == DARK.keys()
    asked = set(re.findall(r"var\(--([\w-]+)\)", DRAWING_STYLE + PAGE_STYLE))
    assert asked <= LIGHT.keys()
    assert "var(" not in PLAIN_STYLE
    assert "@media" not in PLAIN_STYLE


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_marks_stand_out_from_the_paper(palette: dict[str, str]) -> None:
    def contrast(name: str, ground: str) -> float:
        high, low = sorted((luminance(palette[name]), luminance(palette[ground])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "raised"):
        for name in ("ink", "quiet", "good", "warm"):
            assert contrast(name, ground) >= 4.5, (name, ground)
    for name in ("accent", *(f"c{i}" for i in range(8))):
        assert contrast(name, "paper") >= 3, name


SIGHT = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What is left of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""


def seen(colour: str, sight: list[list[float]]) -> np.ndarray[Any, Any]:
    """CIE L*a*b* of a colour as somebody sees it."""
    stored = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(sight @ np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    parts = np.cbrt(np.maximum(xyz @ linear / [0.95047, 1, 1.08883], 0.008856))
    return np.array([116 * parts[1] - 16, 500 * (parts[0] - parts[1]), 200 * (parts[1] - parts[2])])


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_stay_apart_whatever_one_sees(palette: dict[str, str], sight: str) -> None:
    points = [seen(palette[f"c{i}"], SIGHT[sight]) for i in range(8)]
    apart = min(float(np.linalg.norm(a - b)) for i, a in enumerate(points) for b in points[:i])
    # 2.3 is just noticeable side by side; marks are small and far from one another.
    assert apart >= 20


def test_a_colour_a_strategy_or_else_a_member() -> None:
    by_strategy = Colours(MEMBERS)
    assert [by_strategy.of(name) for name in MEMBERS] == ["c0", "c1", "c0"]
    assert by_strategy.legend() == [("c0", "mdl (mdl, other)"), ("c1", "rl")]
    by_member = Colours({"a": "mdl", "b": "mdl"})
    assert [by_member.of(name) for name in "ab"] == ["c0", "c1"]
    assert by_member.legend() == [("c0", "a"), ("c1", "b")]
    assert Colours({f"m{i}": f"s{i}" for i in range(9)}).of("m8") == "c0"


# the tree


def test_the_tree_has_sizes_by_flops_colours_by_strategy_and_words_on_its_edges(view: View) -> None:
    root = parsed(view.drawings["lineage"])
    nodes = view.nodes
    assert len(nodes) == 3 * (ROUNDS + 1)
    circles = {title_of: circle for group in root.iter(f"{SPACE}g") if (title_of := title(group))
               for circle in group.findall(f"{SPACE}circle") if circle.get("class", "").startswith("head")}  # fmt: skip
    assert len(circles) == len(nodes)
    largest = max(node.flops_per_example for node in nodes)
    text = [(element.text or "") for element in root.iter(f"{SPACE}text")]
    for node in nodes:
        circle = next(c for words, c in circles.items() if words.startswith(f"{node.member}, round {node.round}:"))
        share = float(circle.get("r", "nan")) ** 2 / LARGEST**2
        assert share == pytest.approx(max(node.flops_per_example / largest, (SMALLEST / LARGEST) ** 2), rel=0.01)
        assert circle.get("class") == f"head {'c1' if node.strategy == 'rl' else 'c0'}"
        if node.move is not None:
            assert f"{1000 * node.gain / node.added_flops:+.3g} per kFLOP" in text  # type: ignore[operator]
            assert any(word.startswith(node.move) and word.endswith(f"+{node.units}") for word in text)
    assert len(of_class(root, "trail")) == sum(node.parent is not None for node in nodes)
    # Time runs to the right, a lane a member.
    for member in MEMBERS:
        own = [place(circle) for words, circle in circles.items() if words.startswith(f"{member}, ")]
        assert [x for x, _ in own] == sorted(x for x, _ in own)
        assert len({y for _, y in own}) == 1
    assert len(of_class(root, "ring")) == 2  # the best network's, and the legend's


def test_what_was_passed_over_hangs_under_the_network_it_was_tried_on(view: View) -> None:
    passed = [candidate for candidate in view.record.probed if not candidate.granted]
    assert len(passed) == 3 * ROUNDS * (CANDIDATES - 1)
    root = parsed(tree(view.nodes, view.colours, view.best, passed))
    crosses = [element for element in of_class(root, "rejected") if title(element)]
    assert len(crosses) == len(passed)
    assert {title(element).split(":")[0] for element in crosses} == {c.row["id"].split(":")[0] for c in passed}
    without = tree(view.nodes, view.colours, view.best)
    assert "rejected" not in without.marks
    assert without.height < float(root.get("height", "0")) - 34
    heads = {
        words: place(c) for g in root.iter(f"{SPACE}g") if (words := title(g)) for c in g.findall(f"{SPACE}circle")
    }
    for element in crosses:
        member, number = title(element).split("/")[:2]
        x, y = next(at for words, at in heads.items() if words.startswith(f"{member}, round {int(number) - 1}:"))
        across, down = map(float, re.findall(r"M([\d.]+) ([\d.]+)", element.get("d", ""))[0])
        assert abs(across - x) < 79
        assert 40 < down - y < 120


def test_dot_and_svg_draw_the_same_tree(view: View) -> None:
    nodes = view.nodes
    dot = lineage_dot(nodes)
    largest = max(node.flops_per_example for node in nodes)
    for node in nodes:
        line = next(line for line in dot.splitlines() if line.startswith(f'  "{node.key}" ['))
        assert f"width={radius(node, largest) / 18:.2f}" in line
        assert f'fillcolor="{LIGHT["c1" if node.strategy == "rl" else "c0"]}"' in line
        if node.parent is not None:
            words = r"\n".join(edge_words(node))
            assert f'  "{node.parent}" -> "{node.key}" [label="{words}"];' in dot
    alone = ET.fromstring(lineage_svg(nodes, "rl"))
    # The same colour as in the tree of all members.
    assert {c.get("class") for c in alone.iter(f"{SPACE}circle") if title(c) == "" and "c1" in (c.get("class") or "")}


def test_a_saving_move_has_no_gain_per_flop_on_its_edge(view: View) -> None:
    saved = dataclasses.replace(view.nodes[1], move="prune", units=3, added_flops=-96, gain=-0.001, gain_per_flop=None)
    assert edge_words(saved)[1] == "-0.001 for -96" or edge_words(saved)[1] == "-0.0010 for -96"


def test_a_long_site_leaves_the_size_of_the_move_in_sight(view: View) -> None:
    long = dataclasses.replace(view.nodes[1], move="add_node", site="h1+h2+h3+input>h9+output", units=16)
    text = [
        element.text or "" for element in parsed(tree([view.nodes[0], long], view.colours, None)).iter(f"{SPACE}text")
    ]
    (label,) = [words for words in text if words.startswith("add_node")]
    assert label.endswith("… +16")
    assert len(label) <= 22


# the charts


@pytest.mark.parametrize("cost", ["inference", "training"])
def test_the_front_is_under_every_head(view: View, cost: str) -> None:
    root = parsed(view.drawings[f"quality-{cost}"])
    (front,) = [element for element in of_class(root, "front") if element.tag == f"{SPACE}path"]
    numbers = [
        (op, [float(v) for v in rest.split()]) for op, rest in re.findall(r"([MHV])([\d. ]+)", front.get("d", ""))
    ]
    x, y = numbers[0][1]
    corners = [(x, y)]
    for op, (value,) in [(op, values[:1]) for op, values in numbers[1:]]:
        x, y = (value, y) if op == "H" else (x, value)
        corners.append((x, y))
    marks = [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in root.iter(f"{SPACE}circle") if title(c)]
    marks += [(float(r.get("x", "nan")) + 4.5, float(r.get("y", "nan")) + 4.5) for r in root.iter(f"{SPACE}rect")]
    assert len(marks) == len([head for head in view.record.heads if head.round > 0 or head.final])
    for across, up in marks:
        reached = min((b for a, b in corners if a <= across + 0.1), default=math.inf)
        assert reached <= up + 0.1, "a head lies above the front"
    assert all(any(abs(a - x) < 0.1 and abs(b - y) < 0.1 for x, y in marks) for a, b in corners[::2][:-1])


def test_the_training_flops_of_a_head_are_all_that_its_member_had_spent(view: View) -> None:
    own = [head for head in view.record.heads if head.member == "rl"]
    assert [head.train_flops for head in own] == [100_000 * (i + 1) for i in range(ROUNDS + 2)]


def test_predictions_that_came_true_lie_on_the_diagonal(view: View) -> None:
    root = parsed(view.drawings["calibration"])
    line = next(element for element in of_class(root, "zero"))
    x1, y1, x2, y2 = (float(line.get(key, "nan")) for key in ("x1", "y1", "x2", "y2"))
    drawn = [c for c in of_class(root, "granted") if c.tag == f"{SPACE}circle" and title(c)]
    rows = {c.row["id"]: c.row for c in view.record.probed}
    assert len(drawn) == 3 * ROUNDS
    for circle in drawn:
        x, y = place(circle)
        row = rows[title(circle).split(": gain")[0]]
        # Higher pixels are lower: above the diagonal is where more was gained than predicted.
        on_line = y1 + (x - x1) / (x2 - x1) * (y2 - y1)
        assert (y < on_line) == (row["gain"] > row["predicted_gain"])


def test_the_rank_correlation_is_spearmans() -> None:
    # One swap among five: 1 - 6 * 2 / (5 * 24) = 0.9.
    assert (
        rank_correlation([1, 2, 3, 4, 5], [10, 20, 40, 30, 50]) == "Spearman's rank correlation 0.90 over 5 candidates."
    )
    # Ties, against scipy.
    predicted, gains = [0.5, 0.1, 0.5, 0.2, 0.5, 0.1, 0.9], [1.0, 2.0, 0.0, 2.0, 3.0, 2.0, 1.0]
    expected = spearmanr(predicted, gains).statistic
    assert f"correlation {expected:.2f} over" in rank_correlation(predicted, gains)
    assert "too few" in rank_correlation([1, 2], [2, 1])
    assert "too few" in rank_correlation([1, 1, 1], [1, 2, 3])


def test_growth_stands_at_its_site_and_round(view: View) -> None:
    probed = view.record.probed
    root = parsed(sites_chart(probed, ROUNDS, view.colours))
    drawn = {title(c).split(": gain")[0]: place(c) for c in root.iter(f"{SPACE}circle") if title(c)}
    granted = {c.row["id"]: c for c in probed if c.granted}
    assert drawn.keys() == granted.keys()
    for one in granted:
        for other in granted:
            (x1, y1), (x2, y2) = drawn[one], drawn[other]
            assert (y1 == y2) == (granted[one].row["site"] == granted[other].row["site"])
            if granted[one].round < granted[other].round:
                assert x1 < x2
    assert len(of_class(root, "rejected")) == len(probed) - len(granted) + 1


def test_many_sites_share_a_last_row(view: View) -> None:
    probed = [
        dataclasses.replace(c, row={**c.row, "site": f"h{i}"}, granted=i >= 40)
        for i, c in enumerate(view.record.probed)
    ]
    assert len(probed) == 60
    drawing = sites_chart(probed, ROUNDS, view.colours)
    # The whole name is a title before the text.
    names = [
        (element[0].tail if len(element) else element.text) or "" for element in parsed(drawing).iter(f"{SPACE}text")
    ]
    assert [name for name in names if re.fullmatch(r"h\d+", name) or name == OTHERS][-1] == OTHERS
    # Those where something grew come first.
    assert sum(re.fullmatch(r"h\d+", name) is not None for name in names) == ROWS - 1
    assert {f"h{i}" for i in range(40, 60)} <= set(names)


def test_a_legend_keeps_within_its_width() -> None:
    drawn, end = legend([("c0", "a" * 20)] * 7, 400.0, 100.0)
    root = ET.fromstring(f"<g>{drawn}</g>")
    places = [(float(t.get("x", "nan")), float(t.get("y", "nan"))) for t in root.iter("text")]
    assert len({y for _, y in places}) == 4
    assert all(x + 20 * 6.9 <= 400 for x, _ in places)
    assert end > max(y for _, y in places) > 100
    assert legend([], 400.0, 100.0) == ("", 100.0)


def test_the_page_of_a_large_campaign_is_closed_at_first() -> None:
    coordinator, events = drawn_campaign({f"m{i}": "mdl" for i in range(8)}, 30, 1)
    text = page(coordinator, events)
    lanes = re.findall(r'<details( open="open")? class="lane">', text)
    assert len(lanes) == 8
    assert sum(map(bool, lanes)) == 1
    small = page(*drawn_campaign({"a": "mdl", "b": "rl"}, 3, 1))
    assert re.findall(r'<details( open="open")? class="lane">', small) == [' open="open"'] * 2


def test_pictures_are_not_finer_than_can_be_written_quickly() -> None:
    wide: Any = Drawing("wide", "Wide", tree([], Colours({}), None).marks, 60_000.0, 500.0)
    with Image.open(io.BytesIO(wide.png())) as image:
        assert image.width <= 16_000
        assert image.width * image.height <= 4.2e6
