"""A part of a volume, named by a box behind its URI: everything is as if the part had been cut out into a file."""

import pickle

import h5py
import numpy as np
import pytest
from conftest import VOXEL_SIZE_NM, toy_arrays

from twostream.base.errors import InputError, VolumeError
from twostream.base.geometry import Box
from twostream.candidates.labels import LabelsConfig, open_labels
from twostream.rounds.loop import run
from twostream.task import get_task
from twostream.volume import create_volume, open_volume
from twostream.volume.open import open_ignore_mask
from twostream.volume.place import place_on
from twostream.volume.uri import Uri, absolute_uri, portable_uri

PART = Box((1, 10, 20), (5, 30, 40))
VALUES = np.random.default_rng(0).integers(0, 255, (8, 64, 80)).astype(np.uint8)


@pytest.fixture
def stored(tmp_path):
    """{name: URI} of one volume in several formats, at a place where the format states one."""
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.attrs["voxel_size_nm"] = (30.0, 8.0, 8.0)
        file["raw"] = VALUES
        file["raw_ignore"] = (VALUES > 200).astype(np.uint8)
    zarr = create_volume(
        str(tmp_path / "v.zarr"), shape_zyx=VALUES.shape, dtype=np.uint8, voxel_size_nm=(30, 8, 8), num_channels=2,
        offset_nm=(300.0, 80.0, 160.0),
    )  # fmt: skip
    zarr.write(zarr.box, np.stack([VALUES, 255 - VALUES]))
    return {"hdf5": f"{tmp_path}/v.h5:raw", "zarr": f"{tmp_path}/v.zarr"}


@pytest.mark.parametrize("name", ["hdf5", "zarr"])
def test_a_part_holds_what_the_whole_holds_there(stored, name):
    whole, part = open_volume(stored[name]), open_volume(f"{stored[name]}[{PART}]")
    assert part.shape_zyx == PART.shape_zyx and part.num_channels == whole.num_channels
    np.testing.assert_array_equal(part.read(part.box), whole.read(PART))
    inside = Box((2, 3, 5), (3, 10, 11))
    np.testing.assert_array_equal(part.read(inside), whole.read(inside.shifted(PART.offset_zyx)))
    assert part.offset_nm == ((330.0, 160.0, 320.0) if name == "zarr" else None)
    assert part.voxel_size_nm == whole.voxel_size_nm and part.as_stored is part
    assert "it is the part 1:6,10:40,20:60 of 0:8,0:64,0:80; voxels count from" in part.metadata.notes[-1]
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.read(inside), part.read(inside))
    with pytest.raises(VolumeError, match="cannot read box"):
        part.read(Box((0, 0, 0), (6, 30, 40)))
    assert open_volume(part.uri).shape_zyx == part.shape_zyx


def test_generated_tissue_has_parts(tmp_path):
    uri = "synthetic://seed=1&shape=8,64,64"
    np.testing.assert_array_equal(
        open_volume(f"{uri}[0:4,8:40,0:32]").read(Box.whole((4, 32, 32))),
        open_volume(uri).read(Box.parse("0:4,8:40,0:32")),
    )


def test_the_ignore_mask_beside_labels_is_that_of_the_part(stored):
    mask = open_ignore_mask(f"{stored['hdf5']}[{PART}]")
    np.testing.assert_array_equal(mask.read(mask.box), (VALUES > 200)[PART.slices])


def test_a_uri_with_a_part_is_read_and_written(tmp_path):
    for text in (
        f"a/v.h5:raw[{PART}]",
        f"s3://bucket/v.zarr[{PART}]",
        f"precomputed://gs://b/p[{PART}]",
        "v.npy[0:1,0:2,0:3]",
    ):
        parsed = Uri.parse(text)
        assert str(parsed) == text and parsed.part and parsed.part not in parsed.path + parsed.dataset
    assert Uri.parse(f"/home/me/v.h5:raw[{PART}]").short == f"v.h5:raw[{PART}]"
    assert absolute_uri(f"v.h5:raw[{PART}]", tmp_path) == f"{tmp_path}/v.h5:raw[{PART}]"
    assert portable_uri(f"{tmp_path}/v.h5:raw[{PART}]", tmp_path / "p") == f"../v.h5:raw[{PART}]"
    for name in ("a[1].tif", "stack[x]", "[0:1]", "scan[12]", "scan [2024-01-05]"):  # paths as they are
        assert Uri.parse(name).part == "" and Uri.parse(name).path == name


