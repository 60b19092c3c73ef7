"""Streams: the published VAE, SimCLR, their losses against plain loops, and active clustering."""

import pickle

import numpy as np
import pytest
import torch

from twostream.base.errors import ConfigError, InputError
from twostream.candidates.crops import RandomCrops
from twostream.candidates.patches import PatchConfig
from twostream.models.streams.active_clustering import (
    _ActiveClusteringModule,
    _WithCenters,
    clustering_loss,
    fine_tune,
    soft_assignment,
    target_distribution,
)
from twostream.models.streams.config import ActiveClusteringConfig, StreamConfig, StreamsConfig
from twostream.models.streams.contrast import contrastive_loss
from twostream.models.streams.draw import ImageDraw, MaskDraw, image_input, mask_input
from twostream.models.streams.encode import encode
from twostream.models.streams.fit import NUM_DIGEST_SAMPLES, RawViews, fit_stream, load_stream, new_stream, save_stream
from twostream.models.streams.vae import sample_latent, vae_loss
from twostream.volume import MemoryVolume

PUBLISHED = (64, 128, 128, 256, 256, 512)
SHAPE = (1, 32, 32)
SMALL = StreamConfig(method="vae", latent_dim=4, hidden_dims=(8, 16), num_steps=6, batch_size=4)


def test_shapes_and_range():
    vae = new_stream(SHAPE, SMALL, seed=0)
    mean, log_variance = vae.encode(torch.zeros(3, 1, 32, 32))
    assert mean.shape == log_variance.shape == (3, 4)
    back = vae.decode(mean)
    assert back.shape == (3, 1, 32, 32) and back.abs().max() <= 1


def test_the_loss_equals_its_plain_form():
    rng = torch.Generator().manual_seed(0)
    patch, back = torch.rand(5, 1, 4, 4, generator=rng), torch.rand(5, 1, 4, 4, generator=rng)
    mean, log_variance = torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng)
    error = sum((patch[i].flatten()[j] - back[i].flatten()[j]) ** 2 for i in range(5) for j in range(16)) / 80
    divergence = 0.0
    for i in range(5):
        for d in range(3):
            m, v = mean[i, d], log_variance[i, d]
            divergence += 0.5 * (m**2 + v.exp() - 1 - v) / 5
    assert vae_loss(patch, back, mean, log_variance, 0.3).item() == pytest.approx(
        float(error + 0.3 * divergence), rel=1e-5
    )


def test_an_extreme_log_variance_does_not_overflow():
    vae = new_stream(SHAPE, SMALL, seed=0)
    with torch.no_grad():
        vae.to_log_variance.bias.fill_(1e6)
    mean, log_variance = vae.encode(torch.zeros(1, 1, 32, 32))
    assert torch.isfinite(sample_latent(mean, log_variance, torch.Generator())).all()


def test_the_contrastive_term_equals_its_plain_form():
    rng = np.random.default_rng(0)
    latent, y, t = rng.normal(size=(7, 3)), np.array([0, 1, 0, 1, 1, 0, 2]), 0.3
    z = latent / np.linalg.norm(latent, axis=1, keepdims=True)
    terms = []
    for i in range(7):
        positives = [p for p in range(7) if p != i and y[p] == y[i]]
        if positives:
            below = sum(np.exp(z[i] @ z[a] / t) for a in range(7) if a != i)
            terms.append(-np.mean([np.log(np.exp(z[i] @ z[p] / t) / below) for p in positives]))
    ours = contrastive_loss(torch.tensor(latent), torch.tensor(y), t)
    assert ours.item() == pytest.approx(np.mean(terms))


def test_the_contrastive_loss_is_zero_if_all_labels_differ():
    latent = torch.randn(2, 3, requires_grad=True)
    loss = contrastive_loss(latent, torch.tensor([0, 1]), 0.3)
    loss.backward()
    assert loss.item() == 0


def draw(t, rng):
    return rng.uniform(-1, 1, SHAPE).astype(np.float32)


