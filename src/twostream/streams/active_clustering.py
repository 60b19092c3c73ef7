"""Active clustering: the unsupervised stream is fine-tuned on the new answers (Lin 2020, figure 2, red loop).

The paper's loss is not published. Here it is

    L = L_own + weight * L_con,

L_own being the stream's own loss on raw patches, which stays, so that the space goes on describing all images and does
not collapse onto two answers; and L_con the contrastive loss (``contrast.py``) on the features of answered patches,
with the answers as labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.streams.config import ActiveClusteringConfig
from twostream.streams.contrast import contrastive_loss
from twostream.streams.fit import Draw, StreamModule
from twostream.streams.stream import Stream
from twostream.training import fit

MIN_ANSWERS_PER_CLASS = 2
"""An anchor needs at least one other answer of its kind."""


class _ActiveClusteringModule(StreamModule):
    def __init__(self, network: Stream, config: ActiveClusteringConfig) -> None:
        super().__init__(network, config.learning_rate)
        self._config = config

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        raw, answered, y = batch
        own = super().loss(raw, generator)
        features = self._stream.features(answered)
        return own + self._config.weight * contrastive_loss(features, y, self._config.temperature)


def fine_tune(
    network: Stream,
    draw: Draw,
    answered: np.ndarray,
    y: np.ndarray,
    config: ActiveClusteringConfig,
    *,
    batch_size: int,
    seed: int,
    resume_path: Path,
) -> list[float]:
    """Fine-tune ``network`` in place; sample t is drawn with a generator seeded by (seed, t).

    Args:
        network: the unsupervised stream.
        draw: a raw patch from anywhere in the image.
        answered: (N, W, W) float32 in [-1, 1], aligned image patches of answered candidates.
        y: (N,) 0 or 1.
        config: settings of the fine-tuning.
        batch_size: raw patches per step, and as many answered ones.

    Returns:
        The loss of every step; empty (and the network untouched) while either answer is too rare.
    """
    rows = [np.flatnonzero(y == value) for value in (0, 1)]
    if min(map(len, rows)) < MIN_ANSWERS_PER_CLASS or config.num_steps == 0:
        return []

    def sample(t: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        rng = np.random.default_rng([seed, t])
        value = int(rng.integers(2))  # both answers equally often, however rare one of them is
        row = int(rng.choice(rows[value]))
        patch = answered[row][::-1].copy() if rng.random() < 0.5 else answered[row]
        return torch.from_numpy(network.views(draw(rng), rng)), torch.from_numpy(patch[None]), value

    return fit(
        _ActiveClusteringModule(network, config),
        sample,
        num_steps=config.num_steps,
        batch_size=batch_size,
        resume_path=resume_path,
        description="fine-tune unsupervised stream",
    )
