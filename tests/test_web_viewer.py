"""The viewer's canvases in a real browser: every voxel, outline and length where it belongs.

A small page serves as harness: a volume of one grey value with a few bright voxels at asymmetric places. The expected
pixels are computed here from the voxel size and the zoom, not asked of the viewer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from served import needs_browser

import twostream

STATIC = Path(twostream.__file__).parent / "web" / "static"
pytestmark = needs_browser

PRE, POST, SINGLE = (255, 159, 28), (53, 167, 255), (255, 210, 63)
GREY, BRIGHT = 60, 250
SHAPE = (40, 300, 400)
VOXEL = (17, 101, 153)
VIEW = {"offset": [8, 50, 70], "shape": [24, 128, 160]}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"

PAGE = """<!doctype html><meta charset="utf-8"><title>harness</title>
<link rel="stylesheet" href="/static/viewer.css"><link rel="stylesheet" href="/harness.css">
<div id="viewer"></div><script type="module" src="/harness.js"></script>"""
STYLE = "body { margin: 0 } #viewer { width: 903px; height: 600px }"
SCRIPT = """
import {Block} from "/static/block.js";
import {Viewer} from "/static/viewer.js";

/** The values of a box, every stride-th of them. */
function sample({offset, shape}, stride, value, Kind) {
  const size = shape.map((n, i) => Math.ceil(n / stride[i]));
  const data = new Kind(size[0] * size[1] * size[2]);
  let at = 0;
  for (let z = 0; z < size[0]; z++) for (let y = 0; y < size[1]; y++) for (let x = 0; x < size[2]; x++)
    data[at++] = value(offset[0] + z * stride[0], offset[1] + y * stride[1], offset[2] + x * stride[2]);
  return new Block({offset, shape, stride, data});
}
const inside = ([z0, y0, x0, z1, y1, x1], z, y, x) => z >= z0 && z < z1 && y >= y0 && y < y1 && x >= x0 && x < x1;

window.make = ({voxelSize, shape, numSides, bright = [], labels = [], hold = false}) => {
  const image = (z, y, x) => bright.some((box) => inside(box, z, y, x)) ? 250 : 60;
  const label = (z, y, x) => labels.find(([box]) => inside(box, z, y, x))?.[1] ?? 0;
  window.requests = [];
  window.release = () => {};
  const held = hold ? new Promise((resolve) => { window.release = resolve; }) : null;
  const load = async (kind, box, stride, signal) => {
    const request = {kind, ...box, stride, aborted: false};
    window.requests.push(request);
    signal.addEventListener("abort", () => { request.aborted = true; });
    await held;
    if (box.offset.some((from, i) => from < 0 || from + box.shape[i] > shape[i])) throw new Error("outside the volume");
    return kind === "image" ? sample(box, stride, image, Uint8Array) : sample(box, stride, label, Uint32Array);
  };
  window.viewer = new Viewer(document.getElementById("viewer"), {
    voxelSize, shape, numSides, loadImage: (box, stride, signal) => load("image", box, stride, signal),
    loadLabels: (box, signal) => load("labels", box, [1, 1, 1], signal),
  });
  window.block = (box) => sample(box, [1, 1, 1], image, Uint8Array);
};
/** A mask from boxes: [[z0, y0, x0, z1, y1, x1], value]. */
window.maskOf = (offset, shape, parts) => ({offset, shape, data: sample({offset, shape}, [1, 1, 1],
  (z, y, x) => parts.find(([box]) => inside(box, z, y, x))?.[1] ?? 0, Uint8Array).data});
const canvas = (plane) => document.querySelector(`.viewer-${plane}`);
window.sizes = () => Object.fromEntries(["xy", "xz", "yz"].map((plane) => {
  const {width, height} = canvas(plane);
  return [plane, {width, height, clientWidth: canvas(plane).clientWidth, clientHeight: canvas(plane).clientHeight}];
}));
/** Colours at device pixels. */
window.pixels = (plane, places) => places.map(([x, y]) =>
  [...canvas(plane).getContext("2d").getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3));
