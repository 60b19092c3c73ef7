"""From candidates to latents: features of S, given latents, other patches, and pictures of what a stream learned."""

import numpy as np
import pytest
import torch

from twostream.base.errors import ConfigError, InputError
from twostream.base.geometry import Box
from twostream.candidates.table import read_table
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.features import pooled_features
from twostream.models.segmentation.train import new_segmenter
from twostream.models.streams.config import StreamConfig, StreamsConfig
from twostream.models.streams.fit import new_stream
from twostream.models.streams.given import read_given
from twostream.models.streams.pictures import pictures
from twostream.report import write_report
from twostream.rounds.loop import run
from twostream.task import get_task
from twostream.volume import MemoryVolume

SIZE_NM = (40.0, 8.0, 8.0)


def small_s():
    config = SegmentationConfig(
        filters=(4, 6, 8), window_shape_zyx=(8, 32, 32), context_zyx=(2, 8, 8), max_pixel_size_nm=16
    )
    task = get_task("mitochondria", SIZE_NM)
    segmenter = new_segmenter(task, config, voxel_size_nm=SIZE_NM, num_sections=8, grey=(120.0, 40.0), seed=0)
    return segmenter, config


def blob(offset, shape):
    return Box(offset, shape), np.ones(shape, np.uint8)


