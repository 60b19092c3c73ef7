"""Volumes: URIs, the formats, and the errors for files, voxel sizes and arrays that do not fit."""

import json
import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.testing import VolumeExam
from twostream.volume import MemoryVolume, create_volume, open_ignore_mask, open_volume, register_format
from twostream.volume.formats import FORMATS
from twostream.volume.uri import Uri, absolute_uri, portable_uri

SIZE = (40.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("uri", "short"),
    [
        ("/a/b/x.h5:raw", "x.h5:raw"),
        ("/a/b/x.hdf5:/volumes/raw", "x.hdf5:/volumes/raw"),
        ("/a/b.h5/x.zarr", "x.zarr"),
        ("zarr:///a/b/folder", "folder"),
        ("/a/b/x.zarr/", "x.zarr"),
        ("synthetic://seed=3&kind=image", "synthetic://seed=3&kind=image"),
    ],
)
def test_short_uri_has_no_folders(uri, short):
    assert Uri.parse(uri).short == short


@pytest.mark.parametrize(
    "uri", ["/a/b/x.h5:raw", "x.hdf5:/volumes/raw", "zarr://a/b", "a/x.zarr", "synthetic://seed=3"]
)
def test_str_of_a_parsed_uri_is_the_same_text(uri):
    assert str(Uri.parse(uri)) == uri


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///lab/a%20b%23.h5:em", "/lab/a b#.h5"),
        ("file:///lab/run#1/what?.h5:em", "/lab/run#1/what?.h5"),
        ("file://localhost/lab/a.h5:em", "/lab/a.h5"),
        ("file://lab/a.h5:em", "lab/a.h5"),
        ("~nobody-of-that-name/a.h5:em", "~nobody-of-that-name/a.h5"),
    ],
)
def test_paths_in_file_uris_and_homes(uri, path):
    assert (Uri.parse(uri).path, Uri.parse(uri).dataset) == (path, "em")
    assert absolute_uri(uri, Path("/")) == f"{Path('/') / path}:em"


@pytest.mark.parametrize(
    ("uri", "stored"),
    [
        ("/lab/p/x.h5:raw", "x.h5:raw"),
        ("/lab/x.zarr", "../x.zarr"),
        ("/lab/data/x.zarr", "../data/x.zarr"),
        ("zarr:///lab/data/x", "zarr://../data/x"),
        ("/laboratory/x.zarr", "/laboratory/x.zarr"),
        ("/elsewhere/x.h5:raw", "/elsewhere/x.h5:raw"),
        ("synthetic://seed=3", "synthetic://seed=3"),
    ],
)
def test_paths_in_or_beside_a_project_are_stored_relative_to_it(uri, stored):
    assert portable_uri(uri, Path("/lab/p")) == stored
    assert absolute_uri(stored, Path("/lab/p")) == uri


def test_project_in_the_root_folder_stores_absolute_paths():
    assert portable_uri("/data/x.zarr", Path("/p")) == "/data/x.zarr"


@pytest.fixture
def marked():
    """An anisotropic array with one odd voxel."""
    array = np.zeros((5, 17, 33), np.uint8)
    array[3, 11, 29] = 200
    return array


def hdf5(path, array, **attributes):
    with h5py.File(path, "w") as file:
        file["em"] = array
        file["em"].attrs.update(attributes)
    return f"{path}:em"


class TestMemory(VolumeExam):
    in_memory = True
    writes = True

    def make(self, folder, array, voxel_size_nm):
        return MemoryVolume(array, voxel_size_nm)

    def create(self, folder, *, shape_zyx, dtype, voxel_size_nm, num_channels, offset_nm):
        shape = ((num_channels,) if num_channels else ()) + shape_zyx
        return MemoryVolume(np.zeros(shape, dtype), voxel_size_nm, offset_nm=offset_nm)


class TestHdf5(VolumeExam):
    def make(self, folder, array, voxel_size_nm):
        return open_volume(hdf5(folder / "a.h5", array, voxel_size_nm=voxel_size_nm))


