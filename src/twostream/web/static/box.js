/**
 * Boxes of whole voxels, in the order Z, Y, X.
 *
 * Voxel i reaches from i to i + 1; a box covers offset <= i < offset + shape.
 * Knows nothing of images, masks or the screen.
 */

/** @typedef {[number, number, number]} Zyx */
/** @typedef {{offset: Zyx, shape: Zyx}} Box */

/**
 * The box that the server writes as offset_zyx and shape_zyx.
 * @param {{offset_zyx: number[], shape_zyx: number[]}} wire
 * @returns {Box}
 */
export function boxFromWire(wire) {
  return { offset: zyx(wire.offset_zyx), shape: zyx(wire.shape_zyx) };
}

/**
 * The box as the server's query strings say it: Z0:Z1,Y0:Y1,X0:X1.
 * @param {Box} box
 */
export function boxText({ offset, shape }) {
  return offset.map((start, axis) => `${start}:${start + shape[axis]}`).join(",");
}

/**
 * A point as planes have it, where voxel i reaches from i to i + 1, from the server's, where voxel i's middle is i.
 * @param {ArrayLike<number>} center_zyx
 * @returns {Zyx}
 */
export function pointFromCenter(center_zyx) {
  return zyx([center_zyx[0] + 0.5, center_zyx[1] + 0.5, center_zyx[2] + 0.5]);
}

/**
 * The server's center_zyx of a point in a plane.
 * @param {ArrayLike<number>} point
 * @returns {Zyx}
 */
export function centerFromPoint(point) {
  return zyx([point[0] - 0.5, point[1] - 0.5, point[2] - 0.5]);
}

/**
 * Three numbers, checked.
 * @param {ArrayLike<number>} values
 * @returns {Zyx}
 */
export function zyx(values) {
  if (values.length !== 3) throw new Error(`got ${values.length} numbers; expected three: Z, Y, X`);
  return [values[0], values[1], values[2]];
}

/** @param {Box} box */
export function numVoxels({ shape }) {
  return shape[0] * shape[1] * shape[2];
}

/**
 * Does `outer` hold all of `inner`?
 * @param {Box} outer
 * @param {Box} inner
 */
export function contains(outer, inner) {
  return [0, 1, 2].every(
    (axis) =>
      outer.offset[axis] <= inner.offset[axis] &&
      inner.offset[axis] + inner.shape[axis] <= outer.offset[axis] + outer.shape[axis],
  );
}

/**
 * What two boxes share, or null.
 * @param {Box} one
 * @param {Box} other
 * @returns {Box | null}
 */
export function intersection(one, other) {
  /** @type {Zyx} */
  const offset = [0, 0, 0];
  /** @type {Zyx} */
  const shape = [0, 0, 0];
  for (const axis of [0, 1, 2]) {
    offset[axis] = Math.max(one.offset[axis], other.offset[axis]);
    shape[axis] = Math.min(one.offset[axis] + one.shape[axis], other.offset[axis] + other.shape[axis]) - offset[axis];
    if (shape[axis] <= 0) return null;
  }
  return { offset, shape };
}
