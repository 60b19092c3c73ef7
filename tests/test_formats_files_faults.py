"""TIFF, folders of images, .npy, NIfTI and HDF5: one odd voxel through every reader and writer; faults in sentences."""

import pickle
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from test_formats_remote import Handler, http

from twostream.base.errors import NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.volume import byte_files, create_volume, open_ignore_mask, open_volume
from twostream.volume.decoded import CACHE, CACHE_BYTES, DecodedCache

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


def check_odd(volume, size=SIZE):
    assert volume.shape_zyx == SHAPE and np.allclose(volume.voxel_size_nm, size)
    found = np.argwhere(volume.read(volume.box))
    assert [tuple(place) for place in found] == [ODD]
    assert volume.read(Box(ODD, (1, 1, 1))).item() == 200


def refused(sentence, uri, size=SIZE, error=VolumeError):
    with pytest.raises(error, match=sentence):
        volume = open_volume(str(uri), size)
        volume.read(volume.box)


# -- TIFF ----------------------------------------------------------------------------------------------------------


def imagej(path, array=None, *, unit="um", spacing=0.04, resolution=(250, 200), **more):
    metadata = {"axes": "ZYX", "unit": unit} | ({"spacing": spacing} if spacing else {}) | more
    tifffile.imwrite(
        path, odd_volume() if array is None else array, imagej=True, metadata=metadata, resolution=resolution
    )
    return str(path)


@pytest.mark.parametrize(
    ("unit", "nm"), [("um", 1e3), ("micron", 1e3), ("\\u00B5m", 1e3), ("nm", 1.0), ("mm", 1e6), ("nanometers", 1.0)]
)
def test_imagej_in_every_unit(tmp_path, unit, nm):
    uri = imagej(tmp_path / "a.tif", unit=unit, spacing=SIZE[0] / nm, resolution=(nm / SIZE[2], nm / SIZE[1]))
    found = open_volume(uri)
    check_odd(found)
    assert found.metadata.voxel_size_from.startswith("ImageJ") and found.offset_nm is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"unit": "pixel"}, "give no unit of length"), ({"spacing": None}, "lack spacing"), ({"unit": ""}, "no unit of")],
)
def test_imagej_without_a_unit_or_a_spacing_states_no_size(tmp_path, given, sentence):
    uri = imagej(tmp_path / "a.tif", **given)
    refused(sentence, uri, None, NoVoxelSizeError)
    check_odd(open_volume(uri, SIZE))


def test_the_origin_of_imagej_is_a_place(tmp_path):
    uri = imagej(tmp_path / "a.tif", zorigin=-2, yorigin=3, xorigin=-7)
    assert open_volume(uri).offset_nm == OFFSET


def test_imagej_names_the_order_of_sections_and_channels(tmp_path):
    both = np.stack([odd_volume(), odd_volume() // 2], 1)  # Z, C, Y, X
    metadata = {"axes": "ZCYX", "spacing": 0.04, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", both, imagej=True, metadata=metadata, resolution=(250, 200))
    found = open_volume(str(tmp_path / "a.tif"))
    assert (found.num_channels, found.voxel_size_nm) == (2, SIZE)
    np.testing.assert_array_equal(found.read(found.box), both.transpose(1, 0, 2, 3))


def test_sections_that_are_called_time_points_are_sections_and_it_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", odd_volume(), imagej=True, metadata={"axes": "TYX"})
    found = open_volume(str(tmp_path / "a.tif"), SIZE)
    check_odd(found)
    assert "time points" in found.metadata.notes[0]
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((2, 3, 4, 5), "uint8"), imagej=True, metadata={"axes": "TZYX"})
    refused("axis 't' of length 2", tmp_path / "b.tif")


def ome(path, array=None, **metadata):
    told = {"axes": "ZYX", "PhysicalSizeZ": 0.04, "PhysicalSizeY": 0.005, "PhysicalSizeX": 0.004} | metadata
    array = odd_volume() if array is None else array
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata=told)
    return str(path)


def test_ome_units_are_micrometres_unless_stated(tmp_path):
    check_odd(open_volume(ome(tmp_path / "a.ome.tif")))
    units = {f"PhysicalSize{a}Unit": "nm" for a in "ZYX"} | dict(
        zip(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), SIZE, strict=True)
    )
    check_odd(open_volume(ome(tmp_path / "b.tif", **units)))
    refused("PhysicalSizeZUnit is 'pixel'", ome(tmp_path / "c.tif", **units | {"PhysicalSizeZUnit": "pixel"}))
    refused("lack PhysicalSizeZ", ome(tmp_path / "d.tif", PhysicalSizeZ=None), None, NoVoxelSizeError)


