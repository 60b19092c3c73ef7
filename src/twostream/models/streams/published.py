"""Settings of the VAEs from configuration files of PyTorch Connectomics, read as they were published.

``twostream init --vae-config FILE`` translates such files into settings of a project: the ``TWOSTREAM:`` block, and of
the other blocks what has a counterpart here. Every key is accounted for by one line: read, merged, the published
default, as it is here anyway, or not used. A value that contradicts what this package can do is refused.

Knows YAML and the names of our settings; must not know torch or projects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveInt

from twostream.base.config import Config, parse_config, read_yaml
from twostream.base.errors import ConfigError


class PublishedVae(Config):
    """The ``TWOSTREAM:`` block; names and defaults are those of the published code (docs/method.md, VAE).

    Attributes:
        IMAGE_VAE: true: a VAE on raw images (unsupervised stream); false: on masks (supervised stream).
        LABEL_TYPE: of masks. "syn": synapses, with odd labels for presynaptic and even labels for postsynaptic sides;
            or "seg".
        LATENT_DIM: number of features per patch.
        HIDDEN_DIMS: channels of the encoder's stride-2 blocks.
        WIDTH: side of a patch in pixels.
        KLD_WEIGHT: weight of the KL divergence, relative to the mean squared error.
    """

    IMAGE_VAE: bool
    LABEL_TYPE: Literal["syn", "seg"] = "syn"
    LATENT_DIM: int = Field(512, ge=1)
    HIDDEN_DIMS: tuple[PositiveInt, ...] = Field((32, 64, 128, 256, 256, 512), min_length=1)
    WIDTH: int = Field(128, ge=8)
    KLD_WEIGHT: float = Field(1e-4, ge=0)

    @property
    def stream(self) -> str:
        """Name of the stream that the VAE belongs to."""
        return "unsupervised" if self.IMAGE_VAE else "supervised"


NETWORK = {"LATENT_DIM": "latent_dim", "HIDDEN_DIMS": "hidden_dims", "KLD_WEIGHT": "kld_weight"}
"""{key of the ``TWOSTREAM:`` block: setting of the stream}."""
TRAINING = {
    "SYSTEM.NUM_GPUS": "devices", "SOLVER.BASE_LR": "learning_rate", "SOLVER.ITERATION_TOTAL": "num_steps",
    "SOLVER.SAMPLES_PER_BATCH": "batch_size", "SOLVER.WEIGHT_DECAY": "weight_decay",
    "SOLVER.WARMUP_ITERS": "warmup_steps",
}  # fmt: skip
"""{key of another block: setting of the stream}."""
AS_HERE: dict[str, Any] = {
    "MODEL.ACT_MODE": "silu", "MODEL.NORM_MODE": "gn", "MODEL.IN_PLANES": 1, "SOLVER.NAME": "AdamW",
    "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.ITERATION_STEP": 1, "DATASET.MATCH_ACT": "tanh",
    "DATASET.DO_2D": True, "DATASET.PAD_SIZE": [0, 0, 0],
}  # fmt: skip
"""{key of another block: the only value that the streams here can have}."""
SHAPES = ("MODEL.INPUT_SIZE", "MODEL.OUTPUT_SIZE")
WARMUP_STEPS = 1000
"""The published default of ``SOLVER.WARMUP_ITERS``."""


@dataclass
class Reading:
    """What published files say of the streams.

    Attributes:
        overrides: settings as on the command line, such as "streams.supervised.latent_dim=16".
        lines: one sentence for every key, and for every value that no file states.
    """

    overrides: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Add a line, unless it is there already: a base file is read for both streams."""
        if line not in self.lines:
            self.lines.append(line)

    def take(self, setting: str, value: Any, line: str) -> None:
        """Override ``setting`` and say why."""
        self.overrides.append(f"{setting}={_written(value)}")
        self.say(f"{line} -> {setting}")


@dataclass(frozen=True)
class _Stated:
    """What one VAE's file states, on top of its base file.

    Attributes:
        path: file of the VAE.
        values: {"BLOCK.KEY": (value, file that states it)}.
    """

    path: Path
    values: Mapping[str, tuple[Any, Path]]

    def has(self, key: str) -> bool:
        return key in self.values


