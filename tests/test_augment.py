"""Augmentation: image and target are transformed together, target levels are never interpolated, and every operation
does what its name says."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from twostream.models.segmentation import imaging, warp
from twostream.models.segmentation.augment import augment
from twostream.models.segmentation.config import AugmentConfig
from twostream.task import IGNORE

STILL = AugmentConfig(
    flip=False, rotate=0, rescale=0, elastic=0, grey=0, noise=0, missing_section=0, missing_part=0,
    dropped_section=0, misalignment=0, motion_blur=0, cut_noise=0, cut_blur=0,
)  # fmt: skip
MOVES = ("flip", "rotate", "rescale", "elastic", "misalignment", "dropped_section")
RESAMPLING = ("rotate", "rescale", "elastic")
GREYS = ("grey", "noise", "missing_section", "missing_part", "motion_blur", "cut_noise", "cut_blur")
ALL = MOVES + GREYS
SEEDS = range(12)


def only(*names, **settings):
    """Settings with which these operations are always applied, and no others."""
    return AugmentConfig(**(STILL.model_dump() | {name: True if name == "flip" else 1.0 for name in names} | settings))


def vary(image, target, config, seed=0):
    return augment(image, target, config, np.random.default_rng(seed))


def smooth_pair(shape_zyx=(6, 64, 64)):
    """A smooth target, and the image target / 100: after any transformation they must still agree.

    The level rises by 20 per section, 1 along Y and 0.5 along X, so every wrong transformation shows, and nearest
    neighbour differs little from linear interpolation. Channel 1 is 254 minus channel 0.
    """
    z, y, x = np.ogrid[: shape_zyx[0], : shape_zyx[1], : shape_zyx[2]]
    level = np.clip(20 * z + y + 0.5 * x, 0, 254).round().astype(np.uint8)
    return (level / 100).astype(np.float32), np.stack([level, 254 - level])


def random_pair(shape_zyx=(6, 40, 40), levels=(0, 3, 128, 254, IGNORE), num_channels=3, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.choice(np.array(levels, np.uint8), (num_channels, *shape_zyx))
    return rng.standard_normal(shape_zyx, dtype=np.float32), target


def changed_sections(before, after):
    return [z for z in range(before.shape[-3]) if (before[..., z, :, :] != after[..., z, :, :]).any()]


@pytest.mark.parametrize("name", MOVES)
def test_image_and_target_move_together(name):
    image, target = smooth_pair()
    moved_at_all = 0
    for seed in SEEDS:
        varied, moved = vary(image, target, only(name), seed)
        known = moved[0] != IGNORE
        np.testing.assert_array_equal(known, moved[1] != IGNORE)
        assert known.mean() > 0.5
        tolerance = 0.02 if name in RESAMPLING else 1e-6  # half a pixel of a slope of 1.5 levels per pixel, rounded
        assert abs(varied[known] - moved[0][known] / 100).max() <= tolerance
        np.testing.assert_array_equal(moved[1][known], 254 - moved[0][known])
        moved_at_all += (moved != target).any()
    assert moved_at_all >= len(SEEDS) - 2  # one orientation of sixteen is the identity


def test_flips_and_quarter_turns_keep_all_values_and_reach_every_orientation():
    image, target = random_pair((3, 8, 8))
    poses = set()
    for seed in range(300):
        varied, moved = vary(image, target, only("flip"), seed)
        np.testing.assert_array_equal(np.sort(varied, axis=None), np.sort(image, axis=None))
        poses.add(varied.tobytes() + moved.tobytes())
    assert len(poses) == 16


def test_crops_that_are_not_square_keep_their_shape():
    image, target = random_pair((4, 24, 36))
    for seed in SEEDS:
        varied, moved = vary(image, target, only(*ALL), seed)
        assert varied.shape == image.shape and moved.shape == target.shape


@pytest.mark.parametrize("name", RESAMPLING)
def test_exactly_the_voxels_from_outside_the_crop_are_ignored(name):
    image, target = random_pair(levels=(0, 77, 254))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        shape_yx = image.shape[1:]
        angle = rng.uniform(0, 6.3) if name == "rotate" else 0.0
        factors = warp.draw_factors((0.8, 1.25), rng) if name == "rescale" else (1.0, 1.0)
        elastic = warp.draw_elastic(shape_yx, 12.0, 6.0, rng) if name == "elastic" else None
        source = warp.source_map(shape_yx, angle, factors, elastic)
        varied, moved = warp.resample(image, target, source)
        last = np.array(shape_yx)[:, None, None] - 1
        inside = ((source > -0.45) & (source < last + 0.45)).all(0)
        outside = ((source < -0.55) | (source > last + 0.55)).any(0)
        assert (moved[..., inside] != IGNORE).all() and (moved[..., outside] == IGNORE).all()
        assert inside.any() and np.isfinite(varied).all() and abs(varied).max() <= abs(image).max()  # mirrored
        assert varied[:, outside].size == 0 or (varied[:, outside].std() > 0.1)


def test_the_map_rotates_and_magnifies():
    """A rotation by 90 degrees equals numpy's; a factor of 2 moves the neighbours of the centre two pixels away."""
    image, target = random_pair((2, 9, 9))
    turned = warp.resample(image, target, warp.source_map((9, 9), np.pi / 2, (1.0, 1.0), None))
    for array, before in zip(turned, (image, target), strict=True):
        np.testing.assert_allclose(array, np.rot90(before, axes=(-2, -1)), atol=1e-4)
    grown, _ = warp.resample(image, target, warp.source_map((9, 9), 0.0, (2.0, 1.0), None))
    np.testing.assert_allclose(grown[:, ::2], image[:, 2:7], atol=1e-5)


