// What people build on OpenAI's wire in Python, unmodified, against the stack of `make run`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'node:test';
import { URL_, api } from './api.js';

const SCRIPT = fileURLToPath(new URL('python_clients.py', import.meta.url));
const run = promisify(execFile);

for (const client of ['litellm', 'langchain-openai', 'pydantic-ai']) {
    test(`${client} streams the text that is stored`, async () => {
        const { stdout } = await run(process.env.TAILRACE_PYTHON_CLIENTS, [SCRIPT, client, URL_]);
        const { conversations: [newest] } = await api('GET', '/conversations?limit=1');
        const { messages } = await api('GET', `/conversations/${newest.id}/messages`);
        assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
        assert.equal(messages[0].content, 'Write a short story about a river');
        assert.equal(stdout, messages[1].content);
    });
}
