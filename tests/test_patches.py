"""Aligned patches: orientation, scale, planes, padding, and the order of reading."""

import cv2
import numpy as np
import pytest

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.cutting import cut, cut_all
from twostream.candidates.patches import PatchConfig, turned
from twostream.candidates.pose import central_section, upright_angle
from twostream.models.segmentation.config import SegmentationConfig
from twostream.project.boxes import guard_voxels
from twostream.project.settings import ProjectConfig
from twostream.volume import MemoryVolume, read_padded, read_windows

SIZE = 121


def synapse(angle_deg, gap=0, length=50, thickness=14):
    """A (Y, X) mask of two vertical bars, pre (1) left of post (2), rotated by ``angle_deg`` from upright."""
    straight = np.zeros((SIZE, SIZE), np.uint8)
    middle = SIZE // 2
    rows = slice(middle - length // 2, middle + length // 2)
    left = middle - gap // 2
    straight[rows, left - thickness : left] = 1
    straight[rows, left + gap : left + gap + thickness] = 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -angle_deg, 1.0)
    return cv2.warpAffine(straight, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST)


def candidate_of(section, z=2):
    mask = np.zeros((5, *section.shape), np.uint8)
    mask[1:4] = section
    return Candidate(1, 1, Box((z, 10, 20), mask.shape), mask, 0.5)


def tilt(patch_mask):
    """Angle from horizontal of the line between the centres of the two sides, in degrees."""
    pre, post = np.argwhere(patch_mask == 1).mean(0), np.argwhere(patch_mask == -1).mean(0)
    return abs(np.degrees(np.arctan2(*(post - pre))))


@pytest.mark.parametrize("gap", [0, 2, 6, 12])
@pytest.mark.parametrize("angle", range(-180, 180, 12))
def test_a_synapse_stands_upright_with_pre_on_the_left(angle, gap):
    candidate = candidate_of(synapse(angle, gap))
    image = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 8))
    pair = cut(image, candidate, PatchConfig(width_px=64, planes="central"), pixel_size_nm=8)
    mask = pair.central[1]
    assert tilt(mask) < 3
    assert np.argwhere(mask == 1)[:, 1].mean() < np.argwhere(mask == -1)[:, 1].mean()


@pytest.mark.parametrize("angle", [0, 30, 75, 90, 140])
def test_a_bar_stands_along_its_main_axis(angle):
    section = (synapse(angle, thickness=6) > 0).astype(np.uint8)
    image = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 8))
    mask = cut(image, candidate_of(section), PatchConfig(width_px=64, planes="central"), 8).central[1]
    spread = np.argwhere(mask > 0).std(0)
    assert set(np.unique(mask)) == {0, 1} and spread[0] > 2.5 * spread[1]


def test_image_and_mask_show_the_same_pixels():
    section = synapse(40)
    array = np.full((9, 160, 160), 50, np.uint8)
    array[4, 10 : 10 + SIZE, 20 : 20 + SIZE][section == 1] = 200
    array[4, 10 : 10 + SIZE, 20 : 20 + SIZE][section == 2] = 120
    pair = cut(MemoryVolume(array, (30, 8, 8)), candidate_of(section), PatchConfig(width_px=64, planes="central"), 8)
    assert pair.section == 4 and pair.padded == 0
    assert pair.image[pair.mask == 1].mean() > 190 and 110 < pair.image[pair.mask == -1].mean() < 130
    assert pair.image[pair.mask == 0].mean() < 70


def test_the_size_of_an_object_in_a_patch_does_not_depend_on_the_voxel_size():
    section = np.zeros((80, 80), np.uint8)
    section[30:50, 20:60] = 1
    for voxel_nm in (4.0, 8.0):
        scale = round(8 / voxel_nm)
        fine = section.repeat(scale, 0).repeat(scale, 1)
        image = MemoryVolume(np.zeros((9, 200 * scale, 200 * scale), np.uint8), (40, voxel_nm, voxel_nm))
        mask = cut(image, candidate_of(fine), PatchConfig(width_px=64, planes="central"), 8).mask
        assert abs(int((mask > 0).sum()) - 20 * 40) < 40


def test_the_share_of_padded_pixels_is_recorded():
    section = np.ones((20, 20), np.uint8)
    image = MemoryVolume(np.full((9, 40, 60), 9, np.uint8), (30, 8, 8))
    pair = cut(image, candidate_of(section), PatchConfig(width_px=64, planes="central"), 8)
    assert 0.3 < pair.padded < 0.9 and (pair.image == 9).all()


def test_central_section_is_the_one_nearest_the_middle_that_has_mask_voxels():
    mask = np.zeros((6, 2, 2), np.uint8)
    mask[[0, 1, 4]] = 1
    assert central_section(mask) == 1
    mask[2:4] = 1
    assert central_section(mask) == 2  # of two equally near and equally large sections, the lower one
    mask[2, 0] = 0
    assert central_section(mask) == 3  # the other one if it is larger


