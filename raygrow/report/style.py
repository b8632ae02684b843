"""The style sheets: of the drawings, which also stand alone, and of the page around them."""

from __future__ import annotations

import re

COLOURS = 8
"""Of strategies; a ninth begins again."""

# Found by search: c0 to c7 stay apart for people who confuse red with green or blue with yellow, and stand out from the paper.
LIGHT = {
    "paper": "#ffffff", "ink": "#1c2330", "quiet": "#667085", "rule": "#e4e7ec", "raised": "#f7f8fa", "accent": "#b7791f",
    "good": "#16794c", "warm": "#a85600", "dull": "#98a1b0",
    "c0": "#766efa", "c1": "#ab261e", "c2": "#279e66", "c3": "#560a77",
    "c4": "#ba8001", "c5": "#f141b8", "c6": "#4d4d6d", "c7": "#63192b",
}  # fmt: skip
DARK = {
    "paper": "#12161d", "ink": "#e6e9ef", "quiet": "#97a1b3", "rule": "#2a313d", "raised": "#1a202a", "accent": "#f0b64a",
    "good": "#4cc38a", "warm": "#f2a65a", "dull": "#6c7789",
    "c0": "#456bf5", "c1": "#c43d30", "c2": "#60efc2", "c3": "#d2a3fa",
    "c4": "#f2b807", "c5": "#b53b9a", "c6": "#c4e283", "c7": "#8f6167",
}  # fmt: skip


def _properties(palette: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


_RULES = """
svg { background: var(--paper); }
svg text { font: 12px ui-sans-serif, system-ui, "Segoe UI", Roboto, sans-serif; fill: var(--quiet); }
svg text.small { font-size: 11px; }
svg text.axis { font-weight: 500; }
svg text.name { fill: var(--ink); font-size: 13px; font-weight: 600; }
svg text.title { fill: var(--ink); font-size: 15px; font-weight: 600; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .zero { stroke: var(--quiet); stroke-width: 1; }
svg .price { stroke: var(--accent); stroke-width: 1.6; stroke-dasharray: 6 4; }
svg .front { fill: none; stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 2 3; }
svg .trail { fill: none; stroke-width: 1.8; stroke-opacity: 0.6; }
svg .thin { fill: none; stroke-width: 1; stroke-opacity: 0.35; }
svg .bar-of-ranks { stroke: var(--ink); stroke-width: 3.5; }
svg .head { stroke: var(--paper); stroke-width: 1.2; }
svg .unchanged { fill: var(--paper); stroke-width: 1.4; }
svg .star { fill: var(--accent); stroke: var(--paper); stroke-width: 1.2; }
svg .ring { fill: none; stroke: var(--accent); stroke-width: 2.4; }
svg .move.granted { fill: var(--good); stroke: var(--paper); stroke-width: 1; }
svg .move.accepted { fill: var(--paper); stroke: var(--warm); stroke-width: 1.8; }
svg .move.rejected { fill: none; stroke: var(--dull); stroke-width: 1.6; }
svg .bar { stroke-width: 1; stroke-opacity: 0.5; }
svg .bar.granted { stroke: var(--good); }
svg .bar.accepted { stroke: var(--warm); }
svg .bar.rejected { stroke: var(--dull); }
""" + "".join(
    f"svg .trail.c{i}, svg .thin.c{i}, svg .unchanged.c{i} {{ stroke: var(--c{i}); }} svg .head.c{i} {{ fill: var(--c{i}); }}\n"
    for i in range(COLOURS)
)

DRAWING_STYLE = f"""
:root {{ {_properties(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_properties(DARK)} }} }}
{_RULES}"""
"""Of a drawing in a page or a file of its own, which follows the reader's light or dark."""

PLAIN_STYLE = re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], _RULES)
"""The same in light colours and without variables, for a rasteriser."""

PAGE_STYLE = """
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5; font-size: 15px;
  font-family: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1320px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.015em; }
h2 { font-size: 19px; margin: 48px 0 12px; letter-spacing: -0.01em; }
h3 { font-size: 15px; margin: 20px 0 8px; }
figure h3 { margin-top: 0; }
.notes { padding-left: 20px; max-width: 96ch; }
p { margin: 0 0 12px; max-width: 76ch; }
.quiet, .empty, figcaption { color: var(--quiet); }
.pill {
  display: inline-block; border-radius: 99px; padding: 2px 11px; font-size: 12.5px; font-weight: 600; margin-left: 12px;
  vertical-align: middle; border: 1px solid currentColor; color: var(--good);
}
.pill.open { color: var(--warm); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: 12px; margin: 24px 0 0; }
.fact { background: var(--raised); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }
.fact b {
  display: block; font-size: 20px; font-weight: 650; line-height: 1.3; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.fact span { color: var(--quiet); font-size: 13px; }
.pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 28px; align-items: start;
}
.pair + .pair { margin-top: 28px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; margin-top: 6px; }
.chart { width: 100%; height: auto; display: block; }
.swatch { width: 13px; height: 13px; vertical-align: -2px; margin-right: 6px; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 10px; }
.scroll .tree, .scroll .sites { display: block; max-width: none; }
.lane { width: max-content; min-width: 100%; margin: 0; border: 0; border-bottom: 1px solid var(--rule); border-radius: 0; }
.lane > summary { position: sticky; left: 0; width: fit-content; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td {
  text-align: left; padding: 7px 10px; border-top: 1px solid var(--rule); vertical-align: top; white-space: nowrap;
}
thead th {
  border-top: 0; background: var(--raised); color: var(--quiet); font-weight: 600; font-size: 12.5px;
  vertical-align: bottom; white-space: normal;
}
td.n, th.n { text-align: right; }
td.w { white-space: normal; min-width: 170px; }
tr.marked td { background: color-mix(in srgb, var(--accent) 10%, transparent); }
tr.granted td:first-child { box-shadow: inset 3px 0 var(--good); }
code, pre { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { margin: 0; padding: 14px 16px; overflow-x: auto; }
details { border: 1px solid var(--rule); border-radius: 10px; margin: 12px 0 0; }
summary { cursor: pointer; padding: 10px 16px; font-weight: 600; font-size: 14px; }
details .scroll { border: 0; border-top: 1px solid var(--rule); border-radius: 0; }
details > .pair { padding: 16px; }
details > p { padding: 0 16px; }
details pre { border-top: 1px solid var(--rule); }
@media print { details > * { display: block; } main { padding: 0; } }
"""
