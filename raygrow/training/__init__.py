"""Fit, evaluate and probe, on tensors in memory."""

from raygrow.training.fit import Examples, ExampleSets, Score, WeightAverage, example_order, fit, outputs_of, score
from raygrow.training.probe import Fork, ForkResult, ProbePlan, run_probe

__all__ = [
    "ExampleSets", "Examples", "Fork", "ForkResult", "ProbePlan", "Score", "WeightAverage", "example_order", "fit",
    "outputs_of", "run_probe", "score",
]  # fmt: skip
