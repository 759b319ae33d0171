// The messages of the conversation that is shown, and where the reader is in them.

import { siblings } from "./conversation.js";
import { byId } from "./dom.js";
import { MessageView } from "./message_view.js";
/** @import { Conversation, Message } from "./conversation.js" */
/** @import { MessageActions } from "./message_view.js" */

// Closer to the end than this, the reader wants to stay there while text comes.
const END_MARGIN_PX = 80;

export class ThreadView {
  /** @param {MessageActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("thread");
    this.scroller = byId("scroller");
    this.toEnd = byId("to-end");
    /** @type {Map<string, MessageView>} */
    this.views = new Map();
    this.followsEnd = true;
    this.scroller.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    this.toEnd.addEventListener("click", () => this.scrollToEnd());
  }

  /**
   * @param {Conversation} conversation
   * @param {Message[]} messages the branch to show
   * @param {boolean} isBusy
   */
  show(conversation, messages, isBusy) {
    const views = messages.map((message, index) => {
      const view = this.views.get(message.id) ?? new MessageView(message, this.actions);
      const group = siblings(conversation, message);
      const around = { branch: group.indexOf(message), branches: group.length, isLast: index === messages.length - 1, isBusy };
      view.update(message, around);
      return view;
    });
    this.views = new Map(views.map((view) => [view.message.id, view]));
    this.#arrange(views.map((view) => view.element));
    if (this.followsEnd) {
      this.scrollToEnd();
    }
    this.#noticeScroll();
  }

  scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.followsEnd = true;
  }

  /**
   * Keep the focus on the arrow that was pressed, on the version that stands there now.
   * @param {Message} message
   * @param {number} step
   */
  focusBranches(message, step) {
    const arrows = this.views.get(message.id)?.element.querySelectorAll(".branches button") ?? [];
    const [back, on] = /** @type {HTMLButtonElement[]} */ ([...arrows]);
    const wanted = step < 0 ? back : on;
    (wanted?.disabled ? (step < 0 ? on : back) : wanted)?.focus();
  }

  /**
   * Put the elements in place, moving none that stands right already.
   * @param {HTMLElement[]} elements
   */
  #arrange(elements) {
    const kept = new Set(elements);
    for (const child of [...this.list.children]) {
      if (!kept.has(/** @type {HTMLElement} */ (child))) {
        child.remove();
      }
    }
    elements.forEach((wanted, index) => {
      if (this.list.children[index] !== wanted) {
        this.list.insertBefore(wanted, this.list.children[index] ?? null);
      }
    });
  }

  #noticeScroll() {
    const left = this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight;
    this.followsEnd = left < END_MARGIN_PX;
    this.toEnd.hidden = this.followsEnd;
  }
}
