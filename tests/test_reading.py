"""How a volume is understood: axes, units, attributes, place, and the grey window."""

import pickle

import h5py
import numpy as np
import pytest

from twostream.base.errors import InputError, NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.volume import MemoryVolume, open_volume
from twostream.volume.alignment import AS_GIVEN, better_reading, fits
from twostream.volume.axes import Axes
from twostream.volume.grey import GreyVolume, open_grey, parse_window, robust_window, spread_boxes, through_window
from twostream.volume.place import place_on
from twostream.volume.units import nm_per_unit

SIZE_NM = (40.0, 5.0, 4.0)


def volume(array, offset_nm=None, size=SIZE_NM, uri="memory://"):
    result = MemoryVolume(array, size, uri)
    result.offset_nm = offset_nm
    return result


@pytest.mark.parametrize(
    ("spelling", "nm"),
    [
        *[(word, 1.0) for word in ("nm", "nanometer", "Nanometres", b"nanometer")],
        *[(word, 1e3) for word in ("um", "µm", "μm", "micron", "microns", "Micrometer", "micrometre", "\\u00B5m")],
        *[("mm", 1e6), ("m", 1e9), ("metres", 1e9), ("angstrom", 0.1), ("Å", 0.1)],
        *[(word, None) for word in ("", None, "pixel", "px", "voxel", "parsec", 8)],
    ],
)
def test_units_in_every_spelling(spelling, nm):
    assert nm_per_unit(spelling) == nm


@pytest.mark.parametrize(
    ("shape", "names", "shape_zyx", "channels"),
    [
        ((5, 6, 7), None, (5, 6, 7), 0),
        ((1, 5, 6, 7), None, (5, 6, 7), 1),
        ((2, 5, 6, 7), None, (5, 6, 7), 2),
        ((5, 6, 7, 1), None, (5, 6, 7), 0),
        ((1, 1, 5, 6, 7), None, (5, 6, 7), 1),
        ((5, 6, 7), "xyz", (7, 6, 5), 0),
        ((5, 6, 7), "YXZ", (7, 5, 6), 0),
        ((1, 2, 5, 6, 7), "tczyx", (5, 6, 7), 2),
        ((7, 6, 5, 2), ["x", "y", "z", "channel"], (5, 6, 7), 2),
    ],
)
def test_axes_are_turned_to_czyx(shape, names, shape_zyx, channels):
    axes = Axes.understand(shape, names, "v")
    assert (axes.shape_zyx, axes.num_channels) == (shape_zyx, channels)
    stored = np.random.default_rng(0).integers(0, 9, shape)
    box = Box((1, 2, 3), (2, 3, 2))
    letters = [n[0] for n in axes.names]
    wanted = "czyx" if channels else "zyx"
    kept = [axis for axis in range(len(shape)) if axis in axes.order]
    plain = stored[tuple(slice(None) if axis in axes.order else 0 for axis in range(len(shape)))]
    plain = plain.transpose([[letters[axis] for axis in kept].index(name) for name in wanted])[(..., *box.slices)]
    np.testing.assert_array_equal(axes.turn(stored[axes.cut(box)]), plain)
    np.testing.assert_array_equal(axes.turn_back(plain), stored[axes.cut(box)])


@pytest.mark.parametrize(
    ("shape", "names", "sentence"),
    [
        ((6, 7), None, "expected three axes"),
        ((5, 6, 7, 3), None, "looks like colours"),
        ((4, 60, 70, 3), None, "looks like colours"),
        ((2, 2, 5, 6, 7), None, "does not name its axes"),
        ((3, 5, 6, 7), "tzyx", "axis 't' of length 3"),
        ((5, 6, 7), "zzx", "expected z, y and x once each"),
        ((5, 6, 7), "czyx", "but names 4"),
    ],
)
def test_axes_that_cannot_be_told_are_refused(shape, names, sentence):
    with pytest.raises(VolumeError, match=sentence):
        Axes.understand(shape, names, "v")


