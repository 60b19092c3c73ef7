"""How fast is two-stream beside the algorithm as published, in the same run?

The published side is written here from the description of its steps: k-means of scikit-learn, a tensor of all pairs of
candidates and answers, ten restarts for every fine clustering. It must select the rows of the golden files, which the
published script selected, before anything is timed. What the fast k-means of the default loses is measured on the very
problems of the published side: its inertia over that of scikit-learn.

    python benchmarks/query_speed.py
    python benchmarks/query_speed.py --full                          # 200,000 x (16 + 128), 100 x 10, 1,000 answered
    python benchmarks/query_speed.py --full --candidates 50000 --widths 16 1024
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import gaussian
from common import options as common_options
from common.measure import Seconds, timed
from common.results import Results
from sklearn.cluster import KMeans

from twostream.query import TwoStream, quick

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
SETTLING_SECONDS = 1.0
"""Before each run: BLAS threads of the run before spin for a tenth of a second and would slow down the next one."""
WAYS: dict[str, dict[str, Any]] = {
    "as published": {},
    "exact": {"variant": "published", "exact": True},
    "default": {},
    "adaptive": {"variant": "adaptive"},
}
"""Settings of ``TwoStream``; the published side has none."""


@dataclass(frozen=True)
class Problem:
    """A k-means problem of the published side, and the inertia that it reached."""

    features: np.ndarray
    num_clusters: int
    inertia: float


def as_published(
    supervised: np.ndarray,
    unsupervised: np.ndarray,
    answered: np.ndarray,
    num_coarse: int,
    num_fine: int,
    problems: list[Problem] | None = None,
) -> np.ndarray:
    """Rows that the published script selects: its steps, its cost, its wrong line.

    ``problems`` is filled with the k-means problems: the coarse one first, then the fine ones.
    """
    batch_size = num_coarse * num_fine
    iteration = len(answered) // batch_size
    coarse = KMeans(num_coarse, random_state=0).fit(supervised)
    labels = coarse.labels_
    if problems is not None:
        problems.append(Problem(supervised, num_coarse, coarse.inertia_))
    rows = np.delete(np.arange(len(supervised)), answered)
    answered_labels, answered_features = labels[answered], unsupervised[answered]
    labels, features = labels[rows], unsupervised[rows]
    names = np.unique(labels)
    size = np.array([(labels == name).sum() for name in names])
    budget, level = np.minimum(size, num_fine), num_fine
    extra = batch_size - budget.sum()
    while extra > 0:
        largest = [i for i in np.argsort(-size, kind="stable") if size[i] > level][:extra]
        budget[largest] += 1
        extra, level = extra - len(largest), level + 1
    chosen: list[int] = []
    for name, k in zip(names, budget, strict=True):
        inside, unfiltered = rows[labels == name], features[labels == name]
        candidates, known = unfiltered, answered_features[answered_labels == name]
        if len(known) > iteration * num_fine:
            difference = candidates[:, None] - known[None]
            nearest = (difference**2).sum(2).min(1)
            farthest = np.argsort(nearest)[-max(int(0.2 * len(inside)), k) :]
            inside, candidates = inside[farthest], candidates[farthest]
        model = KMeans(k, random_state=0, n_init=10, max_iter=200).fit(candidates)
        if problems is not None:
            problems.append(Problem(candidates, k, model.inertia_))
        for fine in range(k):
            members = np.flatnonzero(model.labels_ == fine)
            distance = ((unfiltered[members] - model.cluster_centers_[fine]) ** 2).sum(1)
            chosen.append(int(inside[members[np.argmin(distance)]]))
    return np.array(chosen)


def check_against_golden() -> int:
    """Number of golden selections; raises AssertionError if one is not reproduced."""
    paths = sorted(GOLDEN.glob("two_stream_*.npz"))
    for path in paths:
        data = np.load(path)
        coarse, fine = (int(n) for n in data["clusters"])
        rows = as_published(data["supervised"], data["unsupervised"], data["answered"], coarse, fine)
        np.testing.assert_array_equal(rows, data["published"], err_msg=path.name)
    return len(paths)


def inertia(features: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances to the mean of the own cluster."""
    total = 0.0
    for name in np.unique(labels):
        members = features[labels == name].astype(float)
        total += float(((members - members.mean(0)) ** 2).sum())
    return total


