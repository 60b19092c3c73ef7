"""Encoding: patches to latents, with a trained stream. Knows torch and arrays; must not know candidates or rounds."""

from __future__ import annotations

import numpy as np
import torch

from twostream.models.streams.stream import Stream

BATCH_SIZE = 256
"""Patches that are encoded at once."""


def encode(network: Stream, patches: np.ndarray) -> np.ndarray:
    """Latents of patches, computed on the GPU where there is one.

    Args:
        network: a trained stream; left on the CPU in evaluation mode.
        patches: (N, P, W, W) float32 in [-1, 1]; N may be 0.

    Returns:
        (N, D) float32.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(patches), BATCH_SIZE):
            batch = torch.from_numpy(patches[start : start + BATCH_SIZE]).to(device)
            parts.append(network.features(batch).float().cpu().numpy())
    network.cpu()
    return np.concatenate(parts) if parts else np.zeros((0, network.latent_dim), np.float32)
