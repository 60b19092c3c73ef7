"""Classifiers of images, and features of images that no label has shaped.

On a CPU a classifier is a small network on frozen features, which takes seconds; on a GPU a ResNet-18 on the images
(He 2016), with the form for small images that the field uses. Knows torch and arrays; must not know strategies.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np
import torch
from monai.networks.nets import resnet18
from torch import nn

from twostream.base.atomic import read_arrays, write_arrays
from twostream.models.streams.config import StreamConfig
from twostream.models.streams.draw import image_input
from twostream.models.streams.encode import encode
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.models.streams.simclr import Simclr
from twostream.models.streams.stream import Stream

HIDDEN = 256
"""Units of the probe's hidden layer, whose activations are the supervised stream."""
PREDICTED = 500
"""Images that a network sees at once in prediction."""
CROP = (0.3, 1.0)
"""Share of the area of an image that a view of it shows (Chen 2020, for small images)."""
COLOUR = 0.4
"""Largest change of brightness, contrast and colour in a view."""
GREY_CHANCE = 0.2


class Fitted(ABC):
    """A classifier that has seen some labels."""

    @abstractmethod
    def probability(self, *, train: bool) -> np.ndarray:
        """(N, C) float, of the classes of all training images, or of all test images."""

    @abstractmethod
    def features(self) -> np.ndarray:
        """(N, D) float32: the last activations before the classes, of all training images."""


class Classifier(ABC):
    """Fits a new classifier to labels, again and again."""

    @abstractmethod
    def fit(self, rows: np.ndarray, classes: np.ndarray, *, seed: int) -> Fitted:
        """Fit to the classes (n,) of the training images at (n,) ``rows``; ``seed`` decides everything random."""


