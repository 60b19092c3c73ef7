"""Sources in place of S: the whole loop with each kind of source, and the errors for input that does not fit."""

import csv
import itertools
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import LABELS_BOX, SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from scipy import ndimage
from test_cli import call, refused

from twostream.base.errors import ProjectError
from twostream.candidates import sources
from twostream.candidates.candidate import extract
from twostream.candidates.objects import read_objects
from twostream.candidates.painting import paint
from twostream.candidates.sources import SourceConfig
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import read_table
from twostream.candidates.truth import Truth
from twostream.project.project import Project
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.loop import open_truth
from twostream.rounds.pool import pool_of
from twostream.task import Mitochondria, SynapsePolarity
from twostream.task.answers import AnswerKind
from twostream.volume import MemoryVolume, open_volume

STRANGE_ID = 720575940600000000
"""Ids of connectomes fit neither into 32 bits nor exactly into a double."""


@pytest.fixture(scope="session")
def theirs(tmp_path_factory, toy_file):
    """The output of another model on the toy world: a folder with volumes (other.h5) and a table (objects.csv)."""
    folder = tmp_path_factory.mktemp("theirs")
    smooth = ndimage.gaussian_filter(toy_arrays()[0].astype(np.float32), (0, 1, 1))
    blobs, number = ndimage.label(smooth > 115)
    sizes = np.bincount(blobs.ravel())
    blobs[sizes[blobs] < 30] = 0
    _, blobs = np.unique(blobs, return_inverse=True)
    blobs = blobs.reshape(SHAPE_ZYX)
    number = int(blobs.max())
    instances = np.where(blobs > 0, STRANGE_ID + (number - blobs.astype(np.uint64)), 0).astype(np.uint64)
    instances[0, 0:1, 150:152] = 7  # two voxels: too small a candidate for S, but kept from a source
    with h5py.File(folder / "other.h5", "w") as file:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file["probability"] = np.clip((smooth - 70) / 90, 0, 1)
        file["instances"] = instances
        values = 2 * blobs.astype(np.uint32)
        values[(blobs > 0) & (np.arange(SHAPE_ZYX[2]) % 16 < 8)] -= 1
        file["sides"] = values
    with open(folder / "objects.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "z", "y", "x", *(f"box_{a}{e}" for e in "01" for a in "zyx"), "score", "comment"])
        for label, window in enumerate(ndimage.find_objects(blobs), start=1):
            center = [(s.start + s.stop - 1) / 2 for s in window]
            box = [*(s.start for s in window), *(s.stop for s in window)]
            writer.writerow([f"syn-{label}", *center, *box, round(label / number, 3), "seen"])
    return folder


def words_for(kind, theirs):
    uris = {"probability": "other.h5:probability", "segmentation": "other.h5:instances", "objects": "objects.csv"}
    return [f"--{kind}", theirs / uris[kind]]


def init(root, toy_file, *words, task="mitochondria", sets=()):
    options = [o for s in (*TINY, "patches.object_widths=null", *sets) for o in ("--set", s)]
    return call(
        "init", root, "--image", f"{toy_file}:image", "--task", task, "--budget", "6", *words, *options
    )  # fmt: skip


def done(result):
    assert result.exit_code == 0, result.output + result.stderr
    return result


@pytest.fixture(scope="module", params=["probability", "segmentation", "objects"])
def finished(request, tmp_path_factory, toy_file, theirs):
    """(kind, project, stderr) of two rounds without labels, run from the command line.

    Answers are true and false in turn, whatever was asked: the candidates that a short training leads to differ between
    processors, and so would the number of true ones among them.
    """
    root = tmp_path_factory.mktemp(request.param) / "project"
    done(init(root, toy_file, *words_for(request.param, theirs)))
    in_turn = itertools.cycle([AnswerKind.TRUE, AnswerKind.NOTHING])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedAnnotator, "kind", lambda self, candidate: next(in_turn))
        result = done(call("run", root, "--rounds", "2", "--truth", f"{toy_file}:mitochondria"))
    assert "done: 2 rounds asked and answered" in result.output
    return request.param, Project(root), result.stderr


