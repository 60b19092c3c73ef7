"""The project folder: its layout, its YAML, its lock, and which step of which round is due.

Knows files and settings; must not import torch, not even through others, so that a project can be looked at and
proofread on any laptop.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field

from twostream.candidates import CandidateConfig
from twostream.config import Config, apply_overrides, parse_config
from twostream.errors import ConfigError, InputError, NoVoxelSizeError, ProjectError
from twostream.geometry import Box
from twostream.ledger import Ledger
from twostream.patches import PatchConfig
from twostream.segmentation.config import RefitConfig, SegmentationConfig, context_voxels, fold_for
from twostream.streams.config import StreamsConfig
from twostream.task import Task, get_task
from twostream.volume import Volume, open_ignore_mask, open_volume

CONFIG_NAME = "twostream.yaml"
FIRST_STEPS = ("train", "predict", "propose", "embed", "score", "suggest", "answer")
LATER_STEPS = ("refit", *FIRST_STEPS[1:])
TEST_SHARE = 0.2
VAL_SHARE = 0.2
FROZEN = ("task", "boxes", "patches", "streams.supervised", "streams.unsupervised")
"""Settings that later rounds must share with round 0: scores would not compare, or snapshots not fit the streams."""
COVERED_SHARE = 0.5
"""A default test box is set only where at least this part of it lies in the labelled extent."""


class VolumeConfig(Config):
    """A volume and, where its file does not say, its voxel size (z, y, x) in nm."""

    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None


class BoxesConfig(Config):
    """Regions, as Z0:Z1,Y0:Y1,X0:X1 in voxels of the image. Frozen when the project is made.

    Attributes:
        labels: what S may learn from.
        val: part of ``labels`` that is kept for thresholds and early stopping.
        test: never trained on, never asked; None where no truth covers it.
    """

    labels: str
    val: str
    test: str | None = None


class QueryConfig(Config):
    """Which candidates are asked.

    Attributes:
        strategy: a name registered in ``twostream.query``.
        budget: answers per round.
        settings: arguments of the strategy; for two-stream: num_clusters, first, variant.
        audit_share: share of the batch drawn at random and never trained on, which estimates accuracy where
            there is no test box.
    """

    strategy: str = "two-stream"
    budget: int = Field(50, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    audit_share: float = Field(0.1, ge=0, lt=1)


class AnnotatorConfig(Config):
    """The simulated annotator.

    Attributes:
        error_rate: share of the answers that are turned round.
        seconds_per_answer: assumed time, recorded with each answer.
    """

    error_rate: float = Field(0.0, ge=0, le=1)
    seconds_per_answer: float = Field(4.0, ge=0)


class ProjectConfig(Config):
    """All of ``twostream.yaml``."""

    task: Literal["polarity", "cleft", "mitochondria"]
    image: VolumeConfig
    labels: VolumeConfig
    boxes: BoxesConfig
    seed: int = Field(0, ge=0)
    rounds: int = Field(3, ge=0)
    num_threads: int = Field(2, ge=1)
    segmentation: SegmentationConfig = SegmentationConfig()
    refit: RefitConfig = RefitConfig()
    candidates: CandidateConfig = CandidateConfig()
    patches: PatchConfig = PatchConfig()
    streams: StreamsConfig = StreamsConfig()
    query: QueryConfig = QueryConfig()
    annotator: AnnotatorConfig = AnnotatorConfig()


PAPER_VAE = {
    "hidden_dims": [64, 128, 128, 256, 256, 512],
    "num_steps": 400_000,
    "batch_size": 256,
    "learning_rate": 1e-3,
}
PRESETS: dict[str, dict[str, Any]] = {
    "laptop": {},
    # METHOD sections 5 and 8: the published sizes. They want a GPU.
    "paper": {
        "segmentation": {
            "filters": [32, 64, 96, 128, 160],
            "patch_shape_zyx": [16, 256, 256],
            "num_steps": 150_000,
            "block_shape_zyx": [32, 256, 256],
        },
        "refit": {"num_steps": 5_000},
        "patches": {"width_px": 128},
        "streams": {
            "supervised": PAPER_VAE | {"latent_dim": 16},
            "unsupervised": PAPER_VAE | {"latent_dim": 1024},
            "active_clustering": {"num_steps": 5_000},
        },
    },
}


class Project:
    """An existing project folder.

    Args:
        root: the folder that holds ``twostream.yaml``.

    Raises:
        ProjectError: no project there.
        ConfigError: its YAML is not valid.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        path = root / CONFIG_NAME
        if not path.is_file():
            raise ProjectError(
                f"{root} holds no {CONFIG_NAME}; make a project with `twostream init {root} --image ...`."
            )
        try:
            values = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}.") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path} holds {type(values).__name__}; expected settings by name.")
        self.config = parse_config(ProjectConfig, values, source=str(path))
        self.task: Task = get_task(self.config.task)
        self.boxes()

    # -- inputs ---------------------------------------------------------------------------------------------------

    @cached_property
    def image(self) -> Volume:
        """(Z, Y, X) uint8."""
        volume = open_volume(self.config.image.uri, self.config.image.voxel_size_nm)
        if volume.num_channels or volume.dtype != np.uint8:
            raise InputError(
                f"{volume.uri} holds {volume.dtype} with {volume.num_channels} channels; "
                f"expected grey values, uint8 (Z, Y, X)."
            )
        return volume

    @cached_property
    def labels(self) -> Volume:
        """(Z, Y, X) integers, in the task's label convention, of the image's extent."""
        return self.open_truth(self.config.labels.uri, self.config.labels.voxel_size_nm)

    @cached_property
    def labels_ignore(self) -> Volume | None:
        return open_ignore_mask(self.config.labels.uri, self.config.labels.voxel_size_nm)

    def open_truth(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume:
        """A label volume that fits the image.

        Raises:
            InputError: it holds no integers, or its shape or voxel size is not the image's.
        """
        volume = open_volume(uri, voxel_size_nm or (self.image.voxel_size_nm if _states_none(uri) else None))
        check_labels(volume, self.image)
        return volume

    def boxes(self) -> tuple[Box, Box, Box | None]:
        """Labels box, validation box, test box (or None).

        Raises:
            ConfigError: one of them is no box.
        """
        boxes = self.config.boxes
        try:
            return Box.parse(boxes.labels), Box.parse(boxes.val), Box.parse(boxes.test) if boxes.test else None
        except InputError as error:
            raise ConfigError(f"{self.root / CONFIG_NAME}: boxes: {error}") from None

    @property
    def pixel_size_nm(self) -> float:
        """In-plane size of a patch pixel."""
        return self.config.patches.pixel_size_nm or self.task.pixel_size_nm

    @property
    def min_voxels(self) -> int:
        """Smaller candidates are dust."""
        volume_nm3 = self.config.candidates.min_object_nm3
        wanted = self.task.min_object_nm3 if volume_nm3 is None else volume_nm3
        return max(1, round(wanted / float(np.prod(self.image.voxel_size_nm))))

    @cached_property
    def guarded_box(self) -> Box | None:
        """Test box plus guard: candidates that touch it are neither asked nor trained on."""
        test = self.boxes()[2]
        return None if test is None else test.grown(guard_voxels(self.config, self.image.voxel_size_nm))

    # -- layout ---------------------------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.root / "ledger.sqlite")

    def round_dir(self, round_number: int) -> Path:
        return self.root / "rounds" / f"{round_number:03d}"

    def path(self, round_number: int, name: str) -> Path:
        """A file of a round, for example ``candidates.parquet``."""
        return self.round_dir(round_number) / name

    def seed(self, round_number: int, purpose: str) -> int:
        """A seed of its own for each purpose of each round, from the project's seed."""
        words = [self.config.seed, round_number, zlib.crc32(purpose.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    # -- state ----------------------------------------------------------------------------------------------------

    def next_step(self) -> tuple[int, str]:
        """The first step that is not done: (round, step)."""
        done = self.ledger.finished_steps()
        round_number = 0
        while True:
            for step in FIRST_STEPS if round_number == 0 else LATER_STEPS:
                if (round_number, step) not in done:
                    return round_number, step
            round_number += 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running steps; released by the system even after a kill.

        Raises:
            ProjectError: another process is at work.
        """
        with open(self.root / ".lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ProjectError(f"another process is at work in {self.root}; wait for it, or stop it.") from None
            yield

    def check_frozen(self) -> None:
        """Raise ProjectError where a setting that is frozen with round 0 has been changed since."""
        path = self.path(0, "config.yaml")
        if not path.exists():
            return
        before, now = yaml.safe_load(path.read_text())["config"], self.config.model_dump(mode="json")
        for key in FROZEN:
            was, is_now = before, now
            for part in key.split("."):
                was, is_now = was[part], is_now[part]
            if was != is_now:
                raise ProjectError(
                    f"{key} in {self.root / CONFIG_NAME} is {is_now}, but round 0 was made with {was}; "
                    f"it is frozen, so that rounds can be compared. "
                    f"Change it back, or make a new project with `twostream init`."
                )

    def open_round(self, round_number: int) -> None:
        """Make the folder of a round and write what it will be made with."""
        self.check_frozen()
        directory = self.round_dir(round_number)
        directory.mkdir(parents=True, exist_ok=True)
        packages = ("twostream-connectomics", "torch", "monai", "lightning", "numpy", "scikit-learn")
        versions = {"python": platform.python_version()} | {name: _version(name) for name in packages}
        resolved = {"config": self.config.model_dump(mode="json"), "round": round_number, "versions": versions}
        write_text(directory / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))


def create_project(
    root: Path,
    *,
    task: str,
    image: str,
    labels: str,
    voxel_size_nm: Sequence[float] | None = None,
    labels_box: str | None = None,
    val_box: str | None = None,
    test_box: str | None = None,
    preset: str = "laptop",
    seed: int = 0,
    budget: int = 50,
    overrides: Sequence[str] = (),
) -> Project:
    """Make a project folder, with everything that came in checked.

    Args:
        root: folder to make; must not hold a project.
        task: polarity, cleft or mitochondria.
        image: URI of the (Z, Y, X) uint8 image.
        labels: URI of the labels, of the image's extent.
        voxel_size_nm: (z, y, x) nm, for files that do not state it.
        labels_box, val_box, test_box: Z0:Z1,Y0:Y1,X0:X1; see ``BoxesConfig`` and ``default_boxes``.
        preset: "laptop" or "paper".
        seed: of everything random.
        budget: answers per round.
        overrides: ``a.b=value``, last word.

    Raises:
        InputError: anything that came in does not fit.
        ProjectError: there is a project already.
    """
    if (root / CONFIG_NAME).exists():
        raise ProjectError(
            f"{root} holds a project already; choose another folder, or go on with `twostream run {root}`."
        )
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
    size = None if voxel_size_nm is None else [float(v) for v in voxel_size_nm]
    image_volume = open_volume(image, size)
    label_size = size if size is not None else (image_volume.voxel_size_nm if _states_none(labels) else None)
    label_volume = open_volume(labels, label_size)
    check_labels(label_volume, image_volume)
    values: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "image": {"uri": _absolute(image)} | ({"voxel_size_nm": size} if size else {}),
        "labels": {"uri": _absolute(labels)} | ({"voxel_size_nm": list(label_size)} if label_size else {}),
        "boxes": {"labels": labels_box or "0:1,0:1,0:1", "val": val_box or "0:1,0:1,0:1", "test": test_box},
        "query": {"budget": budget},
    }
    values |= PRESETS[preset]
    values = apply_overrides(values, overrides)
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["boxes"] = default_boxes(config, image_volume, label_volume, labels_box, val_box, test_box)
    config = parse_config(ProjectConfig, values, source="twostream init")
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / CONFIG_NAME, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return Project(root)


def fork_project(source: Project, root: Path, overrides: Sequence[str]) -> Project:
    """A second project that shares round 0 with ``source`` up to what was asked, to compare strategies.

    Args:
        source: a project whose round 0 is scored.
        root: folder to make.
        overrides: ``a.b=value``; only ``query``, ``refit``, ``annotator`` and ``rounds`` may differ,
            because round 0 is shared.

    Raises:
        ProjectError: round 0 of ``source`` is not ready, or ``root`` holds a project.
        ConfigError: an override that would have changed round 0.
    """
    shared = [step for step in FIRST_STEPS if step not in ("suggest", "answer")]
    done = source.ledger.finished_steps()
    if any((0, step) not in done for step in shared):
        raise ProjectError(f"round 0 of {source.root} is not finished; run `twostream run {source.root}` first.")
    if (root / CONFIG_NAME).exists():
        raise ProjectError(f"{root} holds a project already; choose another folder.")
    free = ("query", "refit", "annotator", "rounds")
    for option in overrides:
        if option.split("=")[0].split(".")[0] not in free:
            raise ConfigError(f"--set got {option!r}; a fork shares round 0, so only {', '.join(free)} may differ.")
    values = apply_overrides(source.config.model_dump(mode="json"), overrides)
    config = parse_config(ProjectConfig, values, source="twostream fork")
    partial = root / "rounds" / "000.partial"
    shutil.rmtree(partial, ignore_errors=True)
    skip = shutil.ignore_patterns("queries.jsonl", "answers.jsonl", "*.partial", "*.resume")
    shutil.copytree(source.round_dir(0), partial, ignore=skip)
    shutil.rmtree(root / "rounds" / "000", ignore_errors=True)
    os.replace(partial, root / "rounds" / "000")
    (root / "ledger.sqlite").unlink(missing_ok=True)
    ledger = Ledger(root / "ledger.sqlite")
    import_round_zero(source.ledger, ledger, shared)
    ledger.close()
    # The YAML comes last: a folder without it is no project, so a fork that was killed is simply made again.
    write_text(root / CONFIG_NAME, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return Project(root)


def import_round_zero(source: Ledger, target: Ledger, steps: Sequence[str]) -> None:
    """Copy registration, score and finished steps of round 0 into a new ledger."""
    target.register(0, range(1, source.next_id(1)))
    target.store_score(0, source.scores()[0])
    done = source.finished_steps()
    for step in steps:
        detail = dict(done[(0, step)])
        target.finish_step(0, step, detail.pop("seconds"), detail)


def check_labels(labels: Volume, image: Volume) -> None:
    """Raise InputError where ``labels`` do not fit ``image``."""
    if labels.num_channels or labels.dtype.kind not in "ui":
        raise InputError(
            f"{labels.uri} holds {labels.dtype} with {labels.num_channels} channels; expected integer labels (Z, Y, X)."
        )
    if labels.shape_zyx != image.shape_zyx:
        raise InputError(
            f"{labels.uri} has {labels.shape_zyx} voxels, {image.uri} has {image.shape_zyx} "
            f"(Z, Y, X); they must be alike."
        )
    if not np.allclose(labels.voxel_size_nm, image.voxel_size_nm, rtol=1e-3):
        raise InputError(
            f"{labels.uri} has voxels of {labels.voxel_size_nm} nm, {image.uri} of {image.voxel_size_nm} nm (Z, Y, X); "
            f"they must be alike."
        )


def guard_voxels(config: ProjectConfig, voxel_size_nm: Sequence[float]) -> tuple[int, int, int]:
    """Guard around the test box: S's context or a patch, whichever is wider, along Z, Y, X in voxels."""
    task = get_task(config.task)
    fold = fold_for(voxel_size_nm, config.segmentation.max_pixel_size_nm or task.pixel_size_nm)
    context = context_voxels(config.segmentation, fold)
    width_nm = config.patches.width_px * (config.patches.pixel_size_nm or task.pixel_size_nm)
    patch = (1, int(np.ceil(width_nm / voxel_size_nm[1])), int(np.ceil(width_nm / voxel_size_nm[2])))
    z, y, x = (max(a, b) for a, b in zip(context, patch, strict=True))
    return z, y, x


def default_boxes(
    config: ProjectConfig,
    image: Volume,
    labels: Volume,
    labels_box: str | None,
    val_box: str | None,
    test_box: str | None,
) -> dict[str, str | None]:
    """The three boxes of a new project: what was given, checked, and defaults for the rest.

    Test box: the last fifth along the axis that is longest in nm (ties: X), where labels cover it. Labels box: the
    labelled extent without test box and guard. Validation box: the last fifth of the labels box along its longest axis.

    Raises:
        InputError: a box outside the image, boxes that overlap where they must not, or no foreground to learn from.
    """
    given = {
        name: Box.parse(text) for name, text in (("labels", labels_box), ("val", val_box), ("test", test_box)) if text
    }
    for name, box in given.items():
        if not image.box.contains(box):
            raise InputError(f"--{name}-box {box} reaches outside the image, which holds {image.box} (Z, Y, X voxels).")
    extent = labelled_extent(labels)
    if extent is None:
        raise InputError(f"{labels.uri} holds no foreground; S cannot learn from labels that are all 0.")
    test = given.get("test")
    if test is None:
        test = _last_share(image.box, image.voxel_size_nm, TEST_SHARE)
        covered = extent.intersection(test).num_voxels >= COVERED_SHARE * test.num_voxels
        test = test if covered else None
    guarded = test.grown(guard_voxels(config, image.voxel_size_nm)) if test else None
    box = given.get("labels") or (_without(extent, guarded) if guarded else extent)
    if box.num_voxels == 0:
        raise InputError(
            f"no labels are left outside the test box {test} and its guard; pass --labels-box and --test-box."
        )
    if test is not None and box.intersects(test):
        raise InputError(
            f"labels box {box} overlaps the test box {test}; S must never learn from the test box. Move one."
        )
    if not (labels.read(box) > 0).any():
        raise InputError(f"{labels.uri} holds no foreground in the labels box {box}; choose a box with objects in it.")
    val = given.get("val") or _last_share(box, image.voxel_size_nm, VAL_SHARE)
    if not box.contains(val) or val == box:
        raise InputError(
            f"validation box {val} must be a part of the labels box {box}, and leave some of it to train on."
        )
    return {"labels": str(box), "val": str(val), "test": None if test is None else str(test)}


def labelled_extent(labels: Volume) -> Box | None:
    """Bounding box of the foreground, read in slabs; None without any."""
    extent: Box | None = None
    for z in range(0, labels.shape_zyx[0], 16):
        slab = Box((z, 0, 0), (min(16, labels.shape_zyx[0] - z), *labels.shape_zyx[1:]))
        where = np.argwhere(labels.read(slab) > 0)
        if len(where):
            part = Box.from_corners(where.min(0).tolist(), (where.max(0) + 1).tolist()).shifted(slab.offset_zyx)
            extent = (
                part
                if extent is None
                else Box.from_corners(
                    np.minimum(extent.offset_zyx, part.offset_zyx).tolist(),
                    np.maximum(extent.stop_zyx, part.stop_zyx).tolist(),
                )
            )
    return extent


def _last_share(box: Box, voxel_size_nm: Sequence[float], share: float) -> Box:
    """The last ``share`` of ``box`` along the axis that is longest in nm; ties go to X."""
    length = [s * v for s, v in zip(box.shape_zyx, voxel_size_nm, strict=True)]
    axis = max(range(3), key=lambda a: (length[a], a))
    start = list(box.offset_zyx)
    start[axis] = box.stop_zyx[axis] - max(1, round(share * box.shape_zyx[axis]))
    return Box.from_corners(start, box.stop_zyx)


def _without(extent: Box, guarded: Box) -> Box:
    """The largest box of ``extent`` that shares no voxel with ``guarded``."""
    parts = [extent]
    for axis in range(3):
        for low in (True, False):
            start, stop = list(extent.offset_zyx), list(extent.stop_zyx)
            if low:
                stop[axis] = min(stop[axis], guarded.offset_zyx[axis])
            else:
                start[axis] = max(start[axis], guarded.stop_zyx[axis])
            parts.append(Box.from_corners(start, stop))
    apart = [part for part in parts if not part.intersects(guarded)]
    return max(apart, key=lambda part: part.num_voxels)


def _states_none(uri: str) -> bool:
    """Whether the file at ``uri`` opens only once it is told a voxel size."""
    try:
        open_volume(uri)
    except NoVoxelSizeError:
        return True
    return False


def _absolute(uri: str) -> str:
    """A URI that means the same from any folder."""
    prefix, separator, rest = uri.partition("://")
    if separator and prefix != "zarr":
        return uri
    path = rest if separator else uri
    return (f"{prefix}://" if separator else "") + os.path.abspath(path)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``.npy`` whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as handle:
        np.save(handle, array, allow_pickle=False)
    os.replace(partial, path)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Make a folder whole or not at all: ``fill`` makes it under a partial name."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    fill(partial)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
