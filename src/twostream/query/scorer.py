"""The one probability of "a person would say True" that all strategies and scores share."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from twostream.query.pool import Features, check_pool

INVERSE_REGULARISATION = 0.1
"""Few answers, many latents: a strong prior towards "score and size say little more than the average"."""


class Scorer:
    """S's own score until both answers have been given, then a regularised logistic model on what is known.

    Features of the model: logit of S's score, logarithm of the size, and both streams, standardised.
    """

    def predict(self, X: Features, y: np.ndarray, *, score: np.ndarray, num_voxels: np.ndarray) -> np.ndarray:  # noqa: N803
        """Probability of a True.

        Args:
            X: (N, D), or {stream: (N, D)}.
            y: (N,) 1, 0, or NaN where unanswered.
            score: (N,) S's mean probability inside each candidate.
            num_voxels: (N,) size of each candidate.

        Returns:
            (N,) float in [0, 1].
        """
        pool = check_pool(X, y, score)
        if len(np.unique(pool.y[pool.answered])) < 2:
            return np.asarray(score, float)
        clipped = np.clip(score, 1e-4, 1 - 1e-4)
        known = np.stack([np.log(clipped / (1 - clipped)), np.log(num_voxels)], axis=1)
        features = np.concatenate([known, np.concatenate(list(pool.streams.values()), axis=1)], axis=1)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000))
        model.fit(features[pool.answered], pool.y[pool.answered])
        return model.predict_proba(features)[:, 1]
