"""Aligned patches: what the eye would see, measured."""

import cv2
import numpy as np
import pytest

from twostream.candidates import Candidate
from twostream.geometry import Box
from twostream.patches import PatchConfig, central_section, cut, random_patches, upright_angle
from twostream.volume import MemoryVolume

SIZE = 121


def synapse(angle_deg, gap=0, length=50, thickness=14):
    """A (Y, X) mask of two bars, pre (1) left of post (2), turned by ``angle_deg``: upright is 0."""
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
    """Residual angle of the line between the sides' centres from horizontal, in degrees."""
    pre, post = np.argwhere(patch_mask == 1).mean(0), np.argwhere(patch_mask == -1).mean(0)
    return abs(np.degrees(np.arctan2(*(post - pre))))


@pytest.mark.parametrize("gap", [0, 2, 6, 12])
@pytest.mark.parametrize("angle", range(-180, 180, 24))
def test_a_synapse_stands_upright_with_pre_on_the_left(angle, gap):
    candidate = candidate_of(synapse(angle, gap))
    image = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 8))
    pair = cut(image, candidate, PatchConfig(width_px=64), pixel_size_nm=8)
    assert tilt(pair.mask) < 3
    assert np.argwhere(pair.mask == 1)[:, 1].mean() < np.argwhere(pair.mask == -1)[:, 1].mean()


@pytest.mark.parametrize("angle", [0, 30, 75, 90, 140])
def test_a_bar_stands_along_its_main_axis(angle):
    section = (synapse(angle, thickness=6) > 0).astype(np.uint8)
    image = MemoryVolume(np.zeros((9, 160, 160), np.uint8), (30, 8, 8))
    mask = cut(image, candidate_of(section), PatchConfig(width_px=64), 8).mask
    spread = np.argwhere(mask > 0).std(0)
    assert set(np.unique(mask)) == {0, 1} and spread[0] > 2.5 * spread[1]


def test_image_and_mask_are_cut_alike():
    section = synapse(40)
    array = np.full((9, 160, 160), 50, np.uint8)
    array[4, 10 : 10 + SIZE, 20 : 20 + SIZE][section == 1] = 200
    array[4, 10 : 10 + SIZE, 20 : 20 + SIZE][section == 2] = 120
    pair = cut(MemoryVolume(array, (30, 8, 8)), candidate_of(section), PatchConfig(width_px=64), 8)
    assert pair.section == 4 and pair.padded == 0
    assert pair.image[pair.mask == 1].mean() > 190 and 110 < pair.image[pair.mask == -1].mean() < 130
    assert pair.image[pair.mask == 0].mean() < 70


def test_pixels_are_nanometres():
    section = np.zeros((80, 80), np.uint8)
    section[30:50, 20:60] = 1
    for voxel_nm in (4.0, 8.0):
        scale = round(8 / voxel_nm)
        fine = section.repeat(scale, 0).repeat(scale, 1)
        image = MemoryVolume(np.zeros((9, 200 * scale, 200 * scale), np.uint8), (40, voxel_nm, voxel_nm))
        mask = cut(image, candidate_of(fine), PatchConfig(width_px=64), 8).mask
        assert abs(int((mask > 0).sum()) - 20 * 40) < 40


def test_padding_is_recorded():
    section = np.ones((20, 20), np.uint8)
    image = MemoryVolume(np.full((9, 40, 60), 9, np.uint8), (30, 8, 8))
    pair = cut(image, candidate_of(section), PatchConfig(width_px=64), 8)
    assert 0.3 < pair.padded < 0.9 and (pair.image == 9).all()


def test_central_section_is_the_filled_one_nearest_the_middle():
    mask = np.zeros((6, 2, 2), np.uint8)
    mask[[0, 1, 4]] = 1
    assert central_section(mask) == 1
    mask[2:4] = 1
    assert central_section(mask) == 2  # ties go to the lower one


def test_angles_of_degenerate_masks():
    point = np.zeros((5, 5), np.uint8)
    point[2, 2] = 1
    assert upright_angle(point) == 0.0
    pair = point.copy()
    pair[2, 4] = 2
    assert abs(upright_angle(pair)) < 1e-6


def test_random_patches_depend_on_the_seed_alone():
    rng = np.random.default_rng(0)
    image = MemoryVolume(rng.integers(0, 255, (4, 100, 90)).astype(np.uint8), (30, 8, 8))
    first = random_patches(image, 20, PatchConfig(width_px=32), 8, seed=3)
    assert first.shape == (20, 32, 32) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, random_patches(image, 20, PatchConfig(width_px=32), 8, seed=3))
    assert (first != random_patches(image, 20, PatchConfig(width_px=32), 8, seed=4)).any()