def test_the_loop_runs_without_s_and_without_labels(finished):
    kind, project, said = finished
    steps = project.ledger.finished_steps()
    assert [step for number, step in steps if number == 2] == ["refit", "predict", "propose", "embed", "score"]
    words = f"a {project.config.source.name} stands in place of S"
    assert steps[(0, "train")]["no_s"] == steps[(1, "refit")]["no_s"] == words
    # The unsupervised stream is still fine-tuned: of six answers in turn, one an audit, two or three are of each kind.
    assert [steps[(number, "refit")]["active_clustering_steps"] for number in (1, 2)] == [4, 4]
    assert not list(project.root.glob("rounds/*/checkpoint*"))
    assert f"no S is trained: a {project.config.source.name} stands in its place" in said
    assert ("threshold 0.5 (without labels, set candidates.threshold)" in said) == (kind == "probability")
    assert ("are candidates, small ones too" in said) == (kind != "probability")
    assert ("each gets the score 0.5" in said) == (kind == "segmentation")
    for number in range(3):
        metrics = project.ledger.scores()[number]
        assert metrics["num_answers"] == 6 * number and metrics["audit"]["num_audited"] == number
        assert set(metrics["scores"]) == {"curated_accuracy"} and metrics["candidate_recall_on_labels"] is None


def test_candidates_keep_their_ids_and_are_asked_about_once(finished):
    _, project, _ = finished
    first = np.load(project.path(0, "ids.npy"))
    assert len(first) > 60
    for number in (1, 2):
        np.testing.assert_array_equal(np.load(project.path(number, "ids.npy")), first)
        assert project.ledger.finished_steps()[(number, "propose")]["num_new"] == 0
    asked = [query.candidate.id for query in project.ledger.queries()]
    assert len(asked) == len(set(asked)) == 12


def test_status_and_report_name_the_source(finished):
    _, project, _ = finished
    text = done(call("status", project.root)).output
    assert f"{project.config.source.name} {project.config.source.uri} in place of S" in text
    assert "candidate recall unknown: no labels" in text and "accuracy by audit" in text
    done(call("report", project.root))
    page = (project.root / "report.html").read_text()
    assert f"{project.config.source.name}, in place of S" in page and "A segmentation model S" not in page
    assert str(project.root.parent) not in page and "S&#39;s score" not in page


def test_exports_carry_the_source_id(finished, theirs, tmp_path):
    kind, project, _ = finished
    for what in ("candidates", "answers", "queries"):
        done(call("export", project.root, "--what", what, "-o", tmp_path / f"{what}.csv"))
    done(call("export", project.root, "--what", "dataset", "-o", tmp_path / "dataset"))
    tables = {p.stem: list(csv.DictReader(p.read_text().splitlines())) for p in tmp_path.rglob("*.csv")}
    lines = [json.loads(line) for line in project.path(0, "queries.jsonl").read_text().splitlines()]
    if kind == "probability":
        assert not any("source_id" in row for row in (*tables["candidates"], *tables["answers"], *lines))
        return
    name_of = {row["id"]: row["source_id"] for row in tables["candidates"]}
    assert len(set(name_of.values())) == len(name_of)
    assert {row["candidate"]: row["source_id"] for row in tables["answers"]}.items() <= name_of.items()
    assert {str(row["candidate"]): str(row["source_id"]) for row in lines}.items() <= name_of.items()
    assert {row["id"]: row["source_id"] for row in tables["objects"]}.items() <= name_of.items()
    candidates = StoredCandidates.open(project.path(2, "candidates.parquet"))
    assert [c.label for c in candidates] == list(range(1, len(candidates) + 1))
    if kind == "segmentation":
        instances = open_volume(f"{theirs / 'other.h5'}:instances")
        whole = instances.read(instances.box)
        assert set(map(int, name_of.values())) == set(np.unique(whole).tolist()) - {
            0
        }  # the instance of two voxels as well
        for c in candidates:
            assert c.score == 0.5
            np.testing.assert_array_equal(c.mask > 0, instances.read(c.box) == int(name_of[str(c.id)]))
    else:
        rows = {row["id"]: row for row in csv.DictReader((theirs / "objects.csv").read_text().splitlines())}
        assert set(name_of.values()) == set(rows)
        for c in candidates:
            row = rows[name_of[str(c.id)]]
            assert c.score == float(row["score"])
            np.testing.assert_allclose(c.center_zyx, [float(row[a]) for a in "zyx"], atol=0.5)
            assert c.box.offset_zyx == tuple(int(row[f"box_{a}0"]) for a in "zyx")


def test_the_probability_of_a_round_is_that_of_the_source(finished, theirs):
    kind, project, _ = finished
    volume = open_volume(str(project.path(2, "probability.zarr")))
    level = volume.read(volume.box)
    with h5py.File(theirs / "other.h5") as file:
        expected = {
            "probability": lambda: np.round(255 * file["probability"][:]),
            "segmentation": lambda: 255 * (file["instances"][:] > 0),
            "objects": lambda: 255 * (_segmentation(project, 2) > 0),
        }[kind]()
    np.testing.assert_array_equal(level[0], expected)


