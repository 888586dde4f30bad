// What is known of a reply: its text, reasoning, tools and end, put together from events. Pure.

import { TailraceError } from "./errors.js";
import { placeOf, reaches } from "./place.js";

/** @import { Delivery, Message, Progress, Raw, ReplyEvent, Status, Tool } from "./types.js" */

/** @type {ReadonlySet<string>} */
export const TERMINAL = new Set(["completed", "failed", "cancelled", "interrupted", "timed_out"]);

export class ReplyState {
  text = "";
  reasoning = "";
  /** @type {Status} */
  status = "pending";
  /** @type {Progress | null} */
  progress = null;
  /** @type {string | null} */
  cursor = null;
  /** @type {Message | null} */
  message = null;
  /** @type {TailraceError | null} */
  error = null;
  /** @type {Map<string, Tool>} */
  #tools = new Map();
  /** Whether there is text before `text`, which somebody else has. */
  #isRest = false;

  /** @param {{text?: string, reasoning?: string, tools?: Tool[], cursor?: string | null}} [before] */
  constructor({ text = "", reasoning = "", tools = [], cursor = null } = {}) {
    this.text = text;
    this.reasoning = reasoning;
    this.cursor = cursor;
    if (cursor !== null) this.status = "streaming";
    this.#isRest = placeOf(cursor).seq > 0 && text === "";
    for (const tool of tools) this.#tools.set(tool.id, { ...tool });
  }

