"""Student's t and the binomial distribution, as far as comparisons need them."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

_TINY = 1e-300


def t_cdf(t: float, freedom: float) -> float:
    """P(T <= t) of Student's t with so many degrees of freedom (to 1e-8 up to thousands)."""
    if math.isnan(t):
        return math.nan
    tail = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return 1 - tail if t > 0 else tail


@cache
def t_quantile(share: float, freedom: float) -> float:
    """The t below which this share lies, between 0 and 1 (exclusive); by bisection.

    Raises:
        ValueError: a share or degrees of freedom out of range.
    """
    if not 0 < share < 1 or not freedom > 0:
        raise ValueError(
            f"t_quantile: share {share!r}, freedom {freedom!r}; expected 0 < share < 1, freedom > 0"
        )
    if share < 0.5:
        return -t_quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < share:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_cdf(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction.

    Source: Abramowitz & Stegun 1964, 26.5.8, evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the other side converges fast
        return 1 - incomplete_beta(b, a, 1 - x)
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(front) * fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def power_of_t(effect: float, pairs: int, alpha: float) -> float:
    """How often a two-sided paired t-test finds an effect.

    Args:
        effect: mean of the differences over their standard deviation. pairs: at least 2.
        alpha: how often it may find one where there is none.

    The noncentral t distribution, integrated over the chi distribution of the deviation.
    """
    freedom = pairs - 1
    limit = t_quantile(1 - alpha / 2, freedom)
    shift = effect * math.sqrt(pairs)
    # s = sqrt(chi2 / freedom); its density is negligible outside of this range.
    spread = 10 / math.sqrt(2 * freedom)
    low, high = max(0.0, 1 - spread), 1 + spread
    nodes, weights = _nodes()
    s = low + (high - low) * (nodes + 1) / 2
    log_density = (
        math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
        + (freedom - 1) * np.log(s) - freedom * s * s / 2
    )  # fmt: skip
    inside = np.array([_normal(limit * v - shift) - _normal(-limit * v - shift) for v in s])
    mass = weights * np.exp(log_density) * (high - low) / 2
    return float(1 - mass @ inside)


@cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss's quadrature on -1 to 1."""
    return np.polynomial.legendre.leggauss(200)


def _normal(z: float) -> float:
    """P(Z <= z) of the standard normal distribution."""
    return math.erfc(-z / math.sqrt(2)) / 2


def binomial_half(k: int, n: int) -> float:
    """P(X = k) of n fair coins."""
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log - n * math.log(2))
