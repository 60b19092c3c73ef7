/**
 * Boxes of whole voxels, in the order Z, Y, X.
 *
 * Voxel i reaches from i to i + 1; a box covers offset <= i < offset + shape.
 * Knows nothing of images, masks or the screen.
 */

/** @typedef {[number, number, number]} Zyx */
/** @typedef {{offset: Zyx, shape: Zyx}} Box */

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