def test_ome_images_are_chosen_by_number(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for factor in (2, 1):
            told = {"PhysicalSizeZ": 0.04 * factor, "PhysicalSizeY": 0.005, "PhysicalSizeX": 0.004}
            writer.write(odd_volume() // factor, photometric="minisblack", metadata={"axes": "ZYX"} | told)
    refused(r"several series; choose one: .*a.ome.tif:0 .*a.ome.tif:1", tmp_path / "a.ome.tif")
    found = open_volume(f"{tmp_path}/a.ome.tif:1")
    check_odd(pickle.loads(pickle.dumps(found)))
    assert open_volume(f"{tmp_path}/a.ome.tif:0").voxel_size_nm == (80.0, 5.0, 4.0)
    refused("there is no series '7'", f"{tmp_path}/a.ome.tif:7")


def test_pyramids_are_read_at_their_full_resolution(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        told = {"axes": "ZYX", "PhysicalSizeZ": 0.04, "PhysicalSizeY": 0.005, "PhysicalSizeX": 0.004}
        writer.write(odd_volume(), photometric="minisblack", subifds=1, metadata=told)
        writer.write(odd_volume()[:, ::2, ::2], photometric="minisblack", subfiletype=1)
    found = open_volume(str(tmp_path / "a.ome.tif"))
    check_odd(found)
    assert "smaller copies" in found.metadata.notes[0]


def test_a_plain_stack_states_no_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", odd_volume(), metadata=None, resolution=(72, 72))
    refused("states no voxel size", tmp_path / "a.tif", None, NoVoxelSizeError)
    found = open_volume(str(tmp_path / "a.tif"), SIZE)
    check_odd(found)
    assert found.metadata.axes_from == ""


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", ">u2", ">f4", "float64"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_other_dtypes_of_tiff(tmp_path, dtype, tile):
    array = odd_volume().astype(dtype)
    byteorder = ">" if dtype.startswith(">") else "<"
    tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, byteorder=byteorder, tile=tile)
    found = open_volume(str(tmp_path / "a.tif"), SIZE)
    assert found.dtype == array.dtype.newbyteorder("=") and found.dtype.isnative
    np.testing.assert_array_equal(found.read(found.box), array)


def test_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((6, 9, 13, 3), "uint8"), photometric="rgb")
    refused(r"holds 3 colours \(RGB\); expected one grey value", tmp_path / "rgb.tif")
    table = np.zeros((3, 256), "uint16")
    tifffile.imwrite(tmp_path / "p.tif", odd_volume(), photometric="palette", colormap=table, metadata=None)
    refused("holds palette colours", tmp_path / "p.tif")
    tifffile.imwrite(tmp_path / "c.tif", odd_volume().astype("complex64"), metadata=None)
    refused("holds complex64", tmp_path / "c.tif")


def test_pages_that_differ_are_named(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for z in range(5):
            writer.write(np.zeros((9, 13 + (z == 3)), "uint8"), metadata=None, contiguous=False)
    refused(r"page 3 has \(9, 14\) pixels of uint8, page 0 has \(9, 13\)", tmp_path / "a.tif")


def test_a_codec_that_is_missing_is_named(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", odd_volume(), compression="lzw", metadata=None)
    check_odd(open_volume(str(tmp_path / "a.tif"), SIZE))

    class Without(dict):
        def __getitem__(self, key):
            raise KeyError(f"{key!r} requires the 'imagecodecs' package")

    monkeypatch.setitem(tifffile.TIFF.__dict__, "DECOMPRESSORS", Without())
    refused(
        r"compressed with LZW, which cannot be decoded here. Install .* pip install imagecodecs", tmp_path / "a.tif"
    )


def test_jpeg_and_white_zero_are_said(tmp_path):
    pytest.importorskip("imagecodecs")
    section = np.zeros((3, 64, 64), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", section, compression="jpeg", metadata=None, photometric="miniswhite")
    notes = open_volume(str(tmp_path / "a.tif"), SIZE).metadata.notes
    assert any("JPEG" in note for note in notes) and any("0 is white" in note for note in notes)
    tifffile.imwrite(tmp_path / "b.tif", section, metadata=None, photometric="miniswhite")  # in one piece
    assert any("0 is white" in note for note in open_volume(str(tmp_path / "b.tif"), SIZE).metadata.notes)


def test_a_truncated_tiff_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 40, 50), dtype=np.uint8)
    for name, settings in (("strips", {"compression": "zlib"}), ("tiles", {"tile": (16, 16)}), ("flat", {})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, noise, metadata=None, **settings)
        whole = path.read_bytes()
        for share in (0.3, 0.7, 0.98):
            path.write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(VolumeError, match=r"truncated|damaged|cannot be read as TIFF"):
                volume = open_volume(str(path), SIZE)
                volume.read(volume.box)
    (tmp_path / "text.tif").write_text("not an image")
    refused("cannot be read as TIFF", tmp_path / "text.tif")


def test_strips_that_the_file_leaves_out_are_counted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", odd_volume("uint16"), tile=(16, 16), compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[2].tags["TileByteCounts"].overwrite([0])
    found = open_volume(str(tmp_path / "a.tif"), SIZE)
    assert found.num_absent_chunks() == (1, 6)
    check_odd(found)


def test_only_the_strips_that_a_box_touches_are_read(tmp_path, monkeypatch):
    from twostream.volume import tiff_pages

    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", noise, tile=(16, 16), compression="zlib", metadata=None)
    seen, plain = [], tiff_pages.read_at
    monkeypatch.setattr(tiff_pages, "read_at", lambda *a: seen.append(a[2]) or plain(*a))
    volume = open_volume(str(tmp_path / "a.tif"), SIZE)
    box = Box((2, 20, 20), (2, 8, 20))
    np.testing.assert_array_equal(volume.read(box), noise[box.slices])
    assert len(seen) == 4 and volume.chunk_shape_zyx == (1, 16, 16)
    volume.read(box)
    assert len(seen) == 4  # kept


def test_the_cache_of_decoded_pages_has_a_limit():
    cache = DecodedCache(1000)
    for key in range(20):
        assert cache.get(key, lambda: np.zeros(100, np.uint8)).size == 100
    assert cache.num_bytes == 1000
    cache.get("large", lambda: np.zeros(2000, np.uint8))
    assert cache.num_bytes == 1000
    assert CACHE_BYTES == 256 * 2**20 and CACHE.num_bytes <= CACHE_BYTES


@pytest.mark.parametrize("name", ["a.tif", "a.h5:labels"])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64", "float32"])
def test_what_we_write_is_read_by_others(tmp_path, name, dtype):
    told = {"shape_zyx": SHAPE, "dtype": dtype, "voxel_size_nm": SIZE, "offset_nm": OFFSET}
    volume = create_volume(f"{tmp_path}/{name}", **told)
    for z in range(SHAPE[0]):
        volume.write(Box((z, 0, 0), (1, *SHAPE[1:])), odd_volume(dtype)[z : z + 1])
    del volume
    found = open_volume(f"{tmp_path}/{name}")
    check_odd(found)
    assert found.offset_nm == OFFSET and found.metadata.offset_from
    if name == "a.tif":
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert tif.is_bigtiff and tif.series[0].axes == "ZYX"
            np.testing.assert_array_equal(tif.asarray(), odd_volume(dtype))
            assert dtype == "uint64" or 'PhysicalSizeZ="40.0" PhysicalSizeZUnit="nm"' in tif.ome_metadata
    else:
        with h5py.File(tmp_path / "a.h5") as file:
            made = file["labels"]
            np.testing.assert_array_equal(made[:], odd_volume(dtype))
            assert made.attrs["resolution"].tolist() == list(SIZE) and made.attrs["offset"].tolist() == list(OFFSET)
            assert [made.dims[i].label for i in range(3)] == ["z", "y", "x"] and made.compression == "gzip"
            assert made.attrs["units"] == "nm"


def test_simpleitk_reads_our_tiff_at_the_same_voxel(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    volume = create_volume(f"{tmp_path}/a.tif", shape_zyx=SHAPE, dtype="uint16", voxel_size_nm=SIZE)
    volume.write(volume.box, odd_volume("uint16"))
    image = sitk.ReadImage(str(tmp_path / "a.tif"))
    assert image.GetSize() == SHAPE[::-1] and image.GetPixel(*ODD[::-1]) == 200


def test_what_tiff_cannot_hold_is_refused(tmp_path):
    told = {"shape_zyx": SHAPE, "voxel_size_nm": SIZE}
    with pytest.raises(VolumeError, match="TIFF cannot hold complex64"):
        create_volume(f"{tmp_path}/a.tif", dtype="complex64", **told)
    with pytest.raises(VolumeError, match="cannot be written; expected a path of this machine"):
        create_volume("https://host/a.tif", dtype="uint8", **told)


# -- folders of images ------------------------------------------------------------------------------------------------


def sections(folder, names=None, array=None, save=lambda path, section: Image.fromarray(section).save(path)):
    folder.mkdir()
    array = odd_volume() if array is None else array
    for name, section in zip(names or [f"s{z}.png" for z in range(8, 14)], array, strict=True):
        save(folder / name, section)
    return str(folder)


def test_sections_are_sorted_by_their_number(tmp_path):
    uri = sections(tmp_path / "a")
    for name in ("Thumbs.db", ".DS_Store", "._s8.png", "notes.txt"):
        (tmp_path / "a" / name).write_bytes(b"x")
    for written in (uri, f"images://{uri}", uri + "/"):
        found = open_volume(written, SIZE)
        check_odd(found)
    assert found.metadata.notes == ("6 sections, s8.png to s13.png", "passed over: Thumbs.db, notes.txt")
    refused("states no voxel size", uri, None, NoVoxelSizeError)


def test_only_the_number_of_the_section_may_differ_between_names(tmp_path):
    uri = sections(tmp_path / "a", [f"vol3_s{z:04d}_x2.tif" for z in range(6)], save=tifffile.imwrite)
    check_odd(open_volume(uri, SIZE))
    one = sections(tmp_path / "one", ["only.png"], odd_volume()[4:5])
    assert open_volume(one, SIZE).shape_zyx == (1, 9, 13)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["s1.png", "s2.png", "s5.png"], "2 numbers between 1 and 5 are missing: 3, 4. Sections would move together"),
        (["s1.png", "s01.png", "s2.png"], "s01.png and s1.png have the same number"),
        (["s1.png", "s2.png", "t3.png"], "mixes several series of images: 2 like s1.png; 1 like t3.png"),
        (["s1.png", "s2.png", "s3.tif"], "mixes several series of images"),
        (["s1_x1.png", "s2_x2.png", "s3_x2.png"], "2 numbers differ between names"),
        (["s0.png", "s10.png", "s20.png"], "18 numbers between 0 and 20 are missing: 1, 2, 3, 4, 5 and more"),
    ],
)
def test_names_that_make_no_series_are_refused(tmp_path, names, sentence):
    refused(sentence, sections(tmp_path / "a", names, odd_volume()[:3]))


