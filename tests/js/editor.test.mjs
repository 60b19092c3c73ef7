import assert from "node:assert/strict";
import { test } from "node:test";
import { Editor } from "../../src/twostream/web/static/editor.js";
import { VoxelMask } from "../../src/twostream/web/static/mask.js";
import { Refusal } from "../../src/twostream/web/static/refusal.js";
import { discs, drawn, noise, random, same, shown } from "./helpers.mjs";

const IMAGE = [12, 64, 64];
function editorOf(mask, options = {}) {
  const editor = new Editor({ voxelSize: [30, 10, 10], shape: IMAGE, numSides: 1, ...options });
  editor.begin(mask);
  return editor;
}
/** A ring around (30, 30) whose hole is one pixel short of closed if `gap`. */
function ring(gap) {
  const mask = discs({ 4: [30, 30, 8] });
  discs({ 4: [30, 30, 6] }).data.forEach((value, i) => value && (mask.data[i] = 0));
  if (gap) for (let x = 36; x < 40; x++) mask.data[mask.index(4, 30, x)] = 0;
  return mask.trimmed();
}

test("what was given to begin is never changed", () => {
  const mask = discs({ 4: [30, 30, 5] }).trimmed();
  const before = mask.clone();
  const editor = editorOf(mask);
  editor.stroke([
    [4, 30, 30],
    [4, 30, 50],
  ]);
  editor.erase([[4, 30, 30]]);
  editor.clearSection(4);
  assert.ok(same(mask, before) && !same(editor.mask, before));
});

test("the brush draws beyond the box of the mask, which grows inside the image", () => {
  const editor = editorOf(null);
  assert.equal(editor.drawing(), null);
  editor.brush.radiusNm = 25;
  editor.stroke([
    [3.5, 2.5, 61.5],
    [3.5, 2.5, 70],
  ]);
  assert.equal(shown(editor.mask, 3, [0, 58, 6, 64]), "..1111 .11111 .11111 .11111 ..1111 ......");
  editor.stroke([[9.5, 60, 3]]);
  assert.ok(editor.mask.at(9, 60, 3) && editor.mask.at(3, 2, 61));
  const { offset, shape } = editor.mask;
  assert.ok(offset.every((n) => n >= 0) && shape.every((n, axis) => offset[axis] + n <= IMAGE[axis]));
  const sent = VoxelMask.fromRuns(editor.drawing());
  assert.ok(same(sent, editor.mask) && String(sent.shape) === String(sent.trimmed().shape));
});

test("the eraser erases and the mask does not grow for it", () => {
  const mask = discs({ 4: [30, 30, 5] }).trimmed();
  const editor = editorOf(mask);
  editor.erase([[4.5, 30.5, 30.5]]);
  assert.ok(!editor.mask.at(4, 30, 30) && editor.mask.at(4, 30, 25));
  editor.erase([[9.5, 60, 60]]);
  assert.deepEqual(editor.mask.shape, mask.shape);
});

test("the brush has its radius in nm or in pixels, within bounds, and draws either side", () => {
  let changes = 0;
  const editor = editorOf(null, { numSides: 2, onChange: () => changes++ });
  const { brush } = editor;
  brush.radiusPx = 3;
  assert.equal(brush.radiusNm, 30);
  brush.widen(2);
  assert.ok(brush.radiusNm > 40);
  brush.widen(-100);
  assert.equal(brush.radiusPx, 0.5);
  brush.widen(100);
  assert.equal(brush.radiusPx, 500);
  assert.throws(() => (brush.radiusNm = NaN), RangeError);
  assert.throws(() => (brush.side = 3), RangeError);
  brush.radiusPx = 2;
  editor.stroke([[1, 10, 10]]);
  brush.otherSide();
  editor.stroke([[1, 10, 14]]);
  assert.deepEqual([brush.side, editor.mask.at(1, 10, 9), editor.mask.at(1, 10, 14)], [2, 1, 2]);
  assert.ok(changes > 5);
  const single = editorOf(null);
  single.brush.otherSide();
  assert.equal(single.brush.side, 1);
});

