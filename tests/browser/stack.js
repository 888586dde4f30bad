// A stack of a test's own, which it may kill, beside a database that outlives it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const READY_MS = 60_000;

export class Stack {
    /** Start a database, and the stack on it. */
    static async start(environment = {}) {
        const stack = new Stack();
        stack.database = await begin(['local.emulator'], 'emulator: ', {});
        stack.environment = { ...environment, AWS_ENDPOINT_URL_DYNAMODB: stack.database.said };
        await stack.serve('0');
        return stack;
    }

    /** Serve again, on the same port, what is in the database. */
    async serve(port = new URL(this.url).port) {
        this.server = await begin(['local', '--lifeline'], 'Tailrace is ready on ', { ...this.environment, PORT: port });
        this.url = this.server.said.split(' ')[0];
    }

    /** As a machine dies: at once, in the midst of whatever it does. */
    async kill() {
        const gone = once(this.server.process, 'exit');
        this.server.process.kill('SIGKILL');
        await gone;
    }

    async end() {
        for (const { process: child } of [this.server, this.database]) {
            child.stdin.end(); // whose end is theirs
            if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
        }
    }
}

async function begin(module, ready, environment) {
    const child = spawn(process.env.TAILRACE_PYTHON, ['-m', ...module], {
        cwd: ROOT, env: { ...process.env, ...environment }, stdio: ['pipe', 'pipe', 'inherit'],
    });
    const late = setTimeout(() => child.kill('SIGKILL'), READY_MS);
    try {
        for await (const line of createInterface({ input: child.stdout })) {
            if (!line.startsWith(ready)) continue;
            child.stdout.resume(); // whatever else it says; a full pipe would stop it
            return { process: child, said: line.slice(ready.length) };
        }
    } finally {
        clearTimeout(late);
    }
    throw new Error(`${module[0]} ended before it was ready.`);
}
