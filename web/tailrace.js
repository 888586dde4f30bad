// The browser client of Tailrace: conversations, and replies that are resumed exactly, whatever happens to the network.
// An ES module without dependencies, for browsers and for Node 22 and newer. docs/clients/browser.md says how it is used.

import { TailraceError } from "./tailrace/errors.js";
import { Reply } from "./tailrace/reply.js";
import { Requests, path, query } from "./tailrace/requests.js";
import { Socket } from "./tailrace/socket.js";
import { newStart } from "./tailrace/start.js";
import { PageEvents, systemClock } from "./tailrace/waiting.js";

export { Reply, TailraceError };

/** @import { Channel, ChannelOptions } from "./tailrace/channel.js" */

/** @import { Io, ReplyOptions } from "./tailrace/reply.js" */
/**
 * @typedef {import("./tailrace/types.js").ClientOptions} ClientOptions
 * @typedef {import("./tailrace/types.js").ConnectionState} ConnectionState
 * @typedef {import("./tailrace/types.js").Conversation} Conversation
 * @typedef {import("./tailrace/types.js").Delivery} Delivery
 * @typedef {import("./tailrace/types.js").Grant} Grant
 * @typedef {import("./tailrace/types.js").Message} Message
 * @typedef {import("./tailrace/types.js").Progress} Progress
 * @typedef {import("./tailrace/types.js").ReplyEvent} ReplyEvent
 * @typedef {import("./tailrace/types.js").Saved} Saved
 * @typedef {import("./tailrace/types.js").StartBody} StartBody
 * @typedef {import("./tailrace/types.js").Tool} Tool
 */

const ATTEMPTS = 20;

export class Tailrace {
  #requests;
  /** @type {Io} */
  #io;
  /** @type {Socket | null} */
  #socket = null;
  #namespace;

  /** @param {ClientOptions} [options] */
  constructor({ socketUrl, WebSocket, namespace, ...options } = {}) {
    const requests = new Requests(options);
    const clock = options.clock ?? systemClock;
    const random = options.random ?? Math.random;
    const page = new PageEvents(options.page);
    const socket = socketUrl ? { url: socketUrl, requests, authPath: "/broadcasting/auth", WebSocket, clock } : null;
    if (socket !== null) this.#socket = new Socket(socket, random, page);
    this.#requests = requests;
    this.#namespace = namespace;
    this.conversations = new Conversations(requests);
    this.#io = {
      requests,
      clock,
      random,
      page,
      attempts: options.attempts ?? ATTEMPTS,
      socket,
      blocked: { until: 0, body: false, head: false },
      begin: (begun, more) => new Reply(this.#io, begun, more),
    };
  }

  /**
   * A page of a conversation's messages: in order, or with `order: "desc"` from the end; `before` is a message's id.
   *
   * @param {string} conversationId
   * @param {{limit?: number, cursor?: string | null, order?: "asc" | "desc", before?: string, signal?: AbortSignal}} [asked]
   * @returns {Promise<{messages: Message[], next_cursor: string | null}>}
   */
  messages(conversationId, { signal, ...asked } = {}) {
    return this.#requests.json(path`/conversations/${conversationId}/messages` + query(asked), signal && { signal });
  }

  /** A message as it stands; of a reply that is being written, the text so far. @returns {Promise<Message>} */
  message(/** @type {string} */ messageId, /** @type {{signal?: AbortSignal}} */ options = {}) {
    return this.#requests.json(path`/messages/${messageId}`, options);
  }

  /**
   * Add a message without starting a reply.
   *
   * @param {string} conversationId
   * @param {{role: Message["role"], content: string, metadata?: Record<string, any>}} body
   * @returns {Promise<Message>}
   */
  add(conversationId, body) {
    const headers = this.#except(true);
    return this.#requests.json(path`/conversations/${conversationId}/messages`, { method: "POST", body, headers });
  }

  /** Hide a message, from sight and from the next prompt. @returns {Promise<void>} */
  async delete(/** @type {string} */ messageId) {
    await this.#requests.json(path`/messages/${messageId}`, { method: "DELETE" });
  }

  /** @returns {Promise<Message>} */
  restore(/** @type {string} */ messageId) {
    return this.#requests.json(path`/messages/${messageId}/restore`, { method: "POST" });
  }

