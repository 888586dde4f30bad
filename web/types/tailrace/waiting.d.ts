/**
 * Call a function again and again.
 *
 * @param {Clock} clock
 * @param {number} milliseconds
 * @param {() => void} run
 * @returns {() => void} ends it
 */
export function every(clock: Clock, milliseconds: number, run: () => void): () => void;
/** @type {Clock} */
export const systemClock: Clock;
export function jitter(attempt: number, random: () => number): number;
/**
 * What a browser says of its network and its tab. Elsewhere it says nothing.
 */
export class PageEvents {
    constructor(page: Page | undefined);
    get offline(): boolean;
    /**
     * Call a function whenever the network may be back, or the tab is shown again.
     *
     * @param {() => void} awake
     * @returns {() => void} removes it
     */
    listen(awake: () => void): () => void;
    #private;
}
/** One wait at a time, which ends by time, by `wake()` or by its signal. */
export class Pause {
    constructor(clock: Clock);
    /**
     * @param {number} milliseconds
     * @param {AbortSignal} signal
     * @param {number} [atLeast]  milliseconds which `wake()` does not shorten
     * @returns {Promise<void>}
     */
    wait(milliseconds: number, signal: AbortSignal, atLeast?: number): Promise<void>;
    wake(): void;
    #private;
}
import type { Clock } from "./types.js";
import type { Page } from "./types.js";
