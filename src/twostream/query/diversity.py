"""Strategies that choose candidates unlike each other, by where they lie in feature space.

Features are all streams concatenated (``Pool.take``), read in blocks. Memory does not grow with the square of the pool:
greedy choices are lazy and sampling uses rejection, so that only rows that might be chosen are measured again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from twostream.query.bounds import share, whole
from twostream.query.kmeans import cluster, nearest_distance, nearest_with_distance
from twostream.query.pool import Pool, spread_out, top
from twostream.query.strategy import Selection, Strategy, register_strategy
from twostream.query.uncertainty import entropy

FRONT = 64
"""Rows that a lazy choice measures at once at first."""
DRAWS = 256
"""Rows that are drawn at once before they are accepted or rejected."""
STALE = 0.25
"""Share of accepted draws below which all distances are measured anew."""
BLOCK_VALUES = 2**22
"""Distances between rows that are held at once."""


def greedy(value: np.ndarray, number: int, measure: Callable[[np.ndarray], np.ndarray]) -> Iterator[int]:
    """Greedy choice of the largest value, again and again, where values only shrink as positions are taken.

    Lazy (Minoux 1978): a value is measured again only while it might be the largest. Ties go to the first.

    Args:
        value: (n,) float, exact before anything is taken; changed in place.
        number: positions wanted, at most n.
        measure: gives the (m,) current values of m positions.
    """
    measured = np.zeros(len(value), np.int64)
    for taken in range(number):
        size = FRONT
        while measured[best := int(np.argmax(value))] < taken:
            front = np.argpartition(value, -size)[-size:] if size < len(value) else np.arange(len(value))
            front = front[(measured[front] < taken) & (value[front] > -np.inf)]
            value[front], measured[front] = measure(front), taken
            size *= 2
        yield best
        value[best] = -np.inf


def others(rows: np.ndarray, picked: list[int], number: int, rng: np.random.Generator) -> list[int]:
    """``number`` random positions of ``rows`` that were not picked."""
    free = np.setdiff1d(np.arange(len(rows)), picked)
    return [int(i) for i in rng.choice(free, number, replace=False)]


@register_strategy("core-set")
class CoreSet(Strategy):
    """Again and again the candidate farthest from all answered and chosen ones (greedy k-centre, Sener 2018).

    Without answers the first one is random. The utility is the distance to the nearest answer.
    """

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = rng.permutation(pool.askable)  # so that ties are broken at random
        distance = nearest_distance(pool, rows, pool.answered)
        utilities = np.full(len(pool.y), np.nan)
        utilities[rows] = np.where(np.isinf(distance), np.nan, distance)
        centers = np.empty((batch_size, pool.num_features()), pool.take(rows[:1]).dtype)
        known = np.zeros(len(rows), np.int64)  # number of centres that each row has been measured against
        picked: list[int] = []
        reasons: list[dict[str, Any]] = []

        def measure(front: np.ndarray) -> np.ndarray:
            new = centers[known[front].min() : len(picked)]
            known[front] = len(picked)
            return np.minimum(distance[front], nearest_with_distance(pool.take(rows[front]), new)[1])

        for i in greedy(distance, batch_size, measure):
            centers[len(picked)] = pool.take(rows[i : i + 1])
            picked.append(i)
            reasons.append({"distance": None if math.isinf(distance[i]) else float(distance[i])})
        return Selection(rows[picked], utilities, reasons)


@register_strategy("k-means")
class KMeans(Strategy):
    """k-means with as many clusters as queries; of each cluster the member nearest its centre, large clusters first.

    Equal rows leave fewer clusters; the rest of the batch is random then.
    """

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        return self._medoids(pool, pool.askable, None, batch_size, rng)

    def _medoids(
        self, pool: Pool, rows: np.ndarray, weights: np.ndarray | None, batch_size: int, rng: np.random.Generator
    ) -> Selection:
        clusters = cluster(pool, rows, batch_size, seed=self.random_state, weights=weights)
        found = sorted(clusters.medoids(), key=lambda medoid: -medoid[2])
        picked = [position for _, position, _ in found]
        reasons: list[dict[str, Any]] = [
            {"cluster": name, "stands_for": size, "distance_to_center": float(clusters.distance[position])}
            for name, position, size in found
        ]
        spare = others(rows, picked, batch_size - len(picked), rng)
        reasons += [{"cluster": None, "stands_for": 1, "distance_to_center": None} for _ in spare]
        notes = (clusters.note,) if clusters.note else ()
        return Selection(rows[picked + spare], np.full(len(pool.y), np.nan), reasons, notes)


@register_strategy("weighted-k-means")
class WeightedKMeans(KMeans):
    """k-means of the most uncertain rows, each weighted by its uncertainty (Zhdanov 2019).

    Uncertainty is entropy, which is also the utility.

    Args:
        prefilter: rows per query that are clustered, the most uncertain ones (beta of the paper).
        random_state: seed.
    """

    needs_probability = True

    def __init__(self, *, prefilter: int = 10, random_state: int = 0) -> None:
        super().__init__(random_state=random_state)
        self.prefilter = whole("prefilter", prefilter)

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        utilities = spread_out(pool, entropy(pool.mean_probability[pool.askable]))
        rows = top(pool, utilities[pool.askable], self.prefilter * batch_size, rng)
        chosen = self._medoids(pool, rows, utilities[rows], batch_size, rng)
        reasons = [r | {"entropy": float(utilities[i])} for i, r in zip(chosen.rows, chosen.reasons, strict=True)]
        return Selection(chosen.rows, utilities, reasons, chosen.notes)


@register_strategy("badge")
class Badge(Strategy):
    """Large and diverse gradients: the seeding of k-means++ on gradient embeddings (BADGE, Ash 2020).

    The embedding is the gradient of the loss with respect to the last layer, if the likelier answer were true. With two
    classes its two rows are (p - yhat) x and its negative, so that g = sqrt(2) (p - yhat) x has the same distances; the
    matrix of all embeddings is never stored. The first row has the largest gradient, as in the published code. Every
    other row is drawn in proportion to the squared distance to the nearest row drawn before. Rejection sampling draws
    from exactly this distribution: distances only shrink, so outdated ones propose and current ones accept (after
    Cohen-Addad 2020).

    The utility is the length of the gradient.
    """

    needs_probability = True

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = rng.permutation(pool.askable)
        gradients = Gradients(pool, rows)
        length = gradients.length()
        utilities = np.full(len(pool.y), np.nan)
        utilities[rows] = length
        picked, distance = spread(gradients, int(np.argmax(length)), batch_size, rng)
        spare = others(rows, picked, batch_size - len(picked), rng)
        apart = distance + [0.0] * len(spare)
        reasons: list[dict[str, Any]] = [
            {"gradient": float(length[i]), "distance": None if math.isinf(d) else d}
            for i, d in zip(picked + spare, apart, strict=True)
        ]
        return Selection(rows[picked + spare], utilities, reasons)


class Gradients:
    """Gradient embeddings of some rows, computed when they are needed.

    Args:
        rows: (n,) int64.
    """

    def __init__(self, pool: Pool, rows: np.ndarray) -> None:
        p = pool.mean_probability[rows]
        self.pool, self.rows = pool, rows
        self.residual = math.sqrt(2) * (p - (p >= 0.5))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """(m, D) embeddings."""
        return self._scaled(self.pool.take(self.rows[positions]), positions)

    def length(self) -> np.ndarray:
        """(n,) Euclidean norms."""
        values = np.empty(len(self))
        for part, features in self.pool.blocks(self.rows):
            values[part] = np.abs(self.residual[part]) * np.sqrt((features**2).sum(1))
        return values

    def distance(self, centers: np.ndarray) -> np.ndarray:
        """(n,) distance of each to the nearest of (K, D) embeddings."""
        values = np.empty(len(self))
        for part, features in self.pool.blocks(self.rows):
            values[part] = nearest_with_distance(self._scaled(features, part), centers)[1]
        return values

    def _scaled(self, features: np.ndarray, where: np.ndarray | slice) -> np.ndarray:
        return features * self.residual[where, None].astype(features.dtype)


def spread(points: Gradients, first: int, number: int, rng: np.random.Generator) -> tuple[list[int], list[float]]:
    """Positions drawn in proportion to the squared distance to the nearest one drawn before, and that distance.

    A row is proposed by its distance when it was last measured, and accepted with probability current distance over
    that one. Fewer than ``number`` are drawn where all remaining rows coincide with drawn ones.
    """
    picked, apart = [first], [math.inf]
    centers = points.take(np.array([first]))
    bound = points.distance(centers) ** 2
    bound[first] = 0
    behind = len(centers)  # centres from this index on are not yet in the bounds of all rows
    while len(picked) < number and bound.max() > 0:
        cumulated = np.cumsum(bound)
        drawn = np.minimum(np.searchsorted(cumulated, cumulated[-1] * rng.random(DRAWS), side="right"), len(bound) - 1)
        threshold = bound[drawn] * rng.random(DRAWS)
        values = points.take(drawn)
        now = bound[drawn]
        if behind < len(centers):
            now = np.minimum(now, nearest_with_distance(values, centers[behind:])[1] ** 2)
        new: list[int] = []
        for k in range(DRAWS):
            if len(picked) == number:
                break
            if threshold[k] < now[k]:
                new.append(k)
                picked.append(int(drawn[k]))
                apart.append(math.sqrt(now[k]))
                now = np.minimum(now, ((values - values[k]) ** 2).sum(1))
        np.minimum.at(bound, drawn, now)
        centers = np.concatenate([centers, values[new]])
        if len(new) < STALE * DRAWS and len(picked) < number:
            bound = np.minimum(bound, points.distance(centers[behind:]) ** 2) if behind < len(centers) else bound
            behind = len(centers)
    return picked, apart


MOST_CLUSTERS, SMALL_CLUSTER, NEIGHBOURS = 500, 5, 20
"""As published (Hacohen 2022): the largest number of clusters; the size up to which clusters come last; neighbours."""
MOST_MEMBERS = 5000
"""Members of a cluster among which neighbours are searched."""


@register_strategy("typiclust")
class TypiClust(Strategy):
    """The most typical candidate of each cluster that has no answer yet (TypiClust, TPC of Hacohen 2022).

    k-means of answered and askable rows, with as many clusters as there are answers and queries, at most 500. The
    cluster with the fewest answers is next (of equals the larger one); it gives the row with the smallest mean distance
    to its 20 nearest neighbours in the cluster. A chosen row counts as an answer.
    """

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = np.concatenate([pool.askable, pool.answered])
        clusters = cluster(pool, rows, min(len(pool.answered) + batch_size, MOST_CLUSTERS), seed=self.random_state)
        by_cluster = np.argsort(clusters.labels, kind="stable")
        members = np.split(by_cluster, np.cumsum(np.bincount(clusters.labels))[:-1])
        queue = []
        for name, inside in enumerate(members):
            answers = int((inside >= len(pool.askable)).sum())
            if answers < len(inside):
                queue.append((len(inside) <= SMALL_CLUSTER, answers, -len(inside), name))
        heapq.heapify(queue)
        waiting: dict[int, Iterator[tuple[int, float]]] = {}
        picked: list[int] = []
        reasons: list[dict[str, Any]] = []
        while len(picked) < batch_size:
            small, answers, minus_size, name = heapq.heappop(queue)
            if name not in waiting:
                waiting[name] = self._most_typical(pool, rows, members[name], rng)
            if (best := next(waiting[name], None)) is None:
                continue
            heapq.heappush(queue, (small, answers + 1, minus_size, name))
            picked.append(best[0])
            apart = None if math.isnan(best[1]) else best[1]
            reasons.append(
                {"cluster": name, "stands_for": -minus_size, "answers_there": answers, "neighbour_distance": apart}
            )
        notes = (clusters.note,) if clusters.note else ()
        return Selection(rows[picked], np.full(len(pool.y), np.nan), reasons, notes)

    @staticmethod
    def _most_typical(
        pool: Pool, rows: np.ndarray, inside: np.ndarray, rng: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Askable positions of one cluster, most typical first, with their distance to neighbours."""
        distance = neighbour_distance(pool, rows[inside], rng)
        for i in np.argsort(distance, kind="stable"):
            if inside[i] < len(pool.askable):
                yield int(inside[i]), float(distance[i])


