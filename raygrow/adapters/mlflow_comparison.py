"""A comparison in MLflow: one run with its statistics as metrics, and its tables, page and figures as artifacts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from raygrow.adapters.mlflow_mirror import connected
from raygrow.population.ledger import Ledger

ARTIFACTS = ("comparison.yaml", "comparison.json", "trials.parquet", "curves.parquet", "report.html")
"""Files of DIR that are logged, beside everything in ``figures/``."""


def log_comparison(folder: Path, uri: str, experiment: str, artifacts: Path | None) -> None:
    """Log DIR of a comparison; logged again, after a resume, it replaces what was there.

    Args:
        folder: as ``raygrow compare`` leaves it.
        uri: MLflow tracking URI.
        experiment: created if MLflow has none of this name.
        artifacts: where files go if the experiment is created here; None leaves it to the server.

    Raises:
        Exception: whatever MLflow raises when it refuses or cannot be reached.
    """
    from mlflow.entities import Metric, Param

    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    events = Ledger(folder / "events.jsonl").read()
    # The moment it was begun is what one comparison has alone.
    begun, ended = round(events[0]["time"] * 1000), round(events[-1]["time"] * 1000)
    tags = {"raygrow.key": "comparison", "raygrow.begun": str(begun), "raygrow.reference": found["reference"]}
    client, number = connected(uri, experiment, artifacts, lambda: None)
    wanted = f"tags.`raygrow.key` = 'comparison' and tags.`raygrow.begun` = '{begun}'"
    known = list(client.search_runs([number], wanted))
    name = str(next(iter(found["data"]), "")) if len(found["data"]) == 1 else f"{len(found['data'])} data sets"
    run = known[0] if known else client.create_run(number, begun, {**tags, "mlflow.source.name": "raygrow"},
                                                   f"comparison of {len(found['arms'])} arms on {name}")  # fmt: skip
    run_id = run.info.run_id
    metrics = [
        Metric(_safe(f"{row['measure']}/{row['arm']} less {found['reference']}/{what}"), row[what], ended, 0)
        for row in found["comparisons"]
        for what in ("mean", "low", "high", "p_holm")
        if row["data"] is None and row[what] is not None
    ]
    params = {"reference": found["reference"], "arms": ", ".join(found["arms"]), "data": ", ".join(found["data"])}
    client.log_batch(run_id, metrics, [] if known else [Param(key, value[:500]) for key, value in params.items()])
    figures = sorted((folder / "figures").glob("*.*g"))
    for path, place in [*((folder / name, None) for name in ARTIFACTS), *((path, "figures") for path in figures)]:
        client.log_artifact(run_id, str(path), place)
    client.set_terminated(run_id, status="FINISHED" if events[-1]["type"] == "ended" else "KILLED", end_time=ended)


def _safe(name: str) -> str:
    """In characters and a length that MLflow takes."""
    return re.sub(r"[^\w.\- /]", "_", name)[:250]
