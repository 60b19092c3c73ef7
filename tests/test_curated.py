"""The curated data set: what is in it, with which provenance, and how sure it is; compared with a plain derivation.

The world of these tests, cut at a section (L labels box, T test box):

    X   0        56                                          192      240
        |  o  o  O|O  o  o     candidates of a segmentation     | o  o |
        |  L  L  L|                                             | T  T |

The labels box ends in the middle of a column of blobs. Some blobs are in the labels (O joins), others are not.
"""

import csv
import itertools
import json
import shutil

import h5py
import numpy as np
import pytest
import tensorstore
import zarr
from conftest import SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from scipy import ndimage
from test_cli import call, refused
from test_moving import lab, project_in  # noqa: F401 - lab is a fixture

from twostream.base.geometry import Box
from twostream.candidates.table import read_table, unpack_mask
from twostream.project.create import create_project
from twostream.project.dataset import painting
from twostream.project.export import export
from twostream.project.probabilities import POOL_NAME, read_probabilities
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.query import Scorer
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.loop import run
from twostream.rounds.pool import pool_of
from twostream.task.answers import AnswerKind
from twostream.volume import open_volume
from twostream.volume.formats import FORMATS

FACE = 56
"""End of the labels box along X; the blobs of the fourth column are centred there."""
OFFSET_NM = (60.0, 10.0, 20.0)
"""Place of the image."""
HIDDEN = np.s_[:, 0:16, 0:16]
"""Part of the labels box about which the labels say nothing, by their ignore mask."""


def proposals():
    """(Z, Y, X) uint32, every blob of the toy world, decoys as well, numbered; and its truth."""
    image, truth = toy_arrays()
    blobs, _ = ndimage.label(ndimage.gaussian_filter(image.astype(np.float32), (0, 1, 1)) > 115)
    sizes = np.bincount(blobs.ravel())
    blobs[sizes[blobs] < 30] = 0
    _, blobs = np.unique(blobs, return_inverse=True)
    return blobs.reshape(SHAPE_ZYX).astype(np.uint32), truth


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """HDF5 with the image, labels with an ignore mask, and somebody's segmentation; each also with two sides."""
    blobs, truth = proposals()
    truth = truth.astype(np.uint32)
    ignore = np.zeros(SHAPE_ZYX, np.uint8)
    ignore[HIDDEN] = 1
    labels = np.where(ignore > 0, 0, truth)
    labels[:, :, 48:64] = np.where(blobs > 0, 500 + blobs, 0)[:, :, 48:64]  # the column at the face is labelled whole,
    labels[:, 80:96, 48:64] = 0  # but for its last blob;
    labels[np.arange(8) != 3, 64:80, 48:64] = labels[3, 64:80, 48:55] = 0  # the fifth is labelled in a few voxels,
    blobs[:, 48:64, 48:64] = labels[:, 48:64, 48:64] = 0  # and where the fourth was, a labelled object ends at 54
    blobs[2:6, 52:60, 50:62], labels[2:6, 52:60, 50:54] = blobs.max() + 1, 900
    right = np.arange(SHAPE_ZYX[2]) % 16 >= 8
    path = tmp_path_factory.mktemp("world") / "world.h5"
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size_nm"], file.attrs["offset"] = VOXEL_SIZE_NM, OFFSET_NM
        file["image"], file["truth"] = toy_arrays()[0], truth
        file["labels"], file["labels_ignore"], file["blobs"] = labels, ignore, blobs
        for name, array in (("labels", labels), ("blobs", blobs), ("truth", truth)):
            file[f"{name}_sides"] = np.where(array > 0, 2 * array - (~right).astype(np.uint32), 0).astype(np.uint32)
    return path


def make(root, world, task="mitochondria", **settings):
    sides = "_sides" if task == "polarity" else ""
    values = {
        "labels": f"{world}:labels{sides}",
        "labels_box": f"0:8,0:96,0:{FACE}",
        "test_box": TEST_BOX,
        "budget": 6,
    } | settings
    overrides = [option for option in TINY if not option.startswith("segmentation.")]
    return create_project(
        root, task=task, image=f"{world}:image", segmentation=f"{world}:blobs{sides}", overrides=overrides, **values
    )


