/** The brush: its radius, and the side it draws. Knows the size of a pixel; must not know masks. */

const MAX_RADIUS_PX = 500;
const FIRST_RADIUS_PX = 4;
/** One step of the radius. */
const WIDER = 1.25;

export class Brush {
  #side = 1;
  #radiusNm;

  /**
   * @param {number} pixelNm size of a voxel along x, in nm
   * @param {number} numSides 2 in polarity, else 1
   * @param {() => void} onChange
   */
  constructor(pixelNm, numSides, onChange) {
    this.pixelNm = pixelNm;
    this.numSides = numSides;
    this.onChange = onChange;
    this.#radiusNm = FIRST_RADIUS_PX * pixelNm;
  }

  /** @returns {number} the value that brush and fill draw: 1, or in polarity 1 = pre, 2 = post */
  get side() {
    return this.#side;
  }

  set side(side) {
    if (!Number.isInteger(side) || side < 1 || side > this.numSides) {
      throw new RangeError(`the side is ${side}; expected a whole number from 1 to ${this.numSides}`);
    }
    this.#side = side;
    this.onChange();
  }

  /** Draw the other side; where objects have no sides, nothing changes. */
  otherSide() {
    this.side = this.numSides === 2 ? 3 - this.#side : 1;
  }

  /** @returns {number} radius of brush and eraser in nm, at least half a pixel */
  get radiusNm() {
    return this.#radiusNm;
  }

  set radiusNm(radius) {
    if (!Number.isFinite(radius)) throw new RangeError(`the radius is ${radius}; expected a number of nm`);
    this.#radiusNm = Math.min(MAX_RADIUS_PX * this.pixelNm, Math.max(this.pixelNm / 2, radius));
    this.onChange();
  }

  /** @returns {number} the same radius in pixels along x */
  get radiusPx() {
    return this.#radiusNm / this.pixelNm;
  }

  set radiusPx(radius) {
    this.radiusNm = radius * this.pixelNm;
  }

  /** @param {number} steps above 0 for a wider brush, below 0 for a narrower one */
  widen(steps) {
    this.radiusNm = this.#radiusNm * WIDER ** steps;
  }
}
