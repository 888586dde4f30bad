// One conversation as it goes on: what is sent and what comes, from here and from other windows.

import { AnswerView } from "./answer_view.js";
import { curlLine } from "./developer_panel.js";
import { explain } from "./explain.js";
import { LiveReply } from "./live_reply.js";
import { QuestionView } from "./question_view.js";
import { taken } from "./taken.js";
import { announce } from "./toast.js";
import { Transcript } from "./transcript.js";

const TERMINAL = new Set(["completed", "failed", "cancelled", "interrupted", "timed_out"]);
const NEWEST = 20;

export class Chat extends EventTarget {
  #client;
  #transcript;
  #composer;
  #panel;
  #left = new AbortController(); // aborted when another conversation is shown
  #live = new Set();
  #starting = 0;
  #unknown = 0; // questions whose ids are not known yet
  #known = null; // resolves when that of the last one is
  #isOpening = false;
  #replaced = new Set(); // ids of what other messages came in the place of: what was read before that names them still
  #heard = []; // what came while the page did not know yet what of it is its own
  #unsent = null; // sent again as it is, under the same key, it starts nothing twice

  constructor({ client, transcript, composer, panel }) {
    super();
    this.#client = client;
    this.#transcript = transcript;
    this.#composer = composer;
    this.#panel = panel;
    this.conversation = null;
  }

  // ---- which conversation ----

  async open(conversation) {
    this.#left.abort();
    this.#left = new AbortController();
    for (const { reply } of this.#live) reply.close();
    this.#live.clear();
    this.#heard = [];
    this.#replaced.clear();
    this.#starting = this.#unknown = 0;
    this.#isOpening = false;
    this.conversation = conversation;
    this.#transcript.clear();
    this.#show();
    if (conversation === null) return;
    const { signal } = this.#left;
    this.#isOpening = true;
    try {
      const read = Transcript.reader(this.#client, conversation, signal);
      await this.#transcript.open(read, (message) => {
        const view = this.#view(message);
        if (view && !isThere(message)) this.#follow(view);
        return view;
      });
    } finally {
      if (!signal.aborted) {
        this.#isOpening = false;
        this.#hearAll();
      }
    }
  }

