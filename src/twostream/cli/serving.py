"""The command that opens a project in the browser."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from twostream.cli.app import Debug, Dir, app, errors_as_sentences


@app.command()
@errors_as_sentences
def serve(
    directory: Dir,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine need names.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 8080,
    annotator: Annotated[
        Optional[list[str]],
        typer.Option("--annotator", metavar="NAME", help="Who may sign in, each by their own token; may be repeated."),
    ] = None,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let the page start the next round when no query is open.")
    ] = False,
    root_path: Annotated[
        str, typer.Option("--root-path", metavar="/PATH", help="Path below which a reverse proxy shows the page.")
    ] = "",
    allow_host: Annotated[
        Optional[list[str]],
        typer.Option("--allow-host", metavar="NAME", help="Further name by which browsers address the server."),
    ] = None,
    neuroglancer: Annotated[
        str,
        typer.Option("--neuroglancer", metavar="URL|local|none", help="Which Neuroglancer the links open."),
    ] = "https://neuroglancer-demo.appspot.com",
    debug: Debug = False,
) -> None:
    """Open the project in the browser: look at the open queries and answer them, with one key each."""
    from twostream.project.project import Project
    from twostream.web.serve import ServeOptions
    from twostream.web.serve import serve as serve_project

    options = ServeOptions(
        host=host,
        port=port,
        annotators=tuple(annotator or ()),
        allow_run=allow_run,
        root_path=root_path.rstrip("/"),
        allow_hosts=tuple(allow_host or ()),
        neuroglancer="" if neuroglancer == "none" else neuroglancer,
    )
    serve_project(Project(directory), options)
