"""Patches to latents."""

from __future__ import annotations

import numpy as np
import torch

from twostream.streams.stream import Stream

BATCH_SIZE = 256


def image_input(image: np.ndarray) -> np.ndarray:
    """(..., W, W) uint8 -> float32 in [-1, 1]."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)


def mask_input(mask: np.ndarray) -> np.ndarray:
    """(..., W, W) int8 of -1, 0, 1 -> float32."""
    return mask.astype(np.float32)


def encode(network: Stream, patches: np.ndarray) -> np.ndarray:
    """Features: (N, W, W) float32 in [-1, 1] -> (N, D) float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(patches), BATCH_SIZE):
            batch = torch.from_numpy(patches[start : start + BATCH_SIZE])[:, None].to(device)
            parts.append(network.features(batch).float().cpu().numpy())
    network.cpu()
    return np.concatenate(parts) if parts else np.zeros((0, network.latent_dim), np.float32)
