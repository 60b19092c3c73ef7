/**
 * Grey values through a contrast window, and sections of blocks as pictures.
 *
 * Values up to `low` are black and from `high` white. Knows blocks and planes, not the screen.
 */

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./planes.js").Plane} Plane */
/** @typedef {{low: number, high: number}} Contrast grey values from 0 to 255, low below high */

const IS_LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * The colour of every grey value as the bytes R, G, B, A.
 * @param {Contrast} contrast
 * @returns {Uint32Array} 256 entries
 */
export function contrastTable({ low, high }) {
  if (!(low < high)) throw new Error(`contrast from ${low} to ${high}; expected low below high`);
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const grey = Math.round(Math.min(1, Math.max(0, (value - low) / (high - low))) * 255);
    const rgb = (grey << 16) | (grey << 8) | grey;
    return IS_LITTLE_ENDIAN ? (0xff000000 | rgb) >>> 0 : ((rgb << 8) | 0xff) >>> 0;
  });
}

/**
 * One section of a block's values, row by row as the plane shows it.
 * @template {Uint8Array | Uint32Array} T
 * @param {{size: ArrayLike<number>, data: Uint8Array | Uint32Array}} block
 * @param {Plane} plane
 * @param {number} index along the plane's depth axis
 * @param {T} out width x height values
 * @param {Uint32Array} [table] maps each value
 * @returns {T}
 */
export function sectionOf({ size, data }, plane, index, out, table) {
  const steps = [size[1] * size[2], size[2], 1];
  const [width, height] = [size[plane.across], size[plane.down]];
  const stepAcross = steps[plane.across];
  let to = 0;
  for (let row = 0; row < height; row++) {
    let from = index * steps[plane.depth] + row * steps[plane.down];
    for (let column = 0; column < width; column++, from += stepAcross) {
      out[to++] = table ? table[data[from]] : data[from];
    }
  }
  return out;
}

/** Pictures of sections, one kept for each block and plane until section or contrast change. */
export class SectionPictures {
  /** @type {WeakMap<Block, Map<string, {index: number, table: Uint32Array, pixels: ImageData, canvas: OffscreenCanvas}>>} */
  #kept = new WeakMap();

  /** @param {Contrast} contrast */
  constructor(contrast) {
    this.table = contrastTable(contrast);
  }

  /** @param {Contrast} contrast */
  setContrast(contrast) {
    this.table = contrastTable(contrast);
  }

  /**
   * @param {Block} block
   * @param {Plane} plane
   * @param {number} index along the plane's depth axis
   * @returns {OffscreenCanvas}
   */
  of(block, plane, index) {
    const ofBlock = this.#kept.get(block) ?? new Map();
    this.#kept.set(block, ofBlock);
    let picture = ofBlock.get(plane.name);
    if (!picture) {
      const [width, height] = [block.size[plane.across], block.size[plane.down]];
      const canvas = new OffscreenCanvas(width, height);
      picture = { index: -1, table: this.table, pixels: new ImageData(width, height), canvas };
      ofBlock.set(plane.name, picture);
    }
    if (picture.index !== index || picture.table !== this.table) {
      sectionOf(block, plane, index, new Uint32Array(picture.pixels.data.buffer), this.table);
      picture.canvas.getContext("2d")?.putImageData(picture.pixels, 0, 0);
      Object.assign(picture, { index, table: this.table });
    }
    return picture.canvas;
  }
}
