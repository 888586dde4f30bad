// The WebSocket that all channels share. It comes back when it is lost, never in a storm, and subscribes them all again.

import { Channel } from "./channel.js";
import { TailraceError, isRefused } from "./errors.js";
import { SocketConnection } from "./socket-connection.js";
import { Pause, jitter } from "./waiting.js";

/** @import { ChannelOptions } from "./channel.js" */
/** @import { Frame, SocketIo } from "./socket-connection.js" */
/** @import { PageEvents } from "./waiting.js" */

/** @typedef {"connecting" | "connected" | "reconnecting" | "disconnected"} SocketStatus */

const PING_MS = 45_000; // API Gateway ends a connection after ten minutes of silence; a dead one is found sooner
const STALE_MS = 10_000;
const STABLE_MS = 10_000; // a connection that lasted so long was no failed attempt
const SUBSCRIPTIONS = 5; // attempts to have one channel signed

export class Socket {
  #io;
  #random;
  #page;
  /** @type {Map<string, Channel>} */
  #channels = new Map();
  /** @type {SocketConnection | null} */
  #connection = null;
  /** @type {AbortController | null} */
  #running = null;
  /** @type {SocketStatus} */
  #status = "disconnected";
  /** @type {Set<(status: SocketStatus) => void>} */
  #watchers = new Set();

  /**
   * @param {SocketIo} io
   * @param {() => number} random
   * @param {PageEvents} page
   */
  constructor(io, random, page) {
    this.#io = io;
    this.#random = random;
    this.#page = page;
  }

  get status() {
    return this.#status;
  }

  /** Null while there is no connection. */
  get socketId() {
    return this.#connection?.socketId ?? null;
  }

  /** Call a function at each change. @returns {() => void} takes it away */
  onStatus(/** @type {(status: SocketStatus) => void} */ callback) {
    this.#watchers.add(callback);
    return () => this.#watchers.delete(callback);
  }

  connect() {
    if (this.#running !== null) return;
    this.#running = new AbortController();
    void this.#run(this.#running.signal);
  }

  /** For good, until `connect()` or another channel. */
  disconnect() {
    this.#running?.abort();
    this.#running = null;
    this.#connection = null;
    this.#show("disconnected");
  }

  /**
   * Return a channel, subscribed or about to be; the same for the same name.
   *
   * @param {string} name
   * @param {ChannelOptions} [options]
   */
  channel(name, options) {
    const found = this.#channels.get(name);
    if (found !== undefined) return found;
    const made = new Channel(
      name,
      {
        send: (frame) => this.#connection?.send(frame),
        resubscribe: (channel) => this.#subscribe(channel),
        leave: (channel) => {
          // Nobody listens: the connection would cost somebody something.
          if (!this.leave(channel.name)) this.disconnect();
        },
      },
      options,
    );
    this.#channels.set(name, made);
    this.connect();
    // Whoever made it may listen first.
    queueMicrotask(() => this.#subscribe(made));
    return made;
  }

  /** Leave a channel. @returns {boolean} whether there are others */
  leave(/** @type {string} */ name) {
    if (this.#channels.delete(name)) this.#connection?.send({ event: "unsubscribe", data: { channel: name } });
    return this.#channels.size > 0;
  }

  // ---- the connection ----

  async #run(/** @type {AbortSignal} */ signal) {
    const { clock } = this.#io;
    const pause = new Pause(clock);
    const deaf = this.#page.listen(() => {
      pause.wake();
      if (this.#connection?.isSilentFor(PING_MS + STALE_MS)) this.#connection.close();
    });
    try {
      this.#show("connecting");
      for (let attempt = 0; ; ) {
        let lasted = 0;
        try {
          const since = clock.now();
          await this.#serve(signal);
          lasted = clock.now() - since;
        } catch (error) {
          if (signal.aborted) return;
          if (!(error instanceof TailraceError)) throw error;
          if (isRefused(error)) return this.#refuse(error);
        }
        if (signal.aborted) return;
        attempt = lasted >= STABLE_MS ? 1 : attempt + 1;
        this.#show("reconnecting");
        await pause.wait(jitter(attempt, this.#random), signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      deaf();
    }
  }

  /** One connection, from its opening to its end. */
  async #serve(/** @type {AbortSignal} */ signal) {
    const connection = await SocketConnection.open(this.#io, (frame) => this.#take(connection, frame), {
      signal,
      pingMs: PING_MS,
    });
    this.#connection = connection;
    connection.send({ event: "whoami" });
    await connection.closed;
    if (this.#connection === connection) this.#connection = null;
    for (const channel of this.#channels.values()) channel.lost();
  }

  #refuse(/** @type {TailraceError} */ error) {
    this.disconnect();
    for (const channel of this.#channels.values()) channel.refused(error);
  }

  #take(/** @type {SocketConnection} */ connection, /** @type {Frame} */ frame) {
    if (connection !== this.#connection) return;
    if (frame.event === "whoami") {
      this.#show("connected");
      for (const channel of this.#channels.values()) this.#subscribe(channel);
    } else if (typeof frame.channel === "string") this.#channels.get(frame.channel)?.take(frame);
  }

  /** Nothing is asked before the socket knows its id: then all channels are. */
  async #subscribe(/** @type {Channel} */ channel) {
    const connection = this.#connection;
    const running = this.#running;
    if (!connection?.socketId || running === null) return;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await connection.subscribe(channel.subscription);
      } catch (error) {
        if (connection !== this.#connection || this.#channels.get(channel.name) !== channel) return;
        const known = error instanceof TailraceError ? error : new TailraceError(String(error), { cause: error });
        if (attempt >= SUBSCRIPTIONS || isRefused(known)) return channel.refused(known);
        const atLeast = (known.retryAfter ?? 0) * 1000;
        try {
          await new Pause(this.#io.clock).wait(jitter(attempt, this.#random), running.signal, atLeast);
        } catch {
          return;
        }
      }
    }
  }

  #show(/** @type {SocketStatus} */ status) {
    if (status === this.#status) return;
    this.#status = status;
    for (const watcher of [...this.#watchers]) watcher(status);
  }
}
