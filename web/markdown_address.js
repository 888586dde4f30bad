// Addresses in Markdown: which may be followed, and where in a text they end. Pure.

const SAFE = new Set(["http:", "https:", "mailto:"]);
export const LONGEST_ADDRESS = 2048;
const DEEPEST = 32; // brackets in each other within one
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** The address if it may be followed: with http, https or mailto; otherwise null. */
export function safeAddress(text) {
  if (text.length > LONGEST_ADDRESS || !URL.canParse(text)) return null;
  const url = new URL(text);
  return SAFE.has(url.protocol) ? url.href : null;
}

/** The address and the title within `(...)`, of which the title is left out; null if there is none. */
export function destination(text, from) {
  const part = text.slice(from, from + LONGEST_ADDRESS);
  const found = /^\s*(?:<([^<>\n]*)>|([^\s<][^\s]*|))/.exec(part);
  if (!found) return null;
  let address = found[1] ?? found[2];
  let end = found[0].length;
  if (found[1] === undefined) {
    let depth = 0;
    for (let at = 0; at < address.length; at += 1) {
      if (address[at] === "\\") at += 1;
      else if (address[at] === "(" && (depth += 1) > DEEPEST) return null;
      else if (address[at] === ")" && (depth -= 1) < 0) {
        end -= address.length - at;
        address = address.slice(0, at);
        break;
      }
    }
  }
  const title = /^(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)/.exec(part.slice(end));
  return title && { address, end: from + end + title[0].length };
}

/** Without the points at its end, and a bracket that nothing in it opened. */
export function bare(address) {
  let text = address.replace(/[?!.,:;"'_~]+$/, "");
  while (text.endsWith(")") && text.split(")").length > text.split("(").length) text = text.slice(0, -1);
  return text;
}

/** The character that `&amp;` or `&#38;` at a place stands for, and how long that is; null if it is nothing of the kind. */
export function entityAt(text, at) {
  const found = /^&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,4}));/.exec(text.slice(at, at + 12));
  const meant = found && named(found);
  return meant && { text: meant, length: found[0].length };
}

function named([, decimal, hexadecimal, name]) {
  if (name) return ENTITIES[name] ?? null;
  const code = decimal ? Number(decimal) : parseInt(hexadecimal, 16);
  return code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000) ? String.fromCodePoint(code) : "\ufffd";
}

/** An address without what escapes its characters. */
export const decoded = (text) =>
  text
    .replace(/\\([!-/:-@[-`{-~])/g, "$1")
    .replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,4}));/g, (all, ...found) => named([all, ...found]) ?? all);

