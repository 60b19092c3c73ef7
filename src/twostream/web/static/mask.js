/**
 * Masks of objects: small boxes of voxels in the image, and how they travel as runs.
 *
 * Knows arrays alone. Must not know the page, the server or the tools that draw.
 * All positions, shapes and offsets are z, y, x in voxels of the image; data are in raster order, z slowest.
 */

import { numVoxels } from "./box.js";

/** @typedef {import("./box.js").Zyx} Zyx */

/**
 * A mask as it travels: `runs` holds value, length, value, length, ... over the box in raster order.
 * @typedef {{offset_zyx: Zyx, shape_zyx: Zyx, runs: number[]}} Drawing
 */

/** The server takes no larger drawing; an object that needs more is no candidate. */
export const MAX_VOXELS = 16_000_000;

/** @param {Zyx} one @param {Zyx} other @returns {Zyx} */
export function added(one, other) {
  return [one[0] + other[0], one[1] + other[1], one[2] + other[2]];
}

/**
 * The smallest box that holds all voxels of a kind.
 * @param {Zyx} shape extent of the box in which they are looked for
 * @param {(at: number) => boolean} isWanted of a position in raster order
 * @returns {{offset: Zyx, shape: Zyx} | null} relative to that box; null if there are none
 */
export function boundsOf([Z, Y, X], isWanted) {
  let [front, top, left, back, bottom, right] = [Z, Y, X, -1, -1, -1];
  for (let z = 0, at = 0; z < Z; z++) {
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++, at++) {
        if (!isWanted(at)) continue;
        front = Math.min(front, z);
        back = z;
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
        left = Math.min(left, x);
        right = Math.max(right, x);
      }
    }
  }
  if (back < 0) return null;
  return { offset: [front, top, left], shape: [back - front + 1, bottom - top + 1, right - left + 1] };
}

/**
 * @param {unknown} value
 * @param {string} name
 * @param {number} least the smallest number that is allowed
 * @returns {Zyx}
 */
function threeIntegers(value, name, least) {
  if (!Array.isArray(value) || value.length !== 3 || value.some((n) => !Number.isSafeInteger(n) || n < least)) {
    throw new RangeError(`${name} is ${JSON.stringify(value)}; expected three whole numbers from ${least} (z, y, x)`);
  }
  return [value[0], value[1], value[2]];
}

/** A mask over a box: 0 outside the object, 1 inside; in polarity 1 is the presynaptic, 2 the postsynaptic side. */
export class VoxelMask {
  /**
   * @param {Zyx} offset first voxel of the box
   * @param {Zyx} shape extent of the box; may hold zeros (a mask without voxels)
   * @param {Uint8Array} [data] (Z, Y, X) values; without it all are 0. It is taken over, not copied.
   */
  constructor(offset, shape, data) {
    const length = numVoxels({ offset, shape });
    if (length > MAX_VOXELS) {
      throw new RangeError(`a mask of ${shape.join(" x ")} voxels is too large; at most ${MAX_VOXELS} are allowed`);
    }
    if (data && data.length !== length) {
      throw new RangeError(`a mask of ${shape.join(" x ")} voxels needs ${length} values, not ${data.length}`);
    }
    this.offset = offset;
    this.shape = shape;
    this.data = data ?? new Uint8Array(length);
  }

  /** @returns {VoxelMask} a mask without any voxel */
  static empty() {
    return new VoxelMask([0, 0, 0], [0, 0, 0]);
  }

  /**
   * @param {Drawing} drawing
   * @returns {VoxelMask}
   * @throws {RangeError} the runs do not describe the box exactly; nothing is guessed
   */
  static fromRuns(drawing) {
    const offset = threeIntegers(drawing.offset_zyx, "offset_zyx", 0);
    const shape = threeIntegers(drawing.shape_zyx, "shape_zyx", 1);
    const { runs } = drawing;
    if (!Array.isArray(runs) || runs.length % 2) {
      throw new RangeError("runs must be pairs of value and length");
    }
    const mask = new VoxelMask(offset, shape);
    let at = 0;
    for (let i = 0; i < runs.length; i += 2) {
      const [value, length] = [runs[i], runs[i + 1]];
      if (!Number.isInteger(value) || value < 0 || value > 255) {
        throw new RangeError(`a run has the value ${value}; expected a whole number from 0 to 255`);
      }
      if (!Number.isSafeInteger(length) || length < 1) {
        throw new RangeError(`a run has the length ${length}; expected a whole number from 1`);
      }
      if (at + length > mask.data.length) {
        throw new RangeError(`the runs are longer than the box, which holds ${mask.data.length} voxels`);
      }
      mask.data.fill(value, at, at + length);
      at += length;
    }
    if (at !== mask.data.length) {
      throw new RangeError(`the runs add up to ${at} voxels, but the box holds ${mask.data.length}`);
    }
    return mask;
  }

