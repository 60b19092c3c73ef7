"""Candidates to latents: both streams are trained, taught by the answers, and shown every candidate of a round.

Knows projects, candidates and the streams; must not know strategies, nor how S is trained. A stream is a network on
patches, S's own features, or latents that someone brings; all leave the same two files, row for row beside ids.npy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.base.atomic import array_file, write_array, write_arrays
from twostream.base.errors import InputError, ProjectError
from twostream.candidates.candidate import Candidate
from twostream.candidates.cutting import cut_all, random_patches
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import from_table, read_table
from twostream.models.segmentation.features import pooled_features
from twostream.models.segmentation.train import Segmenter
from twostream.models.streams.active_clustering import can_teach, fine_tune
from twostream.models.streams.config import PICTURES_NAME, StreamConfig
from twostream.models.streams.draw import Draw, ImageDraw, MaskDraw, image_input, mask_input
from twostream.models.streams.encode import BATCH_SIZE, encode
from twostream.models.streams.fit import fit_stream, load_stream, new_stream, save_stream
from twostream.models.streams.given import read_given
from twostream.models.streams.pictures import pictures
from twostream.models.streams.stream import Stream
from twostream.project.project import Detail, Project
from twostream.rounds.propose import may_be_asked
from twostream.volume.uri import absolute_uri

STREAMS = ("supervised", "unsupervised")
NUM_RANDOM_PATCHES = 4096
"""Raw patches that the unsupervised stream is trained on: a few per learned step, held in memory."""
MAX_TRAINING_PAIRS = 8192
"""Candidates that the streams learn from, drawn at random where there are more; held in memory."""
LEARNED = ("vae", "simclr")
"""Methods that are networks on patches."""


def embed(project: Project, round_number: int) -> int:
    """Both streams see every candidate of a round -> ids.npy and the two latents files; round 0 trains them first.

    Returns:
        How many candidates were seen.

    Raises:
        ProjectError: round 0 has nothing to train the streams on.
        InputError: latents were to be brought, and some are missing.
    """
    candidates = from_table(read_table(project.path(round_number, "candidates.parquet")))
    if round_number == 0:
        _fit_streams(project, candidates)
    write_array(project.path(round_number, "ids.npy"), np.array([c.id for c in candidates], np.uint64))
    for name in STREAMS:
        if _config(project, name).method not in LEARNED:
            write_array(
                _latents_path(project, round_number, name), _table_latents(project, round_number, name, candidates)
            )
    networks = _networks(project, round_number)
    if networks:
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(
                    array_file(
                        _latents_path(project, round_number, name), (len(candidates), network.latent_dim), np.float32
                    )
                )
                for name, network in networks.items()
            }
            for rows, pairs in _batches(project, candidates):
                for name, network in networks.items():
                    files[name][rows] = encode(network, _seen(project, name, pairs))
    return len(candidates)


def latents_of(
    project: Project, round_number: int, candidates: Sequence[Candidate], pairs: Sequence[PatchPair]
) -> dict[str, np.ndarray]:
    """Latents by the streams of a round: {"supervised": (N, Ds), "unsupervised": (N, Du)} float32."""
    networks = _networks(project, round_number)
    return {
        name: encode(networks[name], _seen(project, name, pairs))
        if name in networks
        else _table_latents(project, round_number, name, candidates)
        for name in STREAMS
    }


def cut_pairs(project: Project, candidates: Sequence[Candidate]) -> list[PatchPair]:
    """Aligned patch pairs, in the order of ``candidates``."""
    found: dict[int, PatchPair] = {}
    for rows, pairs in _batches(project, candidates):
        found |= zip(rows, pairs, strict=True)
    return [found[row] for row in range(len(candidates))]


def learn_from_answers(project: Project, round_number: int) -> list[float]:
    """Active clustering: the unsupervised stream of the round before learns from the answers -> unsupervised.ckpt.

    Returns:
        The loss of every step; empty where nothing was learned.
    """
    stream, config = project.config.streams.unsupervised, project.config.streams.active_clustering
    path = project.path(round_number, "unsupervised.ckpt")
    if stream.method not in LEARNED or path.exists():
        return []
    network = load_stream(project.path(round_number - 1, "unsupervised.ckpt"))
    verdicts = project.ledger.verdicts()
    newest = project.ledger.newest_queries(round_number)
    taught = [q for i, q in newest.items() if not q.is_audit and not math.isnan(verdicts[i].y)]
    losses: list[float] = []
    y = np.array([verdicts[q.candidate.id].y for q in taught])
    if can_teach(y, config):
        candidates = from_table(read_table(project.path(round_number - 1, "candidates.parquet")))
        others = [c for c in candidates if c.id not in newest and may_be_asked(project, c)]
        unanswered = _images(project, _some_pairs(project, others, "unanswered"))
        losses = fine_tune(
            network,
            _raw_draw(project, unanswered),
            _images(project, [q.patch for q in taught]),
            y,
            unanswered,
            config,
            stream,
            planes=project.config.patches.planes,
            seed=project.seed(round_number, "active clustering"),
            resume_path=path.with_suffix(".resume"),
        )
    save_stream(network, stream, losses, path)
    path.with_suffix(".resume").unlink(missing_ok=True)
    return losses


def _fit_streams(project: Project, candidates: Sequence[Candidate]) -> None:
    """Train what is not trained yet: the mask stream on aligned masks, the image stream on raw patches."""
    due = [
        name
        for name in STREAMS
        if _config(project, name).method in LEARNED and not project.path(0, f"{name}.ckpt").exists()
    ]
    if not due:
        return
    pairs = _some_pairs(project, _worth_learning_from(project, candidates), "training pairs")
    for name in due:
        config, path = _config(project, name), project.path(0, f"{name}.ckpt")
        network = new_stream(_shape(project), config, project.seed(0, f"{name} weights"))
        losses = fit_stream(
            network, _draw(project, name, pairs), config,
            seed=project.seed(0, name), resume_path=path.with_suffix(".resume"), name=name,
        )  # fmt: skip
        shown = pictures(network, _seen(project, name, pairs), project.seed(0, f"{name} pictures"))
        write_arrays(project.path(0, PICTURES_NAME.format(name)), shown)
        save_stream(network, config, losses, path)
        path.with_suffix(".resume").unlink(missing_ok=True)


def _worth_learning_from(project: Project, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that may be asked; where there is none, those that are far from the test box."""
    shown = [c for c in candidates if may_be_asked(project, c)]
    if not candidates:
        raise ProjectError("no candidate was proposed, so the streams have nothing to learn from; train S for longer.")
    if not shown:
        progress.say(f"  all {len(candidates)} candidates lie in the labels box or near the test box: none to ask")
        guarded = project.guarded_box
        shown = [c for c in candidates if guarded is None or not c.box.intersects(guarded)]
    if not shown:
        raise ProjectError(
            f"all {len(candidates)} candidates lie near the test box, so the streams have nothing to learn from; "
            f"make the test box smaller."
        )
    return shown


