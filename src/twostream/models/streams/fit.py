"""Build, train, store and load a stream.

Knows torch and functions that draw patches; must not know candidates, volumes or rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.base.errors import InputError
from twostream.models.streams.config import StreamConfig, misfit
from twostream.models.streams.draw import Draw
from twostream.models.streams.simclr import Simclr
from twostream.models.streams.stream import Shape, Stream
from twostream.models.streams.vae import Vae
from twostream.models.training import DAMAGED, FitModule, fit, save_atomically

NUM_DIGEST_SAMPLES = 16
"""Patches that are hashed to recognise the training data of a checkpoint."""


class StreamModule(FitModule):
    """The training of a stream on patches, for ``training.fit``.

    Args:
        network: the stream.
        learning_rate: its highest value.
        config: settings of the stream.
    """

    def __init__(self, network: Stream, learning_rate: float, config: StreamConfig) -> None:
        warmup_steps = config.warmup_steps
        super().__init__(network, learning_rate, weight_decay=config.weight_decay, warmup_steps=warmup_steps)
        self._stream = network
        self.fingerprint = {"stream": config.model_dump(mode="json")}

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        return self._stream.own_loss(batch, generator)


@dataclass(frozen=True)
class RawViews:
    """t -> training sample t: ``network.views`` of patch t, drawn with a generator seeded by (seed, t)."""

    network: Stream
    draw: Draw
    seed: int

    def __call__(self, t: int) -> torch.Tensor:
        rng = np.random.default_rng([self.seed, t])
        return torch.from_numpy(self.network.views(self.draw(t, rng), rng))

    @property
    def digest(self) -> str:
        """Hash of the first ``NUM_DIGEST_SAMPLES`` patches, which stands for the training data."""
        first = [self.draw(t, np.random.default_rng([self.seed, t])) for t in range(NUM_DIGEST_SAMPLES)]
        return hashlib.sha256(np.stack(first).tobytes()).hexdigest()


def _build(shape_PYX: Shape, config: StreamConfig) -> Stream:  # noqa: N803 - the axes are the name
    if config.method == "simclr":
        return Simclr(shape_PYX, config.latent_dim, config.hidden_dims, config.temperature)
    return Vae(shape_PYX, config.latent_dim, config.hidden_dims, config.kld_weight)


def new_stream(shape_PYX: Shape, config: StreamConfig, seed: int) -> Stream:  # noqa: N803
    """An untrained stream with initial weights that depend on ``seed`` alone.

    Args:
        shape_PYX: planes, height and width of a patch.
        config: settings; ``method`` "simclr" makes a ``Simclr``, any other a ``Vae``.
        seed: seed of the weights.

    Raises:
        InputError: no network with these settings can be built for this width (see ``misfit``).
    """
    if problem := misfit(shape_PYX[-1], config):
        raise InputError(f"{problem}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(shape_PYX, config)


def fit_stream(
    network: Stream, draw: Draw, config: StreamConfig, *, seed: int, resume_path: Path, name: str
) -> list[float]:
    """Train ``network`` in place on patches; sample t is drawn with a generator seeded by (seed, t).

    Args:
        network: a new stream.
        draw: draws a training patch.
        config: settings of the stream.
        seed: seed of the samples.
        resume_path: checkpoint of a training that is not finished; the caller deletes it afterwards.
        name: "supervised" or "unsupervised", for the progress bar.

    Returns:
        The loss of every step.

    Raises:
        TrainingError: the loss is not finite.
    """
    module, sample = StreamModule(network, config.learning_rate, config), RawViews(network, draw, seed)
    module.fingerprint |= {"seed": seed, "samples": sample.digest}
    return fit(
        module,
        sample,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        resume_path=resume_path,
        description=f"train {name} stream",
        precision=config.precision,
        devices=config.devices,
    )


def save_stream(network: Stream, config: StreamConfig, losses: Sequence[float], path: Path) -> None:
    """Write a checkpoint that ``load_stream`` reads: weights, shape and settings, with the losses of the training."""
    state = {"weights": network.state_dict(), "shape": network.shape_PYX, "config": config.model_dump(mode="json")}
    save_atomically(state | {"losses": list(losses)}, path)


def load_stream(path: Path) -> Stream:
    """The stream stored at ``path``, on the CPU in evaluation mode.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint of a stream.
    """
    try:
        state = torch.load(path, weights_only=True)
        config = StreamConfig.model_validate(state["config"])
        network = _build(tuple(state["shape"]), config)
        network.load_state_dict(state["weights"])
    except (*DAMAGED, OSError) as error:
        raise InputError(
            f"{path} is not a checkpoint of a stream: {error}. Put it back from a copy, or delete it and let "
            f"`twostream repair` train it again."
        ) from None
    return network.eval()