window.painted = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
window.settled = async () => {
  for (let last = -1; last !== window.requests.length; ) {
    last = window.requests.length;
    await new Promise((resolve) => setTimeout(resolve, 150));
    await window.painted();
  }
};
document.body.dataset.ready = "yes";
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the harness at / and the page's own files under /static/, with the strict policy of the real page."""

    def translate_path(self, path: str) -> str:
        path = path.split("?")[0]
        root, name = (STATIC, path.removeprefix("/static/")) if path.startswith("/static/") else (self.directory, path)
        return str(Path(root) / name.lstrip("/"))

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("harness")
    for name, text in {"index.html": PAGE, "harness.css": STYLE, "harness.js": SCRIPT, "favicon.ico": ""}.items():
        (folder / name).write_text(text)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


@pytest.fixture
def browser(chromium: Any) -> Any:
    return chromium


class Harness:
    """The page with the viewer, and where its voxels must be."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 950, "height": 700}, **context)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready]")
        self.voxel_size_nm: tuple[float, ...] = ()

    def make(self, voxel_size_nm: tuple[float, ...] = (40, 4, 4), num_sides: int = 2, **options: Any) -> None:
        self.voxel_size_nm = voxel_size_nm
        values = {"voxelSize": voxel_size_nm, "shape": SHAPE, "numSides": num_sides, **options}
        self.page.evaluate("options => make(options)", values)

    def show(self, center: tuple[float, ...] = VOXEL, mask: str = "null", has_block: bool = True, **state: Any) -> None:
        block = "block(view)" if has_block else "null"
        self.page.evaluate(
            f"([view, center]) => {{ viewer.show({{view, center, mask: {mask}, block: {block}}}) }}", [VIEW, center]
        )
        self.set(crosshair=False, **state)

    def set(self, **state: Any) -> None:
        self.page.evaluate("async state => { Object.assign(viewer, state); await painted() }", state)

    def get(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait(self, holds: Callable[[], bool], sentence: str) -> None:
        """Wait for what the browser does in its own time, such as a tap that becomes a click."""
        for _ in range(100):
            self.page.evaluate("painted()")
            if holds():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(sentence)

    def settle(self) -> None:
        self.page.evaluate("settled()")

    def size(self, plane: str) -> tuple[int, int]:
        sizes = self.get("sizes()")[plane]
        return sizes["clientWidth"], sizes["clientHeight"]

    def place(self, plane: str, voxel: tuple[float, ...], middle: tuple[float, ...], zoom: float) -> list[float]:
        """Where a point lies on a canvas (CSS pixels) whose middle shows the middle of voxel `middle`."""
        across, down = {"xy": (2, 1), "xz": (2, 0), "yz": (0, 1)}[plane]
        nm_per_pixel = min(self.voxel_size_nm[1:]) / zoom
        return [
            side / 2 + (voxel[axis] - middle[axis] - 0.5) * self.voxel_size_nm[axis] / nm_per_pixel
            for side, axis in zip(self.size(plane), (across, down), strict=True)
        ]

    def colours(self, plane: str, places: list[list[float]]) -> list[tuple[int, ...]]:
        return [tuple(colour) for colour in self.page.evaluate("([p, q]) => pixels(p, q)", [plane, places])]


@pytest.fixture
def harness(browser: Any, address: str) -> Iterator[Harness]:
    made = Harness(browser, address)
    yield made
    made.context.close()
    assert made.faults == []


def is_near(colour: tuple[int, ...], wanted: tuple[int, ...] | int, tolerance: int = 12) -> bool:
    wanted = (wanted,) * 3 if isinstance(wanted, int) else wanted
    return all(abs(a - b) <= tolerance for a, b in zip(colour, wanted, strict=True))


def voxel_box(z: int, y: int, x: int) -> list[int]:
    return [z, y, x, z + 1, y + 1, x + 1]


@pytest.mark.parametrize("voxel_size_nm", [(40, 4, 4), (8, 8, 8), (30, 8, 16)])
@pytest.mark.parametrize(
    ("plane", "center"), [("xy", (17, 98, 149)), ("xz", (16, 101, 149)), ("yz", (16, 98, 153))], ids=["xy", "xz", "yz"]
)
def test_a_voxel_lies_at_its_place_in_the_tissues_aspect(
    harness: Harness, plane: str, center: tuple[int, ...], voxel_size_nm: tuple[float, ...]
) -> None:
    harness.make(voxel_size_nm, bright=[voxel_box(*VOXEL)])
    harness.show(center, zoom=8)
    # Just inside and just outside of the voxel's four edges.
    z, y, x = VOXEL
    axes = {"xy": (2, 1), "xz": (2, 0), "yz": (0, 1)}[plane]
    for axis in axes:
        for end in (0, 1):
            edge = [z + 0.5, y + 0.5, x + 0.5]
            edge[axis] = VOXEL[axis] + end
            place = harness.place(plane, tuple(edge), center, 8)
            step = [2 if axis == one else 0 for one in axes]
            sign = 1 if end == 0 else -1
            inner, outer = harness.colours(
                plane, [[p + sign * s * way for p, s in zip(place, step, strict=True)] for way in (1, -1)]
            )
            assert is_near(inner, BRIGHT), (axis, end, inner)
            assert is_near(outer, GREY), (axis, end, outer)


def test_a_block_at_hand_is_drawn_before_show_returns(harness: Harness) -> None:
    harness.make(bright=[voxel_box(*VOXEL)])
    harness.set(zoom=8)
    x, y = harness.place("xy", (17, 101.5, 153.5), VOXEL, 8)
    drawn = harness.page.evaluate(
        "([view, center, place]) => { viewer.crosshair = false;"
        "viewer.show({view, center, mask: null, block: block(view)}); return pixels('xy', [place]) }",
        [VIEW, VOXEL, [x, y]],
    )
    assert is_near(tuple(drawn[0]), BRIGHT)
    harness.page.evaluate("viewer.firstPaint")


def test_without_a_block_the_view_is_loaded_first_and_at_full_resolution(harness: Harness) -> None:
    harness.make(bright=[voxel_box(*VOXEL)])
    harness.show(has_block=False, zoom=8)
    harness.page.evaluate("viewer.firstPaint")
    first = harness.get("requests[0]")
    assert (first["offset"], first["shape"], first["stride"]) == (VIEW["offset"], VIEW["shape"], [1, 1, 1])
    harness.settle()
    assert is_near(harness.colours("xy", [harness.place("xy", (17, 101.5, 153.5), VOXEL, 8)])[0], BRIGHT)


def test_a_candidate_that_is_passed_over_keeps_nobody_waiting(harness: Harness) -> None:
    harness.make(hold=True)
    harness.show(has_block=False, zoom=8)
    harness.page.evaluate("() => { window.first = viewer.firstPaint }")
    harness.show(zoom=8)
    harness.page.evaluate("Promise.all([first, viewer.firstPaint]).then(() => true)")
    assert harness.get("requests[0].aborted")


MASK = "maskOf([14, 96, 148], [8, 10, 12], [[[16, 99, 150, 19, 103, 154], 1], [[16, 100, 155, 19, 104, 157], 2]])"


def test_outlines_run_along_the_voxels_edges_in_the_colour_of_the_side(harness: Harness) -> None:
    harness.make()
    harness.show(mask=MASK, zoom=16, opacity=1, overlay="outline")
    edges = {
        (17, 99, 152.5): PRE,  # upper edge of the presynaptic box
        (17, 103, 151.5): PRE,  # lower
        (17, 101.5, 150): PRE,  # left
        (17, 101.5, 154): PRE,  # right
        (17, 102.5, 155): POST,
        (17, 104, 156.5): POST,
        (17, 101.5, 152.5): (GREY,) * 3,  # within
        (17, 102.5, 156): (GREY,) * 3,
        (17, 101.5, 149.5): (GREY,) * 3,  # half a voxel outside
        (17, 98.5, 152.5): (GREY,) * 3,
    }
    found = harness.colours("xy", [harness.place("xy", point, VOXEL, 16) for point in edges])
    assert [is_near(colour, wanted) for colour, wanted in zip(found, edges.values(), strict=True)] == [True] * 10, found
    # The same object from the side: sections 16 to 18, so its edges are at z = 16 and z = 19.
    side = {(16, 101, 151.5): PRE, (19, 101, 152.5): PRE, (17.5, 101, 152.5): (GREY,) * 3}
    harness.set(zoom=6)
    found = harness.colours("xz", [harness.place("xz", point, VOXEL, 6) for point in side])
    assert [is_near(colour, wanted) for colour, wanted in zip(found, side.values(), strict=True)] == [True] * 3, found
    harness.get("viewer.scroll(2)")
    harness.settle()
    assert is_near(harness.colours("xy", [harness.place("xy", (17, 99, 152.5), VOXEL, 6)])[0], GREY)


def test_fill_off_and_opacity(harness: Harness) -> None:
    harness.make(num_sides=1)
    harness.show(mask="maskOf([16, 99, 150], [3, 4, 4], [[[16, 99, 150, 19, 103, 154], 1]])", zoom=16)
    place = [harness.place("xy", (17, 101.5, 152.5), VOXEL, 16)]
    harness.set(overlay="fill", opacity=1)
    strong = harness.colours("xy", place)[0]
    harness.set(opacity=0.5)
    weak = harness.colours("xy", place)[0]
    harness.set(overlay="off")
    off = harness.colours("xy", place)[0]
    # Half of the opacity's share: the tissue must be seen through a full overlay.
    assert is_near(strong, tuple((GREY + side) // 2 for side in SINGLE))
    assert is_near(weak, tuple(GREY + (side - GREY) // 4 for side in SINGLE))
    assert is_near(off, GREY)


def test_holes_and_corners_have_outlines_of_their_own(harness: Harness) -> None:
    polygons = harness.get(
        """(async () => {
          const {outlines} = await import("/static/outline.js");
          const rows = ["111.", "1.1.", "1112", ".1.2"];
          return outlines(Uint8Array.from(rows.join("").replaceAll(".", "0")), 4, 4);
        })()"""
    )
    found = [(p["value"], len(p["points"]) // 2) for p in polygons]
    assert found == [(1, 8), (1, 4), (2, 4)]  # the body with its foot, the hole, the other object
    assert polygons[1]["points"] == [1, 2, 1, 1, 2, 1, 2, 2] or sorted(
        zip(polygons[1]["points"][::2], polygons[1]["points"][1::2], strict=True)
    ) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    diagonal = harness.get(
        """(async () => (await import("/static/outline.js")).outlines(Uint8Array.from([1, 0, 0, 1]), 2, 2))()"""
    )
    assert [p["points"] for p in diagonal] == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]


def test_contrast_is_a_window_of_grey_values(harness: Harness) -> None:
    harness.make(bright=[voxel_box(*VOXEL)])
    harness.show(zoom=8)
    places = [harness.place("xy", (17, 101.5, x), VOXEL, 8) for x in (153.5, 150.5)]
    harness.set(contrast={"low": 40, "high": 80})
    assert [is_near(c, v, 2) for c, v in zip(harness.colours("xy", places), (255, 128), strict=True)] == [True, True]
    harness.set(contrast={"low": 60, "high": 255})
    assert is_near(harness.colours("xy", places)[1], 0, 1)
    message = harness.get("(() => { try { viewer.contrast = {low: 9, high: 9} } catch (e) { return e.message } })()")
    assert message == "contrast from 9 to 9; expected low below high"
    assert harness.get("viewer.contrast.low") == 60


@pytest.mark.parametrize("zoom", [0.7, 3.3, 20])
def test_the_scale_bar_is_as_long_as_it_says(harness: Harness, zoom: float) -> None:
    harness.make()
    harness.show(zoom=zoom, contrast={"low": 0, "high": 255})
    harness.settle()
    bar = harness.get("viewer.scaleBar")
    assert bar["nm"] in {digit * 10**power for digit in (1, 2, 5) for power in range(6)}
    assert bar["label"] == (f"{bar['nm'] / 1000:g} µm" if bar["nm"] >= 1000 else f"{bar['nm']:g} nm")
    width, height = harness.size("xy")
    row = harness.colours("xy", [[x, height - 16] for x in range(width)])
    white = sum(is_near(colour, 255, 1) for colour in row)
    assert abs(white - bar["nm"] / (4 / zoom)) <= 1
    assert white <= 0.3 * width


def test_wheel_scrolls_ctrl_wheel_zooms_to_the_pointer_and_drag_pans(harness: Harness) -> None:
    harness.make(bright=[voxel_box(*VOXEL)])
    harness.show(zoom=8)
    box = harness.page.locator(".viewer-xy").bounding_box()
    mouse = harness.page.mouse
    mouse.move(box["x"] + 100, box["y"] + 80)
    mouse.wheel(0, 120)
    harness.settle()
    assert harness.get("viewer.center[0]") == 18.5
    mouse.wheel(0, -120)
    mouse.wheel(0, -120)
    harness.settle()
    assert harness.get("viewer.center[0]") == 16.5
    # Zooming keeps the voxel under the pointer: bring the bright one there first.
    harness.set(center=VOXEL)
    x, y = (side / 2 for side in harness.size("xy"))
    mouse.move(box["x"] + x, box["y"] + y)
    mouse.down()
    mouse.move(box["x"] + x - 20, box["y"] + y - 10)
    mouse.move(box["x"] + x - 120, box["y"] + y + 60)
    mouse.up()
    harness.settle()
    place = [[x - 120, y + 60]]
    assert is_near(harness.colours("xy", place)[0], BRIGHT)
    assert harness.get("viewer.center.map(Math.floor)") == list(VOXEL), "a drag does not move the crosshair"
    harness.page.keyboard.down("Control")
    mouse.wheel(0, -120)
    harness.page.keyboard.up("Control")
    harness.settle()
    assert 10 < harness.get("viewer.zoom") < 12
    assert is_near(harness.colours("xy", place)[0], BRIGHT)


def test_a_click_moves_the_crosshair_there_in_each_plane(harness: Harness) -> None:
    harness.make()
    harness.show(zoom=8)
    for plane, offset, expected in [
        ("xy", (4 * 8, -3 * 8), (17, 98, 157)),
        ("xz", (-6 * 8, 80), (18, 98, 147)),
        ("yz", (-80, 5 * 8), (16, 106, 147)),
    ]:
        box = harness.page.locator(f".viewer-{plane}").bounding_box()
        x, y = (side / 2 for side in harness.size(plane))
        # The middle of the canvas stays at VOXEL.
        harness.page.mouse.click(box["x"] + x + offset[0], box["y"] + y + offset[1])
        assert tuple(harness.get("viewer.center.map(Math.floor)")) == expected
    harness.get("viewer.reset()")
    assert tuple(harness.get("viewer.center.map(Math.floor)")) == VOXEL


def test_a_tool_gets_the_left_button_in_xy_and_space_still_pans(harness: Harness) -> None:
    harness.make()
    harness.show(zoom=8)
    harness.page.evaluate(
        """() => { window.calls = []; const note = (what) => (point) => calls.push([what, ...point.zyx]);
           viewer.tool = {cursor: "cell", down: note("down"), move: note("move"), up: note("up"),
                          draw: (ctx, plane, toScreen) => calls.push(["draw", plane, ...toScreen([0, 0, 0])])} }"""
    )
    box = harness.page.locator(".viewer-xy").bounding_box()
    x, y = (box[start] + side / 2 for start, side in zip("xy", harness.size("xy"), strict=True))
    mouse = harness.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 16, y + 8)
    mouse.up()
    calls = [call for call in harness.get("calls") if call[0] != "draw"]
    assert [call[0] for call in calls] == ["down", "move", "up"]
    z, y_first, x_first = VOXEL
    assert calls[0][1:] == pytest.approx([z + 0.5, y_first + 0.5, x_first + 0.5], abs=0.1)
    assert calls[-1][1:] == pytest.approx([z + 0.5, y_first + 1.5, x_first + 2.5], abs=0.1)
    harness.page.keyboard.down("Space")
    before = harness.get("viewer.toScreen([0, 0, 0])")
    mouse.down()
    mouse.move(x + 56, y + 8)
    mouse.up()
    harness.page.keyboard.up("Space")
    after = harness.get("viewer.toScreen([0, 0, 0])")
    assert [a - b for a, b in zip(after, before, strict=True)] == pytest.approx([40, 0], abs=1)
    assert len([call for call in harness.get("calls") if call[0] != "draw"]) == 3
    harness.settle()
    assert {call[1] for call in harness.get("calls") if call[0] == "draw"} == {"xy", "xz", "yz"}


def test_beyond_the_block_more_is_loaded_and_what_is_there_stays(harness: Harness) -> None:
    far = (17, 101, 330)
    harness.make(bright=[voxel_box(*VOXEL), voxel_box(*far)], hold=True)
    harness.show(zoom=8)
    harness.settle()
    harness.get("viewer.panBy(-600, 0)")  # the block's right edge, x = 230, is now on the canvas
    harness.settle()
    harness.get("viewer.panBy(-816, 0)")
    harness.settle()
    asked = [request for request in harness.get("requests") if request["kind"] == "image"]
    assert any(request["aborted"] for request in asked), "what is no longer in sight is not loaded"
    place = harness.place("xy", (17, 101.5, 330.5), far, 8)
    assert is_near(harness.colours("xy", [place])[0], (11, 13, 16))
    harness.get("viewer.panBy(816, 0)")
    harness.settle()
    x, y = harness.place("xy", (17, 101.5, 153.5), VOXEL, 8)
    assert is_near(harness.colours("xy", [[x - 600 + 320, y]])[0], GREY), "the block shown before stays"
    harness.get("viewer.panBy(-816, 0)")
    harness.get("release()")
    harness.settle()
    assert is_near(harness.colours("xy", [place])[0], BRIGHT)
    assert all(request["stride"] == [1, 1, 1] for request in harness.get("requests"))


def test_far_out_the_stride_grows_and_the_voxels_stay_in_place(harness: Harness) -> None:
    shape = (40, 20_000, 30_000)
    harness.make(shape=shape, bright=[[0, 10_000, 14_000, 40, 10_400, 14_900]])
    center = (17, 10_200, 14_450)
    harness.show(center)
    harness.set(zoom=1 / 8)
    harness.settle()
    asked = [request for request in harness.get("requests") if request["kind"] == "image"]
    last = [request for request in asked if request["stride"][2] > 1]
    assert [request["stride"] for request in last if request["shape"][0] < 40] == [[1, 8, 8]]
    for request in asked:
        values = 1
        for length, step in zip(request["shape"], request["stride"], strict=True):
            values *= -(-length // step)
        assert values <= 4e6
        assert request["shape"][0] * request["shape"][1] * request["shape"][2] <= 64 * 2**20
    for x, wanted in ((14_060, BRIGHT), (13_940, GREY), (14_840, BRIGHT), (14_960, GREY)):
        place = harness.place("xy", (17, 10_200, x), center, 1 / 8)
        assert is_near(harness.colours("xy", [place])[0], wanted, 30), x


def test_a_failed_request_is_said_and_what_is_shown_stays(harness: Harness) -> None:
    harness.make(bright=[[16, 99, 151, 19, 104, 156]])
    harness.page.evaluate("() => { viewer.blocks.load = async () => { throw new Error('the server is gone') } }")
    harness.show(zoom=2)
    harness.settle()
    notice = harness.page.locator(".viewer-notice")
    assert notice.text_content() == "The image could not be loaded: the server is gone"
    assert is_near(harness.colours("xy", [harness.place("xy", (17, 101.5, 153.5), VOXEL, 2)])[0], BRIGHT)


def grey_pixels(harness: Harness, voxel: tuple[float, ...], span: int) -> int:
    """Pixels of an upper edge, from `voxel` on, that are drawn in the light grey of other candidates."""
    x, y = harness.place("xy", voxel, VOXEL, 16)
    found = harness.colours("xy", [[x + i, y + j] for i in range(16 * span) for j in (-1, 0)])
    return sum(c[0] > 100 and max(c) - min(c) < 25 for c in found)


def test_others_are_dashed_grey_and_leave_out_the_candidate(harness: Harness) -> None:
    # Label 7 reaches beyond the candidate's mask; label 9 is a neighbour that touches it.
    labels = [[[16, 99, 150, 19, 103, 158], 7], [[16, 99, 158, 19, 103, 162], 9], [[16, 108, 150, 19, 111, 154], 7]]
    harness.make(labels=labels)
    mask = "maskOf([16, 99, 150], [3, 4, 4], [[[16, 99, 150, 19, 103, 154], 1]])"
    harness.show(mask=mask, zoom=16, overlay="off")
    harness.settle()
    assert [r for r in harness.get("requests") if r["kind"] == "labels"] == [], "labels are loaded on request only"
    harness.set(others=True)
    harness.settle()
    neighbour = grey_pixels(harness, (17, 99, 158), 4)
    assert 15 < neighbour < 100, "dashes have gaps"
    assert grey_pixels(harness, (17, 99, 150), 8) == 0, "the candidate's own label has no outline"
    assert grey_pixels(harness, (17, 108, 150), 4) == 0, "nor has a piece of it elsewhere"
    harness.set(others=False)
    assert grey_pixels(harness, (17, 99, 158), 4) == 0


def test_the_next_candidate_shows_nothing_of_the_last(harness: Harness) -> None:
    harness.make(labels=[[[16, 99, 150, 19, 103, 154], 7]])
    harness.show(mask=MASK, zoom=16, opacity=1, others=True)
    harness.settle()
    harness.show(mask="null")
    harness.settle()
    edge = harness.place("xy", (17, 101.5, 150), VOXEL, 16)
    assert not is_near(harness.colours("xy", [edge])[0], PRE, 40)
    assert grey_pixels(harness, (17, 99, 150), 4) > 15, "the last candidate is now one of the others"


def test_device_pixels_and_a_new_size(browser: Any, address: str) -> None:
    harness = Harness(browser, address, device_scale_factor=2)
    harness.make(bright=[voxel_box(*VOXEL)])
    harness.show(zoom=8)
    for layout, (width, height) in {"beside": (903, 600), "below": (500, 680)}.items():
        harness.page.evaluate(
            "async ([w, h]) => { const s = document.getElementById('viewer').style;"
            "s.width = w + 'px'; s.height = h + 'px'; await painted(); await painted() }",
            [width, height],
        )
        assert harness.get("viewer.element.dataset.layout") == layout
        size = harness.get("sizes()")["xy"]
        # The grid may give half CSS pixels, which are whole device pixels here.
        assert abs(size["width"] - 2 * size["clientWidth"]) <= 1
        assert abs(size["height"] - 2 * size["clientHeight"]) <= 1
        for plane in ("xy", "xz", "yz"):
            place = harness.place(plane, (17.5, 101.5, 153.5), VOXEL, 8)
            around = [[2 * place[0] + dx, 2 * place[1]] for dx in (-6, 6)]
            assert all(is_near(colour, BRIGHT) for colour in harness.colours(plane, around)), (layout, plane)
    harness.context.close()
    assert harness.faults == []


def test_two_fingers_pinch_and_one_pans(browser: Any, address: str) -> None:
    harness = Harness(browser, address, has_touch=True)
    harness.make(bright=[voxel_box(*VOXEL)])
    harness.show(zoom=8)
    assert harness.get("getComputedStyle(document.querySelector('.viewer-yz')).touchAction") == "none"
    x, y = (side / 2 for side in harness.size("xy"))
    cdp = harness.context.new_cdp_session(harness.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touches = [{"x": px, "y": py, "id": i} for i, (px, py) in enumerate(points)]
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    harness.page.evaluate("viewer.tool = {down: () => { window.drew = true }, move: () => {}, up: () => {}}")
    touch("touchStart", (x - 50, y))
    touch("touchStart", (x - 50, y), (x + 50, y))
    touch("touchMove", (x - 100, y), (x + 100, y))
    touch("touchEnd")
    harness.wait(lambda: harness.get("viewer.zoom") == pytest.approx(16, rel=0.05), "two fingers zoom")
    harness.wait(lambda: is_near(harness.colours("xy", [[x, y]])[0], BRIGHT), "the middle between the fingers stays")
    assert harness.get("window.drew") is None, "a pinch does not draw"
    harness.page.evaluate("viewer.tool = null")
    touch("touchStart", (x, y))
    touch("touchMove", (x + 30, y + 20))
    touch("touchMove", (x + 70, y + 40))
    touch("touchEnd")
    place = [[x + 70, y + 40]]
    harness.wait(lambda: is_near(harness.colours("xy", place)[0], BRIGHT), "one finger moves the tissue")
    harness.context.close()
    assert harness.faults == []


def test_a_tablet_scrolls_by_buttons_and_taps(browser: Any, address: str) -> None:
    harness = Harness(browser, address, has_touch=True)
    harness.make()
    harness.show(zoom=8)
    harness.page.get_by_label("next section").tap()
    harness.wait(lambda: harness.get("Math.floor(viewer.center[0])") == 18, "the button shows the next section")
    assert harness.page.locator(".viewer-section output").text_content() == "z 18 (0 to 39)"
    width, height = harness.size("xz")
    # The canvas's middle stays at z = 17.5: one section of 80 pixels above it is 16.
    harness.page.locator(".viewer-xz").tap(position={"x": width / 2, "y": height / 2 - 80})
    harness.wait(lambda: harness.get("Math.floor(viewer.center[0])") == 16, "a tap moves the crosshair")
    harness.context.close()
    assert harness.faults == []
