// The shapes of docs/http.md, and those of this client. Types alone.

/**
 * @typedef {"pending" | "streaming" | "completed" | "failed" | "cancelled" | "interrupted" | "timed_out"} Status
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {string} conversation_id
 * @property {"user" | "assistant" | "tool_call" | "tool_result"} role
 * @property {string} content
 * @property {Status} status
 * @property {number} seq
 * @property {Record<string, any>} metadata
 * @property {string | null} [provider]
 * @property {string | null} [model]
 * @property {Record<string, any> | null} [usage]
 * @property {string | null} [finish_reason]
 * @property {{type: string, message: string} | null} [error]
 * @property {string} [created_at]
 * @property {string | null} [completed_at]
 * @property {boolean} [truncated]  its content is too long for this answer
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string | null} title
 * @property {Record<string, any>} metadata
 * @property {string} created_at
 * @property {string} updated_at
 *
 * @typedef {object} Grant  what lets somebody else in
 * @property {string} id
 * @property {"read" | "write"} right
 * @property {string} conversation_id
 * @property {string | null} message_id
 * @property {string | null} owner
 * @property {string} created_at
 * @property {string | null} expires_at
 * @property {string} [token]  shown once
 *
 * @typedef {object} Progress
 * @property {number} chunks
 * @property {number} characters
 * @property {number} elapsed  seconds
 * @property {number} speed  characters a second
 *
 * @typedef {object} Delivery
 * @property {"chunk" | "sentence"} [by]
 * @property {number} [interval_ms]
 * @property {boolean} [progress]
 * @property {boolean} [parts]  reasoning, tools and steps too
 *
 * @typedef {boolean | {approved: boolean, reason?: string}} Decision
 *
 * @typedef {object} StartBody
 * @property {string | object[] | null} [input]
 * @property {string} [provider]
 * @property {string} [model]
 * @property {Record<string, any>} [options]
 * @property {Record<string, Decision>} [approvals]  what was said to calls that wait for a yes
 * @property {boolean} [continue]  go on with the last reply where it broke off
 * @property {{provider: string, model?: string}[]} [fallbacks]
 * @property {"before_first_chunk" | "reset"} [fallback]
 * @property {{messages?: number, tokens?: number}} [history]
 * @property {Record<string, any>} [metadata]
 * @property {Delivery} [delivery]
 * @property {"continue" | "cancel"} [on_disconnect]
 * @property {string} [channel]
 *
 * @typedef {"sse" | "websocket" | "polling"} Transport
 *
 * @typedef {object} Tool  a call of a tool, as far as it is known
 * @property {string} id
 * @property {string} name
 * @property {string | undefined} arguments  JSON text
 * @property {"called" | "running" | "waiting" | "approved" | "denied" | "done" | "failed" | "unknown"} state  `waiting`
 *   for a yes; `unknown`: it was begun, and nobody knows what it did
 * @property {string | undefined} result
 *
 * @typedef {Record<string, any>} Raw  an event as the server sent it
 *
 * @typedef {{raw: Raw | null, cursor: string | null}} Sent  `raw` is null where the event is not the server's own
 *
 * @typedef {Sent & (
 *   | {type: "text", text: string, sentenceCount?: number}
 *   | {type: "reasoning", text: string}
 *   | {type: "tool-call", tool: Tool}
 *   | {type: "tool-run", tool: Tool}
 *   | {type: "tool-result", tool: Tool}
 *   | {type: "approval", tool: Tool}
 *   | {type: "step"}
 *   | {type: "reset"}
 *   | {type: "progress", progress: Progress}
 *   | {type: "done", message: Message}
 *   | {type: "error", error: import("./errors.js").TailraceError, message: Message}
 * )} ReplyEvent
 *
 * @typedef {object} ConnectionState
 * @property {"connecting" | "open" | "waiting" | "closed"} state
 * @property {Transport | "whole" | null} transport  `whole`: the reply comes at its end
 * @property {number} attempt  how often in a row nothing came
 * @property {number | null} retryIn  milliseconds until the next attempt, unless the network or the tab comes back before; null
 *   when none is waited for
 *
 * @typedef {object} Saved  what a page keeps of a reply, to follow it when it was loaded again
 * @property {string | null} messageId
 * @property {string | null} conversationId
 * @property {string | null} cursor
 * @property {string} text
 * @property {string} reasoning
 * @property {Tool[]} tools
 * @property {Delivery} delivery
 * @property {{key: string, body: string} | null} start
 *
 * @typedef {object} Clock
 * @property {() => number} now  milliseconds
 * @property {(run: () => void, milliseconds: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 *
 * @typedef {object} Page  where a browser says that the network is back and that a tab is shown
 * @property {EventTarget} [window]
 * @property {EventTarget & {visibilityState?: string}} [document]
 * @property {{onLine?: boolean}} [navigator]
 *
 * @typedef {string | null | undefined | Record<string, string>} Token  a bearer token, or headers
 *
 * @typedef {object} ClientOptions
 * @property {string} [url]  of the API, "" for the page's own origin
 * @property {string} [streamUrl]  of what streams or waits, where that has an address of its own, as in AWS
 * @property {() => Token | Promise<Token>} [token]  asked at each connection
 * @property {Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)} [headers]
 * @property {string} [socketUrl]  of the WebSocket API; without it there is none
 * @property {typeof globalThis.fetch} [fetch]
 * @property {typeof globalThis.WebSocket} [WebSocket]
 * @property {() => number} [random]
 * @property {Clock} [clock]
 * @property {Page} [page]
 * @property {string} [namespace]  of the events on channels
 * @property {number} [attempts]  connections in a row that bring nothing, after which a reply is given up; not counted
 *   while the browser says that it is offline
 */

export {};
