"""The groups and arrays of a Zarr hierarchy: which array a URI means, and what there is if it means none.

Knows the layout of Zarr 2, Zarr 3 and OME-Zarr collections; must not know voxel sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twostream.base.errors import VolumeError
from twostream.volume._ome import OmeImage, ome_attributes, ome_images
from twostream.volume.location import ForbiddenError, Location
from twostream.volume.uri import listed

MAX_DEPTH = 4
"""How deep a group is searched for arrays to name in an error."""


@dataclass(frozen=True)
class ZarrNode:
    """An array or a group.

    Attributes:
        location: its folder.
        version: 2 or 3, of Zarr.
        array: metadata of an array; None for a group.
        attributes: of the user.
        consolidated: attributes and metadata of all that a group holds, if they were gathered in one file:
            {path: (array metadata or None, attributes)}.
    """

    location: Location
    version: int
    array: Mapping[str, Any] | None
    attributes: Mapping[str, Any]
    consolidated: Mapping[str, tuple[Any, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an array, as stored."""
        assert self.array is not None
        try:
            return tuple(int(n) for n in self.array["shape"])
        except (KeyError, TypeError, ValueError):
            raise VolumeError(f"{self.location.path}: its Zarr metadata have no shape.") from None

    @property
    def dimension_names(self) -> list[str] | None:
        """Names of the axes in Zarr 3; None unless all have one."""
        assert self.array is not None
        names = self.array.get("dimension_names") or []
        return [str(name) for name in names] if names and all(names) else None

    @property
    def codecs(self) -> list[str]:
        """Names of the compressions and filters of an array."""
        assert self.array is not None
        if self.version == 3:
            return list(_codec_names(self.array.get("codecs") or []))
        steps = [self.array.get("compressor"), *(self.array.get("filters") or [])]
        return [str(step.get("id")) for step in steps if isinstance(step, Mapping)]


@dataclass(frozen=True)
class Found:
    """The array that a URI means.

    Attributes:
        array: the array.
        holders: groups that hold it, the nearest first.
        image: the OME image of which it is a level, or None.
        level: path of the level in the image; "" without one.
        first: level 0 of the image; None if the array is that level, or if it is not there.
    """

    array: ZarrNode
    holders: tuple[ZarrNode, ...] = ()
    image: OmeImage | None = None
    level: str = ""
    first: ZarrNode | None = None


def read_node(location: Location) -> ZarrNode | None:
    """The array or group in a folder; None if there is none.

    Raises:
        VolumeError: it cannot be read.
    """
    forbidden = None
    files: dict[str, dict[str, Any] | None] = {}
    for name in ("zarr.json", ".zarray", ".zgroup", ".zattrs"):
        try:
            files[name] = location.json(name)
        except ForbiddenError as error:  # some servers say so of files that are not there
            forbidden, files[name] = error, None
        if files[name] is not None and name == "zarr.json":
            return _node3(location, files[name] or {})
    if all(found is None for found in files.values()):
        if forbidden is not None:
            raise forbidden
        return None
    gathered = None
    if files[".zarray"] is None:
        try:
            gathered = location.json(".zmetadata")
        except ForbiddenError:
            gathered = None
    return ZarrNode(location, 2, files[".zarray"], files[".zattrs"] or {}, _consolidated2(gathered or {}))


def _node3(location: Location, metadata: Mapping[str, Any]) -> ZarrNode:
    """A node of Zarr 3 from its zarr.json."""
    inside = (metadata.get("consolidated_metadata") or {}).get("metadata") or {}
    consolidated = {
        str(path): (node if node.get("node_type") == "array" else None, node.get("attributes") or {})
        for path, node in inside.items()
        if isinstance(node, Mapping)
    }
    array = metadata if metadata.get("node_type") == "array" else None
    return ZarrNode(location, 3, array, metadata.get("attributes") or {}, consolidated)


