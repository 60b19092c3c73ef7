"""Does fine-tuning the unsupervised stream on answers tell more of candidates that nobody has answered yet?

Candidates, answers and patches as in `stream_probe.py`. For every seed a stream is trained, a share of the candidates
is answered (drawn at random), and the stream is fine-tuned on those answers in several ways. A logistic probe is fitted
to the latents of the answered candidates and scored, by ROC-AUC, on all others, before and after. "own loss" is the
control: as many steps without any answer. One JSON row per seed and way, then the paired gains over doing nothing, with
a 95 percent interval over the seeds.

    python benchmarks/active_clustering.py --data DIR --set fafb --side development --seeds 0 1 2 3 4
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import numpy as np
from scipy import stats
from stream_probe import Candidates, auc, draws, fitted, load, logit_of, score_and_size, settings_of

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


def scored(found: Candidates, features: np.ndarray, answered: np.ndarray) -> dict[str, float]:
    """AUC among what is not answered, of a probe on what is: of the latents alone, and with score and size."""
    others = np.flatnonzero(~answered)
    result = {}
    for name, blocks in (("alone", [features]), ("with score and size", [score_and_size(found), features])):
        result[name] = auc(found.y, logit_of(blocks, found.y, np.flatnonzero(answered)), others)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="name", default="fafb")
    parser.add_argument("--side", choices=["development", "confirmation"], default="development")
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings of the streams")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads(options.threads)
    config, patches, s_settings = settings_of(options.override)
    world, found, _ = load(options.name, options.data, patches, options.side, s_settings, 0)
    images = image_input(found.image_patch)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    head = {"name": "active_clustering", "set": options.name, "side": options.side, "answers": options.answers}
    head |= {"overrides": options.override, "commit": commit.strip()}
    scores: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds:
        draw = draws(world, found, config, patches, seed)["image"]
        stream = config.unsupervised
        network = fitted(draw, stream, patches, seed, "image")
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
            row = head | {"seed": seed, "way": way} | {name: round(value, 4) for name, value in values.items()}
            print(json.dumps(row), flush=True)
            if options.out:
                with options.out.open("a") as handle:
                    handle.write(json.dumps(row) + "\n")
    for way in options.ways:
        for name in ("alone", "with score and size"):
            gain = np.array([a[name] - b[name] for a, b in zip(scores[way], scores["nothing"], strict=True)])
            half = (
                stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
            )
            interval = [round(float(v), 4) for v in (gain.mean(), gain.mean() - half, gain.mean() + half)]
            print(json.dumps({"way": way, "features": name, "gain": interval, "better": int((gain > 0).sum())}))


if __name__ == "__main__":
    main()