def test_a_fork_shares_the_source(finished, tmp_path, toy_file):
    kind, project, _ = finished
    if kind == "objects":
        done(call("fork", project.root, tmp_path / "fork", "--set", "query.strategy=random"))
        done(call("run", tmp_path / "fork", "--rounds", "1", "--truth", f"{toy_file}:mitochondria"))
        assert Project(tmp_path / "fork").ledger.scores()[1]["num_answers"] == 6
        refused(call("fork", project.root, tmp_path / "f", "--set", "source.radius_nm=3"), "a fork shares round 0")


def _segmentation(project, number):
    volume = open_volume(str(project.path(number, "segmentation.zarr")))
    return volume.read(volume.box)


@pytest.mark.parametrize("kind", ["segmentation", "objects", "probability"])
def test_the_test_box_is_scored_with_truth(tmp_path, toy_file, theirs, kind):
    words, truth = words_for(kind, theirs), f"{toy_file}:mitochondria"
    if kind == "segmentation":  # touching pairs, which any decoding would merge
        truth = f"{theirs / 'other.h5'}:sides"
        words = ["--segmentation", truth]
    wide = ["segmentation.context_zyx=[1,32,32]"]
    result = done(init(tmp_path / "p", toy_file, *words, "--test-box", TEST_BOX, sets=wide))
    assert "the test box is scored only in runs with --truth" in result.output
    done(call("run", tmp_path / "p", "--rounds", "0", "--truth", truth))
    project = Project(tmp_path / "p")
    scores = project.ledger.scores()[0]["scores"]
    assert (
        project.guarded_box.offset_zyx[2] == 192 - 16
    )  # the width of a patch; the context of S does not matter without S
    assert not any(  # no candidate near the test box is in the pool
        row["in_pool"] and row["box_x1"] > 176
        for row in read_table(project.path(0, "candidates.parquet")).to_pylist()
    )  # fmt: skip
    if kind == "segmentation":  # the source is the truth, and its instances are the final segmentation
        assert scores["instance_f1"] == scores["foreground_iou"] == scores["candidate_recall"] == 1.0
    else:
        assert scores["candidate_recall"] > 0.8 and 0.3 < scores["instance_f1"] < 1
        assert 0.3 < scores["foreground_iou"] < 1


def test_the_test_box_is_not_scored_without_truth(tmp_path, toy_file, theirs):
    done(init(tmp_path / "p", toy_file, *words_for("segmentation", theirs), "--test-box", TEST_BOX))
    result = done(call("run", tmp_path / "p", "--rounds", "1"))
    assert "waits for 6 answers" in result.output and "the test box is not scored" in result.stderr
    assert "not scored: no truth" in call("status", tmp_path / "p").output


@pytest.mark.parametrize("kind", ["segmentation", "probability"])
def test_labels_beside_a_source_measure_its_recall(tmp_path, toy_file, theirs, kind):
    labels = ["--labels", f"{toy_file}:mitochondria", "--labels-box", LABELS_BOX]
    done(init(tmp_path / "p", toy_file, *words_for(kind, theirs), *labels))
    for step in ("train", "predict", "propose"):
        done(call(step, tmp_path / "p"))
    project = Project(tmp_path / "p")
    detail = project.ledger.finished_steps()[(0, "propose")]
    assert detail["recall_on_labels"] > 0.9
    assert (detail["threshold"] is None) == (kind == "segmentation")
    table = read_table(project.path(0, "candidates.parquet")).to_pylist()
    assert any(row["in_pool"] for row in table)
    assert not any(row["in_pool"] and row["box_x0"] < 64 for row in table)  # those are labelled already


def test_synapses_of_a_source_keep_their_sides(tmp_path, toy_file, theirs):
    with h5py.File(tmp_path / "two.h5", "w") as file, h5py.File(theirs / "other.h5") as other:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        pre, post = other["sides"][:] % 2 == 1, (other["sides"][:] > 0) & (other["sides"][:] % 2 == 0)
        file["two"] = np.stack([200 * pre, 180 * post]).astype(np.uint8)
    for kind, uri in (("probability", f"{tmp_path / 'two.h5'}:two"), ("segmentation", f"{theirs / 'other.h5'}:sides")):
        root = tmp_path / kind
        done(init(root, toy_file, f"--{kind}", uri, task="polarity"))
        for step in ("train", "predict", "propose"):
            done(call(step, root))
        volume = open_volume(str(root / "rounds" / "000" / "probability.zarr"))
        level = volume.read(volume.box)
        np.testing.assert_array_equal(level[0] > 0, pre)
        np.testing.assert_array_equal(level[1] > 0, post)
        np.testing.assert_array_equal(level[2], np.maximum(level[0], level[1]))
        values = _segmentation(Project(root), 0)
        np.testing.assert_array_equal(values[values > 0] % 2 == 1, pre[values > 0])
    table = read_table(root / "rounds" / "000" / "candidates.parquet").to_pylist()
    assert {row["source_id"] for row in table} == set(range(1, len(table) + 1))
    assert {(row["volume"], row["task"]) for row in table} == {("image", "polarity")}


