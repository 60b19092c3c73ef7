"""The command `query`: a strategy on ``.npy`` or ``.npz`` files, without a project. Writes a CSV.

Knows files, so that ``twostream.query`` needs to know arrays only; must not import torch.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base import atomic
from twostream.base.errors import InputError
from twostream.query import Selection, get_strategy


def query_files(
    supervised: Path,
    unsupervised: Path,
    output: Path,
    *,
    answered: Path | None = None,
    probability: Path | None = None,
    position_nm: Path | None = None,
    clusters: tuple[int, int] = (100, 10),
    budget: int | None = None,
    strategy: str = "two-stream",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Selection:
    """Choose rows from two latents files and write them as CSV, with the reason for each.

    Args:
        supervised, unsupervised: file of (N, Ds) and of (N, Du) floats, one row per candidate; see ``load_array``.
        output: CSV to write, which must not exist; columns ``row`` and the strategy's reasons.
        answered: text file with the numbers of answered rows, separated by white space; may be empty.
        probability: file of (N,) or (M, N), the probability of True, by one scorer or by M; some strategies need it.
        position_nm: file of (N, 3), the (z, y, x) of each candidate in nm; some strategies need it.
        clusters: numbers of coarse and of fine clusters of two-stream.
        budget: number of rows to choose; None takes the product of the two numbers of clusters.
        strategy, settings, seed: see ``twostream.query.get_strategy``.

    Returns:
        What was chosen.

    Raises:
        InputError: the output exists or cannot be written; a file is missing, pickled or of another shape; an answered
            row is not among the N; or the strategy lacks an input.
    """
    if not output.parent.is_dir():
        raise InputError(f"{output} cannot be written: its folder does not exist. Make it, or choose another path.")
    if output.exists():
        raise InputError(f"{output} exists already; remove it or choose another path.")
    streams = {
        "supervised": load_array(supervised, "supervised"),
        "unsupervised": load_array(unsupervised, "unsupervised"),
    }
    for name, array in streams.items():
        if array.ndim != 2:
            raise InputError(f"{name} latents have shape {array.shape}; expected (N, D), one row per candidate.")
    num_rows = len(streams["supervised"])
    if len(streams["unsupervised"]) != num_rows:
        raise InputError(
            f"{supervised} has {num_rows} rows and {unsupervised} has {len(streams['unsupervised'])}; "
            "expected one row per candidate in both, in the same order."
        )
    y = np.full(num_rows, np.nan)
    if answered is not None:
        # Which answer was given does not matter here, only that the row has one.
        y[_read_rows(answered, num_rows)] = 1.0
    defaults = {"num_clusters": clusters} if strategy == "two-stream" else {}
    chooser = get_strategy(strategy, defaults | dict(settings or {}), random_state=seed)
    coarse, fine = getattr(chooser, "num_clusters", clusters)
    with atomic.text_file(output) as handle:  # opened first, so that an output that cannot be written is an early error
        chosen = chooser.suggest(
            streams,
            y,
            batch_size=coarse * fine if budget is None else budget,
            probability=None if probability is None else load_array(probability, "probability"),
            position_nm=None if position_nm is None else load_array(position_nm, "position_nm"),
        )
        names = list(dict.fromkeys(name for reason in chosen.reasons for name in reason))
        writer = csv.DictWriter(handle, ["row", *names])
        writer.writeheader()
        for row, reason in zip(chosen.rows.tolist(), chosen.reasons, strict=True):
            writer.writerow({"row": row, **reason})
    return chosen


def load_array(path: Path, name: str) -> np.ndarray:
    """Read an array of integers or floats from a file; ``.npy`` is memory-mapped.

    Args:
        path: ``.npy``, or ``.npz`` that holds an array called ``name`` or a single array of any name.
        name: name of the array.

    Raises:
        InputError: the file is missing, pickled or damaged, or holds no array of numbers.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                array = found[name if name in found.files or len(found.files) != 1 else found.files[0]]
        else:
            array = found
    except KeyError:
        names = ", ".join(found.files) or "none"
        raise InputError(f"{path} holds the arrays {names}; expected one, or one that is called {name!r}.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy's message ends with the advice to load pickles, which may run any code: that part is cut off.
        why = (
            str(error).split(" If you trust")[0].rstrip(".") if "allow_pickle" not in str(error) else "it holds pickles"
        )
        raise InputError(
            f"{path} cannot be read as .npy or .npz without pickles: {why}. Save it with numpy.save."
        ) from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} holds an array of {array.dtype}; expected numbers.")
    return array


def _read_rows(path: Path, num_rows: int) -> np.ndarray:
    """(A,) int64, the numbers in a text file; InputError if one is not a row from 0 to ``num_rows`` - 1."""
    try:
        rows = [int(word) for word in path.read_text(encoding="utf-8-sig").split()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as whole numbers, one row per line: {error}.") from None
    bad = [row for row in rows if not 0 <= row < num_rows]
    if bad:
        raise InputError(f"{path} names row {bad[0]}; the latents have rows 0 to {num_rows - 1}.")
    return np.asarray(rows, np.int64)
