export type Status = "pending" | "streaming" | "completed" | "failed" | "cancelled" | "interrupted" | "timed_out";
export type Message = {
    id: string;
    conversation_id: string;
    role: "user" | "assistant" | "tool_call" | "tool_result";
    content: string;
    status: Status;
    seq: number;
    metadata: Record<string, any>;
    provider?: string | null | undefined;
    model?: string | null | undefined;
    usage?: Record<string, any> | null | undefined;
    finish_reason?: string | null | undefined;
    error?: {
        type: string;
        message: string;
    } | null | undefined;
    created_at?: string | undefined;
    completed_at?: string | null | undefined;
    /**
     * its content is too long for this answer
     */
    truncated?: boolean | undefined;
};
export type Conversation = {
    id: string;
    title: string | null;
    metadata: Record<string, any>;
    created_at: string;
    updated_at: string;
};
/**
 * what lets somebody else in
 */
export type Grant = {
    id: string;
    right: "read" | "write";
    conversation_id: string;
    message_id: string | null;
    owner: string | null;
    created_at: string;
    expires_at: string | null;
    /**
     * shown once
     */
    token?: string | undefined;
};
export type Progress = {
    chunks: number;
    characters: number;
    /**
     * seconds
     */
    elapsed: number;
    /**
     * characters a second
     */
    speed: number;
};
export type Delivery = {
    by?: "sentence" | "chunk" | undefined;
    interval_ms?: number | undefined;
    progress?: boolean | undefined;
    /**
     * reasoning, tools and steps too
     */
    parts?: boolean | undefined;
};
export type Decision = boolean | {
    approved: boolean;
    reason?: string;
};
export type StartBody = {
    input?: string | object[] | null | undefined;
    provider?: string | undefined;
    model?: string | undefined;
    options?: Record<string, any> | undefined;
    /**
     * what was said to calls that wait for a yes
     */
    approvals?: Record<string, Decision> | undefined;
    /**
     * go on with the last reply where it broke off
     */
    continue?: boolean | undefined;
    fallbacks?: {
        provider: string;
        model?: string;
    }[] | undefined;
    fallback?: "reset" | "before_first_chunk" | undefined;
    history?: {
        messages?: number;
        tokens?: number;
    } | undefined;
    metadata?: Record<string, any> | undefined;
    delivery?: Delivery | undefined;
    on_disconnect?: "cancel" | "continue" | undefined;
    channel?: string | undefined;
};
export type Transport = "sse" | "websocket" | "polling";
/**
 * a call of a tool, as far as it is known
 */
export type Tool = {
    id: string;
    name: string;
    /**
     * JSON text
     */
    arguments: string | undefined;
    /**
     * `waiting`
     * for a yes; `unknown`: it was begun, and nobody knows what it did
     */
    state: "called" | "running" | "waiting" | "approved" | "denied" | "done" | "failed" | "unknown";
    result: string | undefined;
};
/**
 * an event as the server sent it
 */
export type Raw = Record<string, any>;
/**
 * `raw` is null where the event is not the server's own
 */
export type Sent = {
    raw: Raw | null;
    cursor: string | null;
};
export type ReplyEvent = Sent & ({
    type: "text";
    text: string;
    sentenceCount?: number;
} | {
    type: "reasoning";
    text: string;
} | {
    type: "tool-call";
    tool: Tool;
} | {
    type: "tool-run";
    tool: Tool;
} | {
    type: "tool-result";
    tool: Tool;
} | {
    type: "approval";
    tool: Tool;
} | {
    type: "step";
} | {
    type: "reset";
} | {
    type: "progress";
    progress: Progress;
} | {
    type: "done";
    message: Message;
} | {
    type: "error";
    error: import("./errors.js").TailraceError;
    message: Message;
});
export type ConnectionState = {
    state: "connecting" | "open" | "waiting" | "closed";
    /**
     * `whole`: the reply comes at its end
     */
    transport: Transport | "whole" | null;
    /**
     * how often in a row nothing came
     */
    attempt: number;
    /**
     * milliseconds until the next attempt, unless the network or the tab comes back before; null
     * when none is waited for
     */
    retryIn: number | null;
};
/**
 * what a page keeps of a reply, to follow it when it was loaded again
 */
export type Saved = {
    messageId: string | null;
    conversationId: string | null;
    cursor: string | null;
    text: string;
    reasoning: string;
    tools: Tool[];
    delivery: Delivery;
    start: {
        key: string;
        body: string;
    } | null;
};
export type Clock = {
    /**
     * milliseconds
     */
    now: () => number;
    setTimeout: (run: () => void, milliseconds: number) => any;
    clearTimeout: (timer: any) => void;
};
/**
 * where a browser says that the network is back and that a tab is shown
 */
export type Page = {
    window?: EventTarget | undefined;
    document?: (EventTarget & {
        visibilityState?: string;
    }) | undefined;
    navigator?: {
        onLine?: boolean;
    } | undefined;
};
/**
 * a bearer token, or headers
 */
export type Token = string | null | undefined | Record<string, string>;
export type ClientOptions = {
    /**
     * of the API, "" for the page's own origin
     */
    url?: string | undefined;
    /**
     * of what streams or waits, where that has an address of its own, as in AWS
     */
    streamUrl?: string | undefined;
    /**
     * asked at each connection
     */
    token?: (() => Token | Promise<Token>) | undefined;
    headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>) | undefined;
    /**
     * of the WebSocket API; without it there is none
     */
    socketUrl?: string | undefined;
    fetch?: typeof fetch | undefined;
    WebSocket?: {
        new (url: string | URL, protocols?: string | string[]): WebSocket;
        prototype: WebSocket;
        readonly CONNECTING: 0;
        readonly OPEN: 1;
        readonly CLOSING: 2;
        readonly CLOSED: 3;
    } | undefined;
    random?: (() => number) | undefined;
    clock?: Clock | undefined;
    page?: Page | undefined;
    /**
     * of the events on channels
     */
    namespace?: string | undefined;
    /**
     * connections in a row that bring nothing, after which a reply is given up; not counted
     * while the browser says that it is offline
     */
    attempts?: number | undefined;
};
