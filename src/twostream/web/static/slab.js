/**
 * Which block to load for what a plane shows: a slab of a few sections, as fine as the screen can show.
 *
 * Knows frames and boxes; loads nothing itself.
 */

/** @typedef {import("./block.js").Wanted} Wanted */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./planes.js").Frame} Frame */

/** Loaded beyond the canvas on each side, so that a short pan shows tissue at once. */
const MARGIN = 0.125;
/** Voxels that the server reads for one block at most, before the stride; its own limit is a little higher. */
const MAX_READ = 60e6;
/** The next slab is loaded when fewer sections than this lie ahead. */
const AHEAD = 2;
/** Sections of one slab at most: what a person scrolls through while the next slab loads. */
const MAX_SECTIONS = 32;

/**
 * @param {Frame} frame
 * @param {number} section whole voxel along the depth axis
 * @param {Zyx} volumeShape
 * @param {number} maxVoxels values in the slab at most; the stride grows until one section fits
 * @returns {Wanted | null} null if the canvas shows none of the volume
 */
export function slabOf(frame, section, volumeShape, maxVoxels) {
  const need = frame.visible(section, volumeShape);
  const box = frame.visible(section, volumeShape, MARGIN);
  if (!need || !box) return null;
  const { across, down, depth } = frame.plane;
  /** @type {Zyx} */
  const stride = [1, 1, 1];
  stride[across] = strideFor(frame.across * frame.ratio);
  stride[down] = strideFor(frame.down * frame.ratio);
  const area = () => Math.ceil(box.shape[across] / stride[across] + 1) * Math.ceil(box.shape[down] / stride[down] + 1);
  while (area() > maxVoxels) {
    const coarser = frame.across * stride[across] <= frame.down * stride[down] ? across : down;
    stride[coarser] *= 2;
  }
  for (const axis of [across, down]) {
    // Offsets on multiples of the stride: neighbouring blocks then sample the same voxels.
    const shift = box.offset[axis] % stride[axis];
    box.offset[axis] -= shift;
    box.shape[axis] += shift;
  }
  const read = box.shape[across] * box.shape[down];
  const fitting = Math.floor(Math.min(maxVoxels / area(), MAX_READ / read));
  const sections = Math.max(1, Math.min(MAX_SECTIONS, fitting, volumeShape[depth]));
  const start = section - Math.floor(sections / 2);
  box.offset[depth] = Math.max(0, Math.min(start, volumeShape[depth] - sections));
  box.shape[depth] = sections;
  const ahead = Math.min(AHEAD, Math.floor((sections - 1) / 2));
  const first = Math.max(0, section - ahead);
  need.shape[depth] = Math.min(volumeShape[depth], section + ahead + 1) - first;
  need.offset[depth] = first;
  return { need, box, stride };
}

/**
 * The most nm per pixel at which the server still reads a whole section of a plane.
 * @param {Zyx} voxelSize in nm
 * @param {import("./view.js").Sized} canvas
 */
export function coarsestNmPerPixel(voxelSize, { plane, width, height }) {
  const voxelArea = voxelSize[plane.across] * voxelSize[plane.down];
  return Math.sqrt((MAX_READ * voxelArea) / (width * height * (1 + 2 * MARGIN) ** 2));
}

/**
 * The largest power of two that still gives a value for every device pixel.
 * @param {number} pixelsPerVoxel
 */
function strideFor(pixelsPerVoxel) {
  return 2 ** Math.max(0, Math.floor(Math.log2(1 / pixelsPerVoxel)));
}
