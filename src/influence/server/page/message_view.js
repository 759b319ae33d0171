// One message: its text, what it cost, and what can be done with it.

import { tokensPerSecond } from "./conversation.js";
import { element, iconButton } from "./dom.js";
import { authorOf } from "./export.js";
import { ReplyBody } from "./reply_body.js";
/** @import { Message } from "./conversation.js" */

/**
 * What a person can do with a message.
 * @typedef {object} MessageActions
 * @property {(message: Message) => void} copy
 * @property {(message: Message) => void} retry
 * @property {(message: Message) => void} goOn
 * @property {(message: Message, text: string) => void} edit
 * @property {(message: Message, step: number) => void} switchBranch
 */

/** @typedef {{ branch: number, branches: number, isLast: boolean, isBusy: boolean }} Surroundings */

const NOTES = /** @type {Record<string, string>} */ ({
  stopped: "Stopped",
  interrupted: "Interrupted when the page was left",
  length: "Cut at the most new tokens or the end of the context",
});

export class MessageView {
  /**
   * @param {Message} message
   * @param {MessageActions} actions
   */
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.body = element("div", { class: "body", dir: "auto" });
    this.footer = element("footer", {});
    const author = element("h2", { class: "author" }, authorOf(message));
    const article = element("article", { "aria-label": `${authorOf(message)} wrote` }, author, this.body, this.footer);
    this.element = element("li", { class: `message ${message.role}`, "data-id": message.id }, article);
    this.reply = message.role === "assistant" && !message.isContinuation ? new ReplyBody(this.body) : null;
    this.shownFooter = "";
    /** @type {{ text: string | null, growing: boolean }} what the body was drawn from */
    this.drawn = { text: null, growing: false };
  }

  /**
   * Show the message as it is now.
   * @param {Message} message
   * @param {Surroundings} around
   */
  update(message, around) {
    this.message = message;
    const isRunning = message.status === "running";
    this.element.classList.toggle("running", isRunning);
    this.element.classList.toggle("waiting", isRunning && message.text === "");
    this.body.setAttribute("aria-busy", String(isRunning));
    if (!this.element.classList.contains("editing")) {
      this.#showText(message.text, isRunning);
    }
    this.#showFooter(around);
  }

  /** Let the person change the text in its place. */
  startEditing() {
    const area = element("textarea", { "aria-label": "Edit your message", dir: "auto", rows: Math.min(12, this.message.text.split("\n").length + 1) });
    area.value = this.message.text;
    const cancel = element("button", { type: "button", class: "text-button", onclick: () => this.#stopEditing() }, "Cancel");
    const send = element("button", { type: "submit", class: "primary-button" }, "Send");
    const form = element("form", { class: "edit", onsubmit: submit, onkeydown }, area, element("div", { class: "row" }, cancel, send));
    const view = this;
    this.element.classList.add("editing");
    this.body.replaceChildren(form);
    area.focus();

    /** @param {Event} event */
    function submit(event) {
      event.preventDefault();
      const text = area.value;
      view.#stopEditing();
      if (text.trim()) {
        view.actions.edit(view.message, text);
      }
    }

    /** @param {KeyboardEvent} event */
    function onkeydown(event) {
      if (event.key === "Escape") {
        event.stopPropagation();
        view.#stopEditing();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        submit(event);
      }
    }
  }

  #stopEditing() {
    this.element.classList.remove("editing");
    this.drawn.text = null;
    this.#showText(this.message.text, false);
    /** @type {HTMLElement | null} */ (this.element.querySelector("footer button"))?.focus();
  }

  /**
   * Every message is asked at each frame of a reply; only the one that grows has work to do.
   * @param {string} text
   * @param {boolean} growing
   */
  #showText(text, growing) {
    if (text === this.drawn.text && growing === this.drawn.growing) {
      return;
    }
    this.drawn = { text, growing };
    if (this.reply) {
      this.reply.update(text, growing);
    } else {
      this.body.textContent = text;
    }
  }

  /**
   * Rebuilt only when something in it is new, so that focus and clicks are not lost while a reply streams.
   * @param {Surroundings} around
   */
  #showFooter(around) {
    const { status, usage, problem, finishReason } = this.message;
    const shown = JSON.stringify([status, usage, problem, finishReason, around]);
    if (shown === this.shownFooter) {
      return;
    }
    this.shownFooter = shown;
    const focused = document.activeElement?.closest("footer") === this.footer ? document.activeElement?.getAttribute("aria-label") : null;
    const parts = [this.#problemBox(around), this.#branches(around), this.#buttons(around), this.#facts()];
    this.footer.replaceChildren(...parts.filter((part) => part !== null));
    if (focused) {
      /** @type {HTMLElement | null} */ (this.footer.querySelector(`[aria-label="${focused}"]`))?.focus();
    }
  }

  /** @param {Surroundings} around */
  #problemBox(around) {
    const { problem, status } = this.message;
    if (!problem || status !== "failed") {
      return null;
    }
    const retry = element("button", { type: "button", class: "text-button", onclick: () => this.actions.retry(this.message) }, "Try again");
    const words = [element("strong", {}, problem.title), element("span", {}, problem.detail)];
    return element("div", { class: "problem", role: "alert" }, element("p", {}, ...words), !around.isBusy && retry);
  }

  /** @param {Surroundings} around */
  #branches({ branch, branches, isBusy }) {
    if (branches < 2) {
      return null;
    }
    const back = iconButton("Previous version", "left", () => this.actions.switchBranch(this.message, -1), { disabled: isBusy || branch === 0 });
    const on = iconButton("Next version", "right", () => this.actions.switchBranch(this.message, 1), { disabled: isBusy || branch === branches - 1 });
    return element("span", { class: "branches" }, back, element("span", {}, `${branch + 1} / ${branches}`), on);
  }

  /** @param {Surroundings} around */
  #buttons({ isBusy, isLast }) {
    const { message, actions } = this;
    if (message.status === "running") {
      return null;
    }
    const buttons = [];
    if (message.text !== "") {
      buttons.push(iconButton("Copy message", "copy", () => actions.copy(message)));
    }
    if (message.role === "user" && !isBusy) {
      buttons.push(iconButton("Edit message", "pencil", () => this.startEditing()));
    }
    if (message.role === "assistant" && message.status !== "failed" && !isBusy) {
      buttons.push(iconButton("Try again", "retry", () => actions.retry(message)));
    }
    if (message.isContinuation && isLast && !isBusy) {
      buttons.push(iconButton("Go on writing", "right", () => actions.goOn(message)));
    }
    return element("span", { class: "actions" }, ...buttons);
  }

  #facts() {
    const { status, finishReason, usage, timing } = this.message;
    const note = NOTES[status] ?? (status === "done" && finishReason ? NOTES[finishReason] : undefined);
    const speed = tokensPerSecond(this.message);
    const facts = [
      note,
      usage && plural(usage.completionTokens, "token"),
      speed !== null && `${speed.toLocaleString("en", { maximumFractionDigits: speed < 100 ? 1 : 0 })} tokens/s`,
      usage && timing && `first after ${(timing.firstTokenMs / 1000).toFixed(timing.firstTokenMs < 10_000 ? 2 : 0)} s`,
    ].filter(Boolean);
    return facts.length > 0 ? element("span", { class: "facts" }, facts.join(" · ")) : null;
  }
}

/**
 * @param {number} count
 * @param {string} word
 */
export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}
