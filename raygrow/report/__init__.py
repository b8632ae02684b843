"""Tables, texts, figures and the HTML page of a campaign or a comparison, all derived from what they left."""

from raygrow.report.comparison_page import write_comparison_page
from raygrow.report.lineage import lineage_json, lineage_text
from raygrow.report.moves import moves_table, write_moves
from raygrow.report.page import page, write_page
from raygrow.report.summary import summary, summary_text, write_summary
from raygrow.report.tree import lineage_dot, lineage_svg

__all__ = [
    "lineage_dot", "lineage_json", "lineage_svg", "lineage_text", "moves_table", "page", "summary", "summary_text",
    "write_comparison_page",
    "write_moves", "write_page", "write_summary",
]  # fmt: skip