class TestHdf5WithoutVoxelSize(VolumeExam):
    states_voxel_size = False

    def make(self, folder, array, voxel_size_nm):
        return open_volume(hdf5(folder / "a.h5", array), voxel_size_nm)


class TestHdf5InChunks(VolumeExam):
    def make(self, folder, array, voxel_size_nm):
        with h5py.File(folder / "a.hdf5", "w") as file:
            chunks = (1,) * (array.ndim - 3) + (2, 8, 8)
            file.create_dataset("volumes/em", data=array, chunks=chunks, compression="gzip", shuffle=True)
            file.attrs["resolution"] = voxel_size_nm
        return open_volume(f"{folder}/a.hdf5:volumes/em")


class TestZarr3OfOthers(VolumeExam):
    states_voxel_size = False

    def make(self, folder, array, voxel_size_nm):
        import zarr

        chunks = (1,) * (array.ndim - 3) + (2, 8, 8)
        shards = (1,) * (array.ndim - 3) + (4, 16, 16)
        stored = zarr.create_array(
            folder / "b.zarr", shape=array.shape, chunks=chunks, shards=shards, dtype=array.dtype, zarr_format=3
        )
        stored[:] = array
        return open_volume(str(folder / "b.zarr"), voxel_size_nm)


class TestZarr2OfOthers(VolumeExam):
    """An OME-Zarr image in a folder whose name does not tell."""

    def make(self, folder, array, voxel_size_nm):
        import zarr

        group = zarr.open_group(folder / "image", mode="w", zarr_format=2)
        stored = group.create_array(
            "s0", shape=array.shape, chunks=(1,) * (array.ndim - 3) + (2, 8, 8), dtype=array.dtype
        )
        stored[:] = array
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
        scale = [v / 1000 for v in voxel_size_nm]
        if array.ndim == 4:
            axes, scale = [{"name": "c", "type": "channel"}, *axes], [1.0, *scale]
        transforms = [{"type": "scale", "scale": scale}]
        datasets = [{"path": "s0", "coordinateTransformations": transforms}]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        return open_volume(str(folder / "image"))


class TestZarr(VolumeExam):
    writes = True

    def make(self, folder, array, voxel_size_nm):
        channels = array.shape[0] if array.ndim == 4 else 0
        volume = self.create(
            folder,
            shape_zyx=array.shape[-3:],
            dtype=array.dtype,
            voxel_size_nm=voxel_size_nm,
            num_channels=channels,
        )
        volume.write(volume.box, array)
        return open_volume(str(folder / "a.zarr"))

    def create(self, folder, **settings):
        return create_volume(str(folder / "a.zarr"), **settings)

    def test_zarr_python_reads_the_same(self, tmp_path, marked):
        import zarr

        self.make(tmp_path, marked, SIZE)
        group = zarr.open_group(tmp_path / "a.zarr", mode="r")
        np.testing.assert_array_equal(group["0"][:], marked)
        image = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())["multiscales"][0]
        assert [a["name"] for a in image["axes"]] == ["z", "y", "x"]
        assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == list(SIZE)


class TestSynthetic:
    def test_voxels_do_not_depend_on_the_box(self):
        uri = "synthetic://seed=5&kind=image&shape=4,40,40&offset=-2,7,-9"
        volume = open_volume(uri)
        whole = volume.read(volume.box)
        assert whole.dtype == np.uint8
        part = Box((1, 11, 5), (2, 20, 30))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(part), whole[part.slices])

    @pytest.mark.parametrize(
        ("uri", "sentence"),
        [
            ("synthetic://sed=1", "unknown option 'sed'"),
            ("synthetic://kind=axons", "kind is 'axons'; expected one of"),
            ("synthetic://shape=1,2", "expected"),
        ],
    )
    def test_invalid_options_are_named(self, uri, sentence):
        with pytest.raises(ValueError, match=sentence):
            open_volume(uri)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((8, 8, 30), r"\(8, 8, 30\); expected Z, Y, X, slowest first. Did you pass X, Y, Z\?"),
        ((30, 8), "expected three positive numbers"),
        ((30, -8, 8), "expected three positive numbers"),
    ],
)
def test_invalid_voxel_size_is_explained(tmp_path, marked, size, sentence):
    with pytest.raises(VolumeError, match=sentence):
        open_volume(hdf5(tmp_path / "a.h5", marked), size)


