"""Zarr, OME-Zarr, N5 and precomputed: read as they are meant, written so that others read the same, or refused."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest
from chunked_files import n5_dataset, ome_image, precomputed, set_multiscales

from twostream.base.errors import NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.testing import VolumeExam
from twostream.volume import create_volume, open_volume

SIZE = (40.0, 5.0, 4.0)
OFFSET = (80.0, -15.0, 28.0)
"""In voxels (2, -3, 7)."""
ODD = (4, 2, 11)
SHAPE = (6, 9, 13)


def odd_volume(dtype="uint8"):
    """Zero but for one voxel."""
    array = np.zeros(SHAPE, dtype)
    array[ODD] = 200
    return array


def place_of_the_odd_voxel(volume):
    """Its index and its value."""
    found = np.argwhere(volume.read(volume.box))
    assert len(found) == 1
    box = Box(tuple(int(v) for v in found[0]), (1, 1, 1))
    return box.offset_zyx, int(volume.read(box).item())


# -- the exam -------------------------------------------------------------------------------------------------------


class TestOmeZarr4InMicrometres(VolumeExam):
    """OME-Zarr 0.4, axes stored as z, x, y."""

    def make(self, folder, array, voxel_size_nm):
        ome_image(folder / "image", array, voxel_size_nm, unit="micrometer", names=("z", "x", "y"))
        return open_volume(str(folder / "image"))


class TestOmeZarr5InShards(VolumeExam):
    """OME-Zarr 0.5 in Zarr 3, with shards of eight chunks, opened by the path of its level."""

    def make(self, folder, array, voxel_size_nm):
        shards = (1,) * (array.ndim - 3) + (4, 16, 16)
        ome_image(folder / "a.zarr", array, voxel_size_nm, version=3, shards=shards, level="s0", offset_nm=OFFSET)
        return open_volume(f"{folder}/a.zarr/s0")


class TestZarr3WithNames(VolumeExam):
    """A plain array of Zarr 3 in x, y, z, named by dimension_names, the voxel size as an attribute."""

    def make(self, folder, array, voxel_size_nm):
        import zarr

        names = ["c", "x", "y", "z"][4 - array.ndim :]
        stored = array.transpose([*range(array.ndim - 3), *range(array.ndim - 1, array.ndim - 4, -1)])
        group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
        node = group.create_array(
            "volumes/raw", shape=stored.shape, dtype=array.dtype, chunks=(5,) * array.ndim, dimension_names=names
        )
        node[:] = stored
        node.attrs["resolution"] = list(voxel_size_nm)[::-1]
        return open_volume(f"{folder}/a.zarr:volumes/raw")


class TestN5(VolumeExam):
    """A multiscale group whose size is that of level s0."""

    def make(self, folder, array, voxel_size_nm):
        (folder / "a.n5" / "raw").mkdir(parents=True)
        attributes = {"pixelResolution": {"dimensions": [v / 1000 for v in voxel_size_nm[::-1]], "unit": "µm"}}
        (folder / "a.n5" / "attributes.json").write_text('{"n5": "2.0.0"}')
        (folder / "a.n5" / "raw" / "attributes.json").write_text(json.dumps(attributes | {"scales": [[1, 1, 1]]}))
        n5_dataset(folder / "a.n5" / "raw" / "s0", array)
        return open_volume(f"{folder}/a.n5:raw")


class TestN5OfCosem(VolumeExam):
    """By the transform, which names its axes, in the folder of a dataset."""

    has_channels = False

    def make(self, folder, array, voxel_size_nm):
        transform = {"axes": ["z", "y", "x"], "scale": voxel_size_nm, "translate": OFFSET, "units": ["nm"] * 3}
        n5_dataset(folder / "dataset", array, transform=transform)
        return open_volume(f"n5://{folder}/dataset")


class TestPrecomputedOfOthers(VolumeExam):
    """Image, raw, in a folder without an ending."""

    dtypes = ("uint8", "uint16", "uint32", "uint64", "int32", "float32")

    def make(self, folder, array, voxel_size_nm):
        precomputed(folder / "a", array, voxel_size_nm, offset=(2, -3, 7))
        return open_volume(str(folder / "a"))


class TestPrecomputedInShards(VolumeExam):
    """compressed_segmentation in shards, by tensorstore."""

    dtypes = ("uint32", "uint64")
    has_channels = False

    def make(self, folder, array, voxel_size_nm):
        import tensorstore

        labels = array.dtype.name in self.dtypes
        sharding = {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": "identity",
            "preshift_bits": 1,
            "minishard_bits": 1,
            "shard_bits": 1,
            "data_encoding": "gzip",
            "minishard_index_encoding": "gzip",
        }
        scale = {
            "size": array.shape[::-1],
            "resolution": voxel_size_nm[::-1],
            "chunk_size": [16, 8, 4],
            "encoding": "compressed_segmentation" if labels else "raw",
            "sharding": sharding,
        }
        if labels:
            scale["compressed_segmentation_block_size"] = [8, 8, 8]
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{folder}/a/"},
            "multiscale_metadata": {"type": "segmentation", "data_type": array.dtype.name, "num_channels": 1},
            "scale_metadata": scale,
        }
        store = tensorstore.open(spec, create=True).result()
        store[..., 0].write(array.transpose()).result()
        return open_volume(f"precomputed://{folder}/a")


class TestPrecomputed(VolumeExam):
    writes = True

    def make(self, folder, array, voxel_size_nm):
        channels = array.shape[0] if array.ndim == 4 else 0
        shape = array.shape[-3:]
        volume = self.create(
            folder, shape_zyx=shape, dtype=array.dtype, voxel_size_nm=voxel_size_nm, num_channels=channels
        )
        volume.write(volume.box, array)
        return open_volume(volume.uri)

    def create(self, folder, **settings):
        return create_volume(f"{folder}/a.precomputed", **settings)


# -- one odd voxel through every writer and reader ------------------------------------------------------------------


def written_by_others(folder):
    """{name: URI} of the odd volume at ``OFFSET``, as others write it."""
    array = odd_volume()
    uris = {}
    for version in (2, 3):
        for names in (("z", "y", "x"), ("x", "y", "z"), ("y", "z", "x")):
            name = f"ome{version}{''.join(names)}.zarr"
            ome_image(folder / name, array, SIZE, version=version, unit="micrometer", offset_nm=OFFSET, names=names)
            uris[name] = str(folder / name)
    xyz = {"resolution": SIZE[::-1], "offset": OFFSET[::-1]}
    n5_dataset(folder / "a.n5" / "raw", array, **xyz)
    uris["n5"] = f"{folder}/a.n5/raw"
    transform = {"axes": list("zyx"), "scale": SIZE, "translate": OFFSET, "units": ["nm"] * 3}
    n5_dataset(folder / "b.n5", array, transform=transform)
    uris["n5 of COSEM"] = f"{folder}/b.n5"
    precomputed(folder / "c", array, SIZE, offset=(2, -3, 7))
    uris["precomputed"] = f"{folder}/c"
    return uris


def test_what_others_wrote_lies_where_they_wrote_it(tmp_path):
    for name, uri in written_by_others(tmp_path).items():
        volume = open_volume(uri)
        assert place_of_the_odd_voxel(volume) == (ODD, 200), name
        np.testing.assert_allclose(volume.voxel_size_nm, SIZE, err_msg=name)
        np.testing.assert_allclose(volume.offset_nm, OFFSET, err_msg=name)
        assert volume.shape_zyx == SHAPE and bool(volume.metadata.axes_from) == (name != "n5"), name
        copy = pickle.loads(pickle.dumps(volume))
        assert place_of_the_odd_voxel(copy) == (ODD, 200) and copy.offset_nm == volume.offset_nm, name


def written(path, dtype="uint8"):
    volume = create_volume(str(path), shape_zyx=SHAPE, dtype=dtype, voxel_size_nm=SIZE, offset_nm=OFFSET)
    volume.write(volume.box, odd_volume(dtype))
    return str(path)


def test_zarr_python_reads_what_we_wrote(tmp_path):
    import zarr

    group = zarr.open_group(written(tmp_path / "a.zarr"), mode="r")
    assert np.argwhere(group["0"][:]).tolist() == [list(ODD)]
    (image,) = group.attrs["multiscales"]
    assert [(axis["name"], axis["unit"]) for axis in image["axes"]] == [(name, "nanometer") for name in "zyx"]
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], translation["translation"]) == (list(SIZE), list(OFFSET))


def test_ome_zarr_reads_what_we_wrote(tmp_path):
    reader, io = pytest.importorskip("ome_zarr.reader"), pytest.importorskip("ome_zarr.io")
    (node, *_) = reader.Reader(io.parse_url(written(tmp_path / "a.zarr")))()
    assert np.argwhere(np.asarray(node.data[0])).tolist() == [list(ODD)]
    scale = node.metadata["coordinateTransformations"][0][0]["scale"]
    assert scale == list(SIZE)


def test_cloud_volume_reads_what_we_wrote(tmp_path):
    cloudvolume = pytest.importorskip("cloudvolume")
    for dtype in ("uint8", "uint64"):
        volume = cloudvolume.CloudVolume(f"file://{written(tmp_path / f'{dtype}.precomputed', dtype)}")
        assert np.argwhere(volume[:][..., 0]).tolist() == [list(ODD)[::-1]]
        assert volume.resolution.tolist() == list(SIZE)[::-1]
        assert volume.voxel_offset.tolist() == [7, -3, 2]


def test_the_bytes_of_a_precomputed_volume_are_in_fortran_order(tmp_path):
    folder = tmp_path / "a.precomputed"
    written(folder)
    (scale,) = json.loads((folder / "info").read_text())["scales"]
    assert (scale["size"], scale["resolution"], scale["voxel_offset"]) == ([13, 9, 6], [4, 5, 40], [7, -3, 2])
    (chunk,) = (folder / scale["key"]).iterdir()
    assert chunk.name == "7-20_-3-6_2-8"
    array = np.frombuffer(chunk.read_bytes(), np.uint8).reshape((13, 9, 6), order="F")
    assert np.argwhere(array).tolist() == [list(ODD)[::-1]]


def test_labels_become_a_segmentation(tmp_path):
    info = json.loads((tmp_path / written(tmp_path / "a.precomputed", "uint64") / "info").read_text())
    assert (info["type"], info["scales"][0]["encoding"]) == ("segmentation", "compressed_segmentation")
    assert place_of_the_odd_voxel(open_volume(f"{tmp_path}/a.precomputed")) == (ODD, 200)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"offset_nm": (60, 0, 0)}, r"\[1.5, 0.0, 0.0\] voxels .* begin at whole voxels. Write OME-Zarr"),
        ({"num_channels": 1}, "cannot hold uint8 with 1 channels"),
        ({"dtype": "float64"}, "cannot hold float64"),
    ],
)
def test_what_precomputed_cannot_hold_is_refused(tmp_path, settings, sentence):
    with pytest.raises(VolumeError, match=sentence):
        create_volume(
            f"{tmp_path}/a.precomputed", **({"shape_zyx": SHAPE, "dtype": "uint8", "voxel_size_nm": SIZE} | settings)
        )
    assert not list(tmp_path.iterdir())


def test_n5_is_only_read(tmp_path):
    with pytest.raises(VolumeError, match="n5 is only read; expected a path that ends in"):
        create_volume(f"{tmp_path}/a.n5", shape_zyx=SHAPE, dtype="uint8", voxel_size_nm=SIZE)


# -- levels, units and places of OME-Zarr ---------------------------------------------------------------------------


def pyramid(folder, levels, *, unit="nanometer", whole=(), version=2):
    """A group with levels of (scale, translation or None), z, y, x; each level is half as wide as the one before."""
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=version)
    axes = [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in "zyx"]
    datasets = []
    for number, (scale, translation) in enumerate(levels):
        sections = round(6 * levels[0][0][0] / scale[0])
        array = np.full((sections, 16 >> number, 24 >> number), number + 1, np.uint8)
        group.create_array(f"s{number}", shape=array.shape, dtype=array.dtype)[:] = array
        transforms = [{"type": "scale", "scale": scale}]
        transforms += [{"type": "translation", "translation": translation}] if translation else []
        datasets.append({"path": f"s{number}", "coordinateTransformations": transforms})
    set_multiscales(group, [{"axes": axes, "datasets": datasets, "coordinateTransformations": list(whole)}], version)
    return group


@pytest.mark.parametrize("version", [2, 3])
def test_any_level_of_an_image_is_read(tmp_path, version):
    pyramid(tmp_path / "x.zarr", [((40, 4, 4), None), ((40, 8, 8), None), ((40, 16, 16), None)], version=version)
    for uri, value in (("x.zarr", 1), ("x.zarr:s0", 1), ("x.zarr:s1", 2), ("x.zarr/s2", 3)):
        volume = open_volume(f"{tmp_path}/{uri}")
        assert volume.read(volume.box).flat[0] == value
        assert volume.voxel_size_nm == (40.0, 4.0 * 2 ** (value - 1), 4.0 * 2 ** (value - 1))
        assert any(f"level s{value - 1} of the levels s0, s1, s2" in note for note in volume.metadata.notes)
    assert open_volume(f"zarr://{tmp_path}/x.zarr/s1").voxel_size_nm == (40.0, 8.0, 8.0)
    moved = tmp_path / "renamed"
    shutil.move(tmp_path / "x.zarr", moved)
    assert open_volume(f"zarr://{moved}/s1").voxel_size_nm == (40.0, 8.0, 8.0)  # the group above says it


def test_transformations_of_level_and_image_are_multiplied(tmp_path):
    whole = [{"type": "scale", "scale": [2, 2, 2]}, {"type": "translation", "translation": [0.1, 0, 0]}]
    pyramid(tmp_path / "x.zarr", [((0.02, 0.004, 0.004), (1, 2, 3))], unit="micrometer", whole=whole)
    volume = open_volume(f"{tmp_path}/x.zarr")
    np.testing.assert_allclose(volume.voxel_size_nm, (40, 8, 8))
    np.testing.assert_allclose(volume.offset_nm, (2100, 4000, 6000))
    assert (volume.metadata.voxel_size_from, volume.metadata.offset_from) == ("OME scale", "OME translation")


@pytest.mark.parametrize(
    ("levels", "corner"),
    [
        ([((40, 4, 4), (0, 0, 0)), ((40, 8, 8), (0, 2, 2))], (0, 0, 0)),  # shifted by half voxels: centres
        ([((40, 4, 4), (400, 80, 80)), ((40, 8, 8), (400, 82, 82))], (400, 80, 80)),
        ([((40, 4, 4), None), ((40, 8, 8), (0, 2, 2))], (0, 0, 0)),
        ([((40, 4, 4), (400, 80, 80)), ((40, 8, 8), (400, 80, 80))], (400, 80, 80)),  # not shifted: corners
        ([((40, 4, 4), (0, 0, 0)), ((40, 8, 8), (0, 2, 0))], (0, 2, 0)),  # shifted otherwise: as it stands
        ([((40, 4, 4), (0, 0, 0)), ((80, 8, 8), (20, 2.0001, 2))], (0, 0.0001, 0)),
    ],
)
def test_a_pyramid_shifted_by_half_voxels_leads_to_centres(tmp_path, levels, corner):
    pyramid(tmp_path / "x.zarr", levels)
    np.testing.assert_allclose(open_volume(f"{tmp_path}/x.zarr:s1").offset_nm, corner, atol=1e-9)


def test_a_scale_without_a_unit_is_not_presumed(tmp_path):
    pyramid(tmp_path / "x.zarr", [((40, 4, 4), (10, 1, 2)), ((40, 8, 8), (10, 3, 4))], unit=None)
    uri = f"{tmp_path}/x.zarr"
    with pytest.raises(NoVoxelSizeError, match=r"its scale \(40, 4, 4\) has no unit; pass --voxel-size"):
        open_volume(uri)
    volume = open_volume(uri, (400, 40, 40))
    assert volume.voxel_size_nm == (400, 40, 40) and volume.offset_nm == (100, 10, 20)
    assert open_volume(f"{uri}:s1", (400, 80, 80)).offset_nm == (100, 10, 20)
    with pytest.raises(VolumeError, match=r"its scale is \(40, 4, 4\).*the proportions differ"):
        open_volume(uri, (400, 40, 44))


def test_a_scale_in_voxels_takes_any_size(tmp_path):
    pyramid(tmp_path / "x.zarr", [((1, 1, 1), (2, 3, 4)), ((1, 2, 2), (2, 3, 4))], unit="pixel")
    with pytest.raises(NoVoxelSizeError, match=r"has the unit 'pixel', which is no length"):
        open_volume(f"{tmp_path}/x.zarr")
    assert open_volume(f"{tmp_path}/x.zarr", (40, 4, 4)).offset_nm == (80, 12, 16)
    assert open_volume(f"{tmp_path}/x.zarr:s1", (40, 8, 8)).offset_nm == (80, 12, 16)


def test_an_axis_of_time_is_dropped(tmp_path):
    import zarr

    array = odd_volume()
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(1, 1, *SHAPE), dtype="u1")[0, 0] = array
    scales = [{"type": "scale", "scale": [1, 1, *SIZE]}]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "nm"} for name in "zyx"]
    set_multiscales(group, [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scales}]}])
    volume = open_volume(f"{tmp_path}/x.zarr")
    assert (volume.num_channels, volume.shape_zyx, volume.voxel_size_nm) == (1, SHAPE, SIZE)
    assert "axis t has length one and is dropped" in volume.metadata.notes
    np.testing.assert_array_equal(volume.read(volume.box)[0], array)


def test_names_of_xarray_are_read(tmp_path):
    import zarr

    node = zarr.create_array(tmp_path / "x.zarr", shape=SHAPE[::-1], dtype="u1", zarr_format=2)
    node[:] = odd_volume().T
    node.attrs.update({"_ARRAY_DIMENSIONS": ["x", "y", "z"], "resolution": SIZE[::-1]})
    volume = open_volume(f"{tmp_path}/x.zarr")
    assert place_of_the_odd_voxel(volume) == (ODD, 200) and volume.voxel_size_nm == SIZE
    assert "axes are stored as x y z and are turned to z y x" in volume.metadata.notes


@pytest.mark.parametrize("separator", [".", "/"])
def test_both_separators_of_chunks_are_read(tmp_path, separator):
    import zarr

    key = {"name": "v2", "separator": separator}
    node = zarr.create_array(
        tmp_path / "x.zarr", shape=SHAPE, chunks=(2, 4, 4), dtype="u1", zarr_format=2, chunk_key_encoding=key
    )
    node[:] = odd_volume()
    for name in (".zattrs", ".zmetadata"):
        (tmp_path / "x.zarr" / name).unlink(missing_ok=True)
    assert place_of_the_odd_voxel(open_volume(f"{tmp_path}/x.zarr", SIZE)) == (ODD, 200)


@pytest.mark.parametrize("dtype", [">u2", "bool", "float16"])
def test_order_and_bytes_of_the_file_do_not_matter(tmp_path, dtype):
    import zarr

    node = zarr.create_array(
        tmp_path / "a b:c é%20.zarr", shape=SHAPE, chunks=(2, 4, 5), dtype=dtype, zarr_format=2, order="F"
    )
    node[:] = odd_volume().astype(dtype)
    volume = open_volume(f"{tmp_path}/a b:c é%20.zarr", SIZE)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    assert place_of_the_odd_voxel(volume) == (ODD, 1 if dtype == "bool" else 200)


def test_what_cloud_volume_wrote_lies_where_it_wrote_it(tmp_path):
    cloudvolume = pytest.importorskip("cloudvolume")
    for dtype, encoding in (("uint8", "raw"), ("uint64", "compressed_segmentation"), ("uint64", "raw")):
        path = f"file://{tmp_path}/{dtype}_{encoding}"
        info = cloudvolume.CloudVolume.create_new_info(
            1, "image", dtype, encoding, SIZE[::-1], [7, -3, 2], SHAPE[::-1], chunk_size=[8, 8, 2]
        )
        written = cloudvolume.CloudVolume(path, info=info, compress=False)
        written.commit_info()
        written[:] = odd_volume(dtype).T[..., None]
        volume = open_volume(path)
        assert place_of_the_odd_voxel(volume) == (ODD, 200)
        assert (volume.voxel_size_nm, volume.offset_nm, volume.shape_zyx) == (SIZE, OFFSET, SHAPE)
    zipped = cloudvolume.CloudVolume(f"file://{tmp_path}/zipped", info=info)
    zipped.commit_info()
    zipped[:] = odd_volume(dtype).T[..., None]
    with pytest.raises(VolumeError, match="compressed once more as files"):
        open_volume(f"{tmp_path}/zipped")


# -- refused in a sentence ------------------------------------------------------------------------------------------


def break_ome(change):
    """A function that damages the OME metadata of a folder."""

    def damage(folder):
        attributes = json.loads((folder / ".zattrs").read_text())
        change(attributes["multiscales"][0])
        (folder / ".zattrs").write_text(json.dumps(attributes))

    return damage


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda image: image["datasets"][0].update(path="1"),
            "list the level '1', but there is no array at .*x.zarr/1",
        ),
        (lambda image: image["axes"].pop(), r"has 3 axes, \(6, 9, 13\), but names 2: z, y"),
        (lambda image: image["axes"][2].update(name="y"), "expected z, y and x once each"),
        (lambda image: image["axes"][0].update(type="time"), "axis 'z' of the type 'time'"),
        (lambda image: image["axes"][0].update(unit="parsec"), "has the unit 'parsec', which is no length"),
        (
            lambda image: image["axes"][0].update(unit="millimeter"),
            "voxel_size_nm is .*expected 0.1 to 10000 nanometres",
        ),
        (
            lambda image: image["datasets"][0].update(coordinateTransformations=[{"type": "scale", "scale": [40, 4]}]),
            "have 2 numbers for scale",
        ),
        (
            lambda image: image["datasets"][0].update(coordinateTransformations=[{"type": "affine", "affine": []}]),
            "of the type 'affine'; expected scale or translation",
        ),
        (lambda image: image.update(datasets=[]), "list no resolution level"),
        (lambda image: image.update(datasets=[{}]), r"OME metadata \(multiscales\) cannot be read"),
    ],
)
def test_ome_metadata_that_contradict_are_refused(tmp_path, change, sentence):
    ome_image(tmp_path / "x.zarr", odd_volume(), SIZE)
    break_ome(change)(tmp_path / "x.zarr")
    with pytest.raises(VolumeError, match=sentence):
        open_volume(f"{tmp_path}/x.zarr")


def test_an_attribute_that_contradicts_the_scale_is_refused(tmp_path):
    group = ome_image(tmp_path / "x.zarr", odd_volume(), SIZE)
    group["0"].attrs["resolution"] = [40, 5, 8]
    with pytest.raises(VolumeError, match=r"its OME metadata say \(40.0, 5.0, 4.0\) nm, its attribute resolution says"):
        open_volume(f"{tmp_path}/x.zarr")


def test_a_place_that_contradicts_the_translation_is_refused(tmp_path):
    group = ome_image(tmp_path / "x.zarr", odd_volume(), SIZE, offset_nm=OFFSET)
    group["0"].attrs["offset"] = [0, 0, 0]
    with pytest.raises(VolumeError, match=r"begins at \(80.0, -15.0, 28.0\) nm, its attribute offset says \(0.0"):
        open_volume(f"{tmp_path}/x.zarr")


def test_levels_of_different_extents_are_refused(tmp_path):
    pyramid(tmp_path / "x.zarr", [((40, 4, 4), None), ((40, 8, 4), None)])
    with pytest.raises(VolumeError, match="along x the level s1 has 12 voxels of 4, level 0 has 24 of 4: not the same"):
        open_volume(f"{tmp_path}/x.zarr:s1")


def test_names_of_axes_that_contradict_are_refused(tmp_path):
    group = ome_image(tmp_path / "x.zarr", odd_volume(), SIZE)
    group["0"].attrs["_ARRAY_DIMENSIONS"] = ["x", "y", "z"]
    with pytest.raises(VolumeError, match=r"OME axes say the axes are z, y, x, attributes say x, y, z. Correct one"):
        open_volume(f"{tmp_path}/x.zarr")


def test_a_group_lists_what_it_holds(tmp_path):
    import zarr

    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
    group.create_array("volumes/raw", shape=SHAPE, dtype="u1")
    group.create_array("volumes/labels/mito", shape=SHAPE, dtype="u8")
    uri = f"{tmp_path}/x.zarr"
    holds = r"it holds: volumes/raw, volumes/labels/mito"
    with pytest.raises(VolumeError, match=rf"is a group, .*{holds}. Did you mean {re.escape(uri)}:volumes/raw\?"):
        open_volume(uri)
    with pytest.raises(VolumeError, match=rf"holds no array 'volumes/row'; {holds}. Did you mean {uri}:volumes/raw\?"):
        open_volume(f"{uri}:volumes/row")
    zarr.consolidate_metadata(tmp_path / "x.zarr")
    with pytest.raises(VolumeError, match=rf"is a group, .*{holds}"):
        open_volume(uri)
    assert open_volume(f"{uri}:volumes/raw", SIZE).shape_zyx == SHAPE


@pytest.mark.parametrize("version", [2, 3])
def test_images_of_collections_are_listed(tmp_path, version):
    import zarr

    def attributes(group, **values):
        group.attrs.update(values if version == 2 else {"ome": values})

    root = tmp_path / "x.zarr"
    group = zarr.open_group(root, mode="w", zarr_format=version)
    attributes(group, **{"bioformats2raw.layout": 3})
    for name in ("0", "1"):
        ome_image(root / name, odd_volume(), SIZE, version=version)
    attributes(group.create_group("OME"), series=["0", "1"])
    with pytest.raises(VolumeError, match=r"it holds: 0, 1. Did you mean .*x\.zarr:0\?"):
        open_volume(str(root))
    assert open_volume(f"{root}:1").voxel_size_nm == open_volume(f"{root}/1/0").voxel_size_nm == SIZE
    labels = group.create_group("labels")
    attributes(labels, labels=["mito"])
    with pytest.raises(
        VolumeError, match=r"is a labels, .*it holds: labels/mito. Did you mean .*x\.zarr:labels/mito\?"
    ):
        open_volume(f"{root}:labels")
    plate = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=version)
    attributes(plate, plate={"wells": [{"path": "A/1"}, {"path": "B/2"}]})
    with pytest.raises(VolumeError, match=r"is a plate, not an array or an image; it holds: A/1, B/2"):
        open_volume(f"{tmp_path}/p.zarr")


def test_a_compression_that_is_not_known_is_named_with_the_package(tmp_path):
    import numcodecs
    import zarr

    for codec, name in ((numcodecs.LZ4(), "lz4"), (numcodecs.LZMA(), "lzma")):
        path = tmp_path / f"{name}.zarr"
        zarr.create_array(path, shape=SHAPE, dtype="u1", zarr_format=2, compressors=codec)[:] = odd_volume()
        with pytest.raises(VolumeError, match=rf"stored with '{name}', .*pip install zarr numcodecs"):
            open_volume(str(path), SIZE)
    filters = [numcodecs.Delta("u1")]
    zarr.create_array(tmp_path / "d.zarr", shape=SHAPE, dtype="u1", zarr_format=2, filters=filters)[:] = odd_volume()
    with pytest.raises(VolumeError, match="stored with 'delta'"):
        open_volume(f"{tmp_path}/d.zarr", SIZE)


def test_what_is_no_number_is_refused(tmp_path):
    import zarr

    zarr.create_array(tmp_path / "c.zarr", shape=SHAPE, dtype="c8", zarr_format=2)
    with pytest.raises(VolumeError, match="holds complex64; expected whole numbers or floats"):
        open_volume(f"{tmp_path}/c.zarr", SIZE)


def test_metadata_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / ".zarray").write_text("<html>")
    with pytest.raises(VolumeError, match=r"x.zarr/.zarray is not JSON .* it begins with '<html>'"):
        open_volume(f"{tmp_path}/x.zarr")


# -- N5 -------------------------------------------------------------------------------------------------------------

N5_SIZES = [
    ({"resolution": [4, 5, 40]}, {}, SIZE),
    ({"pixelResolution": {"dimensions": [0.004, 0.005, 0.04], "unit": "um"}}, {}, SIZE),
    ({"resolution": [4, 5, 40], "downsamplingFactors": [2, 2, 1]}, {}, (40, 10, 8)),
    ({"downsamplingFactors": [2, 2, 1]}, {"resolution": [4, 5, 40]}, (40, 10, 8)),
    ({}, {"pixelResolution": {"dimensions": [4, 5, 40], "unit": "nm"}, "scales": [[1, 1, 1], [2, 2, 1]]}, (40, 10, 8)),
    ({}, {"resolution": [4, 5, 40], "downsamplingFactors": [[1, 1, 1], [4, 4, 2]]}, (80, 20, 16)),
    ({"transform": {"axes": ["x", "y", "z"], "scale": [4, 5, 40], "units": ["nm"] * 3}}, {}, SIZE),
    ({"transform": {"axes": ["z", "y", "x"], "scale": [0.04, 0.005, 0.004], "units": ["um"] * 3}}, {}, SIZE),
]


@pytest.mark.parametrize(("own", "of_group", "size"), N5_SIZES)
def test_the_voxel_size_of_n5(tmp_path, own, of_group, size):
    n5_dataset(tmp_path / "a.n5" / "raw" / "s1", odd_volume(), **own)
    (tmp_path / "a.n5" / "raw" / "attributes.json").write_text(json.dumps(of_group))
    volume = open_volume(f"{tmp_path}/a.n5:raw/s1")
    np.testing.assert_allclose(volume.voxel_size_nm, size)
    assert place_of_the_odd_voxel(volume) == (ODD, 200)


def test_a_level_of_n5_may_state_its_own_size(tmp_path):
    n5_dataset(tmp_path / "a.n5" / "s0", odd_volume(), resolution=[4, 5, 40])
    n5_dataset(tmp_path / "a.n5" / "s1", odd_volume(), resolution=[8, 10, 40], downsamplingFactors=[2, 2, 1])
    assert open_volume(f"{tmp_path}/a.n5:s1").voxel_size_nm == (40, 10, 8)
    assert open_volume(f"{tmp_path}/a.n5").voxel_size_nm == SIZE  # the first level of a group


def test_levels_of_cosem_lead_to_centres(tmp_path):
    def transform(size, place):
        return {"axes": ["z", "y", "x"], "scale": size, "translate": place, "units": ["nm"] * 3}

    n5_dataset(tmp_path / "a.n5" / "em" / "s0", odd_volume(), transform=transform((8, 4, 4), (0, 0, 0)))
    n5_dataset(tmp_path / "a.n5" / "em" / "s1", odd_volume(), transform=transform((16, 8, 8), (4, 2, 2)))
    assert open_volume(f"{tmp_path}/a.n5:em/s1").offset_nm == (0, 0, 0)
    assert open_volume(f"{tmp_path}/a.n5:em").offset_nm == (0, 0, 0)


def test_axes_of_n5_are_read_by_name(tmp_path):
    # Listed fastest first, as everything in N5: here z is the fastest axis.
    n5_dataset(tmp_path / "a.n5", odd_volume().T, axes=["z", "y", "x"], resolution=[40, 5, 4])
    volume = open_volume(f"{tmp_path}/a.n5")
    assert place_of_the_odd_voxel(volume) == (ODD, 200) and volume.voxel_size_nm == SIZE


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({}, "states no voxel size in its attributes; pass"),
        ({"pixelResolution": [4, 5, 40]}, r"its scale \(40, 5, 4\) has no unit; pass"),
        ({"pixelResolution": {"dimensions": [1, 1, 1], "unit": "pixel"}}, "has the unit 'pixel', which is no length"),
        ({"transform": {"axes": list("zyx"), "scale": [40, 4, 4]}}, r"its scale \(40, 4, 4\) has no unit"),
        ({"transform": {"axes": list("zyx"), "scale": [40, 4]}}, "its transform has 3 axes, but 2 scale"),
        (
            {"resolution": [4, 4, 40], "pixelResolution": {"dimensions": [8, 8, 40], "unit": "nm"}},
            "pixelResolution says .*, resolution says",
        ),
        (
            {"resolution": [8, 8, 40], "transform": {"axes": list("zyx"), "scale": [40, 4, 4], "units": ["nm"] * 3}},
            "its transform says .*, its attribute resolution says",
        ),
        ({"compression": {"type": "lz4"}}, "compressed with 'lz4', .*z5py"),
        ({"axes": ["x", "y"]}, "has 3 axes, .* but names 2"),
        ({"isLabelMultiset": True}, "holds label multisets of Paintera"),
    ],
)
def test_what_n5_does_not_say_clearly_is_refused(tmp_path, attributes, sentence):
    n5_dataset(tmp_path / "a.n5", odd_volume(), **attributes)
    with pytest.raises(VolumeError, match=sentence):
        open_volume(f"{tmp_path}/a.n5")


def test_datasets_of_n5_are_listed(tmp_path):
    n5_dataset(tmp_path / "a.n5" / "volumes" / "raw" / "s0", odd_volume())
    n5_dataset(tmp_path / "a.n5" / "volumes" / "mito", odd_volume())
    holds = r"it holds: volumes/mito, volumes/raw"
    with pytest.raises(VolumeError, match=rf"is not a dataset; {holds}. Did you mean .*a\.n5:volumes/mito"):
        open_volume(f"{tmp_path}/a.n5")
    with pytest.raises(VolumeError, match=rf"{holds}. Did you mean .*a\.n5:volumes/raw"):
        open_volume(f"{tmp_path}/a.n5/volumes/row")
    with pytest.raises(VolumeError, match=r"mito is a dataset, and holds no dataset '7'. Leave that out"):
        open_volume(f"n5://{tmp_path}/a.n5/volumes/mito:7")
    with pytest.raises(VolumeError, match="does not exist; check the path of the N5 volume"):
        open_volume(f"{tmp_path}/b.n5")


# -- precomputed ----------------------------------------------------------------------------------------------------


def test_any_scale_of_precomputed_is_read(tmp_path):
    coarse = {"key": "8_10_40", "size": [6, 4, 6], "resolution": [8, 10, 40], "chunk_sizes": [[8, 8, 8]]}
    coarse |= {"encoding": "raw", "voxel_offset": [3, -2, 2]}
    precomputed(tmp_path / "a", odd_volume(), SIZE, offset=(2, -3, 7), key="4_5_40", scales=[coarse])
    for uri in (f"{tmp_path}/a", f"precomputed://{tmp_path}/a:4_5_40"):
        volume = open_volume(uri)
        assert (volume.voxel_size_nm, volume.offset_nm, volume.num_channels) == (SIZE, OFFSET, 0)
    volume = open_volume(f"precomputed://{tmp_path}/a:8_10_40")
    assert (volume.voxel_size_nm, volume.shape_zyx, volume.offset_nm) == ((40, 10, 8), (6, 4, 6), (80, -20, 24))
    with pytest.raises(VolumeError, match=r"has no scale '8_8_40'; it has: 4_5_40, 8_10_40. Did you mean '8_10_40'"):
        open_volume(f"precomputed://{tmp_path}/a:8_8_40")


def test_what_precomputed_holds_besides_volumes_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "info").write_text('{"@type": "neuroglancer_legacy_mesh"}')
    with pytest.raises(VolumeError, match="describes neuroglancer_legacy_mesh; expected a volume"):
        open_volume(f"precomputed://{tmp_path}/a")
    with pytest.raises(VolumeError, match="holds no file named info"):
        open_volume(f"precomputed://{tmp_path}")
    precomputed(tmp_path / "b", odd_volume(), SIZE)
    info = json.loads((tmp_path / "b" / "info").read_text())
    info["scales"][0]["encoding"] = "compresso"
    (tmp_path / "b" / "info").write_text(json.dumps(info))
    with pytest.raises(VolumeError, match=r"encoded as 'compresso', .*pip install cloud-volume"):
        open_volume(f"{tmp_path}/b")


def test_chunks_that_were_zipped_as_files_are_not_taken_for_missing(tmp_path):
    precomputed(tmp_path / "a", odd_volume(), SIZE)
    for path in (tmp_path / "a" / "a_b").iterdir():
        path.rename(path.with_name(path.name + ".gz"))
    with pytest.raises(VolumeError, match=r"compressed once more as files .* gunzip"):
        open_volume(f"{tmp_path}/a")


# -- whole or not ---------------------------------------------------------------------------------------------------


def test_absent_chunks_are_counted(tmp_path):
    array = np.ones(SHAPE, np.uint8)
    ome_image(tmp_path / "a.zarr", array, SIZE, chunks=(2, 4, 4))
    n5_dataset(tmp_path / "b.n5", array, block=(4, 4, 2), resolution=[4, 5, 40])
    precomputed(tmp_path / "c", array, SIZE, chunk=(4, 4, 2))
    for uri, gone in (("a.zarr", "0/0.0.0"), ("b.n5", "0/0/0"), ("c", "a_b/0-4_0-4_0-2")):
        assert open_volume(f"{tmp_path}/{uri}").num_absent_chunks() == (0, 3 * 3 * 4)
        path = tmp_path / uri / gone
        (path if path.exists() else tmp_path / uri / gone.replace(".", "/")).unlink()
        volume = open_volume(f"{tmp_path}/{uri}")
        assert volume.num_absent_chunks() == (1, 36)
        assert volume.read(Box((0, 0, 0), (2, 4, 4))).max() == 0


def test_absent_chunks_inside_shards_are_counted(tmp_path):
    group = ome_image(
        tmp_path / "a.zarr", np.ones(SHAPE, np.uint8), SIZE, version=3, chunks=(2, 4, 4), shards=(6, 12, 16)
    )
    assert open_volume(f"{tmp_path}/a.zarr").num_absent_chunks() == (0, 36)
    group["0"][:2, :4, :8] = 0
    assert open_volume(f"{tmp_path}/a.zarr").num_absent_chunks() == (2, 36)


def test_of_very_many_chunks_a_sample_is_counted(tmp_path, monkeypatch):
    from twostream.volume import chunked

    ome_image(tmp_path / "a.zarr", np.ones(SHAPE, np.uint8), SIZE, chunks=(1, 1, 1))
    for path in list((tmp_path / "a.zarr").rglob("0.*"))[:1] or [tmp_path / "a.zarr" / "0" / "0" / "0" / "0"]:
        path.unlink()
    monkeypatch.setattr(chunked, "MAX_ASKED", 50)
    assert open_volume(f"{tmp_path}/a.zarr").num_absent_chunks() == (1, 50)
    monkeypatch.setattr(chunked, "MAX_LISTED", 100)
    absent, asked = open_volume(f"{tmp_path}/a.zarr").num_absent_chunks()
    assert absent in (0, 1) and asked == 50


def test_chunks_that_we_wrote_are_there_even_if_they_are_zero(tmp_path):
    for name in ("a.zarr",):
        volume = create_volume(f"{tmp_path}/{name}", shape_zyx=(20, 9, 13), dtype="uint8", voxel_size_nm=SIZE)
        assert volume.num_absent_chunks() == (2, 2)
        volume.write(volume.box, np.zeros((20, 9, 13), np.uint8))
        assert volume.num_absent_chunks() == (0, 2)


@pytest.mark.parametrize("kind", ["zarr", "zarr3", "n5", "precomputed"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_chunk_that_was_cut_short_is_an_error_that_names_box_and_chunk(tmp_path, kind, share):
    array = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
    folder, uri = tmp_path / f"a.{kind[:4]}", f"{tmp_path}/a.{kind[:4]}"
    if kind.startswith("zarr"):
        ome_image(folder, array, SIZE, version=3 if kind == "zarr3" else 2, chunks=(2, 4, 4))
        chunk = next(
            p for p in (folder / "0").rglob("*") if p.is_file() and "zarr" not in p.name and p.name != ".zattrs"
        )
    elif kind == "n5":
        n5_dataset(folder, array, block=(4, 4, 2), resolution=[4, 5, 40])
        chunk = folder / "1" / "1" / "1"
    else:
        precomputed(folder, array, SIZE, chunk=(4, 4, 2))
        chunk = folder / "a_b" / "4-8_4-8_2-4"
    chunk.write_bytes(chunk.read_bytes()[: int(share * chunk.stat().st_size)])
    volume = open_volume(uri)
    with pytest.raises(VolumeError, match=rf"box 0:6,0:9,0:13 cannot be read: .*{re.escape(str(chunk))}"):
        volume.read(volume.box)
