import assert from "node:assert/strict";
import { test } from "node:test";
import { holesRegion, floodRegion } from "../../src/twostream/web/static/fill.js";
import { brushRegion, lineRegion, outlineRegion } from "../../src/twostream/web/static/strokes.js";
import { drawn, random } from "./helpers.mjs";

const IMAGE = [100, 120];
const pixels = (region) => {
  const found = [];
  region.forEach((y, x) => found.push(`${y},${x}`));
  return found;
};

test("the brush is round in nm, so it covers fewer of the longer voxels", () => {
  const region = brushRegion([[50.5, 60.5]], 40, [30, 20, 10], IMAGE);
  const expected = [];
  for (let y = 0; y < 100; y++) {
    for (let x = 0; x < 120; x++) if (Math.hypot((y - 50) * 20, (x - 60) * 10) <= 40) expected.push(`${y},${x}`);
  }
  assert.deepEqual(pixels(region), expected);
  const { shape } = region.trimmed();
  assert.deepEqual(shape, [5, 9]);
});

test("a stroke covers what lies within the radius of its path, and nothing outside the image", () => {
  const path = [
    [-3.2, 4.1],
    [10.7, 20.3],
    [12, 119.9],
    [30, 140],
  ];
  const region = brushRegion(path, 35, [30, 10, 10], IMAGE);
  const near = (y, x) =>
    path.slice(1).some(([by, bx], i) => {
      const [ay, ax] = path[i];
      const t = Math.max(
        0,
        Math.min(1, ((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / ((by - ay) ** 2 + (bx - ax) ** 2)),
      );
      return Math.hypot(y - ay - t * (by - ay), x - ax - t * (bx - ax)) * 10 <= 35;
    });
  for (let y = 0; y < 100; y++)
    for (let x = 0; x < 120; x++) assert.equal(region.at(y, x), near(y + 0.5, x + 0.5) ? 1 : 0, `${y},${x}`);
  assert.ok(brushRegion([[-50, -50]], 35, [30, 10, 10], IMAGE).isEmpty());
});

test("the thinnest brush still covers the pixels under the pointer", () => {
  assert.deepEqual(pixels(brushRegion([[5.05, 7.95]], 1, [30, 10, 10], IMAGE)), ["5,7"]);
});

test("a line is as thin as a line of pixels that share edges", () => {
  const next = random(3);
  for (let n = 0; n < 200; n++) {
    const [from, to] = [
      [next() * 90, next() * 110],
      [next() * 90, next() * 110],
    ];
    const line = lineRegion([from, to], IMAGE);
    const steps = Math.abs(Math.floor(from[0]) - Math.floor(to[0])) + Math.abs(Math.floor(from[1]) - Math.floor(to[1]));
    assert.equal(line.count(), steps + 1);
    assert.ok(line.at(Math.floor(to[0]), Math.floor(to[1])) && line.at(Math.floor(from[0]), Math.floor(from[1])));
    line.forEach((y, x) => {
      const beside = line.at(y - 1, x) + line.at(y + 1, x) + line.at(y, x - 1) + line.at(y, x + 1);
      assert.ok(beside >= 1 || steps === 0);
    });
  }
  assert.deepEqual(pixels(lineRegion([[5.5, 5.5]], IMAGE)), ["5,5"]);
});

test("an outline is closed and filled, also where it crosses itself", () => {
  const square = outlineRegion(
    [
      [10.5, 10.5],
      [10.5, 20.5],
      [20.5, 20.5],
      [20.5, 10.5],
    ],
    IMAGE,
  );
  assert.equal(square.count(), 11 * 11);
  const twice = [
    [10.5, 10.5],
    [10.5, 20.5],
    [20.5, 20.5],
    [20.5, 10.5],
    [10.5, 10.5],
    [10.5, 20.5],
    [20.5, 20.5],
    [20.5, 10.5],
  ];
  assert.equal(outlineRegion(twice, IMAGE).count(), 11 * 11);
  const triangle = outlineRegion(
    [
      [0.5, 0.5],
      [40.5, 0.5],
      [40.5, 40.5],
    ],
    IMAGE,
  );
  assert.equal(triangle.at(30, 10), 1);
  assert.equal(triangle.at(10, 30), 0);
  assert.equal(
    outlineRegion(
      [
        [50, -20],
        [50, 20],
        [90, 20],
        [90, -20],
      ],
      IMAGE,
    ).at(70, 0),
    1,
  );
});

test("filling ends at drawn voxels, also at corners", () => {
  const mask = drawn(["...... ..11.. .1..1. ..11.. ......"], [2, 10, 20]);
  assert.deepEqual(pixels(floodRegion(mask, 2, [12, 22], IMAGE)), ["12,22", "12,23"]);
  assert.throws(() => floodRegion(mask, 2, [10, 20], IMAGE), /outline is open/);
  assert.throws(() => floodRegion(mask, 2, [50, 50], IMAGE), /outline is open/);
  assert.throws(() => floodRegion(mask, 3, [12, 22], IMAGE), /outline is open/);
  const touching = drawn([".11. .1.1 .11."], [0, 0, 0]);
  assert.deepEqual(pixels(floodRegion(touching, 0, [1, 2], IMAGE)), ["1,2"]);
});

test("a region of one side can be filled with the other", () => {
  const mask = drawn(["1122 1122"]);
  assert.deepEqual(pixels(floodRegion(mask, 0, [0, 3], IMAGE)), ["0,2", "0,3", "1,2", "1,3"]);
});

test("the border of the image closes an outline that is filled by a click", () => {
  const mask = drawn([".1 .1 1."]);
  assert.deepEqual(pixels(floodRegion(mask, 0, [0, 0], IMAGE)), ["0,0", "1,0"]);
});

test("holes are what drawn voxels enclose", () => {
  const mask = drawn(["11111 1.1.1 11111 1...1 11.11"], [0, 30, 30]);
  assert.deepEqual(pixels(holesRegion(mask, 0, IMAGE)), ["31,31", "31,33"]);
  assert.ok(holesRegion(mask, 5, IMAGE).isEmpty());
});