def test_magnification_stays_in_its_range():
    rng = np.random.default_rng(0)
    factors = np.array([warp.draw_factors((0.5, 2.0), rng) for _ in range(400)])
    assert factors.min() >= 0.5 and factors.max() <= 2
    assert abs(np.log(factors).mean()) < 0.1  # as often smaller as larger
    image, target = random_pair()
    np.testing.assert_array_equal(vary(image, target, only("rescale", rescale_range=(1, 1)))[0], image)


@pytest.mark.parametrize("sigma_px", [0.3, 2.0, 12.0])
def test_elastic_displacements_are_bounded_and_smooth(sigma_px):
    fields = [warp.draw_elastic((48, 65), sigma_px, 6.0, np.random.default_rng(s)) for s in SEEDS]
    for field in fields:
        assert field.shape == (2, 48, 65) and field.dtype == np.float32
        assert np.hypot(*field).max() <= 6.0001
    assert 1 < np.std(fields) < 4
    step = np.std(np.diff(fields, axis=-1)) / np.std(fields)
    # Gaussian-smoothed noise has the slope 1 / (sqrt(2) sigma) in units of its deviation.
    if sigma_px > 1:
        assert step == pytest.approx(1 / (2**0.5 * sigma_px), rel=0.35)
    assert warp.draw_elastic((48, 65), sigma_px, 0.0, np.random.default_rng(0)) is None


@pytest.mark.parametrize("names", [*((name,) for name in MOVES), MOVES])
def test_target_levels_are_never_interpolated(names):
    image, target = random_pair()
    for seed in SEEDS:
        _, moved = vary(image, target, only(*names), seed)
        assert set(np.unique(moved)) <= {0, 3, 128, 254, IGNORE}
        for channel in range(3):  # a channel of one level stays one, but for what comes from outside
            alone = np.full_like(target, 3 + channel)
            assert set(np.unique(vary(image, alone, only(*names), seed)[1][channel])) <= {3 + channel, IGNORE}


@pytest.mark.parametrize("names", [*((name,) for name in GREYS), GREYS])
def test_grey_value_operations_do_not_change_the_target(names):
    image, target = random_pair()
    for seed in SEEDS:
        varied, kept = vary(image, target, only(*names), seed)
        np.testing.assert_array_equal(kept, target)
        assert (varied != image).any()


