/**
 * The editor's tools as the viewer wants them: what the pointer does, and the cursor that is drawn.
 *
 * Knows the editor and points in planes; must not know canvases beyond the context it draws on. All tools draw in XY.
 */

import { Refusal } from "./refusal.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./editor.js").Editor} Editor */
/** @typedef {import("./tool.js").Tool} Tool */
/** @typedef {import("./tool.js").Point} Point */
/** @typedef {(zyx: Zyx) => [number, number]} ToScreen */

/** A path shorter than this many voxels is a click. */
const CLICK = 2;

/** What all tools share: the path of the pointer while a button is pressed, and where the pointer is. */
class PathTool {
  /** @type {Zyx[] | null} */ path = null;
  /** @type {Zyx | null} */ pointer = null;

  /** @param {Editor} editor @param {string} cursor */
  constructor(editor, cursor) {
    this.editor = editor;
    this.cursor = cursor;
  }

  /** @param {Point} point @param {PointerEvent} event */
  down(point, event) {
    if (point.plane !== "xy") return;
    this.pointer = point.zyx;
    this.path = [point.zyx];
    this.#guarded(() => this.begin(point.zyx, event));
  }

  /** @param {Point} point @param {PointerEvent} _event */
  move(point, _event) {
    if (point.plane !== "xy") return;
    this.pointer = point.zyx;
    if (!this.path) return;
    const last = this.path[this.path.length - 1];
    const next = /** @type {Zyx} */ ([this.path[0][0], point.zyx[1], point.zyx[2]]); // a stroke stays in its section
    this.path.push(next);
    this.#guarded(() => this.extend(last, next));
  }

  /** @param {Point | null} point */
  hover(point) {
    this.pointer = point?.plane === "xy" ? point.zyx : null;
  }

  /** @param {Point} point @param {PointerEvent} event */
  up(point, event) {
    if (!this.path) return;
    this.move(point, event);
    const path = this.path;
    this.path = null;
    if (path) this.#guarded(() => this.finish(path, event));
  }

  cancel() {
    this.path = null;
    this.editor.cancel();
  }

  /** @param {() => void} action if it is refused, the stroke ends there and counts as far as it came */
  #guarded(action) {
    this.editor.attempt(() => {
      try {
        action();
      } catch (error) {
        this.path = null;
        this.editor.close();
        throw error;
      }
    });
  }

  /** @param {Zyx} _at @param {PointerEvent} _event */
  begin(_at, _event) {}

  /** @param {Zyx} _from @param {Zyx} _to */
  extend(_from, _to) {}

  /** @param {Zyx[]} _path @param {PointerEvent} _event */
  finish(_path, _event) {}

  /** @param {CanvasRenderingContext2D} ctx @param {string} plane @param {ToScreen} toScreen */
  draw(ctx, plane, toScreen) {
    if (plane !== "xy" || !this.path) return;
    traced(ctx, () => {
      for (const zyx of this.path ?? []) ctx.lineTo(...toScreen(zyx));
    });
  }
}

/** Brush and eraser: they draw while the pointer moves. */
class BrushTool extends PathTool {
  /** @param {Editor} editor @param {boolean} erases */
  constructor(editor, erases) {
    super(editor, "none");
    this.erases = erases;
  }

  /** @param {Zyx} at */
  begin(at) {
    this.editor.open();
    this.#paint([at]);
  }

  /** @param {Zyx} from @param {Zyx} to */
  extend(from, to) {
    this.#paint([from, to]);
  }

  finish() {
    this.editor.close();
  }

  /** @param {Zyx[]} path */
  #paint(path) {
    this.editor.paint(path, this.erases ? 0 : this.editor.brush.side);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {string} plane @param {ToScreen} toScreen the circle of the brush */
  draw(ctx, plane, toScreen) {
    if (plane !== "xy" || !this.pointer) return;
    const {
      brush: { radiusNm },
      options,
    } = this.editor;
    const [z, y, x] = this.pointer;
    const [left, top] = toScreen([z, y - radiusNm / options.voxelSize[1], x - radiusNm / options.voxelSize[2]]);
    const [middleX, middleY] = toScreen([z, y, x]);
    traced(ctx, () => ctx.ellipse(middleX, middleY, middleX - left, middleY - top, 0, 0, 2 * Math.PI), this.erases);
  }
}

/** Fill: a click fills the region there, a drawn outline is closed and filled. */
class FillTool extends PathTool {
  /** @param {Zyx[]} path */
  finish(path) {
    const [, y, x] = path[0];
    const isClick = path.every((point) => Math.hypot(point[1] - y, point[2] - x) < CLICK);
    if (isClick) this.editor.fill(path[0]);
    else this.editor.outline(path);
  }
}

/** Cut: a line through one section; with shift through all sections of the mask. */
class CutTool extends PathTool {
  /** @param {Zyx[]} path @param {PointerEvent} event */
  finish(path, event) {
    this.editor.cut(path, event.shiftKey);
    const { length } = this.editor.pieces();
    if (length < 2)
      throw new Refusal("The object is still in one piece: cut from edge to edge, or with shift through all sections.");
  }
}

/**
 * A line that is seen on dark and on bright tissue.
 * @param {CanvasRenderingContext2D} ctx
 * @param {() => void} trace
 * @param {boolean} [dashed]
 */
function traced(ctx, trace, dashed = false) {
  ctx.save();
  ctx.setLineDash(dashed ? [4, 3] : []);
  for (const [style, width] of /** @type {[string, number][]} */ ([
    ["rgb(0 0 0 / 70%)", 3],
    ["#fff", 1],
  ])) {
    ctx.beginPath();
    trace();
    ctx.strokeStyle = style;
    ctx.lineWidth = width;
    ctx.stroke();
  }
  ctx.restore();
}

/**
 * @param {Editor} editor
 * @returns {{brush: Tool, eraser: Tool, fill: Tool, cut: Tool}}
 */
export function toolsOf(editor) {
  return {
    brush: new BrushTool(editor, false),
    eraser: new BrushTool(editor, true),
    fill: new FillTool(editor, "crosshair"),
    cut: new CutTool(editor, "crosshair"),
  };
}