def hdf5(tmp_path, array, attributes=(), on_file=()):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
    with h5py.File(path, "w") as file:
        file["main"] = array
        for target, given in ((file["main"], attributes), (file, on_file)):
            for key, value in dict(given).items():
                target.attrs[key] = value
    return str(path)


ARRAY = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)


@pytest.mark.parametrize(
    ("attributes", "size", "offset"),
    [
        ({"voxel_size_nm": SIZE_NM}, SIZE_NM, None),
        ({"resolution": SIZE_NM, "offset": (80, 50, 8)}, SIZE_NM, (80, 50, 8)),
        ({"resolution": (0.04, 0.005, 0.004), "units": "µm", "offset": (0.08, 0, 0)}, SIZE_NM, (80, 0, 0)),
        ({"voxel_size": SIZE_NM, "units": ["nm", "nm", "nm"], "axis_names": ["z", "y", "x"]}, SIZE_NM, None),
        ({"element_size_um": (0.04, 0.005, 0.004), "voxel_offset": (2, 0, 1)}, SIZE_NM, (80, 0, 4)),
        ({"resolution": (4e-8, 5e-9, 4e-9), "unit": "metre"}, SIZE_NM, None),
    ],
)
def test_size_and_place_are_read_from_hdf5(tmp_path, attributes, size, offset):
    for given in ({"attributes": attributes}, {"on_file": attributes}):
        found = open_volume(hdf5(tmp_path, ARRAY, **given))
        np.testing.assert_allclose(found.voxel_size_nm, size)
        assert (found.offset_nm is None) == (offset is None)
        if offset is not None:
            np.testing.assert_allclose(found.offset_nm, offset)
        np.testing.assert_array_equal(found.read(found.box), ARRAY)


def test_attributes_follow_the_named_axes(tmp_path):
    attributes = {"axes": "xyz", "resolution": SIZE_NM[::-1], "offset": (4, 0, 80)}
    found = open_volume(hdf5(tmp_path, ARRAY.T, attributes))
    assert (found.shape_zyx, found.voxel_size_nm, found.offset_nm) == ((5, 6, 7), SIZE_NM, (80.0, 0.0, 4.0))
    np.testing.assert_array_equal(found.read(found.box), ARRAY)
    assert found.metadata.notes == ("axes are stored as x y z and are turned to z y x",)


def test_the_order_of_matlab_is_said(tmp_path):
    found = open_volume(hdf5(tmp_path, ARRAY, {"voxel_size_nm": SIZE_NM, "MATLAB_class": "uint8"}))
    assert "is read as Z = C, Y = B, X = A" in found.metadata.notes[0]


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"resolution": (0.04, 0.005, 0.004)}, "expected 0.1 to 10000 nanometres"),
        ({"resolution": SIZE_NM, "units": "µm"}, "expected 0.1 to 10000 nanometres"),
        ({"resolution": SIZE_NM, "units": "pixel"}, "expected a unit of length"),
        ({"resolution": (4, 5, 40)}, "Did you pass X, Y, Z"),
        ({"resolution": (40, 4)}, "expected three numbers"),
        ({"voxel_size_nm": SIZE_NM, "resolution": (40, 10, 8)}, "Correct or remove one of them"),
        ({"voxel_size_nm": SIZE_NM, "axes": "zy"}, "has 3 axes"),
        ({"voxel_size_nm": SIZE_NM, "axistags": "{bad"}, "axistags is '{bad'; expected names of axes"),
        ({"voxel_size_nm": SIZE_NM, "axistags": '{"axes": [{"name": "z"}]}'}, "expected names of axes"),
        ({"resolution": (np.nan, 4, 4)}, "expected finite numbers"),
        ({"resolution": SIZE_NM, "offset": (np.nan, 0, 0)}, "expected finite numbers"),
    ],
)
def test_attributes_that_contradict_are_refused(tmp_path, attributes, sentence):
    with pytest.raises(VolumeError, match=sentence):
        open_volume(hdf5(tmp_path, ARRAY, attributes))


