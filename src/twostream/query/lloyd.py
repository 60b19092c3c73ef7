"""k-means on arrays in memory: ``kmeans`` as scikit-learn does it, only faster, and ``quick``, nearly as good.

``kmeans`` (k-means++ with local trials, Lloyd, the best of several restarts): the same seed gives the clusters that
``sklearn.cluster.KMeans`` gives for float64 input. The same random numbers are drawn in the same order and the same
rules end the iterations; where a last digit would decide, scikit-learn itself is asked. Three things save time. All
restarts go through one matrix product. Products are taken in single precision; only where the two nearest centres
differ by less than such a product can err is the row looked at in double precision. And a row whose margin between its
nearest and second nearest centre is larger than what the centres have moved since is left alone (Hamerly 2010).

``quick`` finds centres on a random share of the rows, as faiss does, in single precision, and stops when little is won.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
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
FEW_CENTERS = 16
"""Up to here, centres are compared one after the other for all rows; above, row by row."""
ROWS_PER_CENTER, FEWEST_PER_CENTER, SHARE_ROWS = 256, 40, 2**16
"""Rows of the share for every centre; fewer, but so many at least, where the share would be larger than this."""
MANY_ITERATIONS = 100
RESTARTS, SMALL_VALUES = 4, 2**16
"""Starts of a quick k-means on a share that holds no more numbers than this."""
LITTLE = 5e-4
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
        x, x32: (n, D) float64 and float32.
        norm2: (n,) squared length.
        length: (n,) length, for the error of a product.
        blocks: slices of the rows.
    """

    def __init__(self, features: np.ndarray, executor: Executor | None) -> None:
        self.mean = features.mean(0)
        self.x = np.asarray(features, np.float64) - self.mean
        self.x32 = self.x.astype(np.float32)
        self.norm2 = np.einsum("ij,ij->i", self.x, self.x)
        self.length = np.sqrt(self.norm2)
        self._executor = executor
        self.blocks = [slice(s, min(s + ROWS_AT_ONCE, len(self.x))) for s in range(0, len(self.x), ROWS_AT_ONCE)]

    def each(self, work: Callable[[slice], None]) -> None:
        """``work`` on every block, in threads where there is an executor and more than one block."""
        if self._executor is None or len(self.blocks) == 1:
            for block in self.blocks:
                work(block)
        else:
            list(self._executor.map(work, self.blocks))


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
    tolerance = float(np.mean(data.x.var(0)) * tol)
    try:
        lloyd = _Lloyd(data, _plusplus(data, num_clusters, restarts, np.random.RandomState(seed)))
        lloyd.iterate(max_iter, tolerance)
    except _UndecidedError:
        model = _as_library(features, num_clusters, seed, restarts, max_iter, tol)
        return Solution(model.labels_, model.cluster_centers_, float(model.inertia_))
    centers, labels = lloyd.centers, lloyd.labels
    best, least = 0, np.inf
    for i in range(restarts):
        inertia = _inertia(data, centers[i], labels[i])
        if inertia < least and not (i and _same_clustering(labels[i], labels[best], num_clusters)):
            best, least = i, inertia
    return Solution(labels[best], _final_centers(features, lloyd.made_of[best], num_clusters), least)


