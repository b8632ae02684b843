"""Fit, evaluate and probe, on tensors in memory."""

from raygrow.training.evaluate import Score, metric_of, outputs_of, score
from raygrow.training.examples import Examples, ExampleSets, example_order
from raygrow.training.fit import Learned, Lesson, fit, teach
from raygrow.training.pack import Pack
from raygrow.training.probe import ForkResult, Probe, ProbePlan, run_probe
from raygrow.training.store import Fork

__all__ = [
    "ExampleSets", "Examples", "Fork", "ForkResult", "Learned", "Lesson", "Pack", "Probe", "ProbePlan", "Score",
    "example_order", "fit", "metric_of", "outputs_of", "run_probe", "score", "teach",
]  # fmt: skip
