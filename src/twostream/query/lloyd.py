"""k-means on arrays in memory: ``kmeans`` as scikit-learn does it, only faster, and ``quick``, nearly as good.

``kmeans`` (k-means++ with local trials, Lloyd, the best of several restarts): the same seed gives the clusters that
``sklearn.cluster.KMeans`` gives for float64 input. The same random numbers are drawn in the same order and the same
rules end the iterations; where a last digit would decide, scikit-learn itself is asked. Three things save time. All
restarts go through one matrix product. Products are taken in single precision; only where the two nearest centres
differ by less than such a product can err is the row looked at in double precision. And little is done twice: a small
problem keeps its scores and takes anew those of centres that have moved; of a large one, a row whose margin between its
nearest and second nearest centre is larger than what the centres have moved since is left alone (Hamerly 2010).

``quick`` finds centres on a random share of the rows, as faiss does, in single precision, and stops when little is won.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans

ROWS_AT_ONCE = 8192
"""Rows of a block: their products with all centres stay in the cache."""
SCORES_AT_ONCE = 2**22
"""Products of rows and centres that are held at once, however many centres there are."""
TIE = 1e-12
"""Relative difference that may be nothing but rounding."""
HELD_SCORES = 2**23
"""Scores of rows and centres, of all restarts, that are kept from one iteration to the next: 32 MB."""
ALIKE = 1e-9
"""Relative difference of two inertias below which they are summed up row by row."""
ROWS_PER_CENTER, FEWEST_PER_CENTER, SHARE_ROWS = 256, 40, 2**16
"""Rows of the share for every centre; fewer, but so many at least, where the share would be larger than this."""
MANY_ITERATIONS = 100
RESTARTS, SMALL_VALUES = 4, 2**16
"""Starts of a quick k-means on a share that holds no more numbers than this."""
LITTLE = 1e-3
"""Part of the inertia that is not worth another iteration."""


@dataclass(frozen=True)
class Solution:
    """What k-means found.

    Attributes:
        labels: (n,) int32.
        centers: (k, D) float.
        inertia: sum of squared distances to the own centre, each times its weight.
    """

    labels: np.ndarray
    centers: np.ndarray
    inertia: float


class _UndecidedError(Exception):
    """A tie, or a cluster that runs empty: what becomes of it is scikit-learn's affair, to the last digit."""


class _Data:
    """Centred features in double and single precision, by blocks.

    Attributes:
        mean: (D,).
        x: (n, D) float64.
        x32: (n, D + 1) float32, with a column of ones: its product with (c, -|c|^2 / 2) is the score of a centre c.
        norm2: (n,) squared length.
        length: (n,) length, for the error of a product.
        blocks: slices of the rows.
    """

    def __init__(self, features: np.ndarray, executor: Executor | None) -> None:
        self.mean = features.mean(0)
        self.x = np.asarray(features, np.float64) - self.mean
        self.x32 = np.ones((len(self.x), self.x.shape[1] + 1), np.float32)
        self.x32[:, :-1] = self.x
        self.norm2 = np.einsum("ij,ij->i", self.x, self.x)
        self.length = np.sqrt(self.norm2)
        self._executor = executor
        self.blocks = _slices(len(self.x))

    def each(self, work: Callable[[slice], None], number: int | None = None) -> None:
        """``work`` on every block of ``number`` rows, or of all, in threads where there is an executor."""
        blocks = self.blocks if number is None else _slices(number)
        if self._executor is None or len(blocks) == 1:
            for block in blocks:
                work(block)
        else:
            list(self._executor.map(work, blocks))

    def slack(self, length2: float) -> np.ndarray:
        """What the difference of two scores in single precision may be off by, of centres no longer than that."""
        unit = np.finfo(np.float32).eps * (self.x.shape[1] + 4)
        return 2 * unit * max(np.sqrt(length2), 0.5 * length2) * (1 + self.length)


def _slices(number: int) -> list[slice]:
    return [slice(s, min(s + ROWS_AT_ONCE, number)) for s in range(0, number, ROWS_AT_ONCE)]


