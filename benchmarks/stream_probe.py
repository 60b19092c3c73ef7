"""What do the streams tell about an answer, and what do they add to S's score and the object's size?

Candidates come from a weak S by a fixed threshold, answers from the truth rule. Streams see raw pixels and predicted
masks, never an answer. For every set of features a logistic probe is fitted and scored by ROC-AUC on folds grouped by
3-D object and spatial block, once on all candidates and once on those of which S is confident. Gains are paired: over
the probe that has score and size alone, with an interval from resampled blocks.

    python benchmarks/stream_probe.py
    python benchmarks/stream_probe.py --full --data DIR --sets fafb --side confirmation

An external encoder (docs/encoders.md) is measured beside the streams if it is set as the unsupervised one:

    python benchmarks/stream_probe.py --override streams.unsupervised.method=onnx \
        --override streams.unsupervised.onnx.path=encoder.onnx \
        --override "streams.unsupervised.onnx.shape=[224,224]" ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from common import options as common_options
from common import weak
from common.results import Results
from common.weak import Candidates, auc, balanced, logit_of, score_and_size
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors

from twostream.candidates.patches import PatchConfig
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.features import pooled_features
from twostream.models.streams.config import StreamConfig, StreamsConfig
from twostream.models.streams.draw import image_input, mask_input
from twostream.models.streams.encode import encode
from twostream.models.streams.side_by_side import SideBySide
from twostream.models.training import use_threads

CONFIDENT_SCORE = 0.8
"""S is confident of a candidate from this mean probability on, which most candidates reach."""
NUM_FOLDS = 5
NUM_FOLDINGS = 4
NUM_BOOTSTRAP = 1000
NUM_NEIGHBOURS = 10
INTERVAL = f"95 percent, {NUM_BOOTSTRAP} draws of blocks"


def latents(
    world: weak.World,
    found: Candidates,
    config: StreamsConfig,
    s_config: SegmentationConfig,
    patches: PatchConfig,
    seed: int,
    without: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Features of every stream: mask VAE, image VAE, SimCLR, and S; each trained here, on this image.

    Besides, those of an external encoder, if one is set.

    Two more put the mask VAE and S side by side as one stream: "mask+s" with all columns, "vae+s" as the stream of that
    name has them, S reduced to as many principal components as the VAE has latents.
    """
    sources = weak.draws(world, found, config, patches, seed)
    masks, images = mask_input(found.mask_patch), image_input(found.image_patch)
    raw = config.unsupervised
    plans: dict[str, tuple[StreamConfig, str, np.ndarray]] = {
        "mask": (config.supervised, "mask", masks),
        "image": (raw.model_copy(update={"method": "vae"}), "image", images),
        "simclr": (raw.model_copy(update={"method": "simclr"}), "image", images),
    }
    found_latents = {}
    for name, (stream, source, arrays) in plans.items():
        if name in without:
            continue
        found_latents[name] = encode(weak.fitted(sources[source], stream, patches, seed, name), arrays)
    instances = [(c.box, c.mask) for c in found.members]
    found_latents["s"] = pooled_features(
        world.segmenter or weak.small_s(world, s_config, seed), world.image, instances, s_config
    )
    if raw.onnx is not None:
        found_latents["onnx"] = weak.encoded(world, found, raw.onnx)
    mask, s = found_latents["mask"], found_latents["s"]
    found_latents["mask+s"] = np.hstack([mask, s])
    found_latents["vae+s"] = SideBySide.fitted(mask, s)(mask, s)
    return found_latents


def out_of_fold(blocks: Sequence[np.ndarray], y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) log-odds of a probe that has not seen the candidate's block; the mean over several ways to fold."""
    logit = np.zeros(len(y))
    for folding in range(NUM_FOLDINGS):
        for known, unseen in GroupKFold(NUM_FOLDS, shuffle=True, random_state=folding).split(y, y, group):
            logit[unseen] += logit_of(blocks, y, known)[unseen] / NUM_FOLDINGS
    return logit


