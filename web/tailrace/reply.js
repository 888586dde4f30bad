// One reply, over as many connections as it takes. Cut, the reply goes on without us and its log has all of it.

import { TailraceError } from "./errors.js";
import { ReplyState, TERMINAL } from "./state.js";
import { placeOf } from "./place.js";
import { polling, sse, startSse, startWhole, websocket } from "./transports.js";
import { Pause, every, jitter } from "./waiting.js";

/** @import { Requests } from "./requests.js" */
/** @import { Clock, ConnectionState, Decision, Delivery, Message, Raw, ReplyEvent, Saved, StartBody, Transport } from "./types.js" */
/** @import { SocketIo } from "./socket-connection.js" */
/** @import { Link } from "./transports.js" */
/** @import { PageEvents } from "./waiting.js" */

/**
 * @typedef {object} Io  what a reply needs of the outside
 * @property {Requests} requests
 * @property {Clock} clock
 * @property {() => number} random
 * @property {PageEvents} page
 * @property {number} attempts
 * @property {SocketIo | null} socket
 * @property {Blocked} blocked
 * @property {(asked: Begun, options?: ReplyOptions) => Reply} begin
 *
 * @typedef {object} Blocked  what was found out of the network, for the replies that follow
 * @property {number} until  when it is looked at again, by the clock
 * @property {boolean} body  somebody in between keeps streams until they are whole
 * @property {boolean} head  their beginning too
 *
 * @typedef {object} Begun  which reply, and what of it is there
 * @property {string | null} [conversationId]
 * @property {string | null} [messageId]
 * @property {Started | null} [start]
 * @property {Delivery} [delivery]
 * @property {{text?: string, reasoning?: string, tools?: import("./types.js").Tool[], cursor?: string | null}} [before]
 *
 * @typedef {object} Started
 * @property {string} key
 * @property {string} body  JSON text
 * @property {() => Record<string, string>} headers
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

const SILENCE_MS = 30_000; // the server sends something every 12 s, if only a comment
const STALE_MS = 15_000;
const OFFLINE_MS = 30_000; // a browser may be wrong about that
const HEAD_MS = 300;
const PROBE_MS = 10_000;
const BLOCKED_MS = 10 * 60_000;
const STARTS = 4; // answers of a server in trouble, after which a start is given up
const FAILURES = 2; // of one transport in a row, after which it is asked whether another may do
const MERGED = 256; // events that wait for a slow reader, before text is joined

export class Reply extends EventTarget {
  #io;
  #begun;
  #state;
  #delivery;
  /** @type {Transport[]} */
  #transports;
  #isFixed;
  /** @type {Transport | "whole"} */
  #current;
  /** @type {string | null} */
  #messageId;
  /** @type {string | null} */
  #conversationId;
  #left = new AbortController();
  #connection = new AbortController();
  #pause;
  /** @type {ConnectionState} */
  #link = { state: "connecting", transport: null, attempt: 0, retryIn: null };
  #heardAt = 0;
  #patience = SILENCE_MS;
  #hasCome = false;
  #changing = false;
  /** @type {Set<Feed>} */
  #feeds = new Set();
  /** @type {PromiseWithResolvers<{messageId: string, conversationId: string | null}>} */
  #started = withResolvers();
  /** @type {PromiseWithResolvers<Message>} */
  #finished = withResolvers();
  /** What the end came with. @type {{raw: Raw | null, id: string | null, message: Message | null} | null} */
  #over = null;

  /**
   * @param {Io} io
   * @param {Begun} begun
   * @param {ReplyOptions} [options]
   */
  constructor(io, begun, { signal, transport } = {}) {
    super();
    this.#io = io;
    this.#begun = begun;
    this.#state = new ReplyState(begun.before);
    this.#delivery = begun.delivery ?? {};
    this.#isFixed = transport !== undefined;
    this.#transports = transport ? [transport] : io.socket ? ["sse", "websocket", "polling"] : ["sse", "polling"];
    if (!this.#isFixed && io.blocked.body && io.clock.now() < io.blocked.until) this.#next();
    this.#current = this.#transport;
    this.#messageId = begun.messageId ?? null;
    this.#conversationId = begun.conversationId ?? null;
    this.#pause = new Pause(io.clock);
    if (this.#messageId !== null) this.#identify(this.#messageId);
    const leave = () => this.#leave(signal?.reason);
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { signal: this.#left.signal });
    queueMicrotask(() => void this.#run()); // whoever made it may listen first
  }

  // ---- what is known ----

  get messageId() {
    return this.#messageId;
  }

  get conversationId() {
    return this.#state.message?.conversation_id ?? this.#conversationId;
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

  get connection() {
    return this.#link;
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
    const start = this.#begun.start && { key: this.#begun.start.key, body: this.#begun.start.body };
    return {
      messageId: this.#messageId,
      conversationId: this.conversationId,
      cursor,
      text,
      reasoning,
      tools,
      delivery: this.#delivery,
      start: this.#messageId === null ? (start ?? null) : null,
    };
  }

  // ---- what can be done ----

  /** End the reply for everybody; its text so far is kept. @returns {Promise<Message>} */
  async stop() {
    const { messageId } = await this.#started.promise;
    const signal = this.#left.signal;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const message = await this.#io.requests.json(`/messages/${messageId}/cancel`, { method: "POST", body: {} });
        if (!this.ended && !signal.aborted) this.#end(message, null, null);
        return this.#state.message ?? message;
      } catch (error) {
        if (attempt >= STARTS || !(error instanceof TailraceError) || isRefused(error)) throw error;
        await new Pause(this.#io.clock).wait(jitter(attempt, this.#io.random), new AbortController().signal);
      }
    }
  }

  /** Cut the connection, as a network does; the reply is resumed. */
  disconnect() {
    this.#connection.abort(CUT);
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
    if (this.#left.signal.aborted) feed.close(this.#state.ended ? null : this.#left.signal.reason);
    else this.#feeds.add(feed);
    return feed.read(() => this.#feeds.delete(feed));
  }

  // ---- connections ----

  async #run() {
    const { clock, random, page, attempts } = this.#io;
    const left = this.#left.signal;
    const deaf = page.listen(() => {
      this.#pause.wake();
      this.#checkSilence(Math.min(STALE_MS, this.#patience));
    });
    const watch = every(clock, 1000, () => this.#checkSilence(this.#patience));
    let attempt = 0; // connections in a row that brought nothing
    let failures = 0; // the same, of this transport
    let troubles = 0; // the same, which a server answered
    try {
      while (!left.aborted) {
        const before = this.#state.cursor;
        const { error, isSilent, goesOn } = await this.#connect(attempt);
        if (this.#over !== null) return await this.#settle();
        if (left.aborted) return;
        if (goesOn) continue;
        if (this.#state.cursor !== before) attempt = failures = troubles = 0;
        else if (error !== CUT) failures += 1;
        if (error?.status) troubles += 1;
        if (error !== null && this.#isFinal(error, attempt, troubles)) return this.#fail(error);
        // One that died had something before, and another of its kind will do.
        const isSuspect = failures >= FAILURES || (isSilent && !this.#hasCome);
        if (isSuspect && !this.#isFixed && (await this.#isStuck(isSilent))) {
          failures = 0;
          continue;
        }
        if (!page.offline) attempt += 1;
        if (attempt >= attempts) return this.#fail(lost(error));
        const atLeast = (error?.retryAfter ?? 0) * 1000;
        const wait = Math.max(page.offline ? OFFLINE_MS : jitter(attempt, random), atLeast);
        this.#show({ state: "waiting", attempt, retryIn: wait });
        await this.#pause.wait(wait, left, atLeast);
      }
    } catch (error) {
      if (!left.aborted) this.#fail(error);
    } finally {
      deaf();
      watch();
    }
  }

  /**
   * Return what went wrong: null for a connection that merely ended. `goesOn`: what it was for is done.
   *
   * @param {number} attempt
   * @returns {Promise<{error: TailraceError | null, isSilent: boolean, goesOn: boolean}>}
   */
  async #connect(attempt) {
    const connection = (this.#connection = new AbortController());
    const signal = AbortSignal.any([connection.signal, this.#left.signal]);
    this.#current = this.#messageId !== null ? this.#transport : this.#isWhole ? "whole" : "sse";
    this.#show({ state: "connecting", attempt, retryIn: null });
    this.#heard();
    this.#hasCome = false;
    const state = this.#state;
    /** @type {Link} */
    const link = {
      signal,
      messageId: this.#messageId,
      get cursor() {
        return state.cursor;
      },
      delivery: this.#delivery,
      heard: (patience) => this.#heard(patience),
      came: () => {
        this.#heard();
        this.#hasCome = true;
      },
      opened: (messageId) => {
        if (signal.aborted) return;
        if (messageId !== null) this.#identify(messageId);
        if (this.#link.state !== "open") this.#show({ state: "open", attempt, retryIn: null });
      },
      isOverSoon: async (first) => {
        let timer;
        const stays = new Promise((resolve) => {
          timer = this.#io.clock.setTimeout(() => resolve({ done: false }), HEAD_MS);
        });
        const { done } = await Promise.race([first, stays]);
        this.#io.clock.clearTimeout(timer);
        return done;
      },
      deliver: (raw, id) => signal.aborted || this.#deliver(raw, id),
      over: (message) => {
        if (!signal.aborted) this.#over ??= { raw: null, id: null, message };
      },
    };
    const ended = (/** @type {TailraceError | null} */ error, goesOn = false) => ({ error, isSilent: false, goesOn });
    try {
      return ended(null, await this.#through(link));
    } catch (error) {
      if (signal.aborted) return { ...ended(signal.reason === CUT ? CUT : null), isSilent: signal.reason === SILENT };
      if (error instanceof TailraceError) return ended(error);
      throw error;
    } finally {
      connection.abort();
    }
  }

  /** Return whether the connection was only for the reply's id. @returns {Promise<boolean>} */
  async #through(/** @type {Link} */ link) {
    const { requests, socket } = this.#io;
    const transport = this.#transport;
    if (link.messageId === null) {
      const { start } = this.#begun;
      if (!start) throw new TailraceError("There is nothing to follow.", { type: "not_found", status: 404 });
      const asked = { ...start, path: `/conversations/${this.#conversationId}/stream`, headers: start.headers() };
      if (this.#isWhole) await startWhole(requests, link, asked);
      // A reply that ends when its reader leaves is not left.
      else await startSse(requests, link, asked, transport !== "sse" && !this.#isBound);
      return transport !== "sse" && this.#messageId !== null && this.#over === null;
    }
    if (transport === "sse") await sse(requests, link);
    else if (transport === "polling") await polling(requests, link);
    else if (socket === null) throw new TailraceError("The client was given no socketUrl.", { status: 400 });
    else await websocket(socket, link, await this.#channel(link.signal));
    return false;
  }

  get #transport() {
    return this.#transports[0] ?? "polling";
  }

  get #isWhole() {
    const { blocked, clock } = this.#io;
    return !this.#isFixed && blocked.head && clock.now() < blocked.until;
  }

  get #isBound() {
    return this.#begun.start?.body.includes('"on_disconnect":"cancel"') ?? false;
  }

  #next() {
    this.#transports = [...this.#transports.slice(1), ...this.#transports.slice(0, 1)];
  }

  /**
   * Find out whether it is the transport that brings nothing, and not the network or a reply that is slow; if so, change
   * it.
   *
   * @param {boolean} isSilent  the connection was open, or seemed so, and not even a comment came
   */
  async #isStuck(isSilent) {
    const { requests, blocked, clock } = this.#io;
    const probe = new AbortController();
    const timer = clock.setTimeout(() => probe.abort(), PROBE_MS);
    const signal = AbortSignal.any([probe.signal, this.#left.signal]);
    try {
      if (this.#messageId === null) {
        if (!isSilent) return false;
        await requests.json(`/conversations/${this.#conversationId}`, { signal });
        Object.assign(blocked, { head: true, until: clock.now() + BLOCKED_MS });
        return true;
      }
      const message = await requests.json(`/messages/${this.#messageId}`, { signal });
      const grows = TERMINAL.has(message.status) || message.seq > placeOf(this.cursor).seq;
      if (isSilent && !grows) return false;
      if (isSilent && this.#transport === "sse" && !this.#hasCome) Object.assign(blocked, { body: true, until: clock.now() + BLOCKED_MS });
      this.#next();
      return true;
    } catch (error) {
      if (this.#left.signal.aborted || !(error instanceof TailraceError || probe.signal.aborted)) throw error;
      return false;
    } finally {
      clock.clearTimeout(timer);
    }
  }

  /** @returns {Promise<string>} */
  async #channel(/** @type {AbortSignal} */ signal) {
    const named = this.#begun.start && JSON.parse(this.#begun.start.body).channel;
    if (named) return named;
    if (this.#conversationId === null) {
      const { conversation_id } = await this.#io.requests.json(`/messages/${this.#messageId}`, { signal });
      this.#conversationId = conversation_id;
    }
    return `conversation.${this.#conversationId}`;
  }

  #heard(/** @type {number} */ patience = SILENCE_MS) {
    this.#heardAt = this.#io.clock.now();
    this.#patience = patience;
  }

  #checkSilence(/** @type {number} */ limit) {
    if (this.#link.state === "waiting" || this.#link.state === "closed") return;
    if (this.#io.clock.now() - this.#heardAt >= limit) this.#connection.abort(SILENT);
  }

  #isFinal(/** @type {TailraceError} */ error, /** @type {number} */ attempt, /** @type {number} */ troubles) {
    if (isRefused(error)) return true;
    if (this.#messageId !== null) return false;
    // A start: of one whose answer was lost nobody knows whether it was taken, and the key makes it safe to ask again.
    if (error.status === 429) return error.type === "rate_limited" && attempt === 0;
    return error.status !== null && troubles >= STARTS;
  }

  #identify(/** @type {string} */ messageId) {
    this.#messageId ??= messageId;
    this.#started.resolve({ messageId: this.#messageId, conversationId: this.#conversationId });
  }

  /** @returns {boolean} whether that was the end */
  #deliver(/** @type {Raw} */ raw, /** @type {string | null} */ id) {
    if (this.ended) return true;
    if (typeof raw.message_id === "string") this.#identify(raw.message_id);
    const isEnd = Boolean(raw.done || raw.error);
    if (!isEnd && this.#state.has(id)) return false;
    const detail = { id, data: raw, transport: this.#current };
    this.dispatchEvent(new CustomEvent("raw", { detail }));
    if (!isEnd) {
      this.#tell(this.#state.take(raw, id));
      return false;
    }
    this.#over = { raw, id, message: raw.done ? raw.message : (this.#over?.message ?? null) };
    return true;
  }

  /** The end is known; the message may still have to be read. */
  async #settle() {
    if (this.ended || this.#over === null) return;
    const { raw, id, message } = this.#over;
    this.#end(message ?? (await this.#stored(raw)), raw, id);
  }

  /** @returns {Promise<Message>} */
  async #stored(/** @type {Raw | null} */ end) {
    for (let attempt = 1; attempt < STARTS; attempt += 1) {
      try {
        const message = await this.#io.requests.json(`/messages/${this.#messageId}`, { signal: this.#left.signal });
        if (TERMINAL.has(message.status)) return message;
        break;
      } catch (error) {
        if (!(error instanceof TailraceError)) throw error;
        if (isRefused(error)) break;
        await this.#pause.wait(jitter(attempt, this.#io.random), this.#left.signal);
      }
    }
    // The reader was told of an end that is not stored, or is too long to be read at once.
    const type = end?.error_type ?? "general_error";
    const status = type === "cancelled" || type === "interrupted" ? type : "failed";
    return {
      id: this.#messageId ?? "",
      conversation_id: this.#conversationId ?? "",
      role: "assistant",
      content: this.text,
      status,
      seq: 0,
      metadata: {},
      error: { type, message: end?.message ?? "The reply has ended." },
    };
  }

  // ---- ends ----

  #end(/** @type {Message} */ message, /** @type {Raw | null} */ raw, /** @type {string | null} */ id) {
    this.#conversationId ??= message.conversation_id;
    this.#tell(this.#state.end(message, raw, id));
    this.#finished.resolve(message);
    this.#close(null);
  }

  #fail(/** @type {unknown} */ error) {
    this.#state.error = error instanceof TailraceError ? error : new TailraceError(String(error), { cause: error });
    this.#change();
    this.#leave(this.#state.error);
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
    this.#show({ state: "closed", retryIn: null });
  }

  // ---- telling ----

  #tell(/** @type {ReplyEvent[]} */ events) {
    for (const event of events) for (const feed of this.#feeds) feed.put(event);
    this.#change();
  }

  #change() {
    if (this.#changing) return;
    this.#changing = true;
    queueMicrotask(() => {
      this.#changing = false;
      this.dispatchEvent(new Event("change"));
    });
  }

  #show(/** @type {Partial<ConnectionState>} */ change) {
    this.#link = { ...this.#link, transport: this.#current, ...change };
    this.dispatchEvent(new CustomEvent("connection", { detail: this.#link }));
    this.#change();
  }

  /** @returns {Reply} */
  #goOn(/** @type {Partial<StartBody>} */ body, /** @type {ReplyOptions} */ options) {
    if (this.conversationId === null) throw new TailraceError("The reply's conversation is not known yet.");
    /** @type {StartBody} */
    const asked = this.#begun.start ? JSON.parse(this.#begun.start.body) : {};
    const { provider, model, options: provided, fallbacks, fallback, history, delivery = this.#delivery } = asked;
    const again = { provider, model, options: provided, fallbacks, fallback, history, delivery };
    return this.#io.begin({ conversationId: this.conversationId, start: newStart({ ...again, ...body }) }, options);
  }
}

const CUT = new TailraceError("The connection was cut.", { type: "unreachable" });
const SILENT = new TailraceError("Nothing came for too long.", { type: "unreachable" });

const lost = (/** @type {unknown} */ cause) =>
  new TailraceError("The connection was lost. What was written is kept.", { type: "lost", cause });

const PASSING = new Set([408, 425, 429]);

/** Whether another attempt would be refused too. */
const isRefused = (/** @type {TailraceError} */ { status }) =>
  status !== null && status >= 400 && status < 500 && !PASSING.has(status);

/**
 * A start, as it is sent each time: whatever happens to its answer, one key and one body are one reply.
 *
 * @param {StartBody} body
 * @param {string} [key]
 * @param {() => Record<string, string>} [headers]
 * @returns {Started}
 */
export const newStart = (body, key = randomKey(), headers = () => ({})) => ({
  key,
  body: JSON.stringify(body),
  headers,
});

/** 122 random bits and more. `crypto.randomUUID` is not there on a page that came over plain http. */
const randomKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Events for one reader, who may be slow: then text that waits is joined, so that they never weigh more than the reply. */
class Feed {
  /** @type {ReplyEvent[]} */
  #waiting;
  #closed = false;
  /** @type {unknown} */
  #error = null;
  #wake = () => {};

  constructor(/** @type {ReplyEvent[]} */ first) {
    this.#waiting = first;
  }

  put(/** @type {ReplyEvent} */ event) {
    const last = this.#waiting.at(-1);
    const isText = event.type === "text" || event.type === "reasoning";
    if (isText && last?.type === event.type && this.#waiting.length > MERGED) {
      this.#waiting[this.#waiting.length - 1] = { ...event, text: last.text + event.text };
    } else this.#waiting.push(event);
    this.#wake();
  }

  close(/** @type {unknown} */ error) {
    this.#closed = true;
    this.#error = error instanceof TailraceError && error.type === "closed" ? null : error;
    this.#wake();
  }

  /** @returns {AsyncGenerator<ReplyEvent, void, undefined>} */
  async *read(/** @type {() => void} */ leave) {
    try {
      for (;;) {
        const event = this.#waiting.shift();
        if (event !== undefined) yield event;
        else if (!this.#closed) await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
        else if (this.#error !== null) throw this.#error;
        else return;
      }
    } finally {
      leave();
    }
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
