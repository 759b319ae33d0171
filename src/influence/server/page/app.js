// The page: what is shown, what runs, and what a person's actions do to both.

import { announce, ReplyAnnouncer } from "./announcer.js";
import { ApiProblem, fetchModel } from "./api.js";
import { ComposerView } from "./composer_view.js";
import { addMessage, newConversation, rename, shownMessages, showBranchOf, siblings } from "./conversation.js";
import { byId, copyText, saveFile } from "./dom.js";
import { asJson, asMarkdown, fileName } from "./export.js";
import { askForKey } from "./key_dialog.js";
import { plural } from "./message_view.js";
import { loadSettings, saveSettings } from "./settings.js";
import { SettingsView } from "./settings_view.js";
import { bindShell, closeSidebar } from "./shell.js";
import { SidebarView } from "./sidebar_view.js";
import { deleteConversation, loadConversations, loadValue, saveConversation, saveValue, StorageFull, watchConversations } from "./store.js";
import { ThreadView } from "./thread_view.js";
import { toast } from "./toast.js";
import { runTurn } from "./turn.js";
/** @import { Model } from "./api.js" */
/** @import { Conversation, Message } from "./conversation.js" */

// A reply that is coming in is stored so often, so that a crash of the browser loses little.
const SAVE_INTERVAL_MS = 1000;

