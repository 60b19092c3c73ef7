/**
 * Interpolation between drawn sections by their shape: signed distances of the two neighbours, mixed linearly.
 *
 * Method: Raya and Udupa 1990. Each side of a synapse is interpolated separately. Knows masks and sections; must not
 * know which tool drew them.
 */

import { signedDistance } from "./distance.js";
import { VoxelMask } from "./mask.js";
import { Region } from "./region.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./region.js").Yx} Yx */
/** @typedef {{offset: Yx, shape: Yx, depth: Float64Array}} Shape pixels with depth > 0 are inside, by so many nm */

/**
 * The shapes between two sections. Where the two have a pixel in common, each shape holds all common pixels and none
 * that lies in neither. Where they have none, the object has moved: the shapes are mixed with their centroids on one
 * another, and the result moves from one to the other.
 * @param {Region} lower not empty
 * @param {Region} upper not empty
 * @param {Yx} size nm of a pixel along y and x
 * @returns {(share: number) => Shape} share: 0 gives the lower one, 1 the upper one
 */
export function between(lower, upper, size) {
  const move = overlap(lower, upper) ? /** @type {Yx} */ ([0, 0]) : difference(centroid(upper), centroid(lower));
  const laid = upper.shifted([-Math.round(move[0]), -Math.round(move[1])]);
  const top = [0, 1].map((axis) => Math.min(lower.offset[axis], laid.offset[axis]) - 1);
  const stop = [0, 1].map(
    (axis) => Math.max(lower.offset[axis] + lower.shape[axis], laid.offset[axis] + laid.shape[axis]) + 1,
  );
  /** @type {Yx} */ const shape = [stop[0] - top[0], stop[1] - top[1]];
  const first = signedDistance(lower, [top[0], top[1]], shape, size);
  const second = signedDistance(laid, [top[0], top[1]], shape, size);
  return (share) => ({
    offset: [top[0] + Math.round(share * move[0]), top[1] + Math.round(share * move[1])],
    shape,
    depth: first.map((value, i) => (1 - share) * value + share * second[i]),
  });
}

/** @param {Region} one @param {Region} other @returns {boolean} */
function overlap(one, other) {
  let found = false;
  one.forEach((y, x) => (found ||= other.at(y, x) === 1));
  return found;
}

/** @param {Region} region @returns {Yx} */
function centroid(region) {
  let [sumY, sumX, count] = [0, 0, 0];
  region.forEach((y, x) => {
    sumY += y;
    sumX += x;
    count += 1;
  });
  return [sumY / count, sumX / count];
}

/** @param {Yx} one @param {Yx} other @returns {Yx} */
function difference(one, other) {
  return [one[0] - other[0], one[1] - other[1]];
}

/**
 * Fill the sections between drawn ones.
 *
 * A section is kept as it is if somebody has drawn in it, or if it holds voxels and does not lie between two sections
 * that were drawn in. All others between kept sections are drawn anew.
 * @param {VoxelMask} mask
 * @param {Iterable<number>} drawn sections in which somebody has drawn
 * @param {Zyx} voxelSize nm
 * @param {number} numSides
 * @returns {{mask: VoxelMask, sections: number[]}} a new mask, and the sections that were drawn anew
 */
export function interpolated(mask, drawn, voxelSize, numSides) {
  const result = mask.clone();
  /** @type {Map<number, {side: number, shape: Shape}[]>} */
  const anew = new Map();
  for (let side = 1; side <= numSides; side++) {
    for (const [z, shape] of shapesOf(mask, new Set(drawn), voxelSize, side)) {
      anew.set(z, [...(anew.get(z) ?? []), { side, shape }]);
    }
  }
  for (const [z, shapes] of anew) redraw(result, z, shapes);
  return { mask: result, sections: [...anew.keys()].sort((a, b) => a - b) };
}

/**
 * @param {VoxelMask} mask
 * @param {Set<number>} drawn
 * @param {Zyx} voxelSize
 * @param {number} side
 * @returns {Generator<[number, Shape]>} sections and what one side looks like there
 */
function* shapesOf(mask, drawn, [, sizeY, sizeX], side) {
  /** @type {Map<number, Region>} */
  const held = new Map();
  for (let z = mask.offset[0]; z < mask.offset[0] + mask.shape[0]; z++) {
    const region = Region.ofSection(mask, z, side);
    if (!region.isEmpty()) held.set(z, region);
  }
  const hands = [...held.keys()].filter((z) => drawn.has(z));
  const kept = [...held.keys()].filter(
    (z) => drawn.has(z) || z < hands[0] || z > hands[hands.length - 1] || !hands.length,
  );
  for (let i = 1; i < kept.length; i++) {
    const [from, to] = [kept[i - 1], kept[i]];
    if (to - from < 2) continue;
    const at = between(/** @type {Region} */ (held.get(from)), /** @type {Region} */ (held.get(to)), [sizeY, sizeX]);
    for (let z = from + 1; z < to; z++) yield [z, at((z - from) / (to - from))];
  }
}

/**
 * Draw sides anew in one section. Where both would have a voxel, the one that lies deeper in it has it; what another
 * side has and keeps is not touched.
 * @param {VoxelMask} mask changed in place
 * @param {number} z
 * @param {{side: number, shape: Shape}[]} shapes
 */
function redraw(mask, z, shapes) {
  const sides = shapes.map(({ side }) => side);
  const from = mask.index(z, mask.offset[1], mask.offset[2]);
  const depth = new Float64Array(mask.shape[1] * mask.shape[2]);
  const section = mask.data.subarray(from, from + depth.length);
  section.forEach((value, i) => (section[i] = sides.includes(value) ? 0 : value));
  const keeps = section.slice();
  for (const { side, shape } of shapes) {
    shape.depth.forEach((value, i) => {
      const y = shape.offset[0] + Math.floor(i / shape.shape[1]);
      const index = mask.index(z, y, shape.offset[1] + (i % shape.shape[1])) - from;
      if (value <= 0 || index < 0 || keeps[index] || value <= depth[index]) return;
      section[index] = side;
      depth[index] = value;
    });
  }
}
