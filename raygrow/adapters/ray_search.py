"""Searches of Ray Tune as baselines: every FLOP of every trial counted, the winner chosen on validation."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search.basic_variant import BasicVariantGenerator
from safetensors.torch import load_file

from raygrow.adapters.ray_trials import WEIGHTS, AshaTrial, PbtTrial, architecture_of
from raygrow.architecture import digest_seed, forward_flops, training_flops
from raygrow.baselines import Asha, Pbt
from raygrow.baselines.base import AbstractSearch, Repetition, Trained, entry
from raygrow.baselines.fixed import sized
from raygrow.baselines.nets import examples
from raygrow.errors import CampaignFailed, ConfigError
from raygrow.nn import Network
from raygrow.nn.losses import LOSSES
from raygrow.training import Score, score

FACTORS = (0.8, 1.25)
QUARTER = 0.25


@dataclass(frozen=True, eq=False)
class Found:
    """What a search spent and found, judged on validation alone.

    Attributes:
        network: the winner.
        validation: by which it won.
        train_flops: of every trial, validation passes counted.
        lineage_train_flops: of the winner's trial.
        epochs: of all trials together.
        seconds: from the call to the winner, in a Ray that runs already.
        config: of the winner.
        history: the best so far, whenever there was a better one.
        exchanges: networks that took over another's weights.
        stopped_because: None where it ran to its end.
    """

    network: Network
    validation: Score
    train_flops: int
    lineage_train_flops: int
    epochs: int
    seconds: float
    config: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    exchanges: int
    stopped_because: str | None


def run_search(
    baseline: AbstractSearch, repetition: Repetition, concurrent: int | None = None, cpus_per_trial: float = 1.0
) -> dict[str, Any]:
    """Search, read test once for the winner, and sum up. Ray must run already.

    Args:
        concurrent: most trials of asha at once; None, and pbt: as many as there are CPUs for.

    Raises:
        ConfigError: the budget allows no network of the search.
        CampaignFailed: a trial of the search failed.
    """
    found = search(baseline, repetition, concurrent, cpus_per_trial)
    test = score(found.network, examples(repetition.dataset.test), LOSSES[repetition.facts.task])
    trials = baseline.trials if isinstance(baseline, Asha) else found.exchanges
    return Trained(
        found.network.arch, found.validation, test, found.train_flops, found.history, found.epochs, found.seconds,
        found.lineage_train_flops, tried=trials, taken=1 if isinstance(baseline, Asha) else found.exchanges,
        stopped_because=found.stopped_because,
    ).summary(baseline, repetition)  # fmt: skip


def search(
    baseline: AbstractSearch, repetition: Repetition, concurrent: int | None = None, cpus_per_trial: float = 1.0
) -> Found:
    """Search and choose on validation; the test split is not read. Ray must run already; see ``run_search``."""
    if isinstance(baseline, Asha):
        trainable, how = AshaTrial, _asha(baseline, repetition)
    elif isinstance(baseline, Pbt):
        trainable, how = PbtTrial, _pbt(baseline, repetition)
    else:
        raise ConfigError(f"{type(baseline).__name__} is no search of Ray Tune: asha and pbt are")
    # Baselines write no logs for people.
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    storage = (repetition.folder / "tune").resolve()
    # What a search that was cut off has left there is no part of this one.
    shutil.rmtree(storage, ignore_errors=True)
    begun = time.perf_counter()
    word = storage / "spent"
    bill = _Bill(how, repetition.train_flops, word)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, baseline=baseline, repetition=repetition, word=word), {"cpu": cpus_per_trial}
        ),
        param_space=dict(how.space),
        tune_config=tune.TuneConfig(
            metric="score", mode="max", num_samples=how.samples, scheduler=how.scheduler,
            search_alg=BasicVariantGenerator(random_state=repetition.seed, max_concurrent=how.concurrent(concurrent)),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=baseline.kind,
            storage_path=str(storage),
            verbose=0,
            stop=bill,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, checkpoint_frequency=0),
            # Networks in step would wait for one that failed.
            failure_config=tune.FailureConfig(fail_fast=True),
        ),
    )  # fmt: skip
    results = tuner.fit()
    if results.errors:
        raise CampaignFailed(f"{baseline.kind}: a trial of the search failed: {results.errors[0]}")
    found = _found(baseline, results, bill, how, repetition, time.perf_counter() - begun)
    shutil.rmtree(storage)
    return found


@dataclass(frozen=True)
class _How:
    """What Tune is told of a search.

    Attributes:
        epochs: most of a trial.
        cut: whether they were chosen so that the budget pays for all.
        exchanges: grows by one whenever a network takes over another's weights.
    """

    space: Mapping[str, Any]
    samples: int
    epochs: int
    scheduler: Any
    cut: bool = False
    exchanges: list[str] = field(default_factory=list)

    def concurrent(self, most: int | None) -> int:
        """Trials that there may be at once; 0: no limit. A population must be there as a whole, whether it runs or waits."""
        return 0 if most is None or isinstance(self.scheduler, _Exchange) else most


def _asha(baseline: Asha, repetition: Repetition) -> _How:
    low, high = baseline.width
    return _How(
        space={
            "layers": tune.choice(list(baseline.hidden_layers)),
            **{
                f"width_{i}": tune.lograndint(low, high + 1)
                for i in range(1, max(baseline.hidden_layers, default=0) + 1)
            },
            "lr": tune.loguniform(*baseline.lr),
        },
        samples=baseline.trials,
        epochs=baseline.epochs,
        scheduler=ASHAScheduler(
            time_attr="training_iteration",
            max_t=baseline.epochs,
            grace_period=min(baseline.grace_epochs, baseline.epochs),
            reduction_factor=baseline.reduction_factor,
        ),
    )


def _pbt(baseline: Pbt, repetition: Repetition) -> _How:
    arch = sized(repetition, baseline.hidden, baseline.flops_per_example)
    data, limit = repetition.dataset, repetition.train_flops
    rows = len(data.train) + len(data.search)
    epoch = baseline.population * (rows * training_flops(arch) + len(data.validation) * forward_flops(arch))
    # Networks in step wait for each other, so none may end before the others: the budget is cut in whole epochs of all.
    epochs = baseline.epochs if limit is None else min(baseline.epochs, int(limit // epoch))
    if epochs < 1:
        raise ConfigError(
            f"`train_flops` {limit:.3g} does not pay for an epoch of {baseline.population} networks of {forward_flops(arch)} "
            f"FLOPs per example, {epoch:.3g}: raise it, or give a smaller population or network"
        )
    rng = np.random.default_rng(digest_seed("pbt", repetition.seed))
    exchanges: list[str] = []

    def explored(config: dict[str, Any]) -> dict[str, Any]:
        exchanges.append("lr")
        return {**config, "lr": config["lr"] * FACTORS[rng.integers(len(FACTORS))]}

    return _How(
        space={"lr": tune.loguniform(*baseline.lr)},
        samples=baseline.population,
        epochs=epochs,
        cut=epochs < baseline.epochs,
        scheduler=_Exchange(
            rng,
            time_attr="training_iteration",
            perturbation_interval=baseline.interval,
            quantile_fraction=QUARTER,
            custom_explore_fn=explored,
            log_config=False,
            # Exchanges between networks of equal age: the result does not depend on the order of arrival.
            synch=True,
        ),
        exchanges=exchanges,
    )


class _Exchange(PopulationBasedTraining):  # type: ignore[misc]
    """Tune's, with the one of the best that a network takes over drawn from a generator of its own."""

    def __init__(self, rng: np.random.Generator, **how: Any) -> None:
        super().__init__(**how)
        self._rng = rng

    def _checkpoint_or_exploit(self, trial: Any, controller: Any, upper_quantile: Any, lower_quantile: Any) -> None:
        if trial in lower_quantile:
            upper_quantile = [upper_quantile[self._rng.integers(len(upper_quantile))]]
        super()._checkpoint_or_exploit(trial, controller, upper_quantile, lower_quantile)


