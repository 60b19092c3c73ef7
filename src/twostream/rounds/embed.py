"""The step `embed`: both streams encode every candidate of a round. Their training and fine-tuning are here as well.

The supervised stream sees masks, the unsupervised stream sees raw images. A stream is a network on patches (``vae`` or
``simclr``), the features that S computed inside the mask (``s``), both side by side (``vae+s``), an encoder that the
user brings (``onnx``), or latents that the user supplies (``given``). For each stream the step writes
``latents_<stream>.npy``, whose rows are in the order of ``ids.npy``.

Knows projects, candidates and streams; must not know strategies, nor how S is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.base.atomic import array_file, read_arrays, write_array, write_arrays
from twostream.base.errors import InputError, ProjectError
from twostream.candidates.candidate import Candidate
from twostream.candidates.crops import RandomCrops
from twostream.candidates.cutting import cut_all
from twostream.candidates.patches import PatchConfig, PatchPair
from twostream.candidates.stored import StoredCandidates
from twostream.models.segmentation.features import pooled_features
from twostream.models.segmentation.train import Segmenter
from twostream.models.streams.active_clustering import can_teach, fine_tune
from twostream.models.streams.config import NETWORKS, PICTURES_NAME, StreamConfig
from twostream.models.streams.draw import Draw, ImageDraw, MaskDraw, image_input, mask_input
from twostream.models.streams.encode import BATCH_SIZE, encode
from twostream.models.streams.fit import fit_stream, load_stream, new_stream, save_stream
from twostream.models.streams.given import read_given
from twostream.models.streams.pictures import pictures
from twostream.models.streams.side_by_side import SideBySide
from twostream.models.streams.stream import Stream
from twostream.project.encoders import open_encoder
from twostream.project.project import Detail, Project
from twostream.project.round_files import SIDE_BY_SIDE_NAME
from twostream.rounds.asking import may_be_asked

STREAMS = ("supervised", "unsupervised")
MAX_TRAINING_PAIRS = 8192
"""Candidates that train the streams, a random sample if there are more; limited because they are held in memory."""


def embed_step(project: Project, round_number: int) -> Detail:
    """Write ``ids.npy``, (N,) uint64, and for each stream ``latents_<stream>.npy``, (N, D) float32.

    Round 0 trains the streams that are networks first.

    Raises:
        ProjectError: there is no candidate on which the streams could be trained.
        InputError: the latents that the user supplies are missing, or lack a candidate.
    """
    candidates = project.candidates(round_number)
    if round_number == 0:
        _train_streams(project, candidates)
    write_array(project.path(round_number, "ids.npy"), candidates.ids.astype(np.uint64))
    for name in STREAMS:
        if _config(project, name).method not in NETWORKS:
            latents = _latents_without_network(project, round_number, name, candidates)
            write_array(_latents_path(project, round_number, name), latents)
    networks = _networks(project, round_number)
    if networks:
        with ExitStack() as stack:
            files: dict[str, np.ndarray] = {}
            for name, network in networks.items():
                shape, path = (len(candidates), network.latent_dim), _latents_path(project, round_number, name)
                both = _config(project, name).method == "vae+s"  # goes on from these latents before they are written
                files[name] = (
                    np.empty(shape, np.float32) if both else stack.enter_context(array_file(path, shape, np.float32))
                )
            for rows, pairs in _cut_batches(project, candidates, project.config.patches):
                for name, network in networks.items():
                    files[name][rows] = encode(network, _network_input(project, name, pairs))
        if _config(project, "supervised").method == "vae+s":
            _write_side_by_side(project, round_number, files["supervised"], candidates)
    return {"num_candidates": len(candidates)}


def latents_of(
    project: Project, round_number: int, candidates: Sequence[Candidate], pairs: Sequence[PatchPair]
) -> dict[str, np.ndarray]:
    """Latents of candidates, by the streams as they are in a round.

    Args:
        project: gives the streams.
        round_number: round whose streams are used.
        candidates: N candidates, for the streams that see no patches.
        pairs: their N patch pairs, for the streams that are networks.

    Returns:
        {"supervised": (N, Ds), "unsupervised": (N, Du)} float32.
    """
    networks = _networks(project, round_number)
    latents = {
        name: encode(networks[name], _network_input(project, name, pairs))
        if name in networks
        else _latents_without_network(project, round_number, name, candidates)
        for name in STREAMS
    }
    if _config(project, "supervised").method == "vae+s":
        fitted = SideBySide(**read_arrays(project.path(round_number, SIDE_BY_SIDE_NAME)))
        latents["supervised"] = fitted(latents["supervised"], _features_of_s(project, round_number, candidates))
    return latents


def cut_pairs(project: Project, candidates: Sequence[Candidate]) -> list[PatchPair]:
    """The aligned patch pair of each candidate, in the order of ``candidates``."""
    found: dict[int, PatchPair] = {}
    for rows, pairs in _cut_batches(project, candidates, project.config.patches):
        found |= zip(rows, pairs, strict=True)
    return [found[row] for row in range(len(candidates))]


def fine_tune_on_answers(project: Project, round_number: int) -> list[float]:
    """Active clustering: fine-tune the previous round's unsupervised stream and write ``unsupervised.ckpt``.

    Audits are not learned from. If there are too few answers, the stream is copied unchanged.

    Returns:
        The loss of every step; empty if nothing was trained now.
    """
    stream, config = project.config.streams.unsupervised, project.config.streams.active_clustering
    path = project.path(round_number, "unsupervised.ckpt")
    if stream.method not in NETWORKS or path.exists():
        return []
    network = load_stream(project.path(round_number - 1, "unsupervised.ckpt"))
    verdicts = project.ledger.verdicts()
    newest = project.ledger.newest_queries(round_number)
    taught = [q for i, q in newest.items() if not q.is_audit and not math.isnan(verdicts[i].y)]
    losses: list[float] = []
    y = np.array([verdicts[q.candidate.id].y for q in taught])
    if can_teach(y, config):
        candidates = project.candidates(round_number - 1)
        others = candidates.take(may_be_asked(project, candidates) & ~np.isin(candidates.ids, list(newest)))
        unanswered = _images(project, _sample_pairs(project, others, "unanswered"))
        losses = fine_tune(
            network,
            _image_draw(project, unanswered, round_number),
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


# -- training in round 0 ----------------------------------------------------------------------------------------------


def _train_streams(project: Project, candidates: StoredCandidates) -> None:
    """Train each network that has no checkpoint yet: the supervised stream on masks, the unsupervised on raw images."""
    untrained = [
        name
        for name in STREAMS
        if _config(project, name).method in NETWORKS and not project.path(0, f"{name}.ckpt").exists()
    ]
    if not untrained:
        return
    pairs = _sample_pairs(project, _training_candidates(project, candidates), "training pairs")
    for name in untrained:
        config, path = _config(project, name), project.path(0, f"{name}.ckpt")
        draw = (
            _image_draw(project, _images(project, pairs), 0) if name == "unsupervised" else _mask_draw(project, pairs)
        )
        network = new_stream(_patch_shape(project), config, project.seed(0, f"{name} weights"))
        losses = fit_stream(
            network, draw, config, seed=project.seed(0, name), resume_path=path.with_suffix(".resume"), name=name
        )
        shown = pictures(network, _network_input(project, name, pairs), project.seed(0, f"{name} pictures"))
        write_arrays(project.path(0, PICTURES_NAME.format(name)), shown)
        save_stream(network, config, losses, path)
        path.with_suffix(".resume").unlink(missing_ok=True)


def _training_candidates(project: Project, candidates: StoredCandidates) -> StoredCandidates:
    """Candidates that may be asked about; if there are none, all that do not touch the guarded test box."""
    if not candidates:
        raise ProjectError(
            "no candidates were proposed, so there is nothing to train the streams on. Train S for longer "
            "(segmentation.num_steps)."
        )
    chosen = candidates.take(may_be_asked(project, candidates))
    if not chosen:
        progress.say(
            f"  all {len(candidates)} candidates lie in labels boxes, near the test box or on padding: none to ask"
        )
        guarded = project.guarded_box
        chosen = candidates.take([guarded is None or not c.box.intersects(guarded) for c in candidates])
    if not chosen:
        raise ProjectError(
            f"all {len(candidates)} candidates lie in the test box or within its guard, so there is nothing to train "
            f"the streams on. Make a new project with a smaller --test-box."
        )
    return chosen


def _sample_pairs(project: Project, candidates: Sequence[Candidate], purpose: str) -> list[PatchPair]:
    """Patch pairs of at most ``MAX_TRAINING_PAIRS`` candidates; each ``purpose`` has its own random sample."""
    rng = np.random.default_rng(project.seed(0, purpose))
    num_drawn = min(len(candidates), MAX_TRAINING_PAIRS)
    return cut_pairs(project, [candidates[int(row)] for row in np.sort(rng.permutation(len(candidates))[:num_drawn])])


def _mask_draw(project: Project, pairs: Sequence[PatchPair]) -> Draw:
    """Training samples of the supervised stream."""
    return MaskDraw(_masks(project, pairs), project.config.patches.planes)


def _image_draw(project: Project, centred: np.ndarray, round_number: int) -> Draw:
    """Training samples of the unsupervised stream: crops of the whole image, and ``centred``, cut at candidates."""
    patches, streams = project.config.patches, project.config.streams
    crops = RandomCrops(
        project.image, patches, project.pixel_size_nm, project.seed(round_number, "crops of the image"),
        turned=streams.augment_crops,
    )  # fmt: skip
    return ImageDraw(crops, centred, streams.random_crop_share, patches.planes, streams.augment_crops)


# -- patches and latents ----------------------------------------------------------------------------------------------


def _cut_batches(
    project: Project, candidates: Sequence[Candidate], patches: PatchConfig
) -> Iterator[tuple[list[int], list[PatchPair]]]:
    """(rows, their patch pairs) in batches. Rows come in the order in which the image is read, not in their own."""
    pairs = cut_all(project.image, candidates, patches, project.pixel_size_nm)
    with progress.task("cut patches", total=len(candidates)) as advance:
        while batch := list(islice(pairs, BATCH_SIZE)):
            yield [row for row, _ in batch], [pair for _, pair in batch]
            advance(len(batch))


def _network_input(project: Project, name: str, pairs: Sequence[PatchPair]) -> np.ndarray:
    """What the stream called ``name`` sees of pairs: (N, P, W, W) float32 in [-1, 1]."""
    return mask_input(_masks(project, pairs)) if name == "supervised" else image_input(_images(project, pairs))


def _masks(project: Project, pairs: Sequence[PatchPair]) -> np.ndarray:
    """(N, P, W, W) int8; N may be 0."""
    return _arrays(pairs, project.config.patches)[1]


def _images(project: Project, pairs: Sequence[PatchPair]) -> np.ndarray:
    """(N, P, W, W) uint8; N may be 0."""
    return _arrays(pairs, project.config.patches)[0]


def _patch_shape(project: Project) -> tuple[int, int, int]:
    """(planes, width, width) of a patch."""
    patches = project.config.patches
    return patches.num_planes, patches.width_px, patches.width_px


def _networks(project: Project, round_number: int) -> dict[str, Stream]:
    """The streams that are networks, as they are in a round. Only the unsupervised one changes after round 0."""
    rounds = {"supervised": 0, "unsupervised": round_number}
    return {
        name: load_stream(project.path(rounds[name], f"{name}.ckpt"))
        for name in STREAMS
        if _config(project, name).method in NETWORKS
    }


def _latents_without_network(
    project: Project, round_number: int, name: str, candidates: Sequence[Candidate]
) -> np.ndarray:
    """Latents of a stream that trains no network, (N, D) float32: of an encoder, of S, or from the user's files."""
    config = _config(project, name)
    if config.method == "s":
        return _features_of_s(project, round_number, candidates)
    if config.method == "onnx":
        return _encoded(project, name, candidates)
    files = {key: project.locate_file(getattr(config, key)) for key in ("latents", "ids")}
    try:
        return read_given(config.model_copy(update=files), np.array([c.id for c in candidates], np.uint64))
    except InputError as error:
        raise InputError(f"streams.{name}, round {round_number}: {error}") from None


