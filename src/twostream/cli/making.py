"""Commands that make projects: demo, init, fork; look, which makes none; and public data sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from twostream.base.errors import InputError
from twostream.base.program import command
from twostream.cli.app import (
    App,
    Debug,
    Dir,
    IgnoreValue,
    LabelsKind,
    LabelsPost,
    Overrides,
    VoxelSizeText,
    Window,
    app,
    box_option,
    errors_as_sentences,
    label_kind_of,
    uri_option,
    voxel_size_of,
)

if TYPE_CHECKING:
    from twostream.project.project import Project


@app.command()
@errors_as_sentences
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to create, or to continue in.")] = Path(
        "demo"
    ),
    task: Annotated[
        str, typer.Option("--task", metavar="polarity|mitochondria", help="What to look for.")
    ] = "polarity",
    rounds: Annotated[int, typer.Option("--rounds", help="Number of rounds; each asks one batch of queries.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the tissue and of everything random.")] = 0,
    debug: Debug = False,
) -> None:
    """Run the whole loop on synthetic tissue. A simulated annotator answers; random queries are run for comparison."""
    from twostream.demo import run_demo

    run_demo(out, task=task, rounds=rounds, seed=seed)


@app.command()
@errors_as_sentences
def init(
    directory: Dir,
    image: Annotated[Optional[str], uri_option("--image", "Image: grey values (Z, Y, X).")] = None,
    task: Annotated[
        Optional[str], typer.Option("--task", metavar="mitochondria|cleft|polarity", help="What to look for.")
    ] = None,
    recipe: Annotated[
        Optional[str], typer.Option("--recipe", metavar="NAME", help="A published configuration; needs --data.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", metavar="DATA_DIR", help="Folder that `twostream data get` has filled.")
    ] = None,
    labels: Annotated[
        Optional[str],
        uri_option("--labels", "Labels, from which S learns: instances, a mask, or the sides of synapses."),
    ] = None,
    labels_post: LabelsPost = None,
    labels_kind: LabelsKind = None,
    ignore_value: IgnoreValue = None,
    window: Window = None,
    probability: Annotated[
        Optional[str], uri_option("--probability", "Another model's probability, in place of S.")
    ] = None,
    segmentation: Annotated[
        Optional[str], uri_option("--segmentation", "Instance labels to check, in place of S.")
    ] = None,
    objects: Annotated[
        Optional[str],
        typer.Option("--objects", metavar="TABLE", help="Table of objects (CSV, Parquet, Feather), in place of S."),
    ] = None,
    model: Annotated[
        Optional[Path],
        typer.Option("--model", metavar="CARD", help="A finished model (card.json or its folder), in place of labels."),
    ] = None,
    labels_box: Annotated[
        Optional[list[str]],
        box_option(
            "--labels-box", "Where S may learn from the labels; once for each box. What lies between is unknown."
        ),
    ] = None,
    val_box: Annotated[
        Optional[str], box_option("--val-box", "Part of a labels box, or one of several, kept to choose thresholds.")
    ] = None,
    test_box: Annotated[
        Optional[str], box_option("--test-box", "Scored; never trained on and never asked about.")
    ] = None,
    voxel_size: VoxelSizeText = None,
    preset: Annotated[
        str, typer.Option("--preset", metavar="laptop|paper", help="Sizes of models and length of training.")
    ] = "laptop",
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    budget: Annotated[int, typer.Option("--budget", help="Answers per round.")] = 50,
    vae_config: Annotated[
        Optional[list[Path]],
        typer.Option("--vae-config", metavar="FILE", help="Published YAML with a TWOSTREAM: block; may be repeated."),
    ] = None,
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Make a project. Checks the volumes, fixes the boxes and writes twostream.yaml."""
    from twostream.project.create import create_project
    from twostream.volume.grey import parse_window

    given: dict[str, Any] = {"task": task, "image": image, "labels": labels}
    given |= {"labels_box": labels_box or None, "val_box": val_box, "test_box": test_box}
    if recipe is not None or data is not None:
        from twostream.project.recipes import recipe_arguments

        given = recipe_arguments(recipe, data, preset=preset, given=given)
    sources: dict[str, Any] = {"probability": probability, "segmentation": segmentation, "objects": objects}
    _check_init(given, sources, model)
    inputs: list[Any] = []
    project = create_project(
        directory,
        on_inputs=inputs.append,
        **given,
        **sources,
        model=model,
        labels_post=labels_post,
        labels_kind=label_kind_of(labels_kind),
        ignore_value=ignore_value,
        window=None if window is None else parse_window(window),
        voxel_size_nm=voxel_size_of(voxel_size),
        preset=preset,
        seed=seed,
        budget=budget,
        overrides=[*_published_overrides(vae_config, preset, given), *(set_ or [])],
    )
    _print_inputs(directory, inputs[0], project)
    _print_new_project(directory, project)


def _check_init(given: dict[str, Any], sources: dict[str, Any], model: Path | None) -> None:
    """Raise InputError where ``init`` lacks an option."""
    if given["image"] is None or given["task"] is None:
        raise InputError("init needs --image URI and --task NAME, or --recipe NAME and --data DATA_DIR.")
    if given["labels"] is None and not any(sources.values()) and model is None:
        raise InputError(
            "init needs --labels URI: S is trained on them. Pass a volume of the image's extent, 0 where unlabelled; "
            "or bring another model's output in place of S: --probability URI, --segmentation URI or --objects TABLE; "
            "or a finished model: --model CARD."
        )


