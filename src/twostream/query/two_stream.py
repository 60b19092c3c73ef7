"""Two-stream hierarchical clustering (Lin 2020): coarse clusters in one stream, fine ones in the other.

One query per fine cluster, the member nearest its centre, away from what has been answered.

- ``published`` selects what the published script selects.
- ``corrected`` selects what it meant: the script looks medoids up among rows that its own distance filter has dropped.
- ``adaptive`` takes any batch and any number of answers, weighs columns alike, does not hang on the order of the rows,
  and keeps away from answers of other coarse clusters too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from twostream.base.errors import InputError
from twostream.query import bounds, lloyd, quick
from twostream.query.clustering import EXACT_ROWS
from twostream.query.pool import SCALE_ROWS, Pool, mean_and_variance, rows_per_block
from twostream.query.strategy import Selection, Strategy, register_strategy
from twostream.query.uncertainty import entropy

ROWS_SIDE_BY_SIDE, QUICK_ROWS_SIDE_BY_SIDE = 16384, 8192
"""Rows of the coarse clusters whose fine clusters are sought side by side, where they are exact and where not."""
FARTHEST_SHARE = 0.2
"""Share of a crowded coarse cluster, farthest from its answers, that stays in the running (published code)."""
GATHERED_BYTES = 512 * 2**20
"""Features of the coarse clusters that are worked on at once."""
STREAMS = ("supervised", "unsupervised")
VARIANTS = ("corrected", "published", "adaptive")
SHARES = ("size", "even", "spread", "error")
WEIGHTS = ("none", "uncertainty")


@dataclass(frozen=True)
class Kind:
    """A coarse cluster.

    Attributes:
        name: its number.
        rows: (n,) int64, members that may be asked.
        answers: (s,) int64, answered rows that it is compared with.
        num_answered: answered members.
    """

    name: int
    rows: np.ndarray
    answers: np.ndarray
    num_answered: int


@dataclass(frozen=True)
class _Job:
    """A coarse cluster whose fine clusters are wanted.

    Attributes:
        kind: the coarse cluster.
        budget: queries, no more than it has members.
        members: their features in the second stream.
        expected: answers that the published script thinks usual.
    """

    kind: Kind
    budget: int
    members: _Members
    expected: int


@register_strategy("two-stream")
class TwoStream(Strategy):
    """Hierarchical clustering over two streams.

    Args:
        num_clusters: (coarse, fine per coarse). Their product is the published batch; with another ``batch_size`` the
            fine number follows from it.
        first: stream of the coarse level: "supervised" (published code) or "unsupervised" (published figure).
        variant: "corrected", "published" or "adaptive".
        exact: whether k-means is that of scikit-learn with the published number of restarts; None: up to 20,000 rows.
            Else, and wherever candidates have weights, centres are found on a share of the rows (``quick``).
        share: adaptive: what a coarse cluster's part of the batch goes by: its "size", its "spread" (sum of squared
            distances to its mean in the second stream), the scorer's expected "error" in it, or "even".
        weight: adaptive: what a candidate counts in the second level: "none" (all alike) or "uncertainty" (entropy).
        random_share: adaptive: part of the batch that is drawn at random, in [0, 1).
        standardise: adaptive: every column has mean 0 and deviation 1.
        random_state: seed of both levels.

    X must be {"supervised": (N, Ds), "unsupervised": (N, Du)}.
    """

    def __init__(
        self,
        *,
        num_clusters: tuple[int, int] = (100, 10),
        first: str = "supervised",
        variant: str = "corrected",
        exact: bool | None = None,
        share: str = "size",
        weight: str = "none",
        random_share: float = 0.0,
        standardise: bool = True,
        random_state: int = 0,
    ) -> None:
        super().__init__(random_state=random_state)
        for name, value, known in (
            ("first", first, STREAMS), ("variant", variant, VARIANTS), ("share", share, SHARES),
            ("weight", weight, WEIGHTS), ("exact", exact, (None, True, False)),
            ("standardise", standardise, (True, False)),
        ):  # fmt: skip
            if value not in known:
                raise InputError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}.")
        if bounds.share("random_share", random_share) == 1:
            raise InputError("random_share is 1; expected less, or the strategy 'random'.")
        self.num_clusters = _two_numbers(num_clusters)
        self.first, self.second = first, STREAMS[first == STREAMS[0]]
        self.variant, self.exact = variant, exact
        self.share, self.weight = share, weight
        self.random_share, self.standardise = random_share, standardise
        self.is_adaptive = variant == "adaptive"
        changed = [
            name
            for name, value, default in (
                ("share", share, "size"), ("weight", weight, "none"), ("random_share", random_share, 0.0),
                ("standardise", standardise, True),
            )
            if value != default
        ]  # fmt: skip
        if changed and not self.is_adaptive:
            raise InputError(f"{changed[0]} is a setting of variant='adaptive'; the variant is {variant!r}.")
        self.keeps_row_order = not self.is_adaptive
        self.needs_probability = share == "error" or weight == "uncertainty"

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        if missing := set(STREAMS) - set(pool.streams):
            raise InputError(
                f"two-stream got the streams {sorted(pool.streams)} and lacks {sorted(missing)}; expected X = "
                "{'supervised': (N, Ds), 'unsupervised': (N, Du)}."
            )
        by_chance = rng.choice(pool.askable, round(self.random_share * batch_size), replace=False)
        number = batch_size - len(by_chance)
        num_rows = len(pool.askable) + len(pool.answered)
        exact = num_rows <= EXACT_ROWS if self.exact is None else self.exact
        rows: list[int] = []
        reasons: list[dict[str, Any]] = []
        blank = {"coarse": -1, "fine": -1, "stands_for": 1, "distance_to_center": None, "distance_to_answer": None}
        if number == 0:
            return Selection(by_chance, np.full(len(pool.y), np.nan), [dict(blank) for _ in by_chance], ())
        # Threads are shared out here: over blocks on the first level, over coarse clusters on the second.
        with threadpool_limits(limits=1), ThreadPoolExecutor(num_threads()) as executor:
            level = _Level(self, pool, exact, by_chance, executor)
            num_coarse, num_fine = self._shape(number)
            kinds = level.coarse(num_coarse)
            budgets = level.budgets(kinds, number, num_fine)
            asking = [(kind, budget) for kind, budget in zip(kinds, budgets, strict=True) if budget]
            is_quick = not exact and num_rows > quick.rows_wanted(num_coarse)
            if not exact or self.weight != "none":
                is_quick |= any(len(kind.rows) > quick.rows_wanted(budget) for kind, budget in asking)
            for picked in level.fine(asking, len(pool.answered) // batch_size * num_fine):
                rows += [row for row, _ in picked]
                reasons += [reason for _, reason in picked]
        rows += by_chance.tolist()
        reasons += [dict(blank) for _ in by_chance]
        notes = (f"{num_rows} candidates: cluster centres were found on a share of them",) if is_quick else ()
        return Selection(np.asarray(rows, np.int64), np.full(len(pool.y), np.nan), reasons, notes)

    def _shape(self, batch_size: int) -> tuple[int, int]:
        """Coarse and fine numbers for this batch: as given where their product is the batch."""
        coarse, fine = self.num_clusters
        if coarse * fine == batch_size:
            return coarse, fine
        coarse = min(coarse, max(batch_size, 1))
        return coarse, max(1, batch_size // coarse)


class _Level:
    """Both levels of one selection."""

    def __init__(
        self, settings: TwoStream, pool: Pool, exact: bool, taken: np.ndarray, executor: ThreadPoolExecutor
    ) -> None:
        self.settings, self.pool, self.exact, self.executor = settings, pool, exact, executor
        self.askable = pool.askable if len(taken) == 0 else pool.askable[~np.isin(pool.askable, taken)]
        self.known = np.concatenate([self.askable, pool.answered])
        if settings.keeps_row_order:
            self.known = np.sort(self.known)
        self._columns = {name: self._column_scale(name) for name in STREAMS} if settings.is_adaptive else {}

    def _column_scale(self, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of every column, over some rows; 1 where a column is constant."""
        if not self.settings.standardise:
            return np.zeros(1), np.ones(1)
        rows = self.known[np.argsort(self.pool.keys[self.known])[:SCALE_ROWS]]
        mean, variance = mean_and_variance(x for _, x in self.pool.blocks(rows, stream))
        return mean, np.where(variance > 0, np.sqrt(variance), 1.0)

    def read(self, rows: np.ndarray, stream: str) -> np.ndarray:
        """(n, D) features as this variant sees them; single precision unless k-means is exact."""
        features = self.pool.take(rows, stream, None if self.exact else np.float32)
        if stream in self._columns:
            mean, deviation = self._columns[stream]
            features -= mean
            features /= deviation
        return features

    @cached_property
    def _answers(self) -> np.ndarray:
        """(L, D) second-stream features of all answers, which every coarse cluster of the adaptive variant looks at."""
        return self.read(self.pool.answered, self.settings.second)

    def coarse(self, num_clusters: int) -> list[Kind]:
        """Coarse clusters that have members to ask; answered rows are clustered with the others."""
        stream, seed = self.settings.first, self.settings.random_state
        num_clusters, label = min(num_clusters, len(self.known)), np.full(len(self.pool.y), -1, np.int32)
        if self.exact:
            known = self.read(self.known, stream)
            found = lloyd.kmeans([known], num_clusters, seed=seed, executor=self.executor)[0]
        else:
            size = rows_per_block(self.pool.num_features(stream))
            problem = quick.Problem(lambda part: self.read(self.known[part], stream), len(self.known), size)
            found = quick.kmeans([problem], num_clusters, seed=seed, executor=self.executor)[0]
        label[self.known] = found.labels
        members, answered = _groups(self.askable, label), _groups(self.pool.answered, label)
        none = np.zeros(0, np.int64)
        return [
            Kind(
                name, rows, self.pool.answered if self.settings.is_adaptive else answered.get(name, none),
                len(answered.get(name, none)),
            )
            for name, rows in members.items()
        ]  # fmt: skip

    def budgets(self, kinds: list[Kind], batch_size: int, num_fine: int) -> list[int]:
        """Queries of every coarse cluster."""
        sizes = [len(kind.rows) for kind in kinds]
        share = self.settings.share
        if not self.settings.is_adaptive or share == "even":
            return share_budget(sizes, batch_size, num_fine)
        if share == "size":
            return apportion(np.asarray(sizes, float), sizes, batch_size)
        if share == "error":
            p = self.pool.mean_probability
            return apportion(np.array([np.minimum(p[k.rows], 1 - p[k.rows]).sum() for k in kinds]), sizes, batch_size)
        spread = [0.0] * len(kinds)
        for part in self._parts(kinds):
            for i, members in zip(part, self._members(kinds, part), strict=True):
                spread[i] = members.spread()
        return apportion(np.array(spread), sizes, batch_size)

    def _parts(self, kinds: list[Kind]) -> Iterator[list[int]]:
        """Coarse clusters whose second-stream features fit at once."""
        row_bytes = 8 * self.pool.num_features(self.settings.second)
        part: list[int] = []
        for i in range(len(kinds)):
            if part and sum(len(kinds[j].rows) for j in [*part, i]) * row_bytes > GATHERED_BYTES:
                yield part
                part = []
            part.append(i)
        if part:
            yield part

    def _members(self, kinds: list[Kind], part: list[int]) -> list[_Members]:
        """What lies on disk is read in one sweep for all of them; what is in memory is left to who wants it."""
        members = [_Members(self, kinds[i].rows) for i in part]
        if len(part) > 1 and isinstance(self.pool.streams[self.settings.second], np.memmap):
            features = self.read(np.concatenate([m.rows for m in members]), self.settings.second)
            edges = np.cumsum([0, *(len(m.rows) for m in members)])
            for m, a, b in zip(members, edges[:-1], edges[1:], strict=True):
                m.held = features[a:b]
        return members

    def fine(self, asking: list[tuple[Kind, int]], expected: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        """Rows of every coarse cluster, with reasons; ``expected``: answers that the script thinks usual in one."""
        kinds = [kind for kind, _ in asking]
        if self.settings.is_adaptive:
            _ = self._answers  # read once, before threads ask for them
        for part in self._parts(kinds):
            jobs = [
                _Job(*asking[i], members, expected) for i, members in zip(part, self._members(kinds, part), strict=True)
            ]
            batches = self._batches(jobs)
            done = self.executor.map(self._medoids, [[jobs[i] for i in batch] for batch in batches])
            picked = dict(zip(chain(*batches), chain(*done), strict=True))
            yield from (picked[i] for i in range(len(jobs)))

    def _batches(self, jobs: list[_Job]) -> list[list[int]]:
        """Numbers of jobs that are clustered side by side: small ones with the same number of queries."""
        batches: list[list[int]] = []
        num_rows = 0
        most = QUICK_ROWS_SIDE_BY_SIDE  # who stands beside whom may decide a last digit: the same on any machine
        if self.exact:  # every thread gets some, so that none waits long for the last
            most = min(ROWS_SIDE_BY_SIDE, sum(len(job.kind.rows) for job in jobs) // (4 * num_threads()))
        for i in sorted(range(len(jobs)), key=lambda i: jobs[i].budget):
            size = len(jobs[i].kind.rows)
            if batches and jobs[batches[-1][0]].budget == jobs[i].budget and num_rows + size <= most:
                batches[-1].append(i)
                num_rows += size
            else:
                batches.append([i])
                num_rows = size
        return batches

    def _medoids(self, jobs: list[_Job]) -> list[list[tuple[int, dict[str, Any]]]]:
        """One row per fine cluster, nearest its centre, with the reason, of every job."""
        answers = [
            self._answers if self.settings.is_adaptive else self.read(job.kind.answers, self.settings.second)
            for job in jobs
        ]
        stays = [self._staying(*pair) for pair in zip(jobs, answers, strict=True)]
        found = self._clustered(jobs, stays)
        picked = [self._picked(*of_one) for of_one in zip(jobs, answers, stays, found, strict=True)]
        for job in jobs:
            job.members.held = None  # the next ones take their place
        return picked

    def _staying(self, job: _Job, answers: np.ndarray) -> np.ndarray:
        """Positions of the members that stay in the running."""
        everybody, num_answered = np.arange(len(job.kind.rows)), job.kind.num_answered
        if num_answered <= (0 if self.settings.is_adaptive else job.expected):
            return everybody
        fair = job.budget / (job.budget + num_answered) if self.settings.is_adaptive else 0.0
        distance = np.concatenate([distance_to(x, answers, self.exact) for x in job.members.blocks(everybody)])
        return farthest(distance, max(int(max(FARTHEST_SHARE, fair) * len(everybody)), job.budget))

    def _clustered(self, jobs: list[_Job], stays: list[np.ndarray]) -> list[lloyd.Solution]:
        """The fine clusters; the jobs have the same budget."""
        seed, budget = self.settings.random_state, jobs[0].budget
        if self.exact and self.settings.weight == "none":
            features = [job.members.read(positions) for job, positions in zip(jobs, stays, strict=True)]
            return lloyd.kmeans(features, budget, seed=seed, restarts=10, max_iter=200)
        problems = [
            quick.Problem(
                job.members.reader(positions), len(positions), job.members.rows_per_block,
                self._weights(job.kind.rows[positions]),
            )
            for job, positions in zip(jobs, stays, strict=True)
        ]  # fmt: skip
        return quick.kmeans(problems, budget, seed=seed)

    def _picked(
        self, job: _Job, answers: np.ndarray, stays: np.ndarray, found: lloyd.Solution
    ) -> list[tuple[int, dict[str, Any]]]:
        """The medoids of one job, with reasons."""
        kind, members, labels, distance2 = job.kind, job.members, found.labels, found.distance2
        # The published script takes positions among the filtered rows for positions among all of the cluster's.
        is_published = self.settings.variant == "published"
        if distance2 is None or is_published:
            blocks = members.blocks(np.arange(len(stays)) if is_published else stays)
            start, distance2 = 0, np.empty(len(stays))
            for x in blocks:
                part = slice(start, start := start + len(x))
                distance2[part] = ((x - found.centers.astype(x.dtype)[labels[part]]) ** 2).sum(1)
        order = np.lexsort((distance2, labels))
        starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
        medoids, sizes = order[starts], np.diff(starts, append=len(order)).tolist()
        # Duplicates leave k-means with fewer clusters than queries.
        lacking = job.budget - len(medoids)
        # The last ones are farthest from the answers.
        spare = np.setdiff1d(np.arange(len(stays)), medoids)[::-1][:lacking] if lacking else medoids[:0]
        positions = stays[np.concatenate([medoids, spare])]
        chosen, fine = members.read(positions), labels[medoids]
        offset = (chosen[: len(medoids)] - found.centers.astype(chosen.dtype)[fine]).astype(float)
        to_center = np.sqrt((offset**2).sum(1)).tolist()
        near = distance_to(chosen, answers, exact=True).tolist() if len(answers) else [None] * len(positions)
        reasons = [*zip(fine.tolist(), sizes, to_center, strict=True), *[(-1, 1, 0.0)] * len(spare)]
        names = ("coarse", "fine", "stands_for", "distance_to_center", "distance_to_answer")
        return [
            (row, dict(zip(names, (kind.name, *reason, distance), strict=True)))
            for row, reason, distance in zip(kind.rows[positions].tolist(), reasons, near, strict=True)
        ]

    def _weights(self, rows: np.ndarray) -> np.ndarray | None:
        """What each candidate counts, more than 0; None: all alike."""
        return None if self.settings.weight == "none" else entropy(self.pool.mean_probability[rows])


class _Members:
    """Second-stream features of the rows of one coarse cluster.

    Attributes:
        rows: (n,) int64.
        held: (n, D) where one sweep has read them, or where k-means is exact, which looks at them often, and they are
            not too many; None where they are read when they are wanted, and when they are done with.
        rows_per_block: rows to read at once.
    """

    def __init__(self, level: _Level, rows: np.ndarray) -> None:
        self._level, self.rows = level, rows
        self.held: np.ndarray | None = None
        num_features = level.pool.num_features(level.settings.second)
        self.rows_per_block = rows_per_block(num_features)
        self._is_held = level.exact and len(rows) * num_features * 8 <= GATHERED_BYTES

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Features of some positions of ``rows``."""
        if self.held is None and self._is_held:
            self.held = self._level.read(self.rows, self._level.settings.second)
        if self.held is None:
            return self._level.read(self.rows[positions], self._level.settings.second)
        is_all = len(positions) == len(self.held) and bool((np.diff(positions) == 1).all())
        return self.held if is_all else self.held[positions]

    def reader(self, positions: np.ndarray) -> Callable[[Any], np.ndarray]:
        """Gives the features of any part of the positions."""
        return lambda part: self.read(positions[part])

    def blocks(self, positions: np.ndarray) -> Iterator[np.ndarray]:
        """The same, a block at a time."""
        for start in range(0, len(positions), self.rows_per_block):
            yield self.read(positions[start : start + self.rows_per_block])

    def spread(self) -> float:
        """Sum of squared distances to the mean."""
        return len(self.rows) * float(mean_and_variance(self.blocks(np.arange(len(self.rows))))[1].sum())


def num_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(rows: np.ndarray, label: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of every label that occurs among them, labels ascending, rows in the order in which they come."""
    own = label[rows]
    order = np.argsort(own.astype(np.min_scalar_type(own.max(initial=0))), kind="stable")  # small types: sorted faster
    rows, own = rows[order], own[order]
    edges = [*np.flatnonzero(np.diff(own, prepend=-1)), len(rows)]
    return {int(own[start]): rows[start:stop] for start, stop in pairwise(edges)}


def _two_numbers(num_clusters: Any) -> tuple[int, int]:
    try:
        coarse, fine = num_clusters
        return bounds.whole("coarse", coarse), bounds.whole("fine", fine)
    except (TypeError, ValueError):
        raise InputError(
            f"num_clusters is {num_clusters!r}; expected two whole numbers >= 1: coarse, and fine per coarse."
        ) from None


def share_budget(sizes: list[int], batch_size: int, num_fine: int) -> list[int]:
    """Queries per coarse cluster (METHOD: steps 4 and 5 of the published script).

    Every cluster gets ``num_fine``, or its size if that is smaller; what is left goes, one each and the largest
    first, to the clusters that have more members than queries, until nothing is left.

    Args:
        sizes: members that may be asked, per cluster; their sum is at least ``batch_size``.
    """
    size = np.asarray(sizes)
    budget = np.minimum(num_fine, size)
    while budget.sum() > batch_size:  # more clusters than the batch is large
        budget[np.argmin(np.where(budget > 0, size, size.max() + 1))] -= 1
    level, extra = num_fine, batch_size - int(budget.sum())
    while extra > 0:
        larger = np.flatnonzero(size > level)
        chosen = larger[np.argsort(-size[larger], kind="stable")][:extra]
        budget[chosen] += 1
        extra -= len(chosen)
        level += 1
    return [int(b) for b in budget]


def apportion(weights: np.ndarray, sizes: list[int], batch_size: int) -> list[int]:
    """Share a batch out by weight, never more than a cluster holds (largest remainders, Hamilton 1792).

    Args:
        weights: (K,) float >= 0; where all that is left weighs nothing, sizes weigh instead.
        sizes: members that may be asked, per cluster; their sum is at least ``batch_size``.
    """
    size, budget = np.asarray(sizes), np.zeros(len(sizes), int)
    while (left := batch_size - int(budget.sum())) > 0:
        free = budget < size
        weight = np.where(free, weights, 0.0)
        if weight.sum() <= 0:
            weight = np.where(free, size - budget, 0).astype(float)
        ideal = left * weight / weight.sum()
        whole = np.minimum(np.floor(ideal).astype(int), size - budget)
        budget += whole
        if (rest := batch_size - int(budget.sum())) > 0 and (whole == np.floor(ideal)).all():
            order = np.argsort(-(ideal - whole), kind="stable")
            budget[order[free[order] & (budget[order] < size[order])][:rest]] += 1
    return [int(b) for b in budget]


def farthest(distance: np.ndarray, number: int) -> np.ndarray:
    """Positions of the ``number`` largest distances, the nearest of these first."""
    return np.argsort(distance)[-number:]


def distance_to(features: np.ndarray, answers: np.ndarray, exact: bool) -> np.ndarray:
    """Distance of each of (n, D) rows to the nearest of (s, D) answers, (n,).

    Which is nearest is found by a product; its distance by the difference, if ``exact``, else by the product, in single
    precision, which tells near rows from far ones.
    """
    if not exact:
        return np.sqrt(quick.nearest(features, answers)[1])
    middle = answers.mean(0)
    others = answers - middle
    half, distance = 0.5 * np.einsum("ij,ij->i", others, others), np.empty(len(features))
    step = quick.rows_at_once(*answers.shape)
    for start in range(0, len(features), step):
        x = features[start : start + step]
        difference = x - answers[((x - middle) @ others.T - half).argmax(1)]
        distance[start : start + step] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distance
