"""Can the shared scorer's probability be believed? One JSON row per way of asking, number of answers and scorer.

Candidates, answers and streams are those of ``stream_probe.py``; the streams see no answer. Some candidates are
answered, chosen by a strategy in batches of 10 (the first one at random), and each scorer says what it thinks of the
others: log loss, Brier score, expected calibration error (ten bins of equal numbers), accuracy, all beside the answers
that the scorer has not seen; and by how much the error that the scorer expects of its own labels misses the true one.
Scorers: "s" is S's score as it stands; "penalised" a logistic regression on all columns with one penalty (the scorer
of earlier versions); "tuned" the same on balanced streams, penalty by cross-validated log loss and Platt's scaling of
the held-out logits as soon as both answers were given ten times; "shared" the one that is in use.
``less_log_loss_than_penalised`` is the paired difference and half of its 95 percent interval over runs: runs share
candidates, so it says how much draws differ, not pools.

Rows "interval": does the true error of the labels lie in the interval that stopping.expected_right gives, with a
committee drawn from the posterior, and with one of resampled answers (bootstrap)?

    python benchmarks/scorer_calibration.py --data DIR --set fafb --side development --seeds 0 1 2 --out rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from stream_probe import balanced, draws, fitted, load, settings_of

from twostream.models.streams.draw import image_input, mask_input
from twostream.models.streams.encode import encode
from twostream.models.training import use_threads
from twostream.query import Scorer, get_strategy
from twostream.query.pool import check_pool
from twostream.query.scorer import Columns, has_both, laplace
from twostream.query.stopping import expected_right

BATCH_SIZE = 10
NUM_BINS = 10
NUM_MEMBERS = 20
GRID = tuple(10.0**k for k in np.arange(-2.5, 1.1, 0.5))
ENOUGH = 10
"""Answers of either kind from which "tuned" tunes."""
Pool = dict[str, np.ndarray]
"""score, num_voxels, y, supervised, unsupervised: one row per candidate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="name", default="fafb")
    parser.add_argument("--side", choices=["development", "confirmation"], default="development")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of streams; synthetic: of tissue, too")
    parser.add_argument("--answers", type=int, nargs="+", default=[6, 10, 20, 50, 100])
    parser.add_argument("--asked-by", nargs="+", default=["random", "entropy", "two-stream"])
    parser.add_argument("--draws", type=int, default=20, help="first batches per seed")
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings of the streams")
    parser.add_argument("--cache", type=Path, help="folder for latents: streams are trained once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads(options.threads)
    pools = {seed: pool_of(options, seed) for seed in options.seeds}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    head = {"name": "scorer_calibration", "set": options.name, "side": options.side, "seeds": options.seeds}
    head |= {"draws": options.draws, "commit": commit.strip()}
    for row in rows(pools, options):
        print(json.dumps(row), flush=True)
        if options.out:
            with options.out.open("a") as handle:
                handle.write(json.dumps(head | row) + "\n")


def rows(pools: dict[int, Pool], options: argparse.Namespace) -> Iterator[dict[str, object]]:
    for asked_by in options.asked_by:
        for number in options.answers:
            if asked_by != options.asked_by[0] and number <= BATCH_SIZE:
                continue  # the first batch is random, whoever asks
            scored: dict[str, list[dict[str, float]]] = {}
            for pool in pools.values():
                for draw in range(options.draws):
                    y = answered(pool, number, asked_by, draw)
                    if not has_both(y):
                        continue
                    unseen = np.isnan(y)
                    for name, scorer in SCORERS.items():
                        p = scorer(pool, y)[unseen]
                        scored.setdefault(name, []).append(calibration(p, pool["y"][unseen]))
                    for name, committee in COMMITTEES.items():
                        inside = interval(
                            shared(pool, y)[unseen], committee(pool, y, draw)[:, unseen], pool["y"][unseen]
                        )
                        scored.setdefault(name, []).append(inside)
            for name, values in scored.items():
                mean = {key: round(float(np.mean([v[key] for v in values])), 4) for key in values[0]}
                row = {"asked_by": asked_by, "answers": number, "scorer": name, "runs": len(values)} | mean
                if "log_loss" in mean:
                    gain = np.array(
                        [v["log_loss"] - s["log_loss"] for v, s in zip(scored["penalised"], values, strict=True)]
                    )
                    half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
                    row["less_log_loss_than_penalised"] = [round(float(v), 4) for v in (gain.mean(), half)]
                yield row


def pool_of(options: argparse.Namespace, seed: int) -> Pool:
    """Candidates of a set as both streams of one seed see them."""
    path = options.cache / f"{options.name}-{options.side}-{seed}.npz" if options.cache else None
    if path and path.exists():
        with np.load(path) as stored:
            return dict(stored)
    config, patches, s_settings = settings_of(["segmentation.num_steps=400", *options.override])
    world, found, _ = load(options.name, options.data, patches, options.side, s_settings, seed)
    sources = draws(world, found, config, patches, seed)
    masks = fitted(sources["mask"], config.supervised, patches, seed, "mask")
    images = fitted(sources["image"], config.unsupervised, patches, seed, "image")
    pool = {
        "supervised": encode(masks, mask_input(found.mask_patch)),
        "unsupervised": encode(images, image_input(found.image_patch)),
        "score": found.score, "num_voxels": np.array([c.num_voxels for c in found.members]), "y": found.y,
    }  # fmt: skip
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **pool)  # type: ignore[arg-type]
    return pool


