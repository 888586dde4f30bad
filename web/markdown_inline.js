// What stands within a paragraph of Markdown: text -> [{type: "text" | "code" | "strong" | "emphasis" | "deleted" |
// "link" | "image" | "break", ...}]. Pure. No input takes long: each part of it is looked at a bounded number of times.

import { LONGEST_ADDRESS, bare, decoded, destination, entityAt, safeAddress } from "./markdown_address.js";
import { deepest, emphasized, nested, tidy } from "./markdown_emphasis.js";

const LONGEST_RUN = 8000;
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

/** The nodes of a text. With `isOpen` more will come: what is marked and not closed yet is drawn as if it were. */
export function parseInline(text, { isOpen = false } = {}) {
  return new Inline(text, isOpen).parse();
}

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
    const address = rest && bare(scheme + rest);
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
    const found = entityAt(this.text, at);
    this.say(found?.text ?? "&");
    return at + (found?.length ?? 1);
  }
}

const plain = (nodes) => nodes.map((each) => each.text ?? (each.children ? plain(each.children) : " ")).join("");

function runAt(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end - at;
}
