// Requests to the API, each with the token of its moment.

import { TailraceError, refusal, unreachable } from "./errors.js";

/** @import { ClientOptions } from "./types.js" */

/**
 * @typedef {object} Asked
 * @property {string} [method]
 * @property {string | null} [body]  JSON text
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

const STREAMS_OR_WAITS = /\/(stream|events)(\?|$)/;

export class Requests {
  #url;
  #streamUrl;
  #token;
  #headers;
  #fetch;

  /** @param {Pick<ClientOptions, "url" | "streamUrl" | "token" | "headers" | "fetch">} options */
  constructor({ url = "", streamUrl = url, token, headers, fetch }) {
    this.#url = url.replace(/\/+$/, "");
    this.#streamUrl = streamUrl.replace(/\/+$/, "");
    this.#token = token;
    this.#headers = headers;
    this.#fetch = fetch;
  }

  /**
   * @param {string} path
   * @param {Asked} [asked]
   * @returns {Promise<Response>} one that is ok
   */
  async send(path, { method = "GET", body = null, headers = {}, signal } = {}) {
    const all = { ...(await this.#own()), ...(body === null ? {} : { "Content-Type": "application/json" }), ...headers };
    signal?.throwIfAborted();
    let response;
    try {
      const fetch = this.#fetch ?? globalThis.fetch;
      const url = STREAMS_OR_WAITS.test(path) ? this.#streamUrl : this.#url;
      response = await fetch(url + path, { method, body, headers: all, signal: signal ?? null, cache: "no-store" });
    } catch (error) {
      signal?.throwIfAborted();
      throw unreachable(error);
    }
    if (response.ok) return response;
    throw await refusal(response);
  }

  /**
   * @param {string} path
   * @param {Omit<Asked, "body"> & {body?: unknown}} [asked]
   * @returns {Promise<any>}
   */
  async json(path, { body, ...asked } = {}) {
    const response = await this.send(path, { ...asked, body: body === undefined ? null : JSON.stringify(body) });
    if (response.status === 204) return null;
    try {
      return await response.json();
    } catch (error) {
      asked.signal?.throwIfAborted();
      throw unreachable(error);
    }
  }

  /** The bearer token, for what can send no headers. */
  async bearer() {
    const { Authorization = "" } = await this.#own();
    return Authorization.startsWith("Bearer ") ? Authorization.slice("Bearer ".length) : null;
  }

  /** @returns {Promise<Record<string, string>>} */
  async #own() {
    try {
      const headers = typeof this.#headers === "function" ? await this.#headers() : this.#headers;
      const token = await this.#token?.();
      const own = typeof token === "string" ? { Authorization: `Bearer ${token}` } : token;
      return { ...headers, ...own };
    } catch (error) {
      // Whoever gives tokens may be out of reach as well as the server.
      if (error instanceof TailraceError) throw error;
      throw new TailraceError("The token could not be had.", { type: "unreachable", cause: error });
    }
  }
}

/** A path with ids in it, which may come from anywhere, such as a page's address. */
export const path = (/** @type {TemplateStringsArray} */ texts, /** @type {unknown[]} */ ...ids) =>
  String.raw(texts, ...ids.map((id) => encodeURIComponent(String(id))));

/** The query of a path: what is null or undefined is left out. */
export function query(/** @type {Record<string, unknown>} */ parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}