# -- refusals ---------------------------------------------------------------------------------------------------------

GOOD = {"id": "a", "z": 3, "y": 40, "x": 100, "score": 0.5} | {
    f"box_{a}{e}": v
    for (e, a), v in zip([(e, a) for e in "01" for a in "zyx"], [2, 36, 96, 6, 44, 104], strict=True)
}  # fmt: skip


def write(path, *rows):
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def without(*names):
    return {k: v for k, v in GOOD.items() if k not in names}


BOX = [name for name in GOOD if name.startswith("box")]


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        ([without("x")], ["has no column x", "a point needs all of z, y and x"]),
        ([without("z", "y", "x")], ["has no column z, y, x", "or z_nm, y_nm, x_nm", "It has: id, score"]),
        ([GOOD | {"z_nm": 3}], ["both in voxels and in nm; expected only one of them"]),
        ([GOOD, GOOD | {"id": "b", "x": 240}], ["row 2, column x: got '240'", "0 to below 240 voxels"]),
        ([GOOD, GOOD | {"id": "b", "z": -1}], ["row 2, column z: got '-1'"]),
        ([without("x", "y", "z", *BOX) | {"z_nm": 3, "y_nm": 4, "x_nm": 2400}], ["row 1, column x_nm: got '2400'"]),
        ([GOOD | {"y": "left"}], ["row 1, column y: got 'left'; expected a number"]),
        ([GOOD | {"y": ""}], ["row 1, column y: got nothing; expected a number"]),
        ([GOOD | {"y": "nan"}], ["row 1, column y: got 'nan'; expected a number"]),
        ([GOOD | {"score": 1.5}], ["row 1, column score: got '1.5'; expected a score in [0, 1]"]),
        ([GOOD | {"score": -0.1}, GOOD | {"id": "b", "score": 3}], ["row 1, column score", "2 rows have this fault"]),
        ([GOOD, GOOD | {"x": 50, "box_x0": 46, "box_x1": 54}], ["row 2, column id: got 'a'", "row 1 has the same one"]),
        ([GOOD | {"id": ""}], ["row 1, column id: got nothing; expected a number or a name"]),
        ([without("box_z1")], ["has no column box_z1", "a box needs all six"]),
        ([GOOD | {"box_y1": 36}], ["row 1, column box_y1: got '36'; expected more than box_y0"]),
        ([GOOD | {"box_y1": 44.5}], ["row 1, column box_y1: got '44.5'; expected a whole number of voxels"]),
        ([GOOD | {"box_x1": 241}], ["row 1, column box_x1: got '241'; expected a box inside the image, 0 to 240"]),
        ([GOOD | {"x": 110}], ["row 1, column box_x0", "a box that contains the object's centre, whose x lies"]),
        (
            [GOOD, without(*BOX) | dict.fromkeys(BOX, "") | {"id": "b"}],
            ["row 2, column box_z0: got nothing; expected a number"],
        ),
        ([GOOD, GOOD | {"id": "b"}], ["row 2 (id b): no voxel is left", "goes to the nearest centre"]),
    ],
)
def test_invalid_tables_are_errors_that_name_row_and_column(tmp_path, toy_file, rows, sentences):
    table = write(tmp_path / "t.csv", *rows)
    refused(init(tmp_path / "p", toy_file, "--objects", table), "t.csv", *sentences)
    assert not (tmp_path / "p").exists()