def test_a_volume_without_voxels_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="holds no voxels"):
        open_volume(hdf5(tmp_path, np.zeros((0, 5, 5), np.uint8), {"resolution": SIZE_NM}))


def test_a_size_that_is_not_stated_is_not_presumed(tmp_path):
    with pytest.raises(NoVoxelSizeError):
        open_volume(hdf5(tmp_path, ARRAY))


def test_volumes_are_placed_on_each_other():
    image = volume(np.zeros((4, 8, 8), np.uint8), (0.0, 100.0, 40.0))
    crop = volume(ARRAY[:2, :3, :4].copy(), (40.0, 110.0, 36.0))
    placed = place_on(crop, image)
    assert placed.covered == Box((1, 2, 0), (2, 3, 3)) and placed.shape_zyx == (4, 8, 8)
    expected = np.zeros((4, 8, 8), np.uint8)
    expected[1:3, 2:5, 0:3] = ARRAY[:2, :3, 1:4]
    for found in (placed, pickle.loads(pickle.dumps(placed))):
        np.testing.assert_array_equal(found.read(found.box), expected)
        np.testing.assert_array_equal(found.read(Box((2, 3, 1), (2, 2, 4))), expected[2:4, 3:5, 1:5])
    assert "begins at voxel (1, 2, -1)" in placed.metadata.notes[-1]


def test_a_shift_by_half_a_voxel_is_explained():
    image, labels = np.zeros((4, 8, 8), np.uint8), np.ones((4, 8, 8), np.uint8)
    half = [-s / 2 for s in SIZE_NM]
    with pytest.raises(InputError, match=r"Half a voxel along each axis: .* the centre"):
        place_on(volume(labels, (0.0, 0.0, 0.0)), volume(image, half))
    with pytest.raises(InputError, match=r"Expected whole voxels\. Correct the place"):
        place_on(volume(labels, (0.0, 0.0, 0.0)), volume(image, (half[0], 0.0, 0.0)))


def test_equal_shapes_without_a_place_lie_on_each_other():
    image = volume(np.zeros((4, 8, 8), np.uint8), (0.0, 100.0, 40.0))
    labels = volume(np.ones((4, 8, 8), np.uint8))
    assert place_on(labels, image) is labels
    assert place_on(volume(np.ones((4, 8, 8), np.uint8), (40.0, 100.0, 40.0)), image).covered.offset_zyx == (1, 0, 0)


