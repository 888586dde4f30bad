// A channel, as Laravel Echo's: listeners, whispers, members. After a reconnect it goes on where it was: it knows how far
// it is in each reply that is being written, leaves out what comes twice, and asks for what is missing.

import { TailraceError } from "./errors.js";
import { chunkIs, placeOf, placeText, spanOf } from "./place.js";
import { isSigned } from "./socket-connection.js";

/** @import { Frame, Subscription } from "./socket-connection.js" */
/** @import { Place } from "./place.js" */
/** @import { Delivery } from "./types.js" */

/**
 * @typedef {(data: any) => void} Listener
 * @typedef {{user_id: string | number, user_info: any}} Member
 *
 * @typedef {object} ChannelOptions
 * @property {string} [namespace]  of the events, "App\Events" when left out
 * @property {Record<string, string | number>} [after]  what is there of each reply: message id to cursor
 * @property {Delivery} [delivery]
 */

const MOST_REPLIES = 20; // that one subscription may name

export class Channel {
  name;
  #send;
  #resubscribe;
  #leave;
  #namespace;
  #delivery;
  /** @type {Map<string, Listener[]>} */
  #listeners = new Map();
  /** @type {Map<string, Place>} */
  #open = new Map();
  /** @type {Set<string>} */
  #ended = new Set();
  /** @type {Member[] | null} */
  #members = null;
  #isSubscribed = false;

  /**
   * @param {string} name  the whole name, such as `presence-conversation.ID`
   * @param {{send: (frame: Frame) => void, resubscribe: (channel: Channel) => void, leave: (channel: Channel) => void}} socket
   * @param {ChannelOptions} [options]
   */
  constructor(name, { send, resubscribe, leave }, { namespace = "App\\Events", after = {}, delivery } = {}) {
    this.name = name;
    this.#send = send;
    this.#resubscribe = resubscribe;
    this.#leave = leave;
    this.#namespace = namespace.replaceAll(".", "\\").replace(/\\+$/, "");
    this.#delivery = delivery;
    for (const [id, cursor] of Object.entries(after)) this.#move(id, placeOf(String(cursor)));
  }

  // ---- listening ----

