"""The Strategy contract: features and answers in, rows to ask out.

    rows = Random(random_state=0).query(X, y, batch_size=50)

A strategy is a pure function of its arguments and its seed. Input is checked here, once, so that a concrete strategy
holds nothing but its idea, in ``_select``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.query import bounds
from twostream.query.pool import Features, Pool, check_pool


@dataclass(frozen=True)
class Selection:
    """What a strategy chose.

    Attributes:
        rows: (B,) int64, rows of X, in the order in which they should be asked.
        utilities: (N,) float, the larger the more useful; NaN where a row may not be asked or the strategy has none.
        reasons: one mapping per row of ``rows``, plain numbers and words.
        notes: sentences for a log about how the rows were found.
    """

    rows: np.ndarray
    utilities: np.ndarray
    reasons: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


class Strategy(ABC):
    """Base of all strategies; a concrete one implements ``_select``.

    Args:
        random_state: seed; the same pool and seed give the same rows.
    """

    needs_probability = False
    needs_ensemble = False
    needs_position = False
    keeps_row_order = False
    """True if the strategy sees the rows in the order in which they were passed, which may then change its choice."""

    def __init__(self, *, random_state: int = 0) -> None:
        self.random_state = bounds.seed("random_state", random_state)

    def query(
        self,
        X: Features,  # noqa: N803 - scikit-learn's name
        y: np.ndarray,
        *,
        batch_size: int,
        probability: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        position_nm: np.ndarray | None = None,
        return_utilities: bool = False,
    ) -> Any:
        """Rows to ask next.

        Args:
            X: (N, D) float, or {stream name: (N, D)} with one N; perhaps memory-mapped, float16 or wider.
            y: (N,) float: 1, 0, or NaN where unanswered.
            batch_size: rows wanted; all askable rows are returned where there are fewer.
            probability: (N,) or (M, N) in [0, 1], probability of a True.
            excluded: (N,) bool, True where a row may not be asked.
            position_nm: (N, 3) float, centre of each candidate (z, y, x) in nm; some strategies need it.
            return_utilities: also return (N,) utilities.

        Returns:
            (B,) int64 rows of X without repeats; with ``return_utilities`` a pair (rows, utilities).

        Raises:
            InputError: shapes disagree, a feature is not finite, y holds another value, batch_size < 1, or a
                probability, an ensemble or positions are needed and missing.
        """
        selection = self.suggest(
            X, y, batch_size=batch_size, probability=probability, excluded=excluded, position_nm=position_nm
        )
        return (selection.rows, selection.utilities) if return_utilities else selection.rows

    def suggest(
        self,
        X: Features,  # noqa: N803
        y: np.ndarray,
        *,
        batch_size: int,
        probability: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        position_nm: np.ndarray | None = None,
    ) -> Selection:
        """As ``query``, with the reason for each row."""
        pool = check_pool(X, y, probability, excluded, position_nm)
        batch_size = bounds.whole("batch_size", batch_size)
        self._check_needs(pool)
        if len(pool.askable) == 0:
            return Selection(np.zeros(0, np.int64), np.full(len(pool.y), np.nan), [])
        if not self.keeps_row_order:
            pool = pool.in_own_order()
        return self._select(pool, min(batch_size, len(pool.askable)), np.random.default_rng(self.random_state))

    def _check_needs(self, pool: Pool) -> None:
        """Raise InputError where something that this strategy needs is missing."""
        name = type(self).__name__
        if self.needs_probability and pool.probability is None:
            raise InputError(f"{name} needs a probability per row; pass probability= (--probability), (N,) or (M, N).")
        if self.needs_ensemble and (pool.probability is None or len(pool.probability) < 2):
            raise InputError(
                f"{name} needs probabilities by two scorers or more; pass probability= (--probability), (M, N)."
            )
        if self.needs_position and pool.position_nm is None:
            raise InputError(
                f"{name} needs the positions of the candidates; pass position_nm= (--position-nm), (N, 3)."
            )

    @abstractmethod
    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        """Choose ``batch_size`` of ``pool.askable``; 1 <= batch_size <= len(pool.askable).

        Rows come in hash order (``Pool.in_own_order``), so that what is drawn from ``rng`` by position in
        ``pool.askable`` does not depend on the order in which rows were passed.
        """


STRATEGIES: dict[str, type[Strategy]] = {}


def register_strategy(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator: register a strategy under the name used in the YAML and on the command line.

    Raises:
        InputError: the name is not made of lower-case words and hyphens, or belongs to another class.
    """
    if not name.replace("-", "_").isidentifier() or not name.islower():
        raise InputError(f"a strategy is called {name!r}; expected lower-case words joined by hyphens.")

    def register(cls: type[Strategy]) -> type[Strategy]:
        known = STRATEGIES.setdefault(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"the strategy {name!r} exists already, as {known.__qualname__}; choose another name.")
        STRATEGIES[name] = cls  # a module that is loaded again brings its class anew
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
    if not isinstance(name, str) or name not in STRATEGIES:
        raise InputError(f"strategy is {name!r}; expected one of {', '.join(sorted(STRATEGIES))}.")
    cls, given = STRATEGIES[name], bounds.mapping(f"settings of {name}", settings)
    known = [key for key in inspect.signature(cls).parameters if key != "random_state"]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"strategy {name!r} has no setting {unknown[0]!r}; it has: {', '.join(known) or 'none'}.")
    return cls(**given, random_state=random_state)
