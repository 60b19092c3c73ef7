"""Patches to latents."""

from __future__ import annotations

import numpy as np
import torch

from twostream.models.streams.stream import Stream

BATCH_SIZE = 256


def encode(network: Stream, patches: np.ndarray) -> np.ndarray:
    """Features: (N, P, W, W) float32 in [-1, 1] -> (N, D) float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(patches), BATCH_SIZE):
            batch = torch.from_numpy(patches[start : start + BATCH_SIZE]).to(device)
            parts.append(network.features(batch).float().cpu().numpy())
    network.cpu()
    return np.concatenate(parts) if parts else np.zeros((0, network.latent_dim), np.float32)