def answered(project, world, rounds=2):
    """Run with true, nothing and shape in turn, whatever is asked: which ones that are depends on a training."""
    in_turn = itertools.cycle([AnswerKind.TRUE, AnswerKind.NOTHING, AnswerKind.TRUE, AnswerKind.SHAPE])
    sides = "_sides" if project.config.task == "polarity" else ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedAnnotator, "kind", lambda self, candidate: next(in_turn))
        run(project, rounds=rounds, truth_uri=f"{world}:truth{sides}")
    return Project(project.root)


@pytest.fixture(scope="module")
def done(tmp_path_factory, world):
    """A project of two rounds, with objects that a person added; tests must not change it."""
    project = answered(make(tmp_path_factory.mktemp("done") / "mito", world), world)
    # inside the labels box; across its face on a labelled object, and on none; where nothing is
    boxes = [
        Box((2, 2, 30), (2, 3, 3)),
        Box((3, 23, 54), (2, 2, 6)),
        Box((0, 0, 50), (1, 2, 9)),
        Box((0, 0, 62), (1, 2, 2)),
    ]
    drawings = [(box, np.ones(box.shape_zyx, np.uint8)) for box in boxes]
    taken = {q.candidate.id for q in project.ledger.queries()}
    free = [row for row in candidates(project) if row["id"] not in taken and 80 < row["box_x0"] < 150]
    for row, share in zip(free, (1.0, 0.6, 0.4), strict=False):  # of an unanswered candidate all, most, and less
        box, mask = box_of(row), unpack_mask(row["mask"], box_of(row)).copy()
        mask.ravel()[np.flatnonzero(mask)[round(share * row["num_voxels"]) :]] = 0
        drawings.append((box, mask))
    for drawing in drawings:
        project.ledger.tell(Answer(None, AnswerKind.MISSED, "eve", drawing=drawing, seconds=9))
    return project


def candidates(project, round_number=None):
    rounds = sorted(project.root.glob("rounds/*/candidates.parquet"))
    return read_table(rounds[-1] if round_number is None else rounds[round_number]).to_pylist()


def table(path):
    return list(csv.DictReader(path.open()))


def dataset(path):
    """Rows of objects.csv and left_out.csv by id, the volume by zarr-python, and dataset.json."""
    rows, left_out = ({int(r["id"]): r for r in table(path / f"{name}.csv")} for name in ("objects", "left_out"))
    return (
        rows,
        left_out,
        zarr.open(str(path / "segmentation.zarr"))["0"][:],
        json.loads((path / "dataset.json").read_text()),
    )


def labelled(world):
    """The labels inside the labels box, and (Z, Y, X) bool, where they know."""
    with h5py.File(world) as file:
        labels, ignore = file["labels"][:], file["labels_ignore"][:]
    known = np.zeros(SHAPE_ZYX, bool)
    known[:, :, :FACE] = True
    known &= ~((ignore > 0) & (labels == 0))
    return np.where(known, labels, 0), known


def masks_of(project, kinds):
    """{id: whole mask} of what nobody has answered, and of what people confirmed or drew, ``kinds`` {id: answer}."""
    masks, given = {}, {}
    for row in candidates(project):
        if row["id"] not in kinds:
            masks[row["id"]] = on_image(box_of(row), unpack_mask(row["mask"], box_of(row)))
    for query in project.ledger.queries():
        if kinds.get(query.candidate.id) == "true":
            given[query.candidate.id] = on_image(query.candidate.box, query.candidate.mask)
    first = max(row["id"] for r in range(3) for row in candidates(project, r)) + 1
    for answer in (a for a in project.ledger.current_answers() if a.kind == "missed"):
        given[first] = on_image(*answer.drawing)
        first += 1
    return masks, given


