"""Where growth happened over time: a row a site, a column a round."""

from __future__ import annotations

from collections.abc import Sequence

from raygrow.report.charts import STANDINGS, move_words, standing
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.markup import Markup, el
from raygrow.report.plot import LETTER, WIDTH, legend, move_shape, nothing
from raygrow.report.record import Probed

ROWS = 30
"""Sites that have a row of their own; what happened at the others is one row."""
ROW, HEAD, MEMBER = 24.0, 30.0, 14.0
OTHERS = "other sites"


def sites_chart(probed: Sequence[Probed], rounds: int, colours: Colours) -> Drawing:
    """Candidates at their site and round; members stand side by side in a cell.

    Args:
        rounds: of the campaign so far.
    """
    title = "Where growth happened: sites by rounds"
    if not probed:
        return nothing("sites", title, "No move has been probed yet.")
    grown = [candidate.row["site"] for candidate in probed if candidate.granted]
    # Where nothing grew comes last; within, in the order of time.
    sites = list(dict.fromkeys([*grown, *(candidate.row["site"] for candidate in probed)]))
    shown = sites if len(sites) <= ROWS else [*sites[: ROWS - 1], OTHERS]
    members = list(colours.members)
    left = 16 + LETTER * min(max(map(len, shown)), 28)
    cell = max(MEMBER * len(members), 30.0)
    columns = sorted({candidate.round for candidate in probed} | set(range(1, rounds + 1)))
    places = {number: left + cell * i for i, number in enumerate(columns)}
    width, height = max(left + cell * len(columns) + 12, WIDTH), HEAD + ROW * len(shown)
    drawn: list[Markup] = []
    for number, x in places.items():
        drawn.append(el("text", str(number), x=x + cell / 2, y=20.0, text_anchor="middle", class_="axis"))
        drawn.append(el("line", x1=x, x2=x, y1=HEAD, y2=height, class_="grid"))
    for i, site in enumerate(shown):
        y = HEAD + ROW * i
        words = site if len(site) <= 28 else f"{site[:27]}…"
        drawn.append(el("line", x1=0.0, x2=width, y1=y, y2=y, class_="grid"))
        drawn.append(el("text", el("title", site), words, x=left - 8, y=y + 16, text_anchor="end"))
    rows = {site: i for i, site in enumerate(shown)}
    order = {"rejected": 0, "accepted": 1, "granted": 2}
    for candidate in sorted(probed, key=lambda candidate: order[standing(candidate)]):
        row, kind = rows.get(candidate.row["site"], len(shown) - 1), standing(candidate)
        x = places[candidate.round] + cell * (members.index(candidate.member) + 0.5) / len(members)
        y = HEAD + ROW * (row + 0.5)
        if kind == "granted":
            words = el("title", move_words(candidate))
            drawn.append(el("circle", words, cx=x, cy=y, r=6.0, class_=f"head {colours.of(candidate.member)}"))
        else:
            drawn.append(move_shape(kind, x, y, move_words(candidate), 0.7))
    below, end = legend([*colours.legend(), *STANDINGS[1:]], width, height)
    caption = (
        "Filled: a move that was adopted, in the colour of its strategy; hollow: accepted, but another was granted; crosses: "
        "probed and rejected. Members stand side by side within a round."
    )
    return Drawing("sites", title, Markup("".join([*drawn, below])), width, end, caption)
