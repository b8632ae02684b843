"""The folder a campaign leaves: its paths, its lock, and what lies in it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raygrow.errors import LedgerError, Refused
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.ledger import Ledger


class CampaignFolder:
    """DIR of the contract."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.moves = root / "moves.parquet"
        self.summary = root / "summary.json"
        self.report = root / "report.html"
        self.figures = root / "figures"
        self.ledger = Ledger(root / "events.jsonl")
        self.store = CheckpointStore(root / "checkpoints")

    def refuse_if_used(self) -> None:
        """Raises Refused when the folder already holds something."""
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            holds = "a campaign; `raygrow resume` goes on with it" if self.config.exists() else "files"
            raise Refused(f"--out {self.root}: the folder must be empty or new, but it already holds {holds}")

    def refuse_if_begun(self) -> None:
        """Raises Refused when a campaign has begun here; for the holder of the lock."""
        if self.config.exists() or self.ledger.path.exists():
            raise Refused(f"{self.root}: another process has begun a campaign here; `raygrow resume` goes on with it")

    def refuse_if_absent(self) -> None:
        """Raises LedgerError when there is no campaign here."""
        if not self.config.exists() or not self.ledger.path.exists():
            raise LedgerError(
                f"{self.root}: no campaign here; `config.yaml` and `events.jsonl` must exist (was it begun with --out?)"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; see ``locked``."""
        with locked(self.root):
            yield


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a folder alone; it is made. The lock ends with the process, however it ends.

    Raises:
        Refused: another process holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"{root}: another raygrow process runs in this folder; wait for it or stop it first"
            ) from None
        yield