def derived(project, world, least):
    """{id: reason} of what is left out, what joins, {id: label} of the hand labels, and the volume: whole arrays."""
    labels, known = labelled(world)
    probability = read_probabilities(project, 2).of_id
    kinds = {a.candidate: str(a.kind) for a in project.ledger.current_answers() if a.candidate}
    masks, given = masks_of(project, kinds)
    first = max(given) + 1
    hand = {value: first + i for i, value in enumerate(sorted(set(labels.ravel().tolist()) - {0}))}
    reasons = {i: "answered false" for i, kind in kinds.items() if kind in ("nothing", "shape")}
    volume, joined = np.zeros(SHAPE_ZYX, np.uint64), {}
    above = np.any([*given.values()], axis=0)
    for identity, mask in {**masks, **given}.items():
        inside, outside = mask & known, mask & ~known
        under = labels[inside]
        values, counts = np.unique(under[under > 0], return_counts=True)
        denied = (labels[inside] == 0).sum() > mask.sum() / 4
        if not outside.any():
            reasons[identity] = "labels box"
        elif len(values) and counts.max() * 2 >= len(under) and neighbours(outside, labels == values[counts.argmax()]):
            reasons[identity] = "joined"
            joined[identity] = hand[values[counts.argmax()]]
            volume[mask] = joined[identity]
        elif identity in masks and denied:
            reasons[identity] = "labels box"
        elif identity in masks and probability[identity] < least:
            reasons[identity] = "improbable"
        elif identity in masks and (mask & (above | known)).sum() > mask.sum() / 2:
            reasons[identity] = "covered"
        else:
            volume[mask] = identity
    volume[known] = 0
    for value, identity in hand.items():
        volume[labels == value] = identity
    return reasons, joined, {identity: value for value, identity in hand.items()}, volume


def neighbours(a, b):
    """Whether a voxel of ``a`` has a face in common with one of ``b``."""
    pairs = ((a, b), (b, a))
    return any(
        (x.take(range(1, x.shape[i]), i) & y.take(range(y.shape[i] - 1), i)).any() for i in range(3) for x, y in pairs
    )


def box_of(row):
    return Box.from_corners([row[f"box_{a}0"] for a in "zyx"], [row[f"box_{a}1"] for a in "zyx"])


def on_image(box, mask):
    whole = np.zeros(SHAPE_ZYX, bool)
    whole[box.slices] = mask > 0
    return whole


