/** Text that waits is joined, so that what waits never weighs more than the reply. */
export class Feed {
    constructor(first: ReplyEvent[]);
    put(event: ReplyEvent): void;
    close(error: unknown): void;
    /** @returns {AsyncGenerator<ReplyEvent, void, undefined>} */
    read(leave: () => void): AsyncGenerator<ReplyEvent, void, undefined>;
    #private;
}
import type { ReplyEvent } from "./types.js";
