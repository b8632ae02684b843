"""Decisions are counted as they are defined, and levels judged as the binomial distribution has them."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from raygrow.comparison.calibration import Watched, accepted_rounds, calibration


def watched(*accepted: int, level: float | None = 0.05, effect: float = 0.0, arm: str = "mdl") -> Watched:
    return Watched(arm, level, "noise", effect, 1.0, 2000, 3, accepted)


def test_a_round_accepts_when_any_of_its_candidates_is_accepted_granted_or_not() -> None:
    moves = pa.table(
        {
            "member": ["a", "a", "a", "b", "a"],
            "round": [2, 1, 1, 2, 3],
            "verdict": ["accept", "reject", "reject", "accept", "accept"],
            "granted": [True, False, False, True, False],
        }
    )
    assert accepted_rounds(moves, "a") == (2, 3)
    assert accepted_rounds(moves, "b") == (2,)
    assert accepted_rounds(moves, "c") == ()


def test_looks_add_up_and_a_second_accept_counts_no_more() -> None:
    members = [watched(), watched(1), watched(1, 3), watched(2, 3), watched(3)]
    rows = calibration(members).to_pylist()
    assert [(row["looks"], row["accepted"], row["campaigns"]) for row in rows] == [(1, 2, 5), (2, 3, 5), (3, 4, 5)]
    assert [row["rate"] for row in rows] == [0.4, 0.6, 0.8]
    # Clopper-Pearson inverts the binomial tails: at each end, 2.5 % of the campaigns would be at least as far off.
    for row in rows:
        k, n = row["accepted"], 5
        above = sum(math.comb(n, i) * row["low"] ** i * (1 - row["low"]) ** (n - i) for i in range(k, n + 1))
        below = sum(math.comb(n, i) * row["high"] ** i * (1 - row["high"]) ** (n - i) for i in range(k + 1))
        assert above == pytest.approx(0.025)
        assert below == pytest.approx(0.025)


def test_a_level_is_broken_only_beyond_binomial_error_and_only_where_nothing_is_planted() -> None:
    # 99 % of binomial(100, 0.05) lies at or below 11: 12 or more have a chance of 0.4 %, 11 or more of 1.1 %.
    verdicts = {}
    for count in (0, 5, 11, 12, 40):
        members = [watched(1) for _ in range(count)] + [watched() for _ in range(100 - count)]
        verdicts[count] = calibration(members).to_pylist()[0]["guarantee"]
    assert verdicts == {0: "holds", 5: "holds", 11: "holds", 12: "broken", 40: "broken"}
    everywhere = [watched(1, effect=0.5)] * 50 + [watched(1, level=None, arm="random")] * 50
    assert {row["guarantee"] for row in calibration(everywhere).to_pylist()} == {None}


def test_cells_are_kept_apart() -> None:
    members = [watched(1), watched(1, arm="blind"), watched(effect=1.0), watched(level=0.2)]
    rows = [row for row in calibration(members).to_pylist() if row["looks"] == 3]
    assert [(row["arm"], row["effect"], row["level"], row["accepted"]) for row in rows] == [
        ("mdl", 0.0, 0.05, 1), ("blind", 0.0, 0.05, 1), ("mdl", 1.0, 0.05, 0), ("mdl", 0.0, 0.2, 0),
    ]  # fmt: skip
