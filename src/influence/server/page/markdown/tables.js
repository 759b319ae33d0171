// Tables as GitHub writes them: a row of heads, a row of dashes, rows of cells.

import { interruptsParagraph, read } from "./blocks.js";
import { parseInline } from "./inline.js";
import { node } from "./tree.js";
/** @import { Read } from "./blocks.js" */

const DASHES = /^:?-+:?$/;
const MAX_COLUMNS = 50;

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {Read | null}
 */
export function readTable(lines, at) {
  const dashes = lines[at + 1];
  if (!dashes?.includes("|") || !lines[at].includes("|") ) {
    return null;
  }
  const heads = cells(lines[at]);
  const rule = cells(dashes);
  if (heads.length !== rule.length || heads.length > MAX_COLUMNS || !rule.every((cell) => DASHES.test(cell))) {
    return null;
  }
  const alignments = rule.map(alignment);
  let end = at + 2;
  while (end < lines.length && !interruptsParagraph(lines[end])) {
    end += 1;
  }
  const rows = lines.slice(at + 2, end).map(cells);
  return read(lines, at, end, (growing) => tableNode(heads, alignments, rows, growing));
}

/**
 * The cells of a row; `\|` and a bar in a code span's backticks stand for themselves only if escaped.
 * @param {string} line
 * @returns {string[]}
 */
function cells(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return bare.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @param {string} dashes */
function alignment(dashes) {
  if (dashes.endsWith(":")) {
    return dashes.startsWith(":") ? "center" : "right";
  }
  return "left";
}

/**
 * @param {string[]} heads
 * @param {string[]} alignments
 * @param {string[][]} rows
 * @param {boolean} growing
 */
function tableNode(heads, alignments, rows, growing) {
  const head = heads.map((text, column) => cell("th", text, alignments[column], false));
  const body = rows.map((row, index) => {
    const isGrowing = growing && index === rows.length - 1;
    // Every row has as many cells as there are heads, whatever was written.
    return node("tr", {}, heads.map((_, column) => cell("td", row[column] ?? "", alignments[column], isGrowing)));
  });
  const table = node("table", {}, [node("thead", {}, [node("tr", {}, head)]), node("tbody", {}, body)]);
  return node("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, [table]);
}

/**
 * @param {string} tag
 * @param {string} text
 * @param {string} align
 * @param {boolean} growing
 */
function cell(tag, text, align, growing) {
  return node(tag, align === "left" ? {} : { class: `align-${align}` }, parseInline(text, growing));
}
