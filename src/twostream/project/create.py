"""How a project comes to be: made from volumes and boxes that were checked, or forked from another.

Knows volumes, settings and the folder; must not import torch. Whatever does not fit is refused here, before a step
has been paid for.
"""

from __future__ import annotations

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
from twostream.project.ledger import Ledger
from twostream.project.project import CONFIG_NAME, FIRST_STEPS, LEDGER_NAME, LOCATIONS, Project, guard_voxels
from twostream.project.settings import PRESETS, ProjectConfig, preset_settings
from twostream.task import TASKS, Task, get_task
from twostream.volume import Volume, open_volume
from twostream.volume.checks import check_labels, states_no_voxel_size
from twostream.volume.uri import absolute_uri, portable_uri

TEST_SHARE = 0.2
VAL_SHARE = 0.2
FREE_IN_FORKS = ("query", "refit", "annotator", "rounds", "streams.active_clustering")
"""Settings of which round 0 knows nothing before it asks."""
FAR_SIDES_NM = 500.0
"""No cleft is nearly as wide; a pair of unlike objects lies farther apart as a rule."""
COVERED_SHARE = 0.5
"""A default test box is set only where at least this part of it lies in the labelled extent."""


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
    """Make a project folder, with everything that came in checked.

    Args:
        root: folder to make; must not hold a project.
        task: polarity, cleft or mitochondria.
        image: URI of the (Z, Y, X) uint8 image.
        labels: URI of the labels, of the image's extent; None only with a source.
        probability, segmentation, objects: a source in place of S, see ``sources.py``; at most one.
        voxel_size_nm: (z, y, x) nm, for files that do not state it.
        labels_box, val_box, test_box: Z0:Z1,Y0:Y1,X0:X1; see ``BoxesConfig`` and ``default_boxes``.
        preset: "laptop" or "paper".
        seed: of everything random.
        budget: answers per round.
        overrides: ``a.b=value``, last word.
        settings: of a recipe, which hold the preset already; None takes the preset's.

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
    if any(option.split("=")[0].split(".")[0] == "boxes" for option in overrides):
        raise ConfigError("--set cannot change boxes; pass --labels-box, --val-box and --test-box.")
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
    given = None if labels is None else "0:1,0:1,0:1"  # until the boxes are known
    values: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "image": {"uri": image} | ({"voxel_size_nm": size} if size else {}),
        "boxes": {"labels": labels_box or given, "val": val_box or given, "test": test_box},
        "query": {"budget": budget},
    }
    if labels is not None:
        values["labels"] = {"uri": labels} | ({"voxel_size_nm": list(label_size)} if label_size else {})
    if source is not None:
        values["source"] = source | ({"voxel_size_nm": size} if size and source["kind"] != "objects" else {})
    values |= preset_settings(preset, task) if settings is None else settings
    values = apply_overrides(values, overrides)
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["segmentation"] = _shapes(config, image_volume) | values.get("segmentation", {})
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["boxes"] = default_boxes(config, image_volume, label_volume, labels_box, val_box, test_box)
    config = parse_config(ProjectConfig, values, source="twostream init")
    if config.source is not None:
        task_ = get_task(config.task, image_volume.voxel_size_nm, config.decoding)
        check_source(config.source, image_volume, task_)
    root.mkdir(parents=True, exist_ok=True)
    (root / LEDGER_NAME).unlink(missing_ok=True)  # of a founding that was killed: without its YAML it is no project's
    Ledger(root / LEDGER_NAME, create=True, task=TASKS[config.task]).close()
    write_text(root / CONFIG_NAME, yaml.safe_dump(_portable(config, None, root), sort_keys=False))
    return _checked(root)


def _portable(config: ProjectConfig, base: Path | None, root: Path) -> dict[str, Any]:
    """Settings as a project in ``root`` stores them; relative paths of ``config`` begin in ``base``, None: here."""
    values = config.model_dump(mode="json")
    for *parents, leaf in LOCATIONS:
        node: Any = values
        for parent in parents:
            node = (node or {}).get(parent)
        if node and node[leaf]:
            node[leaf] = portable_uri(absolute_uri(node[leaf], base), root)
    return values


def _shapes(config: ProjectConfig, image: Volume) -> dict[str, Any]:
    """Crop and window that fit the voxels, for what neither preset nor options say."""
    pixel_size_nm = config.segmentation.max_pixel_size_nm or TASKS[config.task].pixel_size_nm
    return {name: list(shape) for name, shape in shapes_for(image.voxel_size_nm, pixel_size_nm).items()}


def fork_project(source: Project, root: Path, overrides: Sequence[str]) -> Project:
    """A second project that shares round 0 with ``source`` up to what was asked, to compare strategies.

    Args:
        source: a project whose round 0 is scored.
        root: folder to make.
        overrides: ``a.b=value``; only what is ``FREE_IN_FORKS`` may differ, because round 0 is shared.

    Raises:
        ProjectError: round 0 of ``source`` is not ready, or ``root`` holds a project.
        ConfigError: an override that would have changed round 0.
    """
    shared = [step for step in FIRST_STEPS if step not in ("suggest", "answer")]
    done = source.ledger.finished_steps()
    if any((0, step) not in done for step in shared):
        raise ProjectError(f"round 0 of {source.root} is not finished; run `twostream run {source.root}` first.")
    if root.exists() and any(root.iterdir()):
        raise ProjectError(f"{root} is not empty; choose another folder.")
    for option in overrides:
        if not f"{option.split('=')[0].strip()}.".startswith(tuple(f"{name}." for name in FREE_IN_FORKS)):
            raise ConfigError(
                f"--set got {option!r}; a fork shares round 0, so only {', '.join(FREE_IN_FORKS)} may differ."
            )
    values = apply_overrides(source.config.model_dump(mode="json"), overrides)
    config = parse_config(ProjectConfig, values, source="twostream fork")

    def fill(partial: Path) -> None:
        skip = shutil.ignore_patterns("queries.jsonl", "answers.jsonl", "*.partial", "*.resume", "*.writing")
        shutil.copytree(source.round_dir(0), partial / "rounds" / "000", ignore=skip)
        ledger = Ledger(partial / LEDGER_NAME, create=True, task=TASKS[config.task])
        import_round_zero(source.ledger, ledger, shared)
        ledger.close()
        write_text(partial / CONFIG_NAME, yaml.safe_dump(_portable(config, source.root, root), sort_keys=False))
        _checked(partial)

    write_folder(root, fill)
    return Project(root)


def _checked(root: Path) -> Project:
    """The project, or none: a setting that only shows to be wrong on loading leaves no YAML behind."""
    try:
        return Project(root)
    except TwoStreamError:
        (root / CONFIG_NAME).unlink()
        raise


def import_round_zero(source: Ledger, target: Ledger, steps: Sequence[str]) -> None:
    """Copy registration, score and finished steps of round 0 into a new ledger."""
    target.register(0, range(1, source.next_id(1)))
    target.store_score(0, source.scores()[0])
    done = source.finished_steps()
    for step in steps:
        detail = dict(done[(0, step)])
        target.finish_step(0, step, detail.pop("seconds"), detail)


def default_boxes(
    config: ProjectConfig,
    image: Volume,
    labels: Volume | None,
    labels_box: str | None,
    val_box: str | None,
    test_box: str | None,
) -> dict[str, str | None]:
    """The three boxes of a new project: what was given, checked, and defaults for the rest.

    Test box: the last fifth along the axis that is longest in nm (ties: X), where labels cover it. Labels box: the
    labelled extent without test box and guard. Validation box: the last fifth of the labels box along its longest axis.
    Without labels there is none but a test box that was given.

    Raises:
        InputError: a box outside the image, boxes that overlap where they must not, or no foreground to learn from.
    """
    given = {
        name: Box.parse(text) for name, text in (("labels", labels_box), ("val", val_box), ("test", test_box)) if text
    }
    for name, box in given.items():
        if not image.box.contains(box):
            raise InputError(f"--{name}-box {box} reaches outside the image, which holds {image.box} (Z, Y, X voxels).")
    if labels is None:
        return {"labels": None, "val": None, "test": test_box}
    extent = labelled_extent(labels, get_task(config.task, image.voxel_size_nm, config.decoding))
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
    _check_lessons(config, image, labels, box, [val] + ([guarded] if guarded else []))
    return {"labels": str(box), "val": str(val), "test": None if test is None else str(test)}


def _check_lessons(config: ProjectConfig, image: Volume, labels: Volume, box: Box, kept_out: Sequence[Box]) -> None:
    """Raise InputError where nothing is left to train on: no object, or no synapse whose sides belong together."""
    known = labels.read(box)
    taught = np.ones(box.shape_zyx, bool)
    for other in kept_out:
        taught[other.intersection(box).relative_to(box).slices] = False
    if not (known[taught] > 0).any():
        raise InputError(
            f"no foreground of the labels box {box} is left to train on: all of it lies in the validation box "
            f"{kept_out[0]}, or in the test box and its guard. Move or widen --labels-box, or pass --val-box."
        )
    if TASKS[config.task].num_sides == 2:
        gap_nm = _gap_between_sides_nm(known, image.voxel_size_nm)
        if gap_nm > FAR_SIDES_NM:
            raise InputError(
                f"{labels.uri}: the two sides of a synapse lie {gap_nm:.0f} nm apart as a rule; expected the "
                f"presynaptic side of synapse n at 2n-1 and the postsynaptic one beside it at 2n. Are these instance "
                f"labels without polarity?"
            )


def _gap_between_sides_nm(labels: np.ndarray, voxel_size_nm: Sequence[float]) -> float:
    """Median gap between the bounding boxes of 2n-1 and 2n, along the axis where it is widest; 0 without pairs."""
    names, inverse = np.unique(labels, return_inverse=True)
    windows = ndimage.find_objects(inverse.reshape(labels.shape).astype(np.int32) + 1)
    where = dict(zip(names.tolist(), windows, strict=True))
    gaps = [0.0]
    for value in (v for v in where if v > 0 and v % 2 == 1 and v + 1 in where):
        pairs = zip(where[value], where[value + 1], voxel_size_nm, strict=True)
        gaps.append(max((max(a.start, b.start) - min(a.stop, b.stop)) * size for a, b, size in pairs))
    return float(np.median(gaps[1:] or gaps))


def labelled_extent(labels: Volume, task: Task) -> Box | None:
    """Bounding box of the foreground, read in slabs; None without any.

    Raises:
        InputError: values that are no labels of the task.
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


def _source(**uris: str | None) -> dict[str, Any] | None:
    """The one source among ``uris`` by kind, None without any.

    Raises:
        InputError: more than one.
    """
    given = {kind: uri for kind, uri in uris.items() if uri is not None}
    if len(given) > 1:
        raise InputError(
            f"{' and '.join(f'--{kind}' for kind in given)} came together; one source stands in place of S. Choose one."
        )
    return next(({"kind": kind, "uri": uri} for kind, uri in given.items()), None)


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
