"""The report needs no other file, shows every query and every score, and copes with missing data."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml

from twostream.base.errors import ProjectError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.picture import COLOURS
from twostream.candidates.table import to_table, write_parts
from twostream.project.ledger import Ledger
from twostream.project.project import Project
from twostream.project.records import Answer, Query
from twostream.project.status import refit_sentence
from twostream.report import write_report
from twostream.report.answer_styles import style_name
from twostream.report.gains import gains, num_answers, sharing_round_0
from twostream.report.gallery import by_cluster, card, reason_words
from twostream.report.latent_space import principal_plane, rows_to_draw, score_levels
from twostream.report.pictures import mask_path
from twostream.report.scores import COUNTS, SCORES, refit_rows
from twostream.report.words import duration, formatted
from twostream.task.answers import MEANING, AnswerKind, Meaning

WIDTH = 32
HOME = "/home/somebody/secret"
NASTY = "<script>alert('1 & 2')</script>"


def make_project(root: Path, *, task: str = "polarity", strategy: str = "two-stream", test_box: bool = True) -> Project:
    """A project folder without data; a report can be written without it."""
    root.mkdir()
    values = {
        "task": task,
        "image": {"uri": f"{HOME}/tissue.h5:volumes/raw", "voxel_size_nm": [30, 8, 8]},
        "labels": {"uri": f"zarr://{HOME}/truth.zarr", "voxel_size_nm": [30, 8, 8]},
        "boxes": {"labels": "0:8,0:64,0:64", "val": "0:8,0:64,48:64", "test": "0:8,0:64,96:128" if test_box else None},
        "query": {"strategy": strategy, "budget": 4},
    }
    (root / "twostream.yaml").write_text(yaml.safe_dump(values))
    Ledger(root / "ledger.sqlite", create=True).close()
    return Project(root)


def make_patch(seed: int) -> PatchPair:
    """Two bars, pre on the left and post on the right, over noise."""
    mask = np.zeros((WIDTH, WIDTH), np.int8)
    mask[6 : 26 - seed % 4, 8:14] = 1
    mask[6 : 26 - seed % 4, 17:24] = -1
    image = np.random.default_rng(seed).integers(90, 160, (WIDTH, WIDTH)).astype(np.uint8)
    return PatchPair(image[None], mask[None], 12.0, 3, 0.25 if seed == 1 else 0.0)


def make_query(candidate: int, **reason: object) -> Query:
    return Query(make_candidate(candidate), make_patch(candidate), "two-stream", reason)


def make_candidate(identity: int) -> Candidate:
    box = Box((2, 10 * identity, 20), (1, 4, 4))
    mask = np.array([[[1, 1, 2, 2]] * 4], np.uint8)
    return Candidate(identity, identity, box, mask, 0.5 + identity / 20)


def fill(project: Project, *, scored: bool = True) -> None:
    """Ask six queries, answer five, and store latents; with ``scored`` also metrics, one of which is None."""
    reasons = {"stands_for": 3, "distance_to_center": 1.25, "distance_to_answer": None, "probability": 0.75}
    queries = [make_query(i, coarse=i % 2, fine=i, **reasons) for i in range(1, 6)]
    queries.append(Query(make_candidate(6), make_patch(6), "audit", {}, is_audit=True))
    project.ledger.register(0, range(1, 9))
    project.ledger.ask(0, queries)
    kinds = ["true", "nothing", "shape", "swapped", "unsure"]
    for query, kind in zip(project.ledger.open_queries(), kinds, strict=False):
        reason = NASTY if kind == "shape" else ""
        project.ledger.tell(Answer(query.id, AnswerKind(kind), "ada", reason=reason, seconds=4))
    drawing = (Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8))
    project.ledger.tell(Answer(None, AnswerKind.MISSED, "ada", drawing=drawing))
    project.open_round(0)
    candidates = [make_candidate(i) for i in range(1, 9)]
    write_parts([to_table(candidates, task=project.config.task)], project.path(0, "candidates.parquet"))
    np.save(project.path(0, "ids.npy"), np.arange(1, 9))
    for seed, stream in enumerate(("supervised", "unsupervised")):
        latents = np.random.default_rng(seed).normal(size=(8, 5)).astype(np.float32)
        np.save(project.path(0, f"latents_{stream}.npy"), latents)
    project.ledger.finish_step(0, "train", 75.0, {})
    project.ledger.finish_step(0, "predict", 2.5, {})
    if scored:
        store(project, 0, 0, dict.fromkeys(SCORES, 0.25) | {"roi_accuracy": None})
        store(project, 1, 4, dict.fromkeys(SCORES, 0.875))


def store(
    project: Project, round_number: int, num_answers: int, scores: dict[str, float | None], **more: object
) -> None:
    metrics = {"round": round_number, "num_answers": num_answers, "annotation_seconds": 4.0 * num_answers}
    metrics |= {"num_candidates": 8, "num_truth": 5, "scores": scores} | more
    project.ledger.store_score(round_number, metrics)


class Page(HTMLParser):
    """Collects the addresses that a browser would fetch, counts cards, and fails on tags that do not match."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.num_cards = 0
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {k: v or "" for k, v in attrs}
        self.addresses += [values[k] for k in ("src", "href", "xlink:href", "data", "srcset", "action") if k in values]
        self.num_cards += "card" in values.get("class", "").split()
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture
def compared(tmp_path: Path) -> tuple[list[Project], str]:
    projects = [make_project(tmp_path / "a"), make_project(tmp_path / "b", strategy="random")]
    for project in projects:
        fill(project)
    return projects, write_report(projects).read_text()


