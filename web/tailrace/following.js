// The connections of one reply, one after the other, until its end: when to try again, and by which transport.

import { TailraceError, isRefused } from "./errors.js";
import { placeOf } from "./place.js";
import { path } from "./requests.js";
import { TERMINAL } from "./state.js";
import { polling, sse, startSse, startWhole, websocket } from "./transports.js";
import { Pause, every, jitter } from "./waiting.js";

/** @import { Requests } from "./requests.js" */
/** @import { SocketIo } from "./socket-connection.js" */
/** @import { Started } from "./start.js" */
/** @import { Link } from "./transports.js" */
/** @import { Clock, ConnectionState, Delivery, Message, Raw, Transport } from "./types.js" */
/** @import { PageEvents } from "./waiting.js" */

/**
 * @typedef {object} Network  what there is of it
 * @property {Requests} requests
 * @property {Clock} clock
 * @property {() => number} random
 * @property {PageEvents} page
 * @property {number} attempts
 * @property {SocketIo | null} socket
 * @property {Blocked} blocked
 *
 * @typedef {object} Blocked  what was found out, for the replies that follow
 * @property {number} until  when it is looked at again, by the clock
 * @property {boolean} body  somebody in between keeps streams until they are whole
 * @property {boolean} head  their beginning too
 *
 * @typedef {object} Followed  the reply, as its connections know it
 * @property {string | null} messageId
 * @property {string | null} conversationId
 * @property {Started | null} start
 * @property {Delivery} delivery
 * @property {() => string | null} cursor
 * @property {(messageId: string) => void} identified
 * @property {(raw: Raw, id: string | null, transport: Transport | "whole") => void} heard  an event that may be known
 * @property {(connection: ConnectionState) => void} changed
 *
 * @typedef {{message: Message, raw: Raw | null, id: string | null}} End
 */

const SILENCE_MS = 30_000; // the server sends something every 12 s, if only a comment
const STALE_MS = 15_000;
const OFFLINE_MS = 30_000; // a browser may be wrong about that
const HEAD_MS = 300;
const PROBE_MS = 10_000;
const BLOCKED_MS = 10 * 60_000;
const STARTS = 4; // answers of a server in trouble, after which a start is given up
const FAILURES = 2; // of one transport in a row, after which it is asked whether another may do

const CUT = new TailraceError("The connection was cut.", { type: "unreachable" });
const SILENT = new TailraceError("Nothing came for too long.", { type: "unreachable" });

export class Following {
  #network;
  #reply;
  #isFixed;
  /** @type {Transport[]} */
  #transports;
  #left = new AbortController();
  #connection = new AbortController();
  #pause;
  /** @type {ConnectionState} */
  #state;
  #heardAt = 0;
  #patience = SILENCE_MS;
  #hasCome = false;
  /** What the end came with. @type {{raw: Raw | null, id: string | null, message: Message | null} | null} */
  #over = null;

