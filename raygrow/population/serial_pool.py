"""Tasks in this process, one after the other: the reference every other pool must equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from raygrow.errors import CampaignFailed, RaygrowError
from raygrow.population.tasks import Report, Task
from raygrow.population.worker import Worker


class SerialPool:
    """Runs each task when it is waited for.

    One thread for torch and BLAS, as in every pool: 1 and 2 threads differ in the last bits.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self) -> tuple[Task, Report]:
        task = self._queue.popleft()
        with one_thread():
            try:
                return task, self._worker.run([task])[0]
            except RaygrowError:
                raise
            except Exception as error:
                raise CampaignFailed(f"task {task.id} failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._queue.clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and BLAS inside; what was set before, after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
