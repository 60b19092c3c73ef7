"""What does a Volume cost beside the bare library that it is read and written with?

Random boxes of one chunk and of 4 x 4 x 4 chunks, and slabs one chunk thick over the whole section, on the same files
in the same run, in turns, each box once. Of several repetitions the fastest counts, box by box. A share of 1 means that
Volume is as fast as the bare library; 0.85 is demanded. Writing is measured with the chunks that we write.

    python benchmarks/volume_speed.py
    python benchmarks/volume_speed.py --full          # 128 MB instead of 8 MB a volume
    python benchmarks/volume_speed.py --peers zarr n5
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore
import tifffile
from common import options as common_options
from common.results import Data, Results

from twostream.base.geometry import Box
from twostream.volume import Volume, location, open_volume
from twostream.volume.formats import FORMATS

DEFAULT = "16 x 128 x 128"
CHUNKS = {DEFAULT: (16, 128, 128), "8 x 32 x 32": (8, 32, 32)}
"""The chunks that we write, and small ones, where the cost of a call shows."""
KINDS = {"one chunk": (1, 1, 1), "4 x 4 x 4 chunks": (4, 4, 4), "slab": (1, 10**6, 10**6)}
SIZE_NM = (40.0, 5.0, 4.0)
Call = Callable[[Box], object]
Read = Callable[[Box], np.ndarray]
Write = Callable[[Box, np.ndarray], object]


@dataclass(frozen=True)
class Peer:
    """One format and the bare library for it.

    Attributes:
        library: its name.
        make: writes (folder, array, chunk) and returns the URI of the volume.
        read: the bare library's reading of a box of what ``make`` wrote, from its URI.
        rewrite: the bare library's writing of a box into what ``make`` wrote; None if we do not write the format.
        ours: our writing of a box into it.
    """

    library: str
    make: Callable[[Path, np.ndarray, Sequence[int]], str]
    read: Callable[[str], Read]
    rewrite: Callable[[str], Write] | None = None
    ours: Callable[[str], Write] | None = None


def make_zarr(folder: Path, array: np.ndarray, chunk: Sequence[int], shards: bool = False) -> str:
    """Zarr 2 with blosc as our own files have it, or Zarr 3 in shards of 4 x 4 x 4 chunks."""
    path = f"{folder}/a.zarr"
    codec = {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "noshuffle"}}
    store: dict[str, Any] = {"driver": "zarr3" if shards else "zarr", "kvstore": f"file://{path}/0/"}
    if shards:
        inner = [{"name": "bytes"}, codec]
        sharding = {"chunk_shape": list(chunk), "codecs": inner}
        shard = [4 * c for c in chunk]
        store["metadata"] = {
            "shape": array.shape, "data_type": array.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }  # fmt: skip
    else:
        store["metadata"] = {
            "shape": array.shape, "chunks": list(chunk), "dtype": array.dtype.str, "dimension_separator": "/",
            "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 0},
        }  # fmt: skip
    tensorstore.open(store, create=True).result().write(array).result()
    return f"{path}:0"


def make_n5(folder: Path, array: np.ndarray, chunk: Sequence[int]) -> str:
    metadata = {
        "dimensions": array.shape[::-1], "blockSize": list(chunk)[::-1], "dataType": array.dtype.name,
        "compression": {"type": "gzip", "level": 1},
    }  # fmt: skip
    spec = {"driver": "n5", "kvstore": f"file://{folder}/a.n5/", "metadata": metadata}
    tensorstore.open(spec, create=True).result().write(array.T).result()
    return f"{folder}/a.n5"


def make_precomputed(folder: Path, array: np.ndarray, chunk: Sequence[int]) -> str:
    scale = {
        "size": array.shape[::-1], "resolution": SIZE_NM[::-1], "chunk_size": list(chunk)[::-1], "encoding": "raw",
    }  # fmt: skip
    whole = {"type": "image", "data_type": array.dtype.name, "num_channels": 1}
    spec = {
        "driver": "neuroglancer_precomputed", "kvstore": f"file://{folder}/a.precomputed/",
        "multiscale_metadata": whole, "scale_metadata": scale,
    }  # fmt: skip
    tensorstore.open(spec, create=True).result()[..., 0].write(array.T).result()
    return f"{folder}/a.precomputed"


def make_hdf5(folder: Path, array: np.ndarray, chunk: Sequence[int]) -> str:
    """gzip as our own files have it; twice, because one process shares decoded chunks among all who open a file."""
    for name in ("a.h5", "bare.h5"):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("main", data=array, chunks=tuple(chunk), compression="gzip", compression_opts=1)
    return f"{folder}/a.h5:main"


def make_tiff(folder: Path, array: np.ndarray, chunk: Sequence[int], tiled: bool = False) -> str:
    """In one piece as our own files are, or in deflated tiles of one section."""
    settings: dict[str, Any] = {"tile": tuple(chunk[1:]), "compression": "zlib"} if tiled else {}
    path = f"{folder}/a.tif"
    tifffile.imwrite(
        path, array, bigtiff=True, ome=not tiled, photometric="minisblack", metadata={"axes": "ZYX"}, **settings
    )
    return path


def hdf5_bare(uri: str, mode: str) -> Any:
    return h5py.File(uri.replace("a.h5:main", "bare.h5"), mode)["main"]


def hdf5_read(uri: str) -> Read:
    dataset = hdf5_bare(uri, "r")
    return lambda box: dataset[box.slices]


def hdf5_write(uri: str) -> Write:
    dataset = hdf5_bare(uri, "r+")

    def write(box: Box, array: np.ndarray) -> None:
        dataset[box.slices] = array
        dataset.file.flush()

    return write


def tiff_read(uri: str) -> Read:
    mapped = tifffile.memmap(uri, mode="r")
    return lambda box: np.array(mapped[box.slices])


def tiff_write(uri: str) -> Write:
    mapped = tifffile.memmap(uri, mode="r+")
    return lambda box, array: mapped.__setitem__(box.slices, array)


def tiles_read(uri: str) -> Read:
    """tifffile's view of the file as a Zarr array is its only way to read a part of a page."""
    import zarr

    array = zarr.open(tifffile.imread(uri, aszarr=True), mode="r")
    return lambda box: array[box.slices]


