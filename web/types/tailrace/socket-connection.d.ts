export class SocketConnection {
    /**
     * @param {SocketIo} io
     * @param {(frame: Frame) => void} take
     * @param {{signal: AbortSignal, pingMs: number}} options
     * @returns {Promise<SocketConnection>}
     */
    static open(io: SocketIo, take: (frame: Frame) => void, { signal, pingMs }: {
        signal: AbortSignal;
        pingMs: number;
    }): Promise<SocketConnection>;
    /**
     * @param {SocketIo} io
     * @param {WebSocket} socket  one that is open
     * @param {(frame: Frame) => void} take
     * @param {number} pingMs  silence after which the other side is asked whether it is there
     */
    constructor(io: SocketIo, socket: WebSocket, take: (frame: Frame) => void, pingMs: number);
    /** @type {string | null} */
    socketId: string | null;
    /** Resolves when it is over, however that came. @type {Promise<void>} */
    closed: Promise<void>;
    send(frame: Frame): void;
    /** Ask for a channel, with a signature where it needs one. What is answered comes as frames. */
    subscribe({ channel, after, delivery }: Subscription): Promise<void>;
    close(): void;
    /** Whether nothing was heard for so long. */
    isSilentFor(milliseconds: number): boolean;
    #private;
}
export function isSigned(channel: string): boolean;
export type Frame = {
    event: string;
    channel?: string | null;
    data?: any;
};
/**
 * what a connection needs of the outside
 */
export type SocketIo = {
    url: string;
    requests: Requests;
    /**
     * where channels are signed
     */
    authPath: string;
    WebSocket: typeof globalThis.WebSocket | undefined;
    clock: Clock;
};
export type Subscription = {
    channel: string;
    after?: Record<string, string | number> | undefined;
    delivery?: Delivery | undefined;
};
import type { Requests } from "./requests.js";
import type { Clock } from "./types.js";
import type { Delivery } from "./types.js";
