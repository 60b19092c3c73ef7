"""k-means as scikit-learn does it, only faster (``quick`` is the one that is nearly as good, for less).

k-means++ with local trials, Lloyd, the best of several restarts: the same seed gives the clusters that
``sklearn.cluster.KMeans`` gives for float64 input. The same random numbers are drawn in the same order and the same
rules end the iterations; where a last digit would decide, scikit-learn itself is asked. Three things save time.
Restarts, and small problems, go side by side: a few long steps instead of many short ones, for which threads would
queue. Products are taken in single precision; only where the two nearest centres differ by less than such a product can
err is the row looked at in double precision. And little is done twice: a small problem keeps its scores and takes anew
those of centres that have moved; of a large one, a row whose margin between its nearest and second nearest centre is
larger than what the centres have moved since is left alone (Hamerly 2010).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

ROWS_AT_ONCE = 8192
"""Rows of a block: their products with all centres stay in the cache."""
TIE = 1e-12
"""Relative difference that may be nothing but rounding."""
HELD_SCORES = 2**23
"""Scores of rows and centres, of all restarts, that are kept from one iteration to the next: 32 MB."""
ALIKE = 1e-9
"""Relative difference of two inertias below which they are summed up row by row."""


@dataclass(frozen=True)
class Solution:
    """What k-means found.

    Attributes:
        labels: (n,) int32.
        centers: (k, D) float.
        inertia: sum of squared distances to the own centre, each times its weight.
        distance2: (n,) float32 squared distances to the own centre where they were come by; small ones are rough.
    """

    labels: np.ndarray
    centers: np.ndarray
    inertia: float
    distance2: np.ndarray | None = None


class _UndecidedError(Exception):
    """A tie, or a cluster that runs empty: what becomes of it is scikit-learn's affair, to the last digit."""


class _Data:
    """Features of some problems, one below the other, each about its own mean, in double and single precision.

    Attributes:
        rows: P slices, of every problem.
        means: P of (D,).
        x: (N, D + 2) float64, with a column of ones and one of squared lengths: the product with (-2c, |c|^2, 1) is the
            squared distance to a centre c, that with (c, -|c|^2 / 2, 0) its score, and a sum of rows counts them.
        x32: (N, D + 1) float32, the same without squared lengths.
        reach: (N,) 1 + length, what the error of a product grows with.
    """

    def __init__(self, problems: Sequence[np.ndarray], executor: Executor | None) -> None:
        edges = np.cumsum([0, *map(len, problems)]).tolist()
        self.rows = [slice(start, stop) for start, stop in pairwise(edges)]
        self.means = [features.mean(0) for features in problems]
        self.x = np.empty((edges[-1], problems[0].shape[1] + 2))
        for rows, features, mean in zip(self.rows, problems, self.means, strict=True):
            np.subtract(features, mean, out=self.x[rows, :-2], dtype=np.float64)
        self.x[:, -2] = 1
        np.einsum("ij,ij->i", self.x[:, :-2], self.x[:, :-2], out=self.x[:, -1])
        self.x32 = self.x[:, :-1].astype(np.float32)
        self.reach = 1 + np.sqrt(self.x[:, -1])
        self._executor = executor

    def each(self, work: Callable[[slice], None], number: int) -> None:
        """``work`` on every block of ``number`` things, in threads where there is an executor."""
        blocks = _slices(number)
        if self._executor is None or len(blocks) == 1:
            for block in blocks:
                work(block)
        else:
            list(self._executor.map(work, blocks))

    def error(self, length2: float) -> float:
        """What a difference of scores in single precision may be off by, of centres no longer; times ``reach``."""
        unit = np.finfo(np.float32).eps * (self.x.shape[1] + 2)
        return float(2 * unit * max(np.sqrt(length2), 0.5 * length2))


def _slices(number: int) -> list[slice]:
    return [slice(s, min(s + ROWS_AT_ONCE, number)) for s in range(0, number, ROWS_AT_ONCE)]


