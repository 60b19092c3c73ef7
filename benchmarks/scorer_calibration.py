"""How well calibrated is the shared scorer's probability, beside simpler scorers?

Some candidates are answered, chosen by a strategy in batches of 10 (the first at random). Each scorer then predicts the
others: log loss, Brier score, expected calibration error (ten bins of equal numbers), accuracy, and by how much the
error that the scorer expects of its own labels differs from the true one. Scorers: "s" is S's score as it stands;
"penalised" a logistic regression on all columns with one penalty (the scorer of earlier versions); "tuned" the same on
balanced streams, with the penalty by cross-validated log loss and Platt's scaling of the held-out logits once both
answers were given ten times; "shared" the scorer that the project uses. The gain over "penalised" is paired, and its
interval is over draws of the answers, which share candidates: it says how much draws differ, not pools.

Two committees, drawn from the posterior and fitted to resampled answers (bootstrap): how often does the true share of
right labels lie in the interval of ``stopping.expected_right``, and how wide is that interval?

    python benchmarks/scorer_calibration.py
    python benchmarks/scorer_calibration.py --full --data DIR --sets fafb
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from common import options as common_options
from common import pools
from common.pools import NUM_MEMBERS, Pool, committee, shared_scorer
from common.results import Results, means, together
from common.weak import WEAK_SETS, balanced
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from twostream.models.training import use_threads
from twostream.query import get_strategy
from twostream.query.pool import check_pool
from twostream.query.scorer import Columns, has_both, laplace
from twostream.query.stopping import expected_right

BATCH_SIZE = 10
NUM_BINS = 10
GRID = tuple(10.0**k for k in np.arange(-2.5, 1.1, 0.5))
ENOUGH = 10
"""Answers of either kind from which "tuned" tunes."""
UNITS = {
    "log_loss": "nats", "brier": "squared error", "calibration_error": "share", "accuracy": "share",
    "expected_minus_true_error": "share difference", "covered": "share", "width": "share",
}  # fmt: skip


def main() -> None:
    parser = pools.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the streams, and of synthetic tissue")
    parser.add_argument("--answers", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--draws", type=int, default=3, help="first batches per seed")
    full = {"seeds": [0, 1, 2], "answers": [6, 10, 20, 50, 100], "draws": 10}
    options = common_options.parse(parser, full=full)
    use_threads(options.threads)
    results = Results("scorer_calibration", options)
    for name in common_options.chosen_sets(options, WEAK_SETS):
        found = [pools.load(options, name, seed) for seed in options.seeds]
        for asked_by in options.asked_by:
            for number in options.answers:
                if asked_by != options.asked_by[0] and number <= BATCH_SIZE:
                    continue  # the first batch is random, whatever the strategy
                report(results, options, name, found, asked_by, number)


def report(
    results: Results, options: argparse.Namespace, name: str, found: list[Pool], asked_by: str, number: int
) -> None:
    """Rows of one set, strategy and number of answers."""
    data = together(pool.data for pool in found)
    scored: dict[str, list[dict[str, float]]] = {}
    for pool in found:
        for draw in range(options.draws):
            y = answered(pool, number, asked_by, draw)
            if not has_both(y):
                continue
            unseen = np.isnan(y)
            for scorer, predict in SCORERS.items():
                scored.setdefault(scorer, []).append(calibration(predict(pool, y)[unseen], pool.y[unseen]))
            for members, draw_members in COMMITTEES.items():
                ensemble = draw_members(pool, y, draw)[:, unseen]
                scored.setdefault(members, []).append(
                    interval(shared_scorer(pool, y)[unseen], ensemble, pool.y[unseen])
                )
    for scorer, values in scored.items():
        settings = {"set": name, "side": options.side, "asked by": asked_by, "answers": number, "scorer": scorer}
        settings["runs"] = len(values)
        for measure, mean in means(values).items():
            results.add(measure, mean, UNITS[measure], data=data, **settings)
        if scorer not in COMMITTEES and scorer != "penalised" and len(values) > 1:
            gain = [b["log_loss"] - v["log_loss"] for b, v in zip(scored["penalised"], values, strict=True)]
            half = 1.96 * float(np.std(gain, ddof=1)) / np.sqrt(len(gain))
            mean = float(np.mean(gain))
            results.add(
                "less_log_loss_than_penalised", mean, "nats difference", data=data,
                spread=[mean - half, mean + half], spread_is=f"95 percent, normal over {len(gain)} runs", **settings,
            )  # fmt: skip


def answered(pool: Pool, number: int, asked_by: str, draw: int) -> np.ndarray:
    """(N,) answers so far: a random batch, then what the strategy asks with the shared scorer."""
    y = np.full(len(pool.y), np.nan)
    while (left := number - int((~np.isnan(y)).sum())) > 0:
        first = np.isnan(y).all()
        settings = {"num_clusters": (5, 2)} if asked_by == "two-stream" and not first else {}
        strategy = get_strategy("random" if first else asked_by, settings, random_state=draw)
        asked = strategy.query(pool.streams, y, batch_size=min(left, BATCH_SIZE), probability=shared_scorer(pool, y))
        y[asked] = pool.y[asked]
    return y


# -- scorers ----------------------------------------------------------------------------------------------------------


def plain(pool: Pool) -> np.ndarray:
    return np.stack([logit(np.clip(pool.score, 1e-4, 1 - 1e-4)), np.log(pool.num_voxels)], axis=1)


def penalised(pool: Pool, y: np.ndarray) -> np.ndarray:
    known = ~np.isnan(y)
    features = np.hstack([plain(pool), *pool.streams.values()])
    features = StandardScaler().fit(features[known]).transform(features)
    return LogisticRegression(C=0.1, max_iter=1000).fit(features[known], y[known]).predict_proba(features)[:, 1]


def tuned(pool: Pool, y: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(y))
    everything = np.arange(len(y))
    features = np.hstack(
        [balanced([plain(pool)], everything) * np.sqrt(2), balanced(list(pool.streams.values()), everything)]
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
    "s": lambda pool, y: pool.score,
    "penalised": penalised,
    "tuned": tuned,
    "shared": shared_scorer,
}


# -- committees -------------------------------------------------------------------------------------------------------


def resampled(pool: Pool, y: np.ndarray, seed: int) -> np.ndarray:
    """(M, N) by the same model, each member fitted to answers resampled within each class."""
    rng = np.random.default_rng(seed)
    columns = Columns.of(check_pool(pool.streams, y, pool.score), pool.score, pool.num_voxels)
    features = np.concatenate([block for _, block in columns.blocks(np.arange(len(y)))])
    classes = [np.flatnonzero(y == value) for value in (0, 1)]
    again = (np.concatenate([rng.choice(rows, len(rows)) for rows in classes]) for _ in range(NUM_MEMBERS))
    prior = columns.prior()
    return np.stack([expit(features @ laplace(features[rows], y[rows], *prior)[0]) for rows in again])


COMMITTEES = {"committee, posterior": committee, "committee, bootstrap": resampled}


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
