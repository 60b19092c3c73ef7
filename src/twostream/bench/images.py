"""Image classification: does the same choice of queries save labels where an answer is a class (Lin 2020, CIFAR-10)?

A classifier begins with some labelled images, and in each round a strategy asks for the labels of more. The supervised
stream are the classifier's own features, the unsupervised one those of a network that has seen all images and no label.
Strategies that look at a probability of a True get (1 + p1 - p2) / 2, with p1 and p2 the classifier's two largest
probabilities, so that ``entropy`` is sampling by margin.

Knows images, classifiers, strategies and rows; must not know the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from twostream.base.errors import InputError
from twostream.bench.classifiers import Classifier, Probe, Resnet, unlabelled_features
from twostream.bench.runs import Row, RowsFile
from twostream.query import get_strategy

JPEG_FILE = "cifar10_jpeg.npz"
"""Every image one JPEG: the bytes ``header`` and those of ``scan`` between two ``offsets``."""
BINARY_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
"""Of the official binary version of CIFAR-10: one byte of label and 3 x 32 x 32 bytes of colour for each image."""
QUICK_IMAGES = (4000, 1000)
"""Training and test images of the quick form."""
SIDE_PX = 32
NUM_CLASSES = 10
YES_OR_NO = ("look-ahead", "clasp-pe")
"""Strategies that rely on what a True or a False would change."""


@dataclass(frozen=True)
class Images:
    """A set of labelled images, apart for training and test.

    Attributes:
        train, test: (N, 3, 32, 32) uint8, red, green and blue.
        train_class, test_class: (N,) int, 0 to 9.
    """

    train: np.ndarray
    test: np.ndarray
    train_class: np.ndarray
    test_class: np.ndarray

    def subset(self, num_train: int, num_test: int) -> Images:
        """The first images of each part."""
        return Images(
            self.train[:num_train], self.test[:num_test], self.train_class[:num_train], self.test_class[:num_test]
        )


def read_cifar10(folder: Path) -> Images:
    """CIFAR-10 from a folder with the official binary files, or with ``cifar10_jpeg.npz``.

    Raises:
        InputError: the folder has neither, or a file is not as long as it has to be.
    """
    train, test = BINARY_FILES
    if all((folder / name).exists() for name in (*train, test)):
        parts = [_binary(folder / name) for name in (*train, test)]
        images, labels = (np.concatenate([part[i] for part in parts[:-1]]) for i in (0, 1))
        return Images(images, parts[-1][0], labels, parts[-1][1])
    if (folder / JPEG_FILE).exists():
        return _jpeg(folder / JPEG_FILE)
    raise InputError(
        f"{folder} holds no CIFAR-10: expected {train[0]} to {train[-1]} and {test} (the official binary version), or "
        f"{JPEG_FILE}."
    )


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    size = 1 + 3 * SIDE_PX**2
    if len(content) == 0 or len(content) % size:
        raise InputError(f"{path} has {len(content)} bytes; expected a multiple of {size}, as CIFAR-10 has it.")
    rows = content.reshape(-1, size)
    return rows[:, 1:].reshape(-1, 3, SIDE_PX, SIDE_PX), rows[:, 0].astype(int)


def _jpeg(path: Path) -> Images:
    with np.load(path) as stored:
        header, scan, offsets, labels = (stored[name] for name in ("header", "scan", "offsets", "labels"))
        train, test = stored["train_idx"], stored["test_idx"]
    decoded = np.empty((len(labels), 3, SIDE_PX, SIDE_PX), np.uint8)
    for i in range(len(labels)):
        whole = np.concatenate([header, scan[offsets[i] : offsets[i + 1]]])
        image = cv2.imdecode(whole, cv2.IMREAD_COLOR)
        if image is None or image.shape != (SIDE_PX, SIDE_PX, 3):
            raise InputError(f"image {i} of {path} is no JPEG of {SIDE_PX} x {SIDE_PX} pixels.")
        decoded[i] = image[..., ::-1].transpose(2, 0, 1)
    return Images(decoded[train], decoded[test], labels[train].astype(int), labels[test].astype(int))


def image_curve(
    images: Images,
    unsupervised: np.ndarray,
    classifier: Classifier,
    strategy: str,
    settings: Mapping[str, Any] | None = None,
    *,
    start: int,
    batch_size: int,
    num_rounds: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Let a strategy ask for labels, and score the classifier on the test images before the first batch and after each.

    Args:
        images: all of them; labels of ``train`` are shown when they are asked for.
        unsupervised: (N, D) float, features of ``images.train`` that no label has shaped.
        classifier: is fitted anew in each round.
        strategy: its name; ``settings`` are its own.
        start: images, drawn with the seed, whose labels are there at first; the same for all strategies.
        batch_size: labels asked for in each round.
        num_rounds: batches.
        seed: of the first labels, the classifier and the strategy.

    Returns:
        For each round ``round``, ``num_answers`` (labels that are known) and ``test_accuracy``.

    Raises:
        InputError: there are too few images.
    """
    number = len(images.train)
    if start + batch_size * num_rounds > number:
        raise InputError(
            f"{start} labels and {num_rounds} batches of {batch_size} are more than the {number} images; ask for fewer."
        )
    rng = np.random.default_rng(seed)
    known = np.zeros(number, bool)
    known[rng.choice(number, start, replace=False)] = True
    seeds = np.random.SeedSequence(seed).generate_state(num_rounds + 1).tolist()
    rows = []
    for round_number in range(num_rounds + 1):
        fitted = classifier.fit(np.flatnonzero(known), images.train_class[known], seed=seeds[round_number])
        right = fitted.probability(train=False).argmax(1) == images.test_class
        rows.append({
            "round": round_number, "num_answers": int(known.sum()), "test_accuracy": float(right.mean()),
        })  # fmt: skip
        if round_number == num_rounds:
            break
        chooser = get_strategy(strategy, settings, random_state=seeds[round_number])
        largest = np.sort(fitted.probability(train=True), axis=1)[:, -2:]
        chosen = chooser.query(
            {"supervised": fitted.features(), "unsupervised": unsupervised},
            np.where(known, 1.0, np.nan),
            batch_size=batch_size,
            probability=(1 + largest[:, 1] - largest[:, 0]) / 2,
        )
        known[chosen] = True
    return rows


