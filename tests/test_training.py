"""Training: resuming gives the same weights; validation stops it early and selects the best weights."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from twostream.base.errors import TrainingError
from twostream.base.geometry import Box
from twostream.models import training
from twostream.models.segmentation.config import OptimizerConfig, SegmentationConfig, WatchConfig
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.train import SegmentationModule, new_segmenter, train
from twostream.models.training import FitModule, fit, use_threads
from twostream.rounds.teaching import LabelledCrops, validation_crops
from twostream.task import IGNORE, Mitochondria
from twostream.volume import MemoryVolume

SIZE = (30.0, 8.0, 8.0)
LABELS, VAL = Box((0, 0, 0), (8, 40, 40)), Box((0, 0, 30), (8, 40, 10))
CONFIG = SegmentationConfig(
    filters=(4, 8, 8),
    max_pixel_size_nm=10.0,
    patch_shape_zyx=(4, 16, 16),
    num_steps=12,
    learning_rate=1e-2,
    watch=WatchConfig(every_steps=4),
)


@pytest.fixture(autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture
def world():
    labels = np.zeros((8, 40, 40), np.uint32)
    labels[:, 10:20, 5:15], labels[:, 20:30, 31:38] = 1, 2
    image = np.random.default_rng(0).normal(60, 10, labels.shape) + 120 * (labels > 0)
    return MemoryVolume(image.astype(np.uint8), SIZE), MemoryVolume(labels, SIZE)


def fitted(world, path, config=CONFIG, num_steps=None, validation=True, **options):
    image, labels = world
    task = Mitochondria(SIZE)
    s = new_segmenter(task, config, voxel_size_nm=SIZE, num_sections=8, grey=(80.0, 40.0), seed=0)
    lessons = Lessons(
        *world,
        None,
        task,
        labels_boxes=[LABELS],
        val_box=VAL,
        test_box=None,
        guarded_box=None,
        crop_shape_zyx=(4, 16, 16),
    )
    crops = validation_crops(image, labels, None, task, VAL, None, (4, 16, 16)) if validation else None
    history = train(
        s,
        LabelledCrops(lessons, config),
        config,
        num_steps=num_steps or config.num_steps,
        learning_rate=config.learning_rate,
        seed=1,
        resume_path=path / f"{len(options)}-{'distill' in options}.resume",
        description="test",
        validation=crops,
        **options,
    )
    return s, history


def weights(s):
    return {name: value.clone() for name, value in s.network.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_validation_box_is_cut_into_crops_whose_targets_are_ignored_outside_it(world):
    image, labels = world
    images, levels = validation_crops(image, labels, None, Mitochondria(SIZE), VAL, None, (4, 16, 16))
    assert images.shape == (6, 4, 16, 16) and levels.shape == (6, 1, 4, 16, 16)
    assert (levels[..., 10:] == IGNORE).all() and (levels[:4, :, :, :, :10] != IGNORE).any()
    assert (levels == 254).sum() == (labels.read(VAL) > 0).sum()
    np.testing.assert_array_equal(images[0][..., :10], image.read(Box((0, 0, 30), (4, 16, 10))))


def test_validation_follows_every_multiple_of_its_interval_and_the_last_step(world, tmp_path):
    _, history = fitted(world, tmp_path, CONFIG.model_copy(update={"num_steps": 10}))
    assert [step for step, _ in history.validation_losses] == [4, 8, 10] and len(history.losses) == 10


def test_s_ends_with_its_best_weights_and_the_last_are_returned_too(world, tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    seen = []

    def validation_loss(module):
        seen.append({name: value.clone() for name, value in module.network.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(SegmentationModule, "validation_loss", validation_loss)
    s, history = fitted(world, tmp_path)
    assert [loss for _, loss in history.validation_losses] == [3.0, 1.0, 2.0]
    assert same(weights(s), seen[1]) and same(history.last, seen[2]) and not same(seen[1], seen[2])


def test_the_learning_rate_falls_after_patience_checks_without_a_lower_loss_and_then_training_ends(
    world, tmp_path, monkeypatch
):
    losses = iter([3.0, 1.0, 2.0, 2.0, 0.5, 0.7])
    monkeypatch.setattr(SegmentationModule, "validation_loss", lambda module: next(losses))
    rates = []
    step = SegmentationModule.training_step

    def training_step(module, batch, index):
        rates.append(module.optimizers().param_groups[0]["lr"] / module.learning_rate)
        return step(module, batch, index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    config = CONFIG.model_copy(update={"watch": WatchConfig(every_steps=4, patience=2), "num_steps": 100})
    _, history = fitted(world, tmp_path, config)
    # Two checks in vain at step 16; 24 is the next check after 16 / 0.7.
    assert [step for step, _ in history.validation_losses] == [4, 8, 12, 16, 20, 24] and len(history.losses) == 24
    assert not history.is_cut_short
    assert rates[9:17] == pytest.approx([1.0] * 8) and rates[17:] == pytest.approx([n / 8 for n in range(7, 0, -1)])


def test_where_the_loss_keeps_falling_the_learning_rate_falls_in_time_for_the_last_step(world, tmp_path, monkeypatch):
    losses = iter(range(100, 0, -1))
    monkeypatch.setattr(SegmentationModule, "validation_loss", lambda module: float(next(losses)))
    config = CONFIG.model_copy(update={"watch": WatchConfig(every_steps=4, patience=2), "num_steps": 40})
    s, history = fitted(world, tmp_path, config)
    assert len(history.losses) == 40 and history.is_cut_short
    module = SegmentationModule(s, config, 1.0, validation=None)
    module.validate_every, module.patience = 4, 2
    assert [module.rate_factor(t, 40) for t in (0, 3, 27, 28, 34, 40)] == pytest.approx([0.25, 1, 1, 1, 0.5, 0])


@pytest.mark.parametrize("every", [30, 7])
def test_any_validation_interval_is_possible(world, tmp_path, every):
    config = CONFIG.model_copy(update={"watch": WatchConfig(every_steps=every), "num_steps": 64})
    _, history = fitted(world, tmp_path, config)
    assert [step for step, _ in history.validation_losses] == [*range(every, 64, every), 64]


def test_a_training_that_stopped_early_is_not_continued(world, tmp_path, monkeypatch):
    """It may be killed after its early stop, but before the caller stored the result and deleted the checkpoint."""
    losses = iter([1.0, 2.0, 3.0, 0.0, 0.0, 9.0, 9.0])
    monkeypatch.setattr(SegmentationModule, "validation_loss", lambda module: next(losses))
    config = CONFIG.model_copy(update={"watch": WatchConfig(every_steps=4, patience=2), "num_steps": 40})
    s, history = fitted(world, tmp_path, config)
    again, same_history = fitted(world, tmp_path, config)  # the resume file is still there
    assert (
        len(history.losses) == 20
        and same_history.validation_losses == history.validation_losses
        and same_history.losses == history.losses
    )
    assert history.is_cut_short == same_history.is_cut_short is False
    assert same(weights(s), weights(again)) and same(history.last, same_history.last)


def test_a_checkpoint_with_another_fingerprint_is_not_resumed(world, tmp_path, capfd):
    fitted(world, tmp_path, validation=None)
    for change in ({"optimizer": OptimizerConfig(name="sgd")}, {"num_steps": 5}, {"learning_rate": 1e-3}):
        _, history = fitted(world, tmp_path, CONFIG.model_copy(update=change), validation=None)
        assert len(history.losses) == change.get("num_steps", 12)
        assert "training starts from the beginning" in capfd.readouterr().err


def test_a_training_that_diverges_raises_and_names_the_learning_rate(world, tmp_path, monkeypatch):
    monkeypatch.setattr(SegmentationModule, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match=r"the loss is nan in step 0.*Lower the learning rate \(it is 0.01\)"):
        fitted(world, tmp_path, validation=None)


class KilledError(Exception):
    pass


def dies_once(monkeypatch, number):
    """Make the ``number``-th call of S's loss raise KilledError; returns a list to which every call adds its step."""
    loss, steps = SegmentationModule.loss, []

    def dying(module, batch, generator):
        steps.append(module.global_step)
        if len(steps) == number:
            raise KilledError
        return loss(module, batch, generator)

    monkeypatch.setattr(SegmentationModule, "loss", dying)
    return steps


