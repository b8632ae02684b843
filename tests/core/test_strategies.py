"""The judgement against brute force, under the null, and against closed forms computed in another way."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
from numpy.typing import NDArray

from raygrow.strategies import (
    FEATURES,
    STRATEGIES,
    AbstractStrategy,
    Blind,
    Evidence,
    Mdl,
    Outcome,
    Periodic,
    Proposal,
    RandomStrategy,
    Rl,
    Significance,
    Situation,
    describe,
)
from raygrow.strategies.base import spent
from raygrow.strategies.mdl import switch_code
from raygrow.strategies.screen import initial_state, learn, screened
from raygrow.strategies.significance import log_wealth

Floats = NDArray[np.float64]
SITUATION = Situation(round=1, tests=0, candidates=2, price=0.0, constant_loss=1.0)
CHANCE = 1e-6
"""Of a statistical test failing where nothing is wrong; every seed is fixed besides."""


def situation(**changes: float) -> Situation:
    return dataclasses.replace(SITUATION, **changes)  # type: ignore[arg-type]


def proposal(name: str = "m/0001/a", **changes: object) -> Proposal:
    plain = Proposal(name, "widen", "h1", 4, 100, 50, 0.05, 1e-6, tuple(0.0 for _ in FEATURES))
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def evidence(
    control: Floats, candidate: Floats, *, blocks: int = 8, probed: int = 1, rate: float = 1.0, flops: int = 100
) -> Evidence:
    """Evidence whose blocks are the validation losses themselves; search shows differences up to 1."""
    spread = np.linspace(-1.0, 1.0, 101)
    return Evidence(
        proposal(added_flops=flops),
        probed,
        control,
        candidate,
        tuple(np.array_split(control, blocks)),
        tuple(np.array_split(candidate, blocks)),
        np.ones(101),
        1.0 - spread,
        rate,
    )


def most(trials: int, rate: float) -> int:
    """The count that so many trials exceed with probability ``CHANCE`` at most."""
    return int(scipy.stats.binom.isf(CHANCE, trials, rate))


# The code of mdl


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_switch_code_is_the_sum_over_switching_times_in_plain_probabilities(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(20):
        control, candidate = rng.exponential(1.5, count), rng.exponential(1.5, count)
        mixture, weights = 0.0, 0.0
        for switch in range(count + 1):  # the first block that the candidate codes; count: never
            weight = 1.0 / ((switch + 1) * (switch + 2)) if switch < count else 1.0 / (count + 1)
            probability = 1.0
            for block in range(count):
                probability *= math.exp(-(control[block] if block < switch else candidate[block]))
            mixture += weight * probability
            weights += weight
        assert weights == pytest.approx(1.0, abs=1e-12)
        expected = math.log(mixture / math.exp(-control.sum()))
        assert switch_code(list(control - candidate)) == pytest.approx(expected, abs=1e-10)


def test_switch_code_stays_finite_and_costs_little_where_it_could_overflow() -> None:
    # Worse for one block, then far better: only the prior weight of switching at the second block is paid.
    assert switch_code([-1e5, 4e4, 4e4]) == pytest.approx(8e4 + math.log(1 / 6))
    # Worse throughout: never switching, at the weight of that.
    assert switch_code([-1e5] * 4) == pytest.approx(math.log(1 / 5))
    assert switch_code([0.0] * 6) == pytest.approx(0.0, abs=1e-12)


def test_switch_code_is_a_fair_bet_against_a_coin_at_every_look() -> None:
    """The control knows the coin; a look after every block together errs in at most alpha of the campaigns."""
    rng = np.random.default_rng(5)
    trials, blocks, each, alpha, bias = 3000, 6, 10, 0.2, 0.7
    heads = rng.integers(0, 2, (trials, blocks, each))
    saved = np.where(heads == 1, math.log(bias / 0.5), math.log((1 - bias) / 0.5)).sum(2)
    fooled = sum(
        any(switch_code(list(saved[t, : look + 1])) > math.log(1 / alpha) for look in range(blocks))
        for t in range(trials)
    )
    assert 0 < fooled <= most(trials, alpha)


def test_log_wealth_is_the_slow_bettor_s() -> None:
    """One bettor in 32 for each constant stake 1/64 .. 32/64, who multiplies his wealth by 1 + stake x."""
    rng = np.random.default_rng(3)
    odd = np.r_[0.0, 0.0, 1.0, -1.0]
    for x in (rng.uniform(-1, 1, 200), rng.choice([-1.0, 1.0], 50), np.zeros(5), odd, np.ones(9), -np.ones(9)):
        wealth, expected = [1.0] * 32, []
        for value in x:
            wealth = [one * (1.0 + (i + 1) / 64 * float(value)) for i, one in enumerate(wealth)]
            expected.append(math.log(sum(wealth) / 32))
        np.testing.assert_allclose(log_wealth(np.asarray(x, dtype=np.float64)), expected, atol=1e-10)


def test_log_wealth_depends_on_what_was_seen_alone_and_is_a_fair_game_at_every_step() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 60)
    whole = log_wealth(x)
    for cut in (1, 7, 30):
        changed = x.copy()
        changed[cut:] = -1.0
        np.testing.assert_array_equal(log_wealth(changed)[:cut], whole[:cut])
        # A coin after any past: the mean wealth over its two sides is the wealth before it.
        sides = [math.exp(log_wealth(np.r_[x[:cut], side])[cut]) for side in (-0.8, 0.8)]
        assert sum(sides) / 2 == pytest.approx(math.exp(whole[cut - 1]))
    assert math.exp(log_wealth(np.array([1.0]))[0]) <= 1.5


# Under the null, and at a clear effect


def coin_evidence(rng: np.random.Generator, n: int, truth: float, belief: float, probed: int) -> Evidence:
    """Tosses of a coin of probability ``truth``: the control believes one half, the candidate ``belief``."""
    heads = rng.random(n) < truth
    candidate = np.where(heads, -math.log(belief), -math.log(1 - belief))
    return evidence(np.full(n, math.log(2.0)), candidate, probed=probed)


GUARANTEED = [strategy for kind in STRATEGIES if (strategy := kind()).level is not None]


@pytest.mark.parametrize("strategy", GUARANTEED, ids=lambda strategy: type(strategy).__name__)
def test_a_useless_move_is_ever_accepted_in_at_most_alpha_of_the_campaigns(strategy: AbstractStrategy) -> None:
    rng = np.random.default_rng(11)
    strategy, campaigns, rounds, probed = type(strategy)(alpha=0.3), 300, 4, 2  # type: ignore[call-arg]
    state = strategy.initial_state(1.0)
    fooled = 0
    for _ in range(campaigns):
        accepted = False
        for tests in range(rounds):
            now = situation(round=tests + 1, tests=tests)
            for _ in range(probed):
                # Under the null of ``significance`` the mean paired difference is at most 0: a wrong belief is worse.
                tosses = coin_evidence(rng, 120, 0.5, float(rng.choice([0.42, 0.46, 0.54, 0.58])), probed)
                accepted = accepted or strategy.judge(tosses, now, state).accepted
        fooled += accepted
    assert strategy.level == 0.3
    assert fooled <= most(campaigns, strategy.level)


def test_the_bettor_is_fooled_by_a_fair_game_in_at_most_alpha_of_the_looks() -> None:
    """Mean exactly 0, a look after every example: the hardest null."""
    rng = np.random.default_rng(12)
    trials, alpha = 2500, 0.2
    fooled = sum(bool(log_wealth(rng.choice([-1.0, 1.0], 150)).max() >= math.log(1 / alpha)) for _ in range(trials))
    assert 0 < fooled <= most(trials, alpha)


@pytest.mark.parametrize("kind", [Mdl, Significance])
def test_a_clear_effect_is_nearly_always_accepted(kind: type[Mdl] | type[Significance]) -> None:
    rng = np.random.default_rng(13)
    strategy = kind()
    state = strategy.initial_state(1.0)
    trials = 60
    found = sum(strategy.judge(coin_evidence(rng, 400, 0.8, 0.8, 2), SITUATION, state).accepted for _ in range(trials))
    assert found >= trials - 1


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.5])
def test_what_is_spent_sums_to_at_most_alpha_over_any_number_of_rounds(alpha: float) -> None:
    shares = [spent(alpha, situation(round=2 * r + 1, tests=r)) for r in range(4000)]
    assert all(one > two > 0 for one, two in itertools.pairwise(shares))
    assert 0.99 * alpha < math.fsum(shares) <= alpha


@pytest.mark.parametrize("kind", [Mdl, Significance])
def test_thresholds_follow_the_rounds_that_tested_and_the_number_probed(kind: type[Mdl] | type[Significance]) -> None:
    strategy = kind(alpha=0.05)
    x = np.ones(100)
    for tests, probed in itertools.product((0, 1, 5), (1, 2, 7)):
        one = strategy.judge(evidence(x, 0.9 * x, probed=probed), situation(round=9, tests=tests), {})
        share = 0.05 * 6 / math.pi**2 / (tests + 1) ** 2
        assert one.threshold == pytest.approx(math.log(probed / share))


# The price


@pytest.mark.parametrize("strategy", [Mdl(), Significance(), Rl()], ids=lambda s: s.kind)
def test_the_price_is_charged(strategy: AbstractStrategy) -> None:
    rng = np.random.default_rng(17)
    control = rng.exponential(1.0, 800)
    found = evidence(control, control - 0.2 + 0.05 * rng.standard_normal(800), flops=250)
    state = strategy.initial_state(1.0)
    even = found.gain / 250
    assert strategy.judge(found, situation(price=0.0), state).accepted
    assert strategy.judge(found, situation(price=0.25 * even), state).accepted
    dear = strategy.judge(found, situation(price=1.05 * even), state)
    assert not dear.accepted
    # At the same price a move that adds fewer FLOPs pays, and one that saves FLOPs pays all the more.
    for flops in (25, -250):
        cheap = dataclasses.replace(found, proposal=dataclasses.replace(found.proposal, added_flops=flops))
        assert strategy.judge(cheap, situation(price=1.05 * even), state).accepted
        assert strategy.judge(cheap, situation(price=1.05 * even), state).statistic > dear.statistic  # type: ignore[operator]


def test_mdl_charges_every_label_its_price() -> None:
    found = evidence(np.full(200, 1.0), np.full(200, 0.8), flops=40)
    free, dear = (Mdl().judge(found, situation(price=price), {}) for price in (0.0, 1e-3))
    assert free.statistic == pytest.approx(switch_code([0.2 * 25] * 8))
    assert free.statistic - dear.statistic == pytest.approx(200 * 1e-3 * 40)  # type: ignore[operator]


def test_nats_per_loss_scales_the_code_and_its_price() -> None:
    """A regression whose unit of loss is worth 6 nats is a classification with 6 times the losses and the price."""
    rng = np.random.default_rng(2)
    control = rng.exponential(0.2, 160)
    candidate = control - rng.normal(0.01, 0.02, 160)
    for price in (0.0, 2e-5):
        squared = Mdl().judge(evidence(control, candidate, rate=6.0), situation(price=price), {})
        nats = Mdl().judge(evidence(6.0 * control, 6.0 * candidate), situation(price=6.0 * price), {})
        assert squared.statistic == pytest.approx(nats.statistic)
        assert squared.threshold == nats.threshold
    # The rate matters: the same losses are worth less at a lower one.
    assert squared.statistic != pytest.approx(Mdl().judge(evidence(control, candidate), SITUATION, {}).statistic)


def test_mdl_reads_the_blocks_and_significance_the_last_losses() -> None:
    """A candidate that was worse while it caught up: mdl is charged a switch, not the early losses."""
    caught_up = evidence(np.full(400, 1.0), np.full(400, 0.5))
    early = (caught_up.candidate_blocks[0] + 5.0, *caught_up.candidate_blocks[1:])
    late = dataclasses.replace(caught_up, candidate_blocks=early)
    blocks = [-4.5 * 50] + [0.5 * 50] * 7
    assert Mdl().judge(late, SITUATION, {}).statistic == pytest.approx(switch_code(blocks))
    assert Mdl().judge(late, SITUATION, {}).statistic == pytest.approx(0.5 * 350 + math.log(1 / 6), abs=1e-6)
    assert Significance().judge(late, SITUATION, {}) == Significance().judge(caught_up, SITUATION, {})


def test_significance_clips_at_the_quantile_on_search() -> None:
    """One enormous win cannot carry the verdict, and an inconclusive search carries none at all."""
    n = 300
    lucky = np.zeros(n)
    lucky[10] = 1e6
    assert not Significance().judge(evidence(lucky, np.zeros(n)), SITUATION, {}).accepted
    found = evidence(np.ones(n), np.zeros(n))
    bound = float(np.quantile(np.abs(found.control_search - found.candidate_search), 0.9))
    clipped = Significance(clip_quantile=0.9).judge(found, SITUATION, {})
    assert bound < 1.0
    assert clipped.statistic == pytest.approx(float(log_wealth(np.clip(np.ones(n), -bound, bound) / bound).max()))
    alike = dataclasses.replace(found, candidate_search=found.control_search)
    assert not Significance().judge(alike, SITUATION, {}).accepted


def test_evidence_has_the_paired_gain_and_its_standard_error() -> None:
    rng = np.random.default_rng(8)
    control, candidate = rng.exponential(1.0, 50), rng.exponential(1.0, 50)
    found = evidence(control, candidate)
    paired = scipy.stats.ttest_rel(control, candidate)
    assert found.gain / found.gain_stderr == pytest.approx(paired.statistic)
    assert found.gain == pytest.approx(control.mean() - candidate.mean())


# The policy of rl


def random_outcomes(count: int, seed: int, scale: float = 1.0) -> list[Outcome]:
    """Outcomes with correlated features: the posterior is far from diagonal."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((3, len(FEATURES)))
    found = []
    for i in range(count):
        x = rng.standard_normal(3) @ mixing + 0.3 * rng.standard_normal(len(FEATURES))
        found.append(
            Outcome(
                proposal(f"m/0001/{i:03d}", features=tuple(float(v) for v in x)),
                scale * float(rng.normal(0.02, 0.03)),
                scale * float(rng.uniform(0.002, 0.02)),
            )
        )
    return found


