/**
 * The connected pieces of a mask.
 *
 * Two voxels are neighbours if they share a face, an edge or a corner (26 neighbours), as when candidates are decoded
 * from the probability: otherwise a candidate would come apart before anything was cut. A cut is a line whose pixels
 * share edges (strokes.js), which separates under this rule too. Knows masks and the voxel size.
 */

import { VoxelMask } from "./mask.js";
import { Refusal } from "./refusal.js";

/** @typedef {import("./box.js").Zyx} Zyx */

/**
 * @typedef {object} Piece
 * @property {VoxelMask} mask over the bounding box of the piece
 * @property {number} count voxels
 * @property {Zyx} at a voxel of the piece, by which it can be named
 */

/**
 * Runs of drawn voxels along x, by which pieces are found: far fewer than voxels.
 * @typedef {object} Runs
 * @property {number[]} start position of the first voxel in the data of the mask
 * @property {number[]} stop position after the last one
 * @property {Int32Array} row rows[y + Y * z] is the first run of a row; the next entry is the end
 */

/** Pieces are joined by the distance of at most this many of their voxels, which bounds the time. */
const MAX_COMPARED = 1000;

/**
 * The pieces of a mask, the largest first.
 *
 * In polarity a cleft may lie between the sides of one synapse. So a piece that is all presynaptic and one that is all
 * postsynaptic are one piece if each is the other's nearest.
 * @param {VoxelMask} mask
 * @param {Zyx} voxelSize nm
 * @returns {Piece[]}
 */
export function piecesOf(mask, voxelSize) {
  const runs = runsOf(mask);
  /** @type {Map<number, number[]>} numbers of the runs of each component */
  const members = new Map();
  components(mask, runs).forEach((name, run) => {
    const list = members.get(name);
    if (list) list.push(run);
    else members.set(name, [run]);
  });
  const pieces = [...members.values()].map((list) => pieceOf(mask, runs, list));
  return joinedSides(pieces, voxelSize).sort((one, other) => other.count - one.count);
}

/**
 * Divide pieces into the one that stays and the others.
 * @param {Piece[]} pieces
 * @param {Zyx} point in the piece that stays
 * @param {number} minVoxels smaller ones are crumbs of a cut
 * @returns {{kept: Piece, others: VoxelMask[], crumbs: number}} crumbs: how many voxels they have
 * @throws {Refusal} no piece lies at the point
 */
export function divided(pieces, point, minVoxels) {
  const [z, y, x] = point.map(Math.floor);
  const kept = pieces.find((piece) => piece.mask.at(z, y, x));
  if (!kept) throw new Refusal("No piece lies here: point at the one that stays.");
  const cutOff = pieces.filter((piece) => piece !== kept);
  const others = cutOff.filter((piece) => piece.count >= minVoxels).map((piece) => piece.mask);
  const crumbs = cutOff.reduce((sum, piece) => sum + (piece.count < minVoxels ? piece.count : 0), 0);
  return { kept, others, crumbs };
}

/** @param {VoxelMask} mask @returns {Runs} */
function runsOf({ data, shape: [Z, Y, X] }) {
  /** @type {number[]} */ const start = [];
  /** @type {number[]} */ const stop = [];
  const row = new Int32Array(Z * Y + 1);
  for (let line = 0; line < Z * Y; line++) {
    const end = (line + 1) * X;
    for (let at = line * X; at < end; at++) {
      if (!data[at]) continue;
      start.push(at);
      while (at < end && data[at]) at++;
      stop.push(at);
    }
    row[line + 1] = start.length;
  }
  return { start, stop, row };
}

/**
 * 26-connected components: two runs are joined if they are in the same or in neighbouring rows and no further apart
 * along x than a corner.
 * @param {VoxelMask} mask
 * @param {Runs} runs
 * @returns {Int32Array} for each run the number of the first run of its component
 */
function components({ shape: [Z, Y, X] }, runs) {
  const parent = Int32Array.from({ length: runs.start.length }, (_, run) => run);
  /** @param {number} run @returns {number} */
  const root = (run) => {
    while (parent[run] !== run) run = parent[run] = parent[parent[run]];
    return run;
  };
  for (let z = 0; z < Z; z++) {
    for (let y = 0; y < Y; y++) {
      for (const [dz, dy] of [
        [0, -1],
        [-1, -1],
        [-1, 0],
        [-1, 1],
      ]) {
        if (z + dz < 0 || y + dy < 0 || y + dy >= Y) continue;
        const [here, there] = [z * Y + y, (z + dz) * Y + y + dy];
        const shift = (here - there) * X;
        let [a, b] = [runs.row[here], runs.row[there]];
        while (a < runs.row[here + 1] && b < runs.row[there + 1]) {
          if (runs.start[a] <= runs.stop[b] + shift && runs.start[b] + shift <= runs.stop[a]) {
            const [one, other] = [root(a), root(b)];
            parent[Math.max(one, other)] = Math.min(one, other);
          }
          if (runs.stop[a] < runs.stop[b] + shift) a++;
          else b++;
        }
      }
    }
  }
  return parent.map((_, run) => root(run));
}

