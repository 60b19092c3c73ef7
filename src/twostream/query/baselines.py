"""Rivals of two-stream."""

from __future__ import annotations

import numpy as np

from twostream.query.strategy import Pool, Selection, Strategy, register_strategy


@register_strategy("random")
class Random(Strategy):
    """Candidates at random. A candidate is foreground already, so this is foreground-aware random."""

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = rng.choice(pool.askable, batch_size, replace=False)
        return Selection(rows, np.full(len(pool.y), np.nan), [{} for _ in rows])


@register_strategy("entropy")
class Entropy(Strategy):
    """Candidates whose probability has the largest entropy (Shannon 1948): -p log p - (1-p) log(1-p)."""

    needs_probability = True

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        assert pool.probability is not None
        p = np.clip(pool.probability.mean(0), 1e-12, 1 - 1e-12)
        entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
        utilities = np.full(len(pool.y), np.nan)
        utilities[pool.askable] = entropy[pool.askable]
        tie_break = rng.permutation(len(pool.askable))
        rows = pool.askable[np.lexsort((tie_break, -entropy[pool.askable]))[:batch_size]]
        return Selection(rows, utilities, [{"entropy": float(entropy[r])} for r in rows])
