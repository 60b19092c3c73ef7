"""Random crops of the raw image: equally probable places, whole coverage, and a sequence that nothing can disturb."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from twostream.candidates.crops import CROPS_PER_BLOCK, RandomCrops
from twostream.candidates.patches import PatchConfig
from twostream.models.streams.config import StreamConfig
from twostream.models.streams.draw import ImageDraw, image_input
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.rounds import embed
from twostream.volume import MemoryVolume

SIZE_NM = (30.0, 8.0, 8.0)
CENTRAL = PatchConfig(width_px=16, planes="central")


class Chunked(MemoryVolume):
    """Counts how often each voxel is read."""

    chunk_shape_zyx = (4, 32, 32)

    def __init__(self, array, size_nm=SIZE_NM):
        super().__init__(array, size_nm)
        self.seen = np.zeros(array.shape, int)

    def _read(self, box):
        self.seen[box.slices] += 1
        return super()._read(box)


def noise(shape, volume=MemoryVolume):
    return volume(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), SIZE_NM)


def small_groups(monkeypatch, crops_per_group=64, voxels_at_once=4096):
    monkeypatch.setattr("twostream.candidates.crops.MAX_CROPS_PER_GROUP", crops_per_group)
    monkeypatch.setattr("twostream.volume.windows.MIN_VOXELS_AT_ONCE", voxels_at_once)


def test_a_crop_depends_on_seed_and_number_alone(monkeypatch):
    """Whatever was cut before: in order, backwards, after a jump, and in another process."""
    small_groups(monkeypatch)
    image = noise((4, 100, 90))
    crops = RandomCrops(image, CENTRAL, 8, seed=3, turned=True)
    first = [crops(k).copy() for k in range(200)]
    assert first[0].shape == (1, 16, 16) and first[0].dtype == np.uint8
    packed = pickle.dumps(crops)
    for other in (RandomCrops(image, CENTRAL, 8, seed=3, turned=True), pickle.loads(packed)):
        for k in (150, *range(199, -1, -7), 64, 63):
            np.testing.assert_array_equal(other(k), first[k])
    assert len({c.tobytes() for c in first}) == 200  # every one is new
    again = RandomCrops(image, CENTRAL, 8, seed=4, turned=True)
    assert (np.stack([again(k) for k in range(200)]) != np.stack(first)).any((1, 2, 3)).all()


def test_upright_crops_are_plain_slices_and_reach_every_corner(monkeypatch):
    """As published: where a pixel is a voxel, a crop is a slice at a whole voxel, never outside the volume."""
    small_groups(monkeypatch)
    image = noise((3, 40, 37))
    crops = RandomCrops(image, CENTRAL, 8, seed=0, turned=False)
    array, corners = image.read(image.box), []
    for group in range(3):
        places, _, order = crops.places(group)
        cut = crops.cut(group)
        for (z, y, x), row in zip(places, order, strict=True):
            np.testing.assert_array_equal(cut[row, 0], array[z, y : y + 16, x : x + 16])
            corners.append((z, y, x))
    for group in range(3, 400):
        corners += [tuple(place) for place in crops.places(group)[0]]
    counts = np.zeros((3, 40 - 16 + 1, 37 - 16 + 1), int)
    np.add.at(counts, tuple(np.array(corners).T), 1)
    assert counts.min() > 0
    # Places are drawn with one probability: a chi-square per place of about 1, below it thanks to the strata.
    expected = counts.sum() / counts.size
    assert 0.5 < ((counts - expected) ** 2 / expected).mean() < 1.2
    by_row = counts.sum((0, 2)) / counts.sum() * counts.shape[1]
    assert abs(by_row - 1).max() < 0.1  # no dip at the faces of blocks


def test_every_block_has_its_turn_before_any_has_a_second(monkeypatch):
    small_groups(monkeypatch, crops_per_group=16, voxels_at_once=1)
    crops = RandomCrops(noise((8, 207, 143), Chunked), CENTRAL, 8, seed=1, turned=False)
    assert crops.crops_per_pass == CROPS_PER_BLOCK * 2 * 6 * 4
    per_pass = []
    for number in range(2):
        groups = range(number * crops.crops_per_pass // 16, (number + 1) * crops.crops_per_pass // 16)
        places = np.concatenate([crops.places(group)[0] for group in groups])
        blocks = places // (4, 32, 32)
        found, counts = np.unique(blocks, axis=0, return_counts=True)
        assert len(found) == 48
        whole = (found[:, 1] < 5) & (found[:, 2] < 3)
        assert set(counts[whole]) <= {16, 17, 18}  # 48 x 16 crops over 8 x 192 x 128 places: 16 for a whole block
        per_pass.append([tuple(block) for block in blocks])
    assert per_pass[0] != per_pass[1]  # another order
    changes = [sum(a != b for a, b in pairwise(order)) for order in per_pass]
    assert changes == [47, 47]  # all crops of a block follow one another, before the shuffling within a group


def test_a_group_decodes_no_chunk_twice_and_only_what_it_needs(monkeypatch):
    small_groups(monkeypatch, crops_per_group=32, voxels_at_once=1)
    image = noise((8, 320, 320), Chunked)
    RandomCrops(image, CENTRAL, 8, seed=0, turned=True).cut(0)
    assert image.seen.max() == 1
    # Two blocks, each with the neighbours that a window of 27 voxels reaches: at most nine of 200 chunks each.
    assert 0 < image.seen.mean() <= 18 / 200


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("planes", ["central", "stack", "orthogonal"])
def test_volumes_smaller_than_a_crop_are_mirrored(planes, turned):
    image = MemoryVolume(np.full((2, 12, 300), 7, np.uint8), SIZE_NM)
    crops = RandomCrops(image, PatchConfig(width_px=32, planes=planes), 8, seed=0, turned=turned)
    assert {crops(k).tobytes() for k in range(40)} == {np.full((crops(0).shape), 7, np.uint8).tobytes()}


def test_each_section_is_the_central_one_equally_often(monkeypatch):
    small_groups(monkeypatch, crops_per_group=1600)
    array = np.repeat(np.arange(4, dtype=np.uint8) * 50, 64 * 64).reshape(4, 64, 64)
    stack = PatchConfig(width_px=16, planes="stack", stack_step_nm=30)
    crops = RandomCrops(MemoryVolume(array, SIZE_NM), stack, 8, seed=0, turned=False)
    middles, counts = np.unique(crops.cut(0)[:, :, 8, 8], axis=0, return_counts=True)
    assert middles.tolist() == [[0, 0, 50], [0, 50, 100], [50, 100, 150], [100, 150, 150]]
    assert counts.tolist() == [400] * 4  # four of the sixteen pieces of a pass each


def test_memory_is_bounded_for_wide_patches_of_many_planes(monkeypatch):
    monkeypatch.setattr("twostream.candidates.crops.MAX_GROUP_BYTES", 10 * 3 * 32 * 32)
    crops = RandomCrops(noise((4, 80, 80)), PatchConfig(width_px=32), 8, seed=0, turned=True)
    assert crops.cut(0).shape == (10, 3, 32, 32)
    whole = crops.cut(1)
    monkeypatch.setattr("twostream.candidates.crops.MAX_WINDOW_BYTES", 3 * 51 * 51 * 3)  # three windows at once
    np.testing.assert_array_equal(crops.cut(1), whole)


def test_many_blocks_are_merged(monkeypatch):
    monkeypatch.setattr("twostream.candidates.crops.MAX_BLOCKS", 8)
    small_groups(monkeypatch, voxels_at_once=1)
    crops = RandomCrops(noise((8, 200, 200), Chunked), CENTRAL, 8, seed=0, turned=True)
    assert crops.crops_per_pass <= 8 * CROPS_PER_BLOCK


def numbered(k):
    return np.full((1, 4, 4), k % 256, np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1 / 3, 1.0])
def test_the_share_of_random_crops_is_kept_and_each_is_used_once(share):
    draw = ImageDraw(numbered, np.zeros((2, 1, 4, 4), np.uint8), share, "central")
    numbers = [draw.crop_number(t) for t in range(6400)]
    used = [n for n in numbers if n is not None]
    assert sorted(used) == list(range(len(used))) and abs(len(used) - 6400 * share) <= 1
    for rank in range(4):  # four GPUs
        mine = [n is not None for n in numbers[rank::4]]
        assert np.mean(mine) == pytest.approx(share, abs=0.02)


def test_without_candidates_all_are_crops():
    draw = ImageDraw(numbered, np.zeros((0, 1, 4, 4), np.uint8), 0.25, "central")
    assert [draw.crop_number(t) for t in range(100)] == list(range(100))


@pytest.mark.parametrize("augmented", [False, True])
def test_rotations_and_flips_can_be_switched_off(augmented):
    patch = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    draw = ImageDraw(lambda k: patch, patch[None], 0.5, "central", augmented)
    shown = {draw(t, np.random.default_rng(t)).tobytes() for t in range(200)}
    assert len(shown) == (8 if augmented else 1)
    if not augmented:
        assert shown == {image_input(patch).tobytes()}


def test_a_killed_training_goes_on_with_the_same_crops(tmp_path, monkeypatch):
    """The crops of a resumed training begin in the middle of the sequence, in the middle of a group."""
    monkeypatch.setattr("twostream.models.training.STEPS_PER_CHECKPOINT", 2)
    small_groups(monkeypatch, crops_per_group=10)
    config = StreamConfig(method="vae", latent_dim=4, hidden_dims=(8, 16), num_steps=7, batch_size=4)
    image = noise((4, 60, 60))

    class Killed(BaseException):
        pass

    def trained(name, last=None):
        crops = RandomCrops(image, CENTRAL, 8, seed=2, turned=True)

        def deadly(k):
            if last is not None and k == last:
                raise Killed
            return crops(k)

        draw = ImageDraw(deadly, np.zeros((0, 1, 16, 16), np.uint8), 1.0, "central")
        network = new_stream((1, 16, 16), config, 0)
        losses = fit_stream(network, draw, config, seed=5, resume_path=tmp_path / name, name="test")
        return losses, [p.detach().numpy().copy() for p in network.parameters()]

    losses, weights = trained("whole")
    with pytest.raises(Killed):
        trained("halved", last=18)
    again, resumed = trained("halved")
    assert again == losses
    for a, b in zip(weights, resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_round_learns_from_other_crops(make_project):
    project = make_project()
    centred = np.zeros((0, 3, 16, 16), np.uint8)
    first, second = (embed._image_draw(project, centred, round_number).crops for round_number in (0, 1))
    assert any((first(k) != second(k)).any() for k in range(4))


def test_the_paper_preset_shows_crops_as_they_are(make_project):
    paper = make_project("paper", preset="paper").config.streams
    assert (paper.random_crop_share, paper.augment_crops) == (1.0, False)
    assert make_project("laptop").config.streams.augment_crops