def kmeans(
    problems: Sequence[np.ndarray],
    num_clusters: int,
    *,
    seed: int,
    restarts: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    executor: Executor | None = None,
) -> list[Solution]:
    """``KMeans(num_clusters, random_state=seed, n_init=restarts, max_iter=max_iter, tol=tol).fit`` of every problem.

    Of fewer distinct rows than clusters it finds as many clusters as there are distinct rows.

    Args:
        problems: some of (n, D) float64 or float32, n >= num_clusters, of one D. Single precision is reckoned with in
            double precision, so that scikit-learn, which stays in it, may see a tie otherwise.
        executor: threads for the blocks of one large problem; None where problems are dealt to threads themselves.
    """
    data = _Data(problems, executor)
    centers = np.zeros((len(problems), restarts, num_clusters, data.x.shape[1] - 2))
    is_open, tolerance = np.zeros(len(problems), bool), np.zeros(len(problems))
    for i, rows in enumerate(data.rows):
        x = data.x[rows]
        tolerance[i] = x[:, -1].sum() / x[:, :-2].size * tol  # the mean variance of the columns, which are centred
        try:
            centers[i] = _plusplus(data, x, num_clusters, restarts, np.random.RandomState(seed))
        except _UndecidedError:
            is_open[i] = True
    is_small = len(data.x) * num_clusters * restarts <= HELD_SCORES
    lloyd = (_HeldScores if is_small else _Margins)(data, centers, is_open)
    lloyd.iterate(max_iter, tolerance)
    solutions = []
    for i, features in enumerate(problems):
        best = None if lloyd.is_open[i] else lloyd.best(i)
        if best is None:
            model = _as_library(features, num_clusters, seed, restarts, max_iter, tol)
            solutions.append(Solution(model.labels_, model.cluster_centers_, float(model.inertia_)))
        else:
            centers = _final_centers(features, data, i, best, num_clusters)
            solutions.append(Solution(best.labels, centers, best.inertia))
    return solutions


def _final_centers(features: np.ndarray, data: _Data, problem: int, best: _End, k: int) -> np.ndarray:
    """Means in the precision of the features and about their mean, as scikit-learn has them.

    Of a cluster of two, both are as near to the centre: its last digit says which one the script picked.
    """
    is_double = features.dtype == np.float64
    x = data.x[data.rows[problem]] if is_double else features - data.means[problem]
    table = csr_matrix((np.ones(len(x), x.dtype), (best.made_of, np.arange(len(x)))), shape=(k, len(x)))
    sums = (table @ x)[:, : features.shape[1]]
    return sums * (1 / np.bincount(best.made_of, minlength=k)).astype(x.dtype)[:, None] + data.means[problem]