def test_missing_voxel_size_is_asked_for(tmp_path, marked):
    with pytest.raises(VolumeError, match=r"states no voxel size .* pass --voxel-size Z,Y,X"):
        open_volume(hdf5(tmp_path / "a.h5", marked))


def test_voxel_size_that_contradicts_the_file_is_refused(tmp_path, marked):
    uri = hdf5(tmp_path / "a.h5", marked, resolution=(10.0, 8.0, 8.0))
    with pytest.raises(VolumeError, match=r"--voxel-size says \(8.0, 8.0, 10.0\) .* Z and X look swapped"):
        open_volume(uri, (8, 8, 10))


def test_missing_or_unreadable_files_and_datasets_are_named(tmp_path, marked):
    uri = hdf5(tmp_path / "a.h5", marked, voxel_size_nm=SIZE)
    with pytest.raises(VolumeError, match=r"holds no dataset 'me'; it holds: em\. Did you mean 'em'"):
        open_volume(uri.replace(":em", ":me"))
    with pytest.raises(VolumeError, match="does not exist; check the path"):
        open_volume(str(tmp_path / "none.h5:em"))
    with pytest.raises(VolumeError, match="does not exist; check the path"):
        open_volume(str(tmp_path / "none.zarr"))
    with pytest.raises(VolumeError, match="cannot tell the format"):
        open_volume("image.jpg")
    (tmp_path / "broken.h5").write_bytes(b"not hdf5")
    with pytest.raises(VolumeError, match="cannot be opened as HDF5"):
        open_volume(str(tmp_path / "broken.h5:em"))


def test_ignore_mask_is_a_dataset_named_after_the_labels(tmp_path, marked):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["voxel_size_nm"] = SIZE
        file["mito"], file["mito_ignore"] = marked, marked
    ignore = open_ignore_mask(f"{tmp_path / 'a.h5'}:mito")
    assert ignore is not None and ignore.uri.endswith(":mito_ignore")
    assert open_ignore_mask(f"{tmp_path / 'a.h5'}:mito_ignore") is None


def test_invalid_writes_are_refused(tmp_path, marked):
    volume = create_volume(str(tmp_path / "a.zarr"), shape_zyx=(2, 3, 4), dtype=np.uint8, voxel_size_nm=SIZE)
    with pytest.raises(VolumeError, match=r"got an array of \(2, 3, 4\) float64 .* expected \(2, 3, 4\) uint8"):
        volume.write(volume.box, np.zeros((2, 3, 4)))
    with pytest.raises(VolumeError, match="exists already"):
        create_volume(str(tmp_path / "a.zarr"), shape_zyx=(2, 3, 4), dtype=np.uint8, voxel_size_nm=SIZE)
    with pytest.raises(VolumeError, match="open for reading only"):
        readonly = open_volume(str(tmp_path / "a.zarr"))
        readonly.write(readonly.box, np.zeros((2, 3, 4), np.uint8))


@pytest.fixture
def formats():
    """The table of formats, as it was once the test is over."""
    before = dict(FORMATS)
    yield FORMATS
    FORMATS.clear()
    FORMATS.update(before)


def opens_nothing(uri, voxel_size_nm=None):
    return MemoryVolume(np.zeros((1, 2, 3), np.uint8), SIZE, uri)