def test_a_killed_and_resumed_stream_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("twostream.models.training.STEPS_PER_CHECKPOINT", 2)
    whole = new_stream(SHAPE, SMALL, seed=1)
    losses = fit_stream(whole, draw, SMALL, seed=5, resume_path=tmp_path / "a.resume", name="test")
    assert len(losses) == 6

    class Killed(BaseException):
        pass

    def deadly(t, rng, count=[0]):  # noqa: B006 - counts over calls
        count[0] += 1
        if count[0] > NUM_DIGEST_SAMPLES + 4 * 3 + 2:  # in the middle of the fourth step
            raise Killed
        return draw(t, rng)

    halved = new_stream(SHAPE, SMALL, seed=1)
    with pytest.raises(Killed):
        fit_stream(halved, deadly, SMALL, seed=5, resume_path=tmp_path / "b.resume", name="test")
    assert (tmp_path / "b.resume").exists()
    again = new_stream(SHAPE, SMALL, seed=1)
    assert fit_stream(again, draw, SMALL, seed=5, resume_path=tmp_path / "b.resume", name="test") == losses
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_fitting_learns(tmp_path):
    def two_kinds(t, rng):
        patch = np.full(SHAPE, -0.8, np.float32)
        patch[:, :, :16] = rng.choice([-0.8, 0.8])
        return patch

    config = SMALL.model_copy(update={"num_steps": 40, "batch_size": 8, "learning_rate": 5e-3})
    losses = fit_stream(
        new_stream(SHAPE, config, 0), two_kinds, config, seed=0, resume_path=tmp_path / "r", name="test"
    )
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:3])


def test_a_stored_stream_gives_the_same_latents(tmp_path):
    vae = new_stream(SHAPE, SMALL, seed=2)
    save_stream(vae, SMALL, [], tmp_path / "s.ckpt")
    patches = np.random.default_rng(0).uniform(-1, 1, (5, *SHAPE)).astype(np.float32)
    latents = encode(load_stream(tmp_path / "s.ckpt"), patches)
    assert latents.shape == (5, 4) and latents.dtype == np.float32
    np.testing.assert_array_equal(latents, encode(vae, patches))
    assert encode(vae, patches[:0]).shape == (0, 4)


def test_inputs_span_minus_one_to_one():
    assert image_input(np.array([0, 255], np.uint8)).tolist() == [-1.0, 1.0]
    assert mask_input(np.array([-1, 0, 1], np.int8)).tolist() == [-1.0, 0.0, 1.0]


def two_textures():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 12)
    patches = rng.normal(128, 38, (24, *SHAPE))
    patches[y == 1, :, ::2] += 50
    return patches.clip(0, 255).astype(np.uint8), y


def test_active_clustering_draws_the_answers_apart(tmp_path):
    answered, y = two_textures()

    def apart(**weights):
        network, stream = new_stream(SHAPE, SMALL, 0), SMALL.model_copy(update={"batch_size": 24})
        config = ActiveClusteringConfig(num_steps=60, learning_rate=3e-3, num_clusters=4, **weights)
        resume_path = tmp_path / "r"
        losses = fine_tune(
            network, draw, answered, y, answered, config, stream, planes="central", seed=0, resume_path=resume_path
        )
        resume_path.unlink()
        assert len(losses) == 60
        z = encode(network, image_input(answered))
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        return (z @ z.T)[np.ix_(y == 0, y == 0)].mean() - (z @ z.T)[np.ix_(y == 0, y == 1)].mean()

    own_loss_alone = apart(weight=0.0, clustering_weight=0.0)
    assert apart(weight=1.0, clustering_weight=0.0) > own_loss_alone + 1.0  # measured: docs/reproducibility.md


