/**
 * The three orthogonal planes, and where a voxel of each lies on the screen.
 *
 * XY has x across and y down; XZ has x across and z down; YZ has z across and y down, so that y runs as in XY.
 * Lengths on the screen are CSS pixels. Knows nothing of images, masks or pointers.
 */

/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {'xy' | 'xz' | 'yz'} PlaneName */
/** @typedef {{name: PlaneName, across: number, down: number, depth: number}} Plane axes as indices into Z, Y, X */

/** @type {Record<PlaneName, Plane>} */
export const PLANES = {
  xy: { name: "xy", across: 2, down: 1, depth: 0 },
  xz: { name: "xz", across: 2, down: 0, depth: 1 },
  yz: { name: "yz", across: 0, down: 1, depth: 2 },
};

/** How one plane lies on its canvas: the same nm per pixel along both axes, so the aspect is the tissue's. */
export class Frame {
  /**
   * @param {Plane} plane
   * @param {{width: number, height: number, ratio: number}} canvas CSS pixels; ratio = device pixels per CSS pixel
   * @param {{voxelSize: Zyx, nmPerPixel: number, middle: Zyx}} view `middle` is the point in the canvas's middle
   */
  constructor(plane, { width, height, ratio }, { voxelSize, nmPerPixel, middle }) {
    this.plane = plane;
    this.width = width;
    this.height = height;
    this.ratio = ratio;
    /** Pixels per voxel. */
    this.across = voxelSize[plane.across] / nmPerPixel;
    this.down = voxelSize[plane.down] / nmPerPixel;
    // Voxel 0 begins at a whole device pixel, so that edges stay sharp at whole zooms.
    this.left = Math.round((width / 2 - middle[plane.across] * this.across) * ratio) / ratio;
    this.top = Math.round((height / 2 - middle[plane.down] * this.down) * ratio) / ratio;
  }

  /**
   * @param {ArrayLike<number>} zyx
   * @returns {[number, number]} x and y on the canvas
   */
  toScreen(zyx) {
    return [this.left + zyx[this.plane.across] * this.across, this.top + zyx[this.plane.down] * this.down];
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} depth coordinate along the axis that the plane does not show
   * @returns {Zyx}
   */
  toVoxel(x, y, depth) {
    /** @type {Zyx} */
    const point = [0, 0, 0];
    point[this.plane.across] = (x - this.left) / this.across;
    point[this.plane.down] = (y - this.top) / this.down;
    point[this.plane.depth] = depth;
    return point;
  }

  /**
   * The voxels on the canvas: one section, cut to the volume. Null if the canvas shows none of the volume.
   * @param {number} section whole voxel along the depth axis
   * @param {Zyx} volumeShape
   * @param {number} [margin] share of the canvas added on every side
   * @returns {Box | null}
   */
  visible(section, volumeShape, margin = 0) {
    const from = this.toVoxel(-margin * this.width, -margin * this.height, section);
    const to = this.toVoxel((1 + margin) * this.width, (1 + margin) * this.height, section + 1);
    /** @type {Zyx} */
    const offset = [0, 0, 0];
    /** @type {Zyx} */
    const shape = [0, 0, 0];
    for (const axis of [0, 1, 2]) {
      offset[axis] = Math.max(0, Math.floor(from[axis]));
      shape[axis] = Math.min(volumeShape[axis], Math.ceil(to[axis])) - offset[axis];
      if (shape[axis] <= 0) return null;
    }
    return { offset, shape };
  }
}
