// What stands within a paragraph of Markdown: text -> [{type: "text" | "code" | "strong" | "emphasis" | "deleted" |
// "link" | "image" | "break", ...}]. Pure. No input takes long: each part of it is looked at a bounded number of times.

const SAFE = new Set(["http:", "https:", "mailto:"]);
const DEEPEST = 16; // of what is nested; what is deeper keeps its marks
const LONGEST_ADDRESS = 2048;
const LONGEST_RUN = 8000;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const SPECIAL = /[\\`*_~[\]!<&\n:]/g;
const ESCAPED = /[!-/:-@[-`{-~]/;

/**
 * Cut a long text where a line or a word ends, so that each run can be parsed, and drawn again, by itself.
 * Where it is cut depends on what is before the cut alone.
 */
export function runs(text) {
  const found = [];
  let rest = text;
  while (rest.length > LONGEST_RUN) {
    const space = Math.max(rest.lastIndexOf("\n", LONGEST_RUN), rest.lastIndexOf(" ", LONGEST_RUN));
    const end = space > LONGEST_RUN / 2 ? space + 1 : LONGEST_RUN;
    found.push(rest.slice(0, end));
    rest = rest.slice(end);
  }
  return [...found, rest];
}

/** The address if it may be followed: with http, https or mailto; otherwise null. */
export function safeAddress(text) {
  if (text.length > LONGEST_ADDRESS || !URL.canParse(text)) return null;
  const url = new URL(text);
  return SAFE.has(url.protocol) ? url.href : null;
}

/** The nodes of a text. With `isOpen` more will come: what is marked and not closed yet is drawn as if it were. */
export function parseInline(text, { isOpen = false } = {}) {
  return new Inline(text, isOpen).parse();
}

const depthOf = (node) => node.depth ?? 0;

class Inline {
  constructor(text, isOpen) {
    this.text = text;
    this.isOpen = isOpen;
    this.nodes = []; // one with a `mark` is a run of * _ ~ that may open or close something
    this.brackets = [];
    this.ticks = null; // where the last run of backticks of each length is
  }

  parse() {
    const { text } = this;
    let at = 0;
    while (at < text.length) {
      SPECIAL.lastIndex = at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      if (next > at) this.say(text.slice(at, next));
      at = next < text.length ? this.special(next) : next;
    }
    return tidy(emphasized(this.nodes, this.isOpen));
  }

  say(text) {
    this.nodes.push({ type: "text", text });
  }

  special(at) {
    const { text } = this;
    switch (text[at]) {
      case "\\":
        return this.escape(at);
      case "`":
        return this.code(at);
      case "*":
      case "_":
      case "~":
        return this.mark(at);
      case "[":
        return this.open(at, 1);
      case "!":
        if (text[at + 1] === "[") return this.open(at, 2);
        break;
      case "]":
        return this.close(at);
      case "<":
        return this.bracketed(at);
      case "&":
        return this.entity(at);
      case ":":
        return this.bare(at);
      case "\n":
        this.trimEnd();
        this.nodes.push({ type: "break" });
        return at + 1;
    }
    this.say(text[at]);
    return at + 1;
  }

  trimEnd() {
    const last = this.nodes.at(-1);
    if (last?.type === "text") last.text = last.text.trimEnd();
  }

  escape(at) {
    const next = this.text[at + 1];
    if (next === "\n") return at + 1;
    const isEscape = next !== undefined && ESCAPED.test(next);
    this.say(isEscape ? next : "\\");
    return at + (isEscape ? 2 : 1);
  }

  code(at) {
    const length = runAt(this.text, at);
    if (!this.ticks) {
      this.ticks = new Map();
      for (const each of this.text.matchAll(/`+/g)) this.ticks.set(each[0].length, each.index);
    }
    const after = at + length;
    let end = (this.ticks.get(length) ?? -1) >= after ? after : -1;
    while (end >= 0) {
      end = this.text.indexOf("`", end);
      const found = runAt(this.text, end);
      if (found === length) break;
      end += found;
    }
    if (end < 0 && !(this.isOpen && length < 3 && after < this.text.length)) {
      this.say(this.text.slice(at, after));
      return after;
    }
    let inside = this.text.slice(after, end < 0 ? undefined : end).replaceAll("\n", " ");
    if (inside.startsWith(" ") && inside.endsWith(" ") && inside.trim()) inside = inside.slice(1, -1);
    this.nodes.push({ type: "code", text: inside });
    return end < 0 ? this.text.length : end + length;
  }

  mark(at) {
    const sign = this.text[at];
    const count = runAt(this.text, at);
    const [before, after] = [this.text[at - 1] ?? "\n", this.text[at + count] ?? "\n"];
    const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
    const [pointBefore, pointAfter] = [/[\p{P}\p{S}]/u.test(before), /[\p{P}\p{S}]/u.test(after)];
    const left = !spaceAfter && (!pointAfter || spaceBefore || pointBefore);
    const right = !spaceBefore && (!pointBefore || spaceAfter || pointAfter);
    const node = { type: "text", text: sign.repeat(count) };
    this.nodes.push(node);
    const opens = left && (sign !== "_" || !right || pointBefore);
    const closes = right && (sign !== "_" || !left || pointAfter);
    if (sign !== "~" || count === 2) node.mark = { node, sign, count, length: count, opens, closes, at: 0 };
    return at + count;
  }

  // ---- links ----

  open(at, length) {
    const node = { type: "text", text: this.text.slice(at, at + length) };
    this.nodes.push(node);
    this.brackets.push({ length, place: this.nodes.length - 1, hasLink: false });
    return at + length;
  }

  close(at) {
    const bracket = this.brackets.pop();
    const target = bracket && this.text[at + 1] === "(" ? destination(this.text, at + 2) : null;
    const href = target && safeAddress(decoded(target.address));
    const isImage = bracket?.length === 2;
    if (!href || (!isImage && bracket.hasLink)) {
      this.say("]");
      return at + 1;
    }
    const children = tidy(emphasized(this.nodes.splice(bracket.place).slice(1)));
    if (isImage) this.nodes.push({ type: "image", href, text: plain(children) });
    else {
      const shown = children.length ? children : [{ type: "text", text: href }];
      this.nodes.push(nested("link", shown, 1 + deepest(children), href));
      for (const each of this.brackets) if (each.length === 1) each.hasLink = true; // there is no link in a link
    }
    return target.end;
  }

  bracketed(at) {
    const end = this.text.indexOf(">", at + 1);
    const inside = end < 0 || end - at > LONGEST_ADDRESS ? "" : this.text.slice(at + 1, end);
    const address = /^[^\s<>]+@[^\s<>]+\.[^\s<>]+$/.test(inside) && !inside.includes(":") ? `mailto:${inside}` : inside;
    const href = /^[a-z]+:[^\s<>]+$/i.test(address) ? safeAddress(address) : null;
    if (!href) {
      this.say("<");
      return at + 1;
    }
    this.nodes.push(nested("link", [{ type: "text", text: inside }], 1, href));
    return end + 1;
  }

  /** An address that stands in the text as it is. */
  bare(at) {
    const last = this.nodes.at(-1);
    const isAddress = last?.type === "text" && this.text.startsWith("://", at) && !this.brackets.length;
    const scheme = isAddress ? /(?:^|\W)(https?)$/i.exec(last.text.slice(-6))?.[1] : null;
    const rest = scheme && /^:\/\/[^\s<>`*]+/.exec(this.text.slice(at, at + LONGEST_ADDRESS))?.[0];
    const address = rest && trimmed(scheme + rest);
    const href = address && address.length > scheme.length + 3 ? safeAddress(address) : null;
    if (!href) {
      this.say(":");
      return at + 1;
    }
    last.text = last.text.slice(0, -scheme.length);
    this.nodes.push(nested("link", [{ type: "text", text: address }], 1, href));
    return at + address.length - scheme.length;
  }

  entity(at) {
    const found = /^&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,4}));/.exec(this.text.slice(at, at + 12));
    const meant = found && named(found);
    this.say(meant ?? "&");
    return at + (meant ? found[0].length : 1);
  }
}

function named([, decimal, hexadecimal, name]) {
  if (name) return ENTITIES[name] ?? null;
  const code = decimal ? Number(decimal) : parseInt(hexadecimal, 16);
  return code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000) ? String.fromCodePoint(code) : "\ufffd";
}

const decoded = (text) =>
  text
    .replace(/\\([!-/:-@[-`{-~])/g, "$1")
    .replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,4}));/g, (all, ...found) => named([all, ...found]) ?? all);

