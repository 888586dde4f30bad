// What the tests of web/tailrace.js share that run on a server of cuts: a client whose time and chance are the test's.

import assert from 'node:assert/strict';
import { Tailrace } from '../../web/tailrace.js';
import { FakeClock } from './fake-clock.js';
import { CONVERSATION, FakeStack, completed } from './fake-stack.js';

export const TEXTS = ['Once ', 'upon 水', ' a 🌊 time', '.\n\n', '"The end"'];
export const STORY = TEXTS.join('');
export const SHORT = ['a 水', '🌊'];

/** A server, a client of it, and the clock that both know of. No attempt waits, unless `random` says so. */
export async function set(t, { log = completed(TEXTS), random = () => 0, ...options } = {}) {
    const stack = await FakeStack.listen(t, log);
    const clock = new FakeClock();
    const page = { window: new EventTarget(), document: new EventTarget(), navigator: {} };
    const client = new Tailrace({ url: stack.url, clock, random, page, ...options });
    return { stack, clock, page, client };
}

/** What a reply says: each event's type, and the text as one who listens puts it together. */
export async function heard(reply) {
    const found = { text: '', types: [], events: [] };
    for await (const event of reply) {
        found.events.push(event);
        found.types.push(event.type);
        if (event.type === 'text') {
            found.text += event.text;
        } else if (event.type === 'reset') {
            found.text = '';
        }
    }
    return found;
}

export const start = (client, body = {}, options = {}) => client.start(CONVERSATION, { input: 'A story', ...body }, options);

/** All who heard it agree with what is stored, and it was started once. Only a `reset` that is due may have mended it. */
export async function agree(stack, reply, listening, content = STORY, resets = 0) {
    const [message, listened] = await Promise.all([reply.finished, listening]);
    assert.equal(message.content, content);
    assert.equal(reply.text, content);
    assert.equal(listened.text, content);
    assert.equal(listened.types.filter((type) => type === 'done' || type === 'error').length, 1);
    assert.equal(listened.types.filter((type) => type === 'reset').length, resets, 'it was mended at its end');
    assert.ok(stack.starts.size <= 1, 'it was started twice');
    return listened;
}

export const rejected = (promise) => promise.then(() => assert.fail('It was not refused.'), (error) => error);
