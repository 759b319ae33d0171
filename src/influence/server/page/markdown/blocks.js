// Block Markdown: a text becomes a row of blocks, each of which is built only when it is needed.
//
// A block is known by its source. While a reply streams in, all blocks but the last keep
// theirs, so that render.js leaves what stands alone.

import { highlight } from "./highlight.js";
import { parseInline, trimmedEnd } from "./inline.js";
import { readList } from "./lists.js";
import { readTable } from "./tables.js";
import { node } from "./tree.js";
/** @import { ElementTree } from "./tree.js" */

/** @typedef {{ source: string, build: (growing: boolean) => ElementTree }} Block */
/** @typedef {{ block: Block, end: number }} Read a block, and the line after it */

// Quotes and lists inside one another; what is deeper is shown as the text it is.
export const MAX_DEPTH = 10;

const BLANK = /^[ \t]*$/;
const FENCE = /^( {0,3})(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const INDENTED = /^(?: {4}|\t)/;
const LIST_ITEM = /^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)/;
// Only what begins at 1 interrupts a paragraph: "It was in\n1984. A year …" is no list.
const INTERRUPTING_ITEM = /^ {0,3}(?:[-*+]|1[.)])[ \t]+\S/;

/**
 * @param {string} text
 * @returns {Block[]}
 */
export function parseMarkdown(text) {
  return parseLines(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

/**
 * @param {string[]} lines
 * @param {number} depth how many quotes and lists stand around them
 * @returns {Block[]}
 */
export function parseLines(lines, depth) {
  const readers = depth < MAX_DEPTH ? [...LEAVES, readQuote, readList] : LEAVES;
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const { block, end } = firstThatReads(readers, lines, at, depth) ?? readParagraph(lines, at);
    blocks.push(block);
    at = end;
  }
  return blocks;
}

/**
 * @param {string} line
 */
export function isBlank(line) {
  return BLANK.test(line);
}

/**
 * Whether a line ends the paragraph before it.
 * @param {string} line
 */
export function interruptsParagraph(line) {
  return (
    isBlank(line) || fence(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || INTERRUPTING_ITEM.test(line)
  );
}

/**
 * The start of a code block; a backtick after the marks makes it a line of inline code.
 * @param {string} line
 */
function fence(line) {
  const match = FENCE.exec(line);
  return match && match[2][0] === "`" && match[3].includes("`") ? null : match;
}

/** @param {string} line */
export function isRule(line) {
  return RULE.test(line);
}

/**
 * @param {string[]} lines
 * @param {number} begin
 * @param {number} end
 * @param {(growing: boolean) => ElementTree} build
 * @returns {Read}
 */
export function read(lines, begin, end, build) {
  return { block: { source: lines.slice(begin, end).join("\n"), build }, end };
}

/**
 * The children of a container; only its last block may still grow.
 * @param {Block[]} blocks
 * @param {boolean} growing
 */
export function buildAll(blocks, growing) {
  return blocks.map((block, index) => block.build(growing && index === blocks.length - 1));
}

/** @typedef {(lines: string[], at: number, depth: number) => Read | null} Reader */

/**
 * @param {Reader[]} readers
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 */
function firstThatReads(readers, lines, at, depth) {
  for (const reader of readers) {
    const found = reader(lines, at, depth);
    if (found) {
      return found;
    }
  }
  return null;
}

/** @type {Reader[]} */
const LEAVES = [readFence, readHeading, readRule, readTable, readIndentedCode];

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {Read | null}
 */
function readFence(lines, at) {
  const match = fence(lines[at]);
  if (!match) {
    return null;
  }
  const [, indent, marks, info] = match;
  const closing = new RegExp(`^ {0,3}\\${marks[0]}{${marks.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) {
    end += 1;
  }
  const margin = new RegExp(`^ {0,${indent.length}}`);
  const code = lines.slice(at + 1, end).map((line) => line.replace(margin, ""));
  const language = info.trim().split(/\s/)[0];
  return read(lines, at, Math.min(end + 1, lines.length), () => codeBlock(code.join("\n"), language));
}

/**
 * @param {string} code
 * @param {string} language "" where none is named
 */
function codeBlock(code, language) {
  const head = node("figcaption", {}, [
    node("span", { class: "language" }, [language || "code"]),
    node("button", { type: "button", class: "copy-code" }, ["Copy"]),
  ]);
  const pre = node("pre", { tabindex: "0" }, [node("code", {}, highlight(code, language))]);
  return node("figure", { class: "code" }, [head, pre]);
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {Read | null}
 */
function readHeading(lines, at) {
  const match = HEADING.exec(lines[at]);
  if (!match) {
    return null;
  }
  // The page's own headings are levels 1 and 2, and models begin with # or ## alike.
  const tag = `h${Math.min(Math.max(match[1].length, 2) + 1, 6)}`;
  const text = withoutClosingMarks((match[2] ?? "").trim());
  return read(lines, at, at + 1, (growing) => node(tag, { class: `level-${match[1].length}` }, parseInline(text, growing)));
}

/**
 * "Title ##" is the title alone.
 * @param {string} text
 */
function withoutClosingMarks(text) {
  const bare = trimmedEnd(text, "#");
  return bare === "" || /[ \t]$/.test(bare) ? bare.trim() : text;
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {Read | null}
 */
function readRule(lines, at) {
  return RULE.test(lines[at]) ? read(lines, at, at + 1, () => node("hr", {}, [])) : null;
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {Read | null}
 */
function readIndentedCode(lines, at) {
  if (!INDENTED.test(lines[at])) {
    return null;
  }
  let end = at + 1;
  for (let next = end; next < lines.length && (INDENTED.test(lines[next]) || isBlank(lines[next])); next += 1) {
    end = isBlank(lines[next]) ? end : next + 1;
  }
  const code = lines.slice(at, end).map((line) => line.replace(INDENTED, ""));
  return read(lines, at, end, () => codeBlock(code.join("\n"), ""));
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {Read | null}
 */
function readQuote(lines, at, depth) {
  if (!QUOTE.test(lines[at])) {
    return null;
  }
  let end = at + 1;
  while (end < lines.length && (QUOTE.test(lines[end]) || continuesLazily(lines[end - 1], lines[end]))) {
    end += 1;
  }
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  const blocks = parseLines(inner, depth + 1);
  return read(lines, at, end, (growing) => node("blockquote", {}, buildAll(blocks, growing)));
}

/**
 * Whether a line without ">" still belongs to the paragraph of the quoted line before it.
 * @param {string} before
 * @param {string} line
 */
function continuesLazily(before, line) {
  const text = before.replace(QUOTE, "").replace(LIST_ITEM, "");
  return !LIST_ITEM.test(line) && !interruptsParagraph(line) && !interruptsParagraph(text) && !INDENTED.test(text);
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {Read}
 */
function readParagraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && !interruptsParagraph(lines[end]) && !readTable(lines, end)) {
    end += 1;
  }
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return read(lines, at, end, (growing) => node("p", {}, parseInline(text, growing)));
}
