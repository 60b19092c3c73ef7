"""N5 datasets as volumes, read with tensorstore.

    x.n5:volumes/raw      a dataset; of a group with levels s0, s1, ... the first
    x.n5:volumes/raw/s1   another level

N5 lists everything in x, y, z, fastest axis first. The exception is the transform of COSEM, which names its axes.

    voxel size   transform; pixelResolution; resolution; else voxel_size, of the dataset or of what holds it. Times
                 downsamplingFactors (of the dataset), or scales or downsamplingFactors (of the group), if the size is
                 that of level s0
    place        translate of the transform (``levels.py``); offset, in the units of the size; voxel_offset
    axes         transform; axes. Without names: x, y, z, then c, then t

Knows N5; must not know what the voxels show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume.attributes import Attributes
from twostream.volume.axes import Axes
from twostream.volume.chunked import ChunkedVolume, reopening
from twostream.volume.levels import Level, Measured, measured
from twostream.volume.location import Location
from twostream.volume.uri import Uri, listed
from twostream.volume.volume import Metadata, VoxelSize, agreed_voxel_size

ONES = (1.0, 1.0, 1.0)
PRESUMED_NAMES = ("x", "y", "z", "c", "t")
COMPRESSIONS = ("raw", "gzip", "bzip2", "xz", "blosc", "zstd")
"""What tensorstore reads."""


@dataclass(frozen=True)
class N5Node:
    """A dataset or a group: its folder and its attributes."""

    location: Location
    attributes: Mapping[str, Any]

    @property
    def is_dataset(self) -> bool:
        return "dimensions" in self.attributes and "dataType" in self.attributes


@dataclass(frozen=True)
class N5Dataset:
    """A dataset with the groups that hold it.

    Attributes:
        node: the dataset.
        holders: groups that hold it, the nearest first.
        name: of the dataset in the nearest group, such as "s1".
        first: level s0 of the same group; None if the dataset is that level, or if there is none.
    """

    node: N5Node
    holders: tuple[N5Node, ...]
    name: str
    first: N5Node | None


def open_n5(uri: str, voxel_size_nm: Sequence[float] | None = None, *, writable: bool = False) -> ChunkedVolume:
    """Open an N5 dataset for reading.

    Args:
        uri: see the module.
        voxel_size_nm: (z, y, x) in nm, needed if the metadata do not state it; must agree with them if they do.
        writable: must be False.

    Raises:
        VolumeError: there is no such dataset, its axes cannot be understood (``axes.Axes``), its compression is not
            known, its metadata contradict each other, or the two voxel sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """
    parsed = Uri.parse(uri)
    uri = str(parsed)
    found = _find(Location.of(parsed.path), parsed.dataset, uri)
    _check_compression(found.node, uri)
    shape = [int(n) for n in found.node.attributes["dimensions"]]
    names, names_from = _axis_names(found, len(shape), uri)
    axes = Axes.understand(shape, names, uri)
    by_transform = _by_transform(found, axes, voxel_size_nm, uri)
    stated, attribute = _by_attributes(found, axes, voxel_size_nm, uri) or (Measured(), "")
    if by_transform.size and stated.size and not np.allclose(by_transform.size, stated.size, rtol=1e-3):
        raise VolumeError(
            f"{uri}: its transform says {by_transform.size} nm, its attribute {attribute} says {stated.size} nm "
            f"(Z, Y, X). Correct or remove one of them."
        )
    size_from = "transform" if by_transform.size else f"attribute {attribute}" if stated.size else ""
    size = agreed_voxel_size(
        by_transform.size or stated.size, voxel_size_nm, uri, "attributes", by_transform.why or stated.why
    )
    offset, offset_from = _place(found, axes, by_transform, size, uri)
    return ChunkedVolume(
        uri,
        found.node.location,
        {"driver": "n5"},
        axes,
        voxel_size_nm=size,
        offset_nm=offset,
        metadata=Metadata(axes.names, names_from, size_from, offset_from, axes.notes),
        again=reopening(open_n5, uri, size, writable),
    )


def is_n5(path: str) -> bool:
    """Whether ``path`` is a folder with N5 metadata."""
    location = Location.of(path)
    if location.is_local and not (Path(path) / "attributes.json").is_file():
        return False
    return bool(location.json("attributes.json"))


# -- which dataset ----------------------------------------------------------------------------------------------------


def _find(root: Location, inside: str, uri: str) -> N5Dataset:
    """The dataset that a URI means; of a group with levels the first."""
    parts = [part for part in inside.split("/") if part]
    places = [Location.of(root.path, *parts[:end]) for end in range(len(parts) + 1)]
    nodes = [N5Node(place, place.json("attributes.json") or {}) for place in places]
    node, holders, name = nodes[-1], tuple(reversed(nodes[:-1])), parts[-1] if parts else ""
    if not node.is_dataset:
        name = _first_level(node)
        group, node = node, N5Node(node.location.child(name), node.location.child(name).json("attributes.json") or {})
        if not node.is_dataset:
            raise _missing(root, group, inside, uri)
        holders = (group, *holders)
    first = None
    if re.fullmatch(r"s[1-9]\d*", name) and holders:
        place = holders[0].location.child("s0")
        first = N5Node(place, place.json("attributes.json") or {})
    return N5Dataset(node, holders, name, first if first and first.is_dataset else None)


def _first_level(group: N5Node) -> str:
    """Name of the level with the highest resolution."""
    for image in group.attributes.get("multiscales") or ():
        if isinstance(image, Mapping) and image.get("datasets"):
            return str(image["datasets"][0].get("path", "s0"))
    return "s0"


def _missing(root: Location, group: N5Node, inside: str, uri: str) -> VolumeError:
    if not root.exists():
        return VolumeError(f"{root.path} does not exist; check the path of the N5 volume.")
    top = N5Node(root, root.json("attributes.json") or {})
    if top.is_dataset:
        return VolumeError(f"{root.path} is a dataset, and holds no dataset {inside!r}. Leave that out.")
    names = sorted(_looked_up(root, 4))
    if not group.attributes and not names and not inside:
        where = "not found" if not root.is_local else "no N5 volume"
        return VolumeError(f"{root.path} is {where}: it has no attributes.json of a dataset. Check the path.")
    return VolumeError(f"{uri} is not a dataset{listed(root.path, names, inside)}")


def _looked_up(location: Location, depth: int, prefix: str = "") -> Iterator[str]:
    """Paths of datasets, and of groups of levels, below a folder of this machine."""
    if not location.is_local or depth == 0 or not Path(location.path).is_dir():
        return
    for folder in sorted(path for path in Path(location.path).iterdir() if path.is_dir()):
        child = Location(str(folder))
        try:
            attributes = child.json("attributes.json") or {}
            levels = child.child("s0").json("attributes.json") or {}
        except VolumeError:
            continue
        if N5Node(child, attributes).is_dataset or N5Node(child, levels).is_dataset:
            yield prefix + folder.name
        else:
            yield from _looked_up(child, depth - 1, f"{prefix}{folder.name}/")


def _check_compression(node: N5Node, uri: str) -> None:
    """Raise VolumeError, with the package that reads it, if tensorstore cannot decode the blocks."""
    if node.attributes.get("isLabelMultiset"):
        raise VolumeError(
            f"{uri} holds label multisets of Paintera, several labels in one voxel; expected one label in each. Export "
            f"it with paintera-convert to-scalar."
        )
    stated = node.attributes.get("compression", node.attributes.get("compressionType", "raw"))
    kind = stated.get("type") if isinstance(stated, Mapping) else stated
    if kind not in COMPRESSIONS:
        raise VolumeError(
            f"{uri} is compressed with {kind!r}, which is not read here; expected one of {', '.join(COMPRESSIONS)}. "
            f"Write it anew: z5py (conda install -c conda-forge z5py) and the N5 plugin of Fiji read it."
        )


# -- axes, size and place ---------------------------------------------------------------------------------------------


def _axis_names(found: N5Dataset, num_axes: int, uri: str) -> tuple[Sequence[str], str]:
    """Names of the axes in the order of ``dimensions``, and where they stand."""
    stated = Attributes([{"axes": node.attributes.get("axes")} for node in (found.node, *found.holders)], uri)
    names = stated.axis_names()
    transform = _transform(found.node, found)
    if transform is not None and len(transform["axes"]) == num_axes:
        # The transform lists axes slowest first or fastest first, and means the same by it; it says which there are.
        ordered = sorted((str(name).lower() for name in transform["axes"]), key=_rank)
        if names and sorted(str(name).lower() for name in names) != sorted(ordered):
            raise VolumeError(f"{uri}: its transform has the axes {ordered}, the attribute axes {names}. Correct one.")
        return (names or ordered), "attribute axes" if names else "transform"
    if names:
        return names, "attribute axes"
    if num_axes > len(PRESUMED_NAMES):
        raise VolumeError(f"{uri} has {num_axes} axes and does not name them; expected x, y, z and perhaps c and t.")
    return PRESUMED_NAMES[:num_axes], ""


def _rank(name: str) -> int:
    return PRESUMED_NAMES.index(name) if name in PRESUMED_NAMES else len(PRESUMED_NAMES)


def _transform(node: N5Node | None, found: N5Dataset) -> Mapping[str, Any] | None:
    """The COSEM transform of a level: of the dataset, or of the group's list of levels."""
    if node is None:
        return None
    transform = node.attributes.get("transform")
    if transform is None and found.holders:
        name = node.location.path.rpartition("/")[2]
        for image in found.holders[0].attributes.get("multiscales") or ():
            levels = image.get("datasets") or () if isinstance(image, Mapping) else ()
            transform = next((one.get("transform") for one in levels if one.get("path") == name), transform)
    if not isinstance(transform, Mapping) or not isinstance(transform.get("axes"), list) or "scale" not in transform:
        return None
    return transform