@pytest.mark.parametrize(
    ("size", "advice"),
    [
        ((40, 10, 8), r"by the factors \(1, 2, 2\). Use the resolution level of the image"),
        ((40, 2.5, 2), r"by the factors \(1, 0.5, 0.5\). Use the resolution level of labels .* never by averaging"),
        ((80, 2.5, 2), "Resample one of them"),
    ],
)
def test_another_resolution_is_refused_with_its_factor(size, advice):
    image = volume(np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(InputError, match=advice):
        place_on(volume(np.zeros((4, 8, 8), np.uint8), size=size, uri="labels"), image)


def test_grey_values_go_through_the_window():
    array = np.array([[[-5, 0, 100, 150, 200, 300]]], np.int32)
    assert through_window(array, (100, 200)).tolist() == [[[0, 0, 0, 128, 255, 255]]]
    assert through_window(array, (200, 100)).tolist() == [[[255, 255, 255, 128, 0, 0]]]
    assert through_window(np.array([[[np.nan, np.inf, -np.inf]]], np.float32), (0, 1)).tolist() == [[[0, 255, 0]]]
    seen = GreyVolume(volume(array), (100, 200))
    assert (seen.dtype, seen.read(seen.box).tolist()) == (np.uint8, [[[0, 0, 0, 128, 255, 255]]])


def test_the_window_is_of_the_whole_volume_and_hot_pixels_do_not_move_it():
    rng = np.random.default_rng(0)
    array = rng.normal(30000, 500, (16, 256, 256))
    array[8:] += 4000  # the lower half is brighter: one crop would not tell
    array[0, 0, :40] = 65535
    array[:, :64] = 0  # padding
    low, high = robust_window(volume(array.astype(np.uint16)))
    inside = array[:, 64:]
    assert 28000 < low < 29500 and 34500 < high < 36000
    assert ((inside > low) & (inside < high)).mean() > 0.97


def test_a_volume_of_one_grey_value_has_no_window():
    with pytest.raises(InputError, match="hold one grey value"):
        robust_window(volume(np.full((4, 64, 64), 7, np.uint16)))


@pytest.mark.parametrize("text", ["", "5", "5:5", "a:b", "1:2:3", "nan:1"])
def test_windows_that_are_none_are_refused(text):
    with pytest.raises(InputError, match=r"window is"):
        parse_window(text)


def test_samples_are_spread_over_the_whole_volume():
    image = volume(np.zeros((64, 512, 700), np.uint8))
    boxes = spread_boxes(image.shape_zyx, 64, (4, 64, 64))
    assert boxes == spread_boxes(image.shape_zyx, 64, (4, 64, 64)) and 64 <= len(boxes) <= 90
    assert all(image.box.contains(box) for box in boxes)
    for axis in range(3):
        middle = image.shape_zyx[axis] / 2
        below = sum(box.offset_zyx[axis] + box.shape_zyx[axis] / 2 < middle for box in boxes)
        assert 0.3 < below / len(boxes) < 0.7
    assert spread_boxes((2, 30, 20), 64, (4, 64, 64)) == [Box((0, 0, 0), (2, 30, 20))]


def tissue(kind, seed=5):
    found = open_volume(f"synthetic://seed={seed}&kind={kind}&shape=24,256,256")
    return volume(found.read(found.box), size=(30.0, 8.0, 8.0))


READINGS = {"z y -x": np.s_[:, :, ::-1], "-z y x": np.s_[::-1], "z y x": np.s_[:]}


@pytest.mark.parametrize("kind", ["mitochondria", "synapses"])
def test_labels_that_are_flipped_or_turned_do_not_fit_the_image(kind):
    image, labels = tissue("image"), tissue(kind)
    array, num_sides = labels.read(labels.box), 2 if kind == "synapses" else 1
    for reading, flipped in READINGS.items():
        best = better_reading(fits(image, volume(array[flipped], size=(30.0, 8.0, 8.0)), num_sides))
        assert str(best.reading if best else AS_GIVEN) == reading
    turned = better_reading(fits(image, volume(array.transpose(0, 2, 1), size=(30.0, 8.0, 8.0)), num_sides))
    assert turned is not None and str(turned.reading) == "z x y"


def test_labels_of_another_place_fit_in_no_reading():
    elsewhere = fits(tissue("image"), tissue("mitochondria", seed=6))
    assert better_reading(elsewhere) is None and elsewhere[0].contrast < 5


def test_an_image_of_16_bits_needs_a_window(tmp_path):
    uri = hdf5(tmp_path, np.full((4, 5, 6), 300, np.uint16), {"voxel_size_nm": SIZE_NM})
    with pytest.raises(InputError, match="holds uint16; expected uint8, or a grey window"):
        open_grey(uri, None, None)
    assert open_grey(uri, None, (0, 300)).read(Box((0, 0, 0), (1, 1, 1))).item() == 255
    for array in (np.ones((4, 5, 6), bool), np.ones((2, 4, 5, 6), np.uint8)):
        with pytest.raises(InputError, match="expected grey values"):
            open_grey(hdf5(tmp_path, array, {"voxel_size_nm": SIZE_NM}), None, None)