test("fill closes an outline, and says so where it is open", () => {
  const editor = editorOf(ring(false));
  editor.fill([4.5, 30.5, 30.5]);
  assert.ok(same(editor.mask, discs({ 4: [30, 30, 8] })));
  const open = editorOf(ring(true));
  const before = open.mask.clone();
  assert.throws(() => open.fill([4.5, 30.5, 30.5]), Refusal);
  assert.ok(same(open.mask, before) && !open.canUndo, "a refused step leaves nothing behind");
  const said = [];
  open.options.onProblem = (sentence) => said.push(sentence);
  open.attempt(() => open.fill([4.5, 30.5, 30.5]));
  assert.match(said[0], /outline is open/);
  assert.throws(
    () =>
      open.attempt(() => {
        throw new TypeError("a fault of ours");
      }),
    TypeError,
  );
  const holes = editorOf(ring(false));
  holes.fillHoles(4);
  assert.ok(same(holes.mask, discs({ 4: [30, 30, 8] })));
  assert.throws(() => holes.fillHoles(4), /no hole/);
});

test("a drawn outline is filled in one step", () => {
  const editor = editorOf(null);
  editor.outline([
    [2.5, 10.5, 10.5],
    [2.5, 10.5, 20.5],
    [2.5, 20.5, 20.5],
    [2.5, 20.5, 10.5],
  ]);
  assert.equal(editor.mask.count(), 121);
  editor.undo();
  assert.ok(editor.mask.isEmpty() && !editor.canUndo && editor.canRedo);
});

test("a section outside the image is refused", () => {
  const editor = editorOf(null);
  for (const z of [-0.5, 12, NaN]) assert.throws(() => editor.stroke([[z, 5, 5]]), /no section/);
});

test("interpolation fills between two drawn sections, and again after one was redrawn", () => {
  const editor = editorOf(null);
  editor.brush.radiusPx = 6;
  editor.stroke([[2.5, 30.5, 30.5]]);
  assert.throws(() => editor.interpolate(), /No section lies between/);
  editor.stroke([[6.5, 30.5, 30.5]]);
  assert.deepEqual(editor.interpolate(), [3, 4, 5]);
  const first = editor.mask.count();
  assert.deepEqual(editor.interpolate(), [3, 4, 5], "interpolated sections are not drawn ones");
  editor.brush.radiusPx = 12;
  editor.stroke([[6.5, 30.5, 30.5]]);
  editor.interpolate();
  assert.ok(editor.mask.count() > first && editor.mask.at(5, 30, 38) && !editor.mask.at(3, 30, 38));
  editor.clearSection(4);
  assert.ok(!editor.mask.at(4, 30, 30));
  assert.deepEqual(editor.interpolate(), [3, 4, 5]);
  assert.ok(editor.mask.at(4, 30, 30));
});

test("every step can be undone and done again, in order", () => {
  const next = random(7);
  const point = () => [Math.floor(next() * 12) + 0.5, next() * 64, next() * 64];
  const editor = editorOf(discs({ 4: [30, 30, 9], 5: [30, 30, 9] }).trimmed(), { numSides: 2 });
  const states = [editor.mask.clone()];
  const steps = [
    () => editor.stroke([point()]),
    () => editor.erase([[4.5, 20 + next() * 20, 30]]),
    () =>
      editor.outline([
        [7.5, 5, 5],
        [7.5, 5, 30],
        [7.5, 30, 5],
      ]),
    () => editor.brush.otherSide(),
    () =>
      editor.stroke([
        [8.5, 20, 20],
        [8.5, 40, 40],
      ]),
    () => editor.clearSection(4),
    () => editor.stroke([[10.5, 20, 20]]),
    () => editor.interpolate(),
    () =>
      editor.cut(
        [
          [5.5, 30, 10],
          [5.5, 30, 50],
        ],
        true,
      ),
    () => editor.keep(editor.pieces()[0].at),
  ];
  for (const step of steps) {
    const couldUndo = editor.canUndo;
    step();
    if (!same(editor.mask, states[states.length - 1])) states.push(editor.mask.clone());
    else assert.equal(editor.canUndo, couldUndo);
  }
  assert.equal(states.length, steps.length, "each step but the change of sides drew something");
  for (let round = 0; round < 2; round++) {
    for (let i = states.length - 2; i >= 0; i--) {
      assert.ok(editor.undo());
      assert.ok(same(editor.mask, states[i]), `undone to ${i}`);
    }
    assert.ok(!editor.undo() && same(editor.mask, states[0]) && editor.others.length === 0);
    for (let i = 1; i < states.length; i++) {
      assert.ok(editor.redo());
      assert.ok(same(editor.mask, states[i]), `done again to ${i}`);
    }
    assert.ok(!editor.redo());
  }
  editor.undo();
  editor.stroke([[11.5, 3, 3]]);
  assert.ok(!editor.canRedo, "a new step ends what could be done again");
});

