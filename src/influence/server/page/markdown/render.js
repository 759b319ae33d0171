// Markdown into the document: nodes are made one by one, and no text is ever read as markup.
//
// What is there already and still right is left alone, so that a reply that streams in does
// not flicker, and a selection or a scrolled code block in it survives.

import { parseMarkdown } from "./blocks.js";
/** @import { ElementTree, Tree } from "./tree.js" */

/** Keeps an element's content equal to a Markdown text that may grow. */
export class MarkdownView {
  /** @param {HTMLElement} container */
  constructor(container) {
    this.container = container;
    /** @type {string[]} what each child was built from */
    this.sources = [];
  }

  /**
   * @param {string} text
   * @param {boolean} growing whether more may come at its end
   */
  update(text, growing) {
    const blocks = parseMarkdown(text);
    blocks.forEach((block, index) => {
      const isGrowing = growing && index === blocks.length - 1;
      const source = `${isGrowing ? "…" : "."}${block.source}`;
      if (this.sources[index] !== source) {
        place(this.container, index, block.build(isGrowing));
        this.sources[index] = source;
      }
    });
    removeFrom(this.container, blocks.length);
    this.sources.length = blocks.length;
  }
}

/**
 * Make the child at `index` what the tree says.
 * @param {Node} parent
 * @param {number} index
 * @param {Tree} tree
 */
function place(parent, index, tree) {
  const present = parent.childNodes[index];
  if (!present) {
    parent.appendChild(create(tree));
  } else if (!adapt(present, tree)) {
    parent.replaceChild(create(tree), present);
  }
}

/**
 * Change a node into what the tree says, or answer that it can't become that.
 * @param {Node} present
 * @param {Tree} tree
 */
function adapt(present, tree) {
  if (typeof tree === "string") {
    return present instanceof Text && adaptText(present, tree);
  }
  if (!(present instanceof Element) || present.localName !== tree.tag) {
    return false;
  }
  adaptAttributes(present, tree.attributes);
  tree.children.forEach((child, index) => place(present, index, child));
  removeFrom(present, tree.children.length);
  return true;
}

/**
 * Text that only grew is appended to, which keeps a selection inside it.
 * @param {Text} present
 * @param {string} text
 */
function adaptText(present, text) {
  if (text.startsWith(present.data)) {
    present.appendData(text.slice(present.data.length));
  } else {
    present.data = text;
  }
  return true;
}

/**
 * @param {Element} present
 * @param {Record<string, string>} attributes
 */
function adaptAttributes(present, attributes) {
  for (const name of present.getAttributeNames()) {
    if (!(name in attributes)) {
      present.removeAttribute(name);
    }
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (present.getAttribute(name) !== value) {
      present.setAttribute(name, value);
    }
  }
}

/**
 * @param {Tree} tree
 * @returns {Node}
 */
function create(tree) {
  if (typeof tree === "string") {
    return document.createTextNode(tree);
  }
  const element = document.createElement(tree.tag);
  adaptAttributes(element, tree.attributes);
  for (const child of tree.children) {
    element.appendChild(create(child));
  }
  return element;
}

/**
 * @param {Node} parent
 * @param {number} count how many children stay
 */
function removeFrom(parent, count) {
  while (parent.childNodes.length > count) {
    parent.removeChild(/** @type {Node} */ (parent.lastChild));
  }
}
