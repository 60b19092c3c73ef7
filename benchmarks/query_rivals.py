"""What does each strategy of `twostream.query` cost on a large pool? One JSON row per strategy.

Every strategy has a fresh process, one thread, and the same pool in memory: two streams of float32 in Gaussian groups,
some answered rows, and the probabilities of five scorers. Seconds are those of the query alone, as are processor
seconds; the peak is what the query takes above the pool and the imports. `skactiveml` runs scikit-activeml's k-centre,
which our `core-set` is to be compared with; `sub-sampling` runs it on 20,000 of the rows.

    python benchmarks/query_rivals.py --out rivals.jsonl                       # 200,000 x (16 + 128), batch of 1,000
    python benchmarks/query_rivals.py --candidates 5000 --strategies badge core-set
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from twostream.query import STRATEGIES, get_strategy

NUM_GROUPS, GROUP_WIDTH, NUM_SCORERS = 300, 0.5, 5
SETTINGS: dict[str, dict[str, Any]] = {
    "skactiveml": {"name": "CoreSet"},
    "sub-sampling": {"strategy": "skactiveml", "settings": {"name": "CoreSet"}},
}


def make_pool(folder: Path, number: int, widths: list[int], num_answered: int) -> None:
    """The pool as .npy files: groups of unlike sizes, a half of them True."""
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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_core = time.perf_counter(), time.process_time()
    chosen = strategy.suggest(X, y, batch_size=batch_size, probability=probability, position_nm=position_nm)
    seconds, core = time.perf_counter() - start, time.process_time() - start_core
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "chosen": len(set(chosen.rows.tolist())), "seconds": round(seconds, 2), "core_seconds": round(core, 2),
        "peak_mb_above_pool": round(peak / 1024), "notes": chosen.notes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--widths", type=int, nargs=2, default=[16, 128], metavar=("S", "U"))
    parser.add_argument("--answered", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--strategies", nargs="+", choices=sorted(STRATEGIES), default=sorted(STRATEGIES))
    parser.add_argument("--limit", type=int, default=1800, help="seconds after which a strategy is given up")
    parser.add_argument("--out", type=Path, help="JSON rows are also appended to this file")
    # What this script asks of its own processes; a child's peak begins at its parent's, so the parent holds no pool.
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_pool(options.make, options.candidates, options.widths, options.answered)
        return
    if options.one:
        print(json.dumps(measure(options.one, options.strategies[0], options.batch)))
        return
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *sys.argv, "--make", folder], check=True)
        for name in options.strategies:
            row = {
                "name": "query_rival", "strategy": name, "settings": SETTINGS.get(name, {}),
                "candidates": options.candidates, "widths": options.widths, "answered": options.answered,
                "batch": options.batch,
            }  # fmt: skip
            command = [sys.executable, __file__, "--one", folder, "--strategies", name, "--batch", str(options.batch)]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=options.limit, env=os.environ | one_thread
                )
                lines = done.stdout.splitlines() or [json.dumps({"error": (done.stderr.splitlines() or [""])[-1]})]
                row |= json.loads(lines[-1])
            except subprocess.TimeoutExpired:
                row["error"] = f"not done after {options.limit} s"
            print(json.dumps(row), flush=True)
            if options.out:
                with options.out.open("a") as handle:
                    handle.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
