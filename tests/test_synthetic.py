"""The synthetic tissue: voxels do not depend on the box, labels are exact, and a threshold cannot find the synapses."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.volume.synthetic import Tissue
from twostream.volume.synthetic.sections import is_missing, shift_yx
from twostream.volume.synthetic.sites import NEGATIVE_KINDS, TRUE_KINDS

WHOLE = Box((-9, -70, -40), (20, 200, 200))  # negative offsets, across tile borders
FIELDS = ("image", "synapses", "clefts", "mitochondria", "neurites")


@pytest.fixture(scope="module")
def tissue():
    return Tissue(seed=5)


@pytest.fixture(scope="module")
def whole(tissue):
    return {name: getattr(tissue, name)(WHOLE) for name in FIELDS}


def uncut(labels):
    """Ids of the synapses that do not touch the border of the array."""
    n = (labels + np.uint64(1)) // np.uint64(2)
    border = [n[0], n[-1], n[:, 0], n[:, -1], n[:, :, 0], n[:, :, -1]]
    inside = np.setdiff1d(np.unique(n), np.concatenate([b.ravel() for b in border]))
    return inside[inside > 0]


def random_boxes(count):
    rng = np.random.default_rng(0)
    for k in range(count):
        shape = rng.integers(1, [6, 60, 60])
        shape[0] = 1 if k % 3 == 0 else shape[0]
        last = np.array(WHOLE.stop_zyx) - shape
        start = rng.integers(WHOLE.offset_zyx, last + 1).tolist()
        yield Box(start, shape.tolist())


@pytest.mark.parametrize("name", FIELDS)
def test_voxels_do_not_depend_on_the_box(tissue, whole, name):
    for box in random_boxes(5):
        np.testing.assert_array_equal(getattr(tissue, name)(box), whole[name][box.relative_to(WHOLE).slices], str(box))


def test_tissue_millimetres_from_the_origin(tissue):
    box = Box((-3_000_001, 9_000_003, -9_000_007), (3, 40, 70))
    image = tissue.image(box)
    part = Box((-3_000_000, 9_000_008, -8_999_974), (1, 35, 37))
    np.testing.assert_array_equal(image[part.relative_to(box).slices], tissue.image(part))
    assert image.std() > 10


def test_dtypes_and_empty_box(tissue, whole):
    assert whole["image"].dtype == np.uint8
    assert all(whole[name].dtype == np.uint64 for name in FIELDS[1:])
    assert tissue.image(Box((0, 0, 0), (0, 4, 4))).shape == (0, 4, 4)
    assert len(tissue.objects(Box((0, 0, 0), (0, 4, 4)))) == 0


def test_seeds_give_different_tissue(tissue):
    box = Box((0, 0, 0), (1, 64, 64))
    assert not np.array_equal(tissue.neurites(box), Tissue(6).neurites(box))


def test_every_whole_synapse_has_two_sides_and_a_cleft(whole):
    present, clefts = np.unique(whole["synapses"]), np.unique(whole["clefts"])
    inside = uncut(whole["synapses"])
    assert len(inside) >= 5
    for n in inside.tolist():
        assert 2 * n - 1 in present and 2 * n in present and n in clefts


def test_sides_of_a_whole_synapse_have_hundreds_of_voxels(whole):
    n = uncut(whole["synapses"])
    sizes = [(whole["synapses"] == label).sum() for label in np.concatenate([2 * n - np.uint64(1), 2 * n])]
    assert np.median(sizes) > 500
    assert max(sizes) < 12_000


def test_each_side_lies_in_one_neurite(whole):
    for n in uncut(whole["synapses"]):
        pre = np.unique(whole["neurites"][whole["synapses"] == 2 * n - np.uint64(1)])
        post = np.unique(whole["neurites"][whole["synapses"] == 2 * n])
        assert len(pre) == len(post) == 1 and pre[0] != post[0]


def test_a_cleft_lies_within_its_synapse(whole):
    cleft = whole["clefts"] > 0
    np.testing.assert_array_equal((whole["synapses"][cleft] + np.uint64(1)) // np.uint64(2), whole["clefts"][cleft])


def test_no_two_synapses_touch(whole):
    n = ((whole["synapses"] + np.uint64(1)) // np.uint64(2)).astype(np.int64)
    n = np.unique(n, return_inverse=True)[1].reshape(n.shape)  # small numbers, because the filter computes in floats
    lowest = minimum_filter(np.where(n == 0, n.max() + 1, n), size=3)
    highest = maximum_filter(n, size=3)
    touching = (highest > 0) & (lowest <= n.max()) & (n > 0) & (lowest != highest)
    assert not touching.any()


def test_voxel_size_changes_the_sampling_not_the_tissue(tissue):
    # With an odd factor, the centre of a coarse voxel is also the centre of a fine one.
    coarse, fine = Tissue(5, (30.0, 24.0, 24.0)), tissue
    sections = [z for z in range(12) if not shift_yx(5, np.array([z]), fine.voxel_size_nm).any()][:3]
    for z in sections:
        for name in ("neurites", "synapses", "mitochondria"):
            a = getattr(fine, name)(Box((z, 0, 0), (1, 192, 192)))[:, 1::3, 1::3]
            b = getattr(coarse, name)(Box((z, 0, 0), (1, 64, 64)))
            assert (a == b).mean() > 0.998, name


def test_density_of_objects(tissue):
    box = Box((0, 0, 0), (80, 300, 300))  # 13.8 cubic micrometres
    kinds = tissue.objects(box)["kind"]
    volume_um3 = box.num_voxels * 30 * 8 * 8 / 1e9
    assert 9.5 <= np.isin(kinds, TRUE_KINDS).sum() / volume_um3 <= 14.5
    assert 0.5 <= np.isin(kinds, NEGATIVE_KINDS).sum() / np.isin(kinds, TRUE_KINDS).sum() <= 1.5
    assert 2.5 <= (kinds == "mitochondrion").sum() / volume_um3 <= 6.5
    assert set(TRUE_KINDS) | set(NEGATIVE_KINDS) | {"mitochondrion", "lysosome"} == set(kinds.tolist())


def test_objects_agree_with_labels_and_do_not_depend_on_the_box(tissue, whole):
    table = tissue.objects(WHOLE)
    for row in table[np.isin(table["kind"], TRUE_KINDS)]:
        part = Box(np.floor(row["centre_zyx"]).astype(int).tolist(), (2, 2, 2)).grown((2, 6, 6)).intersection(WHOLE)
        n = (whole["synapses"][part.relative_to(WHOLE).slices] + np.uint64(1)) // np.uint64(2)
        assert row["id"] in n
    half = Box(WHOLE.offset_zyx, (10, 200, 200))
    both = np.concatenate([tissue.objects(half), tissue.objects(half.shifted((10, 0, 0)))])
    assert sorted(both["id"].tolist()) == sorted(table["id"].tolist())


def test_postsynaptic_side_is_darker_than_presynaptic_side_and_surroundings(tissue, whole):
    image = whole["image"][~is_missing(5, np.arange(WHOLE.offset_zyx[0], WHOLE.stop_zyx[0]))].astype(float)
    labels = whole["synapses"][~is_missing(5, np.arange(WHOLE.offset_zyx[0], WHOLE.stop_zyx[0]))]
    pre, post = (labels % 2 == 1), (labels % 2 == 0) & (labels > 0)
    assert image[post].mean() < image[labels == 0].mean() - 10
    assert image[post].mean() < image[pre].mean() - 10


def test_some_sections_are_missing_and_some_misaligned(tissue):
    z = np.arange(-2000, 2000)
    assert 0.01 < is_missing(5, z).mean() < 0.03
    moved = shift_yx(5, z, tissue.voxel_size_nm).any(axis=1)
    assert 0.01 < moved.mean() < 0.06
    assert not (moved[1:] & moved[:-1]).any()
    lost = int(z[is_missing(5, z)][0])
    box = Box((lost, 0, 0), (1, 64, 64))
    assert not 40 < tissue.image(box).mean() < 210
    assert len(np.unique(tissue.neurites(box))) > 1


def test_box_beyond_the_end_of_the_tissue_is_an_error(tissue):
    with pytest.raises(InputError, match="beyond 95 mm"):
        tissue.image(Box((0, 0, 20_000_000), (1, 1, 1)))


def test_voxel_size_must_be_three_positive_numbers():
    with pytest.raises(InputError, match="expected three positive numbers: Z, Y, X"):
        Tissue(1, (30.0, 8.0))


def test_threshold_and_connected_components_do_not_find_the_synapses(whole):
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from synthetic_baseline import best_f1, score, synapse_masks

    truth = synapse_masks(whole["synapses"])
    assert best_f1(truth, truth, 0.5) > 0.7  # below 1 only because the size filter removes fragments
    # The box must be this large: on few synapses, the best threshold would be overfitted to them.
    result = score(1, Box((0, 0, 0), (24, 384, 384)), sigmas_nm=(32.0,))  # the best of all smoothings that were tried
    assert result["num_synapses"] >= 80
    assert result[0.5] < 0.3 and result[0.2] < 0.3
