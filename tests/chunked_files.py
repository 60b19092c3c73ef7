"""Zarr, N5 and precomputed folders for tests, written without the code under test: by zarr-python, or byte by byte."""

import itertools
import json

import numpy as np

SPACE = ("z", "y", "x")


def ome_image(
    folder,
    array,
    size_nm,
    *,
    version=2,
    unit="nanometer",
    offset_nm=None,
    level="0",
    shards=None,
    names=SPACE,
    chunks=None,
):
    """An OME-Zarr image of one level by zarr-python: 0.4 in Zarr 2, 0.5 in Zarr 3.

    ``array`` is (Z, Y, X) or (C, Z, Y, X); it is stored with its last three axes in the order of ``names``.
    """
    import zarr

    nm = {"nanometer": 1.0, "micrometer": 1e3, None: 1.0}[unit]
    order = [SPACE.index(name) for name in names]
    group = zarr.open_group(folder, mode="w", zarr_format=version)
    extra = array.ndim - 3
    stored = np.transpose(array, [*range(extra), *(extra + axis for axis in order)])
    chunk = (1,) * extra + tuple((chunks or (2, 8, 8))[axis] for axis in order)
    node = group.create_array(level, shape=stored.shape, chunks=chunk, shards=shards, dtype=array.dtype)
    node[:] = stored
    axes = [{"name": "c", "type": "channel"}] * extra
    axes += [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in names]
    transforms = [{"type": "scale", "scale": [1.0] * extra + [size_nm[axis] / nm for axis in order]}]
    if offset_nm is not None:
        place = [0.0] * extra + [offset_nm[axis] / nm for axis in order]
        transforms.append({"type": "translation", "translation": place})
    image = {"axes": axes, "datasets": [{"path": level, "coordinateTransformations": transforms}]}
    set_multiscales(group, [image], version)
    return group


def set_multiscales(group, images, version=2):
    """The OME attributes of a group."""
    if version == 2:
        group.attrs["multiscales"] = [{"version": "0.4"} | image for image in images]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": images}


def n5_dataset(folder, array, block=(8, 8, 2), **attributes):
    """An N5 dataset, byte by byte, uncompressed; ``array`` is (..., Z, Y, X) and N5 lists x, y, z first."""
    folder.mkdir(parents=True)
    stored = array.transpose()  # x, y, z, and channels last
    blocks = [*block, 1][: stored.ndim]
    required = {
        "dimensions": list(stored.shape),
        "blockSize": blocks,
        "dataType": array.dtype.name,
        "compression": {"type": "raw"},
    }
    (folder / "attributes.json").write_text(json.dumps(required | attributes))
    for index in itertools.product(*(range(-(-n // b)) for n, b in zip(stored.shape, blocks, strict=True))):
        part = stored[tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, blocks, strict=True))]
        header = np.array([0, part.ndim], ">u2").tobytes() + np.array(part.shape, ">u4").tobytes()
        path = folder.joinpath(*map(str, index))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header + part.astype(array.dtype.newbyteorder(">")).tobytes(order="F"))


def precomputed(folder, array, size_nm, *, offset=None, chunk=(8, 8, 2), key="a_b", scales=(), **info):
    """A precomputed volume, byte by byte, raw; ``array`` is (Z, Y, X) or (C, Z, Y, X), ``offset`` (z, y, x) voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = array.transpose()  # x, y, z, and channels last
    start = [0, 0, 0] if offset is None else list(offset)[::-1]
    scale = {
        "key": key,
        "size": list(stored.shape[:3]),
        "resolution": list(size_nm)[::-1],
        "chunk_sizes": [list(chunk)],
        "encoding": "raw",
    }
    if offset is not None:
        scale["voxel_offset"] = start
    whole = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": array.dtype.name,
        "num_channels": stored.shape[3] if stored.ndim == 4 else 1,
        "scales": [scale, *scales],
    }
    (folder / "info").write_text(json.dumps(whole | info))
    (folder / key).mkdir(exist_ok=True)
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(stored.shape[:3], chunk, strict=True))):
        begin = [i * c for i, c in zip(index, chunk, strict=True)]
        end = [min(b + c, n) for b, c, n in zip(begin, chunk, stored.shape[:3], strict=True)]
        part = stored[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
        name = "_".join(f"{s + b}-{s + e}" for s, b, e in zip(start, begin, end, strict=True))
        (folder / key / name).write_bytes(part.tobytes(order="F"))
