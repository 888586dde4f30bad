/** @import { Delivery, Message, Progress, Raw, ReplyEvent, Status, Tool } from "./types.js" */
/** @type {ReadonlySet<string>} */
export const TERMINAL: ReadonlySet<string>;
export class ReplyState {
    /** @param {{text?: string, reasoning?: string, tools?: Tool[], cursor?: string | null}} [before] */
    constructor({ text, reasoning, tools, cursor }?: {
        text?: string;
        reasoning?: string;
        tools?: Tool[];
        cursor?: string | null;
    });
    text: string;
    reasoning: string;
    /** @type {Status} */
    status: Status;
    /** @type {Progress | null} */
    progress: Progress | null;
    /** @type {string | null} */
    cursor: string | null;
    /** @type {Message | null} */
    message: Message | null;
    /** @type {TailraceError | null} */
    error: TailraceError | null;
    get tools(): Tool[];
    get ended(): boolean;
    /** Whether an event says something that is known already: it was sent again. */
    has(id: string | null): boolean;
    /**
     * Take an event that is new and not the end.
     *
     * @param {Raw} raw
     * @param {string | null} id
     * @returns {ReplyEvent[]}
     */
    take(raw: Raw, id: string | null): ReplyEvent[];
    /**
     * Take the end. What is stored wins over what came: a crash may have taken back what the first connection saw.
     *
     * @param {Message} message
     * @param {Raw | null} raw
     * @param {string | null} id
     * @returns {ReplyEvent[]}
     */
    end(message: Message, raw: Raw | null, id: string | null): ReplyEvent[];
    /**
     * Return all there is so far as events, for somebody who begins to listen now.
     *
     * @returns {ReplyEvent[]}
     */
    soFar(): ReplyEvent[];
    #private;
}
import type { Status } from "./types.js";
import type { Progress } from "./types.js";
import type { Message } from "./types.js";
import { TailraceError } from "./errors.js";
import type { Tool } from "./types.js";
import type { Raw } from "./types.js";
import type { ReplyEvent } from "./types.js";
