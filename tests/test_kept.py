"""What people give is never lost: the id of a project, files that are gone, and the copies they come from."""

import shutil

import pytest
import yaml
from test_cli import call, refused

from twostream.base.errors import ProjectError
from twostream.project.create import fork_project
from twostream.project.project import Project
from twostream.rounds.loop import run


def test_every_project_and_fork_has_an_id_that_nothing_depends_on(make_project, toy_file, tmp_path):
    first, second = make_project("first"), make_project("second")
    for project in (first, second):
        run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    fork = fork_project(first, tmp_path / "fork", [])
    assert len({first.id, second.id, fork.id}) == 3
    for project in (first, second, fork):
        assert Project(project.root).id == project.id == project.config.id != ""
    for a, b in zip(first.ledger.queries(), second.ledger.queries(), strict=True):
        assert (a.candidate.id, a.reason) == (b.candidate.id, b.reason)
    assert [a.kind for a in first.ledger.all_answers()] == [a.kind for a in second.ledger.all_answers()]
    assert [m["scores"] for m in first.ledger.scores().values()] == [
        m["scores"] for m in second.ledger.scores().values()
    ]


def test_a_project_without_an_id_in_its_settings_has_that_of_its_ledger(make_project):
    project = make_project()
    path = project.root / "twostream.yaml"
    values = yaml.safe_load(path.read_text())
    stated = values.pop("id")
    path.write_text(yaml.safe_dump(values))
    assert Project(project.root).config.id == "" and Project(project.root).id == stated


def test_settings_and_ledger_of_two_projects_are_refused(make_project):
    first, second = make_project("first"), make_project("second")
    first.ledger.close()
    shutil.copy(first.root / "ledger.sqlite", second.root)
    with pytest.raises(ProjectError) as error:
        _ = Project(second.root).ledger
    for words in (f"{second.root / 'twostream.yaml'} belongs to project {second.config.id}", f"to {first.id}"):
        assert words in str(error.value)
    refused(call("status", second.root), "Put back the file that belongs here")


def test_the_id_cannot_be_chosen(make_project):
    with pytest.raises(Exception, match="every project is given one of its own"):
        make_project(overrides=["id=mine"])
