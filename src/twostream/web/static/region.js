/**
 * Regions: sets of pixels in one section, which strokes, fills and interpolation have in common.
 *
 * Knows pixels alone. Positions are y, x in voxels of the image; as points, pixel i reaches from i to i + 1.
 */

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {[number, number]} Yx */

/** Pixels of a box in one section: `data` holds 1 for those that belong to the region, in raster order. */
export class Region {
  /**
   * @param {Yx} offset first pixel of the box
   * @param {Yx} shape extent of the box
   * @param {Uint8Array} [data] without it the region is empty
   */
  constructor(offset, shape, data) {
    this.offset = offset;
    this.shape = shape;
    this.data = data ?? new Uint8Array(shape[0] * shape[1]);
  }

  /**
   * The smallest box of pixels around some points, cut to the image.
   * @param {Yx[]} points
   * @param {Yx} margin pixels added on every side
   * @param {Yx} image extent of the image
   * @returns {Region} without any pixel yet
   */
  static around(points, margin, image) {
    /** @type {Yx} */ const offset = [0, 0];
    /** @type {Yx} */ const shape = [0, 0];
    for (const axis of [0, 1]) {
      const values = points.map((point) => point[axis]);
      const low = Math.max(0, Math.floor(values.reduce((a, b) => Math.min(a, b)) - margin[axis]));
      const high = Math.min(image[axis], Math.floor(values.reduce((a, b) => Math.max(a, b)) + margin[axis]) + 1);
      offset[axis] = low;
      shape[axis] = Math.max(0, high - low);
    }
    return new Region(offset, shape);
  }

  /**
   * One section of a mask.
   * @param {import("./mask.js").VoxelMask} mask
   * @param {number} z
   * @param {number} [side] the value that counts; without it every value but 0
   * @returns {Region} over the bounding box of what was found
   */
  static ofSection(mask, z, side) {
    const [, Y, X] = mask.shape;
    const region = new Region([mask.offset[1], mask.offset[2]], [Y, X]);
    const from = mask.index(z, mask.offset[1], mask.offset[2]);
    if (from < 0) return new Region([0, 0], [0, 0]);
    for (let i = 0; i < Y * X; i++) {
      const value = mask.data[from + i];
      region.data[i] = (side === undefined ? value > 0 : value === side) ? 1 : 0;
    }
    return region.trimmed();
  }

  /** @param {number} y @param {number} x @returns {number} 1 if the pixel belongs to the region, else 0 */
  at(y, x) {
    const [j, i] = [y - this.offset[0], x - this.offset[1]];
    return j < 0 || i < 0 || j >= this.shape[0] || i >= this.shape[1] ? 0 : this.data[j * this.shape[1] + i];
  }

  /** Add a pixel; what lies outside the box is left out. @param {number} y @param {number} x */
  add(y, x) {
    const [j, i] = [y - this.offset[0], x - this.offset[1]];
    if (j >= 0 && i >= 0 && j < this.shape[0] && i < this.shape[1]) this.data[j * this.shape[1] + i] = 1;
  }

  /** @param {(y: number, x: number) => void} visit called for each pixel of the region */
  forEach(visit) {
    for (let j = 0, at = 0; j < this.shape[0]; j++) {
      for (let i = 0; i < this.shape[1]; i++, at++) {
        if (this.data[at]) visit(j + this.offset[0], i + this.offset[1]);
      }
    }
  }

  /** @returns {boolean} */
  isEmpty() {
    return !this.data.includes(1);
  }

  /** @returns {number} pixels of the region */
  count() {
    return this.data.reduce((sum, value) => sum + value, 0);
  }

  /** @param {Yx} by @returns {Region} the same pixels elsewhere; data are shared */
  shifted(by) {
    return new Region([this.offset[0] + by[0], this.offset[1] + by[1]], this.shape, this.data);
  }

  /** @returns {Region} the same region over its bounding box */
  trimmed() {
    let [top, left, bottom, right] = [Infinity, Infinity, -1, -1];
    this.forEach((y, x) => {
      top = Math.min(top, y);
      left = Math.min(left, x);
      bottom = Math.max(bottom, y);
      right = Math.max(right, x);
    });
    if (bottom < 0) return new Region([0, 0], [0, 0]);
    return this.over([top, left], [bottom - top + 1, right - left + 1]);
  }

  /** @param {Yx} offset @param {Yx} shape @returns {Region} the region over another box */
  over(offset, shape) {
    const result = new Region(offset, shape);
    this.forEach((y, x) => result.add(y, x));
    return result;
  }
}
