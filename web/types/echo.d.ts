/** @import { Channel, ChannelOptions } from "./tailrace/channel.js" */
/** @import { SocketStatus } from "./tailrace/socket.js" */
/** @import { Clock, Page } from "./tailrace/types.js" */
/**
 * @typedef {object} BroadcasterOptions  Echo's, as far as they mean something here
 * @property {string} host  the WebSocket API's address
 * @property {string} [authEndpoint]  `/broadcasting/auth` when left out
 * @property {{headers?: Record<string, string>}} [auth]
 * @property {string | null | (() => string | null | Promise<string | null>)} [bearerToken]  asked at each connection
 * @property {string | null} [csrfToken]
 * @property {string | false} [namespace]
 * @property {import("./tailrace/types.js").Delivery} [delivery]  how all channels want chunks
 * @property {typeof globalThis.fetch} [fetch]
 * @property {typeof globalThis.WebSocket} [WebSocket]
 * @property {() => number} [random]
 * @property {Clock} [clock]
 * @property {Page} [page]
 */
export class TailraceBroadcaster {
    /** @param {BroadcasterOptions} options */
    constructor(options: BroadcasterOptions);
    /** By their whole names, as `Echo.leaveAllChannels` looks for them. @type {Record<string, Channel>} */
    channels: Record<string, Channel>;
    options: BroadcasterOptions;
    connect(): void;
    /** @param {string} name @returns {Channel} */
    channel(name: string): Channel;
    privateChannel(name: string): Channel;
    presenceChannel(name: string): Channel;
    listen(name: string, event: string, callback: (data: any) => void): Channel;
    leave(name: string): void;
    leaveChannel(name: string): void;
    socketId(): string | undefined;
    /** @returns {SocketStatus} */
    connectionStatus(): SocketStatus;
    /** @returns {() => void} takes it away */
    onConnectionChange(callback: (status: SocketStatus) => void): () => void;
    disconnect(): void;
    #private;
}
/**
 * Echo's, as far as they mean something here
 */
export type BroadcasterOptions = {
    /**
     * the WebSocket API's address
     */
    host: string;
    /**
     * `/broadcasting/auth` when left out
     */
    authEndpoint?: string | undefined;
    auth?: {
        headers?: Record<string, string>;
    } | undefined;
    /**
     * asked at each connection
     */
    bearerToken?: string | (() => string | null | Promise<string | null>) | null | undefined;
    csrfToken?: string | null | undefined;
    namespace?: string | false | undefined;
    /**
     * how all channels want chunks
     */
    delivery?: import("./tailrace/types.js").Delivery | undefined;
    fetch?: typeof fetch | undefined;
    WebSocket?: {
        new (url: string | URL, protocols?: string | string[]): WebSocket;
        prototype: WebSocket;
        readonly CONNECTING: 0;
        readonly OPEN: 1;
        readonly CLOSING: 2;
        readonly CLOSED: 3;
    } | undefined;
    random?: (() => number) | undefined;
    clock?: Clock | undefined;
    page?: Page | undefined;
};
import type { Channel } from "./tailrace/channel.js";
import type { SocketStatus } from "./tailrace/socket.js";
import type { Clock } from "./tailrace/types.js";
import type { Page } from "./tailrace/types.js";