def test_files_that_are_no_valid_tables_are_errors(tmp_path, toy_file):
    for name, text, sentence in (
        ("a.csv", "z,y,x\n", "holds no rows"),
        ("b.csv", "", "holds no rows"),
        ("c.csv", "z,y,x\n1,2,3\n1,2\n", "row 2, column x: got nothing"),
        ("d.csv", "z,y,x,x\n1,2,3,4\n", "has the column 'x' twice"),
        ("e.parquet", "z,y,x\n", "cannot be read as a table"),
        ("f.xls", "z,y,x\n", "ends in .csv, .tsv"),
    ):
        (tmp_path / name).write_text(text)
        refused(init(tmp_path / "p", toy_file, "--objects", tmp_path / name), name, sentence)
    refused(init(tmp_path / "p", toy_file, "--objects", tmp_path / "none.csv"), "none.csv cannot be read as a table")
    points = {f"{side}_{axis}": 3 for side in ("pre", "post") for axis in "zyx"}
    table = write(tmp_path / "g.csv", GOOD | points)
    refused(
        init(tmp_path / "p", toy_file, "--objects", table, task="polarity"),
        "row 1, column post_x",
        "give the direction",
    )
    table = write(tmp_path / "h.csv", GOOD | {k: v for k, v in points.items() if "pre" in k})
    refused(init(tmp_path / "p", toy_file, "--objects", table, task="polarity"), "has no column post_z, post_y, post_x")


BAD_VOLUMES = [
    ("probability", "logits", np.float32, {(3, 4, 5): 7.5}, ["holds 7.5 at voxel (3, 4, 5)", "Are these logits"]),
    ("probability", "negative", np.float64, {(1, 0, 0): -0.25}, ["holds -0.25 at voxel (1, 0, 0)"]),
    ("probability", "nan", np.float16, {(7, 95, 239): np.nan}, ["holds nan at voxel (7, 95, 239)"]),
    ("probability", "mask", np.uint8, {(1, 1, 1): 1}, ["holds no value above 1; 255 means probability 1 in uint8"]),
    (
        "probability",
        "bytes",
        np.uint16,
        {(1, 1, 1): 255},
        ["holds no value above 255; 65535 means probability 1 in uint16"],
    ),
    ("probability", "dark", np.float32, {}, ["holds no value above 0. There is nothing to propose"]),
    (
        "probability",
        "labels",
        np.int32,
        {(1, 1, 1): 3},
        ["holds int32; expected a probability", "go to --segmentation"],
    ),
    ("segmentation", "floats", np.float32, {(1, 1, 1): 3}, ["expected integer labels"]),
    ("segmentation", "empty", np.uint16, {}, ["holds no object, only 0"]),
    ("segmentation", "minus", np.int32, {(1, 1, 1): -1}, ["holds the label -1"]),
]


@pytest.mark.parametrize(("kind", "name", "dtype", "voxels", "sentences"), BAD_VOLUMES)
def test_invalid_volumes_are_errors(tmp_path, toy_file, kind, name, dtype, voxels, sentences):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        array = np.zeros(SHAPE_ZYX, dtype)
        for at, value in voxels.items():
            array[at] = value
        file[name] = array  # states no voxel size, so the image's is used
    refused(init(tmp_path / "p", toy_file, f"--{kind}", f"{tmp_path / 'v.h5'}:{name}"), *sentences)
    assert not (tmp_path / "p").exists()


def test_wrong_channels_extents_and_label_conventions_are_errors(tmp_path, toy_file, theirs):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["three"] = np.full((3, *SHAPE_ZYX), 0.5, np.float16)
        file["four"] = np.full((4, *SHAPE_ZYX), 0.5, np.float16)
        file["small"] = np.full((4, 8, 8), 9, np.uint8)
        file["odd"] = np.full(SHAPE_ZYX, 1, np.uint8)
    at = f"{tmp_path / 'v.h5'}:"
    refused(
        init(tmp_path / "p", toy_file, "--probability", f"{at}three"), "has 3 channels; expected 1 for mitochondria"
    )
    for name, given in (("four", "4 channels"), ("odd", "1 channel")):
        result = init(tmp_path / "p", toy_file, "--probability", f"{at}{name}", task="polarity")
        refused(result, f"has {given}; expected 3 for polarity: pre, post, union, or 2: pre, post")
    for kind in ("probability", "segmentation"):
        refused(init(tmp_path / "p", toy_file, f"--{kind}", f"{at}small"), "has (4, 8, 8) voxels", "must be equal")
    result = init(tmp_path / "p", toy_file, "--segmentation", f"{at}odd", task="polarity")
    refused(result, "of 1 synapses none has both sides")
    two = ["decoding.channels=[foreground,contour]"]
    for kind in ("segmentation", "objects"):
        result = init(tmp_path / "p", toy_file, *words_for(kind, theirs), sets=two)
        refused(result, "decoding.channels is foreground, contour", "gives only the foreground")
    done(init(tmp_path / "p", toy_file, "--probability", f"{at}three", task="polarity"))


