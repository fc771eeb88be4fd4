"""Statistics against SciPy, against definitions, and against simulations with known answers."""

import itertools
import math

import numpy as np
import pytest

from attnnet.study.distributions import incomplete_beta, power_of_t, t_cdf, t_quantile
from attnnet.study.inference import (
    bootstrap,
    holm,
    mcnemar,
    mean_over_seeds,
    seeds_needed,
)
from attnnet.study.measure import ece

stats = pytest.importorskip("scipy.stats", reason="the oracle of these tests (attnnet[dev])")
special = pytest.importorskip("scipy.special")


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 500, 5000])
def test_t_distribution(freedom):
    for t in (-40.0, -3.1, -1.0, -1e-3, 0.0, 0.7, 2.5, 12.0):
        assert t_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), rel=1e-8, abs=1e-14)
    for share in (1e-4, 0.025, 0.3, 0.5, 0.9, 0.975, 0.9999):
        expected = stats.t.ppf(share, freedom)
        assert t_quantile(share, freedom) == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_incomplete_beta():
    values = (0.5, 1.0, 3.0, 20.0, 300.0)
    for a, b in itertools.product(values, values):
        for x in (0.0, 1e-6, 0.2, 0.5, 0.9, 1.0):
            expected = special.betainc(a, b, x)
            assert incomplete_beta(a, b, x) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_quantiles_of_no_share_are_refused():
    for share, freedom in ((0.0, 3), (1.0, 3), (0.5, 0)):
        with pytest.raises(ValueError, match="expected 0 < share < 1"):
            t_quantile(share, freedom)


def test_mean_over_seeds():
    values = [93.1, 94.0, 93.7, 92.9, 93.3]
    found = mean_over_seeds(values)
    test = stats.ttest_1samp(values, 0)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.count, found.mean) == (5, pytest.approx(np.mean(values)))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.p == pytest.approx(test.pvalue)


def test_paired_differences_are_the_paired_test():
    random = np.random.default_rng(3)
    base, other = random.normal(90, 1, 6), random.normal(90.5, 1, 6)
    expected = stats.ttest_rel(other, base).pvalue
    assert mean_over_seeds(other - base).p == pytest.approx(expected)


def test_one_seed_tells_nothing():
    one = mean_over_seeds([0.7])
    assert one.mean == 0.7 and all(map(math.isnan, (one.sd, one.low, one.high, one.p)))


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [[1.0]]])
def test_no_numbers(bad):
    with pytest.raises(ValueError, match="expected finite numbers"):
        mean_over_seeds(bad)


def test_equal_differences():
    """Two seeds that happen to gain the same on few images are no proof."""
    assert mean_over_seeds([0.0, 0.0]).p == 1.0 and math.isnan(mean_over_seeds([0.5, 0.5]).p)


def test_intervals_over_seeds_cover_as_often_as_they_say():
    random = np.random.default_rng(11)
    for count in (2, 3, 8):
        draws = [mean_over_seeds(row) for row in random.normal(1.5, 2.0, (2000, count))]
        covered = np.mean([m.low <= 1.5 <= m.high for m in draws])
        assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000), (count, covered)


def test_without_a_difference_five_in_a_hundred_are_told_apart():
    random = np.random.default_rng(12)
    found = np.mean([mean_over_seeds(row).p < 0.05 for row in random.normal(0, 2.0, (2000, 4))])
    assert abs(found - 0.05) < 4 * math.sqrt(0.95 * 0.05 / 2000), found


def answers(both, gained, lost, neither):
    first = [True] * both + [False] * gained + [True] * lost + [False] * neither
    second = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 5), (0, 3), (12, 4), (40, 61), (700, 1)])
def test_mcnemar(gained, lost):
    found = mcnemar(*answers(50, gained, lost, 7))
    assert (found.both, found.gained, found.lost, found.neither) == (50, gained, lost, 7)
    n, k = gained + lost, min(gained, lost)
    exact = stats.binomtest(k, n).pvalue if n else 1.0
    assert found.exact == pytest.approx(exact, rel=1e-9)
    # Mid-p: all that is more extreme than what was seen, and half of what is as extreme.
    outcomes = np.arange(n + 1)
    chance, off = stats.binom.pmf(outcomes, n, 0.5), np.abs(2 * outcomes - n)
    mid = chance[off > n - 2 * k].sum() + chance[off == n - 2 * k].sum() / 2 if n else 1.0
    assert found.mid == pytest.approx(mid, rel=1e-9)
    assert found.mid <= found.exact


def test_mcnemar_of_the_textbook():
    """Agresti, Categorical Data Analysis: 150 and 86 who changed their mind."""
    found = mcnemar(*answers(794, 86, 150, 570))
    chi2 = (86 - 150) ** 2 / (86 + 150)
    assert found.exact == pytest.approx(stats.chi2.sf(chi2, 1), rel=0.25) and found.exact < 1e-4


def test_mcnemar_needs_the_same_images():
    with pytest.raises(ValueError, match="expected the same images in both"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_mcnemar_holds_its_level():
    random = np.random.default_rng(13)
    first, second = random.random((2, 3000, 200)) < 0.8
    p = np.array([[m.exact, m.mid] for m in map(mcnemar, first, second)])
    exact, mid = (p < 0.05).mean(0)
    assert exact <= mid < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 3000) and exact > 0.01, (exact, mid)


