"""Settings that must not change after round 0, and the copy of the settings that every round keeps.

Knows settings and their copies; must not know what is computed from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from twostream.base.config import parse_config
from twostream.base.errors import ProjectError
from twostream.project.settings import LOCATIONS, ProjectConfig
from twostream.volume.uri import Uri

SETTINGS_NAME = "config.yaml"
"""File of a round that holds its settings and the versions of the packages."""
FROZEN = (
    "task",
    "source",
    "model.sha256",
    "boxes",
    "patches",
    "image.window",
    "labels.kind",
    "labels.ignore_value",
    "labels.radius_nm",
    "labels.rim_nm",
    "labels.columns",
    "labels.table_resolution_nm",
    "labels.list_order",
    "decoding.channels",
    "segmentation.filters",
    "segmentation.max_pixel_size_nm",
    "segmentation.sections",
    "segmentation.exclusive",
    "streams.supervised",
    "streams.unsupervised",
)
"""Settings that must not change after round 0: scores could not be compared, or stored patches would not fit the
streams."""


def read_settings(path: Path) -> ProjectConfig:
    """The settings that a round has kept.

    Older versions may lack new settings, which take their defaults, and hold removed ones, which are dropped.

    Raises:
        ConfigError: a value is no longer valid.
        ProjectError: the file cannot be read.
    """
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))["config"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ProjectError(f"{path} is missing or damaged ({' '.join(str(error).split())}).") from None
    return parse_config(ProjectConfig, _known(stored, ProjectConfig), source=str(path))


def check_frozen(config: ProjectConfig, first: ProjectConfig, *, now: str, then: str) -> None:
    """Compare settings with those of round 0.

    Args:
        config: settings of the project.
        first: settings of round 0.
        now, then: the two files, for the error message.

    Raises:
        ProjectError: a setting of ``FROZEN`` has changed since round 0.
    """
    current, before = config.model_dump(mode="json"), first.model_dump(mode="json")
    for settings in (before, current):
        for *parents, leaf in LOCATIONS:  # data may move to another folder, but not change its name
            node: Any = settings
            for parent in parents:
                node = (node or {}).get(parent)
            if node and node[leaf]:
                node[leaf] = Uri.parse(node[leaf]).short
    for key in FROZEN:
        was: Any = before
        is_now: Any = current
        for part in key.split("."):
            was, is_now = (was or {}).get(part), (is_now or {}).get(part)
        if was != is_now:
            name, was, is_now = _difference(key, was, is_now)
            raise ProjectError(
                f"{name} in {now} is {is_now}, but round 0 was made with {was} ({then}); "
                f"it is frozen, so that rounds can be compared. "
                f"Change it back, or make a new project with `twostream init`."
            )


def _known(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """``values`` without the settings that ``model`` lacks, at every level."""
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key in model.model_fields:
            annotation = model.model_fields[key].annotation
            types = (annotation, *get_args(annotation))
            inner = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
            known[key] = _known(value, inner) if inner and isinstance(value, dict) else value
    return known


def _difference(name: str, was: Any, is_now: Any) -> tuple[str, Any, Any]:
    """Full name, old value and new value of the first setting that differs, at any level."""
    while isinstance(was, dict) and isinstance(is_now, dict):
        key = next(key for key in is_now if was.get(key) != is_now[key])
        name, was, is_now = f"{name}.{key}", was.get(key), is_now[key]
    return name, was, is_now