def test_stands_alone(compared: tuple[list[Project], str], tmp_path: Path) -> None:
    _, text = compared
    page = Page(text)
    assert page.stack == []
    assert "://" not in text
    assert all(a.startswith(("#", "data:")) for a in page.addresses)
    assert all(u.startswith(("#", "data:image/png;base64,")) for u in re.findall(r"url\(['\"]?([^)'\"]*)", text))
    assert "@import" not in text and "<script" not in text


def test_names_no_folder(compared: tuple[list[Project], str], tmp_path: Path) -> None:
    projects, text = compared
    assert "secret" not in text and str(tmp_path) not in text and "/home" not in text
    assert "tissue.h5:volumes/raw" in text and "truth.zarr" in text
    assert (projects[0].root / "report.html").is_file() and not (projects[1].root / "report.html").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_one_card_per_query(compared: tuple[list[Project], str]) -> None:
    projects, text = compared
    assert Page(text).num_cards == sum(len(p.ledger.queries()) for p in projects) == 12
    assert text.count("not answered yet</span>") >= 2
    assert "audit, drawn at random" in text
    for words in ("wrong shape", "sides swapped", "unsure", "presynaptic", "postsynaptic", "stands for 3 candidates"):
        assert words in text


def test_every_score_and_none(compared: tuple[list[Project], str]) -> None:
    _, text = compared
    for name in (*SCORES, *COUNTS):
        assert f"<code>{name}</code>" in text
    assert "<td>–</td>" in text and "<td>0.875</td>" in text
    assert ">None<" not in text and "nan" not in re.findall(r">([^<]*)<", text)
    assert "One seed: an illustration, not evidence." in text
    assert "1 min 15 s" in text and "raw pixels" in text


def test_escapes(compared: tuple[list[Project], str]) -> None:
    assert "alert(" in compared[1] and NASTY not in compared[1]
    assert "&lt;script&gt;" in compared[1]


def test_same_inputs_same_file(compared: tuple[list[Project], str]) -> None:
    projects, text = compared
    assert write_report(projects).read_text() == text


def test_new_project(tmp_path: Path) -> None:
    text = write_report([make_project(tmp_path / "new", task="mitochondria", test_box=False)]).read_text()
    assert Page(text).num_cards == 0
    assert "Nothing has been asked yet." in text and "No round has been scored yet." in text
    assert "<dt>next step of two-stream</dt><dd>train of round 0</dd>" in text and "There is no test box" in text


