"""The command line: what each command writes and prints, and one clear sentence for each error."""

import ast
import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from conftest import LABELS_BOX, SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM
from typer.testing import CliRunner

from twostream.cli import app
from twostream.project.project import Project
from twostream.project.settings import PRESETS, preset_settings
from twostream.volume import create_volume


def call(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def init(root, toy_file, *words, image="image", labels="mitochondria", task="mitochondria", sets=TINY):
    options = [o for s in sets for o in ("--set", s)]
    return call(
        "init", root, "--image", f"{toy_file}:{image}", "--labels", f"{toy_file}:{labels}",
        "--task", task, *options, *words,
    )  # fmt: skip


def refused(result, *sentences):
    assert result.exit_code == 1, result.output
    text = " ".join(result.stderr.split())
    for sentence in sentences:
        assert sentence in text
    assert "Traceback" not in text


def test_init_freezes_the_boxes(tmp_path, toy_file):
    result = init(tmp_path / "p", toy_file, "--labels-box", "0:8,0:96,0:64")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "p" / "twostream.yaml").read_text()
    assert "test: 0:8,0:96,192:240" in text  # the last fifth along X, the longest axis
    assert "val: 0:8,77:96,0:64" in text
    refused(init(tmp_path / "p", toy_file), "holds a project already")


def test_init_prints_what_it_read_of_a_published_configuration(tmp_path, toy_file):
    """One line a setting; what is given by hand wins over the file."""
    (tmp_path / "image.yaml").write_text("TWOSTREAM: {IMAGE_VAE: True, LATENT_DIM: , HIDDEN_DIMS: [16, 32], WIDTH: 32}")
    result = init(tmp_path / "p", toy_file, "--vae-config", tmp_path / "image.yaml", sets=("query.budget=7",))
    assert result.exit_code == 0, result.output
    assert "image.yaml: LATENT_DIM is empty: 512, the published default -> streams.unsupervised.lat" in result.stdout
    streams = Project(tmp_path / "p").config.streams
    assert (streams.unsupervised.latent_dim, streams.unsupervised.hidden_dims) == (512, (16, 32))
    result = init(
        tmp_path / "q", toy_file, "--vae-config", tmp_path / "image.yaml", sets=("streams.unsupervised.latent_dim=9",)
    )
    assert Project(tmp_path / "q").config.streams.unsupervised.latent_dim == 9
    (tmp_path / "image.yaml").write_text("TWOSTREAM: {IMAGE_VAE: True, LATENT_DIM: 1024, KLD_WEIGHT: 1e-4}")
    refused(init(tmp_path / "r", toy_file, "--vae-config", tmp_path / "image.yaml"), "image.yaml states no HIDDEN_DIMS")
    assert not (tmp_path / "r").exists()


def test_labels_boxes_without_anything_to_train_on_are_refused(tmp_path, toy_file):
    def make(*words):
        return init(tmp_path / "p", toy_file, *words)

    refused(make("--labels-box", "0:8,0:96,178:192", "--test-box", "0:8,0:96,192:240"), "left to train on", "its guard")
    refused(make("--labels-box", "0:8,0:24,0:24", "--val-box", "0:8,1:24,0:24"), "left to train on", "pass --val-box")


def test_instance_labels_are_refused_for_polarity(tmp_path):
    labels = np.zeros((4, 200, 200), np.uint8)
    for value in range(1, 17):
        y, x = divmod(value - 1, 4)
        labels[:, 50 * y : 50 * y + 10, 50 * (3 - x if y % 2 else x) : 50 * (3 - x if y % 2 else x) + 10] = value
    labels[0, 0, 0] = 0
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.attrs["voxel_size_nm"] = (30, 16, 16)
        file["image"], file["mitochondria"] = np.zeros(labels.shape, np.uint8), labels
    result = init(tmp_path / "p", tmp_path / "t.h5", "--labels-box", "0:4,0:150,0:200", task="polarity")
    refused(result, "of 8 synapses the two sides lie apart in 8", "without polarity")


def test_the_laptop_preset_fits_patches_to_mitochondria(tmp_path, toy_file):
    """The values were measured (LOG.md). Options override them, and the preset "paper" keeps the published sizes."""
    for i, (words, widths, steps) in enumerate(
        (
            ([], 1.6, 1000),
            (["--set", "patches.object_widths=2.5", "--set", "streams.unsupervised.num_steps=7"], 2.5, 7),
            (["--set", "patches.object_widths=null"], None, 1000),
        )
    ):
        assert init(tmp_path / str(i), toy_file, *words, sets=()).exit_code == 0
        config = Project(tmp_path / str(i)).config
        assert (config.patches.object_widths, config.streams.unsupervised.num_steps) == (widths, steps)
    assert config.streams.active_clustering.num_steps == 0
    assert preset_settings("paper", "mitochondria")["patches"] == PRESETS["paper"]["patches"]
    assert preset_settings("laptop", "polarity") == PRESETS["laptop"]