def test_sections_that_differ_are_named(tmp_path):
    uri = sections(tmp_path / "a")
    Image.fromarray(np.zeros((9, 14), "uint8")).save(tmp_path / "a" / "s10.png")
    refused(r"s10.png has \(9, 14\) pixels of uint8, s8.png has \(9, 13\)", uri)
    Image.fromarray(np.zeros((9, 13), "uint16")).save(tmp_path / "a" / "s10.png")
    refused("s10.png has .* of uint16", uri)


def test_sections_that_are_no_grey_values_are_named(tmp_path):
    for number, (image, sentence) in enumerate(
        (
            (Image.new("RGB", (13, 9)), r"holds colours \(RGB\)"),
            (Image.new("P", (13, 9)), "holds palette colours"),
            (Image.new("LA", (13, 9)), r"holds colours \(LA\)"),
        )
    ):
        uri = sections(tmp_path / str(number))
        image.save(tmp_path / str(number) / "s9.png")
        refused(sentence, uri)
    uri = sections(tmp_path / "tiffs", [f"{z}.tif" for z in range(6)], save=tifffile.imwrite)
    tifffile.imwrite(tmp_path / "tiffs" / "3.tif", np.zeros((2, 9, 13), "uint8"), metadata=None)
    refused("3.tif holds 2 pages; expected one section", uri)
    tifffile.imwrite(tmp_path / "tiffs" / "3.tif", np.zeros((9, 13, 3), "uint8"), photometric="rgb")
    refused(r"3.tif holds 3 colours", uri)


