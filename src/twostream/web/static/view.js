/**
 * Where the viewer looks: the crosshair, the point in the canvases' middle and the zoom.
 *
 * One middle and one zoom serve all three planes, so that they show the same place at the same size. Knows voxels and
 * CSS pixels; draws nothing.
 */

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./planes.js").Plane} Plane */
/** @typedef {{plane: Plane, width: number, height: number}} Sized a plane and its canvas in CSS pixels */

const MAX_ZOOM = 64;
/** The crosshair keeps to this share of every canvas when one scrolls. */
const KEPT_SHARE = 0.9;

export class View {
  /** @type {Zyx} the crosshair: the sections through its voxel are shown */
  #center = [0, 0, 0];
  /** @type {Zyx} the point in the middle of the canvases */
  middle = [0, 0, 0];
  /** CSS pixels for one voxel of the finer in-plane axis. */
  zoom = 1;
  minZoom = 1 / 64;

  /**
   * @param {Zyx} voxelSize in nm
   * @param {Zyx} shape of the volume in voxels
   */
  constructor(voxelSize, shape) {
    this.voxelSize = voxelSize;
    this.shape = shape;
  }

  get nmPerPixel() {
    return Math.min(this.voxelSize[1], this.voxelSize[2]) / this.zoom;
  }

  /** @returns {Zyx} */
  get center() {
    return [...this.#center];
  }

  /**
   * The voxel of the crosshair along an axis.
   * @param {number} axis
   */
  section(axis) {
    return clamp(Math.floor(this.#center[axis]), 0, this.shape[axis] - 1);
  }

  /** The middle of the crosshair's voxel. @returns {Zyx} */
  get cross() {
    return [this.section(0) + 0.5, this.section(1) + 0.5, this.section(2) + 0.5];
  }

  /**
   * Move the crosshair and leave the tissue where it is.
   * @param {ArrayLike<number>} point
   */
  mark(point) {
    for (const axis of [0, 1, 2]) this.#center[axis] = clamp(point[axis], 0, this.shape[axis] - 1e-6);
  }

  /**
   * Move the crosshair and bring it to the middle.
   * @param {ArrayLike<number>} point
   */
  goTo(point) {
    this.mark(point);
    this.middle = this.cross;
  }

  /**
   * @param {number} axis
   * @param {number} sections
   */
  scroll(axis, sections) {
    this.#center[axis] = clamp(this.section(axis) + sections, 0, this.shape[axis] - 1) + 0.5;
  }

  /**
   * @param {Plane} plane
   * @param {number} dx CSS pixels to the right
   * @param {number} dy CSS pixels down
   */
  pan({ across, down }, dx, dy) {
    this.middle[across] -= (dx * this.nmPerPixel) / this.voxelSize[across];
    this.middle[down] -= (dy * this.nmPerPixel) / this.voxelSize[down];
    for (const axis of [across, down]) this.middle[axis] = clamp(this.middle[axis], 0, this.shape[axis]);
  }

  /**
   * Zoom; what lies at x, y stays there.
   * @param {number} factor
   * @param {Sized} canvas
   * @param {number} x CSS pixels
   * @param {number} y CSS pixels
   */
  zoomAbout(factor, { plane, width, height }, x, y) {
    const before = this.nmPerPixel;
    this.zoom = clamp(this.zoom * factor, this.minZoom, MAX_ZOOM);
    // The way from the middle to x, y in nm is shorter by this much for each pixel.
    const shift = (before - this.nmPerPixel) / this.nmPerPixel;
    this.pan(plane, -(x - width / 2) * shift, -(y - height / 2) * shift);
  }

  /** @param {number} nmPerPixel no more than this can be shown */
  limit(nmPerPixel) {
    this.minZoom = Math.min(MAX_ZOOM, this.#zoomOf(nmPerPixel));
    this.zoom = Math.max(this.zoom, this.minZoom);
  }

  /** @param {number} nmPerPixel */
  #zoomOf(nmPerPixel) {
    return Math.min(this.voxelSize[1], this.voxelSize[2]) / nmPerPixel;
  }

  /**
   * Bring the crosshair back onto every canvas, along some axes.
   * @param {Sized[]} canvases
   * @param {number[]} [axes]
   */
  follow(canvases, axes = [0, 1, 2]) {
    for (const axis of axes) {
      const sides = canvases.flatMap(({ plane, width, height }) =>
        plane.across === axis ? [width] : plane.down === axis ? [height] : [],
      );
      const reach = (Math.min(...sides) * 0.5 * KEPT_SHARE * this.nmPerPixel) / this.voxelSize[axis];
      const cross = this.cross[axis];
      this.middle[axis] = clamp(this.middle[axis], cross - reach, cross + reach);
    }
  }

  /**
   * The zoom at which an XY canvas just holds a box.
   * @param {ArrayLike<number>} shape of the box in voxels
   * @param {Sized} canvas
   */
  fit(shape, { width, height }) {
    const nmPerPixel = Math.max((shape[2] * this.voxelSize[2]) / width, (shape[1] * this.voxelSize[1]) / height);
    this.zoom = clamp(this.#zoomOf(nmPerPixel), this.minZoom, MAX_ZOOM);
  }
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