def test_default_labels_box_stays_clear_of_the_guard(tmp_path, toy_file):
    assert init(tmp_path / "p", toy_file).exit_code == 0
    boxes = Project(tmp_path / "p").boxes
    (labels_box,), test_box = boxes.labels, boxes.test
    assert test_box is not None and test_box.offset_zyx == (0, 0, 192)
    assert labels_box.stop_zyx[2] == 192 - 32  # a patch of 16 pixels, which is twice as wide around a large object


@pytest.mark.parametrize(
    ("words", "settings", "sentences"),
    [
        ([], {"image": "imag"}, ["holds no dataset 'imag'", "Did you mean 'image'"]),
        (["--labels-box", "0:8,0:96,0:200", "--test-box", TEST_BOX], {}, ["overlaps the test box", "Move one"]),
        (["--labels-box", "0:9,0:96,0:64"], {}, ["reaches outside the image, which holds 0:8,0:96,0:240"]),
        (["--labels-box", "0:8,0:96"], {}, ["expected Z0:Z1,Y0:Y1,X0:X1"]),
        (["--labels-box", "0:1,0:2,0:2", "--test-box", TEST_BOX], {}, ["holds no foreground in the labels box"]),
        (["--val-box", "0:8,0:96,100:120", "--labels-box", LABELS_BOX], {}, ["must be a part of the labels box"]),
        (["--voxel-size", "10,10,30"], {}, ["expected Z, Y, X, slowest first. Did you pass X, Y, Z?"]),
        (["--voxel-size", "30,10"], {}, ["expected Z,Y,X in nanometres"]),
        (["--voxel-size", "30,20,20"], {}, ["--voxel-size says (30.0, 20.0, 20.0)"]),
        (["--preset", "desktop"], {}, ["preset is 'desktop'; expected one of laptop, paper"]),
        (["--set", "patches.object_widths=true"], {}, ["object_widths: expected a number, name or list; got true"]),
        (["--set", "query.bugdet=3"], {}, ["unknown key 'query.bugdet'; the nearest valid one is 'query.budget'"]),
        (["--set", "query.budget"], {}, ["expected KEY=VALUE"]),
        (["--budget", "0"], {}, ["query.budget is 0"]),
        (["--set", "segmentation.filters=[8,8]"], {}, ["segmentation.filters"]),
    ],
)
def test_init_explains_wrong_options(tmp_path, toy_file, words, settings, sentences):
    refused(init(tmp_path / "p", toy_file, *words, **settings), *sentences)
    assert not (tmp_path / "p" / "twostream.yaml").exists()


