"""Checks of arrays that are scored together. Knows shapes and dtypes; must not know what the voxels mean."""

from __future__ import annotations

import numpy as np

from twostream.base.errors import InputError


def check_one_shape(**arrays: np.ndarray | None) -> None:
    """Check that all arrays have the same shape, because numpy would silently broadcast one that has not.

    Args:
        arrays: each under the name that the error message uses; None is skipped. The first must not be None.

    Raises:
        InputError: an array differs in shape from the first one.
    """
    shapes = [(name, np.shape(array)) for name, array in arrays.items() if array is not None]
    first, wanted = shapes[0]
    for name, shape in shapes[1:]:
        if shape != wanted:
            raise InputError(
                f"{name} has shape {shape}, but {first} has {wanted}; expected one shape (Z, Y, X) for both. "
                f"Were both read over the same box?"
            )


def check_labels(**labels: np.ndarray) -> None:
    """Check that arrays hold labels.

    Args:
        labels: arrays of any shape, each under the name that the error message uses.

    Raises:
        InputError: an array is not of integers (or bool), or holds a negative value.
    """
    for name, array in labels.items():
        if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{name} is {array.dtype}; expected integer labels, 0 = background. Cast it first.")
        if array.dtype.kind == "i" and array.min(initial=0) < 0:
            raise InputError(
                f"{name} holds the label {array.min()}; expected 0 for background and instance labels from 1. If a "
                f"negative value means unlabelled, set it to 0 and pass those voxels as ignore."
            )