def _by_transform(found: N5Dataset, axes: Axes, told: Sequence[float] | None, uri: str) -> Measured:
    """Voxel size and place by the COSEM transform, which names its axes."""
    transform = _transform(found.node, found)
    if transform is None:
        return Measured()
    first = _transform(found.first, found) or transform
    units = _named("units", transform, uri)
    return measured(_level(transform, uri), _level(first, uri), [units.get(name) for name in "zyx"], told, uri)


def _level(transform: Mapping[str, Any], uri: str) -> Level:
    values = []
    for key in ("scale", "translate"):
        named = _named(key, transform, uri)
        if named and not set("zyx") <= set(named):
            raise VolumeError(f"{uri}: its transform has {key} for {sorted(named)}; expected x, y and z.")
        values.append(tuple(float(named[name]) for name in "zyx") if named else None)
    return Level(*values)


def _named(key: str, transform: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """{axis: value} of one list of a transform."""
    listed_values, names = transform.get(key) or [], [str(name).lower() for name in transform["axes"]]
    if listed_values and len(listed_values) != len(names):
        raise VolumeError(f"{uri}: its transform has {len(names)} axes, but {len(listed_values)} {key}.")
    return dict(zip(names, listed_values, strict=False))


def _by_attributes(found: N5Dataset, axes: Axes, told: Sequence[float] | None, uri: str) -> tuple[Measured, str] | None:
    """(size of the dataset, name of the attribute) by pixelResolution, resolution and the like."""
    factors = _factors(found, axes, uri)
    own = _stated(found.node, axes, told, factors, uri)
    if own is None:
        groups = (_stated(node, axes, told, factors, uri) for node in found.holders)
        return next((stated for stated in groups if stated is not None), None)
    if np.allclose(factors, 1):
        return own
    first = found.first and _stated(found.first, axes, told, ONES, uri)
    plain = _stated(found.node, axes, told, ONES, uri)
    if not (first and plain and first[0].size and plain[0].size):
        return own
    if np.allclose(plain[0].size, _times(first[0].size, factors), rtol=1e-3):
        return plain  # the level states its own size, with the factors in it
    return own


def _stated(
    node: N5Node, axes: Axes, told: Sequence[float] | None, factors: VoxelSize, uri: str
) -> tuple[Measured, str] | None:
    """(size, name of the attribute) that a node states, times ``factors``."""
    other = Attributes([node.attributes], uri).voxel_size(axes)
    stated = node.attributes.get("pixelResolution")
    if stated is None:
        return None if other is None else (Measured(_times(other[0], factors)), other[1])
    numbers, unit = (stated.get("dimensions"), stated.get("unit")) if isinstance(stated, Mapping) else (stated, None)
    scale, _ = Attributes([{"voxel_size": numbers}], uri).voxel_size(axes) or (None, "")
    if scale is None:
        raise VolumeError(f"{uri}: the attribute pixelResolution is {stated!r}; expected three numbers and a unit.")
    level = Level(_times(scale, factors))
    found = measured(level, level, [unit] * 3, told, uri)
    if found.size and other and not np.allclose(found.size, _times(other[0], factors), rtol=1e-3):
        raise VolumeError(
            f"{uri}: the attribute pixelResolution says {stated!r}, {other[1]} says {other[0]} nm (Z, Y, X). "
            f"Correct or remove one of them."
        )
    return found, "pixelResolution"


def _factors(found: N5Dataset, axes: Axes, uri: str) -> VoxelSize:
    """(z, y, x) voxels of level s0 in one voxel of the dataset."""
    factors = found.node.attributes.get("downsamplingFactors")
    if factors is None and re.fullmatch(r"s\d+", found.name) and found.holders:
        levels = found.holders[0].attributes.get("scales") or found.holders[0].attributes.get("downsamplingFactors")
        number = int(found.name[1:])
        if isinstance(levels, list) and number < len(levels) and isinstance(levels[number], list):
            factors = levels[number]
    if factors is None:
        return ONES
    values = [float(v) for v in factors] + [1.0] * (len(axes.names) - len(factors))
    if len(values) != len(axes.names):
        raise VolumeError(f"{uri}: downsamplingFactors is {factors}; expected one number for each axis.")
    return axes.zyx(values)


def _place(
    found: N5Dataset, axes: Axes, by_transform: Measured, size: VoxelSize, uri: str
) -> tuple[VoxelSize | None, str]:
    """((z, y, x) nm of the corner of the first voxel, where it stands)."""
    if by_transform.corner is not None:
        return by_transform.corner, "transform"
    offset = Attributes([node.attributes for node in (found.node, *found.holders)], uri).offset(axes, size)
    return (offset[0], f"attribute {offset[1]}") if offset else (None, "")


def _times(size: VoxelSize, factors: VoxelSize) -> VoxelSize:
    z, y, x = (a * b for a, b in zip(size, factors, strict=True))
    return z, y, x
