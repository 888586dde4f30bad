// What a line of Markdown can be, by its first characters. Pure; each takes time in proportion to the line at most.

const WIDEST = 100; // columns of a table
const BLANK = /^[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const FENCE = /^( *)(`{3,}|~{3,})([^\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const QUOTE = /^ *> ?/;
const ITEM = /^( *)(?:([-*+])|(\d{1,9})([.)]))( +|$)/;
const TASK = /^\[([ xX])\] +(?=\S)/;
const COLUMN = /^ *:?-+:? *$/;

/** Without the end of a line of Windows, and with spaces for tabs at its beginning. */
export function clean(line) {
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  return text.replace(/^[ \t]+/, (start) => start.replaceAll("\t", "    ")).replaceAll("\0", "\ufffd");
}

export const isBlank = (line) => BLANK.test(line);
export const isRule = (line) => RULE.test(line);
export const indentOf = (line) => line.length - line.trimStart().length;

/** Whether a line that is not whole yet may still become anything: then it is not shown. */
export const isMarkerAlone = (line) => line.length < 80 && /^[ \t>]*(?:[-*_+=~`#|:. \t]*|\d{1,9}[.)]?) *$/.test(line);

/** What is left of a line within a container that is open; null if the line does not go on with it. */
export function goOn(container, line) {
  if (container.type === "quote") return quote(line);
  if (container.type === "list") return line;
  if (isBlank(line)) return container.children.length ? line : null;
  return indentOf(line) >= container.offset ? line.slice(container.offset) : null;
}

export function quote(line) {
  const found = QUOTE.exec(line);
  return found && line.slice(found[0].length);
}

/** An item of a list: its marker, by which items belong together, and how far what belongs to it is indented. */
export function item(line) {
  const found = ITEM.exec(line);
  if (!found) return null;
  const [all, indent, bullet, number, point, space] = found;
  const mark = indent.length + (bullet ? 1 : number.length + 1);
  const offset = space.length > 4 || isBlank(line.slice(mark)) ? mark + 1 : all.length;
  const after = line.slice(offset);
  const task = TASK.exec(after);
  return {
    marker: bullet ?? point,
    start: number === undefined ? null : Number(number),
    offset,
    checked: task && task[1] !== " ",
    rest: task ? after.slice(task[0].length) : after,
  };
}

/** Whether an item may follow on a paragraph without a blank line: "1914. A year" at the start of a line is none. */
export const mayInterrupt = ({ start, rest }) => !isBlank(rest) && (start === null || start === 1);

export function heading(line) {
  const found = HEADING.exec(line);
  if (!found) return null;
  const text = line.slice(found[0].length).trim();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  const isClosed = end === 0 || text[end - 1] === " " || text[end - 1] === "\t";
  return { level: found[1].length, text: isClosed ? text.slice(0, end).trimEnd() : text };
}

/** The level of the heading that a line underlines; 0 if it is no underline. */
export function underline(line) {
  const bare = line.trim();
  if (/^=+$/.test(bare)) return 1;
  return /^-+$/.test(bare) ? 2 : 0;
}

export function fence(line) {
  const found = FENCE.exec(line);
  if (!found) return null;
  const [, indent, marks, info] = found;
  if (marks[0] === "`" && info.includes("`")) return null;
  const language = /^[\w+#.-]{1,30}/.exec(info.trim())?.[0] ?? "";
  return { indent: indent.length, mark: marks[0], length: marks.length, language };
}

export function closesFence(line, { mark, length }) {
  const bare = line.trim();
  if (bare.length < length || bare[0] !== mark) return false;
  for (const each of bare) if (each !== mark) return false;
  return true;
}

// ---- tables ----

/** The cells of a row: at each bar that is neither escaped nor in code. */
export function cells(line) {
  const bare = line.trim();
  const found = [];
  let cell = "";
  for (let at = bare.startsWith("|") ? 1 : 0; at < bare.length; at += 1) {
    if (bare[at] === "\\" && bare[at + 1] === "|") cell += bare[(at += 1)];
    else if (bare[at] === "|") {
      found.push(cell.trim());
      cell = "";
      if (found.length > WIDEST) return found;
    } else cell += bare[at];
  }
  if (cell.trim() || !bare.endsWith("|")) found.push(cell.trim());
  return found;
}

/** How the columns are aligned, if the line says that what is above it is the head of a table. */
export function alignment(line) {
  if (!/^[ \t|:-]+$/.test(line) || !/[|:]/.test(line)) return null;
  const found = cells(line);
  if (!found.length || found.length > WIDEST || !found.every((each) => COLUMN.test(each))) return null;
  return found.map((each) => (each.endsWith(":") ? (each.startsWith(":") ? "center" : "right") : "left"));
}

export function row(line, width) {
  const found = cells(line).slice(0, width);
  while (found.length < width) found.push("");
  return found;
}
