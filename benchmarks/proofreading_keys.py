"""How fast can a person go who answers by keyboard alone, and how long do they wait for the next picture?

Chromium opens the page of a generated project and answers queries in the focus view, one key each. Each key is pressed
as soon as the next picture shows, or after a pause in which a person would look. What the page says itself
(``twostream.timings``: from the deciding key to the next candidate on the screen) stands beside what an observer sees,
who compares the pixels of the large canvas in each frame. Spreads are the median and the 95th percentile.

    python benchmarks/proofreading_keys.py
    python benchmarks/proofreading_keys.py --full --cache /tmp/projects
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import options as common_options
from common.browser import CHROMIUM, NO_CHROMIUM, has_browser
from common.results import Data, Results
from common.serving import Served, Size, cached_project

from twostream.project.project import Project

QUICK = Size(400, 0, 400, (64, 512, 512), (32, 128, 128))
FULL = Size(20_000, 0, 14_000, (512, 1408, 1536), (64, 256, 256))
KEYS = "tnu"
"""True, nothing there, unsure: pressed in turns."""
OBSERVE = """() => {
  const canvas = [...document.querySelectorAll("#viewer canvas")]
    .reduce((a, b) => (a.width * a.height >= b.width * b.height ? a : b));
  const look = () => {
    const { width, height } = canvas;
    const side = Math.min(96, width, height);
    const pixels = canvas.getContext("2d").getImageData((width - side) >> 1, (height - side) >> 1, side, side).data;
    let sum = 0;
    for (let i = 0; i < pixels.length; i += 4) sum = (Math.imul(sum, 31) + pixels[i]) | 0;
    return sum;
  };
  const found = { keys: 0, seen: [], shown: 0 };
  addEventListener("keydown", () => {
    found.keys += 1;
    const pressed = performance.now();
    const before = look();
    const wait = () => {
      if (look() === before) return requestAnimationFrame(wait);
      found.seen.push(performance.now() - pressed);
    };
    requestAnimationFrame(wait);
  }, { capture: true });
  window.observed = found;
}"""
NEXT = """(number) => new Promise((resolve) => {
  const wait = () => (twostream.timings.length >= number && observed.seen.length >= number
    ? resolve() : requestAnimationFrame(wait));
  wait();
})"""
"""Resolved when both have seen the picture after the decision with a number."""


def answer(page: Any, number: int, pause: float) -> dict[str, Any]:
    """Answer ``number`` queries by keyboard; milliseconds as the page and as the observer have them, and seconds."""
    page.evaluate(OBSERVE)
    page.evaluate("twostream.timings.length = 0")
    start = time.perf_counter()
    for i in range(number):
        page.wait_for_timeout(1000 * pause)
        page.keyboard.press(KEYS[i % len(KEYS)])
        page.evaluate(NEXT, i + 1)
    seconds = time.perf_counter() - start
    found: dict[str, Any] = page.evaluate("({ ...observed, timings: twostream.timings })")
    return found | {"seconds": seconds}


def measure(results: Results, browser: Any, root: Path, data: Data, number: int, pause: float) -> None:
    """Rows of one pause."""
    server = Served(root).start()
    try:
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(server.links[""])
        page.click("button[type=submit]")
        page.wait_for_selector("body[data-ready]")
        found = answer(page, number, pause)
        page.context.close()
    finally:
        server.stop()
    project = Project(root)
    recorded = len(project.ledger.current_answers())
    project.ledger.close()
    settings = {"queries": number, "pause_s": pause}
    results.add("recorded", recorded, "decisions", data=data, **settings)
    results.add("keystrokes_per_decision", found["keys"] / recorded, "keys", data=data, **settings)
    results.add("decisions_per_minute", 60 * number / found["seconds"], "1/min", data=data, **settings)
    for name, values in (("page", found["timings"]), ("observer", found["seen"])):
        middle, high, top = np.percentile(values, [50, 95, 99])
        results.add(f"{name}_p50_ms", middle, "ms", data=data, **settings)
        results.add(f"{name}_p95_ms", high, "ms", data=data, **settings)
        results.add(f"{name}_p99_ms", top, "ms", data=data, **settings)
    results.add("load_average", os.getloadavg()[0], "processes", data=data, **settings)


def main() -> None:
    parser = common_options.parser(__doc__ or "")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--pauses", type=float, nargs="+", default=[0.0], help="seconds before each key")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps generated projects (1 GB with --full)")
    options = common_options.parse(parser, {"queries": 200, "pauses": [0.0, 0.5]})
    if not has_browser():
        print(NO_CHROMIUM)
        return
    from playwright.sync_api import sync_playwright

    results, size = Results("proofreading_keys", options), FULL if options.full else QUICK
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        folder = cached_project(options.cache or Path(scratch), size)
        for pause in options.pauses:
            if results.find("load_average", queries=options.queries, pause_s=pause):
                continue
            copy = folder / "copy_keys"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder / "project", copy)
            measure(results, browser, copy, size.data, options.queries, pause)
            shutil.rmtree(copy)
        browser.close()


if __name__ == "__main__":
    main()