@pytest.mark.parametrize("least", [0.0, 0.5, 0.9])
def test_the_data_set_is_the_one_that_a_plain_derivation_gives(done, world, tmp_path, least):
    export(done, "dataset", tmp_path / "d", min_probability=least)
    rows, left_out, volume, facts = dataset(tmp_path / "d")
    reasons, joined, hand, expected = derived(done, world, least)
    np.testing.assert_array_equal(volume, expected)
    assert {i: row["reason"] for i, row in left_out.items()} == reasons
    assert {i: int(row["joined"]) for i, row in left_out.items() if row["joined"]} == joined
    assert set(rows) == set(np.unique(expected).tolist()) - {0} and not set(rows) & set(left_out)
    asked = {q.candidate.id for q in done.ledger.queries()}
    assert {row["id"] for row in candidates(done)} | asked <= set(rows) | set(left_out)
    for identity, row in rows.items():
        where = np.argwhere(expected == identity)
        assert row["box"] == str(Box.from_corners(where.min(0).tolist(), (where.max(0) + 1).tolist()))
        assert int(row["num_voxels"]) == len(where) and row["task"] == "mitochondria"
    assert {i: int(row["label"]) for i, row in rows.items() if row["origin"] == "labels"} == hand
    assert facts["num_objects"] == len(rows) and facts["min_probability"] == least
    scaled, placed = dict(zarr.open(str(tmp_path / "d" / "segmentation.zarr")).attrs)["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]
    assert (scaled["scale"], tuple(placed["translation"])) == (list(VOXEL_SIZE_NM), tuple(facts["offset_nm_zyx"]))
    assert {row["project"] for row in (rows | left_out).values()} == {done.id} == {facts["project"]}
    assert sum(facts["num_left_out_by_reason"].values()) == len(left_out)


def test_the_world_of_these_tests_shows_every_rule(done, world):
    """Otherwise the comparison above would compare nothing."""
    reasons, joined, hand, volume = derived(done, world, 0)
    assert {"answered false", "labels box", "joined", "covered"} <= set(reasons.values())
    assert len(joined) > 1 and len(hand) > 5
    assert all((volume[:, :, FACE - 1] == i).any() and (volume[:, :, FACE] == i).any() for i in joined.values())
    assert (derived(done, world, 0)[3][HIDDEN] > 0).any()  # S's candidate stands where the labels say nothing
    crossing = {row["id"] for row in candidates(done) if row["box_x0"] < FACE < row["box_x1"]}
    assert sorted(reasons.get(i, "kept") for i in crossing) == ["joined"] * 3 + ["kept"] + ["labels box"] * 2
    assert list(reasons.values()).count("covered") == 2  # a third candidate keeps more than half
    added = [a.id for a in done.ledger.current_answers() if a.kind == "missed"]
    assert len(added) == 7 and len([i for i in reasons if i > max(row["id"] for row in candidates(done))]) == 2
    cut = set(np.unique(volume[:, :, FACE]).tolist()) - set(joined.values()) - {0}
    assert (
        len(cut) == 2 and not set(np.unique(volume[:, :, FACE - 1]).tolist()) & cut
    )  # a rest outside, the labels inside


def test_every_object_has_its_probability_and_its_provenance(done, tmp_path):
    export(done, "dataset", tmp_path / "d", min_probability=0)
    rows, left_out, _, facts = dataset(tmp_path / "d")
    probability = read_probabilities(done, 2).of_id
    drawn = {i for i, row in rows.items() if row["origin"] in ("labels", "missed")}
    for identity, row in (rows | left_out).items():
        if row["origin"] in ("labels", "missed"):  # the scorer knows candidates only
            assert row["probability"] == "" and row["score"] == ""
        else:
            assert float(row["probability"]) == probability[identity] and float(row["score"]) == 0.5
    assert len(drawn) > 7 and facts["scorer"]["num_without_probability"] == 0
    answers = {a.candidate: a for a in done.ledger.current_answers() if a.candidate}
    queries = {q.candidate.id: q for q in done.ledger.queries()}
    for identity, answer in answers.items():
        row = (rows | left_out)[identity]
        assert row["origin"] == str(answer.kind) and row["answered_by"] == "simulated"
        assert row["answers"] == f"simulated: {answer.kind}" and row["answered_at"] == answer.answered_at
        assert float(row["seconds"]) == answer.seconds and row["audit"] == "False"
        assert row["asked_by"] == "two-stream" and int(row["asked_in_round"]) == queries[identity].round
    added = [row for row in rows.values() if row["origin"] == "missed"]
    assert [(row["answered_by"], float(row["seconds"])) for row in added] == [("eve", 9.0)] * 5
    silent = [row for row in rows.values() if row["origin"] == "model"]
    assert silent and not any(row["answered_by"] or row["answers"] or row["seconds"] for row in silent)


def test_the_scorer_is_that_of_the_pool_for_candidates_outside_it_too(done):
    stored, pool = read_probabilities(done, 2), pool_of(done, 2)
    np.testing.assert_array_equal(stored.probability[stored.in_pool], pool.probability)
    rows = {row["id"]: i for i, row in enumerate(candidates(done))}
    latents = {name: np.load(done.path(2, f"latents_{name}.npy")) for name in pool.streams}
    assert stored.learned and not stored.in_pool.all()
    for identity, probability in zip(
        stored.ids[~stored.in_pool].tolist(), stored.probability[~stored.in_pool], strict=True
    ):
        row = rows[identity]
        alone = Scorer().predict(
            {name: np.concatenate([pool.streams[name], latents[name][row : row + 1]]) for name in latents},
            np.append(pool.y, np.nan), score=np.append(pool.score, 0.5),
            num_voxels=np.append(pool.num_voxels, candidates(done)[row]["num_voxels"]),
            excluded=np.append(np.zeros(len(pool.y), bool), True),
        )[-1]  # fmt: skip
        assert probability == pytest.approx(alone, rel=1e-6)


def test_answered_objects_do_not_depend_on_the_scorer(done, tmp_path):
    export(done, "dataset", tmp_path / "all", min_probability=0)
    export(done, "dataset", tmp_path / "none", min_probability=1)
    every, _, volume, _ = dataset(tmp_path / "all")
    given, left_out, without, facts = dataset(tmp_path / "none")
    assert {i for i, row in every.items() if row["origin"] != "model"} == set(given)
    confirmed = [i for i, row in given.items() if row["origin"] in ("true", "missed")]
    np.testing.assert_array_equal(
        np.where(np.isin(volume, confirmed), volume, 0), np.where(np.isin(without, confirmed), without, 0)
    )
    assert {i for i, row in left_out.items() if row["reason"] == "improbable"} and "model" not in facts[
        "num_objects_by_origin"
    ]


def test_the_default_threshold_is_stated_and_waits_for_answers(world, tmp_path, done):
    said = export(done, "dataset", tmp_path / "d")
    assert "left out as improbable: unanswered objects to which the scorer gives less than 0.5" in said
    facts = dataset(tmp_path / "d")[3]
    assert facts["min_probability"] == 0.5 and facts["scorer"]["learned"]
    new = make(tmp_path / "p", world)
    run(new, rounds=1)  # asked, not answered
    said = export(Project(new.root), "dataset", tmp_path / "n")
    rows, _, _, facts = dataset(tmp_path / "n")
    assert facts["min_probability"] == 0 and not facts["scorer"]["learned"] and "its probability is S's score" in said
    assert "improbable" not in facts["num_left_out_by_reason"]
    asked = [row for row in rows.values() if row["asked_by"]]
    assert len(asked) == 6 and {row["origin"] for row in asked} == {"model"}


def test_precision_and_recall_describe_the_objects_that_are_kept(done, world, tmp_path):
    stored = read_probabilities(done, 2)
    here = np.sort(stored.probability[np.isfinite(stored.on_test_box)])
    least = float(here[len(here) // 2])  # a candidate of just this probability is kept
    export(done, "dataset", tmp_path / "d", min_probability=least)
    rows, _, volume, facts = dataset(tmp_path / "d")
    _, truth = proposals()
    inside = np.s_[:, :, 192:240]  # no object is cut by this face: the blobs lie between
    true = 0
    for identity in set(np.unique(volume[inside]).tolist()) - {0}:
        mask = volume[inside] == identity
        under = np.bincount(truth[inside][mask])
        under[0] = 0
        best = under.argmax()
        true += under[best] / (mask | (truth[inside] == best)).sum() >= 0.5 if under.any() else 0
    kept = len(set(np.unique(volume[inside]).tolist()) - {0})
    precision, recall = facts["precision"], facts["recall"]
    assert precision["source"] == recall["source"] == "test box" and precision["num_judged"] == kept
    assert precision["value"] == pytest.approx(true / kept)
    assert recall["num_truth"] == len(set(np.unique(truth[inside]).tolist()) - {0})
    assert recall["value"] == pytest.approx(true / recall["num_truth"])
    model = sum(row["origin"] == "model" for row in rows.values())
    expected = (len(rows) - model + model * true / kept) / len(rows)
    assert precision["of_all_objects"]["value"] == pytest.approx(expected)
    assert precision["interval"][0] < precision["value"] <= precision["interval"][1]


def test_without_a_test_box_audits_above_the_threshold_measure_the_precision(tmp_path, world):
    root = tmp_path / "p"
    project = create_project(
        root, task="mitochondria", image=f"{world}:image", segmentation=f"{world}:blobs", budget=12,
        overrides=[*(o for o in TINY if not o.startswith("segmentation.")), "query.audit_share=0.5"],
    )  # fmt: skip
    project = answered(project, world)
    probability = read_probabilities(project, 2).of_id
    kinds = {a.candidate: a.kind for a in project.ledger.current_answers()}
    audits = [q.candidate.id for q in project.ledger.queries() if q.is_audit]
    assert len(audits) == 12
    middle = float(np.median([probability[i] for i in audits]))
    for least, kept in ((0.0, audits), (middle, [i for i in audits if probability[i] >= middle])):
        said = export(project, "dataset", tmp_path / f"d{least > 0}", min_probability=least)
        assert f"(measured on {len(kept)}, audits)" in said and "recall: no estimate yet" in said
        precision = json.loads((tmp_path / f"d{least > 0}" / "dataset.json").read_text())["precision"]
        assert (precision["source"], precision["num_judged"]) == ("audits", len(kept))
        assert precision["value"] == np.mean([kinds[i] == "true" for i in kept])
        recall = json.loads((tmp_path / f"d{least > 0}" / "dataset.json").read_text())["recall"]
        assert recall["value"] is None and recall["meaning"].startswith("no estimate yet")


def copied(project, tmp_path):
    shutil.copytree(project.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_a_round_of_an_older_version_has_no_probabilities_and_leaves_nothing_out(done, tmp_path):
    project = copied(done, tmp_path)
    with np.load(project.path(2, POOL_NAME)) as stored:
        arrays = dict(stored)
    old = {name: arrays[name][arrays["in_pool"]] for name in ("ids", "probability")} | {"learned": arrays["learned"]}
    np.savez(project.path(2, POOL_NAME), **old)
    said = export(project, "dataset", tmp_path / "old")
    rows, _, _, facts = dataset(tmp_path / "old")
    outside = [row for row in rows.values() if row["origin"] == "model" and row["probability"] == ""]
    assert outside and facts["scorer"]["num_without_probability"] == len(outside)
    assert f"{len(outside)} of origin model have no probability, and are kept" in said
    project.path(2, POOL_NAME).unlink()
    said = export(project, "dataset", tmp_path / "older")
    rows, left_out, _, facts = dataset(tmp_path / "older")
    assert "has stored no probabilities of the scorer: that column is empty" in said and facts["scorer"] is None
    assert not any(row["probability"] for row in rows.values())
    assert "improbable" not in {row["reason"] for row in left_out.values()}
    words = ("export", project.root, "--what", "dataset", "-o", tmp_path / "x", "--min-probability")
    refused(call(*words, "0.7"), "--min-probability is 0.7, but round 2 has no stored probabilities")
    refused(call(*words, "1.5"), "--min-probability is 1.5; expected a probability from 0 to 1")
    project.path(2, POOL_NAME).write_bytes(b"PK damaged")
    refused(call(*words[:-1]), "pool.npz cannot be read")
    assert not (tmp_path / "x").exists()


def test_y_of_the_verdict_decides_what_is_removed(lab, tmp_path):  # noqa: F811
    project = project_in(lab)
    run(project, rounds=1)
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
            project.ledger.tell(Answer(query.id, AnswerKind(kind), annotator, seconds=2))
    export(project, "dataset", tmp_path / "d", min_probability=1)
    rows, left_out, volume, facts = dataset(tmp_path / "d")
    assert set(np.unique(volume).tolist()) - {0} == set(rows)
    true, nothing, both_false, disputed, unsure, both_true = (q.candidate.id for q in queries)
    assert left_out[nothing]["origin"] == "nothing" and left_out[nothing]["reason"] == "answered false"
    assert left_out[both_false]["answers"] == "ann: nothing, eve: shape" and both_false not in rows
    assert rows[true]["origin"] == "true" and rows[both_true]["origin"] == "true"
    assert rows[unsure]["origin"] == "unsure" and rows[unsure]["answered_by"] == "ann"  # the scorer does not decide
    assert rows[disputed]["origin"] == "disputed" and rows[disputed]["answered_by"] == "ann, eve"
    assert rows[disputed]["asked_in_round"] == "0" and rows[both_true]["answered_by"] == "ann, eve"
    assert float(rows[both_true]["seconds"]) == 4 and set(rows) == {true, disputed, unsure, both_true}
    assert facts["precision"]["of_all_objects"]["value"] == 1  # of the two that people confirmed


def test_a_changed_answer_counts_and_the_seconds_of_both(lab, tmp_path):  # noqa: F811
    project = project_in(lab)
    run(project, rounds=1)
    query = project.ledger.open_queries()[0]
    first = project.ledger.tell(Answer(query.id, AnswerKind.NOTHING, "ann", seconds=3))
    project.ledger.tell(Answer(query.id, AnswerKind.TRUE, "ann", seconds=4, supersedes=first))
    drawing = Box((5, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8)
    first = project.ledger.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawing, seconds=5))
    drawing = Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8)
    project.ledger.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawing, seconds=6, supersedes=first))
    export(project, "dataset", tmp_path / "d")
    rows = dataset(tmp_path / "d")[0]
    row = rows[query.candidate.id]
    assert (row["origin"], row["answers"], float(row["seconds"])) == ("true", "ann: true", 7)
    assert [float(r["seconds"]) for r in rows.values() if r["origin"] == "missed"] == [11]


