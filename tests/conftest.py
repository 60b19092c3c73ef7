"""One toy world for all tests: bright blobs on a dark grid, some of which the truth denies.

    Y                 labels box        pool          guard   test box
    |   o  o  o  o  |  o  x  o  o  o  x  o  o  | o  x |  o  o  x  o
    |   o  x  o  o  |  o  o  o  x  o  o  o  o  | o  o |  o  o  o  o        o  blob of the truth
    |   o  o  o  x  |  o  o  x  o  o  o  x  o  | x  o |  o  x  o  o        x  decoy: looks the same, is not true
    +---------------------------------------------------------------> X

Z is thick (30 nm, Y and X 10 nm); every blob spans four of the eight sections.

Two environment variables vary what every test must stand (docs/reproducibility.md):

    TWOSTREAM_TEST_SEED     seed of the toy world and of the projects made of it; default 0
    TWOSTREAM_TEST_THREADS  threads of a training in those projects (the setting num_threads); default 1
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import h5py
import numpy as np
import pytest

from twostream.project.create import create_project
from twostream.project.project import Project

SEED = int(os.environ.get("TWOSTREAM_TEST_SEED", "0"))
THREADS = int(os.environ.get("TWOSTREAM_TEST_THREADS", "1"))
SHAPE_ZYX = (8, 96, 240)
VOXEL_SIZE_NM = (30.0, 10.0, 10.0)
SPACING = 16
LABELS_BOX = "0:8,0:96,0:64"
TEST_BOX = "0:8,0:96,192:240"
TO_SCHEMA_2 = """
    DROP TABLE fact; DROP TABLE lease; DROP TRIGGER retraction_opens;
    DROP INDEX answer_by_key; DROP INDEX answer_by_annotator; ALTER TABLE answer DROP COLUMN key;
    ALTER TABLE answer DROP COLUMN window;
    PRAGMA user_version = 2
"""
"""Turns a ledger into one of an older version, as far as its tables go."""
TINY = (
    "segmentation.filters=[4,8,8]",
    "segmentation.max_pixel_size_nm=10",
    "segmentation.patch_shape_zyx=[4,32,32]",
    "segmentation.num_steps=60",
    "segmentation.batch_size=2",
    "segmentation.learning_rate=0.01",
    "segmentation.block_shape_zyx=[8,64,64]",
    "segmentation.context_zyx=[1,8,8]",
    "refit.num_steps=8",
    "candidates.min_object_nm3=60000",
    "patches.width_px=16",
    "patches.pixel_size_nm=10",
    "streams.supervised.hidden_dims=[8,8]",
    "streams.supervised.latent_dim=3",
    "streams.supervised.num_steps=6",
    "streams.supervised.batch_size=8",
    "streams.unsupervised.hidden_dims=[8,8]",
    "streams.unsupervised.latent_dim=4",
    "streams.unsupervised.num_steps=6",
    "streams.unsupervised.batch_size=8",
    "streams.active_clustering.num_steps=4",
    f"num_threads={THREADS}",
    f"seed={SEED}",
)


def toy_arrays(seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Image (Z, Y, X) uint8 and truth (Z, Y, X) uint16 of the toy world."""
    rng = np.random.default_rng(seed)
    image = rng.normal(70, 10, SHAPE_ZYX)
    truth = np.zeros(SHAPE_ZYX, np.uint16)
    z, y, x = np.ogrid[: SHAPE_ZYX[0], : SHAPE_ZYX[1], : SHAPE_ZYX[2]]
    label = 0
    for cy in range(SPACING // 2, SHAPE_ZYX[1], SPACING):
        for cx in range(SPACING // 2, SHAPE_ZYX[2], SPACING):
            ry, rx = rng.uniform(2.5, 5.5, 2)
            blob = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 + ((z - 3.5) / 2.5) ** 2 <= 1
            image[blob] += 90
            if rng.random() < 0.75:
                label += 1
                truth[blob] = label
    return np.clip(image, 0, 255).astype(np.uint8), truth


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":  # on a CPU the same seed gives the same digits, which the others count on
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HDF5 with ``image`` and ``mitochondria`` and the voxel size."""
    path = tmp_path_factory.mktemp("toy") / "toy.h5"
    image, truth = toy_arrays()
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file["image"], file["mitochondria"] = image, truth
    return path


@pytest.fixture
def make_project(toy_file: Path, tmp_path: Path):
    """Function that makes a toy project; arguments go to ``create_project``."""

    def make(name: str = "project", **settings) -> Project:
        values = {
            "task": "mitochondria",
            "image": f"{toy_file}:image",
            "labels": f"{toy_file}:mitochondria",
            "labels_box": LABELS_BOX,
            "test_box": TEST_BOX,
            "budget": 6,
        } | settings
        overrides = (*TINY, *values.pop("overrides", ()))
        return create_project(tmp_path / name, overrides=overrides, **values)

    return make


pytest_plugins = ["served", "sites"]
