/**
 * The connected pieces of a mask.
 *
 * Two voxels are neighbours if they share a face, an edge or a corner (26 neighbours), as when candidates are decoded from
 * the probability: otherwise a candidate would come apart before anything was cut. A cut is a line whose pixels share
 * edges (strokes.js), which separates under this rule too. Knows masks and the voxel size.
 */

import { VoxelMask } from "./mask.js";
import { Refusal } from "./refusal.js";

/** @typedef {import("./mask.js").Zyx} Zyx */

/**
 * @typedef {object} Piece
 * @property {VoxelMask} mask over the bounding box of the piece
 * @property {number} count voxels
 * @property {Zyx} at a voxel of the piece, by which it can be named
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
  const { labels, count } = components(mask);
  const joined = joinedSides(mask, labels, count, voxelSize);
  /** @type {Map<number, number[]>} */
  const voxels = new Map();
  labels.forEach((label, index) => {
    if (!label) return;
    const name = joined[label];
    const list = voxels.get(name);
    if (list) list.push(index);
    else voxels.set(name, [index]);
  });
  const pieces = [...voxels.values()].map((indices) => pieceOf(mask, indices));
  return pieces.sort((one, other) => other.count - one.count);
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

/**
 * @param {VoxelMask} mask
 * @param {number} index position in its data
 * @returns {Zyx} voxel of the image
 */
function placeOf({ offset, shape: [, Y, X] }, index) {
  return [offset[0] + Math.floor(index / (Y * X)), offset[1] + (Math.floor(index / X) % Y), offset[2] + (index % X)];
}

/**
 * @param {VoxelMask} mask
 * @param {number[]} indices positions in its data, ascending
 * @returns {Piece}
 */
function pieceOf(mask, indices) {
  /** @type {Zyx} */ const low = [Infinity, Infinity, Infinity];
  /** @type {Zyx} */ const high = [-1, -1, -1];
  for (const index of indices) {
    placeOf(mask, index).forEach((value, axis) => {
      low[axis] = Math.min(low[axis], value);
      high[axis] = Math.max(high[axis], value);
    });
  }
  const piece = new VoxelMask(low, [high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1]);
  for (const index of indices) piece.data[piece.index(...placeOf(mask, index))] = mask.data[index];
  return { mask: piece, count: indices.length, at: placeOf(mask, indices[Math.floor(indices.length / 2)]) };
}

/**
 * @param {VoxelMask} mask
 * @returns {{labels: Int32Array, count: number}} 26-connected components, from 1; 0 = background
 */
function components(mask) {
  const [Z, Y, X] = mask.shape;
  const labels = new Int32Array(mask.data.length);
  let count = 0;
  /** @type {number[]} */
  const stack = [];
  for (let start = 0; start < labels.length; start++) {
    if (!mask.data[start] || labels[start]) continue;
    labels[start] = ++count;
    stack.push(start);
    while (stack.length) {
      const index = /** @type {number} */ (stack.pop());
      const [z, y, x] = [Math.floor(index / (Y * X)), Math.floor(index / X) % Y, index % X];
      for (let k = Math.max(0, z - 1); k <= Math.min(Z - 1, z + 1); k++) {
        for (let j = Math.max(0, y - 1); j <= Math.min(Y - 1, y + 1); j++) {
          for (let i = Math.max(0, x - 1); i <= Math.min(X - 1, x + 1); i++) {
            const near = (k * Y + j) * X + i;
            if (!mask.data[near] || labels[near]) continue;
            labels[near] = count;
            stack.push(near);
          }
        }
      }
    }
  }
  return { labels, count };
}

/**
 * @param {VoxelMask} mask
 * @param {Int32Array} labels
 * @param {number} count
 * @param {Zyx} voxelSize
 * @returns {Int32Array} for each label the label of the piece to which it belongs
 */
function joinedSides(mask, labels, count, voxelSize) {
  const sides = new Uint8Array(count + 1); // bit 0: has a presynaptic voxel, bit 1: has a postsynaptic one
  labels.forEach((label, index) => {
    if (label) sides[label] |= mask.data[index];
  });
  const names = Int32Array.from({ length: count + 1 }, (_, label) => label);
  const [pre, post] = [1, 2].map((side) => [...names].filter((label) => label && sides[label] === side));
  if (!pre.length || !post.length) return names;
  const points = sampled(mask, labels, new Set([...pre, ...post]), voxelSize);
  const distance = pre.map((a) => post.map((b) => nearest(points.get(a) ?? [], points.get(b) ?? [])));
  pre.forEach((label, i) => {
    const j = distance[i].indexOf(Math.min(...distance[i]));
    const back = distance.map((row) => row[j]);
    if (back.indexOf(Math.min(...back)) === i) names[post[j]] = label;
  });
  return names;
}

/**
 * @param {VoxelMask} mask
 * @param {Int32Array} labels
 * @param {Set<number>} wanted
 * @param {Zyx} voxelSize
 * @returns {Map<number, Zyx[]>} for each wanted label at most `MAX_COMPARED` voxels at its surface, in nm
 */
function sampled(mask, labels, wanted, voxelSize) {
  /** @type {Map<number, Zyx[]>} */
  const points = new Map();
  const X = mask.shape[2];
  labels.forEach((label, index) => {
    if (
      !wanted.has(label) ||
      (labels[index - 1] === label &&
        labels[index + 1] === label &&
        labels[index - X] === label &&
        labels[index + X] === label)
    )
      return;
    const list = points.get(label) ?? [];
    points.set(label, list);
    list.push(/** @type {Zyx} */ (placeOf(mask, index).map((value, axis) => value * voxelSize[axis])));
  });
  for (const [label, list] of points) {
    const every = Math.ceil(list.length / MAX_COMPARED);
    points.set(
      label,
      list.filter((_, i) => i % every === 0),
    );
  }
  return points;
}

/** @param {Zyx[]} one @param {Zyx[]} other @returns {number} squared distance in nm of the nearest two points */
function nearest(one, other) {
  let best = Infinity;
  for (const [az, ay, ax] of one) {
    for (const [bz, by, bx] of other) best = Math.min(best, (az - bz) ** 2 + (ay - by) ** 2 + (ax - bx) ** 2);
  }
  return best;
}