@dataclass(frozen=True, order=True)
class _Step:
    """An epoch of a trial, and what it cost."""

    epoch: int
    number: int
    config: Mapping[str, Any] = field(compare=False)
    score: float = field(compare=False)
    loss: float = field(compare=False)
    flops: int = field(compare=False)


class _Bill(tune.Stopper):  # type: ignore[misc]
    """Adds up what all trials report, and ends them at their last epoch, or when the budget is spent.

    Tune can stop all at once, but then drops what runs. So each ends by itself: the first that finds the budget spent leaves a
    word for the others, whose next step only measures.
    """

    def __init__(self, how: _How, limit: float | None, word: Path) -> None:
        self.epochs, self.cut, self.limit, self.word = how.epochs, how.cut, limit, word
        self.of_trial: dict[str, int] = {}
        self.steps: list[_Step] = []

    @property
    def spent(self) -> int:
        return sum(self.of_trial.values())

    @property
    def over(self) -> bool:
        return not self.cut and self.limit is not None and self.spent >= self.limit

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self.of_trial[trial_id] = self.of_trial.get(trial_id, 0) + result["flops"]
        epoch, config = result["training_iteration"], dict(result["config"])
        if result["flops"]:
            number = int(trial_id.rpartition("_")[2])
            self.steps.append(_Step(epoch, number, config, result["score"], result["loss"], result["flops"]))
        if self.over:
            self.word.touch()
        return self.over or bool(epoch >= self.epochs)

    def stop_all(self) -> bool:
        return False