def test_options_that_exclude_each_other_are_errors(tmp_path, toy_file, theirs):
    two = [*words_for("segmentation", theirs), *words_for("objects", theirs)]
    refused(init(tmp_path / "p", toy_file, *two), "--segmentation and --objects were given; only one", "Choose one")
    refused(init(tmp_path / "p", toy_file), "init needs --labels", "--probability URI, --segmentation URI or --objects")
    result = init(tmp_path / "p", toy_file, *words_for("objects", theirs), "--labels-box", LABELS_BOX)
    refused(result, "--labels-box and --val-box are regions of labels")
    result = init(tmp_path / "p", toy_file, *words_for("segmentation", theirs), sets=["source.radius_nm=5"])
    refused(result, "source: radius_nm is for tables of objects; a segmentation has masks already")
    result = init(tmp_path / "p", toy_file, *words_for("objects", theirs), "--test-box", "0:9,0:96,0:64")
    refused(result, "--test-box 0:9,0:96,0:64 reaches outside the image")
    assert not (tmp_path / "p").exists()


def test_the_source_cannot_be_changed_and_projects_of_older_versions_continue(tmp_path, toy_file, theirs):
    root = tmp_path / "p"
    done(init(root, toy_file, *words_for("segmentation", theirs)))
    done(call("train", root))
    path, frozen = root / "twostream.yaml", root / "rounds" / "000" / "config.yaml"
    good = path.read_text()
    path.write_text(good.replace("other.h5:instances", "other.h5:sides"))
    refused(call("predict", root), "source.uri in", "it is frozen")
    path.write_text(good.replace("kind: segmentation", "kind: segmentations"))
    refused(call("status", root), "source.kind is 'segmentations'")
    values = yaml.safe_load(good)
    path.write_text(yaml.safe_dump(values | {"source": None}))
    refused(call("status", root), "labels is missing; add it, or a source in place of S")
    path.write_text(yaml.safe_dump(values | {"boxes": {"labels": LABELS_BOX}}))
    refused(call("status", root), "boxes.labels and boxes.val belong to labels")
    path.write_text(good)
    done(call("predict", root))

    old = tmp_path / "old"
    labels = ["--labels", f"{toy_file}:mitochondria", "--labels-box", LABELS_BOX]
    done(init(old, toy_file, *labels, sets=["segmentation.num_steps=1"]))
    done(call("train", old))
    frozen = old / "rounds" / "000" / "config.yaml"
    values = yaml.safe_load(frozen.read_text())
    # Older configurations may lack new settings (defaults are used) and hold removed ones (they are dropped).
    del values["config"]["source"], values["config"]["patches"]["object_widths"]
    values["config"]["patches"]["of_old"] = values["config"]["of_old"] = 1
    frozen.write_text(yaml.safe_dump(values))
    done(call("predict", old))


def test_without_active_clustering_the_stream_stays_the_same_and_no_message_says_it_learns(tmp_path, toy_file, theirs):
    root, truth = tmp_path / "p", f"{toy_file}:mitochondria"
    off = ["streams.active_clustering.num_steps=0"]
    done(init(root, toy_file, *words_for("segmentation", theirs), sets=off))
    result = done(call("run", root, "--rounds", "2", "--truth", truth))
    project = Project(root)
    rule, kinds = open_truth(project, truth), {a.candidate: a.kind for a in project.ledger.current_answers()}
    assert {q.candidate.id: rule.judge(q.candidate).kind for q in project.ledger.queries()} == kinds
    assert "stands in its place; only the scorer learns" in result.stderr and "streams learn" not in result.stderr
    assert "the scorer learns from answers" in (root / "report.html").read_text()
    first, last = (np.load(root / "rounds" / f"{n:03d}" / "latents_unsupervised.npy") for n in (0, 2))
    np.testing.assert_array_equal(first, last)
    path = root / "rounds" / "002" / "latents_unsupervised.npy"
    np.save(path, last[:-1])
    with pytest.raises(
        ProjectError, match=f"latents_unsupervised.npy has {len(last) - 1} rows, and there are {len(last)}"
    ):
        pool_of(Project(root), 2)


# -- objects to voxels ------------------------------------------------------------------------------------------------

IMAGE = MemoryVolume(np.zeros((6, 20, 30), np.uint8), (30.0, 10.0, 10.0))
TASK = Mitochondria((30.0, 10.0, 10.0))