def test_the_bootstrap_covers_images_and_seeds():
    random = np.random.default_rng(14)
    covered, seeds, images, trials = 0, 15, 100, 250
    for trial in range(trials):
        parts = random.normal(0, 0.3, (seeds, 1)), random.normal(0, 1, images)
        table = 0.2 + parts[0] + parts[1] + random.normal(0, 1, (seeds, images))
        low, high = bootstrap(list(table), resamples=300, seed=trial)
        covered += low <= 0.2 <= high
    # A little narrow for 15 seeds, a little wide for the noise of single answers.
    assert 0.90 <= covered / trials <= 0.99, covered / trials


def test_the_bootstrap_sees_both_sources():
    """Whose spread is in the seeds alone has the width that seeds give, and so for images."""
    images = np.random.default_rng(15).normal(0, 1, 400)
    low, high = bootstrap([images] * 4)
    assert high - low == pytest.approx(2 * 1.96 * images.std() / 20, rel=0.1)
    seeds = np.random.default_rng(16).normal(0, 1, 40)
    low, high = bootstrap([np.full(3, s) for s in seeds])
    assert high - low == pytest.approx(2 * 1.96 * seeds.std() / math.sqrt(40), rel=0.1)


def test_the_bootstrap_of_different_images():
    """Drawn for each seed by themselves, images vary less in the mean than drawn together."""
    images = np.random.default_rng(17).normal(0, 1, 400)
    together, apart = (bootstrap([images] * 4, same) for same in (True, False))
    assert apart[1] - apart[0] == pytest.approx((together[1] - together[0]) / 2, rel=0.15)
    assert bootstrap([images, images[:30]], same_images=False)
    with pytest.raises(ValueError, match="expected as many for each seed"):
        bootstrap([images, images[:30]])
    with pytest.raises(ValueError, match="expected as many"):
        bootstrap([])


def test_the_bootstrap_repeats():
    rows = [np.arange(5.0), np.arange(5.0) ** 2]
    assert bootstrap(rows) == bootstrap(rows)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.5, math.nan, 0.9])
    assert found[0] == 1.0 and math.isnan(found[1]) and found[2] == 1.0 and holm([]) == []


def test_holm_is_closed_testing():
    """Rejected is what every intersection with it rejects by Bonferroni: Holm's by definition."""
    random = np.random.default_rng(18)
    for _ in range(200):
        p = random.random(4) ** 3
        for i, adjusted in enumerate(holm(list(p))):
            groups = (g for n in range(1, 5) for g in itertools.combinations(range(4), n) if i in g)
            expected = max(min(1.0, len(g) * min(p[j] for j in g)) for g in groups)
            assert adjusted == pytest.approx(expected)


def test_power():
    for pairs, effect, alpha in itertools.product((2, 3, 5, 20, 200), (0, 0.3, 1, 4), (0.05, 0.01)):
        limit = stats.t.ppf(1 - alpha / 2, pairs - 1)
        shift = effect * math.sqrt(pairs)
        expected = stats.nct.sf(limit, pairs - 1, shift) + stats.nct.cdf(-limit, pairs - 1, shift)
        if math.isnan(expected):  # SciPy has no number where the power is all but 1
            assert shift > 15
            expected = 1.0
        assert power_of_t(effect, pairs, alpha) == pytest.approx(expected, abs=2e-6)


def test_seeds_needed():
    for sd, alpha in ((0.2, 0.05), (0.5, 0.05), (0.5, 0.005), (2.0, 0.05)):
        n = seeds_needed(0.5, sd, alpha)
        assert power_of_t(0.5 / sd, n, alpha) >= 0.8
        assert n == 2 or power_of_t(0.5 / sd, n - 1, alpha) < 0.8
    assert seeds_needed(0.5, 0.5) == 10, "the textbook's ten pairs for an effect of one deviation"
    assert seeds_needed(0.5, 0.0) is None and seeds_needed(0.5, math.nan) is None
    assert seeds_needed(0.5, math.nan) is None and seeds_needed(0.5, 1e3) is None


def test_calibration():
    confidence = np.array([0.9] * 10 + [0.6] * 10)
    right = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    assert ece(confidence, right) == pytest.approx(15.0)  # 0 of one half, 30 of the other
    assert ece(np.ones(4), np.ones(4, bool)) == 0 and ece(np.ones(4), np.zeros(4, bool)) == 100
    assert ece(np.zeros(4), np.zeros(4, bool)) == 0


def test_calibration_by_its_definition():
    random = np.random.default_rng(19)
    confidence = random.random(1000).astype(np.float32)
    # Too sure in every other bin, too unsure between them: wider bins would hide it.
    right = random.random(1000) < np.where(np.ceil(confidence * 15) % 2, 0.9, 0.1)
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    assert ece(confidence, right) == pytest.approx(100 * expected / 1000, rel=1e-4)


def test_calibrated_answers_have_little_error():
    random = np.random.default_rng(20)
    confidence = random.random(100_000)
    assert ece(confidence, random.random(100_000) < confidence) < 1