  /**
   * @param {Network} network
   * @param {Followed} reply
   * @param {Transport} [transport]  this one and no other
   */
  constructor(network, reply, transport) {
    const { socket, blocked, clock } = network;
    this.#network = network;
    this.#reply = reply;
    this.#isFixed = transport !== undefined;
    this.#transports = transport ? [transport] : socket ? ["sse", "websocket", "polling"] : ["sse", "polling"];
    if (!this.#isFixed && blocked.body && clock.now() < blocked.until) this.#next();
    this.#pause = new Pause(clock);
    this.#state = { state: "connecting", transport: this.#transport, attempt: 0, retryIn: null };
  }

  /** What the connection is doing. */
  get state() {
    return this.#state;
  }

  /** Cut the connection, as a network does. */
  cut() {
    this.#connection.abort(CUT);
  }

  /** For good. */
  leave() {
    if (this.#left.signal.aborted) return;
    this.#left.abort();
    this.#show({ state: "closed", retryIn: null });
  }

  /**
   * Follow the reply.
   *
   * @returns {Promise<End | null>} its end; null when it was left
   */
  async run() {
    const { clock, random, page, attempts } = this.#network;
    const left = this.#left.signal;
    const deaf = page.listen(() => {
      this.#pause.wake();
      this.#checkSilence(Math.min(STALE_MS, this.#patience));
    });
    const unwatch = every(clock, 1000, () => this.#checkSilence(this.#patience));
    let attempt = 0; // connections in a row that brought nothing
    let failures = 0; // the same, of this transport
    let troubles = 0; // the same, which a server answered
    try {
      while (!left.aborted) {
        const before = this.#reply.cursor();
        const { error, isSilent, goesOn } = await this.#connect(attempt);
        if (left.aborted) return null;
        if (this.#over !== null) return await this.#settled(this.#over);
        if (goesOn) continue;
        if (this.#reply.cursor() !== before) attempt = failures = troubles = 0;
        else if (error !== CUT) failures += 1;
        if (error?.status) troubles += 1;
        if (error !== null && this.#isFinal(error, attempt, troubles)) throw error;
        // One that died had something before, and another of its kind will do.
        const isSuspect = failures >= FAILURES || (isSilent && !this.#hasCome);
        if (isSuspect && !this.#isFixed && (await this.#isStuck(isSilent))) {
          failures = 0;
          continue;
        }
        if (!page.offline) attempt += 1;
        if (attempt >= attempts) throw lost(error);
        const atLeast = (error?.retryAfter ?? 0) * 1000;
        const wait = Math.max(page.offline ? OFFLINE_MS : jitter(attempt, random), atLeast);
        this.#show({ state: "waiting", attempt, retryIn: wait });
        await this.#pause.wait(wait, left, atLeast);
      }
      return null;
    } catch (error) {
      if (left.aborted) return null;
      throw error;
    } finally {
      deaf();
      unwatch();
    }
  }

  // ---- one connection ----

  /**
   * Return what went wrong: null for a connection that merely ended. `goesOn`: what it was for is done.
   *
   * @param {number} attempt
   * @returns {Promise<{error: TailraceError | null, isSilent: boolean, goesOn: boolean}>}
   */
  async #connect(attempt) {
    const connection = (this.#connection = new AbortController());
    const signal = AbortSignal.any([connection.signal, this.#left.signal]);
    const transport = this.#reply.messageId !== null ? this.#transport : this.#isWhole ? "whole" : "sse";
    this.#show({ state: "connecting", transport, attempt, retryIn: null });
    this.#heard();
    this.#hasCome = false;
    const ended = (/** @type {TailraceError | null} */ error, goesOn = false) => ({ error, isSilent: false, goesOn });
    try {
      return ended(null, await this.#through(this.#link(signal)));
    } catch (error) {
      if (signal.aborted) return { ...ended(signal.reason === CUT ? CUT : null), isSilent: signal.reason === SILENT };
      if (error instanceof TailraceError) return ended(error);
      throw error;
    } finally {
      connection.abort();
    }
  }

  /** @returns {Link} */
  #link(/** @type {AbortSignal} */ signal) {
    const reply = this.#reply;
    const { clock } = this.#network;
    return {
      signal,
      messageId: reply.messageId,
      get cursor() {
        return reply.cursor();
      },
      delivery: reply.delivery,
      heard: (patience) => this.#heard(patience),
      came: () => {
        this.#heard();
        this.#hasCome = true;
      },
      opened: (messageId) => {
        if (signal.aborted) return;
        if (messageId !== null) this.#identify(messageId);
        if (this.#state.state !== "open") this.#show({ state: "open", retryIn: null });
      },
      isOverSoon: async (first) => {
        let timer;
        const stays = new Promise((resolve) => {
          timer = clock.setTimeout(() => resolve({ done: false }), HEAD_MS);
        });
        const { done } = await Promise.race([first, stays]);
        clock.clearTimeout(timer);
        return done;
      },
      deliver: (raw, id) => signal.aborted || this.#deliver(raw, id),
      over: (message) => {
        if (!signal.aborted) this.#over ??= { raw: null, id: null, message };
      },
    };
  }

  /** Return whether the connection was only for the reply's id. @returns {Promise<boolean>} */
  async #through(/** @type {Link} */ link) {
    const { requests, socket } = this.#network;
    const { start, conversationId } = this.#reply;
    const transport = this.#transport;
    if (link.messageId === null) {
      if (start === null) throw new TailraceError("There is nothing to follow.", { type: "not_found", status: 404 });
      const asked = { ...start, address: path`/conversations/${conversationId}/stream`, headers: start.headers() };
      // A reply that ends when its reader leaves is not left.
      const onlyId = transport !== "sse" && !start.body.includes('"on_disconnect":"cancel"');
      if (this.#isWhole) await startWhole(requests, link, asked);
      else await startSse(requests, link, asked, onlyId);
      return transport !== "sse" && this.#reply.messageId !== null && this.#over === null;
    }
    if (transport === "sse") await sse(requests, link);
    else if (transport === "polling") await polling(requests, link);
    else if (socket === null) throw new TailraceError("The client was given no socketUrl.", { status: 400 });
    else await websocket(socket, link, await this.#channel(link.signal));
    return false;
  }

  /** Where subscribers hear of the reply. @returns {Promise<string>} */
  async #channel(/** @type {AbortSignal} */ signal) {
    const reply = this.#reply;
    const named = reply.start && JSON.parse(reply.start.body).channel;
    if (named) return named;
    if (reply.conversationId === null) {
      const message = await this.#network.requests.json(path`/messages/${reply.messageId}`, { signal });
      reply.conversationId = message.conversation_id;
    }
    return `conversation.${reply.conversationId}`;
  }

  #identify(/** @type {string} */ messageId) {
    if (this.#reply.messageId !== null) return;
    this.#reply.messageId = messageId;
    this.#reply.identified(messageId);
  }

  /** @returns {boolean} whether that was the end */
  #deliver(/** @type {Raw} */ raw, /** @type {string | null} */ id) {
    if (typeof raw.message_id === "string") this.#identify(raw.message_id);
    this.#reply.heard(raw, id, this.#state.transport ?? "sse");
    if (!raw.done && !raw.error) return false;
    this.#over = { raw, id, message: raw.done ? raw.message : (this.#over?.message ?? null) };
    return true;
  }

  // ---- silence ----

  #heard(/** @type {number} */ patience = SILENCE_MS) {
    this.#heardAt = this.#network.clock.now();
    this.#patience = patience;
  }

  #checkSilence(/** @type {number} */ limit) {
    if (this.#state.state === "waiting" || this.#state.state === "closed") return;
    if (this.#network.clock.now() - this.#heardAt >= limit) this.#connection.abort(SILENT);
  }

  // ---- transports ----

  get #transport() {
    return this.#transports[0] ?? "polling";
  }

  #next() {
    this.#transports = [...this.#transports.slice(1), ...this.#transports.slice(0, 1)];
  }

  get #isWhole() {
    const { blocked, clock } = this.#network;
    return !this.#isFixed && blocked.head && clock.now() < blocked.until;
  }

  /**
   * Find out whether it is the transport that brings nothing, and not the network or a reply that is slow; if so, change
   * it.
   *
   * @param {boolean} isSilent  the connection was open, or seemed so, and not even a comment came
   */
  async #isStuck(isSilent) {
    const { requests, blocked, clock } = this.#network;
    const { messageId, conversationId } = this.#reply;
    const probe = new AbortController();
    const timer = clock.setTimeout(() => probe.abort(), PROBE_MS);
    const signal = AbortSignal.any([probe.signal, this.#left.signal]);
    try {
      if (messageId === null) {
        if (!isSilent) return false;
        await requests.json(path`/conversations/${conversationId}`, { signal });
        Object.assign(blocked, { head: true, until: clock.now() + BLOCKED_MS });
        return true;
      }
      const message = await requests.json(path`/messages/${messageId}`, { signal });
      const grows = TERMINAL.has(message.status) || message.seq > placeOf(this.#reply.cursor()).seq;
      if (isSilent && !grows) return false;
      if (isSilent && this.#transport === "sse" && !this.#hasCome) {
        Object.assign(blocked, { body: true, until: clock.now() + BLOCKED_MS });
      }
      this.#next();
      return true;
    } catch (error) {
      if (this.#left.signal.aborted || !(error instanceof TailraceError || probe.signal.aborted)) throw error;
      return false;
    } finally {
      clock.clearTimeout(timer);
    }
  }

  // ---- ends ----

  #isFinal(/** @type {TailraceError} */ error, /** @type {number} */ attempt, /** @type {number} */ troubles) {
    if (isRefused(error)) return true;
    if (this.#reply.messageId !== null) return false;
    // A start: of one whose answer was lost nobody knows whether it was taken, and the key makes it safe to ask again.
    if (error.status === 429) return error.type === "rate_limited" && attempt === 0;
    return error.status !== null && troubles >= STARTS;
  }

  /**
   * The end is known; the message may still have to be read.
   *
   * @param {{raw: Raw | null, id: string | null, message: Message | null}} over
   * @returns {Promise<End>}
   */
  async #settled({ raw, id, message }) {
    return { raw, id, message: message ?? (await this.#stored(raw)) };
  }

  /** @returns {Promise<Message>} */
  async #stored(/** @type {Raw | null} */ end) {
    const { requests, random } = this.#network;
    const { messageId, conversationId } = this.#reply;
    const signal = this.#left.signal;
    for (let attempt = 1; attempt < STARTS; attempt += 1) {
      try {
        const message = await requests.json(path`/messages/${messageId}`, { signal });
        if (TERMINAL.has(message.status)) return message;
        break;
      } catch (error) {
        if (!(error instanceof TailraceError)) throw error;
        if (isRefused(error)) break;
        await this.#pause.wait(jitter(attempt, random), signal);
      }
    }
    // The reader was told of an end that is not stored, or is too long to be read at once.
    const type = end?.error_type ?? "general_error";
    return {
      id: messageId ?? "",
      conversation_id: conversationId ?? "",
      role: "assistant",
      content: "",
      truncated: true,
      status: type === "cancelled" || type === "interrupted" ? type : "failed",
      seq: 0,
      metadata: {},
      error: { type, message: end?.message ?? "The reply has ended." },
    };
  }

  #show(/** @type {Partial<ConnectionState>} */ change) {
    this.#state = { ...this.#state, ...change };
    this.#reply.changed(this.#state);
  }
}

const lost = (/** @type {unknown} */ cause) =>
  new TailraceError("The connection was lost. What was written is kept.", { type: "lost", cause });
