"""Benchmarks share one package, and every table of results is made from the committed rows."""

import argparse
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))
sys.path.insert(0, str(BENCHMARKS))

from common import report, results  # noqa: E402


def row(measure="f1", number=0.5, unit="F1", spread=None, **settings):
    return {
        "name": f"bench.{measure}", "number": number, "unit": unit, "spread": spread, "group": "g", "settings": settings
    }  # fmt: skip


@pytest.fixture
def collected(tmp_path):
    """Results that are appended to a file."""
    options = argparse.Namespace(rows=tmp_path / "rows.jsonl", group=None, full=False)
    return results.Results("bench", options)


DATA = results.Data("noise", "default_rng(0)")

# -- the committed rows and tables ------------------------------------------------------------------------------------


def test_every_committed_row_has_every_key():
    rows = [r for path in sorted(results.FOLDER.glob("*.jsonl")) for r in results.read(path)]
    assert len(rows) > 1000
    for r in rows:
        assert tuple(r) == results.KEYS
        assert r["number"] is not None or r["spread"] is not None, r
        assert (r["spread"] is None) == (r["spread_is"] is None), r
        assert r["source"] in ("measured", "LOG"), r
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", r["date"]), r
        if r["source"] == "measured":
            assert None not in (r["data"], r["data_hash"], r["commit"], r["machine"], r["command"]), r


@pytest.mark.parametrize("path", report.texts(), ids=lambda path: path.name)
def test_committed_tables_are_those_of_the_rows(path):
    text = path.read_text(encoding="utf-8")
    assert report.filled(text, report.all_rows()) == text, "run `make bench-report`"


def test_every_group_of_rows_is_shown_and_every_marker_is_closed():
    texts = [path.read_text(encoding="utf-8") for path in report.texts()]
    shown = {name for text in texts for name in report.names_in(text)}
    assert shown == set(report.all_rows())
    assert sum(text.count("<!-- results:") for text in texts) == sum(len(report.names_in(text)) for text in texts)


def test_every_table_of_the_log_is_generated():
    rest = report.MARKED.sub("", (ROOT / "LOG.md").read_text(encoding="utf-8"))
    assert not [line for line in rest.splitlines() if line.startswith("|")]


