"""Two-stream hierarchical clustering (Lin 2020): coarse clusters in one stream, fine clusters in the other.

One query per fine cluster, the member nearest its centre, away from what has been answered. Reading in blocks, threads
and k-means are in files of their own (``stream_features``, ``workers``, ``kmeans``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.query.budget import apportion, cluster_numbers, most_of_batch, share_budget
from twostream.query.kmeans import EXACT_ROWS, Solution, distance_to_nearest, medoids, rows_wanted, solve
from twostream.query.look_ahead import NUM_TARGETS, Rooms, look_ahead
from twostream.query.pool import Pool, rows_by_label
from twostream.query.strategy import Selection, Strategy, register_strategy
from twostream.query.stream_features import Members, StreamFeatures
from twostream.query.two_stream_settings import STREAMS, check_settings
from twostream.query.uncertainty import entropy
from twostream.query.workers import Workers

FARTHEST_SHARE = 0.2
"""Share of a cluster with many answers, farthest from them, that is clustered finely (published code)."""
DRAWN = {"coarse": -1, "fine": -1, "stands_for": 1, "distance_to_center": None, "distance_to_answer": None}
"""Reason of a row that was drawn at random."""
SUBSAMPLED = "cluster centres were found on a subsample of them"
Queries = list[tuple[int, dict[str, Any]]]
"""Rows, each with its reason."""


@dataclass(frozen=True)
class CoarseCluster:
    """A cluster of the first stream.

    Attributes:
        name: its number.
        rows: (n,) int64, members that may be asked.
        answers: (s,) int64, answered rows whose distance counts.
        num_answered: answered members.
    """

    name: int
    rows: np.ndarray
    answers: np.ndarray
    num_answered: int


@dataclass(frozen=True)
class _Job:
    """A coarse cluster, how many queries it gets, and its members' features in the second stream."""

    cluster: CoarseCluster
    num_queries: int
    members: Members


