"""What a campaign left, for Python: its summary and its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrow.population.folder import CampaignFolder

if TYPE_CHECKING:
    from raygrow.predictor import Predictor


@dataclass(frozen=True)
class Grown:
    """A network that a campaign grew.

    Attributes:
        folder: of the campaign.
        figures: its entry in ``summary.json``.
    """

    folder: Path
    figures: Mapping[str, Any]

    def load(self) -> Predictor:
        """The network as a torch module: raw features in; class probabilities, or targets in original units, out."""
        from raygrow.predictor import Predictor

        checkpoint = CampaignFolder(self.folder).store.load(self.figures["checkpoint"])
        return Predictor(checkpoint.network, checkpoint.preprocessing).eval()


@dataclass(frozen=True)
class Result:
    """What a campaign left.

    Attributes:
        folder: DIR of the contract.
        summary: content of ``summary.json``.
    """

    folder: Path
    summary: Mapping[str, Any]

    @property
    def best(self) -> Grown:
        """The network with the lowest validation loss."""
        return Grown(self.folder, self.summary["best"])

    @property
    def members(self) -> dict[str, Grown]:
        """The last network of every member."""
        return {figures["member"]: Grown(self.folder, figures) for figures in self.summary["members"]}