def test_a_step_of_active_clustering_costs_its_own_loss_and_both_terms():
    """L_own + a L_con + b L_dec, each on the patches that it is about, and the last teaches the centres as well."""
    answered, y = two_textures()
    network = new_stream(SHAPE, SMALL, 0)
    known, others = [*range(4), *range(12, 16)], [*range(4, 8), *range(16, 20)]
    shown, labels = torch.from_numpy(image_input(answered)), torch.from_numpy(y[known])
    batch = shown[20:], shown[known], labels, shown[others]
    centers = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

    def cost(**weights):
        module = _ActiveClusteringModule(
            _WithCenters(network, centers.copy(), 0.7), ActiveClusteringConfig(temperature=0.3, **weights), SMALL
        )
        loss = module.loss(batch, torch.Generator().manual_seed(5))
        loss.backward()
        return loss.item(), module.network.centers.grad

    own, _ = cost(weight=0.0, clustering_weight=0.0)
    assert own == pytest.approx(network.own_loss(batch[0], torch.Generator().manual_seed(5)).item())
    features = network.features(shown[known + others])
    contrast = contrastive_loss(features[:8], labels, 0.3).item()
    assert cost(weight=2.0, clustering_weight=0.0)[0] == pytest.approx(own + 2 * contrast, rel=1e-5)
    q = soft_assignment(features, torch.from_numpy(centers), torch.tensor(0.7))
    sharpened = clustering_loss(q, torch.cat([labels, torch.full((8,), -1)])).item()
    total, gradient = cost(weight=0.0, clustering_weight=3.0)
    assert total == pytest.approx(own + 3 * sharpened, rel=1e-5) and (gradient != 0).all()
    assert min(own, contrast, sharpened) > 1e-3  # each term is seen in the sum


def test_active_clustering_needs_two_answers_of_each_kind(tmp_path):
    network = new_stream(SHAPE, SMALL, 0)
    patches = np.zeros((5, *SHAPE), np.uint8)
    y = np.array([1, 1, 1, 1, 0])
    config = ActiveClusteringConfig()
    assert (
        fine_tune(
            network, draw, patches, y, patches, config, SMALL, planes="central", seed=0, resume_path=tmp_path / "r"
        )
        == []
    )


def test_the_clustering_term_equals_its_plain_form():
    """Soft assignment (Xie 2016, eq. 1), target distribution (eq. 3, weighted by answers) and their divergence."""
    rng = np.random.default_rng(0)
    z, m, s = rng.normal(size=(6, 3)), rng.normal(size=(4, 3)), 0.7
    y = np.array([1, 0, -1, 1, -1, 0])
    q = np.zeros((6, 4))
    for i in range(6):
        for j in range(4):
            q[i, j] = 1 / (1 + sum((z[i] - m[j]) ** 2) / s**2)
        q[i] /= sum(q[i])
    total = 0.0
    for i in range(6):
        p = np.zeros(4)
        for j in range(4):
            share = (1 + sum(q[k, j] for k in range(6) if y[k] == 1)) / (
                2 + sum(q[k, j] for k in range(6) if y[k] >= 0)
            )
            weight = {1: share, 0: 1 - share, -1: 1}[y[i]]
            p[j] = weight * q[i, j] ** 2 / sum(q[:, j])
        p /= sum(p)
        total += sum(p[j] * np.log(p[j] / q[i, j]) for j in range(4)) / 6
    ours_q = soft_assignment(torch.tensor(z), torch.tensor(m), torch.tensor(s))
    np.testing.assert_allclose(ours_q.numpy(), q)
    assert clustering_loss(ours_q, torch.tensor(y)).item() == pytest.approx(total)


def test_no_gradient_flows_through_the_target_distribution():
    q = torch.rand(5, 3).requires_grad_()
    assert not target_distribution(q / q.sum(1, keepdim=True), torch.tensor([1, 0, -1, -1, 1])).requires_grad


@pytest.mark.parametrize(
    ("width", "dims", "sentence"), [(30, (8, 16), "need a multiple of 4"), (32, (24,), "multiples of 16")]
)
def test_patch_widths_and_channels_that_do_not_fit_are_named(width, dims, sentence):
    with pytest.raises(InputError, match=sentence):
        new_stream((1, width, width), StreamConfig(hidden_dims=dims), 0)


