// A button that copies a text, and says so.

import { icon, iconButton } from "./element.js";

const SAID_MS = 1600;

export function copyButton(label, text, className = "") {
  let timer;
  const made = iconButton("copy", label, copy, className);
  async function copy() {
    let isDone = true;
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      isDone = false; // not allowed, or the page is not the one in front
    }
    made.replaceChildren(icon(isDone ? "check" : "cross"));
    made.setAttribute("aria-label", isDone ? "Copied" : "The browser did not allow it");
    clearTimeout(timer);
    timer = setTimeout(() => {
      made.replaceChildren(icon("copy"));
      made.setAttribute("aria-label", label);
    }, SAID_MS);
  }
  return made;
}
