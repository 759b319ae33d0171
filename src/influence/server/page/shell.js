// What stands around the chat: sidebar, theme, menu, keys, and copying out of code blocks.

import { byId, copyText } from "./dom.js";

/**
 * @typedef {object} ShellActions
 * @property {() => void} newChat
 * @property {() => void} stop
 * @property {() => void} settings
 * @property {() => void} exportMarkdown
 * @property {() => void} exportJson
 * @property {(text: string) => void} starter
 * @property {() => void} connect
 */

const COPIED_MS = 1500;

/** @param {ShellActions} actions */
export function bindShell(actions) {
  onClick("new-chat", actions.newChat);
  onClick("open-settings", actions.settings);
  onClick("system-chip", actions.settings);
  onClick("export-markdown", () => fromMenu(actions.exportMarkdown));
  onClick("export-json", () => fromMenu(actions.exportJson));
  onClick("reconnect", actions.connect);
  onClick("toggle-theme", toggleTheme);
  onClick("open-sidebar", openSidebar);
  onClick("close-sidebar", closeSidebar);
  onClick("scrim", closeSidebar);
  for (const starter of byId("starters").querySelectorAll("button")) {
    starter.addEventListener("click", () => actions.starter(starter.textContent ?? ""));
  }
  byId("thread").addEventListener("click", (event) => copyCode(/** @type {Element} */ (event.target)));
  document.addEventListener("keydown", (event) => onKey(event, actions));
}

export function openSidebar() {
  showSidebar(true);
  byId("new-chat").focus();
}

export function closeSidebar() {
  if (document.body.classList.contains("sidebar-open")) {
    showSidebar(false);
    byId("open-sidebar").focus();
  }
}

/** @param {boolean} isOpen on a narrow screen, where it covers the chat */
function showSidebar(isOpen) {
  document.body.classList.toggle("sidebar-open", isOpen);
  byId("open-sidebar").setAttribute("aria-expanded", String(isOpen));
  byId("main").inert = isOpen;
}

/**
 * @param {KeyboardEvent} event
 * @param {ShellActions} actions
 */
function onKey(event, actions) {
  if (document.querySelector("dialog[open]")) {
    return;
  }
  const isCommand = event.ctrlKey || event.metaKey;
  if (isCommand && event.key.toLowerCase() === "k") {
    event.preventDefault();
    actions.newChat();
  } else if (isCommand && event.key === ",") {
    event.preventDefault();
    actions.settings();
  } else if (event.key === "Escape" && document.body.classList.contains("sidebar-open")) {
    closeSidebar();
  } else if (event.key === "Escape" && !event.isComposing) {
    actions.stop();
  }
}

function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("influence.theme", theme);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** @param {() => void} act */
function fromMenu(act) {
  byId("export-menu").hidePopover();
  act();
}

/** @param {Element} target */
async function copyCode(target) {
  if (!target.matches(".copy-code")) {
    return;
  }
  await copyText(target.closest("figure")?.querySelector("code")?.textContent ?? "");
  target.textContent = "Copied";
  setTimeout(() => (target.textContent = "Copy"), COPIED_MS);
}

/**
 * @param {string} id
 * @param {() => void} act
 */
function onClick(id, act) {
  byId(id).addEventListener("click", () => act());
}
