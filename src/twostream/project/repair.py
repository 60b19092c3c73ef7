"""The command `repair`: what is missing or damaged in a project's folder is restored from the copies that it keeps.

    twostream.yaml   from the settings that the newest round has kept
    ledger.sqlite    from the newest copy in ``rounds/``, and the answers of ``answers.jsonl`` that are newer
    answers.jsonl    from the ledger

Nothing is deleted: a damaged file stays under another name. The files of rounds that are computed are restored by
``rounds/remake.py``.

Knows the files of a project and their copies; must not import torch.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml

from twostream.base.atomic import free_name, write_text
from twostream.base.errors import LedgerError, ProjectError
from twostream.project.answer_log import ANSWERS_NAME, AnswerLog, LoggedAnswer
from twostream.project.database import damage_of
from twostream.project.frozen import SETTINGS_NAME, read_settings
from twostream.project.ledger import Ledger
from twostream.project.lock import locked
from twostream.project.project import CONFIG_NAME, LEDGER_NAME, Project, holds_work
from twostream.task import TASKS

NUM_COPIES = 2
"""Rounds that keep a copy of the ledger. Every copy holds all rounds before it; the second is there in case the newest
is damaged as well."""
ASIDE = "damaged"
"""Ending of a damaged file's new name."""


def keep_copy(project: Project, round_number: int) -> None:
    """Copy the ledger into the folder of a round, and delete the copies of all but ``NUM_COPIES`` rounds.

    Raises:
        LedgerError: the copy cannot be written.
    """
    project.ledger.append_to_log()
    project.ledger.copy_to(project.path(round_number, LEDGER_NAME))
    for old in _copies(project.root)[NUM_COPIES:]:
        old.unlink()


def repair(root: Path) -> list[str]:
    """Restore what is missing or damaged in the folder ``root``.

    Returns:
        What was done, as sentences; empty if nothing was to be done.

    Raises:
        ProjectError: there is no project, no copy to restore it from, or another process works in it.
    """
    if not ((root / CONFIG_NAME).exists() or holds_work(root)):
        raise ProjectError(f"{root} holds no project: neither {CONFIG_NAME} nor a ledger, rounds or answers.")
    with locked(root):
        done = _restore_settings(root)
        project = Project(root)
        done += _restore_ledger(project)
        done += _restore_answers(project)
        newest = project.ledger.newest_asked_round()
        if newest is not None and damage_of(project.path(newest, LEDGER_NAME)) != "":
            project.round_dir(newest).mkdir(parents=True, exist_ok=True)
            keep_copy(project, newest)
            done.append(
                f"{project.path(newest, LEDGER_NAME)}, the copy of the ledger, was missing or damaged: made again."
            )
    return done


def _copies(root: Path) -> list[Path]:
    """The copies of the ledger, the newest first."""
    return sorted(root.glob(f"rounds/*/{LEDGER_NAME}"), reverse=True)


def _restore_settings(root: Path) -> list[str]:
    """Write ``twostream.yaml`` if it is missing or empty.

    Raises:
        ProjectError: no round has kept its settings.
    """
    path = root / CONFIG_NAME
    if path.is_file() and path.read_bytes().strip(b"\0 \n"):
        return []
    for kept in sorted(root.glob(f"rounds/*/{SETTINGS_NAME}"), reverse=True):
        try:
            config = read_settings(kept)
        except ProjectError:
            continue
        if not damage_of(root / LEDGER_NAME):  # the settings of a round that a fork has copied name its origin
            ledger = Ledger(root / LEDGER_NAME, task=TASKS[config.task], project_id=config.id)
            config = config.model_copy(update={"id": ledger.project_id})
            ledger.close()
        if path.exists():
            path.rename(free_name(path, ASIDE))
        write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        return [
            f"{path} was missing or empty: written again from {kept}. Settings that were changed after that round was "
            f"last worked on have their old values; please look through them."
        ]
    raise ProjectError(
        f"{path} is missing or empty, and no round has kept its settings. Put a copy of it there; or make the project "
        f"anew in another folder with `twostream init`."
    )


