"""Tasks in this process: the reference every other pool must equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from raygrow.errors import CampaignFailed, RaygrowError
from raygrow.population.tasks import Report, Task, named
from raygrow.population.worker import Worker


class SerialPool:
    """Runs all that waits, together, when one of it is waited for.

    One thread for torch and BLAS, as in every pool: 1 and 2 threads differ in the last bits.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: list[Task] = []
        self._done: deque[tuple[Task, Report]] = deque()

    def submit(self, tasks: Sequence[Task]) -> None:
        self._waiting += tasks

    def wait(self) -> tuple[Task, Report]:
        if not self._done:
            tasks, self._waiting = self._waiting, []
            with one_thread():
                try:
                    self._done.extend(zip(tasks, self._worker.run(tasks), strict=True))
                except RaygrowError:
                    raise
                except Exception as error:
                    raise CampaignFailed(f"{named(tasks)} failed: {type(error).__name__}: {error}") from error
        return self._done.popleft()

    def close(self) -> None:
        self._waiting.clear()
        self._done.clear()


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