def test_features_of_s_are_the_weighted_mean_and_deviation_of_its_decoder():
    """In an image of one window the features are computed again, voxel by voxel, from the decoder's activations."""
    segmenter, config = small_s()
    image = np.random.default_rng(0).integers(0, 255, (8, 32, 32)).astype(np.uint8)
    box, mask = blob((2, 5, 6), (3, 9, 7))
    mask[0, :4] = 0
    features = pooled_features(segmenter, MemoryVolume(image, SIZE_NM), [(box, mask)], config)
    kept = []
    for level in segmenter.network.unet.upsamples:
        level.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        segmenter.network(torch.from_numpy(segmenter.normalise(image))[None, None])
    inside = np.zeros(image.shape)
    inside[box.slices] = mask
    folded = inside.reshape(8, 16, 2, 16, 2).mean((2, 4))
    # Prediction weights a window by a Gaussian, most in its middle.
    from monai.data.utils import compute_importance_map

    weight = folded * compute_importance_map((8, 16, 16), mode="gaussian", sigma_scale=0.125).numpy()
    means, deviations = [], []
    for level in kept:
        values = level[0].numpy()
        factors = [n // m for n, m in zip((8, 16, 16), values.shape[1:], strict=True)]
        values = values.repeat(factors[0], 1).repeat(factors[1], 2).repeat(factors[2], 3)
        mean = (values * weight).sum((1, 2, 3)) / weight.sum()
        means.append(mean)
        deviations.append(np.sqrt(((values - mean[:, None, None, None]) ** 2 * weight).sum((1, 2, 3)) / weight.sum()))
    assert features.shape == (1, 2 * (6 + 4)) and features.dtype == np.float32
    np.testing.assert_allclose(features[0], np.concatenate(means + deviations), rtol=1e-3, atol=1e-4)


def test_features_of_s_do_not_depend_on_the_other_instances():
    segmenter, config = small_s()
    image = MemoryVolume(np.random.default_rng(1).integers(0, 255, (8, 90, 101)).astype(np.uint8), SIZE_NM)
    instances = [blob((1, 3, 4), (3, 9, 7)), blob((0, 40, 30), (8, 30, 40)), blob((5, 80, 95), (3, 10, 6))]
    together = pooled_features(segmenter, image, instances, config)
    assert np.isfinite(together).all() and len(np.unique(together[:, 0])) == 3
    for row, instance in enumerate(instances):
        np.testing.assert_allclose(pooled_features(segmenter, image, [instance], config)[0], together[row], rtol=1e-3)
    assert pooled_features(segmenter, image, [], config).shape == (0, together.shape[1])


def given_stream(tmp_path, latents, ids):
    np.save(tmp_path / "z.npy", latents)
    np.save(tmp_path / "ids.npy", ids)
    return StreamConfig(method="given", latents=str(tmp_path / "z.npy"), ids=str(tmp_path / "ids.npy"))


def test_given_latents_are_found_by_id(tmp_path):
    latents = np.arange(8, dtype=np.float16).reshape(4, 2)
    config = given_stream(tmp_path, latents, np.array([30, 10, 40, 20]))
    found = read_given(config, np.array([10, 40, 30], np.uint64))
    assert found.dtype == np.float32 and found.tolist() == [[2, 3], [4, 5], [0, 1]]


@pytest.mark.parametrize(
    ("latents", "ids", "sentence"),
    [
        (np.zeros((2, 3)), np.array([1, 2]), "lacks 2 of 3 candidates, the first of them 5. Add a row for each"),
        (np.zeros((2, 3)), np.array([1, 2, 3]), r"holds int64 \(3,\); expected 2 whole numbers"),
        (np.zeros((2, 3)), np.array([1.0, 2.0]), "expected 2 whole numbers"),
        (np.zeros((2, 3)), np.array([1, 1]), "holds 1 twice; expected each id once"),
        (np.zeros((2, 3), int), np.array([1, 2]), r"expected floats \(N, D\)"),
        (np.zeros(2), np.array([1, 2]), r"expected floats \(N, D\)"),
        (np.full((3, 1), np.nan), np.array([1, 5, 9]), "row of candidate 1 is not finite"),
    ],
)
def test_given_latents_that_do_not_fit_are_refused(tmp_path, latents, ids, sentence):
    with pytest.raises(InputError, match=sentence):
        read_given(given_stream(tmp_path, latents, ids), np.array([1, 5, 9], np.uint64))


def test_missing_and_pickled_files_are_refused(tmp_path):
    config = StreamConfig(method="given", latents=str(tmp_path / "none.npy"), ids=str(tmp_path / "ids.npy"))
    with pytest.raises(InputError, match="cannot be read"):
        read_given(config, np.array([1], np.uint64))
    np.save(tmp_path / "none.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="without pickles"):
        read_given(config, np.array([1], np.uint64))
    with open(tmp_path / "none.npy", "wb") as handle:
        np.savez(handle, a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(InputError, match="several arrays"):
        read_given(config, np.array([1], np.uint64))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"supervised": {"method": "simclr"}}, "masks have none"),
        ({"unsupervised": {"method": "s"}}, "features of S are supervised: use vae, simclr, onnx or given here"),
        ({"unsupervised": {"method": "given", "ids": "a.npy"}}, "if method is given"),
        ({"unsupervised": {"latents": "a.npy", "ids": "b.npy"}}, "if method is given"),
    ],
)
def test_contradicting_stream_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        StreamsConfig(**settings)


def test_pictures_show_patches_and_their_reconstructions():
    rng = np.random.default_rng(0)
    patches = rng.uniform(-1, 1, (20, 3, 32, 32)).astype(np.float32)
    patches[7] = patches[3]
    config = StreamConfig(method="vae", latent_dim=4, hidden_dims=(8, 16))
    shown = pictures(new_stream((3, 32, 32), config, 0), patches, seed=1)
    assert {name: sheet.shape for name, sheet in shown.items()} == {
        "neighbours": (4, 8, 32, 32), "reconstructions": (2, 8, 32, 32),
        "samples": (1, 8, 32, 32), "interpolations": (1, 8, 32, 32),
    }  # fmt: skip
    central = np.rint((patches[:, 1] + 1) * 127.5).astype(np.uint8)
    # Every first column is a patch as it came; reconstructions begin with the same patches.
    for picture in [*shown["neighbours"][:, 0], *shown["reconstructions"][0]]:
        assert (central == picture).all((1, 2)).any()
    # The ends of the interpolations are two of the reconstructions, but for a grey level that the last digit decides.
    ends, back = shown["interpolations"][0, [0, -1]].astype(int), shown["reconstructions"][1].astype(int)
    assert abs(ends[0] - back[0]).max() <= 1 and abs(ends[1] - back[1:]).max((1, 2)).min() <= 1
    simclr = new_stream((3, 32, 32), config.model_copy(update={"method": "simclr"}), 0)
    assert list(pictures(simclr, patches[:3], seed=1)) == ["neighbours"]
    assert pictures(simclr, patches[:3], seed=1)["neighbours"].shape == (3, 3, 32, 32)


