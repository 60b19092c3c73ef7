/**
 * One canvas with one plane: its size in device pixels, and the image's blocks drawn on it.
 *
 * Knows blocks and frames. Which section is shown, and what lies over the image, the viewer decides.
 */

import { contains, intersection } from "./box.js";
import { Frame, PLANES } from "./planes.js";

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./contrast.js").SectionPictures} SectionPictures */
/** @typedef {import("./planes.js").PlaneName} PlaneName */

/** From this many device pixels for one voxel, voxels are drawn as rectangles with sharp edges. */
const CRISP_FROM = 3;

export class SectionCanvas {
  /** @param {PlaneName} name */
  constructor(name) {
    this.plane = PLANES[name];
    this.canvas = document.createElement("canvas");
    this.canvas.className = `viewer-plane viewer-${name}`;
    this.canvas.setAttribute("role", "img");
    const ctx = this.canvas.getContext("2d", { alpha: false });
    if (!ctx) throw new Error("the browser gives no 2D canvas");
    this.ctx = ctx;
    /** CSS pixels. */
    this.width = 0;
    this.height = 0;
    this.canvas.width = this.canvas.height = 0;
    this.ratio = 1;
  }

  /**
   * Take the size that the page gave the canvas.
   * @returns {boolean} whether it changed
   */
  measure() {
    const { left, top, right, bottom } = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    // As the browser snaps boxes to device pixels: a canvas of another size would be resampled, and blurred.
    const width = Math.round(right * ratio) - Math.round(left * ratio);
    const height = Math.round(bottom * ratio) - Math.round(top * ratio);
    if (width === this.canvas.width && height === this.canvas.height && ratio === this.ratio) return false;
    Object.assign(this.canvas, { width, height });
    Object.assign(this, { width: width / ratio, height: height / ratio, ratio });
    return true;
  }

  /** @param {import("./view.js").View} view */
  frame(view) {
    return new Frame(this.plane, this, view);
  }

  /** @param {string} ground the colour where no image is */
  clear(ground) {
    this.ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.ctx.fillStyle = ground;
    this.ctx.fillRect(0, 0, this.width, this.height);
  }

  /**
   * Which section it is, in the upper left corner and for screen readers.
   * @param {number} section
   * @param {number} numSections
   */
  label(section, numSections) {
    const { name, depth } = this.plane;
    const text = `${name.toUpperCase()}, ${"zyx"[depth]} ${section}`;
    const label = `${text} of ${numSections}`;
    if (this.canvas.getAttribute("aria-label") !== label) this.canvas.setAttribute("aria-label", label);
    if (name === "xy") return; // has the section bar
    this.ctx.font = "12px system-ui, sans-serif";
    this.ctx.lineJoin = "round";
    this.ctx.lineWidth = 3;
    this.ctx.strokeStyle = "rgb(0 0 0 / 75%)";
    this.ctx.fillStyle = "white";
    this.ctx.strokeText(text, 8, 18);
    this.ctx.fillText(text, 8, 18);
  }

  /**
   * Draw the blocks, coarse ones first so that fine ones lie over them.
   * @param {Frame} frame
   * @param {Block[]} blocks through `section`, the finest first
   * @param {number} section whole voxel along the depth axis
   * @param {Box} visible
   * @param {SectionPictures} pictures
   * @returns {Block[]} the blocks that were drawn
   */
  drawImage(frame, blocks, section, visible, pictures) {
    const used = [];
    for (const block of blocks) {
      if (!intersection(block, visible)) continue;
      used.push(block);
      if (contains(block, visible)) break;
    }
    for (const block of [...used].reverse()) this.#drawBlock(frame, block, section, pictures);
    return used;
  }

  /**
   * @param {Frame} frame
   * @param {Block} block
   * @param {number} section
   * @param {SectionPictures} pictures
   */
  #drawBlock(frame, block, section, pictures) {
    const { across, down, depth } = this.plane;
    const picture = pictures.of(block, this.plane, block.indexOf(depth, section));
    const [left, top] = frame.toScreen(block.offset);
    const pixelsAcross = frame.across * block.stride[across] * frame.ratio;
    const pixelsDown = frame.down * block.stride[down] * frame.ratio;
    const isCrisp = Math.min(pixelsAcross, pixelsDown) >= 1 && Math.max(pixelsAcross, pixelsDown) >= CRISP_FROM;
    this.ctx.imageSmoothingEnabled = !isCrisp;
    this.ctx.imageSmoothingQuality = "medium";
    // The last stored value of a strided block may cover fewer voxels than the stride.
    this.ctx.drawImage(
      picture,
      0,
      0,
      block.shape[across] / block.stride[across],
      block.shape[down] / block.stride[down],
      left,
      top,
      block.shape[across] * frame.across,
      block.shape[down] * frame.down,
    );
  }
}
