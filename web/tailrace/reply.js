// One reply: what is known of it, and what can be done with it.

import { TailraceError, isRefused } from "./errors.js";
import { Feed } from "./feed.js";
import { Following } from "./following.js";
import { path } from "./requests.js";
import { newStart } from "./start.js";
import { ReplyState } from "./state.js";
import { Pause, jitter } from "./waiting.js";

/** @import { Followed, Network } from "./following.js" */
/** @import { Started } from "./start.js" */
/** @import { ConnectionState, Decision, Delivery, Message, Raw, ReplyEvent, Saved, StartBody, Tool, Transport } from "./types.js" */

/**
 * @typedef {object} Begun  which reply, and what of it is there
 * @property {string | null} [conversationId]
 * @property {string | null} [messageId]
 * @property {Started | null} [start]
 * @property {Delivery} [delivery]
 * @property {{text?: string, reasoning?: string, tools?: Tool[], cursor?: string | null}} [before]
 *
 * @typedef {Network & {begin: (begun: Begun, options?: ReplyOptions) => Reply}} Io  what a reply needs of the outside
 *
 * @typedef {object} ReplyOptions
 * @property {AbortSignal} [signal]  leaves the reply, which goes on without us
 * @property {Transport} [transport]  this one and no other
 *
 * @typedef {object} ReplyEvents
 * @property {Event} change  something of the reply's state is new; once for what came at once
 * @property {CustomEvent<{id: string | null, data: Raw, transport: Transport | "whole"}>} raw
 * @property {CustomEvent<ConnectionState>} connection
 */

const CANCELS = 4; // attempts to stop a reply

export class Reply extends EventTarget {
  #io;
  #state;
  /** @type {Followed} */
  #followed;
  #following;
  #left = new AbortController();
  #isChanging = false;
  /** @type {Set<Feed>} */
  #feeds = new Set();
  /** @type {PromiseWithResolvers<{messageId: string, conversationId: string | null}>} */
  #started = withResolvers();
  /** @type {PromiseWithResolvers<Message>} */
  #finished = withResolvers();

