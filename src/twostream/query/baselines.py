"""Candidates at random: active learning is worth its effort only if it beats these."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from twostream.query.pool import Pool
from twostream.query.strategy import Selection, Strategy, register_strategy

DRAWS_AT_ONCE = 4
"""Points of space drawn for each candidate that is still wanted."""
MANY_DRAWS = 50
"""Draws after which the rest is taken at random: candidates at the same place share one cell, and only one is found."""


@register_strategy("random")
class Random(Strategy):
    """Candidates at random. A candidate is foreground already, so this is foreground-aware random."""

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        rows = rng.choice(pool.askable, batch_size, replace=False)
        return Selection(rows, np.full(len(pool.y), np.nan), [{} for _ in rows])


@register_strategy("random-space")
class RandomSpace(Strategy):
    """The candidates nearest to random points of space.

    Random over space is not foreground-aware: where candidates are sparse, each covers much space and is likelier to be
    asked. Points are drawn evenly from the box that holds all candidates.
    """

    needs_position = True

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        assert pool.position_nm is not None
        place = pool.position_nm[pool.askable]
        tree = cKDTree(place)
        low, high = place.min(0), place.max(0)
        chosen: dict[int, None] = {}
        for _ in range(MANY_DRAWS):
            points = rng.uniform(low, high, (DRAWS_AT_ONCE * (batch_size - len(chosen)), 3))
            chosen.update(dict.fromkeys(tree.query(points)[1].tolist()))
            if len(chosen) >= batch_size:
                break
        picked = np.array(list(chosen)[:batch_size], np.int64)
        if len(picked) < batch_size:
            rest = np.setdiff1d(np.arange(len(place)), picked)
            picked = np.concatenate([picked, rng.choice(rest, batch_size - len(picked), replace=False)])
        return Selection(pool.askable[picked], np.full(len(pool.y), np.nan), [{} for _ in picked])
