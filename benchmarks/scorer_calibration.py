"""How well calibrated is the shared scorer's probability, beside simpler and richer scorers?

Some candidates are answered, chosen by a strategy in batches of 10 (the first at random). Each scorer then predicts the
others: log loss, Brier score, expected calibration error (ten bins of equal numbers), AUC, accuracy, and by how much
the error that the scorer expects of its own labels differs from the true one. Scorers:

- "s": S's score as it stands;
- "penalised": a logistic regression on all columns with one penalty (the scorer of earlier versions);
- "tuned": the same on balanced streams, with the penalty by cross-validated log loss and Platt's scaling of the
  held-out logits once both answers were given ten times;
- "waits": Bayesian logistic regression that is S's score until both answers were given, with a variance of 100 for the
  intercept (the scorer of earlier versions, later than "penalised");
- "any, V": the same from the first answer on, with variance V for the intercept;
- "mean logit, V", "logit mean, V", "own unit, V", "predictive, V": the same with other prior means, by which S's score
  also says how many candidates are True (see ``expected_weights``);
- "local, V, L": the shared scorer with local terms of each stream of variance V and squared length L (Nystroem features
  of a Gaussian kernel, Williams and Seeger 2001);
- "shared": the scorer that the project uses.

"Curated error" is the share of wrong labels in the whole pool, where answered candidates are right. Strategies ask with
the shared scorer, so that all scorers see the same answers; with --own-questions each asks with the scorer that is
measured.

Two committees, drawn from the posterior and fitted to resampled answers (bootstrap): how often does the true share of
right labels lie in the interval of ``stopping.expected_right``, and how wide is that interval?

A row is a mean over seeds and draws of the first batch; with --pooled also over strategies and numbers of answers, each
counted alike. The gain over "waits" is paired. Its interval is over seeds where they are tissues of their own, and over
draws where all seeds share one set of candidates (they are seeds of the streams): then it says how much draws differ,
not pools.

    python benchmarks/scorer_calibration.py
    python benchmarks/scorer_calibration.py --full --data DIR --sets fafb
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from common import options as common_options
from common import pools
from common.pools import NUM_MEMBERS, Pool, committee, shared_scorer
from common.results import Results, mean_interval, together
from common.weak import WEAK_SETS, balanced
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from twostream.models.training import use_threads
from twostream.query import get_strategy
from twostream.query.pool import check_pool
from twostream.query.scorer import CONSTANT_VARIANCE, SCORE_WEIGHT, Columns, laplace
from twostream.query.stopping import expected_right

BATCH_SIZE = 10
NUM_BINS = 10
GRID = tuple(10.0**k for k in np.arange(-2.5, 1.1, 0.5))
NUM_LANDMARKS = 64
"""Of the local terms, per stream."""
ENOUGH = 10
"""Answers of either kind from which "tuned" tunes."""
UNITS = {
    "log_loss": "nats", "brier": "squared error", "calibration_error": "share", "auc": "AUC", "accuracy": "share",
    "curated_error": "share", "expected_minus_true_error": "share difference", "covered": "share", "width": "share",
}  # fmt: skip

Cell = tuple[str, int]
"""Strategy that asked, and number of answers."""
Run = dict[tuple[int, int], dict[str, float]]
"""Measures of every seed and draw."""
Runs = dict[str, Run]
"""Of every scorer."""
Settings = dict[str, object]


def main() -> None:
    parser = pools.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the streams, and of synthetic tissue")
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--draws", type=int, default=3, help="first batches per seed")
    parser.add_argument("--scorers", nargs="+", choices=list(ARMS), default=SHOWN, help="default: %(default)s")
    parser.add_argument("--true-share", type=float, help="thin the candidates at random to this share of True")
    parser.add_argument("--measures", nargs="+", choices=list(UNITS), default=list(UNITS), help="default: all")
    parser.add_argument("--gains", nargs="*", choices=list(UNITS), default=[], help="measures compared with waits")
    parser.add_argument("--own-questions", action="store_true", help="strategies use the scorer that is measured")
    parser.add_argument("--pooled", action="store_true", help="one row per scorer")
    full = {"seeds": [0, 1, 2], "answers": [1, 3, 6, 10, 20, 50, 100], "draws": 10}
    options = common_options.parse(parser, full=full)
    use_threads(options.threads)
    results = Results("scorer_calibration", options)
    for name in common_options.chosen_sets(options, WEAK_SETS):
        found = [thinned(pools.load(options, name, seed), options.true_share) for seed in options.seeds]
        cells: dict[Cell, Runs] = {}
        for asked_by in options.asked_by:
            # The first batch is random, whatever the strategy.
            numbers = [n for n in options.answers if n > BATCH_SIZE or asked_by == options.asked_by[0]]
            for seed, pool in zip(options.seeds, found, strict=True):
                for draw in range(options.draws):
                    shared = answered(pool, numbers, asked_by, draw, shared_scorer)
                    for arm in options.scorers:
                        own = options.own_questions and arm in SCORERS
                        answers = answered(pool, numbers, asked_by, draw, SCORERS[arm]) if own else shared
                        for number, y in answers.items():
                            runs = cells.setdefault((asked_by, number), {})
                            runs.setdefault(arm, {})[seed, draw] = ARMS[arm](pool, y, draw)
        if options.pooled:
            report(results, options, name, found, list(cells.values()), {})
        else:
            for (asked_by, number), runs in cells.items():
                report(results, options, name, found, [runs], {"asked by": asked_by, "answers": number})


def report(
    results: Results, options: argparse.Namespace, name: str, found: list[Pool], cells: list[Runs], settings: Settings
) -> None:
    """Rows of one set: means over runs and cells, and paired gains over "waits"."""
    data = together(pool.data for pool in found)
    numbers = sorted({len(pool.y) for pool in found})
    settings = {"set": name, "side": options.side, "true share": options.true_share or "as it is"} | settings
    settings["candidates"] = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    settings["runs"] = sum(len(next(iter(runs.values()))) for runs in cells)
    for arm in options.scorers:
        named = {"scorer" if options.pooled else "arm": arm}
        values = defined_means([defined_means(list(runs[arm].values())) for runs in cells])
        for measure in [m for m in options.measures if m in values]:
            results.add(measure, values[measure], UNITS[measure], data=data, **named, **settings)
        if arm in SCORERS and arm != "waits" and "waits" in options.scorers:
            for measure in options.gains:
                gains = [gains_over(runs["waits"], runs[arm], measure, name == "synthetic") for runs in cells]
                mean, low, high = mean_interval(np.mean(gains, axis=0))
                enough = len(gains[0]) > 1
                results.add(
                    f"{measure}_less_than_waits", mean, f"{UNITS[measure]} difference", data=data,
                    spread=[low, high] if enough else None,
                    spread_is=f"95 percent, Student's t over {len(gains[0])} seeds or draws" if enough else None,
                    **named, **settings,
                )  # fmt: skip


def defined_means(values: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key, without NaN: there is no AUC where all unanswered candidates are of one kind."""
    kept = {key: [v[key] for v in values if not np.isnan(v[key])] for key in values[0]}
    return {key: float(np.mean(numbers)) if numbers else float("nan") for key, numbers in kept.items()}