def read_published(paths: Sequence[Path], task: str, preset: Mapping[str, Any]) -> Reading:
    """Translate published configurations into settings of a project.

    Args:
        paths: in any order: a file for each stream or for one of them, and at most one base file, which states no
            IMAGE_VAE and holds for both where their own files say nothing.
        task: the project's task, to which the LABEL_TYPE of masks must fit.
        preset: settings of the project without these files. What they say of a VAE stands where no file says anything;
            otherwise the published defaults are taken, but for HIDDEN_DIMS, which must then be stated.

    Raises:
        ConfigError: a file is missing or not YAML, or has no ``TWOSTREAM:`` block; a key of this block or a value is
            not valid; two files are for the same stream, or none is for any; they have different WIDTHs, contradict the
            task or what the streams here can do; or HIDDEN_DIMS is not known.
    """
    stated = _merged(paths)
    blocks = [_block(one) for one in stated]
    _check_pair(stated, blocks)
    reading = Reading()
    for one, block in zip(stated, blocks, strict=True):
        _read_network(reading, one, block, task, preset)
        _read_others(reading, one, block, preset)
    for stream in {"supervised", "unsupervised"} - {block.stream for block in blocks}:
        reading.say(f"no file is for the {stream} stream: it stays as the preset has it")
    return reading


def _flat(path: Path) -> dict[str, Any]:
    """{"BLOCK.KEY": value} of one file.

    Raises:
        ConfigError: it is missing or not YAML, or has no ``TWOSTREAM:`` block.
    """
    try:
        values = read_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}.") from None
    if not isinstance(values, dict) or not isinstance(values.get("TWOSTREAM"), dict):
        raise ConfigError(f"{path} has no TWOSTREAM: block; pass the configuration of a VAE of PyTorch Connectomics.")
    flat: dict[str, Any] = {}
    for name, block in values.items():
        flat |= {f"{name}.{key}": value for key, value in block.items()} if isinstance(block, dict) else {name: block}
    return flat


def _merged(paths: Sequence[Path]) -> list[_Stated]:
    """What each VAE's file states, with the base file below it."""
    repeated = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if repeated is not None:
        raise ConfigError(f"{repeated} is passed twice; pass one file for each stream, and their base file once.")
    files = {path: _flat(path) for path in paths}
    bases = [path for path, flat in files.items() if flat.get("TWOSTREAM.IMAGE_VAE") is None]
    if len(bases) > 1:
        raise ConfigError(f"{bases[0]} and {bases[1]} both state no IMAGE_VAE; only one base file can be passed.")
    if len(bases) == len(paths):
        raise ConfigError(
            f"{bases[0]} states no IMAGE_VAE, so it is a base file and for neither stream; pass the file of the image "
            f"VAE or of the mask VAE as well."
        )
    below = {key: (value, base) for base in bases for key, value in files[base].items()}
    return [
        _Stated(path, below | {key: (value, path) for key, value in flat.items()})
        for path, flat in files.items()
        if path not in bases
    ]


def _block(one: _Stated) -> PublishedVae:
    """The ``TWOSTREAM:`` block, checked; empty values are the published defaults."""
    values = {key.removeprefix("TWOSTREAM."): v for key, (v, _) in one.values.items() if key.startswith("TWOSTREAM.")}
    known = {key: value for key, value in values.items() if value is not None or key not in PublishedVae.model_fields}
    return parse_config(PublishedVae, known, source=f"{one.path}, TWOSTREAM")


def _check_pair(stated: Sequence[_Stated], blocks: Sequence[PublishedVae]) -> None:
    """Raise ConfigError if files are for the same stream, or for patches of different widths."""
    for at, (one, block) in enumerate(zip(stated, blocks, strict=True)):
        for other, before in zip(stated[:at], blocks[:at], strict=True):
            if block.stream == before.stream:
                raise ConfigError(
                    f"{other.path} and {one.path} both have IMAGE_VAE {block.IMAGE_VAE}; pass one for each stream."
                )
            if block.WIDTH != before.WIDTH:
                raise ConfigError(
                    f"WIDTH is {before.WIDTH} in {other.path} and {block.WIDTH} in {one.path}; both streams see the "
                    f"same patches, so both need the same WIDTH."
                )


def _read_network(reading: Reading, one: _Stated, block: PublishedVae, task: str, preset: Mapping[str, Any]) -> None:
    """The ``TWOSTREAM:`` block of one VAE."""
    head = f"streams.{block.stream}"
    seen = "images" if block.IMAGE_VAE else "masks"
    reading.take(f"{head}.method", "vae", f"{one.path}: IMAGE_VAE is {_written(block.IMAGE_VAE)}: a VAE of {seen}")
    _read_label_type(reading, one, block, task)
    of_stream, of_patches = _standing(preset, block.stream), preset.get("patches", {})
    for key, name in NETWORK.items():
        _read_value(reading, one, block, key, f"{head}.{name}", of_stream.get(name))
    _read_value(reading, one, block, "WIDTH", "patches.width_px", of_patches.get("width_px") if of_stream else None)
    fixed: dict[str, Any] = {"patches.planes": "central", "patches.object_widths": None}
    fixed |= {"streams.random_crop_share": 1.0, "streams.augment_crops": False} if block.IMAGE_VAE else {}
    for setting, value in fixed.items():
        reading.take(setting, value, f"in no file, as in the published code: {_written(value)}")


