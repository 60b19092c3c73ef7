"""Fitting a stream, and storing it whole. Knows patches as arrays; where they come from is the caller's business."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.errors import InputError
from twostream.streams.config import StreamConfig
from twostream.streams.simclr import Simclr
from twostream.streams.stream import Stream
from twostream.streams.vae import Vae
from twostream.training import FitModule, fit, save_whole

Draw = Callable[[np.random.Generator], np.ndarray]
"""Generator -> one patch, (W, W) float32 in [-1, 1]."""


class StreamModule(FitModule):
    """A stream learning from raw patches."""

    def __init__(self, network: Stream, learning_rate: float) -> None:
        super().__init__(network, learning_rate)
        self._stream = network

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        return self._stream.own_loss(batch, generator)


def _build(width: int, config: StreamConfig) -> Stream:
    if config.method == "simclr":
        return Simclr(width, config.latent_dim, config.hidden_dims, config.temperature)
    return Vae(width, config.latent_dim, config.hidden_dims, config.kld_weight)


def new_stream(width: int, config: StreamConfig, seed: int) -> Stream:
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
        return _build(width, config)


def fit_stream(
    network: Stream, draw: Draw, config: StreamConfig, *, seed: int, resume_path: Path, name: str
) -> list[float]:
    """Fit ``network`` in place to patches; sample t is drawn with a generator seeded by (seed, t).

    Returns:
        The loss of every step.
    """

    def sample(t: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, t])
        return torch.from_numpy(network.views(draw(rng), rng))

    return fit(
        StreamModule(network, config.learning_rate),
        sample,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        resume_path=resume_path,
        description=f"train {name} stream",
    )


def save_stream(network: Stream, width: int, config: StreamConfig, losses: Sequence[float], path: Path) -> None:
    state = {"weights": network.state_dict(), "width": width, "config": config.model_dump(mode="json")}
    save_whole(state | {"losses": list(losses)}, path)


def load_stream(path: Path) -> Stream:
    """The stream stored at ``path``.

    Raises:
        InputError: missing, or no stream.
    """
    try:
        state = torch.load(path, weights_only=True)
        config = StreamConfig.model_validate(state["config"])
        network = _build(state["width"], config)
        network.load_state_dict(state["weights"])
    except (OSError, KeyError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is no checkpoint of a stream: {error}. Run `twostream embed` again.") from None
    return network.eval()
