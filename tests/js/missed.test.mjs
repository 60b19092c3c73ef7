import assert from "node:assert/strict";
import { test } from "node:test";
import { Missed } from "../../src/twostream/web/static/missed.js";

const GROWN = {
  offset_zyx: [2, 3, 4],
  shape_zyx: [1, 1, 3],
  runs: [1, 3],
  how: "3 voxels: grown",
  is_ball: false,
  num_voxels: 3,
};
const refusal = (sentence, needsSides = false) => Object.assign(new Error(sentence), { needsSides });

/** A Missed whose server answers when the test says so. */
function setUp(options = {}) {
  const asked = [];
  let changes = 0;
  const grow = (seed, signal) =>
    new Promise((resolve, reject) => asked.push({ seed, signal, resolve: () => resolve(GROWN), reject }));
  const missed = new Missed({ grow, onChange: () => changes++, ...options });
  return { missed, asked, changes: () => changes };
}
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a click, the object, and it is kept", async () => {
  const { missed, asked, changes } = setUp();
  assert.equal(missed.confirm(), null);
  await missed.click([1, 2, 3]);
  assert.equal(asked.length, 0, "a click before begin is none");
  missed.begin();
  assert.match(missed.prompt, /Click on the object/);
  const clicked = missed.click([2.9, 3.2, 4.7]);
  assert.equal(missed.state, "growing");
  assert.equal(missed.confirm(), null);
  assert.deepEqual(asked[0].seed, { center_zyx: [2, 3, 4] }, "voxel i reaches from i to i + 1");
  asked[0].resolve();
  await clicked;
  assert.equal(missed.state, "shown");
  assert.equal(missed.mask.count(), 3);
  assert.match(missed.prompt, /^3 voxels: grown\. Keep it/);
  assert.ok(changes() >= 3);
  assert.deepEqual(missed.confirm(), { offset_zyx: [2, 3, 4], shape_zyx: [1, 1, 3], runs: [1, 3] });
  assert.deepEqual([missed.state, missed.mask, missed.prompt, missed.confirm()], ["idle", null, "", null]);
});

test("cancelling ends the request, and its late answer is not shown", async () => {
  const { missed, asked } = setUp();
  missed.begin();
  const clicked = missed.click([1, 2, 3]);
  missed.cancel();
  assert.ok(asked[0].signal.aborted);
  asked[0].resolve();
  await clicked;
  assert.deepEqual([missed.state, missed.mask], ["idle", null]);
});

test("another radius grows the object again; only the newest answer is shown", async () => {
  const { missed, asked } = setUp({ radiusNm: 100 });
  missed.begin();
  await missed.widen(1);
  assert.equal(asked.length, 0);
  assert.equal(missed.radiusNm, 125);
  void missed.click([1, 2, 3]);
  void missed.setRadius(50);
  assert.ok(asked[0].signal.aborted);
  assert.deepEqual(asked[1].seed, { center_zyx: [1, 2, 3], radius_nm: 50 });
  asked[0].resolve();
  await settled();
  assert.equal(missed.state, "growing");
  asked[1].resolve();
  await settled();
  assert.equal(missed.state, "shown");
  void missed.widen(-1);
  assert.deepEqual([missed.state, asked[2].seed.radius_nm], ["growing", 40]);
  await assert.rejects(missed.setRadius(NaN), RangeError);
});

test("a place that is refused is told, and another can be clicked", async () => {
  const { missed, asked } = setUp();
  missed.begin();
  const clicked = missed.click([1, 2, 3]);
  asked[0].reject(refusal("the point lies in candidate 7"));
  await clicked;
  assert.equal(missed.state, "place");
  assert.match(missed.prompt, /^The point lies in candidate 7\. Click on the object/);
  void missed.click([4, 5, 6]);
  assert.deepEqual(asked[1].seed, { center_zyx: [4, 5, 6] });
  assert.doesNotMatch(missed.prompt, /candidate 7/);
});

test("where the sides cannot be told, a click on each is asked for, once", async () => {
  const { missed, asked } = setUp();
  missed.begin();
  const clicked = missed.click([1, 20, 30]);
  asked[0].reject(refusal("the object has no postsynaptic side; give a point on each side", true));
  await clicked;
  assert.match(missed.prompt, /Click on its presynaptic side/);
  await missed.click([1.5, 20, 26]);
  assert.match(missed.prompt, /click on its postsynaptic side/);
  assert.equal(asked.length, 1);
  const second = missed.click([1.5, 20, 34]);
  assert.deepEqual(asked[1].seed, { center_zyx: [1, 20, 30], pre_zyx: [1, 20, 26], post_zyx: [1, 20, 34] });
  asked[1].resolve();
  await second;
  assert.equal(missed.state, "shown");
  void missed.setRadius(80);
  assert.deepEqual(asked[2].seed.pre_zyx, [1, 20, 26], "the sides hold for another radius");
  asked[2].reject(refusal("the object has no presynaptic side", true));
  await settled();
  assert.equal(missed.state, "place");
  assert.match(missed.prompt, /no presynaptic side/);
});

test("a click elsewhere begins again, without the sides of the former place", async () => {
  const { missed, asked } = setUp();
  missed.begin();
  void missed.click([1, 2, 3]);
  asked[0].resolve();
  await settled();
  void missed.click([9, 9, 9]);
  assert.deepEqual(asked[1].seed, { center_zyx: [9, 9, 9] });
  assert.equal(missed.mask, null);
});

test("an answer that is no drawing is not shown", async () => {
  const { missed } = setUp({ grow: async () => ({ ...GROWN, runs: [1, 2] }) });
  missed.begin();
  await missed.click([1, 2, 3]);
  assert.equal(missed.state, "place");
  assert.match(missed.prompt, /add up to 2 voxels/);
});

test("the viewer's tool clicks", () => {
  const { missed, asked } = setUp();
  missed.begin();
  missed.tool.down({ zyx: [1, 2, 3], plane: "xz" }, {});
  missed.tool.up({ zyx: [1, 2, 3], plane: "xz" }, {});
  assert.deepEqual(asked[0].seed, { center_zyx: [1, 2, 3] });
});
