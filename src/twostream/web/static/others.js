/**
 * All other candidates, as thin dashed grey outlines from the segmentation's labels.
 *
 * Labels that share a voxel with the candidate's own mask are left out wherever they reach; nothing is drawn until
 * those labels are known.
 */

import { Blocks } from "./block.js";
import { intersection } from "./box.js";
import { sectionOf } from "./contrast.js";
import { outlines } from "./outline.js";
import { screenPath } from "./overlay.js";
import { slabOf } from "./slab.js";

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./outline.js").Polygon} Polygon */
/** @typedef {import("./overlay.js").Mask} Mask */
/** @typedef {import("./planes.js").Frame} Frame */

/** Labels come at full resolution only: four bytes each. */
const MAX_LABELS = 2 ** 21;
const BYTES = 64 * 2 ** 20;
const COLOUR = "rgb(205 208 212)";
/** Lies under the dashes: light grey alone cannot be seen on bright tissue. */
const SHADOW = "rgb(0 0 0 / 45%)";
const DASHES = [4, 3];
/** @type {Zyx} */
const FINEST = [1, 1, 1];

export class Others {
  /** @type {Mask | null} */
  #mask = null;
  /** @type {Set<number>} the candidate's own labels */
  #own = new Set();
  /** @type {WeakSet<Block>} blocks whose own labels are in `#own` */
  #searched = new WeakSet();
  /** @type {WeakMap<Block, Map<string, {section: number, numOwn: number, polygons: Polygon[]}>>} */
  #kept = new WeakMap();

  /**
   * @param {(box: Box, signal: AbortSignal) => Promise<Block>} loadLabels
   * @param {Zyx} volumeShape
   * @param {{onChange: () => void, onError: (error: Error) => void}} listeners
   */
  constructor(loadLabels, volumeShape, listeners) {
    this.volumeShape = volumeShape;
    this.blocks = new Blocks((box, _stride, signal) => loadLabels(box, signal), { bytes: BYTES, ...listeners });
  }

  /**
   * The candidate whose labels are left out.
   * @param {Mask | null} mask as the server gave it; later edits do not count
   */
  setCandidate(mask) {
    this.#mask = mask;
    this.#own = new Set();
    this.#searched = new WeakSet();
    this.#kept = new WeakMap();
  }

  /** @returns {Box | null} where the candidate's own labels are looked up */
  #ownBox() {
    return this.#mask && intersection(this.#mask, { offset: [0, 0, 0], shape: this.volumeShape });
  }

  /**
   * Load the labels of the candidate's box and of what the plane shows.
   * @param {Frame} frame
   * @param {number} section
   * @returns {boolean} false if the plane shows too many voxels for labels
   */
  want(frame, section) {
    const own = this.#ownBox();
    if (own) this.blocks.want("own", { need: own, box: own, stride: FINEST });
    const need = frame.visible(section, this.volumeShape);
    if (!need) return true;
    const area = need.shape[0] * need.shape[1] * need.shape[2];
    if (area > MAX_LABELS) return false;
    const slab = slabOf(frame, section, this.volumeShape, MAX_LABELS);
    // A slab with a stride would be the image's; of labels take what is needed.
    const box = slab && slab.stride.every((step) => step === 1) ? slab.box : need;
    this.blocks.want(frame.plane.name, { need, box, stride: FINEST });
    return true;
  }

  /**
   * @param {CanvasRenderingContext2D} ctx in CSS pixels
   * @param {Frame} frame
   * @param {number} section
   */
  draw(ctx, frame, section) {
    const own = this.#ownBox();
    const need = frame.visible(section, this.volumeShape);
    const ofCandidate = own && this.blocks.find(own, FINEST);
    if (!need || (own && !ofCandidate)) return;
    if (ofCandidate) this.#findOwn(ofCandidate);
    const { depth } = frame.plane;
    const block = this.blocks.find(need, FINEST) ?? this.blocks.through(depth, section)[0];
    if (!block) return;
    this.blocks.touch(block);
    this.#findOwn(block);
    const path = screenPath(frame, this.#polygons(block, frame, section), block.offset);
    strokeShadowed(ctx, path, { colour: COLOUR, width: 1, isDashed: true });
  }

  /**
   * Note every label of the block that lies under the candidate's mask.
   * @param {Block} block
   */
  #findOwn(block) {
    const mask = this.#mask;
    const shared = mask && intersection(mask, block);
    if (!mask || !shared || this.#searched.has(block)) return;
    this.#searched.add(block);
    const [depth, height, width] = shared.shape;
    for (let z = shared.offset[0]; z < shared.offset[0] + depth; z++) {
      for (let y = shared.offset[1]; y < shared.offset[1] + height; y++) {
        const inMask = at(mask, z, y, shared.offset[2]);
        const inBlock = at(block, z, y, shared.offset[2]);
        for (let x = 0; x < width; x++) {
          if (mask.data[inMask + x]) this.#own.add(block.data[inBlock + x]);
        }
      }
    }
  }

  /**
   * @param {Block} block
   * @param {Frame} frame
   * @param {number} section
   */
  #polygons(block, { plane }, section) {
    const ofBlock = this.#kept.get(block) ?? new Map();
    this.#kept.set(block, ofBlock);
    const kept = ofBlock.get(plane.name);
    if (kept && kept.section === section && kept.numOwn === this.#own.size) return kept.polygons;
    const [width, height] = [block.size[plane.across], block.size[plane.down]];
    const labels = sectionOf(block, plane, block.indexOf(plane.depth, section), new Uint32Array(width * height));
    for (let i = 0; i < labels.length; i++) if (this.#own.has(labels[i])) labels[i] = 0;
    const polygons = outlines(labels, width, height);
    ofBlock.set(plane.name, { section, numOwn: this.#own.size, polygons });
    return polygons;
  }
}

/**
 * A line with a shadow under it.
 * @param {CanvasRenderingContext2D} ctx in CSS pixels
 * @param {Path2D} path
 * @param {{colour: string, width: number, isDashed: boolean}} style
 */
export function strokeShadowed(ctx, path, { colour, width, isDashed }) {
  ctx.save();
  ctx.strokeStyle = SHADOW;
  ctx.lineWidth = 1.5 * width;
  ctx.stroke(path);
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  if (isDashed) ctx.setLineDash(DASHES);
  ctx.stroke(path);
  ctx.restore();
}

/**
 * Position of a voxel in the data of a box.
 * @param {Box} box
 * @param {number} z
 * @param {number} y
 * @param {number} x
 */
function at({ offset, shape }, z, y, x) {
  return ((z - offset[0]) * shape[1] + y - offset[1]) * shape[2] + x - offset[2];
}