def test_every_experiment_of_the_log_has_a_dated_heading_newest_first():
    headings = re.findall(r"^## (.*)", (ROOT / "LOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    dates = [re.match(r"(\d{4}-\d\d-\d\d) · \S", heading)[1] for heading in headings]
    assert dates == sorted(dates, reverse=True) and len(dates) > 50


def test_commands_of_the_log_are_known_to_the_benchmarks():
    commands = re.findall(r"python (benchmarks/\S+\.py)((?: [^`\n]*)?)", (ROOT / "LOG.md").read_text(encoding="utf-8"))
    assert len(commands) > 20
    for script, words in commands:
        source = (ROOT / script).read_text() + "".join(p.read_text() for p in (BENCHMARKS / "common").glob("*.py"))
        for option in re.findall(r"(?<= )--[\w-]+", words):
            assert f'"{option}"' in source, f"{script} has no {option}"


# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_every_setting_and_joins_arms_and_repetitions():
    rows = [row(number=n, set=s, arm=a, threads=2) for s, a, n in [("x", "a", 0.5), ("x", "b", 0.25), ("y", "b", 1)]]
    rows += [row("seconds", n, "s", set="x", repetition=i) for i, n in enumerate([1.5, 2])]
    assert report.table(rows).splitlines() == [
        "| set | threads | F1: a / b | seconds (s) |",
        "| --- | --- | --- | --- |",
        "| x | 2 | 0.50 / 0.25 |  |",
        "| y | 2 | - / 1.00 |  |",
        "| x |  |  | 1.5, 2.0 |",
    ]


def test_spreads_counts_and_differences_are_written_as_such():
    rows = [
        row("f1_gain", 0.12, "F1 difference", [0.092, 0.15]), row("better", 19, "of 20"),
        row("right", None, "share", [0.9, 1]), row("memory", 1768, "MB"),
    ]  # fmt: skip
    assert report.table(rows).splitlines()[-1] == "| +0.120 [+0.092, +0.150] | 19 of 20 | 0.9 to 1.0 | 1,768 |"


def test_rows_that_nothing_tells_apart_are_refused():
    with pytest.raises(ValueError, match="has two rows for"):
        report.table([row(set="x"), row(set="x")])


def test_a_table_without_rows_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        report.filled("<!-- results: nothing -->\n<!-- end -->", {})


def test_only_what_stands_between_the_markers_changes():
    text = "before\n<!-- results: g -->\nold\n<!-- end -->\nafter"
    filled = report.filled(text, {"g": [row()]})
    assert filled == "before\n<!-- results: g -->\n\n| F1 |\n| --- |\n| 0.5 |\n<!-- end -->\nafter"
    assert report.filled(filled, {"g": [row()]}) == filled


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_result_is_printed_and_appended_as_one_json_line(collected, capsys):
    collected.add("seconds", 1.23456, "s", data=DATA, spread=[1, 1.5], spread_is="range over 2 repetitions", way="fast")
    (line,) = collected.path.read_text().splitlines()
    assert capsys.readouterr().out == line + "\n"
    found = json.loads(line)
    assert tuple(found) == results.KEYS
    assert (found["name"], found["number"], found["spread"]) == ("bench.seconds", 1.2346, [1, 1.5])
    assert (found["data"], found["data_hash"], found["settings"]) == ("noise", "default_rng(0)", {"way": "fast"})
    assert found["group"] == "bench (quick)"
    assert found["commit"] == results.commit() and re.search(r"\d cores", found["machine"])


def test_a_spread_without_a_meaning_is_refused(collected):
    with pytest.raises(ValueError, match="give both or neither"):
        collected.add("seconds", 1.0, "s", data=DATA, spread=[0, 2])


def test_results_of_an_earlier_run_are_found(collected, tmp_path):
    collected.add("f1", 0.5, "F1", data=DATA, seed=3, arm="answers")
    again = results.Results("bench", argparse.Namespace(rows=collected.path, group=None, full=False))
    assert [r["number"] for r in again.find("f1", seed=3)] == [0.5]
    assert not again.find("f1", seed=4) and not again.find("ap", seed=3)


def test_paired_differences_have_the_interval_of_a_paired_t_test(collected):
    better, base = [0.5, 0.75, 0.6, 0.7], [0.4, 0.5, 0.65, 0.3]
    collected.differences("f1", better, base, "F1", data=DATA)
    gain, count = collected.find("f1_gain") + collected.find("f1_seeds_better")
    interval = stats.ttest_rel(better, base).confidence_interval(0.95)
    np.testing.assert_allclose(gain["spread"], [interval.low, interval.high], rtol=1e-3)
    assert gain["number"] == pytest.approx(0.175) and gain["unit"] == "F1 difference"
    assert (count["number"], count["unit"]) == (3, "of 4")


def test_one_seed_has_no_interval(collected):
    collected.differences("f1", [0.5], [0.4], "F1", data=DATA)
    assert collected.find("f1_gain")[0]["spread"] is None


@pytest.mark.parametrize(
    ("number", "stored"), [(0.123456, 0.12346), (101173.4, 101170), (3, 3), (np.nan, None), (2.0, 2)]
)
def test_numbers_are_stored_with_five_digits(number, stored):
    found = results.rounded(number)
    assert found == stored and type(found) is type(stored)


def test_a_real_set_is_known_by_its_content(tmp_path):
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    one.write_bytes(b"abc")
    two.write_bytes(b"abd")
    assert results.file_data(one).hash == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert results.file_data(two).hash != results.file_data(one).hash


# -- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_benchmark_imports_the_shared_package_and_no_benchmark(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    modules |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert "common" in modules
    assert not modules & {other.stem for other in SCRIPTS}


def test_a_benchmark_keeps_its_rows_where_it_is_told_to(tmp_path):
    path = tmp_path / "rows.jsonl"
    command = [sys.executable, BENCHMARKS / "synthetic_baseline.py", "--rows", path]
    command += ["--seeds", "2", "--shape", "8", "96", "96", "--sigmas-nm", "32"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == path.read_text().splitlines()
    found = list(results.read(path))
    assert [r["name"].split(".")[1] for r in found] == ["f1", "f1", "seconds"]
    assert {r["data_hash"] for r in found} == {"synthetic://seed=2&shape=8,96,96"}
    assert all(0 <= r["number"] <= 1 for r in found[:2])


def test_real_sets_need_their_folder():
    command = [sys.executable, BENCHMARKS / "segmentation_quality.py", "--sets", "fafb"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "--sets names fafb; give the folder of the real sets with --data." in done.stderr


# -- tables and plots of `twostream bench efficiency` ------------------------------------------------------------------


@pytest.fixture
def efficiency(tmp_path, monkeypatch):
    """The module, with rows of two strategies in a folder of its own."""
    from common import efficiency
    from test_bench import run_of

    rows = [
        row
        for seed in range(4)
        for name, v in (("random", 0.5), ("look-ahead", 0.7))
        for row in run_of(name, seed, (v, v))
    ]
    rows += run_of(batch_size=9)
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(efficiency, "ROWS", tmp_path)
    monkeypatch.setattr(efficiency, "IMAGES", tmp_path)
    return efficiency


def test_tables_of_strategies_are_made_from_the_rows(efficiency):
    text = "before\n<!-- efficiency: toy accuracy -->\n\nold\n\n<!-- end -->\nafter"
    found = efficiency.filled(text)
    assert "s: 2 batches of 5; the scorer learns" in found and "s: 2 batches of 9" in found and "old" not in found
    assert "| look-ahead | 4 | 0.700 | +0.200 [+0.200, +0.200] |" in found
    assert "| look-ahead | 100% |  |" in found and "| random |  | 0% |" in found
    assert found.startswith("before\n<!-- efficiency") and found.endswith("<!-- end -->\nafter")
    assert efficiency.filled(found) == found and efficiency.names_in(found) == [("toy", "accuracy")]


def test_the_same_rows_give_the_same_plot(efficiency):
    first = efficiency.plot("toy", "accuracy").read_bytes()
    assert efficiency.plot("toy", "accuracy").read_bytes() == first and b"<svg" in first
