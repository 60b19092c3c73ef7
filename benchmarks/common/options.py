"""Command line options that every benchmark has.

Without options a benchmark runs its quick form on generated data, in at most a minute or two. ``--full`` has the sizes
of LOG.md, ``--data`` adds the real sets, ``--rows`` keeps the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

QUICK_S = ("max_pixel_size_nm=16", "filters=[8,16,32,48]", "patch_shape_zyx=[8,64,64]", "num_steps=250")
"""Settings of a small S that trains in half a minute and finds some objects, for quick forms."""


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser with the common options; ``doc`` is the benchmark's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--full", action="store_true", help="the sizes of LOG.md; default: a quick form")
    made.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the real sets; default: generated data")
    made.add_argument("--rows", type=Path, metavar="FILE", help="append the result rows to this file")
    made.add_argument("--group", help="group of the rows; default: the benchmark's name")
    made.add_argument("--threads", type=int, default=2)
    return made


def parse(made: argparse.ArgumentParser, full: Mapping[str, Any]) -> argparse.Namespace:
    """Options of the command line. The parser's defaults are those of the quick form, ``full`` those of --full."""
    if made.parse_known_args()[0].full:
        made.set_defaults(**full)
    return made.parse_args()


def chosen_sets(
    options: argparse.Namespace, real: Sequence[str], generated: Sequence[str] = ("synthetic",)
) -> list[str]:
    """Names of the sets to run: --sets, or the generated ones and, with --data, the real ones."""
    names = options.sets or [*generated, *(real if options.data else ())]
    missing = [name for name in names if name in real]
    if missing and not options.data:
        raise SystemExit(f"--sets names {', '.join(missing)}; give the folder of the real sets with --data.")
    return names


def add_sets(made: argparse.ArgumentParser, real: Sequence[str], generated: Sequence[str] = ("synthetic",)) -> None:
    """``--sets``, for benchmarks that also run on real sets."""
    made.add_argument(
        "--sets", nargs="+", choices=[*generated, *real],
        help="default: generated data, and with --data all real sets",
    )  # fmt: skip


def add_overrides(made: argparse.ArgumentParser) -> None:
    """``--override``, for benchmarks that train."""
    made.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings over the defaults")
