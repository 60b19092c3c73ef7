/**
 * A window over the image: its frame, the candidates in it, and which of its sections were on the screen.
 *
 * A section was seen when the whole frame was on the XY plane with the image in it. Candidates that were answered have
 * solid outlines, in red where nothing is there; those without an answer have dashed ones.
 * Knows boxes and masks; must not know what is decided.
 */

import { contains } from "./box.js";
import { strokeShadowed } from "./others.js";
import { screenPath } from "./overlay.js";

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./mask.js").VoxelMask} VoxelMask */
/** @typedef {import("./overlay.js").MaskOutlines} MaskOutlines */
/** @typedef {import("./planes.js").Frame} Frame */
/** @typedef {{mask: VoxelMask, kind: string}} Proposed a candidate; `kind` of its answer, "" without one */

const FRAME = "rgb(255 255 255 / 90%)";
/** What lies outside the window is dimmed, and stays visible: an object may reach into it. */
const DIM = "rgb(0 0 0 / 40%)";
/** Outlines by kind of answer; those that are not listed say nothing about what is there. */
const COLOURS = /** @type {Record<string, string>} */ ({ nothing: "#ff8377", true: "#4fcf9f", corrected: "#4fcf9f", swapped: "#4fcf9f", shape: "#eab54a" });
const UNKNOWN = "#ffffff";
const WIDTH = 2;
const FILL = 0.25;

export class WindowLayer {
  /** Called when a section is seen for the first time. */
  onSeen = () => {};

  /**
   * @param {Box} box
   * @param {Proposed[]} proposed
   * @param {Set<number>} seen sections that were on the screen before
   */
  constructor(box, proposed, seen) {
    this.box = box;
    this.proposed = proposed;
    this.seen = seen;
  }

  /** Sections of the window that were not on the screen yet. */
  get unseen() {
    const sections = Array.from({ length: this.box.shape[0] }, (_, i) => this.box.offset[0] + i);
    return sections.filter((section) => !this.seen.has(section));
  }

  /**
   * Note that a section is on the XY plane.
   * @param {number} section
   * @param {Box | null} visible what of it the canvas shows
   * @param {Block[]} used blocks that were drawn
   */
  note(section, visible, used) {
    const [, height, width] = this.box.shape;
    const [first, top, left] = this.box.offset;
    /** @type {Box} */
    const slice = { offset: [section, top, left], shape: [1, height, width] };
    if (section < first || section >= first + this.box.shape[0] || this.seen.has(section)) return;
    if (!visible || !contains(visible, slice) || !used.some((block) => contains(block, slice))) return;
    this.seen.add(section);
    this.onSeen();
  }

  /**
   * @param {CanvasRenderingContext2D} ctx in CSS pixels
   * @param {Frame} frame
   * @param {number} section
   * @param {MaskOutlines} outlines
   * @param {import("./overlay.js").Overlay} overlay
   */
  draw(ctx, frame, section, outlines, overlay) {
    this.#drawFrame(ctx, frame, section);
    if (overlay === "off") return;
    for (const { mask, kind } of this.proposed) {
      const polygons = outlines.of(mask, frame.plane, section);
      if (!polygons.length) continue;
      const path = screenPath(frame, polygons, mask.offset);
      const colour = COLOURS[kind] ?? UNKNOWN;
      strokeShadowed(ctx, path, { colour, width: WIDTH, isDashed: !kind });
      if (overlay === "fill") fill(ctx, path, colour);
    }
  }

  /** The frame, and everything outside it dimmed. @param {CanvasRenderingContext2D} ctx @param {Frame} frame @param {number} section */
  #drawFrame(ctx, frame, section) {
    const { offset, shape } = this.box;
    const { depth } = frame.plane;
    const [left, top] = frame.toScreen(offset);
    const [right, bottom] = frame.toScreen(offset.map((from, axis) => from + shape[axis]));
    const isInside = section >= offset[depth] && section < offset[depth] + shape[depth];
    const outside = new Path2D();
    outside.rect(0, 0, frame.width, frame.height);
    if (isInside) outside.rect(left, top, right - left, bottom - top);
    ctx.save();
    ctx.fillStyle = DIM;
    ctx.fill(outside, "evenodd");
    ctx.strokeStyle = FRAME;
    ctx.lineWidth = isInside ? 1.5 : 1;
    if (!isInside) ctx.setLineDash([2, 4]);
    ctx.strokeRect(left, top, right - left, bottom - top);
    ctx.restore();
  }
}

/** @param {CanvasRenderingContext2D} ctx @param {Path2D} path @param {string} colour */
function fill(ctx, path, colour) {
  ctx.save();
  ctx.globalAlpha = FILL;
  ctx.fillStyle = colour;
  ctx.fill(path, "evenodd");
  ctx.restore();
}
