"""How fast is two-stream beside the algorithm as published, in the same run? One JSON row per way and size.

The published side is written here from the description of its steps, as plainly as it stands: k-means of the library as
it comes, a tensor of all pairs of candidates and answers, ten restarts for every fine clustering. It is checked against
the golden selections of the script before anything is timed.

    python benchmarks/query_speed.py                              # 200,000 x (16 + 128), 100 x 10, 1,000 answered
    python benchmarks/query_speed.py --candidates 50000 --widths 16 1024
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from sklearn.cluster import KMeans

from twostream.query import TwoStream, lloyd, quick

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
NUM_GROUPS, GROUP_WIDTH = 300, 0.5
"""Candidates come in kinds: so many Gaussian groups in every stream, as wide as this part of their distance."""
SETTLING_SECONDS = 1.0
"""Before each run: the BLAS threads of the run before spin for a tenth of a second, at the cost of whoever is next."""


def as_published(
    supervised: np.ndarray, unsupervised: np.ndarray, answered: np.ndarray, num_coarse: int, num_fine: int
) -> np.ndarray:
    """Rows that the published script selects: its steps, its cost, its wrong line."""
    batch_size = num_coarse * num_fine
    iteration = len(answered) // batch_size
    labels = KMeans(num_coarse, random_state=0).fit(supervised).labels_
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
        for fine in range(k):
            members = np.flatnonzero(model.labels_ == fine)
            distance = ((unfiltered[members] - model.cluster_centers_[fine]) ** 2).sum(1)
            chosen.append(int(inside[members[np.argmin(distance)]]))
    return np.array(chosen)


def check_against_golden() -> int:
    """Stop unless every golden selection is met; how many there were."""
    paths = sorted(GOLDEN.glob("two_stream_*.npz"))
    for path in paths:
        data = np.load(path)
        coarse, fine = (int(n) for n in data["clusters"])
        rows = as_published(data["supervised"], data["unsupervised"], data["answered"], coarse, fine)
        np.testing.assert_array_equal(rows, data["published"], err_msg=path.name)
    return len(paths)


def latents(number: int, width: int, rng: np.random.Generator, dtype: Any) -> np.ndarray:
    """(number, width): Gaussian groups of unlike sizes about random centres."""
    centers = rng.normal(size=(NUM_GROUPS, width)).astype(np.float32)
    share = rng.dirichlet(np.full(NUM_GROUPS, 2.0))
    values = centers[rng.choice(NUM_GROUPS, number, p=share)]
    values += GROUP_WIDTH * rng.standard_normal(values.shape, dtype=np.float32)
    return values.astype(dtype)


def processor_seconds() -> float:
    """Of this process and all of its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def inertia(features: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances to the mean of the own cluster."""
    total = 0.0
    for name in np.unique(labels):
        members = features[labels == name].astype(float)
        total += float(((members - members.mean(0)) ** 2).sum())
    return total


@dataclass
class Problem:
    """What a k-means was given and what it found."""

    features: np.ndarray
    num_clusters: int
    inertia: float


@contextmanager
def recorded() -> Iterator[list[Problem]]:
    """Every problem that ``lloyd.kmeans`` solves meanwhile."""
    function, found = lloyd.kmeans, []

    def recording(problems: Sequence[np.ndarray], num_clusters: int, **settings: Any) -> list[lloyd.Solution]:
        solutions = function(problems, num_clusters, **settings)
        for features, solution in zip(problems, solutions, strict=True):
            found.append(Problem(features, num_clusters, inertia(features, solution.labels)))
        return solutions

    lloyd.kmeans = recording
    try:
        yield found
    finally:
        lloyd.kmeans = function


def quickly(problem: Problem) -> float:
    """Inertia that the quick k-means reaches."""
    x = problem.features
    found = quick.kmeans([quick.Problem(x.__getitem__, len(x), len(x))], problem.num_clusters, seed=0)[0]
    return inertia(x, found.labels)


def run(way: str, streams: dict[str, np.ndarray], y: np.ndarray, clusters: tuple[int, int]) -> np.ndarray:
    if way == "as published":
        return as_published(streams["supervised"], streams["unsupervised"], np.flatnonzero(y == 1), *clusters)
    settings: dict[str, Any] = {
        "exact": {"variant": "published", "exact": True},
        "default": {"exact": None},
        "adaptive": {"variant": "adaptive"},
    }[way]
    return TwoStream(num_clusters=clusters, **settings).query(streams, y, batch_size=clusters[0] * clusters[1])


def compared_inertia(streams: dict[str, np.ndarray], y: np.ndarray, clusters: tuple[int, int]) -> dict[str, float]:
    """What the quick k-means loses: on the coarse problem, and on the very fine problems that the published way has."""
    with recorded() as problems:
        run("exact", streams, y, clusters)
    *fine, coarse = sorted(problems, key=lambda problem: len(problem.features))  # the coarse one has all rows
    return {
        "coarse_inertia_ratio": quickly(coarse) / coarse.inertia,
        "fine_inertia_ratio": sum(map(quickly, fine)) / sum(problem.inertia for problem in fine),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--widths", type=int, nargs=2, default=[16, 128], metavar=("SUPERVISED", "UNSUPERVISED"))
    parser.add_argument("--clusters", type=int, nargs=2, default=[100, 10], metavar=("COARSE", "FINE"))
    parser.add_argument("--answered", type=int, default=1000)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=["as published", "exact", "default", "adaptive"])
    options = parser.parse_args()
    print(f"{check_against_golden()} golden selections are met", flush=True)
    rng = np.random.default_rng(options.seed)
    streams = {
        name: latents(options.candidates, width, rng, options.dtype)
        for name, width in zip(("supervised", "unsupervised"), options.widths, strict=True)
    }
    y = np.full(options.candidates, np.nan)
    y[rng.choice(options.candidates, options.answered, replace=False)] = 1.0
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    clusters = (options.clusters[0], options.clusters[1])
    shared = {"name": "query_speed", "candidates": options.candidates, "widths": options.widths, "clusters": clusters}
    shared |= {"answered": options.answered, "dtype": options.dtype, "commit": commit.strip()}
    first: tuple[float, float, np.ndarray] | None = None
    for repetition in range(options.repetitions):
        for way in options.ways:
            time.sleep(SETTLING_SECONDS)
            processor, start = processor_seconds(), time.monotonic()
            rows = run(way, streams, y, clusters)
            seconds, processor = time.monotonic() - start, processor_seconds() - processor
            if first is None or way == "as published":
                first = (seconds, processor, rows)
            row = {
                "way": way, "repetition": repetition, "seconds": round(seconds, 2),
                "processor_seconds": round(processor, 2), "times_faster": round(first[0] / seconds, 2),
                "times_less_processor": round(first[1] / processor, 2), "same_rows": int(np.isin(rows, first[2]).sum()),
                "same_order": bool(np.array_equal(rows, first[2])),
            }  # fmt: skip
            print(json.dumps(shared | row), flush=True)
    ratios = {name: round(value, 4) for name, value in compared_inertia(streams, y, clusters).items()}
    print(json.dumps(shared | {"way": "default"} | ratios), flush=True)


if __name__ == "__main__":
    main()
