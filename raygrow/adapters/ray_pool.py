"""The Ray pool: long-lived actors, the data set put once, errors of a dead actor translated.

Free actors share what waits: workers keep no state, so which actor serves which members changes no figure.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raygrow.adapters.ray_actor import Actor
from raygrow.adapters.ray_start import connect, last_line
from raygrow.data import Dataset
from raygrow.errors import CampaignFailed, Refused, WorkerLost
from raygrow.population.plan import Facts, Plan
from raygrow.population.tasks import Report, Task, named

POLL = 0.5
"""Seconds between looks at the signals while waiting."""


class RayPool:
    """Actors on this machine (no address) or on a cluster.

    Args:
        plan, facts, dataset: of the campaign.
        store: folder of the checkpoints; on a cluster every node must reach it under the same path.
        address: of a running cluster; None starts a private one that ends with the pool.
        log: told in words what takes time.

    Raises:
        Refused: the cluster cannot be reached or cannot place the actors.
    """

    def __init__(
        self,
        plan: Plan,
        facts: Facts,
        dataset: Dataset,
        store: Path,
        address: str | None = None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._plan = plan
        self._count = plan.pool.actors_for(len(plan.members))
        # Ray itself would wait for ever.
        self._patience = plan.pool.ready_seconds
        self._actors: list[Any] = []
        self._end = connect(plan.pool, len(plan.members), address)
        import ray

        self._ray = ray
        try:
            # One copy in the object store serves every actor of a node.
            self._arrays = ray.put(dataset.arrays())
            # Unpickled by the actor itself, since it imports torch and all that the plan names.
            self._campaign = ray.cloudpickle.dumps((plan, facts, dataset.meta(), str(store.resolve())))
            self._actors = [self._actor() for _ in range(self._count)]
            with _signals_pass():
                self._await_first(log)
        except BaseException:
            self.close()
            raise
        self._idle: deque[Any] = deque(self._actors)
        self._starting: dict[Any, Any] = {}
        self._queue: deque[Task] = deque()
        self._running: dict[Any, tuple[Any, list[Task]]] = {}
        self._done: deque[tuple[Task, Report]] = deque()

    def _actor(self) -> Any:
        options = {
            "num_cpus": self._plan.pool.cpus_per_actor,
            "num_gpus": self._plan.pool.gpus_per_actor,
            # A dead actor is replaced by this pool, which knows what it was doing.
            "max_restarts": 0,
            # A trial of a comparison has set aside what its actors need, in its placement group.
            "scheduling_strategy": "DEFAULT" if self._ray.util.get_current_placement_group() else "SPREAD",
        }
        return self._ray.remote(Actor).options(**options).remote(self._arrays, self._campaign)

    def _await_first(self, log: Callable[[str], None]) -> None:
        """Wait until every actor is placed; a cluster that is too small would otherwise hang for ever."""
        ray = self._ray
        ready = [actor.ready.remote() for actor in self._actors]
        done, missing = ray.wait(ready, num_returns=len(ready), timeout=POLL * 20)
        if missing:
            log(f"waiting for the cluster to place {len(missing)} of {self._count} actors")
            done, missing = ray.wait(ready, num_returns=len(ready), timeout=self._patience)
        if missing:
            pool = self._plan.pool
            has = ray.cluster_resources()
            raise Refused(
                f"pool: {self._count} actors of {pool.cpus_per_actor} CPUs and {pool.gpus_per_actor} GPUs do not fit the "
                f"cluster of {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs: {len(missing)} were not placed in "
                f"{self._patience:g} s; lower `pool.actors` or `pool.cpus_per_actor`, or raise `pool.ready_seconds`"
            )
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            raise Refused(f"pool: an actor could not start: {_explained(last_line(error))}") from None

    def submit(self, tasks: Sequence[Task]) -> None:
        self._queue.extend(tasks)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            actor = self._idle.popleft()
            # Even shares of neighbours; an actor that is about to be ready has its share left to it.
            share = math.ceil(len(self._queue) / (1 + len(self._idle) + len(self._starting)))
            tasks = [self._queue.popleft() for _ in range(share)]
            self._running[actor.run.remote([task.to_json() for task in tasks])] = (actor, tasks)

    def wait(self) -> tuple[Task, Report]:
        with _signals_pass():
            return self._wait()

    def _wait(self) -> tuple[Task, Report]:
        ray = self._ray
        if not self._done:
            done = self._next_done()
            actor, tasks = self._running.pop(done)
            try:
                self._done.extend(zip(tasks, ray.get(done), strict=True))
            except ray.exceptions.RayTaskError as error:
                self._idle.append(actor)
                raise CampaignFailed(f"{named(tasks)} failed: {last_line(error)}") from error
            except ray.exceptions.RayError as error:
                # Its process, its node, its memory or its object is gone: whatever it was, others can run its tasks.
                self._replace(actor)
                raise WorkerLost(f"the actor running {named(tasks)} died: {last_line(error)}", tasks) from None
            self._idle.append(actor)
            self._dispatch()
        return self._done.popleft()

    def _next_done(self) -> Any:
        """The next finished task; meanwhile replacements that are ready begin to work."""
        ray, waited = self._ray, 0.0
        while True:
            done, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=POLL)
            for ref in done:
                if ref in self._running:
                    return ref
                self._idle.append(self._starting.pop(ref))
            self._dispatch()
            waited = 0.0 if done or self._running else waited + POLL
            if waited > self._patience:
                raise CampaignFailed(f"the cluster placed no replacement for a lost actor in {self._patience:g} s")

    def _replace(self, actor: Any) -> None:
        with suppress(Exception):
            self._ray.kill(actor, no_restart=True)
        self._actors.remove(actor)
        replacement = self._actor()
        self._actors.append(replacement)
        # It takes no task before it is placed: on a cluster that lost a node that may never be.
        self._starting[replacement.ready.remote()] = replacement

    def pids(self) -> list[int]:
        """Process ids of the actors, in no order."""
        found: list[int] = self._ray.get([actor.pid.remote() for actor in self._actors])
        return found

    def close(self) -> None:
        ray = self._ray
        for actor in self._actors:
            with suppress(Exception):
                ray.kill(actor, no_restart=True)
        self._actors = []
        end, self._end = self._end, lambda: None
        end()


def _explained(reason: str) -> str:
    """What an actor met, and for what its node lacks what helps."""
    absent = re.search(r"No module named '?([\w.]+)", reason)
    if absent is None:
        return reason
    name = absent[1].split(".")[0]
    return f"{reason}; its node lacks {name}: every node needs raygrow and the modules that the configuration names"


@contextmanager
def _signals_pass() -> Iterator[None]:
    """What a signal handler raises while Ray waits in C comes out as the cause of a ``SystemError``; here, as itself."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, Exception | None):
            raise
        raise error.__cause__ from None