def seen(strategy: Rl, features: Sequence[float]) -> Floats:
    """What the linear model reads: three times the one-step prediction, the rest scaled down."""
    scales = [3.0 if name == "predicted_gain" else strategy.offset_scale for name in FEATURES]
    return np.asarray(features, dtype=np.float64) * np.asarray(scales, dtype=np.float64)


def ridge(strategy: Rl, outcomes: Sequence[Outcome], constant_loss: float) -> tuple[Floats, Floats]:
    """Mean and covariance of Bayesian linear regression, through the dual (kernel) form and not the precision."""
    prior = np.zeros(len(FEATURES))
    prior[FEATURES.index("predicted_gain")] = 1.0
    x = np.stack([seen(strategy, o.proposal.features) for o in outcomes])
    y = np.array([o.gain for o in outcomes]) / constant_loss
    noise = np.diag([(o.gain_stderr / constant_loss) ** 2 + strategy.noise_sd**2 for o in outcomes])
    spread = strategy.prior_sd**2
    gram = spread * x @ x.T + noise
    mean = prior + spread * x.T @ np.linalg.solve(gram, y - x @ prior)
    covariance = spread * np.eye(len(prior)) - spread**2 * x.T @ np.linalg.solve(gram, x)
    return mean, covariance


@pytest.mark.parametrize("constant_loss", [1.0, 2.3])
def test_rl_s_posterior_is_that_of_bayesian_linear_regression(constant_loss: float) -> None:
    strategy = Rl(prior_sd=0.7, offset_scale=0.1, noise_sd=0.02)
    outcomes = random_outcomes(25, 1, constant_loss)
    now = situation(constant_loss=constant_loss)
    state = strategy.initial_state(constant_loss)
    for start in range(0, 25, 5):  # five rounds of five probes are the same as one batch
        state = strategy.learn(state, outcomes[start : start + 5], now)
    mean, covariance = ridge(strategy, outcomes, constant_loss)
    precision = np.asarray(state["precision"])
    np.testing.assert_allclose(np.linalg.solve(precision, np.asarray(state["shift"])), mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(precision), covariance, rtol=1e-7, atol=1e-9)


