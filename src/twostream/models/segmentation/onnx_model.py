"""S as an ONNX file, computed by onnxruntime: prediction where torch is not installed.

Knows ONNX files and heads by their description; must not know tasks, projects or rounds, and must not import torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from twostream.base.errors import InputError
from twostream.models.onnx_session import open_session
from twostream.models.segmentation.blending import Triple

INPUT, FOLDED, PROBABILITY = "image", "folded", "probability"
"""Names of the input and of both outputs of the graph."""
NUM_EXCLUSIVE = (4, 3)
"""Outputs of an exclusive head: logits of background, pre, post and cleft; probabilities of pre, post and union."""
EXTRA = "pip install 'twostream-connectomics[onnx]'"
"""What installs the packages that write and read ONNX files."""


def is_installed(package: str) -> bool:
    """Whether a package of the extra `onnx` (or torch) can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


class OnnxWindows:
    """S for windows, computed by onnxruntime on the CPU (``blending.WindowModel``).

    The graph takes ``image``, (B, 1, Z, Y, X) uint8 grey values whose extents are multiples of the stride. It gives
    ``folded``, (B, L, Z / fz, Y / fy, X / fx) float32, what prediction blends; and ``probability``, (B, C, Z, Y, X)
    float32 in [0, 1], of these windows alone.

    Args:
        path: the ONNX file.
        fold_zyx: voxels folded into one along each axis.
        stride_zyx: voxels of the image of which the shape of a window must be a multiple.
        head: description of the head (``heads.Head.description``).
        average: "logit" or "probability": what ``folded`` is.
        num_threads: of onnxruntime; 0: one per core.

    Raises:
        InputError: onnxruntime is not installed, or the file is missing, damaged or not such a graph.
    """

    def __init__(
        self,
        path: Path,
        *,
        fold_zyx: Triple,
        stride_zyx: Triple,
        head: Mapping[str, Any],
        average: str,
        num_threads: int,
    ) -> None:
        self.path, self.fold_zyx, self.stride_zyx = path, fold_zyx, stride_zyx
        self._head, self._average, self._num_threads = dict(head), average, num_threads
        self._check_one_window()  # refuse a missing or damaged file, or another model, now

    def __getstate__(self) -> dict[str, Any]:
        """State for other processes: each opens the file itself."""
        return {name: value for name, value in vars(self).items() if name != "_session"}

    @cached_property
    def _session(self) -> Any:
        session = open_session(self.path, str(self.path), self._num_threads)
        names = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
        if names != [INPUT, FOLDED, PROBABILITY]:
            raise InputError(
                f"{self.path} has {', '.join(names)} as input and outputs; expected {INPUT}, {FOLDED} and "
                f"{PROBABILITY}, as `twostream finish` writes them."
            )
        return session

    def _check_one_window(self) -> None:
        """Compute the smallest window, and compare what comes with what the card says."""
        blended = self._average == "probability"
        num_logits = NUM_EXCLUSIVE[blended] if self._head["form"] == "exclusive" else len(self._head["channels"])
        folded = (n // f for n, f in zip(self.stride_zyx, self.fold_zyx, strict=True))
        expected = (1, num_logits, *folded)
        try:
            output = self.folded_output(np.zeros((1, *self.stride_zyx), np.uint8))
        except InputError:
            raise
        except Exception as error:  # onnxruntime has no class of its own for what a graph refuses
            raise InputError(
                f"{self.path} refuses a window of {self.stride_zyx} voxels of uint8: {str(error).splitlines()[0]} Is "
                f"it the model of this card? `twostream finish` writes both."
            ) from None
        if output.shape != expected:
            raise InputError(
                f"{self.path} gives {output.shape} for a window of {self.stride_zyx} voxels; by the card (head, "
                f"fold_zyx, stride_zyx) it is {expected}. Is it the model of this card? `twostream finish` writes both."
            )
        if not np.isfinite(output).all():
            raise InputError(f"{self.path} gives numbers that are not finite. The model is damaged; take another copy.")

    def folded_output(self, grey_BZYX: np.ndarray) -> np.ndarray:  # noqa: N803 - the axes are the name
        output: np.ndarray = self._session.run([FOLDED], {INPUT: grey_BZYX[:, None]})[0]
        return output

    def probability(self, blended_LYX: np.ndarray) -> np.ndarray:  # noqa: N803
        if self._average == "probability":
            return blended_LYX
        if self._head["form"] == "exclusive":  # background, pre, post, cleft; see ``heads.ExclusiveHead``
            share = softmax(blended_LYX, axis=0)
            return np.concatenate([share[1:3], 1 - share[:1]])
        probability: np.ndarray = expit(blended_LYX)
        return probability