@pytest.mark.parametrize(
    "part, message",
    [
        ("0:4,0:10", r"named by a box at the very end: URI\[Z0:Z1,Y0:Y1,X0:X1\]"),
        ("4:4,0:10,0:10", r"holds no voxel"),
        ("0:9,0:64,0:80", r"holds 0:8,0:64,0:80 .*the part \[0:9,0:64,0:80\] reaches outside"),
        ("-1:4,0:10,0:10", r"reaches outside"),
        ("0.5:4,0:10,0:10", r"named by a box at the very end"),
        ("0:4,0:10,0:10][0:2,0:2,0:2", r"names a part of a part; name one box"),
        ("- 1:4,0:10,0:10", r"expected Z0:Z1"),
    ],
)
def test_a_part_that_is_no_box_inside_is_refused(stored, part, message):
    with pytest.raises(VolumeError, match=message):
        open_volume(f"{stored['hdf5']}[{part}]")


def test_nothing_is_created_in_a_part(tmp_path):
    with pytest.raises(VolumeError, match=r"only reading can be limited to a part\. Leave out \[0:1,0:1,0:1\]"):
        create_volume(f"{tmp_path}/v.zarr[0:1,0:1,0:1]", shape_zyx=(1, 1, 1), dtype=np.uint8, voxel_size_nm=(1, 1, 1))


