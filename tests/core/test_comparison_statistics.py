"""Statistics of a comparison against hand counts, closed forms, enumeration and Monte Carlo."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raygrow.comparison.area import Step, area, best_so_far, common_bounds
from raygrow.comparison.front import common_box, hypervolume, pareto_front
from raygrow.comparison.paired import holm, interval, least_p, signed_rank
from raygrow.comparison.ranks import critical_difference, friedman, groups, ranks
from raygrow.comparison.statistics import MEASURES, statistics
from raygrow.errors import Refused
from tests.core.comparison_tables import growing, tables


def step(train_flops: float, score: float, loss: float | None = None, flops: float = 100.0) -> Step:
    return Step(train_flops, flops, 1 - score if loss is None else loss, score)


# pairs


def enumerated(differences: list[float]) -> float:
    """Two-sided p of the signed-rank sum over all assignments of signs, zeros ranked and then left out."""
    sizes = [abs(d) for d in differences]
    rank = [(sum(o < s for o in sizes) + 1 + sum(o <= s for o in sizes)) / 2 for s in sizes]
    moving = [r for r, s in zip(rank, sizes, strict=True) if s > 0]
    seen = sum(r for r, d in zip(rank, differences, strict=True) if d > 0)
    sums = [sum(r for r, plus in zip(moving, signs, strict=True) if plus)
            for signs in itertools.product((0, 1), repeat=len(moving))]  # fmt: skip
    low, high = (
        sum(test(s) for s in sums) / len(sums) for test in (lambda s: s <= seen + 1e-9, lambda s: s >= seen - 1e-9)
    )
    return min(1.0, 2 * min(low, high))


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, 0.2, 0.3, 0.4, 0.5],
        [0.1, -0.2, 0.3, 0.4, 0.5, 0.6, -0.05],
        [0.1, 0.1, -0.1, 0.3, 0.3, 0.2, 0.1],
        [0.0, 0.0, 0.25, 0.5, 0.5, 0.75, -0.25, 1.0],
        [-0.3, -0.3, -0.1, 0.0],
    ],
)
def test_the_signed_rank_test_is_that_of_all_signs(differences: list[float]) -> None:
    assert signed_rank(differences) == pytest.approx(enumerated(differences), abs=1e-12)
    assert signed_rank([-d for d in differences]) == pytest.approx(enumerated(differences), abs=1e-12)


def test_last_bits_break_no_ties_and_the_least_p_is_reached() -> None:
    noisy = [0.9 - 0.8, 0.4 - 0.3, 0.3 - 0.2, 0.2 - 0.1, -(0.7 - 0.6)]
    assert len(set(map(abs, noisy))) > 1
    assert signed_rank(noisy) == pytest.approx(enumerated([0.1] * 4 + [-0.1]))
    for n in range(1, 9):
        assert signed_rank([0.1 * (i + 1) for i in range(n)]) == pytest.approx(least_p(n))
    assert least_p(5) > 0.05 > least_p(6)
    assert signed_rank([0.0, 0.0]) == 1.0
    assert signed_rank([]) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        found = interval(generator.normal(0.3, 1.0, 20).tolist())
        assert found is not None
        hits += found[0] <= 0.3 <= found[1]
    # 95 % less the known shortfall at 20 values; five standard errors of a count of 300 beyond.
    assert 0.87 <= hits / 300 <= 0.985
    values = generator.normal(0.0, 1.0, 400)
    low, high = interval(values.tolist()) or (0.0, 0.0)
    reach = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.15 * reach)
    assert interval(values.tolist()) == (low, high)
    assert interval([0.1, 0.2]) is interval([0.3, 0.1 + 0.2, 0.3]) is None


# ranks


def test_ranks_and_friedmans_statistic_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.7, 0.8], [0.5, 0.5, 0.4], [0.1 + 0.2, 0.3, 0.2]])
    expected = np.array([[1, 2, 3], [1, 3, 2], [1.5, 1.5, 3], [1.5, 1.5, 3]])
    assert (ranks(scores) == expected).all()
    plain = np.array([[0.9, 0.8, 0.7, 0.1], [0.9, 0.7, 0.8, 0.2], [0.7, 0.9, 0.6, 0.1], [0.9, 0.6, 0.5, 0.4]])
    n, k = plain.shape
    sums = np.array([5.0, 8.0, 11.0, 16.0])
    by_hand = 12 / (n * k * (k + 1)) * (sums**2).sum() - 3 * n * (k + 1)
    found = friedman(plain)
    assert found is not None
    assert found[0] == pytest.approx(by_hand)
    # The tail of chi-squared with 3 degrees of freedom in closed form.
    tail = math.erfc(math.sqrt(by_hand / 2)) + math.sqrt(2 * by_hand / math.pi) * math.exp(-by_hand / 2)
    assert found[1] == pytest.approx(tail)
    assert friedman(plain[:, :2]) is friedman(plain[:1]) is None
    assert friedman(np.ones((4, 3))) == (0.0, 1.0)


@pytest.mark.parametrize(("arms", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_has_the_published_quantiles(arms: int, q: float) -> None:
    # Demšar (2006), table 5a.
    assert critical_difference(arms, 14, 0.05) == pytest.approx(q * math.sqrt(arms * (arms + 1) / 84), rel=3e-4)


def test_groups_are_the_largest_sets_within_the_difference() -> None:
    average = {"d": 3.9, "a": 1.0, "c": 2.4, "b": 1.6}
    assert groups(average, 1.0) == [["a", "b"], ["b", "c"]]
    assert groups(average, 1.55) == [["a", "b", "c"], ["c", "d"]]
    assert groups(average, 3.0) == [["a", "b", "c", "d"]]
    assert groups(average, 0.5) == []


# area


def test_the_area_of_steps_by_hand_and_by_counting() -> None:
    curve = [step(1, 0.2), step(10, 0.6), step(100, 0.5), step(1000, 0.8)]
    assert best_so_far(curve) == [(1, 0.2), (10, 0.6), (1000, 0.8)]
    # A decade at 0.2, two at 0.6.
    assert area(curve, 1, 1000) == pytest.approx((0.2 + 0.6 + 0.6) / 3)
    assert area(curve, 10, 10_000) == pytest.approx((0.6 + 0.6 + 0.8) / 3)
    # Nothing before the first network.
    assert area([step(100, 0.9)], 1, 1000) == pytest.approx(0.9 / 3)
    generator = np.random.default_rng(3)
    many = [step(float(10 ** generator.uniform(0, 6)), float(generator.uniform())) for _ in range(40)]
    grid = 10 ** np.linspace(1, 5, 40_001)[:-1]
    known = sorted(many)
    counted = [
        min((s for s in known if s.train_flops <= at), key=lambda s: s.loss or 0.0, default=step(1, 0.0)).score or 0.0
        for at in grid[::40]
    ]
    assert area(many, 10, 1e5) == pytest.approx(np.mean(counted), abs=2e-3)


def test_loss_chooses_and_score_counts() -> None:
    curve = [step(1, 0.7, 0.5), step(2, 0.6, 0.4), step(3, 0.9, 0.45), Step(4, 1, None, 1.0), Step(5, 1, math.nan, 1.0)]
    assert best_so_far(curve) == [(1, 0.7), (2, 0.6)]


def test_bounds_are_those_that_all_arms_share() -> None:
    grown, other, fixed = [step(10, 0.1), step(900, 0.2)], [step(30, 0.1), step(500, 0.2)], [step(400, 0.9)]
    assert common_bounds([grown, other]) == (30, 500)
    # A net trained once begins late, but does not make the others' beginnings vanish.
    assert common_bounds([grown, other, fixed]) == (30, 400)
    assert common_bounds([grown, [step(0, 0.1), step(20, 0.2)]]) is None
    assert common_bounds([grown, []]) is common_bounds([fixed]) is None
    assert common_bounds([[step(0, 0.1), step(5, 0.2), step(50, 0.3)], grown]) == (10, 50)


# volume


def test_a_single_network_dominates_the_box_above_it() -> None:
    curve = [Step(1000, 100, 0.1, 0.8)]
    # In a box from 10 to 1000 and from 100 to 10,000: half of either axis, and the scores below.
    assert hypervolume(curve, ((10, 1000), (100, 10_000))) == pytest.approx(0.8 / 4)
    assert hypervolume([Step(1000, 100, 0.1, -3.0)], ((10, 1000), (100, 10_000))) == 0.0
    assert hypervolume([], ((10, 1000), (100, 10_000))) == 0.0
    assert common_box([curve, [Step(50, 7, 1, 0.1)]]) == ((7, 200), (50, 2000))
    assert common_box([[Step(0, 7, 1, 0.1)]]) is None


def test_the_volume_is_that_of_monte_carlo() -> None:
    generator = np.random.default_rng(1)
    train, flops, scores = (
        10 ** generator.uniform(3, 6, 12),
        10 ** generator.uniform(1, 4, 12),
        generator.uniform(0.1, 1, 12),
    )
    curve = [Step(*row) for row in zip(train.tolist(), flops.tolist(), [0.0] * 12, scores.tolist(), strict=True)]
    box = common_box([curve])
    assert box is not None
    (a, b), (c, d) = box
    darts = generator.uniform(size=(200_000, 3))
    cheap, brief = a * (b / a) ** darts[:, 1], c * (d / c) ** darts[:, 2]
    hit = np.zeros(len(darts), dtype=bool)
    for network in curve:
        hit |= (darts[:, 0] <= network.score) & (network.flops_per_example <= cheap) & (network.train_flops <= brief)
    assert hypervolume(curve, box) == pytest.approx(hit.mean(), abs=5 * 0.5 / math.sqrt(len(darts)))


def test_the_front_is_what_no_other_beats() -> None:
    generator = np.random.default_rng(2)
    scores, one, two = generator.integers(0, 6, (3, 60)).astype(float)
    beaten = [
        any(
            (scores[j], -one[j], -two[j]) != (scores[i], -one[i], -two[i])
            and scores[j] >= scores[i] and one[j] <= one[i] and two[j] <= two[i]
            for j in range(60)
        )
        for i in range(60)
    ]  # fmt: skip
    assert pareto_front(scores, one, two).tolist() == [not b for b in beaten]
    assert 0 < sum(beaten) < 60
    assert pareto_front([], []).tolist() == []


# all of it

LEVELS = {"mdl": 0.80, "rl": 0.90, "same": 0.80, "fixed": 0.70}


def rows(found: dict[str, Any], key: str, **where: Any) -> list[dict[str, Any]]:
    return [row for row in found[key] if all(row[name] == value for name, value in where.items())]


def test_a_better_arm_is_found_and_an_equal_one_is_not() -> None:
    trials, curves = tables(list(LEVELS), ["digits", "teacher"], 6, growing(LEVELS, noise=0.01), baselines=("fixed",))
    found = statistics(trials, curves, "mdl")
    assert json.loads(json.dumps(found, allow_nan=False)) == found == statistics(trials, curves, "mdl")
    assert found["arms"] == ["mdl", "fixed", "rl", "same"]
    assert found["trials"] == {"done": 48}
    for measure in MEASURES:
        verdicts = {row["arm"]: row["verdict"] for row in rows(found, "comparisons", measure=measure, data=None)}
        assert verdicts == {"rl": "better", "fixed": "worse", "same": "no difference shown"}
    ahead = rows(found, "comparisons", measure="equal_validation_score", arm="rl", data=None)[0]
    scores = {(row["arm"], row["data"], row["seed"]): row["equal_validation_score"] for row in trials.to_pylist()}
    expected = [scores["rl", d, s] - scores["mdl", d, s] for d in ("digits", "teacher") for s in range(6)]
    assert ahead["n"] == 12
    assert ahead["mean"] == pytest.approx(np.mean(expected))
    assert ahead["sd"] == pytest.approx(np.std(expected, ddof=1))
    assert ahead["low"] < ahead["mean"] < ahead["high"]
    assert ahead["p"] == pytest.approx(2 / 2**12)
    assert (ahead["better"], ahead["worse"], ahead["equal"]) == (12, 0, 0)
    assert ahead["p"] <= ahead["p_holm"] <= 3 * ahead["p"]
    # What all arms of a repetition share has cancelled: the pair differs less than the arms themselves.
    own = rows(found, "by_data", arm="rl", data="digits")[0]
    assert own["equal_validation_score"]["sd"] > ahead["sd"]
    order = found["ranks"]["equal_validation_score"]
    assert order["repetitions"] == 12
    assert sum(order["average"].values()) == pytest.approx(1 + 2 + 3 + 4)
    assert (order["average"]["rl"], order["average"]["fixed"]) == (1.0, 4.0)
    assert order["friedman"]["p"] < 1e-4
    assert all(
        order["average"][group[-1]] - order["average"][group[0]] < order["critical_difference"]
        for group in order["groups"]
    )
    assert not any({"rl", "fixed"} <= set(group) for group in order["groups"])
    assert any({"mdl", "same"} <= set(group) for group in order["groups"])
    assert not any("too few" in note for note in found["notes"])


def test_few_pairs_claim_nothing_and_say_so() -> None:
    levels = {"mdl": 0.8, "rl": 0.9}
    found = statistics(*tables(list(levels), ["digits"], 3, growing(levels)), None)
    row = rows(found, "comparisons", measure="equal_validation_score", arm="rl")[0]
    assert row["data"] is None
    assert row["verdict"].startswith("too few pairs for a claim: 3 of one sign")
    assert row["p"] == 0.25
    assert found["notes"][0].startswith("3 whole repetitions are too few")
    assert "at least 6" in found["notes"][0]
    assert found["ranks"]["test_score"]["friedman"] is None
    assert found["ranks"]["test_score"]["words"].startswith("two arms")
    # The same difference in every pair has no spread to resample.
    assert row["low"] is row["high"] is None


def test_what_failed_is_left_out_and_named() -> None:
    levels = {"a": 0.7, "b": 0.8, "c": 0.9}
    failed = {
        ("b", "digits", 1): ("failed", "ValueError: no"),
        ("c", "digits", 2): ("stopped", "hopeless"),
        ("a", "gone", 0): ("missing", "no file"),
        ("b", "gone", 0): ("missing", "no file"),
        ("c", "gone", 0): ("missing", "no file"),
    }
    trials, curves = tables(list(levels), ["digits"], 8, growing(levels, noise=0.01), failed)
    lost, none = tables(list(levels), ["gone"], 1, growing(levels), failed)
    found = statistics(pa.concat_tables([trials, lost]), pa.concat_tables([curves, none]), "a")
    assert found["trials"] == {"done": 22, "failed": 1, "missing": 3, "stopped": 1}
    assert {"arm": "b", "data": "digits", "seed": 1, "status": "failed", "reason": "ValueError: no"} in found[
        "not_done"
    ]
    pairs = {row["arm"]: row["n"] for row in rows(found, "comparisons", measure="test_score", data=None)}
    assert pairs == {"b": 7, "c": 7}
    assert found["ranks"]["test_score"]["repetitions"] == found["ranks"]["area"]["repetitions"] == 6
    nothing = rows(found, "by_data", data="gone", arm="a")[0]
    assert nothing["done"] == nothing["test_score"]["n"] == 0
    assert nothing["test_score"]["mean"] is nothing["train_flops"] is None
    assert any("hopeless" in note and "c 1" in note for note in found["notes"])
    assert any("did not finish" in note and "b 2" in note for note in found["notes"])


def test_a_comparison_without_any_result_or_with_a_wrong_reference() -> None:
    levels = {"mdl": 0.7, "rl": 0.8}
    whole, curves = tables(list(levels), ["digits"], 1, growing(levels))
    with pytest.raises(Refused, match=r"no arm 'mld' \(did you mean 'mdl'\?\); arms: mdl, rl"):
        statistics(whole, curves, "mld")
    with pytest.raises(Refused, match="no trials"):
        statistics(whole.slice(0, 0), curves, None)
    failed = {(arm, "digits", 0): ("unplaced", "no CPU") for arm in levels}
    found = statistics(*tables(list(levels), ["digits"], 1, growing(levels), failed), "rl")
    assert found["reference"] == "rl"
    assert [row["verdict"] for row in found["comparisons"]] == ["no pair: nothing can be said"] * len(MEASURES)
    assert all(order["average"] is None for order in found["ranks"].values())
    json.dumps(found, allow_nan=False)
    alone = statistics(*tables(["mdl"], ["digits"], 2, growing(levels)), None)
    assert alone["comparisons"] == []
    # The first arm that is no baseline is the reference unless one is named.
    levels = {"fixed": 0.6, "mdl": 0.7}
    assert (
        statistics(*tables(list(levels), ["x"], 2, growing(levels), baselines=("fixed",)), None)["reference"] == "mdl"
    )


def test_a_cheap_arm_that_was_annealed_when_the_others_were_not_is_named() -> None:
    whole, half = growing({"mdl": 0.8}), growing({"cheap": 0.8}, steps=4)
    made = tables(
        ["mdl", "cheap"], ["digits"], 2, lambda arm, data, seed: (half if arm == "cheap" else whole)(arm, data, seed)
    )
    (note,) = [note for note in statistics(*made, None)["notes"] if "anneal" in note]
    assert "mdl 2 trials" in note
    assert "cheap" not in note
    same = statistics(*tables(["mdl", "rl"], ["digits"], 2, growing({"mdl": 0.8, "rl": 0.8})), None)
    assert not any("anneal" in note for note in same["notes"])
