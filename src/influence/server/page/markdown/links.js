// Finds the links of a text before anything else is parsed: a link binds stronger than emphasis.

import { safeUrl } from "./tree.js";

// `(address "title")`; every part is bounded, so that no text makes the search quadratic.
const TARGET =
  /\([ \t\n]{0,9}(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}(?:\([^\s()]{0,2000}\)[^\s()<>]{0,2000}){0,9}))(?:[ \t\n]{1,9}(?:"[^"]{0,300}"|'[^']{0,300}'))?[ \t\n]{0,9}\)/y;

/** @typedef {{ closing: number, end: number, href: string | null }} FoundLink */

/**
 * Where links begin: position of "[" -> its "]", the end of all, and the address (null: not one to follow).
 * @param {string} text
 * @param {(position: number) => number} skip past a code span or an escape that begins here, or the position itself
 * @returns {Map<number, FoundLink>}
 */
export function findLinks(text, skip) {
  /** @type {Map<number, FoundLink>} */
  const links = new Map();
  /** @type {number[]} */
  let open = [];
  let position = 0;
  while (position < text.length) {
    const after = skip(position);
    if (after > position) {
      position = after;
      continue;
    }
    if (text[position] === "[") {
      open.push(position);
    } else if (text[position] === "]" && open.length > 0) {
      const begin = /** @type {number} */ (open.pop());
      const found = linkTarget(text, position);
      if (found) {
        links.set(begin, found);
        open = []; // links do not nest
        position = found.end;
        continue;
      }
    }
    position += 1;
  }
  return links;
}

/**
 * @param {string} text
 * @param {number} closing position of "]"
 * @returns {FoundLink | null}
 */
function linkTarget(text, closing) {
  TARGET.lastIndex = closing + 1;
  const match = TARGET.exec(text);
  if (!match) {
    return null;
  }
  return { closing, end: TARGET.lastIndex, href: safeUrl(match[1] ?? match[2]) };
}
