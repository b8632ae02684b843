"""What a step does beyond the bare update: clipping, weight decay, and the treatment of entries that growth has just added.

Everything is elementwise on a store's whole buffers, or a sum over one network in the order of its entries. So it is exact for
every network, and does not depend, bit for bit, on which others share the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from raygrow.nn import ADAM_BETAS, ADAM_EPS, Optimizer, OptimizerPlan
from raygrow.training.place import Place

NORM_RANGE = (0.1, 10.0)
"""Least and most that the norm rule multiplies a rate by: a fan-out that begins at 0 must still move."""


class Groups:
    """A buffer's entries by a number, and sums over those of one number.

    Args:
        of: number of each entry, [size], from 0 to ``count`` - 1.
    """

    def __init__(self, of: Tensor, count: int) -> None:
        self.of = of
        self.sizes = torch.bincount(of, minlength=count)
        self._order = torch.argsort(of, stable=True)

    def sums(self, values: Tensor) -> Tensor:
        """[count]; entry by entry, in the order of the buffer."""
        # index_add_ would be faster, but on a GPU it adds in any order.
        return torch.segment_reduce(values[self._order], "sum", lengths=self.sizes, unsafe=True)


class Newborn:
    """The gradients of entries added just before the store began, against those of all others, network by network.

    Args:
        ages: steps taken since each entry was added when the store begins, [size], inf where it was always there.
    """

    def __init__(self, forks: int, places: Sequence[Place], ages: Tensor) -> None:
        numbers = torch.zeros_like(ages, dtype=torch.long)
        # The gaps between places are no entries: a number of their own.
        numbers.fill_(2 * forks)
        for place in places:
            place.within(numbers).copy_(2 * place.fork + (place.within(ages) == 0))
        self._groups, self._forks = Groups(numbers, 2 * forks + 1), forks
        self._seen = torch.zeros(2 * forks, dtype=torch.float64, device=ages.device)

    def observe(self, gradients: Tensor) -> None:
        """Take the gradients of this step into account."""
        self._seen += self._groups.sums(gradients * gradients)[:-1]

    def ratios(self) -> list[float | None]:
        """Root mean square of a new entry's gradient over that of an old one, all observed steps together, by network.

        None where there is nothing new, nothing old, or no finite ratio.
        """
        sizes = self._groups.sizes[:-1].view(-1, 2)
        old, new = (self._seen.view(-1, 2) / sizes).unbind(1)
        return [found if math.isfinite(found) else None for found in (new / old).sqrt().tolist()]


class Treatment:
    """The step of a plan that clips, decays or treats new entries in their own way.

    Args:
        ages: steps taken since each entry was added when the store begins, [size], inf where it was always there.
        steps_of: steps taken with the parameter of a place when the store begins.
        params, gradients, moments: the store's buffers.
        optimizer: updates ``params`` by ``used``.
        used: what gradients are clipped into; ``gradients`` themselves where the plan does not clip.
    """

    def __init__(
        self,
        plan: OptimizerPlan,
        places: Sequence[Place],
        ages: Tensor,
        steps_of: Callable[[Place], float],
        params: Tensor,
        gradients: Tensor,
        moments: Mapping[str, Tensor],
        optimizer: Optimizer,
        used: Tensor,
    ) -> None:
        self._plan, self._places, self._steps_of = plan, places, steps_of
        self._ages, self._params, self._gradients, self._moments = ages, params, gradients, moments
        self._optimizer, self._used = optimizer, used
        self._taken = 0
        # Entries of one age are a cohort, oldest first; all entries that are not new are cohort 0.
        new = sorted(set(ages[ages < plan.new_steps].tolist()), reverse=True)
        self._cohorts: list[float] = [math.inf, *new]
        self._refresh()

    @staticmethod
    def wanted(plan: OptimizerPlan, ages: Tensor | None) -> bool:
        """Whether this plan, for entries of these ages, asks for more than the bare update."""
        always = plan.clip is not None or plan.weight_decay > 0
        own = plan.new_lr == "norm" or plan.warmup_steps > 0 or _fresh(plan)
        return always or (own and ages is not None and bool((ages < plan.new_steps).any()))

    def _refresh(self) -> None:
        """Lay out which entries are new, now that the store has taken so many steps."""
        left = [age for age in self._cohorts if age + self._taken < self._plan.new_steps]
        self._cohorts = [math.inf, *left]
        self._of = torch.zeros_like(self._ages, dtype=torch.long)
        for number, age in enumerate(left, start=1):
            self._of[self._ages == age] = number
        self._new = self._of > 0
        plan, forks = self._plan, 1 + max(place.fork for place in self._places)
        if plan.clip is not None:
            numbers = torch.zeros_like(self._of)
            for place in self._places:
                place.within(numbers).copy_(2 * place.fork + place.within(self._new))
            self._clipped = Groups(numbers, 2 * forks)
        if plan.new_lr == "norm" and left:
            self._lay_out_norms()

    def _lay_out_norms(self) -> None:
        """Number the slices of every parameter by cohort; the first that a parameter has is what the others go by."""
        cohorts, keys = len(self._cohorts), dict[tuple[int, str], int]()
        # The gaps between places are no entries: a number of their own, the last.
        numbers = torch.full_like(self._of, -1)
        for place in self._places:
            key = keys.setdefault((place.fork, place.name), len(keys))
            place.within(numbers).copy_(cohorts * key + place.within(self._of))
        last = cohorts * len(keys)
        self._slices = Groups(torch.where(numbers < 0, last, numbers), last + 1)
        firsts = [
            [size > 0 for size in sizes].index(True) for sizes in self._slices.sizes[:-1].view(-1, cohorts).tolist()
        ]
        bases = [cohorts * key + first for key, first in enumerate(firsts) for _ in range(cohorts)]
        self._bases = torch.tensor([*bases, last], device=self._of.device)

    def step(self, lr: float) -> None:
        """One update at this rate, on old entries."""
        plan, new = self._plan, len(self._cohorts) > 1
        if plan.clip is not None:
            norms = self._clipped.sums(self._gradients * self._gradients).sqrt_()
            shares = (plan.clip / norms.add_(1e-6)).clamp_(max=1.0)
            torch.mul(self._gradients, shares[self._clipped.of], out=self._used)
        rates = self._rates() if new else None
        if plan.weight_decay:
            kept = self._by_cohort([1.0 - lr * plan.weight_decay] + [1.0] * (len(self._cohorts) - 1))
            self._params.mul_(kept)
        fresh = new and _fresh(plan)
        before = self._params.clone() if rates is not None or fresh else self._params
        self._optimizer.step(lr)
        self._taken += 1
        after = torch.where(self._new, self._young(before, lr), self._params) if fresh else self._params
        if rates is not None:
            # Both updates are proportional to the rate, so this is the update at another one.
            after = torch.lerp(before, after, rates)
        if after is not self._params:
            self._params.copy_(after)
        if new and self._cohorts[1] + self._taken >= plan.new_steps:
            self._grow_up()

    def _by_cohort(self, values: Sequence[float]) -> Tensor:
        """A value for every entry, [size]."""
        return torch.tensor(values, dtype=self._params.dtype, device=self._params.device)[self._of]

    def _rates(self) -> Tensor | None:
        """What the rate of every entry is multiplied by in the coming step; None where that is 1 throughout."""
        found: Tensor | None = None
        warming = self._plan.warmup_steps
        if self._cohorts[-1] + self._taken < warming:
            found = self._by_cohort([1.0, *(min((a + self._taken + 1) / warming, 1.0) for a in self._cohorts[1:])])
        if self._plan.new_lr == "norm":
            squares = self._slices.sums(self._params * self._params)
            # What the others go by is divided by itself; zeros by zeros give no reason to slow down.
            factors = (squares / squares[self._bases]).sqrt_().nan_to_num_(1.0, NORM_RANGE[1]).clamp_(*NORM_RANGE)
            scales = factors[self._slices.of]
            found = scales if found is None else found.mul_(scales)
        return found

    def _young(self, before: Tensor, lr: float) -> Tensor:
        """Adam's update with the bias corrected by the age of the entry instead of the steps of its parameter."""
        ages = [age + self._taken for age in self._cohorts]
        first, second = (self._by_cohort([1.0 - beta**age for age in ages]) for beta in ADAM_BETAS)
        spread = (self._moments["exp_avg_sq"] / second).sqrt_().add_(ADAM_EPS)
        return torch.addcdiv(before, self._moments["exp_avg"] / first, spread, value=-lr)

    def _grow_up(self) -> None:
        """Entries of the oldest cohort are new no more.

        Where they had a bias correction of their own, their moments are scaled so that that of their parameter corrects
        them to the same values.
        """
        plan = self._plan
        if _fresh(plan):
            grown = self._ages + self._taken >= plan.new_steps
            for place in self._places:
                mask = place.within(grown & self._new)
                if bool(mask.any()):
                    for beta, key in zip(ADAM_BETAS, ("exp_avg", "exp_avg_sq"), strict=True):
                        corrected = 1.0 - beta ** (self._steps_of(place) + self._taken)
                        own = 1.0 - beta**plan.new_steps
                        view = place.within(self._moments[key])
                        view.copy_(torch.where(mask, view * (corrected / own), view))
        self._refresh()


def _fresh(plan: OptimizerPlan) -> bool:
    """SGD corrects no bias."""
    return plan.new_moments == "fresh" and plan.kind == "adam"