def run_images(
    folder: Path,
    rows: RowsFile,
    *,
    classifier: str,
    unsupervised: str,
    strategies: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    num_seeds: int,
    start: int,
    batch_size: int,
    num_rounds: int,
    num_steps: int,
    quick: bool = False,
) -> None:
    """Run every strategy with every seed, unless ``rows`` has the run already.

    Args:
        folder: holds CIFAR-10.
        rows: to which runs are added; features that no label has shaped are kept beside its file.
        classifier: "probe" or "resnet".
        unsupervised: "simclr" or "vae".
        strategies: names.
        settings: {strategy: its settings}.
        num_seeds: seeds 0, 1, ... of every strategy.
        start, batch_size, num_rounds: see ``image_curve``.
        num_steps: of the training without labels.
        quick: the first ``QUICK_IMAGES`` alone.
    """
    for name in strategies:
        check_strategy(name, settings.get(name))
    called = f"cifar10{'-quick' if quick else ''}-{classifier}-{unsupervised}-{start}"

    @cache
    def opened() -> tuple[Images, np.ndarray, Classifier]:
        images = read_cifar10(folder)
        images = images.subset(*QUICK_IMAGES) if quick else images
        stored = rows.path.with_name(f"cifar10-{unsupervised}-{num_steps}-{len(images.train)}.npz")
        train, test = unlabelled_features(images.train, images.test, unsupervised, stored, num_steps=num_steps)
        kind = (
            Probe(train, test, NUM_CLASSES) if classifier == "probe" else Resnet(images.train, images.test, NUM_CLASSES)
        )
        return images, train, kind

    def points(run: Row) -> list[Row]:
        return image_curve(
            *opened(), run["strategy"], settings.get(run["strategy"]), start=start, batch_size=batch_size,
            num_rounds=num_rounds, seed=run["seed"],
        )  # fmt: skip

    wanted: list[Row] = [
        {
            "level": "images", "set": called, "side": "confirmation", "project": "", "batch_size": batch_size,
            "num_rounds": num_rounds, "error_rate": 0.0, "seed": seed, "strategy": name,
            "settings": json.dumps(settings.get(name, {}), sort_keys=True),
        }
        for seed in range(num_seeds)
        for name in strategies
    ]  # fmt: skip
    rows.add_missing([(run, partial(points, run)) for run in wanted], called)


def check_strategy(name: str, settings: Mapping[str, Any] | None) -> None:
    """Raise InputError for a strategy that image classification cannot ask with."""
    if name in YES_OR_NO or get_strategy(name, settings).needs_ensemble:
        why = "foresees answers of True and False" if name in YES_OR_NO else "needs a committee of scorers"
        raise InputError(f"{name} {why}, which image classification does not have; leave it out.")
