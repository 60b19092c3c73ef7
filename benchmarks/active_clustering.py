"""Does fine-tuning the unsupervised stream on answers help it to tell apart candidates that are not answered yet?

For every seed a stream is trained, some candidates are answered (drawn at random), and the stream is fine-tuned on
those answers in several ways. A logistic probe is fitted to the latents of the answered candidates and scored by
ROC-AUC on all others, before and after. "own loss" is the control: as many steps without any answer. The result is the
paired gain over no fine-tuning, with a 95 percent interval over the seeds, once for the latents alone and once beside
S's score and the object's size.

    python benchmarks/active_clustering.py
    python benchmarks/active_clustering.py --full --data DIR --sets fafb --side confirmation
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
from common import options as common_options
from common import weak
from common.results import Results

from twostream.models.streams.active_clustering import fine_tune
from twostream.models.streams.draw import image_input
from twostream.models.streams.encode import encode
from twostream.models.training import use_threads

WAYS = {
    "own loss": {"weight": 0.0, "clustering_weight": 0.0},
    "contrastive": {"clustering_weight": 0.0},
    "clustering": {"weight": 0.0},
    "both": {},
}
"""Changes of the settings of active clustering."""
FEATURES = ("alone", "with score and size")


def scored(found: weak.Candidates, latents: np.ndarray, answered: np.ndarray) -> dict[str, float]:
    """AUC among the unanswered candidates of a probe fitted to the answered ones."""
    others = np.flatnonzero(~answered)
    result = {}
    for name, blocks in zip(FEATURES, ([latents], [weak.score_and_size(found), latents]), strict=True):
        result[name] = weak.auc(found.y, weak.logit_of(blocks, found.y, np.flatnonzero(answered)), others)
    return result


def main() -> None:
    parser = weak.parser(__doc__)
    parser.add_argument("--answers", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the streams")
    parser.add_argument("--tissue-seed", type=int, default=1, help="of synthetic tissue")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["own loss", "both"])
    options = common_options.parse(
        parser, full={"answers": 100, "seeds": [0, 1, 2, 3, 4], "ways": list(WAYS), "tissue_seed": 0}
    )
    use_threads(options.threads)
    results = Results("active_clustering", options)
    for name in common_options.chosen_sets(options, weak.WEAK_SETS):
        world, found, config, patches, _ = weak.load(options, name, options.tissue_seed)
        images = image_input(found.image_patch)
        settings = {"set": name, "side": options.side, "answers": options.answers}
        scores: dict[str, list[dict[str, float]]] = {}
        for seed in options.seeds:
            draw, stream = weak.draws(world, found, config, patches, seed)["image"], config.unsupervised
            network = weak.fitted(draw, stream, patches, seed, "image")
            answered = np.zeros(len(found.y), bool)
            answered[np.random.default_rng(seed).permutation(len(found.y))[: options.answers]] = True
            by_way = {"nothing": scored(found, encode(network, images), answered)}
            for way in options.ways:
                tuned = copy.deepcopy(network)
                with tempfile.TemporaryDirectory() as folder:
                    fine_tune(
                        tuned, draw, found.image_patch[answered], found.y[answered], found.image_patch[~answered],
                        config.active_clustering.model_copy(update=WAYS[way]), stream,
                        planes=patches.planes, seed=seed, resume_path=Path(folder) / "resume",
                    )  # fmt: skip
                by_way[way] = scored(found, encode(tuned, images), answered)
            for way, values in by_way.items():
                scores.setdefault(way, []).append(values)
                for features, value in values.items():
                    results.add(
                        "auc", value, "AUC", data=world.data, **settings, seed=seed, way=way, features=features,
                        overrides=options.override,
                    )  # fmt: skip
        for way in options.ways:
            for features in FEATURES:
                after, before = ([v[features] for v in scores[w]] for w in (way, "nothing"))
                results.differences(
                    "auc", after, before, "AUC", data=world.data, **settings, way=way, features=features
                )


if __name__ == "__main__":
    main()