@pytest.mark.parametrize("optimizer", [{}, {"name": "sgd"}, {"precision": "bf16-mixed"}])
@pytest.mark.parametrize("killed_in", [2, 5, 9])
def test_a_killed_and_resumed_training_ends_with_the_same_weights(world, tmp_path, monkeypatch, optimizer, killed_in):
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(**optimizer)})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    undisturbed, history = fitted(world, tmp_path / "a", config)
    steps = dies_once(monkeypatch, killed_in)
    with pytest.raises(KilledError):
        fitted(world, tmp_path / "b", config)
    resumed, again = fitted(world, tmp_path / "b", config)
    assert steps[killed_in] == (killed_in - 1) // 4 * 4  # resumed from the last checkpoint
    assert (
        same(weights(undisturbed), weights(resumed))
        and history.losses == again.losses
        and history.validation_losses == again.validation_losses
    )


def test_batch_normalisation_stays_frozen_after_a_resume(world, tmp_path, monkeypatch):
    """Lightning does not call the hook of an epoch's start in the first epoch after a resume."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    undisturbed, history = fitted(world, tmp_path / "a", freeze_norm=True)
    steps = dies_once(monkeypatch, 7)
    with pytest.raises(KilledError):
        fitted(world, tmp_path / "b", freeze_norm=True)
    resumed, again = fitted(world, tmp_path / "b", freeze_norm=True)
    assert steps[7] == 4 and history.losses == again.losses and history.validation_losses == again.validation_losses
    assert same(weights(undisturbed), weights(resumed))


def test_frozen_batch_normalisation_keeps_its_statistics(world, tmp_path):
    s, _ = fitted(world, tmp_path, validation=None)
    before = weights(s)
    frozen, _ = fitted(world, tmp_path, validation=None, freeze_norm=True)
    names = [name for name in before if "running" in name]
    fresh = new_segmenter(Mitochondria(SIZE), CONFIG, voxel_size_nm=SIZE, num_sections=8, grey=(80.0, 40.0), seed=0)
    assert names and all(torch.equal(weights(frozen)[name], weights(fresh)[name]) for name in names)
    assert not any(torch.equal(before[name], weights(fresh)[name]) for name in names)


def test_tensorboard_gets_curves_and_panels(world, tmp_path):
    config = CONFIG.model_copy(update={"watch": WatchConfig(every_steps=4, tensorboard=True)})
    fitted(world, tmp_path, config)
    (run,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(run))
    events.Reload()
    assert len(events.Scalars("loss")) == 12 and len(events.Scalars("validation loss")) == 3
    panel = events.Images("validation/0")
    assert len(panel) == 3 and (panel[0].height, panel[0].width) == (16, 48)  # image, target, probability


class Line(FitModule):
    """Fits y = w x to y = 2 x: the smallest possible training."""

    def loss(self, batch, generator):
        return (self.network(batch) - 2 * batch).square().mean()


@pytest.mark.parametrize(("name", "warmup", "first"), [("adamw", 5, 0.2), ("sgd", 1, 1.0), ("sgd", None, 0.5)])
def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path, name, warmup, first):
    rates = []

    class Watched(Line):
        def on_train_batch_start(self, *_):
            rates.append(self.optimizers().param_groups[0]["lr"])

    module = Watched(torch.nn.Linear(1, 1), 0.1, optimizer=name, warmup_steps=warmup)
    fit(module, lambda t: torch.ones(1), num_steps=20, batch_size=1, resume_path=tmp_path / "x", description="test")
    assert rates[0] == pytest.approx(0.1 * first) and max(rates) == pytest.approx(0.1) and rates[-1] < 0.002
    peak = int(np.argmax(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


class Still(FitModule):
    """Has a gradient of 0, so that only the weight decay changes its network."""

    def loss(self, batch, generator):
        return 0 * sum(p.sum() for p in self.network.parameters())


@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_on_norms_and_biases_is_a_setting(tmp_path, name, decays):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    module = Still(network, 0.1, optimizer=name, weight_decay=0.5, decay_norms=decays)
    fit(module, lambda t: torch.ones(1), num_steps=3, batch_size=1, resume_path=tmp_path / "x", description="test")
    weight, *others = network.parameters()
    assert len(others) == 3 and (weight < 1).all()
    assert all((p < 1).all() if decays else (p == 1).all() for p in others)


@pytest.mark.parametrize(("norm", "step"), [(1.0, 1.0), (0.25, 0.25), (None, 8.0), (20.0, 8.0)])
def test_gradients_are_clipped_to_the_configured_norm(tmp_path, norm, step):
    class Steep(FitModule):
        def loss(self, batch, generator):
            return 8 * self.network.weight.sum()

    network = torch.nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    module = Steep(network, 0.5, optimizer="sgd", weight_decay=0.0, clip_norm=norm, warmup_steps=1)
    fit(module, lambda t: torch.ones(1), num_steps=1, batch_size=1, resume_path=tmp_path / "x", description="test")
    assert before - network.weight.item() == pytest.approx(0.5 * step, rel=1e-5)


def test_the_settings_of_the_optimizer_reach_the_training_of_s():
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(clip_norm=None, decay_norms=False)})
    s = new_segmenter(Mitochondria(SIZE), config, voxel_size_nm=SIZE, num_sections=8, grey=(80.0, 40.0), seed=0)
    module = SegmentationModule(s, config, 0.1)
    assert (module.clip_norm, module.decay_norms) == (None, False)
    default = SegmentationModule(s, CONFIG, 0.1)
    assert (default.clip_norm, default.decay_norms) == (1.0, True)


def test_training_on_several_devices_returns_one_trained_s(world, tmp_path, monkeypatch):
    """Two processes on the CPU stand in for two GPUs: pickled and returned in the same way."""
    monkeypatch.setattr(training, "_accelerator", lambda devices: ("cpu", devices))
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(devices=2), "num_steps": 8, "batch_size": 1})
    before = new_segmenter(Mitochondria(SIZE), config, voxel_size_nm=SIZE, num_sections=8, grey=(80.0, 40.0), seed=0)
    s, history = fitted(world, tmp_path, config)
    assert len(history.losses) == 8 and [step for step, _ in history.validation_losses] == [4, 8]
    assert not same(weights(s), weights(before))
    with torch.inference_mode():
        assert torch.isfinite(s.network(torch.zeros(1, 1, 4, 16, 16))).all()


class OfType(FitModule):
    """Records the type of its network's output."""

    def __init__(self):
        super().__init__(torch.nn.Linear(2, 1), 1e-2)
        self.seen = set()

    def loss(self, batch, generator):
        output = self.network(batch)
        self.seen.add(output.dtype)
        return output.float().square().mean()


@pytest.mark.parametrize(
    ("precision", "seen"), [("32", torch.float32), ("16-mixed", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_a_cpu_trains_in_bfloat16_but_replaces_half_precision_by_float32(tmp_path, precision, seen):
    module = OfType()
    fit(
        module, lambda t: torch.ones(2), num_steps=2, batch_size=2, resume_path=tmp_path / "resume",
        description="test", precision=precision,
    )  # fmt: skip
    assert module.seen == {seen} and all(p.dtype == torch.float32 for p in module.network.parameters())


def test_a_precision_of_32_may_be_written_as_a_number():
    assert OptimizerConfig(precision=32) == OptimizerConfig(precision="32")
    with pytest.raises(ValueError, match="precision"):
        OptimizerConfig(precision=16)


def test_s_is_trained_in_the_configured_precision(world, tmp_path):
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(precision="bf16-mixed")})
    mixed, _ = fitted(world, tmp_path, config)
    plain, _ = fitted(world, tmp_path / "plain", CONFIG)
    assert not same(weights(mixed), weights(plain))