def objects(tmp_path, rows, task=TASK, **settings):
    config = SourceConfig(kind="objects", uri=str(write(tmp_path / "t.csv", *rows)), **settings)
    return sources.instances(config, IMAGE, task)


def test_voxels_of_overlapping_objects_go_to_the_nearest_centre(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0, 0), (5.9, 19.9, 29.9), (12, 3))
    size = np.array(IMAGE.voxel_size_nm)
    at = np.stack(np.meshgrid(*map(np.arange, IMAGE.shape_zyx), indexing="ij"), -1)
    distance = np.stack([(((at - p) * size) ** 2).sum(-1) for p in points])
    inside = distance <= 60.0**2
    for row, point in enumerate(points):
        inside[row][tuple(np.minimum(np.round(point).astype(int), np.array(IMAGE.shape_zyx) - 1))] = True
    expected = np.where(inside.any(0), np.where(inside, distance, np.inf).argmin(0) + 1, 0)
    assert (inside.sum(0) > 1).sum() > 20  # many voxels lie in several objects
    for order in (np.arange(12), rng.permutation(12)):
        rows = [{"z": p[0], "y": p[1], "x": p[2]} for p in points[order]]
        table = read_objects(write(tmp_path / "t.csv", *rows), IMAGE, TASK)
        owner = paint(table, IMAGE, 60.0)
        np.testing.assert_array_equal(np.r_[0, order + 1][owner], expected)


@pytest.mark.parametrize("strange", ["--5", "007", "-0", "9" * 5000, str(2**64)])
def test_ids_that_only_look_like_numbers_are_names(tmp_path, strange):
    rows = [{"z": 1, "y": 2, "x": 3, "id": name} for name in ("5", strange)]
    table = read_objects(write(tmp_path / "t.csv", *rows), IMAGE, TASK)
    assert table.ids == ["5", strange]
    for whole in (1 - 2**63, 2**64 - 1):
        rows[1]["id"] = str(whole)
        assert read_objects(write(tmp_path / "t.csv", *rows), IMAGE, TASK).ids == [5, whole]


def test_an_object_is_a_ball_of_the_radius_or_the_ellipsoid_in_its_box(tmp_path):
    ball = objects(tmp_path, [{"z_nm": 90, "y_nm": 100, "x_nm": 150}], radius_nm=40.0).segmentation
    where = np.argwhere(ball)
    assert where.min(0).tolist() == [2, 6, 11] and where.max(0).tolist() == [4, 14, 19]
    box = dict(zip(BOX, [1, 2, 3, 4, 12, 9], strict=True))
    filled = np.argwhere(objects(tmp_path, [{"z": 2, "y": 6, "x": 5} | box]).segmentation)
    assert filled.min(0).tolist() == [1, 2, 3] and (filled.max(0) + 1).tolist() == [4, 12, 9]
    assert 0.4 < len(filled) / (3 * 10 * 6) < 0.7  # an ellipsoid fills pi / 6 of its box
    tiny = objects(tmp_path, [{"z": 2.4, "y": 6.4, "x": 5.4}], radius_nm=0.1).segmentation
    assert np.argwhere(tiny).tolist() == [[2, 6, 5]]


def test_ids_and_scores_of_objects(tmp_path):
    rows = [{"z": 1, "y": 15, "x": 20, "id": 10**17 + 1, "score": 0.2}, {"z": 1, "y": 3, "x": 3, "id": 5, "score": 0.9}]
    found = objects(tmp_path, rows, radius_nm=30.0)
    assert found.source_ids == [5, 10**17 + 1] and found.scores.tolist() == [0.9, 0.2]  # raster order
    assert objects(tmp_path, [r | {"id": f"s{r['id']}"} for r in rows], radius_nm=30.0).source_ids[0] == "s5"
    bare = objects(tmp_path, [{k: r[k] for k in "zyx"} for r in rows], radius_nm=30.0)
    assert bare.source_ids == [2, 1] and bare.scores.tolist() == [0.5, 0.5]
    table = pa.table({name: [r[name] for r in rows] for name in rows[0]})
    pq.write_table(table, tmp_path / "t.parquet")
    config = SourceConfig(kind="objects", uri=str(tmp_path / "t.parquet"), radius_nm=30.0)
    again = sources.instances(config, IMAGE, TASK)
    assert again.source_ids == found.source_ids
    np.testing.assert_array_equal(again.segmentation, found.segmentation)


