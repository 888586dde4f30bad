// The network between a page and the stack, which is cut in the midst of a stream's bytes.

import { connect, createServer } from 'node:net';

export class Cuts {
    requests = []; // what the page asked for: {path, lastEventId}

    /** Listen before the stack; each stream loses its connection after as many bytes as the next of `cuts` says. */
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
        let passed = 0;
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
            const path = /^(?:GET|POST) (\S+) HTTP/.exec(head)?.[1];
            if (path !== undefined) {
                const lastEventId = /^last-event-id: (.*)\r$/im.exec(head)?.[1] ?? null;
                this.requests.push({ path, lastEventId });
                streaming = /\/(stream|chat)$/.test(path.split('?')[0]);
                passed = 0;
            }
            stack.write(data);
        });
        stack.on('data', (data) => {
            const cut = streaming ? this.left[0] : undefined;
            if (cut === undefined || passed + data.length < cut.after) {
                passed += data.length;
                client.write(data);
                return;
            }
            this.left.shift();
            client.write(data.subarray(0, cut.after - passed), () => {
                // The end of a body that has not ended, or a connection that is gone.
                (cut.by === 'end' ? client.end() : client.resetAndDestroy());
            });
            stack.destroy();
        });
    }
}