  /**
   * @param {Io} io
   * @param {Begun} begun
   * @param {ReplyOptions} [options]
   */
  constructor(io, { messageId = null, conversationId = null, start = null, delivery = {}, before }, { signal, transport } = {}) {
    super();
    this.#io = io;
    this.#state = new ReplyState(before);
    this.#followed = {
      messageId,
      conversationId,
      start,
      delivery,
      cursor: () => this.#state.cursor,
      identified: (id) => this.#started.resolve({ messageId: id, conversationId: this.#followed.conversationId }),
      heard: (raw, id, by) => this.#hear(raw, id, by),
      changed: (connection) => {
        this.dispatchEvent(new CustomEvent("connection", { detail: connection }));
        this.#change();
      },
    };
    this.#following = new Following(io, this.#followed, transport);
    if (messageId !== null) this.#followed.identified(messageId);
    const leave = () => this.#leave(signal?.reason);
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { signal: this.#left.signal });
    queueMicrotask(() => void this.#run()); // whoever made it may listen first
  }

  // ---- what is known ----

  get messageId() {
    return this.#followed.messageId;
  }

  get conversationId() {
    return this.#state.message?.conversation_id ?? this.#followed.conversationId;
  }

  /** All text so far. */
  get text() {
    return this.#state.text;
  }

  get reasoning() {
    return this.#state.reasoning;
  }

  /** The calls of tools, in their order, each with its state and result. */
  get tools() {
    return this.#state.tools;
  }

  get status() {
    return this.#state.status;
  }

  get progress() {
    return this.#state.progress;
  }

  /** The id of the last event; hand it back as `after`. */
  get cursor() {
    return this.#state.cursor;
  }

  /** The stored message, once the reply has ended. */
  get message() {
    return this.#state.message;
  }

  /** Why the reply failed, was refused, or cannot be followed. */
  get error() {
    return this.#state.error;
  }

  get ended() {
    return this.#state.ended;
  }

  /** What the connection is doing. */
  get connection() {
    return this.#following.state;
  }

  /** Ids of the calls that wait for a yes, once the reply has ended. */
  get waiting() {
    return this.ended ? this.tools.filter(({ state }) => state === "waiting").map(({ id }) => id) : [];
  }

  /** Resolves when the reply's id is known; rejects when the start was refused. */
  get started() {
    return this.#started.promise;
  }

  /** Resolves with the message at the reply's end, also of one that failed; rejects when it cannot be followed. */
  get finished() {
    return this.#finished.promise;
  }

  /** What a page keeps in order to follow the reply when it was loaded again: `client.follow(saved)`. @returns {Saved} */
  toJSON() {
    const { text, reasoning, tools, cursor } = this.#state;
    const { messageId, conversationId } = this;
    const { start, delivery } = this.#followed;
    // A start that was answered is not needed any more.
    const open = messageId === null && start !== null ? { key: start.key, body: start.body } : null;
    return { messageId, conversationId, cursor, text, reasoning, tools, delivery, start: open };
  }

  // ---- what can be done ----

  /** End the reply for everybody; its text so far is kept. @returns {Promise<Message>} */
  async stop() {
    const { messageId } = await this.#started.promise;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const message = await this.#io.requests.json(path`/messages/${messageId}/cancel`, { method: "POST", body: {} });
        if (!this.#left.signal.aborted) this.#end(message, null, null);
        return this.message ?? message;
      } catch (error) {
        if (attempt >= CANCELS || !(error instanceof TailraceError) || isRefused(error)) throw error;
        const never = new AbortController().signal; // also when the reply was left meanwhile
        await new Pause(this.#io.clock).wait(jitter(attempt, this.#io.random), never);
      }
    }
  }

  /** Cut the connection, as a network does; the reply is resumed. */
  disconnect() {
    this.#following.cut();
  }

  /** Leave the reply, which goes on without us. */
  close() {
    this.#leave(new TailraceError("The reply was left.", { type: "closed" }));
  }

  /**
   * Say yes or no to the calls that wait: `{call_1: true}`. The reply that goes on is another one.
   *
   * @param {Record<string, Decision>} approvals
   * @param {Partial<StartBody>} [more]
   * @param {ReplyOptions} [options]
   */
  approve(approvals, more = {}, options = {}) {
    return this.#goOn({ approvals, ...more }, options);
  }

  /**
   * Go on where the reply broke off, in another one.
   *
   * @param {Partial<StartBody>} [more]
   * @param {ReplyOptions} [options]
   */
  continue(more = {}, options = {}) {
    return this.#goOn({ continue: true, ...more }, options);
  }

  /**
   * @override
   * @template {keyof ReplyEvents} Kind
   * @param {Kind} type
   * @param {(event: ReplyEvents[Kind]) => void} listener
   * @param {AddEventListenerOptions | boolean} [options]
   */
  addEventListener(type, listener, options) {
    super.addEventListener(type, /** @type {EventListener} */ (listener), options);
  }

  /**
   * @override
   * @template {keyof ReplyEvents} Kind
   * @param {Kind} type
   * @param {(event: ReplyEvents[Kind]) => void} listener
   * @param {EventListenerOptions | boolean} [options]
   */
  removeEventListener(type, listener, options) {
    super.removeEventListener(type, /** @type {EventListener} */ (listener), options);
  }

  /**
   * Give each event until the end. Whoever begins late gets what is there so far first, joined. Leaving the loop leaves
   * only the loop.
   *
   * @returns {AsyncGenerator<ReplyEvent, void, undefined>}
   */
  [Symbol.asyncIterator]() {
    const feed = new Feed(this.#state.soFar());
    if (this.#left.signal.aborted) feed.close(this.ended ? null : this.#left.signal.reason);
    else this.#feeds.add(feed);
    return feed.read(() => this.#feeds.delete(feed));
  }

  // ---- what happens ----

  async #run() {
    if (this.#left.signal.aborted) return;
    try {
      const end = await this.#following.run();
      if (end !== null) this.#end(end.message, end.raw, end.id);
    } catch (error) {
      this.#state.error = error instanceof TailraceError ? error : new TailraceError(String(error), { cause: error });
      this.#leave(this.#state.error);
    }
  }

  #hear(/** @type {Raw} */ raw, /** @type {string | null} */ id, /** @type {Transport | "whole"} */ transport) {
    const isEnd = Boolean(raw.done || raw.error);
    if (!isEnd && this.#state.has(id)) return;
    this.dispatchEvent(new CustomEvent("raw", { detail: { id, data: raw, transport } }));
    if (!isEnd) this.#tell(this.#state.take(raw, id));
  }

  #end(/** @type {Message} */ message, /** @type {Raw | null} */ raw, /** @type {string | null} */ id) {
    this.#tell(this.#state.end(message, raw, id));
    this.#finished.resolve(this.message ?? message);
    this.#close(null);
  }

  #leave(/** @type {unknown} */ reason) {
    if (this.#left.signal.aborted) return;
    this.#started.reject(reason);
    this.#finished.reject(reason);
    this.#close(reason);
  }

  #close(/** @type {unknown} */ reason) {
    this.#left.abort(reason ?? new TailraceError("The reply has ended.", { type: "closed" }));
    for (const feed of this.#feeds) feed.close(reason);
    this.#feeds.clear();
    this.#following.leave();
  }

  #tell(/** @type {ReplyEvent[]} */ events) {
    for (const event of events) for (const feed of this.#feeds) feed.put(event);
    this.#change();
  }

  #change() {
    if (this.#isChanging) return;
    this.#isChanging = true;
    queueMicrotask(() => {
      this.#isChanging = false;
      this.dispatchEvent(new Event("change"));
    });
  }

  /** @returns {Reply} */
  #goOn(/** @type {Partial<StartBody>} */ body, /** @type {ReplyOptions} */ options) {
    if (this.conversationId === null) throw new TailraceError("The reply's conversation is not known yet.");
    const { start, delivery: wanted } = this.#followed;
    /** @type {StartBody} */
    const asked = start === null ? {} : JSON.parse(start.body);
    const { provider, model, options: provided, fallbacks, fallback, history, delivery = wanted } = asked;
    const again = { provider, model, options: provided, fallbacks, fallback, history, delivery };
    return this.#io.begin({ conversationId: this.conversationId, start: newStart({ ...again, ...body }) }, options);
  }
}

/**
 * A promise whose rejection nobody has to handle.
 *
 * @template Value
 * @returns {PromiseWithResolvers<Value>}
 */
function withResolvers() {
  /** @type {PromiseWithResolvers<Value>} */
  const made = Promise.withResolvers();
  made.promise.catch(() => {});
  return made;
}