test("a stroke that draws nothing new is no step", () => {
  const editor = editorOf(null);
  editor.stroke([[1.5, 10, 10]]);
  editor.stroke([[1.5, 10, 10]]);
  editor.undo();
  assert.ok(!editor.canUndo && editor.mask.isEmpty());
});

test("undoing also takes back which sections count as drawn", () => {
  const editor = editorOf(discs({ 2: [30, 30, 6], 3: [30, 30, 6], 4: [30, 30, 6], 5: [30, 30, 6] }));
  editor.stroke([[2.5, 30, 40]]);
  editor.stroke([[5.5, 30, 40]]);
  editor.undo();
  assert.throws(() => editor.interpolate(), Refusal);
  editor.redo();
  assert.deepEqual(editor.interpolate(), [3, 4]);
});

test("memory of steps is bounded: the oldest are forgotten, the newest never", () => {
  const editor = editorOf(null, { limitBytes: 4000 });
  editor.brush.radiusPx = 5;
  for (let i = 0; i < 40; i++) editor.stroke([[2.5, 10, 5 + i]]);
  const newest = editor.mask.clone();
  let undone = 0;
  while (editor.undo()) undone++;
  assert.ok(undone >= 1 && undone < 40, `${undone} of 40 steps`);
  while (editor.redo());
  assert.ok(same(editor.mask, newest));
  const small = editorOf(null, { limitBytes: 1 });
  small.stroke([[2.5, 10, 10]]);
  assert.ok(small.undo() && small.mask.isEmpty());
});

test("a stroke of several parts is one step, and can be taken back before it ends", () => {
  const editor = editorOf(null);
  editor.open();
  for (let x = 10; x < 20; x++)
    editor.paint(
      [
        [2, 10, x],
        [2, 10, x + 1],
      ],
      1,
    );
  editor.close();
  const before = editor.mask.clone();
  editor.open();
  editor.paint([[2, 30, 30]], 1);
  editor.cancel();
  assert.ok(same(editor.mask, before));
  editor.undo();
  assert.ok(editor.mask.isEmpty() && !editor.canUndo);
});

test("a drawing that would become too large is refused, and nothing is lost", () => {
  const editor = editorOf(null, { shape: [2000, 5000, 5000] });
  editor.stroke([[2.5, 100, 100]]);
  const before = editor.mask.clone();
  assert.throws(() => editor.stroke([[1900.5, 4900, 4900]]), /too large/);
  assert.ok(same(editor.mask, before));
});

test("a cut through one section divides what is joined there alone, with a line that leaves the rest", () => {
  const mask = discs({ 3: [20, 20, 7], 4: [20, 20, 7] });
  discs({ 3: [20, 40, 7], 4: [20, 40, 7] }).data.forEach((value, i) => (mask.data[i] ||= value));
  for (let x = 26; x < 35; x++) mask.data[mask.index(3, 20, x)] = 1; // a bridge
  const editor = editorOf(mask);
  assert.equal(editor.pieces().length, 1);
  editor.cut([
    [4.5, 12, 30],
    [4.5, 28, 30],
  ]);
  assert.equal(editor.pieces().length, 1, "not joined in that section");
  editor.cut([
    [3.5, 12, 30],
    [3.5, 28, 30],
  ]);
  const pieces = editor.pieces();
  assert.equal(pieces.length, 2);
  assert.equal(pieces[0].count + pieces[1].count, mask.count() - 1);
  assert.ok(pieces[0].count >= pieces[1].count);
});

test("a cut through all sections divides a massive object, slantwise too", () => {
  const places = Object.fromEntries([2, 3, 4, 5, 6].map((z) => [z, [30, 30, 12]]));
  const next = random(5);
  for (let n = 0; n < 20; n++) {
    const editor = editorOf(discs(places).trimmed());
    const angle = next() * Math.PI;
    const [dy, dx] = [30 * Math.sin(angle), 30 * Math.cos(angle)];
    editor.cut([
      [4.5, 30.5 - dy, 30.5 - dx],
      [4.5, 30.5 + dy, 30.5 + dx],
    ]);
    assert.equal(editor.pieces().length, 1);
    editor.cut(
      [
        [4.5, 30.5 - dy, 30.5 - dx],
        [4.5, 30.5 + dy, 30.5 + dx],
      ],
      true,
    );
    assert.equal(editor.pieces().length, 2);
  }
});

