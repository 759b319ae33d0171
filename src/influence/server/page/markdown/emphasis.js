// Emphasis, strong, and struck text by CommonMark's rules of delimiter runs.

import { node, pushText } from "./tree.js";
/** @import { Tree } from "./tree.js" */

// Deeper than any text for people; what is beyond stays as the characters that it is.
const MAX_OPEN = 60;

/** @typedef {{ mark: string, count: number, size: number, canClose: boolean, children: Tree[] }} Frame */

/** Collects inline nodes; runs of `*`, `_` and `~` open frames that a later run closes. */
export class EmphasisBuilder {
  constructor() {
    /** @type {Frame[]} the first holds what stands outside of all */
    this.frames = [{ mark: "", count: 0, size: 0, canClose: false, children: [] }];
  }

  /** @param {string} text */
  text(text) {
    pushText(this.#top.children, text);
  }

  /** @param {Tree} tree */
  add(tree) {
    this.#top.children.push(tree);
  }

  /**
   * A run of one mark.
   * @param {string} mark
   * @param {number} size how many in a row
   * @param {string} before the character before it, "" at the start
   * @param {string} after
   */
  run(mark, size, before, after) {
    const { canOpen, canClose } = flanking(mark, before, after);
    let count = canClose ? this.#close(mark, size, canOpen) : size;
    if (mark === "~" && size !== 2) {
      this.text(mark.repeat(count));
    } else if (count > 0 && canOpen && this.frames.length < MAX_OPEN) {
      this.frames.push({ mark, count, size, canClose, children: [] });
    } else {
      this.text(mark.repeat(count));
    }
  }

  /**
   * All nodes. What is still open is literal, or, while the text is still growing, taken as
   * closed here, so that a `**` does not flash up before its twin has come.
   * @param {boolean} growing
   * @returns {Tree[]}
   */
  finish(growing) {
    while (this.frames.length > 1) {
      const frame = this.#top;
      const isUseful = growing && frame.children.length > 0 && frame.mark !== "_";
      if (isUseful) {
        this.#close(frame.mark, frame.count, false);
      }
      if (this.#top === frame) {
        this.#openedInVain();
      }
    }
    return this.frames[0].children;
  }

  get #top() {
    return this.frames[this.frames.length - 1];
  }

  /**
   * Close as much as `size` marks can; how many are left.
   * @param {string} mark
   * @param {number} size
   * @param {boolean} canOpen
   */
  #close(mark, size, canOpen) {
    let left = size;
    while (left > 0) {
      const index = this.#opener(mark, size, canOpen);
      if (index < 1) {
        return left;
      }
      while (this.frames.length - 1 > index) {
        this.#openedInVain();
      }
      const frame = this.#top;
      const used = mark === "~" || (left >= 2 && frame.count >= 2) ? 2 : 1;
      const tree = node(tagOf(mark, used), {}, frame.children);
      left -= used;
      frame.count -= used;
      frame.children = [tree];
      if (frame.count <= 0) {
        this.frames.pop();
        this.add(tree);
      }
    }
    return 0;
  }

  /**
   * The nearest frame that such a run closes, or -1. A run that could both open and close
   * pairs only if the sizes don't add up to a multiple of three (CommonMark, rules 9 and 10).
   * @param {string} mark
   * @param {number} size
   * @param {boolean} canOpen
   */
  #opener(mark, size, canOpen) {
    return this.frames.findLastIndex((frame) => {
      if (frame.mark !== mark || (mark === "~" && size !== 2)) {
        return false;
      }
      const isAmbiguous = canOpen || frame.canClose;
      const isThird = (frame.size + size) % 3 === 0 && !(frame.size % 3 === 0 && size % 3 === 0);
      return mark === "~" || !(isAmbiguous && isThird);
    });
  }

  #openedInVain() {
    const frame = /** @type {Frame} */ (this.frames.pop());
    this.text(frame.mark.repeat(frame.count));
    for (const child of frame.children) {
      if (typeof child === "string") {
        this.text(child);
      } else {
        this.add(child);
      }
    }
  }
}

/**
 * @param {string} mark
 * @param {number} count
 */
function tagOf(mark, count) {
  if (mark === "~") {
    return "del";
  }
  return count === 2 ? "strong" : "em";
}

/**
 * Whether a run may open and close, from the characters around it.
 * @param {string} mark
 * @param {string} before
 * @param {string} after
 */
function flanking(mark, before, after) {
  const isSpaceBefore = before === "" || /\s/.test(before);
  const isSpaceAfter = after === "" || /\s/.test(after);
  const isPunctuationBefore = /[\p{P}\p{S}]/u.test(before);
  const isPunctuationAfter = /[\p{P}\p{S}]/u.test(after);
  const isLeft = !isSpaceAfter && (!isPunctuationAfter || isSpaceBefore || isPunctuationBefore);
  const isRight = !isSpaceBefore && (!isPunctuationBefore || isSpaceAfter || isPunctuationAfter);
  if (mark !== "_") {
    return { canOpen: isLeft, canClose: isRight };
  }
  return {
    canOpen: isLeft && (!isRight || isPunctuationBefore),
    canClose: isRight && (!isLeft || isPunctuationAfter),
  };
}
