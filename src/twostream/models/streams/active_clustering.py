"""Active clustering: fine-tuning of the unsupervised stream on the answers (Lin 2020, figure 2, red loop).

The published code does not contain this step and its loss is not known to us (docs/method.md, Pipeline). Ours follows
deep embedded clustering (Xie 2016), with the answers as supervision:

    L = L_own + a * L_con + b * L_dec

    L_own   the stream's own training loss, on raw patches. It keeps the features descriptive of all images; without it
            they could collapse to two points, one per answer.
    L_con   the contrastive loss (``contrast.py``) between answered candidates, with their answers as labels.
    L_dec   the mean of KL(p_i || q_i) over answered and unanswered candidates. It makes clusters compact, and moves
            candidates to clusters in which most answers agree with their own.

With features z_i, cluster centres m_j, a scale s, and answers y_i (1 true, 0 false),

    q_ij = (1 + |z_i - m_j|^2 / s^2)^-1 / sum_k (the same for k)           soft assignment (Xie 2016, eq. 1)
    p_ij = (w_ij q_ij^2 / f_j) / sum_k (the same for k),  f_j = sum_i q_ij target distribution (Xie 2016, eq. 3, with w)
    w_ij = 1 if candidate i is unanswered; r_j if y_i is 1; 1 - r_j if y_i is 0
    r_j  = (1 + sum_i q_ij [y_i = 1]) / (2 + sum_i q_ij [i is answered])   share of true answers in cluster j

Sums over i run over the batch, and no gradient flows through p. The centres start as the k-means centres of all
candidates and are trained with the stream; s^2 is the mean squared distance of a candidate to its nearest centre at the
start.

Knows torch and patches with their answers; must not know ledgers, volumes or rounds.
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
"""The contrastive loss needs, for every answered candidate, another one with the same answer."""
UNANSWERED = -1
"""Value of ``y_B`` for candidates without an answer."""


def soft_assignment(latent_BD: torch.Tensor, center_KD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """q in the module's docstring: how much each candidate belongs to each cluster.

    Args:
        latent_BD: float, features of B candidates.
        center_KD: float, K cluster centres.
        scale: scalar, s.

    Returns:
        (B, K); each row sums to 1.
    """
    near = 1 / (1 + (latent_BD[:, None] - center_KD[None]).square().sum(2) / scale.square())
    return near / near.sum(1, keepdim=True)


def target_distribution(q_BK: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """p in the module's docstring: the soft assignment that training aims at.

    Args:
        q_BK: soft assignment.
        y_B: integer; 1 true, 0 false, ``UNANSWERED``.

    Returns:
        (B, K) without a gradient; each row sums to 1.
    """
    q = q_BK.detach()
    answered = (y_B != UNANSWERED).to(q)
    share = (1 + (q * (y_B == 1).to(q)[:, None]).sum(0)) / (2 + (q * answered[:, None]).sum(0))
    agreement = torch.where(y_B[:, None] == 1, share, 1 - share)
    weight = torch.where(y_B[:, None] == UNANSWERED, torch.ones_like(q), agreement)
    p = weight * q.square() / q.sum(0)
    return p / p.sum(1, keepdim=True)


def clustering_loss(q_BK: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """L_dec in the module's docstring: the mean of KL(p || q) over the batch.

    Args:
        q_BK: soft assignment.
        y_B: integer; 1 true, 0 false, ``UNANSWERED``.

    Returns:
        Scalar.
    """
    p = target_distribution(q_BK, y_B)
    return (p * (p.log() - q_BK.log())).sum(1).mean()


class _WithCenters(nn.Module):
    """The stream together with the cluster centres, so that both are trained and both are in the checkpoint."""

    def __init__(self, stream: Stream, center_KD: np.ndarray, scale: float) -> None:  # noqa: N803
        super().__init__()
        self.stream = stream
        self.centers = nn.Parameter(torch.from_numpy(center_KD))
        self.scale = nn.Parameter(torch.tensor(scale), requires_grad=False)


class _ActiveClusteringModule(StreamModule):
    """The training of stream and centres, for ``training.fit``."""

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
    """t -> training sample t: a raw patch, the patch of an answered candidate, its answer, and an unanswered patch.

    Can be pickled for the processes of several GPUs. Attributes as the arguments of ``fine_tune``.
    """

    raw: RawViews
    answered: np.ndarray
    y: np.ndarray
    unanswered: np.ndarray
    planes: str
    seed: int

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
        rng = np.random.default_rng([self.seed, t, 1])
        value = int(rng.integers(2))  # true and false equally often, however rare one of them is
        answered = self._view(self.answered[rng.choice(np.flatnonzero(self.y == value))], rng)
        return self.raw(t), answered, value, self._view(self._unanswered(rng), rng)

    def _view(self, patch: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """A patch (P, W, W) uint8 as network input, augmented so that a hundred answers cannot be memorised."""
        shown = image_input(turned(patch, self.planes, rng, upright=True))
        return torch.from_numpy(self.raw.network.view(shown, rng))

    def _unanswered(self, rng: np.random.Generator) -> np.ndarray:
        source = self.unanswered if len(self.unanswered) else self.answered
        return source[rng.integers(len(source))]


def can_teach(y: np.ndarray, config: ActiveClusteringConfig) -> bool:
    """Whether fine-tuning is switched on, and ``y``, (N,) of 0 and 1, holds at least two answers of either kind."""
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
        draw: draws a raw patch, as in the stream's first training.
        answered: (N, P, W, W) uint8, aligned image patches of answered candidates.
        y: (N,) answers of these, 1 true or 0 false.
        unanswered: (M, P, W, W) uint8, aligned image patches of other candidates.
        config: settings of the fine-tuning.
        stream_config: settings of the stream. Each step uses ``batch_size`` raw, answered and unanswered patches each.
        planes: ``PatchConfig.planes``, the meaning of the P channels.
        seed: seed of the samples and of k-means.
        resume_path: checkpoint of a training that is not finished; the caller deletes it afterwards.

    Returns:
        The loss of every step; empty, with the network unchanged, unless ``can_teach(y, config)``.

    Raises:
        TrainingError: the loss is not finite.
    """
    if not can_teach(y, config):
        return []
    features = encode(network, image_input(np.concatenate([answered, unanswered])))
    means = KMeans(min(config.num_clusters, len(features)), n_init=3, random_state=seed % 2**32).fit(features)
    nearest = means.transform(features).min(1)
    scale = float(np.sqrt(np.square(nearest).mean())) or 1.0
    centers = _WithCenters(network, means.cluster_centers_, scale)
    centers.centers.requires_grad_(config.clustering_weight > 0)  # unused: several GPUs would wait for its gradient
    module, raw = _ActiveClusteringModule(centers, config, stream_config), RawViews(network, draw, seed)
    answers_digest = hashlib.sha256(
        b"".join(np.ascontiguousarray(a).tobytes() for a in (answered, y, unanswered))
    ).hexdigest()
    module.fingerprint |= {
        "active_clustering": config.model_dump(),
        "seed": seed,
        "samples": raw.digest,
        "answers": answers_digest,
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
