"""External encoders: small ONNX files made here, their checks, and the loop with them; `vae+s`."""

import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from twostream.base.errors import ConfigError, InputError, ProjectError
from twostream.candidates.cutting import cut_all
from twostream.candidates.patches import PatchConfig
from twostream.candidates.stored import StoredCandidates
from twostream.models.streams.config import StreamConfig, StreamsConfig
from twostream.models.streams.encoders import ENCODERS, OnnxConfig
from twostream.models.streams.external import OnnxEncoder
from twostream.models.streams.side_by_side import SideBySide
from twostream.project.boxes import guard_voxels
from twostream.project.project import Project
from twostream.project.round_files import SIDE_BY_SIDE_NAME
from twostream.report import write_report
from twostream.rounds.embed import cut_pairs, latents_of
from twostream.rounds.loop import run
from twostream.rounds.remake import remake

WEIGHTS = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], np.float32)
"""(2 channels, 3 features) of the toy encoder."""


def save(path, nodes, shape, outputs, weights=()):
    """Write an ONNX model of ``nodes`` from the input "patches" to ``outputs``, {name: shape}."""
    graph = helper.make_graph(
        nodes, "encoder", [helper.make_tensor_value_info("patches", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


def mean_encoder(path, channels=1, side=16, batch="N", sections=None):
    """Features that can be computed by hand: the mean of each channel times ``WEIGHTS``."""
    shape = [batch, channels, *([sections] if sections else []), side, side]
    nodes = [
        helper.make_node("ReduceMean", ["patches"], ["mean"], axes=list(range(2, len(shape))), keepdims=0),
        helper.make_node("MatMul", ["mean", "W"], ["features"]),
    ]
    return save(path, nodes, shape, {"features": [batch, 3]}, [("W", WEIGHTS[:channels])])


def opened(path, **settings):
    values = {"path": path, "shape": (16, 16), "range": (-1, 1)} | settings
    return OnnxEncoder(OnnxConfig(**values), 1)


def some_patches(number=5, planes=1, side=16):
    rng = np.random.default_rng(0)
    shape = (number, planes, side, side)
    return rng.integers(0, 256, shape).astype(np.uint8), rng.integers(-1, 2, shape).astype(np.int8)


@pytest.mark.parametrize("batch", ["N", 2])
def test_features_of_an_encoder_equal_their_plain_form(tmp_path, batch):
    """Of images normalised by mean and deviation, and of masks as they are; also where the file fixes the batch."""
    images, masks = some_patches()
    encoder = opened(
        mean_encoder(tmp_path / "a.onnx", channels=2, batch=batch), channels=["image", "mask"], range=None,
        mean=(0.5, 9.0), std=(0.2, 9.0), batch_size=3,
    )  # fmt: skip
    plain = np.stack([(images[:, 0] / 255 - 0.5) / 0.2, masks[:, 0]], 1).mean((2, 3)) @ WEIGHTS
    features = encoder.encode(images, masks)
    assert features.dtype == np.float32 and np.allclose(features, plain, atol=1e-4)
    assert encoder.encode(images[:0], masks[:0]).shape == (0, 3)
    assert encoder.check() == 3 and encoder.patches.planes == "central"


def test_an_encoder_may_see_several_sections(tmp_path):
    images, masks = some_patches(planes=3)
    encoder = opened(mean_encoder(tmp_path / "a.onnx", sections=3), shape=(3, 16, 16), section_nm=80, range=(0, 1))
    assert encoder.patches == PatchConfig(width_px=16, planes="stack", stack_size=3, stack_step_nm=80)
    plain = (images / 255).mean((1, 2, 3))[:, None] @ WEIGHTS[:1]
    assert np.allclose(encoder.encode(images, masks), plain, atol=1e-4)


def test_a_network_that_torch_exported_is_an_encoder(tmp_path):
    """As docs/encoders.md exports it: features after global average pooling, in evaluation mode."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images, masks = some_patches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its exporter
        free = {"patches": {0: "N"}, "features": {0: "N"}}
        names = {"input_names": ["patches"], "output_names": ["features"], "dynamic_axes": free, "dynamo": False}
        torch.onnx.export(network.eval(), (torch.zeros(2, 1, 16, 16),), tmp_path / "a.onnx", **names)
    encoder = opened(str(tmp_path / "a.onnx"), range=(0, 1))
    assert encoder.check() == 4
    with torch.no_grad():
        expected = network(torch.from_numpy(images.astype(np.float32) / 255)).numpy()
    assert np.allclose(encoder.encode(images, masks), expected, atol=1e-5)


def node(kind, *inputs, **attributes):
    return helper.make_node(kind, list(inputs), ["features"], **attributes)


MEAN = helper.make_node("ReduceMean", ["patches"], ["mean"], axes=[2, 3], keepdims=0)
BROKEN = {
    "feature maps": ([node("Relu", "patches")], ["N", 1, 16, 16], r"\(3, 1, 16, 16\) for 3 patches.*average pooling"),
    "one number for all": ([node("ReduceMean", "patches", keepdims=0)], [], "one row of features per patch"),
    "not finite": ([MEAN, node("Log", "mean")], ["N", 1], "not finite. Does it expect other grey values"),
    "random": (
        [MEAN, helper.make_node("RandomNormalLike", ["mean"], ["noise"]), node("Add", "mean", "noise")], ["N", 1],
        "other features when the same patches are encoded again",
    ),
    "statistics of the batch": (
        [MEAN, helper.make_node("ReduceMean", ["mean"], ["all"], axes=[0]), node("Sub", "mean", "all")], ["N", 1],
        "other features when it is encoded together with other patches",
    ),
    "constant": ([MEAN, node("Pow", "mean", "zero")], ["N", 1], "the same features for unlike patches"),
}  # fmt: skip


@pytest.mark.parametrize("way", BROKEN)
def test_an_encoder_that_cannot_be_relied_on_is_refused(tmp_path, way):
    nodes, shape, sentence = BROKEN[way]
    path = save(tmp_path / "a.onnx", nodes, ["N", 1, 16, 16], {"features": shape}, [("zero", np.zeros(1, np.float32))])
    settings = {"range": (-2, -1)} if way == "not finite" else {}
    with pytest.raises(InputError, match=sentence):
        opened(path, **settings).check()


def test_an_encoder_that_does_not_fit_its_settings_is_refused(tmp_path):
    path = mean_encoder(tmp_path / "a.onnx", channels=2)
    with pytest.raises(InputError, match=r"takes tensor\(float\) \(\?, 2, 16, 16\); expected .* C = 1 and \(16, 16\)"):
        opened(path)
    both = ["image", "mask"]
    for shape in ((32, 32), (3, 16, 16)):
        with pytest.raises(InputError, match="Change these, or export the encoder anew"):
            opened(path, channels=both, shape=shape)
    with pytest.raises(InputError, match=r"has no output logits; set onnx.output to one of: features"):
        opened(path, channels=both, output="logits")
    assert opened(path, channels=both, output="features").check() == 3
    two = save(
        tmp_path / "two.onnx", [helper.make_node("Identity", ["patches"], [name]) for name in "ab"],
        ["N", 1, 16, 16], {name: ["N", 1, 16, 16] for name in "ab"},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has 2 outputs; set onnx.output to one of: a, b"):
        opened(two)


def test_files_that_are_no_encoder_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"cannot be read .*name the ONNX file in onnx.path"):
        opened(str(tmp_path / "none.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"cannot be loaded as an ONNX model"):
        opened(str(tmp_path / "text.onnx"))
    # A model whose weights lie in another file: what was checked would not be what is run.
    model = onnx.load(mean_encoder(tmp_path / "a.onnx"))
    onnx.save_model(model, tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    with pytest.raises(
        InputError, match=r"b\.onnx cannot be loaded as an ONNX model: .*Weights must be in the same file"
    ):
        opened(str(tmp_path / "b.onnx"))
    with pytest.raises(InputError, match="not the encoder that this project was made with"):
        opened(str(tmp_path / "a.onnx"), sha256="0" * 64)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="install the extra `onnx`"):
        opened(str(tmp_path / "a.onnx"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "shape"),
        ({"shape": [16, 32], "range": [0, 1]}, "expected square patches"),
        ({"shape": [2, 16, 16], "range": [0, 1]}, "expected an odd number"),
        ({"shape": [16, 16]}, "either mean and std .* or range"),
        ({"shape": [16, 16], "mean": 0.5}, "either mean and std"),
        ({"shape": [16, 16], "mean": 0.5, "std": 0.1, "range": [0, 1]}, "either mean and std"),
        ({"shape": [16, 16], "mean": [0.5, 0.5], "std": 0.1}, "mean has 2 numbers for 1 channels"),
        ({"shape": [16, 16], "mean": 0.5, "std": 0}, "expected numbers above 0"),
        (
            {"shape": [16, 16], "mean": 127, "std": 50},
            "mean is 127; .* from 0 to 1. Of values from 0 to 255 it is 0.498",
        ),
        ({"shape": [16, 16], "range": [1, 0]}, "expected low, then high"),
        ({"encoder": "imagenet"}, "expected one of cem500k-moco, cem1.5m-swav"),
        ({"encoder": "cem500k-moco"}, "either mean and std"),
    ],
)
def test_settings_of_an_encoder_that_say_too_little_or_too_much_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        OnnxConfig(path="a.onnx", **settings)


def test_the_streams_that_an_encoder_may_be(tmp_path):
    onnx_settings = {"path": "a.onnx", "shape": (16, 16), "range": (0, 1)}
    with pytest.raises(ValueError, match=r"set onnx.path and the encoder's input"):
        StreamConfig(method="onnx")
    with pytest.raises(ValueError, match="if method is onnx, and none of it otherwise"):
        StreamConfig(method="vae", onnx=onnx_settings)
    with pytest.raises(ValueError, match="the unsupervised stream sees raw pixels only"):
        StreamsConfig(unsupervised={"method": "onnx", "onnx": onnx_settings | {"channels": ["image", "mask"]}})
    with pytest.raises(ValueError, match=r"unsupervised.method is vae\+s, but features of S are supervised"):
        StreamsConfig(unsupervised={"method": "vae+s"})


def test_settings_of_a_published_encoder_are_taken_where_none_is_set():
    swav = OnnxConfig(path="a.onnx", encoder="cem1.5m-swav")
    assert (swav.shape, swav.channels, swav.mean, swav.std) == ((224, 224), ("image",), (0.57571,), (0.12765,))
    own = OnnxConfig(path="a.onnx", encoder="cem1.5m-swav", range=(0, 1), shape=(96, 96))
    assert (own.shape, own.mean, own.range) == ((96, 96), None, (0, 1))
    for config in (swav, own):  # what is stored in twostream.yaml is read back as it was
        assert OnnxConfig(**config.model_dump(mode="json")) == config


def test_the_page_about_encoders_says_what_the_settings_hold(request):
    text = (request.config.rootpath / "docs" / "encoders.md").read_text(encoding="utf-8")
    for name, encoder in ENCODERS.items():
        section = text.split(f"\n### `{name}`\n")[1].split("\n### ")[0]
        assert encoder.source in section and not encoder.tested and "not tried" in section
        for value in encoder.settings.values():
            first = value[0] if isinstance(value, list) else value
            assert str(first) in section, (name, value)


# -- in a project -----------------------------------------------------------------------------------------------------


def onnx_options(stream, path, **settings):
    values = {"path": path, "shape": "[16,16]", "pixel_size_nm": 10, "range": "[0,1]"} | settings
    return [f"streams.{stream}.method=onnx", *(f"streams.{stream}.onnx.{k}={v}" for k, v in values.items())]


def test_the_loop_runs_with_encoders_as_both_streams(make_project, toy_file, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    mean_encoder(tmp_path / "image.onnx")
    mean_encoder(tmp_path / "both.onnx", channels=2, side=24)
    overrides = [
        *onnx_options("unsupervised", "image.onnx"),
        *onnx_options("supervised", "both.onnx", shape="[24,24]", channels="[mask,image]"),
    ]
    project = make_project(overrides=overrides)
    assert "unsupervised stream: 3 features of each patch by image.onnx" in capfd.readouterr().err
    stored = yaml.safe_load((project.root / "twostream.yaml").read_text())["streams"]["unsupervised"]["onnx"]
    assert stored["path"] == "../image.onnx" and len(stored["sha256"]) == 64
    monkeypatch.chdir("/")  # the path does not depend on the working directory any more
    assert run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria").finished
    for number in range(2):
        candidates = StoredCandidates.open(project.path(number, "candidates.parquet"))
        wide = PatchConfig(width_px=24, planes="central", pixel_size_nm=10)
        pairs = dict(cut_all(project.image, candidates, wide, 10))
        means = np.array([[pairs[i].mask.mean(), pairs[i].image.mean() / 255] for i in range(len(candidates))])
        latents = np.load(project.path(number, "latents_supervised.npy"))
        assert np.allclose(latents, means @ WEIGHTS, atol=1e-3)
        assert np.load(project.path(number, "latents_unsupervised.npy")).shape == (len(candidates), 3)
    assert not list(project.root.glob("rounds/*/*supervised.ckpt"))
    assert "Candidates in latent space" in write_report([project]).read_text()


def test_an_encoder_is_checked_before_a_project_is_made(make_project, tmp_path):
    nodes = [node("Relu", "patches")]
    path = save(tmp_path / "maps.onnx", nodes, ["N", 1, 16, 16], {"features": ["N", 1, 16, 16]})
    with pytest.raises(InputError, match=r"streams\.unsupervised: .*global average pooling"):
        make_project(overrides=onnx_options("unsupervised", path))
    assert not (tmp_path / "project").exists()
    with pytest.raises(ConfigError, match=r"streams\.unsupervised\.onnx.*either mean and std"):
        make_project(overrides=onnx_options("unsupervised", path, range="null"))


def test_an_encoder_that_was_replaced_is_refused(make_project, toy_file, tmp_path):
    path = mean_encoder(tmp_path / "a.onnx")
    project = make_project(overrides=onnx_options("unsupervised", path))
    mean_encoder(tmp_path / "a.onnx", batch="M")  # the same function, in another file
    with pytest.raises(InputError, match=r"streams\.unsupervised: .*a\.onnx is not the encoder"):
        run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    mean_encoder(tmp_path / "a.onnx")
    assert run(Project(project.root), rounds=0, truth_uri=f"{toy_file}:mitochondria").finished


def test_wide_patches_of_an_encoder_widen_the_guard(make_project, tmp_path):
    path = mean_encoder(tmp_path / "a.onnx", side=48)
    wide = make_project(overrides=onnx_options("unsupervised", path, shape="[48,48]", pixel_size_nm=20))
    guard = guard_voxels(wide.config, wide.image.voxel_size_nm)
    assert guard[1:] == (96, 96)  # pixels of 20 nm in an image of 10 nm
    plain = wide.config.model_copy(update={"streams": StreamsConfig()})
    assert max(guard_voxels(plain, wide.image.voxel_size_nm)[1:]) < 96


# -- side by side -----------------------------------------------------------------------------------------------------


def test_neither_half_of_vae_and_s_outweighs_the_other():
    rng = np.random.default_rng(0)
    own = rng.normal(5, [0.1, 3, 100], (200, 3))
    hidden = rng.normal(size=(200, 2))
    s = np.hstack([hidden @ rng.normal(size=(2, 20)) * 7 + rng.normal(0, 0.01, (200, 20)), np.ones((200, 1))])
    fitted = SideBySide.fitted(own, s)
    both = fitted(own, s)
    assert both.shape == (200, 6) and both.dtype == np.float32
    assert np.allclose(both.mean(0), 0, atol=1e-5) and np.allclose(both.std(0), 1, atol=1e-4)
    # What varies in S is kept: its two hidden factors are a linear function of the components.
    left = hidden - both[:, 3:] @ np.linalg.lstsq(both[:, 3:], hidden, rcond=None)[0]
    assert np.abs(left).max() < 0.1
    again = SideBySide(**fitted.arrays)
    assert np.array_equal(again(own[:3], s[:3]), both[:3])
    assert SideBySide.fitted(own[:0], s[:0])(own[:0], s[:0]).shape == (0, 6)
    same = np.ones((4, 3))
    assert not SideBySide.fitted(same, np.ones((4, 2)))(same, np.ones((4, 2))).any()


def test_the_loop_runs_with_s_and_the_vae_side_by_side(make_project, toy_file):
    project = make_project(overrides=["streams.supervised.method=vae+s"])
    assert run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria").finished
    for number in range(2):
        candidates = StoredCandidates.open(project.path(number, "candidates.parquet"))
        latents = np.load(project.path(number, "latents_supervised.npy"))
        assert latents.shape == (len(candidates), 6) and np.isfinite(latents).all()
        some = candidates[:4]
        # What was asked before is put into the same space as the candidates of the round.
        again = latents_of(project, number, some, cut_pairs(project, some))["supervised"]
        assert np.allclose(again, latents[:4], atol=1e-4)
    assert project.path(0, "supervised.ckpt").exists() and not project.path(1, "supervised.ckpt").exists()


def test_the_map_side_by_side_is_made_again_where_it_is_gone(make_project, toy_file):
    project = make_project(overrides=["streams.supervised.method=vae+s"])
    run(project, rounds=1)  # stops where a person must answer
    path = project.path(0, SIDE_BY_SIDE_NAME)
    before = np.load(path)["components"]
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        candidates = StoredCandidates.open(project.path(0, "candidates.parquet"))[:2]
        latents_of(project, 0, candidates, cut_pairs(project, candidates))
    project.path(0, "pool.npz").unlink()
    remake(Project(project.root))
    assert np.allclose(np.load(path)["components"], before, atol=1e-3)


def test_features_of_s_side_by_side_are_refused_if_a_source_replaces_s(make_project, toy_file):
    with pytest.raises((ConfigError, ProjectError), match=r"vae\+s \(features of S\), but a segmentation stands"):
        make_project(
            segmentation=f"{toy_file}:mitochondria", labels=None, labels_box=None,
            overrides=["streams.supervised.method=vae+s"],
        )  # fmt: skip
