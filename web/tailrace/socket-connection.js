// One connection to the WebSocket API, from its opening to its end. The frames are those of docs/broadcasting.md.

import { TailraceError, unreachable } from "./errors.js";

/** @import { Requests } from "./requests.js" */
/** @import { Clock, Delivery } from "./types.js" */

/**
 * @typedef {{event: string, channel?: string | null, data?: any}} Frame
 *
 * @typedef {object} SocketIo  what a connection needs of the outside
 * @property {string} url
 * @property {Requests} requests
 * @property {string} authPath  where channels are signed
 * @property {typeof globalThis.WebSocket | undefined} WebSocket
 * @property {Clock} clock
 *
 * @typedef {object} Subscription
 * @property {string} channel
 * @property {Record<string, string | number>} [after]
 * @property {Delivery} [delivery]
 */

const OPENING_MS = 15_000;
const PONG_MS = 10_000;

export class SocketConnection {
  #io;
  #socket;
  #heardAt;
  #timer;
  #pingMs;
  /** @type {string | null} */
  socketId = null;
  /** Resolves when it is over, however that came. @type {Promise<void>} */
  closed;
  #over = new AbortController();

  /**
   * @param {SocketIo} io
   * @param {WebSocket} socket  one that is open
   * @param {(frame: Frame) => void} take
   * @param {number} pingMs  silence after which the other side is asked whether it is there
   */
  constructor(io, socket, take, pingMs) {
    this.#io = io;
    this.#socket = socket;
    this.#pingMs = pingMs;
    this.#heardAt = io.clock.now();
    this.closed = new Promise((resolve) => {
      socket.onclose = socket.onerror = () => {
        this.close();
        resolve();
      };
      this.#whenClosed = resolve;
    });
    socket.onmessage = ({ data }) => {
      this.#heardAt = io.clock.now();
      const frame = parsed(data);
      if (frame.event === "whoami" && typeof frame.data?.socket_id === "string") this.socketId = frame.data.socket_id;
      if (!this.#isClosed) take(frame);
    };
    this.#timer = io.clock.setTimeout(() => this.#ping(), pingMs);
  }

  get #isClosed() {
    return this.#over.signal.aborted;
  }

  /** @type {() => void} */
  #whenClosed = () => {};

  /**
   * @param {SocketIo} io
   * @param {(frame: Frame) => void} take
   * @param {{signal: AbortSignal, pingMs: number}} options
   * @returns {Promise<SocketConnection>}
   */
  static async open(io, take, { signal, pingMs }) {
    const url = await addressed(io);
    signal.throwIfAborted();
    const socket = made(io.WebSocket ?? globalThis.WebSocket, url);
    const over = new AbortController();
    let timer;
    try {
      await new Promise((resolve, reject) => {
        const refuse = () => reject(unreachable(undefined));
        socket.onopen = resolve;
        socket.onclose = socket.onerror = refuse;
        timer = io.clock.setTimeout(refuse, OPENING_MS);
        signal.addEventListener("abort", refuse, { signal: over.signal });
      });
      signal.throwIfAborted();
    } catch (error) {
      silence(socket);
      throw error;
    } finally {
      io.clock.clearTimeout(timer);
      over.abort();
    }
    const connection = new SocketConnection(io, socket, take, pingMs);
    signal.addEventListener("abort", () => connection.close(), { signal: connection.#over.signal });
    return connection;
  }

  send(/** @type {Frame} */ frame) {
    if (!this.#isClosed) this.#socket.send(JSON.stringify(frame));
  }

  /** Ask for a channel, with a signature where it needs one. What is answered comes as frames. */
  async subscribe(/** @type {Subscription} */ { channel, after = {}, delivery }) {
    const asked = {
      channel,
      ...(Object.keys(after).length ? { after } : {}),
      ...(delivery && Object.keys(delivery).length ? { delivery } : {}),
    };
    this.send({ event: "subscribe", data: { ...asked, ...(isSigned(channel) ? await this.#sign(channel) : {}) } });
  }

  close() {
    if (this.#isClosed) return;
    this.#over.abort();
    this.#io.clock.clearTimeout(this.#timer);
    silence(this.#socket);
    this.#whenClosed();
  }

  /** @returns {Promise<{auth: string, channel_data?: string}>} */
  #sign(/** @type {string} */ channel) {
    if (this.socketId === null) throw new TailraceError("The socket's id is not known yet.");
    const body = { socket_id: this.socketId, channel_name: channel };
    return this.#io.requests.json(this.#io.authPath, { method: "POST", body });
  }

  /** A connection that is gone may say nothing of it. */
  #ping() {
    const silent = this.#io.clock.now() - this.#heardAt;
    if (silent >= this.#pingMs + PONG_MS) return this.close();
    if (silent >= this.#pingMs) this.send({ event: "ping" });
    const next = silent >= this.#pingMs ? this.#pingMs + PONG_MS - silent : this.#pingMs - silent;
    this.#timer = this.#io.clock.setTimeout(() => this.#ping(), Math.max(next, 1));
  }

  /** Whether nothing was heard for so long. */
  isSilentFor(/** @type {number} */ milliseconds) {
    return this.#io.clock.now() - this.#heardAt >= milliseconds;
  }
}

export const isSigned = (/** @type {string} */ channel) => /^(private|presence)-/.test(channel);

/** @returns {WebSocket} */
function made(/** @type {typeof globalThis.WebSocket} */ WebSocket, /** @type {string} */ url) {
  try {
    return new WebSocket(url);
  } catch (error) {
    // What is no address, or not allowed to this page, will be none the next time.
    throw new TailraceError("The WebSocket cannot be opened.", { type: "invalid_request", status: 400, cause: error });
  }
}

/** A browser's WebSocket can send no headers, so the token is in the address. */
async function addressed(/** @type {SocketIo} */ { url, requests }) {
  const token = await requests.bearer();
  if (token === null) return url;
  return `${url}${url.includes("?") ? "&" : "?"}access_token=${encodeURIComponent(token)}`;
}

/** @returns {Frame} */
function parsed(/** @type {unknown} */ text) {
  try {
    const frame = JSON.parse(String(text));
    return typeof frame?.event === "string" ? frame : { event: "" };
  } catch {
    return { event: "" };
  }
}

function silence(/** @type {WebSocket} */ socket) {
  // Errors of one that is being opened would otherwise be nobody's.
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.onerror = () => {};
  try {
    socket.close();
  } catch {
    // It never was open.
  }
}
