"""Strategies on files, without a project: ``.npy`` in, CSV out. Knows disks, so that ``query`` need not."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from twostream.errors import InputError
from twostream.query import get_strategy


def query_files(
    supervised: Path,
    unsupervised: Path,
    output: Path,
    *,
    answered: Path | None,
    clusters: tuple[int, int],
    budget: int | None,
    strategy: str,
    variant: str,
    first: str,
    seed: int,
) -> int:
    """Choose rows from two latents files and write them as CSV, with the reason for each.

    Args:
        supervised, unsupervised: ``.npy`` of (N, Ds) and (N, Du).
        output: CSV to write; columns ``row`` and the strategy's reasons.
        answered: text file of answered rows, one per line; may be empty.
        clusters: coarse and fine numbers of two-stream.
        budget: rows wanted; None takes the product of ``clusters``.
        strategy, variant, first, seed: see ``TwoStream``.

    Returns:
        How many rows were chosen.

    Raises:
        InputError: a file is missing, pickled or of another shape, or an answered row is none of the N.
    """
    streams = {"supervised": load_latents(supervised), "unsupervised": load_latents(unsupervised)}
    num_rows = len(streams["supervised"])
    y = np.full(num_rows, np.nan)
    if answered is not None:
        # Which answer was given does not matter here, only that the row has one.
        y[_read_rows(answered, num_rows)] = 1.0
    settings = {"num_clusters": clusters, "variant": variant, "first": first} if strategy == "two-stream" else {}
    chosen = get_strategy(strategy, settings, random_state=seed).suggest(
        streams, y, batch_size=clusters[0] * clusters[1] if budget is None else budget
    )
    names = list(chosen.reasons[0]) if chosen.reasons else []
    partial = output.with_name(output.name + ".partial")
    with open(partial, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["row", *names])
        writer.writeheader()
        for row, reason in zip(chosen.rows.tolist(), chosen.reasons, strict=True):
            writer.writerow({"row": row, **reason})
    os.replace(partial, output)
    return len(chosen.rows)


def load_latents(path: Path) -> np.ndarray:
    """(N, D) float latents, memory-mapped.

    Raises:
        InputError: missing, pickled, or not a two-dimensional array of floats.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npy without pickles: {error}. Save it with numpy.save.") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds {getattr(array, 'shape', 'several arrays')}; expected one (N, D) array of numbers."
        )
    return array


def _read_rows(path: Path, num_rows: int) -> np.ndarray:
    try:
        rows = [int(word) for word in path.read_text().split()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as whole numbers, one row per line: {error}.") from None
    bad = [row for row in rows if not 0 <= row < num_rows]
    if bad:
        raise InputError(f"{path} names row {bad[0]}; the latents have rows 0 to {num_rows - 1}.")
    return np.asarray(rows, np.int64)
