"""The finished model: what `finish` writes, where it can be used, and projects that begin with it."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import LABELS_BOX, TEST_BOX, TINY
from test_cli import call, refused

from twostream.base.errors import ConfigError, ProjectError
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import read_table, write_parts
from twostream.models.segmentation import card as cards
from twostream.models.segmentation.blending import PredictBlock
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.train import Segmenter, new_segmenter, stride_of
from twostream.project.create import create_project
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.rounds import finish as finishing
from twostream.rounds.finished_card import card_text
from twostream.rounds.loop import run
from twostream.rounds.predict import probability_of
from twostream.rounds.refit import held_out
from twostream.rounds.teaching import collect, lessons_of, replay_of
from twostream.task import CERTAIN, IGNORE, DecodingConfig, SynapsePolarity
from twostream.task.answers import AnswerKind
from twostream.task.metrics import bootstrap_f1
from twostream.volume import open_volume

STREAMS = tuple(text for text in TINY if text.split(".")[0] in ("patches", "streams", "refit"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, toy_file):
    """A project of one answered batch, finished with a licence."""
    root = tmp_path_factory.mktemp("finish") / "project"
    labels = f"{toy_file}:mitochondria"
    project = create_project(
        root, task="mitochondria", image=f"{toy_file}:image", labels=labels, labels_box=LABELS_BOX, test_box=TEST_BOX,
        budget=6, overrides=(*TINY, "segmentation.num_steps=30"),
    )  # fmt: skip
    run(project, rounds=1, truth_uri=labels)
    result = call("finish", root, "--license", "CC BY 4.0")
    assert result.exit_code == 0, result.output
    assert "test box: finished F1" in result.output
    return root


@pytest.fixture
def model(finished, tmp_path):
    """A copy of the finished model without the project, which a test may damage."""
    return shutil.copytree(finished / "finished", tmp_path / "model")


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def arrays(folder):
    volumes = (open_volume(str(folder / f"{name}.zarr")) for name in ("probability", "segmentation"))
    return [volume.read(volume.box) for volume in volumes]


def test_the_card_says_what_the_project_knows(finished):
    project, card = Project(finished), card_of(finished / "finished")
    learned = card["trained_on"]
    assert card["license"] == "CC BY 4.0" and card["project"]["id"] == project.id
    assert tuple(card["voxel_size_nm"]) == project.image.voxel_size_nm
    assert learned["num_answers"] == project.ledger.spent()[0] == 6
    assert learned["num_answers_by_annotator"] == {"simulated": 6}
    assert sum(learned["num_answers_by_kind"].values()) == learned["num_lessons"] == 6
    assert learned["start"] == "from the S of round 0" and learned["num_steps"] == 30
    assert learned["num_label_voxels"] == project.boxes.labels[0].num_voxels - project.boxes.validation.num_voxels
    text = (finished / "finished" / "card.md").read_text()
    assert "Licence: CC BY 4.0." in text and "6 simulated" in text and "| S_0 (labels alone) |" in text
    assert (finished / "finished" / "dataset" / "dataset.json").is_file()
    assert not (finished / "finishing").exists()
    assert "- 6 of them were shown to the model, each with its surroundings: " in text
    assert project.next_step() == (1, "suggest")  # the loop goes on as if nothing had been finished
    status = call("status", finished).output
    assert f"finished model of {card['date']}: {finished / 'finished'}\n" in status


def test_status_tells_the_answers_that_a_finished_model_has_not_seen(finished, tmp_path):
    root = shutil.copytree(finished, tmp_path / "project")
    card = card_of(root / "finished")
    card["trained_on"]["num_answers"] -= 2
    (root / "finished" / "card.json").write_text(json.dumps(card))
    assert "2 answers were given since, and `twostream finish" in call("status", root).output
    (root / "finished" / "card.json").write_text("{}")
    assert "its card cannot be read" in call("status", root).output


def test_a_licence_of_several_lines_stays_in_its_sentence(model):
    card = cards.Model(model).card.model_copy(update={"license": "MIT\n\n# Heading"})
    assert "Licence: MIT # Heading." in card_text(card)


def test_a_card_without_answers_says_so(model):
    card = cards.Model(model).card
    learned = card.trained_on | {"num_answers_by_kind": {}, "num_answers_by_annotator": {}, "num_answers": 0}
    text = card_text(card.model_copy(update={"trained_on": learned}))
    assert "- answers: none\n" in text and "0 answers" not in text


def test_a_card_whose_entries_contradict_each_other_is_refused(model):
    card = card_of(model)
    for changes, *words in (
        ({"task": "polarity"}, "channels is foreground", "pre, post, union"),
        ({"channels": ["foreground", "contour"]}, "channels is foreground, contour", "it is foreground."),
        ({"decoding": card["decoding"] | {"channels": ["foreground", "contour"]}}, "it is foreground, contour"),
        ({"head": {}}, "head.form is None", "independent or exclusive"),
        ({"head": {"form": "linear"}}, "head.form is 'linear'"),
        ({"fold_zyx": [0, 1, 1]}, "fold_zyx", "greater than 0"),
        ({"stride_zyx": [1, 0, 4]}, "stride_zyx", "greater than 0"),
        ({"voxel_size_nm": [0, 10, 10]}, "voxel_size_nm", "greater than 0"),
    ):
        (model / "card.json").write_text(json.dumps(card | changes))
        with pytest.raises(ConfigError) as error:
            cards.Model(model)
        assert all(word in str(error.value) for word in words), str(error.value)


def test_the_last_s_is_scored_as_its_round_was(finished):
    """The card's scores of the loop's S are those of `metrics.json`, so that all three models are judged alike."""
    scores = card_of(finished / "finished")["scores"]["test_box"]
    for who, number in (("s_0", 0), ("last_s", 1)):
        metrics = json.loads(Project(finished).path(number, "metrics.json").read_text())
        assert scores[who]["num_truth"] == metrics["num_truth"]
        assert scores[who]["instance_f1"]["value"] == pytest.approx(metrics["scores"]["instance_f1"], abs=0.02)
        assert scores[who]["foreground_iou"] == pytest.approx(metrics["scores"]["foreground_iou"], abs=0.01)
    for who in ("s_0", "last_s", "finished"):
        for name in ("f1", "precision", "recall"):
            share = scores[who][f"instance_{name}"]
            assert share["interval"][0] <= share["value"] <= share["interval"][1]


def test_a_finished_model_that_is_not_the_best_is_told():
    def scores(**f1):
        share = {who: {"value": value, "interval": [0.0, 1.0]} for who, value in f1.items()}
        return {"test_box": {who: {"instance_f1": one, "num_truth": 7} for who, one in share.items()}}

    told = "\n".join(finishing._score_lines(scores(s_0=0.4, last_s=0.6, finished=0.5)))
    assert "finished F1 0.500 (0.000 to 1.000), 7 true objects" in told
    assert "the last S of the loop does better here than the finished model" in told
    assert "S_0 does better" in "\n".join(finishing._score_lines(scores(s_0=0.6, last_s=0.5, finished=0.4)))
    assert "does better" not in "\n".join(finishing._score_lines(scores(s_0=0.4, last_s=0.5, finished=0.5)))


def test_the_interval_of_f1_is_that_of_objects_drawn_again():
    hits, false, missed = 30, 10, 15
    objects = np.array([0] * hits + [1] * false + [2] * missed)
    rng, values = np.random.default_rng(1), []
    for _ in range(3000):
        count = np.bincount(rng.choice(objects, len(objects)), minlength=3)
        values.append(2 * count[0] / (2 * count[0] + count[1] + count[2]))
    wanted = np.quantile(values, (0.025, 0.975))
    np.testing.assert_allclose(bootstrap_f1(hits, hits + false, hits + missed), wanted, atol=0.02)
    assert bootstrap_f1(0, 0, 0) is None and bootstrap_f1(0, 3, 2) == (0.0, 0.0)


def test_torch_and_onnx_predict_the_same_elsewhere(model, toy_file, tmp_path):
    for engine in ("torch", "onnx"):
        words = ("--image", f"{toy_file}:image", "-o", tmp_path / engine, "--engine", engine, "--threads", 1)
        result = call("predict", "--model", model, *words)
        assert result.exit_code == 0, result.output
    (one, cut), (other, also_cut) = arrays(tmp_path / "torch"), arrays(tmp_path / "onnx")
    assert one.std() > 3 and abs(one.astype(int) - other).max() <= 1
    assert (cut != also_cut).mean() < 0.001
    table = pq.read_table(tmp_path / "torch" / "candidates.parquet")
    assert table["id"].to_pylist() == list(range(1, cut.max() + 1))
    for candidate in StoredCandidates.open(tmp_path / "torch" / "candidates.parquet"):
        assert ((cut[candidate.box.slices] == candidate.id) == (candidate.mask > 0)).all()
    assert open_volume(str(tmp_path / "torch" / "segmentation.zarr")).voxel_size_nm == (30.0, 10.0, 10.0)


def test_a_prediction_that_was_stopped_goes_on_where_it_was(model, toy_file, tmp_path, monkeypatch):
    words = ("predict", "--model", model, "--image", f"{toy_file}:image", "--threads", 1, "-o")
    assert call(*words, tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patch:
        original, runs = PredictBlock.__call__, []

        def stopped(self, block):
            if len(runs) == 3:
                raise KeyboardInterrupt
            runs.append(block)
            original(self, block)

        patch.setattr(PredictBlock, "__call__", stopped)
        assert call(*words, tmp_path / "out").exit_code != 0
    assert (tmp_path / "out.partial").is_dir() and not (tmp_path / "out").exists()
    result = call(*words, tmp_path / "out")
    assert result.exit_code == 0 and "predict: 3 of 8 blocks were done before" in result.stderr
    for one, other in zip(arrays(tmp_path / "out"), arrays(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.glob("*.partial"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_a_prediction_of_another_image_is_not_gone_on_with(model, toy_file, tmp_path, monkeypatch):
    with h5py.File(toy_file) as file:
        image = file["image"][:]
    np.save(tmp_path / "image.npy", image)
    monkeypatch.chdir(tmp_path)
    words = ("predict", "--model", model, "--image", "image.npy", "--threads", 1, "--voxel-size", "30,10,10", "-o")
    with monkeypatch.context() as patch:

        def stopped(self, block):
            raise KeyboardInterrupt

        patch.setattr("twostream.models.segmentation.apply.propose", stopped)
        assert call(*words, "out").exit_code != 0
    np.save(tmp_path / "image.npy", image[::-1])
    result = call(*words, "out")
    assert result.exit_code == 0 and "were done before" not in result.stderr
    assert call(*words, "whole").exit_code == 0
    for one, other in zip(arrays(tmp_path / "out"), arrays(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_of_polarity_writes_both_sides(tmp_path):
    """Also through a window, as the image holds 16 bits; the card is written by hand."""
    size, config = (
        (30.0, 8.0, 8.0),
        SegmentationConfig(filters=(4, 8, 8), window_shape_zyx=(8, 32, 32), context_zyx=(1, 4, 4)),
    )
    s = new_segmenter(SynapsePolarity(size), config, voxel_size_nm=size, num_sections=8, grey=(128.0, 40.0), seed=2)
    s.save(tmp_path / "model.ckpt")
    card = cards.ModelCard(
        task="polarity", voxel_size_nm=size, channels=("pre", "post", "union"), pixel_size_nm=size,
        fold_zyx=s.network.fold_zyx, stride_zyx=stride_of(s), head=s.architecture["head"],
        grey=cards.GreyFacts(mean=s.mean, std=s.std), segmentation=config, decoding=DecodingConfig(),
        thresholds=cards.ThresholdFacts(threshold=0.5, final_threshold=0.5, min_score=0.0, min_object_nm3=1e4),
        files={"checkpoint": cards.FileFact(name="model.ckpt", sha256=cards.sha256_of(tmp_path / "model.ckpt"))},
    )  # fmt: skip
    (tmp_path / "card.json").write_text(card.model_dump_json())
    tissue = open_volume("synthetic://seed=0&kind=image&shape=8,64,64&voxel_size=30,8,8")
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file.attrs["voxel_size_nm"] = size
        file["image"] = tissue.read(tissue.box).astype(np.uint16) * 200
    result = call("predict", "--model", tmp_path, "--image", f"{tmp_path / 'deep.h5'}:image", "-o", tmp_path / "out")
    assert result.exit_code == 0 and "holds uint16" in result.stderr, result.output
    _, cut = arrays(tmp_path / "out")
    candidates = StoredCandidates.open(tmp_path / "out" / "candidates.parquet")
    assert [c.id for c in candidates] == sorted({(value + 1) // 2 for value in np.unique(cut).tolist()} - {0}) != []
    for c in candidates:
        there = cut[c.box.slices]
        assert ((there == 2 * c.id - 1) == (c.mask == 1)).all() and ((there == 2 * c.id) == (c.mask == 2)).all()


def test_prediction_needs_no_torch(model, toy_file, tmp_path):
    code = """
