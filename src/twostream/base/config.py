"""What every configuration has in common: frozen, strict, and helpful about typing errors.

Knows pydantic and YAML; must not know any particular setting. The settings themselves stand beside
what they configure and are composed in ``project.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from twostream.base.errors import ConfigError


class Config(BaseModel):
    """Base of all settings: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else bool
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError(
                f"{str(value).lower()} came; it takes neither true nor false, but a number, a name or a list"
            )
        return value


AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse_config(model: type[AnyConfig], values: Mapping[str, Any], *, source: str) -> AnyConfig:
    """Check ``values`` against ``model``.

    Args:
        model: the settings class.
        values: nested mapping, as read from YAML.
        source: where the values come from; opens the error message.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named) or a value out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(model, item, source) for item in error.errors())) from None


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Lay ``a.b=value`` options over nested ``values``; the value is read as YAML.

    Raises:
        ConfigError: an option without ``=``, or one that goes through a key that holds no mapping.
    """
    result = _deep_copy(values)
    for option in overrides:
        key, separator, text = option.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set got {option!r}; expected KEY=VALUE, for example query.budget=20.")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set got {option!r}, but {parent} holds {child!r} and has no keys below it.")
            node = child
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set got {option!r}; its value is not valid YAML.") from None
    return result


def _deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _deep_copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _sentence(model: type[BaseModel], error: Any, source: str) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        valid = _valid_keys(model, path[:-1])
        nearest = difflib.get_close_matches(path[-1], valid, n=1, cutoff=0.0)
        prefix = ".".join(path[:-1] + nearest[:1])
        choices = ", ".join(sorted(valid))
        return f"{source}: unknown key {key!r}; the nearest valid one is {prefix!r} (valid here: {choices})."
    if error["type"] == "missing" and path[-1].isdigit():
        return f"{source}: {'.'.join(path[:-1])} has {path[-1]} values; one more is needed."
    if error["type"] == "missing":
        return f"{source}: {key} is missing; add it."
    if error["type"] == "value_error" and isinstance(error.get("input"), dict):  # settings that clash with each other
        return f"{source}: {key + ': ' if key else ''}{error['ctx']['error']}."
    if error["type"] == "value_error" and not path:
        return f"{source}: {error['ctx']['error']}."
    if error["type"] == "value_error":
        return f"{source}: {key}: {error['ctx']['error']}."
    return f"{source}: {key} is {error.get('input')!r}; {error['msg']}."


def _valid_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
