"""ASHA (Li et al., MLSys 2020) through Ray Tune: widths, depths and rates of plain networks, every FLOP counted."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from safetensors.torch import load_file, save_file

from raygrow.architecture import forward_flops
from raygrow.data import Dataset
from tests.benchmarks.fixed import FixedNet, all_training_rows, examples, layered


@dataclass(frozen=True)
class Found:
    """What a search spent and found, judged on validation alone.

    Attributes:
        net: the winner, with its weights.
        validation_score: by which it won.
        flops_per_example: of the winner's forward pass.
        train_flops: of every trial, validation passes counted.
        epochs: of all trials together.
        seconds: from the call to the winner, in a Ray that runs already.
        hidden, lr: of the winner.
    """

    net: FixedNet
    validation_score: float
    flops_per_example: int
    train_flops: int
    epochs: int
    seconds: float
    hidden: list[int]
    lr: float

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "net"}


class Trial(tune.Trainable):
    """One network; a step is an epoch. Actors are used again, so that few of them start."""

    def setup(self, config: dict[str, Any], data: Dataset, plan: Mapping[str, Any], seed: int) -> None:
        torch.set_num_threads(1)
        self._data, self._plan, self._seed = data, plan, seed
        self._rows, self._validation = all_training_rows(data), examples(data.validation)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        plan, data = self._plan, self._data
        self._net = FixedNet(
            layered(data.inputs, hidden_of(new_config), data.outputs),
            self._rows,
            data.task,
            plan["max_epochs"] * len(self._rows),
            new_config["lr"],
            plan["batch_size"],
            self._seed,
        )
        return True

    def step(self) -> dict[str, Any]:
        self._net.advance(len(self._rows))
        found = self._net.score(self._validation)
        # A net that diverged comes last instead of nowhere.
        return {"score": found.metric if found.metric == found.metric else -1e9, "train_flops": self._net.flops}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save_file(self._net.network.state_dict(), Path(checkpoint_dir) / "weights.safetensors")

    def load_checkpoint(self, checkpoint: str) -> None:
        raise RuntimeError("a trial is not restored: the weights alone are kept, for its score on test")


def hidden_of(config: Mapping[str, Any]) -> list[int]:
    return [config["first"], config["second"]][: config["layers"]]


def search(data: Dataset, plan: Mapping[str, Any], seed: int, storage: Path) -> Found:
    """Search and choose on validation; the test split is not read. Ray must run already.

    Args:
        data: prepared; trials learn from ``train`` and ``search``.
        plan: the content of ``asha.yaml``.
        seed: of configurations, starts and orders.
        storage: folder for Tune's own files.
    """
    # Neither side of the comparison writes logs for people.
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
    low, high = plan["width"]
    begun = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Trial, data=data, plan=dict(plan), seed=seed), {"cpu": plan["cpus_per_trial"]}
        ),
        param_space={
            "layers": tune.choice(plan["hidden_layers"]),
            "first": tune.lograndint(low, high + 1),
            "second": tune.lograndint(low, high + 1),
            "lr": tune.loguniform(*plan["lr"]),
        },
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=plan["trials"],
            scheduler=ASHAScheduler(
                time_attr="training_iteration",
                max_t=plan["max_epochs"],
                grace_period=min(plan["grace_epochs"], plan["max_epochs"]),
                reduction_factor=plan["reduction_factor"],
            ),
            search_alg=BasicVariantGenerator(random_state=seed),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"asha-{seed}",
            storage_path=str(storage.resolve()),
            verbose=0,
            stop={"training_iteration": plan["max_epochs"]},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, checkpoint_frequency=0),
        ),
    )
    results = tuner.fit()
    winner = results.get_best_result(scope="last")
    seconds = time.perf_counter() - begun
    assert not results.errors, results.errors[0]
    assert winner.metrics is not None and winner.checkpoint is not None
    config = winner.metrics["config"]
    arch = layered(data.inputs, hidden_of(config), data.outputs)
    net = FixedNet(arch, all_training_rows(data), data.task, 1, config["lr"], plan["batch_size"], seed)
    with winner.checkpoint.as_directory() as folder:
        net.network.load_state_dict(load_file(Path(folder) / "weights.safetensors"))
    return Found(
        net=net,
        validation_score=winner.metrics["score"],
        flops_per_example=forward_flops(arch),
        train_flops=sum(result.metrics["train_flops"] for result in results),
        epochs=sum(result.metrics["training_iteration"] for result in results),
        seconds=seconds,
        hidden=hidden_of(config),
        lr=config["lr"],
    )