def _plusplus(data: _Data, x: np.ndarray, k: int, restarts: int, random: np.random.RandomState) -> np.ndarray:
    """(restarts, k, D) first centres of a problem: k-means++ (Arthur 2007), the best of some trials for every centre.

    Random numbers are drawn as one restart after the other would, and used by all of them side by side.
    """
    n, trials = len(x), 2 + int(np.log(k))
    even = np.cumsum(np.full(n, 1.0) / n)
    even /= even[-1]
    first, draws = np.empty(restarts, int), np.empty((restarts, k - 1, trials))
    for r in range(restarts):
        first[r] = np.searchsorted(even, random.random_sample(), side="right")
        draws[r] = random.uniform(size=(k - 1, trials))
    runs, picks = np.arange(restarts), np.empty((restarts, k), int)
    picks[:, 0] = first
    closest = np.maximum(_for_distances(x[first]) @ x.T, 0)
    start = potential = closest.sum(1)
    tried, cumulated = np.empty((restarts, trials, n)), np.empty((restarts, n))
    sums = np.empty((len(_slices(n)), restarts, trials))
    for c in range(1, k):
        wanted = draws[:, c - 1] * potential[:, None]
        np.cumsum(closest, 1, out=cumulated)
        rows = np.array([np.searchsorted(row, value) for row, value in zip(cumulated, wanted, strict=True)])
        rows = np.minimum(rows, n - 1)
        left = _for_distances(x[rows.ravel()])

        def with_trials(block: slice, left: np.ndarray = left) -> None:
            np.matmul(left, x[block].T, out=tried.reshape(-1, n)[:, block])
            here = tried[:, :, block]
            np.minimum(here, closest[:, None, block], out=here)
            sums[block.start // ROWS_AT_ONCE] = here.sum(2)

        data.each(with_trials, n)
        total = sums.sum(0)
        best = total.argmin(1)
        picks[:, c] = rows[runs, best]
        # Of two rows that are near each other only, either leaves the same sum: the last digit decides.
        others = rows != picks[:, c, None]
        if (others & (total - total.min(1, keepdims=True) <= TIE * start[:, None])).any():
            raise _UndecidedError
        np.maximum(tried[runs, best], 0, out=closest)
        potential = total[runs, best]
    return x[picks][..., :-2]


def _for_distances(rows: np.ndarray) -> np.ndarray:
    """(m, D + 2) rows of ``_Data.x`` -> (-2c, |c|^2, 1)."""
    left = rows * -2.0
    left[:, -2], left[:, -1] = rows[:, -1], 1
    return left


def _as_library(features: np.ndarray, k: int, seed: int, restarts: int, max_iter: int, tol: float) -> KMeans:
    """scikit-learn's own, with no more clusters than there are distinct rows: it would warn, and find no more."""
    k = min(k, len(np.unique(features, axis=0)))
    # One thread: what a tie becomes must not hang on how many cores share the sums; and others work beside it.
    with threadpool_limits(1):
        return KMeans(k, random_state=seed, n_init=restarts, max_iter=max_iter, tol=tol).fit(features)


@dataclass(frozen=True)
class _End:
    """How a run ended.

    Attributes:
        number: of the run among those of all problems.
        labels: (n,) int32.
        made_of: (n,) int32, the labels whose means the centres are: one step behind where no more was needed.
        centers: (k, D).
        inertia: sum of squared distances.
    """

    number: int
    labels: np.ndarray
    made_of: np.ndarray
    centers: np.ndarray
    inertia: float


class _Lloyd(ABC):
    """Lloyd's iterations of some runs side by side: every restart of every problem is one, and leaves when it ends.

    A *place* is a row in one of the runs; the places of a run stand side by side, T in all.

    Attributes:
        is_open: (P,) problems that are left to scikit-learn; their runs leave.
        problem, number: (A,) of the runs.
        edges: (A + 1,) where the places of each run begin.
        run, row: (T,) int32 of the places.
        label: (T,) int32, -1 before the first look.
        centers: (A, k, D + 1): c and -|c|^2 / 2.
        sums: (A, k, D + 2), of the members by ``label``, as ``_Data.x`` has them.
    """

    def __init__(self, data: _Data, centers: np.ndarray, is_open: np.ndarray | None = None) -> None:
        """``centers``: (P, restarts, k, D)."""
        num_problems, restarts, self.k, width = centers.shape
        self.data = data
        self.is_open = np.zeros(num_problems, bool) if is_open is None else is_open
        self.problem = np.repeat(np.arange(num_problems), restarts)
        self.number = np.arange(len(self.problem))
        self.centers = _for_scores(centers.reshape(-1, self.k, width))
        self.sums = np.zeros((len(self.problem), self.k, width + 2))
        rows = [np.arange(part.start, part.stop, dtype=np.int32) for part in data.rows]
        self.row = np.concatenate([rows[problem] for problem in self.problem])
        self.label = np.full(len(self.row), -1, np.int32)
        self._ends: list[list[_End]] = [[] for _ in range(num_problems)]
        self._made_of: dict[int, np.ndarray] = {}
        self._lay_out()

    def _lay_out(self) -> None:
        sizes = np.array([part.stop - part.start for part in self.data.rows])[self.problem]
        self.edges = np.concatenate([[0], np.cumsum(sizes)])
        self.run = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    @abstractmethod
    def look(self) -> np.ndarray:
        """Label the places, and keep sums; how many changed sides in every run, (A,)."""

    @abstractmethod
    def moved(self, step: np.ndarray) -> None:
        """The centres have just gone (A, k) far."""

    def keep(self, runs: np.ndarray, places: np.ndarray) -> None:
        """Forget the other runs; (A,) and (T,) bool."""
        self.problem, self.number = self.problem[runs], self.number[runs]
        self.centers, self.sums = self.centers[runs], self.sums[runs]
        self.row, self.label = self.row[places], self.label[places]
        self._lay_out()

    def iterate(self, max_iter: int, tolerance: np.ndarray) -> None:
        """Until in every run nothing moves, or its centres move less than the (P,) ``tolerance`` of its problem."""
        self._leave(self.is_open[self.problem])
        is_last = np.zeros(len(self.problem), bool)
        for iteration in range(1, max_iter + 2):
            if len(self.problem) == 0:
                return
            changes = self.look()
            self.is_open[self.problem[(self.sums[..., -2] == 0).any(1)]] = True
            self._leave(is_last | (changes == 0) | self.is_open[self.problem])
            new = _for_scores(self.sums[..., :-2] / self.sums[..., -2:-1])
            step2 = ((new - self.centers)[..., :-1] ** 2).sum(2)
            self.centers = new
            self.moved(np.sqrt(step2))
            is_last = (step2.sum(1) <= tolerance[self.problem]) | (iteration == max_iter)
            for run in np.flatnonzero(is_last):  # the labels that come next are not those that made the centres
                self._made_of[self.number[run]] = self.label[self.edges[run] : self.edges[run + 1]].copy()

    def _leave(self, runs: np.ndarray) -> None:
        """These runs have ended."""
        if not runs.any():
            return
        # Sum |x - c|^2 over the members of c is sum |x|^2 - 2 c.sum x + n |c|^2, whatever c is.
        inertia = (self.sums[..., -1] - 2 * (self.centers * self.sums[..., :-1]).sum(2)).sum(1)
        for run in np.flatnonzero(runs):
            number, labels = int(self.number[run]), self.label[self.edges[run] : self.edges[run + 1]].copy()
            end = _End(number, labels, self._made_of.get(number, labels), self.centers[run, :, :-1], inertia[run])
            self._ends[self.problem[run]].append(end)
        self.keep(~runs, np.repeat(~runs, np.diff(self.edges)))

    def best(self, problem: int) -> _End | None:
        """The run of least inertia, as scikit-learn finds it; None where two are as good and not alike."""
        x = self.data.x[self.data.rows[problem]]
        ends = sorted(self._ends[problem], key=lambda end: end.number)
        total, best = float(x[:, -1].sum()), ends[0]
        for end in ends[1:]:
            less = best.inertia - end.inertia
            if abs(less) <= ALIKE * total:
                if _same_clustering(end.labels, best.labels, self.k):
                    continue
                less = _by_rows(x, best) - _by_rows(x, end)
                if abs(less) <= TIE * total:
                    return None
            if less > 0:
                best = end
        return replace(best, inertia=max(float(best.inertia), 0.0))

    def settle(
        self, score: np.ndarray, found: np.ndarray, places: np.ndarray, slack: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Who is nearest, for certain.

        Args:
            score: (k, m) in single precision.
            found: (m,), the labels of before, or any; put right.
            places: (m,) int.
            slack: (m,) what the difference of two scores may be off by.

        Returns:
            Scores of the nearest centre and of the second nearest, each (m,) float32.
        """
        flat, at = score.reshape(-1), found * np.int64(len(found)) + np.arange(len(found))
        best = flat[at]
        flat[at] = -np.inf
        second = score.max(0)
        flat[at] = best
        # Where no other centre comes near, the row stays. Of the others, those that are not sure are looked at in
        # double precision.
        some = np.flatnonzero(second >= best - slack)
        if len(some):
            column, each = score.take(some, 1), np.arange(len(some))
            label = column.argmax(0)
            first = column[label, each]
            column[label, each] = -np.inf
            after = column.max(0)
            near = np.flatnonzero(first - after <= slack[some])
            if len(near):
                label[near], first[near], after[near] = self.decide(places[some[near]])
            found[some], best[some], second[some] = label, first, after
        return best, second

    def decide(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of (m,) places, run by run: the nearest centre, its score and that of the second nearest, all (m,)."""
        run, row = self.run[places], self.row[places]
        score = np.empty((len(run), self.k))
        for start, stop in pairwise([0, *(np.flatnonzero(np.diff(run)) + 1), len(run)]):
            x = self.data.x.take(row[start:stop], 0)
            np.matmul(x[:, :-1], self.centers[run[start]].T, out=score[start:stop])
        label, each = score.argmax(1), np.arange(len(run))
        best = score[each, label]
        score[each, label] = -np.inf
        second = score.max(1) if self.k > 1 else best - np.inf
        size = np.abs(best) - self.centers[..., -1].min(1)[run] + self.data.x[row, -1]
        self.is_open[self.problem[run[best - second <= TIE * size]]] = True
        return label, best, second

    def move(self, places: np.ndarray, new: np.ndarray) -> np.ndarray:
        """These leave the sums of one cluster and join those of another; how many did in every run, (A,)."""
        run, row, old = self.run[places], self.row[places], self.label[places]
        number, left = len(self.problem) * self.k, np.flatnonzero(old >= 0)
        cluster = np.concatenate([run * self.k + new, (run * self.k + old)[left]])
        column, sign = np.concatenate([row, row[left]]), np.repeat([1.0, -1.0], [len(run), len(left)])
        order = np.argsort(cluster.astype(np.int16 if number < 2**15 else np.int64), kind="stable")
        edges = np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=number))])
        table = csr_matrix((sign[order], column[order], edges), shape=(number, len(self.data.x)))
        self.sums += (table @ self.data.x).reshape(self.sums.shape)
        self.label[places] = new
        return np.bincount(run, minlength=len(self.problem))

    def error(self) -> float:
        """See ``_Data.error``."""
        return self.data.error(float(-2 * self.centers[..., -1].min()))


