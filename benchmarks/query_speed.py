"""How fast is two-stream beside the algorithm as published, in the same run?

The published side is ``common.published``, written from the description of its steps. Before anything is timed, it must
select the rows of the golden files, which the published script selected. What the fast k-means of the default loses is
measured on the k-means problems of the published side: its inertia over that of scikit-learn.

    python benchmarks/query_speed.py
    python benchmarks/query_speed.py --full                          # 200,000 x (16 + 128), 100 x 10, 1,000 answered
    python benchmarks/query_speed.py --full --candidates 50000 --widths 16 1024
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import gaussian
from common import options as common_options
from common.measure import Seconds, timed
from common.published import Clustering, as_published
from common.results import Results

from twostream.query import TwoStream
from twostream.query.kmeans import Problem, subsampled_kmeans

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
SETTLING_SECONDS = 1.0
"""Before each run: BLAS threads of the run before spin for a tenth of a second and would slow down the next one."""
WAYS: dict[str, dict[str, Any]] = {
    "as published": {},
    "exact": {"variant": "published"},
    "default": {},
    "adaptive": {"variant": "adaptive"},
}
"""Settings of ``TwoStream``; the published side has none."""


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


def quickly(clustering: Clustering) -> float:
    """Inertia that the k-means of the default reaches on the same problem."""
    found = subsampled_kmeans([Problem.of(clustering.features)], clustering.num_clusters, seed=0)[0]
    return inertia(clustering.features, found.labels)


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
    found: list[Clustering] = []
    answered = np.flatnonzero(y == 1)
    as_published(streams["supervised"], streams["unsupervised"], answered, *clusters, clusterings=found)
    for level, clusterings in (("coarse", found[:1]), ("fine", found[1:])):
        ratio = sum(map(quickly, clusterings)) / sum(clustering.inertia for clustering in clusterings)
        results.add("inertia_over_exact", ratio, "times", data=data, pool=pool, level=level, seed=options.seed)


if __name__ == "__main__":
    main()
