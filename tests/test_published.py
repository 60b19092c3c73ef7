"""Published configurations as they are: the networks they build, and what each key became."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from torch import nn

from twostream.base.config import apply_overrides, parse_config
from twostream.base.errors import ConfigError
from twostream.candidates.patches import PatchConfig
from twostream.models.streams.config import StreamsConfig
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.models.streams.published import read_published
from twostream.project.settings import PRESETS, preset_settings

AS_PRINTED = """\
TWOSTREAM:
  IMAGE_VAE: True # which stream
  LABEL_TYPE: syn # of masks
  LATENT_DIM: # left empty
  HIDDEN_DIMS: [32, 64, 128, 256, 256, 512]
  WIDTH: 128
  KLD_WEIGHT: 1e-4
"""
BASE = """\
SYSTEM: {NUM_GPUS: 2, NUM_CPUS: 8}
MODEL: {INPUT_SIZE: [1, 128, 128], OUTPUT_SIZE: [1, 128, 128], IN_PLANES: 1, ACT_MODE: silu, NORM_MODE: gn}
TWOSTREAM: {HIDDEN_DIMS: [64, 128, 128, 256, 256, 512], WIDTH: 128}
DATASET: {INPUT_PATH: a/, OUTPUT_PATH: b/, PAD_SIZE: [0, 0, 0], DISTRIBUTED: True, DO_2D: True}
SOLVER:
  {NAME: AdamW, LR_SCHEDULER_NAME: WarmupCosineLR, BASE_LR: 1e-3, ITERATION_STEP: 1, ITERATION_SAVE: 20000,
   ITERATION_TOTAL: 400000, SAMPLES_PER_BATCH: 256, WEIGHT_DECAY: 0.0}
