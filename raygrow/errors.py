"""Every error that a user can meet.

Each message states the rule, echoes the offending value and names the cure. ``Refused`` errors are raised before any
work begins (exit code 2); ``CampaignFailed`` after it has begun (exit code 3, what was done is kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RaygrowError(Exception):
    """Base class of every error raised on purpose."""


class Refused(RaygrowError):
    """Something the user gave cannot be used; nothing was started or created."""


class ConfigError(Refused):
    """A configuration key is unknown, of the wrong type or out of range."""


class DataError(Refused):
    """A file, column, row or label of the user's data cannot be used."""


class MoveError(RaygrowError):
    """A move is illegal on the architecture it was applied to."""


class LedgerError(RaygrowError):
    """The ledger of a campaign folder cannot be read or does not fit the request."""


class CheckpointError(RaygrowError):
    """A checkpoint is missing, incomplete or does not match its digest."""


class WorkerLost(RaygrowError):
    """A worker of the pool died; what it was doing can be run again elsewhere.

    Attributes:
        reason: in words.
        tasks: all that it held; none of them was reported.
    """

    def __init__(self, reason: str, tasks: Sequence[Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tasks = tuple(tasks)


class CampaignFailed(RaygrowError):
    """The campaign began and could not finish; what was done is kept and ``raygrow resume`` goes on."""
