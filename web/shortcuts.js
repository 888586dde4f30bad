// What the keyboard does, in one list: the page shows it as well.

import { element } from "./element.js";

/** @param {{keys: string, text: string, run?: () => void}[]} shortcuts  `keys` as "Ctrl Shift O"; without `run` only told */
export function useShortcuts(shortcuts, escape) {
  const dialog = document.querySelector("#shortcuts");
  for (const { keys, text } of shortcuts) {
    const term = element("dt");
    term.append(...keys.split(" ").flatMap((key, index) => [index ? " " : "", element("kbd", "", key)]));
    dialog.querySelector("dl").append(term, element("dd", "", text));
  }
  document.querySelector("#show-shortcuts").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented) return;
    if (event.key === "Escape") {
      if (!dialog.open && escape()) event.preventDefault();
      return;
    }
    const found = shortcuts.find(({ keys, run }) => run && matches(event, keys.split(" ")));
    if (!found || dialog.open) return;
    event.preventDefault();
    found.run();
  });
}

function matches(event, keys) {
  const key = keys.at(-1).toLowerCase();
  const isControl = event.ctrlKey || event.metaKey;
  return event.key.toLowerCase() === key && isControl === keys.includes("Ctrl") && event.shiftKey === keys.includes("Shift") && !event.altKey;
}
