"""Look-ahead: the candidates whose answers are expected to remove most of the error that is left in the pool.

    rows = LookAhead().query(X, y, batch_size=50, probability=p)

The error is the Brier loss that the probabilities themselves expect, the sum of p (1 - p) over all candidates without
an answer. An answer removes that of its own candidate, and changes what is thought of all that resemble it. Both are
foreseen before the question is asked (expected error reduction: Roy and McCallum 2001). Equations: ``docs/query.md``,
*Looking ahead*.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit
from threadpoolctl import threadpool_limits

from twostream.query.bounds import whole
from twostream.query.pool import Pool, spread_out
from twostream.query.scorer import Columns, log_odds
from twostream.query.strategy import Selection, Strategy, register_strategy

CONSTANT_VARIANCE = 2.0
"""Prior variance of the weight of the constant. With the scorer's, which is nearly unbounded, the first answer would be
expected to decide about the whole pool, and streams would not count."""
UNDECIDED = 0.5
"""Probability of a True until somebody has answered. S's score is not believed before: it is high for nearly all of its
own proposals, and a batch that follows it sees only the few that S doubts."""
NUM_TARGETS = 256
MAX_NEWTON = 50
"""Steps in which the log-odds after an answer are found; a handful are enough."""
NEWTON_TOLERANCE = 1e-10
BLOCK_PAIRS = 1 << 19
"""Pairs of a candidate and a target that are foreseen at once."""
RECHECKED = 32
"""Candidates whose gains are computed anew at once, after each choice."""


@register_strategy("look-ahead")
class LookAhead(Strategy):
    """Largest expected reduction of the Brier loss over the pool, one candidate after another.

    Args:
        num_targets: askable candidates, drawn at random, that stand for all of them when the error that is left is
            summed.
        random_state: seed of that draw.
    """

    needs_probability = True

    def __init__(self, *, num_targets: int = NUM_TARGETS, random_state: int = 0) -> None:
        super().__init__(random_state=random_state)
        self.num_targets = whole("num_targets", num_targets)

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        return look_ahead(pool, batch_size, self.num_targets, rng)


@dataclass(frozen=True)
class Rooms:
    """Clusters of the askable candidates, and how many of each may be chosen.

    Attributes:
        cluster: (A,) int, in 0..K-1.
        room: (K,) int, together at least the batch.
    """

    cluster: np.ndarray
    room: np.ndarray


def look_ahead(
    pool: Pool, batch_size: int, num_targets: int, rng: np.random.Generator, rooms: Rooms | None = None
) -> Selection:
    """Choose a batch one after another (``greedy``), with reasons; utilities are the gains before the first choice.

    Args:
        pool: with probabilities.
        batch_size: candidates to choose.
        num_targets: see ``LookAhead``.
        rng: of the targets.
        rooms: how many may be chosen of each cluster; None for as many as there are.
    """
    targets = rng.choice(len(pool.askable), min(num_targets, len(pool.askable)), replace=False)
    with threadpool_limits(limits=1):  # with several threads the order of sums would vary
        outlook = Outlook(pool, targets)
        gains = outlook.all_gains()
        chosen = greedy(outlook, gains, batch_size, rooms)
    reasons = [
        {"gain": round(gain, 6), "probability_before": round(float(pool.mean_probability[pool.askable[i]]), 6)}
        for i, gain in chosen
    ]
    return Selection(pool.askable[[i for i, _ in chosen]], spread_out(pool, gains), reasons)


@dataclass(frozen=True)
class Answer:
    """What one answer to each of n candidates would change.

    Attributes:
        residual: (n,) float, d: the log-odds of whatever covaries with the candidate by c change by c d.
        curvature: (n,) float, omega: how sharply the answer holds the candidate's log-odds.
    """

    residual: np.ndarray
    curvature: np.ndarray

    @classmethod
    def foreseen(cls, mean: np.ndarray, variance: np.ndarray, y: float) -> Answer:
        """One-dimensional Laplace approximation.

        Args:
            mean, variance: (n,) float, of the log-odds before the answer.
            y: the answer, 1 or 0.
        """
        # The largest of log N(e; mean, variance) + log P(y | e) has e = mean + variance (y - sigmoid(e)). The residual
        # y - sigmoid(e) lies between 0 and its value at the mean; Newton begins where the curve is steepest.
        at = mean.copy()
        for _ in range(MAX_NEWTON):
            p = expit(at)
            step = (at - mean - variance * (y - p)) / (1 + variance * p * (1 - p))
            # A full step overshoots where the sigmoid is flat; no root is farther from the mean than the variance.
            at = np.clip(at - np.clip(step, -4, 4), mean - variance, mean + variance)
            if np.abs(step).max(initial=0) < NEWTON_TOLERANCE:
                break
        p = expit(at)
        return cls(y - p, p * (1 - p))


class Outlook:
    """What is thought of the candidates, and what it would become with further answers.

    The log-odds of a candidate are those of its probability plus phi^T w, with phi the standardised streams, the
    log-odds themselves and 1, and w normal around 0 with the covariance that the answers so far have left of its prior
    (the scorer's, but for the constant).

    Args:
        pool: in its own order, with probabilities.
        targets: (T,) int64, positions in ``pool.askable``.

    Attributes:
        covariance: (D, D) float, of w.
    """

    def __init__(self, pool: Pool, targets: np.ndarray) -> None:
        self._pool = pool
        believed = pool.mean_probability if len(pool.answered) else np.full(len(pool.y), UNDECIDED)
        odds = log_odds(believed)
        self._columns = Columns.beside(pool, odds[:, None])
        precision = np.diag(1 / np.append(self._columns.variances[:-1], CONSTANT_VARIANCE))
        for part, features in self._columns.blocks(pool.answered):
            p = expit(odds[pool.answered[part]])
            precision += (features.T * (p * (1 - p))) @ features
        self.covariance = cho_solve(cho_factor(precision, lower=True), np.eye(len(precision)))
        self._mean = np.empty(len(pool.askable))
        for part, features in self._blocks(np.arange(len(pool.askable))):
            variance = np.einsum("ij,ij->i", features @ self.covariance, features)
            self._mean[part] = odds[pool.askable[part]] * np.sqrt(1 + np.pi / 8 * variance)
        self._targets = targets
        self._target_features = np.concatenate([block for _, block in self._blocks(targets)])
        self._num_open = len(pool.askable)

    def all_gains(self) -> np.ndarray:
        """(A,) float, what an answer to each askable candidate is expected to remove."""
        found = np.empty(len(self._pool.askable))
        for part, features in self._blocks(np.arange(len(found))):
            found[part] = self._gains(np.arange(part.start, part.stop), features)
        return found

    def gains(self, positions: np.ndarray) -> np.ndarray:
        """(n,) float, of the candidates at (n,) ``positions`` of ``pool.askable``."""
        return self._gains(positions, np.concatenate([block for _, block in self._blocks(positions)]))

    def ask(self, position: int) -> None:
        """Suppose that the candidate is answered: what is thought stays, and becomes surer."""
        features = next(block for _, block in self._blocks(np.array([position])))[0]
        toward = self.covariance @ features
        variance = float(features @ toward)
        p = float(_probability(self._mean[position], variance))
        shrink = p * (1 - p) / (1 + p * (1 - p) * variance)
        self.covariance = self.covariance - shrink * np.outer(toward, toward)
        left = self._targets != position
        self._targets, self._target_features = self._targets[left], self._target_features[left]
        self._num_open -= 1

    def _gains(self, positions: np.ndarray, features: np.ndarray) -> np.ndarray:
        """(n,) float; ``features`` (n, D) are those of ``positions``."""
        toward = features @ self.covariance
        variance, mean = np.einsum("ij,ij->i", toward, features), self._mean[positions]
        p = _probability(mean, variance)
        own = p * (1 - p)
        if not len(self._targets):
            return own
        target_mean = self._mean[self._targets][:, None]
        target_variance = np.einsum(
            "ij,ij->i", self._target_features @ self.covariance, self._target_features
        )[:, None]  # fmt: skip
        shared = self._target_features @ toward.T
        removed = np.zeros(shared.shape)
        removed += _error(target_mean, target_variance)
        for y, chance in ((1.0, p), (0.0, 1 - p)):
            answer = Answer.foreseen(mean, variance, y)
            shrink = answer.curvature / (1 + answer.curvature * variance)
            left = target_variance - shared**2 * shrink
            removed -= chance * _error(target_mean + shared * answer.residual, np.maximum(left, 0))
        removed[self._targets[:, None] == positions[None]] = 0  # its own error is counted apart
        return own + self._num_open / len(self._targets) * removed.sum(0)

    def _blocks(self, positions: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of (n,) positions in ``pool.askable``, and their features."""
        rows = self._pool.askable[positions]
        size = max(1, BLOCK_PAIRS // 256)
        for start in range(0, len(rows), size):
            for part, features in self._columns.blocks(rows[start : start + size]):
                yield slice(start + part.start, start + part.stop), features


def greedy(outlook: Outlook, gains: np.ndarray, number: int, rooms: Rooms | None = None) -> list[tuple[int, float]]:
    """One candidate after another, each with the largest gain once those before it are supposed to be answered.

    Gains shrink from choice to choice, so those of earlier choices are taken as upper bounds, and only candidates at
    the top are computed anew (lazy greedy: Minoux 1978).

    Args:
        outlook: changed by every choice.
        gains: (A,) float, of all askable candidates before the first choice.
        number: of candidates, at most A.
        rooms: a cluster whose room is taken gives no more candidates.

    Returns:
        Positions in ``pool.askable``, and the gain of each when it was chosen.
    """
    cluster = np.zeros(len(gains), int) if rooms is None else rooms.cluster
    room = np.array([number]) if rooms is None else rooms.room.copy()
    order = np.argsort(-gains, kind="stable")
    unseen = 0  # candidates of ``order`` from here on still have their first gain
    known: list[tuple[float, int, int]] = []  # heap of (-gain, position, number of choices when it was computed)
    chosen: list[tuple[int, float]] = []
    for choice in count():
        if len(chosen) == number:
            return chosen
        while True:
            stale: list[int] = []
            while len(stale) < RECHECKED:
                while unseen < len(order) and not room[cluster[order[unseen]]]:
                    unseen += 1
                while known and not room[cluster[known[0][1]]]:
                    heapq.heappop(known)
                best_unseen = gains[order[unseen]] if unseen < len(order) else -np.inf
                if known and -known[0][0] >= best_unseen:
                    if known[0][2] == choice:
                        break  # what was just computed is above all that may still come
                    stale.append(heapq.heappop(known)[1])
                elif unseen < len(order):
                    stale.append(int(order[unseen]))
                    unseen += 1
                else:
                    break
            if not stale:
                break
            for position, gain in zip(stale, outlook.gains(np.array(stale)).tolist(), strict=True):
                heapq.heappush(known, (-gain, position, choice))
        negative, position, _ = heapq.heappop(known)
        chosen.append((position, -negative))
        room[cluster[position]] -= 1
        outlook.ask(position)
    raise AssertionError


def _probability(mean: np.ndarray, variance: np.ndarray | float) -> np.ndarray:
    """Probability of a True, the mean over normal log-odds (MacKay 1992)."""
    found: np.ndarray = expit(mean / np.sqrt(1 + np.pi / 8 * variance))
    return found


def _error(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The Brier loss p (1 - p) that a probability expects of itself."""
    p = _probability(mean, variance)
    return p * (1 - p)
