"""The checked input of a strategy: features of candidates, answers so far, and which candidates may be asked.

Features may be memory-mapped and larger than memory; they are read in blocks by ``Pool`` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from twostream.base.errors import InputError

Features = np.ndarray | Mapping[str, np.ndarray]
BLOCK_BYTES = 64 * 2**20
"""Features that are read at once."""
LARGEST = 1e15
"""Features beyond this overflow when they are squared in single precision."""
CACHED_BYTES = 2**20
"""Features that are copied at once, so that they stay in the cache while their type is converted."""
SCALE_ROWS = 50_000
"""Rows by which the scale of a stream is estimated."""


@dataclass(frozen=True)
class Pool:
    """Checked input of a strategy.

    Attributes:
        streams: {name: (N, D) float}, perhaps memory-mapped; read them through ``take`` and ``blocks``.
        y: (N,) float: 1, 0, or NaN where unanswered.
        askable: (A,) int64 rows that may be asked, ordered by a hash of their contents (``in_own_order``), so that the
            choice does not depend on the order in which rows were passed.
        answered: (L,) int64 rows with an answer, likewise.
        probability: (M, N) float of one or more scorers, or None.
        position_nm: (N, 3) float, or None.
    """

    streams: dict[str, np.ndarray]
    y: np.ndarray
    askable: np.ndarray
    answered: np.ndarray
    probability: np.ndarray | None
    position_nm: np.ndarray | None = None

    def in_own_order(self) -> Pool:
        """The same pool with rows ordered by a hash of their contents instead of their position."""
        askable, answered = (r[np.argsort(self.keys[r], kind="stable")] for r in (self.askable, self.answered))
        ordered = replace(self, askable=askable, answered=answered)
        ordered.__dict__["keys"] = self.keys
        return ordered

    @cached_property
    def keys(self) -> np.ndarray:
        """(N,) uint64, a hash of the values of each row, whatever their dtype: multilinear (Lemire and Kaser 2014)."""
        keys = np.zeros(len(self.y), np.uint64)
        beside = (None if self.probability is None else self.probability.T, self.position_nm)
        for array in (*self.streams.values(), *beside):
            if array is None:
                continue
            keys = (keys * np.uint64(0x9E3779B97F4A7C15)) ^ _hashed(array)
            keys ^= keys >> np.uint64(29)
            keys *= np.uint64(0xBF58476D1CE4E5B9)
        return keys

    def take(self, rows: np.ndarray, stream: str | None = None, dtype: DTypeLike | None = None) -> np.ndarray:
        """Features of some rows.

        Args:
            rows: (n,) int64, in any order.
            stream: its name; None concatenates all streams, each divided by the root of its total variance, so that no
                stream dominates the others. A single stream is returned as it is.
            dtype: float type wanted.

        Returns:
            (n, D) of ``dtype``; None: float64, or float32 where the stream is float32 or float16.
        """
        if stream is None:
            parts = [self.take(rows, name, dtype) for name in self.streams]
            for part, scale in zip(parts, self._scales.values(), strict=True):
                part /= scale
            return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        array = self.streams[stream]
        return _read(array, rows, dtype or (np.float32 if array.dtype in (np.float16, np.float32) else np.float64))

    def blocks(self, rows: np.ndarray, stream: str | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """``take`` in blocks: slices of ``rows``, and their features."""
        size = rows_per_block(self.num_features(stream))
        for start in range(0, len(rows), size):
            part = slice(start, min(start + size, len(rows)))
            yield part, self.take(rows[part], stream)

    def num_features(self, stream: str | None = None) -> int:
        """Columns that ``take`` gives."""
        arrays = self.streams.values() if stream is None else [self.streams[stream]]
        return sum(array.shape[1] for array in arrays)

    @cached_property
    def mean_probability(self) -> np.ndarray:
        """(N,) mean over the scorers."""
        assert self.probability is not None
        return self.probability.mean(0)

    @cached_property
    def _scales(self) -> dict[str, float]:
        """Root of the total variance of each stream, over some rows; 1 for a single stream."""
        if len(self.streams) == 1:
            return dict.fromkeys(self.streams, 1.0)
        known = np.concatenate([self.askable, self.answered])
        rows = known[np.argsort(self.keys[known], kind="stable")[:SCALE_ROWS]]
        variances = {name: mean_and_variance(x for _, x in self.blocks(rows, name))[1] for name in self.streams}
        widths = {name: float(np.sqrt(variance.sum())) for name, variance in variances.items()}
        return {name: width if width > 0 else 1.0 for name, width in widths.items()}


def mean_and_variance(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of each column of (n, D) features that come in blocks, n >= 1; both (D,) float64.

    The variance of a constant column is 0, to the last digit.
    """
    number, middle, total, square = 0, np.zeros(0), np.zeros(0), np.zeros(0)
    for block in blocks:
        if number == 0:
            middle = block[0].astype(float)  # near the mean, to avoid cancellation
            total, square = np.zeros_like(middle), np.zeros_like(middle)
        difference = block - middle
        total += difference.sum(0)
        square += np.einsum("ij,ij->j", difference, difference)
        number += len(block)
    mean = total / number
    return middle + mean, np.maximum(square / number - mean**2, 0)


