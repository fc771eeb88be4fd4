"""Intervals and tests: over seeds, over test images, over both, and over many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .distributions import binomial_half, power_of_t, t_cdf, t_quantile

LEVEL, ALPHA = 0.95, 0.05
HALF_A_POINT = 0.5  # the difference that a study asks for, in points
POWER = 0.8  # chance of telling a difference that a number of seeds is to give
RESAMPLES = 2000
_MOST_SEEDS = 10_000
_ROUNDING = 1e-9  # differences of per cents that are this near are the same


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        count: of values. mean: of them. sd: their standard deviation (n - 1); NaN for one value.
        low, high: the mean's 95 % interval by Student's t; NaN for one value.
        p: that the true mean is 0, two-sided; NaN for one value, and for values that are all the
            same but not 0: nothing says how far they spread.
    """

    count: int
    mean: float
    sd: float
    low: float
    high: float
    p: float


def mean_over_seeds(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Mean, standard deviation, t-interval, and the t-test of a mean of 0.

    Args:
        values: one a seed; for paired differences, the differences. level: of the interval.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"mean_over_seeds: got {values!r}; expected finite numbers, one a seed.")
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Mean(1, mean, math.nan, math.nan, math.nan, math.nan)
    same = float(np.ptp(x)) <= _ROUNDING * max(1.0, float(np.abs(x).max()))
    sd = 0.0 if same else float(x.std(ddof=1))
    half = t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)
    if sd == 0:
        p = 1.0 if abs(mean) <= _ROUNDING else math.nan
    else:
        p = 2 * t_cdf(-abs(mean) / sd * math.sqrt(n), n - 1)
    return Mean(n, mean, sd, mean - half, mean + half, p)


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same images.

    Attributes:
        both, neither: images that both, that neither got right. gained, lost: images that only the
            second, only the first got right.
        exact: p of McNemar's test, by the binomial distribution, two-sided.
        mid: its mid-p form, which is less cautious and still holds its level in practice.
    """

    both: int
    gained: int
    lost: int
    neither: int
    exact: float
    mid: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's test: do these two trained classifiers differ on images of this kind?

    It knows nothing of other seeds: two trainings of one network, too, may differ so.

    Args:
        first, second: (N,) bool, which images each got right.

    Raises:
        ValueError: not of the same images.

    Papers: McNemar 1947; Fagerland, Lydersen and Laake 2013 (mid-p).
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"mcnemar: got {first.shape} and {second.shape}; expected the same images in both."
        )
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    n, k = gained + lost, min(gained, lost)
    tail = sum(binomial_half(i, n) for i in range(k + 1))
    exact = 1.0 if gained == lost else min(1.0, 2 * tail)
    middle = binomial_half(k, n)
    mid = 1 - middle / 2 if gained == lost else 2 * tail - middle
    if n == 0:
        exact = mid = 1.0
    both = int((first & second).sum())
    return McNemar(both, gained, lost, len(first) - both - n, exact, min(1.0, mid))


def bootstrap(
    differences: Sequence[np.ndarray], same_images: bool = True, level: float = LEVEL,
    resamples: int = RESAMPLES, seed: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """The percentile bootstrap interval of a mean difference, over images and seeds at once.

    Seeds are drawn anew with repetition, and images are: the same ones for all seeds, where they
    are the same. It asks how the difference would vary with other seeds *and* other test images,
    which the t-interval over seeds leaves fixed. From two or three seeds it is too narrow.

    Args:
        differences: for each seed one value an image, such as right minus right.
        same_images: image i is the same in each; else each seed's images are drawn by themselves.
        level, resamples: of the interval. seed: of the draws.

    Raises:
        ValueError: no values, or not as many for each seed where they are of the same images.

    Paper: Owen 2007, "The pigeonhole bootstrap" (both factors resampled).
    """
    rows = [np.asarray(row, np.float64) for row in differences]
    sizes = {len(row) for row in rows}
    if not rows or 0 in sizes or (same_images and len(sizes) > 1):
        raise ValueError(f"bootstrap: got {sorted(sizes)} values; expected as many for each seed.")
    random = np.random.default_rng(seed)
    count, means = len(rows), np.empty(resamples)
    together = np.stack(rows) if same_images else None
    for i in range(resamples):
        seeds = random.integers(0, count, count)
        if together is not None:
            means[i] = (together @ _times_drawn(random, together.shape[1]))[seeds].mean()
        else:
            means[i] = np.mean([rows[s] @ _times_drawn(random, len(rows[s])) for s in seeds])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _times_drawn(random: np.random.Generator, count: int) -> np.ndarray:
    """How often each of ``count`` things is drawn, with repetition, as a share of the draws."""
    return np.bincount(random.integers(0, count, count), minlength=count) / count


def holm(p_values: Sequence[float], comparisons: int = 0) -> list[float]:
    """Holm's correction: p-values that may be held against one level although there are many.

    Args:
        p_values: NaN (no test) stays NaN. comparisons: how many there are in all, where some have
            no p-value yet; default: as many as there are p-values.

    Paper: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    found, most = [math.nan] * len(p_values), 0.0
    many = max(comparisons, len(known))
    for place, (p, i) in enumerate(known):
        most = max(most, min(1.0, p * (many - place)))
        found[i] = most
    return found


def seeds_needed(
    difference: float, sd: float, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """How many seeds a paired t-test needs to tell a difference, with the chance ``power``.

    Args:
        difference: above 0. sd: standard deviation of the paired differences.
        alpha: level of the test; divide it by the number of comparisons to be safe with Holm's.

    Returns:
        At least 2; None where ``sd`` is not known (NaN, or 0: that of differences which happen to
        be the same) or more than 10,000 are needed.
    """
    if math.isnan(sd) or sd == 0:
        return None
    effect = difference / sd
    low, high = 1, 2  # `low` is too few
    while power_of_t(effect, high, alpha) < power:
        low, high = high, high * 2
        if high > _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power_of_t(effect, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high
