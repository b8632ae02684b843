"""What the sections and drawings of a campaign's page draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raygrow.data import METRICS
from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event
from raygrow.population.lineage import LineageNode, lineage
from raygrow.report.charts import calibration_chart, price_chart, quality_chart
from raygrow.report.colours import Colours
from raygrow.report.drawing import Drawing
from raygrow.report.record import Record, read
from raygrow.report.sites import sites_chart
from raygrow.report.summary import WORDS, summary
from raygrow.report.tree import tree


@dataclass(frozen=True)
class View:
    """A campaign as its ledger has it.

    Attributes:
        coordinator: as replayed from ``events``.
        events: of the ledger, whole or cut anywhere.
    """

    coordinator: Coordinator
    events: Sequence[Event]

    @cached_property
    def record(self) -> Record:
        return read(self.events)

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        return summary(self.coordinator, self.events)

    @cached_property
    def nodes(self) -> list[LineageNode]:
        """The lineage."""
        return lineage(self.events)

    @cached_property
    def colours(self) -> Colours:
        return Colours({name: member["strategy"]["kind"] for name, member in self.record.members.items()})

    @cached_property
    def drawings(self) -> dict[str, Drawing]:
        """Every figure of the page, by name."""
        prices: dict[float, list[str]] = {}
        plan, facts = self.coordinator.plan, self.coordinator.facts
        for member in plan.members:
            prices.setdefault(facts.price(member.growth, plan), []).append(member.name)
        record = self.record
        drawn = [
            tree(self.nodes, self.colours, self.best),
            quality_chart(record.heads, self.colours, self.best, self.word, training=False),
            quality_chart(record.heads, self.colours, self.best, self.word, training=True),
            price_chart(record.probed, prices),
            calibration_chart(record.probed),
            sites_chart(record.probed, record.rounds, self.colours),
        ]
        return {drawing.name: drawing for drawing in drawn}

    @property
    def metric(self) -> str:
        """Key of the figure beside the loss."""
        return METRICS[self.summary["task"]]

    @property
    def word(self) -> str:
        """The same in prose."""
        return WORDS[self.metric]

    @property
    def best(self) -> str | None:
        best = self.summary["best"]
        return None if best is None else str(best["member"])