class _FittedNetwork(Fitted):
    """A network whose ``body`` gives features and whose ``head`` gives logits."""

    def __init__(self, body: nn.Module, head: nn.Module, train: torch.Tensor, test: torch.Tensor) -> None:
        self._body, self._head, self._images = body.eval(), head.eval(), {True: train, False: test}

    def probability(self, *, train: bool) -> np.ndarray:
        return self._over(nn.Sequential(self._body, self._head, nn.Softmax(1)), self._images[train])

    def features(self) -> np.ndarray:
        return self._over(self._body, self._images[True])

    def _over(self, network: nn.Module, images: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            parts = [network(_scaled(part)).float().cpu().numpy() for part in images.split(PREDICTED)]
        return np.concatenate(parts)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    """Bytes become floats in [-1, 1]; features stay as they are."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


class Probe(Classifier):
    """A network with one hidden layer on frozen features.

    Args:
        train, test: (N, D) float, features of all images; standardised here by those of ``train``.
        num_classes: C.
        num_steps: steps of the training, with 128 images each.
    """

    def __init__(self, train: np.ndarray, test: np.ndarray, num_classes: int, num_steps: int = 1000) -> None:
        mean, width = train.mean(0), np.maximum(train.std(0), 1e-6)
        self._train, self._test = (torch.from_numpy(((x - mean) / width).astype(np.float32)) for x in (train, test))
        self._num_classes, self._num_steps = num_classes, num_steps

    def fit(self, rows: np.ndarray, classes: np.ndarray, *, seed: int) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = nn.Sequential(nn.Linear(self._train.shape[1], HIDDEN), nn.SiLU())
            head = nn.Sequential(nn.Dropout(0.5), nn.Linear(HIDDEN, self._num_classes))
            network = nn.Sequential(body, head)
            x, y = self._train[torch.from_numpy(rows)], torch.from_numpy(classes)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._num_steps)
            for _ in range(self._num_steps):
                batch = torch.randint(len(x), (128,))
                loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return _FittedNetwork(body, head, self._train, self._test)


class Resnet(Classifier):
    """ResNet-18 for small images: a first convolution of 3 x 3 without stride, and no pooling after it.

    Trained by SGD with momentum 0.9 and weight decay 5e-4, whose rate rises to 0.1 and falls to 0 (Smith 2018), on
    images that are flipped and shifted by up to 4 pixels.

    Args:
        train, test: (N, 3, W, W) uint8.
        num_classes: C.
        num_steps: steps of the training, with 256 images each.
    """

    def __init__(self, train: np.ndarray, test: np.ndarray, num_classes: int, num_steps: int = 800) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._train, self._test = (torch.from_numpy(x).to(self._device) for x in (train, test))
        self._num_classes, self._num_steps = num_classes, num_steps

    def fit(self, rows: np.ndarray, classes: np.ndarray, *, seed: int) -> Fitted:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = resnet18(
                spatial_dims=2, n_input_channels=3, num_classes=self._num_classes, conv1_t_size=3, conv1_t_stride=1,
                no_max_pool=True,
            )  # fmt: skip
            head = nn.Linear(body.fc.in_features, self._num_classes)
            body.fc = nn.Identity()
            network = nn.Sequential(body, head).to(self._device)
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self._num_steps)
            x = self._train[torch.from_numpy(rows).to(self._device)]
            y = torch.from_numpy(classes).to(self._device)
            for _ in range(self._num_steps):
                batch = torch.randint(len(x), (min(256, len(x)),), device=self._device)
                with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
                    loss = nn.functional.cross_entropy(network(_scaled(shifted(x[batch]))).float(), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return _FittedNetwork(body, head, self._train, self._test)


def shifted(images: torch.Tensor, most: int = 4) -> torch.Tensor:
    """(B, C, W, W) bytes, each shifted by up to ``most`` pixels with zeros from outside, and half of them mirrored."""
    number, width, device = len(images), images.shape[-1], images.device
    padded = nn.functional.pad(images, (most,) * 4)
    move = torch.randint(2 * most + 1, (2, number, 1), device=device)
    y, x = (torch.arange(width, device=device) + part for part in move)
    x = torch.where(torch.rand(number, 1, device=device) < 0.5, x.flip(1), x)
    return padded[torch.arange(number, device=device)[:, None, None], :, y[:, :, None], x[:, None]].permute(0, 3, 1, 2)


class PhotoSimclr(Simclr):
    """SimCLR with the views that photographs need: a part of the image, mirrored or not, in other colours (Chen 2020).

    A photograph has an upright, so it is not turned as tissue is.
    """

    def view(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        width = patch.shape[-1]
        side = max(1, round(width * math.sqrt(rng.uniform(*CROP))))
        y, x = rng.integers(0, width - side + 1, 2)
        part = np.ascontiguousarray(patch[:, y : y + side, x : x + side].transpose(1, 2, 0))
        view = cv2.resize(part, (width, width), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
        view = view[..., ::-1] if rng.random() < 0.5 else view
        if rng.random() < 0.8:
            brightness, contrast = rng.uniform(-COLOUR, COLOUR), 1 + rng.uniform(-COLOUR, COLOUR)
            view = (view - view.mean()) * contrast + view.mean() + brightness
            view = view * (1 + rng.uniform(-COLOUR, COLOUR, (3, 1, 1)))
        if rng.random() < GREY_CHANCE:
            view = np.broadcast_to(view.mean(0), view.shape)
        return np.clip(view, -1, 1).astype(np.float32)


def unlabelled_features(
    train: np.ndarray, test: np.ndarray, method: str, stored: Path, *, num_steps: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features of a network that has seen all training images and no label; computed once and kept.

    Args:
        train, test: (N, 3, W, W) uint8.
        method: "simclr" or "vae", as in the unsupervised stream.
        stored: file that keeps the features.
        num_steps: steps of the training.
        seed: of the network and its samples.

    Returns:
        (N, D) float32 of ``train`` and of ``test``.
    """
    if not stored.exists():
        dims, width = (64, 128, 256), train.shape[-1]
        config = StreamConfig(
            method="vae" if method == "vae" else "simclr", latent_dim=128, hidden_dims=dims, num_steps=num_steps,
            batch_size=256, temperature=0.5,
        )  # fmt: skip
        shape = train.shape[1], width, width
        network: Stream = new_stream(shape, config, seed)
        if method == "simclr":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = PhotoSimclr(shape, config.latent_dim, dims, config.temperature)
        resume = stored.with_suffix(".resume")
        fit_stream(network, _Drawn(train), config, seed=seed, resume_path=resume, name=method)
        write_arrays(stored, {
            "train": encode(network, image_input(train)), "test": encode(network, image_input(test)),
        })  # fmt: skip
        resume.unlink(missing_ok=True)
    arrays = read_arrays(stored)
    return arrays["train"], arrays["test"]


class _Drawn:
    """Draws a training image."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __call__(self, t: int, rng: np.random.Generator) -> np.ndarray:
        return image_input(self._images[rng.integers(len(self._images))])