  /**
   * @returns {Drawing} the box as it is, with the longest possible runs; trim first what is sent
   * @throws {RangeError} the mask has no box
   */
  toRuns() {
    if (!this.data.length) throw new RangeError("a mask without a box cannot be sent");
    /** @type {number[]} */
    const runs = [];
    let start = 0;
    for (let i = 1; i <= this.data.length; i++) {
      if (i === this.data.length || this.data[i] !== this.data[start]) {
        runs.push(this.data[start], i - start);
        start = i;
      }
    }
    return { offset_zyx: [...this.offset], shape_zyx: [...this.shape], runs };
  }

  /**
   * @param {number} z @param {number} y @param {number} x a voxel of the image
   * @returns {number} position in `data`, or -1 outside the box
   */
  index(z, y, x) {
    const [k, j, i] = [z - this.offset[0], y - this.offset[1], x - this.offset[2]];
    const [Z, Y, X] = this.shape;
    if (k < 0 || j < 0 || i < 0 || k >= Z || j >= Y || i >= X) return -1;
    return (k * Y + j) * X + i;
  }

  /**
   * @param {number} z @param {number} y @param {number} x a voxel of the image
   * @returns {number} its value; 0 outside the box
   */
  at(z, y, x) {
    const index = this.index(z, y, x);
    return index < 0 ? 0 : this.data[index];
  }

  /** @returns {VoxelMask} a copy that shares nothing with this one */
  clone() {
    return new VoxelMask([...this.offset], [...this.shape], this.data.slice());
  }

  /** @returns {boolean} whether no voxel belongs to the object */
  isEmpty() {
    return !this.data.some((value) => value !== 0);
  }

  /** @returns {number} voxels of the object */
  count() {
    let count = 0;
    for (const value of this.data) if (value) count++;
    return count;
  }

  /**
   * The same mask over the smallest box that holds its own box and a given one.
   * @param {Zyx} offset
   * @param {Zyx} shape
   * @returns {VoxelMask} this mask itself if it holds the box already
   * @throws {RangeError} the result would have more than `MAX_VOXELS`
   */
  grownTo(offset, shape) {
    if (!numVoxels({ offset, shape })) return this;
    if (!this.data.length) return new VoxelMask([...offset], [...shape]);
    /** @type {Zyx} */ const first = [0, 0, 0];
    /** @type {Zyx} */ const extent = [0, 0, 0];
    let grows = false;
    for (let axis = 0; axis < 3; axis++) {
      first[axis] = Math.min(this.offset[axis], offset[axis]);
      extent[axis] = Math.max(this.offset[axis] + this.shape[axis], offset[axis] + shape[axis]) - first[axis];
      grows ||= first[axis] !== this.offset[axis] || extent[axis] !== this.shape[axis];
    }
    return grows ? this.#over(first, extent) : this;
  }

  /** @returns {VoxelMask} the same object over its bounding box; an empty mask without voxels if it has none */
  trimmed() {
    const found = boundsOf(this.shape, (at) => this.data[at] !== 0);
    return found ? this.#over(added(this.offset, found.offset), found.shape) : VoxelMask.empty();
  }

  /**
   * This mask over another box: what lies outside that box is left out, what is new is 0.
   * @param {Zyx} offset
   * @param {Zyx} shape
   * @returns {VoxelMask}
   */
  #over(offset, shape) {
    const result = new VoxelMask(offset, shape);
    const first = Math.max(offset[2], this.offset[2]);
    const stop = Math.min(offset[2] + shape[2], this.offset[2] + this.shape[2]);
    if (stop <= first) return result;
    for (
      let z = Math.max(offset[0], this.offset[0]);
      z < Math.min(offset[0] + shape[0], this.offset[0] + this.shape[0]);
      z++
    ) {
      for (
        let y = Math.max(offset[1], this.offset[1]);
        y < Math.min(offset[1] + shape[1], this.offset[1] + this.shape[1]);
        y++
      ) {
        const from = this.index(z, y, first);
        result.data.set(this.data.subarray(from, from + stop - first), result.index(z, y, first));
      }
    }
    return result;
  }
}
