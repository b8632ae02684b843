"""Predictions of a grown network for a user's own file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raygrow.data.tables import read_features
from raygrow.errors import Refused
from raygrow.population.folder import CampaignFolder
from raygrow.population.lineage import lineage
from raygrow.predictor import Predictor

BATCH = 65536


def choose_checkpoint(
    folder: CampaignFolder, member: str | None = None, arch: str | None = None, checkpoint: str | None = None
) -> str:
    """Digest of the network that is meant: the best, a member's last, an architecture's last, or a digest itself.

    Raises:
        Refused: more than one is named, or the campaign has no such network; it says what there is.
    """
    folder.refuse_if_absent()
    named = [
        f"{option} {value}"
        for option, value in (("--member", member), ("--arch", arch), ("--checkpoint", checkpoint))
        if value
    ]
    if len(named) > 1:
        raise Refused(f"name one network, but got {' and '.join(named)}")
    if checkpoint is not None:
        if not folder.store.has(checkpoint):
            raise Refused(f"--checkpoint {checkpoint}: no such checkpoint in {folder.store.root}")
        return checkpoint
    entries: dict[str, list[tuple[str, str]]] = {}
    for event in folder.ledger.read():
        if event["type"] == "reported":
            for key in ("head", "control"):
                if key in event["report"]:
                    network = event["report"][key]
                    entries.setdefault(event["task"]["member"], []).append((network["arch_id"], network["checkpoint"]))
    if not entries:
        raise Refused(f"{folder.root}: the campaign has no network yet; `raygrow resume {folder.root}` goes on with it")
    if arch is not None:
        return _of_architecture(folder, entries, arch)
    if member is not None:
        if member not in entries:
            raise Refused(f"--member {member}: no such member; members: {', '.join(entries)}")
        return _heads(folder)[member]
    return _heads(folder)[""]


def _of_architecture(folder: CampaignFolder, entries: dict[str, list[tuple[str, str]]], arch: str) -> str:
    grown = [(node.arch_id, node.checkpoint) for node in lineage(folder.ledger.read())]
    known = grown + [entry for heads in entries.values() for entry in heads]
    matching = [digest for arch_id, digest in known if arch_id == arch and folder.store.has(digest)]
    if not matching:
        there = sorted({arch_id for arch_id, digest in known if folder.store.has(digest)})
        raise Refused(f"--arch {arch}: no kept network has this architecture; there are {', '.join(there)}")
    return matching[-1]


def _heads(folder: CampaignFolder) -> dict[str, str]:
    """Digest of every member's last head, and of the best under ``""``."""
    import json

    try:
        figures = json.loads(folder.summary.read_text())
    except (OSError, ValueError):
        raise Refused(f"{folder.summary}: cannot be read; `raygrow resume {folder.root}` writes it again") from None
    entries = [("", figures["best"]), *((member["member"], member) for member in figures["members"])]
    heads = {name: entry["checkpoint"] for name, entry in entries if entry and entry["checkpoint"]}
    if "" not in heads:
        raise Refused(f"{folder.root}: the campaign has no network yet; `raygrow resume {folder.root}` goes on with it")
    return heads


def predict_file(folder: CampaignFolder, digest: str, data: Path, output: Path) -> int:
    """Write predictions for a Parquet file, a folder of them or a CSV file, in its row order.

    Columns: ``prediction`` (the original label, or the target; ``prediction_0..`` for several targets) and
    ``probability_<label>`` for classification.

    Returns:
        Number of rows.

    Raises:
        Refused: the output exists or cannot be written.
        DataError: the data do not have the features of the network.
    """
    if output.exists():
        raise Refused(f"--output {output}: exists already; name a new file")
    if not output.parent.is_dir():
        raise Refused(f"--output {output}: the folder {output.parent} does not exist")
    checkpoint = folder.store.load(digest)
    raw = read_features(data, checkpoint.preprocessing)
    predictor = Predictor(checkpoint.network, checkpoint.preprocessing).eval()
    with torch.no_grad():
        parts = [predictor(torch.from_numpy(raw[i : i + BATCH])).double().numpy() for i in range(0, len(raw), BATCH)]
    values = np.concatenate(parts) if parts else np.zeros((0, 1))
    columns: dict[str, pa.Array] = {}
    if predictor.labels:
        labels = list(predictor.labels)
        columns["prediction"] = pa.array([labels[i] for i in values.argmax(1)], type=pa.array(labels).type)
        columns |= {f"probability_{label}": pa.array(values[:, i]) for i, label in enumerate(labels)}
    elif values.shape[1] == 1:
        columns["prediction"] = pa.array(values[:, 0])
    else:
        columns |= {f"prediction_{i}": pa.array(values[:, i]) for i in range(values.shape[1])}
    beside = output.with_name(f".{output.name}.tmp")
    try:
        pq.write_table(pa.table(columns), beside)
        beside.replace(output)
    except OSError as error:
        raise Refused(f"--output {output}: cannot be written: {error.strerror or error}") from None
    return len(raw)
