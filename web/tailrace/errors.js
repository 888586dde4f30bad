// What goes wrong, with the server's own sentence.

/**
 * A refusal of the server, a reply that failed, or a server that cannot be reached.
 *
 * `type` is the server's word for it (`not_found`, `conflict`, `rate_limited`, ...), or one of the client's own:
 * `unreachable` (there is no answer), `closed` (`reply.close()` was called), `lost` (given up after many attempts).
 */
export class TailraceError extends Error {
  /**
   * @param {string} message  a sentence that may be shown
   * @param {{type?: string, status?: number | null, retryAfter?: number | null, body?: any, cause?: unknown}} [more]
   */
  constructor(message, { type = "general_error", status = null, retryAfter = null, body = null, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "TailraceError";
    /** The server's word for it, or the client's. */
    this.type = type;
    /** The HTTP status; null when there was no answer. */
    this.status = status;
    /** Seconds after which another try makes sense; null when nothing was said of it. */
    this.retryAfter = retryAfter;
    /** What the server answered, if that was JSON; otherwise null. */
    this.body = body;
  }
}

export const unreachable = (/** @type {unknown} */ cause) =>
  new TailraceError("The server cannot be reached.", { type: "unreachable", cause });

const PASSING = new Set([408, 425, 429]);

/** Whether another attempt would be refused too. */
export const isRefused = (/** @type {TailraceError} */ { status }) =>
  status !== null && status >= 400 && status < 500 && !PASSING.has(status);

/**
 * @param {Response} response  one that is not ok
 * @returns {Promise<TailraceError>}
 */
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  return new TailraceError(body?.error?.message ?? `The server answered with ${response.status}.`, {
    // Without our shape it was somebody in between who answered.
    type: body?.error?.type ?? "general_error",
    status: response.status,
    retryAfter: secondsOf(response.headers.get("Retry-After")),
    body,
  });
}

/** @param {string | null} text  a Retry-After: seconds, or a date */
function secondsOf(text) {
  if (text === null) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}