def test_rl_learns_the_same_in_any_order() -> None:
    strategy = Rl()
    outcomes = random_outcomes(30, 2)
    reference = strategy.learn(strategy.initial_state(1.0), outcomes, SITUATION)
    rng = np.random.default_rng(0)
    for _ in range(5):
        shuffled = strategy.learn(strategy.initial_state(1.0), [outcomes[i] for i in rng.permutation(30)], SITUATION)
        for key in ("precision", "shift"):
            np.testing.assert_allclose(shuffled[key], reference[key], rtol=1e-10, atol=1e-9)


def test_rl_s_prior_trusts_the_prediction() -> None:
    strategy = Rl()
    state = strategy.initial_state(3.0)
    mean = np.linalg.solve(np.asarray(state["precision"]), np.asarray(state["shift"]))
    for predicted in (-0.1, 0.0, 0.07):
        known = dict.fromkeys((*FEATURES, "flops_ratio", "units"), 0.4) | {"predicted_gain": predicted}
        assert float(mean @ seen(strategy, describe(known, "widen"))) == pytest.approx(3.0 * predicted)
    np.testing.assert_allclose(np.linalg.inv(np.asarray(state["precision"])), 0.25 * np.eye(len(FEATURES)))


def test_thompson_draws_have_the_posterior_s_mean_and_covariance() -> None:
    """How often each of many directions stands above its price: the marginals fix mean and covariance."""
    strategy, constant_loss, draws = Rl(prior_sd=0.7, offset_scale=0.5, noise_sd=0.05), 2.0, 1500
    outcomes = random_outcomes(12, 3, constant_loss)
    state = strategy.learn(strategy.initial_state(constant_loss), outcomes, situation(constant_loss=constant_loss))
    mean, covariance = ridge(strategy, outcomes, constant_loss)
    rng = np.random.default_rng(4)
    proposals, chances = [], []
    for i in range(160):
        features = tuple(float(v) for v in rng.standard_normal(len(FEATURES)))
        x = seen(strategy, features)
        centre, spread = constant_loss * float(mean @ x), constant_loss * math.sqrt(x @ covariance @ x)
        level = round(1e6 * (centre + spread * rng.uniform(-1.5, 1.5)))
        proposals.append(proposal(f"m/0001/{i:03d}", features=features, added_flops=level))
        chances.append(float(scipy.stats.norm.sf((1e-6 * level - centre) / spread)))
    now = situation(candidates=len(proposals), price=1e-6, constant_loss=constant_loss)
    counts = dict.fromkeys((p.id for p in proposals), 0)
    for seed in range(draws):
        for chosen in strategy.shortlist(proposals, now, state, np.random.default_rng(seed)):
            counts[chosen.id] += 1
    tail = CHANCE / len(proposals)
    for one, chance in zip(proposals, chances, strict=True):
        low, high = scipy.stats.binom.ppf([tail, 1 - tail], draws, chance)
        assert low <= counts[one.id] <= high, (one.id, counts[one.id], draws * chance)


