"""The loop that joins coordinator, ledger and pool. Everything it does is written to the ledger first."""

from __future__ import annotations

from collections.abc import Callable

from raygrow.errors import CampaignFailed, LedgerError, WorkerLost
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.coordinator import Coordinator
from raygrow.population.ledger import Event, Ledger
from raygrow.population.tasks import Pool, Task, named

MAX_TRIES = 4
"""Workers that one task may lose before the campaign gives up."""


def run_campaign(
    coordinator: Coordinator,
    ledger: Ledger,
    store: CheckpointStore,
    pool: Pool,
    heard: Callable[[Event], None] = lambda event: None,
) -> None:
    """Run a campaign from the coordinator's state to its end.

    Args:
        heard: told every event after it is in the ledger (progress, mirror).

    Raises:
        CampaignFailed: a task failed, or lost its worker ``MAX_TRIES`` times. What was done is in the ledger.
    """

    def record(event: Event) -> None:
        written = ledger.append(event)
        coordinator.tell(written)
        heard(written)

    lost: dict[str, int] = {}
    submitted: set[Task] = set()
    # No worker runs yet, so whatever no event refers to is left over from a crash.
    store.sweep(coordinator.referenced())
    while not coordinator.done:
        event = coordinator.ask()
        if event is not None:
            record(event)
            # The phase is closed and nothing is in flight.
            store.sweep(coordinator.referenced())
            submitted.clear()
            continue
        waiting = [task for task in coordinator.tasks() if task not in submitted]
        if waiting:
            pool.submit(waiting)
            submitted.update(waiting)
        try:
            task, report = pool.wait()
        except WorkerLost as error:
            for task in error.tasks:
                lost[task.id] = lost.get(task.id, 0) + 1
                heard(ledger.append({"type": "retried", "task": task.to_json(), "reason": error.reason}))
            given_up = [task for task in error.tasks if lost[task.id] >= MAX_TRIES]
            if given_up:
                whose = f"{named(given_up)} lost {'their' if given_up[1:] else 'its'} worker"
                raise CampaignFailed(f"{whose} {MAX_TRIES} times; last: {error.reason}") from error
            submitted.difference_update(error.tasks)
            continue
        if task not in coordinator.tasks():
            # Before it reaches the ledger: one wrong line there would end every later replay.
            raise LedgerError(f"a report of {task.id} was not asked for in this state")
        record({"type": "reported", "task": task.to_json(), "report": report})
