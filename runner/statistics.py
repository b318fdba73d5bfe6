"""Estimates with intervals: means, shares and paired differences, with the coverage they promise for few items too.

Every interval that genrun shows comes from here. That of a mean of n values is the percentile bootstrap (Efron, 1979) over
items, with the tails widened for n as Hesterberg (2015, "What teachers should know about the bootstrap") does: with t the
quantile of Student's distribution,

    tail = Phi(-sqrt(n / (n - 1)) t(1 - alpha/2, n - 1))

It follows a skewed sample, and is widened to Student's interval where that is wider, as it is for long tails on both sides.
Values that are 0 or 1 get Wilson's interval (1927), and their paired differences that of Bonett and Price (2012), neither of
which shrinks to a point when all items agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95

# Resampling fewer cannot reach the widened tails: Student's interval stands alone.
FEWEST = 8
"""Items from which on the bootstrap is used."""

# Of an exponential sample of 1,000 the bootstrap's half-widths are within 1 % of Student's.
MOST = 1000
"""Items up to which the bootstrap is used."""

# With 8 items the widened tail is 0.6 %: 4,000 resamples leave some 20 beyond each end.
RESAMPLES = 4000

# Bounds memory: 500 resamples of 1,000 items are 4 MB.
BATCH = 500
"""Resamples made at once."""

SEED = 0

Interval = tuple[float, float]

ANY: Interval = (-math.inf, math.inf)
COUNTS: Interval = (0.0, math.inf)
SHARES: Interval = (0.0, 1.0)
"""Intervals in which values can lie: any number; counts, seconds and ratios; parts of a whole."""


@dataclass(frozen=True)
class Estimate:
    """A mean over items.

    Attributes:
        n: how many items were measured.
        mean: their mean.
        median: their median.
        low: lower end of the 95 % interval of the mean; None for fewer than two items.
        high: upper end.
        minimum: smallest value.
        maximum: largest value.
    """

    n: int
    mean: float
    median: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float


def estimate(values: Sequence[float], *, share: bool = False, within: Interval = ANY) -> Estimate | None:
    """Return the mean of `values` with its 95 % interval; None for no values.

    Args:
        values: one for each item.
        share: True for a metric of yes or no; values that are neither 0 nor 1 are measured like any number.
        within: where such values can lie at all.
    """
    if not values:
        return None
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    interval = mean_interval(values, share=share and are_binary(values), within=within)
    low, high = interval or (None, None)
    return Estimate(
        n=len(array),
        mean=float(array.mean()),
        median=float(np.median(array)),
        low=low,
        high=high,
        minimum=float(array.min()),
        maximum=float(array.max()),
    )


def mean_interval(
    values: Sequence[float],
    confidence: float = CONFIDENCE,
    *,
    share: bool = False,
    seed: int = SEED,
    within: Interval = ANY,
) -> Interval | None:
    """Return the interval of the mean, or None for fewer than two values.

    Args:
        values: one for each item.
        confidence: of the two-sided interval, such as 0.95.
        share: True when the values are 0 or 1; see `are_binary`.
        seed: of the resampling; the same values and seed give the same interval.
        within: where such values can lie at all, and so their mean.
    """
    if len(values) < 2:
        return None
    low, high = _wilson(values, confidence) if share else _of_mean(values, confidence, seed)
    return max(low, within[0]), min(high, within[1])


def difference_interval(
    differences: Sequence[float], confidence: float = CONFIDENCE, *, share: bool = False, seed: int = SEED
) -> Interval | None:
    """Return the interval of the mean of paired differences; arguments as those of `mean_interval`."""
    if len(differences) < 2:
        return None
    return _bonett_price(differences, confidence) if share else _of_mean(differences, confidence, seed)


def are_binary(values: Iterable[float | None]) -> bool:
    """Return True when all values are 0 or 1, so that they may be counted as a share."""
    return all(value in (0.0, 1.0) for value in values)


def effect_size(differences: Sequence[float]) -> float | None:
    """Return Cohen's d for pairs: mean difference over the standard deviation of the differences; None where that is 0."""
    n = len(differences)
    if n < 2:
        return None
    mean = math.fsum(differences) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1))
    return mean / spread if spread > 1e-12 * abs(mean) else None


def _of_mean(values: Sequence[float], confidence: float, seed: int) -> Interval:
    # Imported where they are used: scipy.stats takes longer than most verbs.
    import numpy as np
    from scipy import special

    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    quantile = float(special.stdtrit(n - 1, (1 + confidence) / 2))
    half = quantile * float(array.std(ddof=1)) / math.sqrt(n)
    if not FEWEST <= n <= MOST or half == 0:
        return mean - half, mean + half
    from scipy import stats

    tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * quantile))
    resampled = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=1 - 2 * tail,
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return min(float(resampled.low), mean - half), max(float(resampled.high), mean + half)


def _wilson(values: Sequence[float], confidence: float) -> Interval:
    from scipy import stats

    right = sum(value > 0 for value in values)
    found = stats.binomtest(right, len(values)).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def _bonett_price(differences: Sequence[float], confidence: float) -> Interval:
    """Return Wald's interval of differences of 0-or-1 values, with half a pair more in each cell of disagreement."""
    from scipy import special

    z, n = float(special.ndtri((1 + confidence) / 2)), len(differences)
    more = (sum(value > 0 for value in differences) + 1) / (n + 2)
    fewer = (sum(value < 0 for value in differences) + 1) / (n + 2)
    half = z * math.sqrt((more + fewer - (more - fewer) ** 2) / (n + 2))
    return max(-1.0, more - fewer - half), min(1.0, more - fewer + half)


def exact_interval(within: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact two-sided interval of a share (Clopper and Pearson, 1934), as shares of 1."""
    from scipy import stats

    found = stats.binomtest(within, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def least_share(within: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Return the share that is at least there with a confidence: the lower end of the exact one-sided interval."""
    from scipy import stats

    return float(stats.beta.ppf(1 - confidence, within, n - within + 1)) if within else 0.0


def allowed_failures(n: int, share: float) -> int:
    """Return how many of n exchangeable items may fail so that a new one succeeds with a probability of at least `share`.

    The largest m with (m + 1) / (n + 1) <= 1 - share: the new item counts as one that failed (conformal risk control,
    Angelopoulos et al., 2022, arXiv 2208.02814). -1 where n is too small to say anything.
    """
    return math.floor((n + 1) * (1 - share) + 1e-9) - 1


def fewest_items(share: float) -> int:
    """Return the least n of which none may fail for `share`: 19 for 95 %."""
    return math.ceil(share / (1 - share) - 1e-9)


def items_without_failure(share: float, confidence: float = CONFIDENCE) -> int:
    """Return how many items without a failure show `share` with a confidence: 59 for 95 % with 95 %."""
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9)
