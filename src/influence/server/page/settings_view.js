// The sheet with the system prompt and the sampling settings.

import { byId, element } from "./dom.js";
import { FIELDS, isAllowed } from "./settings.js";
/** @import { Field, Settings } from "./settings.js" */

/**
 * @typedef {object} SettingsActions
 * @property {(settings: Settings) => void} change
 * @property {(systemPrompt: string, isDefault: boolean) => void} changeSystemPrompt
 */

export class SettingsView {
  /** @param {SettingsActions} actions */
  constructor(actions) {
    this.dialog = /** @type {HTMLDialogElement} */ (byId("settings"));
    this.prompt = /** @type {HTMLTextAreaElement} */ (byId("system-prompt"));
    this.isDefault = /** @type {HTMLInputElement} */ (byId("system-prompt-default"));
    this.actions = actions;
    this.inputs = new Map(FIELDS.map((field) => [field, this.#input(field)]));
    byId("sampling-fields").append(...[...this.inputs].map(([field, input]) => fieldRow(field, input)));
    byId("reset-settings").addEventListener("click", () => this.#reset());
    this.prompt.addEventListener("change", () => this.#promptChanged());
    this.isDefault.addEventListener("change", () => this.#promptChanged());
  }

  /**
   * @param {Settings} settings
   * @param {string} systemPrompt
   * @param {boolean} isDefault whether new chats get this system prompt too
   */
  open(settings, systemPrompt, isDefault) {
    for (const [field, input] of this.inputs) {
      input.value = settings[field.name] === undefined ? "" : String(settings[field.name]);
      mark(input, true);
    }
    this.prompt.value = systemPrompt;
    this.isDefault.checked = isDefault;
    this.dialog.showModal();
  }

  /** @param {Field} field */
  #input(field) {
    const { name, min, max, step } = field;
    const attributes = { id: `field-${name}`, type: "number", min, max, step, placeholder: "default", "aria-describedby": `help-${name}` };
    return element("input", { ...attributes, oninput: () => this.#changed() });
  }

  #changed() {
    /** @type {Settings} */
    const settings = {};
    for (const [field, input] of this.inputs) {
      const isEmpty = input.value === "" && !input.validity.badInput;
      const isGood = !isEmpty && isAllowed(field, input.valueAsNumber);
      mark(input, isEmpty || isGood);
      if (isGood) {
        settings[field.name] = input.valueAsNumber;
      }
    }
    this.actions.change(settings);
  }

  #reset() {
    for (const input of this.inputs.values()) {
      input.value = "";
    }
    this.#changed();
  }

  #promptChanged() {
    this.actions.changeSystemPrompt(this.prompt.value, this.isDefault.checked);
  }
}

/**
 * @param {HTMLInputElement} input
 * @param {boolean} isValid
 */
function mark(input, isValid) {
  input.setAttribute("aria-invalid", String(!isValid));
}

/**
 * @param {Field} field
 * @param {HTMLInputElement} input
 */
function fieldRow(field, input) {
  const range = field.max >= 1_000_000 ? `From ${field.min}.` : `${field.min} to ${field.max}.`;
  const help = element("p", { id: `help-${field.name}`, class: "help" }, `${field.help} ${range}`);
  return element("div", { class: "field" }, element("label", { for: input.id }, field.label), input, help);
}
