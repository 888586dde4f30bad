// The network between a page and the stack, which is cut in the midst of a stream's bytes.

import { connect, createServer } from 'node:net';

export class Cuts {
    requests = []; // what the page asked for, and what the stack answered: {method, path, lastEventId, status}

    /**
     * Listen before the stack. Each stream loses its connection where the next of `cuts` says: after as many bytes,
     * those of the head among them, or behind a text.
     */
    static async listen(stack, cuts) {
        const made = new Cuts();
        made.left = [...cuts];
        made.sockets = new Set();
        made.port = Number(new URL(stack).port);
        made.server = createServer((client) => made.#serve(client));
        await new Promise((resolve) => made.server.listen(0, '127.0.0.1', resolve));
        made.url = `http://127.0.0.1:${made.server.address().port}`;
        return made;
    }

    close() {
        for (const socket of this.sockets) {
            socket.destroy();
        }
        return new Promise((resolve) => this.server.close(resolve));
    }

    #serve(client) {
        const stack = connect(this.port, '127.0.0.1');
        let streaming = false;
        let passed = '';
        let asked;
        for (const [socket, other] of [[client, stack], [stack, client]]) {
            this.sockets.add(socket);
            socket.on('error', () => other.destroy());
            socket.on('close', () => {
                this.sockets.delete(socket);
                other.destroy();
            });
        }
        client.on('data', (data) => {
            const head = data.toString('latin1');
            const [, method, path] = /^(GET|POST) (\S+) HTTP/.exec(head) ?? [];
            if (path !== undefined) {
                const lastEventId = /^last-event-id: (.*)\r$/im.exec(head)?.[1] ?? null;
                this.requests.push(asked = { method, path, lastEventId, status: null });
                streaming = /\/(stream|chat)$/.test(path.split('?')[0]);
                passed = '';
            }
            stack.write(data);
        });
        stack.on('data', (data) => {
            const before = passed.length;
            passed += data.toString('latin1');
            if (asked !== undefined) {
                asked.status ??= Number(/^HTTP\/1\.1 (\d+)/.exec(passed)?.[1] ?? 0);
            }
            const cut = streaming ? this.left[0] : undefined;
            const end = cut === undefined ? Infinity : place(passed, cut.after);
            if (passed.length < end) {
                client.write(data);
                return;
            }
            this.left.shift();
            client.write(data.subarray(0, end - before), () => {
                // The end of a body that has not ended, or a connection that is gone.
                (cut.by === 'end' ? client.end() : client.resetAndDestroy());
            });
            stack.destroy();
        });
    }
}

/** Return how many bytes of a text come before a cut. */
function place(text, after) {
    if (typeof after === 'number') {
        return after;
    }
    const found = text.indexOf(after);
    return found < 0 ? Infinity : found + after.length;
}
