"""Making a project from volumes and boxes, or as a fork of another project.

All inputs are checked here, so that an error shows before anything has been trained or asked.

Knows volumes, settings and the folder; must not import torch.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import ndimage

from twostream.base.atomic import write_folder, write_text
from twostream.base.config import apply_overrides, parse_config
from twostream.base.errors import ConfigError, InputError, ProjectError, TwoStreamError
from twostream.base.geometry import Box, grid
from twostream.candidates.sources import check_source
from twostream.models.segmentation.config import shapes_for
from twostream.project.database import new_project_id
from twostream.project.fingerprint import INPUTS, fact_of, state_inputs
from twostream.project.frozen import SETTINGS_NAME
from twostream.project.ledger import Ledger
from twostream.project.project import CONFIG_NAME, FIRST_STEPS, LEDGER_NAME, Project, guard_voxels, holds_work
from twostream.project.settings import LOCATIONS, PRESETS, ProjectConfig, preset_settings
from twostream.task import TASKS, Task, get_task
from twostream.volume import Volume, open_volume
from twostream.volume.checks import check_labels, states_no_voxel_size
from twostream.volume.uri import absolute_uri, portable_uri

TEST_SHARE = 0.2
"""Share of the image that is the default test box."""
VAL_SHARE = 0.2
"""Share of the labels box that is the default validation box."""
FREE_IN_FORKS = ("query", "refit", "annotator", "rounds", "streams.active_clustering")
"""Settings that a fork may change, because round 0 does not depend on them until it asks."""
MAX_SIDE_GAP_NM = 500.0
"""If labels 2n-1 and 2n are farther apart than this, they are probably not the two sides of a synapse: clefts are much
narrower, and unrelated objects are usually farther apart."""
MIN_COVERED_SHARE = 0.5
"""The default test box is used only if at least this share of it lies in the labelled extent."""


def create_project(
    root: Path,
    *,
    task: str,
    image: str,
    labels: str | None = None,
    probability: str | None = None,
    segmentation: str | None = None,
    objects: str | None = None,
    voxel_size_nm: Sequence[float] | None = None,
    labels_box: str | None = None,
    val_box: str | None = None,
    test_box: str | None = None,
    preset: str = "laptop",
    seed: int = 0,
    budget: int = 50,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Project:
    """Make a project.

    Args:
        root: folder to make; must not hold a project.
        task: "polarity", "cleft" or "mitochondria".
        image: URI of the image, (Z, Y, X) uint8.
        labels: URI of (Z, Y, X) integer labels with the extent of the image; may be None only with a source.
        probability, segmentation, objects: URI of a source that replaces S, see ``candidates/sources.py``; at most one.
        voxel_size_nm: (z, y, x) nm, for files that do not state it.
        labels_box, val_box, test_box: "Z0:Z1,Y0:Y1,X0:X1" in voxels of the image; None takes ``default_boxes``.
        preset: "laptop" or "paper".
        seed: of everything random.
        budget: answers per round.
        overrides: settings as "a.b=value"; they override everything else except the boxes.
        settings: settings of a recipe, which include the preset; None takes those of ``preset``.

    Raises:
        InputError: a volume or box cannot be used, or two of them contradict each other.
        ConfigError: a setting is unknown, or its value is out of range.
        ProjectError: ``root`` holds a project already.
    """
    _check_options(root, preset, overrides)
    size = None if voxel_size_nm is None else [float(v) for v in voxel_size_nm]
    image_volume = open_volume(image, size)
    source = _source(probability=probability, segmentation=segmentation, objects=objects)
    if labels is None and (labels_box or val_box):
        raise InputError("--labels-box and --val-box are regions of labels, but there are none; pass --labels URI.")
    label_size, label_volume = None, None
    if labels is not None:
        label_size = size or (image_volume.voxel_size_nm if states_no_voxel_size(labels) else None)
        label_volume = open_volume(labels, label_size)
        check_labels(label_volume, image_volume)
    values: dict[str, Any] = {
        "id": new_project_id(),
        "task": task,
        "seed": seed,
        "image": {"uri": image} | ({"voxel_size_nm": size} if size else {}),
        "query": {"budget": budget},
    }
    if labels is not None:
        values["labels"] = {"uri": labels} | ({"voxel_size_nm": list(label_size)} if label_size else {})
    if source is not None:
        values["source"] = source | ({"voxel_size_nm": size} if size and source["kind"] != "objects" else {})
    values |= preset_settings(preset, task) if settings is None else settings
    boxes = {"labels": labels_box, "val": val_box, "test": test_box}
    config = _complete(apply_overrides(values, overrides), image_volume, label_volume, boxes)
    if config.source is not None:
        task_ = get_task(config.task, image_volume.voxel_size_nm, config.decoding)
        check_source(config.source, image_volume, task_)
    root.mkdir(parents=True, exist_ok=True)
    # A ledger without a YAML file, in which nothing is recorded, is left of an `init` that was killed.
    for ending in ("-wal", "-shm", ""):
        (root / f"{LEDGER_NAME}{ending}").unlink(missing_ok=True)
    Ledger(root / LEDGER_NAME, create=True, task=TASKS[config.task], project_id=config.id).close()
    write_text(root / CONFIG_NAME, yaml.safe_dump(_portable(config, None, root), sort_keys=False))
    project = _open_new_project(root)
    try:
        state_inputs(project)
    except TwoStreamError:
        (root / CONFIG_NAME).unlink()
        raise
    return project


def fork_project(source: Project, root: Path, overrides: Sequence[str]) -> Project:
    """Make a second project with a copy of round 0 but without its queries, to compare strategies.

    Args:
        source: a project whose round 0 has been scored.
        root: folder to make; must be empty if it exists.
        overrides: settings as "a.b=value"; only those of ``FREE_IN_FORKS`` may be changed.

    Raises:
        ProjectError: round 0 of ``source`` has not been scored, or ``root`` is not empty.
        ConfigError: an override would change round 0, is unknown, or has a value out of range.
    """
    shared = [step for step in FIRST_STEPS if step not in ("suggest", "answer")]
    done = source.ledger.finished_steps()
    if any((0, step) not in done for step in shared):
        raise ProjectError(f"round 0 of {source.root} is not finished; run `{source.command('run')}` first.")
    root = Path(os.path.realpath(root))  # the folder that `new/../there` means once `new` is made
    if root.exists() and any(root.iterdir()):
        raise ProjectError(f"{root} is not empty; choose another folder.")
    for option in overrides:
        if not f"{option.split('=')[0].strip()}.".startswith(tuple(f"{name}." for name in FREE_IN_FORKS)):
            raise ConfigError(
                f"--set got {option!r}; a fork shares round 0, so only {', '.join(FREE_IN_FORKS)} may differ. "
                f"Make a new project with `twostream init` to change others."
            )
    values = apply_overrides(source.config.model_dump(mode="json"), overrides) | {"id": new_project_id()}
    config = parse_config(ProjectConfig, values, source="twostream fork")

    def fill(partial: Path) -> None:
        first, values = partial / "rounds" / "000", _portable(config, source.root, root)
        asked = ("queries.jsonl", "answers.jsonl", LEDGER_NAME)
        skip = shutil.ignore_patterns(*asked, "*.partial", "*.resume", "*.writing")
        shutil.copytree(source.round_dir(0), first, ignore=skip)
        kept = yaml.safe_load((first / SETTINGS_NAME).read_text(encoding="utf-8"))
        write_text(first / SETTINGS_NAME, yaml.safe_dump(kept | {"config": values}, sort_keys=False))
        ledger = Ledger(partial / LEDGER_NAME, create=True, task=TASKS[config.task], project_id=config.id)
        _copy_round_zero(source.ledger, ledger, shared)
        for name in map(fact_of, INPUTS):
            if content := source.ledger.fact(name):
                ledger.state(name, content)
        ledger.close()
        write_text(partial / CONFIG_NAME, yaml.safe_dump(values, sort_keys=False))
        _open_new_project(partial)

    write_folder(root, fill)
    return Project(root)


def default_boxes(
    config: ProjectConfig,
    image: Volume,
    labels: Volume | None,
    labels_box: str | None,
    val_box: str | None,
    test_box: str | None,
) -> dict[str, str | None]:
    """The three boxes of a new project: those that were given, and defaults for the others.

    The default test box is the last fifth of the image along the axis that is longest in nm (X on a tie), if labels
    cover at least half of it. The default labels box is the extent of the labelled objects without the guarded test
    box. The default validation box is the last fifth of the labels box along its longest axis. Without labels there is
    only a test box, if it was given (``docs/contracts.md``, *Test region*).

    Args:
        config: settings; the guard depends on them.
        image: the image.
        labels: the labels, or None.
        labels_box, val_box, test_box: boxes that were given, "Z0:Z1,Y0:Y1,X0:X1", or None.

    Returns:
        {"labels", "val", "test"}: each as text, or None.

    Raises:
        InputError: a box reaches outside the image, two boxes overlap that must not, or no foreground is left to
            train on.
    """
    given = {
        name: Box.parse(text) for name, text in (("labels", labels_box), ("val", val_box), ("test", test_box)) if text
    }
    for name, box in given.items():
        if not image.box.contains(box):
            raise InputError(f"--{name}-box {box} reaches outside the image, which holds {image.box} (Z, Y, X voxels).")
    if labels is None:
        return {"labels": None, "val": None, "test": test_box}
    extent = _labelled_extent(labels, get_task(config.task, image.voxel_size_nm, config.decoding))
    if extent is None:
        raise InputError(
            f"{labels.uri} holds no foreground; S cannot learn from labels that are all 0. Pass labels with objects."
        )
    test = given.get("test")
    if test is None:
        test = _last_share(image.box, image.voxel_size_nm, TEST_SHARE)
        covered = extent.intersection(test).num_voxels >= MIN_COVERED_SHARE * test.num_voxels
        test = test if covered else None
    guarded = test.grown(guard_voxels(config, image.voxel_size_nm)) if test else None
    box = given.get("labels") or (_without(extent, guarded) if guarded else extent)
    if box.num_voxels == 0:
        raise InputError(
            f"no labels are left outside the test box {test} and its guard; pass --labels-box and --test-box."
        )
    if test is not None and box.intersects(test):
        raise InputError(
            f"labels box {box} overlaps the test box {test}; S must never learn from the test box. Move one of them."
        )
    if not (labels.read(box) > 0).any():
        raise InputError(f"{labels.uri} holds no foreground in the labels box {box}; choose a box with objects in it.")
    val = given.get("val") or _last_share(box, image.voxel_size_nm, VAL_SHARE)
    if not box.contains(val) or val == box:
        raise InputError(
            f"validation box {val} must be a part of the labels box {box}, and leave some of it to train on."
        )
    _check_labels_box(config, image, labels, box, [val] + ([guarded] if guarded else []))
    return {"labels": str(box), "val": str(val), "test": None if test is None else str(test)}


def _check_options(root: Path, preset: str, overrides: Sequence[str]) -> None:
    """Raise ProjectError or ConfigError for what is wrong before any volume is opened."""
    real = Path(os.path.realpath(root))  # the folder that `new/../there` means once `new` is made
    if (real / CONFIG_NAME).exists():
        raise ProjectError(
            f"{root} holds a project already; choose another folder, or continue with "
            f"`twostream run {shlex.quote(str(root))}`."
        )
    if holds_work(real):
        raise ProjectError(
            f"{root} holds the ledger, rounds or answers of a project, but no {CONFIG_NAME}. Choose another folder, or "
            f"let `twostream repair {shlex.quote(str(root))}` write {CONFIG_NAME} again."
        )
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
    if any(option.split("=")[0].split(".")[0] == "boxes" for option in overrides):
        raise ConfigError("--set cannot change boxes; pass --labels-box, --val-box and --test-box.")
    if any(option.split("=")[0].strip() == "id" for option in overrides):
        raise ConfigError("--set cannot change id; every project is given one of its own.")


def _source(**uris: str | None) -> dict[str, Any] | None:
    """Settings of the one source among ``uris`` = {kind: URI}; None if all URIs are None.

    Raises:
        InputError: there is more than one.
    """
    given = {kind: uri for kind, uri in uris.items() if uri is not None}
    if len(given) > 1:
        raise InputError(
            f"{' and '.join(f'--{kind}' for kind in given)} were given; only one source can replace S. Choose one."
        )
    return next(({"kind": kind, "uri": uri} for kind, uri in given.items()), None)


def _complete(
    values: Mapping[str, Any], image: Volume, labels: Volume | None, boxes: Mapping[str, str | None]
) -> ProjectConfig:
    """Checked settings of a new project: ``values``, crop shapes that fit its voxels, and its boxes.

    Args:
        values: settings by name, without boxes.
        image, labels: the volumes.
        boxes: {"labels", "val", "test"}: each box as given by the user; None takes the default.
    """
    # Default boxes depend on checked settings, and settings are checked only together with boxes: placeholders first.
    placeholder = None if labels is None else "0:1,0:1,0:1"
    stand_in = {"labels": placeholder, "val": placeholder, "test": None}
    values = dict(values) | {"boxes": {name: text or stand_in[name] for name, text in boxes.items()}}
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["segmentation"] = _crop_shapes(config, image) | values.get("segmentation", {})
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["boxes"] = default_boxes(config, image, labels, boxes["labels"], boxes["val"], boxes["test"])
    return parse_config(ProjectConfig, values, source="twostream init")


def _crop_shapes(config: ProjectConfig, image: Volume) -> dict[str, Any]:
    """Settings of S for crop, window, block and context that fit the voxel size; presets and options override them."""
    pixel_size_nm = config.segmentation.max_pixel_size_nm or TASKS[config.task].pixel_size_nm
    return {name: list(shape) for name, shape in shapes_for(image.voxel_size_nm, pixel_size_nm).items()}


def _portable(config: ProjectConfig, base: Path | None, root: Path) -> dict[str, Any]:
    """Settings as a project in ``root`` stores them, with paths that stay valid when project and data move together.

    Args:
        config: settings whose URIs may be relative.
        base: folder at which they start; None is the working directory.
        root: folder of the project.
    """
    values = config.model_dump(mode="json")
    for *parents, leaf in LOCATIONS:
        node: Any = values
        for parent in parents:
            node = (node or {}).get(parent)
        if node and node[leaf]:
            node[leaf] = portable_uri(absolute_uri(node[leaf], base), root)
    return values


def _open_new_project(root: Path) -> Project:
    """Open the project; if its settings are wrong, delete its YAML file, so that no broken project is left behind."""
    try:
        return Project(root)
    except TwoStreamError:
        (root / CONFIG_NAME).unlink()
        raise


def _copy_round_zero(source: Ledger, target: Ledger, steps: Sequence[str]) -> None:
    """Copy ids, scores and the finished ``steps`` of round 0 from one ledger into a new one."""
    target.register(0, range(1, source.next_id(1)))
    target.store_score(0, source.scores()[0])
    done = source.finished_steps()
    for step in steps:
        detail = dict(done[(0, step)])
        target.finish_step(0, step, detail.pop("seconds"), detail)


def _labelled_extent(labels: Volume, task: Task) -> Box | None:
    """Bounding box of the foreground, found in slabs of sections; None if there is no foreground.

    Raises:
        InputError: the labels hold values that break the label convention of the task.
    """
    extent: Box | None = None
    values: set[int] = set()
    for block in grid(labels.box, (16, *labels.shape_zyx[1:])):
        array = labels.read(block.write_box)
        values |= set(np.unique(array).tolist())
        where = np.argwhere(array > 0)
        if len(where):
            part = Box.from_corners(where.min(0).tolist(), (where.max(0) + 1).tolist())
            part = part.shifted(block.write_box.offset_zyx)
            extent = part if extent is None else extent.hull(part)
    task.check_values(values, labels.uri)
    return extent


def _last_share(box: Box, voxel_size_nm: Sequence[float], share: float) -> Box:
    """The last ``share`` of ``box`` along the axis that is longest in nm (X on a tie)."""
    length = [s * v for s, v in zip(box.shape_zyx, voxel_size_nm, strict=True)]
    axis = max(range(3), key=lambda a: (length[a], a))
    start = list(box.offset_zyx)
    start[axis] = box.stop_zyx[axis] - max(1, round(share * box.shape_zyx[axis]))
    return Box.from_corners(start, box.stop_zyx)


def _without(extent: Box, guarded: Box) -> Box:
    """The largest box inside ``extent`` that shares no voxel with ``guarded``."""
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


def _check_labels_box(config: ProjectConfig, image: Volume, labels: Volume, box: Box, kept_out: Sequence[Box]) -> None:
    """Raise InputError if S could not be trained on the labels box.

    Args:
        config: gives the task.
        image: gives the voxel size.
        labels: the labels.
        box: the labels box.
        kept_out: validation box first, then the guarded test box if there is one; S does not learn from these.
    """
    known = labels.read(box)
    is_learned = np.ones(box.shape_zyx, bool)
    for other in kept_out:
        is_learned[other.intersection(box).relative_to(box).slices] = False
    if not (known[is_learned] > 0).any():
        raise InputError(
            f"no foreground of the labels box {box} is left to train on: all of it lies in the validation box "
            f"{kept_out[0]}, or in the test box and its guard. Move or widen --labels-box, or pass --val-box."
        )
    if TASKS[config.task].num_sides == 2:
        gap_nm = _gap_between_sides_nm(known, image.voxel_size_nm)
        if gap_nm > MAX_SIDE_GAP_NM:
            raise InputError(
                f"{labels.uri}: labels 2n-1 and 2n lie {gap_nm:.0f} nm apart (median), too far for the two sides of a "
                f"synapse. Expected its presynaptic side at 2n-1 and its postsynaptic side at 2n. Are these instance "
                f"labels without polarity?"
            )


def _gap_between_sides_nm(labels: np.ndarray, voxel_size_nm: Sequence[float]) -> float:
    """Median gap between the bounding boxes of labels 2n-1 and 2n; 0 if there is no such pair.

    The gap of a pair is measured along the axis where it is widest, and is negative where the boxes overlap.
    """
    values, inverse = np.unique(labels, return_inverse=True)
    windows = ndimage.find_objects(inverse.reshape(labels.shape).astype(np.int32) + 1)
    window_of = dict(zip(values.tolist(), windows, strict=True))
    gaps = []
    for value in (v for v in window_of if v > 0 and v % 2 == 1 and v + 1 in window_of):
        axes = zip(window_of[value], window_of[value + 1], voxel_size_nm, strict=True)
        gaps.append(max((max(a.start, b.start) - min(a.stop, b.stop)) * size for a, b, size in axes))
    return float(np.median(gaps)) if gaps else 0.0
