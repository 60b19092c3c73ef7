/** Dark by default, light on request; remembered in the browser. */

const STORE = "twostream/theme";

/** @param {string} name */
function apply(name) {
  document.documentElement.dataset.theme = name;
}

export function restoreTheme() {
  apply(localStorage.getItem(STORE) ?? "dark");
}

export function toggleTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem(STORE, next);
  apply(next);
}
