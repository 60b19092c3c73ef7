import assert from "node:assert/strict";
import { test } from "node:test";
import { signedDistance } from "../../src/twostream/web/static/distance.js";
import { between, interpolated } from "../../src/twostream/web/static/interpolate.js";
import { Region } from "../../src/twostream/web/static/region.js";
import { discs, random } from "./helpers.mjs";

const SIZE = [30, 10, 10];
const sectionOf = (mask, z, side) => {
  const found = new Set();
  Region.ofSection(mask, z, side).forEach((y, x) => found.add(y * 1000 + x));
  return found;
};
const within = (inner, outer) => [...inner].every((pixel) => outer.has(pixel));

test("distances are those of the nearest pixel, in nm", () => {
  const next = random(1);
  const region = new Region([5, 5], [9, 12]);
  region.data.forEach((_, i) => (region.data[i] = next() < 0.6 ? 1 : 0));
  const [offset, shape, size] = [
    [4, 3],
    [11, 15],
    [13, 7],
  ];
  const got = signedDistance(region, offset, shape, size);
  for (let i = 0; i < got.length; i++) {
    const [y, x] = [4 + Math.floor(i / 15), 3 + (i % 15)];
    let best = Infinity;
    for (let v = 4; v < 15; v++) {
      for (let u = 3; u < 18; u++) {
        if (region.at(v, u) !== region.at(y, x)) best = Math.min(best, Math.hypot((v - y) * 13, (u - x) * 7));
      }
    }
    assert.ok(Math.abs(Math.abs(got[i]) - best) < 1e-6 && got[i] > 0 === (region.at(y, x) === 1));
  }
});

test("from a disc to a larger one the sections grow steadily and lie between the two", () => {
  const mask = discs({ 1: [30, 30, 5], 9: [32, 31, 17] });
  const { mask: result, sections } = interpolated(mask, [1, 9], SIZE, 1);
  assert.deepEqual(sections, [2, 3, 4, 5, 6, 7, 8]);
  const lower = sectionOf(mask, 1);
  const upper = sectionOf(mask, 9);
  let before = lower;
  for (const z of sections) {
    const now = sectionOf(result, z);
    assert.ok(within(lower, now) && within(now, upper), `section ${z} lies between`);
    assert.ok(within(before, now) && now.size > before.size, `section ${z} is larger`);
    before = now;
  }
  const middle = Math.sqrt(sectionOf(result, 5).size / Math.PI);
  assert.ok(Math.abs(middle - 11) < 1, `half way the radius is ${middle}`);
  assert.deepEqual([sectionOf(result, 1), sectionOf(result, 9)], [lower, upper]);
  assert.equal(mask.count(), lower.size + upper.size, "what was given is not changed");
});

test("an object that moved further than its width is not lost on the way", () => {
  const mask = discs({ 0: [20, 10, 5], 4: [20, 50, 5] });
  const { mask: result } = interpolated(mask, [0, 4], SIZE, 1);
  for (const [z, x] of [
    [1, 20],
    [2, 30],
    [3, 40],
  ]) {
    assert.equal(result.at(z, 20, x), 1);
    assert.ok(Math.abs(sectionOf(result, z).size - sectionOf(mask, 0).size) <= 4);
  }
});

test("only sections between drawn ones change; what somebody drew stays", () => {
  const places = Object.fromEntries([...Array(12).keys()].map((z) => [z, [30, 30, 8]]));
  const mask = discs(places);
  mask.data.fill(0, mask.index(5, 0, 0), mask.index(6, 0, 0)); // section 5 is empty
  assert.deepEqual(interpolated(mask, [], SIZE, 1).sections, [5]);
  assert.deepEqual(interpolated(mask, [2], SIZE, 1).sections, [5]);
  assert.deepEqual(interpolated(mask, [2, 4, 8], SIZE, 1).sections, [3, 5, 6, 7]);
  assert.deepEqual(interpolated(discs({ 3: [9, 9, 3], 4: [9, 9, 3] }), [3, 4], SIZE, 1).sections, []);
  assert.deepEqual(interpolated(discs({}), [3, 4], SIZE, 1).sections, []);
});

test("each side of a synapse is interpolated between its own sections, and takes no voxel of the other", () => {
  const mask = discs({ 2: [30, 20, 6, 1], 6: [30, 20, 6, 1] });
  const post = discs({ 2: [30, 34, 6, 2], 8: [30, 34, 6, 2] });
  post.data.forEach((value, i) => (mask.data[i] ||= value));
  const { mask: result, sections } = interpolated(mask, [2, 6, 8], SIZE, 2);
  assert.deepEqual(sections, [3, 4, 5, 6, 7]);
  assert.deepEqual(
    [result.at(4, 30, 20), result.at(4, 30, 34), result.at(7, 30, 20), result.at(7, 30, 34)],
    [1, 2, 0, 2],
  );
  assert.deepEqual(sectionOf(result, 6, 1), sectionOf(mask, 6, 1));
});

test("where both sides would have a voxel, the deeper one has it and none is drawn twice", () => {
  const crossing = discs({ 0: [30, 20, 8, 1], 4: [30, 44, 8, 1] });
  discs({ 0: [30, 44, 8, 2], 4: [30, 20, 8, 2] }).data.forEach((value, i) => (crossing.data[i] ||= value));
  const { mask: result } = interpolated(crossing, [0, 4], SIZE, 2);
  assert.ok(sectionOf(result, 1, 1).size > 50 && sectionOf(result, 1, 2).size > 50);
});

test("shares 0 and 1 give the sections themselves", () => {
  const mask = discs({ 0: [30, 20, 8], 1: [25, 25, 12] });
  const [lower, upper] = [Region.ofSection(mask, 0), Region.ofSection(mask, 1)];
  const at = between(lower, upper, [10, 10]);
  for (const [share, region] of [
    [0, lower],
    [1, upper],
  ]) {
    const { offset, shape, depth } = at(share);
    assert.equal(depth.filter((value) => value > 0).length, region.count());
    depth.forEach((value, i) => {
      const [y, x] = [offset[0] + Math.floor(i / shape[1]), offset[1] + (i % shape[1])];
      assert.equal(value > 0, region.at(y, x) === 1);
    });
  }
});
