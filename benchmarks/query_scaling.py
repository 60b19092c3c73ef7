"""Two-stream from 10^4 to 10^7 candidates: seconds and memory against N, as JSON rows and as a plot with its slope.

Latents are float16 (16 + 128 wide) in .npy files, memory-mapped, as a project leaves them. Every size runs in a process
of its own, so that its peak memory is its own: `peak_gb` counts pages of the files that were mapped at the time, as the
system does; `private_gb` is without them.

    python benchmarks/query_scaling.py --folder /somewhere/with/3/GB --plot docs/images/query_scaling.png
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
WIDTHS = {"supervised": 16, "unsupervised": 128}
NUM_GROUPS, GROUP_WIDTH = 300, 0.5
ROWS_AT_ONCE = 100_000


def write_latents(folder: Path, number: int, seed: int) -> dict[str, Path]:
    """Gaussian groups, float16; kept for the next time."""
    paths = {}
    for i, (name, width) in enumerate(WIDTHS.items()):
        paths[name] = folder / f"{name}-{number}-{seed}.npy"
        if paths[name].exists():
            continue
        rng = np.random.default_rng([seed, i])
        centers = rng.normal(size=(NUM_GROUPS, width)).astype(np.float32)
        share = rng.dirichlet(np.full(NUM_GROUPS, 2.0))
        partial = paths[name].with_suffix(".partial")
        array = np.lib.format.open_memmap(partial, "w+", np.float16, (number, width))
        for start in range(0, number, ROWS_AT_ONCE):
            size = min(ROWS_AT_ONCE, number - start)
            noise = rng.standard_normal((size, width), dtype=np.float32)
            array[start : start + size] = centers[rng.choice(NUM_GROUPS, size, p=share)] + GROUP_WIDTH * noise
        array.flush()
        del array
        partial.rename(paths[name])
    return paths


def memory_gb() -> tuple[float, float]:
    """Resident memory of this process now, and the part of it that is no mapped file, in GB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    kilobytes = {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssFile")}
    return kilobytes["VmRSS"] / 2**20, (kilobytes["VmRSS"] - kilobytes["RssFile"]) / 2**20


def one_size(folder: Path, number: int, variant: str, answered: int, seed: int) -> dict[str, object]:
    from twostream.query import TwoStream

    streams = {name: np.load(path, mmap_mode="r") for name, path in write_latents(folder, number, seed).items()}
    y = np.full(number, np.nan)
    y[np.random.default_rng(seed).choice(number, answered, replace=False)] = 1.0
    peaks, done = [memory_gb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peaks.append(memory_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    processor, start = time.process_time(), time.monotonic()
    selection = TwoStream(num_clusters=(100, 10), variant=variant).suggest(streams, y, batch_size=1000)
    seconds, processor = time.monotonic() - start, time.process_time() - processor
    done.set()
    watcher.join()
    assert len(set(selection.rows.tolist())) == 1000
    return {
        "name": "query_scaling", "variant": variant, "candidates": number, "answered": answered,
        "seconds": round(seconds, 2), "processor_seconds": round(processor, 2),
        "peak_gb": round(max(p[0] for p in peaks), 2), "private_gb": round(max(p[1] for p in peaks), 2),
        "notes": selection.notes,
    }  # fmt: skip


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds against candidates, both logarithmic, with the slope of a straight line through the larger pools."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for variant in dict.fromkeys(str(r["variant"]) for r in rows):
        mine = sorted((float(str(r["candidates"])), float(str(r["seconds"]))) for r in rows if r["variant"] == variant)
        n, seconds = np.array(mine).T
        large = n >= 100_000
        slope = np.polyfit(np.log(n[large]), np.log(seconds[large]), 1)[0] if large.sum() > 1 else np.nan
        axes.loglog(n, seconds, "o-", label=f"{variant}: slope {slope:.2f} from 100,000 on")
        print(json.dumps({"name": "query_scaling_slope", "variant": variant, "slope": round(float(slope), 3)}))
    axes.set(xlabel="candidates", ylabel="seconds", title="Two-stream, 16 + 128 latents (float16), 1,000 queries")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the latents lie or are written")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--variants", nargs="+", default=["corrected"])
    parser.add_argument("--answered", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("query_scaling.jsonl"), help="rows; sizes in it are not repeated"
    )
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.one:
        row = one_size(options.folder, options.sizes[0], options.one, options.answered, options.seed)
        print(json.dumps(row), flush=True)
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for number in options.sizes:
        write_latents(options.folder, number, options.seed)
        for variant in options.variants:
            if any(r["candidates"] == number and r["variant"] == variant for r in rows):
                continue
            command = [sys.executable, __file__, "--folder", str(options.folder), "--sizes", str(number)]
            command += ["--one", variant, "--answered", str(options.answered), "--seed", str(options.seed)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            rows.append(json.loads(said) | {"commit": commit.strip()})
            with options.out.open("a") as handle:
                handle.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
