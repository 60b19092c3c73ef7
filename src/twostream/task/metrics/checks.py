"""Arrays that are scored together must lie on one grid. Knows shapes; must not know what the voxels mean."""

from __future__ import annotations

import numpy as np

from twostream.base.errors import InputError


def check_one_shape(**arrays: np.ndarray | None) -> None:
    """Check that all arrays have the shape of the first, so that none is silently repeated along an axis.

    Args:
        arrays: by the name that the error shall say; None is passed over.

    Raises:
        InputError: two shapes differ.
    """
    shapes = [(name, np.shape(array)) for name, array in arrays.items() if array is not None]
    first, wanted = shapes[0]
    for name, shape in shapes[1:]:
        if shape != wanted:
            raise InputError(
                f"{name} has shape {shape}, {first} {wanted}; expected one shape (Z, Y, X). "
                f"Were both read over the same box?"
            )


def check_labels(**labels: np.ndarray) -> None:
    """Raise InputError where an array is not of whole numbers of at least 0."""
    for name, array in labels.items():
        if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{name} is {array.dtype}; expected integer labels, 0 = background. Cast it first.")
        if array.dtype.kind == "i" and array.min(initial=0) < 0:
            raise InputError(
                f"{name} holds the label {array.min()}; expected 0 for background and instances from 1. Where a "
                f"negative value means unlabelled, set it to 0 and pass those voxels as ignore."
            )
