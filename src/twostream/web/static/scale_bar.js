/**
 * The scale bar: a round length in nm or \u00b5m that fits the canvas.
 */

/** The bar is at most this share of the canvas, and this long in pixels. */
const MAX_SHARE = 0.3;
const MAX_PIXELS = 160;

/**
 * @param {number} nmPerPixel
 * @param {number} width of the canvas in pixels
 * @returns {{nm: number, pixels: number, label: string}} nm is 1, 2 or 5 times a power of ten
 */
export function scaleBar(nmPerPixel, width) {
  const longest = Math.min(MAX_PIXELS, MAX_SHARE * width) * nmPerPixel;
  const power = 10 ** Math.floor(Math.log10(longest));
  const nm = power * (longest >= 5 * power ? 5 : longest >= 2 * power ? 2 : 1);
  const label = nm >= 1000 ? `${round(nm / 1000)} \u00b5m` : `${round(nm)} nm`;
  return { nm, pixels: nm / nmPerPixel, label };
}

/** @param {number} length without the digits that floating point adds */
function round(length) {
  return Number(length.toPrecision(3));
}

/**
 * Draw the bar in the lower left corner, white on black, so that it is seen on any tissue.
 * @param {CanvasRenderingContext2D} ctx in CSS pixels
 * @param {number} nmPerPixel
 * @param {number} width
 * @param {number} height
 */
export function drawScaleBar(ctx, nmPerPixel, width, height) {
  const { pixels, label } = scaleBar(nmPerPixel, width);
  const [left, top, thick] = [12, height - 18, 5];
  ctx.fillStyle = "rgb(0 0 0 / 75%)";
  ctx.fillRect(left - 1.5, top - 1.5, pixels + 3, thick + 3);
  ctx.fillStyle = "white";
  ctx.fillRect(left, top, pixels, thick);
  ctx.font = "600 13px system-ui, sans-serif";
  ctx.lineJoin = "round";
  ctx.lineWidth = 3;
  ctx.strokeStyle = "rgb(0 0 0 / 75%)";
  ctx.strokeText(label, left, top - 7);
  ctx.fillText(label, left, top - 7);
}