def test_in_the_middle_of_a_round(tmp_path: Path) -> None:
    project = make_project(tmp_path / "half")
    fill(project, scored=False)
    text = write_report([project]).read_text()
    assert "No round has been scored yet." in text and Page(text).num_cards == 6


def test_audit_in_place_of_a_test_box(tmp_path: Path) -> None:
    project = make_project(tmp_path / "audited", test_box=False)
    audit = {"candidate_accuracy": None, "interval": [0.0, 1.0], "num_audited": 0}
    store(project, 0, 0, {}, audit=audit, num_truth=None)
    store(project, 1, 4, {}, audit={"candidate_accuracy": 0.75, "interval": [0.3, 0.954], "num_audited": 4})
    text = write_report([project]).read_text()
    assert "<td>0.750</td><td>0.30 to 0.95</td><td>4</td>" in text
    assert "<td>–</td><td>0.00 to 1.00</td><td>0</td>" in text


def stopping(**criteria: object) -> dict[str, object]:
    """The part of a round's metrics that holds the criteria for stopping; all None unless given."""
    nothing = {"learned": True, "num_pool": 8, "num_shared": 7, "agreement": None, "audited": None, "expected": None}
    return {"stopping": nothing | criteria}


def test_criteria_for_stopping(tmp_path: Path) -> None:
    projects = [make_project(tmp_path / "a"), make_project(tmp_path / "b", strategy="random")]
    belief = {"value": 0.9, "low": 0.8, "high": 0.95, "num": 6}
    store(projects[0], 0, 0, {})
    for done, agreement in enumerate((-0.25, 1.0, 1.0, 0.996), start=1):
        store(projects[0], done, 4 * done, {}, **stopping(agreement=agreement, expected=belief))
    store(projects[1], 1, 4, {}, **stopping(num_shared=3))
    text = write_report(projects).read_text()
    assert Page(text).stack == []
    section = text[text.index("<h2>When to stop</h2>") : text.index("<h2>What was asked</h2>")]
    assert "There are no audits, so this share is not measured" in section and "labels right, audited" not in section
    assert '<td>-0.250</td><td>7 of 8</td><td>–</td><td class="left">go on</td>' in section
    assert '<td>0.996</td><td>7 of 8</td><td>0.999</td><td class="left">may stop</td>' in section
    assert '<td title="which knew 3 of 8 candidates">–</td><td>3 of 8</td>' in section
    assert section.count("0.900 (0.800 to 0.950) of 6") == 4
    assert 'aria-label="agreement with the round before against answers"' in section


def test_audits_as_a_criterion_for_stopping(tmp_path: Path) -> None:
    project = make_project(tmp_path / "audited", test_box=False)
    audit = {"value": 0.99, "low": 0.96, "high": 1.0, "num": 90}
    store(project, 1, 4, {}, audit={"candidate_accuracy": 0.5, "interval": [0, 1], "num_audited": 90},
          **stopping(audited=audit))  # fmt: skip
    text = write_report([project]).read_text()
    assert '0.990 (0.960 to 1.000) of 90</td><td class="left">may stop</td>' in text
    assert "There are no audits, so this share is not measured" not in text


def test_metrics_of_an_older_version_have_no_criteria_for_stopping(compared: tuple[list[Project], str]) -> None:
    assert "When to stop" not in compared[1]


def test_no_projects() -> None:
    with pytest.raises(ProjectError, match="at least one"):
        write_report([])


def test_numbers() -> None:
    assert [formatted(v, 2) for v in (None, float("nan"), 0.5)] == ["–", "–", "0.50"]
    seconds = (None, 0, 2.5, 9.99, 75, 3725)
    assert [duration(v) for v in seconds] == ["–", "0 s", "2.5 s", "10 s", "1 min 15 s", "1 h 02 min"]