def _for_scores(centers: np.ndarray) -> np.ndarray:
    """(..., D) centres -> (..., D + 1): c and -|c|^2 / 2, whose product with (x, 1) is the larger the nearer x is."""
    half = -0.5 * np.einsum("...d,...d->...", centers, centers)
    return np.concatenate([centers, half[..., None]], -1)


class _HeldScores(_Lloyd):
    """For small problems: scores are kept, and only those of centres that have moved are taken anew."""

    def __init__(self, data: _Data, centers: np.ndarray, is_open: np.ndarray | None = None) -> None:
        super().__init__(data, centers, is_open)
        self._score = np.empty((self.k, len(self.row)), np.float32)
        self._is_old = np.ones(self.centers.shape[:2], bool)
        self._reach = data.reach[self.row]

    def keep(self, runs: np.ndarray, places: np.ndarray) -> None:
        super().keep(runs, places)
        self._score, self._reach = self._score.compress(places, 1), self._reach[places]
        self._is_old = self._is_old[runs]

    def moved(self, step: np.ndarray) -> None:
        self._is_old |= step > 0

    def look(self) -> np.ndarray:
        self._renew()
        found = _nearest(self._score) if self.label[0] < 0 else self.label.copy()
        self.settle(self._score, found, np.arange(len(found)), self.error() * self._reach)
        places = np.flatnonzero(found != self.label)
        return self.move(places, found[places])

    def _renew(self) -> None:
        """Scores of the centres that have moved, the runs of a problem in one product."""
        edges = [0, *(np.flatnonzero(np.diff(self.problem)) + 1).tolist(), len(self.problem)]
        for start, stop in pairwise(edges):
            is_old, rows = self._is_old[start:stop], self.data.rows[self.problem[start]]
            here = self._score[:, self.edges[start] : self.edges[stop]].reshape(self.k, stop - start, -1)
            score = self.centers[start:stop][is_old].astype(np.float32) @ self.data.x32[rows].T
            if is_old.all():
                here[:] = score.reshape(stop - start, self.k, -1).swapaxes(0, 1)
            else:
                run, center = np.nonzero(is_old)
                here[center, run] = score
        self._is_old[:] = False


