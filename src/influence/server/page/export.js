// A conversation as a file: Markdown to read, JSON for programs.

import { shownMessages } from "./conversation.js";
import { chatMessages } from "./turn.js";
/** @import { Conversation, Message } from "./conversation.js" */

/**
 * The branch that is shown.
 * @param {Conversation} conversation
 */
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title}`, `*${new Date(conversation.createdMs).toISOString().slice(0, 10)}*`];
  if (conversation.systemPrompt.trim()) {
    parts.push("## System", conversation.systemPrompt.trim());
  }
  for (const message of shownMessages(conversation)) {
    parts.push(`## ${authorOf(message)}`, message.text.trim());
  }
  return `${parts.join("\n\n")}\n`;
}

/**
 * The branch that is shown as a chat request has it, and the whole conversation as the page keeps it.
 * @param {Conversation} conversation
 */
export function asJson(conversation) {
  const messages = chatMessages(conversation.systemPrompt, shownMessages(conversation));
  return `${JSON.stringify({ format: "influence.conversation", title: conversation.title, messages, conversation }, null, 2)}\n`;
}

/**
 * @param {Conversation} conversation
 * @param {string} extension
 */
export function fileName(conversation, extension) {
  const words = conversation.title.normalize("NFKD").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return `${words.slice(0, 8).join("-") || "conversation"}.${extension}`;
}

/** @param {Message} message */
export function authorOf(message) {
  return message.role === "user" ? "You" : (message.model ?? "Model");
}
