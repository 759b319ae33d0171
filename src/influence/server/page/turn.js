// One reply: the request that asks for it, and its text as it comes.

import { ApiProblem, isAbort, streamChat, streamCompletion } from "./api.js";
import { branchTo } from "./conversation.js";
/** @import { Model, Piece } from "./api.js" */
/** @import { Conversation, Message } from "./conversation.js" */
/** @import { Settings } from "./settings.js" */

/** @typedef {{ model: Model, conversation: Conversation, reply: Message, settings: Settings, signal: AbortSignal }} Turn */

/**
 * Fill the reply of a turn; it ends as done, stopped or failed, and never throws for what the
 * server or the network did.
 * @param {Turn} turn
 * @param {() => void} onText called after each piece
 */
export async function runTurn(turn, onText) {
  const { reply } = turn;
  try {
    await receive(turn, onText);
    reply.status = "done";
  } catch (error) {
    if (isAbort(error)) {
      reply.status = "stopped";
      return;
    }
    reply.status = "failed";
    reply.problem = problemOf(error).problem;
    throw error;
  }
}

/**
 * @param {Turn} turn
 * @param {() => void} onText
 */
async function receive(turn, onText) {
  const { reply } = turn;
  const start = performance.now();
  let first = 0;
  for await (const piece of pieces(turn)) {
    if (piece.text) {
      const now = performance.now();
      first ||= now;
      reply.text += piece.text;
      reply.timing = { firstTokenMs: first - start, generationMs: now - first };
    }
    reply.finishReason = piece.finishReason ?? reply.finishReason;
    reply.usage = piece.usage ?? reply.usage;
    onText();
  }
}

/**
 * @param {Turn} turn
 * @returns {AsyncGenerator<Piece>}
 */
function pieces({ model, conversation, reply, settings, signal }) {
  const before = branchTo(conversation, reply.parent);
  const body = { model: model.name, ...settings };
  if (model.hasTemplate) {
    return streamChat({ ...body, messages: chatMessages(conversation.systemPrompt, before) }, signal);
  }
  return streamCompletion({ ...body, prompt: textSoFar(conversation.systemPrompt, before) }, signal);
}

/**
 * @param {string} systemPrompt
 * @param {Message[]} messages
 */
export function chatMessages(systemPrompt, messages) {
  const system = systemPrompt.trim() ? [{ role: "system", content: systemPrompt }] : [];
  const said = messages.filter((message) => message.text !== "").map(({ role, text }) => ({ role, content: text }));
  return [...system, ...said];
}

/**
 * What a model without a chat template writes on: the texts in a row. Only where a person
 * goes on after the model, a new paragraph begins.
 * @param {string} systemPrompt
 * @param {Message[]} messages
 */
export function textSoFar(systemPrompt, messages) {
  let text = systemPrompt.trim() ? systemPrompt : "";
  messages.forEach((message, index) => {
    const isNewParagraph = message.role === "user" && (index > 0 || text !== "");
    text += (isNewParagraph ? "\n\n" : "") + message.text;
  });
  return text;
}

/** @param {unknown} error */
function problemOf(error) {
  return error instanceof ApiProblem ? error : new ApiProblem("The page failed", String(error), { cause: error });
}
