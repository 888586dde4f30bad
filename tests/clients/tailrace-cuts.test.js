// web/tailrace.js on a network that is cut at every byte: no text twice, none lost, one start.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { TailraceError } from '../../web/tailrace.js';
import { EventDecoder } from '../../web/tailrace/sse.js';
import { until } from './chat.js';
import { ID, completed } from './fake-stack.js';
import { SHORT, TEXTS, agree, heard, rejected, set, start } from './tailrace.js';

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

describe('events from bytes', () => {
    const decode = (parts) => {
        const decoder = new EventDecoder();
        return parts.flatMap((part) => decoder.feed(typeof part === 'string' ? Buffer.from(part) : part));
    };
    const EXAMPLES = {
        // https://html.spec.whatwg.org/multipage/server-sent-events.html, in their order
        whatwg_example_1: ['data: YHOO\ndata: +2\ndata: 10\n\n', [{ id: '', data: 'YHOO\n+2\n10' }]],
        whatwg_example_2: [
            ': test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n',
            [{ id: '1', data: 'first event' }, { id: '', data: 'second event' }, { id: '', data: ' third event' }],
        ],
        whatwg_example_3: ['data\n\ndata\ndata\n\ndata:', [{ id: '', data: '' }, { id: '', data: '\n' }]],
        whatwg_example_4: ['data:test\n\ndata: test\n\n', [{ id: '', data: 'test' }, { id: '', data: 'test' }]],
        'carriage returns': ['data: a\r\ndata: 水\r\rid: 2\ndata: 🌊\r\n\r\n', [{ id: '', data: 'a\n水' }, { id: '2', data: '🌊' }]],
        'a mark of the byte order': ['\ufeffdata: a\n\n', [{ id: '', data: 'a' }]],
        'an id that may not be': ['id: 1\0\ndata: a\n\n', [{ id: '', data: 'a' }]],
        'a comment in a block': ['data: a\n:\nid: 7\n\n', [{ id: '7', data: 'a' }]],
    };
    for (const [name, [text, events]] of Object.entries(EXAMPLES)) {
        test(`${name}, whole and cut at every byte`, () => {
            const bytes = Buffer.from(text);
            assert.deepEqual(decode([bytes]), events);
            assert.deepEqual(decode([...bytes].map((byte) => Buffer.from([byte]))), events);
            for (let place = 0; place <= bytes.length; place += 1) {
                assert.deepEqual(decode([bytes.subarray(0, place), bytes.subarray(place)]), events, `cut at ${place}`);
            }
        });
    }
});

describe('cuts', () => {
    for (const [how, plan] of Object.entries({
        'a tidy end': { by: 'end' },
        'a tidy end of a chunked body': { by: 'end', chunked: true },
        'a reset': { by: 'reset' },
    })) {
        test(`${how} at every byte of the answer to a start: no text twice, none lost, one start`, async (t) => {
            const { stack, client } = await set(t, { log: completed(SHORT) });
            const { length } = await whole(stack, plan);
            for (let cut = 0; cut < length; cut += 1) {
                stack.starts.clear();
                stack.plan('start', { ...plan, cut });
                const reply = start(client);
                const { types } = await agree(stack, reply, heard(reply), SHORT.join(''));
                assert.ok(!types.includes('reset'), `it began anew after a cut at ${cut}`);
            }
        });

        test(`${how} at every byte of a replay, and again`, async (t) => {
            const { stack, client } = await set(t);
            const { length } = await whole(stack, plan);
            for (let cut = 0; cut < length; cut += 7) {
                stack.plan('stream', { ...plan, cut }, { ...plan, cut: Math.round(cut / 2) });
                const reply = client.follow(ID);
                await agree(stack, reply, heard(reply));
            }
        });
    }

    /** How many bytes an uncut answer has. */
    async function whole(stack, plan) {
        const response = await fetch(`${stack.url}/messages/${ID}/stream`);
        const body = Buffer.from(await response.arrayBuffer());
        // The head, and what a chunk adds.
        return { length: body.length + 150 + (plan.chunked ? 40 : 0) };
    }

    test('an answer that is cut is told from a whole one', async (t) => {
        const { stack, client, clock } = await set(t, { random: () => 1 });
        stack.write(3);
        stack.plan('stream', { cut: 250 });
        const reply = client.follow(ID);
        await until(() => reply.connection.state === 'waiting');
        assert.equal(reply.ended, false);
        assert.ok(reply.text.length > 0);
        stack.write(Infinity);
        await clock.advance(1000);
        assert.equal((await reply.finished).status, 'completed');
    });

    test('disconnect() cuts the connection, and the reply is resumed', async (t) => {
        const { stack, client } = await set(t);
        stack.write(2);
        const reply = start(client);
        const listening = heard(reply);
        await until(() => reply.text === TEXTS.slice(0, 2).join(''));
        reply.disconnect();
        await until(() => stack.asked('stream').length === 1);
        stack.write(Infinity);
        await agree(stack, reply, listening);
        assert.equal(stack.asked('stream')[0].query.get('after'), `${ID}:2`);
    });

    test('what is sent again is left out', async (t) => {
        const log = completed(TEXTS);
        const { stack, client } = await set(t, { log: [log[0], log[1], log[0], log[1], ...log.slice(2)] });
        const reply = client.follow(ID);
        await agree(stack, reply, heard(reply));
    });
});

