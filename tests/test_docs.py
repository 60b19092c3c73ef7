"""The pages say what is so: rooms, files and links in them exist, their code runs (extending.md: test_extending.py)."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "twostream"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}


def floors_of_the_contract():
    """Rooms of every floor, from the ground up, as import-linter checks them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    return [{room.strip() for room in re.split("[|:]", layer)} for layer in reversed(layers)]


def tables_of_the_tour():
    """{room: files of its tables, as paths below src/twostream}."""
    found = {}
    for title, text in re.findall(r"^#{3,4} (.*)\n((?:(?!#).*\n)*)", PAGES["tour.md"], re.MULTILINE):
        rooms = re.findall(r"`(\w+)/`", title)
        files = re.findall(r"^\| `([\w/]+\.py)` \| \S", text, re.MULTILINE)
        assert len(rooms) == 1 or not files, f"the table below {title!r} belongs to no room"
        for room in rooms[:1] if files else []:
            found[room] = [f"{room}/{name}" for name in files]
    return found


def test_readme_has_the_rooms_of_the_contract_in_the_order_of_their_floors():
    tree = re.search(r"^    src/twostream/\n((?:      .*\n)+)", PAGES["README.md"], re.MULTILINE)[1]
    rooms = re.findall(r"^      (\w+)(?:/|\.py) +\S", tree, re.MULTILINE)
    assert len(rooms) == len(tree.splitlines()), "every line of the tree is a room and a remark"
    for floor in floors_of_the_contract():
        assert set(rooms[: len(floor)]) == floor
        rooms = rooms[len(floor) :]
    assert not rooms


def test_the_tour_has_the_rooms_of_the_contract_on_their_floors():
    titles = re.findall(r"^### Floor (\d+): (.*)$", PAGES["tour.md"], re.MULTILINE)
    assert [int(number) for number, _ in titles] == list(range(1, len(titles) + 1))
    floors = [set(re.findall(r"`(\w+)(?:/|\.py)`", rooms)) for _, rooms in titles]
    assert floors == floors_of_the_contract()


def test_the_tour_names_every_file_once():
    told = [name for names in tables_of_the_tour().values() for name in names]
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/**/*.py") if path.stem != "__init__"}
    assert len(set(told)) == len(told)
    assert (set(told) - there, there - set(told)) == (set(), set())  # told and not there; there and not told


def test_the_tour_names_every_script_once():
    told = re.findall(r"^\| `(\w+\.js)` \|", PAGES["tour.md"], re.MULTILINE)
    assert sorted(told) == sorted(path.name for path in (PACKAGE / "web" / "static").glob("*.js"))


@pytest.mark.parametrize("page", ["paper.md", "tour.md", "input.md"])
def test_every_file_and_test_that_is_named_exists(page):
    text = re.sub(r"^\| `[\w/]+\.py` \|", "", PAGES[page], flags=re.MULTILINE)  # these have a test of their own
    named = re.findall(r"`([\w./-]+\.(?:py|toml|png|md|txt))(?:::(\w+))?`", text)
    assert named
    for name, test in named:
        places = [place / name for place in (ROOT, PACKAGE, ROOT / "tests") if (place / name).is_file()]
        assert places, f"{page} names {name}, which is neither in the checkout nor in src/twostream nor in tests"
        assert not test or f"def {test}(" in places[0].read_text(encoding="utf-8"), f"{name} has no {test}"


def test_every_link_leads_somewhere():
    def anchors(text):
        titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}

    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            file = folder / path if path else folder / page
            assert file.is_file(), f"{page} links to {target}"
            assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{page} links to {target}"


@pytest.mark.parametrize("page", ["README.md", "contracts.md"])
def test_the_python_of_a_page_runs_as_it_stands(page):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    names = {}
    exec(compile(code, page, "exec"), names)
    assert len(set(names["rows"].tolist())) == len(names["rows"]) > 0


def test_nothing_refers_to_documents_that_are_not_here():
    names = "METHOD", "CONTRACTS", "HOUSE", "PEERS", "PROSE"
    elsewhere = re.compile(rf"\b(?:{'|'.join(names)})\b|\b(?:SEED|MODELS)\.md|design notes")
    sources = [path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    texts = PAGES | {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in [*sources, ROOT / "Makefile", ROOT / "pyproject.toml"]
        if path != Path(__file__)
    }
    assert not {name: found[0] for name, text in texts.items() if (found := elsewhere.search(text))}
