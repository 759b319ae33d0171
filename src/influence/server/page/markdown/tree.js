// What the Markdown parser makes: plain data, which render.js alone turns into DOM nodes.

/**
 * An element. Tags and attribute names come from the parser's own words, never from the text.
 * @typedef {{ tag: string, attributes: Record<string, string>, children: Tree[] }} ElementTree
 */

/** @typedef {string | ElementTree} Tree */

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {Tree[]} children
 * @returns {ElementTree}
 */
export function node(tag, attributes, children) {
  return { tag, attributes, children };
}

/**
 * A link that opens beside the page and tells the other side nothing.
 * @param {string} href as `safeUrl` gave it
 * @param {Tree[]} children
 */
export function link(href, children) {
  const attributes = { href, rel: "noopener noreferrer nofollow", target: "_blank", title: href };
  return node("a", attributes, children);
}

/**
 * The address if it is a whole http(s) one, else null: `javascript:`, `data:`, and paths
 * into this very server are no links.
 * @param {string} text
 * @returns {string | null}
 */
export function safeUrl(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/**
 * Append text, joined to a text just before it.
 * @param {Tree[]} children
 * @param {string} text
 */
export function pushText(children, text) {
  const last = children.length - 1;
  if (typeof children[last] === "string") {
    children[last] += text;
  } else if (text) {
    children.push(text);
  }
}
