"""Searches of Ray Tune as baselines: every FLOP of every trial counted, the winner chosen on validation."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search.basic_variant import BasicVariantGenerator
from safetensors.torch import load_file, save_file

from raygrow.architecture import Architecture, digest_seed
from raygrow.baselines import Asha, Pbt
from raygrow.baselines.base import AbstractSearch, Repetition, Trained, entry
from raygrow.baselines.fixed import sized
from raygrow.baselines.nets import FixedNet, examples, fixed_architecture, started, training_rows, within_budget
from raygrow.errors import CampaignFailed, ConfigError
from raygrow.nn import Network, State
from raygrow.nn.losses import LOSSES
from raygrow.training import Score, score

NOTHING = -1e9
"""Score of a network that diverged, or is too big to be trained: it comes last instead of nowhere."""
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
        trainable, how = _AshaTrial, _asha(baseline, repetition)
    elif isinstance(baseline, Pbt):
        # Refused before any work where it is above the budget.
        sized(repetition, baseline.hidden, baseline.flops_per_example)
        trainable, how = _PbtTrial, _pbt(baseline, repetition)
    else:
        raise ConfigError(f"{type(baseline).__name__} is no search of Ray Tune: asha and pbt are")
    # Baselines write no logs for people.
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
    storage = (repetition.folder / "tune").resolve()
    # What a search that was cut off has left there is no part of this one.
    shutil.rmtree(storage, ignore_errors=True)
    begun = time.perf_counter()
    word = storage / "spent"
    bill = _Bill(how.epochs, repetition.train_flops, word)
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
    """What Tune is told of a search."""

    space: Mapping[str, Any]
    samples: int
    epochs: int
    scheduler: Any
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
    rng = np.random.default_rng(digest_seed("pbt", repetition.seed))
    exchanges: list[str] = []

    def explored(config: dict[str, Any]) -> dict[str, Any]:
        exchanges.append("lr")
        return {**config, "lr": config["lr"] * FACTORS[rng.integers(len(FACTORS))]}

    return _How(
        space={"lr": tune.loguniform(*baseline.lr)},
        samples=baseline.population,
        epochs=baseline.epochs,
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


class _Bill(tune.Stopper):  # type: ignore[misc]
    """Adds up what all trials report, and ends them at their last epoch, or when the budget is spent.

    Tune can stop all at once, but then drops what runs and may wait for it without end. So each ends by itself: the first that
    finds the budget spent leaves a word for the others, whose next step only measures.
    """

    def __init__(self, epochs: int, limit: float | None, word: Path) -> None:
        self.epochs, self.limit, self.word = epochs, limit, word
        self.of_trial: dict[str, int] = {}
        self.steps = 0
        self.best: list[tuple[Mapping[str, Any], Mapping[str, Any], int]] = []

    @property
    def spent(self) -> int:
        return sum(self.of_trial.values())

    @property
    def over(self) -> bool:
        return self.limit is not None and self.spent >= self.limit

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self.of_trial[trial_id] = self.of_trial.get(trial_id, 0) + result["flops"]
        if result["flops"]:
            self.steps += 1
            if not self.best or result["score"] > self.best[-1][1]["score"]:
                figures = {key: result[key] for key in ("score", "loss")}
                self.best.append((dict(result["config"]), figures, self.spent))
        if self.over:
            self.word.touch()
        return self.over or bool(result["training_iteration"] >= self.epochs)

    def stop_all(self) -> bool:
        return False


class _Trial(tune.Trainable):  # type: ignore[misc]
    """One network; a step is an epoch. Actors are used again, so that few of them start."""

    _network: Network

    def setup(self, config: dict[str, Any], baseline: Any, repetition: Repetition, word: Path) -> None:
        torch.set_num_threads(1)
        self._baseline, self._repetition, self._word = baseline, repetition, word
        self._rows = training_rows(repetition)
        self._validation = examples(repetition.dataset.validation)
        self.reset_config(config)

    def _net(self, total: int, lr: float, seed: int, state: State, anneal: bool) -> FixedNet:
        training, task = self._repetition.member.training, self._repetition.facts.task
        return FixedNet(
            self._network,
            self._rows,
            task,
            total,
            training.optimizer_plan(lr),
            training.batch_size,
            seed,
            state,
            anneal,
        )

    def _advanced(self, net: FixedNet) -> dict[str, Any]:
        before, over = net.flops, self._word.exists()
        if not over:
            net.advance(len(self._rows))
        found = net.score(self._validation, counted=not over)
        score_ = found.metric if math.isfinite(found.loss) else NOTHING
        return {"score": score_, "loss": found.loss, "flops": net.flops - before}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save_file(self._network.state_dict(), Path(checkpoint_dir) / "weights.safetensors")


class _AshaTrial(_Trial):
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        repetition = self._repetition
        arch = architecture_of(self._baseline, repetition, new_config)
        self._network = started(arch, repetition.seed)
        total = self._baseline.epochs * len(self._rows)
        self._way = (
            self._net(total, new_config["lr"], repetition.seed, {}, True) if within_budget(repetition, arch) else None
        )
        return True

    def step(self) -> dict[str, Any]:
        if self._way is None:
            return {"score": NOTHING, "loss": math.nan, "flops": 0, "done": True}
        return self._advanced(self._way)

    def load_checkpoint(self, checkpoint: str) -> None:
        raise RuntimeError("a trial is not restored: the weights alone are kept, for its score on test")


class _PbtTrial(_Trial):
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._lr = new_config["lr"]
        self._network = started(architecture_of(self._baseline, self._repetition, new_config), self._repetition.seed)
        self._state: State = {}
        self._epochs = 0
        return True

    def step(self) -> dict[str, Any]:
        seed = digest_seed("pbt", self._repetition.seed, self._epochs)
        net = self._net(len(self._rows), self._lr, seed, self._state, anneal=False)
        found = self._advanced(net)
        self._state, self._epochs = net.state, self._epochs + 1
        return found

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        super().save_checkpoint(checkpoint_dir)
        flat = {f"{name}|{key}": value for name, entry_ in self._state.items() for key, value in entry_.items()}
        save_file({**flat, "epochs": torch.tensor(self._epochs)}, Path(checkpoint_dir) / "optimizer.safetensors")

    def load_checkpoint(self, checkpoint: str) -> None:
        self._network.load_state_dict(load_file(Path(checkpoint) / "weights.safetensors"))
        flat = load_file(Path(checkpoint) / "optimizer.safetensors")
        self._epochs = int(flat.pop("epochs"))
        state: dict[str, dict[str, torch.Tensor]] = {}
        for place, value in flat.items():
            name, _, key = place.rpartition("|")
            state.setdefault(name, {})[key] = value
        self._state = state


def architecture_of(baseline: AbstractSearch, repetition: Repetition, config: Mapping[str, Any]) -> Architecture:
    """The network of a trial."""
    if isinstance(baseline, Pbt):
        return sized(repetition, baseline.hidden, baseline.flops_per_example)
    return fixed_architecture(repetition, [config[f"width_{i}"] for i in range(1, config["layers"] + 1)])


def _found(
    baseline: AbstractSearch, results: tune.ResultGrid, bill: _Bill, how: _How, repetition: Repetition, seconds: float
) -> Found:
    """The winner, with its weights."""
    winner = results.get_best_result(scope="last")
    assert winner.metrics is not None and winner.checkpoint is not None
    if not bill.spent:
        raise ConfigError(
            f"`budget.max_flops_per_example`: none of the {how.samples} networks that were drawn is within it: draw smaller "
            "widths, or raise it"
        )
    network = Network(architecture_of(baseline, repetition, winner.metrics["config"]))
    with winner.checkpoint.as_directory() as folder:
        network.load_state_dict(load_file(Path(folder) / "weights.safetensors"))
    history = []
    for round_, (config, figures, spent) in enumerate(bill.best):
        validation = Score(np.array([figures["loss"]]), figures["score"], 0)
        history.append(entry(repetition, round_, architecture_of(baseline, repetition, config), validation, spent))
    # Once more, for the losses of every example: the trial has paid for it.
    validation = score(network, examples(repetition.dataset.validation), LOSSES[repetition.facts.task])
    if history[-1]["validation_loss"] != validation.loss:
        history.append(entry(repetition, len(history), network.arch, validation, bill.spent))
    return Found(
        network=network,
        validation=validation,
        train_flops=bill.spent,
        lineage_train_flops=bill.of_trial[winner.metrics["trial_id"]],
        epochs=bill.steps,
        seconds=seconds,
        config=dict(winner.metrics["config"]),
        history=history,
        exchanges=len(how.exchanges),
        stopped_because="the budget of training FLOPs is spent" if bill.over else None,
    )
