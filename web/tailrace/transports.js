// The ways a reply comes. Each gives a link what it hears, and returns when the connection is over: only a terminal event
// is the end of the reply.

import { TailraceError, unreachable } from "./errors.js";
import { chunkIs, placeOf, placeText, spanOf } from "./place.js";
import { path, query } from "./requests.js";
import { SocketConnection, isSigned } from "./socket-connection.js";
import { EventDecoder } from "./sse.js";
import { TERMINAL } from "./state.js";
import { every } from "./waiting.js";

/** @import { Requests } from "./requests.js" */
/** @import { Frame, SocketIo } from "./socket-connection.js" */
/** @import { Delivery, Message, Raw } from "./types.js" */

/**
 * @typedef {object} Link  one connection of one reply
 * @property {AbortSignal} signal
 * @property {string | null} messageId
 * @property {string | null} cursor  as it is now
 * @property {Delivery} delivery
 * @property {(patience?: number) => void} heard  something came, if only a comment; and how many milliseconds nothing may
 *   come now
 * @property {() => void} came  the same, of a body: nobody in between keeps all of it
 * @property {(messageId: string | null) => void} opened
 * @property {(first: Promise<{done: boolean}>) => Promise<boolean>} isOverSoon  whether a body has nothing in it
 * @property {(raw: Raw, id: string | null) => boolean} deliver  whether that was the end
 * @property {(message: Message | null) => void} over  it has ended; the message, if it came with that
 *
 * @typedef {{address: string, key: string, body: string, headers: Record<string, string>}} Start
 */

const LONGEST_POLL_S = 20;
const PATIENCE_MS = 15_000; // beyond what a long poll lasts
const WHOLE_MS = 15 * 60_000; // no function of Lambda lasts longer
const PING_MS = 12_000;
const LOOK_MS = 30_000; // between two looks at a reply of which nothing comes over a WebSocket

/**
 * Server-sent events.
 *
 * @param {Requests} requests
 * @param {Link} link
 */
export async function sse(requests, link) {
  const { signal, messageId, cursor, delivery } = link;
  const address = path`/messages/${messageId}/stream` + query({ after: cursor, ...delivery });
  await read(await requests.send(address, { headers: { Accept: "text/event-stream" }, signal }), link);
}

/**
 * A start, and the events of its answer.
 *
 * @param {Requests} requests
 * @param {Link} link
 * @param {Start} start
 * @param {boolean} onlyId  leave it once the reply's id is known
 */
export async function startSse(requests, link, { address, key, body, headers }, onlyId) {
  const accepting = { ...headers, Accept: "text/event-stream", "Idempotency-Key": key };
  const response = await requests.send(address, { method: "POST", body, headers: accepting, signal: link.signal });
  await read(response, link, onlyId);
}

/**
 * A start whose answer is the whole reply: what is left where somebody in between keeps everything until it is whole.
 *
 * @param {Requests} requests
 * @param {Link} link
 * @param {Start} start
 */
export async function startWhole(requests, link, { address, key, body, headers }) {
  link.heard(WHOLE_MS);
  const accepting = { ...headers, Accept: "application/json", "Idempotency-Key": key };
  try {
    const response = await requests.send(address, { method: "POST", body, headers: accepting, signal: link.signal });
    link.opened(response.headers.get("X-Message-Id"));
    const { message } = await response.json().catch((error) => Promise.reject(unreachable(error)));
    link.over(message);
  } catch (error) {
    // A reply that failed has the status of its failure.
    const message = error instanceof TailraceError ? error.body?.message : undefined;
    if (!message?.id) throw error;
    link.opened(message.id);
    link.over(message);
  }
}

/**
 * @param {Response} response
 * @param {Link} link
 * @param {boolean} [onlyId]
 */
