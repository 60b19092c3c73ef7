"""When would the two stopping criteria have advised to stop, and how good were the labels then?

Candidates and streams do not change between rounds, so this measures the criteria and not an S that goes on learning.
All candidates are asked, a batch a round. For every run the first round counts in which a criterion is fulfilled.

    python benchmarks/stopping.py
    python benchmarks/stopping.py --full --data DIR --sets fafb
"""

from __future__ import annotations

import numpy as np
from common import options as common_options
from common import pools
from common.pools import Pool, committee, shared_scorer
from common.results import Results, together
from common.weak import WEAK_SETS

from twostream.models.training import use_threads
from twostream.query import get_strategy
from twostream.query.scorer import has_answers
from twostream.query.stopping import agreement, expected_right, has_stabilised, is_right_enough

CRITERIA = ("stable", "expected")
UNITS = ("answers", "share")


def main() -> None:
    parser = pools.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the streams, and of synthetic tissue")
    parser.add_argument("--batches", type=int, nargs="+", default=[25])
    parser.add_argument("--draws", type=int, default=2, help="runs per seed")
    options = common_options.parse(parser, full={"seeds": [0, 1], "batches": [10, 25], "draws": 4})
    use_threads(options.threads)
    results = Results("stopping", options)
    for name in common_options.chosen_sets(options, WEAK_SETS):
        found = [pools.load(options, name, seed) for seed in options.seeds]
        data = together(pool.data for pool in found)
        for asked_by in options.asked_by:
            for batch_size in options.batches:
                runs = [run(pool, asked_by, batch_size, draw) for pool in found for draw in range(options.draws)]
                settings = {"set": name, "side": options.side, "candidates": len(found[0].y)}
                settings |= {"asked by": asked_by, "batch": batch_size}
                for criterion in CRITERIA:
                    stops = [result[criterion] for result in runs if criterion in result]
                    results.add(f"{criterion}_runs", len(stops), f"of {len(runs)}", data=data, **settings)
                    if not stops:
                        continue
                    for measure, unit, values in zip(
                        ("answers", "right"), UNITS, zip(*stops, strict=True), strict=True
                    ):
                        results.add(
                            f"{criterion}_{measure}", float(np.mean(values)), unit, data=data,
                            spread=[min(values), max(values)], spread_is="range over runs", **settings,
                        )  # fmt: skip


def run(pool: Pool, asked_by: str, batch_size: int, draw: int) -> dict[str, tuple[int, float]]:
    """Per criterion: answers, and share of right labels among the unanswered, when it was first fulfilled."""
    ids = np.arange(len(pool.y))
    y, before, found = np.full(len(ids), np.nan), None, {}
    agreements: list[float | None] = []
    while (unseen := np.isnan(y)).any():
        p = shared_scorer(pool, y)
        state = len(ids) - int(unseen.sum()), float(np.mean((p >= 0.5)[unseen] == pool.y[unseen]))
        learned = has_answers(y)
        if state[0]:
            agreements.append(agreement(ids, before, ids, p)[0] if learned and before is not None else None)
        if has_stabilised(agreements):
            found.setdefault("stable", state)
        if learned and is_right_enough(expected_right(p[unseen], committee(pool, y, draw)[:, unseen])):
            found.setdefault("expected", state)
        before = p if learned else None
        first = state[0] == 0
        settings = {"num_clusters": (5, batch_size // 5)} if asked_by == "two-stream" and not first else {}
        strategy = get_strategy("random" if first else asked_by, settings, random_state=1000 * draw + state[0])
        asked = strategy.query(pool.streams, y, batch_size=batch_size, probability=p)
        y[asked] = pool.y[asked]
    return found


if __name__ == "__main__":
    main()