def test_pre_and_post_points_give_the_direction(tmp_path):
    task = SynapsePolarity(IMAGE.voxel_size_nm)
    truth = np.zeros(IMAGE.shape_zyx, np.uint32)
    truth[1:5, 5:15, 10:15], truth[1:5, 5:15, 15:20] = 1, 2
    judge = Truth(MemoryVolume(truth, IMAGE.voxel_size_nm), None, task)
    box = dict(zip(BOX, [1, 5, 10, 5, 15, 20], strict=True))
    row = {"z": 2.5, "y": 9.5, "x": 14.5} | box

    def points(pre_x, post_x):
        return {
            f"{s}_{a}": v
            for s, x in (("pre", pre_x), ("post", post_x))
            for a, v in zip("zyx", (2.5, 9.5, x), strict=True)
        }

    def candidate(row):
        values = objects(tmp_path, [row], task).segmentation
        return extract(values, np.full(values.shape, 255, np.uint8), task, (0, 0, 0))[0]

    right = candidate(row | points(11, 18))
    assert (
        (right.mask[:, :, :5] != 2).all()
        and (right.mask[:, :, 5:] != 1).all()
        and set(np.unique(right.mask)) == {0, 1, 2}
    )
    assert judge.judge(right).kind is AnswerKind.TRUE
    assert judge.judge(candidate(row | points(18, 11))).kind is AnswerKind.SHAPE  # sides exchanged
    assert set(np.unique(candidate(row).mask)) == {0, 1}  # direction unknown: all of the mask is one side


def test_labels_at_the_limit_of_their_dtype_and_across_blocks_are_copied_exactly(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ZYX", (4, 7, 11))
    monkeypatch.setattr(sources, "SLAB_SECTIONS", 2)
    values = np.zeros(IMAGE.shape_zyx, np.uint8)
    values[0:3, 3:6, 25:28], values[3:5, 3:6, 25:28], values[2:6, 10:14, 2:5], values[5, 0, 0] = 253, 254, 255, 7
    volume = MemoryVolume(values, IMAGE.voxel_size_nm)
    monkeypatch.setattr(sources, "_open_labels", lambda config, image, task: volume)
    config, task = SourceConfig(kind="segmentation", uri="memory"), SynapsePolarity(IMAGE.voxel_size_nm)
    found = sources.instances(config, IMAGE, task)
    assert found.source_ids == [127, 128, 4]
    for value, former in ((1, 253), (2, 254), (3, 255), (5, 7)):
        np.testing.assert_array_equal(found.segmentation == value, values == former)
    output = MemoryVolume(np.zeros((3, *IMAGE.shape_zyx), np.uint8), IMAGE.voxel_size_nm)
    sources.write_probability(config, IMAGE, task, output)
    expected = [np.isin(values, [253, 255, 7]), values == 254, values > 0]
    np.testing.assert_array_equal(output.read(IMAGE.box), np.stack(expected) * np.uint8(255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_probabilities_of_every_dtype_are_converted_exactly(monkeypatch, dtype):
    monkeypatch.setattr(sources, "BLOCK_ZYX", (4, 7, 11))
    level = np.random.default_rng(0).integers(0, 256, (1, *IMAGE.shape_zyx)).astype(np.uint8)
    scale = {"uint8": 1, "uint16": 257}.get(np.dtype(dtype).name, 1 / 255)
    volume = MemoryVolume((level * np.float64(scale)).astype(dtype), IMAGE.voxel_size_nm)
    monkeypatch.setattr(sources, "_open", lambda config, image: volume)
    output = MemoryVolume(np.zeros_like(level), IMAGE.voxel_size_nm)
    sources.write_probability(SourceConfig(kind="probability", uri="memory"), IMAGE, TASK, output)
    np.testing.assert_array_equal(output.read(IMAGE.box), level)


def test_a_probability_is_described_and_what_looks_wrong_is_questioned(monkeypatch):
    level = np.zeros(IMAGE.shape_zyx, np.uint16)
    level[:, :4] = 65535
    config = SourceConfig(kind="probability", uri="memory")

    def described(array):
        monkeypatch.setattr(sources, "_open", lambda *_: MemoryVolume(array, IMAGE.voxel_size_nm, "p"))
        return sources.check_source(config, IMAGE, TASK)

    share = 4 / IMAGE.shape_zyx[1]
    assert described(level) == (f"probability p, uint16: up to 1.00, and 0.5 or more in {share:.1%} of the image",)
    assert "of the background" in described(65535 - level)[-1]
    twelve_bits = described(level // 16)[-1]
    assert "nowhere 0.5 or more; 65535 means probability 1 in uint16" in twelve_bits
    assert twelve_bits.endswith("pass --set candidates.threshold=0.031, or lower.")
