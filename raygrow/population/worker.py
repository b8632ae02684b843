"""A pool's worker: it runs any member's task.

A worker keeps nothing between tasks but what the campaign alone determines: it loads the member's head, and what it writes is
named by digest. So any worker can run any member's task, again and elsewhere, and the result is the same bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from raygrow.architecture import digest_seed, forward_flops, params
from raygrow.data import Dataset
from raygrow.nn import Network, State, all_finite, begun
from raygrow.population.checkpoints import Checkpoint, CheckpointStore
from raygrow.population.growing import Samples
from raygrow.population.lengths import examples_of
from raygrow.population.member_round import MemberRound, Work
from raygrow.population.plan import Facts, Member, Plan, kind_of
from raygrow.population.tasks import Costs, Report, Task
from raygrow.training import Examples, ExampleSets, Fork, Learned, Lesson, Score, example_order, score, teach


def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to some 64 MB, instead of handing it back to the system.

    A growth step allocates a few MB again and again. glibc returns such blocks, to take them back page by page, until it has
    seen a larger one freed (``mallopt(3)``, M_MMAP_THRESHOLD; at most 32 MB count). One is freed here, and none of its pages is
    ever touched. Other allocators take no notice.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


class Worker:
    """Runs tasks of any member of one campaign.

    Args:
        plan, facts: of the campaign.
        dataset: as prepared; its arrays are copied to the device.
        store: where checkpoints are written before they are reported.
        device: where networks live.
    """

    def __init__(self, plan: Plan, facts: Facts, dataset: Dataset, store: CheckpointStore, device: str = "cpu") -> None:
        keep_freed_memory()
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
        self.samples = Samples(self.data)

    def run(self, tasks: Sequence[Task]) -> list[Report]:
        """Run tasks side by side and report each in plain JSON, in their order.

        Whenever all of them wait for training, the lessons that can share their steps are packed. What a task reports
        does not depend on the others, times excepted.
        """
        begun = time.perf_counter()
        reports: dict[int, Report] = {}
        works: dict[int, Work] = {}
        waiting: dict[int, Lesson] = {}
        seconds = [0.0] * len(tasks)

        def go_on(i: int, learned: list[Learned] | None) -> None:
            since = time.perf_counter()
            try:
                # A generator that has not begun takes None alone.
                waiting[i] = works[i].send(learned)  # type: ignore[arg-type]
            except StopIteration as end:
                reports[i] = end.value
            seconds[i] += time.perf_counter() - since

        for i, task in enumerate(tasks):
            if task.phase in ("start", "test"):
                reports[i] = self._start(task) if task.phase == "start" else self._test(task)
            else:
                works[i] = self._round(task) if task.phase == "round" else self._finish(task)
                go_on(i, None)
        while waiting:
            pupils, lessons = list(waiting), list(waiting.values())
            waiting.clear()
            for i, learned in zip(pupils, teach(lessons), strict=True):
                go_on(i, learned)
        shared = (time.perf_counter() - begun - sum(seconds)) / max(len(tasks), 1)
        for i, own in enumerate(seconds):
            # What was done for all is shared out evenly.
            reports[i]["seconds"] = round(own + shared, 4)
        return [reports[i] for i in range(len(tasks))]

    def seed(self, purpose: str, member: Member, *more: int | str) -> int:
        """Members with the same seed share these: they see the same examples in the same order."""
        return digest_seed(purpose, self.plan.campaign.seed, member.seed, *more)

    def training_examples(self, member: Member) -> Examples:
        """What lessons of this member are of; statistics and evaluation take ``data.train`` as it is."""
        return replace(self.data.train, augment=member.training.augment, shape=self.facts.shape)

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
        generator = torch.Generator().manual_seed(self.seed("start", member))
        network = begun(self.facts.start(self.plan.network), generator).to(self.device)
        state = member.strategy.initial_state(self.facts.constant_loss)
        digest = self.save(network, {}, {"kind": kind_of(member.strategy), "state": state})
        found = score(network, self.data.validation, self.data.loss)
        return {"head": self.described(network, digest, found), "train_flops": Costs(evaluation=found.flops).to_json()}

    def _finish(self, task: Task) -> Work:
        """The final anneal. A network that diverges in it stays as it was."""
        member = self.plan.member(task.member)
        training = member.training
        checkpoint = self.load(task.head)
        count = examples_of(training.final_examples, len(self.data.train))
        order = example_order(len(self.data.train), count, self.seed("final", member))
        fork = Fork(checkpoint.network, checkpoint.optimizer)
        plan = training.optimizer_plan(training.final_lr or training.lr)
        train = self.training_examples(member)
        lesson = Lesson([fork], train, [order], training.batch_size, self.data.loss, plan, anneal=True)
        (learned,) = yield lesson
        diverged = not all_finite(learned.network)
        network, state = (checkpoint.network, checkpoint.optimizer) if diverged else (learned.network, learned.state)
        found = score(network, self.data.validation, self.data.loss)
        digest = self.save(network, state, dict(checkpoint.strategy))
        return {
            "head": self.described(network, digest, found),
            "diverged": diverged,
            "train_flops": Costs(training=lesson.flops, evaluation=found.flops).to_json(),
        }

    def _test(self, task: Task) -> Report:
        """The one read of the test split, when every decision has been taken. Not counted as training."""
        found = score(self.load(task.head).network, self.data.test, self.data.loss)
        return {"test_loss": found.loss, "test_metric": found.metric, "train_flops": Costs().to_json()}

    def _round(self, task: Task) -> Work:
        return MemberRound(self, task).run()