class _Margins(_Lloyd):
    """For large problems: a row is left alone for as long as its margin lasts (Hamerly 2010).

    Attributes:
        margin: (T,) how much nearer the own centre is than any other, at least; where it is used up, a place is due.
    """

    def __init__(self, data: _Data, centers: np.ndarray, is_open: np.ndarray | None = None) -> None:
        super().__init__(data, centers, is_open)
        self.margin = np.full(len(self.row), -np.inf)

    def keep(self, runs: np.ndarray, places: np.ndarray) -> None:
        super().keep(runs, places)
        self.margin = self.margin[places]

    def moved(self, step: np.ndarray) -> None:
        # The own centre went away by no more than its step, any other came nearer by no more than the largest.
        for run, steps in enumerate(step):
            places = slice(self.edges[run], self.edges[run + 1])
            self.margin[places] -= (steps + steps.max()).take(self.label[places])

    def look(self) -> np.ndarray:
        error, found = self.error(), self.label.copy()
        for run in range(len(self.problem)):
            centers = self.centers[run].astype(np.float32)
            due = self.edges[run] + np.flatnonzero(self.margin[self.edges[run] : self.edges[run + 1]] <= 0)

            def work(part: slice, due: np.ndarray = due, centers: np.ndarray = centers) -> None:
                places = due[part]
                rows = self.row[places]
                score = centers @ self.data.x32.take(rows, 0).T
                here = _nearest(score) if self.label[places[0]] < 0 else found[places]
                norm2, slack = self.data.x[rows, -1], error * self.data.reach[rows]
                best, second = self.settle(score, here, places, slack)
                near = np.sqrt(np.maximum(norm2 - 2 * (best - slack), 0))
                far = np.sqrt(np.maximum(norm2 - 2 * (second + slack), 0))
                self.margin[places] = far - near
                found[places] = here

            self.data.each(work, len(due))
        places = np.flatnonzero(found != self.label)
        return self.move(places, found[places])


def _nearest(score: np.ndarray) -> np.ndarray:
    """Of (k, m) scores the number of the best, (m,) int32: as many steps as centres, long ones."""
    found, best = np.zeros(score.shape[1], np.int32), score[0].copy()
    for j in range(1, len(score)):
        np.copyto(found, np.int32(j), where=score[j] > best)
        np.maximum(best, score[j], out=best)
    return found


def _by_rows(x: np.ndarray, end: _End) -> float:
    """Inertia, summed row by row."""
    return sum(float(((x[rows, :-2] - end.centers[end.labels[rows]]) ** 2).sum()) for rows in _slices(len(x)))


def _same_clustering(one: np.ndarray, other: np.ndarray, k: int) -> bool:
    """Whether two labellings differ in their numbers only."""
    pairs = np.unique(one.astype(np.int64) * k + other)
    return len(pairs) == len(np.unique(pairs // k)) == len(np.unique(pairs % k))
