// Brings the page up to date in place: focus, open details, scrolled tables and selected text stay as they are.
"use strict";

const main = document.querySelector("main");
const button = document.querySelector("#updates");
const trouble = document.querySelector("#trouble");
const EVERY_MS = 5000;
let paused = false;
let asking = false;

function isSelecting() {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && main.contains(selection.anchorNode);
}

function put(fresh) {
  for (const old of main.querySelectorAll("details[open]")) {
    fresh.querySelector(`#${CSS.escape(old.id)}`)?.setAttribute("open", "");
  }
  const scrolled = new Map([...main.querySelectorAll(".scrolls")].map((old) => [old.id, old.scrollLeft]));
  const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
  main.replaceChildren(...fresh.childNodes);
  for (const [id, left] of scrolled) {
    const now = document.getElementById(id);
    if (now) now.scrollLeft = left;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function update() {
  if (paused || asking || document.hidden || isSelecting()) return;
  asking = true;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (!fresh) throw new Error("not this page");
    if (!paused && !isSelecting()) put(fresh);
    trouble.textContent = "";
  } catch (error) {
    trouble.textContent = `Not up to date: ${error.message}`;
  } finally {
    asking = false;
  }
}

button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Resume updates" : "Pause updates";
  update();
});
setInterval(update, EVERY_MS);
