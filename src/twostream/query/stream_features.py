"""Features of a pool as two-stream reads them: raw or standardised, in blocks, group by group.

Memory-mapped features are read once per group of clusters, in one sweep through the file; arrays in memory are read
where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from twostream.query.kmeans import Problem
from twostream.query.pool import SCALE_ROWS, Pool, mean_and_variance, rows_per_block

GROUP_BYTES = 512 * 2**20
"""Features of the clusters of one group."""


class StreamFeatures:
    """Both streams of a pool.

    Args:
        pool: whose features are read.
        known: (n,) int64, the rows that take part.
        exact: whether features keep their precision; False reads them as float32.
        standardise: names of the streams whose columns get mean 0 and deviation 1.
    """

    def __init__(self, pool: Pool, known: np.ndarray, *, exact: bool, standardise: Sequence[str] = ()) -> None:
        self.pool, self.exact = pool, exact
        rows = known[np.argsort(pool.keys[known])[:SCALE_ROWS]] if standardise else known
        self._scales = {name: self._scale(rows, name) for name in standardise}

    def _scale(self, rows: np.ndarray, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of every column; 1 where a column is constant."""
        mean, variance = mean_and_variance(x for _, x in self.pool.blocks(rows, stream))
        return mean, np.where(variance > 0, np.sqrt(variance), 1.0)

    def read(self, rows: np.ndarray, stream: str) -> np.ndarray:
        """(n, D) features of some rows."""
        features = self.pool.take(rows, stream, None if self.exact else np.float32)
        if stream in self._scales:
            mean, deviation = self._scales[stream]
            features -= mean
            features /= deviation
        return features

    def rows_per_block(self, stream: str) -> int:
        """Rows to be read at once."""
        return rows_per_block(self.pool.num_features(stream))

    def problem(self, rows: np.ndarray, stream: str) -> Problem:
        """The k-means problem of some rows."""
        return Problem(lambda part: self.read(rows[part], stream), len(rows), self.rows_per_block(stream))

    def spreads(self, row_sets: Sequence[np.ndarray], stream: str) -> list[float]:
        """Of each cluster, the sum of squared distances to its mean."""
        return [
            len(one.rows) * float(mean_and_variance(one.blocks(np.arange(len(one.rows))))[1].sum())
            for members in self.groups(row_sets, stream)
            for one in members
        ]

    def groups(self, row_sets: Sequence[np.ndarray], stream: str) -> Iterator[list[Members]]:
        """The members of clusters, as many clusters at a time as fit into ``GROUP_BYTES``, in order.

        Args:
            row_sets: of each cluster, its rows (n,) int64.
            stream: whose features are read.
        """
        row_bytes = 8 * self.pool.num_features(stream)
        start, size = 0, 0
        for stop, rows in enumerate(row_sets):
            if stop > start and size + len(rows) * row_bytes > GROUP_BYTES:
                yield self._members(row_sets[start:stop], stream)
                start, size = stop, 0
            size += len(rows) * row_bytes
        if start < len(row_sets):
            yield self._members(row_sets[start:], stream)

    def _members(self, row_sets: Sequence[np.ndarray], stream: str) -> list[Members]:
        members = [Members(self, rows, stream) for rows in row_sets]
        if len(members) > 1 and isinstance(self.pool.streams[stream], np.memmap):
            features = self.read(np.concatenate(row_sets), stream)
            edges = np.cumsum([0, *map(len, row_sets)]).tolist()
            for one, (a, b) in zip(members, pairwise(edges), strict=True):
                one.features = features[a:b]
        return members


class Members:
    """The rows of one cluster.

    Attributes:
        rows: (n,) int64.
        features: (n, D), or None while they are read on demand.
    """

    def __init__(self, source: StreamFeatures, rows: np.ndarray, stream: str) -> None:
        self.rows = rows
        self.features: np.ndarray | None = None
        self._source, self._stream = source, stream
        self.rows_per_block = source.rows_per_block(stream)
        # Exact k-means reads all features several times; they are kept unless the cluster alone fills a group.
        num_bytes = 8 * len(rows) * source.pool.num_features(stream)
        self._is_kept = source.exact and num_bytes <= GROUP_BYTES

    def read(self, positions: np.ndarray) -> np.ndarray:
        """(m, D) features of some positions of ``rows``."""
        if self.features is None and self._is_kept:
            self.features = self._source.read(self.rows, self._stream)
        if self.features is None:
            return self._source.read(self.rows[positions], self._stream)
        is_all = len(positions) == len(self.features) and bool((np.diff(positions) == 1).all())
        return self.features if is_all else self.features[positions]

    def problem(self, positions: np.ndarray, weights: np.ndarray | None = None) -> Problem:
        """The k-means problem of some positions of ``rows``; ``weights`` (m,), what each counts."""
        return Problem(lambda part: self.read(positions[part]), len(positions), self.rows_per_block, weights)

    def blocks(self, positions: np.ndarray) -> Iterator[np.ndarray]:
        """``read`` in blocks."""
        for start in range(0, len(positions), self.rows_per_block):
            yield self.read(positions[start : start + self.rows_per_block])