def test_a_broken_checkpoint_is_named(tmp_path):
    (tmp_path / "s.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match="is not a checkpoint of a stream"):
        load_stream(tmp_path / "s.ckpt")


def test_the_loss_of_simclr_equals_its_plain_form():
    """NT-Xent over 2N views; the only positive of a view is the other view of its patch (Chen 2020, eq. 1)."""
    config = SMALL.model_copy(update={"method": "simclr", "temperature": 0.5})
    network = new_stream(SHAPE, config, seed=0)
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(np.stack([network.views(draw(0, rng), rng) for _ in range(3)]))
    assert batch.shape == (3, 2, 1, 32, 32) and batch.abs().max() <= 1
    with torch.no_grad():
        z = network.project(network.features(batch.reshape(6, 1, 32, 32))).double().numpy()
        ours = network.own_loss(batch, torch.Generator()).item()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cost = []
    for i in range(6):
        other = i + 1 if i % 2 == 0 else i - 1
        below = sum(np.exp(z[i] @ z[k] / 0.5) for k in range(6) if k != i)
        cost.append(-np.log(np.exp(z[i] @ z[other] / 0.5) / below))
    assert ours == pytest.approx(np.mean(cost), rel=1e-4)


def test_training_simclr_lowers_the_loss_and_the_stream_is_stored(tmp_path):
    def blobs(t, rng):
        return np.kron(rng.choice([-0.7, 0.7], (4, 4)), np.ones((8, 8))).astype(np.float32)[None]

    config = SMALL.model_copy(update={"method": "simclr", "num_steps": 80, "batch_size": 16, "learning_rate": 3e-3})
    network = new_stream(SHAPE, config, 0)
    losses = fit_stream(network, blobs, config, seed=0, resume_path=tmp_path / "r", name="test")
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.2
    save_stream(network, config, losses, tmp_path / "s.ckpt")
    patches = np.stack([blobs(t, np.random.default_rng(t)) for t in range(4)])
    np.testing.assert_array_equal(encode(load_stream(tmp_path / "s.ckpt"), patches), encode(network, patches))


def test_views_of_one_patch_differ_and_depend_on_the_generator_alone():
    patch = np.zeros((2, 32, 32), np.float32)
    patch[:, :, :16] = 0.5
    network = new_stream(SHAPE, SMALL.model_copy(update={"method": "simclr"}), 0)
    views = network.views(patch, np.random.default_rng(3))
    assert views.dtype == np.float32 and not np.allclose(views[0], views[1])
    again = network.views(patch, np.random.default_rng(3))
    assert np.array_equal(views, again)  # the same generator gives the same views
    assert np.array_equal(new_stream(SHAPE, SMALL, 0).views(patch, np.random.default_rng(3)), patch)


def test_simclr_is_refused_for_masks():
    with pytest.raises(ValueError, match="masks have none"):
        StreamsConfig(supervised={"method": "simclr"})


def test_setting_one_option_of_the_mask_stream_keeps_its_other_defaults():
    changed = StreamsConfig.model_validate({"supervised": {"num_steps": 7}}).supervised
    assert changed == StreamsConfig().supervised.model_copy(update={"num_steps": 7})


def test_one_step_of_the_published_network_equals_its_plain_form(tmp_path):
    """Loss and update of the published mask VAE: mean squared error, KL summed over the latent, AdamW.

    In the first step of AdamW (Loshchilov 2019), the bias-corrected moments are g and g^2, so a weight moves by
    lr * g / (|g| + eps).
    """
    config = StreamConfig(
        method="vae",
        latent_dim=16,
        hidden_dims=PUBLISHED,
        num_steps=1,
        batch_size=2,
        learning_rate=1e-3,
        warmup_steps=0,
    )
    network = new_stream((1, 128, 128), config, seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def masks(t, rng):
        return rng.choice([-1.0, 0.0, 1.0], (1, 128, 128)).astype(np.float32)

    losses = fit_stream(network, masks, config, seed=4, resume_path=tmp_path / "r", name="test")
    plain = new_stream((1, 128, 128), config, seed=0)
    batch = torch.from_numpy(np.stack([masks(t, np.random.default_rng([4, t])) for t in range(2)]))
    flat = plain.encoder(batch).flatten(1)
    mean, log_variance = plain.to_mean(flat), plain.to_log_variance(flat)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    back = plain.decoder(plain.from_latent(mean + noise * torch.exp(log_variance / 2)).reshape(2, 512, 2, 2))
    error = ((back - batch) ** 2).sum() / batch.numel()
    divergence = (0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance)).sum() / len(batch)
    loss = error + 1e-4 * divergence
    assert losses == [pytest.approx(loss.item(), rel=1e-5)]
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in plain.parameters()))
    for name, parameter in plain.named_parameters():
        gradient = parameter.grad * min(1.0, 1.0 / (norm.item() + 1e-6))  # clipped to norm 1
        moved = before[name] - 1e-3 * gradient / (gradient.abs() + 1e-8)
        large = gradient.abs() > 1e-6  # for smaller ones, rounding decides the sign
        torch.testing.assert_close(network.state_dict()[name][large], moved[large], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("change", ["kld_weight", "seed", "patches"])
def test_a_stream_checkpoint_with_another_fingerprint_is_not_resumed(tmp_path, change, capfd):
    monkey = pytest.MonkeyPatch()
    monkey.setattr("twostream.models.training.STEPS_PER_CHECKPOINT", 2)

    def other_patches(t, rng):
        return draw(t, rng)[:, ::-1].copy()

    fit_stream(new_stream(SHAPE, SMALL, 1), draw, SMALL, seed=5, resume_path=tmp_path / "r", name="test")
    monkey.undo()
    config = SMALL.model_copy(update={"kld_weight": 5.0}) if change == "kld_weight" else SMALL
    shown, seed = (other_patches if change == "patches" else draw), (6 if change == "seed" else 5)
    again = fit_stream(new_stream(SHAPE, config, 1), shown, config, seed=seed, resume_path=tmp_path / "r", name="test")
    clean = fit_stream(
        new_stream(SHAPE, config, 1), shown, config, seed=seed, resume_path=tmp_path / "new", name="test"
    )
    assert again == clean and "training starts from the beginning" in capfd.readouterr().err


def test_active_clustering_is_not_resumed_with_other_answers(tmp_path):
    answered, y = two_textures()
    config = ActiveClusteringConfig(num_steps=4, num_clusters=3)

    def tuned(y, name):
        network = new_stream(SHAPE, SMALL, 0)
        settings = {"planes": "central", "seed": 0, "resume_path": tmp_path / name}
        losses = fine_tune(network, draw, answered, y, answered, config, SMALL, **settings)
        return losses, [p.detach().clone() for p in network.parameters()]

    tuned(y, "shared")
    (losses, weights), (clean_losses, clean_weights) = tuned(1 - y, "shared"), tuned(1 - y, "own")
    assert losses == clean_losses
    assert all(torch.equal(a, b) for a, b in zip(weights, clean_weights, strict=True))


def test_training_samples_can_be_pickled():
    """Each GPU has a process of its own, to which samples, draws and networks are sent."""
    images = np.random.default_rng(0).integers(0, 255, (3, *SHAPE)).astype(np.uint8)
    crops = RandomCrops(
        MemoryVolume(images[:, 0], (30, 8, 8)), PatchConfig(width_px=32, planes="central"), 8, 0, turned=True
    )
    for stream in (SMALL, SMALL.model_copy(update={"method": "simclr"})):
        views = RawViews(new_stream(SHAPE, stream, 0), ImageDraw(crops, images, 0.5, "central"), 3)
        views(0)  # crops in memory and the thread that reads ahead stay behind
        again = pickle.loads(pickle.dumps(views))
        assert torch.equal(again(4), views(4)) and again.digest == views.digest
    masks = pickle.loads(pickle.dumps(MaskDraw(images.astype(np.int8), "central")))
    assert masks(0, np.random.default_rng(0)).shape == SHAPE


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden_dims": (8, 8, 8, 8, 8)}, "channels of one pixel"),
        ({"hidden_dims": (16, 24)}, "expected multiples of 16"),
        ({"hidden_dims": (16, 16384)}, "up to 8192"),
    ],
)
def test_impossible_networks_are_refused_when_a_project_is_made(make_project, settings, sentence):
    dims = list(settings["hidden_dims"])
    with pytest.raises(ConfigError, match=sentence):
        make_project(overrides=["patches.width_px=32", f"streams.unsupervised.hidden_dims={dims}"])


def test_simclr_needs_a_batch_of_two():
    with pytest.raises(ValueError, match="others of the batch: use 2 or more"):
        StreamConfig(method="simclr", batch_size=1)