VARIANTS = {
    "features of S, orthogonal planes": [
        "streams.supervised.method=s",
        "patches.planes=orthogonal",
        "streams.unsupervised.method=vae",
    ],
    "five sections": ["patches.planes=stack", "patches.stack_size=5"],
    "published": ["patches.planes=central", "streams.unsupervised.method=vae", "streams.random_crop_share=1"],
}


@pytest.mark.parametrize("way", VARIANTS)
def test_the_loop_runs_with_other_streams_and_patches(make_project, toy_file, way):
    project = make_project(overrides=VARIANTS[way])
    assert run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria").finished
    planes = project.config.patches.num_planes
    for number in range(2):
        rows = len(np.load(project.path(number, "ids.npy")))
        latents = [np.load(project.path(number, f"latents_{name}.npy")) for name in ("supervised", "unsupervised")]
        assert [z.shape[0] for z in latents] == [rows, rows] and all(np.isfinite(z).all() for z in latents)
    query = project.ledger.queries()[0]
    assert query.patch.image.shape == query.patch.mask.shape == (planes, 16, 16)
    assert query.patch.central[1].any()
    report = write_report([project]).read_text()
    assert "What the streams have learned" in report
    assert report.count("<b>Reconstructions</b>") == 1 + (way == "published")  # of every stream that is a VAE
    if project.config.streams.supervised.method == "s":
        assert latents[0].shape[1] == 2 * (8 + 4)


def test_the_loop_waits_for_given_latents(make_project, toy_file, tmp_path):
    """Rows are brought for round 0; round 1 names what it lacks, loses nothing, and goes on once they are there."""
    given = {"latents": tmp_path / "z.npy", "ids": tmp_path / "ids.npy"}
    overrides = ["streams.unsupervised.method=given", *(f"streams.unsupervised.{k}={v}" for k, v in given.items())]
    project = make_project(overrides=overrides)

    def supply(number, without=0):
        ids = read_table(project.path(number, "candidates.parquet"))["id"].to_numpy()
        known = np.load(given["ids"]) if given["ids"].exists() else np.zeros(0, np.int64)
        every = np.union1d(known, ids[without:])
        np.save(given["ids"], every)
        np.save(given["latents"], np.random.default_rng(0).normal(size=(len(every), 5)).astype(np.float32))

    truth_uri = f"{toy_file}:mitochondria"
    with pytest.raises(InputError, match=r"streams\.unsupervised, round 0: .*z\.npy cannot be read"):
        run(project, rounds=1, truth_uri=truth_uri)
    supply(0, without=3)
    with pytest.raises(
        InputError, match=r"round 0: .* lacks 3 of \d+ candidates, the first of them 1. Add a row for each"
    ):
        run(project, rounds=1, truth_uri=truth_uri)
    supply(0)
    try:
        run(project, rounds=1, truth_uri=truth_uri)
    except InputError as error:  # S has changed and proposes new candidates
        assert "round 1" in str(error) and "candidates" in str(error)
        supply(1)
    assert run(project, rounds=1, truth_uri=truth_uri).finished
    assert np.load(project.path(1, "latents_unsupervised.npy")).shape[1] == 5
    assert not project.path(0, "unsupervised.ckpt").exists()


def test_features_of_s_are_refused_if_a_source_replaces_s(make_project, toy_file):
    with pytest.raises(ConfigError, match="but a segmentation stands in its place"):
        make_project(
            segmentation=f"{toy_file}:mitochondria", labels=None, labels_box=None,
            overrides=["streams.supervised.method=s"],
        )  # fmt: skip
