export class Reply extends EventTarget {
    /**
     * @param {Io} io
     * @param {Begun} begun
     * @param {ReplyOptions} [options]
     */
    constructor(io: Io, { messageId, conversationId, start, delivery, before }: Begun, { signal, transport }?: ReplyOptions);
    get messageId(): string | null;
    get conversationId(): string | null;
    /** All text so far. */
    get text(): string;
    get reasoning(): string;
    /** The calls of tools, in their order, each with its state and result. */
    get tools(): Tool[];
    get status(): import("./types.js").Status;
    get progress(): import("./types.js").Progress | null;
    /** The id of the last event; hand it back as `after`. */
    get cursor(): string | null;
    /** The stored message, once the reply has ended. */
    get message(): Message | null;
    /** Why the reply failed, was refused, or cannot be followed. */
    get error(): TailraceError | null;
    get ended(): boolean;
    /** What the connection is doing. */
    get connection(): ConnectionState;
    /** Ids of the calls that wait for a yes, once the reply has ended. */
    get waiting(): string[];
    /** Resolves when the reply's id is known; rejects when the start was refused. */
    get started(): Promise<{
        messageId: string;
        conversationId: string | null;
    }>;
    /** Resolves with the message at the reply's end, also of one that failed; rejects when it cannot be followed. */
    get finished(): Promise<Message>;
    /** What a page keeps in order to follow the reply when it was loaded again: `client.follow(saved)`. @returns {Saved} */
    toJSON(): Saved;
    /** End the reply for everybody; its text so far is kept. @returns {Promise<Message>} */
    stop(): Promise<Message>;
    /** Cut the connection, as a network does; the reply is resumed. */
    disconnect(): void;
    /** Leave the reply, which goes on without us. */
    close(): void;
    /**
     * Say yes or no to the calls that wait: `{call_1: true}`. The reply that goes on is another one.
     *
     * @param {Record<string, Decision>} approvals
     * @param {Partial<StartBody>} [more]
     * @param {ReplyOptions} [options]
     */
    approve(approvals: Record<string, Decision>, more?: Partial<StartBody>, options?: ReplyOptions): Reply;
    /**
     * Go on where the reply broke off, in another one.
     *
     * @param {Partial<StartBody>} [more]
     * @param {ReplyOptions} [options]
     */
    continue(more?: Partial<StartBody>, options?: ReplyOptions): Reply;
    /**
     * @override
     * @template {keyof ReplyEvents} Kind
     * @param {Kind} type
     * @param {(event: ReplyEvents[Kind]) => void} listener
     * @param {AddEventListenerOptions | boolean} [options]
     */
    override addEventListener<Kind extends keyof ReplyEvents>(type: Kind, listener: (event: ReplyEvents[Kind]) => void, options?: AddEventListenerOptions | boolean): void;
    /**
     * @override
     * @template {keyof ReplyEvents} Kind
     * @param {Kind} type
     * @param {(event: ReplyEvents[Kind]) => void} listener
     * @param {EventListenerOptions | boolean} [options]
     */
    override removeEventListener<Kind extends keyof ReplyEvents>(type: Kind, listener: (event: ReplyEvents[Kind]) => void, options?: EventListenerOptions | boolean): void;
    /**
     * Give each event until the end. Whoever begins late gets what is there so far first, joined. Leaving the loop leaves
     * only the loop.
     *
     * @returns {AsyncGenerator<ReplyEvent, void, undefined>}
     */
    [Symbol.asyncIterator](): AsyncGenerator<ReplyEvent, void, undefined>;
    #private;
}
/**
 * which reply, and what of it is there
 */
export type Begun = {
    conversationId?: string | null | undefined;
    messageId?: string | null | undefined;
    start?: Started | null | undefined;
    delivery?: Delivery | undefined;
    before?: {
        text?: string;
        reasoning?: string;
        tools?: Tool[];
        cursor?: string | null;
    } | undefined;
};
/**
 * what a reply needs of the outside
 */
export type Io = Network & {
    begin: (begun: Begun, options?: ReplyOptions) => Reply;
};
export type ReplyOptions = {
    /**
     * leaves the reply, which goes on without us
     */
    signal?: AbortSignal | undefined;
    /**
     * this one and no other
     */
    transport?: Transport | undefined;
};
export type ReplyEvents = {
    /**
     * something of the reply's state is new; once for what came at once
     */
    change: Event;
    raw: CustomEvent<{
        id: string | null;
        data: Raw;
        transport: Transport | "whole";
    }>;
    connection: CustomEvent<ConnectionState>;
};
import type { Tool } from "./types.js";
import type { Message } from "./types.js";
import { TailraceError } from "./errors.js";
import type { ConnectionState } from "./types.js";
import type { Saved } from "./types.js";
import type { Decision } from "./types.js";
import type { StartBody } from "./types.js";
import type { ReplyEvent } from "./types.js";
import type { Started } from "./start.js";
import type { Delivery } from "./types.js";
import type { Network } from "./following.js";
import type { Transport } from "./types.js";
import type { Raw } from "./types.js";
