// Asks for the API key of a server that wants one.

import { byId } from "./dom.js";
import { loadApiKey, saveApiKey } from "./store.js";

/**
 * @param {() => void} onGiven called once a key is kept for this tab
 */
export function askForKey(onGiven) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const input = /** @type {HTMLInputElement} */ (byId("api-key"));
  if (dialog.open) {
    return;
  }
  byId("key-refused").hidden = loadApiKey() === "";
  input.value = "";
  dialog.showModal();
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    saveApiKey(input.value.trim());
    input.value = "";
    dialog.close();
    onGiven();
  };
}
