// A short notice at the bottom, with one thing to do about it at most.

import { announce } from "./announcer.js";
import { byId, element } from "./dom.js";

const SHOWN_MS = 8000;
let timer = 0;

/**
 * @param {string} words
 * @param {{ label: string, act: () => void }} [action]
 */
export function toast(words, action) {
  const place = byId("toast");
  const button = action && element("button", { type: "button", class: "text-button", onclick: act }, action.label);
  place.replaceChildren(element("span", {}, words), ...(button ? [button] : []));
  place.hidden = false;
  announce(words);
  clearTimeout(timer);
  timer = window.setTimeout(hide, SHOWN_MS);

  function act() {
    hide();
    action?.act();
  }
}

function hide() {
  byId("toast").hidden = true;
}
