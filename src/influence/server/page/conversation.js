// A conversation is a tree of messages: an edit or a retry is a branch beside the old one.
//
// Plain data, so that it can be stored as it is; everything that reads or changes it is here.

/** @typedef {"user" | "assistant"} Role */
/** @typedef {"running" | "done" | "stopped" | "interrupted" | "failed"} Status */
/** @typedef {{ promptTokens: number, completionTokens: number }} Usage */
/** @typedef {{ firstTokenMs: number, generationMs: number }} Timing */
/** @typedef {{ title: string, detail: string }} Problem */

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string | null} parent the message before it
 * @property {Role} role
 * @property {string} text
 * @property {number} createdMs
 * @property {Status} status
 * @property {string} [finishReason] "stop" or "length", as the server said
 * @property {string} [model] who wrote it
 * @property {boolean} [isContinuation] written on from the text before, by a model without a chat template
 * @property {Usage} [usage]
 * @property {Timing} [timing]
 * @property {Problem} [problem]
 */

/**
 * @typedef {object} Conversation
 * @property {1} version
 * @property {string} id
 * @property {string} title
 * @property {boolean} isTitled whether a person gave the title
 * @property {string} systemPrompt
 * @property {number} createdMs
 * @property {number} changedMs
 * @property {Message[]} messages in the order in which they came
 * @property {string | null} leaf the last message of the branch that is shown
 */

export const UNTITLED = "New chat";
const TITLE_LENGTH = 60;

/**
 * @param {string} systemPrompt
 * @returns {Conversation}
 */
export function newConversation(systemPrompt) {
  const now = Date.now();
  return { version: 1, id: newId(), title: UNTITLED, isTitled: false, systemPrompt, createdMs: now, changedMs: now, messages: [], leaf: null };
}

/**
 * The branch that is shown, from the first message to the last.
 * @param {Conversation} conversation
 * @returns {Message[]}
 */
export function shownMessages(conversation) {
  return branchTo(conversation, conversation.leaf);
}

/**
 * A message and all before it.
 * @param {Conversation} conversation
 * @param {string | null} leaf
 * @returns {Message[]}
 */
export function branchTo(conversation, leaf) {
  const byId = new Map(conversation.messages.map((message) => [message.id, message]));
  const branch = [];
  for (let message = byId.get(leaf ?? ""); message; message = byId.get(message.parent ?? "")) {
    branch.push(message);
    byId.delete(message.id); // a file made by hand may go in circles
  }
  return branch.reverse();
}

/**
 * A message's alternatives: those that follow the same one, itself among them.
 * @param {Conversation} conversation
 * @param {Message} message
 */
export function siblings(conversation, message) {
  return conversation.messages.filter((other) => other.parent === message.parent && other.role === message.role);
}

/**
 * Add a message and show its branch.
 * @param {Conversation} conversation
 * @param {{ parent: string | null, role: Role, text: string, status: Status, model?: string, isContinuation?: boolean }} facts
 * @returns {Message}
 */
export function addMessage(conversation, facts) {
  const message = { id: newId(), createdMs: Date.now(), ...facts };
  conversation.messages.push(message);
  conversation.leaf = message.id;
  conversation.changedMs = message.createdMs;
  if (facts.role === "user" && !conversation.isTitled && conversation.messages.length === 1) {
    conversation.title = titleOf(facts.text);
  }
  return message;
}

/**
 * Show the branch of a message, down to its newest end.
 * @param {Conversation} conversation
 * @param {Message} message
 */
export function showBranchOf(conversation, message) {
  let leaf = message;
  for (const other of conversation.messages) {
    if (other.parent === leaf.id) {
      leaf = newestChild(conversation, leaf);
    }
  }
  conversation.leaf = leaf.id;
}

/**
 * @param {Conversation} conversation
 * @param {Message} message that has a child
 */
function newestChild(conversation, message) {
  return conversation.messages.findLast((other) => other.parent === message.id) ?? message;
}

/**
 * @param {Conversation} conversation
 * @param {string} title
 */
export function rename(conversation, title) {
  const trimmed = title.trim();
  if (trimmed) {
    conversation.title = trimmed.slice(0, 200);
    conversation.isTitled = true;
  }
}

/**
 * Tokens per second after the first; null where there is nothing to measure.
 * @param {Message} message
 */
export function tokensPerSecond(message) {
  const tokens = (message.usage?.completionTokens ?? 0) - 1;
  const milliseconds = message.timing?.generationMs ?? 0;
  return tokens > 0 && milliseconds > 0 ? (1000 * tokens) / milliseconds : null;
}

/**
 * Whether a value that came out of the browser's storage is a conversation.
 * @param {any} value
 * @returns {value is Conversation}
 */
export function isConversation(value) {
  return (
    value?.version === 1 &&
    typeof value.id === "string" &&
    typeof value.title === "string" &&
    typeof value.systemPrompt === "string" &&
    typeof value.changedMs === "number" &&
    Array.isArray(value.messages) &&
    value.messages.every((/** @type {any} */ one) => typeof one?.id === "string" && typeof one.text === "string")
  );
}

/** @param {string} text */
function titleOf(text) {
  const line = text.trim().split("\n")[0];
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1).trimEnd()}…` : line || UNTITLED;
}

function newId() {
  // crypto.randomUUID is missing where the page came over plain http from another machine.
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");
}
