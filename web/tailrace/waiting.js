// How long to wait before another attempt, and what ends the wait early.

/** @import { Clock, Page } from "./types.js" */

const FIRST_MS = 500;
const LONGEST_MS = 30_000;

/** @type {Clock} */
export const systemClock = {
  now: () => Date.now(),
  setTimeout: (run, milliseconds) => globalThis.setTimeout(run, milliseconds),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
};

/**
 * Full jitter: any time up to a bound that doubles with each attempt
 * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 *
 * @param {number} attempt  from 1
 * @param {() => number} random
 */
export const jitter = (attempt, random) => random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt - 1, 16));

/**
 * What a browser says of its network and its tab. Elsewhere it says nothing.
 */
export class PageEvents {
  #page;

  constructor(/** @type {Page | undefined} */ page) {
    this.#page = page ?? /** @type {Page} */ (globalThis);
  }

  get offline() {
    return this.#page.navigator?.onLine === false;
  }

  /**
   * Call a function whenever the network may be back, or the tab is shown again.
   *
   * @param {() => void} awake
   * @returns {() => void} removes it
   */
  listen(awake) {
    const { window, document } = this.#page;
    const shown = () => document?.visibilityState !== "hidden" && awake();
    window?.addEventListener?.("online", awake);
    document?.addEventListener?.("visibilitychange", shown);
    return () => {
      window?.removeEventListener?.("online", awake);
      document?.removeEventListener?.("visibilitychange", shown);
    };
  }
}

/** One wait at a time, which ends by time, by `wake()` or by its signal. */
export class Pause {
  #clock;
  /** @type {(() => void) | null} */
  #end = null;
  #notBefore = 0;

  constructor(/** @type {Clock} */ clock) {
    this.#clock = clock;
  }

  /**
   * @param {number} milliseconds
   * @param {AbortSignal} signal
   * @param {number} [atLeast]  milliseconds which `wake()` does not shorten
   * @returns {Promise<void>}
   */
  async wait(milliseconds, signal, atLeast = 0) {
    signal.throwIfAborted();
    this.#notBefore = this.#clock.now() + atLeast;
    let timer;
    const end = () => this.#end?.();
    await new Promise((resolve) => {
      this.#end = () => resolve(undefined);
      signal.addEventListener("abort", end);
      timer = this.#clock.setTimeout(end, Math.max(milliseconds, atLeast));
    });
    this.#end = null;
    signal.removeEventListener("abort", end);
    this.#clock.clearTimeout(timer);
    signal.throwIfAborted();
  }

  wake() {
    if (this.#clock.now() >= this.#notBefore) this.#end?.();
  }
}

/**
 * Call a function again and again.
 *
 * @param {Clock} clock
 * @param {number} milliseconds
 * @param {() => void} run
 * @returns {() => void} ends it
 */
export function every(clock, milliseconds, run) {
  /** @type {any} */
  let timer;
  const again = () => {
    timer = clock.setTimeout(() => {
      again();
      run();
    }, milliseconds);
  };
  again();
  return () => clock.clearTimeout(timer);
}
