"""Latents that someone brings: a .npy of rows, and beside it the ids of the candidates they belong to.

Knows arrays; must not know torch, volumes or rounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twostream.base.atomic import read_array
from twostream.base.errors import InputError
from twostream.models.streams.config import StreamConfig


def read_given(config: StreamConfig, ids: np.ndarray) -> np.ndarray:
    """The brought latents of some candidates.

    Args:
        config: ``latents``: (M, D) of any float type; ``ids``: (M,) integers, each once.
        ids: (N,) uint64, of the candidates.

    Returns:
        (N, D) float32, in the order of ``ids``.

    Raises:
        InputError: no such file, another shape, a NaN, or a candidate without a row.
    """
    assert config.latents is not None and config.ids is not None
    latents, known = read_array(Path(config.latents)), read_array(Path(config.ids))
    if latents.ndim != 2 or latents.dtype.kind != "f" or latents.shape[1] == 0:
        raise InputError(f"{config.latents} holds {latents.dtype} {latents.shape}; expected floats (N, D).")
    if known.shape != (len(latents),) or known.dtype.kind not in "iu":
        raise InputError(f"{config.ids} holds {known.dtype} {known.shape}; expected {len(latents)} whole numbers.")
    order = np.argsort(known, kind="stable")
    known = known[order]
    if len(known) and (known[1:] == known[:-1]).any():
        raise InputError(f"{config.ids} holds {known[1:][known[1:] == known[:-1]][0]} twice; expected each id once.")
    at = np.searchsorted(known, ids)
    found = at < len(known)
    found[found] = known[at[found]] == ids[found]
    if not found.all():
        missing = ids[~found]
        raise InputError(
            f"{config.ids} lacks {len(missing)} of {len(ids)} candidates, {missing[0]} first; add a row for each and "
            f"go on (their boxes and masks are in candidates.parquet)."
        )
    with np.errstate(over="ignore"):  # said below, with the row
        rows = latents[order[at]].astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise InputError(
            f"{config.latents}: the row of candidate {ids[bad[0]]} is not finite; there are {len(bad)} such rows."
        )
    return rows
