// Markdown as it streams: text is fed in pieces of any cut, and becomes a tree of blocks. Pure: no DOM, no HTML.
//
// It is CommonMark with GitHub's tables and task items, but for three things, all deliberate: HTML is text, an indented
// line is no code (models fence theirs), and a line break within a paragraph is one, as in any chat.
//
// A whole line is taken in once and for all. The last line, which is not whole yet, is taken in when the tree is asked
// for, and taken back before more is fed: `#changes` has how. So each piece costs what is new of it.

import * as lines from "./markdown_lines.js";

const DEEPEST = 16; // quotes and lists in each other; what is deeper is text

export class MarkdownParser {
  #root = { type: "document", children: [] };
  #open = [this.#root]; // the containers that the next line may go on with, from the outermost
  #leaf = null; // the block at the end that may get more lines
  #tail = ""; // the last line, as far as it has come
  #changes = null; // how to take back what the last line did; null while that is not there
  #before = null;

  feed(text) {
    this.#takeBack();
    const pieces = text.split("\n");
    this.#tail += pieces[0];
    for (let index = 1; index < pieces.length; index += 1) {
      this.#line(this.#tail);
      this.#tail = pieces[index];
    }
  }

  /** The text has ended: its last line is whole. */
  flush() {
    this.#takeBack();
    if (this.#tail) this.#line(this.#tail);
    this.#tail = "";
    this.#close(0);
  }

  /** The blocks so far. One whose `closed` is true never changes again. */
  get blocks() {
    if (this.#tail && this.#changes === null && !lines.isMarkerAlone(this.#tail)) {
      this.#changes = [];
      this.#before = { open: [...this.#open], leaf: this.#leaf };
      this.#line(this.#tail);
    }
    return this.#root.children;
  }

  #takeBack() {
    if (this.#changes === null) return;
    for (const undo of this.#changes.reverse()) undo();
    this.#open = this.#before.open;
    this.#leaf = this.#before.leaf;
    this.#changes = null;
  }

  // ---- changes ----

  #set(node, name, value) {
    const before = node[name];
    if (before === value) return;
    this.#changes?.push(() => (node[name] = before));
    node[name] = value;
  }

  #add(parent, node) {
    const last = parent.children.at(-1);
    if (last && this.#changes === null) last.closed = true;
    this.#changes?.push(() => parent.children.pop());
    parent.children.push(node);
    if (parent.type === "item" && parent.list.blank) this.#set(parent.list, "loose", true);
    return node;
  }

  /** End the leaf and the containers from a depth on. */
  #close(depth) {
    this.#leaf = null;
    this.#open.length = Math.max(depth, 1);
    if (depth === 0 && this.#root.children.length) this.#root.children.at(-1).closed = true;
  }

  #start(node, depth) {
    if (depth < this.#open.length) this.#close(depth);
    this.#leaf = this.#add(this.#open.at(-1), node);
  }

  // ---- lines ----

  #line(whole) {
    let rest = lines.clean(whole);
    let depth = 1;
    for (; depth < this.#open.length; depth += 1) {
      const inside = lines.goOn(this.#open[depth], rest);
      if (inside === null) break;
      rest = inside;
    }
    // A list goes on with an item of its, which is found below; without one it has ended.
    while (depth > 1 && this.#open[depth - 1].type === "list") depth -= 1;
    const isWithin = depth === this.#open.length;
    if (this.#leaf?.type === "code" && isWithin) return this.#code(rest);
    if (lines.isBlank(rest)) return this.#blank(depth);
    this.#block(rest, depth, isWithin);
    for (const each of this.#open) if (each.type === "list") this.#set(each, "blank", false);
  }

  #code(rest) {
    const { fence, text } = this.#leaf;
    if (lines.closesFence(rest, fence)) {
      this.#leaf = null;
      return;
    }
    const line = rest.slice(Math.min(fence.indent, lines.indentOf(rest)));
    this.#set(this.#leaf, "text", text === null ? line : `${text}\n${line}`);
  }

  #blank(depth) {
    const ends = this.#open.slice(depth).some((each) => each.type === "quote");
    if (ends) this.#close(depth);
    this.#leaf = null;
    for (const each of this.#open) if (each.type === "list") this.#set(each, "blank", true);
  }

  #block(given, within, isWithin) {
    let rest = given;
    let depth = within;
    let isNew = false; // whether a container began on this line
    const paragraph = () => (!isNew && this.#leaf?.type === "paragraph" ? this.#leaf : null);
    for (;;) {
      const isDeep = this.#open.length > DEEPEST * 2;
      const quoted = isDeep ? null : lines.quote(rest);
      if (quoted !== null) {
        if (depth < this.#open.length) this.#close(depth);
        this.#open.push(this.#add(this.#open.at(-1), { type: "quote", children: [] }));
        rest = quoted;
      } else {
        const item = isDeep || lines.isRule(rest) ? null : lines.item(rest);
        if (!item || (paragraph() && !lines.mayInterrupt(item) && !this.#isItemNext(item, depth))) break;
        rest = this.#item(item, depth);
      }
      this.#leaf = null;
      depth = this.#open.length;
      isNew = true;
      if (lines.isBlank(rest)) return;
    }
    this.#leafFrom(rest, depth, paragraph(), isWithin || isNew);
  }

  /** Whether an item is the next one of the list that the line is in. */
  #isItemNext(item, depth) {
    const list = this.#open[depth];
    return list?.type === "list" && list.marker === item.marker;
  }

  #item({ marker, start, offset, rest, checked }, depth) {
    let list = this.#open[depth];
    if (list?.type === "list" && list.marker === marker) {
      this.#close(depth + 1);
      if (list.blank) this.#set(list, "loose", true);
    } else {
      if (depth < this.#open.length) this.#close(depth);
      list = { type: "list", ordered: start !== null, start, loose: false, children: [], marker, blank: false };
      this.#open.push(this.#add(this.#open.at(-1), hiding(list, "marker", "blank")));
    }
    const item = { type: "item", checked, children: [], list, offset };
    this.#open.push(this.#add(list, hiding(item, "list", "offset")));
    return rest;
  }

  #leafFrom(rest, depth, paragraph, isWithin) {
    const level = paragraph && isWithin ? lines.underline(rest) : 0;
    if (level) {
      this.#set(paragraph, "level", level);
      this.#set(paragraph, "type", "heading");
      this.#leaf = null;
      return;
    }
    const fence = lines.fence(rest);
    if (fence) return this.#start(hiding({ type: "code", language: fence.language, text: null, fence }, "fence"), depth);
    const heading = lines.heading(rest);
    if (heading || lines.isRule(rest)) {
      this.#start(heading ? { type: "heading", ...heading } : { type: "rule" }, depth);
      this.#leaf = null;
      return;
    }
    if (this.#leaf?.type === "table" && isWithin) {
      this.#add(this.#leaf, { type: "row", cells: lines.row(rest, this.#leaf.aligned.length) });
    } else if (!(paragraph && isWithin && this.#table(paragraph, rest))) {
      // A quoted paragraph goes on even where its mark is left out.
      if (paragraph) this.#set(paragraph, "text", `${paragraph.text}\n${rest.trimStart()}`);
      else this.#start({ type: "paragraph", text: rest.trimStart() }, depth);
    }
  }

  /** Make a table of a paragraph whose last line is its head, if this line says so. */
  #table(paragraph, rest) {
    const aligned = lines.alignment(rest);
    if (!aligned) return false;
    const end = paragraph.text.lastIndexOf("\n");
    const head = paragraph.text.slice(end + 1);
    if (lines.cells(head).length !== aligned.length) return false;
    const table = { type: "table", aligned, children: [{ type: "row", cells: lines.row(head, aligned.length) }] };
    if (end < 0) {
      const parent = this.#open.at(-1);
      const place = parent.children.length - 1;
      this.#changes?.push(() => (parent.children[place] = paragraph));
      parent.children[place] = table;
    } else {
      this.#set(paragraph, "text", paragraph.text.slice(0, end));
      this.#add(this.#open.at(-1), table);
    }
    this.#leaf = table;
    return true;
  }
}

/** Keep out of JSON, and so out of what is compared, what only the parser needs. */
function hiding(node, ...names) {
  for (const name of names) Object.defineProperty(node, name, { enumerable: false });
  return node;
}

/** All of a text at once. */
export function parse(text) {
  const parser = new MarkdownParser();
  parser.feed(text);
  parser.flush();
  return parser.blocks;
}