def bare(driver: str) -> Callable[[str], Any]:
    """tensorstore's own array, in the order Z, Y, X."""

    def opened(uri: str) -> Any:
        path = uri.replace(".zarr:0", ".zarr/0")
        store = tensorstore.open({"driver": driver, "kvstore": f"file://{path}/"}).result()
        if driver == "neuroglancer_precomputed":
            store = store[..., 0]
        return store if driver.startswith("zarr") else store.T

    return opened


def bare_read(driver: str) -> Callable[[str], Read]:
    def reader(uri: str) -> Read:
        store = bare(driver)(uri)
        return lambda box: store[box.slices].read().result()

    return reader


def bare_write(driver: str) -> Callable[[str], Write]:
    def writer(uri: str) -> Write:
        store = bare(driver)(uri)
        return lambda box, array: store[box.slices].write(array).result()

    return writer


def our_write(driver: str) -> Callable[[str], Write]:
    def writer(uri: str) -> Write:
        volume = reopened(uri, driver)
        return volume.write

    return writer


def reopened(uri: str, driver: str) -> Volume:
    """A volume for writing."""
    return FORMATS[driver].open(uri, SIZE_NM, writable=True)


PAIRS = {
    "zarr": Peer("tensorstore", make_zarr, bare_read("zarr"), bare_write("zarr"), our_write("zarr")),
    "zarr 3 in shards": Peer("tensorstore", lambda *a: make_zarr(*a, shards=True), bare_read("zarr3")),
    "n5": Peer("tensorstore", make_n5, bare_read("n5")),
    "precomputed": Peer(
        "tensorstore", make_precomputed, bare_read("neuroglancer_precomputed"),
        bare_write("neuroglancer_precomputed"), our_write("precomputed"),
    ),
    "hdf5": Peer("h5py", make_hdf5, hdf5_read, hdf5_write, our_write("hdf5")),
    "tiff": Peer("tifffile.memmap", make_tiff, tiff_read, tiff_write, our_write("tiff")),
    "tiff in tiles": Peer("tifffile.aszarr", lambda *a: make_tiff(*a, tiled=True), tiles_read),
}  # fmt: skip
"""{format: peer}; further formats are entered in the same way."""


