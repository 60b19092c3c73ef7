"""Pictures that show what a stream has learned: nearest neighbours and, for a VAE, what its decoder generates.

Knows streams and patches; must not know projects or reports.
"""

from __future__ import annotations

import numpy as np
import torch

from twostream.models.streams.encode import encode
from twostream.models.streams.stream import Stream
from twostream.models.streams.vae import Vae

NUM_SHOWN = 8
"""Patches in a row of pictures."""
NUM_NEIGHBOUR_ROWS = 4
"""Patches of which the nearest neighbours are shown."""
MAX_COMPARED = 2048
"""Number of randomly chosen patches among which the neighbours are searched."""


def pictures(network: Stream, patches: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Pictures of a stream, for the report.

    Args:
        network: a trained stream.
        patches: (N, P, W, W) float32 in [-1, 1], N at least 1.
        seed: chooses the patches and the samples that are shown.

    Returns:
        By name, (rows, columns, W, W) uint8, the middle plane of each patch. "neighbours": in each row a patch, then
        the patches with the nearest features. Of a VAE also "reconstructions" (patches in the first row, their
        reconstructions in the second), "samples" (decoded draws from the prior) and "interpolations" (decoded points on
        the line between the latents of two patches).
    """
    rng = np.random.default_rng(seed)
    compared = patches[rng.permutation(len(patches))[:MAX_COMPARED]]
    latents = encode(network, compared)
    rows = []
    for row in range(min(NUM_NEIGHBOUR_ROWS, len(compared))):
        distance = np.square(latents - latents[row]).sum(1)
        distance[row] = -1  # so that the patch itself comes first even if another one has equal features
        rows.append(compared[np.argsort(distance, kind="stable")[:NUM_SHOWN]])
    result = {"neighbours": np.stack(rows)}
    if isinstance(network, Vae):
        shown = compared[:NUM_SHOWN]
        mean = torch.from_numpy(latents)
        noise = torch.from_numpy(rng.standard_normal((NUM_SHOWN, network.latent_dim)).astype(np.float32))
        between = torch.linspace(0, 1, NUM_SHOWN)[:, None]
        first = mean[0]
        last = mean[int((mean[: len(shown)] - first).square().sum(1).argmax())]  # the most different one
        with torch.inference_mode():
            result["reconstructions"] = np.stack([shown, network.decode(mean[: len(shown)]).numpy()])
            result["samples"] = network.decode(noise).numpy()[None]
            result["interpolations"] = network.decode(first + between * (last - first)).numpy()[None]
    middle = patches.shape[1] // 2
    return {name: _grey(planes[:, :, middle]) for name, planes in result.items()}


def _grey(planes: np.ndarray) -> np.ndarray:
    """Float in [-1, 1] -> uint8 grey values, any shape."""
    return np.clip(np.rint((planes + 1) * 127.5), 0, 255).astype(np.uint8)
