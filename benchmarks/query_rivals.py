"""What does each strategy of ``twostream.query`` cost on a large pool?

Every strategy has a fresh process, one thread, and the same pool in memory: two streams of float32 in Gaussian groups,
some answered rows, and the probabilities of five scorers. Seconds are those of the query alone, as are processor
seconds; memory is what the query takes above the pool and the imports. ``skactiveml`` runs scikit-activeml's k-centre,
to compare with our ``core-set``; ``sub-sampling`` runs it on 20,000 of the rows.

    python benchmarks/query_rivals.py
    python benchmarks/query_rivals.py --full                       # 200,000 x (16 + 128), batch of 1,000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import gaussian
from common import options as common_options
from common.gaussian import GROUP_WIDTH, NUM_GROUPS
from common.measure import peak_mb, timed
from common.results import Results

from twostream.query import STRATEGIES, get_strategy

NUM_SCORERS = 5
SETTINGS: dict[str, dict[str, Any]] = {
    "skactiveml": {"name": "CoreSet"},
    "sub-sampling": {"strategy": "skactiveml", "settings": {"name": "CoreSet"}},
}


def make_pool(folder: Path, number: int, widths: list[int], num_answered: int) -> None:
    """The pool as .npy files: groups of unequal sizes, half of which are true objects."""
    rng = np.random.default_rng(0)
    group = rng.choice(NUM_GROUPS, number, p=rng.dirichlet(np.full(NUM_GROUPS, 2.0)))
    for name, width in zip(("supervised", "unsupervised"), widths, strict=True):
        values = rng.normal(size=(NUM_GROUPS, width)).astype(np.float32)[group]
        values += GROUP_WIDTH * rng.standard_normal(values.shape, dtype=np.float32)
        np.save(folder / f"{name}.npy", values)
    is_true = group % 2 == 0
    y = np.full(number, np.nan)
    answered = rng.choice(number, num_answered, replace=False)
    y[answered] = is_true[answered]
    np.save(folder / "y.npy", y)
    logit = 2.0 * is_true - 1 + rng.normal(size=number) + 0.5 * rng.normal(size=(NUM_SCORERS, number))
    np.save(folder / "probability.npy", 1 / (1 + np.exp(-logit)))
    np.save(folder / "position_nm.npy", rng.uniform(0, 1e5, (number, 3)))


def measure(folder: Path, name: str, batch_size: int) -> dict[str, Any]:
    """One query, in this process."""
    X = {stream: np.load(folder / f"{stream}.npy") for stream in ("supervised", "unsupervised")}  # noqa: N806
    y, probability, position_nm = (np.load(folder / f"{n}.npy") for n in ("y", "probability", "position_nm"))
    strategy = get_strategy(name, SETTINGS.get(name))
    before = peak_mb()
    with timed() as seconds:
        chosen = strategy.suggest(X, y, batch_size=batch_size, probability=probability, position_nm=position_nm)
    if len(set(chosen.rows.tolist())) != batch_size:
        raise ValueError(f"{name} chose {len(set(chosen.rows.tolist()))} different rows; expected {batch_size}.")
    return {"seconds": seconds.wall, "core_seconds": seconds.processor, "memory": peak_mb() - before}


def in_own_process(folder: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What ``measure`` finds in a fresh process on one thread, or {"error": why it found nothing}."""
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, __file__, "--one", folder, "--strategies", name, "--batch", str(options.batch)]
    environment = os.environ | one_thread
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {options.limit} s"}
    if done.returncode:
        return {"error": (done.stderr.splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--candidates", type=int, default=5000)
    parser.add_argument("--widths", type=int, nargs=2, default=[16, 128], metavar=("S", "U"))
    parser.add_argument("--answered", type=int, default=200)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--strategies", nargs="+", choices=sorted(STRATEGIES), default=sorted(STRATEGIES))
    parser.add_argument("--limit", type=int, default=1800, help="seconds after which a strategy is given up")
    # Options of this script's own processes. A child's peak starts at its parent's, so the parent holds no pool.
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = common_options.parse(parser, full={"candidates": 200_000, "answered": 1000, "batch": 1000})
    if options.make:
        make_pool(options.make, options.candidates, options.widths, options.answered)
        return
    if options.one:
        print(json.dumps(measure(options.one, options.strategies[0], options.batch)))
        return
    results = Results("query_rivals", options)
    data = gaussian.data(options.candidates, options.widths, 0, "float32")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *sys.argv, "--make", folder], check=True)
        for name in options.strategies:
            found = in_own_process(folder, name, options)
            if "error" in found:
                failed.append(f"{name}: {found['error']}")
                continue
            settings = {"strategy": name, "answered": options.answered, "batch": options.batch}
            for measure_name, unit in (("core_seconds", "s"), ("seconds", "s"), ("memory", "MB")):
                results.add(measure_name, found[measure_name], unit, data=data, **settings)
    if failed:
        raise SystemExit("No result of " + "; ".join(failed))


if __name__ == "__main__":
    main()
