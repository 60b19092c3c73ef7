/**
 * A mask drawn over the image: outlines along the voxels' edges, or filled.
 *
 * Draws the mask it is given and nothing else, so a neighbour's voxels cannot appear as the candidate's.
 */

import { sectionOf } from "./contrast.js";
import { outlines, pathOf } from "./outline.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./outline.js").Polygon} Polygon */
/** @typedef {import("./planes.js").Frame} Frame */
/** @typedef {import("./planes.js").Plane} Plane */
/** @typedef {{offset: Zyx, shape: Zyx, data: Uint8Array}} Mask as VoxelMask of mask.js: 0 outside, 1 inside or pre, 2 post */
/** @typedef {'outline' | 'fill' | 'off'} Overlay */
/** @typedef {{overlay: Overlay, opacity: number, dashed?: boolean}} Style */

/** A filled mask covers the tissue that is to be judged, so it is fainter than its outline. */
const FILL_SHARE = 0.5;
const LINE_WIDTH = 2;
const DASHES = [7, 5];

/** The outlines of masks by plane and section, kept until `forget`. */
export class MaskOutlines {
  /** @type {WeakMap<Mask, Map<string, {section: number, polygons: Polygon[]}>>} */
  #kept = new WeakMap();

  /** A mask may have been edited in place. */
  forget() {
    this.#kept = new WeakMap();
  }

  /**
   * @param {Mask} mask
   * @param {Plane} plane
   * @param {number} section whole voxel along the plane's depth axis
   * @returns {Polygon[]} corners relative to the mask's offset
   */
  of(mask, plane, section) {
    const ofMask = this.#kept.get(mask) ?? new Map();
    this.#kept.set(mask, ofMask);
    const kept = ofMask.get(plane.name);
    if (kept?.section === section) return kept.polygons;
    const index = section - mask.offset[plane.depth];
    const isInside = index >= 0 && index < mask.shape[plane.depth];
    const [width, height] = [mask.shape[plane.across], mask.shape[plane.down]];
    const block = { size: mask.shape, data: mask.data };
    const polygons = isInside ? outlines(sectionOf(block, plane, index, new Uint8Array(width * height)), width, height) : [];
    ofMask.set(plane.name, { section, polygons });
    return polygons;
  }
}

/**
 * @param {CanvasRenderingContext2D} ctx in CSS pixels
 * @param {Frame} frame
 * @param {Polygon[]} polygons relative to `offset`
 * @param {Zyx} offset
 * @param {Record<number, string>} colours the colour of each value
 * @param {Style} style
 */
export function drawMask(ctx, frame, polygons, offset, colours, { overlay, opacity, dashed = false }) {
  if (overlay === "off" || polygons.length === 0) return;
  ctx.save();
  ctx.lineJoin = "round";
  // From the highest value down: where both sides meet, the presynaptic line lies on top in every section.
  const values = [...new Set(polygons.map((polygon) => polygon.value))].sort((a, b) => b - a);
  for (const value of values) {
    const path = screenPath(
      frame,
      polygons.filter((polygon) => polygon.value === value),
      offset,
    );
    ctx.fillStyle = ctx.strokeStyle = colours[value] ?? colours[1];
    if (overlay === "fill") {
      ctx.globalAlpha = opacity * FILL_SHARE;
      ctx.fill(path, "evenodd");
      continue;
    }
    ctx.globalAlpha = opacity;
    ctx.lineWidth = LINE_WIDTH;
    ctx.setLineDash(dashed ? DASHES : []);
    ctx.stroke(path);
  }
  ctx.restore();
}

/**
 * @param {Frame} frame
 * @param {Polygon[]} polygons relative to `offset`
 * @param {Zyx} offset
 */
export function screenPath(frame, polygons, offset) {
  const left = frame.left + offset[frame.plane.across] * frame.across;
  const top = frame.top + offset[frame.plane.down] * frame.down;
  return pathOf(polygons, (across, down) => [left + across * frame.across, top + down * frame.down]);
}
