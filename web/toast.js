// A sentence that goes away by itself, perhaps with something to do about it; and what a screen reader is told.

import { button, element } from "./element.js";

const SECONDS = 8;
const LONGEST = 1000; // characters that are read out

let timer;

export function toast(text, action, onAction) {
  const place = document.querySelector("#toast");
  clearTimeout(timer);
  const close = () => place.replaceChildren();
  const shown = element("div", "toast");
  shown.append(element("span", "", text));
  if (action) {
    const act = () => {
      close();
      onAction();
    };
    shown.append(button(action, "", act));
  }
  place.replaceChildren(shown);
  const leave = () => (timer = setTimeout(() => (shown.matches(":focus-within") ? leave() : close()), SECONDS * 1000));
  leave();
}

/** A reply is told once, when it is whole. */
export function announce(text) {
  document.querySelector("#announcer").textContent = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
