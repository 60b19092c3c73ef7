import assert from "node:assert/strict";
import { test } from "node:test";
import { Editor } from "../../src/twostream/web/static/editor.js";
import { discs, same } from "./helpers.mjs";

function setUp(mask = null, options = {}) {
  const said = [];
  const editor = new Editor({
    voxelSize: [30, 20, 10],
    shape: [12, 64, 64],
    numSides: 1,
    onProblem: (sentence) => said.push(sentence),
    ...options,
  });
  editor.begin(mask);
  return { editor, said };
}
const at = (z, y, x, plane = "xy") => ({ zyx: [z, y, x], plane });
function drag(tool, points, event = {}) {
  tool.down(at(...points[0]), event);
  for (const point of points.slice(1)) tool.move(at(...point), event);
  tool.up(at(...points[points.length - 1]), event);
}
/** A context that notes what is drawn. */
function canvas() {
  const calls = [];
  const note =
    (name) =>
    (...values) =>
      calls.push([name, ...values]);
  const names = ["save", "restore", "beginPath", "lineTo", "ellipse", "stroke", "setLineDash"];
  return { calls, ctx: Object.fromEntries(names.map((name) => [name, note(name)])) };
}
const toScreen = ([, y, x]) => [4 * x, 8 * y];

test("a drag with the brush is one step in the section in which it began", () => {
  const { editor } = setUp();
  drag(editor.tools.brush, [
    [2.5, 10, 10],
    [2.5, 10, 20],
    [7.5, 10, 30],
  ]);
  assert.ok(editor.mask.at(2, 10, 15) && editor.mask.at(2, 10, 30) && !editor.mask.at(7, 10, 30));
  editor.undo();
  assert.ok(!editor.canUndo && editor.mask.isEmpty());
});

test("moving without a button, and pressing in another plane, draw nothing", () => {
  const { editor } = setUp();
  const { brush } = editor.tools;
  brush.move(at(2, 10, 10), {});
  brush.up(at(2, 10, 10), {});
  brush.down(at(2, 10, 10, "xz"), {});
  brush.move(at(2, 10, 20, "xz"), {});
  brush.up(at(2, 10, 20, "xz"), {});
  assert.ok(editor.mask.isEmpty() && !editor.canUndo);
});

test("a stroke that the viewer ends early is taken back", () => {
  const { editor } = setUp();
  editor.tools.brush.down(at(2, 10, 10), {});
  editor.tools.brush.cancel();
  editor.tools.brush.up(at(2, 10, 20), {});
  assert.ok(editor.mask.isEmpty() && !editor.canUndo);
});

test("the eraser erases", () => {
  const { editor } = setUp(discs({ 4: [30, 30, 8] }));
  drag(editor.tools.eraser, [
    [4.5, 30, 20],
    [4.5, 30, 40],
  ]);
  assert.ok(!editor.mask.at(4, 30, 30) && editor.mask.at(4, 36, 30));
});

test("with fill a click fills a region and a drag fills its outline", () => {
  const { editor, said } = setUp();
  drag(editor.tools.fill, [
    [4.5, 10.5, 10.5],
    [4.5, 10.5, 30.5],
    [4.5, 30.5, 30.5],
    [4.5, 30.5, 10.5],
  ]);
  assert.equal(editor.mask.count(), 21 * 21);
  drag(editor.tools.fill, [
    [4.5, 50, 50],
    [4.5, 50.5, 50],
  ]);
  assert.match(said[0], /outline is open/);
  editor.brush.radiusPx = 3;
  editor.erase([[4.5, 20, 20]]);
  drag(editor.tools.fill, [[4.5, 20, 20]]);
  assert.equal(editor.mask.count(), 21 * 21);
});

test("a cut with shift goes through all sections, and a cut that divides nothing says so", () => {
  const places = { 3: [30, 30, 8], 4: [30, 30, 8], 5: [30, 30, 8] };
  const { editor, said } = setUp(discs(places));
  const path = [
    [4.5, 30, 10],
    [4.5, 30, 30],
    [4.5, 30, 50],
  ];
  drag(editor.tools.cut, path, { shiftKey: false });
  assert.match(said[0], /still in one piece/);
  assert.ok(
    editor.canUndo && !editor.mask.at(4, 30, 30) && editor.mask.at(3, 30, 30),
    "the cut stays, to be continued",
  );
  drag(editor.tools.cut, path, { shiftKey: true });
  assert.equal(said.length, 1);
  assert.equal(editor.pieces().length, 2);
});

test("a stroke that must be refused ends there, and counts as far as it came", () => {
  const { editor, said } = setUp(null, { shape: [2000, 5000, 5000] });
  editor.stroke([[1990.5, 10, 10]]);
  const before = editor.mask.clone();
  drag(editor.tools.brush, [
    [2.5, 10, 10],
    [2.5, 10, 4000],
    [2.5, 4000, 10],
  ]);
  assert.match(said[0], /too large/);
  assert.equal(said.length, 1);
  assert.ok(editor.mask.at(2, 10, 10) && editor.undo() && same(editor.mask, before));
});

test("the circle of the brush is drawn at the pointer, with the radius it has in nm", () => {
  const { editor } = setUp();
  const { brush } = editor.tools;
  const { ctx, calls } = canvas();
  brush.draw(ctx, "xy", toScreen);
  assert.equal(calls.length, 0, "no pointer, no circle");
  editor.brush.radiusNm = 40;
  brush.hover(at(2.5, 10, 20));
  brush.draw(ctx, "xz", toScreen);
  assert.equal(calls.length, 0);
  brush.draw(ctx, "xy", toScreen);
  const circles = calls.filter(([name]) => name === "ellipse");
  assert.deepEqual(circles[0].slice(1, 5), [80, 80, 16, 16]); // 40 nm: 4 voxels along x, 2 along y
  assert.equal(circles.length, 2, "a bright line on a dark one");
  brush.hover(null);
  calls.length = 0;
  brush.draw(ctx, "xy", toScreen);
  assert.equal(calls.length, 0, "the pointer has left");
});

test("the path of a cut is drawn while it is made", () => {
  const { editor } = setUp(discs({ 4: [30, 30, 8] }));
  const { cut } = editor.tools;
  const { ctx, calls } = canvas();
  cut.down(at(4.5, 30, 10), {});
  cut.move(at(4.5, 30, 50), {});
  cut.draw(ctx, "xy", toScreen);
  assert.deepEqual(calls.filter(([name]) => name === "lineTo").slice(0, 2), [
    ["lineTo", 40, 240],
    ["lineTo", 200, 240],
  ]);
});
