export class Socket {
    /**
     * @param {SocketIo} io
     * @param {() => number} random
     * @param {PageEvents} page
     */
    constructor(io: SocketIo, random: () => number, page: PageEvents);
    get status(): SocketStatus;
    /** Null while there is no connection. */
    get socketId(): string | null;
    /** Call a function at each change. @returns {() => void} takes it away */
    onStatus(callback: (status: SocketStatus) => void): () => void;
    connect(): void;
    /** For good, until `connect()` or another channel. */
    disconnect(): void;
    /**
     * Return a channel, subscribed or about to be; the same for the same name.
     *
     * @param {string} name
     * @param {ChannelOptions} [options]
     */
    channel(name: string, options?: ChannelOptions): Channel;
    /** Leave a channel. @returns {boolean} whether there are others */
    leave(name: string): boolean;
    #private;
}
export type SocketStatus = "connecting" | "connected" | "reconnecting" | "disconnected";
import type { ChannelOptions } from "./channel.js";
import { Channel } from "./channel.js";
import type { SocketIo } from "./socket-connection.js";
import type { PageEvents } from "./waiting.js";
