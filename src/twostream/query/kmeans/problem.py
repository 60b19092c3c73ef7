"""What a k-means is given, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Rows to be clustered.

    Attributes:
        read: features (n, D), float32 or float64, of a slice of the rows or of an ascending array of row numbers.
        num_rows: n.
        rows_per_block: rows that are read at once.
        weights: (n,) float >= 0, what each row counts; not all 0. None: all alike.
    """

    read: Callable[[Any], np.ndarray]
    num_rows: int
    rows_per_block: int
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray | None = None) -> Problem:
        """Of (n, D) features in memory."""
        return cls(features.__getitem__, len(features), len(features), weights)


@dataclass(frozen=True)
class Solution:
    """Clusters of one problem.

    Attributes:
        labels: (n,) int32.
        centers: (k, D) float; a centre that no row is nearest to stays without rows.
        inertia: sum of squared distances to the own centre, each times its weight.
        distance2: (n,) float32 squared distances to the own centre where they were computed; small ones are rough.
    """

    labels: np.ndarray
    centers: np.ndarray
    inertia: float
    distance2: np.ndarray | None = None
