"""A drawing once described: inline in the page, as a file of its own, and as pixels."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raygrow.population.ledger import write_atomically
from raygrow.report.markup import Markup, el
from raygrow.report.style import DRAWING_STYLE, PLAIN_STYLE

NAME_SPACE = "http://www.w3.org/2000/svg"
TITLE = 34.0
"""Height of the line above a drawing that stands alone."""
FINENESS, PIXELS, LONGEST = 1.6, 4e6, 16_000.0
"""Pixels of a raster image for one of the drawing; at most so many in all, and in a row. Finer ones take seconds to write, and
a long lineage is to be zoomed into as SVG."""


@dataclass(frozen=True)
class Drawing:
    """One figure of a page.

    Attributes:
        name: of its files, without ending.
        title: above it.
        marks: what is drawn, legend and all.
        width, height: in pixels.
        caption: how to read it, in the page.
    """

    name: str
    title: str
    marks: Markup
    width: float
    height: float
    caption: str = ""

    def inline(self, class_: str = "chart", fixed: bool = False) -> Markup:
        """As an element of a page. ``fixed``: in its own size, else as wide as there is room."""
        size = {"width": self.width, "height": self.height} if fixed else {}
        return el("svg", self.marks, viewBox=f"0 0 {self.width:.0f} {self.height:.0f}", class_=class_, role="img",
                  aria_label=self.title, id=f"figure-{self.name}", **size)  # fmt: skip

    def figure(self) -> Markup:
        """With title and caption."""
        return el("figure", el("h3", self.title), self.inline(), el("figcaption", self.caption))

    def svg(self) -> str:
        """A file of its own, which follows the viewer's light or dark."""
        return self._alone(el("style", Markup(DRAWING_STYLE)))

    def png(self) -> bytes:
        """A raster image in light colours.

        The rasteriser (resvg) sees the same elements as a browser. Its letters are those that come with Matplotlib, where
        MLflow has brought that, so that they do not depend on the machine's fonts.
        """
        import resvg_py

        whole = self.height + TITLE
        fineness = min(FINENESS, math.sqrt(PIXELS / (self.width * whole)), LONGEST / max(self.width, whole))
        fonts = _fonts()
        drawn: bytes = resvg_py.svg_to_bytes(
            svg_string=self._alone(el("style", Markup(PLAIN_STYLE))),
            background="white",
            zoom=fineness,
            skip_system_fonts=bool(fonts),
            font_files=fonts or None,
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
        return bytes(drawn)

    def _alone(self, style: Markup) -> str:
        width, height = f"{self.width:.0f}", f"{self.height + TITLE:.0f}"
        heading = el("text", self.title, x=12.0, y=22.0, class_="title")
        body = el("g", self.marks, transform=f"translate(0 {TITLE:.0f})")
        return el("svg", el("title", self.title), style, heading, body, xmlns=NAME_SPACE, width=width, height=height,
                  viewBox=f"0 0 {width} {height}")  # fmt: skip


def write_drawings(drawings: Iterable[Drawing], folder: Path) -> None:
    """Write ``NAME.svg`` and ``NAME.png`` of each, and remove those of drawings that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    for drawing in drawings:
        write_atomically(folder / f"{drawing.name}.svg", drawing.svg().encode())
        write_atomically(folder / f"{drawing.name}.png", drawing.png())
        written |= {f"{drawing.name}.svg", f"{drawing.name}.png"}
    for file in folder.iterdir():
        if re.fullmatch(r"[a-z0-9-]+\.(svg|png)", file.name) and file.name not in written:
            file.unlink()


def _fonts() -> list[str]:
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return [str(path) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf") if (path := folder / name).exists()]
