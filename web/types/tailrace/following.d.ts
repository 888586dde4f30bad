export class Following {
    /**
     * @param {Network} network
     * @param {Followed} reply
     * @param {Transport} [transport]  this one and no other
     */
    constructor(network: Network, reply: Followed, transport?: Transport);
    /** What the connection is doing. */
    get state(): ConnectionState;
    /** Cut the connection, as a network does. */
    cut(): void;
    /** For good. */
    leave(): void;
    /**
     * Follow the reply.
     *
     * @returns {Promise<End | null>} its end; null when it was left
     */
    run(): Promise<End | null>;
    #private;
}
/**
 * what there is of it
 */
export type Network = {
    requests: Requests;
    clock: Clock;
    random: () => number;
    page: PageEvents;
    attempts: number;
    socket: SocketIo | null;
    blocked: Blocked;
};
/**
 * what was found out, for the replies that follow
 */
export type Blocked = {
    /**
     * when it is looked at again, by the clock
     */
    until: number;
    /**
     * somebody in between keeps streams until they are whole
     */
    body: boolean;
    /**
     * their beginning too
     */
    head: boolean;
};
/**
 * the reply, as its connections know it
 */
export type Followed = {
    messageId: string | null;
    conversationId: string | null;
    start: Started | null;
    delivery: Delivery;
    cursor: () => string | null;
    identified: (messageId: string) => void;
    /**
     * an event that may be known
     */
    heard: (raw: Raw, id: string | null, transport: Transport | "whole") => void;
    changed: (connection: ConnectionState) => void;
};
export type End = {
    message: Message;
    raw: Raw | null;
    id: string | null;
};
import type { ConnectionState } from "./types.js";
import type { Transport } from "./types.js";
import type { Requests } from "./requests.js";
import type { Clock } from "./types.js";
import type { PageEvents } from "./waiting.js";
import type { SocketIo } from "./socket-connection.js";
import type { Started } from "./start.js";
import type { Delivery } from "./types.js";
import type { Raw } from "./types.js";
import type { Message } from "./types.js";