MONITOR: {ITERATION_NUM: [100, 1000]}
"""
IMAGE = """\
DATASET: {MATCH_ACT: tanh, IMAGE_NAME: [a.h5, b.h5], OUTPUT_PATH: c/}
TWOSTREAM: {IMAGE_VAE: True, LATENT_DIM: 1024, KLD_WEIGHT: 1e-4}
"""
MASK = """\
DATASET: {LABEL_NAME: [a.h5, b.h5], OUTPUT_PATH: d/}
TWOSTREAM: {IMAGE_VAE: False, LABEL_TYPE: syn, LATENT_DIM: 16, KLD_WEIGHT: 1e-4}
"""
DEFAULT_DIMS, PUBLISHED_DIMS = (32, 64, 128, 256, 256, 512), (64, 128, 128, 256, 256, 512)
PARAMETERS = {"default": 7_477_729, "image": 10_911_425, "mask": 4_716_257}


@pytest.fixture
def files(tmp_path):
    texts = {"printed": AS_PRINTED, "base": BASE, "image": IMAGE, "mask": MASK}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return {name: tmp_path / f"{name}.yaml" for name in texts}


def settings_of(reading, preset="laptop"):
    """Streams and patches of a project on synapses."""
    values = apply_overrides(preset_settings(preset, "polarity"), reading.overrides)
    streams = parse_config(StreamsConfig, values["streams"], source="test")
    return streams, parse_config(PatchConfig, values["patches"], source="test")


class Plain(nn.Module):
    """The published class as docs/method.md describes it, written down once more."""

    def __init__(self, dims, latent_dim, width):
        super().__init__()
        self.side, self.last = width // 2 ** len(dims), dims[-1]
        pixels = self.last * self.side**2
        before = (1, *dims[:-1])
        self.encoder = nn.ModuleList(self.layer(nn.Conv2d(a, b, 3, 2, 1), b) for a, b in zip(before, dims, strict=True))
        self.mean, self.log_variance = nn.Linear(pixels, latent_dim), nn.Linear(pixels, latent_dim)
        self.back = nn.Linear(latent_dim, pixels)
        up = [*reversed(dims), dims[0]]
        self.decoder = nn.ModuleList(
            self.layer(nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1), b) for a, b in pairwise(up)
        )
        self.out = nn.Conv2d(dims[0], 1, 3, padding=1)

    @staticmethod
    def layer(convolution, channels):
        return nn.ModuleList([convolution, nn.GroupNorm(16, channels)])

    def loss(self, patch, noise, weight):
        x = patch
        for convolution, norm in self.encoder:
            x = norm(convolution(x))
            x = x * torch.sigmoid(x)
        flat = x.flatten(1)
        mean, log_variance = self.mean(flat), self.log_variance(flat)
        x = self.back(mean + noise * torch.exp(log_variance / 2)).reshape(len(patch), self.last, self.side, self.side)
        for convolution, norm in self.decoder:
            x = norm(convolution(x))
            x = x * torch.sigmoid(x)
        error = (torch.tanh(self.out(x)) - patch).pow(2).mean()
        divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return error + weight * divergence, divergence


@pytest.mark.parametrize(
    ("name", "passed", "dims", "latent_dim"),
    [
        ("default", ["printed"], DEFAULT_DIMS, 512),
        ("image", ["base", "image"], PUBLISHED_DIMS, 1024),
        ("mask", ["base", "mask"], PUBLISHED_DIMS, 16),
    ],
)
def test_the_first_loss_is_that_of_the_published_class(files, tmp_path, name, passed, dims, latent_dim):
    """Same weights, same patches, same noise; the published class is derived once more in ``Plain``."""
    streams, patches = settings_of(read_published([files[p] for p in passed], "polarity", {}))
    config = streams.supervised if name == "mask" else streams.unsupervised
    config = config.model_copy(update={"num_steps": 1, "batch_size": 3})
    network = new_stream((patches.num_planes, patches.width_px, patches.width_px), config, seed=0)
    plain = Plain(dims, latent_dim, 128)
    assert sum(p.numel() for p in plain.parameters()) == PARAMETERS[name]
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    with torch.no_grad():
        network.to_mean.weight *= 5  # far enough from the prior that a wrong divergence would be seen
        network.to_log_variance.weight *= 5
        for theirs, ours in zip(plain.parameters(), network.parameters(), strict=True):
            theirs.copy_(ours)

    def draw(t, rng):
        return rng.choice([-1.0, 0.0, 1.0], (1, 128, 128)).astype(np.float32)

    losses = fit_stream(network, draw, config, seed=4, resume_path=tmp_path / "r", name="test")
    batch = torch.from_numpy(np.stack([draw(t, np.random.default_rng([4, t])) for t in range(3)]))
    noise = torch.randn((3, latent_dim), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss, divergence = plain.loss(batch, noise, 1e-4)
    assert losses == [pytest.approx(loss.item(), rel=1e-4)]
    assert 1e-4 * divergence.item() > 1e-3 * loss.item()


def test_the_block_as_printed_is_read_as_it_stands(files):
    reading = read_published([files["printed"]], "polarity", preset_settings("laptop", "polarity"))
    streams, patches = settings_of(reading)
    image = streams.unsupervised
    assert (image.method, image.latent_dim, image.hidden_dims, image.kld_weight) == ("vae", 512, DEFAULT_DIMS, 1e-4)
    assert (patches.width_px, patches.num_planes, patches.object_widths) == (128, 1, None)
    assert (streams.random_crop_share, streams.augment_crops) == (1.0, False)
    assert streams.supervised == StreamsConfig().supervised
    path = files["printed"]
    assert {
        f"{path}: LATENT_DIM is empty: 512, the published default -> streams.unsupervised.latent_dim",
        f"{path}: KLD_WEIGHT is 0.0001 -> streams.unsupervised.kld_weight",
        f"{path}: LABEL_TYPE is not used: it is about masks, and this is the image VAE",
        f"{path}: MODEL.ACT_MODE is not stated: silu, as in the published base file",
        "no file is for the supervised stream: it stays as the preset has it",
    } <= set(reading.lines)


@pytest.mark.parametrize("task", ["mitochondria", "cleft"])
def test_the_image_vae_fits_every_task_whatever_its_label_type(files, task):
    """LABEL_TYPE is about masks. Patches as wide as their object, the default for mitochondria, are switched off."""
    reading = read_published([files["printed"]], task, preset_settings("laptop", task))
    assert "patches.object_widths=null" in reading.overrides


def test_the_three_published_files_give_the_published_networks_in_any_order(files):
    found = []
    for order in permutations(("base", "image", "mask")):
        reading = read_published([files[name] for name in order], "polarity", preset_settings("laptop", "polarity"))
        found.append((settings_of(reading), sorted(reading.lines)))
    assert all(one == found[0] for one in found)
    (streams, patches), lines = found[0]
    assert patches.width_px == 128
    for config, latent_dim, name in ((streams.unsupervised, 1024, "image"), (streams.supervised, 16, "mask")):
        assert (config.method, config.latent_dim, config.hidden_dims) == ("vae", latent_dim, PUBLISHED_DIMS)
        trained = (config.num_steps, config.batch_size, config.learning_rate, config.weight_decay, config.warmup_steps)
        assert trained == (400_000, 256, 1e-3, 0.0, 1000) and config.devices == 2
        network = new_stream((1, 128, 128), config, 0)
        assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    base, image = files["base"], files["image"]
    assert {
        f"{base} (base of {image}): WIDTH is 128 -> patches.width_px",
        f"{base}: SOLVER.BASE_LR is 1e-3 -> streams.unsupervised.learning_rate",
        f"{base}: MODEL.NORM_MODE is gn, as it is here",
        f"{base}: SYSTEM.NUM_CPUS is not used",
        f"{image}: SOLVER.WARMUP_ITERS is not stated: 1000, the published default -> streams.unsupervised.warmup_steps",
    } <= set(lines)
    for key in ("INPUT_PATH", "IMAGE_NAME", "LABEL_NAME", "ITERATION_SAVE", "ITERATION_NUM", "DISTRIBUTED"):
        assert any(f".{key} is not used" in line for line in lines)


def test_the_file_of_a_vae_wins_over_its_base(files, tmp_path):
    (tmp_path / "narrow.yaml").write_text("TWOSTREAM: {IMAGE_VAE: true, HIDDEN_DIMS: [32, 64], LATENT_DIM: 8}")
    reading = read_published([tmp_path / "narrow.yaml", files["base"]], "polarity", {})
    assert settings_of(reading)[0].unsupervised.hidden_dims == (32, 64)


def test_without_their_base_file_no_other_network_is_built(files):
    """Image and mask file alone state no HIDDEN_DIMS: with the preset paper, its own stand; otherwise it is refused."""
    both = [files["image"], files["mask"]]
    with pytest.raises(ConfigError, match=r"image\.yaml states no HIDDEN_DIMS.*Pass the base file.*--preset paper"):
        read_published(both, "polarity", preset_settings("laptop", "polarity"))
    reading = read_published(both, "polarity", preset_settings("paper", "polarity"))
    streams, _ = settings_of(reading, "paper")
    for config, name in ((streams.unsupervised, "image"), (streams.supervised, "mask")):
        network = new_stream((1, 128, 128), config, 0)
        assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
        assert config.num_steps == PRESETS["paper"]["streams"]["supervised"]["num_steps"]
    assert any(
        "HIDDEN_DIMS is not stated: streams.supervised.hidden_dims stays [64, 128, 128, 256, 256, 512]" in line
        for line in reading.lines
    )


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("MODEL: {ACT_MODE: elu}", "MODEL.ACT_MODE is elu, but the streams here can only have silu"),
        ("MODEL: {NORM_MODE: bn}", "NORM_MODE is bn, but the streams here can only have gn"),
        ("MODEL: {IN_PLANES: 3}", "IN_PLANES is 3, but"),
        ("MODEL: {INPUT_SIZE: [1, 64, 64]}", r"INPUT_SIZE is \[1, 64, 64\], but .* \[1, 128, 128\]"),
        ("SOLVER: {NAME: SGD}", "NAME is SGD, but the streams here can only have AdamW"),
        ("SOLVER: {LR_SCHEDULER_NAME: MultiStepLR}", "only have WarmupCosineLR"),
        ("SOLVER: {ITERATION_STEP: 2}", "ITERATION_STEP is 2, but"),
        ("DATASET: {MATCH_ACT: sigmoid}", "only have tanh"),
        ("DATASET: {DO_2D: false}", "DO_2D is false, but the streams here can only have true"),
        ("DATASET: {PAD_SIZE: [0, 8, 8]}", "PAD_SIZE is"),
    ],
)
def test_what_contradicts_the_streams_here_is_refused(tmp_path, other, sentence):
    (tmp_path / "a.yaml").write_text(f"{AS_PRINTED}{other}\n")
    with pytest.raises(ConfigError, match=sentence):
        read_published([tmp_path / "a.yaml"], "polarity", {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("MODEL: {}", "has no TWOSTREAM: block"),
        ("a: [", "is not valid YAML"),
        ("TWOSTREAM: {IMAGE_VAE: true, LATENT: 3}", "nearest valid one is 'LATENT_DIM'"),
        ("TWOSTREAM: {LATENT_DIM: 3}", "states no IMAGE_VAE, so it is a base file and for neither stream"),
        ("TWOSTREAM: {IMAGE_VAE: }", "states no IMAGE_VAE"),
        ("TWOSTREAM: {IMAGE_VAE: false, LABEL_TYPE: seg}", "does not fit --task polarity"),
        ("TWOSTREAM: {IMAGE_VAE: true, HIDDEN_DIMS: []}", "HIDDEN_DIMS is"),
        ("TWOSTREAM: {IMAGE_VAE: true, KLD_WEIGHT: much}", "KLD_WEIGHT is 'much'"),
    ],
)
def test_a_published_block_that_is_not_valid_is_named(tmp_path, text, sentence):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_published([tmp_path / "a.yaml"], "polarity", {})


def test_files_that_do_not_belong_together_are_refused(files, tmp_path):
    for name, image, width in (("a", True, 128), ("b", True, 128), ("c", False, 64)):
        (tmp_path / name).write_text(f"TWOSTREAM: {{IMAGE_VAE: {image}, WIDTH: {width}, HIDDEN_DIMS: [32]}}")
    (tmp_path / "base2").write_text(BASE)
    a, b, c = (tmp_path / name for name in "abc")
    for paths, sentence in (
        ([a, b], "pass one for each stream"),
        ([a, c], "both streams see the same patches"),
        ([c, c], "is passed twice"),
        ([c, b, b], "b is passed twice"),
        ([files["base"], a, tmp_path / "base2"], "only one base file"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read_published(paths, "polarity", {})


def test_empty_values_of_other_blocks_change_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text(AS_PRINTED + "SOLVER: {BASE_LR: , WEIGHT_DECAY: 0.01}\n")
    reading = read_published([tmp_path / "a.yaml"], "polarity", {})
    config = settings_of(reading)[0].unsupervised
    assert config.learning_rate == StreamsConfig().unsupervised.learning_rate and config.weight_decay == 0.01
    assert any("SOLVER.BASE_LR is empty, so it is not used" in line for line in reading.lines)


def test_building_a_network_does_not_reverse_the_list_of_the_next_one(files):
    """In the published code it did (docs/method.md, VAE)."""
    streams, _ = settings_of(read_published([files["base"], files["mask"]], "polarity", {}))
    first, second = (new_stream((1, 128, 128), streams.supervised, 0) for _ in range(2))
    assert [tuple(w.shape) for w in first.parameters()] == [tuple(w.shape) for w in second.parameters()]