def boxes_of(shape: Sequence[int], chunk: Sequence[int], kind: str, number: int) -> list[Box]:
    """Boxes of whole chunks, in random order, none twice."""
    size = [min(c * k, n) for c, k, n in zip(chunk, KINDS[kind], shape, strict=True)]
    starts = list(itertools.product(*(range(0, n - s + 1, s) for n, s in zip(shape, size, strict=True))))
    order = np.random.default_rng(0).permutation(len(starts))[:number]
    return [Box(starts[i], (size[0], size[1], size[2])) for i in order]


def in_turns(calls: Sequence[Call], boxes: Sequence[Box]) -> np.ndarray:
    """Seconds (call, box); the calls take turns, so that a busy machine slows all alike."""
    seconds = np.zeros((len(calls), len(boxes)))
    for number, box in enumerate(boxes):
        for turn in range(len(calls)):
            which = (turn + number) % len(calls)
            start = time.perf_counter()
            calls[which](box)
            seconds[which, number] = time.perf_counter() - start
    return seconds


def measured(opened: Callable[[], tuple[Call, Call]], boxes: Sequence[Box], repetitions: int) -> np.ndarray:
    """Seconds (bare or ours, box): the least of all repetitions, each with files that are opened anew."""
    found = []
    for _ in range(repetitions + 1):
        location.context.cache_clear()  # else the second repetition would come from our cache
        found.append(in_turns(opened(), boxes))
    return np.min(found[1:], axis=0)  # the first one fills the page cache


def reading(peer: Peer, uri: str) -> tuple[Call, Call]:
    return peer.read(uri), open_volume(uri, SIZE_NM).read


def writing(peer: Peer, uri: str, parts: dict[Box, np.ndarray]) -> tuple[Call, Call]:
    assert peer.rewrite is not None and peer.ours is not None
    bare, ours = peer.rewrite(uri), peer.ours(uri)
    return (lambda box: bare(box, parts[box])), (lambda box: ours(box, parts[box]))


def add(
    results: Results, verb: str, seconds: np.ndarray, boxes: Sequence[Box], data: Data, told: dict[str, Any]
) -> None:
    """Rows of the rate and of the share of the bare library's."""
    bare, ours = seconds
    megabytes = sum(box.num_voxels for box in boxes) / 1e6
    results.add(f"{verb}_mb_per_second", megabytes / ours.sum(), "MB/s", data=data, **told)
    rng, spread = np.random.default_rng(0), None
    if len(boxes) > 1:
        picked = rng.integers(0, len(boxes), (1000, len(boxes)))
        spread = np.percentile(bare[picked].sum(1) / ours[picked].sum(1), (2.5, 97.5)).tolist()
    results.add(
        f"{verb}_share_of_bare", bare.sum() / ours.sum(), "share", data=data, spread=spread,
        spread_is=None if spread is None else f"95 percent, bootstrap over {len(boxes)} boxes", **told,
    )  # fmt: skip


def main() -> None:
    parser = common_options.parser(__doc__ or "")
    parser.add_argument("--shape", type=int, nargs=3, default=[32, 512, 512])
    parser.add_argument("--peers", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--boxes", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=2)
    options = common_options.parse(parser, {"shape": [128, 1024, 1024], "boxes": 128, "repetitions": 7})
    results = Results("volume_speed", options)
    array = np.random.default_rng(0).integers(0, 32, options.shape, dtype=np.uint8)
    data = Data("noise of 5 bits", f"default_rng(0).integers(0, 32, {tuple(options.shape)}, uint8)")
    for (name, peer), (title, chunk) in itertools.product(PAIRS.items(), CHUNKS.items()):
        if name not in options.peers:
            continue
        with tempfile.TemporaryDirectory() as folder:
            uri = peer.make(Path(folder), array, chunk)
            for kind in KINDS:
                boxes = boxes_of(options.shape, chunk, kind, options.boxes)
                told = {"format": name, "chunk": title, "boxes": kind, "library": peer.library}
                found = measured(functools.partial(reading, peer, uri), boxes, options.repetitions)
                add(results, "read", found, boxes, data, told)
                if peer.rewrite is not None and chunk == CHUNKS[DEFAULT]:
                    parts = {box: np.ascontiguousarray(array[box.slices]) for box in boxes}
                    found = measured(functools.partial(writing, peer, uri, parts), boxes, options.repetitions)
                    add(results, "write", found, boxes, data, told)


if __name__ == "__main__":
    main()