def rows_per_block(num_features: int) -> int:
    """Rows of so many float64 features that are held at once."""
    return max(1, BLOCK_BYTES // (8 * num_features))


def check_pool(
    X: Features,  # noqa: N803 - scikit-learn's name
    y: np.ndarray,
    probability: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
    position_nm: np.ndarray | None = None,
) -> Pool:
    """Check what a strategy is given; see ``Strategy.query``."""
    streams = {k: _array(k, v) for k, v in X.items()} if isinstance(X, Mapping) else {"features": _array("features", X)}
    if not streams:
        raise InputError("X is an empty mapping; expected at least one stream of shape (N, D).")
    y = _floats("y", y)
    if y.ndim != 1:
        raise InputError(f"y has shape {y.shape}; expected (N,).")
    for name, array in streams.items():
        if array.ndim != 2 or len(array) != len(y) or array.shape[1] == 0:
            raise InputError(f"stream {name!r} has shape {array.shape}; expected ({len(y)}, D), one row per y, D >= 1.")
    for name, array in streams.items():
        _check_finite(name, array)
    wrong = np.flatnonzero(~(np.isnan(y) | (y == 0) | (y == 1)))
    if len(wrong):
        raise InputError(f"y is {y[wrong[0]]} in row {wrong[0]}; expected 1, 0, or NaN where unanswered.")
    barred = np.zeros(len(y), bool) if excluded is None else np.asarray(excluded)
    if barred.dtype != bool:
        raise InputError(f"excluded has dtype {barred.dtype}; expected bool, True where a row may not be asked.")
    if barred.shape != y.shape:
        raise InputError(f"excluded has shape {barred.shape}; expected {y.shape}.")
    answered = np.flatnonzero(~np.isnan(y))
    askable = np.flatnonzero(np.isnan(y) & ~barred)
    return Pool(
        streams,
        y,
        askable,
        answered,
        _check_probability(probability, len(y)),
        _check_position(position_nm, len(y)),
    )


def _floats(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {str(values)[:40]!r}; expected an array of numbers.") from None


def _array(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"stream {name!r} has dtype {array.dtype}; expected numbers.")
    return array


def _read(array: np.ndarray, rows: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Read rows in ascending order, a few at a time, and put each at its position in the result."""
    found = np.empty((len(rows), array.shape[1]), dtype)
    ascending = len(rows) < 2 or bool((np.diff(rows) > 0).all())
    order = None if ascending else np.argsort(rows, kind="stable")
    size = max(1, CACHED_BYTES // (8 * array.shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size) if order is None else order[start : start + size]
        found[part] = array[rows[part]]
    return found


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    first, number = -1, 0
    # Few enough rows to stay in the cache between min and max.
    size = max(1, CACHED_BYTES // (array.itemsize * array.shape[1]))
    largest = min(LARGEST, float(np.finfo(array.dtype).max))
    for start in range(0, len(array), size):
        block = array[start : start + size]
        if not (block.min() >= -largest and block.max() <= largest):  # NaN fails both comparisons
            bad = np.flatnonzero(~(np.abs(block) <= largest).all(1))
            first, number = start + int(bad[0]) if first < 0 else first, number + len(bad)
    if number:
        what = "finite" if not np.isfinite(array[first]).all() else f"below {LARGEST:g}"
        raise InputError(f"stream {name!r} is not {what} in row {first} ({number} such rows); drop or mend them.")


def _hashed(array: np.ndarray) -> np.ndarray:
    """(N,) uint64: the bits of every value as float64, each column times its own odd factor, summed."""
    # The seed selects one fixed hash function: the same features always have the same key.
    factors = np.random.default_rng(0).integers(1, 2**63, array.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    found, size = np.empty(len(array), np.uint64), max(1, CACHED_BYTES // (8 * array.shape[1]))
    for start in range(0, len(array), size):
        words = np.ascontiguousarray(array[start : start + size], np.float64) + 0.0  # -0.0 is 0.0
        bits = words.view(np.uint64)
        bits ^= bits >> np.uint64(32)  # the lower bits of small whole numbers are all 0
        found[start : start + size] = np.einsum("ij,j->i", bits, factors)
    return found


def _check_probability(probability: np.ndarray | None, num_rows: int) -> np.ndarray | None:
    if probability is None:
        return None
    array = np.atleast_2d(_floats("probability", probability))
    if array.ndim != 2 or array.shape[1] != num_rows or len(array) == 0:
        raise InputError(f"probability has shape {np.shape(probability)}; expected ({num_rows},) or (M, {num_rows}).")
    if not ((array >= 0) & (array <= 1)).all():
        raise InputError("probability holds values outside [0, 1] or NaN; pass probabilities, not logits.")
    return array


def _check_position(position_nm: np.ndarray | None, num_rows: int) -> np.ndarray | None:
    if position_nm is None:
        return None
    array = _floats("position_nm", position_nm)
    if array.shape != (num_rows, 3) or not np.isfinite(array).all():
        raise InputError(
            f"position_nm has shape {array.shape}; expected ({num_rows}, 3) finite numbers, z, y, x in nm."
        )
    return array


def top(pool: Pool, utility: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of ``pool.askable`` with the largest utility, largest first; ties in random order.

    Args:
        utility: (A,) float, of each askable row.
    """
    shuffled = rng.permutation(len(utility))
    return pool.askable[shuffled[np.argsort(-utility[shuffled], kind="stable")[:number]]]


def spread_out(pool: Pool, utility: np.ndarray) -> np.ndarray:
    """(N,) utilities, NaN for rows that may not be asked."""
    values = np.full(len(pool.y), np.nan)
    values[pool.askable] = utility
    return values


def rows_by_label(rows: np.ndarray, label: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of every label that occurs among them, labels ascending, rows in the order in which they come."""
    own = label[rows]
    order = np.argsort(own.astype(np.min_scalar_type(own.max(initial=0))), kind="stable")  # small types sort faster
    rows, own = rows[order], own[order]
    edges = [*np.flatnonzero(np.diff(own, prepend=-1)), len(rows)]
    return {int(own[start]): rows[start:stop] for start, stop in pairwise(edges)}
