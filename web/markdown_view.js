// Draws a tree of Markdown as elements. Text becomes text nodes and nothing else, so whatever a model says, the page has
// no element and no address that is not made here. What is closed is drawn once; what is open, again in its place.

import { MarkdownParser } from "./markdown.js";
import { parseInline, runs } from "./markdown_inline.js";
import { element, link } from "./element.js";
import { copyButton } from "./copy.js";

const INLINE = { strong: "strong", emphasis: "em", deleted: "del" };

export class MarkdownView {
  #parser = new MarkdownParser();
  #blocks;

  constructor(parent) {
    this.#blocks = new Children(parent, []);
  }

  add(text) {
    this.#parser.feed(text);
  }

  draw() {
    this.#blocks.draw(this.#parser.blocks, true);
  }

  /** There is no more text. */
  end() {
    this.#parser.flush();
    this.#blocks.draw(this.#parser.blocks, false);
  }
}

/** What is drawn of a node's children. */
class Children {
  #parent;
  #levels;
  #drawn = [];
  #settled = 0; // those at the beginning that never change again

  /** @param levels  of the headings that the next one is below */
  constructor(parent, levels) {
    this.#parent = parent;
    this.#levels = levels;
  }

  draw(nodes, isOpen) {
    for (let index = this.#settled; index < nodes.length; index += 1) {
      const node = nodes[index];
      const before = this.#drawn[index];
      if (before?.kind !== kindOf(node)) {
        const made = new Block(node, this.#levels);
        if (before) before.element.replaceWith(made.element);
        else this.#parent.append(made.element);
        this.#drawn[index] = made;
      }
      const isSettled = node.closed === true;
      this.#drawn[index].draw(node, isOpen && index === nodes.length - 1);
      if (isSettled && this.#settled === index) this.#settled += 1;
    }
    for (const each of this.#drawn.splice(nodes.length)) each.element.remove();
  }
}

/** What makes another element of a node. */
const kindOf = ({ type, level, ordered, start, language, checked, aligned }) =>
  `${type} ${level} ${ordered} ${start} ${language} ${checked} ${aligned}`;

class Block {
  constructor(node, levels) {
    this.kind = kindOf(node);
    Object.assign(this, MAKE[node.type](node, levels));
    if (node.children) this.children = new Children(this.body ?? this.element, levels);
    this.runs = [];
  }

  draw(node, isOpen) {
    if (node.type === "list") this.element.classList.toggle("loose", node.loose);
    if (node.type === "code") drawCode(this.body, node.text ?? "");
    else if (node.type === "table") drawTable(this, node);
    else if (node.children) this.children.draw(node.children, isOpen);
    else if (node.text !== undefined) this.inline(node.text, isOpen);
  }

  /** A very long text has several runs, and only those that are new or other than before are drawn. */
  inline(text, isOpen) {
    const asked = runs(text);
    asked.forEach((run, index) => {
      const before = this.runs[index];
      const isLast = isOpen && index === asked.length - 1;
      if (before?.text === run && before.isOpen === isLast) return;
      const nodes = inlineNodes(parseInline(run, { isOpen: isLast }));
      if (before) before.nodes.splice(0).forEach((each) => each.remove());
      this.element.append(...nodes);
      this.runs[index] = { text: run, isOpen: isLast, nodes };
    });
    for (const each of this.runs.splice(asked.length)) each.nodes.forEach((node) => node.remove());
  }
}

const MAKE = {
  paragraph: () => ({ element: element("p") }),
  heading: ({ level }, levels) => {
    // A model begins with any level; for a screen reader none is left out below the page's own two.
    while (levels.at(-1) >= level) levels.pop();
    levels.push(level);
    return { element: element(`h${Math.min(levels.length + 2, 6)}`, `level-${level}`) };
  },
  rule: () => ({ element: element("hr") }),
  quote: () => ({ element: element("blockquote") }),
  list: ({ ordered, start }) => {
    const list = element(ordered ? "ol" : "ul");
    if (ordered && start !== 1) list.start = start;
    return { element: list };
  },
  item: ({ checked }) => {
    const item = element("li");
    if (checked === null) return { element: item };
    item.className = "task";
    const body = element("div");
    const box = element("span", "box", checked ? "\u2611" : "\u2610");
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", checked ? "done" : "to do");
    item.append(box, body);
    return { element: item, body };
  },
  code: ({ language }) => {
    const [block, head, pre, body] = [element("div", "code"), element("div", "code-head"), element("pre"), element("code")];
    scrolls(pre, language ? `Code in ${language}` : "Code");
    body.append("");
    pre.append(body);
    head.append(element("span", "language", language || "text"), copyButton("Copy code", () => body.textContent));
    block.append(head, pre);
    return { element: block, body };
  },
  table: () => {
    const [frame, table, head, body] = [element("div", "table"), element("table"), element("thead"), element("tbody")];
    scrolls(frame, "Table");
    table.append(head, body);
    frame.append(table);
    return { element: frame, head, body, rows: [] };
  },
};

/** What may be wider than the screen scrolls by itself, with the keyboard too. */
function scrolls(block, label) {
  block.tabIndex = 0;
  block.setAttribute("role", "group");
  block.setAttribute("aria-label", label);
}

function drawCode(code, text) {
  const shown = code.firstChild;
  if (text.startsWith(shown.data)) shown.appendData(text.slice(shown.data.length));
  else shown.data = text;
}

/** The last row that is drawn may not have been whole: it is drawn again. */
function drawTable({ head, body, rows }, { aligned, children }) {
  const from = Math.max(0, Math.min(rows.length, children.length) - 1);
  for (const each of rows.splice(from)) each.remove();
  for (let index = from; index < children.length; index += 1) {
    const row = element("tr");
    children[index].cells.forEach((cell, column) => {
      const made = element(index ? "td" : "th", aligned[column]);
      made.append(...inlineNodes(parseInline(cell)));
      row.append(made);
    });
    (index ? body : head).append(row);
    rows.push(row);
  }
}

function inlineNodes(nodes) {
  return nodes.map((node) => {
    if (node.type === "text") return document.createTextNode(node.text);
    if (node.type === "code") return element("code", "", node.text);
    if (node.type === "break") return element("br");
    if (node.type === "image") return link(node.href, `Image: ${node.text || node.href}`); // never fetched
    const made = node.type === "link" ? link(node.href) : element(INLINE[node.type]);
    made.append(...inlineNodes(node.children));
    return made;
  });
}
