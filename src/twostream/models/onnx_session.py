"""Opening an ONNX file with onnxruntime, on the CPU of this machine. Needs the extra `onnx`; must not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twostream.base.errors import InputError


def open_session(source: Path | bytes, name: str, num_threads: int) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        source: the file, or its content. A model that is loaded from its content cannot have weights in other files.
        name: how messages call the file.
        num_threads: threads that compute; sums in another order differ in the last digit.

    Raises:
        InputError: onnxruntime is not installed, or cannot load the model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            f"{name} needs onnxruntime, which is not installed; install the extra `onnx` "
            f"(pip install 'twostream-connectomics[onnx]')."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors are raised; its warnings are about optimisations
    content = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, without a common base
        hint = " Weights must be in the same file (torch.onnx.export(..., external_data=False))."
        hint = hint if isinstance(source, bytes) else ""
        raise InputError(f"{name} cannot be loaded as an ONNX model: {in_one_line(error)}.{hint}") from None


def in_one_line(error: Exception) -> str:
    """The message of an exception of onnxruntime, shortened."""
    return " ".join(str(error).split())[:300].rstrip(".")
