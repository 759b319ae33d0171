// Inline Markdown: code, links, emphasis, line breaks. HTML is text like any other.

import { EmphasisBuilder } from "./emphasis.js";
import { findLinks } from "./links.js";
import { link, node, safeUrl } from "./tree.js";
/** @import { Tree } from "./tree.js" */

const ESCAPED = /\\[!-/:-@[-`{-~]/y;
const BACKTICKS = /`+/y;
const ANGLE_URL = /<(https?:\/\/[^\s<>]{1,2000})>/y;
const BARE_URL = /https?:\/\/[^\s<>`*]{1,2000}/y;
const LINE_BREAK = /(?: {1,9}|\\)?\n[ \t]*/y;
const PLAIN = /[^\\`<[!*_~\n h]+|h(?!ttps?:)| (?! {0,8}\n)/y;

/**
 * @param {string} text one paragraph, heading or cell
 * @param {boolean} growing whether more of it may come: an open code span or emphasis then counts as closed
 * @returns {Tree[]}
 */
export function parseInline(text, growing = false) {
  return new InlineParser(text, growing).parse();
}

class InlineParser {
  /**
   * @param {string} text
   * @param {boolean} growing
   */
  constructor(text, growing) {
    this.text = text;
    this.growing = growing;
    this.position = 0;
    this.out = new EmphasisBuilder();
    /** @type {Map<number, number>} size of a backtick run -> from where on no such run follows */
    this.codeEnds = new Map();
    this.links = findLinks(text, (position) => this.#literalEnd(position));
  }

  parse() {
    while (this.position < this.text.length) {
      this.#plain() || this.#escape() || this.#code() || this.#url() || this.#link() || this.#run() || this.#break() || this.#one();
    }
    return this.out.finish(this.growing);
  }

  /**
   * @param {RegExp} sticky
   * @returns {RegExpExecArray | null} the match that begins here
   */
  #match(sticky, position = this.position) {
    sticky.lastIndex = position;
    return sticky.exec(this.text);
  }

  #plain() {
    const match = this.#match(PLAIN);
    return match !== null && this.#emit(match[0]);
  }

  #one() {
    return this.#emit(this.text[this.position]);
  }

  /** @param {string} text consumed as it stands */
  #emit(text) {
    this.out.text(text);
    this.position += text.length;
    return true;
  }

  #escape() {
    const match = this.#match(ESCAPED);
    if (!match) {
      return false;
    }
    this.out.text(match[0][1]);
    this.position += 2;
    return true;
  }

  #code() {
    const marks = this.#match(BACKTICKS)?.[0];
    if (!marks) {
      return false;
    }
    const begin = this.position + marks.length;
    const end = this.#codeEnd(begin, marks.length);
    if (end < 0 && !(this.growing && begin < this.text.length)) {
      return this.#emit(marks);
    }
    this.out.add(node("code", {}, [codeText(this.text.slice(begin, end < 0 ? undefined : end))]));
    this.position = end < 0 ? this.text.length : end + marks.length;
    return true;
  }

  /**
   * Where the run of exactly `size` backticks begins that closes a span, or -1.
   * @param {number} begin
   * @param {number} size
   */
  #codeEnd(begin, size) {
    if (begin >= (this.codeEnds.get(size) ?? Infinity)) {
      return -1;
    }
    const runs = /`+/g;
    runs.lastIndex = begin;
    for (let run = runs.exec(this.text); run; run = runs.exec(this.text)) {
      if (run[0].length === size) {
        return run.index;
      }
    }
    this.codeEnds.set(size, begin);
    return -1;
  }

  /**
   * The end of an escape or a code span that begins here, else the position itself.
   * @param {number} position
   */
  #literalEnd(position) {
    if (this.text[position] === "\\") {
      return position + 2;
    }
    const marks = this.#match(BACKTICKS, position)?.[0].length ?? 0;
    if (marks === 0) {
      return position;
    }
    const end = this.#codeEnd(position + marks, marks);
    return end < 0 ? position + marks : end + marks;
  }

  #url() {
    const angle = this.#match(ANGLE_URL);
    const bare = angle ? null : this.#bareUrl();
    const address = angle?.[1] ?? bare;
    const href = address ? safeUrl(address) : null;
    if (!address || !href) {
      return false;
    }
    this.out.add(link(href, [address]));
    this.position += angle ? angle[0].length : address.length;
    return true;
  }

  /** An address as people write it in a sentence: without the full stop after it. */
  #bareUrl() {
    const match = /\w/.test(this.text[this.position - 1] ?? "") ? null : this.#match(BARE_URL);
    if (!match) {
      return null;
    }
    const closers = match[0].includes("(") ? "" : ")";
    return trimmedEnd(match[0], `.,:;!?'"]}${closers}`);
  }

  /** A link, or an image, which is a link too: the page loads nothing from elsewhere. */
  #link() {
    const isImage = this.text[this.position] === "!";
    const begin = this.position + (isImage ? 1 : 0);
    const found = this.text[begin] === "[" ? this.links.get(begin) : undefined;
    if (!found) {
      return false;
    }
    const label = this.text.slice(begin + 1, found.closing);
    const children = isImage ? [label || "image"] : parseInline(label);
    if (found.href) {
      this.out.add(link(found.href, children));
    } else {
      this.out.add(node("span", { class: "dead-link", title: "Not a web address" }, children));
    }
    this.position = found.end;
    return true;
  }

  #run() {
    const mark = this.text[this.position];
    if (mark !== "*" && mark !== "_" && mark !== "~") {
      return false;
    }
    let end = this.position + 1;
    while (this.text[end] === mark) {
      end += 1;
    }
    const before = characterBefore(this.text, this.position);
    const after = end < this.text.length ? String.fromCodePoint(this.text.codePointAt(end) ?? 32) : "";
    this.out.run(mark, end - this.position, before, after);
    this.position = end;
    return true;
  }

  #break() {
    const match = this.#match(LINE_BREAK);
    if (!match) {
      return false;
    }
    this.out.add(node("br", {}, []));
    this.position += match[0].length;
    return true;
  }
}

/**
 * @param {string} text
 * @param {number} position
 */
function characterBefore(text, position) {
  const last = text.slice(Math.max(0, position - 2), position);
  return [...last].at(-1) ?? "";
}

/**
 * A text without those of the characters that end it. (A pattern anchored at the end would
 * take time that is quadratic in a hostile text.)
 * @param {string} text
 * @param {string} characters
 */
export function trimmedEnd(text, characters) {
  let end = text.length;
  while (end > 0 && characters.includes(text[end - 1])) {
    end -= 1;
  }
  return text.slice(0, end);
}

/** @param {string} text */
function codeText(text) {
  const line = text.replace(/\n/g, " ");
  const isPadded = line.startsWith(" ") && line.endsWith(" ") && line.trim() !== "";
  return isPadded ? line.slice(1, -1) : line;
}
