"""Latent space: the candidates as each stream sees them, and what each stream has learned.

Knows projects and the files of their rounds; must not know HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from twostream.candidates.table import read_table
from twostream.models.streams.config import PICTURES_NAME
from twostream.project.project import Project
from twostream.report.answer_styles import answer_styles, answers_by_query, style_name
from twostream.report.figures import NUM_LEVELS, Marks, latent_panel
from twostream.report.pictures import sheet_uri
from twostream.report.words import formatted

MAX_POINTS = 2000
"""Candidates drawn in latent space: more would cover each other and make the file large. Asked ones come on top."""
STREAMS = {"supervised": "supervised stream (masks)", "unsupervised": "unsupervised stream (raw image)"}
"""{name in file names: title}."""
SHEETS = {
    "reconstructions": ("Reconstructions", "above the patches, below what the decoder reconstructs from their latents"),
    "interpolations": ("Interpolations", "decoded at points between the latents of two patches"),
    "samples": ("Samples", "decoded from latents drawn at random"),
    "neighbours": ("Nearest neighbours", "each row: a candidate, then the candidates with the nearest latents"),
}
"""{array in the file of a stream's pictures: (title, meaning)}."""


def latent_space(project: Project, name: str) -> dict[str, Any] | None:
    """The candidates of the newest round that has latents, one picture per stream; None where no round has them."""
    round_number = newest_round_with_latents(project)
    if round_number is None:
        return None
    ids = np.load(project.path(round_number, "ids.npy"))
    table = read_table(project.path(round_number, "candidates.parquet"), ["id", "score"]).to_pydict()
    score_of = dict(zip(table["id"], table["score"], strict=True))
    asked = asked_candidates(project)
    rows = rows_to_draw(ids, asked)
    level, edges = score_levels(np.array([score_of.get(i, 0.0) for i in ids[rows].tolist()], float))
    digits = 2 if edges[1] - edges[0] >= 0.02 else 3
    marks = marks_of(ids[rows].tolist(), asked)
    return {
        "name": name,
        "round": round_number,
        "num": len(ids),
        "num_drawn": len(rows),
        "num_asked": len(asked),
        "num_marked": sum(len(mark.rows) for mark in marks.values()),
        "style_names": list(marks),
        "streams": [
            _stream_picture(project, round_number, stream, rows, level, list(marks.values()), name)
            for stream in STREAMS
        ],
        "score_ranges": [f"{formatted(a, digits)}–{formatted(b, digits)}" for a, b in pairwise(edges)],
    }


def _stream_picture(
    project: Project,
    round_number: int,
    stream: str,
    rows: np.ndarray,
    level: np.ndarray,
    marks: Sequence[Marks],
    name: str,
) -> dict[str, Any]:
    """The candidates of ``rows`` in the latent space of one stream."""
    latents = np.load(project.path(round_number, f"latents_{stream}.npy"), mmap_mode="r")
    points, share = principal_plane(latents[rows])
    label = f"Candidates in the latent space of the {STREAMS[stream]}, {name}"
    svg = latent_panel(points, level, marks, label=label)
    return {"title": STREAMS[stream], "svg": svg, "share": f"{share:.0%}", "num_dimensions": latents.shape[1]}


def newest_round_with_latents(project: Project) -> int | None:
    """The newest round for which both streams have encoded the candidates; None where there is no such round."""
    files = ("ids.npy", "candidates.parquet", *(f"latents_{stream}.npy" for stream in STREAMS))
    rounds = sorted(int(d.name) for d in (project.root / "rounds").glob("[0-9]*") if d.name.isdigit())
    complete = [r for r in rounds if all(project.path(r, name).is_file() for name in files)]
    return complete[-1] if complete else None


def asked_candidates(project: Project) -> dict[int, str]:
    """{candidate id: key in ``answer_styles()``, from its newest query} of every candidate that was asked."""
    answers = answers_by_query(project.ledger.current_answers())
    return {q.candidate.id: style_name(answers.get(q.id, [])) for q in project.ledger.queries()}


def rows_to_draw(ids: np.ndarray, asked: Iterable[int]) -> np.ndarray:
    """Rows of the candidates to draw: ``MAX_POINTS`` at most, evenly spread, and all that were asked.

    Args:
        ids: (N,) ids of the candidates.
        asked: ids of those that were asked; they need not be among ``ids``.

    Returns:
        (M,) int64 rows of ``ids``, ascending.
    """
    even = np.linspace(0, max(len(ids) - 1, 0), min(len(ids), MAX_POINTS)).round().astype(np.int64)
    return np.union1d(even, np.flatnonzero(np.isin(ids, list(asked)))).astype(np.int64)


def marks_of(ids: Sequence[int], asked: Mapping[int, str]) -> dict[str, Marks]:
    """Marks for the candidates that were asked, one for each style that occurs.

    Args:
        ids: (N,) ids of the candidates that are drawn.
        asked: {candidate id: key in ``answer_styles()``}.

    Returns:
        {key in ``answer_styles()``: its marks}, in that order.
    """
    rows: dict[str, list[int]] = {}
    for row, i in enumerate(ids):
        if i in asked:
            rows.setdefault(asked[i], []).append(row)
    return {
        name: Marks(rows[name], style.colour, style.marker) for name, style in answer_styles().items() if name in rows
    }


def principal_plane(latents: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components of standardised latents.

    Args:
        latents: (N, D) floats.

    Returns:
        (N, 2) float64 points, and the share of the variance that they show (0 where there is no variance).
    """
    latents = np.asarray(latents, np.float64)
    if len(latents) == 0:
        return np.zeros((0, 2)), 0.0
    spread = latents.std(0)
    # A dimension that the stream does not use has no spread; divided by it, noise would become the largest component.
    used = spread > 1e-9
    standard = (latents[:, used] - latents[:, used].mean(0)) / spread[used]
    if standard.shape[1] == 0:
        return np.zeros((len(latents), 2)), 0.0
    left, singular, _ = np.linalg.svd(standard, full_matrices=False)
    points = np.zeros((len(latents), 2))
    kept = min(2, len(singular))
    points[:, :kept] = left[:, :kept] * singular[:kept]
    return points, float((singular[:kept] ** 2).sum() / (singular**2).sum())


def score_levels(score: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Levels of the colour scale over the range of the scores.

    Args:
        score: (N,) floats in [0, 1].

    Returns:
        (N,) ints in 0..NUM_LEVELS-1, and the NUM_LEVELS + 1 edges of the levels.
    """
    low, high = (float(score.min()), float(score.max())) if len(score) else (0.0, 1.0)
    if high - low < 1e-6:
        low, high = 0.0, 1.0
    edges = np.linspace(low, high, NUM_LEVELS + 1)
    return np.clip(np.searchsorted(edges[1:-1], score, side="right"), 0, NUM_LEVELS - 1), edges.tolist()


def training_pictures(project: Project) -> list[dict[str, Any]]:
    """What each stream that is a network has learned: the pictures that were stored when round 0 trained it."""
    streams = []
    for stream in STREAMS:
        path = project.path(0, PICTURES_NAME.format(stream))
        if not path.is_file():
            continue
        with np.load(path, allow_pickle=False) as stored:
            sheets = [
                {"title": title, "note": note, "uri": sheet_uri(stored[name])}
                for name, (title, note) in SHEETS.items()
                if name in stored
            ]
        streams.append({"title": STREAMS[stream], "sheets": sheets})
    return streams
