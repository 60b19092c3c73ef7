/** Regions painted into a section of a mask, whose box grows where they reach beyond it. Knows masks and regions. */

import { Refusal } from "./refusal.js";

/** @typedef {import("./mask.js").VoxelMask} VoxelMask */
/** @typedef {import("./region.js").Region} Region */
/** @typedef {import("./region.js").Yx} Yx */

/** The box grows by this many pixels more than is needed, so that it does not grow with every movement. */
const MARGIN = 32;

/**
 * Paint a region.
 * @param {VoxelMask} mask changed in place
 * @param {number} z
 * @param {Region} region inside the image
 * @param {number} value 0 erases; then the box does not grow
 * @param {Yx} image extent of a section of the image
 * @returns {VoxelMask} the mask, or a larger one if its box had to grow
 * @throws {Refusal} it would have to become too large
 */
export function painted(mask, z, region, value, image) {
  const result = value ? withRoom(mask, z, region, image) : mask;
  region.forEach((y, x) => {
    const index = result.index(z, y, x);
    if (index >= 0) result.data[index] = value;
  });
  return result;
}

/**
 * @param {VoxelMask} mask
 * @param {number} z
 * @param {Region} region
 * @param {Yx} image
 * @returns {VoxelMask}
 */
function withRoom(mask, z, region, image) {
  const { offset, shape } = region.trimmed();
  if (!shape[0]) return mask;
  const [bottom, right] = [offset[0] + shape[0], offset[1] + shape[1]];
  if (mask.index(z, offset[0], offset[1]) >= 0 && mask.index(z, bottom - 1, right - 1) >= 0) return mask;
  const [top, left] = offset.map((start) => Math.max(0, start - MARGIN));
  const [height, width] = [Math.min(image[0], bottom + MARGIN) - top, Math.min(image[1], right + MARGIN) - left];
  try {
    return mask.grownTo([z, top, left], [1, height, width]);
  } catch {
    throw new Refusal("The drawing would become too large: erase far parts, or draw them as an object of their own.");
  }
}
