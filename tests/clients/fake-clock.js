// Time that passes when a test says so.

export class FakeClock {
    waits = []; // what was waited for, in milliseconds
    #now = 1_000_000;
    #timers = new Map();
    #last = 0;

    now = () => this.#now;

    /** What is due at once runs by itself, as soon as nothing else does. */
    setTimeout = (run, milliseconds) => {
        const timer = ++this.#last;
        this.waits.push(milliseconds);
        this.#timers.set(timer, { run, at: this.#now + milliseconds });
        if (milliseconds === 0) {
            setImmediate(() => this.#run(timer));
        }
        return timer;
    };

    clearTimeout = (timer) => this.#timers.delete(timer);

    get pending() {
        return this.#timers.size;
    }

    /** Let so much time pass, second by second. */
    async advance(milliseconds) {
        const end = this.#now + milliseconds;
        while (this.#now < end) {
            this.#now = Math.min(end, this.#now + 1000);
            for (const [timer, { at }] of [...this.#timers]) {
                if (at <= this.#now) {
                    this.#run(timer);
                }
            }
            await new Promise(setImmediate);
        }
    }

    /** As when a machine sleeps: no timer runs before it wakes. */
    sleep(milliseconds) {
        this.#now += milliseconds;
    }

    #run(timer) {
        const found = this.#timers.get(timer);
        this.#timers.delete(timer);
        found?.run();
    }
}
