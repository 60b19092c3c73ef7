"""Settings of a VAE from the ``TWOSTREAM:`` block of a PyTorch Connectomics configuration, as published.

``twostream init --vae-config FILE`` translates such blocks into settings of a project. Knows YAML and the names of our
settings; must not know torch or projects.
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
    """The ``TWOSTREAM:`` block; names and defaults are those of the published code (docs/method.md, VAE).

    Attributes:
        IMAGE_VAE: true: a VAE on raw images (unsupervised stream); false: on masks (supervised stream).
        LABEL_TYPE: "syn": synapses, with odd labels for presynaptic and even labels for postsynaptic sides; or "seg".
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


def read_published(path: Path) -> PublishedVae:
    """Read the ``TWOSTREAM:`` block of one file; its other blocks are not read.

    Raises:
        ConfigError: the file is missing or not YAML, it has no ``TWOSTREAM:`` block, or a key or value in the block is
            not valid.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}.") from None
    block = values.get("TWOSTREAM") if isinstance(values, dict) else None
    if not isinstance(block, dict):
        raise ConfigError(f"{path} has no TWOSTREAM: block; pass the configuration of a VAE of PyTorch Connectomics.")
    return parse_config(PublishedVae, block, source=f"{path}, TWOSTREAM")


def published_overrides(paths: Sequence[Path], task: str) -> list[str]:
    """Translate published configurations into settings of a project.

    Args:
        paths: one file for each stream, or for one of them.
        task: the project's task, to which LABEL_TYPE must fit.

    Returns:
        Settings as on the command line, such as "streams.supervised.latent_dim=16".

    Raises:
        ConfigError: as ``read_published``; or two files are for the same stream, have different WIDTHs, or are for
            another task.
    """
    repeated = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if repeated is not None:
        raise ConfigError(f"{repeated} is passed twice; pass one file for each stream.")
    blocks = {path: read_published(path) for path in paths}
    result: list[str] = []
    for path, block in blocks.items():
        same = [p for p, b in blocks.items() if b.stream == block.stream and p != path]
        if same:
            raise ConfigError(f"{path} and {same[0]} both have IMAGE_VAE {block.IMAGE_VAE}; pass one for each stream.")
        other = next((p for p, b in blocks.items() if block.WIDTH != b.WIDTH), None)
        if other is not None:
            raise ConfigError(
                f"WIDTH is {block.WIDTH} in {path} and {blocks[other].WIDTH} in {other}; both streams see the same "
                f"patches, so both need the same WIDTH."
            )
        if (block.LABEL_TYPE == "syn") != (task == "polarity"):
            raise ConfigError(
                f"{path}: LABEL_TYPE is {block.LABEL_TYPE}, which does not fit --task {task}; syn is for polarity, seg "
                f"for the other tasks."
            )
        head = f"streams.{block.stream}"
        result += [
            f"{head}.method=vae", f"{head}.latent_dim={block.LATENT_DIM}", f"{head}.kld_weight={block.KLD_WEIGHT!r}",
            f"{head}.hidden_dims={list(block.HIDDEN_DIMS)}", f"patches.width_px={block.WIDTH}",
            "patches.planes=central", "patches.object_widths=null",
        ]  # fmt: skip
        if block.IMAGE_VAE:
            result.append("streams.random_crop_share=1")
    return result
