export class Tailrace {
    /** @param {ClientOptions} [options] */
    constructor({ socketUrl, WebSocket, namespace, ...options }?: ClientOptions);
    conversations: Conversations;
    /**
     * A page of a conversation's messages: in order, or with `order: "desc"` from the end; `before` is a message's id.
     *
     * @param {string} conversationId
     * @param {{limit?: number, cursor?: string | null, order?: "asc" | "desc", before?: string, signal?: AbortSignal}} [asked]
     * @returns {Promise<{messages: Message[], next_cursor: string | null}>}
     */
    messages(conversationId: string, { signal, ...asked }?: {
        limit?: number;
        cursor?: string | null;
        order?: "asc" | "desc";
        before?: string;
        signal?: AbortSignal;
    }): Promise<{
        messages: Message[];
        next_cursor: string | null;
    }>;
    /** A message as it stands; of a reply that is being written, the text so far. @returns {Promise<Message>} */
    message(messageId: string, options?: {
        signal?: AbortSignal;
    }): Promise<Message>;
    /**
     * Add a message without starting a reply.
     *
     * @param {string} conversationId
     * @param {{role: Message["role"], content: string, metadata?: Record<string, any>}} body
     * @returns {Promise<Message>}
     */
    add(conversationId: string, body: {
        role: Message["role"];
        content: string;
        metadata?: Record<string, any>;
    }): Promise<Message>;
    /** Hide a message, from sight and from the next prompt. @returns {Promise<void>} */
    delete(messageId: string): Promise<void>;
    /** @returns {Promise<Message>} */
    restore(messageId: string): Promise<Message>;
    /**
     * Start a reply; it is there at once, and `reply.started` says when the server has taken it. One start is one reply,
     * whatever happens to its answer.
     *
     * @param {string} conversationId
     * @param {StartBody} body
     * @param {ReplyOptions & {key?: string, toOthers?: boolean}} [options]  `key`: the idempotency key, if it is to be one of
     *   yours; `toOthers`: whether this client's own channels are not told of it, true when left out
     */
    start(conversationId: string, body: StartBody, { key, toOthers, ...options }?: ReplyOptions & {
        key?: string;
        toOthers?: boolean;
    }): Reply;
    /**
     * Follow a reply from a cursor, from its beginning, from what a message says of it, or from what `JSON.stringify(reply)`
     * kept.
     *
     * @param {string | Message | Saved} reply
     * @param {ReplyOptions & {after?: string | null, text?: string, delivery?: Delivery}} [options]  what `after` comes
     *   after: `text`
     */
    follow(reply: string | Message | Saved, { after, text, delivery, ...options }?: ReplyOptions & {
        after?: string | null;
        text?: string;
        delivery?: Delivery;
    }): Reply;
    /**
     * A channel on the one WebSocket that all share, by its whole name: `conversation.ID`, `presence-conversation.ID`.
     *
     * @param {string} name
     * @param {ChannelOptions} [options]
     * @returns {Channel}
     */
    channel(name: string, options?: ChannelOptions): Channel;
    /** What the WebSocket is doing: `connecting`, `connected`, `reconnecting` or `disconnected`. */
    get socketStatus(): import("./tailrace/socket.js").SocketStatus;
    /** Call a function at each change of that. @returns {() => void} takes it away */
    onSocketStatus(callback: (status: import("./tailrace/socket.js").SocketStatus) => void): () => void;
    /** Close the WebSocket. */
    disconnect(): void;
    #private;
}
export type ClientOptions = import("./tailrace/types.js").ClientOptions;
export type ConnectionState = import("./tailrace/types.js").ConnectionState;
export type Conversation = import("./tailrace/types.js").Conversation;
export type Delivery = import("./tailrace/types.js").Delivery;
export type Grant = import("./tailrace/types.js").Grant;
export type Message = import("./tailrace/types.js").Message;
export type Progress = import("./tailrace/types.js").Progress;
export type ReplyEvent = import("./tailrace/types.js").ReplyEvent;
export type Saved = import("./tailrace/types.js").Saved;
export type StartBody = import("./tailrace/types.js").StartBody;
export type Tool = import("./tailrace/types.js").Tool;
import { Reply } from "./tailrace/reply.js";
import { TailraceError } from "./tailrace/errors.js";
declare class Conversations {
    /** @param {Requests} requests */
    constructor(requests: Requests);
    /**
     * Yours, newest first.
     *
     * @param {{limit?: number, cursor?: string | null, signal?: AbortSignal}} [asked]
     * @returns {Promise<{conversations: Conversation[], next_cursor: string | null}>}
     */
    list({ signal, ...asked }?: {
        limit?: number;
        cursor?: string | null;
        signal?: AbortSignal;
    }): Promise<{
        conversations: Conversation[];
        next_cursor: string | null;
    }>;
    /**
     * @param {{title?: string | null, system?: string | null, metadata?: Record<string, any>}} [body]
     * @returns {Promise<Conversation>}
     */
    create(body?: {
        title?: string | null;
        system?: string | null;
        metadata?: Record<string, any>;
    }): Promise<Conversation>;
    /** @returns {Promise<Conversation>} */
    get(id: string): Promise<Conversation>;
    /** @returns {Promise<Conversation>} */
    rename(id: string, title: string): Promise<Conversation>;
    /** Hide a conversation and its messages; its open replies are cancelled. @returns {Promise<void>} */
    delete(id: string): Promise<void>;
    /** @returns {Promise<Conversation>} */
    restore(id: string): Promise<Conversation>;
    /**
     * Let somebody else in: whoever has the `token` of what is returned, or another owner.
     *
     * @param {string} id
     * @param {{right?: "read" | "write", message_id?: string, expires_in?: number, owner?: string}} [body]
     * @returns {Promise<Grant>}
     */
    share(id: string, body?: {
        right?: "read" | "write";
        message_id?: string;
        expires_in?: number;
        owner?: string;
    }): Promise<Grant>;
    /** Who else may do what. @returns {Promise<{grants: Grant[]}>} */
    grants(id: string): Promise<{
        grants: Grant[];
    }>;
    /** Take one of them back. @returns {Promise<void>} */
    revoke(id: string, grantId: string): Promise<void>;
    #private;
}
import type { ReplyOptions } from "./tailrace/reply.js";
import type { ChannelOptions } from "./tailrace/channel.js";
import type { Channel } from "./tailrace/channel.js";
import { Requests } from "./tailrace/requests.js";
export { Reply, TailraceError };