def paired_gain(found: Candidates, logit: np.ndarray, base: np.ndarray, rows: np.ndarray) -> tuple[float, float, float]:
    """Gain in AUC over ``base`` among ``rows``, with a 95 percent interval over resampled blocks."""
    rng = np.random.default_rng(0)
    groups = np.unique(found.group[rows])
    members = {g: rows[found.group[rows] == g] for g in groups}
    gains = []
    for _ in range(NUM_BOOTSTRAP):
        drawn = np.concatenate([members[g] for g in rng.choice(groups, len(groups))])
        gains.append(auc(found.y, logit, drawn) - auc(found.y, base, drawn))
    low, high = np.nanpercentile(gains, [2.5, 97.5])
    return auc(found.y, logit, rows) - auc(found.y, base, rows), float(low), float(high)


def purity(features: np.ndarray, y: np.ndarray) -> float:
    """Mean share of the nearest neighbours that have the same answer, balanced over both answers."""
    near = NearestNeighbors(n_neighbors=NUM_NEIGHBOURS + 1).fit(features).kneighbors(features)[1][:, 1:]
    same = (y[near] == y[:, None]).mean(1)
    return float(np.mean([same[y == value].mean() for value in (0, 1)]))


def report(results: Results, found: Candidates, streams: Mapping[str, np.ndarray], **settings: object) -> None:
    """Rows of every set of features."""
    plain = score_and_size(found)
    everything, confident = np.arange(len(found.y)), np.flatnonzero(found.score >= CONFIDENT_SCORE)
    base = out_of_fold([plain], found.y, found.group)
    for name, blocks in feature_sets(plain, streams):
        logit = out_of_fold(blocks, found.y, found.group)
        features = {"features": name, "dimensions": sum(block.shape[1] for block in blocks)}
        for suffix, rows in (("", everything), ("_confident", confident)):
            if len(set(found.y[rows])) < 2:
                continue  # no AUC among candidates that are all true, all false, or none
            results.add(f"auc{suffix}", auc(found.y, logit, rows), "AUC", **settings, **features)
            gain, low, high = paired_gain(found, logit, base, rows)
            results.add(
                f"auc{suffix}_gain", gain, "AUC difference", spread=[low, high], spread_is=INTERVAL, **settings,
                **features,
            )  # fmt: skip
        nearby = purity(balanced(blocks, everything), found.y)
        results.add("purity", nearby, "share", **settings, **features)


def feature_sets(plain: np.ndarray, streams: Mapping[str, np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Score and size; every stream and some combinations, alone and beside score and size."""
    yield "score and size", [plain]
    names = [(name,) for name in streams]
    names += [("mask", "image"), ("mask", "simclr"), ("s", "simclr"), ("mask", "s", "simclr")]
    names += [("mask+s", "simclr"), ("vae+s", "simclr"), ("mask", "onnx"), ("simclr", "onnx")]
    for combined in names:
        if not set(combined) <= set(streams):
            continue
        blocks = [streams[name] for name in combined]
        yield " and ".join(combined), blocks
        yield " and ".join(combined) + ", score and size", [plain, *blocks]


def main() -> None:
    parser = weak.parser(__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the streams, and of synthetic tissue")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=["image", "simclr"], help="streams that are not trained"
    )
    options = common_options.parse(parser, full={"seed": 0, "threads": 2})
    use_threads(options.threads)
    results = Results("stream_probe", options)
    for name in common_options.chosen_sets(options, weak.WEAK_SETS):
        world, found, config, patches, s_config = weak.load(options, name, options.seed)
        settings = {"set": name, "side": options.side, "seed": options.seed, "candidates": len(found.y)}
        settings |= {"true": int(found.y.sum()), "overrides": options.override}
        streams = latents(world, found, config, s_config, patches, options.seed, options.without)
        report(results, found, streams, data=world.data, **settings)


if __name__ == "__main__":
    main()
