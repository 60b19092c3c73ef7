"""Pools of candidates with both latents, and the shared scorer on them: what the benchmarks of scorer and stopping ask.

Candidates are those of ``weak``; the streams see no answer.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import weak
from common.results import Data
from twostream.models.streams.draw import image_input, mask_input
from twostream.models.streams.encode import encode
from twostream.query import Scorer

NUM_MEMBERS = 20
"""Of a committee of scorers."""


@dataclass(frozen=True)
class Pool:
    """Candidates with everything that scorer and strategies see.

    Attributes:
        streams: supervised (N, Ds) and unsupervised (N, Du) latents.
        score: (N,) of S.
        num_voxels: (N,).
        y: (N,) true answers, 0 or 1.
        data: what a result row says of the set.
    """

    streams: dict[str, np.ndarray]
    score: np.ndarray
    num_voxels: np.ndarray
    y: np.ndarray
    data: Data


def load(options: argparse.Namespace, name: str, seed: int) -> Pool:
    """Candidates of a set with the latents of both streams, trained from ``seed`` or read from --cache."""
    size = "full" if options.full else "quick"
    path = options.cache / f"{name}-{options.side}-{size}-{seed}.npz" if options.cache else None
    if path and path.exists():
        with np.load(path) as stored:
            arrays = dict(stored)
    else:
        world, found, streams, patches, _ = weak.load(options, name, seed)
        sources = weak.draws(world, found, streams, patches, seed)
        masks = weak.fitted(sources["mask"], streams.supervised, patches, seed, "mask")
        images = weak.fitted(sources["image"], streams.unsupervised, patches, seed, "image")
        arrays = {
            "supervised": encode(masks, mask_input(found.mask_patch)),
            "unsupervised": encode(images, image_input(found.image_patch)),
            "score": found.score, "num_voxels": np.array([c.num_voxels for c in found.members]), "y": found.y,
            "data": np.array([world.data.name, world.data.hash]),
        }  # fmt: skip
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, **arrays)
    return Pool(
        {stream: arrays[stream] for stream in ("supervised", "unsupervised")},
        arrays["score"], arrays["num_voxels"], arrays["y"], Data(*map(str, arrays["data"])),
    )  # fmt: skip


def parser(doc: str) -> argparse.ArgumentParser:
    """Options of the benchmarks that use these pools."""
    made = weak.parser(doc)
    made.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps latents: streams are trained once")
    made.add_argument("--asked-by", nargs="+", default=["random", "entropy", "two-stream"], metavar="STRATEGY")
    return made


def shared_scorer(pool: Pool, y: np.ndarray) -> np.ndarray:
    """(N,) probability of the project's scorer, given the answers ``y``."""
    return Scorer().predict(pool.streams, y, score=pool.score, num_voxels=pool.num_voxels)


def committee(pool: Pool, y: np.ndarray, seed: int) -> np.ndarray:
    """(M, N) probabilities of scorers drawn from the same posterior."""
    scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
    return scorer.predict_ensemble(pool.streams, y, score=pool.score, num_voxels=pool.num_voxels)
