"""External encoders of a project: checked when it is made, and found again later.

Knows settings and where files are; must not import torch.
"""

from __future__ import annotations

from pathlib import Path

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.models.streams.config import StreamConfig
from twostream.models.streams.external import OnnxEncoder
from twostream.project.project import Project
from twostream.project.settings import ProjectConfig
from twostream.volume.uri import absolute_uri

STREAMS = ("supervised", "unsupervised")


def check_encoders(config: ProjectConfig) -> ProjectConfig:
    """Check the encoders of a new project, whose paths start at the working directory.

    Returns:
        The settings with ``onnx.sha256`` of every encoder.

    Raises:
        InputError: an encoder cannot be used (``OnnxEncoder``).
    """
    streams = {}
    for name in STREAMS:
        stream: StreamConfig = getattr(config.streams, name)
        if stream.onnx is None:
            continue
        encoder = _opened(name, stream, absolute_uri(stream.onnx.path), config.num_threads)
        try:
            num_features = encoder.check()
        except InputError as error:
            raise InputError(f"streams.{name}: {error}") from None
        progress.say(f"  {name} stream: {num_features} features of each patch by {stream.onnx.path}")
        onnx = stream.onnx.model_copy(update={"sha256": encoder.sha256})
        streams[name] = stream.model_copy(update={"onnx": onnx})
    return config.model_copy(update={"streams": config.streams.model_copy(update=streams)}) if streams else config


def open_encoder(project: Project, name: str) -> OnnxEncoder:
    """The encoder of the stream called ``name``, the same file as when the project was made.

    Raises:
        InputError: it is not there, or another file is in its place.
    """
    stream: StreamConfig = getattr(project.config.streams, name)
    assert stream.onnx is not None
    return _opened(name, stream, project.locate_file(stream.onnx.path), project.config.num_threads)


def _opened(name: str, stream: StreamConfig, path: str, num_threads: int) -> OnnxEncoder:
    assert stream.onnx is not None
    try:
        return OnnxEncoder(stream.onnx.model_copy(update={"path": str(Path(path))}), num_threads)
    except InputError as error:
        raise InputError(f"streams.{name}: {error}") from None
