// Where a person writes.

import { byId } from "./dom.js";

const MAX_HEIGHT_PX = 240;

/**
 * @typedef {object} ComposerActions
 * @property {(text: string) => void} send
 * @property {() => void} stop
 * @property {() => void} editLast
 */

export class ComposerView {
  /** @param {ComposerActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.area = /** @type {HTMLTextAreaElement} */ (byId("message"));
    this.sendButton = /** @type {HTMLButtonElement} */ (byId("send"));
    this.stopButton = /** @type {HTMLButtonElement} */ (byId("stop"));
    this.isBusy = false;
    this.isReady = false;
    byId("composer").addEventListener("submit", (event) => this.#submit(event));
    this.stopButton.addEventListener("click", () => actions.stop());
    this.area.addEventListener("input", () => this.#refresh());
    this.area.addEventListener("keydown", (event) => this.#key(event));
  }

  get text() {
    return this.area.value;
  }

  set text(text) {
    this.area.value = text;
    this.#refresh();
  }

  focus() {
    this.area.focus();
  }

  /**
   * @param {boolean} isBusy whether a reply is being written
   * @param {boolean} isReady whether there is a model to write to
   */
  show(isBusy, isReady) {
    const hadFocus = document.activeElement === this.stopButton || document.activeElement === this.sendButton;
    this.isBusy = isBusy;
    this.isReady = isReady;
    this.sendButton.hidden = isBusy;
    this.stopButton.hidden = !isBusy;
    this.#refresh();
    if (hadFocus) {
      this.focus(); // the button that had it is gone
    }
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const text = this.area.value;
    if (text.trim() && !this.isBusy && this.isReady) {
      this.text = "";
      this.actions.send(text);
    }
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.isComposing) {
      return; // Enter chooses a character of an input method
    }
    if (event.key === "Enter" && !event.shiftKey) {
      this.#submit(event);
    } else if (event.key === "ArrowUp" && this.area.value === "" && !this.isBusy) {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  #refresh() {
    this.sendButton.disabled = !this.isReady || this.area.value.trim() === "";
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, MAX_HEIGHT_PX)}px`;
  }
}
