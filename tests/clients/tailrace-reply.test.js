// web/tailrace.js: the reply as an object, which is drawn, iterated, kept and left.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { until } from './chat.js';
import { ID, completed, ended } from './fake-stack.js';
import { STORY, TEXTS, agree, heard, rejected, set, start } from './tailrace.js';

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

describe('a reply object', () => {
    test('is drawn by its change event, which comes once for what came at once', async (t) => {
        const { stack, client } = await set(t);
        const reply = client.follow(ID);
        const drawn = [];
        reply.addEventListener('change', () => drawn.push(reply.text));
        await reply.finished;
        await new Promise(setImmediate);
        assert.equal(drawn.at(-1), STORY);
        assert.ok(drawn.length < 8, `${drawn.length} times`);
        assert.deepEqual(stack.requests.length, 1);
    });

    test('tells each raw event as it came, and what its connection does', async (t) => {
        const { stack, client } = await set(t);
        stack.plan('stream', { cut: 300 });
        const reply = client.follow(ID);
        const raw = [];
        const states = [];
        reply.addEventListener('raw', ({ detail }) => raw.push(detail));
        reply.addEventListener('connection', ({ detail }) => states.push([detail.state, detail.transport, detail.attempt, detail.retryIn]));
        await reply.finished;
        assert.deepEqual(raw, stack.log.map(({ data, id }) => ({ data, id, transport: 'sse' })));
        assert.deepEqual(states, [
            ['connecting', 'sse', 0, null], ['open', 'sse', 0, null], ['waiting', 'sse', 1, 0], ['connecting', 'sse', 1, null],
            ['open', 'sse', 1, null], ['closed', 'sse', 1, null],
        ]);
    });

    test('forgets a listener that is taken away, and one whose signal ends', async (t) => {
        const { client } = await set(t);
        const reply = client.follow(ID);
        const called = [];
        const first = () => called.push('first');
        const ended = new AbortController();
        reply.addEventListener('change', first);
        reply.addEventListener('change', () => called.push('second'), { signal: ended.signal });
        reply.addEventListener('raw', first);
        reply.removeEventListener('change', first);
        reply.removeEventListener('raw', first);
        ended.abort();
        await reply.finished;
        assert.deepEqual(called, []);
    });

    test('gives whoever begins late what there is so far, and then the rest', async (t) => {
        const { stack, client } = await set(t);
        stack.write(3);
        const reply = client.follow(ID);
        await until(() => reply.text === TEXTS.slice(0, 3).join(''));
        const late = heard(reply);
        stack.write(Infinity);
        const { types } = await agree(stack, reply, late);
        assert.deepEqual(types, ['text', 'text', 'text', 'done']);
        const after = await heard(reply);
        assert.deepEqual([after.text, after.types], [STORY, ['text', 'done']]);
    });

    test('may be read by several, and left by one of them', async (t) => {
        const { stack, client } = await set(t);
        const reply = client.follow(ID);
        const others = [heard(reply), heard(reply)];
        for await (const event of reply) {
            assert.equal(event.type, 'text');
            break;
        }
        await Promise.all(others.map((each) => agree(stack, reply, each)));
    });

    test('joins text for a reader that is slow: what waits never weighs more than the reply', async (t) => {
        const texts = Array.from({ length: 5000 }, (_, i) => `${i} `);
        const { stack, client } = await set(t, { log: completed(texts) });
        const reply = client.follow(ID);
        const events = reply[Symbol.asyncIterator]();
        await reply.finished;
        const found = [];
        for await (const event of events) {
            found.push(event);
        }
        assert.ok(found.length < 300, `${found.length} events waited`);
        assert.equal(found.map(({ text = '' }) => text).join(''), texts.join(''));
        assert.equal(found.at(-1).type, 'done');
        assert.equal(stack.requests.length, 1);
    });

    test('leaves the reply when it is closed or its signal ends, and the server with nothing of it', async (t) => {
        for (const leave of ['close', 'abort']) {
            const { stack, client, clock } = await set(t);
            stack.write(1);
            const left = new AbortController();
            const reply = client.follow(ID, { signal: left.signal });
            const listening = heard(reply);
            const failing = rejected(reply.finished);
            await until(() => reply.text === TEXTS[0]);
            if (leave === 'close') {
                reply.close();
                assert.equal((await failing).type, 'closed');
                assert.equal((await listening).text, TEXTS[0]);
            } else {
                left.abort();
                assert.equal((await failing).name, 'AbortError');
                assert.equal((await rejected(listening)).name, 'AbortError');
            }
            await until(() => stack.sockets.size === 0);
            assert.equal(clock.pending, 0);
            assert.equal(reply.connection.state, 'closed');
            assert.equal(stack.asked('cancel').length, 0);
        }
    });

    test('a signal that has ended already asks for nothing', async (t) => {
        const { stack, client } = await set(t);
        const reply = start(client, {}, { signal: AbortSignal.abort() });
        assert.equal((await rejected(reply.finished)).name, 'AbortError');
        assert.equal(stack.requests.length, 0);
    });

    test('stops the reply, as often as it takes to be heard', async (t) => {
        const { stack, client } = await set(t);
        stack.write(2);
        stack.plan('cancel', { lost: true }, { status: 503 });
        const reply = start(client);
        const listening = heard(reply);
        const message = await reply.stop(); // as soon as it has an id
        assert.equal(message.status, 'cancelled');
        await agree(stack, reply, listening, TEXTS.slice(0, 2).join(''));
        assert.equal(reply.status, 'cancelled');
        assert.equal(reply.error.type, 'cancelled');
        assert.equal(stack.asked('cancel').length, 3);
    });

    test('answers approvals and goes on, each in a reply of its own', async (t) => {
        const { stack, client } = await set(t);
        const options = { tools: ['mail'] };
        const reply = start(client, { provider: 'p', model: 'm', options, metadata: { n: 1 }, delivery: { parts: true } });
        await reply.finished;
        await reply.approve({ a: true, b: { approved: false, reason: 'No.' } }).finished;
        await reply.continue({ model: 'other' }).finished;
        const bodies = stack.asked('start').map(({ body }) => JSON.parse(body));
        const again = { provider: 'p', model: 'm', options, delivery: { parts: true } };
        assert.deepEqual(bodies.slice(1), [
            { ...again, approvals: { a: true, b: { approved: false, reason: 'No.' } } },
            { ...again, model: 'other', continue: true },
        ]);
        assert.equal(new Set(stack.asked('start').map(({ headers }) => headers['idempotency-key'])).size, 3);
    });
});