def test_few_bits_and_masks(tmp_path):
    uri = sections(tmp_path / "a", array=odd_volume().astype(bool))
    found = open_volume(uri, SIZE)
    assert found.dtype == bool and np.argwhere(found.read(found.box)).tolist() == [list(ODD)]
    cv2 = pytest.importorskip("cv2")
    few = sections(tmp_path / "few")
    image = Image.fromarray((odd_volume()[0] > 0).astype("uint8"), "P")
    image.save(tmp_path / "few" / "s8.png", bits=4)
    refused("palette|4 bits", few)
    cv2.imwrite(str(tmp_path / "few" / "s8.png"), odd_volume()[0])
    check_odd(open_volume(few, SIZE))


def test_jpeg_is_said(tmp_path):
    uri = sections(tmp_path / "a", [f"{z}.jpg" for z in range(6)])
    assert "saved as JPEG" in " ".join(open_volume(uri, SIZE).metadata.notes)


def test_folders_that_hold_no_sections(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("cannot tell the format", tmp_path / "empty")
    refused("holds no images", f"images://{tmp_path}/empty")
    refused("does not exist", f"images://{tmp_path}/none")
    refused("folders of images cannot be read from a server in parts. Download it", "images://https://host/a")
    (tmp_path / "x.tif").mkdir()
    refused("is a folder, but its name is that of a file. .* write images://", tmp_path / "x.tif")


# -- .npy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", ">i4", "bool", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, dtype, order):
    array = np.asarray(odd_volume().astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    found = open_volume(str(tmp_path / "a.npy"), SIZE)
    assert found.dtype == array.dtype.newbyteorder("=") and found.dtype.isnative
    np.testing.assert_array_equal(found.read(Box((1, 2, 3), (4, 5, 9))), array[1:5, 2:7, 3:12])


def test_npy_that_holds_no_volume(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[[None]]]), allow_pickle=True)
    refused("holds Python objects", tmp_path / "o.npy")
    np.save(tmp_path / "two.npy", np.zeros((4, 5)))
    refused(r"has shape \(4, 5\); expected three axes", tmp_path / "two.npy")
    np.save(tmp_path / "rgb.npy", np.zeros((7, 5, 6, 3)))
    refused("looks like colours", tmp_path / "rgb.npy")
    np.savez(tmp_path / "a.npz", a=odd_volume())
    refused(r"is an archive of arrays.*numpy.save", tmp_path / "a.npz")
    np.save(tmp_path / "v.npy", odd_volume())
    refused("states no voxel size", tmp_path / "v.npy", None, NoVoxelSizeError)
    (tmp_path / "b.npy").write_bytes(b"nothing")
    refused("cannot be read as .npy", tmp_path / "b.npy")
    whole = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(whole[:-5])
    refused("is truncated", tmp_path / "v.npy")


