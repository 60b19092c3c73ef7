"""The benchmark of image classification: CIFAR-10 as it is stored, classifiers, and curves."""

import json
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from twostream.base.errors import InputError
from twostream.bench.classifiers import PhotoSimclr, Probe, Resnet, shifted, unlabelled_features
from twostream.bench.images import Images, check_strategy, image_curve, read_cifar10
from twostream.cli import app


def small_images(number=60, num_test=20, seed=0):
    """Images of three colours, which are their classes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, number + num_test)
    images = rng.integers(0, 60, (number + num_test, 3, 32, 32), dtype=np.uint8)
    images[np.arange(len(classes)), classes] += 150
    return Images(images[:number], images[number:], classes[:number], classes[number:])


def write_binary(folder, images):
    rows = np.hstack([images.train_class[:, None].astype(np.uint8), images.train.reshape(len(images.train), -1)])
    for number, part in enumerate(np.array_split(rows, 5), 1):
        part.tofile(folder / f"data_batch_{number}.bin")
    test = np.hstack([images.test_class[:, None].astype(np.uint8), images.test.reshape(len(images.test), -1)])
    test.tofile(folder / "test_batch.bin")


def write_jpeg(folder, images):
    """As the .npz has them: what all JPEGs begin with, and the rest of each, test images first."""
    whole = np.concatenate([images.test, images.train])
    coded = [
        cv2.imencode(".jpg", one.transpose(1, 2, 0)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1] for one in whole
    ]
    shared = 20  # bytes that are the same in each
    assert len({bytes(one[:shared]) for one in coded}) == 1
    scans = [one[shared:] for one in coded]
    np.savez(
        folder / "cifar10_jpeg.npz", header=coded[0][:shared], scan=np.concatenate(scans),
        offsets=np.cumsum([0, *map(len, scans)]), labels=np.concatenate([images.test_class, images.train_class]),
        train_idx=np.arange(len(images.test), len(whole)), test_idx=np.arange(len(images.test)),
    )  # fmt: skip


@pytest.mark.parametrize("write, off", [(write_binary, 0), (write_jpeg, 25)])
def test_both_forms_are_read(tmp_path, write, off):
    images = small_images()
    write(tmp_path, images)
    found = read_cifar10(tmp_path)
    for name in ("train", "test"):
        assert np.abs(getattr(found, name).astype(int) - getattr(images, name)).mean() <= off
        assert getattr(found, f"{name}_class").tolist() == getattr(images, f"{name}_class").tolist()
    assert found.train.shape == (60, 3, 32, 32) and found.train.dtype == np.uint8
    assert (found.train.mean((2, 3)).argmax(1) == images.train_class).all()  # red is red


def test_what_is_not_cifar10_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no CIFAR-10: expected data_batch_1\.bin to"):
        read_cifar10(tmp_path)
    write_binary(tmp_path, small_images())
    with (tmp_path / "data_batch_3.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="bytes; expected a multiple of 3073"):
        read_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(InputError, match="has 0 bytes"):
        read_cifar10(tmp_path)


def test_a_probe_learns_and_a_seed_decides_it():
    images = small_images(300, 100)
    features = [x.reshape(len(x), 3, -1).mean(2) for x in (images.train, images.test)]
    rows = np.arange(0, 300, 3)
    probe = Probe(*features, 3, num_steps=200)
    first, again, other = (probe.fit(rows, images.train_class[rows], seed=s) for s in (1, 1, 2))
    assert (first.probability(train=False).argmax(1) == images.test_class).mean() > 0.95
    assert first.probability(train=True).sum(1) == pytest.approx(np.ones(300), abs=1e-5)
    assert first.features().shape == (300, 256)
    assert (first.features() == again.features()).all() and (first.features() != other.features()).any()


def test_a_resnet_learns():
    images = small_images(48, 24)
    found = Resnet(images.train, images.test, 3, num_steps=8).fit(np.arange(48), images.train_class, seed=0)
    assert found.features().shape == (48, 512)
    assert (found.probability(train=False).argmax(1) == images.test_class).mean() > 0.6


def test_shifted_images_are_parts_of_the_padded_ones():
    images = torch.from_numpy(small_images().train)
    torch.manual_seed(0)
    found = shifted(images, 2)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    for one, whole in zip(found.numpy(), padded, strict=True):
        parts = [whole[:, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
        assert any((one == p).all() or (one == p[..., ::-1]).all() for p in parts)


def test_a_view_is_upright_and_stays_in_its_range():
    network, rng = PhotoSimclr((3, 32, 32), 8, (8, 8)), np.random.default_rng(0)
    bright_above = np.linspace(1, -1, 32, dtype=np.float32)[None, :, None].repeat(3, 0).repeat(32, 2)
    for _ in range(30):
        view = network.view(bright_above, rng)
        assert view.shape == (3, 32, 32) and view.dtype == np.float32 and np.abs(view).max() <= 1
        assert view[:, 0].mean() >= view[:, -1].mean()


def test_features_without_labels_are_computed_once(tmp_path):
    images, stored = small_images(40, 10), tmp_path / "features.npz"
    first = unlabelled_features(images.train, images.test, "simclr", stored, num_steps=2)
    assert [x.shape for x in first] == [(40, 128), (10, 128)] and sorted(p.name for p in tmp_path.iterdir()) == [
        stored.name
    ]
    again = unlabelled_features(images.train * 0, images.test, "simclr", stored, num_steps=2)
    assert (again[0] == first[0]).all()


def test_a_curve_shows_no_label_that_was_not_asked_for():
    images = small_images(120, 60)
    features = images.train.reshape(120, 3, -1).mean(2)

    class Watched(Probe):
        seen: ClassVar[list] = []

        def fit(self, rows, classes, *, seed):
            assert (classes == images.train_class[rows]).all()
            self.seen.append(set(rows.tolist()))
            return super().fit(rows, classes, seed=seed)

    probe = Watched(features, images.test.reshape(60, 3, -1).mean(2), 3, num_steps=40)
    points = image_curve(images, features, probe, "two-stream", start=9, batch_size=6, num_rounds=3, seed=4)
    assert [(p["round"], p["num_answers"]) for p in points] == [(0, 9), (1, 15), (2, 21), (3, 27)]
    assert [len(rows) for rows in probe.seen] == [9, 15, 21, 27]
    assert all(a < b for a, b in zip(probe.seen, probe.seen[1:], strict=False))
    other = image_curve(images, features, probe, "random", start=9, batch_size=6, num_rounds=1, seed=4)
    assert other[0] == points[0] and probe.seen[4] == probe.seen[0]  # all strategies begin alike


@pytest.mark.parametrize("name, why", [("look-ahead", "foresees answers"), ("bald", "needs a committee")])
def test_strategies_that_need_a_true_or_a_committee_are_refused(name, why):
    with pytest.raises(InputError, match=f"{name} {why}.*leave it out"):
        check_strategy(name, None)


def bench_images(*words):
    done = CliRunner().invoke(app, ["bench", "images", *map(str, words)])
    return done.stdout, done.stderr, done.exit_code


def test_the_command_compares_and_goes_on(tmp_path):
    write_binary(tmp_path, small_images(200, 50))
    usual = {"--data": tmp_path, "--rows": tmp_path / "rows.jsonl", "--start": 20, "--budget": 10, "--rounds": 2}
    usual |= {"--strategies": "random,entropy", "--steps": 2}

    def called(**changed):
        words = usual | {f"--{name}": value for name, value in changed.items()}
        return bench_images("--quick", *(word for pair in words.items() for word in pair))

    said, error, status = called()
    assert status == 0, error
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and {row["set"] for row in rows} == {"cifar10-quick-probe-simclr-20"}
    assert "the classifier learns; area under the curve of test_accuracy" in said and "6 rows in" in said
    assert called()[0] == said
    for changed, sentence in (
        ({"classifier": "vgg"}, "--classifier is 'vgg'; expected probe or resnet"),
        ({"unsupervised": "moco"}, "--unsupervised is 'moco'"),
        ({"strategies": "look-ahead"}, "look-ahead foresees answers"),
        ({"rounds": 50}, "20 labels and 50 batches of 10 are more than the 200 images"),
        ({"data": tmp_path / "none", "seeds": 2}, "holds no CIFAR-10"),
    ):
        _, error, status = called(**changed)
        assert status == 1 and sentence in error, error