class App {
  constructor() {
    this.conversations = loadConversations();
    this.current = this.#blank();
    this.settings = loadSettings();
    /** @type {Model | null} */
    this.model = null;
    /** @type {Map<string, AbortController>} conversation id -> the reply that is being written */
    this.runs = new Map();
    /** @type {Map<string, string>} conversation id -> what was typed and not sent */
    this.drafts = new Map();
    this.frame = 0;
    this.isLeaving = false;
    this.thread = new ThreadView(this.#messageActions());
    this.composer = new ComposerView({ send: (text) => this.send(text), stop: () => this.stop(), editLast: () => this.editLast() });
    this.sidebar = new SidebarView(this.#sidebarActions());
    this.settingsView = new SettingsView(this.#settingsActions());
  }

  async start() {
    bindShell({
      newChat: () => this.newChat(),
      stop: () => this.stop(),
      settings: () => this.openSettings(),
      exportMarkdown: () => this.export("md", "text/markdown", asMarkdown),
      exportJson: () => this.export("json", "application/json", asJson),
      starter: (text) => this.send(text),
      connect: () => this.connect(),
    });
    watchConversations(() => this.#otherTabChanged());
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", () => (this.isLeaving = false));
    this.open(this.conversations[0] ?? this.current);
    await this.connect();
  }

  /**
   * Ask the server what it runs; until then nothing can be sent.
   * @returns {Promise<Model | null>}
   */
  async connect() {
    byId("connection").hidden = true;
    try {
      this.model = await fetchModel();
    } catch (error) {
      this.#connectionFailed(error);
    }
    this.refresh();
    return this.model;
  }

  /** @param {Conversation} conversation */
  open(conversation) {
    this.drafts.set(this.current.id, this.composer.text);
    this.current = conversation;
    this.composer.text = this.drafts.get(conversation.id) ?? "";
    this.thread.followsEnd = true;
    this.refresh();
    closeSidebar();
  }

  newChat() {
    this.open(this.#blank());
    this.composer.focus();
  }

  /** @param {string} text */
  send(text) {
    const { current } = this;
    addMessage(current, { parent: current.leaf, role: "user", text, status: "done" });
    if (!this.conversations.includes(current)) {
      this.conversations.unshift(current);
    }
    this.#reply(current, current.leaf);
  }

  stop() {
    this.runs.get(this.current.id)?.abort();
  }

  editLast() {
    const last = shownMessages(this.current).findLast((message) => message.role === "user");
    this.thread.views.get(last?.id ?? "")?.startEditing();
  }

  openSettings() {
    const isDefault = this.current.systemPrompt !== "" && this.current.systemPrompt === loadValue("system_prompt");
    this.settingsView.open(this.settings, this.current.systemPrompt, isDefault);
  }

  /**
   * @param {string} extension
   * @param {string} mediaType
   * @param {(conversation: Conversation) => string} write
   */
  export(extension, mediaType, write) {
    if (this.current.messages.length === 0) {
      toast("There is nothing to export yet.");
      return;
    }
    saveFile(fileName(this.current, extension), mediaType, write(this.current));
  }

  /** Show everything as it is now. */
  refresh() {
    const { current, model } = this;
    const isBusy = this.runs.has(current.id);
    const messages = shownMessages(current);
    this.thread.show(current, messages, isBusy);
    this.composer.show(isBusy, model !== null);
    this.conversations.sort((a, b) => b.changedMs - a.changedMs);
    this.sidebar.show(this.conversations, current.id, (one) => this.runs.has(one.id));
    byId("title").textContent = current.title;
    document.title = messages.length > 0 ? `${current.title} · influence` : "influence";
    byId("welcome").hidden = messages.length > 0;
    byId("system-chip").hidden = !current.systemPrompt.trim();
    this.#showModel(messages);
  }

  /** @param {Message[]} messages */
  #showModel(messages) {
    const { model } = this;
    byId("model-name").textContent = model?.name ?? "…";
    byId("model-context").textContent = model?.context ? `context of ${plural(model.context, "token")}` : "";
    byId("continue-note").hidden = model === null || model.hasTemplate;
    this.composer.area.placeholder = model?.hasTemplate === false ? "Begin a text, or go on with it" : "Write a message";
    byId("starters").hidden = model === null || !model.hasTemplate;
    const usage = messages.findLast((message) => message.usage)?.usage;
    const used = usage ? usage.promptTokens + usage.completionTokens : 0;
    const meter = byId("context-used");
    meter.textContent = used > 0 ? `${used.toLocaleString("en")}${model?.context ? ` of ${model.context.toLocaleString("en")}` : ""} tokens used` : "";
    meter.classList.toggle("nearly-full", Boolean(model?.context) && used > 0.9 * (model?.context ?? 0));
  }

  /**
   * Write a reply that follows a message.
   * @param {Conversation} conversation
   * @param {string | null} parent
   */
  async #reply(conversation, parent) {
    const model = this.model ?? (await this.connect());
    if (!model || this.runs.has(conversation.id)) {
      return;
    }
    const reply = addMessage(conversation, { parent, role: "assistant", text: "", status: "running", model: model.name, isContinuation: !model.hasTemplate });
    const run = new AbortController();
    this.runs.set(conversation.id, run);
    this.thread.followsEnd = true;
    this.refresh();
    this.#save(conversation);
    const progress = this.#progress(conversation, reply);
    try {
      await runTurn({ model, conversation, reply, settings: { ...this.settings }, signal: run.signal }, progress);
    } catch (error) {
      this.#replyFailed(conversation, error);
    }
    this.runs.delete(conversation.id);
    conversation.changedMs = Date.now();
    this.#save(conversation);
    this.refresh();
    this.#announceEnd(conversation, reply);
  }

  /**
   * What happens at each piece: drawn once a frame, spoken by the sentence, stored by the second.
   * @param {Conversation} conversation
   * @param {Message} reply
   */
  #progress(conversation, reply) {
    const announcer = new ReplyAnnouncer();
    let savedMs = performance.now();
    return () => {
      if (performance.now() - savedMs > SAVE_INTERVAL_MS) {
        savedMs = performance.now();
        this.#save(conversation);
      }
      if (conversation === this.current) {
        announcer.update(reply.text, Boolean(reply.finishReason));
        this.frame ||= requestAnimationFrame(() => this.#draw());
      }
    };
  }

  #draw() {
    this.frame = 0;
    this.thread.show(this.current, shownMessages(this.current), this.runs.has(this.current.id));
  }

  /**
   * @param {Conversation} conversation
   * @param {unknown} error
   */
  #replyFailed(conversation, error) {
    if (error instanceof ApiProblem && error.status === 401) {
      askForKey(() => this.#retryLast(conversation));
    } else if (error instanceof ApiProblem && error.status === 404) {
      this.connect(); // the server runs another model by now
    } else if (!(error instanceof ApiProblem)) {
      console.error(error);
    }
  }

  /** @param {Conversation} conversation */
  #retryLast(conversation) {
    const last = shownMessages(conversation).at(-1);
    if (last?.status === "failed") {
      this.#retry(conversation, last);
    }
  }

  /**
   * Write a reply anew; one that failed without a word is replaced, any other kept beside it.
   * @param {Conversation} conversation
   * @param {Message} message
   */
  #retry(conversation, message) {
    if (message.status === "failed" && message.text === "") {
      conversation.messages = conversation.messages.filter((other) => other !== message);
    }
    this.#reply(conversation, message.parent);
    this.composer.focus();
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} reply
   */
  #announceEnd(conversation, reply) {
    if (conversation !== this.current && this.conversations.includes(conversation)) {
      toast(`A reply in “${conversation.title}” is there.`, { label: "Open", act: () => this.open(conversation) });
    } else if (reply.status === "stopped") {
      announce("Stopped.");
    }
  }

  /** @param {unknown} error */
  #connectionFailed(error) {
    if (!(error instanceof ApiProblem)) {
      throw error;
    }
    if (error.status === 401) {
      askForKey(() => this.connect());
    }
    byId("connection-words").textContent = `${error.title}. ${error.message}`;
    byId("connection").hidden = false;
  }

  /** @returns {import("./message_view.js").MessageActions} */
  #messageActions() {
    return {
      copy: (message) => this.#copy(message.text, "Message copied."),
      retry: (message) => this.#retry(this.current, message),
      goOn: (message) => void this.#reply(this.current, message.id),
      edit: (message, text) => {
        const edited = addMessage(this.current, { parent: message.parent, role: "user", text, status: "done" });
        this.#reply(this.current, edited.id);
        this.composer.focus();
      },
      switchBranch: (message, step) => {
        const group = siblings(this.current, message);
        const other = group[group.indexOf(message) + step];
        showBranchOf(this.current, other);
        this.#save(this.current);
        this.thread.followsEnd = false;
        this.refresh();
        this.thread.focusBranches(other, step);
      },
    };
  }

  /** @returns {import("./sidebar_view.js").SidebarActions} */
  #sidebarActions() {
    return {
      open: (conversation) => this.open(conversation),
      rename: (conversation, title) => {
        rename(conversation, title);
        this.#save(conversation);
        this.refresh();
      },
      remove: (conversation) => this.#remove(conversation),
    };
  }

  /** @returns {import("./settings_view.js").SettingsActions} */
  #settingsActions() {
    return {
      change: (settings) => {
        this.settings = settings;
        saveSettings(settings);
      },
      changeSystemPrompt: (systemPrompt, isDefault) => {
        this.current.systemPrompt = systemPrompt;
        saveValue("system_prompt", isDefault ? systemPrompt : "");
        this.#save(this.current);
        this.refresh();
      },
    };
  }

  /** @param {Conversation} conversation */
  #remove(conversation) {
    this.runs.get(conversation.id)?.abort();
    this.conversations = this.conversations.filter((other) => other !== conversation);
    deleteConversation(conversation.id);
    if (conversation === this.current) {
      this.open(this.conversations[0] ?? this.#blank());
    }
    this.refresh();
    const undo = () => {
      this.conversations.push(conversation);
      this.#save(conversation);
      this.open(conversation);
    };
    toast(`Deleted “${conversation.title}”.`, { label: "Undo", act: undo });
  }

  /**
   * @param {string} text
   * @param {string} notice
   */
  async #copy(text, notice) {
    await copyText(text);
    toast(notice);
  }

  #otherTabChanged() {
    if (this.runs.size === 0) {
      const stored = loadConversations();
      this.current = stored.find((one) => one.id === this.current.id) ?? this.current;
      this.conversations = stored;
      this.refresh();
    }
  }

  #blank() {
    return newConversation(loadValue("system_prompt") ?? "");
  }

  /** Keep what is there; that the connections break now is no failure of theirs. */
  #leave() {
    for (const conversation of this.conversations.filter((one) => this.runs.has(one.id))) {
      this.#save(conversation);
    }
    this.isLeaving = true;
  }

  /** @param {Conversation} conversation */
  #save(conversation) {
    if (this.isLeaving || !this.conversations.includes(conversation)) {
      return; // nothing was said in it yet, or it was deleted
    }
    try {
      saveConversation(conversation);
    } catch (error) {
      if (!(error instanceof StorageFull)) {
        throw error;
      }
      toast("The browser’s storage is full: this chat is not kept. Export it, or delete others.");
    }
  }
}

await new App().start();
