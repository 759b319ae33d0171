// The server's endpoints that the page uses, and their errors in words for people.

import { eventsOf } from "./sse.js";
import { loadApiKey } from "./store.js";
/** @import { Problem, Usage } from "./conversation.js" */

/** @typedef {{ name: string, context: number | null, hasTemplate: boolean }} Model */
/** @typedef {{ text?: string, finishReason?: string, usage?: Usage }} Piece */

/** A request that failed, told to a person. */
export class ApiProblem extends Error {
  /**
   * @param {string} title
   * @param {string} detail
   * @param {{ status?: number, code?: string, cause?: unknown }} [facts]
   */
  constructor(title, detail, { status = 0, code = "", cause } = {}) {
    super(detail, { cause });
    this.title = title;
    this.status = status;
    this.code = code;
  }

  /** @returns {Problem} */
  get problem() {
    return { title: this.title, detail: this.message };
  }
}

/** @returns {Promise<Model>} the model that the server runs */
export async function fetchModel() {
  const [list, tokenizer] = await Promise.all([getJson("/v1/models"), getJson("/tokenizer_info")]);
  const model = list.data[0];
  return { name: model.id, context: contextOf(model), hasTemplate: tokenizer.chat_template !== null };
}

/**
 * The context in tokens, under the names that servers give it.
 * @param {any} model
 * @returns {number | null}
 */
function contextOf(model) {
  return model.context_length ?? model.max_model_len ?? model.meta?.n_ctx ?? null;
}

/**
 * A chat's next message as it is written.
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export function streamChat(body, signal) {
  return stream("/v1/chat/completions", body, signal, (choice) => choice.delta?.content);
}

/**
 * A text's continuation as it is written.
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export function streamCompletion(body, signal) {
  return stream("/v1/completions", body, signal, (choice) => choice.text);
}

/**
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} signal
 * @param {(choice: any) => string | undefined} textOf
 * @returns {AsyncGenerator<Piece>}
 */
async function* stream(path, body, signal, textOf) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request(path, { method: "POST", body: JSON.stringify(asked), signal });
  let isWhole = false;
  try {
    for await (const data of eventsOf(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
      if (data === "[DONE]") {
        return;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) {
        throw new ApiProblem("The reply broke off", sentence(chunk.error.message), { code: chunk.error.code });
      }
      const choice = chunk.choices?.[0];
      const piece = { text: choice ? textOf(choice) : undefined, finishReason: choice?.finish_reason, usage: usageOf(chunk.usage) };
      isWhole ||= Boolean(piece.finishReason);
      yield piece;
    }
  } catch (error) {
    throw isExpected(error) ? error : brokenOff(error);
  }
  if (!isWhole) {
    throw brokenOff();
  }
}

/** @param {any} usage */
function usageOf(usage) {
  return usage ? { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens } : undefined;
}

/** @param {unknown} [cause] */
function brokenOff(cause) {
  return new ApiProblem("The reply broke off", "The connection ended before the reply did. What arrived is kept.", { cause });
}

/** @param {unknown} error */
function isExpected(error) {
  return error instanceof ApiProblem || isAbort(error);
}

/** @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** @param {string} path */
async function getJson(path) {
  const response = await request(path, {});
  return response.json();
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>} one that is no error
 */
async function request(path, options) {
  const key = loadApiKey();
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw isAbort(error) ? error : unreachable(error);
  }
  if (!response.ok) {
    throw await refused(response);
  }
  return response;
}

/** @param {unknown} cause */
function unreachable(cause) {
  return new ApiProblem("The server can't be reached", "It may have stopped, or be starting. Check that it runs, then try again.", { cause });
}

/** @param {Response} response */
async function refused(response) {
  const body = await response.json().catch(() => ({}));
  const error = body?.error ?? {};
  const detail = sentence(typeof error === "string" ? error : (error.message ?? `The server answered ${response.status}.`));
  return new ApiProblem(titleOf(response.status, error.code), detail, { status: response.status, code: error.code });
}

/**
 * @param {number} status
 * @param {string | undefined} code
 */
function titleOf(status, code) {
  if (code === "context_length_exceeded") {
    return "The conversation is longer than the model's context";
  }
  if (status === 401) {
    return "The server asks for an API key";
  }
  if (status === 503 || status === 429) {
    return "The server is busy";
  }
  return status >= 500 ? "The server failed" : "The server refused the request";
}

/** @param {string} message */
function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
