"""A pool's worker: it runs any member's task.

A worker keeps no state between tasks: it loads the member's head, and what it writes is named by digest. So any worker can
run any member's task, again and elsewhere, and the result is the same bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from raygrow.architecture import digest_seed, forward_flops, params
from raygrow.data import Dataset
from raygrow.nn import Network, Optimizer, OptimizerPlan, State, all_finite, clone
from raygrow.population.checkpoints import Checkpoint, CheckpointStore
from raygrow.population.member_round import MemberRound
from raygrow.population.plan import Facts, Member, Plan, examples_of, kind_of
from raygrow.population.tasks import Costs, Report, Task
from raygrow.training import Examples, ExampleSets, Score, example_order, fit, score


class Worker:
    """Runs tasks of any member of one campaign.

    Args:
        plan, facts: of the campaign.
        dataset: as prepared; its arrays are copied to the device.
        store: where checkpoints are written before they are reported.
        device: where networks live.
    """

    def __init__(self, plan: Plan, facts: Facts, dataset: Dataset, store: CheckpointStore, device: str = "cpu") -> None:
        self.plan = plan
        self.facts = facts
        self.store = store
        self.preprocessing = dataset.preprocessing
        self.device = torch.device(device)
        train, search, validation, test = (
            Examples.of(split.x, split.y, self.device)
            for split in (dataset.train, dataset.search, dataset.validation, dataset.test)
        )
        self.data = ExampleSets(facts.task, train, search, validation, test)

    def run(self, tasks: Sequence[Task]) -> list[Report]:
        """Run tasks of different members and report each in plain JSON, in their order."""
        return [self._run(task) for task in tasks]

    def _run(self, task: Task) -> Report:
        begun = time.perf_counter()
        runs = {"start": self._start, "round": self._round, "finish": self._finish, "test": self._test}
        report = runs[task.phase](task)
        report["seconds"] = round(time.perf_counter() - begun, 4)
        return report

    def seed(self, purpose: str, member: Member, *more: int | str) -> int:
        """Members with the same seed share these: they see the same examples in the same order."""
        return digest_seed(purpose, self.plan.campaign.seed, member.seed, *more)

    def load(self, digest: str) -> Checkpoint:
        checkpoint = self.store.load(digest)
        checkpoint.network.to(self.device)
        return checkpoint

    def save(self, network: Network, optimizer: State, strategy: dict[str, Any]) -> str:
        return self.store.save(Checkpoint(network, optimizer, self.preprocessing, strategy))

    def described(self, network: Network, digest: str | None, found: Score) -> Report:
        return {
            "checkpoint": digest,
            "arch": network.arch.to_json(),
            "arch_id": network.arch.arch_id,
            "params": params(network.arch),
            "flops_per_example": forward_flops(network.arch),
            "validation_loss": found.loss,
            "validation_metric": found.metric,
        }

    def _start(self, task: Task) -> Report:
        member = self.plan.member(task.member)
        network = Network(self.facts.start).to(self.device)
        state = member.strategy.initial_state(self.facts.constant_loss)
        digest = self.save(network, {}, {"kind": kind_of(member.strategy), "state": state})
        found = score(network, self.data.validation, self.data.loss)
        return {"head": self.described(network, digest, found), "train_flops": Costs(evaluation=found.flops).to_json()}

    def _finish(self, task: Task) -> Report:
        """The final anneal. A network that diverges in it stays as it was."""
        member = self.plan.member(task.member)
        training = member.training
        checkpoint = self.load(task.head)
        network = clone(checkpoint.network)
        optimizer = Optimizer(network, OptimizerPlan(training.optimizer, training.lr), checkpoint.optimizer)
        count = examples_of(training.final_examples, len(self.data.train))
        order = example_order(len(self.data.train), count, self.seed("final", member))
        spent = fit(network, optimizer, self.data.train, self.data.loss, order, training.batch_size, anneal=True)
        diverged = not all_finite(network)
        state: State = {} if diverged else optimizer.export()
        if diverged:
            network, state = checkpoint.network, checkpoint.optimizer
        found = score(network, self.data.validation, self.data.loss)
        digest = self.save(network, state, dict(checkpoint.strategy))
        return {
            "head": self.described(network, digest, found),
            "diverged": diverged,
            "train_flops": Costs(training=spent, evaluation=found.flops).to_json(),
        }

    def _test(self, task: Task) -> Report:
        """The one read of the test split, when every decision has been taken. Not counted as training."""
        found = score(self.load(task.head).network, self.data.test, self.data.loss)
        return {"test_loss": found.loss, "test_metric": found.metric, "train_flops": Costs().to_json()}

    def _round(self, task: Task) -> Report:
        return MemberRound(self, task).run()
