"""The base class of all settings, and the error messages for settings that are wrong.

Settings are immutable pydantic models; an unknown key is an error that names the nearest valid key. Each settings class
is defined in the module that it configures, and ``project/settings.py`` combines them into one.

Knows pydantic and YAML; must not know any particular setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from twostream.base.errors import ConfigError


class Config(BaseModel):
    """Base class of all settings: immutable; unknown keys, infinity and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_unexpected_bool(cls, value: Any, info: ValidationInfo) -> Any:
        # Without this check pydantic would read `true` as the number 1.
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else bool
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError(f"expected a number, name or list; got {str(value).lower()}")
        return value


AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse_config(model: type[AnyConfig], values: Mapping[str, Any], *, source: str) -> AnyConfig:
    """Build the settings ``model`` from ``values``.

    Args:
        model: the settings class.
        values: nested mapping, as read from YAML.
        source: where the values come from, for example the path of the YAML file; error messages begin with it.

    Returns:
        An instance of ``model``.

    Raises:
        ConfigError: a key is unknown (the message names the nearest valid one) or missing, or a value has the wrong
            type or is out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe_error(model, item, source) for item in error.errors())) from None


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                raise ConfigError(f"the key {key.value} stands in line {lines[key.value]} and in line {line}; keep one")
        return super().construct_mapping(node, deep)


def read_yaml(text: str, source: str) -> Any:
    """The plain values of a YAML text.

    Args:
        text: of a file that a person may have written.
        source: path of the file, for errors.

    Raises:
        ConfigError: it is not YAML, or a key stands twice in one place.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}.") from None


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set single values in a nested mapping, as the option ``--set a.b=value`` does.

    Args:
        values: nested mapping; not changed.
        overrides: texts of the form ``a.b=value``; the value is parsed as YAML. Missing keys are created.

    Returns:
        A copy of ``values`` with the overrides applied.

    Raises:
        ConfigError: an override has no key or no ``=``, its value is not valid YAML, or it addresses a key below one
            that holds a plain value.
    """
    result = _copy_mappings(values)
    for option in overrides:
        key, separator, text = option.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set got {option!r}; expected KEY=VALUE, for example query.budget=20.")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set got {option!r}, but {parent} is {child!r}, a value without keys below it.")
            node = child
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set got {option!r}; its value is not valid YAML.") from None
    return result


def _copy_mappings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy_mappings(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _describe_error(model: type[BaseModel], error: Any, source: str) -> str:
    """One pydantic error as a sentence for the user."""
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
    if error["type"] == "value_error" and isinstance(error.get("input"), dict):  # two settings contradict each other
        return f"{source}: {key + ': ' if key else ''}{error['ctx']['error']}."
    if error["type"] == "value_error" and not path:
        return f"{source}: {error['ctx']['error']}."
    if error["type"] == "value_error":
        return f"{source}: {key}: {error['ctx']['error']}."
    return f"{source}: {key} is {error.get('input')!r}; {error['msg']}."


def _valid_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the settings that may stand below the key ``path``."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
