// The list of conversations: open, rename, delete.

import { byId, element, iconButton } from "./dom.js";
/** @import { Conversation } from "./conversation.js" */

/**
 * @typedef {object} SidebarActions
 * @property {(conversation: Conversation) => void} open
 * @property {(conversation: Conversation, title: string) => void} rename
 * @property {(conversation: Conversation) => void} remove
 */

const DAY_MS = 86_400_000;

export class SidebarView {
  /** @param {SidebarActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.place = byId("conversations");
  }

  /**
   * @param {Conversation[]} conversations the newest change first
   * @param {string} currentId
   * @param {(conversation: Conversation) => boolean} isBusy
   */
  show(conversations, currentId, isBusy) {
    const focused = this.place.contains(document.activeElement) ? document.activeElement?.getAttribute("data-key") : null;
    const groups = Map.groupBy(conversations, (conversation) => period(conversation.changedMs));
    const parts = [...groups].flatMap(([name, members], index) => {
      const items = members.map((one) => this.#item(one, one.id === currentId, isBusy(one)));
      const heading = element("h2", { id: `period-${index}` }, name);
      return [heading, element("ul", { "aria-labelledby": `period-${index}` }, ...items)];
    });
    this.place.replaceChildren(...(parts.length > 0 ? parts : [element("p", { class: "hint" }, "Your chats will be listed here.")]));
    if (focused) {
      /** @type {HTMLElement | null} */ (this.place.querySelector(`[data-key="${focused}"]`))?.focus();
    }
  }

  /**
   * @param {Conversation} conversation
   * @param {boolean} isCurrent
   * @param {boolean} isBusy
   */
  #item(conversation, isCurrent, isBusy) {
    const { id, title } = conversation;
    const item = element("li", { class: isCurrent ? "current" : null });
    const open = element(
      "button",
      { type: "button", class: "open", title, "data-key": `open-${id}`, "aria-current": isCurrent && "page", onclick: () => this.actions.open(conversation) },
      isBusy && element("span", { class: "busy-dot", role: "img", "aria-label": "writing" }),
      title,
    );
    const rename = iconButton(`Rename “${title}”`, "pencil", () => this.#edit(item, conversation), { "data-key": `rename-${id}` });
    const remove = iconButton(`Delete “${title}”`, "trash", () => this.actions.remove(conversation), { "data-key": `delete-${id}` });
    item.append(open, rename, remove);
    return item;
  }

  /**
   * @param {HTMLElement} item
   * @param {Conversation} conversation
   */
  #edit(item, conversation) {
    const input = element("input", { type: "text", "aria-label": "Title of the chat", maxlength: 200, onkeydown, onblur: commit });
    input.value = conversation.title;
    item.replaceChildren(input);
    input.select();
    const { actions } = this;
    let isOver = false;

    function commit() {
      end(input.value);
    }

    /** @param {string} title */
    function end(title) {
      if (!isOver) {
        isOver = true;
        actions.rename(conversation, title);
      }
    }

    /** @param {KeyboardEvent} event */
    function onkeydown(event) {
      if (event.key === "Enter" && !event.isComposing) {
        commit();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        end(conversation.title);
      }
    }
  }
}

/** @param {number} changedMs */
function period(changedMs) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (changedMs >= midnight) {
    return "Today";
  }
  if (changedMs >= midnight - DAY_MS) {
    return "Yesterday";
  }
  return changedMs >= midnight - 7 * DAY_MS ? "The last seven days" : "Earlier";
}