def gains_over(base: Run, better: Run, measure: str, by_seed: bool) -> list[float]:
    """By how much a measure is smaller than another scorer's: the mean of every seed, or of every draw."""
    found: dict[int, list[float]] = {}
    for (seed, draw), values in better.items():
        found.setdefault(seed if by_seed else draw, []).append(base[seed, draw][measure] - values[measure])
    return [round(float(np.mean(values)), 9) for values in found.values()]  # equal scorers differ by rounding only


def thinned(pool: Pool, true_share: float | None) -> Pool:
    """The pool without candidates of the kind that is too frequent; None: the pool as it is."""
    if true_share is None:
        return pool
    order = np.random.default_rng(0).permutation(len(pool.y))
    kinds = {value: order[pool.y[order] == value] for value in (0, 1)}
    odds = true_share / (1 - true_share)
    number = {1: round(len(kinds[0]) * odds), 0: round(len(kinds[1]) / odds)}
    rows = np.sort(np.concatenate([rows[: number[value]] for value, rows in kinds.items()]))
    streams = {name: array[rows] for name, array in pool.streams.items()}
    return Pool(streams, pool.score[rows], pool.num_voxels[rows], pool.y[rows], pool.data)


def answered(
    pool: Pool, numbers: list[int], asked_by: str, draw: int, predict: Callable[[Pool, np.ndarray], np.ndarray]
) -> dict[int, np.ndarray]:
    """{number of answers: (N,) answers}: first a random batch, then what the strategy asks with a scorer."""
    y, order = np.full(len(pool.y), np.nan), np.zeros(0, int)
    while len(order) < max(numbers):
        first = len(order) == 0
        settings = {"num_clusters": (5, 2)} if asked_by == "two-stream" and not first else {}
        strategy = get_strategy("random" if first else asked_by, settings, random_state=draw)
        asked = strategy.query(pool.streams, y, batch_size=BATCH_SIZE, probability=predict(pool, y))
        order, y[asked] = np.concatenate([order, asked]), pool.y[asked]
    return {n: np.where(np.isin(np.arange(len(y)), order[:n]), pool.y, np.nan) for n in numbers}


