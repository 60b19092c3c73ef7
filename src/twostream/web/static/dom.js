/** Small helpers for elements. Text is always set as text, so that nothing a person wrote becomes markup. */

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/** @param {string} id @returns {HTMLInputElement} */
export const inputById = (id) => /** @type {HTMLInputElement} */ (byId(id));

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A card that the server has drawn. @param {string} html @returns {Element} */
export function cardOf(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // made by the server's template, which escapes everything that a person wrote
  const card = template.content.querySelector(".card");
  if (!card) throw new Error("the server sent no card");
  return card;
}

let timer = 0;

/** Say something for some seconds. @param {string} text @param {boolean} [isProblem] */
export function say(text, isProblem = false) {
  const place = byId("message");
  place.textContent = text;
  place.hidden = !text;
  place.classList.toggle("is-problem", isProblem);
  clearTimeout(timer);
  timer = window.setTimeout(() => (place.hidden = true), isProblem ? 12_000 : 3_000);
}
