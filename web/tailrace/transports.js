// The ways a reply comes over HTTP. Each gives a link what it hears, and returns when the connection is over: only a
// terminal event is the end of the reply.

import { query } from "./requests.js";
import { EventDecoder } from "./sse.js";
import { TailraceError, unreachable } from "./errors.js";

/** @import { Requests } from "./requests.js" */
/** @import { Delivery, Message, Raw } from "./types.js" */

/**
 * @typedef {object} Link  one connection of one reply
 * @property {AbortSignal} signal
 * @property {string | null} messageId
 * @property {string | null} cursor
 * @property {Delivery} delivery
 * @property {() => void} heard  something came, if only a comment
 * @property {(messageId: string | null) => void} opened
 * @property {(raw: Raw, id: string | null) => boolean} deliver  whether that was the end
 * @property {(message: Message | null) => void} over  it has ended; the message, if it came with that
 */

/**
 * Server-sent events; a start when there is no message yet.
 *
 * @param {Requests} requests
 * @param {Link} link
 * @param {{path: string, key: string, body: string, headers: Record<string, string>}} [start]
 * @param {boolean} [onlyId]  leave once the reply's id is known
 */
export async function stream(requests, link, start, onlyId = false) {
  const { signal, messageId, cursor, delivery } = link;
  const response = await (start && messageId === null
    ? requests.send(start.path, {
        method: "POST",
        body: start.body,
        headers: { ...start.headers, Accept: "text/event-stream", "Idempotency-Key": start.key },
        signal,
      })
    : requests.send(`/messages/${messageId}/stream${query({ after: cursor, ...delivery })}`, {
        headers: { Accept: "text/event-stream" },
        signal,
      }));
  if (response.status === 204) {
    link.opened(response.headers.get("X-Message-Id"));
    return link.over(null);
  }
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || response.body === null) {
    await response.body?.cancel().catch(() => {});
    throw new TailraceError("What came is no stream of events.", { type: "unreachable" });
  }
  link.heard();
  link.opened(response.headers.get("X-Message-Id"));
  const reader = response.body.getReader();
  try {
    if (onlyId) return;
    const decoder = new EventDecoder();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      link.heard();
      for (const { id, data } of decoder.feed(value)) {
        if (link.deliver(JSON.parse(data), id || null)) return;
      }
    }
  } catch (error) {
    signal.throwIfAborted();
    throw unreachable(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}