@pytest.mark.parametrize("name", GREYS)
def test_each_setting_belongs_to_its_operation(name, monkeypatch):
    image, target = random_pair()
    called = []
    for other in GREYS:
        monkeypatch.setattr(imaging, other, lambda image, rng, other=other, **_: called.append(other) or image)
    vary(image, target, only(name))
    assert called == [name]


def test_without_any_operation_equal_copies_are_returned():
    image, target = random_pair()
    image.flags.writeable = target.flags.writeable = False
    for seed in SEEDS:
        varied, kept = vary(image, target, STILL, seed)
        np.testing.assert_array_equal(varied, image)
        np.testing.assert_array_equal(kept, target)
        assert not np.shares_memory(varied, image) and not np.shares_memory(kept, target)


@pytest.mark.parametrize("name", ALL)
def test_arguments_are_not_changed(name):
    image, target = random_pair()
    before = image.copy(), target.copy()
    vary(image, target, only(name))
    if name in GREYS:  # nor by the function of the operation itself
        getattr(imaging, name)(image, np.random.default_rng(0))
    if name == "misalignment":
        warp.misalign(image, target, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(target, before[1])


@pytest.mark.parametrize("config", [AugmentConfig(), only(*ALL)])
def test_a_sample_is_a_function_of_its_seed(config):
    image, target = random_pair()
    once, again, other = (vary(image, target, config, seed) for seed in (5, 5, 6))
    for a, b, c in zip(once, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


@pytest.mark.parametrize("shape_zyx", [(1, 33, 33), (2, 33, 33), (3, 7, 7), (5, 1, 1), (8, 51, 51), (1, 2, 600)])
def test_crops_of_unusual_shapes_keep_shape_and_type(shape_zyx):
    image, target = random_pair(shape_zyx)
    for names in (*((name,) for name in ALL), ALL):
        for seed in range(3):
            varied, moved = vary(image, target, only(*names), seed)
            assert varied.shape == image.shape and varied.dtype == np.float32 and varied.flags.c_contiguous
            assert moved.shape == target.shape and moved.dtype == np.uint8 and moved.flags.c_contiguous
            assert np.isfinite(varied).all()


def test_constant_crops_stay_finite():
    image, target = np.zeros((4, 16, 16), np.float32), np.zeros((1, 4, 16, 16), np.uint8)
    assert np.isfinite(vary(image, target, only(*ALL))[0]).all()


def test_an_operation_is_applied_with_its_probability():
    image, target = random_pair((4, 8, 8))
    config = STILL.model_copy(update={"noise": 0.25})
    share = np.mean([(vary(image, target, config, seed)[0] != image).any() for seed in range(400)])
    assert 0.17 < share < 0.33


def test_misalignment_shifts_one_section_or_all_from_one_on():
    image, target = random_pair(levels=(0, 254))
    kinds = set()
    for seed in range(40):
        varied, moved = vary(image, target, only("misalignment", misalignment_px=3), seed)
        sections = changed_sections(image, varied)
        kinds.add(len(sections) == 1 and sections != [5])  # the last alone may be either
        assert len(sections) == 1 or sections == list(range(sections[0], 6))
        assert sections[0] > 0 or len(sections) == 1
        shifts = set()
        for z in sections:
            known = moved[0, z] != IGNORE
            rows, columns = known.any(1), known.any(0)
            assert (known == (rows[:, None] & columns)).all() and (~rows).sum() <= 3 and (~columns).sum() <= 3
            dy = (~rows).sum() * (1 if not rows[0] else -1)
            dx = (~columns).sum() * (1 if not columns[0] else -1)
            shifts.add((dy, dx))
            np.testing.assert_array_equal(np.roll(image[z], (dy, dx), (0, 1))[known], varied[z][known])
            np.testing.assert_array_equal(np.roll(target[:, z], (dy, dx), (1, 2))[:, known], moved[:, z][:, known])
            if dx > 0:  # the freed margin is a mirror whose axis is the old first column
                np.testing.assert_array_equal(varied[z][:, dx - 1], varied[z][:, dx + 1])
        assert len(shifts) == 1 and shifts != {(0, 0)}
    assert kinds == {True, False}


def test_misalignment_without_room_changes_nothing():
    for shape_zyx, px in (((4, 16, 16), 0), ((1, 16, 16), 8), ((4, 1, 16), 8)):
        image, target = random_pair(shape_zyx)
        np.testing.assert_array_equal(vary(image, target, only("misalignment", misalignment_px=px))[0], image)


def test_every_shift_but_zero_is_drawn():
    image, target = random_pair((2, 12, 12), levels=(0, 254))
    results = {vary(image, target, only("misalignment", misalignment_px=1), s)[0].tobytes() for s in range(400)}
    assert len(results) == 2 * 8  # either section, eight neighbours


def test_misalignment_by_rotation_turns_one_section_or_all_from_one_on():
    """Sections that hold their own coordinates say from where each pixel came: from a rotation about the centre."""
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    target = np.zeros((1, 6, 41, 41), np.uint8)
    angles, kinds, shares = [], set(), []
    for seed in range(40):
        (from_y, moved), (from_x, _) = (
            warp.misalign_by_rotation(np.repeat(a[None], 6, 0), target, 5, np.random.default_rng(seed)) for a in (y, x)
        )
        sections = [z for z in range(6) if abs(from_y[z] - y).max() > 1e-3]
        kinds.add(len(sections) == 1 and sections != [5])
        assert len(sections) == 1 or sections == list(range(sections[0], 6))
        others = [z for z in range(6) if z not in sections]
        assert not moved[:, others].any() and (moved[:, sections] == moved[:, sections[:1]]).all()
        known = moved[0, sections[0]] != IGNORE
        shares.append(known.mean())
        dy, dx = (from_y[sections[0]] - y)[known], (from_x[sections[0]] - x)[known]
        assert np.hypot(dy, dx).max() < 5.01
        far = known & (np.hypot(y, x) > 5)
        turn = np.angle((from_x + 1j * from_y)[sections[0]][far] / (x + 1j * y)[far])
        assert np.ptp(turn) < 0.05  # OpenCV interpolates in steps of 1/32 pixel
        angles.append(turn.mean())
    limit = 2 * np.arcsin(5 / 2 / (41 / 2**0.5))
    assert max(np.abs(angles)) < limit * 1.05 and np.ptp(angles) > limit and kinds == {True, False}
    assert 0.8 < min(shares) < 1


def test_misalignments_rotate_in_their_share():
    image, target = random_pair((4, 12, 12))
    rotated = 0
    for seed in range(200):
        varied, moved = vary(image, target, only("misalignment", misalignment_px=2, misalignment_rotate=0.25), seed)
        values = np.isin(varied, image).all()  # a shift by whole pixels computes no new grey value
        rotated += not values
        assert moved.shape == target.shape
    assert 25 < rotated < 75


@pytest.mark.parametrize("number", [1, 2, 5])
def test_dropped_sections_leave_the_others_in_order(number):
    """What remains is an ordered subset of the sections with both ends; ``number`` mirrored ones are ignored."""
    image, target = random_pair((7, 5, 5), levels=(0, 254))
    ends = set()
    for seed in range(60):
        varied, moved = vary(image, target, only("dropped_section", defect_sections=number), seed)
        known = (moved != IGNORE).all((0, 2, 3))
        assert known.sum() == 7 - number and (moved[:, ~known] == IGNORE).all()
        first = int(np.flatnonzero(known)[0])
        assert known[first : first + 7 - number].all() and first in (0, number)
        ends.add(first)
        source = [int(np.flatnonzero((image == section).all((1, 2)))[0]) for section in varied]
        kept = [z for z, is_known in zip(source, known, strict=True) if is_known]
        assert kept == sorted(set(kept)) and kept[0] == 0 and kept[-1] == 6
        np.testing.assert_array_equal(moved[:, known], target[:, kept])
    assert ends == {0, number}


def test_more_defects_than_inner_sections_hit_all_of_them():
    image, target = random_pair((4, 6, 6), levels=(0, 254))
    varied, moved = vary(image, target, only("dropped_section", defect_sections=9))
    assert (moved != IGNORE).all((0, 2, 3)).sum() == 2 and varied.shape == image.shape
    assert changed_sections(image, vary(image, target, only("missing_section", defect_sections=9))[0]) == [1, 2]


@pytest.mark.parametrize(("name", "numbers"), [("missing_section", {2}), ("motion_blur", {1, 2})])
def test_a_defect_hits_the_configured_number_of_sections(name, numbers):
    image, target = random_pair((8, 32, 32))
    seen = {len(changed_sections(image, vary(image, target, only(name, defect_sections=2), s)[0])) for s in range(60)}
    assert seen == numbers


def test_cubes_are_transposed_and_other_crops_are_not():
    """The 96 results of a cube are all of its orientations that keep Y or exchange it with Z or X once."""
    image, target = random_pair((4, 4, 4))
    config, poses = only("flip", transpose_zx=True), set()
    for seed in range(1500):
        varied, moved = vary(image, target, config, seed)
        np.testing.assert_array_equal(np.sort(varied, axis=None), np.sort(image, axis=None))
        level = {grey: target[(slice(None), *at)].tobytes() for at, grey in np.ndenumerate(image)}
        assert all(level[varied[at]] == moved[(slice(None), *at)].tobytes() for at in ((0, 1, 2), (3, 0, 1)))
        poses.add(varied.tobytes())
    assert len(poses) == 32 and np.ascontiguousarray(image.transpose(2, 1, 0)).tobytes() in poses
    image, target = random_pair((3, 4, 4))
    for seed in SEEDS:
        varied, moved = vary(image, target, STILL.model_copy(update={"transpose_zx": True}), seed)
        np.testing.assert_array_equal(varied, image)
        np.testing.assert_array_equal(moved, target)


@pytest.mark.parametrize("num_sections", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["missing_section", "missing_part"])
def test_tissue_is_missing_in_one_inner_section(name, num_sections):
    image, target = random_pair((num_sections, 32, 32))
    hit, values = set(), []
    for seed in range(40):
        varied, _ = vary(image, target, only(name), seed)
        sections = changed_sections(image, varied)
        if num_sections < 3:
            assert sections == []
            continue
        (z,) = sections
        hit.add(z)
        gone = varied[z] != image[z]
        assert np.unique(varied[z][gone]).size == 1
        values.append(varied[z][gone][0])
        assert gone.all() if name == "missing_section" else 0 < gone.mean() <= 0.55
    if num_sections >= 3:
        assert hit == set(range(1, num_sections - 1))
        assert min(values) < -2 and max(values) > 2 and min(np.abs(values)) < 1


def test_missing_parts_are_half_planes_and_bands():
    """The missing part is convex; the remaining part is convex, or two convex parts on both sides of a band."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((3, 64, 64), dtype=np.float32)
    num_left = []
    for seed in SEEDS:
        gone = imaging.missing_part(image, np.random.default_rng(seed))[1] != image[1]
        left, number = ndimage.label(~gone)
        for part in (gone, *(left == k + 1 for k in range(number))):
            ends = np.argwhere(part)
            middle = (ends + rng.permutation(ends)) // 2
            assert part[middle[:, 0], middle[:, 1]].mean() > 0.9  # except for rounding at the border of thin bands
        num_left.append(number)
    assert set(num_left) == {1, 2}


def is_band(gone, width_px):
    """Whether every row loses one run of pixels, of the width of the band unless it ends at a side."""
    for row in gone:
        at = np.flatnonzero(row)
        if len(at) == 0 or np.ptp(at) != len(at) - 1 or len(at) > width_px + 1:
            return False
        if at[0] > 0 and at[-1] < len(row) - 1 and len(at) < width_px - 1:
            return False
    return True


@pytest.mark.parametrize("width_px", [3, 9, 21])
def test_missing_bands_cross_the_section_and_spare_two_neighbours(width_px):
    image = np.random.default_rng(0).standard_normal((9, 40, 60), dtype=np.float32)
    hit_counts, directions = [], set()
    for seed in SEEDS:
        varied = imaging.missing_bands(image, np.random.default_rng(seed), 0.8, width_px)
        sections = changed_sections(image, varied)
        assert all(b - a >= 3 for a, b in pairwise(sections))
        hit_counts.append(len(sections))
        for z in sections:
            gone = varied[z] != image[z]
            np.testing.assert_allclose(varied[z][gone], image[z].mean(), atol=1e-5)
            along = is_band(gone, width_px), is_band(gone.T, width_px)
            assert any(along)
            directions.add(along)
    assert min(hit_counts) >= 1 and max(hit_counts) == 3 and {(True, False), (False, True)} <= directions
    assert (imaging.missing_bands(image, np.random.default_rng(0), 0.0, 9) == image).all()


def test_bands_replace_the_missing_part_where_they_are_configured():
    image, target = random_pair((9, 32, 32))
    for seed in SEEDS:
        varied, _ = vary(image, target, only("missing_part", missing_band_px=8), seed)
        assert changed_sections(image, varied) == [0, 3, 6]  # with a probability of 1


def test_grey_is_monotonic_within_a_section_and_differs_between_sections():
    image = np.random.default_rng(0).standard_normal((5, 32, 32), dtype=np.float32)
    for seed in SEEDS:
        varied = imaging.grey(image, np.random.default_rng(seed))
        for z in range(5):
            assert (np.diff(varied[z].ravel()[np.argsort(image[z], axis=None)]) >= -1e-6).all()
        assert 0.6 < varied.std() < 1.6 and abs(varied.mean()) < 0.6
        assert np.ptp((varied - varied[0]).mean((1, 2)) - (image - image[0]).mean((1, 2))) > 0.01
    straight = [np.corrcoef(imaging.grey(image, np.random.default_rng(s))[0].flat, image[0].flat)[0, 1] for s in SEEDS]
    assert min(straight) < 0.999  # gamma is not linear


def test_noise_is_white_and_everywhere():
    image = np.zeros((6, 64, 64), np.float32)
    for seed in SEEDS:
        noise = imaging.noise(image, np.random.default_rng(seed))
        assert (noise != 0).all() and 0.015 < noise.std() < 0.31
        assert abs(np.corrcoef(noise[:, :, :-1].flat, noise[:, :, 1:].flat)[0, 1]) < 0.05


def test_motion_blur_affects_one_section_along_one_direction():
    point = np.zeros((5, 41, 41), np.float32)
    point[:, 20, 20] = 1
    directions = []
    for seed in SEEDS:
        blurred = imaging.motion_blur(point, np.random.default_rng(seed))
        (z,) = changed_sections(point, blurred)
        assert blurred[z].sum() == pytest.approx(1, abs=1e-5)
        y, x = np.nonzero(blurred[z] > 1e-4)
        offsets = np.stack([y - 20, x - 20])
        along, across = np.linalg.eigh((offsets * blurred[z][y, x]) @ offsets.T)[0][::-1] ** 0.5
        assert 1 < along < 4 and across < 0.75  # a line of length L has the deviation L / sqrt(12)
        directions.append(np.arctan2(*np.linalg.eigh((offsets * blurred[z][y, x]) @ offsets.T)[1][:, 1]) % np.pi)
    assert np.std(directions) > 0.3


@pytest.mark.parametrize("name", ["cut_noise", "cut_blur"])
def test_cut_operations_change_one_cuboid(name):
    image = np.random.default_rng(0).standard_normal((8, 40, 40), dtype=np.float32)
    for seed in SEEDS:
        varied = getattr(imaging, name)(image, np.random.default_rng(seed))
        changed = np.nonzero(varied != image)
        box = tuple(slice(c.min(), c.max() + 1) for c in changed)
        sides = [s.stop - s.start for s in box]
        assert 2 <= sides[0] <= 4 and all(10 <= s <= 20 for s in sides[1:])
        assert (varied != image)[box].mean() > 0.99
        roughness = [np.diff(a[box], axis=-1).std() for a in (varied, image)]
        assert roughness[0] > 1.02 * roughness[1] if name == "cut_noise" else roughness[0] < 0.6 * roughness[1]
        assert varied[box].mean() == pytest.approx(image[box].mean(), abs=0.15)