def _final_centers(features: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Means in the precision of the features and about their mean, as scikit-learn has them.

    Of a cluster of two, both are as near to the centre: its last digit says which one the script picked.
    """
    mean = features.mean(0)
    table = csr_matrix((np.ones(len(labels), features.dtype), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
    sums = table @ (features - mean)
    return sums * (1 / np.bincount(labels, minlength=k)).astype(features.dtype)[:, None] + mean


def _plusplus(data: _Data, k: int, restarts: int, random: np.random.RandomState) -> np.ndarray:
    """(restarts, k, D) first centres: k-means++ (Arthur 2007), the best of some trials for every centre.

    Random numbers are drawn as one restart after the other would, and used by all of them side by side.
    """
    n, trials = len(data.x), 2 + int(np.log(k))
    cumulated = np.cumsum(np.full(n, 1.0) / n)
    cumulated /= cumulated[-1]
    first, draws = np.empty(restarts, int), np.empty((restarts, k - 1, trials))
    for r in range(restarts):
        first[r] = np.searchsorted(cumulated, random.random_sample(), side="right")
        draws[r] = random.uniform(size=(k - 1, trials))
    centers = np.empty((restarts, k, data.x.shape[1]))
    centers[:, 0] = data.x[first]
    closest = np.empty((restarts, n))
    tried = np.empty((restarts, trials, n))
    sums = np.empty((len(data.blocks), restarts, trials))

    def from_first(block: slice) -> None:
        d = data.x[block] @ centers[:, 0].T
        d *= -2
        d += data.norm2[block, None] + data.norm2[first]
        closest[:, block] = np.maximum(d, 0).T

    data.each(from_first)
    potential = closest.sum(1)
    for c in range(1, k):
        picks = np.empty((restarts, trials), int)
        for r in range(restarts):
            picks[r] = np.searchsorted(np.cumsum(closest[r]), draws[r, c - 1] * potential[r])
        picks = np.minimum(picks, n - 1)
        candidates, lengths = data.x[picks.ravel()], data.norm2[picks.ravel()]

        def with_trials(block: slice, candidates: np.ndarray = candidates, lengths: np.ndarray = lengths) -> None:
            d = candidates @ data.x[block].T
            d *= -2
            d += lengths[:, None]
            d += data.norm2[block]
            np.maximum(d, 0, out=d)
            here = d.reshape(restarts, trials, -1)
            np.minimum(here, closest[:, None, block], out=here)
            tried[:, :, block] = here
            sums[block.start // ROWS_AT_ONCE] = here.sum(2)

        data.each(with_trials)
        total = sums.sum(0)
        best = total.argmin(1)
        # Of two rows that are near each other only, either leaves the same sum: the last digit decides.
        runs = np.arange(restarts)
        others = picks != picks[runs, best][:, None]
        if (others & (total <= total.min(1, keepdims=True) * (1 + TIE))).any():
            raise _UndecidedError
        potential = total[runs, best]
        closest[:] = tried[runs, best]
        centers[:, c] = data.x[picks[runs, best]]
    return centers


def _as_library(features: np.ndarray, k: int, seed: int, restarts: int, max_iter: int, tol: float) -> KMeans:
    """scikit-learn's own, with no more clusters than there are distinct rows: it would warn, and find no more."""
    distinct = len(np.unique(features, axis=0))
    return KMeans(min(k, distinct), random_state=seed, n_init=restarts, max_iter=max_iter, tol=tol).fit(features)


class _Lloyd:
    """Lloyd's iterations of some restarts, side by side.

    Attributes:
        centers: (R, k, D).
        labels: (R, n) int32, -1 before the first look.
        made_of: (R, n) int32, the labels whose means the centres are: one step behind where no more was needed.
        margin: (R, n) how much nearer the own centre is than any other, at least; where it is used up, a row is due.
    """

    def __init__(self, data: _Data, centers: np.ndarray) -> None:
        self.data, self.centers = data, centers
        num_runs, self.k, _ = centers.shape
        self.labels = np.full((num_runs, len(data.x)), -1, np.int32)
        self.made_of = self.labels.copy()
        self.margin = np.full(self.labels.shape, -np.inf)
        self._sums = np.zeros((len(data.blocks), *centers.shape))
        self._counts = np.zeros((len(data.blocks), num_runs, self.k))

    def iterate(self, max_iter: int, tolerance: float) -> None:
        """Until nothing moves, or centres move less than ``tolerance``."""
        active = np.arange(len(self.centers))
        for _ in range(max_iter):
            changes = self.look(active)
            counts = self._counts.sum(0)[active]
            if (counts == 0).any():
                raise _UndecidedError
            new = self._sums.sum(0)[active] / counts[..., None]
            step = np.sqrt(((new - self.centers[active]) ** 2).sum(2))
            self.centers[active] = new
            # The own centre went away by no more than its step, any other came nearer by no more than the largest.
            for run, steps in zip(active, step, strict=True):
                self.margin[run] -= steps[self.labels[run]] + steps.max()
            done = (changes > 0) & ((step**2).sum(1) <= tolerance)
            self.made_of[active] = self.labels[active]
            if done.any():  # near enough; but the labels are still those of the centres before
                self.look(active[done])
            active = active[(changes > 0) & ~done]
            if len(active) == 0:
                return
        self.look(active)

    def look(self, runs: np.ndarray) -> np.ndarray:
        """Label the rows that are due; how many changed sides in every run, (len(runs),)."""
        flat = self.centers[runs].reshape(len(runs) * self.k, -1)
        half = 0.5 * (flat**2).sum(1)
        flat32, half32 = flat.astype(np.float32), half.astype(np.float32)
        # What x.c - |c|^2 / 2 in single precision may be off by, per unit of 1 + |x|; twice, since two are compared.
        unit = np.finfo(np.float32).eps * (flat.shape[1] + 4)
        slack = 2 * unit * max(float(np.sqrt(2 * half.max())), float(half.max()))
        changes = np.zeros((len(self.data.blocks), len(runs)), int)

        def work(block: slice) -> None:
            due = np.flatnonzero((self.margin[runs, block] <= 0).any(0)) + block.start
            if len(due) == 0:
                return
            features = self.data.x32[block] if len(due) == block.stop - block.start else self.data.x32[due]
            norm2, error = self.data.norm2[due], slack * (1 + self.data.length[due])
            if self.k <= FEW_CENTERS:
                score = flat32 @ features.T
                score -= half32[:, None]
                found, best, second = _two_best_of_few(score.reshape(len(runs), self.k, len(due)))
            else:
                score = features @ flat32.T
                score -= half32
                found, best, second = _two_best_of_many(score.reshape(len(due), len(runs), self.k))
            for run, i in zip(*np.nonzero(best - second <= error), strict=True):
                part = slice(run * self.k, (run + 1) * self.k)
                exact = flat[part] @ self.data.x[due[i]] - half[part]
                found[run, i] = exact.argmax()
                level = abs(exact[found[run, i]]) + half[part].max() + norm2[i]
                if self.k > 1 and np.ptp(np.partition(exact, -2)[-2:]) <= TIE * level:
                    raise _UndecidedError
            near = np.sqrt(np.maximum(norm2 - 2 * best + 2 * error, 0))
            far = np.sqrt(np.maximum(norm2 - 2 * second - 2 * error, 0))
            self.margin[runs[:, None], due] = far - near
            changes[block.start // ROWS_AT_ONCE] = self._move(runs, due, found, block)

        self.data.each(work)
        return changes.sum(0)

    def _move(self, runs: np.ndarray, rows: np.ndarray, found: np.ndarray, block: slice) -> np.ndarray:
        """Rows of a block leave the sums of one cluster and join those of another; how many did in every run."""
        before = self.labels[runs[:, None], rows]
        run, i = np.nonzero(found != before)
        joins = runs[run] * self.k + found[run, i]
        old = before[run, i]
        left = old >= 0
        leaves = (runs[run] * self.k + old)[left]
        place = rows[i] - block.start
        cluster, where = np.concatenate([joins, leaves]), np.concatenate([place, place[left]])
        sign = np.concatenate([np.ones(len(joins)), -np.ones(len(leaves))])
        index, number = block.start // ROWS_AT_ONCE, self._counts[0].size
        change = csr_matrix((sign, (cluster, where)), shape=(number, block.stop - block.start))
        self._sums[index] += (change @ self.data.x[block]).reshape(self.centers.shape)
        self._counts[index] += np.bincount(cluster, weights=sign, minlength=number).reshape(self._counts[index].shape)
        self.labels[runs[:, None], rows] = found
        return np.bincount(run, minlength=len(runs))


def _two_best_of_few(score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (R, k, n) scores the index of the best, the best and the second best, each (R, n)."""
    found = np.zeros((score.shape[0], score.shape[2]), np.int32)
    best, second = score[:, 0].copy(), np.full_like(score[:, 0], -np.inf)
    for j in range(1, score.shape[1]):
        here = score[:, j]
        better = here > best
        np.maximum(second, np.minimum(best, here), out=second)
        np.maximum(best, here, out=best)
        found[better] = j
    return found, best, second


def _two_best_of_many(score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``_two_best_of_few`` for (n, R, k) scores, which it uses up."""
    found = score.argmax(2)[..., None]
    best = np.take_along_axis(score, found, 2)
    np.put_along_axis(score, found, -np.inf, 2)
    return found[..., 0].T.astype(np.int32), best[..., 0].T, score.max(2).T


def _inertia(data: _Data, centers: np.ndarray, labels: np.ndarray) -> float:
    parts: Sequence[float] = [float(((data.x[block] - centers[labels[block]]) ** 2).sum()) for block in data.blocks]
    return float(np.sum(parts))


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
    few = np.array(read(share), np.float32)
    middle = few.mean(0, dtype=float).astype(np.float32)  # products of what is far from the origin lose their digits
    few -= middle
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
    trials = max(2 + int(np.log(k)), min(20, 200 // k))
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
