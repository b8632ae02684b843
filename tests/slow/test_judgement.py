"""The judgement is honest: useless moves are accepted at most at the level, useful ones are found.

A decision is one member-round with K = 4, alpha 0.05 and price 0. On the null arms the best predictions are probed
whatever the screen says, so that nothing but the verdict keeps a useless move out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial

import pytest

from raygrow.data import AbstractSource
from raygrow.data.builtin import BreastCancer, Diabetes
from tests.slow.decisions import JUDGES, Arm, Cell, Decision, Drawn, campaign_of, decide, teacher

pytestmark = pytest.mark.slow

DATA_SETS = 200
MOST_FALSE = 17
"""The 99 % bound of 5 % of 200 decisions."""
POWER_DATA_SETS = 60
LEAST_POWER = 0.75
EXAMPLES = (2_000, 10_000)

NULL_ARMS: list[tuple[str, Arm, AbstractSource]] = [
    ("balanced labels", "round", Drawn()),
    ("labels 85/5/5/5", "round", Drawn(shares=(0.85, 0.05, 0.05, 0.05))),
    ("linear truth", "round", Drawn(scale=2.0)),
    # Where a network lacks a layer, its twins differ most.
    ("reseeded controls", "reseeded", teacher(validation=400)),
    ("existing weights re-solved", "resolved", teacher(validation=400)),
]
NULL_CELLS = [Cell(*arm, examples) for arm in NULL_ARMS for examples in EXAMPLES]
POWER_CELLS = [Cell("teacher", "screened", teacher(validation=1000), examples) for examples in EXAMPLES]


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Two processes, as many as the machine has cores."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def decisions(pool: Executor, cell: Cell, count: int) -> list[Decision]:
    return list(pool.map(partial(decide, cell), range(count), chunksize=5))


def table(cell: Cell, found: list[Decision]) -> str:
    counts = ", ".join(f"{judge} accepted {sum(d.accepted(judge) for d in found)}" for judge in JUDGES)
    probed = [len(d.heard) for d in found]
    return f"{cell}: of {len(found)}, {counts}; probed 4: {probed.count(4)}, none: {probed.count(0)}"


@pytest.mark.parametrize("cell", NULL_CELLS, ids=str)
def test_useless_moves_are_accepted_at_most_at_the_level(pool: Executor, cell: Cell) -> None:
    found = decisions(pool, cell, DATA_SETS)
    line = table(cell, found)
    print(line)
    # Where the line search finds no amplitude on search a candidate is dead; that may not be what keeps the level.
    assert sum(bool(d.heard) for d in found) >= 0.75 * DATA_SETS, line
    for judge in JUDGES:
        assert sum(d.accepted(judge) for d in found) <= MOST_FALSE, line


@pytest.mark.parametrize("cell", POWER_CELLS, ids=str)
def test_a_missing_hidden_layer_is_found(pool: Executor, cell: Cell) -> None:
    found = decisions(pool, cell, POWER_DATA_SETS)
    line = table(cell, found)
    print(line)
    for judge in JUDGES:
        assert sum(d.accepted(judge) for d in found) >= LEAST_POWER * POWER_DATA_SETS, line


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("source", [BreastCancer(), Diabetes()], ids=lambda source: source.kind)
def test_small_linear_sets_do_not_grow(pool: Executor, source: AbstractSource, judge: str) -> None:
    accepted = list(pool.map(partial(campaign_of, source, judge, rounds=3), range(5)))
    print(f"{source.kind}: {judge} accepted {sum(map(len, accepted))} moves in 5 campaigns of 3 rounds")
    assert not any(accepted), accepted
