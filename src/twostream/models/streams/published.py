"""The ``TWOSTREAM:`` block of a PyTorch Connectomics configuration, read as it is printed.

Knows YAML and our own settings' names; must not know torch, projects or files beyond the one it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, PositiveInt

from twostream.base.config import Config, parse_config
from twostream.base.errors import ConfigError


class PublishedVae(Config):
    """One VAE as published; defaults are those of the published code.

    Attributes:
        IMAGE_VAE: of raw images (unsupervised stream), else of masks (supervised stream).
        LABEL_TYPE: "syn", synapses with odd labels before and even ones after; or "seg".
        LATENT_DIM: features per patch.
        HIDDEN_DIMS: channels of the stride-2 blocks.
        WIDTH: side of the patch in pixels.
        KLD_WEIGHT: of the KL divergence beside the mean squared error.
    """

    IMAGE_VAE: bool
    LABEL_TYPE: Literal["syn", "seg"] = "syn"
    LATENT_DIM: int = Field(512, ge=1)
    HIDDEN_DIMS: tuple[PositiveInt, ...] = Field((32, 64, 128, 256, 256, 512), min_length=1)
    WIDTH: int = Field(128, ge=8)
    KLD_WEIGHT: float = Field(1e-4, ge=0)

    @property
    def stream(self) -> str:
        return "unsupervised" if self.IMAGE_VAE else "supervised"


def read_published(path: Path) -> PublishedVae:
    """The block of one file; whatever else the file holds is left alone.

    Raises:
        ConfigError: no such file, no YAML, no ``TWOSTREAM:`` in it, or a value that makes no sense.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}.") from None
    block = values.get("TWOSTREAM") if isinstance(values, dict) else None
    if not isinstance(block, dict):
        raise ConfigError(f"{path} holds no TWOSTREAM: block; pass a configuration of a VAE of PyTorch Connectomics.")
    return parse_config(PublishedVae, block, source=f"{path}, TWOSTREAM")


def published_overrides(paths: Sequence[Path], task: str) -> list[str]:
    """``a.b=value`` settings that make the streams those of the files, for a project of ``task``.

    Raises:
        ConfigError: as ``read_published``; two files of one stream, of different widths, or of another task.
    """
    twice = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice; pass one file for each stream.")
    blocks = {path: read_published(path) for path in paths}
    result: list[str] = []
    for path, block in blocks.items():
        same = [p for p, b in blocks.items() if b.stream == block.stream and p != path]
        if same:
            raise ConfigError(f"{path} and {same[0]} both have IMAGE_VAE {block.IMAGE_VAE}; pass one of each kind.")
        other = next((p for p, b in blocks.items() if block.WIDTH != b.WIDTH), None)
        if other is not None:
            raise ConfigError(
                f"WIDTH is {block.WIDTH} in {path} and {blocks[other].WIDTH} in {other}; both streams see the same "
                f"patches, so give both the same."
            )
        if (block.LABEL_TYPE == "syn") != (task == "polarity"):
            raise ConfigError(f"{path}: LABEL_TYPE is {block.LABEL_TYPE}, which does not go with --task {task}.")
        head = f"streams.{block.stream}"
        result += [
            f"{head}.method=vae", f"{head}.latent_dim={block.LATENT_DIM}", f"{head}.kld_weight={block.KLD_WEIGHT!r}",
            f"{head}.hidden_dims={list(block.HIDDEN_DIMS)}", f"patches.width_px={block.WIDTH}",
            "patches.planes=central", "patches.object_widths=null",
        ]  # fmt: skip
        if block.IMAGE_VAE:
            result.append("streams.random_crop_share=1")
    return result
