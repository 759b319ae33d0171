// What a screen reader hears: a reply sentence by sentence as it is finished, and short notices.

import { byId, element } from "./dom.js";

// A sentence's end: its mark and the space after it, or the end of a line.
const SENTENCE_END = /[.!?…:]["')\]]*\s|\n/g;
const MARKS = /^[ \t]*(?:#{1,6} |> ?|[-*+] |`{3}.*)|[*_`~]{1,3}|\|/gm;
// A live region that only grows would be read anew by some screen readers.
const MAX_KEPT = 12;

/** Speaks one growing text. */
export class ReplyAnnouncer {
  constructor() {
    this.spoken = 0;
  }

  /**
   * @param {string} text all of it so far
   * @param {boolean} isFinished
   */
  update(text, isFinished) {
    const end = isFinished ? text.length : lastSentenceEnd(text, this.spoken);
    if (end > this.spoken) {
      announce(text.slice(this.spoken, end).replace(MARKS, "").trim());
      this.spoken = end;
    }
  }
}

/** @param {string} words */
export function announce(words) {
  if (!words) {
    return;
  }
  const region = byId("announcements");
  region.append(element("p", {}, words));
  while (region.childElementCount > MAX_KEPT) {
    region.firstElementChild?.remove();
  }
}

/**
 * @param {string} text
 * @param {number} from
 */
function lastSentenceEnd(text, from) {
  let end = from;
  for (const match of text.slice(from).matchAll(SENTENCE_END)) {
    end = from + match.index + match[0].length;
  }
  return end;
}
