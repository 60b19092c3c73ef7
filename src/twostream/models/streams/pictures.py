"""What a stream has learned, for the eye: reconstructions, samples, interpolations, and which patches it finds alike.

Knows streams and patches; must not know projects or reports.
"""

from __future__ import annotations

import numpy as np
import torch

from twostream.models.streams.encode import encode
from twostream.models.streams.stream import Stream
from twostream.models.streams.vae import Vae

NUM_SHOWN = 8
NUM_NEIGHBOUR_ROWS = 4
MAX_COMPARED = 2048
"""Patches among which neighbours are looked for."""


def pictures(network: Stream, patches: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Rows of pictures by their name.

    Args:
        network: trained.
        patches: (N, P, W, W) float32 in [-1, 1], N at least 1.
        seed: of what is shown.

    Returns:
        (rows, columns, W, W) uint8 each, central planes. "neighbours": a patch, then those with the nearest features.
        A VAE besides: "reconstructions" (patches above, what is left of them below), "samples" (of the prior) and
        "interpolations" (between the latents of two patches).
    """
    rng = np.random.default_rng(seed)
    compared = patches[rng.permutation(len(patches))[:MAX_COMPARED]]
    latents = encode(network, compared)
    rows = []
    for row in range(min(NUM_NEIGHBOUR_ROWS, len(compared))):
        distance = np.square(latents - latents[row]).sum(1)
        distance[row] = -1  # itself first, should another patch have the very same features
        rows.append(compared[np.argsort(distance, kind="stable")[:NUM_SHOWN]])
    result = {"neighbours": np.stack(rows)}
    if isinstance(network, Vae):
        shown = compared[:NUM_SHOWN]
        mean = torch.from_numpy(latents)
        noise = torch.from_numpy(rng.standard_normal((NUM_SHOWN, network.latent_dim)).astype(np.float32))
        between = torch.linspace(0, 1, NUM_SHOWN)[:, None]
        first = mean[0]
        last = mean[int((mean[: len(shown)] - first).square().sum(1).argmax())]  # the one most unlike it
        with torch.inference_mode():
            result["reconstructions"] = np.stack([shown, network.decode(mean[: len(shown)]).numpy()])
            result["samples"] = network.decode(noise).numpy()[None]
            result["interpolations"] = network.decode(first + between * (last - first)).numpy()[None]
    middle = patches.shape[1] // 2
    return {name: _grey(planes[:, :, middle]) for name, planes in result.items()}


def _grey(planes: np.ndarray) -> np.ndarray:
    return np.clip(np.rint((planes + 1) * 127.5), 0, 255).astype(np.uint8)