# -- scorers ----------------------------------------------------------------------------------------------------------


def plain(pool: Pool) -> np.ndarray:
    return np.stack([logit(np.clip(pool.score, 1e-4, 1 - 1e-4)), np.log(pool.num_voxels)], axis=1)


def penalised(pool: Pool, y: np.ndarray) -> np.ndarray:
    known = ~np.isnan(y)
    if len(set(y[known])) < 2:
        return pool.score
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
    if len(set(t)) < 2:
        return pool.score
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


@dataclass(frozen=True)
class Bayesian:
    """Bayesian logistic regression with other priors than the shared scorer.

    Attributes:
        constant: prior variance of the intercept.
        local: prior variance of each stream's local terms; 0 leaves them out.
        length: squared length of their kernel, in units in which two candidates are 2 apart in the mean.
        waits: whether it is S's score until both answers were given.
        expects: which prior means score and intercept have, see ``expected_weights``.
    """

    constant: float
    local: float = 0.0
    length: float = 1.0
    waits: bool = False
    expects: str = "zero"

    def __call__(self, pool: Pool, y: np.ndarray) -> np.ndarray:
        known = ~np.isnan(y)
        if self.waits and len(set(y[known])) < 2:
            return pool.score
        columns = Columns.of(check_pool(pool.streams, y, pool.score).in_own_order(), pool.score, pool.num_voxels)
        linear = np.concatenate([block for _, block in columns.blocks(np.arange(len(y)))])
        expected, precision = columns.prior()
        precision[-1] = 1 / self.constant
        expected[0], expected[-1] = expected_weights(self.expects, pool, (linear**2 @ (1 / precision)).mean())
        if self.local:
            local = np.hstack([self.nystroem(z) for z in streams_of(columns, linear)])
            linear = np.hstack([local, linear])
            expected = np.concatenate([np.zeros(local.shape[1]), expected])
            precision = np.concatenate([np.full(local.shape[1], 1 / self.local), precision])
        weights, factor = laplace(linear[known], y[known], expected, precision)
        spread = (solve_triangular(factor, linear.T, lower=True) ** 2).sum(0)
        return expit(linear @ weights / np.sqrt(1 + np.pi / 8 * spread))

    def nystroem(self, z: np.ndarray) -> np.ndarray:
        """(N, NUM_LANDMARKS) features whose inner products are the kernel, exactly so at the landmarks."""
        landmarks = z[np.random.default_rng(0).permutation(len(z))[:NUM_LANDMARKS]]
        values, vectors = np.linalg.eigh(self.kernel(landmarks, landmarks))
        kept = values > 1e-8 * values[-1]
        return self.kernel(z, landmarks) @ (vectors[:, kept] / np.sqrt(values[kept]))

    def kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * self.length))