def _restore_ledger(project: Project) -> list[str]:
    """Put the newest sound copy in the place of a ledger that is missing or damaged.

    Raises:
        LedgerError: there is no sound copy, and there were queries or answers.
    """
    path = project.root / LEDGER_NAME
    damage = damage_of(path)
    if not damage:
        return []
    copy = next((one for one in _copies(project.root) if not damage_of(one)), None)
    if copy is None and _was_asked(project):
        raise LedgerError(
            f"{path} cannot be restored ({damage}): no round holds a sound copy of it. Put a backup of {LEDGER_NAME} "
            f"there, of whatever age, and call repair again: it adds the answers of {ANSWERS_NAME}."
        )
    restored = path.with_name(f"{path.name}.partial")
    restored.unlink(missing_ok=True)
    if copy is None:
        task, project_id = TASKS[project.config.task], project.config.id
        Ledger(restored, create=True, task=task, project_id=project_id).close()
    else:
        shutil.copyfile(copy, restored)
    aside = _put_aside(path)
    os.replace(restored, path)
    kept = f" The damaged file is kept as {aside}." if aside else ""
    if copy is None:
        return [f"{path} could not be used ({damage}); nobody had been asked yet, so a new one was made.{kept}"]
    return [f"{path} could not be used ({damage}): restored from {copy}.{kept}"]


def _was_asked(project: Project) -> bool:
    """Whether anybody was asked or has answered, by the files that are left."""
    root = project.root
    return any(any(root.glob(name)) for name in (ANSWERS_NAME, "rounds/*/queries.jsonl", "rounds/*/answers.jsonl"))


def _put_aside(path: Path) -> Path | None:
    """Rename a ledger, together with the files that SQLite keeps beside it; None if there is none."""
    aside = free_name(path, ASIDE)
    for ending in ("-wal", "-shm", ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
    return aside if aside.exists() else None


def _restore_answers(project: Project) -> list[str]:
    """Bring ledger and ``answers.jsonl`` together: each gets the answers that only the other has."""
    log = AnswerLog(project.root / ANSWERS_NAME)
    ledger = Ledger(project.root / LEDGER_NAME, task=TASKS[project.config.task])
    try:
        found, num_torn = log.answers()
        mine = [one.answer for one in found if one.project == ledger.project_id]
        before = len(ledger.all_answers())
        refused = ledger.restore(mine)
        recorded = ledger.logged()
    finally:
        ledger.close()
    done = []
    if num := len(recorded) - before:
        done.append(f"{num} answers of {log.path} were missing in the ledger: recorded.")
    taken = {one.answer.id for one in recorded}
    waiting = [one for one in found if one.project == ledger.project_id and one.answer.id in refused.keys() - taken]
    for one in waiting:
        done.append(f"Answer {one.answer.id} of {log.path} stays there alone: {refused[one.answer.id]}")
    lost = {_key(one) for one in recorded} - {_key(one) for one in found}
    foreign = len(found) - len(mine)
    conflicts = len(refused.keys() & taken)
    if lost or foreign or conflicts:
        done.append(_rewrite(log.path, [*recorded, *waiting], num_torn=num_torn, foreign=foreign, conflicts=conflicts))
    return done


def _rewrite(path: Path, lines: list[LoggedAnswer], *, num_torn: int, foreign: int, conflicts: int) -> str:
    """Write ``answers.jsonl`` again; the file that was there is kept under another name.

    Args:
        path: the file.
        lines: its new lines.
        num_torn, foreign, conflicts: lines that are left out, by the reason.
    """
    reasons = {"torn": num_torn, "of another project": foreign, "unlike the ledger's answer of that number": conflicts}
    left_out = ", ".join(f"{num} {why}" for why, num in reasons.items() if num)
    text = f"{path} did not hold what the ledger holds: written again with {len(lines)} answers."
    if path.exists():
        aside = free_name(path, ASIDE)
        path.rename(aside)
        text += f" The file that was there is kept as {aside}" + (
            f" (lines left out: {left_out})." if left_out else "."
        )
    write_text(path, b"".join(one.line() for one in sorted(lines, key=lambda one: one.answer.id)).decode())
    return text


def _key(one: LoggedAnswer) -> tuple[object, ...]:
    return one.project, one.answer.id, one.answer.query, one.answer.annotator, one.answer.answered_at
