/** Signing in. The printed link holds name and token behind #, which browsers send to no server. */

const form = /** @type {HTMLFormElement} */ (document.getElementById("sign-in"));
const message = /** @type {HTMLElement} */ (document.getElementById("message"));
const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));

function readLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("name")) field("name").value = given.get("name") ?? "";
  if (given.has("token")) field("token").value = given.get("token") ?? "";
  history.replaceState(null, "", location.pathname); // the token does not stay in the address bar
  (field("token").value ? field("name") : field("token")).focus();
  field("name").select();
}
readLink();
window.addEventListener("hashchange", readLink);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const body = JSON.stringify({ name: field("name").value.trim(), token: field("token").value.trim() });
    const response = await fetch("api/sign-in", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (response.ok) return location.reload();
    const { detail } = await response.json();
    message.textContent = typeof detail === "string" ? detail : "Name or token cannot be used.";
  } catch {
    message.textContent = "The server does not answer. Is `twostream serve` still running?";
  }
});