@register_strategy("two-stream")
class TwoStream(Strategy):
    """Hierarchical clustering over two streams.

    With u_r and v_r the features of row r in the first and the second stream, B the batch, m x f ``num_clusters``:

    1. Coarse clusters C_1 .. C_m: k-means of u over all rows, answered ones included.
    2. Shares b_1 .. b_m of the batch, sum B (``budget.py``).
    3. Rows far from answers: where C_i holds more than f * (answers // B) answers A_i, only the max(0.2 n_i, b_i)
       of its n_i unanswered rows with the largest d(r) = min over a in A_i of |v_r - v_a| go on.
    4. Fine clusters F_i1 .. F_ib: k-means of v, with b_i clusters, over the rows of C_i that went on.
    5. Medoids: of each F_ij with centre c, the row with the smallest |v_r - c| is asked.

    Variants. ``published`` selects what the published script selects, exactly and at every size. ``corrected`` selects
    what the script meant: step 3 renumbers the rows, and in step 5 the script looks them up by their old numbers.
    ``adaptive`` standardises columns, does not depend on the order of the rows, and runs step 3 in every cluster with
    an answer: it measures to the answers of all clusters and keeps at least b_i / (b_i + |A_i|) of the rows.

    Args:
        num_clusters: (m, f). With a ``batch_size`` other than their product, f follows from the batch.
        first: stream of the coarse level: "supervised" (published code) or "unsupervised" (published figure).
        variant: "corrected", "published" or "adaptive".
        exact: whether k-means is scikit-learn's with the published number of restarts; None: up to 20,000 rows.
            Otherwise centres are found on a subsample of the rows; fine centres also where candidates have weights.
        share: adaptive: a coarse cluster's share of the batch goes by its "size", its "spread" (sum of squared
            distances to its mean in the second stream), the scorer's expected "error" in it, or is "even".
        weight: adaptive: what a candidate counts in step 4: "none" (all alike) or "uncertainty" (entropy).
        random_share: adaptive: part of the batch that is drawn at random, in [0, 1).
        standardise: adaptive: every column gets mean 0 and deviation 1.
        pick: adaptive: "medoids", or "look-ahead" in place of steps 2 to 5: the largest expected reduction of the error
            over the pool (``look_ahead.py``), where no coarse cluster gets more than its share of the first batch by
            size, or later more than twice its share by expected error.
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
        pick: str = "medoids",
        random_state: int = 0,
    ) -> None:
        super().__init__(random_state=random_state)
        self.num_clusters = check_settings(
            num_clusters, first, variant, exact,
            share=share, weight=weight, random_share=random_share, standardise=standardise, pick=pick,
        )  # fmt: skip
        self.first, self.second = first, STREAMS[first == STREAMS[0]]
        self.variant, self.exact, self.is_adaptive = variant, exact, variant == "adaptive"
        self.share, self.weight, self.random_share = share, weight, random_share
        self.standardise, self.pick = standardise, pick
        self.keeps_row_order = not self.is_adaptive
        self.needs_probability = share == "error" or weight == "uncertainty" or pick == "look-ahead"

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        if missing := set(STREAMS) - set(pool.streams):
            raise InputError(
                f"two-stream got the streams {sorted(pool.streams)} and lacks {sorted(missing)}; expected X = "
                "{'supervised': (N, Ds), 'unsupervised': (N, Du)}."
            )
        if self.pick == "look-ahead":
            return self._look_ahead(pool, batch_size, rng)
        drawn = rng.choice(pool.askable, round(self.random_share * batch_size), replace=False)
        picked, notes = self._cluster(pool, drawn, batch_size) if len(drawn) < batch_size else ([], ())
        picked += [(int(row), dict(DRAWN)) for row in drawn]
        rows = np.array([row for row, _ in picked], np.int64)
        return Selection(rows, np.full(len(pool.y), np.nan), [reason for _, reason in picked], notes)

    def _look_ahead(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        """Step 1, and look-ahead with as much room for every coarse cluster as it may have of the batch."""
        known = np.concatenate([pool.askable, pool.answered])
        exact = len(known) <= EXACT_ROWS if self.exact is None else self.exact
        num_coarse, _ = cluster_numbers(self.num_clusters, batch_size)
        with Workers() as workers:
            features = StreamFeatures(pool, known, exact=exact, standardise=STREAMS if self.standardise else ())
            clusters = self._coarse_clusters(features, pool.askable, known, num_coarse, workers)
        number_of = np.full(len(pool.y), -1)
        for number, cluster in enumerate(clusters):
            number_of[cluster.rows] = number
        p = pool.mean_probability
        errors = [float((p[cluster.rows] * (1 - p[cluster.rows])).sum()) for cluster in clusters]
        room = most_of_batch(
            [len(cluster.rows) for cluster in clusters], errors if len(pool.answered) else None, batch_size
        )
        found = look_ahead(pool, batch_size, NUM_TARGETS, rng, Rooms(number_of[pool.askable], room))
        names = [clusters[number].name for number in number_of[found.rows]]
        reasons = [{"coarse": name} | reason for name, reason in zip(names, found.reasons, strict=True)]
        notes = (
            (f"{len(known)} candidates: {SUBSAMPLED}",) if not exact and len(known) > rows_wanted(num_coarse) else ()
        )
        return Selection(found.rows, found.utilities, reasons, notes)

    def _cluster(self, pool: Pool, drawn: np.ndarray, batch_size: int) -> tuple[Queries, tuple[str, ...]]:
        """The five steps, without the rows that were drawn at random; and notes."""
        askable = pool.askable[~np.isin(pool.askable, drawn)]
        known = np.concatenate([askable, pool.answered])
        known = known if self.is_adaptive else np.sort(known)
        num_rows = len(pool.askable) + len(pool.answered)
        exact = (self.variant == "published" or num_rows <= EXACT_ROWS) if self.exact is None else self.exact
        num_coarse, num_fine = cluster_numbers(self.num_clusters, batch_size - len(drawn))
        usual_answers = len(pool.answered) // batch_size * num_fine
        scaled = STREAMS if self.is_adaptive and self.standardise else ()
        picked: Queries = []
        with Workers() as workers:
            features = StreamFeatures(pool, known, exact=exact, standardise=scaled)
            clusters = self._coarse_clusters(features, askable, known, num_coarse, workers)
            numbers = self._num_queries(features, clusters, batch_size - len(drawn), num_fine)
            asking = [(cluster, number) for cluster, number in zip(clusters, numbers, strict=True) if number]
            all_answers = features.read(pool.answered, self.second) if self.is_adaptive else None
            waiting = iter(asking)
            for members in features.groups([cluster.rows for cluster, _ in asking], self.second):
                jobs = [_Job(*next(waiting), one) for one in members]
                picked += self._queries(features, jobs, all_answers, usual_answers, workers)
        counts = [] if exact else [(num_rows, num_coarse)]
        counts += [] if exact and self.weight == "none" else [(len(cluster.rows), number) for cluster, number in asking]
        is_subsampled = any(rows > rows_wanted(k) for rows, k in counts)
        return picked, (f"{num_rows} candidates: {SUBSAMPLED}",) if is_subsampled else ()

    def _coarse_clusters(
        self, features: StreamFeatures, askable: np.ndarray, known: np.ndarray, num_coarse: int, workers: Workers
    ) -> list[CoarseCluster]:
        """Step 1; clusters without a member to ask are left out."""
        pool, k, seed = features.pool, min(num_coarse, len(known)), self.random_state
        problem = features.problem(known, self.first)
        (found,) = solve([problem], [k], exact=features.exact, seed=seed, workers=workers)
        label = np.full(len(pool.y), -1, np.int32)
        label[known] = found.labels
        answered, none = rows_by_label(pool.answered, label), np.zeros(0, np.int64)
        return [
            CoarseCluster(name, rows, pool.answered if self.is_adaptive else own, len(own))
            for name, rows in rows_by_label(askable, label).items()
            for own in [answered.get(name, none)]
        ]

    def _num_queries(
        self, features: StreamFeatures, clusters: list[CoarseCluster], batch_size: int, num_fine: int
    ) -> list[int]:
        """Step 2: queries of every coarse cluster."""
        sizes = [len(cluster.rows) for cluster in clusters]
        if not self.is_adaptive or self.share == "even":
            return share_budget(sizes, batch_size, num_fine)
        weights: list[float] = [float(size) for size in sizes]
        if self.share == "error":
            p = features.pool.mean_probability
            weights = [float(np.minimum(p[cluster.rows], 1 - p[cluster.rows]).sum()) for cluster in clusters]
        elif self.share == "spread":
            weights = features.spreads([cluster.rows for cluster in clusters], self.second)
        return apportion(np.array(weights), sizes, batch_size)

    def _queries(
        self,
        features: StreamFeatures,
        jobs: list[_Job],
        all_answers: np.ndarray | None,
        usual_answers: int,
        workers: Workers,
    ) -> Queries:
        """Steps 3 to 5 of some coarse clusters."""

        def far(job: _Job) -> tuple[np.ndarray, np.ndarray]:
            answers = features.read(job.cluster.answers, self.second) if all_answers is None else all_answers
            return answers, self._far_from_answers(job, answers, usual_answers, features.exact)

        found = workers.map(far, jobs)
        fine = self._fine_clusters(features, jobs, [kept for _, kept in found], workers)
        steps = [(job, *far_rows, solution) for job, far_rows, solution in zip(jobs, found, fine, strict=True)]
        return [query for queries in workers.map(lambda step: self._medoids(*step), steps) for query in queries]

    def _far_from_answers(self, job: _Job, answers: np.ndarray, usual_answers: int, exact: bool) -> np.ndarray:
        """Step 3: positions of the members that go on, those nearest to the answers first."""
        positions, num_answered = np.arange(len(job.cluster.rows)), job.cluster.num_answered
        if num_answered <= (0 if self.is_adaptive else usual_answers):
            return positions
        fair = job.num_queries / (job.num_queries + num_answered) if self.is_adaptive else 0.0
        blocks = job.members.blocks(positions)
        distance = np.concatenate([distance_to_nearest(x, answers, exact=exact) for x in blocks])
        return np.argsort(distance)[-max(int(max(FARTHEST_SHARE, fair) * len(positions)), job.num_queries) :]

    def _fine_clusters(
        self, features: StreamFeatures, jobs: list[_Job], kept: list[np.ndarray], workers: Workers
    ) -> list[Solution]:
        """Step 4; where it is exact, the best of 10 runs of at most 200 iterations, as published."""
        p = features.pool.mean_probability if self.weight == "uncertainty" else None
        problems = [
            job.members.problem(positions, None if p is None else entropy(p[job.cluster.rows[positions]]))
            for job, positions in zip(jobs, kept, strict=True)
        ]
        return solve(
            problems, [job.num_queries for job in jobs], exact=features.exact and p is None,
            seed=self.random_state, workers=workers, restarts=10, max_iter=200,
        )  # fmt: skip

    def _medoids(self, job: _Job, answers: np.ndarray, kept: np.ndarray, found: Solution) -> Queries:
        """Step 5, with reasons."""
        members, labels, distance2 = job.members, found.labels, found.distance2
        # The published script looks the renumbered rows up under the numbers they had before step 3.
        measured = np.arange(len(kept)) if self.variant == "published" else kept
        if distance2 is None:
            distance2, start = np.empty(len(kept)), 0
            for x in members.blocks(measured):
                part = slice(start, start := start + len(x))
                distance2[part] = ((x - found.centers.astype(x.dtype)[labels[part]]) ** 2).sum(1)
        nearest, fine, sizes = medoids(distance2, labels, job.num_queries)
        chosen = members.read(kept[nearest])
        offset = (chosen - found.centers.astype(chosen.dtype)[fine]).astype(float)
        to_center = np.where(fine < 0, 0.0, np.sqrt((offset**2).sum(1)))
        near = distance_to_nearest(chosen, answers, exact=True).tolist() if len(answers) else [None] * len(chosen)
        members.features = None  # the next group takes its place
        reasons = zip(fine.tolist(), sizes.tolist(), to_center.tolist(), near, strict=True)
        return [
            (row, dict(zip(DRAWN, (job.cluster.name, *reason), strict=True)))
            for row, reason in zip(job.cluster.rows[kept[nearest]].tolist(), reasons, strict=True)
        ]
