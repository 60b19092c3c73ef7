"""What labels mean: instances, masks, sides, ignored values, and what is refused."""

import pickle

import cv2
import numpy as np
import pytest
from scipy import ndimage

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import extract
from twostream.candidates.label_scan import kind_of, questions, scan_labels
from twostream.candidates.labels import LabelsConfig, open_labels
from twostream.candidates.sides import join_sides
from twostream.candidates.truth import Truth
from twostream.task import get_task
from twostream.volume import MemoryVolume

SIZE_NM = (40.0, 8.0, 8.0)


def blobs(number=12, shape=(12, 96, 128), dtype=np.uint32):
    """``number`` separate balls on a grid, labelled 1, 2, 3, ..."""
    result = np.zeros(shape, dtype)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for n in range(number):
        cy, cx = 16 + 32 * (n // 4), 16 + 32 * (n % 4)
        result[((z - 6) / 3) ** 2 + ((y - cy) / 9) ** 2 + ((x - cx) / 11) ** 2 <= 1] = n + 1
    return result


def stored(tmp_path, array, name="labels.h5", **attributes):
    import h5py

    path = tmp_path / name
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset("main", data=array)
        dataset.attrs["voxel_size_nm"] = SIZE_NM
        for key, value in attributes.items():
            dataset.attrs[key] = value
    return str(path)


def image(shape=(12, 96, 128)):
    return MemoryVolume(np.zeros(shape, np.uint8), SIZE_NM, "image")


def opened(uri, task="mitochondria", min_voxels=1, on=None, **settings):
    return open_labels(LabelsConfig(uri=uri, **settings), on or image(), get_task(task, SIZE_NM), min_voxels)


def kind(array, task="mitochondria", ignore_value=None):
    volume = MemoryVolume(array, SIZE_NM, "labels")
    return kind_of(scan_labels(volume, volume.box, ignore_value), get_task(task, SIZE_NM), "labels")


def same_objects(a, b):
    """Whether two label arrays divide the voxels in the same way."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1])) and ((a == 0) == (b == 0)).all()


@pytest.mark.parametrize("value", [1, 255, True])
def test_a_mask_becomes_its_pieces(tmp_path, value):
    truth = blobs()
    mask = np.where(truth > 0, value, 0).astype(bool if value is True else np.uint8)
    found = opened(stored(tmp_path, mask))
    assert found.kind == "mask" and "connected pieces" in " ".join(found.notes)
    assert same_objects(found.volume.read(found.volume.box), truth)


def test_a_perfect_segmentation_is_good_beside_its_truth_as_a_mask(tmp_path):
    truth = blobs()
    found = opened(stored(tmp_path, (truth > 0).astype(np.uint8)))
    task = get_task("mitochondria", SIZE_NM)
    rule = Truth(found.volume, found.ignore, task)
    candidates = extract(truth, np.full(truth.shape, 255, np.uint8), task, (0, 0, 0))
    assert [rule.judge(candidate).kind for candidate in candidates] == ["true"] * 12


def test_small_pieces_of_a_mask_are_neither_object_nor_background(tmp_path):
    mask = (blobs() > 0).astype(np.uint8)
    mask[0, 0, :3] = 1
    found = opened(stored(tmp_path, mask), min_voxels=10)
    box = Box((0, 0, 0), (1, 1, 6))
    assert found.volume.read(box).tolist() == [[[0] * 6]]
    assert found.ignore.read(box).tolist() == [[[1, 1, 1, 0, 0, 0]]]
    assert len(np.unique(found.volume.read(found.volume.box))) == 13


def test_labels_pass_to_other_processes(tmp_path):
    found = opened(stored(tmp_path, (blobs() > 0).astype(np.uint8)), min_voxels=10)
    for volume in (found.volume, found.ignore):
        again = pickle.loads(pickle.dumps(volume))
        np.testing.assert_array_equal(again.read(again.box), volume.read(volume.box))


def test_the_ignored_value_is_neither_object_nor_background(tmp_path):
    array = blobs()
    array[:, 90:, :] = 255
    found = opened(stored(tmp_path, array), ignore_value=255)
    assert found.kind == "instances"
    np.testing.assert_array_equal(found.volume.read(found.volume.box), blobs())
    np.testing.assert_array_equal(found.ignore.read(found.volume.box) > 0, array == 255)


def test_labels_of_a_crop_are_placed_and_the_rest_is_unlabelled(tmp_path):
    crop = blobs()[:, 32:64, 64:]
    uri = stored(tmp_path, crop, offset=(0.0, 32 * 8.0, 64 * 8.0))
    found = opened(uri)
    assert found.covered == Box((0, 32, 64), (12, 32, 64))
    expected = np.zeros_like(blobs())
    expected[:, 32:64, 64:] = crop
    np.testing.assert_array_equal(found.volume.read(found.volume.box), expected)
    hidden = found.ignore.read(found.volume.box)
    assert hidden[:, 32:64, 64:].max() == 0 and hidden.sum() == hidden.size - crop.size
    with pytest.raises(InputError, match="states no place"):
        opened(stored(tmp_path, crop, "nowhere.h5"))
    with pytest.raises(InputError, match="no voxel in common"):
        opened(stored(tmp_path, crop, "far.h5", offset=(0.0, 0.0, 1e6)))
    with pytest.raises(InputError, match=r"Expected whole voxels"):
        opened(stored(tmp_path, crop, "half.h5", offset=(0.0, 4.0, 0.0)))


def smoothed(mask):
    return (255 * ndimage.gaussian_filter(mask.astype(float), (0, 1.5, 1.5))).astype(np.uint8)


def jpeg(mask):
    sections = [cv2.imencode(".jpg", 255 * s.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for s in mask]
    return np.stack([cv2.imdecode(s, cv2.IMREAD_GRAYSCALE) for s in sections])


def resampled(labels):
    return ndimage.zoom(labels.astype(float), (1, 1.37, 1.37), order=1).astype(np.uint16)


@pytest.mark.parametrize(
    "array", [smoothed(blobs() > 0), jpeg(blobs() > 0), resampled(blobs() * 100)], ids=["smoothed", "jpeg", "resampled"]
)
def test_labels_that_were_smoothed_are_refused(array):
    with pytest.raises(InputError, match="smoothed, resampled with interpolation, or saved as JPEG"):
        kind(array)


def test_touching_instances_are_no_sign_of_smoothing():
    rng = np.random.default_rng(0)
    seeds = np.zeros((6, 128, 128), np.int32)
    seeds.flat[rng.choice(seeds.size, 200, replace=False)] = np.arange(1, 201)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    dense = seeds[tuple(nearest)]
    dense[:, :2] = 0
    assert kind(dense) == "instances"


def test_classes_are_not_instances():
    classes = np.where(blobs() > 0, blobs() % 3 + 1, 0)
    with pytest.raises(InputError, match="look like classes, or like a mask saved as JPEG, not like instances"):
        kind(classes)


def test_labels_without_background_are_refused():
    with pytest.raises(InputError, match=r"no voxel that is 0.*common value is 1"):
        kind(np.where(blobs() > 0, 2, 1))


@pytest.mark.parametrize("array", [np.where(blobs() > 0, 0, 255), np.where(blobs() > 0, blobs() % 2, 9)])
def test_labels_that_may_be_inverted_are_questioned(array):
    volume = MemoryVolume(array.astype(np.uint8), SIZE_NM, "labels")
    asked = questions(scan_labels(volume, volume.box), "labels")
    assert f"label {array[0, 0, 0]} of labels covers" in asked[0] and "inverted" in asked[0]


def test_an_instance_that_fills_sections_is_questioned():
    array = blobs()
    array[3:5] = 40
    volume = MemoryVolume(array, SIZE_NM, "labels")
    assert questions(scan_labels(volume, volume.box), "labels") == [
        "label 40 of labels fills 2 whole sections. If it marks unlabelled voxels, pass --ignore-value 40."
    ]
    assert questions(scan_labels(volume, volume.box, ignore_value=40), "labels") == []


def sides():
    """1 and 2: every ball is divided into a left, presynaptic half and a right one."""
    halves = blobs()
    x = np.broadcast_to(np.arange(halves.shape[2]), halves.shape)
    return np.where(halves == 0, 0, np.where(x % 32 < 16, 1, 2)).astype(np.uint8)


def test_ones_and_twos_are_the_sides_of_synapses(tmp_path):
    found = opened(stored(tmp_path, sides()), task="polarity")
    assert found.kind == "sides"
    array = found.volume.read(found.volume.box)
    assert same_objects((array + 1) // 2, blobs())
    np.testing.assert_array_equal(array % 2 == 1, sides() == 1)


@pytest.mark.parametrize("by_id", [True, False])
def test_two_volumes_are_joined_to_synapses(tmp_path, by_id):
    value = blobs() if by_id else (blobs() > 0).astype(np.uint8)
    pre = stored(tmp_path, np.where(sides() == 1, value, 0), "pre.h5")
    post = stored(tmp_path, np.where(sides() == 2, value, 0), "post.h5")
    found = opened(pre, task="polarity", post=post)
    array = found.volume.read(found.volume.box)
    assert same_objects((array + 1) // 2, blobs())
    np.testing.assert_array_equal(array % 2 == 1, sides() == 1)
    swapped = opened(post, task="polarity", post=pre).volume
    np.testing.assert_array_equal(swapped.read(swapped.box) % 2 == 1, sides() == 2)


def test_instances_without_polarity_are_not_read_as_sides(tmp_path):
    plain = (5 * blobs() % 13).astype(np.uint32)  # values that follow each other lie apart
    paired = np.where(sides() > 0, 2 * blobs() - 2 + sides(), 0).astype(np.uint32)
    with pytest.raises(InputError, match=r"of 6 synapses the two sides lie apart in \d.* the task cleft"):
        opened(stored(tmp_path, plain, "plain.h5"), task="polarity")
    assert opened(stored(tmp_path, paired, "paired.h5"), task="polarity").kind == "instances"
    assert opened(str(tmp_path / "plain.h5"), task="polarity", kind="instances").kind == "instances"


def test_sides_that_do_not_belong_together_are_refused():
    pre, post = np.where(sides() == 1, blobs(), 0), np.where(sides() == 2, blobs() + 100, 0)
    with pytest.raises(InputError, match="share 0 of 12 and 12 ids"):
        join_sides(pre, post, SIZE_NM, by_id=True, uri="a, b")
    with pytest.raises(InputError, match="no synapse has both sides"):
        join_sides(pre, np.roll(np.zeros_like(pre), 1), SIZE_NM, by_id=False, uri="a, b")