def test_order_is_by_cluster_then_as_asked() -> None:
    queries = [make_query(1), make_query(2, coarse=1, fine=0), make_query(3, coarse=0, fine=-1)]
    queries += [make_query(4, coarse=0, fine=2), make_query(5)]
    assert [q.candidate.id for q in by_cluster(queries)] == [4, 3, 2, 1, 5]


def test_reasons_in_words() -> None:
    by_chance = {"coarse": -1, "fine": -1, "stands_for": 1, "distance_to_center": None, "distance_to_answer": None}
    assert reason_words(by_chance | {"probability": 0.5}) == ["scorer's probability 0.50"]
    first = make_query(1, **by_chance)
    assert (card(first, [])["group"], card(first, [])["cluster"]) == ("drawn at random", "")
    assert reason_words({"stands_for": 1, "distance_to_center": None}) == ["stands for 1 candidate"]
    assert reason_words({"covers": 3, "distance": None}) == [
        "covers 3 candidates",
        "no other was answered or chosen before",
    ]
    assert reason_words({"by_class": True, "one_minus_margin": 0.25}) == ["by class: True", "one minus margin: 0.250"]
    assert [q.candidate.id for q in by_cluster([first, make_query(2, coarse=0, fine=0)])] == [2, 1]


def test_kind_of_several_answers() -> None:
    say = lambda kind, **more: Answer(1, AnswerKind(kind), "x", **more)  # noqa: E731
    assert style_name([]) == "open"
    assert style_name([say("true"), say("skipped")]) == "true"
    assert style_name([say("true"), say("nothing")]) == "disagree"
    assert style_name([say("true"), say("nothing"), say("shape", adjudicates=True)]) == "shape"


def test_kinds_of_answers_that_another_package_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEANING, "blurred", Meaning(float("nan"), "", in_budget=True))
    project = make_project(tmp_path / "a")
    fill(project)
    project.ledger.tell(Answer(project.ledger.queries()[4].id, "blurred", "bob", adjudicates=True))
    text = write_report([project]).read_text()
    assert '<span class="tone kind-blurred">◈&nbsp;1 blurred</span>' in text
    assert ".kind-blurred { --tone: var(--answer-other); }" in text and "fill: var(--answer-other)" in text


def test_asked_candidates_are_always_drawn() -> None:
    rows = rows_to_draw(np.arange(1, 100_001), [77, 5003, 200_000])
    assert {76, 5002} <= set(rows.tolist()) and len(rows) <= 2002


def test_principal_plane_is_the_direction_of_spread() -> None:
    t = np.linspace(-1, 1, 9)
    points, share = principal_plane(np.stack([t, -3 * t, np.full(9, 7.0)], 1))
    assert share == pytest.approx(1) and np.allclose(points[:, 1], 0)
    assert np.allclose(np.abs(np.corrcoef(points[:, 0], t)[0, 1]), 1)
    for degenerate in (np.zeros((0, 4)), np.ones((1, 4)), np.ones((5, 4)), np.arange(3.0)[:, None]):
        places, _ = principal_plane(degenerate)
        assert places.shape == (len(degenerate), 2) and np.isfinite(places).all()


def test_score_levels_cover_the_range() -> None:
    level, edges = score_levels(np.array([0.5, 0.74, 0.75, 1.0]))
    assert level.tolist() == [0, 2, 2, 4] and edges[0] == 0.5 and edges[-1] == 1.0
    assert score_levels(np.zeros(0))[0].shape == (0,)


def test_mask_path_follows_the_pixels() -> None:
    mask = np.zeros((8, 8), bool)
    assert mask_path(mask) == ""
    mask[2:5, 3:7] = True
    corners = np.array([float(v) for v in re.findall(r"[\d.]+", mask_path(mask))]).reshape(-1, 2)
    assert np.allclose(corners.min(0), (3, 2), atol=0.13) and np.allclose(corners.max(0), (7, 5), atol=0.13)


