"""``moves.parquet``: one row for every probed candidate, accepted or not."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrow.population.ledger import Event, write_atomically
from raygrow.report.record import Probed, Record, read
from raygrow.strategies.features import FEATURES

_FIELDS: tuple[tuple[str, Any], ...] = (
    ("campaign", pa.string()),
    ("round", pa.int32()),
    ("member", pa.string()),
    ("strategy", pa.string()),
    ("initializer", pa.string()),
    ("parent_arch", pa.string()),
    ("arch", pa.string()),
    ("move", pa.string()),
    ("site", pa.string()),
    ("units", pa.int32()),
    ("predicted_gain", pa.float64()),
    ("gain", pa.float64()),
    ("gain_stderr", pa.float64()),
    ("added_flops", pa.int64()),
    ("gain_per_flop", pa.float64()),
    ("probe_train_flops", pa.int64()),
    ("control_loss", pa.float64()),
    ("candidate_loss", pa.float64()),
    ("verdict", pa.string()),
    ("statistic", pa.float64()),
    ("threshold", pa.float64()),
    ("reason", pa.string()),
    ("granted", pa.bool_()),
    ("adopted", pa.bool_()),
    ("control_checkpoint", pa.string()),
    ("candidate_checkpoint", pa.string()),
    ("seed", pa.int64()),
    ("seconds", pa.float64()),
    ("features", pa.list_(pa.float64())),
    ("measurements", pa.map_(pa.string(), pa.float64())),
    ("newborn_gradient_ratio", pa.float64()),
)


def moves_table(events: Iterable[Event]) -> pa.Table:
    """The table of all probed candidates, sorted by round, member and candidate.

    The schema's metadata hold the names of ``features``, and what no column has: the campaign's seed and identifier.
    """
    record = read(events)
    metadata = {
        "features": json.dumps(FEATURES),
        "campaign_id": json.dumps(record.started.get("campaign_id")),
        "campaign_seed": json.dumps(record.config["campaign"].get("seed")),
    }
    schema = pa.schema(_FIELDS, metadata=metadata)
    return pa.Table.from_pylist([_row(record, probed) for probed in record.probed], schema=schema)


def write_moves(events: Iterable[Event], path: Path) -> None:
    """Write ``moves.parquet`` whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(moves_table(events), buffer)
    write_atomically(path, buffer.getvalue())


def _row(record: Record, probed: Probed) -> dict[str, Any]:
    row, member = probed.row, record.members[probed.member]
    # A digest is named only where its folder stays, so that whoever reads the table can load it.
    control, candidate = (digest if digest in record.kept else None for digest in (probed.control, row["checkpoint"]))
    return {
        "campaign": record.config["campaign"]["name"],
        "round": probed.round,
        "member": probed.member,
        "strategy": member["strategy"]["kind"],
        "initializer": row["initializer"],
        "parent_arch": row["parent_arch_id"],
        "arch": row["arch_id"],
        "move": row["move"]["kind"],
        "site": row["site"],
        "units": row["units"],
        "predicted_gain": _finite(row["predicted_gain"]),
        "gain": _finite(row["gain"]),
        "gain_stderr": _finite(row["gain_stderr"]),
        "added_flops": row["added_flops"],
        "gain_per_flop": _finite(probed.gain_per_flop),
        "probe_train_flops": row["probe_train_flops"],
        "control_loss": _finite(row["control_loss"]),
        "candidate_loss": _finite(row["candidate_loss"]),
        "verdict": row["verdict"],
        "statistic": _finite(row["statistic"]),
        "threshold": _finite(row["threshold"]),
        "reason": row["reason"],
        "granted": probed.granted,
        # At most one grant a member and round, and every grant is adopted when its round is decided.
        "adopted": probed.granted,
        "control_checkpoint": control,
        "candidate_checkpoint": candidate,
        "seed": row["seed"],
        "seconds": _finite(probed.seconds),
        "features": list(row["features"]),
        # Ledgers of earlier versions have neither.
        "measurements": list(row.get("measurements", {}).items()),
        "newborn_gradient_ratio": row.get("newborn_gradient_ratio"),
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