def _published_overrides(paths: list[Path] | None, preset: str, given: dict[str, Any]) -> list[str]:
    """Overrides from configuration files of the published code; what was read of each is printed."""
    if not paths:
        return []
    from twostream.models.streams.published import read_published
    from twostream.project.settings import PRESETS, preset_settings

    task: str = given["task"]
    settings = given.get("settings") or (preset_settings(preset, task) if preset in PRESETS else {})
    reading = read_published(paths, task, settings)
    print("\n".join(reading.lines))
    return reading.overrides


def _print_inputs(directory: Path, inputs: Any, project: Project) -> None:
    """Print what was understood of image and labels; where something is questioned, a picture is written as well."""
    from twostream.candidates.sources import segmentation_labels
    from twostream.project.look import look_at_inputs, write_picture

    source, segmentation = project.source, None
    if source is not None and source.kind == "segmentation":
        segmentation = segmentation_labels(source, project.image, project.task)
    seen = look_at_inputs(inputs, project.task, segmentation)
    print("\n".join(seen.understood.printed))
    if seen.understood.questions:
        write_picture(seen.picture, directory / "inputs.png")
        print(f"picture of what is questioned: {directory / 'inputs.png'}")


def _print_new_project(directory: Path, project: Project) -> None:
    """Print what ``init`` has understood, and the next command."""
    boxes, source = project.boxes, project.config.source
    print(
        f"{directory / 'twostream.yaml'} written: {project.task.name}, {project.image.shape_zyx} voxels "
        f"of {project.image.voxel_size_nm} nm (Z, Y, X)"
    )
    print(
        f"labels {'boxes' if len(boxes.labels) > 1 else 'box'} {boxes.labels_text} "
        f"· validation box {boxes.val or 'none'} "
        f"· test box {boxes.test or 'none; audits, drawn at random, estimate the accuracy'}"
    )
    if source:
        print(f"{source.name} {source.uri} in place of S: only the streams are trained")
    if project.config.model:
        print(f"S begins as the finished model {project.config.model.uri} and learns from answers")
    if boxes.test and not boxes.labels:
        print("there are no labels, so the test box is scored only in runs with --truth")
    if project.leaves_nothing_to_ask:
        print("Labels boxes and the test box with its guard cover the whole image: S can be trained and scored, but no")
        print("candidate can be asked about. To ask, make a project with a smaller --labels-box.")
        print(f"next, to train and score S: {command('run', directory, '--rounds', 0)}")
        return
    print(f"next, if people answer: {command('run', directory)}")
    print(f"next, if a simulated annotator answers by the labels at URI: {command('run', directory, '--truth', 'URI')}")


@app.command()
@errors_as_sentences
def fork(
    directory: Dir,
    target: Annotated[Path, typer.Argument(metavar="NEW", help="Folder to create.")],
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Make a second project that shares round 0. To compare strategies, pass --set query.strategy=random."""
    from twostream.project.create import fork_project
    from twostream.project.project import Project

    fork_project(Project(directory), target, set_ or [])
    print(f"{target} shares round 0 of {directory}")
    print(f"next: {command('run', target)}")


@app.command()
@errors_as_sentences
def look(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="URI of an image.")],
    other: Annotated[
        Optional[str],
        typer.Argument(metavar="[LABELS|SEGMENTATION|TABLE]", help="Labels, a segmentation or a table of objects."),
    ] = None,
    task: Annotated[
        str,
        typer.Option("--task", metavar="mitochondria|cleft|polarity", help="Label convention: polarity has two sides."),
    ] = "mitochondria",
    voxel_size: VoxelSizeText = None,
    labels_post: LabelsPost = None,
    labels_kind: LabelsKind = None,
    ignore_value: IgnoreValue = None,
    window: Window = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PNG", help="The picture; a file that is there is replaced.")
    ] = Path("look.png"),
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print what is understood of files, and draw sections with what lies on them. `init` makes the same checks."""
    from twostream.project.inputs import Given
    from twostream.project.look import look as look_at
    from twostream.project.look import write_picture
    from twostream.volume.grey import parse_window

    given = Given(
        image,
        other,
        labels_post,
        voxel_size_of(voxel_size),
        None if window is None else parse_window(window),
        label_kind_of(labels_kind),
        ignore_value,
    )
    seen = look_at(given, task, set_ or [])
    write_picture(seen.picture, output)
    print("\n".join(seen.understood.printed))
    print(f"picture: {output}")


data_app = App(no_args_is_help=True, help="List and fetch public data sets.")


app.add_typer(data_app, name="data")


@data_app.command("list")
@errors_as_sentences
def data_list(debug: Debug = False) -> None:
    """List the public data sets that can be fetched by name."""
    from twostream.volume.datasets import table

    print(table())


@data_app.command("get")
@errors_as_sentences
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the set; see `twostream data list`.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the HDF5 files.")],
    url: Annotated[
        Optional[str],
        typer.Option("--url", metavar="URL", help="Another address of the folder that holds the set's files."),
    ] = None,
    voxel_size: Annotated[
        Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, in place of the set's own.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch a public data set and write it as HDF5 files; files that exist are not fetched again."""
    from twostream.volume.datasets import find_dataset, get_dataset

    paths = get_dataset(name, directory, url=url, voxel_size_nm=voxel_size_of(voxel_size))
    print("\n".join(map(str, paths)))
    init_command = command("init", "PROJECT", "--recipe", find_dataset(name).recipe, "--data", directory)
    print(f"next, with a folder of your choice as PROJECT: {init_command}")
