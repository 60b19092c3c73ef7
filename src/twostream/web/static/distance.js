/**
 * Signed distances in a section, exact and in nm.
 *
 * Method: Felzenszwalb and Huttenlocher 2012, the lower envelope of parabolas along one axis after the other.
 */

/** @typedef {import("./region.js").Region} Region */
/** @typedef {import("./region.js").Yx} Yx */

/**
 * Distance of every pixel of a box from the border of a region, between pixel centres.
 * @param {Region} region not empty
 * @param {Yx} offset @param {Yx} shape the box; it must reach one pixel beyond the region on every side
 * @param {Yx} size nm of a pixel along y and x
 * @returns {Float64Array} above 0 inside the region, below 0 outside
 */
export function signedDistance(region, offset, shape, size) {
  const inside = region.over(offset, shape).data;
  const toOutside = squaredDistance(inside, shape, size, 0);
  const toInside = squaredDistance(inside, shape, size, 1);
  return toOutside.map((squared, i) => Math.sqrt(squared) - Math.sqrt(toInside[i]));
}

/**
 * @param {Uint8Array} values over `shape`
 * @param {Yx} shape
 * @param {Yx} size nm
 * @param {number} wanted
 * @returns {Float64Array} squared distance in nm of every pixel from the nearest one with the wanted value
 */
function squaredDistance(values, [height, width], [sizeY, sizeX], wanted) {
  const squared = Float64Array.from(values, (value) => (value === wanted ? 0 : Infinity));
  for (let x = 0; x < width; x++) envelope(squared, x, width, height, sizeY);
  for (let y = 0; y < height; y++) envelope(squared, y * width, 1, width, sizeX);
  return squared;
}

/**
 * Replace one line of values f(q) by min over q of (size * (p - q))^2 + f(q).
 * @param {Float64Array} values
 * @param {number} start @param {number} stride @param {number} length the line
 * @param {number} size nm between neighbours
 */
function envelope(values, start, stride, length, size) {
  /** @type {number[]} */ const vertex = [];
  /** @type {number[]} */ const from = []; // vertex[k] is the nearest from position from[k] on
  const line = Float64Array.from({ length }, (_, i) => values[start + i * stride] / size ** 2);
  for (let q = 0; q < length; q++) {
    if (line[q] === Infinity) continue;
    let meets = -Infinity;
    while (vertex.length) {
      const v = vertex[vertex.length - 1];
      meets = (line[q] + q * q - line[v] - v * v) / (2 * (q - v));
      if (meets > from[from.length - 1]) break;
      vertex.pop();
      from.pop();
      meets = -Infinity;
    }
    vertex.push(q);
    from.push(meets);
  }
  if (!vertex.length) return;
  for (let p = 0, k = 0; p < length; p++) {
    while (k + 1 < vertex.length && from[k + 1] < p) k++;
    values[start + p * stride] = size ** 2 * ((p - vertex[k]) ** 2 + line[vertex[k]]);
  }
}