  /** What happened while we were not told. */
  async catchUp() {
    const [conversation, { signal }] = [this.conversation, this.#left];
    if (conversation === null) return;
    const { messages } = await this.#client.messages(conversation, { limit: NEWEST, order: "desc", signal });
    for (const message of messages.reverse()) this.hear(message);
    const isShown = (message) => this.#isKnown(message) || !["user", "assistant"].includes(message.role);
    if (!this.#heard.length && this.conversation === conversation && !messages.every(isShown)) await this.open(conversation);
  }

  #isKnown = ({ id }) => this.#transcript.find(id) || this.#replaced.has(id);

  /** A message was stored, here or elsewhere. */
  hear(message) {
    if (message.conversation_id !== this.conversation) return;
    if (!this.#isSure) return void this.#heard.push(message);
    if (this.#isKnown(message)) return;
    if (message.metadata?.replaces) return void this.open(this.conversation).catch((error) => this.#fail(error));
    const view = this.#view(message);
    if (!view) return;
    this.#transcript.insert(view);
    if (view.item.isConnected && !isThere(message)) this.#follow(view);
  }

  get #isSure() {
    return !this.#starting && !this.#unknown && !this.#isOpening;
  }

  #hearAll() {
    if (this.#isSure) for (const message of this.#heard.splice(0)) this.hear(message);
  }

  #view(message) {
    if (message.role === "user") {
      const view = new QuestionView(message.content, message.metadata?.parts ?? [], this.#actions);
      return Object.assign(view, { id: message.id, createdAt: message.created_at });
    }
    if (message.role !== "assistant") return null;
    const view = Object.assign(new AnswerView(this.#actions), { id: message.id, createdAt: message.created_at });
    if (isThere(message)) view.settle(message);
    return view;
  }

  /** From its beginning: its log has what lies between the text as well. */
  #follow(view) {
    view.take({ type: "reset" });
    const reply = this.#client.follow(view.id, { delivery: this.#composer.choices.delivery });
    this.#panel.watch(reply, curlLine(`/messages/${view.id}/stream?after=0&progress=true&parts=true`));
    void this.#run(reply, view);
  }

  // ---- what is sent ----

  /** Say something. Return whether it was taken. */
  async send(text, images) {
    const [question, answer] = [new QuestionView(text, images, this.#actions), new AnswerView(this.#actions)];
    return this.#start({ input: inputOf(text, images) }, answer, question);
  }

  #actions = {
    retry: (answer) => this.#instead(answer, { replaces: answer.id }),
    edit: (question, text) => {
      const again = new QuestionView(text, question.images, this.#actions);
      this.#instead(question, { input: inputOf(text, question.images), replaces: question.id }, again);
    },
    decide: (answer, approvals) => this.#start({ approvals }, new AnswerView(this.#actions)),
    goOn: () => this.#start({ continue: true }, new AnswerView(this.#actions)),
    reconnect: (answer) => this.#follow(answer),
  };

  /** Something comes in the place of a message and all that came after it. */
  async #instead(view, body, question = null) {
    await this.#known;
    if (!view.id || this.#starting || !view.item.isConnected) return;
    for (const { reply } of this.#live) reply.close();
    for (const { id } of this.#transcript.removeFrom(view)) this.#replaced.add(id);
    if (!(await this.#start(body, new AnswerView(this.#actions), question)) && this.conversation) {
      const { signal } = this.#left;
      await this.open(this.conversation).catch(() => {}); // as it is stored
      if (!signal.aborted) this.#fail(null);
    }
  }

  /** Start a reply. Return whether it was taken; if not, it is off the page again and the reason was told. */
  async #start(asked, answer, question = null) {
    const { signal } = this.#left;
    const body = { ...asked, ...this.#composer.choices.asked };
    const told = JSON.stringify(asked);
    if (this.#unsent?.told !== told || this.#unsent.conversation !== this.conversation) {
      this.#unsent = { told, conversation: this.conversation, key: crypto.randomUUID() };
    }
    this.#fail(null);
    this.#starting += 1;
    this.#show();
    // What is heard of it over the channel is for the panel alone.
    const reply = this.#client.start(this.conversation, body, { key: this.#unsent.key, toOthers: !this.#panel.isOpen });
    this.#panel.watch(reply, curlLine(`/conversations/${this.conversation}/stream`, body));
    if (question) this.#transcript.add(question);
    this.#transcript.add(answer);
    this.#transcript.toEnd();
    const run = this.#run(reply, answer);
    const problem = await taken(reply);
    if (signal.aborted) return true;
    this.#starting -= 1;
    if (problem) {
      this.#transcript.remove(answer);
      if (question) this.#transcript.remove(question);
      this.#fail(problem);
    } else {
      this.#unsent = null;
      if (question) this.#known = this.#identify(question, reply.messageId, signal);
    }
    this.#hearAll();
    this.#show();
    void run;
    return !problem;
  }

  /** The answer to a start names the reply; the message before it is the question. */
  async #identify(question, replyId, signal) {
    this.#unknown += 1;
    try {
      const asked = { limit: 4, order: "desc", before: replyId, signal };
      const { messages } = await this.#client.messages(this.conversation, asked);
      const stored = messages.find(({ role }) => role === "user");
      if (stored) Object.assign(question, { id: stored.id, createdAt: stored.created_at });
    } catch {
      // It can be edited once the page is loaded again.
    }
    if (signal.aborted) return;
    this.#unknown -= 1;
    this.#hearAll();
  }

  async #run(reply, view) {
    const live = new LiveReply(reply, view, this.#transcript);
    this.#live.add(live);
    this.#show();
    reply.started.then(() => this.#show(), () => {});
    const end = await live.run();
    this.#live.delete(live);
    if (end === "settled") announce(`Reply: ${view.message.content || "no text"}`);
    else if (end !== "left" && view.item.isConnected && reply.messageId) view.lose(end);
    this.#show();
  }

  async stop() {
    try {
      await Promise.all([...this.#live].map(({ reply }) => reply.stop()));
    } catch (error) {
      this.#fail(error);
    }
  }

  editLast() {
    this.#transcript.views.findLast((view) => view instanceof QuestionView && view.id)?.edit();
  }

  // ---- what is told ----

  #show() {
    const isWriting = this.#live.size > 0;
    const canStop = [...this.#live].every(({ reply }) => reply.messageId !== null);
    this.#composer.show({ isSending: this.#starting > 0, isWriting, canStop });
  }

  #fail(error) {
    this.dispatchEvent(new CustomEvent("problem", { detail: error && explain(error) }));
  }
}

/** Whether there is nothing to wait for. A reply of more than 6 MB comes without its text, which its log has. */
const isThere = ({ role, status, truncated }) => role !== "assistant" || (TERMINAL.has(status) && !truncated);

const inputOf = (text, images) => (images.length ? [...(text.trim() ? [{ type: "text", text }] : []), ...images] : text);
