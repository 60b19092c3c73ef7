"""The curated data set: which objects are kept and removed after the answers of one or two annotators."""

import csv

import numpy as np
from test_moving import lab, project_in  # noqa: F401 - lab is a fixture

from twostream.project.export import export
from twostream.project.records import Answer
from twostream.task.answers import AnswerKind
from twostream.volume import open_volume


def test_y_of_the_verdict_decides_what_is_removed(lab, tmp_path):  # noqa: F811
    project = project_in(lab)
    run_until_asked(project)
    queries = project.ledger.open_queries()
    kinds_of_queries = [
        ("true",),
        ("nothing",),
        ("nothing", "shape"),
        ("true", "nothing"),
        ("unsure",),
        ("true", "true"),
    ]
    for query, kinds in zip(queries, kinds_of_queries, strict=True):
        for annotator, kind in zip(("ann", "eve"), kinds, strict=False):
            project.ledger.tell(Answer(query.id, AnswerKind(kind), annotator))
    export(project, "dataset", tmp_path / "d", None)
    rows = {int(row["id"]): row for row in csv.DictReader((tmp_path / "d" / "objects.csv").open())}
    volume = open_volume(str(tmp_path / "d" / "segmentation.zarr"))
    values = set(np.unique(volume.read(volume.box)).tolist()) - {0}
    assert values == set(rows)
    true, nothing, both_false, disputed, unsure, both_true = (q.candidate.id for q in queries)
    assert nothing not in rows and both_false not in rows
    assert rows[true]["origin"] == "true" and rows[both_true]["origin"] == "true"
    assert rows[unsure]["origin"] == "model" and rows[unsure]["answered_by"] == ""
    assert rows[disputed]["origin"] == "disputed" and rows[disputed]["answered_by"] == "ann, eve"
    assert rows[disputed]["asked_in_round"] == "0" and rows[both_true]["answered_by"] == "ann, eve"


def run_until_asked(project):
    from twostream.rounds.loop import run

    run(project, rounds=1)