def test_rl_ranks_by_expected_gain_per_flop_and_drops_what_does_not_pay() -> None:
    strategy = Rl(prior_sd=1e-6)  # as good as certain: no draw differs from the mean
    gains = {"a": (0.10, 100), "b": (0.12, 400), "c": (0.006, 100), "d": (-0.10, 100), "e": (0.02, 0)}
    place = FEATURES.index("predicted_gain")

    def features(gain: float) -> tuple[float, ...]:
        return tuple(gain if i == place else 0.0 for i in range(len(FEATURES)))

    proposals = [proposal(name, added_flops=flops, features=features(g)) for name, (g, flops) in gains.items()]
    state = strategy.initial_state(1.0)
    for candidates, expected in ((5, "eab"), (2, "ea")):
        now = situation(candidates=candidates, price=2e-4)
        chosen = strategy.shortlist(proposals, now, state, np.random.default_rng(0))
        assert "".join(p.id for p in chosen) == expected
    assert strategy.shortlist(proposals[3:4], situation(price=0.0), state, np.random.default_rng(0)) == ()


@pytest.mark.parametrize("name", ["prior_sd", "offset_scale", "noise_sd"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_rl_refuses_scales_that_are_no_scales(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Rl(**{name: value})  # type: ignore[arg-type]


# The screen


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("level", [0.05, 0.1, 0.5])
def test_the_screen_is_benjamini_and_hochberg_s(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    p_values = np.r_[rng.uniform(0, 1, 30), rng.uniform(0, 0.02, seed)]
    rng.shuffle(p_values)
    proposals = [
        proposal(f"m/0001/{i:03d}", site=f"s{i}", p_value=float(p), predicted_gain=float(rng.uniform(-0.1, 0.2)))
        for i, p in enumerate(p_values)
    ]
    now = situation(candidates=len(proposals))
    chosen = screened(proposals, now, level, initial_state(1.0), np.random.default_rng(0))
    adjusted = scipy.stats.false_discovery_control(p_values, method="bh")
    assert {p.id for p in chosen} == {q.id for q, value in zip(proposals, adjusted, strict=True) if value <= level}
    values = [p.predicted_gain for p in chosen]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]


def test_one_candidate_a_site_comes_first() -> None:
    proposals = [
        proposal(f"m/0001/{site}{units:02d}", site=site, units=units, predicted_gain=gain + 0.001 * units)
        for site, gain in (("a", 0.9), ("b", 0.5), ("c", 0.2))
        for units in (1, 2, 4)
    ]
    chosen = screened(proposals, situation(candidates=5), 0.1, initial_state(1.0), np.random.default_rng(0))
    assert [(p.site, p.units) for p in chosen] == [("a", 4), ("b", 4), ("c", 4), ("a", 2), ("a", 1)]
    # The same place under another kind of move is another site.
    again = [dataclasses.replace(p, id=p.id + "x", move="add_node") for p in proposals]
    chosen = screened([*proposals, *again], situation(candidates=2), 0.1, initial_state(1.0), np.random.default_rng(0))
    assert {(p.move, p.site) for p in chosen} == {("widen", "a"), ("add_node", "a")}


def test_what_has_no_prediction_follows_in_a_random_order() -> None:
    blind = [proposal(f"m/0001/b{i}", site=f"b{i}", predicted_gain=None, p_value=None) for i in range(4)]
    clear = proposal("m/0001/z", site="z", predicted_gain=0.01)
    first: set[str] = set()
    for seed in range(60):
        chosen = screened(
            [*blind, clear], situation(candidates=5), 0.1, initial_state(1.0), np.random.default_rng(seed)
        )
        assert chosen[0] is clear
        assert set(chosen) == {clear, *blind}
        first.add(chosen[1].id)
    assert first == {p.id for p in blind}


def test_the_screen_s_factor_moves_towards_what_probes_realise() -> None:
    """Judged by what it does: a proposal that adds FLOPs is ranked by factor x prediction - price x FLOPs."""

    def factor(state: object) -> float:
        assert isinstance(state, dict)
        return float(state["realised"]) / float(state["predicted"])

    state = initial_state(2.0)
    prior = factor(state)
    for truth in (8.0, 0.5):
        learned = state
        factors = [prior]
        for i in range(1, 40):
            predicted = 0.01 * i
            learned = learn(learned, [Outcome(proposal(predicted_gain=predicted), truth * predicted, 0.01)])
            factors.append(factor(learned))
        steps = np.diff(factors)
        assert np.all(steps > 0) if truth > prior else np.all(steps < 0)
        assert factors[-1] == pytest.approx(truth, rel=0.1)

    large = proposal("m/0001/large", site="l", predicted_gain=0.10, added_flops=1000)
    small = proposal("m/0001/small", site="s", predicted_gain=0.05, added_flops=100)
    for realised, best in ((9.0, large), (0.5, small)):
        taught = learn(state, [Outcome(proposal(predicted_gain=10.0), 10.0 * realised, 0.01)])
        now = situation(candidates=1, price=1e-4)
        assert screened([large, small], now, 0.1, taught, np.random.default_rng(0)) == (best,)


def test_losses_and_useless_predictions_keep_the_factor_positive() -> None:
    state = initial_state(1.0)
    worse = learn(state, [Outcome(proposal(predicted_gain=0.02), -5.0, 0.1)])
    assert worse["realised"] == state["realised"]
    assert worse["predicted"] == pytest.approx(state["predicted"] + 0.02)
    for useless in (None, 0.0, -0.3):
        assert learn(state, [Outcome(proposal(predicted_gain=useless), 0.4, 0.1)]) == state


# The baselines


def grid() -> list[Proposal]:
    return [
        proposal(f"m/0001/{site}:{units:02d}", site=site, units=units)
        for site in ("b", "a", "c")
        for units in (1, 4, 16)
    ]


def test_periodic_takes_the_sites_in_turn_and_skips_rounds() -> None:
    strategy = Periodic(every=2, units=5)
    turns = [strategy.shortlist(grid(), situation(round=r), {}, np.random.default_rng(0)) for r in range(1, 9)]
    assert [[p.site for p in turn] for turn in turns] == [["a"], [], ["b"], [], ["c"], [], ["a"], []]
    assert all(p.units == 4 for turn in turns for p in turn)
    for units, nearest in ((1, 1), (3, 4), (10, 4), (11, 16), (99, 16)):
        (chosen,) = Periodic(units=units).shortlist(grid(), SITUATION, {}, np.random.default_rng(0))
        assert chosen.units == nearest
    assert strategy.judge(evidence(np.zeros(9), np.ones(9)), SITUATION, {}).accepted


def test_random_draws_uniformly_among_all_pairs() -> None:
    proposals = grid()[:6]
    counts: dict[tuple[str, str], int] = {}
    rng = np.random.default_rng(21)
    for _ in range(3000):
        one, two = RandomStrategy().shortlist(proposals, SITUATION, {}, rng)
        counts[one.id, two.id] = counts.get((one.id, two.id), 0) + 1
    assert len(counts) == 30
    assert scipy.stats.chisquare(list(counts.values())).pvalue > CHANCE


def test_blind_draws_sites_uniformly_whatever_their_sizes_and_predictions_and_judges_as_mdl() -> None:
    proposals = [p for p in grid() if p.site != "a" or p.units == 4]
    counts: dict[tuple[str, str], int] = {}
    rng = np.random.default_rng(22)
    for _ in range(1200):
        one, two = Blind().shortlist(proposals, SITUATION, {}, rng)
        counts[one.site, two.site] = counts.get((one.site, two.site), 0) + 1
    assert len(counts) == 6
    assert scipy.stats.chisquare(list(counts.values())).pvalue > CHANCE
    assert Blind().shortlist([], SITUATION, {}, rng) == ()
    for gain in (-0.1, 0.0, 0.02, 0.2):
        losses = rng.exponential(size=200)
        shown = evidence(losses, losses - gain)
        assert Blind(alpha=0.1).judge(shown, SITUATION, {}) == Mdl(alpha=0.1).judge(shown, SITUATION, {})


@pytest.mark.parametrize(
    ("strategy", "changes", "words"),
    [
        (Mdl, {"alpha": 0.0}, "alpha"),
        (Mdl, {"screen": 1.0}, "0 < alpha < 1"),
        (Significance, {"alpha": math.nan}, "alpha"),
        (Significance, {"clip_quantile": 0.0}, "clip_quantile"),
        (Periodic, {"every": 0}, "every"),
        (Periodic, {"units": 0}, "units"),
    ],
)
def test_parameters_out_of_range_are_refused(
    strategy: type[AbstractStrategy], changes: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        strategy(**changes)
    assert strategy()


# --- moves that save FLOPs


def saving(name: str, loss: float, flops: int = -100) -> Proposal:
    """A smaller layer: an expected loss, no test."""
    return proposal(name, move="prune", added_flops=flops, predicted_gain=-loss, p_value=None)


def test_the_screen_sets_what_a_move_saves_against_what_it_loses() -> None:
    at = situation(price=1e-3, candidates=9)
    cheap, dear = saving("m/0001/cheap", 0.02), saving("m/0001/dear", 0.2)
    gain = proposal("m/0001/gain", site="h2", predicted_gain=0.04, p_value=1e-6)
    found = screened([dear, gain, cheap], at, 0.3, initial_state(1.0), np.random.default_rng(0))
    # 0.1 less 0.02 is more than the 0.12 less 0.1 of the growing one; 0.2 is more than is saved.
    assert [p.id for p in found] == ["m/0001/cheap", "m/0001/gain"]


def test_rl_ranks_what_saves_first_and_by_value() -> None:
    at = situation(price=1e-3, candidates=9)

    def of(name: str, flops: int) -> Proposal:
        return proposal(name, added_flops=flops, features=tuple(float(f == "predicted_gain") for f in FEATURES))

    rl = Rl(prior_sd=1e-6)
    offered = [of("m/0001/grows", 1), of("m/0001/saves", -100), of("m/0001/saves-more", -200)]
    found = rl.shortlist(offered, at, rl.initial_state(1.0), np.random.default_rng(0))
    assert [p.id for p in found] == ["m/0001/saves-more", "m/0001/saves", "m/0001/grows"]


@pytest.mark.parametrize("strategy", [Mdl(), Significance(), Rl()], ids=lambda s: s.kind)
def test_a_move_that_loses_nothing_is_worth_what_it_saves(strategy: AbstractStrategy) -> None:
    """Also where control and candidate predict alike on every example."""
    losses = np.abs(np.random.default_rng(0).standard_normal(400))
    at = situation(price=1e-3)
    alike = dataclasses.replace(evidence(losses, losses, flops=-100), candidate_search=np.ones(101))
    state = strategy.initial_state(1.0)
    assert strategy.judge(alike, at, state).accepted
    worse = dataclasses.replace(evidence(losses, losses + 0.2, flops=-100), candidate_search=np.full(101, 1.2))
    assert not strategy.judge(worse, at, state).accepted
    free = dataclasses.replace(alike, proposal=dataclasses.replace(alike.proposal, added_flops=100))
    assert not strategy.judge(free, at, state).accepted


def test_a_calendar_of_growth_has_no_turn_for_what_saves() -> None:
    found = Periodic().shortlist([saving("m/0001/a", 0.0)], situation(), {}, np.random.default_rng(0))
    assert found == ()
