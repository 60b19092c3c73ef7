"""The scorer: the probability that a person would answer True, shared by all strategies and scores.

    y = np.array([1, 0, np.nan, 1, ...])                         # NaN where nobody has answered yet
    X = {"supervised": np.load("masks.npy", mmap_mode="r"), "unsupervised": np.load("images.npy", mmap_mode="r")}
    p = Scorer().predict(X, y, score=score, num_voxels=num_voxels)                      # (N,)
    P = Scorer(num_members=20).predict_ensemble(X, y, score=score, num_voxels=num_voxels)  # (20, N)
    ask = np.argsort(P.std(0))[-10:]                             # where plausible scorers disagree most

It is S's own score until somebody has answered, then a Bayesian logistic regression on the answers, of whichever kind
they are. ``docs/scores.md`` has its equations; how well it is calibrated is measured by
``benchmarks/scorer_calibration.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from twostream.base.errors import InputError
from twostream.query.bounds import seed, whole
from twostream.query.pool import Features, Pool, check_pool, rows_per_block

SAMPLE_ROWS = 10_000
"""Unanswered rows by which columns are standardised, besides all answered ones."""
SCORE_WEIGHT = 1.0
"""Prior mean of the weight of S's score: one standard deviation of its log-odds is worth one of ours."""
PLAIN_VARIANCE = 3.0
"""Prior variance of the weights of score and size: either may decide alone."""
STREAM_VARIANCE = 1.0
"""Prior variance of a whole stream's contribution, whatever its dimension, so that 1000 columns do not outweigh score
and size."""
CONSTANT_VARIANCE = 100.0
"""Prior variance of the intercept: hardly anything is known in advance about the share of True. A narrower prior helps
only where that share is about one half."""
CERTAIN = 1e-4
"""Scores are clipped to this distance from 0 and 1, because log-odds are infinite there."""
CONSTANT = 1e-6
"""A column whose deviation is below this share of its mean varies by rounding only, and is left out."""
MAX_STEPS = 100
STEP_TOLERANCE = 1e-9


