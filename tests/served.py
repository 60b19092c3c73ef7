"""A project that waits for answers, its server in a process of its own, and a real browser, for tests of the page."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays

from twostream.project.create import create_project
from twostream.project.project import Project
from twostream.volume import create_volume

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from common.browser import CHROMIUM, NO_CHROMIUM, has_browser
from common.serving import Served

SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
"""For Neuroglancer, on machines without a GPU."""
BUDGET = 24
needs_browser = pytest.mark.skipif(not has_browser(), reason=NO_CHROMIUM)


def make_queue(
    folder: Path, budget: int = BUDGET, level: np.ndarray | None = None, overrides: tuple[str, ...] = ()
) -> Project:
    """A project of mitochondria whose queries of round 0 wait for answers; a probability stands in the place of S.

    ``level`` is another probability, (Z, Y, X) uint8; ``overrides`` are settings, ``KEY=VALUE``.
    """
    from twostream.rounds.loop import run

    grey, truth = toy_arrays()
    like = {"shape_zyx": SHAPE_ZYX, "dtype": np.uint8, "voxel_size_nm": VOXEL_SIZE_NM}
    level = np.where(grey > 115, 220, 5).astype(np.uint8) if level is None else level
    for name, values in (("em", grey), ("theirs", level)):
        volume = create_volume(str(folder / f"{name}.zarr"), **like)
        volume.write(volume.box, values)
    labels = create_volume(str(folder / "truth.zarr"), **like | {"dtype": np.uint16})
    labels.write(labels.box, truth)
    project = create_project(
        folder / "queue", task="mitochondria", image=str(folder / "em.zarr"), probability=str(folder / "theirs.zarr"),
        test_box=TEST_BOX, budget=budget, overrides=(*TINY, "query.audit_share=0", *overrides),
    )  # fmt: skip
    run(project, rounds=1)
    project.ledger.close()
    return Project(project.root)


def until(page, expression: str, seconds: float = 30.0):
    """Wait until an expression is true in the page, and return it. ``wait_for_function`` needs eval, which the page's
    policy forbids."""
    end = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < end, f"{expression} did not become true; the page: {state_of(page)}"
        page.wait_for_timeout(20)
    return value


def state_of(page) -> object:
    """What the page shows and holds, for the message of a test that waited in vain."""
    return page.evaluate("""({
        unsent: document.getElementById('unsent')?.textContent,
        message: document.getElementById('message')?.textContent,
        kept: window.twostream?.outbox.unsent().map(({ drawing, ...entry }) => entry),
        outbox: window.twostream?.outbox.state,
        current: window.twostream?.queue.current?.query.id,
        onScreen: window.twostream?.focus.onScreen?.query.id,
        hasFocus: document.hasFocus(),
        active: document.activeElement?.outerHTML.slice(0, 200),
    })""")


def set_proofreading(project: Project, **values: float) -> None:
    """Change settings of the page; a server that is started afterwards has them."""
    path = project.root / "twostream.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["proofreading"] = (settings.get("proofreading") or {}) | values
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


def answers(served: Served) -> dict[int | None, str]:
    """{query: kind, or kind/reason} of the current answers in the ledger."""
    current = served.project.ledger.current_answers()
    return {a.query: f"{a.kind}/{a.reason}" if a.reason else str(a.kind) for a in current}


def shown(page) -> int:
    """Id of the query in the focus view, as soon as its picture is on the screen."""
    until(page, "twostream.focus.onScreen && twostream.focus.onScreen === twostream.queue.current")
    return int(page.evaluate("twostream.focus.onScreen.query.id"))


def decide(page, key: str) -> int:
    """Decide by a key about the candidate on the screen, wait until the page has gone on, and return its query."""
    query = shown(page)
    page.keyboard.press(key)
    until(page, f"twostream.queue.current?.query.id !== {query}")
    return query


def go_to_gallery(page) -> list[int]:
    """Ids of the queries on the gallery's page, as soon as their pictures are on the screen."""
    page.keyboard.press("g")
    page.wait_for_selector("#view-gallery:visible")
    until(page, "twostream.gallery.items.length > 0 && twostream.gallery.isReady")
    return page.evaluate("twostream.gallery.items.map((item) => item.query.id)")


@pytest.fixture(scope="session")
def queue_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project whose queries wait, with its volumes beside it. Copy it before you change it."""
    return make_queue(tmp_path_factory.mktemp("served")).root.parent


@pytest.fixture
def queue_project(queue_template: Path, tmp_path: Path) -> Project:
    """A copy of the project whose queries wait for answers."""
    shutil.copytree(queue_template, tmp_path / "served")
    return Project(tmp_path / "served" / "queue")


@pytest.fixture
def serve(queue_project: Project) -> Iterator[object]:
    """Function that serves ``queue_project``; arguments are options of ``twostream serve``."""
    started: list[Served] = []

    def start(*options: str, root: Path | None = None) -> Served:
        queue_project.ledger.close()
        started.append(Served(root or queue_project.root, options).start())
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A real browser, without a window. All tests of a process share it: Playwright can be started only once."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE_WEBGL])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, serve):
    """Function that opens the page and signs in: (served, name) -> page. An error of a script fails the test."""
    contexts, errors = [], []

    def open_(served: Served, name: str = "", **settings):
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.links[name])
        page.click("button[type=submit]")
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def show(site, open_page):
    """Function that serves ``queue_project`` in this process and opens the page: (width, height) -> (site, page).
    Further arguments are those of a browser's context, and ``serving``, those of ``site``."""

    def show_(width: int = 1280, height: int = 800, serving: dict | None = None, **settings):
        served = site(**(serving or {}))
        served.links = {"": f"{served.address}#name=ann&token={served.security.token('')}"}
        page = open_page(served, **settings)
        page.set_viewport_size({"width": width, "height": height})
        return served, page

    return show_
