// Sampling settings: what a person may set, and what of it goes into a request.

import { loadValue, saveValue } from "./store.js";

/**
 * One setting. Empty means that the model's own default holds.
 * @typedef {object} Field
 * @property {string} name as the server calls it
 * @property {string} label
 * @property {string} help
 * @property {number} min
 * @property {number} max
 * @property {number} step
 */

/** @type {Field[]} */
export const FIELDS = [
  { name: "temperature", label: "Temperature", help: "0 always takes the likeliest token; more is more varied.", min: 0, max: 2, step: 0.05 },
  { name: "top_p", label: "Top p", help: "Choose among the likeliest tokens that make up this share.", min: 0.01, max: 1, step: 0.01 },
  { name: "top_k", label: "Top k", help: "Choose among so many of the likeliest tokens.", min: 1, max: 1000, step: 1 },
  { name: "min_p", label: "Min p", help: "Drop tokens less likely than this share of the likeliest.", min: 0, max: 1, step: 0.01 },
  { name: "repetition_penalty", label: "Repetition penalty", help: "Above 1 makes tokens that came before less likely.", min: 0.5, max: 2, step: 0.05 },
  { name: "max_tokens", label: "Most new tokens", help: "Where a reply is cut at the latest.", min: 1, max: 1_000_000, step: 1 },
  { name: "seed", label: "Seed", help: "The same seed and text give the same reply.", min: 0, max: 2 ** 53 - 1, step: 1 },
];

/** @typedef {Record<string, number>} Settings only those that were set */

/** @returns {Settings} */
export function loadSettings() {
  const stored = loadValue("settings") ?? {};
  return Object.fromEntries(FIELDS.filter((field) => isAllowed(field, stored[field.name])).map(({ name }) => [name, stored[name]]));
}

/** @param {Settings} settings */
export function saveSettings(settings) {
  saveValue("settings", settings);
}

/**
 * @param {Field} field
 * @param {unknown} value
 * @returns {value is number}
 */
export function isAllowed(field, value) {
  const isNumber = typeof value === "number" && value >= field.min && value <= field.max;
  return isNumber && (field.step !== 1 || Number.isInteger(value));
}
