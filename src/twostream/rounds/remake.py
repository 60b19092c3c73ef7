"""Files of a round that are gone are made again, by the step that made them and with the settings of that round.

The result is what it was, on the same machine and with the same versions. Candidates that come out otherwise, because
answers were changed since, are refused: their ids would belong to other objects.

Knows the steps and their files; must not know how a step works.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_array
from twostream.base.errors import LedgerError, ProjectError
from twostream.models.streams.config import NETWORKS
from twostream.models.training import use_threads
from twostream.project.frozen import SETTINGS_NAME, check_frozen, read_settings
from twostream.project.probabilities import POOL_NAME
from twostream.project.project import CONFIG_NAME, Project
from twostream.project.round_files import SIDE_BY_SIDE_NAME, missing_files
from twostream.project.segmentation import SEGMENTATION_NAME
from twostream.project.tables import export_answers, export_queries
from twostream.rounds.embed import embed_step
from twostream.rounds.predict import PROBABILITY_NAME
from twostream.rounds.propose import propose_step
from twostream.rounds.refit import refit_step
from twostream.rounds.score import store_probabilities_again, write_metrics
from twostream.rounds.train import train_step


def remake(project: Project) -> list[str]:
    """Make every file again that is gone.

    Returns:
        What was made, as sentences.

    Raises:
        ProjectError: a file cannot be made as it was.
    """
    made: list[str] = []
    with project.locked():
        for one in missing_files(project):
            _ensure(project, one.round, one.name, made)
        proposed = [r for r, step in project.ledger.finished_steps() if step == "propose"]
        for round_number in range(max(proposed, default=0)):  # only the newest round keeps these
            for name in (PROBABILITY_NAME, SEGMENTATION_NAME):
                shutil.rmtree(project.path(round_number, name), ignore_errors=True)
    return made


def _ensure(project: Project, round_number: int, name: str, made: list[str]) -> None:
    """Make a file of a round again if it is gone, and before it what it is made of."""
    path = project.path(round_number, name)
    if path.exists():
        return
    for earlier, needed in _needed_for(project, round_number, name):
        _ensure(project, earlier, needed, made)
    if path.exists():  # made together with what it needed
        return
    progress.say(f"{path} is gone: made again")
    then = _as_it_was(project, round_number)
    use_threads(then.config.num_threads)
    _maker(round_number, name)(then, round_number)
    made.append(f"{path} was gone: made again.")


def _needed_for(project: Project, round_number: int, name: str) -> list[tuple[int, str]]:
    """(round, name) of the files that making a file reads, and that may be gone as well."""
    before, config = round_number - 1, project.config
    streams = {"supervised": (0, "supervised.ckpt"), "unsupervised": (round_number, "unsupervised.ckpt")}
    networks = [file for stream, file in streams.items() if getattr(config.streams, stream).method in NETWORKS]
    s = [] if config.source else [(round_number, "checkpoint.ckpt")]
    if name in ("checkpoint.ckpt", "unsupervised.ckpt") and round_number > 0:
        of_s = [] if config.source else [(before, "checkpoint.ckpt")]
        of_stream = [(before, "unsupervised.ckpt")] if config.streams.unsupervised.method in NETWORKS else []
        return [(before, SETTINGS_NAME), (before, "candidates.parquet"), *of_s, *of_stream]
    if name == "candidates.parquet":
        return [*((earlier, name) for earlier in range(round_number)), *s]
    if name == POOL_NAME:
        latents = [(round_number, f"latents_{stream}.npy") for stream in streams]
        if config.streams.supervised.method == "vae+s":
            latents.append((round_number, SIDE_BY_SIDE_NAME))
        return [(round_number, "candidates.parquet"), *networks, *latents]
    if name.startswith("latents_") or name == SIDE_BY_SIDE_NAME:
        return [(round_number, "candidates.parquet"), *s, *(networks if round_number else [])]
    return [(round_number, "candidates.parquet")] if name in ("ids.npy", "supervised.ckpt", "unsupervised.ckpt") else []


def _maker(round_number: int, name: str) -> Callable[[Project, int], object]:
    """The function that makes a file of a round."""
    learn = refit_step if round_number else train_step
    makers: dict[str, Callable[[Project, int], object]] = {
        SETTINGS_NAME: _settings,
        "checkpoint.ckpt": learn,
        "unsupervised.ckpt": learn if round_number else embed_step,
        "candidates.parquet": _candidates,
        "ids.npy": _ids,
        POOL_NAME: store_probabilities_again,
        "metrics.json": lambda project, number: write_metrics(project, number, project.ledger.scores()[number]),
        "queries.jsonl": export_queries,
        "answers.jsonl": export_answers,
    }
    return makers.get(name, embed_step)


def _as_it_was(project: Project, round_number: int) -> Project:
    """The project with the settings of a round, and with the volumes where they are now."""
    path, now = project.path(round_number, SETTINGS_NAME), project.config
    if not path.exists():
        return project
    then = read_settings(path)
    frozen = {"supervised": now.streams.supervised, "unsupervised": now.streams.unsupervised}
    streams = then.streams.model_copy(update=frozen)
    places = {"id": now.id, "image": now.image, "labels": now.labels, "source": now.source, "streams": streams}
    result = Project(project.root)
    result.config = then.model_copy(update=places)
    result.__dict__["ledger"] = project.ledger
    return result


def _settings(project: Project, round_number: int) -> None:
    """Write ``config.yaml`` of a round: the settings of today, if they do not contradict those of the other rounds."""
    for other in sorted(project.root.glob(f"rounds/*/{SETTINGS_NAME}")):
        check_frozen(project.config, read_settings(other), now=str(project.root / CONFIG_NAME), then=str(other))
    project.open_round(round_number)


def _ids(project: Project, round_number: int) -> None:
    """Write ``ids.npy`` of a round."""
    write_array(project.path(round_number, "ids.npy"), project.candidates(round_number).ids.astype(np.uint64))


def _candidates(project: Project, round_number: int) -> None:
    """Propose again, and check that the candidates which were asked about are what they were.

    Raises:
        ProjectError: they are not.
    """
    path = project.path(round_number, "candidates.parquet")
    try:
        propose_step(project, round_number)
        candidates = project.candidates(round_number)
        row_of = {identity: row for row, identity in enumerate(candidates.ids.tolist())}
        for query in project.ledger.queries(round_number):
            asked, row = query.candidate, row_of.get(query.candidate.id)
            now = None if row is None else candidates[row]
            if now is None or now.box != asked.box or not np.array_equal(now.mask, asked.mask):
                raise LedgerError(f"candidate {asked.id} is another object")
    except (LedgerError, ProjectError) as error:  # other ids, another object, or no candidates at all
        path.unlink(missing_ok=True)
        raise ProjectError(
            f"{path} is gone and cannot be made again as it was ({str(error).rstrip('.')}): answers or versions have "
            f"changed since. Put it back from a copy of the project."
        ) from None
