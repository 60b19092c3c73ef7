"""A GPU gives the same results as a CPU, within its precision. Run ``pytest -m gpu`` on a machine that has one."""

import numpy as np
import pytest
import torch
from test_embedding import SIZE_NM, blob, small_s
from test_predict import SIZE, TINY, noise, predicted, segmenter
from test_streams import SHAPE, SMALL, draw
from test_training import CONFIG, KilledError, dies_once, fitted, weights, world

from twostream.models.segmentation.config import OptimizerConfig
from twostream.models.segmentation.features import pooled_features
from twostream.models.streams.encode import encode
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.models.training import use_threads
from twostream.rounds.loop import run
from twostream.task import Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume

pytestmark = pytest.mark.gpu
__all__ = ["world"]  # a fixture


@pytest.fixture(autouse=True)
def needs_a_gpu():
    use_threads(1)
    if not torch.cuda.is_available():
        pytest.fail("torch finds no GPU on this machine; run pytest -m gpu, and only where there is one.")


def on_a_cpu(monkeypatch, work):
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        return work()


@pytest.mark.parametrize(("size", "shape"), [(SIZE, (9, 40, 57)), ((40.0, 4.0, 4.0), (5, 71, 90))])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("flips", [1, 8])
def test_prediction_agrees_with_a_cpu(monkeypatch, size, shape, exclusive, flips):
    config = TINY.model_copy(update={"exclusive": exclusive, "test_time_flips": flips})
    s, image = segmenter(size, config, SynapsePolarity if exclusive else Mitochondria), noise(shape, size)
    here = predicted(s, image, config).astype(int)
    there = on_a_cpu(monkeypatch, lambda: predicted(s, image, config)).astype(int)
    assert there.std() > 1 and abs(here - there).max() <= 2


def test_features_of_s_agree_with_a_cpu(monkeypatch):
    s, config = small_s()
    image = MemoryVolume(np.random.default_rng(1).integers(0, 255, (8, 90, 101)).astype(np.uint8), SIZE_NM)
    instances = [blob((1, 3, 4), (3, 9, 7)), blob((0, 40, 30), (8, 30, 40)), blob((5, 80, 95), (3, 10, 6))]
    here = pooled_features(s, image, instances, config)
    there = on_a_cpu(monkeypatch, lambda: pooled_features(s, image, instances, config))
    np.testing.assert_allclose(here, there, rtol=0.02, atol=0.005)


@pytest.mark.parametrize("method", ["vae", "simclr"])
def test_latents_agree_with_a_cpu(monkeypatch, method):
    stream = new_stream(SHAPE, SMALL.model_copy(update={"method": method}), seed=0)
    patches = np.random.default_rng(0).uniform(-1, 1, (300, *SHAPE)).astype(np.float32)
    here = encode(stream, patches)
    there = on_a_cpu(monkeypatch, lambda: encode(stream, patches))
    np.testing.assert_allclose(here, there, rtol=0.02, atol=0.01 * there.std())


@pytest.mark.parametrize(("precision", "off_by"), [("32", 0.02), ("16-mixed", 0.05), ("bf16-mixed", 0.1)])
def test_training_s_agrees_with_a_cpu(monkeypatch, world, tmp_path, precision, off_by):
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(precision=precision)})
    _, here = fitted(world, tmp_path, config)
    plain = CONFIG.model_copy(update={"optimizer": OptimizerConfig()})
    _, there = on_a_cpu(monkeypatch, lambda: fitted(world, tmp_path, plain))
    assert np.isfinite(here.losses).all() and here.losses[0] == pytest.approx(there.losses[0], rel=off_by)
    assert np.mean(here.losses[-3:]) == pytest.approx(np.mean(there.losses[-3:]), rel=0.25)


@pytest.mark.parametrize("precision", ["32", "16-mixed"])
def test_a_killed_and_resumed_training_ends_with_nearly_the_same_weights(monkeypatch, world, tmp_path, precision):
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(precision=precision)})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    undisturbed, history = fitted(world, tmp_path / "a", config)
    steps = dies_once(monkeypatch, 7)
    with pytest.raises(KilledError):
        fitted(world, tmp_path / "b", config)
    resumed, again = fitted(world, tmp_path / "b", config)
    assert steps[7] == 4
    np.testing.assert_allclose(again.losses, history.losses, rtol=0.05)
    for name, value in weights(undisturbed).items():
        torch.testing.assert_close(weights(resumed)[name], value, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("method", ["vae", "simclr"])
@pytest.mark.parametrize("precision", ["32", "16-mixed"])
def test_training_a_stream_agrees_with_a_cpu(monkeypatch, tmp_path, method, precision):
    config = SMALL.model_copy(update={"method": method, "precision": precision})

    def work(name):
        stream = new_stream(SHAPE, config, seed=1)
        return fit_stream(stream, draw, config, seed=5, resume_path=tmp_path / name, name="test")

    here, there = work("a"), on_a_cpu(monkeypatch, lambda: work("b"))
    assert here[0] == pytest.approx(there[0], rel=0.05)
    assert np.mean(here[-2:]) == pytest.approx(np.mean(there[-2:]), rel=0.25)


def test_the_whole_loop_runs_on_a_gpu(make_project, toy_file):
    assert run(make_project(), rounds=2, truth_uri=f"{toy_file}:mitochondria").finished
