"""Active clustering: the unsupervised stream is fine-tuned on the new answers (Lin 2020, figure 2, red loop).

The paper's loss is not published. Ours follows deep embedded clustering (Xie 2016), with the answers as supervision:

    L = L_own + a * L_con + b * L_dec

    L_own   the stream's own loss on raw patches, which stays: the space goes on describing all images and does not
            collapse onto two answers.
    L_con   the contrastive loss (``contrast.py``) on the features of answered patches, answers as labels.
    L_dec   KL(p || q) of answered and unanswered candidates alike: clusters sharpen, and take sides.

With features z_i, cluster centres m_j and the scale s,

    q_ij = (1 + |z_i - m_j|^2 / s^2)^-1 / sum_k (same for k)               soft assignment (Xie 2016, eq. 1)
    p_ij = w_ij q_ij^2 / f_j / sum_k (same for k),   f_j = sum_i q_ij      target (eq. 3), a constant to the gradient
    w_ij = 1 if i is unanswered, else the share of clusters' answers that agree with y_i:
           r_j if y_i is 1, 1 - r_j if it is 0,   r_j = (1 + sum q_ij [y_i = 1]) / (2 + sum q_ij [y_i answered])

so an answered candidate is drawn to those of its clusters whose other answers agree with its own. Centres begin as the
k-means of all candidates and are learned; s^2 is the mean squared distance to the nearest of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn

from twostream.candidates.patches import turned
from twostream.models.streams.config import ActiveClusteringConfig, StreamConfig
from twostream.models.streams.contrast import contrastive_loss
from twostream.models.streams.draw import Draw, image_input
from twostream.models.streams.encode import encode
from twostream.models.streams.fit import RawViews, StreamModule
from twostream.models.streams.stream import Stream
from twostream.models.training import fit

MIN_ANSWERS_PER_CLASS = 2
"""An anchor needs at least one other answer of its kind."""
UNANSWERED = -1


def soft_assignment(latent_BD: torch.Tensor, center_KD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """q of the module's docstring, (B, K)."""
    near = 1 / (1 + (latent_BD[:, None] - center_KD[None]).square().sum(2) / scale.square())
    return near / near.sum(1, keepdim=True)


