/**
 * The crosshair: lines through a voxel, open where they meet, because the tissue there is what is judged.
 */

const COLOUR = "rgb(140 220 255 / 55%)";
const GAP = 22;

/**
 * @param {CanvasRenderingContext2D} ctx in CSS pixels
 * @param {import("./planes.js").Frame} frame
 * @param {import("./box.js").Zyx} point
 */
export function drawCrosshair(ctx, frame, point) {
  const [x, y] = frame.toScreen(point).map((place) => Math.floor(place) + 0.5);
  ctx.strokeStyle = COLOUR;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(Math.min(0, x - GAP), y);
  ctx.lineTo(x - GAP, y);
  ctx.moveTo(x + GAP, y);
  ctx.lineTo(Math.max(frame.width, x + GAP), y);
  ctx.moveTo(x, Math.min(0, y - GAP));
  ctx.lineTo(x, y - GAP);
  ctx.moveTo(x, y + GAP);
  ctx.lineTo(x, Math.max(frame.height, y + GAP));
  ctx.stroke();
}
