"""The networks of Ray Tune's searches as its trainables: an epoch a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune
from safetensors.torch import load_file, save_file

from raygrow.architecture import Architecture, digest_seed
from raygrow.baselines import Pbt
from raygrow.baselines.base import AbstractSearch, Repetition
from raygrow.baselines.fixed import sized
from raygrow.baselines.nets import FixedNet, examples, fixed_architecture, started, training_rows, within_budget
from raygrow.nn import Network, State

NOTHING = -1e9
"""Score of a network that diverged, or is too big to be trained: it comes last instead of nowhere."""
WEIGHTS = "weights.safetensors"


def architecture_of(baseline: AbstractSearch, repetition: Repetition, config: Mapping[str, Any]) -> Architecture:
    """The network of a trial."""
    if isinstance(baseline, Pbt):
        return sized(repetition, baseline.hidden, baseline.flops_per_example)
    return fixed_architecture(repetition, [config[f"width_{i}"] for i in range(1, config["layers"] + 1)])


class _Network(tune.Trainable):  # type: ignore[misc]
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
        save_file(self._network.state_dict(), Path(checkpoint_dir) / WEIGHTS)


class AshaTrial(_Network):
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


class PbtTrial(_Network):
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
        self._network.load_state_dict(load_file(Path(checkpoint) / WEIGHTS))
        flat = load_file(Path(checkpoint) / "optimizer.safetensors")
        self._epochs = int(flat.pop("epochs"))
        state: dict[str, dict[str, torch.Tensor]] = {}
        for place, value in flat.items():
            name, _, key = place.rpartition("|")
            state.setdefault(name, {})[key] = value
        self._state = state
