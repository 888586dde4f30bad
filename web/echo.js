// A broadcaster for Laravel Echo 2: `new Echo({ broadcaster: TailraceBroadcaster, host: "wss://..." })`. It speaks the
// wire of npm laravel-echo-api-gateway; docs/clients/browser.md says what it does besides.

import { Requests } from "./tailrace/requests.js";
import { Socket } from "./tailrace/socket.js";
import { PageEvents, systemClock } from "./tailrace/waiting.js";

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
  /** By their whole names, as `Echo.leaveAllChannels` looks for them. @type {Record<string, Channel>} */
  channels = {};
  options;
  #socket;

  /** @param {BroadcasterOptions} options */
  constructor(options) {
    this.options = options;
    const { host, authEndpoint = "/broadcasting/auth", auth, bearerToken, csrfToken } = options;
    const csrf = csrfToken ?? pageToken();
    const requests = new Requests({
      headers: { ...(csrf && { "X-CSRF-TOKEN": csrf }), ...auth?.headers },
      token: () => (typeof bearerToken === "function" ? bearerToken() : bearerToken),
      ...(options.fetch && { fetch: options.fetch }),
    });
    const clock = options.clock ?? systemClock;
    this.#socket = new Socket(
      { url: host, requests, authPath: authEndpoint, WebSocket: options.WebSocket, clock },
      options.random ?? Math.random,
      new PageEvents(options.page),
    );
    this.connect();
  }

  connect() {
    this.#socket.connect();
  }

  /** @param {string} name @returns {Channel} */
  channel(name) {
    const { namespace, delivery } = this.options;
    /** @type {ChannelOptions} */
    const options = {
      ...(namespace !== undefined && { namespace: namespace || "" }),
      ...(delivery && { delivery }),
    };
    return (this.channels[name] ??= this.#socket.channel(name, options));
  }

  privateChannel(/** @type {string} */ name) {
    return this.channel(`private-${name}`);
  }

  presenceChannel(/** @type {string} */ name) {
    return this.channel(`presence-${name}`);
  }

  listen(/** @type {string} */ name, /** @type {string} */ event, /** @type {(data: any) => void} */ callback) {
    return this.channel(name).listen(event, callback);
  }

  leave(/** @type {string} */ name) {
    for (const each of [name, `private-${name}`, `presence-${name}`]) this.leaveChannel(each);
  }

  leaveChannel(/** @type {string} */ name) {
    if (!(name in this.channels)) return;
    this.#socket.leave(name);
    delete this.channels[name];
  }

  socketId() {
    return this.#socket.socketId ?? undefined;
  }

  /** @returns {SocketStatus} */
  connectionStatus() {
    return this.#socket.status;
  }

  /** @returns {() => void} takes it away */
  onConnectionChange(/** @type {(status: SocketStatus) => void} */ callback) {
    return this.#socket.onStatus(callback);
  }

  disconnect() {
    this.#socket.disconnect();
  }
}

/** What a page of Laravel has for its forms. @returns {string | null} */
function pageToken() {
  const page = /** @type {any} */ (globalThis);
  return page.Laravel?.csrfToken ?? page.document?.querySelector?.('meta[name="csrf-token"]')?.content ?? null;
}
