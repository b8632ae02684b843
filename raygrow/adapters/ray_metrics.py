"""Figures of a campaign as Ray metrics: they stand beside Ray's own on the Prometheus endpoint of the driver's node.

Ray adds ``ray_`` to every name. The endpoint comes with ``ray[default]``; without it what is set here goes nowhere.
"""

from __future__ import annotations

from dataclasses import asdict

from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event
from raygrow.population.standing import granted_gain_per_flop, standing

GAUGES: dict[str, tuple[str, str]] = {
    "raygrow_round": ("round", "The open round, from 1."),
    "raygrow_outstanding_tasks": ("outstanding", "Tasks of the open phase that were not reported."),
    "raygrow_best_validation_loss": ("best_validation_loss", "Lowest validation loss of a head."),
    "raygrow_granted_flops": ("granted_flops", "Added FLOPs per example of all moves adopted so far."),
    "raygrow_train_flops": ("train_flops", "Training FLOPs that the population spent in closed phases."),
    "raygrow_gain_per_flop": ("gain_per_flop", "Highest validation gain per added FLOP of the last grants."),
}
"""Name of each gauge: the figure it shows, and what that means."""


class Gauges:
    """Shows one campaign; this process must be connected to Ray.

    Args:
        coordinator: read only. The name of its campaign is the tag ``campaign`` of every gauge.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        from ray.util.metrics import Gauge

        self._coordinator = coordinator
        self._tags = {"campaign": coordinator.plan.campaign.name}
        self._gauges = {
            figure: Gauge(name, description=meaning, tag_keys=("campaign",))
            for name, (figure, meaning) in GAUGES.items()
        }

    def heard(self, event: Event) -> None:
        """Told after every event. A figure that is not defined leaves its gauge where it was."""
        figures = asdict(standing(self._coordinator))
        if event["type"] == "decided":
            figures["gain_per_flop"] = granted_gain_per_flop(event)
        for figure, gauge in self._gauges.items():
            if figures.get(figure) is not None:
                gauge.set(figures[figure], self._tags)
