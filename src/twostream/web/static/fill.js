/**
 * Filling in one section: the region at a click as far as drawn voxels bound it, and the holes of a section.
 *
 * Knows masks and pixels. Pixels are neighbours if they share an edge, so that an outline one pixel thin is closed.
 */

import { Refusal } from "./refusal.js";
import { Region } from "./region.js";

/** @typedef {import("./mask.js").VoxelMask} VoxelMask */
/** @typedef {import("./region.js").Yx} Yx */

/**
 * The pixels of equal value around a pixel.
 * @param {VoxelMask} mask
 * @param {number} z
 * @param {Yx} at the pixel
 * @param {Yx} image extent of the image; its border closes a region
 * @returns {Region}
 * @throws {Refusal} nothing drawn encloses the region
 */
export function floodRegion(mask, z, at, image) {
  const value = mask.at(z, at[0], at[1]);
  const region = rimmed(mask, image);
  const open = () => new Refusal("The outline is open here: close it with the brush, then fill.");
  if (mask.index(z, at[0], at[1]) < 0) throw open();
  const isOpen = flood(
    region,
    [at],
    (y, x) => mask.at(z, y, x) === value,
    (y, x) => mask.index(z, y, x) < 0,
  );
  if (isOpen) throw open();
  return region;
}

/**
 * The pixels of a section that drawn voxels enclose.
 * @param {VoxelMask} mask
 * @param {number} z
 * @param {Yx} image extent of the image
 * @returns {Region} may be empty
 */
export function holesRegion(mask, z, image) {
  const outside = rimmed(mask, image);
  /** @type {Yx[]} */
  const starts = [];
  const [[top, left], [height, width]] = [outside.offset, outside.shape];
  for (let y = top; y < top + height; y++) starts.push([y, left], [y, left + width - 1]);
  for (let x = left; x < left + width; x++) starts.push([top, x], [top + height - 1, x]);
  flood(
    outside,
    starts,
    (y, x) => mask.at(z, y, x) === 0,
    () => false,
  );
  const holes = new Region(outside.offset, outside.shape);
  for (let y = top; y < top + height; y++) {
    for (let x = left; x < left + width; x++) if (!outside.at(y, x) && mask.at(z, y, x) === 0) holes.add(y, x);
  }
  return holes;
}

/**
 * @param {VoxelMask} mask
 * @param {Yx} image
 * @returns {Region} empty, over the section of the mask's box and one pixel around it
 */
function rimmed(mask, image) {
  const [, y, x] = mask.offset;
  const [, height, width] = mask.shape;
  if (!height || !width) return new Region([0, 0], [0, 0]);
  return Region.around(
    [
      [y, x],
      [y + height - 1, x + width - 1],
    ],
    [1, 1],
    image,
  );
}

/**
 * Add to a region what is connected to some pixels, within the box of the region.
 * @param {Region} region
 * @param {Yx[]} starts
 * @param {(y: number, x: number) => boolean} belongs
 * @param {(y: number, x: number) => boolean} ends whether this pixel ends the filling
 * @returns {boolean} whether such a pixel was reached
 */
function flood(region, starts, belongs, ends) {
  const [[top, left], [height, width]] = [region.offset, region.shape];
  const stack = starts.filter(([y, x]) => belongs(y, x));
  while (stack.length) {
    const [y, x] = /** @type {Yx} */ (stack.pop());
    if (y < top || x < left || y >= top + height || x >= left + width || region.at(y, x) || !belongs(y, x)) continue;
    if (ends(y, x)) return true;
    region.add(y, x);
    stack.push([y - 1, x], [y + 1, x], [y, x - 1], [y, x + 1]);
  }
  return false;
}
