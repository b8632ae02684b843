"""What one baseline does in one repetition: everything that it trains and measures is paid for and written down."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

from raygrow.architecture import Architecture, forward_flops, training_flops
from raygrow.baselines.base import AbstractBaseline, Repetition, Trained, entry
from raygrow.baselines.nets import FixedNet, examples, training_rows
from raygrow.errors import ConfigError
from raygrow.nn import Network, clone
from raygrow.nn.losses import LOSSES
from raygrow.population.lengths import Length, examples_of
from raygrow.training import Score, score

CHECKS = 10
"""Looks at validation on the way of a network that is trained once; the best of them is kept."""


def standing(found: Score) -> tuple[float, float]:
    """What networks are chosen by, the higher the better: accuracy or R2 on validation, and the loss where they tie."""
    return (found.metric, -found.loss) if math.isfinite(found.loss) else (-math.inf, -math.inf)


class Course:
    """The way of a baseline through a repetition.

    Attributes:
        rows: what it may learn from.
        validation: what it chooses by.
        spent: training FLOPs so far, reads of validation included.
        history: as ``entry`` makes them.
        lr: of training to the end, unless the baseline has its own.
    """

    def __init__(self, repetition: Repetition) -> None:
        self._begun = time.perf_counter()
        self.repetition, self.training = repetition, repetition.member.training
        self.rows, self.validation = training_rows(repetition), examples(repetition.dataset.validation)
        self.loss = LOSSES[repetition.facts.task]
        self.lr = self.training.final_lr or self.training.lr
        self.spent = 0
        self.history: list[dict[str, Any]] = []

    def length(self, length: Length) -> int:
        """In examples; epochs are of ``rows``."""
        return examples_of(length, len(self.rows))

    def left(self, share: float = 1.0) -> float:
        """Training FLOPs that may still be spent of this share of the budget."""
        limit = self.repetition.train_flops
        return math.inf if limit is None else share * limit - self.spent

    def affordable(self, arch: Architecture, wanted: int, checks: int = 1, share: float = 1.0) -> int:
        """Examples, at most so many, on which a network can be trained, and measured so often, with what is left."""
        left = self.left(share) - checks * len(self.validation) * forward_flops(arch)
        return wanted if math.isinf(left) else max(min(wanted, int(left // training_flops(arch))), 0)

    def begin(self, arch: Architecture, wanted: int, checks: int = 1, share: float = 1.0) -> int:
        """The same for what must be trained at all.

        Raises:
            ConfigError: the budget does not pay for a single batch.
        """
        count = self.affordable(arch, wanted, checks, share)
        if count < min(wanted, self.training.batch_size):
            raise ConfigError(
                f"`train_flops` {self.repetition.train_flops:.3g} does not pay for a batch of a network of "
                f"{forward_flops(arch)} FLOPs per example and {checks} looks at validation: raise it, or give a smaller "
                "network"
            )
        return count

    def score(self, network: Network) -> Score:
        """Measure it on validation."""
        found = score(network, self.validation, self.loss)
        self.spent += found.flops
        return found

    def train(
        self, network: Network, count: int, lr: float | None = None, checks: int = 1, seed: int | None = None
    ) -> tuple[Network, Score]:
        """Train a network, half a cosine down, and keep the best of so many looks at it.

        Args:
            network: written to.
            count: examples.
            lr: None: that of the campaign's own anneal.
            checks: looks at validation, evenly spread; the last at the end.
            seed: of the order of the examples; None: that of the repetition.

        Returns:
            The best, which may be ``network`` itself, and what it is on validation.
        """
        batch, plan = self.training.batch_size, self.training.optimizer_plan(lr or self.lr)
        order = self.repetition.seed if seed is None else seed
        net = FixedNet(network, self.rows, self.repetition.facts.task, count, plan, batch, order)
        steps = math.ceil(count / batch)
        # On whole batches, and each only once where there are fewer batches than looks.
        cuts = sorted({min(round(steps * i / checks) * batch, count) for i in range(checks + 1)})
        best: tuple[Network, Score] | None = None
        for start, stop in pairwise(cuts):
            before = net.flops
            net.advance(stop - start)
            self.spent += net.flops - before
            found = self.score(network)
            self.note(network.arch, found)
            if best is None or standing(found) > standing(best[1]):
                best = (network if stop == count else clone(network), found)
        assert best is not None
        return best

    def note(self, arch: Architecture, found: Score) -> None:
        """Write a network down that could be chosen by now."""
        self.history.append(entry(self.repetition, len(self.history), arch, found, self.spent))

    def finish(
        self,
        baseline: AbstractBaseline,
        network: Network,
        found: Score,
        *,
        tried: int = 0,
        taken: int = 0,
        rounds: int = 1,
        stopped_because: str | None = None,
    ) -> dict[str, Any]:
        """Read test for the chosen network, once, and sum up.

        Args:
            found: of the network, on validation.
        """
        seconds = time.perf_counter() - self._begun
        last = [self.history[-1][key] for key in ("arch_id", "validation_loss")] if self.history else []
        if last != [network.arch.arch_id, found.loss]:
            self.note(network.arch, found)
        test = score(network, examples(self.repetition.dataset.test), self.loss)
        return Trained(
            network.arch, found, test, self.spent, self.history, rounds, seconds, tried=tried, taken=taken,
            stopped_because=stopped_because,
        ).summary(baseline, self.repetition)  # fmt: skip
