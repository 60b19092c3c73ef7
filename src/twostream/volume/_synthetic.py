"""Synthetic tissue as a volume: ``synthetic://seed=3&kind=image&shape=32,512,512&offset=0,0,0&voxel_size=30,8,8``.

Knows the options of such a URI; must not know how tissue is generated (that is ``synthetic/``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.synthetic import Tissue
from twostream.volume.uri import Uri
from twostream.volume.volume import Volume, agreed_voxel_size

KINDS = ("image", "synapses", "clefts", "mitochondria", "neurites")
DEFAULTS = {"seed": "0", "kind": "image", "shape": "32,512,512", "offset": "0,0,0", "voxel_size": "30,8,8"}


class SyntheticVolume(Volume):
    """A box of the unbounded synthetic tissue; voxels are generated when they are read.

    Args:
        uri: ``synthetic://`` followed by options ``name=value``, joined with ``&``: ``seed``; ``kind``, one of
            ``KINDS``; ``offset`` and ``shape``, z,y,x in voxels; ``voxel_size``, z,y,x in nm. ``DEFAULTS`` gives the
            values of those that are left out. Images are uint8, all other kinds uint64 labels.

    Raises:
        VolumeError: an option is unknown or has an invalid value.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> None:
        self.uri = uri
        options = dict(parse_qsl(Uri.parse(uri).path, keep_blank_values=True))
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise VolumeError(f"{uri}: unknown option {unknown[0]!r}; the options are {', '.join(DEFAULTS)}.")
        options = DEFAULTS | options
        try:
            seed = int(options["seed"])
            region = Box(_numbers(options["offset"]), _numbers(options["shape"]))
            voxel_size = [float(v) for v in options["voxel_size"].split(",")]
        except ValueError:
            raise VolumeError(
                f"{uri}: expected a whole number as seed, and Z,Y,X as offset, shape and voxel_size."
            ) from None
        if options["kind"] not in KINDS:
            raise VolumeError(f"{uri}: kind is {options['kind']!r}; expected one of {', '.join(KINDS)}.")
        self._region = region
        self.shape_zyx = region.shape_zyx
        self.num_channels = 0
        self.voxel_size_nm = agreed_voxel_size(voxel_size, voxel_size_nm, uri)
        self._render = getattr(Tissue(seed=seed, voxel_size_nm=self.voxel_size_nm), options["kind"])
        self.dtype = np.dtype(np.uint8 if options["kind"] == "image" else np.uint64)

    def _read(self, box: Box) -> np.ndarray:
        return self._render(box.shifted(self._region.offset_zyx))

    def __reduce__(self) -> Any:
        return SyntheticVolume, (self.uri,)


def _numbers(text: str) -> Any:
    return tuple(int(v) for v in text.split(","))
