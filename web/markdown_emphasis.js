// Emphasis in Markdown, by https://spec.commonmark.org/0.31.2/#emphasis-and-strong-emphasis: marks find each other, and
// what is between them becomes a node. Pure.

const DEEPEST = 16; // of what is nested; what is deeper loses its marks

/** Put what stands between marks that match into nodes of their own. Each node is looked at once. */
export function emphasized(nodes, isOpen = false) {
  const found = [];
  const opened = []; // the marks that may still be closed
  const floors = new Map(); // of `opened`, below which there is nothing for such a closer
  for (const node of nodes) {
    const closer = node.mark;
    while (closer?.closes && closer.count) {
      const kind = `${closer.sign}${closer.opens}${closer.length % 3}`;
      let index = opened.length - 1;
      const floor = floors.get(kind) ?? 0;
      while (index >= floor && !matches(opened[index], closer)) index -= 1;
      if (index < floor) {
        floors.set(kind, opened.length);
        break;
      }
      const opener = opened[index];
      const size = Math.min(opener.count, closer.count, 2);
      opened.length = index + 1;
      wrap(found, opener, size);
      use(opener, size);
      use(closer, size);
      if (!opener.count) opened.pop();
      for (const [each, height] of floors) if (height > opened.length) floors.set(each, opened.length);
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

export function nested(type, children, depth, href) {
  const node = href ? { type, href, children: tidy(children) } : { type, children: tidy(children) };
  return Object.defineProperty(node, "depth", { value: depth });
}

const depthOf = (node) => node.depth ?? 0;
export const deepest = (nodes) => nodes.reduce((most, each) => Math.max(most, depthOf(each)), 0);

/** Join the texts that follow on each other. */
export function tidy(nodes) {
  const found = [];
  for (const node of nodes) {
    const last = found.at(-1);
    if (node.type !== "text") found.push(node);
    else if (last?.type === "text") last.text += node.text;
    else if (node.text) found.push({ type: "text", text: node.text });
  }
  return found;
}
