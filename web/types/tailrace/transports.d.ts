/**
 * Server-sent events.
 *
 * @param {Requests} requests
 * @param {Link} link
 */
export function sse(requests: Requests, link: Link): Promise<void>;
/**
 * A start, and the events of its answer.
 *
 * @param {Requests} requests
 * @param {Link} link
 * @param {Start} start
 * @param {boolean} onlyId  leave it once the reply's id is known
 */
export function startSse(requests: Requests, link: Link, { address, key, body, headers }: Start, onlyId: boolean): Promise<void>;
/**
 * A start whose answer is the whole reply: what is left where somebody in between keeps everything until it is whole.
 *
 * @param {Requests} requests
 * @param {Link} link
 * @param {Start} start
 */
export function startWhole(requests: Requests, link: Link, { address, key, body, headers }: Start): Promise<void>;
/**
 * Long polls, one after the other.
 *
 * @param {Requests} requests
 * @param {Link} link
 */
export function polling(requests: Requests, link: Link): Promise<void>;
/**
 * A subscription to the reply's channel, on a connection of its own: so what was missed comes before what comes live, and
 * what somebody else listens to on the same channel is not changed.
 *
 * @param {SocketIo} io
 * @param {Link} link
 * @param {string} channel
 */
export function websocket(io: SocketIo, link: Link, channel: string): Promise<void>;
/**
 * one connection of one reply
 */
export type Link = {
    signal: AbortSignal;
    messageId: string | null;
    /**
     * as it is now
     */
    cursor: string | null;
    delivery: Delivery;
    /**
     * something came, if only a comment; and how many milliseconds nothing may
     * come now
     */
    heard: (patience?: number) => void;
    /**
     * the same, of a body: nobody in between keeps all of it
     */
    came: () => void;
    opened: (messageId: string | null) => void;
    /**
     * whether a body has nothing in it
     */
    isOverSoon: (first: Promise<{
        done: boolean;
    }>) => Promise<boolean>;
    /**
     * whether that was the end
     */
    deliver: (raw: Raw, id: string | null) => boolean;
    /**
     * it has ended; the message, if it came with that
     */
    over: (message: Message | null) => void;
};
export type Start = {
    address: string;
    key: string;
    body: string;
    headers: Record<string, string>;
};
import type { Requests } from "./requests.js";
import type { SocketIo } from "./socket-connection.js";
import type { Delivery } from "./types.js";
import type { Raw } from "./types.js";
import type { Message } from "./types.js";
