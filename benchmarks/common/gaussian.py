"""Pools of latents for the query benchmarks: Gaussian groups of unequal sizes around random centres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.results import Data

NUM_GROUPS, GROUP_WIDTH = 300, 0.5
"""Groups, and their standard deviation in units of that of their centres."""
ROWS_AT_ONCE = 100_000


def groups(number: int, width: int, rng: np.random.Generator, dtype: Any) -> np.ndarray:
    """(number, width) latents."""
    centers = rng.normal(size=(NUM_GROUPS, width)).astype(np.float32)
    share = rng.dirichlet(np.full(NUM_GROUPS, 2.0))
    values = centers[rng.choice(NUM_GROUPS, number, p=share)]
    values += GROUP_WIDTH * rng.standard_normal(values.shape, dtype=np.float32)
    return values.astype(dtype)


def write_groups(path: Path, number: int, width: int, seed: Any) -> None:
    """The same as float16 in a .npy file, written in blocks; a file that exists is kept."""
    if path.exists():
        return
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(NUM_GROUPS, width)).astype(np.float32)
    share = rng.dirichlet(np.full(NUM_GROUPS, 2.0))
    partial = path.with_suffix(".partial")
    array = np.lib.format.open_memmap(partial, "w+", np.float16, (number, width))
    for start in range(0, number, ROWS_AT_ONCE):
        size = min(ROWS_AT_ONCE, number - start)
        noise = rng.standard_normal((size, width), dtype=np.float32)
        array[start : start + size] = centers[rng.choice(NUM_GROUPS, size, p=share)] + GROUP_WIDTH * noise
    array.flush()
    del array
    partial.rename(path)


def data(number: int, widths: list[int], seed: int, dtype: str) -> Data:
    """How these pools are named in result rows."""
    shape = f"{number:,} x ({' + '.join(map(str, widths))})"
    return Data(f"Gaussian groups, {shape}", f"common.gaussian, {shape}, {dtype}, seed {seed}")
