"""Settings of two-stream, checked when the strategy is made."""

from __future__ import annotations

from typing import Any

from twostream.base.errors import InputError
from twostream.query import bounds

STREAMS = ("supervised", "unsupervised")
VARIANTS = ("corrected", "published", "adaptive")
SHARES = ("size", "even", "spread", "error")
WEIGHTS = ("none", "uncertainty")
PICKS = ("medoids", "look-ahead")
ADAPTIVE = {"share": "size", "weight": "none", "random_share": 0.0, "standardise": True, "pick": "medoids"}
"""Settings of the adaptive variant alone, with their defaults."""


def check_settings(num_clusters: Any, first: str, variant: str, exact: bool | None, **adaptive: Any) -> tuple[int, int]:
    """Raise InputError for settings that two-stream does not have, or that contradict each other.

    Args:
        num_clusters, first, variant, exact: see ``TwoStream``.
        adaptive: a value for every name of ``ADAPTIVE``.

    Returns:
        ``num_clusters`` as two whole numbers.
    """
    known: dict[str, tuple[Any, ...]] = {"first": STREAMS, "variant": VARIANTS, "share": SHARES, "weight": WEIGHTS}
    known |= {"exact": (None, True, False), "standardise": (True, False), "pick": PICKS}
    for name, value in ({"first": first, "variant": variant, "exact": exact} | adaptive).items():
        if name in known and value not in known[name]:
            raise InputError(f"{name} is {value!r}; expected {' or '.join(map(repr, known[name]))}.")
    if bounds.share("random_share", adaptive["random_share"]) == 1:
        raise InputError("random_share is 1; expected less, or the strategy 'random'.")
    changed = [name for name, default in ADAPTIVE.items() if adaptive[name] != default]
    if changed and variant != "adaptive":
        raise InputError(f"{changed[0]} is a setting of variant='adaptive'; the variant is {variant!r}.")
    if adaptive["pick"] == "look-ahead" and (unused := sorted({*changed} - {"pick", "standardise"})):
        raise InputError(f"{unused[0]} is a setting of pick='medoids'; with pick='look-ahead' leave it out.")
    if variant == "published" and exact is False:
        raise InputError("exact is False, but the variant 'published' is exact at every size; leave exact out.")
    try:
        coarse, fine = num_clusters
        return bounds.whole("coarse", coarse), bounds.whole("fine", fine)
    except (TypeError, ValueError):
        raise InputError(
            f"num_clusters is {num_clusters!r}; expected two whole numbers >= 1: coarse, and fine per coarse."
        ) from None
