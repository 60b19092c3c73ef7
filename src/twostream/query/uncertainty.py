"""Candidates of which the scorer is least sure.

Of two answers, entropy, margin and least confidence put candidates in one and the same order, by |p - 1/2|; they differ
in their utilities, and where several scorers are passed only in that all three take the mean. All are kept because
papers name them.
"""

from __future__ import annotations

import numpy as np

from twostream.query.pool import Pool, spread_out, top
from twostream.query.strategy import Selection, Strategy, register_strategy

SMALLEST = 1e-12


def entropy(probability: np.ndarray) -> np.ndarray:
    """Shannon entropy of two answers, in nats: -p log p - (1 - p) log(1 - p)."""
    p = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return -p * np.log(p) - (1 - p) * np.log1p(-p)


class MostUncertain(Strategy):
    """The largest of one utility per candidate; a concrete one says which."""

    needs_probability = True
    utility_name = "utility"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        """(A,) utility of (M, A) probabilities."""
        raise NotImplementedError

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        assert pool.probability is not None
        utilities = spread_out(pool, self.utility(pool.probability[:, pool.askable]))
        rows = top(pool, utilities[pool.askable], batch_size, rng)
        return Selection(rows, utilities, [{self.utility_name: float(utilities[r])} for r in rows])


@register_strategy("entropy")
class Entropy(MostUncertain):
    """Largest entropy of the mean probability (Shannon 1948; Settles 2009)."""

    utility_name = "entropy"

    def utility(self, probability: np.ndarray) -> np.ndarray:
        return entropy(probability.mean(0))