def test_masks_have_the_same_colours_in_the_report_and_in_pictures() -> None:
    style = resources.files("twostream.report").joinpath("templates/style.css").read_text()
    for name, colour in COLOURS.items():
        assert f"--{name}: {colour};" in style


def test_the_score_table_of_the_demonstration_fits_into_80_columns(make_project, monkeypatch, capsys):
    from twostream.demo import SCORE_COLUMNS, _print_scores

    monkeypatch.setenv("COLUMNS", "80")
    project = make_project()
    project.ledger.store_score(
        0, {"round": 0, "num_answers": 7, "scores": dict.fromkeys([*SCORE_COLUMNS, "mean_iou"], 0.25)}
    )
    _print_scores([project])
    text = capsys.readouterr().out
    assert text.count("0.25") == len(SCORE_COLUMNS) and "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_gains_show_the_first_and_the_last_round_and_a_control_learns_no_answer() -> None:
    def rounds(*values):
        return {
            r: {"num_answers": 5 * r, "scores": {"curated_accuracy": value, "instance_f1": value / 2}}
            for r, value in enumerate(values)
        }

    metrics, controls = [rounds(0.5, 0.7, 0.9), rounds(0.5, 0.8)], [False, True]
    found = gains(metrics, controls)
    assert [(row.title, row.before, row.after) for row in found] == [
        ("curated pool", "0.50", ("0.90", "0.50")),
        ("S: instance F1", "0.25", ("0.45", "0.40")),
    ]
    assert num_answers(metrics, controls) == ["10", "0"]
    assert gains([rounds(0.5)], [False]) == [] and gains([{}], [False]) == []


def test_a_project_with_another_s_of_round_0_is_not_set_beside_the_first() -> None:
    def rounds(pool, f1):
        return {0: {"num_answers": 0, "scores": {"curated_accuracy": pool, "instance_f1": f1}}}

    assert sharing_round_0([rounds(0.5, 0.4), rounds(0.6, 0.4), rounds(0.5, 0.3), {}]) == [0, 1]
    assert sharing_round_0([]) == [] and sharing_round_0([{}]) == [0]


def test_what_became_of_a_refit_is_said_with_its_errors() -> None:
    judged = {
        "outcome": "blended", "share": 0.5, "errors": {"0.0": 0.3, "0.5": 0.2, "1.0": 0.4},
        "chances": {"0.0": 0.05, "0.5": 0.0, "1.0": 0.06}, "num_held_out": 12, "num_validation_objects": 6,
    }  # fmt: skip
    said = refit_sentence({"refit": judged})
    assert "blended with the one before (a share of 0.5)" in said and "error 0.400" in said and "before 0.300" in said
    assert "blended 0.2000; chance alone may make differences of 0.0600" in said and "12 answers and 6 objects" in said
    taken = judged | {"outcome": "accepted", "share": 1.0, "chances": {"0.0": 0.05, "0.5": 0.01, "1.0": 0.0}}
    assert "before 0.3000; chance alone may make differences of 0.0500" in refit_sentence({"refit": taken})
    assert refit_sentence({}) == ""
    unknown = refit_sentence({"refit": judged | {"outcome": "kept", "share": 0.0, "errors": {}, "chances": {}}})
    assert (
        "nothing to judge it by (no validation box, and fewer than two answers of one kind, true or nothing)" in unknown
    )
    rows = refit_rows(["a"], [{0: {}, 1: {"refit": judged}}])
    assert [(row["round"], row["text"]) for row in rows] == [(1, said)]


def test_the_report_and_the_docs_name_the_error_by_which_a_refit_is_judged() -> None:
    """The report once called it a squared error, which the judge had given up."""
    here = Path(__file__).parent.parent
    for path in ("src/twostream/report/templates/report.html", "docs/segmentation.md"):
        text = (here / path).read_text().replace("−", "-")
        assert "1 - AUC" in text and "1 - Dice" in text and "mean squared error on answers" not in text