def commands(group=None, words=()):
    """(words, click command) of every command, those of groups too."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        yield from commands(command, (*words, name)) if hasattr(command, "commands") else [((*words, name), command)]


def test_an_option_with_one_value_is_refused_if_it_comes_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked = 0
    for words, command in commands():
        for option in (p for p in command.params if p.param_type_name == "option"):
            values = ["1"] * option.nargs
            twice = call(*words, option.opts[-1], *values, option.opts[0], *values)
            said = f"{option.opts[-1]} was given 2 times; it takes one value." in " ".join(twice.stderr.split())
            assert said == (not option.multiple and not option.is_flag and "--help" not in option.opts), option.opts
            assert not said or twice.exit_code == 2
            checked += said
    assert checked > 30


def test_volumes_that_do_not_fit_are_refused(tmp_path, toy_file):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["small"] = np.ones((4, 8, 8), np.uint8)
        file["empty"] = np.zeros(SHAPE_ZYX, np.uint16)
        file["floats"] = np.zeros(SHAPE_ZYX, np.float32)
        for name in file:
            file[name].attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file["bare"] = np.zeros(SHAPE_ZYX, np.uint8)
    image = ["init", tmp_path / "p", "--image", f"{toy_file}:image", "--task", "mitochondria"]
    refused(call(*image, "--labels", f"{path}:small"), "has (4, 8, 8) voxels", "they must be equal")
    refused(call(*image, "--labels", f"{path}:empty"), "holds no object, only 0; there is nothing to learn")
    refused(call(*image, "--labels", f"{path}:floats"), "expected integer labels")
    refused(call(*image, "--labels", tmp_path / "none.h5:a"), "does not exist")
    refused(call(*image), "init needs --labels")
    bare = [
        "init",
        tmp_path / "p",
        "--image",
        f"{path}:bare",
        "--labels",
        f"{toy_file}:mitochondria",
        "--task",
        "mitochondria",
    ]
    refused(call(*bare), "states no voxel size", "pass --voxel-size Z,Y,X")
    refused(call(*image[:-1], "axons", "--labels", f"{toy_file}:mitochondria"), "task")


@pytest.mark.parametrize("option", ["--image", "--labels", "--probability"])
def test_an_empty_uri_is_refused(tmp_path, toy_file, option):
    given = {"--image": f"{toy_file}:image", "--labels": f"{toy_file}:mitochondria"} | {option: " "}
    result = call("init", tmp_path / "p", "--task", "mitochondria", *(word for pair in given.items() for word in pair))
    assert result.exit_code == 2
    assert "it is empty; expected a file, folder or URI" in " ".join(result.stderr.replace("│", " ").split())


def test_mistakes_in_the_yaml_are_explained(tmp_path, toy_file):
    init(tmp_path / "p", toy_file, "--labels-box", LABELS_BOX)
    path = tmp_path / "p" / "twostream.yaml"
    good = path.read_text()
    for text, sentence in (
        (
            good.replace("num_steps: 60", "num_stpes: 60"),
            "unknown key 'segmentation.num_stpes'; the nearest valid one is 'segmentation.num_steps'",
        ),
        (good.replace("task: mitochondria", "task: [unclosed"), "is not valid YAML"),
        (good + "task: cleft\n", "twostream.yaml: the key task stands in line 2 and in line"),
        (good.replace("test: 0:8", "test: 9:8"), "boxes:"),
        ("just words", "expected settings by name"),
    ):
        path.write_text(text)
        refused(call("status", tmp_path / "p"), sentence)


def test_steps_by_name_and_in_their_order(tmp_path, toy_file):
    root = tmp_path / "p"
    refused(call("status", root), "holds no twostream.yaml")
    assert init(root, toy_file, "--labels-box", LABELS_BOX, "--budget", "5").exit_code == 0
    refused(call("suggest", root), "the next step of round 0 is train")
    for step in ("train", "predict", "propose", "embed", "suggest"):
        result = call(step, root)
        assert result.exit_code == 0 and f"round 0: {step} done" in result.output, result.output
    assert "had been done already" in call("train", root).output
    refused(call("refit", root), "5 queries wait for answers")
    result = call("status", root)
    assert "round 0 waits for 5 of 5 answers" in result.output
    waiting = call("run", root, "--rounds", "1")
    assert waiting.exit_code == 0 and "waits for 5 answers" in waiting.output and "twostream answer" in waiting.output
    answers = tmp_path / "a.csv"
    for text, sentence in (
        ("query,kind\n1,maybe\n", "row 2, column kind: 'maybe' came; expected one of true, nothing, shape"),
        ("query,kind\n77,true\n", "'77' came; this project has asked queries 1 to 5"),
        (
            "query,kind\n1,true\n1,nothing\n",
            "row 3, column query: '1' came; row 2 answers the same query with true; keep one",
        ),
        ("id,kind\n1,true\n", "expected query and kind"),
    ):
        answers.write_text(text)
        refused(call("answer", root, answers, "--annotator", "ann"), sentence)
    assert "round 0 waits for 5 of 5" in call("status", root).output  # a table with an error records nothing
    answers.write_text(
        "query,kind,seconds\n"
        + "".join(f"{i},{k},2\n" for i, k in zip(range(1, 6), ["true", "nothing"] * 3, strict=False))
    )
    assert "5 answers recorded" in call("answer", root, answers, "--annotator", "ann").output
    assert call("refit", root).exit_code == 0
    assert "round 1: refit done" not in call("predict", root).output
    refused(call("export", root, "--what", "axons", "-o", tmp_path / "x"), "--what is 'axons'; expected one of answers")
    refused(
        call("export", root, "--what", "answers", "--format", "xls", "-o", tmp_path / "x"),
        "can be written as csv, jsonl",
    )
    assert call("export", root, "--what", "answers", "-o", tmp_path / "x.csv").exit_code == 0
    refused(call("export", root, "--what", "answers", "-o", tmp_path / "x.csv"), "exists already")
    assert call("report", root).exit_code == 0 and (root / "report.html").stat().st_size > 10_000


def test_printed_commands_can_be_pasted_in_folders_with_spaces(tmp_path, toy_file, monkeypatch):
    def paste(line):
        name, *words = shlex.split(line[line.index("twostream ") :])
        assert name == "twostream"
        return done(call(*words))

    def done(result):
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    (tmp_path / "my lab").mkdir()
    monkeypatch.chdir(tmp_path / "my lab")
    made = done(init("first project", toy_file, "--labels-box", LABELS_BOX, "--budget", "3"))
    assert made[-1].endswith("twostream run 'first project' --truth URI")
    printed = paste(made[-2])
    assert "waits for 3 answers" in printed[-7]
    export, fill_in, answer, go_on = printed[-4:]
    paste(export)
    table = Path("first project_queries_round_0/queries.csv")
    assert f"the column `kind` of {table}:" in fill_in
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"kind": kind} for row, kind in zip(rows, ("true", "nothing", "true"), strict=True))
    assert paste(answer)[0] == "3 answers recorded"
    assert "round 1 waits for 3 answers" in paste(go_on)[-7]
    forked = done(call("fork", "first project", "second project", "--set", "query.strategy=random"))
    assert "waits for 3 answers" in paste(forked[-1])[-7]


def test_a_dry_run_describes_the_training_and_trains_nothing(tmp_path, toy_file):
    root = tmp_path / "p"
    assert init(root, toy_file).exit_code == 0
    result = call("train", root, "--dry-run")
    assert result.exit_code == 0, result.output
    for word in ("parameters, filters 4, 8, 8", "4 x 32 x 32 voxels", "60, 120 crops", "MB of activations"):
        assert word in result.output
    assert not (root / "rounds").exists() and "train" in call("status", root).output


def test_tune_writes_settings_only_with_write(tmp_path, toy_file):
    root = tmp_path / "p"
    sets = (*TINY, "segmentation.num_steps=1")
    assert init(root, toy_file, "--labels-box", LABELS_BOX, "--val-box", "0:8,64:96,0:64", sets=sets).exit_code == 0
    refused(call("tune", root), "has no probability yet", "twostream predict")
    for step in ("train", "predict"):
        assert call(step, root).exit_code == 0
    # In place of what S found: all that is bright, and less sure where the truth denies it.
    path = root / "rounds" / "000" / "probability.zarr"
    shutil.rmtree(path)
    output = create_volume(str(path), shape_zyx=SHAPE_ZYX, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM, num_channels=1)
    with h5py.File(toy_file) as toy:
        level = np.where(toy["mitochondria"][:] > 0, 200, np.where(toy["image"][:] > 115, 120, 20)).astype(np.uint8)
    output.write(output.box, level[None])
    before = (root / "twostream.yaml").read_text()
    result = call("tune", root)
    assert result.exit_code == 0, result.output
    assert "validation box" in result.output and "objects" in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("F1 ")]
    scores = [float(line.split()[1]) for line in lines]
    assert len(lines) == 10 and scores == sorted(scores, reverse=True) and scores[0] == 1.0
    assert (root / "twostream.yaml").read_text() == before
    assert call("tune", root, "--write").exit_code == 0
    assert (root / "twostream.yaml.old").read_text() == before
    written = Project(root).config
    assert f"final_threshold={written.candidates.final_threshold} method={written.decoding.method}" in lines[0]
    assert call("propose", root).exit_code == 0
    assert (
        Project(root).ledger.finished_steps()[(0, "propose")]["final_threshold"] == written.candidates.final_threshold
    )


def test_query_on_files(tmp_path):
    data = np.load(Path(__file__).parent / "golden" / "two_stream_1.npz")
    for name in ("supervised", "unsupervised"):
        np.save(tmp_path / f"{name}.npy", data[name])
    (tmp_path / "rows.txt").write_text("\n".join(map(str, data["answered"])))
    words = ["query", "--supervised", tmp_path / "supervised.npy", "--unsupervised", tmp_path / "unsupervised.npy"]
    for variant in ("published", "corrected"):
        out = tmp_path / f"{variant}.csv"
        result = call(
            *words,
            "--answered",
            tmp_path / "rows.txt",
            "--clusters",
            *data["clusters"],
            "--variant",
            variant,
            "-o",
            out,
        )
        assert result.exit_code == 0, result.output
        rows = [int(line.split(",")[0]) for line in out.read_text().splitlines()[1:]]
        assert out.read_text().startswith("row,") and rows == data[variant].tolist()
    (tmp_path / "rows.txt").write_text("\ufeff", encoding="utf-8")  # the byte order mark that Windows writes first
    assert call(*words, "--answered", tmp_path / "rows.txt", "--budget", "7", "-o", tmp_path / "b.csv").exit_code == 0
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 8
    refused(call(*words, "-o", tmp_path / "b.csv"), "exists already")
    latents = (tmp_path / "supervised.npy").read_bytes()
    refused(call(*words, "-o", tmp_path / "supervised.npy"), "exists already")
    assert (tmp_path / "supervised.npy").read_bytes() == latents
    assert call(*words, "--set", "num_clusters=[3,4]", "-o", tmp_path / "d.csv").exit_code == 0
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 13
    (tmp_path / "rows.txt").write_text("99999")
    refused(call(*words, "--answered", tmp_path / "rows.txt", "-o", tmp_path / "c.csv"), "names row 99999")
    np.save(tmp_path / "supervised.npy", np.array([{"a": 1}], object), allow_pickle=True)
    refused(call(*words, "-o", tmp_path / "c.csv"), "cannot be read as .npy or .npz without pickles")
    np.save(tmp_path / "supervised.npy", np.zeros((3, 2)))
    refused(call(*words, "-o", tmp_path / "c.csv"), "has 3 rows", "expected one row per candidate in both")
    np.save(tmp_path / "supervised.npy", np.zeros(3))
    refused(call(*words, "-o", tmp_path / "c.csv"), "supervised latents have shape (3,); expected (N, D)")
    np.save(tmp_path / "supervised.npy", np.array(["a"]))
    refused(call(*words, "-o", tmp_path / "c.csv"), "holds an array of <U1; expected numbers")
    assert not list(tmp_path.glob("c.csv*"))


def test_query_on_npz_files_with_other_strategies(tmp_path):
    data = np.load(Path(__file__).parent / "golden" / "two_stream_0.npz")
    number = len(data["supervised"])
    both, output = tmp_path / "both.npz", tmp_path / "rows.csv"
    np.savez(both, supervised=data["supervised"], unsupervised=data["unsupervised"])
    words = ["query", "--supervised", both, "--unsupervised", both]
    coarse, fine = data["clusters"]
    assert call(*words, "--clusters", coarse, fine, "-o", output).exit_code == 0
    assert [int(line.split(",")[0]) for line in output.read_text().splitlines()[1:]] == data["corrected"].tolist()
    words += ["-o", tmp_path / "others.csv"]
    result = call(*words, "--clusters", 5, 4, "--set", "exact=false", "--set", "share=even", "--variant", "adaptive")
    assert result.exit_code == 0 and "centres were found on a subsample" in result.output
    p = np.linspace(0, 0.9, number)
    np.save(tmp_path / "p.npy", p)
    words = [*words[:-1], tmp_path / "entropy.csv", "--strategy", "entropy", "--budget", 3]
    assert call(*words, "--probability", tmp_path / "p.npy").exit_code == 0
    rows = [int(line.split(",")[0]) for line in (tmp_path / "entropy.csv").read_text().splitlines()[1:]]
    assert sorted(rows) == sorted(np.argsort(np.abs(p - 0.5))[:3].tolist())
    (tmp_path / "entropy.csv").unlink()
    refused(call(*words), "Entropy needs a probability per row; pass probability= (--probability)")
    assert not list(tmp_path.glob("entropy.csv*"))
    np.savez(both, a=data["supervised"], b=data["unsupervised"])
    refused(call(*words), "holds the arrays a, b; expected one, or one that is called 'supervised'")
    both.write_bytes(b"PK nothing")
    refused(call(*words), "cannot be read as .npy or .npz")


LIGHT = ("base", "query", "volume", "task", "candidates", "project", "report", "testing", "cli")
"""Packages that must work without torch. All of their modules are imported, with everything that these import."""


@pytest.mark.parametrize("room", LIGHT)
def test_light_packages_do_not_import_torch(room):
    code = (
        f"import importlib, pkgutil, sys, twostream.{room} as room\n"
        "for found in pkgutil.walk_packages(getattr(room, '__path__', []), room.__name__ + '.'):\n"
        "    importlib.import_module(found.name)\n"
        "print([name for name in ('torch', 'lightning', 'monai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []


def test_help_lists_every_command():
    text = call("--help").output
    for name in (
        "demo",
        "init",
        "run",
        "train",
        "tune",
        "predict",
        "propose",
        "embed",
        "suggest",
        "refit",
        "status",
        "report",
        "export",
        "merge",
        "query",
    ):
        assert name in text


def test_a_missing_ledger_is_not_replaced(tmp_path, toy_file):
    root = tmp_path / "p"
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    assert call("train", root).exit_code == 0
    (root / "ledger.sqlite").unlink()
    checkpoint = (root / "rounds" / "000" / "checkpoint.ckpt").read_bytes()
    for command in ("status", "run", "report", "predict"):
        refused(call(command, root), "ledger.sqlite is missing. `twostream repair")
    assert (root / "rounds" / "000" / "checkpoint.ckpt").read_bytes() == checkpoint


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "boxes.test=null"], "--set cannot change boxes; pass --labels-box"),
        (["--set", "query.strategy=best"], "strategy is 'best'; expected one of"),
        (["--set", "query.settings={clusters: 3}"], "has no setting 'clusters'; it has: num_clusters, first, variant"),
        (["--set", "query.settings={random_state: 3}"], "has no setting 'random_state'"),
        (["--set", "query.settings={num_clusters: [a, b]}"], "expected two whole numbers"),
        (["--set", "streams.supervised.hidden_dims=[]"], "streams.supervised.hidden_dims"),
        (["--set", "patches.width_px=0"], "patches.width_px is 0"),
        (["--set", "segmentation.patch_shape_zyx=[0,0,0]"], "segmentation.patch_shape_zyx"),
        (["--set", "segmentation.context_zyx=[-1,0,0]"], "segmentation.context_zyx"),
        (["--set", "candidates.threshold=.nan"], "candidates.threshold"),
        (["--set", "refit.rim_nm=.inf"], "refit.rim_nm"),
        (["--set", "segmentation.learning_rate=.inf"], "segmentation.learning_rate"),
        (["--set", "segmentation.exclusive=true"], "segmentation.exclusive is for polarity, not for mitochondria"),
        (["--set", "segmentation.loss.non_overlap=4"], "loss.non_overlap is for polarity"),
        (["--set", "segmentation.watch.every_steps=0"], "set every_steps as well"),
        (["--set", "segmentation.augment.rescale_range=[1.2,0.8]"], "expected the smaller factor first"),
        (["--set", "segmentation.context_zyx=[1,200,200]"], "expected at most half a window"),
        (["--set", "segmentation.patch_shape_zyx=[4,32]"], "segmentation.patch_shape_zyx has 2 values; one more"),
        (["--set", "decoding.channels=[contour]"], "expected foreground first"),
        (["--set", "segmentation.optimiser.name=sgd"], "the nearest valid one is 'segmentation.optimizer'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(tmp_path, toy_file, words, sentence):
    refused(init(tmp_path / "p", toy_file, "--labels-box", LABELS_BOX, *words), sentence)
    assert not (tmp_path / "p" / "twostream.yaml").exists()


def test_damaged_files_are_named(tmp_path, toy_file):
    root = tmp_path / "p"
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    first = root / "rounds" / "000"
    for step, broken, sentence in (
        ("train", "checkpoint.ckpt", "is not a checkpoint of S"),
        ("predict", None, None),
        ("propose", "candidates.parquet", "cannot be read as a candidate table"),
        ("embed", "latents_supervised.npy", "cannot be read as .npy without pickles"),
    ):
        assert call(step, root).exit_code == 0
        if broken:
            good = (first / broken).read_bytes()
            (first / broken).write_bytes(b"damaged")
            refused(call("run", root, "--truth", f"{toy_file}:mitochondria", "--rounds", "1"), sentence)
            (first / broken).write_bytes(good)
    config = root / "twostream.yaml"
    config.write_bytes(b"\xff\xfe\x00")
    refused(call("status", root), "is not valid YAML")


def test_a_fork_needs_an_empty_folder(tmp_path, toy_file):
    root = tmp_path / "p"
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    refused(call("fork", root, tmp_path / "f"), "round 0 of", "is not finished")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep")
    call("run", root, "--rounds", "0")
    refused(call("fork", root, tmp_path / "full"), "is not empty; choose another folder")
    refused(call("fork", root, tmp_path / "f", "--set", "segmentation.num_steps=3"), "a fork shares round 0")
    refused(call("fork", root, tmp_path / "f", "--set", "query.strategy=best"), "strategy is 'best'")
    assert (tmp_path / "full" / "precious.txt").read_text() == "keep" and not (tmp_path / "f").exists()
