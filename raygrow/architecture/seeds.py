"""Seeds as digests: randomness is passed, never global."""

from __future__ import annotations

import hashlib
import json


def digest_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order."""
    text = json.dumps(parts, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