async function read(response, link, onlyId = false) {
  const messageId = response.headers.get("X-Message-Id");
  if (response.status === 204) {
    link.opened(messageId);
    link.over(null);
    return;
  }
  const { body } = response;
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || body === null) {
    await body?.cancel().catch(() => {});
    throw new TailraceError("What came is no stream of events.", { type: "unreachable" });
  }
  link.heard();
  const reader = body.getReader();
  try {
    const decoder = new EventDecoder();
    let next = reader.read();
    next.catch(() => {});
    // Chromium takes a head that was cut for a whole one, and so a part of an id for an id. It is one if anything follows,
    // or if the connection stays.
    if (link.messageId === null && (await link.isOverSoon(next))) return;
    link.opened(messageId);
    if (onlyId && messageId !== null) return;
    for (;; next = reader.read()) {
      const { value, done } = await next;
      if (done || link.signal.aborted) return;
      link.came();
      for (const { id, data } of decoder.feed(value)) {
        if (link.deliver(JSON.parse(data), id || null)) return;
      }
    }
  } catch (error) {
    link.signal.throwIfAborted();
    throw unreachable(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Long polls, one after the other.
 *
 * @param {Requests} requests
 * @param {Link} link
 */
export async function polling(requests, link) {
  const { messageId, delivery, signal } = link;
  for (;;) {
    link.heard(LONGEST_POLL_S * 1000 + PATIENCE_MS);
    const parameters = query({ after: link.cursor ?? 0, wait: LONGEST_POLL_S, ...delivery });
    const events = await requests.json(path`/messages/${messageId}/events` + parameters, { signal });
    if (!Array.isArray(events)) throw new TailraceError("What came is no list of events.", { type: "unreachable" });
    link.opened(null);
    for (const { id, ...raw } of events) if (link.deliver(raw, id)) return;
    if (events.length) continue;
    // None came, or there are no more: the reader had the terminal event already.
    const message = await requests.json(path`/messages/${messageId}`, { signal });
    if (TERMINAL.has(message.status) && message.seq <= placeOf(link.cursor).seq) return link.over(message);
  }
}

/**
 * A subscription to the reply's channel, on a connection of its own: so what was missed comes before what comes live, and
 * what somebody else listens to on the same channel is not changed.
 *
 * @param {SocketIo} io
 * @param {Link} link
 * @param {string} channel
 */
export async function websocket(io, link, channel) {
  const messageId = /** @type {string} */ (link.messageId);
  const over = new AbortController();
  const signal = AbortSignal.any([link.signal, over.signal]);
  /** @type {unknown} */
  let refused = null;
  let isShort = false;
  let isIdle = true;

  const refuse = (/** @type {unknown} */ error) => {
    refused ??= error;
    over.abort();
  };
  const begin = () => {
    const after = { [messageId]: placeText(placeOf(link.cursor)) };
    connection.subscribe({ channel, after, delivery: link.delivery }).catch(refuse);
  };
  // Nothing comes of a reply whose end is there already, nor of one whose end was told to nobody.
  const look = async (isFirst = false) => {
    const before = link.cursor;
    const message = await io.requests.json(path`/messages/${messageId}`, { signal }).catch(() => null);
    if (message === null || signal.aborted || link.cursor !== before) return;
    const isThere = message.seq <= placeOf(before).seq;
    if (isThere && TERMINAL.has(message.status)) link.over(message);
    else if (isThere || isFirst) return;
    else isShort = true;
    over.abort();
  };
  const taken = (/** @type {Frame} */ frame) => {
    link.heard();
    if (frame.event === "whoami") begin();
    if (frame.channel !== channel) return;
    if (frame.event === "subscription_succeeded") {
      link.opened(null);
      void look(true);
    }
    if (frame.event === "error") {
      refuse(new TailraceError(frame.data?.message ?? "The subscription was refused.", { type: "unreachable" }));
    }
    if (frame.data?.message_id !== messageId) return;
    isIdle = false;
    const outcome = take(link, frame);
    if (outcome === "short") isShort = true;
    if (outcome !== "more") over.abort();
  };
  const connection = await SocketConnection.open(io, taken, { signal, pingMs: PING_MS });
  const unwatch = every(io.clock, LOOK_MS, () => {
    if (isIdle) void look();
    isIdle = true;
  });
  try {
    if (isSigned(channel)) connection.send({ event: "whoami" });
    else begin();
    await connection.closed;
  } finally {
    unwatch();
  }
  link.signal.throwIfAborted();
  if (refused !== null) throw refused instanceof TailraceError ? refused : unreachable(refused);
  // The content of the end was too long for a frame, or what was told did not arrive.
  if (isShort) await polling(io.requests, link);
}

/**
 * @param {Link} link
 * @param {Frame} frame
 * @returns {"more" | "end" | "gap" | "short"}
 */
function take(link, { event, data }) {
  if (event.endsWith("MessageChunkReceived")) {
    const is = chunkIs(placeOf(link.cursor), data);
    if (is !== "next") return is === "had" ? "more" : "gap";
    const id = `${data.message_id}:${placeText(spanOf(data).end)}`;
    return link.deliver(rawOf(data), id) ? "end" : "more";
  }
  if (!event.endsWith("MessageCompleted") && !event.endsWith("MessageFailed")) return "more";
  const { message, truncated } = data;
  if (truncated) return "short";
  link.over(message);
  const raw =
    message.status === "completed"
      ? { done: true, message }
      : { error: true, message: data.error, error_type: data.error_type, message_id: message.id };
  link.deliver(raw, `${message.id}:${message.seq}${message.status === "cancelled" || message.status === "interrupted" ? ".0" : ""}`);
  return "end";
}

/** A chunk as the stream has it. @returns {Raw} */
function rawOf(/** @type {Record<string, any>} */ { message_id, chunk, reset, part, sentence_count, progress }) {
  const counted = progress === undefined ? {} : { progress };
  if (reset) return { reset: true, message_id };
  if (part) return { ...part, message_id };
  if (sentence_count !== undefined) return { sentence: chunk, sentence_count, message_id, ...counted };
  return { chunk, message_id, ...counted };
}