function nested(type, children, depth, href) {
  const node = href ? { type, href, children: tidy(children) } : { type, children: tidy(children) };
  return Object.defineProperty(node, "depth", { value: depth });
}

const deepest = (nodes) => nodes.reduce((most, each) => Math.max(most, depthOf(each)), 0);
const plain = (nodes) => nodes.map((each) => each.text ?? (each.children ? plain(each.children) : " ")).join("");

// ---- emphasis, by the rules of https://spec.commonmark.org/0.31.2/#emphasis-and-strong-emphasis ----

/** Put what stands between marks that match into nodes of their own. Each node is looked at once. */
function emphasized(nodes, isOpen = false) {
  const found = [];
  const opened = []; // the marks that may still be closed
  const floors = new Map(); // of `opened`, below which there is nothing for such a closer
  for (const node of nodes) {
    const closer = node.mark;
    while (closer?.closes && closer.count) {
      const kind = `${closer.sign}${closer.opens}${closer.length % 3}`;
      let index = opened.length - 1;
      const floor = Math.min(floors.get(kind) ?? 0, opened.length);
      while (index >= floor && !matches(opened[index], closer)) index -= 1;
      floors.set(kind, index < floor ? opened.length : floor);
      if (index < floor) break;
      const opener = opened[index];
      const size = Math.min(opener.count, closer.count, 2);
      opened.length = index + 1;
      wrap(found, opener, size);
      use(opener, size);
      use(closer, size);
      if (!opener.count) opened.pop();
    }
    found.push(node);
    if (closer?.opens && closer.count) {
      closer.at = found.length - 1;
      opened.push(closer);
    }
  }
  if (isOpen && opened.length) wrapOpen(found, opened.at(-1));
  return found;
}

