"""Latents that the user computed, in place of a stream (``method: given``).

They come as two .npy files: one row of features per candidate, and the candidate id of each row. Knows arrays; must not
know torch, volumes or rounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twostream.base.atomic import read_array
from twostream.base.errors import InputError
from twostream.models.streams.config import StreamConfig


def read_given(config: StreamConfig, ids: np.ndarray) -> np.ndarray:
    """Read the latents of some candidates from the user's files.

    Args:
        config: names the files: ``latents``, (M, D) of any float type, and ``ids``, (M,) integers without duplicates.
            The rows may be in any order, and there may be more than needed.
        ids: (N,) uint64, ids of the candidates.

    Returns:
        (N, D) float32, in the order of ``ids``.

    Raises:
        InputError: a file is missing or has another shape or type, an id occurs twice, a candidate has no row, or its
            row is not finite.
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
            f"{config.ids} lacks {len(missing)} of {len(ids)} candidates, the first of them {missing[0]}. Add a row "
            f"for each to both files and run the command again; boxes and masks are in candidates.parquet."
        )
    with np.errstate(over="ignore"):  # values beyond the range of float32 are reported below, with their candidate
        rows = latents[order[at]].astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise InputError(
            f"{config.latents}: the row of candidate {ids[bad[0]]} is not finite in float32 ({len(bad)} rows are not). "
            f"Replace NaN, infinite and very large values."
        )
    return rows