def neighbour_distance(pool: Pool, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) mean distance of each row to its 20 nearest others, NaN for a single row.

    With more than ``MOST_MEMBERS`` rows, neighbours are searched among a random subset.
    """
    if len(rows) == 1:
        return np.array([np.nan])
    among = rows if len(rows) <= MOST_MEMBERS else rng.choice(rows, MOST_MEMBERS, replace=False)
    values, is_among = np.empty(len(rows)), np.isin(rows, among)
    with threadpool_limits(limits=1):
        model = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(among)), algorithm="brute").fit(pool.take(among))
        for part, features in pool.blocks(rows):
            distance = model.kneighbors(features)[0]
            # A row that is among them finds itself first.
            values[part] = np.where(is_among[part], distance[:, 1:].mean(1), distance[:, :-1].mean(1))
    return values


@register_strategy("probcover")
class ProbCover(Strategy):
    """Cover as many candidates as possible by balls around answered and chosen ones (ProbCover, Yehuda 2022).

    Greedy: the ball that covers most of the uncovered rows is next. The radius is the largest for which balls are pure:
    for a share ``purity`` of the rows, all rows within the radius have the same pseudo-label, which is a k-means
    cluster. It is an order statistic of the distances to the nearest row with another label, so that no search is
    needed. Once everything is covered, the rest of the batch is random. The utility is the number of rows that a ball
    covers at first.

    Args:
        purity: share of pure balls.
        num_classes: clusters of the pseudo-labels (published: the number of classes).
        max_rows: a larger pool is represented by this many random candidates.
        random_state: seed.
    """

    def __init__(
        self, *, purity: float = 0.95, num_classes: int = 2, max_rows: int = 20_000, random_state: int = 0
    ) -> None:
        super().__init__(random_state=random_state)
        self.purity = share("purity", purity)
        self.num_classes = whole("num_classes", num_classes)
        self.max_rows = whole("max_rows", max_rows)

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = rng.permutation(pool.askable)  # so that ties are broken at random
        shown = rows[: self.max_rows]
        features = pool.take(shown)
        features -= features.mean(0)  # to avoid cancellation in distances
        labels = cluster(pool, shown, self.num_classes, seed=self.random_state).labels
        radius = pure_radius(features, labels, self.purity)
        open_ = features[nearest_distance(pool, shown, pool.answered) >= radius]

        def covers(front: np.ndarray) -> np.ndarray:
            return np.concatenate([within(part, open_, radius).sum(1) for part in _parts(features[front], len(open_))])

        value = covers(np.arange(len(shown))).astype(float)
        utilities = np.full(len(pool.y), np.nan)
        utilities[shown] = value
        picked: list[int] = []
        reasons: list[dict[str, Any]] = []
        for i in greedy(value, min(batch_size, len(shown)), covers):
            if value[i] <= 0:
                break
            picked.append(i)
            reasons.append({"covers": int(value[i])})
            open_ = open_[~within(features[i : i + 1], open_, radius)[0]]
        spare = others(rows, picked, batch_size - len(picked), rng)
        reasons += [{"covers": 0} for _ in spare]
        notes = [f"balls have a radius of {radius:.4g}"]
        if len(shown) < len(rows):
            notes.append(f"{len(shown)} random candidates stood for {len(rows)}")
        return Selection(rows[picked + spare], utilities, reasons, tuple(notes))


def pure_radius(features: np.ndarray, labels: np.ndarray, purity: float) -> float:
    """The largest radius for which the open ball about a share ``purity`` of the rows holds one label alone."""
    to_other = np.full(len(features), np.inf)
    for label in np.unique(labels):
        inside = labels == label
        if not inside.all():
            to_other[inside] = nearest_with_distance(features[inside], features[~inside])[1]
    # Rows whose ball may be impure; 1e-9 because 1 - 0.95 is a little more than 0.05 in floating point.
    impure = int((1 - purity) * len(features) + 1e-9)
    return float(np.sort(to_other)[min(impure, len(features) - 1)])


def within(features: np.ndarray, points: np.ndarray, radius: float) -> np.ndarray:
    """(n, m) bool: a row is nearer than ``radius`` to a point."""
    half = 0.5 * ((features**2).sum(1)[:, None] + (points**2).sum(1))
    return half - features @ points.T < 0.5 * radius**2


def _parts(features: np.ndarray, columns: int) -> Iterator[np.ndarray]:
    """Rows in parts, so that a matrix with so many columns stays small."""
    step = max(1, BLOCK_VALUES // max(1, columns))
    for start in range(0, len(features), step):
        yield features[start : start + step]
