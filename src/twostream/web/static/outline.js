/**
 * Outlines of labelled regions along the voxels' edges.
 *
 * Knows a section of whole numbers and nothing of where it comes from. Regions are 4-connected: two voxels that meet
 * at a corner only have an outline each.
 */

/** @typedef {{value: number, points: number[]}} Polygon corners a0, d0, a1, d1, ...: columns and rows of voxel edges */

// Directions in clockwise order: right, down, left, up.
const STEP_ACROSS = [1, 0, -1, 0];
const STEP_DOWN = [0, 1, 0, -1];
// The voxel ahead of a corner on the right hand, from the voxel to the lower right of that corner. The one on the
// left hand is the right hand's of the direction before.
const AHEAD_ACROSS = [0, -1, -1, 0];
const AHEAD_DOWN = [0, 0, -1, -1];

/**
 * Every closed outline of every value but 0. Holes have their own polygons, so filling needs the even-odd rule.
 * @param {Uint8Array | Uint32Array} section width x height values, row by row
 * @param {number} width
 * @param {number} height
 * @returns {Polygon[]}
 */
export function outlines(section, width, height) {
  const seen = new Uint8Array(section.length); // upper edges already walked
  const polygons = [];
  for (let row = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, at++) {
      const value = section[at];
      if (value === 0 || seen[at] || (row > 0 && section[at - width] === value)) continue;
      polygons.push({ value, points: walk(section, width, height, column, row, seen) });
    }
  }
  return polygons;
}

/**
 * Walk an outline clockwise, the region on the right hand, from the upper edge of a voxel.
 * @param {Uint8Array | Uint32Array} section
 * @param {number} width
 * @param {number} height
 * @param {number} column
 * @param {number} row
 * @param {Uint8Array} seen
 */
function walk(section, width, height, column, row, seen) {
  const value = section[row * width + column];
  const has = (/** @type {number} */ c, /** @type {number} */ r) =>
    c >= 0 && r >= 0 && c < width && r < height && section[r * width + c] === value;
  const isAhead = (/** @type {number} */ hand) => has(across + AHEAD_ACROSS[hand], down + AHEAD_DOWN[hand]);
  const points = [column, row];
  let [across, down, direction] = [column, row, 0];
  do {
    if (direction === 0) seen[down * width + across] = 1;
    across += STEP_ACROSS[direction];
    down += STEP_DOWN[direction];
    const before = (direction + 3) % 4;
    if (!isAhead(direction)) direction = (direction + 1) % 4;
    else if (isAhead(before)) direction = before;
    else continue;
    points.push(across, down);
  } while (across !== column || down !== row || direction !== 0);
  points.length -= 2; // the walk ends with the corner it began with
  return points;
}

/**
 * The polygons as one path on the screen.
 * @param {Polygon[]} polygons
 * @param {(across: number, down: number) => [number, number]} toScreen
 */
export function pathOf(polygons, toScreen) {
  const path = new Path2D();
  for (const { points } of polygons) {
    path.moveTo(...toScreen(points[0], points[1]));
    for (let i = 2; i < points.length; i += 2) path.lineTo(...toScreen(points[i], points[i + 1]));
    path.closePath();
  }
  return path;
}
