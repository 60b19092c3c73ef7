import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_VOXELS, VoxelMask } from "../../src/twostream/web/static/mask.js";
import { drawn, noise, same } from "./helpers.mjs";

test("runs bring a mask back exactly", () => {
  for (let seed = 0; seed < 50; seed++) {
    const shape = [1 + (seed % 3), 1 + (seed % 5), 1 + (seed % 7)];
    const mask = noise(seed, shape, [3, 0, 9], 2);
    const drawing = JSON.parse(JSON.stringify(mask.toRuns()));
    const back = VoxelMask.fromRuns(drawing);
    assert.deepEqual([back.offset, back.shape, [...back.data]], [mask.offset, mask.shape, [...mask.data]]);
    const values = drawing.runs.filter((_, i) => i % 2 === 0);
    assert.ok(
      values.every((value, i) => value !== values[i + 1]),
      "runs are as long as possible",
    );
  }
  assert.deepEqual(drawn([".11 2.."]).toRuns().runs, [0, 1, 1, 2, 2, 1, 0, 2]);
});

test("runs that do not describe their box exactly are refused", () => {
  const good = { offset_zyx: [0, 0, 0], shape_zyx: [1, 2, 2], runs: [0, 1, 1, 3] };
  assert.equal(VoxelMask.fromRuns(good).count(), 3);
  for (const [change, sentence] of [
    [{ runs: [0, 1, 1, 2] }, /add up to 3 voxels, but the box holds 4/],
    [{ runs: [0, 1, 1, 4] }, /longer than the box, which holds 4/],
    [{ runs: [] }, /add up to 0/],
    [{ runs: [0, 1, 1] }, /pairs of value and length/],
    [{ runs: "0,4" }, /pairs of value and length/],
    [{ runs: [0, 0, 1, 4] }, /length 0/],
    [{ runs: [0, -1, 1, 5] }, /length -1/],
    [{ runs: [0, 1.5, 1, 2.5] }, /length 1.5/],
    [{ runs: [256, 4] }, /value 256/],
    [{ runs: [-1, 4] }, /value -1/],
    [{ runs: [0, 2, NaN, 2] }, /value NaN/],
    [{ offset_zyx: [-1, 0, 0] }, /offset_zyx is \[-1,0,0\]; expected three whole numbers from 0/],
    [{ offset_zyx: [0, 0] }, /offset_zyx/],
    [{ shape_zyx: [0, 2, 2] }, /shape_zyx/],
    [{ shape_zyx: [1, 2, "2"] }, /shape_zyx/],
    [{ shape_zyx: [1000, 1000, 1000] }, /too large/],
  ]) {
    assert.throws(() => VoxelMask.fromRuns({ ...good, ...change }), sentence);
  }
  assert.throws(() => VoxelMask.empty().toRuns(), /without a box/);
});

test("a grown mask holds the same object, and trimming finds its bounding box again", () => {
  const mask = drawn([".1. .2.", "... .1."], [5, 6, 7]);
  const grown = mask.grownTo([2, 10, 0], [1, 1, 4]);
  assert.deepEqual(
    [grown.offset, grown.shape],
    [
      [2, 6, 0],
      [5, 5, 10],
    ],
  );
  assert.equal(grown.at(5, 7, 8), 2);
  const trimmed = grown.trimmed();
  assert.deepEqual(
    [trimmed.offset, trimmed.shape, [...trimmed.data]],
    [
      [5, 6, 8],
      [2, 2, 1],
      [1, 2, 0, 1],
    ],
  );
  assert.equal(mask.grownTo([5, 6, 7], [1, 1, 1]), mask);
  assert.ok(VoxelMask.empty().trimmed().isEmpty() && new VoxelMask([1, 1, 1], [2, 2, 2]).trimmed().data.length === 0);
  assert.deepEqual(VoxelMask.empty().grownTo([4, 5, 6], [1, 2, 3]).offset, [4, 5, 6]);
  assert.throws(() => mask.grownTo([0, 0, 0], [1000, 1000, 1000]), RangeError);
  for (let seed = 0; seed < 20; seed++) {
    const random = noise(seed, [3, 4, 5], [2, 3, 4], 2, 0.1);
    assert.ok(same(random.grownTo([0, 9, 1], [9, 1, 1]), random));
  }
});

test("voxels outside the box are 0, and a clone shares nothing", () => {
  const mask = drawn(["11 11"], [1, 1, 1]);
  assert.deepEqual([mask.at(1, 1, 1), mask.at(0, 1, 1), mask.at(1, 3, 1), mask.at(1, 1, 0)], [1, 0, 0, 0]);
  const clone = mask.clone();
  clone.data.fill(0);
  assert.ok(clone.isEmpty() && mask.count() === 4);
  assert.ok(MAX_VOXELS === 16_000_000);
  assert.throws(() => new VoxelMask([0, 0, 0], [1, 1, 2], new Uint8Array(3)), /needs 2 values, not 3/);
});