import importlib.util, sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "monai", "tensorboard"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nowhere())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else found(name, *rest)
from twostream.cli import app
app()
"""
    words = [
        "predict",
        "--model",
        str(model / "card.json"),
        "--image",
        f"{toy_file}:image",
        "-o",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "by onnx" in done.stdout and (tmp_path / "out" / "candidates.parquet").is_file()


def test_what_does_not_fit_is_refused(model, toy_file, tmp_path):
    def predict(folder=model, image=f"{toy_file}:image", output="out", *words):
        return call("predict", "--model", folder, "--image", image, "-o", tmp_path / output, *words)

    other = "synthetic://seed=0&kind=image&shape=8,64,64&voxel_size=30,8,8"
    refused(predict(image=other), "30 x 8 x 8 nm", "30 x 10 x 10 nm", "Nothing is rescaled")
    refused(predict(tmp_path), "there is no card at", "card.json")
    (tmp_path / "project").mkdir()
    shutil.copytree(model, tmp_path / "project" / "finished")
    refused(predict(tmp_path / "project"), "there is no card at", f"Pass {tmp_path / 'project' / 'finished'}.")
    refused(call("predict", "--model", model), "needs --image URI and -o OUT")
    refused(call("predict"), "takes a project folder, or --model CARD")
    refused(predict(model, f"{toy_file}:image", "out", "--engine", "tensorflow"), "expected torch or onnx")
    (tmp_path / "taken").mkdir()
    refused(predict(output="taken"), "exists already")
    card = card_of(model)
    (model / "card.json").write_text(json.dumps(card | {"card": 2}))
    refused(predict(), "card of version 2", "Update it")
    (model / "card.json").write_text(json.dumps(card | {"licence": "MIT"}))
    refused(predict(), "licence", "license")
    (model / "card.json").write_text("{}")
    refused(predict(), "is no model card")
    for name, wrong in (("head", {"form": "exclusive"}), ("fold_zyx", [1, 1, 4]), ("stride_zyx", [1, 8, 64])):
        (model / "card.json").write_text(json.dumps(card | {name: wrong}))
        refused(predict(), f"card.json says {name}", "and its checkpoint has")
        if name != "stride_zyx":  # of which the ONNX file knows nothing; a multiple of it is as good
            refused(predict(model, f"{toy_file}:image", "out", "--engine", "onnx"), "Is it the model of this card?")
    refused(call("predict", model.parent, "--engine", "onnx"), "takes a project folder, or --model CARD")
    (model / "card.json").write_text(json.dumps(card))
    with (model / "model.onnx").open("ab") as handle:
        handle.write(b"more")
    refused(predict(model, f"{toy_file}:image", "out", "--engine", "onnx"), "its checksum differs")
    (model / "model.ckpt").unlink()
    refused(predict(), "names model.ckpt, which is not beside it")
    assert not (tmp_path / "out").exists()


def test_an_image_of_other_grey_values_is_questioned(model, tmp_path):
    image = "synthetic://seed=0&kind=image&shape=8,64,64&voxel_size=30,10,10"
    result = call("predict", "--model", model, "--image", image, "-o", tmp_path / "out", "--threads", 1)
    assert result.exit_code == 0 and "has a mean grey value of" in result.stderr


def test_a_project_begins_with_the_model_and_learns_from_answers(model, toy_file, tmp_path):
    root, labels = tmp_path / "next", f"{toy_file}:mitochondria"
    words = ["init", root, "--model", model, "--image", f"{toy_file}:image", "--test-box", TEST_BOX, "--budget", 6]
    refused(call(*words, "--task", "cleft"), "a model for mitochondria, but --task is cleft")
    refused(call(*words, "--task", "mitochondria", "--labels", labels), "leave out --labels")
    refused(call(*words, "--task", "mitochondria", "--labels-box", LABELS_BOX), "leave them out, as --model has no")
    for text in (*STREAMS, "num_threads=1"):
        words += ["--set", text]
    refused(call(*words, "--task", "mitochondria", "--set", "refit.hold=null"), "refit.hold a probability")
    result = call(*words, "--task", "mitochondria")
    assert result.exit_code == 0 and "S begins as the finished model" in result.output
    project = Project(root)
    assert (
        project.config.labels is None
        and project.config.candidates.threshold == card_of(model)["thresholds"]["threshold"]
    )
    run(project, rounds=1, truth_uri=labels)
    first = Segmenter.load(project.path(0, "checkpoint.ckpt"))
    given = Segmenter.load(model / "model.ckpt")
    for name, value in given.network.state_dict().items():
        assert torch.equal(first.network.state_dict()[name], value)
    learned = project.ledger.finished_steps()[(1, "refit")]
    num_held_out = int(held_out(project, collect(project.ledger, 1)).sum())
    assert learned["num_lessons"] == 6 - num_held_out and learned["judged"]["num_validation_objects"] == 0
    assert "S began as the finished model" in call("status", root).output
    done = call("finish", root, "--truth", labels)
    assert done.exit_code == 0, done.output
    learned = card_of(root / "finished")["trained_on"]
    assert learned["start"].startswith("from the model") and learned["labels_boxes"] == []
    assert learned["began_with_model"] == project.config.model.sha256
    assert set(card_of(root / "finished")["scores"]) == {"test_box"}
    assert learned["judged"]["num_validation_objects"] == 0
    text = (root / "finished" / "card.md").read_text()
    assert "| S_0 (the model that the project began with) |" in text and "labels alone" not in text


def test_without_evidence_the_last_s_is_packed(model, toy_file, tmp_path):
    """Answers of one kind, no labels: as in the loop, nothing shows that what was learned from them is better."""
    root = tmp_path / "next"
    words = ["init", root, "--model", model, "--image", f"{toy_file}:image", "--task", "mitochondria", "--budget", 4]
    for text in (*STREAMS, "num_threads=1", "query.audit_share=0"):
        words += ["--set", text]
    assert call(*words).exit_code == 0
    project = Project(root)
    run(project)
    for query in project.ledger.open_queries():
        project.ledger.tell(Answer(query.id, AnswerKind.NOTHING, "anna", seconds=1.0))
    run(project)
    done = call("finish", root)
    assert done.exit_code == 0, done.output
    assert "the finished S was left, and the last S of the loop kept: there was nothing to judge it by" in done.stderr
    last, packed = project.path(1, "checkpoint.ckpt"), root / "finished" / "model.ckpt"
    one, other = (Segmenter.load(path).network.state_dict() for path in (last, packed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    learned = card_of(root / "finished")["trained_on"]
    assert learned["num_lessons"] == 4 and learned["judged"]["outcome"] == "kept"
    assert "- the S trained so was left, and the last S of the loop kept" in (root / "finished" / "card.md").read_text()


def test_another_model_in_the_same_place_is_refused(model, toy_file, tmp_path):
    words = ("--image", f"{toy_file}:image", "--task", "mitochondria")
    assert call("init", tmp_path / "next", "--model", model, *words).exit_code == 0
    segmenter = Segmenter.load(model / "model.ckpt")
    segmenter.save(model / "model.ckpt")  # without its losses: other content
    card = card_of(model)
    card["files"]["checkpoint"]["sha256"] = cards.sha256_of(model / "model.ckpt")
    (model / "card.json").write_text(json.dumps(card))
    refused(call("train", tmp_path / "next"), "is not the model with which")
    shutil.rmtree(model)
    refused(call("train", tmp_path / "next"), "finds no model at")


def test_replay_shows_what_s_was_confident_of_outside_the_guarded_test_box(model, toy_file, tmp_path):
    words = ("--image", f"{toy_file}:image", "--task", "mitochondria", "--test-box", TEST_BOX)
    assert call("init", tmp_path / "next", "--model", model, *words).exit_code == 0
    project = Project(tmp_path / "next")
    for step in ("train", "predict", "propose"):
        assert call(step, project.root).exit_code == 0
    places = replay_of(project, 0)
    assert len(places) > 20 and any(box.num_voxels > 1 for box in places)
    assert not any(box.intersects(project.guarded_box) for box in places)
    path = project.path(0, "candidates.parquet")
    table = read_table(path)
    write_parts([table.append_column("faint", [[True] * table.num_rows])], path)
    assert all(box.num_voxels == 1 for box in replay_of(project, 0)), "faint candidates are no places of objects"
    write_parts([table], path)
    segmenter = Segmenter.load(project.path(0, "checkpoint.ckpt"))
    lessons = lessons_of(project, segmenter, (), probability_of(project, 0), places)
    rng, known = np.random.default_rng(0), []
    for _ in range(20):
        target = lessons.labelled_crop(rng, project.config.segmentation).target
        known.append(target[target != IGNORE])
    levels = np.concatenate(known) / CERTAIN
    hold = project.config.refit.hold
    assert len(levels)
    assert not ((levels > 1 - hold + 0.01) & (levels < hold - 0.01)).any()  # what S was confident of, and nothing else
    assert lessons.digest != lessons_of(project, segmenter, (), probability_of(project, 0), places[1:]).digest


def test_finishing_again_keeps_the_model_that_was_there(finished, tmp_path, monkeypatch):
    """Also: what fails half-way leaves no half-written model, and a licence is not stated unless it is given."""
    root = shutil.copytree(finished, tmp_path / "project")
    before = (root / "finished" / "card.json").read_bytes()

    def fail(*_):
        raise ProjectError("the disk is full")

    monkeypatch.setattr(finishing, "export_dataset", fail)
    refused(call("finish", root), "the disk is full")
    assert (root / "finished" / "card.json").read_bytes() == before and (root / "finishing" / "model.resume").is_file()
    monkeypatch.undo()
    monkeypatch.setattr(finishing, "is_installed", lambda name: name != "onnx")
    result = call("finish", root)
    assert result.exit_code == 0 and "kept in" in result.output and "model.onnx will not be written" in result.stderr
    assert (root / "finished.old" / "card.json").read_bytes() == before
    card = card_of(root / "finished")
    assert card["license"] == "" and list(card["files"]) == ["checkpoint"]
    assert "Licence: not stated." in (root / "finished" / "card.md").read_text()
    one, other = (
        Segmenter.load(root / name / "model.ckpt").network.state_dict() for name in ("finished", "finished.old")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)  # the same project gives the same model
    image = "synthetic://seed=0&kind=image&shape=8,64,64&voxel_size=30,10,10"
    words = ("--image", image, "-o", tmp_path / "out", "--engine", "onnx")
    refused(call("predict", "--model", root / "finished", *words), "has no ONNX model")


def test_what_cannot_be_finished_is_refused(make_project, toy_file):
    project = make_project()
    refused(call("finish", project.root), "has no scored round yet", "run")
    theirs = make_project("theirs", labels=None, labels_box=None, segmentation=f"{toy_file}:mitochondria")
    refused(call("finish", theirs.root), "in place of S, so there is no model to finish")


def test_truth_without_a_box_to_score_is_refused(model, toy_file, tmp_path):
    words = ("--image", f"{toy_file}:image", "--task", "mitochondria")
    assert call("init", tmp_path / "next", "--model", model, *words).exit_code == 0
    project = Project(tmp_path / "next")
    with pytest.raises(ProjectError, match="no test box, so there is nothing to score"):
        finishing._truth(project, f"{toy_file}:mitochondria")
