"""Active clustering: the unsupervised stream is fine-tuned on the new answers (Lin 2020, figure 2, red loop).

The paper's loss is not published. Here it is

    L = L_vae + weight * L_con,
    L_con = mean over anchors i of
            -1/|P(i)| * sum over p in P(i) of log( exp(z_i.z_p / t) / sum_{a != i} exp(z_i.z_a / t) )

the supervised contrastive loss (Khosla 2020, eq. 2) on the unit-length latent means z of answered patches, P(i) being
the other answered patches of the same answer as i. The stream's own loss on raw patches stays, so that the space
goes on describing all images and does not collapse onto two answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.streams.config import ActiveClusteringConfig, VaeConfig
from twostream.streams.fit import Draw, VaeModule
from twostream.streams.vae import Vae
from twostream.training import fit

MIN_ANSWERS_PER_CLASS = 2
"""An anchor needs at least one other answer of its kind."""


def supervised_contrastive(latent_BD: torch.Tensor, y_B: torch.Tensor, temperature: float) -> torch.Tensor:  # noqa: N803
    """The contrastive term.

    Args:
        latent_BD: latent means, any length.
        y_B: answers, integer.
        temperature: t > 0.

    Returns:
        Scalar; 0 if no two rows share an answer.
    """
    z = torch.nn.functional.normalize(latent_BD, dim=1)
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_share = similarity - torch.logsumexp(similarity.masked_fill(itself, -torch.inf), dim=1, keepdim=True)
    positive = (y_B[:, None] == y_B[None, :]) & ~itself
    count = positive.sum(1)
    anchors = count > 0
    if not bool(anchors.any()):
        return latent_BD.sum() * 0
    return -((log_share * positive).sum(1)[anchors] / count[anchors]).mean()


class _ActiveClusteringModule(VaeModule):
    def __init__(self, network: Vae, vae: VaeConfig, config: ActiveClusteringConfig) -> None:
        super().__init__(network, vae, config.learning_rate)
        self._config = config

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        raw, answered, y = batch
        own = super().loss(raw, generator)
        mean, _ = self._vae.encode(answered)
        return own + self._config.weight * supervised_contrastive(mean, y, self._config.temperature)


def fine_tune(
    network: Vae,
    draw: Draw,
    answered: np.ndarray,
    y: np.ndarray,
    vae: VaeConfig,
    config: ActiveClusteringConfig,
    *,
    seed: int,
    resume_path: Path,
) -> list[float]:
    """Fine-tune ``network`` in place; sample t is drawn with a generator seeded by (seed, t).

    Args:
        network: the unsupervised stream.
        draw: a raw patch from anywhere in the image.
        answered: (N, W, W) float32 in [-1, 1], aligned image patches of answered candidates.
        y: (N,) 0 or 1.
        vae: settings of the stream's own loss.
        config: settings of the fine-tuning.

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
        return torch.from_numpy(draw(rng)[None]), torch.from_numpy(patch[None]), value

    return fit(
        _ActiveClusteringModule(network, vae, config),
        sample,
        num_steps=config.num_steps,
        batch_size=vae.batch_size,
        resume_path=resume_path,
        description="fine-tune unsupervised stream",
    )