  /**
   * Start a reply; it is there at once, and `reply.started` says when the server has taken it. One start is one reply,
   * whatever happens to its answer.
   *
   * @param {string} conversationId
   * @param {StartBody} body
   * @param {ReplyOptions & {key?: string, toOthers?: boolean}} [options]  `key`: the idempotency key, if it is to be one of
   *   yours; `toOthers`: whether this client's own channels are not told of it, true when left out
   */
  start(conversationId, body, { key, toOthers = true, ...options } = {}) {
    const headers = () => this.#except(toOthers);
    return this.#io.begin(
      { conversationId, start: newStart(body, key, headers), ...(body.delivery && { delivery: body.delivery }) },
      options,
    );
  }

  /** @returns {Record<string, string>} */
  #except(/** @type {boolean} */ toOthers) {
    const id = this.#socket?.socketId;
    return toOthers && id ? { "X-Socket-ID": id } : {};
  }

  /**
   * Follow a reply from a cursor, from its beginning, from what a message says of it, or from what `JSON.stringify(reply)`
   * kept.
   *
   * @param {string | Message | Saved} reply
   * @param {ReplyOptions & {after?: string | null, text?: string, delivery?: Delivery}} [options]  what `after` comes
   *   after: `text`
   */
  follow(reply, { after = null, text = "", delivery = {}, ...options } = {}) {
    if (typeof reply === "string") {
      return this.#io.begin({ messageId: reply, delivery, before: { text, cursor: after } }, options);
    }
    if ("id" in reply) {
      const before = { text: reply.content, cursor: `${reply.id}:${reply.seq}` };
      return this.#io.begin(
        { messageId: reply.id, conversationId: reply.conversation_id, delivery, before: reply.truncated ? {} : before },
        options,
      );
    }
    const { messageId, conversationId, start } = reply;
    return this.#io.begin(
      {
        messageId,
        conversationId,
        start: start && { ...start, headers: () => ({}) },
        delivery: reply.delivery,
        before: reply,
      },
      options,
    );
  }

  /**
   * A channel on the one WebSocket that all share, by its whole name: `conversation.ID`, `presence-conversation.ID`.
   *
   * @param {string} name
   * @param {ChannelOptions} [options]
   * @returns {Channel}
   */
  channel(name, options = {}) {
    if (this.#socket === null) throw new TailraceError("The client was given no socketUrl.");
    return this.#socket.channel(name, { ...(this.#namespace !== undefined && { namespace: this.#namespace }), ...options });
  }

  /** What the WebSocket is doing: `connecting`, `connected`, `reconnecting` or `disconnected`. */
  get socketStatus() {
    return this.#socket?.status ?? "disconnected";
  }

  /** Call a function at each change of that. @returns {() => void} takes it away */
  onSocketStatus(/** @type {(status: import("./tailrace/socket.js").SocketStatus) => void} */ callback) {
    return this.#socket?.onStatus(callback) ?? (() => {});
  }

  /** Close the WebSocket. */
  disconnect() {
    this.#socket?.disconnect();
  }
}

class Conversations {
  #requests;

  /** @param {Requests} requests */
  constructor(requests) {
    this.#requests = requests;
  }

  /**
   * Yours, newest first.
   *
   * @param {{limit?: number, cursor?: string | null, signal?: AbortSignal}} [asked]
   * @returns {Promise<{conversations: Conversation[], next_cursor: string | null}>}
   */
  list({ signal, ...asked } = {}) {
    return this.#requests.json(`/conversations${query(asked)}`, signal && { signal });
  }

  /**
   * @param {{title?: string | null, system?: string | null, metadata?: Record<string, any>}} [body]
   * @returns {Promise<Conversation>}
   */
  create(body = {}) {
    return this.#requests.json("/conversations", { method: "POST", body });
  }

  /** @returns {Promise<Conversation>} */
  get(/** @type {string} */ id) {
    return this.#requests.json(path`/conversations/${id}`);
  }

  /** @returns {Promise<Conversation>} */
  rename(/** @type {string} */ id, /** @type {string} */ title) {
    return this.#requests.json(path`/conversations/${id}`, { method: "PATCH", body: { title } });
  }

  /** Hide a conversation and its messages; its open replies are cancelled. @returns {Promise<void>} */
  async delete(/** @type {string} */ id) {
    await this.#requests.json(path`/conversations/${id}`, { method: "DELETE" });
  }

  /** @returns {Promise<Conversation>} */
  restore(/** @type {string} */ id) {
    return this.#requests.json(path`/conversations/${id}/restore`, { method: "POST" });
  }

  /**
   * Let somebody else in: whoever has the `token` of what is returned, or another owner.
   *
   * @param {string} id
   * @param {{right?: "read" | "write", message_id?: string, expires_in?: number, owner?: string}} [body]
   * @returns {Promise<Grant>}
   */
  share(id, body = {}) {
    return this.#requests.json(path`/conversations/${id}/grants`, { method: "POST", body });
  }

  /** Who else may do what. @returns {Promise<{grants: Grant[]}>} */
  grants(/** @type {string} */ id) {
    return this.#requests.json(path`/conversations/${id}/grants`);
  }

  /** Take one of them back. @returns {Promise<void>} */
  async revoke(/** @type {string} */ id, /** @type {string} */ grantId) {
    await this.#requests.json(path`/conversations/${id}/grants/${grantId}`, { method: "DELETE" });
  }
}