def _draw(project: Project, name: str, pairs: Sequence[PatchPair]) -> Draw:
    if name == "supervised":
        return MaskDraw(_masks(project, pairs), project.config.patches.planes)
    return _raw_draw(project, _images(project, pairs))


def _raw_draw(project: Project, centred: np.ndarray) -> ImageDraw:
    """Raw patches from anywhere, and these, which are cut about candidates."""
    patches, seed = project.config.patches, project.seed(0, "raw patches")
    everywhere = random_patches(project.image, NUM_RANDOM_PATCHES, patches, project.pixel_size_nm, seed)
    return ImageDraw(everywhere, centred, project.config.streams.random_crop_share, patches.planes)


def _some_pairs(project: Project, candidates: Sequence[Candidate], purpose: str) -> list[PatchPair]:
    """Pairs of at most ``MAX_TRAINING_PAIRS`` candidates, drawn with a seed of their own."""
    rng = np.random.default_rng(project.seed(0, purpose))
    num_drawn = min(len(candidates), MAX_TRAINING_PAIRS)
    return cut_pairs(project, [candidates[int(row)] for row in np.sort(rng.permutation(len(candidates))[:num_drawn])])


def _batches(project: Project, candidates: Sequence[Candidate]) -> Iterator[tuple[list[int], list[PatchPair]]]:
    """All candidates, in the order in which the image is read."""
    pairs = cut_all(project.image, candidates, project.config.patches, project.pixel_size_nm)
    with progress.task("cut patches", total=len(candidates)) as advance:
        while batch := list(islice(pairs, BATCH_SIZE)):
            yield [row for row, _ in batch], [pair for _, pair in batch]
            advance(len(batch))


def _seen(project: Project, name: str, pairs: Sequence[PatchPair]) -> np.ndarray:
    """(N, P, W, W) float32 in [-1, 1]: what a stream sees of pairs."""
    return mask_input(_masks(project, pairs)) if name == "supervised" else image_input(_images(project, pairs))


def _masks(project: Project, pairs: Sequence[PatchPair]) -> np.ndarray:
    """(N, P, W, W) int8; N may be 0."""
    return np.array([p.mask for p in pairs], np.int8).reshape(-1, *_shape(project))


def _images(project: Project, pairs: Sequence[PatchPair]) -> np.ndarray:
    """(N, P, W, W) uint8; N may be 0."""
    return np.array([p.image for p in pairs], np.uint8).reshape(-1, *_shape(project))


def _networks(project: Project, round_number: int) -> dict[str, Stream]:
    """The streams that are networks, as they are in a round: the mask stream stays as round 0 trained it."""
    rounds = {"supervised": 0, "unsupervised": round_number}
    return {
        name: load_stream(project.path(rounds[name], f"{name}.ckpt"))
        for name in STREAMS
        if _config(project, name).method in LEARNED
    }


def _table_latents(project: Project, round_number: int, name: str, candidates: Sequence[Candidate]) -> np.ndarray:
    """(N, D) float32 of a stream that sees no patches: S's own features, or latents that someone brings."""
    config = _config(project, name)
    if config.method == "given":
        files = {key: absolute_uri(getattr(config, key), project.root) for key in ("latents", "ids")}
        try:
            return read_given(config.model_copy(update=files), np.array([c.id for c in candidates], np.uint64))
        except InputError as error:
            raise InputError(f"streams.{name}, round {round_number}: {error}") from None
    segmenter = Segmenter.load(project.path(round_number, "checkpoint.ckpt"))
    instances = [(c.box, c.mask) for c in candidates]
    return pooled_features(segmenter, project.image, instances, project.config.segmentation)


def _config(project: Project, name: str) -> StreamConfig:
    config: StreamConfig = getattr(project.config.streams, name)
    return config


def _latents_path(project: Project, round_number: int, name: str) -> Path:
    return project.path(round_number, f"latents_{name}.npy")


def _shape(project: Project) -> tuple[int, int, int]:
    patches = project.config.patches
    return patches.num_planes, patches.width_px, patches.width_px


def embed_step(project: Project, round_number: int) -> Detail:
    """Both streams see every candidate -> ids.npy and the two latents files. Round 0 trains the streams first."""
    return {"num_candidates": embed(project, round_number)}