/**
 * @param {VoxelMask} mask
 * @param {Runs} runs
 * @param {number[]} members numbers of its runs, ascending
 * @returns {Piece}
 */
function pieceOf(mask, { start, stop }, members) {
  const [Y, X] = [mask.shape[1], mask.shape[2]];
  /** @param {number} index @returns {Zyx} */
  const placeOf = (index) => [
    mask.offset[0] + Math.floor(index / (Y * X)),
    mask.offset[1] + (Math.floor(index / X) % Y),
    mask.offset[2] + (index % X),
  ];
  /** @type {Zyx} */ const low = [Infinity, Infinity, Infinity];
  /** @type {Zyx} */ const high = [-1, -1, -1];
  let count = 0;
  for (const run of members) {
    const [first, last] = [placeOf(start[run]), placeOf(stop[run] - 1)];
    for (const axis of [0, 1, 2]) {
      low[axis] = Math.min(low[axis], first[axis]);
      high[axis] = Math.max(high[axis], last[axis]);
    }
    count += stop[run] - start[run];
  }
  const piece = new VoxelMask(low, [high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1]);
  for (const run of members) {
    piece.data.set(mask.data.subarray(start[run], stop[run]), piece.index(...placeOf(start[run])));
  }
  const middle = members[Math.floor(members.length / 2)];
  return { mask: piece, count, at: placeOf(Math.floor((start[middle] + stop[middle] - 1) / 2)) };
}

/**
 * @param {Piece[]} pieces
 * @param {Zyx} voxelSize
 * @returns {Piece[]} the same voxels, with sides that belong together as one piece
 */
function joinedSides(pieces, voxelSize) {
  const [pre, post] = [2, 1].map((absent) => pieces.filter(({ mask }) => !mask.data.includes(absent)));
  if (!pre.length || !post.length) return pieces;
  const points = new Map([...pre, ...post].map((piece) => [piece, surfaceOf(piece.mask, voxelSize)]));
  const distance = pre.map((a) => post.map((b) => nearest(points.get(a) ?? [], points.get(b) ?? [])));
  const used = new Set();
  /** @type {Piece[]} */
  const joined = [];
  pre.forEach((one, i) => {
    const j = distance[i].indexOf(Math.min(...distance[i]));
    const back = distance.map((row) => row[j]);
    if (back.indexOf(Math.min(...back)) !== i) return;
    joined.push(union(one, post[j]));
    used.add(one).add(post[j]);
  });
  return [...joined, ...pieces.filter((piece) => !used.has(piece))];
}

/** @param {Piece} one @param {Piece} other @returns {Piece} */
function union(one, other) {
  const mask = one.mask.grownTo(other.mask.offset, other.mask.shape).clone();
  forDrawn(other.mask, (z, y, x, value) => (mask.data[mask.index(z, y, x)] = value));
  return { mask, count: one.count + other.count, at: one.at };
}

/** @param {VoxelMask} mask @param {(z: number, y: number, x: number, value: number) => void} visit */
function forDrawn({ offset, shape, data }, visit) {
  for (let k = 0, at = 0; k < shape[0]; k++) {
    for (let j = 0; j < shape[1]; j++) {
      for (let i = 0; i < shape[2]; i++, at++) {
        if (data[at]) visit(k + offset[0], j + offset[1], i + offset[2], data[at]);
      }
    }
  }
}

/**
 * @param {VoxelMask} mask
 * @param {Zyx} voxelSize
 * @returns {Zyx[]} at most `MAX_COMPARED` voxels at the surface of a mask in XY, in nm
 */
function surfaceOf(mask, voxelSize) {
  /** @type {Zyx[]} */
  const points = [];
  forDrawn(mask, (z, y, x) => {
    const isInside = mask.at(z, y - 1, x) && mask.at(z, y + 1, x) && mask.at(z, y, x - 1) && mask.at(z, y, x + 1);
    if (!isInside) points.push([z * voxelSize[0], y * voxelSize[1], x * voxelSize[2]]);
  });
  const every = Math.ceil(points.length / MAX_COMPARED);
  return points.filter((_, i) => i % every === 0);
}

/** @param {Zyx[]} one @param {Zyx[]} other @returns {number} squared distance in nm of the nearest two points */
function nearest(one, other) {
  let best = Infinity;
  for (const [az, ay, ax] of one) {
    for (const [bz, by, bx] of other) best = Math.min(best, (az - bz) ** 2 + (ay - by) ** 2 + (ax - bx) ** 2);
  }
  return best;
}
