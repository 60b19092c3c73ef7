"""The Strategy contract: features and answers in, rows to ask out.

    rows = Random(random_state=0).query(X, y, batch_size=50)

A strategy is a pure function of its arguments and its seed. Input is checked here, once, so that a concrete
strategy is only its idea: ``_select``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twostream.errors import InputError

Features = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Selection:
    """What a strategy chose.

    Attributes:
        rows: (B,) int64, rows of X, in the order in which they should be asked.
        utilities: (N,) float, larger = rather ask; NaN where a row may not be asked or the strategy has none.
        reasons: one mapping per row of ``rows``, plain numbers and words.
    """

    rows: np.ndarray
    utilities: np.ndarray
    reasons: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Pool:
    """Checked input of a strategy.

    Attributes:
        streams: {name: (N, D) float}.
        y: (N,) float: 1, 0, or NaN where unanswered.
        askable: (A,) int64 rows that may be asked, ascending.
        answered: (L,) int64 rows with an answer, ascending.
        probability: (M, N) float of one or more scorers, or None.
    """

    streams: dict[str, np.ndarray]
    y: np.ndarray
    askable: np.ndarray
    answered: np.ndarray
    probability: np.ndarray | None

    @property
    def all_features(self) -> np.ndarray:
        """Streams side by side, (N, sum of D)."""
        arrays = list(self.streams.values())
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


class Strategy(ABC):
    """Base of all strategies; a concrete one implements ``_select``.

    Args:
        random_state: seed; the same pool and seed give the same rows.
    """

    needs_probability = False

    def __init__(self, *, random_state: int = 0) -> None:
        self.random_state = random_state

    def query(
        self,
        X: Features,  # noqa: N803 - scikit-learn's name
        y: np.ndarray,
        *,
        batch_size: int,
        probability: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        return_utilities: bool = False,
    ) -> Any:
        """Rows to ask next.

        Args:
            X: (N, D) float, or {stream name: (N, D)} with one N.
            y: (N,) float: 1, 0, or NaN where unanswered.
            batch_size: rows wanted; all askable rows are returned where there are fewer.
            probability: (N,) or (M, N) in [0, 1], probability of a True.
            excluded: (N,) bool, True where a row may not be asked.
            return_utilities: also return (N,) utilities.

        Returns:
            (B,) int64 rows of X without repeats; with ``return_utilities`` a pair (rows, utilities).

        Raises:
            InputError: shapes disagree, a feature is not finite, y holds another value, batch_size < 1, or a
                probability is needed and missing.
        """
        selection = self.suggest(X, y, batch_size=batch_size, probability=probability, excluded=excluded)
        return (selection.rows, selection.utilities) if return_utilities else selection.rows

    def suggest(
        self,
        X: Features,  # noqa: N803
        y: np.ndarray,
        *,
        batch_size: int,
        probability: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> Selection:
        """As ``query``, with the reason for each row."""
        pool = check_pool(X, y, probability, excluded)
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1.")
        if self.needs_probability and pool.probability is None:
            raise InputError(f"{type(self).__name__} needs a probability per row; pass probability=, (N,) or (M, N).")
        if len(pool.askable) == 0:
            return Selection(np.zeros(0, np.int64), np.full(len(pool.y), np.nan), [])
        return self._select(pool, min(batch_size, len(pool.askable)), np.random.default_rng(self.random_state))

    @abstractmethod
    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        """Choose ``batch_size`` of ``pool.askable``; 1 <= batch_size <= len(pool.askable)."""


def check_pool(
    X: Features,  # noqa: N803
    y: np.ndarray,
    probability: np.ndarray | None,
    excluded: np.ndarray | None,
) -> Pool:
    """Check what a strategy is given; see ``Strategy.query``."""
    streams = {k: np.asarray(v) for k, v in X.items()} if isinstance(X, Mapping) else {"features": np.asarray(X)}
    if not streams:
        raise InputError("X is an empty mapping; expected at least one stream of shape (N, D).")
    y = np.asarray(y, float)
    if y.ndim != 1:
        raise InputError(f"y has shape {y.shape}; expected (N,).")
    for name, array in streams.items():
        if array.ndim != 2 or len(array) != len(y) or array.shape[1] == 0:
            raise InputError(f"stream {name!r} has shape {array.shape}; expected ({len(y)}, D), one row per y, D >= 1.")
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if len(bad):
            raise InputError(
                f"stream {name!r} is not finite in row {bad[0]} ({len(bad)} such rows); drop or mend them."
            )
    wrong = np.flatnonzero(~(np.isnan(y) | (y == 0) | (y == 1)))
    if len(wrong):
        raise InputError(f"y is {y[wrong[0]]} in row {wrong[0]}; expected 1, 0, or NaN where unanswered.")
    barred = np.zeros(len(y), bool) if excluded is None else np.asarray(excluded, bool)
    if barred.shape != y.shape:
        raise InputError(f"excluded has shape {barred.shape}; expected {y.shape}.")
    answered = np.flatnonzero(~np.isnan(y))
    askable = np.flatnonzero(np.isnan(y) & ~barred)
    return Pool(streams, y, askable, answered, _check_probability(probability, len(y)))


def _check_probability(probability: np.ndarray | None, num_rows: int) -> np.ndarray | None:
    if probability is None:
        return None
    array = np.atleast_2d(np.asarray(probability, float))
    if array.ndim != 2 or array.shape[1] != num_rows:
        raise InputError(f"probability has shape {np.shape(probability)}; expected ({num_rows},) or (M, {num_rows}).")
    if not ((array >= 0) & (array <= 1)).all():
        raise InputError("probability holds values outside [0, 1] or NaN; pass probabilities, not logits.")
    return array


STRATEGIES: dict[str, type[Strategy]] = {}


def register_strategy(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator: make a strategy known by the name used in the YAML and on the command line."""

    def register(cls: type[Strategy]) -> type[Strategy]:
        STRATEGIES[name] = cls
        return cls

    return register


def get_strategy(name: str, settings: Mapping[str, Any] | None = None, *, random_state: int = 0) -> Strategy:
    """The strategy called ``name``.

    Args:
        name: as registered.
        settings: keyword arguments of its class, without ``random_state``.
        random_state: its seed.

    Raises:
        InputError: no such strategy, or a setting that it does not have.
    """
    if name not in STRATEGIES:
        raise InputError(f"strategy is {name!r}; expected one of {', '.join(sorted(STRATEGIES))}.")
    cls, given = STRATEGIES[name], dict(settings or {})
    known = [key for key in inspect.signature(cls).parameters if key != "random_state"]
    unknown = sorted(set(map(str, given)) - set(known))
    if unknown:
        raise InputError(f"strategy {name!r} has no setting {unknown[0]!r}; it has: {', '.join(known) or 'none'}.")
    return cls(**given, random_state=random_state)
