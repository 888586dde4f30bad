// What a test waits for.

import { once } from 'node:events';

/** Keeps what came, and lets a test wait for what is to come. */
export class Inbox extends EventTarget {
    items = [];

    put = (item) => {
        this.items.push(item);
        this.dispatchEvent(new Event('item'));
    };

    /** Return the first item that `wanted` likes, once it is there. */
    async find(wanted = () => true, seconds = 60) {
        const signal = AbortSignal.timeout(seconds * 1000);
        for (;;) {
            const found = this.items.find(wanted);
            if (found !== undefined) {
                return found;
            }
            await once(this, 'item', { signal });
        }
    }
}
