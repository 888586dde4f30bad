/**
 * @param {Response} response  one that is not ok
 * @returns {Promise<TailraceError>}
 */
export function refusal(response: Response): Promise<TailraceError>;
/**
 * A refusal of the server, a reply that failed, or a server that cannot be reached.
 *
 * `type` is the server's word for it (`not_found`, `conflict`, `rate_limited`, ...), or one of the client's own:
 * `unreachable` (there is no answer), `closed` (`reply.close()` was called), `lost` (given up after many attempts).
 */
export class TailraceError extends Error {
    /**
     * @param {string} message  a sentence that may be shown
     * @param {{type?: string, status?: number | null, retryAfter?: number | null, body?: any, cause?: unknown}} [more]
     */
    constructor(message: string, { type, status, retryAfter, body, cause }?: {
        type?: string;
        status?: number | null;
        retryAfter?: number | null;
        body?: any;
        cause?: unknown;
    });
    /** The server's word for it, or the client's. */
    type: string;
    /** The HTTP status; null when there was no answer. */
    status: number | null;
    /** Seconds after which another try makes sense; null when nothing was said of it. */
    retryAfter: number | null;
    /** What the server answered, if that was JSON; otherwise null. */
    body: any;
}
export function unreachable(cause: unknown): TailraceError;
export function isRefused({ status }: TailraceError): boolean;