def _read_value(reading: Reading, one: _Stated, block: PublishedVae, key: str, setting: str, standing: Any) -> None:
    """One value of the network: stated, of the preset (``standing``, None if it has none), or the published default."""
    value = getattr(block, key)
    if one.has(f"TWOSTREAM.{key}"):
        stated, path = one.values[f"TWOSTREAM.{key}"]
        source = f"{path} (base of {one.path})" if path != one.path else str(path)
        said = f"is empty: {_written(value)}, the published default" if stated is None else f"is {_written(value)}"
        reading.take(setting, value, f"{source}: {key} {said}")
    elif standing is not None:
        reading.say(f"{one.path}: {key} is not stated: {setting} stays {_written(standing)}, as the preset has it")
    elif key == "HIDDEN_DIMS":
        raise ConfigError(
            f"{one.path} states no HIDDEN_DIMS, and without them the network is not known. Pass the base file that "
            f"belongs to it as well (another --vae-config), or --preset paper, which has the published ones."
        )
    else:
        reading.take(setting, value, f"{one.path}: {key} is not stated: {_written(value)}, the published default")


def _read_label_type(reading: Reading, one: _Stated, block: PublishedVae, task: str) -> None:
    """LABEL_TYPE, which is about the masks that the mask VAE sees."""
    if block.IMAGE_VAE:
        if one.has("TWOSTREAM.LABEL_TYPE"):
            reading.say(f"{one.path}: LABEL_TYPE is not used: it is about masks, and this is the image VAE")
        return
    if (block.LABEL_TYPE == "syn") != (task == "polarity"):
        raise ConfigError(
            f"{one.path}: LABEL_TYPE is {block.LABEL_TYPE}, which does not fit --task {task}; syn is for polarity, seg "
            f"for the other tasks."
        )
    default = "" if one.has("TWOSTREAM.LABEL_TYPE") else ", the published default"
    reading.say(f"{one.path}: LABEL_TYPE is {block.LABEL_TYPE}{default}, which fits --task {task}")


def _read_others(reading: Reading, one: _Stated, block: PublishedVae, preset: Mapping[str, Any]) -> None:
    """The other blocks: settings of the training, values that must be as they are here, and what is not used.

    Raises:
        ConfigError: a value contradicts what the streams here can do.
    """
    head = f"streams.{block.stream}"
    must_be = AS_HERE | {key: [1, block.WIDTH, block.WIDTH] for key in SHAPES}
    for key, (value, path) in one.values.items():
        if key.startswith("TWOSTREAM."):
            continue
        if value is None:
            reading.say(f"{path}: {key} is empty, so it is not used")
        elif key in TRAINING:
            reading.take(f"{head}.{TRAINING[key]}", value, f"{path}: {key} is {_written(value)}")
        elif key in must_be and value != must_be[key]:
            raise ConfigError(
                f"{path}: {key} is {_written(value)}, but the streams here can only have {_written(must_be[key])}. "
                f"Change the file if you accept that."
            )
        elif key in must_be:
            reading.say(f"{path}: {key} is {_written(value)}, as it is here")
        else:
            reading.say(f"{path}: {key} is not used")
    unstated = [key for key in ("MODEL.ACT_MODE", "MODEL.NORM_MODE") if not one.has(key)]
    for key in unstated:
        reading.say(f"{one.path}: {key} is not stated: {AS_HERE[key]}, as in the published base file")
    solver = [key for key in TRAINING if one.has(key) and key.startswith("SOLVER.")]
    if not solver:
        reading.say(f"{one.path}: SOLVER is not stated: the training of {head} stays as the preset has it")
    elif not one.has("SOLVER.WARMUP_ITERS") and _standing(preset, block.stream).get("warmup_steps") is None:
        said = f"{one.path}: SOLVER.WARMUP_ITERS is not stated: {WARMUP_STEPS}, the published default"
        reading.take(f"{head}.warmup_steps", WARMUP_STEPS, said)


def _standing(preset: Mapping[str, Any], stream: str) -> Mapping[str, Any]:
    """What the preset says of a stream, if it makes it a VAE; else nothing."""
    values: Mapping[str, Any] = preset.get("streams", {}).get(stream, {})
    return values if values.get("method") == "vae" else {}


def _written(value: Any) -> str:
    """A value as it is written in a YAML file, on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)  # YAML would write 1e-4 in a form that it reads as a text
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).split("\n")[0]