  /**
   * Call a function for each event of a name: `MessageCompleted`, or `.any.name` without the namespace.
   *
   * @param {string} event
   * @param {Listener} callback
   */
  listen(event, callback) {
    return this.on(this.#named(event), callback);
  }

  /** Take away one listener, or all of an event. */
  stopListening(/** @type {string} */ event, /** @type {Listener} */ callback) {
    return this.#off(this.#named(event), callback);
  }

  /** Call a function for every event, with its name. */
  listenToAll(/** @type {(event: string, data: any) => void} */ callback) {
    this.#all.push(callback);
    return this;
  }

  stopListeningToAll(/** @type {(event: string, data: any) => void} */ callback) {
    this.#all = callback ? this.#all.filter((each) => each !== callback) : [];
    return this;
  }

  /** @type {((event: string, data: any) => void)[]} */
  #all = [];

  listenForWhisper(/** @type {string} */ name, /** @type {Listener} */ callback) {
    return this.on(`client-${name}`, callback);
  }

  stopListeningForWhisper(/** @type {string} */ name, /** @type {Listener} */ callback) {
    return this.#off(`client-${name}`, callback);
  }

  notification(/** @type {Listener} */ callback) {
    return this.listen(NOTIFICATION, callback);
  }

  stopListeningForNotification(/** @type {Listener} */ callback) {
    return this.stopListening(NOTIFICATION, callback);
  }

  /** Call a function each time the subscription has succeeded, after a reconnect too. */
  subscribed(/** @type {Listener} */ callback) {
    if (this.#isSubscribed) queueMicrotask(() => callback(this.#members ?? []));
    return this.on("subscription_succeeded", callback);
  }

  /** Call a function when the subscription is refused, or a whisper. */
  error(/** @type {(error: TailraceError) => void} */ callback) {
    return this.on("error", callback);
  }

  /** As `listen`, by the whole name. */
  on(/** @type {string} */ event, /** @type {Listener} */ callback) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), callback]);
    return this;
  }

  #off(/** @type {string} */ event, /** @type {Listener | undefined} */ callback) {
    const left = callback ? (this.#listeners.get(event) ?? []).filter((each) => each !== callback) : [];
    if (left.length) this.#listeners.set(event, left);
    else this.#listeners.delete(event);
    return this;
  }

  // ---- presence ----

  /** Who is here, on a presence channel. */
  get members() {
    return this.#members ?? [];
  }

  /** Call a function with the members, when the subscription has succeeded and after each reconnect. */
  here(/** @type {(members: Member[]) => void} */ callback) {
    if (this.#members !== null) queueMicrotask(() => callback(this.members));
    return this.on("here", callback);
  }

  joining(/** @type {(member: Member) => void} */ callback) {
    return this.on("presence:joining", callback);
  }

  leaving(/** @type {(member: Member) => void} */ callback) {
    return this.on("presence:leaving", callback);
  }

  /** Tell the others of a private or presence channel something, past the server's log. */
  whisper(/** @type {string} */ name, /** @type {any} */ data) {
    this.#send({ event: `client-${name}`, channel: this.name, data });
    return this;
  }

  // ---- the subscription ----

  /** Ask for what comes after these cursors too: message id to cursor. */
  catchUp(/** @type {Record<string, string | number>} */ after) {
    for (const [id, cursor] of Object.entries(after)) this.#move(id, placeOf(String(cursor)));
    this.#resubscribe(this);
    return this;
  }

  /** What is there of each reply that is being written: keep it, and hand it back as `after`. */
  get cursors() {
    return Object.fromEntries([...this.#open].map(([id, place]) => [id, placeText(place)]));
  }

  leave() {
    this.#leave(this);
  }

  /** What is asked for now. @returns {Subscription} */
  get subscription() {
    return { channel: this.name, after: this.cursors, ...(this.#delivery && { delivery: this.#delivery }) };
  }

  get isSigned() {
    return isSigned(this.name);
  }

  /** The connection was lost. */
  lost() {
    this.#isSubscribed = false;
  }

  /** The subscription cannot be asked for. */
  refused(/** @type {TailraceError} */ error) {
    this.#tell("error", error);
  }

  take(/** @type {Frame} */ { event, data }) {
    if (event === "subscription_succeeded") return this.#succeeded(data);
    if (event === "error") {
      const sentence = data?.message ?? "The server refused that.";
      return this.refused(new TailraceError(sentence, { type: this.#isSubscribed ? "refused" : "forbidden" }));
    }
    if (event === "presence:joining") this.#change(data, [data]);
    if (event === "presence:leaving") this.#change(data, []);
    if (this.#isNew(event, data)) this.#tell(event, data);
  }

  #succeeded(/** @type {any} */ data) {
    this.#isSubscribed = true;
    if (this.name.startsWith("presence-")) this.#members = Array.isArray(data) ? data : [];
    this.#tell("subscription_succeeded", data);
    if (this.#members !== null) this.#tell("here", this.members);
  }

  #change(/** @type {Member} */ who, /** @type {Member[]} */ now) {
    const others = this.members.filter((each) => String(each.user_id) !== String(who.user_id));
    this.#members = [...others, ...now];
  }

  /** Whether an event of a reply is not there yet. One with a gap before it is not told: it will come once more. */
  #isNew(/** @type {string} */ event, /** @type {any} */ data) {
    const id = data?.message_id;
    if (typeof id !== "string" || !event.startsWith(this.#named(""))) return true;
    const name = event.slice(this.#named("").length);
    if (name === "MessageChunkReceived") return this.#isNewChunk(id, data);
    if (name === "MessageCompleted" || name === "MessageFailed") {
      if (this.#ended.has(id)) return false;
      this.#open.delete(id);
      this.#ended.add(id);
      if (this.#ended.size > MOST_REPLIES) for (const oldest of [...this.#ended].slice(0, 1)) this.#ended.delete(oldest);
      return true;
    }
    const isBegun = name === "MessageCreated" && data.message?.role === "assistant" && data.message.status !== "completed";
    if (isBegun && !this.#open.has(id) && !this.#ended.has(id)) this.#move(id, { seq: 0, taken: 0 });
    return true;
  }

  #isNewChunk(/** @type {string} */ id, /** @type {Record<string, any>} */ data) {
    if (this.#ended.has(id)) return false;
    const here = this.#open.get(id);
    const is = here === undefined ? "next" : chunkIs(here, data);
    if (is === "next") this.#move(id, spanOf(data).end);
    if (is === "gap" && !this.#isCatchingUp) {
      this.#isCatchingUp = true;
      queueMicrotask(() => {
        this.#isCatchingUp = false;
        this.#resubscribe(this);
      });
    }
    return is === "next";
  }

  #isCatchingUp = false;

  #move(/** @type {string} */ id, /** @type {Place} */ place) {
    this.#open.set(id, place);
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= MOST_REPLIES) return;
      this.#open.delete(oldest);
    }
  }

  #tell(/** @type {string} */ event, /** @type {any} */ data) {
    const listeners = this.#listeners.get(event) ?? [];
    for (const listener of listeners) safely(() => listener(data));
    if (event !== "here") for (const listener of [...this.#all]) safely(() => listener(event, data));
  }

  #named(/** @type {string} */ event) {
    if (event.startsWith(".") || event.startsWith("\\")) return event.slice(1);
    return (this.#namespace && `${this.#namespace}\\`) + event.replaceAll(".", "\\");
  }
}

const NOTIFICATION = ".Illuminate\\Notifications\\Events\\BroadcastNotificationCreated";

/** One listener that throws is no reason for the others not to be called. */
function safely(/** @type {() => void} */ call) {
  try {
    call();
  } catch (error) {
    if (typeof reportError === "function") reportError(error);
    else
      queueMicrotask(() => {
        throw error;
      });
  }
}