def test_half_a_data_set_is_never_taken_for_a_whole_one(done, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(painting, "_measure", full)
    refused(call("export", done.root, "--what", "dataset", "-o", tmp_path / "d"), "No space left on device")
    assert not list(tmp_path.iterdir())


def test_blocks_give_the_same_volume_as_one_piece(done, tmp_path, monkeypatch):
    export(done, "dataset", tmp_path / "whole")
    pieces = []

    def small(volume):
        from twostream.base.geometry import grid

        pieces.extend(block.write_box for block in grid(volume.box, (3, 40, 48)))
        return iter(pieces)

    monkeypatch.setattr(painting, "whole_chunks", small)
    export(done, "dataset", tmp_path / "pieces")
    assert len(pieces) == 45
    for name in ("objects.csv", "left_out.csv", "dataset.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "pieces" / name).read_text()
    np.testing.assert_array_equal(dataset(tmp_path / "whole")[2], dataset(tmp_path / "pieces")[2])


# -- formats and endings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words", "sentence"),
    [
        ("answers", ["x.xlsx"], "ends in .xlsx; answers can be written as .csv, .jsonl, .parquet"),
        ("candidates", ["x.h5"], "ends in .h5; candidates can be written as .csv"),
        ("answers", ["x.csv", "--format", "jsonl"], "--format is 'jsonl', but -o"),
        ("answers", ["x.txt", "--format", "csv"], "ends in .txt"),
        ("segmentation", ["x.n5"], "ends in .n5; a segmentation can be written to a path of this machine that ends in"),
        ("segmentation", ["x.csv"], "ends in .csv; a segmentation"),
        ("segmentation", ["x.h5", "--format", "zarr"], "--format is 'zarr', but -o"),
        ("segmentation", ["x.zarr", "--format", "tiles"], "--format is 'tiles'; a segmentation can be written as"),
        ("segmentation", ["synthetic://seed=1"], "begins with synthetic://; a segmentation can be written"),
        ("dataset", ["x.zarr"], "a data set is a folder with tables and a volume in it; give a name without an ending"),
        ("dataset", ["x", "--format", "csv"], "--format is 'csv'; a data set can be written as"),
        ("answers", ["x", "--min-probability", "0.5"], "--min-probability is for --what dataset"),
    ],
)
def test_a_name_that_says_another_format_is_refused(done, tmp_path, monkeypatch, what, words, sentence):
    monkeypatch.chdir(tmp_path)
    refused(call("export", done.root, "--what", what, "-o", *words), sentence)
    assert not list(tmp_path.iterdir())


def test_tables_come_in_every_format(done, tmp_path):
    waiting = copied(done, tmp_path)
    run(waiting, rounds=3)  # asks, and waits
    for what in ("answers", "candidates", "queries"):
        for ending in ("csv", "jsonl", "parquet"):
            assert call("export", waiting.root, "--what", what, "-o", tmp_path / f"{what}.{ending}").exit_code == 0
        text = [json.loads(line) for line in (tmp_path / f"{what}.jsonl").read_text().splitlines()]
        stored = read_table(tmp_path / f"{what}.parquet").to_pylist()
        assert len(table(tmp_path / f"{what}.csv")) == len(text) == len(stored) > 5
        names = [name for name in text[0] if not any(isinstance(row[name], (dict, list)) for row in text)]
        assert [[row[name] for name in names] for row in stored] == [[row[name] for name in names] for row in text]
        for row, told in zip(stored, text, strict=True):  # Parquet has mappings as JSON
            assert all(
                json.loads(row[name]) == told[name] for name in set(told) - set(names) if isinstance(told[name], dict)
            )
    assert json.loads(stored[0]["asked_because"]) == text[0]["asked_because"]
    assert call("export", done.root, "--what", "queries", "-o", tmp_path / "none.parquet").exit_code == 0
    assert read_table(tmp_path / "none.parquet").column_names == ["query", "kind"]
    assert call("export", waiting.root, "--what", "answers", "-o", tmp_path / "plain").exit_code == 0
    assert (tmp_path / "plain").read_text() == (tmp_path / "answers.csv").read_text()


def test_a_segmentation_comes_in_every_format_and_is_compressed(done, tmp_path):
    ours = open_volume(str(done.path(2, "segmentation.zarr")))
    values = ours.read(ours.box)
    for words in (["s.zarr"], ["s.h5"], ["named.h5:labels"], ["bare"], ["zarr://driver"]):
        scheme, _, name = words[0].rpartition("://")
        target = f"{scheme}://{tmp_path / name}" if scheme else str(tmp_path / name)
        result = call("export", done.root, "--what", "segmentation", "-o", target)
        assert result.exit_code == 0, result.stderr
    with h5py.File(tmp_path / "s.h5") as file, h5py.File(tmp_path / "named.h5") as named:
        np.testing.assert_array_equal(file["main"][:], values)
        np.testing.assert_array_equal(named["labels"][:], values)
        assert np.ravel(file["main"].attrs["voxel_size_nm"]).tolist() == list(VOXEL_SIZE_NM)
        assert open_volume(str(tmp_path / "s.h5")).offset_nm == OFFSET_NM
        assert file["main"].id.get_storage_size() < values.nbytes / 4
    for name in ("s.zarr", "bare", "driver"):
        np.testing.assert_array_equal(zarr.open(str(tmp_path / name))["0"][:], values)
    for words in (["s.precomputed"], ["folder", "--format", "precomputed"]):
        result = call("export", done.root, "--what", "segmentation", "-o", tmp_path / words[0], *words[1:])
        assert result.exit_code == 0, result.stderr
        np.testing.assert_array_equal(precomputed(tmp_path / words[0]), values)
    assert not list(tmp_path.glob("*.partial"))


def precomputed(path):
    """A precomputed volume by tensorstore, (Z, Y, X)."""
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(path)}}
    store = tensorstore.open(spec, open=True).result()
    assert (
        store.domain.inclusive_min[:3]
        == tuple(round(o / v) for o, v in zip(OFFSET_NM, VOXEL_SIZE_NM, strict=True))[::-1]
    )
    return store[ts_origin(store)][..., 0].read().result().transpose(2, 1, 0)


