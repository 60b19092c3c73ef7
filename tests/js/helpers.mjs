/** What the tests of the page's modules share. */
import { VoxelMask } from "../../src/twostream/web/static/mask.js";

/** A mask drawn as text: sections of rows of digits ("." is 0). */
export function drawn(sections, offset = [0, 0, 0]) {
  const rows = sections.map((section) => section.trim().split(/\s+/));
  const data = Uint8Array.from(rows.flat().join(""), (sign) => (sign === "." ? 0 : Number(sign)));
  return new VoxelMask(offset, [rows.length, rows[0].length, rows[0][0].length], data);
}

/** One section of a mask as text, over a box of the image. */
export function shown(mask, z, [top, left, bottom, right]) {
  const rows = [];
  for (let y = top; y < bottom; y++) {
    let row = "";
    for (let x = left; x < right; x++) row += mask.at(z, y, x) || ".";
    rows.push(row);
  }
  return rows.join(" ");
}

/** A mask with a disc in each of some sections: {z: [y, x, radius, value]}. */
export function discs(places, shape = [12, 64, 64]) {
  const mask = new VoxelMask([0, 0, 0], shape);
  for (const [z, [cy, cx, radius, value = 1]] of Object.entries(places)) {
    for (let y = 0; y < shape[1]; y++) {
      for (let x = 0; x < shape[2]; x++) {
        if (Math.hypot(y - cy, x - cx) <= radius) mask.data[mask.index(Number(z), y, x)] = value;
      }
    }
  }
  return mask;
}

/** Random numbers in [0, 1) that are the same in every run. */
export function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A random mask in which about a share of the voxels is drawn. */
export function noise(seed, shape, offset = [0, 0, 0], values = 1, share = 0.5) {
  const next = random(seed);
  const mask = new VoxelMask(offset, shape);
  for (let i = 0; i < mask.data.length; i++) mask.data[i] = next() < share ? 1 + Math.floor(next() * values) : 0;
  return mask;
}

/** Whether two masks hold the same object, whatever their boxes. */
export function same(one, other) {
  const [a, b] = [one.trimmed(), other.trimmed()];
  return (
    String(a.offset) === String(b.offset) && String(a.shape) === String(b.shape) && String(a.data) === String(b.data)
  );
}
