"""Content-addressed checkpoints: safetensors and JSON, no pickle, written beside and then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from raygrow.architecture import Architecture
from raygrow.data import Preprocessing
from raygrow.errors import CheckpointError
from raygrow.nn import Network, State
from raygrow.population.ledger import sync_folder

FILES = ("architecture.json", "weights.safetensors", "optimizer.safetensors", "preprocessing.json", "strategy.json")
_SEPARATOR = "|"


@dataclass(frozen=True)
class Checkpoint:
    """One network with everything needed to go on from it.

    Attributes:
        network: on the CPU.
        optimizer: carried state, by parameter name.
        preprocessing: of the examples it was trained on.
        strategy: kind and state of the member's addition strategy; plain JSON.
    """

    network: Network
    optimizer: State
    preprocessing: Preprocessing
    strategy: Mapping[str, Any]


class CheckpointStore:
    """Checkpoints of one campaign, each in a folder named by the digest of its files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, checkpoint: Checkpoint) -> str:
        """Write a checkpoint; the same content is written once.

        Returns:
            Its digest, 32 hexadecimal digits.
        """
        optimizer = {
            f"{name}{_SEPARATOR}{key}": value.detach().cpu().contiguous()
            for name, entries in checkpoint.optimizer.items()
            for key, value in entries.items()
        }
        weights = {name: p.detach().cpu().contiguous() for name, p in checkpoint.network.state_dict().items()}
        content = {
            "architecture.json": checkpoint.network.arch.canonical().encode(),
            "weights.safetensors": save_tensors(weights),
            "optimizer.safetensors": save_tensors(optimizer),
            "preprocessing.json": checkpoint.preprocessing.to_json().encode(),
            "strategy.json": _json(checkpoint.strategy),
        }
        digest = _digest(content)
        folder = self.root / digest
        if folder.exists():
            return digest
        self.root.mkdir(parents=True, exist_ok=True)
        beside = self.root / f".{digest}.{uuid.uuid4().hex}.tmp"
        beside.mkdir()
        for name, data in content.items():
            with (beside / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        try:
            os.rename(beside, folder)
        except OSError:
            # Another process finished the same content first: its folder is as good as ours.
            if not folder.exists():
                raise
            shutil.rmtree(beside)
        sync_folder(self.root)
        return digest

    def load(self, digest: str) -> Checkpoint:
        """Read a checkpoint and check it against its name.

        Raises:
            CheckpointError: it is missing, incomplete or altered.
        """
        folder = self.root / digest
        try:
            content = {name: (folder / name).read_bytes() for name in FILES}
        except OSError as error:
            raise CheckpointError(f"checkpoint {digest}: cannot read {error.filename}: {error.strerror}") from None
        if _digest(content) != digest:
            raise CheckpointError(f"checkpoint {folder}: its files do not match their digest; they were altered")
        arch = Architecture.from_json(json.loads(content["architecture.json"]))
        weights = load_tensors(content["weights.safetensors"])
        network = Network(arch, dtype=next(iter(weights.values())).dtype)
        network.load_state_dict(weights)
        optimizer: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in load_tensors(content["optimizer.safetensors"]).items():
            parameter, key = name.split(_SEPARATOR)
            optimizer.setdefault(parameter, {})[key] = value
        return Checkpoint(
            network,
            optimizer,
            Preprocessing.from_json(content["preprocessing.json"].decode()),
            json.loads(content["strategy.json"]),
        )

    def has(self, digest: str) -> bool:
        return (self.root / digest).is_dir()

    def sweep(self, referenced: Iterable[str]) -> None:
        """Delete every checkpoint that is not referenced, and what a crash left half-written.

        Only while no worker is writing.
        """
        keep = set(referenced)
        if self.root.is_dir():
            for folder in self.root.iterdir():
                if folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: Mapping[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in FILES:
        digest.update(f"{name}:{len(content[name])}:".encode())
        digest.update(content[name])
    return digest.hexdigest()