def ts_origin(store):
    return tensorstore.d[:].translate_to[(0,) * store.rank]


def test_a_data_set_comes_in_every_format_that_volumes_are_written_in(done, tmp_path):
    export(done, "dataset", tmp_path / "zarr")
    expected = dataset(tmp_path / "zarr")[2]
    written = [name for name, one in FORMATS.items() if one.create and one.is_path]
    assert {"zarr", "hdf5", "precomputed"} <= set(written)
    for name in written:
        result = call("export", done.root, "--what", "dataset", "-o", tmp_path / f"as_{name}", "--format", name)
        assert result.exit_code == 0, result.stderr
        (path,) = (tmp_path / f"as_{name}").glob("segmentation*")
        volume = open_volume(str(path))
        np.testing.assert_array_equal(volume.read(volume.box), expected)
        assert (volume.voxel_size_nm, volume.offset_nm) == (VOXEL_SIZE_NM, OFFSET_NM)
    np.testing.assert_array_equal(precomputed(tmp_path / "as_precomputed" / "segmentation.precomputed"), expected)
    with h5py.File(tmp_path / "as_hdf5" / "segmentation.h5") as file:
        np.testing.assert_array_equal(file["main"][:], expected)
        assert np.ravel(file["main"].attrs["voxel_size_nm"]).tolist() == list(VOXEL_SIZE_NM)
    facts = [json.loads((tmp_path / f"as_{name}" / "dataset.json").read_text()) for name in written]
    assert all(one == facts[0] for one in facts) and facts[0]["precision"]["source"] == "test box"


def test_half_a_segmentation_is_never_taken_for_a_whole_one(done, tmp_path, monkeypatch):
    from twostream.project import export as module

    def full(volume):
        yield Box((0, 0, 0), (1, 1, 1))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "whole_chunks", full)
    for name in ("s.h5", "s.zarr"):
        refused(call("export", done.root, "--what", "segmentation", "-o", tmp_path / name), "No space left on device")
    assert not list(tmp_path.iterdir())
