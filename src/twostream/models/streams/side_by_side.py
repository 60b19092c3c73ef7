"""Two sets of features side by side as one stream: the mask VAE's latents and S's own features (``vae+s``).

Scorer and strategies standardise the columns of a stream, so that of two sets the one with more columns would outweigh
the other: S has 100 to 200 features, the VAE 16. S's are therefore reduced to as many principal components as the VAE
has latents, and every column gets mean 0 and deviation 1. Knows arrays; must not know torch, candidates or rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONSTANT = 1e-6
"""A column whose deviation is below this share of its size varies by rounding only; it becomes 0."""


@dataclass(frozen=True)
class SideBySide:
    """The map from two sets of features to one, fitted to the candidates of a round.

    Attributes:
        own_mean, own_width: (D,) float64: mean and deviation of the VAE's latents; the width of a constant column is
            infinite.
        s_mean, s_width: (F,) float64, the same of S's features.
        components: (F, K) float64: from S's standardised features to K components of deviation 1.
    """

    own_mean: np.ndarray
    own_width: np.ndarray
    s_mean: np.ndarray
    s_width: np.ndarray
    components: np.ndarray

    @classmethod
    def fitted(cls, own: np.ndarray, s: np.ndarray) -> SideBySide:
        """Fit to candidates.

        Args:
            own: (N, D) float, latents of the VAE; N may be 0.
            s: (N, F) float, features of S.

        Returns:
            K is D, or F where S has fewer features.
        """
        own_mean, own_width = _mean_and_width(own)
        s_mean, s_width = _mean_and_width(s)
        standard = (s.astype(float) - s_mean) / s_width
        # Of the covariance, because there are far more candidates than features.
        variance, vectors = np.linalg.eigh(standard.T @ standard / max(1, len(s)))
        first = np.argsort(-variance, kind="stable")[: min(own.shape[1], s.shape[1])]
        variance, vectors = variance[first], vectors[:, first]
        vectors = vectors * np.where(vectors[np.abs(vectors).argmax(0), np.arange(len(first))] < 0, -1.0, 1.0)
        width = np.sqrt(np.maximum(variance, 0))
        width = np.where(width > CONSTANT, width, np.inf)
        return cls(own_mean, own_width, s_mean, s_width, vectors / width)

    def __call__(self, own: np.ndarray, s: np.ndarray) -> np.ndarray:
        """(N, D + K) float32 of (N, D) latents of the VAE and (N, F) features of S."""
        left = (own.astype(float) - self.own_mean) / self.own_width
        right = ((s.astype(float) - self.s_mean) / self.s_width) @ self.components
        return np.hstack([left, right]).astype(np.float32)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All attributes by name, to be stored; ``SideBySide(**arrays)`` is the same map."""
        return dict(vars(self))


def _mean_and_width(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of every column; an infinite deviation where it is constant, so that it becomes 0."""
    if len(features) == 0:
        return np.zeros(features.shape[1]), np.full(features.shape[1], np.inf)
    features = features.astype(float)
    mean, width = features.mean(0), features.std(0)
    return mean, np.where(width > CONSTANT * np.abs(mean), width, np.inf)
