"""The remote side of the Ray pool. What takes long to import is imported by the actor, not by whoever loads its class."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrow.process import imports

if TYPE_CHECKING:
    from raygrow.population.tasks import Report


class Actor:
    """One worker on one thread.

    Args:
        arrays: of the data set, in the object store.
        campaign: pickled: the plan, its facts, the data set's ``meta``, and the folder of the checkpoints.
    """

    def __init__(self, arrays: Any, campaign: bytes) -> None:
        with imports():
            import torch
            from threadpoolctl import threadpool_limits

            from raygrow.data import Dataset
            from raygrow.population.checkpoints import CheckpointStore
            from raygrow.population.worker import Worker

            plan, facts, meta, store = pickle.loads(campaign)
        torch.set_num_threads(1)
        threadpool_limits(limits=1)
        dataset = Dataset.from_arrays(arrays, meta)
        self._worker = Worker(plan, facts, dataset, CheckpointStore(Path(store)), plan.pool.device)

    def ready(self) -> bool:
        return True

    def pid(self) -> int:
        return os.getpid()

    def run(self, tasks: list[dict[str, Any]]) -> list[Report]:
        from raygrow.population.tasks import Task

        return self._worker.run([Task.from_json(task) for task in tasks])
