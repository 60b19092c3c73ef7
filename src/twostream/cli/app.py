"""The app and what all commands share: options, errors as sentences, commands that can be pasted.

Knows typer and errors; must not know what a command does.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand, TyperOption

from twostream.base.errors import BlocksError, InputError, TwoStreamError
from twostream.base.memory import parse_size


class Command(TyperCommand):
    """A command that refuses an option with one value that is given twice: otherwise the second would win silently."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = [
            param
            for param in self.make_parser(ctx).parse_args(list(args))[2]
            if isinstance(param, TyperOption) and not (param.multiple or param.is_flag or param.count)
        ]
        twice = next((param for param in given if given.count(param) > 1), None)
        if twice is not None:
            raise typer.BadParameter(f"{twice.opts[-1]} was given {given.count(twice)} times; it takes one value.", ctx)
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """An app all of whose commands are ``Command``."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=Command, **settings)


app = App(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def uri_option(option: str, text: str) -> Any:
    """An option that takes the URI of a volume."""
    return typer.Option(option, metavar="URI", help=text, callback=_not_empty)


def _not_empty(value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty; expected a file, folder or URI. Is a variable of the shell not set?")
    return value


def box_option(option: str, text: str) -> Any:
    """An option that takes a box of voxels."""
    return typer.Option(option, metavar="Z0:Z1,Y0:Y1,X0:X1", help=text)


Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The project folder.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Truth = Annotated[
    Optional[str], uri_option("--truth", "Labels of the whole image; a simulated annotator answers by them.")
]
MinProbability = Annotated[
    Optional[float],
    typer.Option(
        "--min-probability",
        metavar="P",
        help="Data set: leave out unanswered objects to which the scorer gives less (default 0.5; 0 keeps all).",
    ),
]
VoxelSizeText = Annotated[
    Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, for files that do not state it.")
]
LabelsPost = Annotated[
    Optional[str], uri_option("--labels-post", "The postsynaptic side, if the labels hold only the presynaptic one.")
]
LabelsKind = Annotated[
    Optional[str],
    typer.Option(
        "--labels-kind", metavar="instances|mask|sides|points", help="What labels mean, if found out wrongly."
    ),
]
IgnoreValue = Annotated[
    Optional[int], typer.Option("--ignore-value", help="Label of voxels that are neither object nor background.")
]
Window = Annotated[
    Optional[str],
    typer.Option("--window", metavar="LOW:HIGH", help="Grey values shown as 0 and 255; found out if not uint8."),
]
Cluster = Annotated[
    Optional[str],
    typer.Option(
        "--cluster",
        metavar="local|slurm|ADDRESS",
        help="Where blocks are computed, by Dask; without it, in this process.",
    ),
]
Workers = Annotated[
    Optional[int], typer.Option("--workers", metavar="N", help="Of --cluster local or slurm: how many.", min=1)
]
MemorySize = Annotated[
    Optional[str],
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Most that a process may hold, such as 4GB: blocks are made to fit, or refused.",
    ),
]
Overrides = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="A.B=VALUE", help="Change a setting; may be repeated.")
]


def errors_as_sentences(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print an error as one sentence and exit with status 1; with --debug, let it pass with its traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            if isinstance(error, BlocksError) and not error.is_ours:
                print(error.traceback, file=sys.stderr)
            text = str(error) if isinstance(error, TwoStreamError) else _foreign_error_text(error)
            print(f"twostream: {text}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped


def _foreign_error_text(error: Exception) -> str:
    """A sentence for an error that is not a ``TwoStreamError``."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError):
        hint = {errno.ENOSPC: " The disk is full.", errno.EROFS: " The file system is read-only."}
        return f"the system refused: {words}.{hint.get(error.errno or 0, '')}"
    return (
        f"unexpected {type(error).__name__}: {words}. A step that was interrupted does not count as done. Please "
        f"report this error with the traceback that --debug shows."
    )


def memory_of(text: str | None) -> int | None:
    """Bytes from the text of --memory; None where it was not given."""
    return None if text is None else parse_size(text, "--memory")


def voxel_size_of(text: str | None) -> list[float] | None:
    """(z, y, x) nm from the text of --voxel-size; None where it was not given."""
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
        if len(values) != 3:
            raise ValueError
    except ValueError:
        raise InputError(f"--voxel-size is {text!r}; expected Z,Y,X in nanometres, for example 40,4,4.") from None
    return values


def label_kind_of(text: str | None) -> Any:
    """The kind of labels that --labels-kind names; None where it was not given."""
    from twostream.candidates.label_scan import KINDS

    if text is not None and text not in KINDS:
        raise InputError(f"--labels-kind is {text!r}; expected one of {', '.join(KINDS)}.")
    return text
