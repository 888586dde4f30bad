/** The query of a path: what is null or undefined is left out. */
export function query(parameters: Record<string, unknown>): string;
export class Requests {
    /** @param {Pick<ClientOptions, "url" | "streamUrl" | "token" | "headers" | "fetch">} options */
    constructor({ url, streamUrl, token, headers, fetch }: Pick<ClientOptions, "url" | "streamUrl" | "token" | "headers" | "fetch">);
    /**
     * @param {string} path
     * @param {Asked} [asked]
     * @returns {Promise<Response>} one that is ok
     */
    send(path: string, { method, body, headers, signal }?: Asked): Promise<Response>;
    /**
     * @param {string} path
     * @param {Omit<Asked, "body"> & {body?: unknown}} [asked]
     * @returns {Promise<any>}
     */
    json(path: string, { body, ...asked }?: Omit<Asked, "body"> & {
        body?: unknown;
    }): Promise<any>;
    /** The bearer token, for what can send no headers. */
    bearer(): Promise<string | null>;
    #private;
}
export function path(texts: TemplateStringsArray, ...ids: unknown[]): string;
export type Asked = {
    method?: string | undefined;
    /**
     * JSON text
     */
    body?: string | null | undefined;
    headers?: Record<string, string> | undefined;
    signal?: AbortSignal | undefined;
};
import type { ClientOptions } from "./types.js";