def kmeans(
    features: np.ndarray,
    num_clusters: int,
    *,
    seed: int,
    restarts: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    executor: Executor | None = None,
) -> Solution:
    """``KMeans(num_clusters, random_state=seed, n_init=restarts, max_iter=max_iter, tol=tol).fit(features)``.

    Args:
        features: (n, D) float64 or float32, n >= num_clusters.
        executor: threads for the blocks of one problem; None where problems are dealt to threads themselves.
    """
    data = _Data(features, executor)
    tolerance = float(data.norm2.sum() / data.x.size * tol)  # the mean variance of the columns, which are centred
    try:
        centers = _plusplus(data, num_clusters, restarts, np.random.RandomState(seed))
        is_small = len(features) * num_clusters * restarts <= HELD_SCORES
        lloyd = (_HeldScores if is_small else _Margins)(data, centers)
        lloyd.iterate(max_iter, tolerance)
    except _UndecidedError:
        model = _as_library(features, num_clusters, seed, restarts, max_iter, tol)
        return Solution(model.labels_, model.cluster_centers_, float(model.inertia_))
    best, inertia = lloyd.best()
    return Solution(lloyd.labels[best], _final_centers(features, data, lloyd.made_of[best], num_clusters), inertia)


def _final_centers(features: np.ndarray, data: _Data, labels: np.ndarray, k: int) -> np.ndarray:
    """Means in the precision of the features and about their mean, as scikit-learn has them.

    Of a cluster of two, both are as near to the centre: its last digit says which one the script picked.
    """
    x = data.x if features.dtype == np.float64 else features - data.mean
    table = csr_matrix((np.ones(len(labels), x.dtype), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
    return (table @ x) * (1 / np.bincount(labels, minlength=k)).astype(x.dtype)[:, None] + data.mean


def _plusplus(data: _Data, k: int, restarts: int, random: np.random.RandomState) -> np.ndarray:
    """(restarts, k, D) first centres: k-means++ (Arthur 2007), the best of some trials for every centre.

    Random numbers are drawn as one restart after the other would, and used by all of them side by side.
    """
    n, trials = len(data.x), 2 + int(np.log(k))
    even = np.cumsum(np.full(n, 1.0) / n)
    even /= even[-1]
    first, draws = np.empty(restarts, int), np.empty((restarts, k - 1, trials))
    for r in range(restarts):
        first[r] = np.searchsorted(even, random.random_sample(), side="right")
        draws[r] = random.uniform(size=(k - 1, trials))
    runs, picks = np.arange(restarts), np.empty((restarts, k), int)
    picks[:, 0] = first
    closest = np.maximum(_distance2(data, first, slice(None)), 0)
    start = potential = closest.sum(1)
    tried, cumulated = np.empty((restarts, trials, n)), np.empty((restarts, n))
    sums = np.empty((len(data.blocks), restarts, trials))
    for c in range(1, k):
        wanted = draws[:, c - 1] * potential[:, None]
        np.cumsum(closest, 1, out=cumulated)
        rows = np.array([np.searchsorted(row, value) for row, value in zip(cumulated, wanted, strict=True)])
        rows = np.minimum(rows, n - 1)

        def with_trials(block: slice, rows: np.ndarray = rows) -> None:
            here = tried[:, :, block]
            np.minimum(_distance2(data, rows.ravel(), block).reshape(here.shape), closest[:, None, block], out=here)
            sums[block.start // ROWS_AT_ONCE] = here.sum(2)

        data.each(with_trials)
        total = sums.sum(0)
        best = total.argmin(1)
        picks[:, c] = rows[runs, best]
        # Of two rows that are near each other only, either leaves the same sum: the last digit decides.
        others = rows != picks[:, c, None]
        if (others & (total - total.min(1, keepdims=True) <= TIE * start[:, None])).any():
            raise _UndecidedError
        np.maximum(tried[runs, best], 0, out=closest)
        potential = total[runs, best]
    return data.x[picks]


def _distance2(data: _Data, centers: np.ndarray, rows: slice) -> np.ndarray:
    """(m, n) squared distances of the rows that are centres to others; not clipped at 0."""
    distance2 = (-2 * data.x[centers]) @ data.x[rows].T
    distance2 += data.norm2[centers, None]
    distance2 += data.norm2[rows]
    return distance2


def _as_library(features: np.ndarray, k: int, seed: int, restarts: int, max_iter: int, tol: float) -> KMeans:
    """scikit-learn's own, with no more clusters than there are distinct rows: it would warn, and find no more."""
    distinct = len(np.unique(features, axis=0))
    return KMeans(min(k, distinct), random_state=seed, n_init=restarts, max_iter=max_iter, tol=tol).fit(features)


class _Lloyd(ABC):
    """Lloyd's iterations of some restarts, side by side.

    Attributes:
        centers: (R, k, D).
        labels: (R, n) int32, -1 before the first look.
        made_of: (R, n) int32, the labels whose means the centres are: one step behind where no more was needed.
        sums, counts: (R, k, D) and (R, k), of the members by ``labels``.
    """

    def __init__(self, data: _Data, centers: np.ndarray) -> None:
        self.data, self.centers = data, centers
        num_runs, self.k, _ = centers.shape
        self.labels = np.full((num_runs, len(data.x)), -1, np.int32)
        self.made_of = self.labels.copy()
        self.sums, self.counts = np.zeros(centers.shape), np.zeros(centers.shape[:2])

    @abstractmethod
    def look(self, runs: np.ndarray) -> np.ndarray:
        """Label the rows, and keep sums and counts; how many rows changed sides in every run, (len(runs),)."""

    @abstractmethod
    def moved(self, runs: np.ndarray, step: np.ndarray) -> None:
        """The centres of ``runs`` have just gone (len(runs), k) far."""

    def iterate(self, max_iter: int, tolerance: float) -> None:
        """Until nothing moves, or centres move less than ``tolerance``."""
        active = np.arange(len(self.centers))
        for _ in range(max_iter):
            changes = self.look(active)
            counts = self.counts[active]
            if (counts == 0).any():
                raise _UndecidedError
            new = self.sums[active] / counts[..., None]
            step2 = ((new - self.centers[active]) ** 2).sum(2)
            self.centers[active] = new
            self.moved(active, np.sqrt(step2))
            done = (changes > 0) & (step2.sum(1) <= tolerance)
            self.made_of[active] = self.labels[active]
            if done.any():  # near enough; but the labels are still those of the centres before
                self.look(active[done])
            active = active[(changes > 0) & ~done]
            if len(active) == 0:
                return
        self.look(active)

    def best(self) -> tuple[int, float]:
        """The run of least inertia, as scikit-learn finds it, and its inertia."""
        # Sum |x - c|^2 over the members of c is sum |x|^2 - 2 c.sum x + n |c|^2, whatever c is.
        total = float(self.data.norm2.sum())
        parts = self.counts * (self.centers**2).sum(2) - 2 * (self.centers * self.sums).sum(2)
        inertia = total + parts.sum(1)
        best = 0
        for run in range(1, len(inertia)):
            less = inertia[best] - inertia[run]
            if abs(less) <= ALIKE * total:
                less = self._by_rows(best) - self._by_rows(run)
            if less > 0 and not _same_clustering(self.labels[run], self.labels[best], self.k):
                best = run
        return best, max(float(inertia[best]), 0.0)

    def _by_rows(self, run: int) -> float:
        """Inertia, summed row by row."""
        centers, labels = self.centers[run], self.labels[run]
        return sum(float(((self.data.x[rows] - centers[labels[rows]]) ** 2).sum()) for rows in self.data.blocks)

    def settle(
        self, runs: np.ndarray, rows: np.ndarray, score: np.ndarray, found: np.ndarray, slack: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Who is nearest, for certain.

        Args:
            runs, rows: numbers, (R',) and (m,).
            score: (R', k, m) in single precision, used up.
            found: (R', m), the labels of before, or any; put right.
            slack: (m,) what the difference of two scores may be off by.

        Returns:
            Scores of the nearest centre and of the second nearest, each (R', m) float32.
        """
        at = (np.arange(len(runs))[:, None] * self.k + found) * len(rows) + np.arange(len(rows))
        flat = score.reshape(-1)
        best = flat.take(at)
        flat[at] = -np.inf
        second = score.max(1)
        # Where no other centre comes near, the row stays. Of the others, those that are not sure are looked at in
        # double precision.
        run, place = np.nonzero(second >= best - slack)
        if len(run):
            column, each = score[run, :, place], np.arange(len(run))
            column[each, found[run, place]] = best[run, place]
            label = column.argmax(1)
            first = column[each, label]
            column[each, label] = -np.inf
            after = column.max(1)
            near = np.flatnonzero(first - after <= slack[place])
            if len(near):
                label[near], first[near], after[near] = self.decide(runs[run[near]], rows[place[near]])
            found[run, place], best[run, place], second[run, place] = label, first, after
        return best, second

    def decide(self, run: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of pairs of a run and a row the nearest centre, its score and that of the second nearest, all (m,)."""
        half = 0.5 * np.einsum("rkd,rkd->rk", self.centers, self.centers)[run]
        score = np.empty((len(run), self.k))
        edges = [0, *(np.flatnonzero(np.diff(run)) + 1), len(run)]  # pairs come run by run
        for start, stop in pairwise(edges):
            np.matmul(self.data.x[row[start:stop]], self.centers[run[start]].T, out=score[start:stop])
        score -= half
        second, best = np.partition(score, self.k - 2, axis=1)[:, -2:].T
        if (best - second <= TIE * (np.abs(best) + half.max(1) + self.data.norm2[row])).any():
            raise _UndecidedError
        return score.argmax(1), best, second

    def move(self, run: np.ndarray, row: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Rows leave the sums of one cluster and join those of another; how many did in every run, (R,)."""
        old, number = self.labels[run, row], self.counts.size
        left = np.flatnonzero(old >= 0)
        cluster = np.concatenate([run * self.k + new, (run * self.k + old)[left]])
        column, sign = np.concatenate([row, row[left]]), np.repeat([1.0, -1.0], [len(run), len(left)])
        order = np.argsort(cluster.astype(np.int16 if number < 2**15 else np.int64), kind="stable")
        edges = np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=number))])
        table = csr_matrix((sign[order], column[order], edges), shape=(number, len(self.data.x)))
        self.sums += (table @ self.data.x).reshape(self.sums.shape)
        self.counts += np.bincount(cluster, weights=sign, minlength=number).reshape(self.counts.shape)
        self.labels[run, row] = new
        return np.bincount(run, minlength=len(self.labels))

    def slack(self, runs: np.ndarray) -> np.ndarray:
        """See ``_Data.slack``."""
        return self.data.slack(float((self.centers[runs] ** 2).sum(2).max()))


def _for_scores(centers: np.ndarray) -> np.ndarray:
    """(m, D) centres -> (m, D + 1) float32: c and -|c|^2 / 2."""
    return np.column_stack([centers, -0.5 * np.einsum("ij,ij->i", centers, centers)]).astype(np.float32)


class _HeldScores(_Lloyd):
    """For small problems: scores are kept, and only those of centres that have moved are taken anew."""

    def __init__(self, data: _Data, centers: np.ndarray) -> None:
        super().__init__(data, centers)
        self._score = np.empty((centers.shape[0] * self.k, len(data.x)), np.float32)
        self._copy = np.empty((centers.shape[0], self.k, len(data.x)), np.float32)
        self._is_old = np.ones(centers.shape[:2], bool)
        self._rows = np.arange(len(data.x))

    def moved(self, runs: np.ndarray, step: np.ndarray) -> None:
        self._is_old[runs] |= step > 0

    def look(self, runs: np.ndarray) -> np.ndarray:
        self._renew(runs)
        score = self._copy[: len(runs)]
        np.take(self._score.reshape(self._copy.shape), runs, axis=0, out=score, mode="clip")
        labels = self.labels[runs]
        found = _nearest(score) if labels[0, 0] < 0 else labels.copy()
        self.settle(runs, self._rows, score, found, self.slack(runs))
        run, row = np.nonzero(found != labels)
        return self.move(runs[run], row, found[run, row])[runs]

    def _renew(self, runs: np.ndarray) -> None:
        """Scores of the centres that have moved."""
        is_old = self._is_old[runs]
        centers = _for_scores(self.centers[runs][is_old])
        if len(centers) == len(self._score):
            np.matmul(centers, self.data.x32.T, out=self._score)
        else:
            self._score[(runs[:, None] * self.k + np.arange(self.k))[is_old]] = centers @ self.data.x32.T
        self._is_old[runs] = False


class _Margins(_Lloyd):
    """For large problems: a row is left alone for as long as its margin lasts (Hamerly 2010).

    Attributes:
        margin: (R, n) how much nearer the own centre is than any other, at least; where it is used up, a row is due.
    """

    def __init__(self, data: _Data, centers: np.ndarray) -> None:
        super().__init__(data, centers)
        self.margin = np.full(self.labels.shape, -np.inf)

    def moved(self, runs: np.ndarray, step: np.ndarray) -> None:
        # The own centre went away by no more than its step, any other came nearer by no more than the largest.
        for run, steps in zip(runs, step, strict=True):
            self.margin[run] -= (steps + steps.max()).take(self.labels[run])

    def look(self, runs: np.ndarray) -> np.ndarray:
        centers, slack = _for_scores(self.centers[runs].reshape(len(runs) * self.k, -1)), self.slack(runs)
        due = np.flatnonzero((self.margin[runs] <= 0).any(0))
        labels = self.labels[runs][:, due]
        found = labels.copy()

        def work(part: slice) -> None:
            rows = due[part]
            score = (centers @ self.data.x32.take(rows, 0).T).reshape(len(runs), self.k, len(rows))
            here = _nearest(score) if self.labels[runs[0], 0] < 0 else found[:, part]
            norm2, error = self.data.norm2[rows], slack[rows]
            best, second = self.settle(runs, rows, score, here, error)
            near = np.sqrt(np.maximum(norm2 - 2 * (best - error), 0))
            far = np.sqrt(np.maximum(norm2 - 2 * (second + error), 0))
            self.margin[runs[:, None], rows] = far - near
            found[:, part] = here

        self.data.each(work, len(due))
        run, place = np.nonzero(found != labels)
        return self.move(runs[run], due[place], found[run, place])[runs]


def _nearest(score: np.ndarray) -> np.ndarray:
    """Of (R, k, n) scores the number of the best, (R, n) int32: as many steps as centres, long ones."""
    found, best = np.zeros((score.shape[0], score.shape[2]), np.int32), score[:, 0].copy()
    for j in range(1, score.shape[1]):
        np.copyto(found, np.int32(j), where=score[:, j] > best)
        np.maximum(best, score[:, j], out=best)
    return found


def _same_clustering(one: np.ndarray, other: np.ndarray, k: int) -> bool:
    """Whether two labellings differ in their numbers only."""
    pairs = np.unique(one.astype(np.int64) * k + other)
    return len(pairs) == len(np.unique(pairs // k)) == len(np.unique(pairs % k))


def quick(
    features: np.ndarray,
    num_clusters: int,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    executor: Executor | None = None,
) -> Solution:
    """k-means of any number of rows in memory: centres on a share of them, then one step with all.

    Args:
        features: (n, D) float, n >= 1; single precision is enough.
        num_clusters: centres wanted, at most n; a centre that no row is nearest to stays without rows.
        weights: (n,) float >= 0, what each row counts; not all 0.
        executor: threads for the step with all.
    """
    x = np.asarray(features, np.float32)
    return quick_by_blocks(x.__getitem__, len(x), len(x), num_clusters, seed=seed, weights=weights, executor=executor)


def quick_by_blocks(
    read: Callable[[Any], np.ndarray],
    num_rows: int,
    rows_per_block: int,
    num_clusters: int,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    executor: Executor | None = None,
) -> Solution:
    """``quick`` for rows that are read when they are needed.

    Args:
        read: features of a slice of the rows, or of an ascending array of row numbers.
        num_rows: n.
        rows_per_block: rows that are read at once.
        num_clusters, seed, weights, executor: see ``quick``.

    Returns:
        Labels of all n rows, (k, D) float32 centres, and the inertia in single precision.
    """
    rng = np.random.default_rng(seed)
    weight = np.ones(num_rows, np.float32) if weights is None else weights.astype(np.float32)
    wanted = rows_wanted(num_clusters)
    is_share = num_rows > wanted
    share = np.sort(rng.choice(num_rows, wanted, replace=False)) if is_share else slice(0, num_rows)
    few = np.asarray(read(share), np.float32)
    middle = few.mean(0, dtype=float).astype(np.float32)
    few = few - middle  # products of what is far from the origin lose their digits; and what was read is not ours
    own = weight[share] if weight[share].any() else np.ones(len(few), np.float32)
    norm2 = np.einsum("ij,ij->i", few, few)
    # Where it costs next to nothing, the best of some: in few dimensions one start differs much from another.
    starts = RESTARTS if few.size <= SMALL_VALUES else 1
    runs = [_refined(few, norm2, own, _seeds(few, norm2, own, num_clusters, rng), executor) for _ in range(starts)]
    found = min(runs, key=lambda run: run.inertia)
    centers = found.centers
    if not is_share:
        return Solution(found.labels, centers + middle, found.inertia)
    blocks = [slice(s, min(s + rows_per_block, num_rows)) for s in range(0, num_rows, rows_per_block)]
    # One step of Lloyd's with everybody takes away most of what the share is off by.
    sums, total = np.zeros(centers.shape), np.zeros((num_clusters, 1))
    for block in blocks:
        x = read(block) - middle
        _add_up(x, nearest(x, centers, executor)[0], weight[block], sums, total)
    centers = np.where(total > 0, sums / np.maximum(total, 1e-30), centers).astype(np.float32)
    labels, inertia = np.empty(num_rows, np.int32), 0.0
    for block in blocks:
        labels[block], distance2 = nearest(read(block) - middle, centers, executor)
        inertia += float(weight[block] @ distance2)
    return Solution(labels, centers + middle, inertia)


def rows_wanted(num_clusters: int) -> int:
    """Rows of the share on which so many centres are found."""
    return min(ROWS_PER_CENTER * num_clusters, max(SHARE_ROWS, FEWEST_PER_CENTER * num_clusters))


def _refined(
    x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, centers: np.ndarray, executor: Executor | None
) -> Solution:
    """Lloyd's iterations for as long as they win something."""
    least = np.inf
    for _ in range(MANY_ITERATIONS):
        labels, distance2 = nearest(x, centers, executor, norm2)
        inertia = float(weight @ distance2)
        if inertia > (1 - LITTLE) * least:
            break
        least, previous = inertia, centers
        centers = _means(x, labels, weight, centers)
    else:
        centers = previous
    return Solution(labels, centers, inertia)


def _seeds(x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ with the best of some trials for every centre, (k, D) float32.

    Where centres are few, each decides much: more trials then do what restarts would, for less (LOG.md).
    """
    trials = max(2 + int(np.log(k)), min(12, 120 // k))
    chosen = [int(rng.choice(len(x), p=weight / weight.sum(dtype=float)))]
    closest = np.maximum(norm2 - 2 * (x @ x[chosen[0]]) + norm2[chosen[0]], 0)
    for _ in range(1, k):
        cumulated = np.cumsum(weight * closest, dtype=float)
        picks = np.minimum(np.searchsorted(cumulated, rng.random(trials) * cumulated[-1]), len(x) - 1)
        distance2 = x[picks] @ x.T
        distance2 *= -2
        distance2 += norm2
        distance2 += norm2[picks, None]
        np.clip(distance2, 0, closest, out=distance2)
        best = int((distance2 @ weight).argmin())
        chosen.append(int(picks[best]))
        closest = distance2[best]
    return x[chosen]


def _means(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Weighted mean of the rows of every centre; a centre without rows stays where it is."""
    sums, total = np.zeros_like(centers), np.zeros((len(centers), 1), np.float32)
    _add_up(x, labels, weight, sums, total)
    return np.where(total > 0, sums / np.maximum(total, 1e-30), centers).astype(np.float32)


def _add_up(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, sums: np.ndarray, total: np.ndarray) -> None:
    """Add weighted rows to the (k, D) sums of their centres, and weights to the (k, 1) totals."""
    if x.shape[1] < len(sums):  # column by column; with many columns and few centres a product is faster
        for column in range(x.shape[1]):
            sums[:, column] += np.bincount(labels, weights=weight * x[:, column], minlength=len(sums))
        total[:, 0] += np.bincount(labels, weights=weight, minlength=len(sums))
        return
    names = np.arange(len(sums))[:, None]
    for start in range(0, len(x), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        table = (labels[block] == names) * weight[block]
        sums += table @ x[block]
        total += table.sum(1, keepdims=True)


def nearest(
    x: np.ndarray, centers: np.ndarray, executor: Executor | None = None, norm2: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of (k, D) centres to every row, (n,) int32, and the squared distance to it, (n,) float32.

    By |x|^2 - 2 x.c + |c|^2 in single precision: small distances lose digits in it, and so does all that lies far from
    the origin, so bring the rows near it first. ``norm2``: (n,) |x|^2, where they are known.
    """
    x, centers = np.asarray(x, np.float32), np.asarray(centers, np.float32)
    half = 0.5 * np.einsum("ij,ij->i", centers, centers)
    labels, distance2 = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // len(centers)))

    def work(start: int) -> None:
        rows = x[start : start + step]
        block = slice(start, start + len(rows))
        score = rows @ centers.T
        score -= half
        labels[block] = score.argmax(1)
        best = score[np.arange(len(rows)), labels[block]]
        length2 = np.einsum("ij,ij->i", rows, rows) if norm2 is None else norm2[block]
        distance2[block] = np.maximum(length2 - 2 * best, 0)

    starts = range(0, len(x), step)
    if executor is None:
        for start in starts:
            work(start)
    else:
        list(executor.map(work, starts))
    return labels, distance2