def streams_of(pool: Pool) -> Pool:
    return {name: pool[name] for name in ("supervised", "unsupervised")}


def answered(pool: Pool, number: int, asked_by: str, draw: int) -> np.ndarray:
    """(N,) answers so far: a random batch, then what the strategy asks with the shared scorer."""
    y = np.full(len(pool["y"]), np.nan)
    while (left := number - int((~np.isnan(y)).sum())) > 0:
        first = np.isnan(y).all()
        settings = {"num_clusters": (5, 2)} if asked_by == "two-stream" and not first else {}
        strategy = get_strategy("random" if first else asked_by, settings, random_state=draw)
        asked = strategy.query(streams_of(pool), y, batch_size=min(left, BATCH_SIZE), probability=shared(pool, y))
        y[asked] = pool["y"][asked]
    return y


# -- scorers ----------------------------------------------------------------------------------------------------------


def shared(pool: Pool, y: np.ndarray) -> np.ndarray:
    return Scorer().predict(streams_of(pool), y, score=pool["score"], num_voxels=pool["num_voxels"])


def plain(pool: Pool) -> np.ndarray:
    return np.stack([logit(np.clip(pool["score"], 1e-4, 1 - 1e-4)), np.log(pool["num_voxels"])], axis=1)


def penalised(pool: Pool, y: np.ndarray) -> np.ndarray:
    known = ~np.isnan(y)
    features = np.hstack([plain(pool), *streams_of(pool).values()])
    features = StandardScaler().fit(features[known]).transform(features)
    return LogisticRegression(C=0.1, max_iter=1000).fit(features[known], y[known]).predict_proba(features)[:, 1]


def tuned(pool: Pool, y: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(y))
    everything = np.arange(len(y))
    features = np.hstack(
        [balanced([plain(pool)], everything) * np.sqrt(2), balanced(list(streams_of(pool).values()), everything)]
    )
    x, t = features[known], y[known]
    if min(t.sum(), (1 - t).sum()) < ENOUGH:
        return expit(fit(x, t, 1.0).decision_function(features))
    held_out = {c: out_of_fold(x, t, c) for c in GRID}
    best = min(GRID, key=lambda c: log_loss(expit(held_out[c]), t))
    smooth = np.where(t == 1, (t.sum() + 1) / (t.sum() + 2), 1 / ((1 - t).sum() + 2))  # Platt 1999
    slope, shift = minimize(lambda v: log_loss(expit(v[0] * held_out[best] + v[1]), smooth), [1.0, 0.0]).x
    return expit(slope * fit(x, t, best).decision_function(features) + shift)


def fit(x: np.ndarray, y: np.ndarray, c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=2000).fit(x, y)


def out_of_fold(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    values = np.empty(len(y))
    for known, unseen in StratifiedKFold(5).split(x, y):
        values[unseen] = fit(x[known], y[known], c).decision_function(x[unseen])
    return values


SCORERS: dict[str, Callable[[Pool, np.ndarray], np.ndarray]] = {
    "s": lambda pool, y: pool["score"],
    "penalised": penalised,
    "tuned": tuned,
    "shared": shared,
}


# -- committees -------------------------------------------------------------------------------------------------------


def drawn(pool: Pool, y: np.ndarray, seed: int) -> np.ndarray:
    """(M, N) by the shared scorer."""
    scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
    return scorer.predict_ensemble(streams_of(pool), y, score=pool["score"], num_voxels=pool["num_voxels"])


def resampled(pool: Pool, y: np.ndarray, seed: int) -> np.ndarray:
    """(M, N) by the same model, each member fitted to answers drawn again within their kind."""
    rng = np.random.default_rng(seed)
    columns = Columns.of(check_pool(streams_of(pool), y, pool["score"]), pool["score"], pool["num_voxels"])
    features = np.concatenate([block for _, block in columns.blocks(np.arange(len(y)))])
    kinds = [np.flatnonzero(y == value) for value in (0, 1)]
    again = (np.concatenate([rng.choice(rows, len(rows)) for rows in kinds]) for _ in range(NUM_MEMBERS))
    prior = columns.prior()
    return np.stack([expit(features @ laplace(features[rows], y[rows], *prior)[0]) for rows in again])


COMMITTEES = {"interval, posterior": drawn, "interval, bootstrap": resampled}


# -- measures ---------------------------------------------------------------------------------------------------------


def log_loss(p: np.ndarray, y: np.ndarray) -> float:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def calibration(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    bins = np.array_split(np.argsort(p, kind="stable"), NUM_BINS)
    wrong = np.mean((p >= 0.5) != (y == 1))
    return {
        "log_loss": log_loss(p, y),
        "brier": float(np.mean((p - y) ** 2)),
        "calibration_error": float(sum(len(b) * abs(p[b].mean() - y[b].mean()) for b in bins) / len(y)),
        "accuracy": float(1 - wrong),
        "expected_minus_true_error": float(np.mean(np.minimum(p, 1 - p)) - wrong),
    }


def interval(p: np.ndarray, ensemble: np.ndarray, y: np.ndarray) -> dict[str, float]:
    found = expected_right(p, ensemble)
    right = np.mean((p >= 0.5) == (y == 1))
    return {"covered": float(found.low <= right <= found.high), "width": found.high - found.low}


if __name__ == "__main__":
    main()
