// A start, which may have to be sent more than once.

/** @import { StartBody } from "./types.js" */

/**
 * @typedef {object} Started
 * @property {string} key
 * @property {string} body  JSON text
 * @property {() => Record<string, string>} headers
 */

/**
 * A start, as it is sent each time: whatever happens to its answer, one key and one body are one reply.
 *
 * @param {StartBody} body
 * @param {string} [key]
 * @param {() => Record<string, string>} [headers]
 * @returns {Started}
 */
export const newStart = (body, key = randomKey(), headers = () => ({})) => ({
  key,
  body: JSON.stringify(body),
  headers,
});

/** 122 random bits and more. `crypto.randomUUID` is not there on a page that came over plain http. */
const randomKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