def quickly(problem: Problem) -> float:
    """Inertia that the quick k-means reaches."""
    x = problem.features
    found = quick.kmeans([quick.Problem(x.__getitem__, len(x), len(x))], problem.num_clusters, seed=0)[0]
    return inertia(x, found.labels)


def run(way: str, streams: dict[str, np.ndarray], y: np.ndarray, clusters: tuple[int, int]) -> np.ndarray:
    """Rows that one of ``WAYS`` selects."""
    if way == "as published":
        return as_published(streams["supervised"], streams["unsupervised"], np.flatnonzero(y == 1), *clusters)
    strategy = TwoStream(num_clusters=clusters, **WAYS[way])
    return strategy.query(streams, y, batch_size=clusters[0] * clusters[1])


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--candidates", type=int, default=25_000)
    parser.add_argument("--widths", type=int, nargs=2, default=[16, 128], metavar=("SUPERVISED", "UNSUPERVISED"))
    parser.add_argument("--clusters", type=int, nargs=2, default=[50, 10], metavar=("COARSE", "FINE"))
    parser.add_argument("--answered", type=int, default=500)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    full = {"candidates": 200_000, "clusters": [100, 10], "answered": 1000, "repetitions": 5}
    options = common_options.parse(parser, full=full)
    results = Results("query_speed", options)
    rng = np.random.default_rng(options.seed)
    streams = {
        name: gaussian.groups(options.candidates, width, rng, options.dtype)
        for name, width in zip(("supervised", "unsupervised"), options.widths, strict=True)
    }
    y = np.full(options.candidates, np.nan)
    y[rng.choice(options.candidates, options.answered, replace=False)] = 1.0
    clusters = (options.clusters[0], options.clusters[1])
    data = gaussian.data(options.candidates, options.widths, options.seed, options.dtype)
    pool = f"{options.candidates:,} x ({options.widths[0]} + {options.widths[1]})"
    results.add("golden_selections_reproduced", check_against_golden(), "selections", data=data)
    base: tuple[Seconds, np.ndarray] | None = None
    for repetition in range(options.repetitions):
        for way in options.ways:
            time.sleep(SETTLING_SECONDS)
            with timed() as seconds:
                rows = run(way, streams, y, clusters)
            if base is None or way == "as published":
                base = seconds, rows
            settings = {"pool": pool, "clusters": clusters, "answered": options.answered, "way": way}
            settings["repetition"] = repetition
            results.add("seconds", seconds.wall, "s", data=data, **settings)
            results.add("times_faster", base[0].wall / seconds.wall, "times", data=data, **settings)
            less = base[0].processor / seconds.processor
            results.add("times_less_processor", less, "times", data=data, **settings)
            same = int(np.isin(rows, base[1]).sum())
            results.add("same_rows", same, f"of {len(rows)}", data=data, **settings)
            if way == "exact" and "as published" in options.ways:
                np.testing.assert_array_equal(rows, base[1], err_msg="exact selections differ from the published ones")
    problems: list[Problem] = []
    as_published(streams["supervised"], streams["unsupervised"], np.flatnonzero(y == 1), *clusters, problems)
    for level, found in (("coarse", problems[:1]), ("fine", problems[1:])):
        ratio = sum(map(quickly, found)) / sum(problem.inertia for problem in found)
        results.add("inertia_over_exact", ratio, "times", data=data, pool=pool, level=level, seed=options.seed)


if __name__ == "__main__":
    main()
