/**
 * What a pointer's path covers in a section: a brush stroke, a thin line, an outline with its inside.
 *
 * Knows points, pixels and the voxel size. Points are y, x; pixel i reaches from i to i + 1.
 */

import { Region } from "./region.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./region.js").Yx} Yx */

/**
 * The pixels that a round brush covers on its way. The brush is round in nm, so where voxels are longer along one axis
 * it covers fewer of them. However thin it is, it covers the pixels that the path crosses.
 * @param {Yx[]} path at least one point
 * @param {number} radiusNm
 * @param {Zyx} voxelSize nm
 * @param {Yx} image extent of the image
 * @returns {Region}
 */
export function brushRegion(path, radiusNm, [, sizeY, sizeX], image) {
  const region = Region.around(path, [radiusNm / sizeY + 1, radiusNm / sizeX + 1], image);
  for (let i = 0; i < Math.max(1, path.length - 1); i++) {
    addCapsule(region, path[i], path[Math.min(i + 1, path.length - 1)], radiusNm, sizeY, sizeX);
  }
  addLine(region, path);
  return region;
}

/**
 * @param {Region} region
 * @param {Yx} from @param {Yx} to ends of the axis of the capsule
 * @param {number} radiusNm @param {number} sizeY @param {number} sizeX nm
 */
function addCapsule(region, from, to, radiusNm, sizeY, sizeX) {
  const [ay, ax] = [from[0] * sizeY, from[1] * sizeX];
  const [dy, dx] = [to[0] * sizeY - ay, to[1] * sizeX - ax];
  const squared = dy * dy + dx * dx;
  const first = Math.max(region.offset[0], Math.floor(Math.min(from[0], to[0]) - radiusNm / sizeY));
  const last = Math.min(
    region.offset[0] + region.shape[0] - 1,
    Math.floor(Math.max(from[0], to[0]) + radiusNm / sizeY),
  );
  const left = Math.max(region.offset[1], Math.floor(Math.min(from[1], to[1]) - radiusNm / sizeX));
  const right = Math.min(
    region.offset[1] + region.shape[1] - 1,
    Math.floor(Math.max(from[1], to[1]) + radiusNm / sizeX),
  );
  for (let y = first; y <= last; y++) {
    for (let x = left; x <= right; x++) {
      const [py, px] = [(y + 0.5) * sizeY - ay, (x + 0.5) * sizeX - ax];
      const along = squared ? Math.min(1, Math.max(0, (py * dy + px * dx) / squared)) : 0;
      if (Math.hypot(py - along * dy, px - along * dx) <= radiusNm) region.add(y, x);
    }
  }
}

/**
 * The pixels that a path crosses. Consecutive ones share an edge, so that nothing passes through the line at a corner:
 * a cut along it separates what lies on its two sides.
 * @param {Yx[]} path at least one point
 * @param {Yx} image extent of the image
 * @returns {Region}
 */
export function lineRegion(path, image) {
  const region = Region.around(path, [1, 1], image);
  addLine(region, path);
  return region;
}

/** @param {Region} region @param {Yx[]} path */
function addLine(region, path) {
  region.add(Math.floor(path[0][0]), Math.floor(path[0][1]));
  for (let i = 1; i < path.length; i++) addSegment(region, path[i - 1], path[i]);
}

/**
 * Walk from pixel to pixel over the edges that the segment crosses, in the order in which it crosses them.
 * @param {Region} region @param {Yx} from @param {Yx} to
 */
function addSegment(region, from, to) {
  const delta = [to[0] - from[0], to[1] - from[1]];
  const pixel = [Math.floor(from[0]), Math.floor(from[1])];
  const left = [0, 1].map((axis) => Math.abs(Math.floor(to[axis]) - pixel[axis]));
  const step = [Math.sign(delta[0]), Math.sign(delta[1])];
  const cost = [0, 1].map((axis) => (delta[axis] ? 1 / Math.abs(delta[axis]) : Infinity));
  const next = [0, 1].map((axis) => {
    const inside = from[axis] - pixel[axis];
    return (step[axis] > 0 ? 1 - inside : inside) * cost[axis];
  });
  region.add(pixel[0], pixel[1]);
  while (left[0] > 0 || left[1] > 0) {
    const axis = left[1] === 0 || (left[0] > 0 && next[0] <= next[1]) ? 0 : 1;
    pixel[axis] += step[axis];
    next[axis] += cost[axis];
    left[axis] -= 1;
    region.add(pixel[0], pixel[1]);
  }
}

/**
 * An outline with its inside. The path is closed by a straight line from its end to its start; what a path that crosses
 * itself goes around more than once is inside.
 * @param {Yx[]} path at least one point
 * @param {Yx} image extent of the image
 * @returns {Region}
 */
export function outlineRegion(path, image) {
  const closed = [...path, path[0]];
  const region = Region.around(closed, [1, 1], image);
  addLine(region, closed);
  for (let j = 0; j < region.shape[0]; j++) {
    const y = region.offset[0] + j;
    const crossings = crossingsAt(closed, y + 0.5);
    let winding = 0;
    for (let c = 0; c + 1 < crossings.length; c++) {
      winding += crossings[c].turn;
      if (!winding) continue;
      const first = Math.max(region.offset[1], Math.ceil(crossings[c].x - 0.5));
      const last = Math.min(region.offset[1] + region.shape[1] - 1, Math.ceil(crossings[c + 1].x - 0.5) - 1);
      for (let x = first; x <= last; x++) region.add(y, x);
    }
  }
  return region;
}

/**
 * @param {Yx[]} closed a path whose last point is its first
 * @param {number} y
 * @returns {{x: number, turn: number}[]} where the path crosses a horizontal line, from left to right
 */
function crossingsAt(closed, y) {
  const crossings = [];
  for (let i = 1; i < closed.length; i++) {
    const [[ay, ax], [by, bx]] = [closed[i - 1], closed[i]];
    if (ay <= y === by <= y) continue;
    crossings.push({ x: ax + ((y - ay) / (by - ay)) * (bx - ax), turn: by > ay ? 1 : -1 });
  }
  return crossings.sort((one, other) => one.x - other.x);
}