def target_distribution(q_BK: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """p of the module's docstring, (B, K), without a gradient; ``y_B`` holds 1, 0, or -1 where unanswered."""
    q = q_BK.detach()
    answered = (y_B != UNANSWERED).to(q)
    share = (1 + (q * (y_B == 1).to(q)[:, None]).sum(0)) / (2 + (q * answered[:, None]).sum(0))
    agreement = torch.where(y_B[:, None] == 1, share, 1 - share)
    weight = torch.where(y_B[:, None] == UNANSWERED, torch.ones_like(q), agreement)
    p = weight * q.square() / q.sum(0)
    return p / p.sum(1, keepdim=True)


def clustering_loss(q_BK: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Mean over the batch of KL(p || q)."""
    p = target_distribution(q_BK, y_B)
    return (p * (p.log() - q_BK.log())).sum(1).mean()


class _WithCenters(nn.Module):
    """The stream and the centres it clusters around: both are learned, and a checkpoint holds both."""

    def __init__(self, stream: Stream, center_KD: np.ndarray, scale: float) -> None:  # noqa: N803
        super().__init__()
        self.stream = stream
        self.centers = nn.Parameter(torch.from_numpy(center_KD))
        self.scale = nn.Parameter(torch.tensor(scale), requires_grad=False)


class _ActiveClusteringModule(StreamModule):
    def __init__(self, network: _WithCenters, config: ActiveClusteringConfig, stream_config: StreamConfig) -> None:
        super().__init__(network.stream, config.learning_rate, stream_config)
        self.network, self._clusters, self._config = network, network, config

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        raw, answered, y, unanswered = batch
        config = self._config
        total = super().loss(raw, generator)
        features = self._stream.features(torch.cat([answered, unanswered]))
        if config.weight:
            total = total + config.weight * contrastive_loss(features[: len(answered)], y, config.temperature)
        if config.clustering_weight:
            q = soft_assignment(features, self._clusters.centers, self._clusters.scale)
            every_y = torch.cat([y, torch.full_like(y, UNANSWERED)])
            total = total + config.clustering_weight * clustering_loss(q, every_y)
        return total


@dataclass(frozen=True)
class _Sample:
    """Sample t: a raw patch, an answered one with its answer, and one that is not answered yet."""

    raw: RawViews
    answered: np.ndarray
    y: np.ndarray
    unanswered: np.ndarray
    planes: str
    seed: int

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
        rng = np.random.default_rng([self.seed, t, 1])
        value = int(rng.integers(2))  # both answers equally often, however rare one of them is
        answered = self._view(self.answered[rng.choice(np.flatnonzero(self.y == value))], rng)
        return self.raw(t), answered, value, self._view(self._unanswered(rng), rng)

    def _view(self, patch: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """As the stream is used to see patches: a hundred answers are soon known by heart, their views are not."""
        shown = image_input(turned(patch, self.planes, rng, upright=True))
        return torch.from_numpy(self.raw.network.view(shown, rng))

    def _unanswered(self, rng: np.random.Generator) -> np.ndarray:
        source = self.unanswered if len(self.unanswered) else self.answered
        return source[rng.integers(len(source))]


def can_teach(y: np.ndarray, config: ActiveClusteringConfig) -> bool:
    """Whether ``y``, (N,) 0 or 1, holds enough of both answers, and anything is to be learned at all."""
    return config.num_steps > 0 and min(int((y == 0).sum()), int((y == 1).sum())) >= MIN_ANSWERS_PER_CLASS


def fine_tune(
    network: Stream,
    draw: Draw,
    answered: np.ndarray,
    y: np.ndarray,
    unanswered: np.ndarray,
    config: ActiveClusteringConfig,
    stream_config: StreamConfig,
    *,
    planes: str,
    seed: int,
    resume_path: Path,
) -> list[float]:
    """Fine-tune ``network`` in place; sample t is drawn with a generator seeded by (seed, t).

    Args:
        network: the unsupervised stream.
        draw: a raw patch, as the stream was trained on.
        answered: (N, P, W, W) uint8, aligned image patches of answered candidates.
        y: (N,) 0 or 1.
        unanswered: (M, P, W, W) uint8, of other candidates.
        config: settings of the fine-tuning.
        stream_config: settings of the stream; a step sees ``batch_size`` patches of each kind.
        planes: of ``PatchConfig``.

    Returns:
        The loss of every step; empty (and the network untouched) while either answer is too rare.
    """
    if not can_teach(y, config):
        return []
    features = encode(network, image_input(np.concatenate([answered, unanswered])))
    means = KMeans(min(config.num_clusters, len(features)), n_init=3, random_state=seed % 2**32).fit(features)
    nearest = means.transform(features).min(1)
    scale = float(np.sqrt(np.square(nearest).mean())) or 1.0
    centers = _WithCenters(network, means.cluster_centers_, scale)
    centers.centers.requires_grad_(config.clustering_weight > 0)  # else several GPUs wait for its gradient
    module, raw = _ActiveClusteringModule(centers, config, stream_config), RawViews(network, draw, seed)
    taught = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in (answered, y, unanswered))).hexdigest()
    module.fingerprint |= {
        "active_clustering": config.model_dump(),
        "seed": seed,
        "samples": raw.digest,
        "answers": taught,
    }
    return fit(
        module,
        _Sample(raw, answered, y, unanswered, planes, seed),
        num_steps=config.num_steps,
        batch_size=stream_config.batch_size,
        resume_path=resume_path,
        description="fine-tune unsupervised stream",
        precision=stream_config.precision,
        devices=stream_config.devices,
    )