def _consolidated2(gathered: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """What .zmetadata holds, by path."""
    files = gathered.get("metadata") or {}
    paths = dict.fromkeys(str(name).rpartition("/")[0] for name in files)
    return {path: (files.get(f"{path}/.zarray"), files.get(f"{path}/.zattrs") or {}) for path in paths if path}


def find_array(root: Location, inside: str, uri: str) -> Found:
    """The array that a URI means: an array, or the first level of an OME image.

    Args:
        root: folder or address of the hierarchy.
        inside: path of the array, image or level in it; "" for the hierarchy itself.
        uri: of the volume, for errors.

    Raises:
        VolumeError: there is no such array; the error lists what there is.
    """
    inside = inside.strip("/")
    location = Location.of(root.path, inside)
    node = read_node(location)
    if node is None:
        raise _missing(root, inside, uri)
    if node.array is not None:
        return _with_image(node, root, inside, uri)
    images = ome_images(node.attributes, uri)
    if len(images) != 1:
        raise _no_single(node, inside, images, uri)
    path = images[0].paths[0]
    array = read_node(location.child(path))
    if array is None or array.array is None:
        raise VolumeError(
            f"{uri}: its OME metadata list the level {path!r}, but there is no array at {location.child(path).path}. "
            f"Is the copy complete?"
        )
    return Found(array, (node,), images[0], path)


def _with_image(array: ZarrNode, root: Location, inside: str, uri: str) -> Found:
    """An array with the groups that hold it, and the OME image that lists it as a level."""
    parts = inside.split("/") if inside else []
    places = [(Location.of(root.path, *parts[:end]), "/".join(parts[end:])) for end in range(len(parts) - 1, -1, -1)]
    if not parts and root.is_local:  # a level that was named by its own folder
        own = Path(root.path).resolve()
        places = [(Location(str(own.parent)), own.name)]
    holders = []
    for place, path in places:
        try:
            group = read_node(place)
        except ForbiddenError:
            continue
        if group is None or group.array is not None:
            continue
        holders.append(group)
        for image in ome_images(group.attributes, uri):
            if path in image.paths:
                level0 = None if path == image.paths[0] else read_node(place.child(image.paths[0]))
                first = level0 if level0 is not None and level0.array is not None else None
                return Found(array, tuple(holders), image, path, first)
    return Found(array, tuple(holders) if parts else ())


def _missing(root: Location, inside: str, uri: str) -> VolumeError:
    """The error for a path where there is neither array nor group."""
    if not root.exists():
        return VolumeError(f"{root.path} does not exist; check the path of the Zarr volume.")
    top = read_node(root) if inside else None
    if top is None:
        return VolumeError(
            f"{root.path} holds no Zarr array or group (zarr.json, .zarray, .zgroup); check the path."
            if root.is_local
            else f"{root.path} is not found: there is no zarr.json, .zarray or .zgroup. Check the address."
        )
    if top.array is not None:
        return VolumeError(f"{root.path} is an array, and holds no array {inside!r}. Leave that out.")
    return VolumeError(f"{root.path} holds no array {inside!r}{listed(root.path, list(contents(top)), inside)}")


def _no_single(node: ZarrNode, inside: str, images: list[OmeImage], uri: str) -> VolumeError:
    """The error for a group that is not one image."""
    if images:
        names = [image.paths[0] for image in images]
        what = f"{uri} holds {len(images)} images, and it is not said which is meant"
    else:
        names = list(contents(node))
        kind = next((k for k in ("plate", "well", "labels") if k in ome_attributes(node.attributes)), "group")
        what = f"{uri} is a {kind}, not an array or an image"
    root, separator, _ = uri.rpartition(f":{inside}") if inside else (uri, "", "")
    prefix = f"{inside}/" if inside else ""
    return VolumeError(what + listed(root if separator else uri, [prefix + name for name in names], ""))


def contents(node: ZarrNode) -> Iterator[str]:
    """Paths of the images and of the arrays that belong to none, inside a group, labels last.

    Taken from what OME collections say of themselves; else from consolidated metadata; else, on this machine, by
    looking.
    """
    found = list(_declared(node)) or list(_gathered(node)) or list(_looked_up(node.location, MAX_DEPTH))
    yield from sorted(dict.fromkeys(found), key=lambda name: ("labels" in name.split("/"), name))


def _declared(node: ZarrNode) -> Iterator[str]:
    """Images of a plate, a well, a folder of labels or a file converted by bioformats2raw."""
    ome = ome_attributes(node.attributes)
    if "bioformats2raw.layout" in ome:
        names = read_node(node.location.child("OME"))
        yield from map(str, ome_attributes(names.attributes).get("series", ["0"]) if names else ["0"])
    for key, many in (("plate", "wells"), ("well", "images")):
        if isinstance(ome.get(key), Mapping):
            yield from (str(one["path"]) for one in ome[key].get(many) or [] if "path" in one)
    if isinstance(ome.get("labels"), list):
        yield from map(str, ome["labels"])


def _gathered(node: ZarrNode) -> Iterator[str]:
    """From consolidated metadata."""
    images = [
        path for path, (_, attributes) in node.consolidated.items() if "multiscales" in ome_attributes(attributes)
    ]
    yield from images
    for path, (array, _) in node.consolidated.items():
        if array is not None and not any(path.startswith(f"{image}/") for image in images):
            yield path


def _looked_up(location: Location, depth: int) -> Iterator[str]:
    """By looking into the folders of this machine."""
    if not location.is_local or depth == 0:
        return
    for folder in sorted(path for path in Path(location.path).iterdir() if path.is_dir()):
        try:
            node = read_node(Location(str(folder)))
        except VolumeError:
            continue
        is_image = node is not None and "multiscales" in ome_attributes(node.attributes)
        if node is not None and (node.array is not None or is_image):
            yield folder.name
            continue
        yield from (f"{folder.name}/{name}" for name in _looked_up(Location(str(folder)), depth - 1))


def _codec_names(codecs: Any) -> Iterator[str]:
    """Names of codecs of Zarr 3, those inside shards too."""
    for codec in codecs:
        name = codec if isinstance(codec, str) else str(codec.get("name"))
        yield name
        inner = {} if isinstance(codec, str) else codec.get("configuration") or {}
        if name == "sharding_indexed":
            yield from _codec_names([*(inner.get("codecs") or []), *(inner.get("index_codecs") or [])])
