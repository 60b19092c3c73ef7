/**
 * Which section is shown, and two buttons to the next ones: a tablet has no wheel.
 */

export class SectionBar {
  /** @param {(sections: number) => void} scroll */
  constructor(scroll) {
    this.element = document.createElement("div");
    this.element.className = "viewer-section";
    this.text = document.createElement("output");
    this.element.append(
      button("\u2212", "previous section", () => scroll(-1)),
      this.text,
      button("+", "next section", () => scroll(1)),
    );
  }

  /**
   * @param {number} section counted from 0, as everywhere
   * @param {number} numSections
   */
  show(section, numSections) {
    const text = `z ${section} (0 to ${numSections - 1})`;
    if (this.text.textContent !== text) this.text.textContent = text;
  }
}

/**
 * @param {string} text
 * @param {string} label
 * @param {() => void} run
 */
function button(text, label, run) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.setAttribute("aria-label", label);
  element.title = label;
  element.tabIndex = -1; // the keyboard has its own keys for this
  element.addEventListener("click", run);
  return element;
}
