// What the browser keeps: conversations and settings in localStorage, the API key in this tab alone.

import { isConversation } from "./conversation.js";
/** @import { Conversation } from "./conversation.js" */

const CONVERSATION = "influence.conversation.";
const API_KEY = "influence.api_key";

/** The browser has no room left, or was told to keep nothing. */
export class StorageFull extends Error {}

/**
 * All conversations, the newest change first. What is no conversation of ours is left alone.
 * @returns {Conversation[]}
 */
export function loadConversations() {
  const found = [];
  for (let index = 0; index < localStorage.length; index += 1) {
    const name = localStorage.key(index) ?? "";
    if (name.startsWith(CONVERSATION)) {
      const conversation = parsed(localStorage.getItem(name));
      if (isConversation(conversation)) {
        found.push(woken(conversation));
      }
    }
  }
  return found.sort((a, b) => b.changedMs - a.changedMs);
}

/**
 * A reply that was running when the page went away is not running any more.
 * @param {Conversation} conversation
 */
function woken(conversation) {
  for (const message of conversation.messages) {
    if (message.status === "running") {
      message.status = "interrupted";
    }
  }
  return conversation;
}

/**
 * @param {Conversation} conversation
 * @throws {StorageFull}
 */
export function saveConversation(conversation) {
  save(CONVERSATION + conversation.id, conversation);
}

/** @param {string} id */
export function deleteConversation(id) {
  localStorage.removeItem(CONVERSATION + id);
}

/**
 * Call back when another tab changes the conversations.
 * @param {() => void} onChange
 */
export function watchConversations(onChange) {
  addEventListener("storage", (event) => {
    if (event.key === null || event.key.startsWith(CONVERSATION)) {
      onChange();
    }
  });
}

/**
 * @param {string} name
 * @returns {any} null if nothing is there, or nothing that can be read
 */
export function loadValue(name) {
  return parsed(localStorage.getItem(`influence.${name}`));
}

/**
 * @param {string} name
 * @param {any} value
 * @throws {StorageFull}
 */
export function saveValue(name, value) {
  save(`influence.${name}`, value);
}

/** @returns {string} "" if there is none */
export function loadApiKey() {
  return sessionStorage.getItem(API_KEY) ?? "";
}

/** @param {string} key */
export function saveApiKey(key) {
  sessionStorage.setItem(API_KEY, key);
}

/**
 * @param {string} name
 * @param {any} value
 */
function save(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch (error) {
    throw new StorageFull("the browser's storage is full", { cause: error });
  }
}

/** @param {string | null} text */
function parsed(text) {
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}
