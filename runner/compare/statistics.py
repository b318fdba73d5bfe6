"""Intervals of a mean and of a mean difference that hold what they promise for few items too.

The interval of a mean of n values is the percentile bootstrap (Efron, 1979) over items, with the tails widened for n as
Hesterberg (2015, "What teachers should know about the bootstrap") does: with t the quantile of Student's distribution,

    tail = Phi(-sqrt(n / (n - 1)) t(1 - alpha/2, n - 1))

It follows a skewed sample, and is widened to Student's interval where that is wider, as it is for long tails on both sides.
Below `FEWEST` items resampling cannot reach such tails, and the interval is Student's alone. Values that are 0 or 1 get
Wilson's interval (1927), and their paired differences that of Bonett and Price (2012), neither of which shrinks to a point
when all items agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

CONFIDENCE = 0.95
FEWEST = 8
"""Items from which on the bootstrap is used."""

RESAMPLES = 4000
CHUNK = 500
SEED = 0

Interval = tuple[float, float]


def mean_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, *, share: bool = False, seed: int = SEED
) -> Interval | None:
    """Interval of the mean, or None for fewer than two values.

    Args:
        values: one for each item.
        confidence: of the two-sided interval, such as 0.95.
        share: whether the values are 0 or 1.
        seed: of the resampling; the same values and seed give the same interval.
    """
    if len(values) < 2:
        return None
    if share:
        return _wilson(sum(values) / len(values), len(values), confidence)
    return _of_mean(values, confidence, seed)


def difference_interval(
    differences: Sequence[float], confidence: float = CONFIDENCE, *, share: bool = False, seed: int = SEED
) -> Interval | None:
    """Interval of the mean of paired differences; arguments as those of `mean_interval`."""
    if len(differences) < 2:
        return None
    return _bonett_price(differences, confidence) if share else _of_mean(differences, confidence, seed)


def effect_size(differences: Sequence[float]) -> float | None:
    """Cohen's d for pairs: mean difference over the standard deviation of the differences; None where that is 0."""
    n = len(differences)
    if n < 2:
        return None
    mean = math.fsum(differences) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1))
    return mean / spread if spread > 1e-12 * abs(mean) else None


@cache
def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| < t) = confidence, for a whole number of degrees of freedom."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t): the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for index in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (index - 1) / index
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def _of_mean(values: Sequence[float], confidence: float, seed: int) -> Interval:
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    quantile = student_quantile(confidence, n - 1)
    half = quantile * float(array.std(ddof=1)) / math.sqrt(n)
    if n < FEWEST:
        return mean - half, mean + half
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * quantile)
    generator = np.random.default_rng(seed)
    draws = [array[generator.integers(n, size=(CHUNK, n))].mean(axis=1) for _ in range(RESAMPLES // CHUNK)]
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail])
    return min(float(low), mean - half), max(float(high), mean + half)


def _wilson(share: float, n: int, confidence: float) -> Interval:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _bonett_price(differences: Sequence[float], confidence: float) -> Interval:
    """Differences of 0-or-1 values: Wald's interval with half a pair more in each cell of disagreement."""
    z, n = NormalDist().inv_cdf((1 + confidence) / 2), len(differences)
    more = (sum(value > 0 for value in differences) + 1) / (n + 2)
    fewer = (sum(value < 0 for value in differences) + 1) / (n + 2)
    half = z * math.sqrt((more + fewer - (more - fewer) ** 2) / (n + 2))
    return max(-1.0, more - fewer - half), min(1.0, more - fewer + half)
