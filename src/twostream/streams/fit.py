"""Fitting a stream, and storing it whole. Knows patches as arrays; where they come from is the caller's business."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.errors import InputError
from twostream.streams.config import VaeConfig
from twostream.streams.vae import Vae, sample_latent, vae_loss
from twostream.training import FitModule, fit, save_whole

Draw = Callable[[np.random.Generator], np.ndarray]
"""Generator -> one patch, (W, W) float32 in [-1, 1]."""


class VaeModule(FitModule):
    """The stream's own loss."""

    def __init__(self, network: Vae, config: VaeConfig, learning_rate: float) -> None:
        super().__init__(network, learning_rate)
        self._vae = network
        self._kld_weight = config.kld_weight

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        mean, log_variance = self._vae.encode(batch)
        latent = sample_latent(mean, log_variance, generator)
        return vae_loss(batch, self._vae.decode(latent), mean, log_variance, self._kld_weight)


def new_stream(width: int, config: VaeConfig, seed: int) -> Vae:
    """An untrained stream with weights that depend on ``seed`` alone.

    Raises:
        InputError: the strides do not divide the width, or the groups of the normalisation the channels.
    """
    if width % (1 << len(config.hidden_dims)):
        raise InputError(
            f"patches.width_px is {width}; {len(config.hidden_dims)} hidden_dims need a multiple of "
            f"{1 << len(config.hidden_dims)}."
        )
    bad = [d for d in config.hidden_dims if d > 16 and d % 16]
    if bad:
        raise InputError(f"hidden_dims holds {bad[0]}; expected multiples of 16 (the groups of the normalisation).")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Vae(width, config.latent_dim, config.hidden_dims)


def fit_stream(network: Vae, draw: Draw, config: VaeConfig, *, seed: int, resume_path: Path, name: str) -> list[float]:
    """Fit ``network`` in place to patches; sample t is drawn with a generator seeded by (seed, t).

    Returns:
        The loss of every step.
    """

    def sample(t: int) -> torch.Tensor:
        return torch.from_numpy(draw(np.random.default_rng([seed, t]))[None])

    return fit(
        VaeModule(network, config, config.learning_rate),
        sample,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        resume_path=resume_path,
        description=f"train {name} stream",
    )


def save_stream(network: Vae, width: int, config: VaeConfig, losses: Sequence[float], path: Path) -> None:
    state = {"weights": network.state_dict(), "width": width, "config": config.model_dump(mode="json")}
    save_whole(state | {"losses": list(losses)}, path)


def load_stream(path: Path) -> Vae:
    """The stream stored at ``path``.

    Raises:
        InputError: missing, or no stream.
    """
    try:
        state = torch.load(path, weights_only=True)
        config = VaeConfig.model_validate(state["config"])
        network = Vae(state["width"], config.latent_dim, config.hidden_dims)
        network.load_state_dict(state["weights"])
    except (OSError, KeyError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is no checkpoint of a stream: {error}. Run `twostream embed` again.") from None
    return network.eval()
