"""Prediction: it does not depend on blocks, windows are blended, orientations averaged, and blocks can be pickled."""

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map

from twostream.base.geometry import Box
from twostream.models.segmentation.blending import Lattice, gaussian_weights, unfolded_levels
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.network import averaged_over_orientations, fold, orientations, turn_folded
from twostream.models.segmentation.predict import TorchWindows, plan, predict
from twostream.models.segmentation.train import new_segmenter
from twostream.task import Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume, create_volume
from twostream.volume.execution import InProcess, PickledInProcess
from twostream.volume.stage import Stage

SIZE = (30.0, 8.0, 8.0)
TINY = SegmentationConfig(
    filters=(4, 8, 8),
    max_pixel_size_nm=10.0,
    patch_shape_zyx=(4, 16, 16),
    window_shape_zyx=(4, 16, 24),
    block_shape_zyx=(4, 16, 16),
    context_zyx=(1, 6, 6),
)


def segmenter(size=SIZE, config=TINY, task=Mitochondria):
    return new_segmenter(task(size), config, voxel_size_nm=size, num_sections=8, grey=(100.0, 60.0), seed=0)


def noise(shape, size=SIZE):
    return MemoryVolume(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), size)


def predicted(s, image, config, **options):
    channels = len(s.head.probability(torch.zeros(1, s.architecture["num_logits"], 1, 1, 1))[0])
    output = MemoryVolume(np.zeros((channels, *image.shape_zyx), np.uint8), image.voxel_size_nm)
    predict(s, image, output, config, **options)
    return output.read(output.box)


@pytest.mark.parametrize(
    ("size", "shape"), [(SIZE, (9, 40, 57)), ((40.0, 4.0, 4.0), (5, 71, 90)), ((5.0, 5.0, 5.0), (19, 47, 50))]
)
@pytest.mark.parametrize("exclusive", [False, True])
def test_prediction_does_not_depend_on_the_block(size, shape, exclusive):
    image, config = noise(shape, size), TINY.model_copy(update={"exclusive": exclusive})
    s = segmenter(size, config, SynapsePolarity if exclusive else Mitochondria)
    results = []
    for block_shape in ((100, 100, 100), (4, 16, 16), (3, 11, 40), (1, 50, 7)):
        results.append(predicted(s, image, config.model_copy(update={"block_shape_zyx": block_shape})).astype(int))
    assert results[0].std() > 3
    for other in results[1:]:
        assert abs(results[0] - other).max() <= 1


@pytest.mark.parametrize("size", [SIZE, (30.0, 4.0, 4.0), (30.0, 3.0, 3.0), (5.0, 5.0, 5.0), (3.0, 3.0, 3.0)])
@pytest.mark.parametrize("exclusive", [False, True])
def test_interpolation_in_prediction_equals_that_of_training(size, exclusive):
    s = segmenter(size, TINY.model_copy(update={"exclusive": exclusive}), SynapsePolarity)
    number = s.architecture["num_logits"]
    logit = 3 * torch.randn(1, number, 5, 9, 13, generator=torch.Generator().manual_seed(0))
    expected = 255 * s.head.probability(s.network.unfold(logit))[0].numpy()
    levels = unfolded_levels(TorchWindows(s), logit[0].numpy())
    assert levels.dtype == np.uint8 and levels.shape == expected.shape
    assert abs(levels - expected).max() < 0.5 + 1e-3


def test_a_region_is_predicted_like_the_same_part_of_the_whole_image():
    image, s = noise((9, 40, 57)), segmenter()
    region = Box((2, 10, 20), (5, 21, 30))
    whole, part = predicted(s, image, TINY), predicted(s, image, TINY, region=region)
    inside = (slice(None), *region.slices)
    assert abs(whole[inside].astype(int) - part[inside]).max() <= 1
    part[inside] = 0
    assert part.max() == 0


def test_windows_cover_everything_and_overlap_by_the_context():
    lattice = Lattice.over((9, 40, 57), (2, 4, 4), TINY)
    assert lattice.window_zyx == (4, 16, 24) and lattice.step_zyx == (3, 10, 18)
    for corner in np.ndindex(9, 40, 57):
        hull = lattice.touching(Box(corner, (1, 1, 1)))
        assert hull.contains(Box(corner, (1, 1, 1))) and Box.whole(lattice.shape_zyx).contains(hull)
    assert Lattice.over((3, 10, 10), (2, 4, 4), TINY).window_zyx == (
        4,
        12,
        12,
    )  # a volume smaller than a window is mirrored


@pytest.mark.parametrize("sigma", [0.1, 0.125, 0.3])
def test_weights_of_a_window_are_those_of_monai(sigma):
    monai = compute_importance_map((4, 16, 24), mode="gaussian", sigma_scale=sigma)
    np.testing.assert_allclose(gaussian_weights((4, 16, 24), sigma), monai, rtol=1e-5)


