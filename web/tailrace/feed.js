// The events of a reply for one reader, who may be slow.

import { TailraceError } from "./errors.js";

/** @import { ReplyEvent } from "./types.js" */

const MERGED = 256; // events that wait, before text is joined

/** Text that waits is joined, so that what waits never weighs more than the reply. */
export class Feed {
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
