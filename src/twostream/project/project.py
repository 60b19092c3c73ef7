"""The project folder: its inputs, its files, its lock, and which step of which round is next.

Knows files and settings; must not import torch, not even through other modules, so that a project can be read and its
queries answered on any laptop. How a project is made is in ``create.py``.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from twostream.base import program, progress
from twostream.base.atomic import free_name, write_text
from twostream.base.config import apply_overrides, parse_config, read_yaml
from twostream.base.errors import ConfigError, InputError, LedgerError, ProjectError, TwoStreamError
from twostream.base.geometry import Box
from twostream.candidates.label_scan import LabelKind
from twostream.candidates.labels import Labels, LabelsConfig, open_labels
from twostream.candidates.objects import is_table
from twostream.candidates.sources import SourceConfig
from twostream.candidates.stored import StoredCandidates
from twostream.project.answer_log import ANSWERS_NAME
from twostream.project.boxes import Boxes, guard_voxels
from twostream.project.frozen import SETTINGS_NAME, check_frozen, read_settings
from twostream.project.ledger import Ledger
from twostream.project.lock import locked
from twostream.project.settings import ProjectConfig
from twostream.query import Strategy, get_strategy
from twostream.task import TASKS, Task, get_task
from twostream.volume import Volume
from twostream.volume.execution import Executor, InProcess
from twostream.volume.grey import open_grey
from twostream.volume.uri import Uri, absolute_uri

Detail = dict[str, Any]
"""What the ledger records of a finished step, as plain values: {name: value}."""
CONFIG_NAME = "twostream.yaml"
LEDGER_NAME = "ledger.sqlite"
FIRST_STEPS = ("train", "predict", "propose", "embed", "score", "suggest", "answer")
LATER_STEPS = ("refit", *FIRST_STEPS[1:])


class Project:
    """An existing project.

    Args:
        root: the folder that holds ``twostream.yaml``.

    Attributes:
        executor: runs the blocks of the project's volumes; in this process, unless it is set.
        memory_limit: bytes that each process may hold while it computes blocks; None: as many as a block needs.

    Raises:
        ProjectError: no project there.
        ConfigError: its YAML is not valid.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.executor: Executor = InProcess()
        self.memory_limit: int | None = None
        path = root / CONFIG_NAME
        if not path.is_file() or not path.read_bytes().strip(b"\0 \n"):
            if holds_work(root):
                raise ProjectError(
                    f"{path} is missing or empty, but {root} holds a ledger or rounds; "
                    f"`{self.command('repair')}` writes it again."
                )
            raise ProjectError(
                f"{root} holds no {CONFIG_NAME}; make a project with `twostream init {shlex.quote(str(root))} "
                f"--image URI --labels URI --task NAME`."
            )
        try:
            values = read_yaml(path.read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path} holds {type(values).__name__}; expected settings by name (key: value).")
        self.config = parse_config(ProjectConfig, values, source=str(path))
        # Refuse a malformed box or strategy now, not in the middle of a round.
        _ = self.boxes
        self.strategy(seed=0)

    # -- inputs ---------------------------------------------------------------------------------------------------

    @cached_property
    def image(self) -> Volume:
        """The image, (Z, Y, X) uint8.

        Raises:
            ProjectError: it is not where the settings say.
            InputError: it cannot be read, or does not hold grey values.
        """
        image = self.config.image
        return open_grey(self.locate("image", image.uri), image.voxel_size_nm, image.window)

    @cached_property
    def task(self) -> Task:
        """The task, at the voxel size of the image."""
        return get_task(self.config.task, self.image.voxel_size_nm, self.config.decoding)

    @cached_property
    def _labels(self) -> Labels | None:
        """The labels as they were understood when the project was made; None if it has none."""
        stored = self.config.labels
        if stored is None:
            return None
        usual: LabelKind = "points" if is_table(stored.uri) else "instances"
        found = {"uri": self.locate("labels", stored.uri), "kind": stored.kind or usual}
        found |= {"post": self.locate("labels.post", stored.post)} if stored.post else {}
        return self._open_labels(stored.model_copy(update=found))

    @property
    def labels(self) -> Volume:
        """The labels, (Z, Y, X) integers in the task's label convention, with the extent of the image.

        Raises:
            ProjectError: the project has none, which is possible with a source in place of S.
            InputError: they cannot be read, or do not fit the image.
        """
        if self._labels is None:
            raise ProjectError(
                f"{self.root} has no labels: it was made with a source in place of S, or with a finished model."
            )
        return self._labels.volume

    @property
    def labels_ignore(self) -> Volume | None:
        """(Z, Y, X), non-zero where labels count neither as object nor as background; None if there is no such mask."""
        return None if self._labels is None else self._labels.ignore

    @cached_property
    def source(self) -> SourceConfig | None:
        """The source in place of S, with an absolute URI; None if S is trained."""
        source = self.config.source
        return source and source.model_copy(update={"uri": self.locate("source", source.uri)})

    def locate(self, name: str, uri: str) -> str:
        """The absolute form of a stored URI.

        Args:
            name: "image", "labels", or another name for the error message.
            uri: a URI of the settings; a relative path starts at the project's folder.

        Raises:
            ProjectError: there is no such file. The message says how to tell the project where the file is now.
        """
        found = absolute_uri(uri, self.root)
        parsed = Uri.parse(found)
        if parsed.is_path and not Path(parsed.path).exists():
            by_command = f"`{self.command('run', f'--{name}', 'URI')}`"
            where = f"{name}.uri in {self.root / CONFIG_NAME} (a relative path starts at {self.root})"
            where = by_command if name in ("image", "labels") else where
            raise ProjectError(
                f"{self.root} finds no {name} at {parsed.path}. If it was moved, say where it is now: {where}."
            )
        return found

    def locate_file(self, path: str) -> str:
        """The absolute form of a stored path, whether or not a file is there yet.

        A relative path starts at the project's folder. Projects of older versions meant the working directory: if only
        that file exists, it is taken, and a line says so.
        """
        found, older = absolute_uri(path, self.root), absolute_uri(path)
        if Path(found).exists() or not Path(older).exists():
            return found
        progress.say(f"  {path} is read from the working directory, {older}: nothing of that name is in {self.root}")
        return older

    def open_moved(self, name: str, uri: str) -> Volume:
        """The image or the labels at another URI, opened as the project opens them."""
        if name == "image":
            return open_grey(uri, self.config.image.voxel_size_nm, self.config.image.window)
        assert self.config.labels is not None
        return self._open_labels(self.config.labels.model_copy(update={"uri": uri})).volume

    def open_truth(self, uri: str) -> Labels:
        """Open labels that must fit the image, and find out what their values mean.

        Args:
            uri: of the labels. If their file states no voxel size, they have that of the image.

        Raises:
            InputError: they cannot be read, do not fit the image, or are no labels.
        """
        stored, told = self.config.labels, LabelsConfig(uri=uri)
        if stored and is_table(uri):
            told = stored.model_copy(update={"uri": uri}) if stored.kind == "points" else told
        elif stored:
            told = LabelsConfig(uri=uri, ignore_value=stored.ignore_value)
        return self._open_labels(told)

    def _open_labels(self, config: LabelsConfig) -> Labels:
        return open_labels(config, self.image, self.task, self.min_voxels)

    @cached_property
    def boxes(self) -> Boxes:
        """Labels boxes, validation box and test box.

        Raises:
            ConfigError: one of them is not written as Z0:Z1,Y0:Y1,X0:X1, or they contradict each other.
        """
        try:
            return Boxes.of(self.config.boxes)
        except InputError as error:
            raise ConfigError(f"{self.root / CONFIG_NAME}: boxes: {error}") from None

    def strategy(self, seed: int) -> Strategy:
        """The configured strategy.

        Two-stream without ``num_clusters`` gets sqrt(budget) fine clusters per coarse cluster, at most 10, and as many
        coarse clusters as the budget then allows.

        Args:
            seed: of the strategy.

        Raises:
            ConfigError: there is no such strategy, or it does not have such a setting.
        """
        config = self.config.query
        settings = dict(config.settings)
        if config.strategy == "two-stream" and "num_clusters" not in settings:
            fine = max(1, min(10, round(math.sqrt(config.budget))))
            settings["num_clusters"] = (max(1, config.budget // fine), fine)
        try:
            return get_strategy(config.strategy, settings, random_state=seed)
        except InputError as error:
            raise ConfigError(f"{self.root / CONFIG_NAME}: query: {error}") from None

    @property
    def pixel_size_nm(self) -> float:
        """Size of a patch pixel in nm."""
        return self.config.patches.pixel_size_nm or TASKS[self.config.task].patch_pixel_size_nm

    @property
    def min_voxels(self) -> int:
        """Number of voxels of the smallest candidate that is kept, at least 1."""
        configured = self.config.candidates.min_object_nm3
        min_nm3 = self.task.min_object_nm3 if configured is None else configured
        return max(1, round(min_nm3 / float(np.prod(self.image.voxel_size_nm))))

    @cached_property
    def guarded_box(self) -> Box | None:
        """The test box with its guard; candidates that touch it are neither asked about nor learned from."""
        test = self.boxes.test
        return None if test is None else test.grown(guard_voxels(self.config, self.image.voxel_size_nm))

    @cached_property
    def leaves_nothing_to_ask(self) -> bool:
        """Whether the labels boxes and the guarded test box cover the whole image."""
        return bool(self.boxes.labels) and self.boxes.cover(self.image.box, self.guarded_box)

    # -- layout ---------------------------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """The project's ledger.

        Raises:
            LedgerError: the file is missing, damaged or locked, or was written by a newer version.
            ProjectError: it belongs to another project than ``twostream.yaml``.
        """
        stated = self.config.id
        path = self.root / LEDGER_NAME
        ledger = Ledger(
            path,
            image_box=self._image_box,
            task=TASKS[self.config.task],
            project_id=stated,
            answers_path=self.root / ANSWERS_NAME,
            advice=f"`{self.command('repair')}` restores it from the copies in {self.root / 'rounds'}.",
        )
        if stated and stated != ledger.project_id:
            ledger.close()
            raise ProjectError(
                f"{self.root / CONFIG_NAME} belongs to project {stated}, but {path} to {ledger.project_id}: one "
                f"of them was copied from another folder. Put back the file that belongs here."
            )
        return ledger

    @property
    def id(self) -> str:
        """Id of the project, the same in its settings and its ledger; every exported table carries it."""
        return self.ledger.project_id

    def _image_box(self) -> Box | None:
        """Extent of the image; None if the image cannot be read, because answers must be accepted without it."""
        try:
            return self.image.box
        except TwoStreamError:
            return None

    def round_dir(self, round_number: int) -> Path:
        """Folder of a round."""
        return self.root / "rounds" / f"{round_number:03d}"

    def path(self, round_number: int, name: str) -> Path:
        """Path of a file of a round, for example of ``candidates.parquet``."""
        return self.round_dir(round_number) / name

    def candidates(self, round_number: int) -> StoredCandidates:
        """The candidates of a round, faint ones too, in the order of their table; masks stay in the file.

        Raises:
            InputError: there is no table, or it is damaged.
        """
        return StoredCandidates.open(self.path(round_number, "candidates.parquet"))

    def seed(self, round_number: int, purpose: str) -> int:
        """A seed that depends on the project's seed, the round and the purpose, and on nothing else."""
        words = [self.config.seed, round_number, zlib.crc32(purpose.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def command(self, name: str, *options: str) -> str:
        """The command ``twostream NAME PROJECT OPTIONS``, quoted so that it can be pasted into a shell."""
        return program.command(name, self.root, *options)

    # -- state ----------------------------------------------------------------------------------------------------

    def next_step(self) -> tuple[int, str]:
        """(round, name) of the first step that is not done."""
        done = self.ledger.finished_steps()
        round_number = 0
        while True:
            for step in FIRST_STEPS if round_number == 0 else LATER_STEPS:
                if (round_number, step) not in done:
                    return round_number, step
            round_number += 1

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from running steps, see ``lock.locked``."""
        return locked(self.root)

    def rewrite(self, changes: Mapping[str, Any]) -> Path:
        """Change settings in ``twostream.yaml``; the previous file is kept as ``twostream.yaml.old``, or, where there
        is one already, as ``twostream.yaml.old.2`` and so on.

        Args:
            changes: {"a.b": value}.

        Returns:
            Path of the previous file.

        Raises:
            ConfigError: a key or a value is not valid. Nothing is written then.
        """
        path = self.root / CONFIG_NAME
        text = path.read_text(encoding="utf-8")
        options = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        values = apply_overrides(read_yaml(text, str(path)), options)
        self.config = parse_config(ProjectConfig, values, source=str(path))
        kept = free_name(path, "old")
        write_text(kept, text)
        write_text(path, yaml.safe_dump(values, sort_keys=False))
        for name in ("image", "task", "labels", "labels_ignore", "guarded_box", "leaves_nothing_to_ask"):
            self.__dict__.pop(name, None)
        return kept

    def check_frozen(self) -> None:
        """Compare the settings with those of round 0.

        Raises:
            ProjectError: a setting that is frozen has changed since round 0.
        """
        first = self.path(0, SETTINGS_NAME)
        if first.exists():
            check_frozen(self.config, read_settings(first), now=str(self.root / CONFIG_NAME), then=str(first))

    def open_round(self, round_number: int) -> None:
        """Make the folder of a round, and write ``config.yaml``: its settings and the versions of the packages.

        Raises:
            ProjectError: a setting that is frozen has changed since round 0.
        """
        self.check_frozen()
        directory = self.round_dir(round_number)
        directory.mkdir(parents=True, exist_ok=True)
        resolved = {"config": self.config.model_dump(mode="json"), "round": round_number, "versions": versions()}
        write_text(directory / SETTINGS_NAME, yaml.safe_dump(resolved, sort_keys=False))


def holds_work(root: Path) -> bool:
    """Whether a folder holds a ledger in which something is recorded, or is damaged; or rounds, or answers.

    All of them are missing, or the ledger is new, where `init` has not ended.
    """
    path = root / LEDGER_NAME
    if any(root.glob("rounds/*")) or (root / ANSWERS_NAME).exists():
        return True
    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        ledger = Ledger(path)
    except LedgerError:
        return True
    untouched = ledger.is_untouched()
    ledger.close()
    return not untouched


def versions() -> dict[str, str]:
    """Versions of Python and of the packages on which results depend."""
    packages = ("twostream-connectomics", "torch", "monai", "lightning", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