class Scorer:
    """Probability of a True.

    The model is a logistic regression on the logit of S's score, the logarithm of the size, and both streams, all
    standardised. The Gaussian prior of its weights is fixed: S's score counts, and each stream as a whole may
    contribute about one standard deviation. The posterior is approximated by a Gaussian around its maximum (Laplace),
    and a candidate's probability is the mean over that posterior instead of the value at its maximum, so that few
    answers give cautious probabilities (Spiegelhalter and Lauritzen 1990; MacKay 1992). Nothing is tuned on the
    answers: choosing the penalty by cross-validation, with or without scaling the logits afterwards, was calibrated
    worse.

    Args:
        num_members: rows of ``predict_ensemble``.
        random_state: seed of the ensemble; ``predict`` draws nothing.

    The order of the rows matters only for rounding. Features are read in blocks.
    """

    def __init__(self, *, num_members: int = 20, random_state: int = 0) -> None:
        self.num_members = whole("num_members", num_members)
        self.random_state = seed("random_state", random_state)

    def predict(
        self,
        X: Features,  # noqa: N803
        y: np.ndarray,
        *,
        score: np.ndarray,
        num_voxels: np.ndarray,
        excluded: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probability of a True.

        Args:
            X: (N, D) float, or {stream: (N, D)}; perhaps memory-mapped.
            y: (N,) 1, 0, or NaN where unanswered.
            score: (N,) float in [0, 1], S's mean probability inside each candidate.
            num_voxels: (N,) size of each candidate, above 0.
            excluded: (N,) bool, True for unanswered rows that get a probability and change nobody else's: the columns
                are standardised without them. None: no row.

        Returns:
            (N,) float in [0, 1]; ``score`` itself until ``y`` holds an answer.

        Raises:
            InputError: shapes disagree, a value is not finite or not in its range.
        """
        pool = _checked(X, y, score, num_voxels, excluded)
        if not has_answers(pool.y):
            return np.array(score, float)
        probability = np.empty(len(pool.y))
        with threadpool_limits(limits=1):  # with several threads the order of sums would vary
            posterior = Columns.of(pool, score, num_voxels).posterior()
            for part, features in posterior.blocks(np.arange(len(pool.y))):
                probability[part] = posterior.probability(features)
        return probability

    def predict_ensemble(self, X: Features, y: np.ndarray, *, score: np.ndarray, num_voxels: np.ndarray) -> np.ndarray:  # noqa: N803
        """Probabilities by a committee of plausible scorers, drawn from the posterior (Seung 1992).

        With few answers its members differ much, with many they differ little. A bootstrap of the answers would show
        too little doubt: all members share the prior, and a single answer has a single resample.

        Args:
            X, y, score, num_voxels: see ``predict``.

        Returns:
            (num_members, N) float in [0, 1]. Until ``y`` holds an answer every member is ``score`` itself: they agree
            because none has learned anything yet, not because the scores are certain.
        """
        pool = _checked(X, y, score, num_voxels)
        if not has_answers(pool.y):
            return np.tile(np.asarray(score, float), (self.num_members, 1))
        probability = np.empty((self.num_members, len(pool.y)))
        with threadpool_limits(limits=1):
            posterior = Columns.of(pool, score, num_voxels).posterior()
            drawn = np.random.default_rng(self.random_state).standard_normal((self.num_members, len(posterior.mean)))
            weights = posterior.mean[:, None] + np.linalg.cholesky(posterior.covariance) @ drawn.T
            for part, features in posterior.blocks(np.arange(len(pool.y))):
                probability[:, part] = expit(features @ weights).T
        return probability

    def posterior(
        self,
        X: Features,  # noqa: N803
        y: np.ndarray,
        *,
        score: np.ndarray,
        num_voxels: np.ndarray,
        excluded: np.ndarray | None = None,
    ) -> Posterior:
        """What the answers leave possible of the weights, for strategies that foresee what an answer would change.

        Args:
            X, y, score, num_voxels, excluded: see ``predict``.

        Returns:
            The posterior from which ``predict`` and ``predict_ensemble`` are computed; the prior until ``y`` holds an
            answer, when ``predict`` is still S's score.
        """
        with threadpool_limits(limits=1):
            return Columns.of(_checked(X, y, score, num_voxels, excluded), score, num_voxels).posterior()


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Of probabilities, which are clipped to a finite range."""
    found: np.ndarray = logit(np.clip(probability, CERTAIN, 1 - CERTAIN))
    return found


def has_answers(y: np.ndarray) -> bool:
    """Whether ``y``, (N,) 1, 0, or NaN, holds an answer; until it does, the scorer has learned nothing."""
    return bool((~np.isnan(y)).any())


def _checked(
    X: Features,  # noqa: N803
    y: np.ndarray,
    score: np.ndarray,
    num_voxels: np.ndarray,
    excluded: np.ndarray | None = None,
) -> Pool:
    pool = check_pool(X, y, score, excluded)
    if np.ndim(score) != 1:
        raise InputError(f"score has shape {np.shape(score)}; expected {pool.y.shape}, one per candidate.")
    size = np.asarray(num_voxels, float)
    if size.shape != pool.y.shape:
        raise InputError(f"num_voxels has shape {size.shape}; expected {pool.y.shape}, one per candidate.")
    wrong = np.flatnonzero(~(np.isfinite(size) & (size > 0)))
    if len(wrong):
        raise InputError(f"num_voxels is {size[wrong[0]]:g} in row {wrong[0]}; expected a number above 0.")
    return pool.in_own_order()


@dataclass(frozen=True)
class Columns:
    """The columns of the model: plain ones (log-odds of the score, log of the size), the streams, 1 for the intercept.

    Attributes:
        pool: rows in their own order.
        plain: (N, P) float, standardised.
        scales: {stream: ((D,) middle, (D,) divisor)}.
    """

    pool: Pool
    plain: np.ndarray
    scales: dict[str, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, pool: Pool, score: np.ndarray, num_voxels: np.ndarray) -> Columns:
        return cls.beside(pool, np.stack([log_odds(score), np.log(num_voxels)], axis=1))

    @classmethod
    def beside(cls, pool: Pool, plain: np.ndarray) -> Columns:
        """Columns of the streams beside (N, P) ``plain`` ones, which are not standardised yet."""
        # Rows are in hash order, so that the first ones are a random sample.
        rows = np.concatenate([pool.answered, pool.askable[:SAMPLE_ROWS]])
        middle, width = _middle_and_width(lambda: [(slice(None), plain[rows])])
        scales = {}
        for name, array in pool.streams.items():
            center, spread = _middle_and_width(partial(pool.blocks, rows, name))
            scales[name] = center, spread * np.sqrt(array.shape[1])
        return cls(pool, (plain - middle) / width, scales)

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of ``rows``, and their (n, P + D + 1) float64 columns."""
        size = rows_per_block(len(self.variances))
        for start in range(0, len(rows), size):
            part = slice(start, min(start + size, len(rows)))
            streams = [(self.pool.take(rows[part], name) - m) / w for name, (m, w) in self.scales.items()]
            yield part, np.hstack([self.plain[rows[part]], *streams, np.ones((len(rows[part]), 1))])

    @cached_property
    def variances(self) -> np.ndarray:
        """(D,) prior variance of the weight of each column."""
        num_plain, num_streams = self.plain.shape[1], sum(len(middle) for middle, _ in self.scales.values())
        return np.repeat([PLAIN_VARIANCE, STREAM_VARIANCE, CONSTANT_VARIANCE], [num_plain, num_streams, 1])

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Prior of the weights of the scorer: (D,) means and (D,) inverse variances."""
        expected = np.zeros(len(self.variances))
        expected[0] = SCORE_WEIGHT
        return expected, 1 / self.variances

    def posterior(self) -> Posterior:
        """The posterior of the weights given the answers; without answers it is the prior."""
        expected, precision = self.prior()
        known = [block for _, block in self.blocks(self.pool.answered)]
        features = np.concatenate([np.zeros((0, len(expected))), *known])
        mean, factor = laplace(features, self.pool.y[self.pool.answered], expected, precision)
        return Posterior(self, mean, cho_solve((factor, True), np.eye(len(mean))))


@dataclass(frozen=True)
class Posterior:
    """Gaussian posterior of the weights; the log-odds of a True are the product of a candidate's features with them.

    Attributes:
        columns: features of the candidates; read them through ``blocks``.
        mean: (D,) float, the most probable weights.
        covariance: (D, D) float.
    """

    columns: Columns
    mean: np.ndarray
    covariance: np.ndarray

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of ``rows``, (n,) int rows of ``X``, and their (n, D) float64 features."""
        return self.columns.blocks(rows)

    def probability(self, features: np.ndarray) -> np.ndarray:
        """(n,) probability of a True, the mean over the weights (MacKay 1992), given (n, D) ``features``."""
        variance = np.einsum("ij,ij->i", features @ self.covariance, features)
        return expit(features @ self.mean / np.sqrt(1 + np.pi / 8 * variance))


def _middle_and_width(read: Callable[[], Iterable[tuple[slice, np.ndarray]]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; infinite for a constant column, so that dividing by it gives 0.

    Args:
        read: gives the blocks, as often as it is called.
    """
    number = sum(len(block) for _, block in read())
    middle = np.sum([block.sum(0, dtype=float) for _, block in read()], axis=0) / number
    width = np.sqrt(np.sum([((block - middle) ** 2).sum(0) for _, block in read()], axis=0) / number)
    return middle, np.where(width <= CONSTANT * np.abs(middle), np.inf, width)


def laplace(
    features: np.ndarray, y: np.ndarray, expected: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression with a Gaussian prior: the posterior's maximum by Newton, and its curvature there.

    Args:
        features: (n, D) float.
        y: (n,) 1 or 0.
        expected: (D,) prior means of the weights.
        precision: (D,) prior inverse variances, above 0.

    Returns:
        (D,) weights and the (D, D) lower Cholesky factor of the Hessian, the posterior's precision.
    """
    sign = 2 * y - 1

    def cost(weights: np.ndarray) -> float:
        misfit = np.logaddexp(0, -sign * (features @ weights)).sum()
        return float(misfit + 0.5 * (precision * (weights - expected) ** 2).sum())

    weights = expected.copy()
    for _ in range(MAX_STEPS):
        p = expit(features @ weights)
        gradient = features.T @ (p - y) + precision * (weights - expected)
        factor, _ = cho_factor((features.T * (p * (1 - p))) @ features + np.diag(precision), lower=True)
        step = cho_solve((factor, True), gradient)
        share = 1.0
        while share > STEP_TOLERANCE and cost(weights - share * step) > cost(weights):
            share /= 2  # a full Newton step may overshoot where the cost is flat
        weights = weights - share * step
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return weights, np.tril(factor)