# -- NIfTI -------------------------------------------------------------------------------------------------------------


def nifti(path, *, affine=None, units="micron", array=None, zooms=(0.004, 0.005, 0.04)):
    nibabel = pytest.importorskip("nibabel")
    array = odd_volume() if array is None else array
    image = nibabel.Nifti1Image(array.transpose(), np.diag([*zooms, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    return str(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("units", "nm"), [("micron", 1e3), ("mm", 1e6), ("meter", 1e9)])
def test_nifti_in_every_unit(tmp_path, name, units, nm):
    zooms = [v / nm for v in SIZE[::-1]]
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = [(o + s / 2) / nm for o, s in zip(OFFSET[::-1], SIZE[::-1], strict=True)]
    found = open_volume(nifti(tmp_path / name, units=units, affine=affine))
    check_odd(found)
    np.testing.assert_allclose(found.offset_nm, OFFSET, rtol=1e-5)
    assert any("unpacked into memory" in note for note in found.metadata.notes) == name.endswith("gz")


def test_nifti_without_a_unit_states_no_size(tmp_path):
    uri = nifti(tmp_path / "a.nii", units="unknown")
    refused(r"gives sizes \(0.004, 0.005, 0.04\) \(x, y, z\) without a unit", uri, None, NoVoxelSizeError)
    check_odd(open_volume(uri, SIZE))


def test_flips_are_said_and_rotations_refused(tmp_path):
    found = open_volume(nifti(tmp_path / "a.nii", affine=np.diag([-0.004, 0.005, 0.04, 1])))
    check_odd(found)
    assert found.offset_nm is None and "flips x" in found.metadata.notes[-1]
    turned = np.diag([0.004, 0.005, 0.04, 1.0])[[1, 0, 2, 3]]
    refused("affine rotates or exchanges axes", nifti(tmp_path / "b.nii", affine=turned))


def test_scaled_values_of_nifti_are_read_after_scaling(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(odd_volume("int16").transpose(), np.diag([0.004, 0.005, 0.04, 1]))
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "a.nii")
    with open(tmp_path / "a.nii", "r+b") as file:  # nibabel leaves the scaling of new files to the writer
        file.seek(112)
        file.write(np.array([0.5, 10], "<f4").tobytes())
    found = open_volume(str(tmp_path / "a.nii"))
    assert found.dtype == np.float32 and "scaled: 0.5 times value plus 10" in " ".join(found.metadata.notes)
    values = nibabel.load(tmp_path / "a.nii").get_fdata().transpose()
    np.testing.assert_allclose(found.read(found.box), values)


def test_nifti_of_simpleitk(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    pytest.importorskip("nibabel")
    image = sitk.GetImageFromArray(odd_volume())
    image.SetSpacing([v / 1e6 for v in SIZE[::-1]])
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    check_odd(open_volume(str(tmp_path / "a.nii")))


def test_nibabel_is_named_where_it_is_missing(tmp_path, monkeypatch):
    uri = nifti(tmp_path / "a.nii")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    refused("package nibabel, which is not installed. Install it: pip install nibabel", uri)


# -- HDF5 --------------------------------------------------------------------------------------------------------------


def hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size_nm"] = SIZE
        for name, array in datasets.items():
            file[name.replace("__", "/")] = array
    return str(path)


def test_the_only_volume_of_a_file_or_group_is_taken_and_said(tmp_path):
    uri = hdf5(tmp_path / "a.h5", volumes__raw=odd_volume(), ids=np.arange(3))
    for written in (uri, f"{uri}:volumes"):
        found = open_volume(written)
        check_odd(found)
        assert found.uri == f"{uri}:volumes/raw" and "dataset volumes/raw is taken" in found.metadata.notes[0]
    assert open_volume(f"{uri}:/volumes/raw").metadata.notes == ()


def test_several_datasets_are_named(tmp_path):
    uri = hdf5(tmp_path / "a.h5", volumes__raw=odd_volume(), volumes__labels=odd_volume(), other=odd_volume())
    refused("holds no dataset 'main'; it holds: other, volumes/labels, volumes/raw. Name one as .*a.h5:other", uri)
    refused("is a group; it holds: volumes/labels, volumes/raw", f"{uri}:volumes")
    refused("holds no dataset 'volumes/row'; .* Did you mean 'volumes/raw'", f"{uri}:volumes/row")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    refused("it holds: none", tmp_path / "empty.h5")


def test_a_filter_that_is_missing_is_named(tmp_path, monkeypatch):
    from twostream.volume import _hdf5

    plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("main", data=odd_volume(), chunks=True, **plugin.Zstd())
    check_odd(open_volume(str(tmp_path / "a.h5"), SIZE))
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number != 32015)
    refused(r"compressed with Zstandard \(HDF5 filter 32015\).*pip install hdf5plugin", tmp_path / "a.h5")
    assert 32015 in _hdf5.FILTERS


def test_absent_chunks_and_absent_sources(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("main", SHAPE, "uint8", chunks=(2, 4, 8))
        made[ODD] = 200
    found = open_volume(str(tmp_path / "a.h5"), SIZE)
    check_odd(found)
    assert found.num_absent_chunks() == (17, 18)
    layout = h5py.VirtualLayout(SHAPE, "uint8")
    layout[:] = h5py.VirtualSource("a.h5", "main", SHAPE)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("main", layout)
    check_odd(open_volume(str(tmp_path / "v.h5"), SIZE))
    (tmp_path / "a.h5").rename(tmp_path / "b.h5")
    refused("put together from 1 files, of which 1 are missing: a.h5. They would read as 0", tmp_path / "v.h5")


def test_links_that_lead_nowhere(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["main"] = h5py.ExternalLink("gone.h5", "/raw")
    refused("is a link to /raw in gone.h5, which is not there|cannot be opened", tmp_path / "a.h5")


def test_damaged_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    hdf5(path, main=np.random.default_rng(0).integers(0, 255, (8, 64, 64), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("truncated", path)
    path.write_bytes(b"not hdf5 at all")
    refused("it is no HDF5 file", path)


def test_files_that_cannot_be_written_are_read(tmp_path):
    uri = hdf5(tmp_path / "a.h5", main=odd_volume())
    (tmp_path / "a.h5").chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        check_odd(open_volume(uri))
    finally:
        tmp_path.chmod(0o755)


def test_a_file_that_another_program_has_locked_is_read(tmp_path):
    import fcntl

    uri = hdf5(tmp_path / "a.h5", main=odd_volume())
    with open(uri, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        check_odd(open_volume(uri))


def test_strings_and_tables_are_refused(tmp_path):
    uri = hdf5(tmp_path / "a.h5", main=np.zeros((2, 3, 4), "S3"))
    refused("expected whole numbers or floats", uri)


# -- ignore masks ------------------------------------------------------------------------------------------------------


def test_ignore_masks_stand_beside_every_format(tmp_path):
    mask = odd_volume("uint8")
    told = {"shape_zyx": SHAPE, "dtype": "uint8", "voxel_size_nm": SIZE}
    pairs = {
        "a.tif": "a_ignore.tif",
        "b.ome.tif": "b_ignore.ome.tif",
        "c.zarr": "c_ignore.zarr",
        "d.h5:labels": "d.h5:labels_ignore",
        "e.h5": "e_ignore.h5",
        "f.precomputed": "f_ignore.precomputed",
    }
    for labels, ignore in pairs.items():
        if ":" in labels:
            hdf5(tmp_path / "d.h5", labels=mask, labels_ignore=mask)
        else:
            create_volume(f"{tmp_path}/{labels}", **told)
            assert open_ignore_mask(f"{tmp_path}/{labels}") is None
            made = create_volume(f"{tmp_path}/{ignore}", **told)
            made.write(made.box, mask)
            del made
        found = open_ignore_mask(f"{tmp_path}/{labels}")
        assert found is not None, labels
        check_odd(found)
    np.save(tmp_path / "g.npy", mask)
    np.save(tmp_path / "g_ignore.npy", mask)
    check_odd(open_ignore_mask(f"{tmp_path}/g.npy", SIZE))
    uri = sections(tmp_path / "h")
    sections(tmp_path / "h_ignore")
    check_odd(open_ignore_mask(uri + "/", SIZE))
    assert open_ignore_mask("synthetic://seed=0&kind=mitochondria") is None


def test_ignore_masks_inside_zarr_and_n5(tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for name in ("labels", "labels_ignore"):
        group.create_array(name, data=odd_volume(), chunks=(2, 4, 8)).attrs["voxel_size_nm"] = SIZE
    check_odd(open_ignore_mask(f"{tmp_path}/a.zarr:labels"))
    assert open_ignore_mask(f"{tmp_path}/a.zarr:labels_ignore") is None


# -- behind a server


@pytest.fixture
def files(tmp_path):
    """One volume of noise in every format of a single file."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 300, 400), dtype=np.uint8)
    told = {"shape_zyx": noise.shape, "dtype": "uint8", "voxel_size_nm": SIZE}
    for name in ("flat.tif", "a.h5:raw"):
        volume = create_volume(f"{tmp_path}/{name}", **told)
        volume.write(volume.box, noise)
        del volume
    tifffile.imwrite(tmp_path / "tiles.tif", noise, tile=(64, 64), compression="zlib", metadata=None)
    np.save(tmp_path / "c.npy", noise)
    np.save(tmp_path / "f.npy", np.asfortranarray(noise))
    return tmp_path, noise


FILES = ("flat.tif", "tiles.tif", "a.h5:raw", "c.npy", "f.npy")


@pytest.fixture
def server(files):
    import functools

    class Counting(Handler):
        seen: list = []  # noqa: RUF012
        num_bytes = 0
        ranges = True

        def do_HEAD(self):  # noqa: N802
            size = Path(self.translate_path(self.path)).stat().st_size
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()

        def answer(self, content, zipped=False):
            wanted = self.headers.get("Range", "").removeprefix("bytes=").split("-")
            if len(wanted) == 2 and self.ranges:
                type(self).num_bytes += int(wanted[1]) - int(wanted[0]) + 1
            return super().answer(content, zipped)

    handler = functools.partial(Counting, directory=files[0])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", Counting
        running.shutdown()


@pytest.mark.parametrize("name", FILES)
def test_single_files_are_read_by_byte_ranges(files, server, name, monkeypatch):
    monkeypatch.setattr(byte_files, "BLOCK_BYTES", 16 * 1024)
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    noise = files[1]
    found = open_volume(f"{server[0]}/{name}", SIZE)
    box = Box((3, 40, 50), (2, 30, 40))
    np.testing.assert_array_equal(found.read(box), noise[box.slices])
    assert 0 < server[1].num_bytes < noise.nbytes / 2 or name == "f.npy"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).read(found.box), noise)


def test_what_servers_answer_to_single_files(files, server):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    refused("is not found", f"{server[0]}/none.tif")
    refused("access is forbidden", f"{server[0]}/forbidden/a.h5:raw")
    refused("nothing answers at that address", "http://127.0.0.1:9/a.npy")
    refused("NIfTI files cannot be read from a server in parts. Download it", f"{server[0]}/a.nii")
    server[1].ranges = False
    for name in FILES:
        refused(r"does not serve parts of files \(HTTP ranges\)", f"{server[0]}/{name}")


def test_single_files_in_s3(files, monkeypatch):
    pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    told = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    client = boto3.client("s3", endpoint_url=told["AWS_ENDPOINT_URL"], region_name="us-east-1")
    client.create_bucket(Bucket="files")
    try:
        for path in files[0].iterdir():
            client.upload_file(str(path), "files", path.name)
        for name in FILES:
            found = open_volume(f"s3://files/{name}", SIZE)
            np.testing.assert_array_equal(found.read(found.box), files[1])
        refused("is not found", "s3://files/none.h5:a")
    finally:
        moto.stop()