def expected_weights(expects: str, pool: Pool, variance: float) -> tuple[float, float]:
    """Prior means of the weight of the standardised log-odds of S's score, and of the intercept.

    Args:
        expects: "zero": the score tells which candidates are True, not how many; "mean logit" and "logit mean": the
            intercept is the mean log-odds of the scores, or the log-odds of their mean; "own unit": the log-odds before
            any answer are those of the scores; "predictive": larger than that, so that the probability before any
            answer, a mean over the prior, is about the score.
        pool: all its candidates are those by which the scorer standardises.
        variance: mean prior variance of the log-odds.
    """
    odds = plain(pool)[:, 0]
    if expects in ("own unit", "predictive"):
        factor = np.sqrt(1 + np.pi / 8 * variance) if expects == "predictive" else 1.0
        return factor * odds.std(), factor * odds.mean()
    return SCORE_WEIGHT, {"zero": 0.0, "mean logit": odds.mean(), "logit mean": logit(pool.score.mean())}[expects]


def streams_of(columns: Columns, linear: np.ndarray) -> list[np.ndarray]:
    """The columns of each stream."""
    widths = [len(middle) for middle, _ in columns.scales.values()]
    return np.split(linear[:, 2:-1], np.cumsum(widths)[:-1], axis=1)


SCORERS: dict[str, Callable[[Pool, np.ndarray], np.ndarray]] = {
    "s": lambda pool, y: pool.score,
    "penalised": penalised,
    "tuned": tuned,
    "waits": Bayesian(100, waits=True),
    **{f"any, {constant}": Bayesian(constant) for constant in (100, 10, 4, 2, 1)},
    **{
        f"{expects}, {constant}": Bayesian(constant, expects=expects)
        for expects in ("mean logit", "logit mean", "own unit", "predictive")
        for constant in (100, 10, 5, 2, 1)
    },
    **{
        f"local, {local}, {length}": Bayesian(CONSTANT_VARIANCE, local, length)
        for local in (1, 2)
        for length in (0.5, 1)
    },
    "shared": shared_scorer,
}


# -- committees -------------------------------------------------------------------------------------------------------


def resampled(pool: Pool, y: np.ndarray, seed: int) -> np.ndarray:
    """(M, N) by the same model, each member fitted to answers resampled within each class."""
    rng = np.random.default_rng(seed)
    columns = Columns.of(check_pool(pool.streams, y, pool.score), pool.score, pool.num_voxels)
    features = np.concatenate([block for _, block in columns.blocks(np.arange(len(y)))])
    classes = [rows for value in (0, 1) if len(rows := np.flatnonzero(y == value))]
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
        "auc": float(roc_auc_score(y, p)) if len(set(y)) == 2 else float("nan"),
        "accuracy": float(1 - wrong),
        "expected_minus_true_error": float(np.mean(np.minimum(p, 1 - p)) - wrong),
    }


def interval(p: np.ndarray, ensemble: np.ndarray, y: np.ndarray) -> dict[str, float]:
    found = expected_right(p, ensemble)
    right = np.mean((p >= 0.5) == (y == 1))
    return {"covered": float(found.low <= right <= found.high), "width": found.high - found.low}


def scored(predict: Callable[[Pool, np.ndarray], np.ndarray]) -> Callable[[Pool, np.ndarray, int], dict[str, float]]:
    """Measures of a scorer on the unanswered candidates."""

    def measured(pool: Pool, y: np.ndarray, draw: int) -> dict[str, float]:
        unseen = np.isnan(y)
        found = calibration(predict(pool, y)[unseen], pool.y[unseen])
        return found | {"curated_error": (1 - found["accuracy"]) * unseen.mean()}

    return measured


def covering(draw_members: Callable[[Pool, np.ndarray, int], np.ndarray]) -> Callable[..., dict[str, float]]:
    """Measures of a committee's interval on the unanswered candidates."""

    def measured(pool: Pool, y: np.ndarray, draw: int) -> dict[str, float]:
        unseen = np.isnan(y)
        return interval(shared_scorer(pool, y)[unseen], draw_members(pool, y, draw)[:, unseen], pool.y[unseen])

    return measured


ARMS: dict[str, Callable[[Pool, np.ndarray, int], dict[str, float]]] = {
    **{name: scored(predict) for name, predict in SCORERS.items()},
    **{name: covering(draw_members) for name, draw_members in COMMITTEES.items()},
}
SHOWN = ["s", "penalised", "tuned", "waits", "shared", *COMMITTEES]


if __name__ == "__main__":
    main()