def test_the_angle_of_masks_of_one_or_two_pixels():
    point = np.zeros((5, 5), np.uint8)
    point[2, 2] = 1
    assert upright_angle(point) == 0.0
    pair = point.copy()
    pair[2, 4] = 2
    assert abs(upright_angle(pair)) < 1e-6


def test_every_chunk_is_read_once(tmp_path):
    """With many overlapping windows, some reaching outside the volume, each chunk is decoded once."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 255, (20, 130, 150)).astype(np.uint8)
    reads = []

    class Chunked(MemoryVolume):
        chunk_shape_zyx = (8, 32, 64)

        def _read(self, box):
            reads.append(box)
            return super()._read(box)

    volume = Chunked(array, (30, 8, 8))
    boxes = [
        Box(tuple(rng.integers(-2, n - 2) for n in array.shape), tuple(rng.integers(3, 40, 3))) for _ in range(200)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twostream.volume.windows.MIN_VOXELS_AT_ONCE", 40_000)
        found = dict(read_windows(volume, boxes))
    seen = np.zeros(array.shape, int)
    for box in reads:
        seen[box.slices] += 1
        chunk_faces = zip(box.offset_zyx, box.stop_zyx, (8, 32, 64), array.shape, strict=True)
        assert all(a % c == 0 and (b % c == 0 or b == n) for a, b, c, n in chunk_faces)
    assert len(reads) > 3 and seen.max() == 1
    assert sorted(found) == list(range(200))
    for row, box in enumerate(boxes):
        np.testing.assert_array_equal(found[row], read_padded(MemoryVolume(array, (30, 8, 8)), box))


def test_a_window_outside_the_volume_is_an_error():
    class Chunked(MemoryVolume):
        chunk_shape_zyx = (8, 32, 64)

    with pytest.raises(VolumeError, match="lies wholly outside"):
        list(read_windows(Chunked(np.zeros((8, 9, 9), np.uint8), (30, 8, 8)), [Box((0, 0, 20), (2, 2, 2))]))


def test_cutting_one_candidate_equals_cutting_many():
    rng = np.random.default_rng(1)
    image = MemoryVolume(rng.integers(0, 255, (9, 160, 160)).astype(np.uint8), (30, 8, 8))
    candidates = [candidate_of(synapse(angle), z) for angle, z in ((0, 0), (50, 2), (110, 4))]
    config = PatchConfig(width_px=32, planes="orthogonal")
    together = dict(cut_all(image, candidates, config, 8))
    for row, candidate in enumerate(candidates):
        alone = cut(image, candidate, config, 8)
        np.testing.assert_array_equal(alone.image, together[row].image)
        np.testing.assert_array_equal(alone.mask, together[row].mask)


def test_a_stack_holds_the_sections_around_the_central_one():
    section = (synapse(0, thickness=20) > 0).astype(np.uint8)
    array = np.repeat(np.arange(9, dtype=np.uint8) * 20, 160 * 160).reshape(9, 160, 160)
    image = MemoryVolume(array, (30, 8, 8))
    config = PatchConfig(width_px=32, planes="stack", stack_size=5, stack_step_nm=30)
    pair = cut(image, candidate_of(section), config, 8)  # its mask holds sections 3 to 5
    assert pair.section == 4
    assert [int(np.median(plane)) for plane in pair.image] == [40, 60, 80, 100, 120]
    assert [bool(plane.any()) for plane in pair.mask] == [False, True, True, True, False]
    every_second = cut(image, candidate_of(section), config.model_copy(update={"stack_step_nm": 60}), 8)
    assert [int(np.median(plane)) for plane in every_second.image] == [0, 40, 80, 120, 160]
    np.testing.assert_array_equal(pair.central[0], pair.image[2])


@pytest.mark.parametrize("angle", [0, 35, 90, -120])
def test_orthogonal_planes_share_their_axes_with_the_central_section(angle):
    """Three images with a gradient across the object, along it, and along Z show the axes of each plane."""
    y, x = np.mgrid[:160, :160].astype(float)
    middle = 10 + SIZE // 2, 20 + SIZE // 2
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    across, along = s * (y - middle[0]) + c * (x - middle[1]), c * (y - middle[0]) - s * (x - middle[1])
    z = np.arange(25)[:, None, None] - 12
    size_nm, candidate = (16, 8, 8), candidate_of(synapse(angle, gap=4), z=10)

    def planes(field):
        volume = MemoryVolume(np.clip(128 + field, 0, 255).astype(np.uint8), size_nm)
        return cut(volume, candidate, PatchConfig(width_px=32, planes="orthogonal"), 8).image.astype(float)

    def slopes(plane):
        inner = plane[4:-4, 4:-4]
        return np.diff(inner, axis=0).mean(), np.diff(inner, axis=1).mean()

    grown = [planes(2 * field + 0 * z) for field in (across, along)] + [planes(6.0 * z + 0 * across)]
    # The axes of the three planes are (Z, across), (along, across), (along, Z); a pixel is half a section.
    expected = [[(0, 2), (0, 2), (0, 0)], [(0, 0), (2, 0), (2, 0)], [(3, 0), (0, 0), (0, 3)]]
    for images, wanted in zip(grown, expected, strict=True):
        for plane, slope in zip(images, wanted, strict=True):
            assert slopes(plane) == pytest.approx(slope, abs=0.35)


@pytest.mark.parametrize("planes", ["central", "stack", "orthogonal"])
def test_a_turned_patch_equals_the_patch_of_a_turned_object(planes):
    """Compared with the planes of a cube after each of its reflections and quarter turns."""
    cube = np.random.default_rng(0).integers(0, 255, (5, 5, 5)).astype(np.uint8)  # (Z, along, across)

    def planes_of(c):
        if planes == "orthogonal":
            return np.stack([c[:, 2], c[2], c[:, :, 2].T])
        return c[2:3] if planes == "central" else c[1:4]

    mirrored = {
        planes_of(np.flip(np.rot90(cube, quarter, axes=(1, 2)), axes)).tobytes()
        for quarter in ((0,) if planes == "orthogonal" else (0, 1))
        for axes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    }
    upright = {planes_of(np.flip(cube, axes)).tobytes() for axes in ((), (0,), (1,), (0, 1))}
    rng = np.random.default_rng(3)
    assert {turned(planes_of(cube), planes, rng, upright=False).tobytes() for _ in range(400)} == mirrored
    assert {turned(planes_of(cube), planes, rng, upright=True).tobytes() for _ in range(100)} == upright


def test_an_even_stack_size_is_an_error():
    with pytest.raises(ValueError, match="odd number"):
        PatchConfig(planes="stack", stack_size=4)


@pytest.mark.parametrize("angle", range(-180, 180, 30))
def test_a_synapse_stands_upright_also_if_pixels_are_not_square(angle):
    """Pixels are 1.4 times as wide as high."""
    wide = cv2.resize(synapse(angle, gap=6), (round(SIZE / 1.4), SIZE), interpolation=cv2.INTER_NEAREST)
    image = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 11.2))
    pair = cut(image, candidate_of(wide), PatchConfig(width_px=64), pixel_size_nm=8)
    assert tilt(pair.central[1]) < 3


def test_the_patch_of_a_large_hollow_object_shows_part_of_it():
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    ring = (abs(np.hypot(y, x) - 52) < 5).astype(np.uint8)
    image = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 8))
    assert (cut(image, candidate_of(ring), PatchConfig(width_px=64), 8).central[1] > 0).sum() > 200


def test_depth_sections_counts_whole_sections_between_planes():
    """A step of 40 nm on sections of 26 nm is rounded to two sections; four planes on each side extend over eight."""
    config = PatchConfig(planes="stack", stack_size=9, stack_step_nm=40)
    assert config.depth_sections(26.0, 8.0) == 8
    assert PatchConfig(planes="orthogonal", width_px=64).depth_sections(40.0, 5.0) == 5
    assert PatchConfig(planes="central").depth_sections(40.0, 5.0) == 0


@pytest.mark.parametrize("planes", ["central", "stack", "orthogonal"])
def test_patches_with_object_widths_show_every_object_at_the_same_size(planes):
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    config = PatchConfig(planes=planes, object_widths=2.0)
    image, shares = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 8)), []
    for radius in (12, 20, 30):
        disc = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
        shares.append((cut(image, candidate_of(disc), config, pixel_size_nm=8).central[1] > 0).mean())
    assert shares == pytest.approx([0.25] * 3, abs=0.02)  # the patch is twice as wide as the square root of the area
    fixed = config.model_copy(update={"object_widths": None})
    speck, everything = (rows**2 + columns**2 <= 1).astype(np.uint8), np.ones((SIZE, SIZE), np.uint8)
    for section, pixel_nm in ((speck, 4), (everything, 16)):  # limits: half a voxel, twice the usual pixel
        wanted = cut(image, candidate_of(section), fixed, pixel_size_nm=pixel_nm)
        np.testing.assert_array_equal(cut(image, candidate_of(section), config, pixel_size_nm=8).mask, wanted.mask)


def test_cutting_one_candidate_equals_cutting_many_with_object_widths():
    image = MemoryVolume(np.random.default_rng(0).integers(0, 255, (9, 160, 160)).astype(np.uint8), (30, 8, 8))
    candidates = [candidate_of(synapse(angle, length=length)) for angle, length in ((0, 20), (40, 50), (90, 35))]
    config = PatchConfig(width_px=32, object_widths=1.6)
    for row, pair in cut_all(image, candidates, config, 8):
        alone = cut(image, candidates[row], config, 8)
        np.testing.assert_array_equal(pair.image, alone.image)
        np.testing.assert_array_equal(pair.mask, alone.mask)


def test_the_guard_is_as_wide_as_the_widest_patch():
    for widths, guard in ((None, 96), (1.6, 160)):  # 96 is the context of S
        config = ProjectConfig.model_construct(
            task="mitochondria",
            source=None,
            segmentation=SegmentationConfig(),
            patches=PatchConfig(object_widths=widths),
        )
        assert guard_voxels(config, (40, 4, 4))[1:] == (guard, guard)