describe('a start', () => {
    test('whose answer is lost is sent again, the same under the same key', async (t) => {
        const { stack, client } = await set(t);
        stack.plan('start', { lost: true }, { lost: true }, { cut: 0, by: 'end' });
        const reply = start(client, { model: 'story', metadata: { b: 1, a: [2] } });
        await agree(stack, reply, heard(reply));
        const sent = stack.asked('start');
        assert.equal(sent.length, 4);
        assert.equal(new Set(sent.map(({ headers }) => headers['idempotency-key'])).size, 1);
        assert.equal(new Set(sent.map(({ body }) => body)).size, 1);
        assert.deepEqual(JSON.parse(sent[0].body), { input: 'A story', model: 'story', metadata: { b: 1, a: [2] } });
    });

    test('has a key of its own, or the caller\'s', async (t) => {
        const { stack, client } = await set(t);
        await start(client).finished;
        await start(client).finished;
        await start(client, {}, { key: 'mine' }).finished;
        const keys = stack.asked('start').map(({ headers }) => headers['idempotency-key']);
        assert.equal(new Set(keys).size, 3);
        assert.equal(keys[2], 'mine');
    });

    for (const [status, type] of [
        [400, 'invalid_request'], [401, 'unauthenticated'], [403, 'forbidden'], [404, 'not_found'], [409, 'conflict'],
        [413, 'too_large'], [422, 'unprocessable'], [429, 'rate_limited'],
    ]) {
        test(`that is refused with ${status} is not sent again, and has the server's sentence`, async (t) => {
            const { stack, client } = await set(t);
            const body = { error: { type, message: `No: ${status}.` } };
            stack.plan('start', { status, body, headers: status === 429 ? { 'Retry-After': '7' } : {} });
            const reply = start(client);
            const errors = [await rejected(reply.started), await rejected(reply.finished), await rejected(heard(reply)), reply.error];
            for (const error of errors) {
                assert.ok(error instanceof TailraceError);
                assert.deepEqual([error.status, error.type, error.message], [status, type, `No: ${status}.`]);
                assert.equal(error.retryAfter, status === 429 ? 7 : null);
            }
            assert.equal(stack.requests.length, 1);
            assert.equal(reply.connection.state, 'closed');
        });
    }

    test('whose answer was lost is asked for again even if the server now has too many', async (t) => {
        const { stack, client, clock } = await set(t);
        const body = { error: { type: 'rate_limited', message: 'Too many.' } };
        stack.plan('start', { lost: true }, { status: 429, body, headers: { 'Retry-After': '2' } });
        const reply = start(client);
        await until(() => clock.waits.includes(2000));
        await clock.advance(2000);
        await agree(stack, reply, heard(reply));
    });

    test('is given up after four answers of a server in trouble', async (t) => {
        const { stack, client } = await set(t);
        const body = { error: { type: 'general_error', message: 'This is not set up on the server.' } };
        stack.plan('start', ...Array(5).fill({ status: 503, body }));
        const error = await rejected(start(client).finished);
        assert.deepEqual([error.status, error.message], [503, body.error.message]);
        assert.equal(stack.asked('start').length, 4);
    });

    test('that was saved without an answer is sent again as it was', async (t) => {
        const { stack, client } = await set(t);
        stack.plan('start', { hang: true });
        const before = start(client, { delivery: { parts: true } });
        await until(() => stack.asked('start').length === 1);
        const saved = JSON.stringify(before);
        before.close();
        const reply = client.follow(JSON.parse(saved));
        await agree(stack, reply, heard(reply));
        const [first, second] = stack.asked('start');
        assert.deepEqual([second.body, second.headers['idempotency-key']], [first.body, first.headers['idempotency-key']]);
    });
});