def _standing(result: tune.Result) -> tuple[float, float, int]:
    """By score, as Tune would; then by loss and place, where Tune would go by the order in which results came in."""
    last: Mapping[str, Any] = result.metrics or {}
    loss = last["loss"] if math.isfinite(last["loss"]) else math.inf
    return last["score"], -loss, -int(last["trial_id"].rpartition("_")[2])


def _found(
    baseline: AbstractSearch, results: tune.ResultGrid, bill: _Bill, how: _How, repetition: Repetition, seconds: float
) -> Found:
    """The winner, with its weights."""
    winner = max(results, key=_standing)
    assert winner.metrics is not None and winner.checkpoint is not None
    if not bill.spent:
        raise ConfigError(
            f"`budget.max_flops_per_example`: none of the {how.samples} networks that were drawn is within it: draw smaller "
            "widths, or raise it"
        )
    network = Network(architecture_of(baseline, repetition, winner.metrics["config"]))
    with winner.checkpoint.as_directory() as folder:
        network.load_state_dict(load_file(Path(folder) / WEIGHTS))
    history: list[dict[str, Any]] = []
    best, spent = -math.inf, 0
    # Of networks in step, whose order of arrival decides nothing, none was there before the others.
    for step in sorted(bill.steps) if isinstance(baseline, Pbt) else bill.steps:
        spent += step.flops
        if step.score > best:
            best, arch = step.score, architecture_of(baseline, repetition, step.config)
            history.append(entry(repetition, len(history), arch, Score(np.array([step.loss]), best, 0), spent))
    # Once more, for the losses of every example: the trial has paid for it.
    validation = score(network, examples(repetition.dataset.validation), LOSSES[repetition.facts.task])
    if history[-1]["validation_loss"] != validation.loss:
        history.append(entry(repetition, len(history), network.arch, validation, bill.spent))
    return Found(
        network=network,
        validation=validation,
        train_flops=bill.spent,
        lineage_train_flops=bill.of_trial[winner.metrics["trial_id"]],
        epochs=len(bill.steps),
        seconds=seconds,
        config=dict(winner.metrics["config"]),
        history=history,
        exchanges=len(how.exchanges),
        stopped_because="the budget of training FLOPs is spent" if bill.over or how.cut else None,
    )