  get tools() {
    return [...this.#tools.values()];
  }

  get ended() {
    return TERMINAL.has(this.status);
  }

  /** Whether an event says something that is known already: it was sent again. */
  has(/** @type {string | null} */ id) {
    return id !== null && this.cursor !== null && reaches(placeOf(this.cursor), placeOf(id));
  }

  /**
   * Take an event that is new and not the end.
   *
   * @param {Raw} raw
   * @param {string | null} id
   * @returns {ReplyEvent[]}
   */
  take(raw, id) {
    if (id !== null) this.cursor = id;
    this.status = "streaming";
    const sent = { raw, cursor: this.cursor };
    /** @type {ReplyEvent[]} */
    const found = [];
    const text = raw.chunk ?? raw.sentence;
    if (raw.reset) found.push(...this.#reset(sent));
    if (typeof text === "string" && text !== "") {
      this.text += text;
      const counted = raw.sentence_count === undefined ? {} : { sentenceCount: raw.sentence_count };
      found.push({ type: "text", text, ...counted, ...sent });
    }
    if (typeof raw.reasoning === "string" && raw.reasoning !== "") {
      this.reasoning += raw.reasoning;
      found.push({ type: "reasoning", text: raw.reasoning, ...sent });
    }
    if (raw.tool_call) found.push({ type: "tool-call", tool: this.#called(raw.tool_call), ...sent });
    if (raw.tool_run) found.push({ type: "tool-run", tool: this.#tool(raw.tool_run, { state: "running" }), ...sent });
    if (raw.tool_result) found.push({ type: "tool-result", tool: this.#result(raw.tool_result), ...sent });
    if (raw.approval_request) {
      found.push({ type: "approval", tool: this.#tool(raw.approval_request, { state: "waiting" }), ...sent });
    }
    if (raw.approval) {
      const state = raw.approval.is_approved ? "approved" : "denied";
      found.push({ type: "approval", tool: this.#tool(raw.approval, { state }), ...sent });
    }
    if (raw.step_end) found.push({ type: "step", ...sent });
    if (raw.progress) {
      this.progress = raw.progress;
      found.push({ type: "progress", progress: raw.progress, ...sent });
    }
    return found;
  }

  /**
   * Take the end. What is stored wins over what came: a crash may have taken back what the first connection saw.
   *
   * @param {Message} message
   * @param {Raw | null} raw
   * @param {string | null} id
   * @returns {ReplyEvent[]}
   */
  end(message, raw, id) {
    if (id !== null) this.cursor = id;
    const sent = { raw, cursor: this.cursor };
    /** @type {ReplyEvent[]} */
    const found = [];
    if (message.truncated) {
      // Its reader has the text already, unless that was only the rest.
      if (!this.#isRest) message = { ...message, content: this.text, truncated: false };
    } else if (this.#isRest && message.content.endsWith(this.text)) this.text = message.content;
    else if (message.content !== this.text) {
      if (!message.content.startsWith(this.text)) found.push({ type: "reset", raw: null, cursor: this.cursor });
      const more = found.length ? message.content : message.content.slice(this.text.length);
      this.text = message.content;
      if (more) found.push({ type: "text", text: more, raw: null, cursor: this.cursor });
    }
    this.#endTools(message.metadata ?? {});
    this.message = message;
    this.status = message.status;
    if (message.status === "completed") return [...found, { type: "done", message, ...sent }];
    const { type, message: sentence } = message.error ?? { type: message.status, message: "The reply was ended early." };
    this.error = new TailraceError(sentence, { type });
    return [...found, { type: "error", error: this.error, message, ...sent }];
  }

  /**
   * Return all there is so far as events, for somebody who begins to listen now.
   *
   * @returns {ReplyEvent[]}
   */
  soFar() {
    const sent = { raw: null, cursor: this.cursor };
    /** @type {ReplyEvent[]} */
    const found = [];
    if (this.reasoning) found.push({ type: "reasoning", text: this.reasoning, ...sent });
    for (const tool of this.tools) {
      found.push({ type: "tool-call", tool: { ...tool }, ...sent });
      if (tool.result !== undefined) found.push({ type: "tool-result", tool: { ...tool }, ...sent });
    }
    if (this.text) found.push({ type: "text", text: this.text, ...sent });
    if (this.message !== null && this.ended) {
      if (this.error === null) found.push({ type: "done", message: this.message, ...sent });
      else found.push({ type: "error", error: this.error, message: this.message, ...sent });
    }
    return found;
  }

  /**
   * @param {{raw: Raw, cursor: string | null}} sent
   * @returns {ReplyEvent[]}
   */
  #reset(sent) {
    this.text = this.reasoning = "";
    this.#isRest = false;
    this.#tools.clear();
    return [{ type: "reset", ...sent }];
  }

  /**
   * @param {{id: string, name?: string}} told
   * @param {Partial<Tool>} known
   * @returns {Tool} a copy
   */
  #tool({ id, name }, known = {}) {
    const before = this.#tools.get(id) ?? { id, name: "", arguments: undefined, state: "called", result: undefined };
    const tool = { ...before, ...(name ? { name } : {}), ...known };
    this.#tools.set(id, tool);
    return { ...tool };
  }

  #called(/** @type {{id: string, name: string, arguments?: string}} */ call) {
    return this.#tool(call, call.arguments === undefined ? {} : { arguments: call.arguments });
  }

  #result(/** @type {{id: string, name?: string, result?: string, is_error?: boolean}} */ told) {
    const denied = this.#tools.get(told.id)?.state === "denied";
    const state = denied ? "denied" : told.is_error ? "failed" : "done";
    return this.#tool(told, { state, ...(told.result === undefined ? {} : { result: told.result }) });
  }

  #endTools(/** @type {Record<string, any>} */ metadata) {
    if (metadata.reasoning && !this.reasoning) this.reasoning = metadata.reasoning;
    for (const call of metadata.tool_calls ?? []) this.#called(call);
    for (const result of metadata.tool_results ?? []) this.#result(result);
    for (const id of metadata.denied ?? []) this.#tool({ id }, { state: "denied" });
    for (const id of metadata.approvals ?? []) this.#tool({ id }, { state: "waiting" });
    for (const call of metadata.unfinished_tools ?? []) this.#tool(call, { state: "unknown" });
  }
}
