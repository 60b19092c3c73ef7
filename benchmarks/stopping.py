"""When would the two criteria have said stop, and what were the labels worth then? One JSON row per way of asking.

Candidates and streams are those of ``scorer_calibration.py``; they do not change between rounds, so this measures the
criteria and not a segmentation that goes on learning. All candidates are asked, a batch a round; of every run the first
round counts in which a criterion is fulfilled.

    python benchmarks/stopping.py --data DIR --set fafb --side development --seeds 0 1 --batches 10 25
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import numpy as np
from scorer_calibration import Pool, drawn, pool_of, shared, streams_of

from twostream.models.training import use_threads
from twostream.query import get_strategy
from twostream.query.scorer import has_both
from twostream.query.stopping import agreement, expected_right, has_stabilised, is_right_enough


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="name", default="fafb")
    parser.add_argument("--side", choices=["development", "confirmation"], default="development")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of streams; synthetic: of tissue, too")
    parser.add_argument("--batches", type=int, nargs="+", default=[10, 25])
    parser.add_argument("--asked-by", nargs="+", default=["random", "entropy", "two-stream"])
    parser.add_argument("--draws", type=int, default=4, help="runs per seed")
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings of the streams")
    parser.add_argument("--cache", type=Path, help="folder for latents: streams are trained once")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads(1)
    pools = [pool_of(options, seed) for seed in options.seeds]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    head = {"name": "stopping", "set": options.name, "side": options.side, "seeds": options.seeds}
    head |= {"commit": commit.strip()}
    for asked_by in options.asked_by:
        for batch_size in options.batches:
            runs = [run(pool, asked_by, batch_size, draw) for pool in pools for draw in range(options.draws)]
            row = {"asked_by": asked_by, "batch": batch_size, "candidates": len(pools[0]["y"]), "runs": len(runs)}
            for criterion in ("stable", "expected"):
                stops = [found[criterion] for found in runs if criterion in found]
                row |= {criterion: {"fulfilled": len(stops), "answers": [n for n, _ in stops]}}
                row[criterion]["right_then"] = [round(right, 3) for _, right in stops]
            print(json.dumps(row), flush=True)
            if options.out:
                with options.out.open("a") as handle:
                    handle.write(json.dumps(head | row) + "\n")


def run(pool: Pool, asked_by: str, batch_size: int, draw: int) -> dict[str, tuple[int, float]]:
    """{criterion: (answers, share of right labels among what is unanswered) when it was first fulfilled}."""
    ids = np.arange(len(pool["y"]))
    y, before, found = np.full(len(ids), np.nan), None, {}
    agreements: list[float | None] = []
    while (unseen := np.isnan(y)).any():
        p = shared(pool, y)
        state = len(ids) - int(unseen.sum()), float(np.mean((p >= 0.5)[unseen] == pool["y"][unseen]))
        learned = has_both(y)
        if state[0]:
            agreements.append(agreement(ids, before, ids, p)[0] if learned and before is not None else None)
        if has_stabilised(agreements):
            found.setdefault("stable", state)
        if learned and is_right_enough(expected_right(p[unseen], drawn(pool, y, draw)[:, unseen])):
            found.setdefault("expected", state)
        before = p if learned else None
        first = state[0] == 0
        settings = {"num_clusters": (5, batch_size // 5)} if asked_by == "two-stream" and not first else {}
        strategy = get_strategy("random" if first else asked_by, settings, random_state=1000 * draw + state[0])
        asked = strategy.query(streams_of(pool), y, batch_size=batch_size, probability=p)
        y[asked] = pool["y"][asked]
    return found


if __name__ == "__main__":
    main()