def _features_of_s(project: Project, round_number: int, candidates: Sequence[Candidate]) -> np.ndarray:
    """Features of the S of a round inside the masks, (N, F) float32."""
    segmenter = Segmenter.load(project.path(round_number, "checkpoint.ckpt"))
    instances = [(c.box, c.mask) for c in candidates]
    return pooled_features(segmenter, project.image, instances, project.config.segmentation)


def _encoded(project: Project, name: str, candidates: Sequence[Candidate]) -> np.ndarray:
    """Features by the user's encoder, (N, D) float32, of patches that are cut for it alone."""
    encoder = open_encoder(project, name)
    batches = [
        (rows, encoder.encode(*_arrays(pairs, encoder.patches)))
        for rows, pairs in _cut_batches(project, candidates, encoder.patches)
    ] or [([], encoder.encode(*_arrays([], encoder.patches)))]
    features = np.empty((len(candidates), batches[0][1].shape[1]), np.float32)
    for rows, part in batches:
        features[rows] = part
    return features


def _arrays(pairs: Sequence[PatchPair], patches: PatchConfig) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8, and masks, int8, of pairs; both (N, P, W, W), N may be 0."""
    shape = (-1, patches.num_planes, patches.width_px, patches.width_px)
    images, masks = [p.image for p in pairs], [p.mask for p in pairs]
    return np.array(images, np.uint8).reshape(shape), np.array(masks, np.int8).reshape(shape)


def _write_side_by_side(
    project: Project, round_number: int, latents: np.ndarray, candidates: Sequence[Candidate]
) -> None:
    """Write the latents of ``vae+s``, and the map that makes them, which later needs other candidates as well."""
    features = _features_of_s(project, round_number, candidates)
    fitted = SideBySide.fitted(latents, features)
    write_arrays(project.path(round_number, SIDE_BY_SIDE_NAME), fitted.arrays)
    write_array(_latents_path(project, round_number, "supervised"), fitted(latents, features))


def _config(project: Project, name: str) -> StreamConfig:
    """Settings of the stream called ``name``."""
    config: StreamConfig = getattr(project.config.streams, name)
    return config


def _latents_path(project: Project, round_number: int, name: str) -> Path:
    """File of a stream's latents in a round."""
    return project.path(round_number, f"latents_{name}.npy")