test("one piece is kept, the others are set aside, crumbs are counted, and undo brings all back", () => {
  const mask = discs({ 3: [20, 15, 5], 4: [20, 15, 5] });
  discs({ 3: [20, 30, 8] }).data.forEach((value, i) => (mask.data[i] ||= value));
  mask.data[mask.index(8, 60, 60)] = 1;
  const editor = editorOf(mask);
  const pieces = editor.pieces();
  assert.deepEqual(
    pieces.map((piece) => piece.count),
    [197, 162, 1],
  );
  assert.ok(pieces.every(({ mask: piece, at }) => piece.at(...at) && same(piece, piece.trimmed())));
  assert.throws(() => editor.keep([3, 50, 50]), /No piece lies here/);
  const { kept, others, crumbs } = editor.keep([3.5, 20.5, 15.5], 10);
  assert.equal(crumbs, 1);
  assert.deepEqual([kept.count, others.length, others[0].count()], [162, 1, 197]);
  assert.ok(same(editor.mask, kept.mask) && editor.others.length === 1);
  editor.stroke([[4.5, 20, 15]]);
  assert.ok(others[0].count() === 197 && kept.mask.count() === 162, "pieces are not changed by later strokes");
  editor.undo();
  editor.undo();
  assert.ok(same(editor.mask, mask) && editor.others.length === 0);
  editor.redo();
  assert.ok(editor.others.length === 1);
});

/** Pieces by flooding voxel by voxel: for each the sorted names of its voxels. */
function flooded(mask) {
  const left = new Set();
  const [Z, Y, X] = mask.shape;
  for (let z = 0; z < Z; z++)
    for (let y = 0; y < Y; y++) for (let x = 0; x < X; x++) if (mask.at(z, y, x)) left.add([z, y, x].join());
  const found = [];
  while (left.size) {
    const [first] = left;
    left.delete(first);
    const stack = [first];
    const piece = [];
    while (stack.length) {
      const name = stack.pop();
      piece.push(name);
      const [z, y, x] = name.split(",").map(Number);
      for (const dz of [-1, 0, 1])
        for (const dy of [-1, 0, 1])
          for (const dx of [-1, 0, 1]) {
            const near = [z + dz, y + dy, x + dx].join();
            if (left.delete(near)) stack.push(near);
          }
    }
    found.push(piece.sort().join(" "));
  }
  return found.sort();
}

test("the pieces are those that flooding finds voxel by voxel", () => {
  for (let seed = 0; seed < 60; seed++) {
    const mask = noise(seed, [2 + (seed % 4), 7, 11], [0, 0, 0], 1, 0.04 + 0.01 * (seed % 20));
    const pieces = editorOf(mask).pieces();
    const names = pieces.map((piece) => {
      const list = [];
      const { offset, shape } = piece.mask;
      for (let z = 0; z < shape[0]; z++)
        for (let y = 0; y < shape[1]; y++)
          for (let x = 0; x < shape[2]; x++) {
            const place = [z + offset[0], y + offset[1], x + offset[2]];
            if (piece.mask.at(...place)) list.push(place.join());
          }
      assert.equal(list.length, piece.count);
      return list.sort().join(" ");
    });
    assert.deepEqual(names.sort(), flooded(mask));
  }
});

test("voxels that touch at a corner are one piece, as in a candidate", () => {
  assert.equal(editorOf(drawn(["1.. ... ...", "... .1. ...", "... ... ..1"])).pieces().length, 1);
  assert.equal(editorOf(drawn(["1. ..", ".. ..", ".1 .."])).pieces().length, 2);
  const mask = noise(1, [3, 9, 9], [0, 0, 0], 1, 0.2);
  assert.equal(
    editorOf(mask)
      .pieces()
      .reduce((sum, piece) => sum + piece.count, 0),
    mask.count(),
  );
  assert.deepEqual(editorOf(null).pieces(), []);
});

test("the sides of a synapse across a cleft are one piece, each with its nearest", () => {
  const synapses = discs({ 3: [10, 10, 4, 1] });
  for (const place of [
    [10, 21, 4, 2],
    [50, 10, 4, 1],
    [50, 21, 4, 2],
  ]) {
    discs({ 3: place }).data.forEach((value, i) => (synapses.data[i] ||= value));
  }
  const pieces = editorOf(synapses, { numSides: 2 }).pieces();
  assert.equal(pieces.length, 2);
  for (const { mask } of pieces) {
    assert.equal(mask.shape[1], 9);
    assert.ok(mask.data.includes(1) && mask.data.includes(2));
  }
  const lonely = discs({ 3: [10, 10, 4, 1] });
  discs({ 3: [40, 40, 4, 1] }).data.forEach((value, i) => (lonely.data[i] ||= value));
  assert.equal(editorOf(lonely, { numSides: 2 }).pieces().length, 2, "two presynaptic pieces are not one");
});