def test_a_format_from_outside_is_known_to_every_uri(formats):
    register_format("raw", opens_nothing, suffixes=(".raw", ".zarr.raw"))
    for uri, driver, path in (
        ("a/x.raw", "raw", "a/x.raw"),
        ("a/X.RAW", "raw", "a/X.RAW"),
        ("a/x.zarr.raw/", "raw", "a/x.zarr.raw/"),  # the longest ending decides
        ("raw://a/x.dat", "raw", "a/x.dat"),
    ):
        parsed = Uri.parse(uri)
        assert (parsed.driver, parsed.path, str(parsed)) == (driver, path, uri) and parsed.is_path
        assert open_volume(uri).uri == uri
    assert portable_uri("raw:///lab/p/x.dat", Path("/lab/p")) == "raw://x.dat"
    assert Uri.parse("x.raw:em").driver == ""  # one array per file: no dataset


def test_a_format_with_datasets_has_them_under_any_ending(formats, tmp_path, marked):
    uri = hdf5(tmp_path / "a.h5", marked, voxel_size_nm=SIZE)
    (tmp_path / "a.h5").rename(tmp_path / "a.mat")
    uri = "hdf5://" + uri.replace(".h5", ".mat")
    volume = open_volume(uri)
    assert volume.uri == uri and Uri.parse(uri).short == "a.mat:em"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(volume.box), marked)
    assert Uri.parse("hdf5://a.mat").dataset == Uri.parse("a.h5").dataset == "main"
    with pytest.raises(VolumeError, match=r"cannot tell the format of 'a\.h5:'"):
        open_volume("a.h5:")


@pytest.mark.parametrize(
    ("driver", "suffixes", "sentence"),
    [
        ("hdf5", (), r"driver 'hdf5' is registered already, by twostream\.volume\._hdf5\.Hdf5Volume; choose another"),
        ("raw", (".zarr",), "suffix '.zarr' of driver 'raw' belongs to driver 'zarr'; leave it out"),
        ("raw", ("raw",), "suffix of driver 'raw' is 'raw'; expected lower case with its dot"),
        ("Raw", (), "driver is 'Raw'; expected lower-case letters"),
        ("ra:w", (), "driver is 'ra:w'; expected lower-case letters"),
    ],
)
def test_a_format_that_clashes_is_refused(formats, driver, suffixes, sentence):
    before = dict(formats)
    with pytest.raises(VolumeError, match=sentence):
        register_format(driver, opens_nothing, suffixes=suffixes)
    assert formats == before


def test_a_format_may_be_registered_again(formats):
    for _ in range(2):  # a cell of a notebook that runs twice
        register_format("raw", opens_nothing, suffixes=(".raw",))
    assert open_volume("x.raw").uri == "x.raw"


def test_what_opens_and_what_can_be_created_is_said(formats):
    register_format("raw", opens_nothing, suffixes=(".raw",))
    ordered = sorted(formats.values(), key=lambda f: f.driver)
    suffixes = ", ".join(re.escape(suffix) for f in ordered for suffix in f.suffixes)
    drivers = ", ".join(f"{f.driver}://" for f in ordered)
    assert r"\.h5, \.hdf5" in suffixes and r"\.raw" in suffixes and "raw://, " in drivers
    known = f"a path that ends in one of {suffixes}, or one of the drivers {drivers}"
    for uri in ("image.jpg", "s3://bucket/x.jpg"):
        with pytest.raises(VolumeError, match=f"cannot tell the format of '{uri}'; expected {known}"):
            open_volume(uri)
    settings = {"shape_zyx": (1, 2, 3), "dtype": np.uint8, "voxel_size_nm": SIZE}
    for uri, sentence in (("x.raw", "raw is only read; expected"), ("x.jpg", "expected")):
        with pytest.raises(VolumeError, match=rf"cannot create '{uri}'; {sentence} a path that ends in .*\.zarr"):
            create_volume(uri, **settings)


def test_a_voxel_size_that_is_given_twice_must_agree():
    assert open_volume("synthetic://shape=1,2,3", (30, 8, 8)).voxel_size_nm == (30.0, 8.0, 8.0)
    with pytest.raises(VolumeError, match=r"says its voxels are \(30.0, 8.0, 8.0\) nm, --voxel-size says \(40.0, 4.0"):
        open_volume("synthetic://shape=1,2,3", SIZE)
