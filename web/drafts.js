// What is typed and not sent, kept for each conversation until it is.

const PREFIX = "tailrace.draft.";
const MOST = 50; // conversations

export function readDraft(conversation) {
  return stored(() => localStorage.getItem(PREFIX + (conversation ?? "new"))) ?? "";
}

export function keepDraft(conversation, text) {
  const name = PREFIX + (conversation ?? "new");
  stored(() => {
    localStorage.removeItem(name);
    if (!text) return;
    const names = Object.keys(localStorage).filter((each) => each.startsWith(PREFIX));
    for (const each of names.slice(0, Math.max(0, names.length - MOST))) localStorage.removeItem(each);
    localStorage.setItem(name, text);
  });
}

/** Whoever sits here next is somebody else. */
export function forgetDrafts() {
  stored(() => {
    for (const each of Object.keys(localStorage).filter((name) => name.startsWith(PREFIX))) localStorage.removeItem(each);
  });
}

/** A setting of the page that is remembered. */
export const remember = (name, value) => stored(() => localStorage.setItem(`tailrace.${name}`, value));
export const remembered = (name) => stored(() => localStorage.getItem(`tailrace.${name}`));

/** A browser may keep nothing: then the page does without. */
function stored(act) {
  try {
    return act();
  } catch {
    return null;
  }
}