def test_prediction_of_a_single_window_equals_the_network():
    image, s = noise((4, 16, 24)), segmenter()
    with torch.inference_mode():
        grey = torch.from_numpy(s.normalise(image.read(image.box)))[None, None]
        wanted = torch.sigmoid(s.network.eval()(grey))[0]
    np.testing.assert_allclose(predicted(s, image, TINY), 255 * wanted, atol=1)


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("axes", [(), (-1,), (-2, -1), (-3, -2)])
def test_rotating_a_folded_image_equals_folding_the_rotated_image(turns, axes):
    image = torch.randn(1, 1, 4, 12, 12)
    turned = torch.flip(torch.rot90(image, turns, (-2, -1)), axes)
    by = (2, 3, 3)
    assert torch.equal(turn_folded(fold(image, by), by, turns, axes), fold(turned, by))


@pytest.mark.parametrize("number", [4, 8, 16])
def test_logits_are_averaged_over_orientations(number):
    s = segmenter((40.0, 4.0, 4.0))
    s.network.eval()
    image = torch.randn(1, 1, 4, 32, 32)
    assert len(set(orientations(number))) == number and orientations(1) == [(0, ())]
    with torch.inference_mode():
        wanted = torch.zeros(1, 1, 4, 16, 16)
        for turns, axes in orientations(number):
            turned = torch.flip(torch.rot90(image, turns, (-2, -1)), axes)
            logit = s.network.folded_logit(fold(turned, s.network.fold_zyx))
            wanted += torch.rot90(torch.flip(logit, axes), -turns, (-2, -1)) / number
        got = averaged_over_orientations(s.network, number)(fold(image, s.network.fold_zyx))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("exclusive", [False, True])
def test_probabilities_are_averaged_over_orientations_and_windows(exclusive):
    """Against a loop over windows and orientations, with Gaussian weights written out."""
    config = TINY.model_copy(
        update={"average": "probability", "test_time_flips": 4, "blend_sigma": 0.3, "exclusive": exclusive}
    )
    image, s = noise((4, 16, 40)), segmenter(config=config, task=SynapsePolarity)
    for parameter in s.network.parameters():  # larger logits, so that the mean of probabilities is another one
        parameter.data *= 1.2
    s.network.eval()
    grey = torch.from_numpy(s.normalise(image.read(image.box)))[None, None]
    z, y, x = (np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (0.3 * n) ** 2)) for n in (4, 16, 24))
    weight = z[:, None, None] * y[:, None] * x
    total, weights = np.zeros((3, 4, 16, 40)), np.zeros((4, 16, 40))
    with torch.inference_mode():
        for start in (0, 16):
            window, mean = grey[..., start : start + 24], 0
            for flips in ((), (-1,), (-2,), (-2, -1)):
                mean = mean + torch.flip(s.head.probability(s.network(torch.flip(window, flips))), flips)[0].numpy() / 4
            total[..., start : start + 24] += mean * weight
            weights[..., start : start + 24] += weight
    got = predicted(s, image, config)
    assert abs(got - 255 * total / weights).max() <= 1
    of_logits = predicted(s, image, config.model_copy(update={"average": "logit"}))
    assert abs(got.astype(int) - of_logits).max() > 3


def test_averaging_over_flips_makes_the_prediction_independent_of_flips():
    s, config = segmenter(), TINY.model_copy(update={"test_time_flips": 4})
    image = noise((4, 16, 24))
    flipped = MemoryVolume(image.read(image.box)[:, :, ::-1].copy(), SIZE)
    once = abs(predicted(s, image, TINY).astype(int) - predicted(s, flipped, TINY)[..., ::-1]).max()
    averaged_over = abs(predicted(s, image, config).astype(int) - predicted(s, flipped, config)[..., ::-1]).max()
    assert once > 1 >= averaged_over


def test_prediction_can_be_pickled_for_other_processes(tmp_path):
    image = noise((8, 20, 24))
    results = []
    for number, executor in enumerate((InProcess(), PickledInProcess())):
        path = str(tmp_path / f"{number}.zarr")
        output = create_volume(path, shape_zyx=(8, 20, 24), dtype=np.uint8, voxel_size_nm=SIZE, num_channels=1)
        predict(segmenter(), image, output, TINY, Stage(executor))
        results.append(output.read(output.box))
    np.testing.assert_array_equal(*results)


def test_blocks_cover_every_voxel_once():
    image = MemoryVolume(np.zeros((5, 37, 41), np.uint8), SIZE)
    counts = np.zeros(image.shape_zyx, int)
    for block in plan(segmenter(), image.box, TINY):
        counts[block.write_box.slices] += 1
    assert (counts == 1).all()


@pytest.mark.parametrize("shape", [(1, 40, 50), (2, 30, 30)])
@pytest.mark.parametrize("context", [(1, 6, 6), (0, 0, 0), (8, 8, 8)])
def test_single_sections_and_any_overlap_of_windows(shape, context):
    image, config = noise(shape), TINY.model_copy(update={"context_zyx": context})
    whole = predicted(segmenter(), image, config.model_copy(update={"block_shape_zyx": (100, 100, 100)}))
    parts = predicted(segmenter(), image, config)
    assert whole.std() > 3 and abs(whole.astype(int) - parts).max() <= 1