def test_a_project_on_a_part_is_that_on_a_file_with_this_part_alone(make_project, tmp_path):
    image, truth = toy_arrays()
    grown = [np.pad(array, ((1, 2), (7, 5), (3, 9)), mode="reflect") for array in (image, truth)]
    part = Box((1, 7, 3), image.shape)
    for name, arrays in (("cut", (image, truth)), ("large", grown)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
            file["image"], file["mitochondria"] = arrays
    found = []
    for name, brackets in (("cut", ""), ("large", f"[{part}]")):
        uris = {what: f"{tmp_path}/{name}.h5:{what}{brackets}" for what in ("image", "mitochondria")}
        project = make_project(name, image=uris["image"], labels=uris["mitochondria"])
        assert run(project, rounds=1, truth_uri=uris["mitochondria"]).finished
        found.append((
            [(q.candidate.id, q.candidate.box) for q in project.ledger.queries()],
            project.ledger.scores()[1]["scores"],
        ))  # fmt: skip
        assert (str(project.image.uri).endswith("]")) == bool(brackets)
    assert found[0] == found[1] and found[0][0]


def test_labels_of_the_whole_lie_on_a_part_of_the_image_by_their_place(make_project, tmp_path):
    image, truth = toy_arrays()
    for name, array in (("image", image), ("labels", truth)):
        volume = create_volume(
            f"{tmp_path}/{name}.zarr", shape_zyx=array.shape, dtype=array.dtype, voxel_size_nm=VOXEL_SIZE_NM,
            offset_nm=(0.0, 0.0, 0.0),
        )  # fmt: skip
        volume.write(volume.box, array)
    part = Box((0, 0, 8), (image.shape[0], image.shape[1], image.shape[2] - 8))
    project = make_project(
        image=f"{tmp_path}/image.zarr[{part}]", labels=f"{tmp_path}/labels.zarr", labels_box="0:8,0:96,0:56",
        test_box="0:8,0:96,184:232",
    )  # fmt: skip
    np.testing.assert_array_equal(project.labels.read(project.labels.box), truth[part.slices])


def test_labels_of_the_whole_that_state_no_place_are_refused_with_the_uri_to_take(make_project, toy_file):
    part = Box((0, 0, 0), (8, 96, 200))
    with pytest.raises(InputError) as caught:
        make_project(image=f"{toy_file}:image[{part}]")
    assert str(caught.value).endswith(f"name the same part of it: '{toy_file}:mitochondria[{part}]'.")
    make_project("again", image=f"{toy_file}:image[{part}]", labels=f"{toy_file}:mitochondria[{part}]", test_box=None)


@pytest.mark.parametrize(
    "uri", ["v.h5[0:1,0:2,0:3]:raw", "v.zarr[0:1,0:2,0:3]/0", "v.h5:raw[0:1,0:2,0:3", "dir[0:1,0:2]"]
)
def test_a_box_that_does_not_stand_last_is_refused_with_where_it_belongs(uri, stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VolumeError, match=r"named by a box at the very end: URI\[Z0:Z1,Y0:Y1,X0:X1\]\.$"):
        open_volume(uri, (30, 8, 8))


def test_a_folder_that_is_called_like_a_part_is_that_folder(stored, tmp_path):
    whole = open_volume(stored["zarr"])
    for name in ("scan[0:1,0:2,0:3]", "scan[12]", "scan"):
        other = create_volume(
            str(tmp_path / "made.zarr"), shape_zyx=(4, 4, 4), dtype=np.uint8, voxel_size_nm=(30, 8, 8)
        )  # fmt: skip
        other.write(other.box, np.full((4, 4, 4), len(name), np.uint8))
        (tmp_path / "made.zarr").rename(tmp_path / name)
    for name in ("scan[0:1,0:2,0:3]", "scan[12]", "scan"):
        for uri in (f"{tmp_path}/{name}", f"file://{tmp_path}/{name.replace('[', '%5B').replace(']', '%5D')}"):
            found = open_volume(uri)
            assert (found.read(found.box) == len(name)).all() and found.shape_zyx == (4, 4, 4)
    assert whole.shape_zyx == VALUES.shape


def test_parts_of_wholes_of_which_one_states_no_place_lie_on_each_other(stored, tmp_path):
    placed, plain = (f"{stored[name]}[{PART}]" for name in ("zarr", "hdf5"))
    image, labels = open_volume(placed), open_volume(plain)
    assert place_on(labels, image) is labels and place_on(open_volume(stored["hdf5"]), open_volume(stored["zarr"]))


def test_chunks_of_a_part_that_are_not_stored_are_counted(tmp_path):
    volume = create_volume(f"{tmp_path}/a.zarr", shape_zyx=(64, 256, 512), dtype=np.uint8, voxel_size_nm=(30, 8, 8))
    z, y, x = volume.chunk_shape_zyx
    volume.write(Box((0, 0, 0), (z, y, x)), np.ones((z, y, x), np.uint8))
    part = open_volume(f"{tmp_path}/a.zarr[0:{z + 1},0:{y},0:{2 * x}]")
    assert part.num_absent_chunks() == (3, 4)
    assert open_volume(f"{tmp_path}/a.zarr[0:{z},1:{y},0:{x}]").num_absent_chunks() == (0, 1)


def test_an_ignore_mask_without_a_place_lies_on_the_part_of_labels_that_state_one(tmp_path):
    with h5py.File(tmp_path / "l.h5", "w") as file:
        labels = file.create_dataset("labels", data=(VALUES > 100).astype(np.uint16))
        file["labels_ignore"] = (VALUES > 200).astype(np.uint8)
        file["image"] = VALUES
        for name in ("labels", "labels_ignore", "image"):
            file[name].attrs["voxel_size_nm"] = (30.0, 8.0, 8.0)
        for name in ("labels", "image"):
            file[name].attrs["offset"] = (0.0, 80.0, 0.0)
        del labels
    image = open_volume(f"{tmp_path}/l.h5:image[{PART}]")
    config = LabelsConfig(uri=f"{tmp_path}/l.h5:labels[{PART}]")
    found = open_labels(config, image, get_task("mitochondria", image.voxel_size_nm))
    np.testing.assert_array_equal(found.ignore.read(image.box) > 0, (VALUES > 200)[PART.slices])
