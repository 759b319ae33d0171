// Elements in one call, and nothing that reads text as markup.

/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} AttributeValue */

/**
 * An element with its attributes, listeners (`onclick: function`) and children.
 * `true` sets an attribute without a value; `false`, null and undefined leave it out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, AttributeValue>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      made.addEventListener(name.slice(2), value);
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/**
 * The element that index.html has under this id.
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @returns {Kind}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) {
    throw new Error(`index.html has no element "${id}"`);
  }
  return /** @type {Kind} */ (found);
}

/**
 * A button that shows an icon and says what it does.
 * @param {string} label
 * @param {string} iconName
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, AttributeValue>} [attributes]
 */
export function iconButton(label, iconName, onclick, attributes = {}) {
  const all = { type: "button", class: "icon-button", "aria-label": label, title: label, ...attributes, onclick };
  return element("button", all, icon(iconName));
}

/** Strokes of 24 by 24 drawings. */
const DRAWINGS = /** @type {Record<string, string>} */ ({
  plus: "M12 5v14M5 12h14",
  pencil: "M4 20l1-4L16 5l3 3L8 19l-4 1M14 7l3 3",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  copy: "M9 9h10v11H9zM5 15V4h10",
  retry: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  check: "M5 12l5 5 9-11",
});

/**
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", DRAWINGS[name]);
  svg.append(path);
  return svg;
}

/**
 * Put text on the clipboard; also where the page came over plain http from another machine.
 * @param {string} text
 */
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/**
 * Let the browser save a file.
 * @param {string} name
 * @param {string} mediaType
 * @param {string} text
 */
export function saveFile(name, mediaType, text) {
  const url = URL.createObjectURL(new Blob([text], { type: mediaType }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
