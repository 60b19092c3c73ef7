"""Two-stream from 10^4 to 10^7 candidates: seconds and memory against their number, and a plot with its slope.

Latents are float16 (16 + 128 wide) in .npy files, memory-mapped, as a project leaves them. Every size runs in a process
of its own, so that its peak memory is its own: "peak_memory" counts the pages of mapped files that were in memory,
"private_memory" does not.

    python benchmarks/query_scaling.py
    python benchmarks/query_scaling.py --full --folder FOLDER --plot docs/images/query_scaling.png     # 3 GB of latents

With --rows, sizes that the file holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import gaussian
from common import options as common_options
from common.measure import timed, watched_memory
from common.results import Results, Row

SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
WIDTHS = {"supervised": 16, "unsupervised": 128}
LARGE = 100_000
"""The slope is that from this size on."""
NUM_CLUSTERS = (100, 10)
BATCH = NUM_CLUSTERS[0] * NUM_CLUSTERS[1]


def write_latents(folder: Path, number: int, seed: int) -> dict[str, Path]:
    """Latents of both streams; files that exist are kept."""
    paths = {name: folder / f"{name}-{number}-{seed}.npy" for name in WIDTHS}
    for i, (name, width) in enumerate(WIDTHS.items()):
        gaussian.write_groups(paths[name], number, width, [seed, i])
    return paths


def one_size(folder: Path, number: int, variant: str, answered: int, seed: int) -> dict[str, float]:
    """Seconds and memory of one selection, in this process."""
    from twostream.query import TwoStream

    streams = {name: np.load(path, mmap_mode="r") for name, path in write_latents(folder, number, seed).items()}
    y = np.full(number, np.nan)
    y[np.random.default_rng(seed).choice(number, answered, replace=False)] = 1.0
    with watched_memory() as peaks, timed() as seconds:
        rows = TwoStream(num_clusters=NUM_CLUSTERS, variant=variant).query(streams, y, batch_size=BATCH)
    assert len(set(rows.tolist())) == BATCH
    return {
        "seconds": seconds.wall, "processor_seconds": seconds.processor,
        "peak_memory": peaks.resident, "private_memory": peaks.private,
    }  # fmt: skip


def plot(rows: list[Row], path: Path) -> None:
    """Seconds against candidates, both logarithmic, with the slope of a straight line through the larger pools."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for variant in dict.fromkeys(row["settings"]["variant"] for row in rows):
        n, seconds = points(rows, variant)
        axes.loglog(n, seconds, "o-", label=f"{variant}: slope {slope(n, seconds):.2f} from {LARGE:,} on")
    axes.set(xlabel="candidates", ylabel="seconds", title="Two-stream, 16 + 128 latents (float16), 1,000 queries")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def points(rows: list[Row], variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Candidates and seconds of a variant, smallest pool first."""
    found = sorted(
        (row["settings"]["candidates"], row["number"]) for row in rows if row["settings"]["variant"] == variant
    )
    n, seconds = np.array(found, float).T
    return n, seconds


def slope(n: np.ndarray, seconds: np.ndarray) -> float:
    """Of log seconds against log candidates; NaN with fewer than two large pools."""
    large = n >= LARGE
    return float(np.polyfit(np.log(n[large]), np.log(seconds[large]), 1)[0]) if large.sum() > 1 else float("nan")


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the latents; default: a temporary folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--variants", nargs="+", default=["corrected"])
    parser.add_argument("--answered", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = common_options.parse(parser, full={"sizes": SIZES, "variants": ["corrected", "adaptive"]})
    if options.one:
        print(json.dumps(one_size(options.folder, options.sizes[0], options.one, options.answered, options.seed)))
        return
    results = Results("query_scaling", options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for number in options.sizes:
            write_latents(folder, number, options.seed)
            for variant in options.variants:
                if not results.find("seconds", variant=variant, candidates=number):
                    measure(results, options, folder, number, variant)
    rows = results.find("seconds")
    for variant in options.variants:
        n, seconds = points(rows, variant)
        found, data = slope(n, seconds), gaussian.data(int(n[-1]), list(WIDTHS.values()), options.seed, "float16")
        if found == found and not results.find("slope", variant=variant, sizes=options.sizes):
            results.add("slope", found, "log s / log candidates", data=data, variant=variant, sizes=options.sizes)
    if options.plot:
        plot(rows, options.plot)


def measure(results: Results, options: argparse.Namespace, folder: Path, number: int, variant: str) -> None:
    """Rows of one size, measured in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--sizes", str(number), "--one", variant]
    command += ["--answered", str(options.answered), "--seed", str(options.seed)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    data = gaussian.data(number, list(WIDTHS.values()), options.seed, "float16")
    for name, value in json.loads(printed).items():
        unit = "GB" if name.endswith("memory") else "s"
        results.add(name, value, unit, data=data, variant=variant, candidates=number, answered=options.answered)


if __name__ == "__main__":
    main()
