"""S as an ONNX file: onnxruntime gives what torch gives, for every head, fold and average over orientations."""

import pickle

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.models.segmentation.blending import write_probability
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.onnx_export import MAX_DIFFERENCE, export_onnx
from twostream.models.segmentation.onnx_model import OnnxWindows
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import new_segmenter, stride_of
from twostream.task import Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume

THICK, FINE, CUBES = (30.0, 8.0, 8.0), (40.0, 4.0, 4.0), (5.0, 5.0, 5.0)
TINY = SegmentationConfig(
    filters=(4, 8, 8),
    max_pixel_size_nm=10.0,
    window_shape_zyx=(4, 16, 24),
    block_shape_zyx=(8, 32, 32),
    context_zyx=(1, 6, 6),
)


def written(tmp_path, size, task, **settings):
    """S, its settings, and the same S as an ONNX model."""
    config = TINY.model_copy(update=settings)
    s = new_segmenter(task(size), config, voxel_size_nm=size, num_sections=8, grey=(100.0, 60.0), seed=0)
    path = tmp_path / "model.onnx"
    assert export_onnx(s, config, path) <= MAX_DIFFERENCE
    return s, config, path


def opened(s, config, path):
    return OnnxWindows(
        path,
        fold_zyx=s.network.fold_zyx,
        stride_zyx=stride_of(s),
        head=s.architecture["head"],
        average=config.average,
        num_threads=1,
    )


def noise(shape, size):
    return MemoryVolume(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), size)


@pytest.mark.parametrize(
    ("size", "task", "settings"),
    [
        (THICK, Mitochondria, {}),
        (FINE, SynapsePolarity, {"test_time_flips": 4, "average": "probability"}),
        (FINE, SynapsePolarity, {"exclusive": True}),
        (CUBES, SynapsePolarity, {"exclusive": True, "test_time_flips": 8, "average": "probability"}),
        (CUBES, Mitochondria, {"test_time_flips": 16}),
    ],
)
@pytest.mark.parametrize("shape", [(9, 40, 57), (3, 10, 10)])  # the second is smaller than a window
def test_onnx_and_torch_predict_the_same(tmp_path, size, task, settings, shape):
    s, config, path = written(tmp_path, size, task, **settings)
    image, channels = noise(shape, size), s.head.num_channels
    by_torch, by_onnx = (MemoryVolume(np.zeros((channels, *shape), np.uint8), size) for _ in range(2))
    predict(s, image, by_torch, config)
    write_probability(opened(s, config, path), image, by_onnx, config)
    one, other = by_torch.read(by_torch.box).astype(int), by_onnx.read(by_onnx.box)
    assert one.std() > 1 and abs(one - other).max() <= 1


def test_the_graph_takes_grey_values_and_gives_probability(tmp_path):
    """What another program does with the file: bytes in, probability out, of any extent that fits the stride."""
    onnxruntime = pytest.importorskip("onnxruntime")
    _, _, path = written(tmp_path, FINE, SynapsePolarity)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    grey = np.random.default_rng(1).integers(0, 255, (1, 1, 5, 24, 40)).astype(np.uint8)
    probability = session.run(["probability"], {"image": grey})[0]
    assert probability.shape == (1, 3, 5, 24, 40)
    assert 0 <= probability.min() < probability.max() <= 1


def test_an_onnx_model_can_be_pickled_for_other_processes(tmp_path):
    s, config, path = written(tmp_path, THICK, Mitochondria)
    one = opened(s, config, path)
    other = pickle.loads(pickle.dumps(one))
    grey = noise((4, 16, 24), THICK).read(noise((4, 16, 24), THICK).box)[None]
    np.testing.assert_array_equal(one.folded_output(grey), other.folded_output(grey))


def test_files_that_are_no_such_model_are_refused(tmp_path):
    s, config, path = written(tmp_path, THICK, Mitochondria)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be loaded as an ONNX model"):
        opened(s, config, path)
    with pytest.raises(InputError, match="cannot be loaded as an ONNX model"):
        opened(s, config, tmp_path / "missing.onnx")


def test_an_export_that_differs_from_torch_is_refused(tmp_path, monkeypatch):
    from twostream.base.errors import ProjectError
    from twostream.models.segmentation import onnx_export

    s, config, _ = written(tmp_path, THICK, Mitochondria)
    monkeypatch.setattr(onnx_export.OnnxWindows, "probability", lambda self, blended: np.zeros_like(blended))
    with pytest.raises(ProjectError, match="differs from S by"):
        export_onnx(s, config, tmp_path / "other.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
