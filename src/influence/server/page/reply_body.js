// The text of a reply: what the model thought first, folded away, and what it said.

import { element } from "./dom.js";
import { MarkdownView } from "./markdown/render.js";

// Models that reason write it between these marks, before anything else.
const THOUGHT = /^\s*<think>([^]*?)(?:<\/think>|$)/;

export class ReplyBody {
  /** @param {HTMLElement} container */
  constructor(container) {
    this.said = element("div", { class: "said" });
    this.thought = element("div", {});
    this.summary = element("summary", {});
    this.details = element("details", { class: "thought", hidden: true }, this.summary, this.thought);
    this.saidView = new MarkdownView(this.said);
    this.thoughtView = new MarkdownView(this.thought);
    container.append(this.details, this.said);
  }

  /**
   * @param {string} text
   * @param {boolean} growing
   */
  update(text, growing) {
    const match = THOUGHT.exec(text);
    const said = match ? text.slice(match[0].length) : text;
    const isThinking = growing && match !== null && said === "";
    this.details.hidden = match === null;
    this.summary.textContent = isThinking ? "Thinking …" : "What it thought";
    this.thoughtView.update(match?.[1] ?? "", isThinking);
    this.saidView.update(said, growing);
  }
}