function use(mark, size) {
  mark.count -= size;
  mark.node.text = mark.node.text.slice(size);
}

/** Put all that comes after an opener into one node. What would be too deep loses its marks only. */
function wrap(found, opener, size) {
  const children = tidy(found.splice(opener.at + 1));
  const depth = 1 + deepest(children);
  const type = opener.sign === "~" ? "deleted" : size === 2 ? "strong" : "emphasis";
  if (depth <= DEEPEST) found.push(nested(type, children, depth));
  else for (const each of children) found.push(each);
}

/** `**bol`, while it is being written. */
function wrapOpen(found, opener) {
  if (opener.count > 2 || (opener.sign === "_" && opener.count < 2) || opener.at === found.length - 1) return;
  wrap(found, opener, opener.count);
  use(opener, opener.count);
}

function matches(opener, closer) {
  if (opener.sign !== closer.sign || !opener.opens) return false;
  if (!opener.closes && !closer.opens) return true;
  return (opener.length + closer.length) % 3 !== 0 || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

function runAt(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

/** The address and the title within `(...)`, of which the title is left out; null if there is none. */
function destination(text, from) {
  const part = text.slice(from, from + LONGEST_ADDRESS);
  const found = /^\s*(?:<([^<>\n]*)>|([^\s<][^\s]*|))/.exec(part);
  if (!found) return null;
  let address = found[1] ?? found[2];
  let end = found[0].length;
  if (found[1] === undefined) {
    let depth = 0;
    for (let at = 0; at < address.length; at += 1) {
      if (address[at] === "\\") at += 1;
      else if (address[at] === "(") depth += 1;
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
function trimmed(address) {
  let bare = address.replace(/[?!.,:;"'_~]+$/, "");
  while (bare.endsWith(")") && bare.split(")").length > bare.split("(").length) bare = bare.slice(0, -1);
  return bare;
}

/** Join the texts that follow on each other. */
function tidy(nodes) {
  const found = [];
  for (const node of nodes) {
    const last = found.at(-1);
    if (node.type !== "text") found.push(node);
    else if (last?.type === "text") last.text += node.text;
    else if (node.text) found.push({ type: "text", text: node.text });
  }
  return found;
}
