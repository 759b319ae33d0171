// Lists: bullets and numbers, nested by indentation as CommonMark counts it.

import { MAX_DEPTH, buildAll, interruptsParagraph, isBlank, isRule, parseLines, read } from "./blocks.js";
import { node } from "./tree.js";
/** @import { Block, Read } from "./blocks.js" */
/** @import { ElementTree } from "./tree.js" */

const MARKER = /^( {0,3})([-*+]|(\d{1,9})[.)])([ \t]+|$)/;
const TASK = /^\[([ xX])\][ \t]+/;

/** @typedef {{ kind: string, number: string | undefined, indent: number, first: string }} Marker */
/** @typedef {{ blocks: Block[], isLoose: boolean, task: string | null }} Item */

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {Read | null}
 */
export function readList(lines, at, depth) {
  const start = marker(lines[at]);
  if (!start || isRule(lines[at])) {
    return null;
  }
  /** @type {Item[]} */
  const items = [];
  let isLoose = false;
  let end = at;
  for (let next = at; next < lines.length; ) {
    const found = marker(lines[next]);
    if (!found || found.kind !== start.kind || isRule(lines[next])) {
      break;
    }
    isLoose ||= next > end;
    end = itemEnd(lines, next, found.indent);
    items.push(item(lines.slice(next, end), found, depth));
    next = end;
    while (next < lines.length && isBlank(lines[next])) {
      next += 1;
    }
  }
  isLoose ||= items.some((one) => one.isLoose);
  return read(lines, at, end, (growing) => listNode(start, items, isLoose, growing));
}

/**
 * @param {string} line
 * @returns {Marker | null}
 */
function marker(line) {
  const match = MARKER.exec(line);
  if (!match) {
    return null;
  }
  const [whole, margin, mark, number, gap] = match;
  const rest = line.slice(whole.length);
  // Five spaces or more after the mark are one, and an indented code block.
  const width = gap.length >= 1 && gap.length <= 4 && rest !== "" ? gap.length : 1;
  const indent = margin.length + mark.length + width;
  return { kind: mark.slice(-1), number, indent, first: " ".repeat(Math.max(0, gap.length - width)) + rest };
}

/**
 * The line after an item that begins at `at`: it takes what is indented, blank lines
 * between, and lines that go on with its last paragraph.
 * @param {string[]} lines
 * @param {number} at
 * @param {number} indent
 */
function itemEnd(lines, at, indent) {
  const inside = new RegExp(`^(?: {${indent}}|\\t)`);
  let end = at + 1;
  for (let next = end; next < lines.length; next += 1) {
    if (isBlank(lines[next])) {
      continue;
    }
    const follows = next === end && !isBlank(lines[next - 1]);
    const isLazy = follows && goesOn(lines[next - 1], lines[next], indent);
    if (!inside.test(lines[next]) && !isLazy) {
      break;
    }
    end = next + 1;
  }
  return end;
}

/**
 * Whether a line that is not indented still belongs to the paragraph that ended an item so far.
 * @param {string} before
 * @param {string} line
 * @param {number} indent
 */
function goesOn(before, line, indent) {
  let text = marker(before)?.first ?? before.slice(Math.min(indent, before.search(/\S/)));
  for (let depth = 0; depth < MAX_DEPTH && marker(text); depth += 1) {
    text = marker(text)?.first ?? "";
  }
  return !interruptsParagraph(text) && !interruptsParagraph(line) && !marker(line);
}

/**
 * @param {string[]} lines
 * @param {Marker} found
 * @param {number} depth
 * @returns {Item}
 */
function item(lines, found, depth) {
  const task = TASK.exec(found.first);
  const first = task ? found.first.slice(task[0].length) : found.first;
  const margin = new RegExp(`^(?: {0,${found.indent}}|\\t)`);
  const inner = [first, ...lines.slice(1).map((line) => line.replace(margin, ""))];
  const blocks = parseLines(inner, depth + 1);
  return { blocks, isLoose: hasGap(inner, blocks), task: task ? task[1] : null };
}

/**
 * Whether a blank line stands between the blocks of an item, and not inside one of them.
 * @param {string[]} lines
 * @param {Block[]} blocks
 */
function hasGap(lines, blocks) {
  const used = blocks.reduce((count, block) => count + block.source.split("\n").length, 0);
  const leading = lines.findIndex((line) => !isBlank(line));
  const trailing = lines.length - 1 - lines.findLastIndex((line) => !isBlank(line));
  return blocks.length > 1 && used < lines.length - Math.max(leading, 0) - trailing;
}

/**
 * @param {Marker} start
 * @param {Item[]} items
 * @param {boolean} isLoose
 * @param {boolean} growing
 */
function listNode(start, items, isLoose, growing) {
  const children = items.map((one, index) => itemNode(one, isLoose, growing && index === items.length - 1));
  if (start.number === undefined) {
    return node("ul", {}, children);
  }
  const number = Number(start.number);
  return node("ol", number === 1 ? {} : { start: String(number) }, children);
}

/**
 * In a tight list the paragraphs of an item are bare text.
 * @param {Item} one
 * @param {boolean} isLoose
 * @param {boolean} growing
 * @returns {ElementTree}
 */
function itemNode(one, isLoose, growing) {
  const built = buildAll(one.blocks, growing);
  const children = isLoose ? built : built.flatMap((block) => (block.tag === "p" ? block.children : [block]));
  if (one.task === null) {
    return node("li", {}, children);
  }
  const isDone = one.task !== " ";
  const mark = node("span", { class: "task-mark", role: "img", "aria-label": isDone ? "done" : "to do" }, [isDone ? "☑" : "☐"]);
  return node("li", { class: "task" }, [mark, " ", ...children]);
}
