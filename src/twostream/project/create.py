"""Making a project from volumes and boxes, or as a fork of another project.

All inputs are checked here, so that an error shows before anything has been trained or asked.

Knows volumes, settings and the folder; must not import torch.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from twostream.base import progress
from twostream.base.atomic import write_folder, write_text
from twostream.base.config import apply_overrides, parse_config
from twostream.base.errors import ConfigError, InputError, ProjectError, TwoStreamError
from twostream.candidates.label_scan import LabelKind
from twostream.candidates.labels import Labels
from twostream.candidates.objects import TableConfig
from twostream.candidates.sources import check_source
from twostream.models.segmentation.config import shapes_for
from twostream.project.boxes import Boxes, default_boxes
from twostream.project.database import new_project_id
from twostream.project.encoders import check_encoders
from twostream.project.fingerprint import INPUTS, fact_of, state_inputs
from twostream.project.frozen import SETTINGS_NAME
from twostream.project.inputs import Given, Inputs, read_inputs
from twostream.project.ledger import Ledger
from twostream.project.model_start import settings_of_model
from twostream.project.project import CONFIG_NAME, FIRST_STEPS, LEDGER_NAME, Project, holds_work
from twostream.project.settings import LOCATIONS, PRESETS, ProjectConfig, preset_settings
from twostream.task import TASKS, get_task
from twostream.volume import Volume
from twostream.volume.uri import absolute_uri, portable_uri

FREE_IN_FORKS = ("query", "refit", "annotator", "rounds", "streams.active_clustering")
"""Settings that a fork may change, because round 0 does not depend on them until it asks."""


def create_project(
    root: Path,
    *,
    task: str,
    image: str,
    labels: str | None = None,
    labels_post: str | None = None,
    labels_kind: LabelKind | None = None,
    ignore_value: int | None = None,
    window: Sequence[float] | None = None,
    probability: str | None = None,
    segmentation: str | None = None,
    objects: str | None = None,
    model: Path | None = None,
    voxel_size_nm: Sequence[float] | None = None,
    labels_box: str | Sequence[str] | None = None,
    val_box: str | None = None,
    test_box: str | None = None,
    preset: str = "laptop",
    seed: int = 0,
    budget: int = 50,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    on_inputs: Callable[[Inputs], object] | None = None,
) -> Project:
    """Make a project.

    Args:
        root: folder to make; must not hold a project.
        task: "polarity", "cleft" or "mitochondria".
        image: URI of the image, (Z, Y, X) grey values.
        labels: URI of the labels; may be None only with a source or a model. They have the extent of the image, or say
            where they lie in it; or they are a table of points on both sides of synapses.
        labels_post: URI of the postsynaptic side, if the two sides of synapses are two volumes.
        labels_kind: "instances", "mask", "sides" or "points"; None finds it out.
        ignore_value: value of voxels that count neither as object nor as background.
        window: (low, high) grey values that are shown as 0 and 255; None finds them out where the image does not hold
            8 bits.
        probability, segmentation, objects: URI of a source that replaces S, see ``candidates/sources.py``; at most one.
        model: ``card.json`` of a finished model, or its folder: the S of round 0 in a project without labels.
        voxel_size_nm: (z, y, x) nm, for files that do not state it.
        labels_box, val_box, test_box: "Z0:Z1,Y0:Y1,X0:X1" in voxels of the image, ``labels_box`` also several such
            texts; None takes ``default_boxes``.
        preset: "laptop" or "paper".
        seed: of everything random.
        budget: answers per round.
        overrides: settings as "a.b=value"; they override everything else except the boxes.
        settings: settings of a recipe, which include the preset; None takes those of ``preset``.
        on_inputs: called with image and labels as they were understood, before anything is written.

    Raises:
        InputError: a volume or box cannot be used, or two of them contradict each other.
        ConfigError: a setting is unknown, or its value is out of range.
        ProjectError: ``root`` holds a project already.
    """
    _check_options(root, preset, overrides)
    size = None if voxel_size_nm is None else [float(v) for v in voxel_size_nm]
    source = _source(probability=probability, segmentation=segmentation, objects=objects)
    if model is not None and (labels is not None or source is not None):
        raise InputError(
            "--model is the S of a project without labels; leave out --labels, and the options that replace S. To "
            "train S on labels, leave out --model."
        )
    if labels is None and (labels_box or val_box):
        advice = "leave them out, as --model has no labels" if model is not None else "pass --labels URI"
        raise InputError(f"--labels-box and --val-box are regions of labels, but there are none; {advice}.")
    given = Given(image, labels, labels_post, size, window, labels_kind, ignore_value, _label_settings(overrides))
    inputs = read_inputs(given, task)
    if on_inputs is not None:
        on_inputs(inputs)
    values: dict[str, Any] = {"id": new_project_id(), "task": task, "seed": seed, "query": {"budget": budget}}
    values |= inputs.settings
    if source is not None:
        values["source"] = source | ({"voxel_size_nm": size} if size and source["kind"] != "objects" else {})
    values |= preset_settings(preset, task) if settings is None else settings
    if model is not None:
        values |= settings_of_model(model, task, inputs.image)
    several = (labels_box,) if isinstance(labels_box, str) else tuple(labels_box or ())
    boxes = {"labels": several or None, "val": val_box, "test": test_box}
    label_volume = inputs.labels.volume if inputs.labels else None
    config = _complete(apply_overrides(values, overrides), inputs.image, label_volume, boxes)
    if inputs.labels is not None:
        _check_covered(config, inputs.labels)
    if config.source is not None:
        task_ = get_task(config.task, inputs.image.voxel_size_nm, config.decoding)
        for line in check_source(config.source, inputs.image, task_):
            progress.say(line)
    config = check_encoders(config)
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
        settings = first / SETTINGS_NAME
        kept = yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.exists() else {"round": 0}
        write_text(settings, yaml.safe_dump(kept | {"config": values}, sort_keys=False))
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


def _label_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """What ``overrides`` say about a table of points, which must be known before it is read."""
    told = apply_overrides({}, overrides).get("labels")
    names = ("radius_nm", "rim_nm", *TableConfig.model_fields)
    return {name: told[name] for name in names if name in told} if isinstance(told, dict) else {}


def _check_covered(config: ProjectConfig, labels: Labels) -> None:
    """Raise InputError if a labels box reaches beyond what the labels say: there, nothing is known."""
    for box in Boxes.of(config.boxes).labels:
        if not labels.covered.contains(box):
            raise InputError(
                f"labels box {box} reaches beyond {labels.volume.uri}, which covers {labels.covered} (Z, Y, X voxels "
                f"of the image); outside of it nothing is known. Choose a box inside."
            )


def _complete(
    values: Mapping[str, Any], image: Volume, labels: Volume | None, boxes: Mapping[str, Any]
) -> ProjectConfig:
    """Checked settings of a new project: ``values``, crop shapes that fit its voxels, and its boxes.

    Args:
        values: settings by name, without boxes.
        image, labels: the volumes.
        boxes: {"labels", "val", "test"}: boxes as given by the user, labels boxes as a tuple; None takes the default.
    """
    # Default boxes depend on checked settings, and settings are checked only together with boxes: placeholders first.
    placeholder = None if labels is None else "0:1,0:1,0:1"
    stand_in = {"labels": placeholder, "val": placeholder, "test": None}
    values = dict(values) | {"boxes": {name: text or stand_in[name] for name, text in boxes.items()}}
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["segmentation"] = _crop_shapes(config, image) | values.get("segmentation", {})
    config = parse_config(ProjectConfig, values, source="twostream init")
    values["boxes"] = default_boxes(
        config, image, labels, labels_boxes=boxes["labels"] or (), val_box=boxes["val"], test_box=boxes["test"]
    ).settings
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
