"""Whether a trial can ever be placed on a cluster: Ray itself would wait for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Bundle = Mapping[str, float]
"""Resources set aside together on one node: ``CPU`` and ``GPU``."""


def misfit(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> str | None:
    """Why an empty cluster could not hold these bundles at once, each whole on one node; None: it can.

    First fit, the largest first: exact where the bundles of a trial need one kind of resource in at most two sizes.
    """
    free = sorted((dict(node) for node in nodes), key=_size, reverse=True)
    for bundle in sorted(bundles, key=_size, reverse=True):
        node = next((node for node in free if all(node.get(key, 0.0) >= need for key, need in bundle.items())), None)
        if node is None:
            return f"it needs {_words(bundles)}, but the cluster has {_words(nodes) or 'no node'}"
        for key, need in bundle.items():
            node[key] -= need
    return None


def _size(bundle: Bundle) -> tuple[float, float]:
    return bundle.get("GPU", 0.0), bundle.get("CPU", 0.0)


def _words(bundles: Sequence[Bundle]) -> str:
    named = [
        " with ".join(
            f"{bundle[key]:g} {key}{'' if bundle[key] == 1 else 's'}" for key in ("CPU", "GPU") if bundle.get(key)
        )
        for bundle in bundles
    ]
    return ", ".join(
        f"{count} times {what or 'nothing'}" if count > 1 else what or "nothing"
        for what, count in Counter(named).items()
    )
