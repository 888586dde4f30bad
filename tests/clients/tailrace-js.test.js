// web/tailrace.js on a server that is cut, slow, in trouble or behind a proxy. Time and chance are the test's.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Tailrace, TailraceError } from '../../web/tailrace.js';
import { EventDecoder } from '../../web/tailrace/sse.js';
import { until } from './chat.js';
import { FakeClock } from './fake-clock.js';
import { CONVERSATION, FakeStack, ID, chunkFrames, completed, ended } from './fake-stack.js';

const TEXTS = ['Once ', 'upon 水', ' a 🌊 time', '.\n\n', '"The end"'];
const STORY = TEXTS.join('');
const SHORT = ['a 水', '🌊'];

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

/** A server, a client of it, and the clock that both know of. No attempt waits, unless `random` says so. */
async function set(t, { log = completed(TEXTS), random = () => 0, ...options } = {}) {
    const stack = await FakeStack.listen(t, log);
    const clock = new FakeClock();
    const page = { window: new EventTarget(), document: new EventTarget(), navigator: {} };
    const client = new Tailrace({ url: stack.url, clock, random, page, ...options });
    return { stack, clock, page, client };
}

/** What a reply says: each event's type, and the text as one who listens puts it together. */
async function heard(reply) {
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

const start = (client, body = {}, options = {}) => client.start(CONVERSATION, { input: 'A story', ...body }, options);

/** All who heard it agree with what is stored, and it was started once. */
async function agree(stack, reply, listening, content = STORY) {
    const [message, listened] = await Promise.all([reply.finished, listening]);
    assert.equal(message.content, content);
    assert.equal(reply.text, content);
    assert.equal(listened.text, content);
    assert.equal(listened.types.filter((type) => type === 'done' || type === 'error').length, 1);
    assert.ok(stack.starts.size <= 1, 'it was started twice');
    return listened;
}

const rejected = (promise) => promise.then(() => assert.fail('It was not refused.'), (error) => error);

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

describe('following', () => {
    test('from a cursor gives the rest, with the text before it the whole', async (t) => {
        const { stack, client } = await set(t);
        const rest = client.follow(ID, { after: `${ID}:2` });
        const listened = await heard(rest);
        assert.deepEqual([listened.text, listened.types.includes('reset')], [TEXTS.slice(2).join(''), false]);
        assert.equal(rest.text, STORY);
        const reply = client.follow(ID, { after: `${ID}:2`, text: TEXTS.slice(0, 2).join('') });
        const { types } = await agree(stack, reply, heard(reply));
        assert.ok(!types.includes('reset'));
    });

    test('a message as it stands gives the rest of it', async (t) => {
        const { stack, client } = await set(t);
        stack.write(3);
        const reply = client.follow(await client.message(ID));
        assert.equal(reply.text, TEXTS.slice(0, 3).join(''));
        stack.write(Infinity);
        await agree(stack, reply, heard(reply));
        assert.equal(stack.asked('stream')[0].query.get('after'), `${ID}:3`);
    });

    test('what a page has kept goes on there, reasoning, tools and all', async (t) => {
        const before = [
            { reasoning: 'Hm. ' }, { tool_call: { id: 'a', name: 'weather', arguments: '{}' } }, { tool_run: { id: 'a', name: 'weather' } },
        ];
        const { stack, client } = await set(t, { log: completed(TEXTS, { before }) });
        stack.write(5);
        const first = client.follow(ID, { delivery: { parts: true, by: 'sentence' } });
        await until(() => first.text === TEXTS.slice(0, 2).join(''));
        const saved = JSON.parse(JSON.stringify(first));
        first.close();
        stack.write(Infinity);
        const reply = client.follow(saved);
        await agree(stack, reply, heard(reply));
        assert.equal(reply.reasoning, 'Hm. ');
        assert.deepEqual(reply.tools.map(({ name, state }) => [name, state]), [['weather', 'running']]);
        const { query } = stack.asked('stream').at(-1);
        assert.deepEqual([query.get('after'), query.get('parts'), query.get('by')], [`${ID}:5`, 'true', 'sentence']);
    });

    test('a 204 says that it has ended, and the message is read', async (t) => {
        const { stack, client } = await set(t);
        const reply = client.follow(ID, { after: `${ID}:${TEXTS.length + 1}`, text: STORY });
        const { types } = await agree(stack, reply, heard(reply));
        assert.deepEqual(types, ['text', 'done']); // what there was when it was listened to
    });

    for (const status of [401, 403, 404]) {
        test(`is over at a ${status}`, async (t) => {
            const { stack, client } = await set(t);
            stack.plan('stream', { cut: 350 }, { status, body: { error: { type: 'not_found', message: 'No such message.' } } });
            const reply = client.follow(ID);
            const error = await rejected(reply.finished);
            assert.deepEqual([error.status, error.message], [status, 'No such message.']);
            assert.equal(stack.asked('stream').length, 2);
        });
    }

    test('a message that failed ends the reply, with what is stored', async (t) => {
        const error = { type: 'api_error', message: 'The provider ended its answer early.' };
        const log = ended([{ chunk: 'Once ' }, { chunk: 'upon' }], { status: 'failed', content: 'Once upon', error });
        const { stack, client } = await set(t, { log });
        const reply = client.follow(ID);
        const listened = await agree(stack, reply, heard(reply), 'Once upon');
        assert.equal(reply.status, 'failed');
        assert.deepEqual([reply.error.type, reply.error.message], [error.type, error.message]);
        assert.deepEqual([listened.types.at(-1), listened.events.at(-1).error.message], ['error', error.message]);
    });

    test('what is stored wins over what the first connection saw', async (t) => {
        const error = { type: 'interrupted', message: 'The reply was interrupted.' };
        const log = ended([{ chunk: 'Once ' }, { chunk: 'upon' }, { chunk: ' a crash' }], { status: 'interrupted', content: 'Once upon', error });
        const { stack, client } = await set(t, { log });
        const reply = start(client);
        const { types } = await agree(stack, reply, heard(reply), 'Once upon');
        assert.deepEqual(types, ['text', 'text', 'text', 'reset', 'text', 'error']);
    });

    test('an end that is longer than one answer leaves the text that came', async (t) => {
        const log = completed(TEXTS);
        Object.assign(log.at(-1).message, { content: '', truncated: true });
        const { client } = await set(t, { log });
        const reply = client.follow(ID);
        assert.equal((await heard(reply)).text, STORY);
        const message = await reply.finished;
        assert.deepEqual([reply.text, message.content, message.truncated, reply.status], [STORY, STORY, false, 'completed']);
    });

    test('after a reset only the new answer counts', async (t) => {
        const before = [{ reasoning: 'Hm.' }, { chunk: 'void' }, { tool_call: { id: 'a', name: 'x' } }, { reset: true }];
        const { stack, client } = await set(t, { log: completed(TEXTS, { before }) });
        for (let cut = 200; cut < 900; cut += 23) {
            stack.plan('stream', { cut });
            const reply = client.follow(ID);
            await agree(stack, reply, heard(reply));
            assert.deepEqual([reply.reasoning, reply.tools], ['', []]);
        }
    });

    test('sentences, progress and parts are events of their own', async (t) => {
        const progress = { chunks: 1, characters: 5, elapsed: 0.1, speed: 50 };
        const log = ended([
            { reasoning: 'Hm.' },
            { sentence: 'Once. ', sentence_count: 1, progress },
            { tool_call: { id: 'a', name: 'mail', arguments: '{"to":"x"}' } },
            { tool_call: { id: 'b', name: 'weather', arguments: '{}' } },
            { tool_call: { id: 'c', name: 'weather', arguments: '{}' } },
            { tool_run: { id: 'b', name: 'weather' } },
            { tool_result: { id: 'b', name: 'weather', result: 'Warm.' } },
            { tool_result: { id: 'c', name: 'weather', result: 'The tool failed.', is_error: true } },
            { approval_request: { id: 'a' } },
            { step_end: true },
        ], { content: 'Once. ', metadata: { approvals: ['a'] } });
        const { client } = await set(t, { log });
        const reply = client.follow(ID, { delivery: { by: 'sentence', progress: true, parts: true } });
        const { types, events } = await heard(reply);
        assert.deepEqual(types, [
            'reasoning', 'text', 'progress', 'tool-call', 'tool-call', 'tool-call', 'tool-run', 'tool-result', 'tool-result', 'approval',
            'step', 'done',
        ]);
        assert.equal(events[1].sentenceCount, 1);
        assert.deepEqual(reply.progress, progress);
        assert.equal(reply.reasoning, 'Hm.');
        assert.deepEqual(reply.tools, [
            { id: 'a', name: 'mail', arguments: '{"to":"x"}', state: 'waiting', result: undefined },
            { id: 'b', name: 'weather', arguments: '{}', state: 'done', result: 'Warm.' },
            { id: 'c', name: 'weather', arguments: '{}', state: 'failed', result: 'The tool failed.' },
        ]);
        assert.deepEqual(reply.waiting, ['a']);
        assert.deepEqual(events[2].raw, { ...log[1].data });
        assert.equal(events[2].cursor, `${ID}:2`);
    });

    test('a tool of which nobody knows what it did is told as such', async (t) => {
        const error = { type: 'interrupted', message: 'The reply was interrupted.' };
        const metadata = { tool_calls: [{ id: 'a', name: 'pay', arguments: '{}' }], unfinished_tools: [{ id: 'a', name: 'pay' }] };
        const { client } = await set(t, { log: ended([{ chunk: 'I pay.' }], { status: 'interrupted', content: 'I pay.', error, metadata }) });
        const reply = client.follow(ID);
        await reply.finished;
        assert.deepEqual(reply.tools.map(({ name, state }) => [name, state]), [['pay', 'unknown']]);
    });
});

describe('waiting', () => {
    test('full jitter: the bound doubles up to half a minute, and chance says how much of it', async (t) => {
        for (const share of [1, 0.25]) {
            const { stack, client, clock } = await set(t, { random: () => share, attempts: 10 });
            stack.plan('stream', ...Array(10).fill({ cut: 0, by: 'reset' }));
            stack.plan('message', ...Array(10).fill({ status: 500 })); // the network is no better for anything else
            const waits = [];
            const reply = client.follow(ID);
            reply.addEventListener('connection', ({ detail }) => detail.state === 'waiting' && waits.push(detail.retryIn));
            const failed = rejected(reply.finished);
            await until(async () => {
                await clock.advance(1000);
                return reply.error;
            });
            const error = await failed;
            assert.equal(error.type, 'lost');
            assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000].map((each) => each * share));
            assert.equal(stack.asked('stream').length, 10);
            assert.equal(clock.pending, 0);
        }
    });

    for (const [what, value] of [['seconds', () => '20'], ['a date', () => new Date(Date.now() + 20_400).toUTCString()]]) {
        for (const status of [429, 503]) {
            test(`a ${status} with Retry-After in ${what} is waited for, even if the network comes back`, async (t) => {
                const { stack, client, clock, page } = await set(t);
                stack.plan('stream', { status, headers: { 'Retry-After': value() } });
                const reply = client.follow(ID);
                await until(() => reply.connection.state === 'waiting');
                assert.ok(reply.connection.retryIn > 18_000 && reply.connection.retryIn <= 20_500, reply.connection.retryIn);
                await clock.advance(10_000);
                page.window.dispatchEvent(new Event('online'));
                await clock.advance(1000);
                assert.equal(stack.asked('stream').length, 1);
                await clock.advance(10_000);
                await agree(stack, reply, heard(reply));
            });
        }
    }

    for (const [what, wake] of [
        ['the network comes back', ({ window }) => window.dispatchEvent(new Event('online'))],
        ['the tab is shown', ({ document }) => document.dispatchEvent(new Event('visibilitychange'))],
    ]) {
        test(`a wait ends when ${what}`, async (t) => {
            const { stack, client, page } = await set(t, { random: () => 1 });
            stack.plan('stream', { cut: 0, by: 'reset' });
            const reply = client.follow(ID);
            await until(() => reply.connection.state === 'waiting');
            wake(page);
            await agree(stack, reply, heard(reply));
        });

        test(`a connection that died in its sleep is found when ${what}`, async (t) => {
            const { stack, client, clock, page } = await set(t);
            stack.write(1);
            const reply = client.follow(ID);
            await until(() => reply.text === TEXTS[0]);
            stack.plan('stream', { cut: 0 }); // and the network is not quite there
            clock.sleep(16_000);
            stack.mute();
            stack.write(Infinity);
            wake(page);
            await agree(stack, reply, heard(reply));
            assert.equal(clock.now(), 1_016_000);
            assert.equal(reply.connection.transport, 'sse');
            // It was no proxy, so the next reply is not told of one.
            const next = client.follow(ID);
            await next.finished;
            assert.equal(next.connection.transport, 'sse');
        });
    }

    test('a hidden tab ends no wait', async (t) => {
        const { stack, client, clock, page } = await set(t, { random: () => 1 });
        stack.plan('stream', { cut: 0, by: 'reset' });
        const reply = client.follow(ID);
        await until(() => reply.connection.state === 'waiting');
        page.document.visibilityState = 'hidden';
        page.document.dispatchEvent(new Event('visibilitychange'));
        await clock.advance(0);
        assert.equal(reply.connection.state, 'waiting');
        reply.close();
    });

    test('while the browser is offline no attempt counts', async (t) => {
        const { stack, client, clock, page } = await set(t, { attempts: 2 });
        page.navigator.onLine = false;
        stack.plan('stream', ...Array(5).fill({ cut: 0, by: 'reset' }));
        stack.plan('message', ...Array(5).fill({ status: 500 }));
        const reply = client.follow(ID);
        for (let asked = 1; asked <= 5; asked += 1) {
            await until(() => stack.asked('stream').length === asked && reply.connection.state === 'waiting');
            page.window.dispatchEvent(new Event('online'));
        }
        page.navigator.onLine = true;
        await agree(stack, reply, heard(reply));
        assert.ok(clock.now() < 1_000_100, 'it waited for the clock');
    });
});

describe('silence, and proxies', () => {
    test('a connection that hangs is left after 30 s; while the reply does not grow, the transport stays', async (t) => {
        const { stack, client, clock } = await set(t);
        stack.write(2);
        const reply = client.follow(ID);
        const listening = heard(reply);
        await until(() => reply.text === TEXTS.slice(0, 2).join(''));
        await clock.advance(29_000);
        assert.equal(stack.asked('stream').length, 1);
        await clock.advance(2000);
        await until(() => stack.asked('stream').length === 2);
        stack.write(Infinity);
        await agree(stack, reply, listening);
        assert.equal(stack.asked('events').length, 0);
    });

    test('comments are enough', async (t) => {
        let came = 0;
        const counting = async (...asked) => {
            const response = await fetch(...asked);
            const count = new TransformStream({
                transform(bytes, controller) {
                    came += bytes.length;
                    controller.enqueue(bytes);
                },
            });
            return new Response(response.body.pipeThrough(count), { headers: response.headers });
        };
        const { stack, client, clock } = await set(t, { fetch: counting });
        stack.write(0);
        const reply = client.follow(ID);
        await until(() => reply.connection.state === 'open');
        for (let i = 1; i <= 5; i += 1) {
            await clock.advance(12_000);
            [...stack.sockets].forEach((socket) => socket.write(':\n'));
            await until(() => came === 2 * i);
        }
        assert.equal(stack.asked('stream').length, 1);
        stack.write(Infinity);
        await agree(stack, reply, heard(reply));
    });

    test('a proxy that keeps the body is found out, and the reply goes on by long polls', async (t) => {
        const { stack, client, clock } = await set(t);
        stack.write(2);
        stack.plan('start', { hold: 'body' });
        const reply = start(client);
        const listening = heard(reply);
        await until(() => clock.waits.includes(300));
        assert.equal(reply.messageId, null); // the connection may be one that was cut in its head
        await clock.advance(1000);
        assert.deepEqual(await reply.started, { messageId: ID, conversationId: CONVERSATION });
        await clock.advance(31_000);
        await until(() => reply.text === TEXTS.slice(0, 2).join(''));
        assert.equal(reply.connection.transport, 'polling');
        stack.write(4);
        await until(() => reply.text === TEXTS.slice(0, 4).join(''));
        stack.write(Infinity);
        await agree(stack, reply, listening);
        assert.equal(stack.asked('start').length, 1);
        // What was found out is known for the next one: its stream is left once its id is known.
        const next = start(client);
        assert.equal((await next.finished).content, STORY);
        assert.equal(next.connection.transport, 'polling');
        assert.equal(stack.asked('stream').length, 0);
    });

    test('in mid-answer the text stays exact when the transport changes', async (t) => {
        const { stack, client, clock } = await set(t);
        stack.write(1);
        const reply = start(client);
        const listening = heard(reply);
        await until(() => reply.text === TEXTS[0]);
        stack.plan('stream', { hold: 'body' });
        stack.write(3);
        await until(() => reply.text === TEXTS.slice(0, 3).join(''));
        reply.disconnect();
        await until(() => stack.asked('stream').length === 1 && reply.connection.state === 'open');
        stack.write(4);
        await clock.advance(31_000);
        await until(() => reply.text === TEXTS.slice(0, 4).join(''));
        stack.write(Infinity);
        await agree(stack, reply, listening);
        assert.equal(stack.asked('events')[0].query.get('after'), `${ID}:3`);
    });

    test('a proxy that keeps even the head: the same start is asked for whole', async (t) => {
        const { stack, client, clock } = await set(t);
        stack.write(2);
        stack.plan('start', { hold: 'head' });
        const reply = start(client);
        const listening = heard(reply);
        await until(() => stack.asked('start').length === 1);
        await clock.advance(31_000);
        await until(() => stack.asked('start').length === 2);
        assert.equal(reply.connection.transport, 'whole');
        stack.write(Infinity);
        await agree(stack, reply, listening);
        const [first, second] = stack.asked('start');
        assert.deepEqual([second.body, second.headers['idempotency-key']], [first.body, first.headers['idempotency-key']]);
        assert.equal(second.headers.accept, 'application/json');
    });

    test('a whole reply that failed is no failure of the network', async (t) => {
        const { stack, client, clock } = await set(t);
        const error = { type: 'api_error', message: 'The provider ended its answer early.' };
        const message = { ...ended([], { status: 'failed', content: 'Once', error }).at(-1).message };
        stack.plan('start', { hang: true }, { status: 502, body: { error, message, streamed: false } });
        const reply = start(client);
        await until(() => stack.asked('start').length === 1);
        await clock.advance(31_000);
        assert.equal((await reply.finished).status, 'failed');
        assert.deepEqual([reply.text, reply.error.message], ['Once', error.message]);
    });

    for (const [what, plan] of [
        ['that cannot be opened', { status: 502, body: '<html>Bad Gateway</html>', headers: { 'Content-Type': 'text/html' } }],
        ['that is somebody else\'s page', { status: 200, body: '<html>Please sign in</html>', headers: { 'Content-Type': 'text/html' } }],
        ['that ends at once', { cut: 130 }],
    ]) {
        test(`a stream ${what} is given up for long polls after two attempts`, async (t) => {
            const { stack, client } = await set(t);
            stack.plan('stream', plan, plan, plan, plan);
            const reply = client.follow(ID);
            await agree(stack, reply, heard(reply));
            assert.equal(stack.asked('stream').length, 2);
            assert.equal(stack.asked('events').length, 1);
        });
    }

    test('where a WebSocket is configured, it is the next', async (t) => {
        const stack = await FakeStack.listen(t, completed(TEXTS));
        const client = new Tailrace({ url: stack.url, socketUrl: stack.socketUrl, clock: new FakeClock(), random: () => 0 });
        stack.plan('stream', { status: 502 }, { status: 502 });
        const reply = client.follow(ID, { after: `${ID}:2`, text: TEXTS.slice(0, 2).join('') });
        await agree(stack, reply, heard(reply));
        assert.equal(reply.connection.transport, 'websocket');
        assert.deepEqual(stack.frames.items[0].data, { channel: `conversation.${CONVERSATION}`, after: { [ID]: '2' } });
    });

    test('a transport that was asked for is not changed', async (t) => {
        const { stack, client } = await set(t);
        stack.plan('stream', { status: 502 }, { status: 502 }, { status: 502 });
        const reply = client.follow(ID, { transport: 'sse' });
        await agree(stack, reply, heard(reply));
        assert.equal(stack.asked('stream').length, 4);
        const polled = client.follow(ID, { transport: 'polling' });
        await agree(stack, polled, heard(polled));
        assert.equal(stack.asked('stream').length, 4);
    });
});

describe('long polls', () => {
    test('come page by page, and an empty one is asked for again', async (t) => {
        const { stack, client } = await set(t);
        const log = stack.log;
        const page = (from, to) => log.slice(from, to).map(({ data, id }) => ({ ...data, id }));
        stack.plan('events', { status: 200, body: page(0, 2) }, { status: 200, body: [] }, { status: 200, body: page(2, 3) });
        stack.plan('message', { status: 200, body: { ...stack.message, status: 'streaming' } });
        const reply = client.follow(ID, { transport: 'polling' });
        await agree(stack, reply, heard(reply));
        assert.deepEqual(stack.asked('events').map(({ query }) => query.get('after')), ['0', `${ID}:2`, `${ID}:2`, `${ID}:3`]);
    });

    test('cut or refused for a while, they go on at the cursor', async (t) => {
        const { stack, client } = await set(t);
        stack.write(2);
        const reply = client.follow(ID, { transport: 'polling' });
        const listening = heard(reply);
        await until(() => stack.asked('events').length === 2);
        stack.plan('events', { lost: true }, { status: 503 }, { status: 200, body: 'no JSON' });
        stack.sockets.forEach((socket) => socket.resetAndDestroy());
        await until(() => stack.asked('events').length === 6);
        stack.write(Infinity);
        await agree(stack, reply, listening);
    });

    test('with the terminal event already there they end', async (t) => {
        const { stack, client } = await set(t);
        const reply = client.follow(ID, { transport: 'polling', after: `${ID}:${TEXTS.length + 1}`, text: STORY });
        await agree(stack, reply, heard(reply));
    });
});

describe('over a WebSocket', () => {
    const open = async (t, { log, ...options } = {}) => {
        const stack = await FakeStack.listen(t, log ?? completed(TEXTS));
        const clock = new FakeClock();
        const client = new Tailrace({ url: stack.url, socketUrl: stack.socketUrl, clock, random: () => 0, ...options });
        return { stack, clock, client, follow: (more) => client.follow(ID, { transport: 'websocket', ...more }) };
    };
    const cut = (stack) => [...stack.webSockets].forEach((peer) => peer.cut());
    const chunk = (data) => ({ event: 'App\\Events\\MessageChunkReceived', channel: `conversation.${CONVERSATION}`, data: { message_id: ID, ...data } });

    test('a start is posted, and its reply heard on a subscription', async (t) => {
        const { stack, client } = await open(t);
        stack.write(2);
        const reply = start(client, { delivery: { progress: true } }, { transport: 'websocket' });
        const listening = heard(reply);
        await until(() => reply.connection.transport === 'websocket' && reply.connection.state === 'open');
        stack.write(Infinity);
        cut(stack);
        await agree(stack, reply, listening);
        assert.deepEqual(stack.frames.items[0].data, {
            channel: `conversation.${CONVERSATION}`, after: { [ID]: '0' }, delivery: { progress: true },
        });
    });

    test('cut again and again it goes on where it was', async (t) => {
        const { stack, follow } = await open(t);
        stack.subscribed = (peer, { channel, after }) => {
            peer.send({ event: 'subscription_succeeded', channel, data: [] });
            const from = Number(after[ID]);
            chunkFrames(channel, stack.log.slice(from, from + 1), from).forEach(peer.send);
            peer.end();
        };
        const reply = follow();
        await agree(stack, reply, heard(reply));
        assert.deepEqual(stack.frames.items.map(({ data }) => data.after[ID]), ['0', '1', '2', '3', '4', '5']);
    });

    test('what is sent twice is left out, and a gap is fetched', async (t) => {
        const { stack, follow } = await open(t);
        let asked = 0;
        stack.subscribed = (peer, { channel, after }) => {
            const from = Number(after[ID]);
            const rest = chunkFrames(channel, stack.log.slice(from), from);
            const [first, second, , fourth] = rest;
            (asked++ === 0 ? [first, second, first, second, fourth] : rest).forEach(peer.send);
        };
        const reply = follow();
        await agree(stack, reply, heard(reply));
        assert.deepEqual(stack.frames.items.map(({ data }) => data.after[ID]), ['0', '2']);
    });

    test('a frame of which only a part is new is asked for from its middle', async (t) => {
        const { stack, follow } = await open(t);
        let asked = 0;
        stack.subscribed = (peer, { channel, after }) => {
            const from = Number(after[ID]);
            const rest = chunkFrames(channel, stack.log.slice(from), from);
            const both = chunk({ chunk: TEXTS[1] + TEXTS[2], seq: 3, first_seq: 2, chunk_count: 2 });
            (asked++ === 0 ? [...rest.slice(0, 2), both] : rest).forEach(peer.send);
        };
        const reply = follow();
        await agree(stack, reply, heard(reply));
        assert.deepEqual(stack.frames.items.map(({ data }) => data.after[ID]), ['0', '2']);
    });

    test('sentences that end inside an entry, and entries longer than a frame, are resumed inside', async (t) => {
        const log = completed(['Eins. Zwei.', '🌊🌊🌊🌊']);
        const { stack, follow } = await open(t, { log });
        const afters = [];
        stack.subscribed = (peer, { channel, after }) => {
            afters.push(after[ID]);
            peer.send({ event: 'subscription_succeeded', channel, data: [] });
            const frames = {
                0: [chunk({ chunk: 'Eins. ', seq: 0, first_seq: 1, cursor: '1.6', sentence_count: 1 })],
                1.6: [
                    chunk({ chunk: 'Zwei.', seq: 1, first_seq: 1, offset: 6, sentence_count: 2 }),
                    chunk({ chunk: '🌊🌊', seq: 1, first_seq: 2 }),
                ],
                2.2: [
                    chunk({ chunk: '🌊🌊', seq: 1, first_seq: 2 }), // sent twice
                    chunk({ chunk: '🌊🌊', seq: 2, first_seq: 2, offset: 2 }),
                    ...chunkFrames(channel, log.slice(2), 2),
                ],
            };
            frames[after[ID]].forEach(peer.send);
            peer.end();
        };
        const reply = follow({ delivery: { by: 'sentence' } });
        await agree(stack, reply, heard(reply), 'Eins. Zwei.🌊🌊🌊🌊');
        assert.deepEqual(afters, ['0', '1.6', '2.2']);
    });

    test('an end without its content is read by long polls', async (t) => {
        const { stack, follow } = await open(t);
        stack.subscribed = (peer, { channel }) => {
            const [first] = chunkFrames(channel, stack.log);
            const end = chunkFrames(channel, stack.log).at(-1);
            peer.send(first);
            peer.send({ ...end, data: { ...end.data, truncated: true, message: { ...end.data.message, content: '' } } });
        };
        const reply = follow();
        await agree(stack, reply, heard(reply));
    });

    test('a reset, parts and a failure mean there what they mean in a stream', async (t) => {
        const error = { type: 'api_error', message: 'The provider ended its answer early.' };
        const events = [{ chunk: 'void' }, { reset: true }, { reasoning: 'Hm.' }, { tool_call: { id: 'a', name: 'x', arguments: '{}' } }, { chunk: 'Once' }];
        const { stack, follow } = await open(t, { log: ended(events, { status: 'failed', content: 'Once', error }) });
        const reply = follow({ delivery: { parts: true } });
        const { types } = await agree(stack, reply, heard(reply), 'Once');
        assert.deepEqual(types, ['text', 'reset', 'reasoning', 'tool-call', 'text', 'error']);
        assert.equal(reply.error.message, error.message);
    });

    test('one that says nothing, not even pong, is left', async (t) => {
        const { stack, clock, follow } = await open(t);
        stack.plan('ws', { mute: true });
        const reply = follow();
        await until(() => stack.frames.items.length === 1);
        await clock.advance(23_000);
        await agree(stack, reply, heard(reply));
        assert.equal(stack.asked('ws').length, 2);
    });

    test('an end that is there already is seen, and one that was told to nobody', async (t) => {
        let pongs = 0;
        class Listening extends WebSocket {
            constructor(url) {
                super(url);
                this.addEventListener('message', ({ data }) => { pongs += JSON.parse(data).event === 'pong'; });
            }
        }
        const { stack, clock, follow } = await open(t, { WebSocket: Listening });
        const known = follow({ after: `${ID}:${TEXTS.length + 1}`, text: STORY });
        await agree(stack, known, heard(known));
        stack.write(2);
        const reply = follow();
        const listening = heard(reply);
        await until(() => reply.text === TEXTS.slice(0, 2).join(''));
        stack.write(Infinity);
        const pings = () => stack.frames.items.filter(({ event }) => event === 'ping').length;
        await until(async () => {
            await clock.advance(1000);
            await until(() => pings() === pongs); // while the clock stands
            return reply.ended;
        });
        await agree(stack, reply, listening);
        assert.equal(stack.asked('events').length, 1);
    });

    test('one that is refused leaves the reply to the other transports', async (t) => {
        const { stack, client } = await open(t);
        stack.plan('stream', { status: 502 }, { status: 502 });
        stack.subscribed = (peer, { channel }) => peer.send({ event: 'error', channel, data: { message: 'No such conversation.' } });
        const reply = client.follow(ID);
        await agree(stack, reply, heard(reply));
        assert.equal(reply.connection.transport, 'polling');
    });

    test('a private channel is signed for that socket', async (t) => {
        const { stack, client } = await open(t);
        const channel = `private-conversation.${CONVERSATION}`;
        const reply = start(client, { channel }, { transport: 'websocket' });
        await agree(stack, reply, heard(reply));
        const [whoami, subscribe] = stack.frames.items;
        assert.equal(whoami.event, 'whoami');
        assert.deepEqual(subscribe.data, { channel, after: { [ID]: '0' }, auth: 'signed-socket-1' });
    });
});

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

describe('who is asking', () => {
    test('may be out of reach for a while', async (t) => {
        let asked = 0;
        const token = () => (++asked < 3 ? Promise.reject(new TypeError('Failed to fetch')) : 'token');
        const { stack, client } = await set(t, { token });
        const reply = start(client);
        await agree(stack, reply, heard(reply));
        assert.equal(stack.requests.length, 1);
        const refused = new TailraceError('Sign in again.', { type: 'unauthenticated', status: 401 });
        const { client: other } = await set(t, { token: () => Promise.reject(refused) });
        assert.equal(await rejected(start(other).finished), refused);
    });

    test('is asked again at each connection', async (t) => {
        let asked = 0;
        const { stack, client } = await set(t, { token: async () => `token-${++asked}`, headers: { 'X-Team': 'a' } });
        stack.plan('stream', { cut: 300 }, { cut: 200 });
        const reply = client.follow(ID);
        await agree(stack, reply, heard(reply));
        assert.deepEqual(stack.asked('stream').map(({ headers }) => headers.authorization), ['Bearer token-1', 'Bearer token-2', 'Bearer token-3']);
        assert.ok(stack.requests.every(({ headers }) => headers['x-team'] === 'a'));
    });

    test('may be headers, or nobody', async (t) => {
        for (const [token, expected] of [[() => ({ Authorization: 'AWS4 x' }), 'AWS4 x'], [() => null, undefined]]) {
            const { stack, client } = await set(t, { token });
            await client.message(ID);
            assert.equal(stack.requests[0].headers.authorization, expected);
        }
    });

    test('is in the address of a WebSocket', async (t) => {
        const stack = await FakeStack.listen(t, completed(TEXTS));
        const client = new Tailrace({ url: stack.url, socketUrl: stack.socketUrl, token: () => 'a b', clock: new FakeClock(), random: () => 0 });
        await client.follow(ID, { transport: 'websocket' }).finished;
        assert.equal(stack.asked('ws')[0].query.get('access_token'), 'a b');
    });
});

describe('addresses', () => {
    test('may be two: of what streams or waits, and of everything else', async (t) => {
        const api = await FakeStack.listen(t, completed(TEXTS));
        const streams = await FakeStack.listen(t, completed(TEXTS));
        const client = new Tailrace({ url: `${api.url}/`, streamUrl: `${streams.url}/`, clock: new FakeClock(), random: () => 0 });
        await start(client).finished;
        await client.follow(ID).finished;
        await client.follow(ID, { transport: 'polling' }).finished;
        await client.message(ID);
        await client.follow(ID).stop();
        assert.deepEqual(streams.requests.map(({ kind }) => kind).slice(0, 3), ['start', 'stream', 'events']);
        assert.deepEqual(api.requests.map(({ kind }) => kind), ['message', 'cancel']);
    });
});

describe('conversations', () => {
    test('a refusal has the server\'s sentence, and no answer has one of the client\'s', async (t) => {
        const { stack, client } = await set(t);
        const error = await rejected(client.conversations.get('none'));
        assert.deepEqual([error.name, error.status, error.type, error.message], ['TailraceError', 404, 'not_found', 'No such thing.']);
        await stack.close();
        const lost = await rejected(client.conversations.list());
        assert.deepEqual([lost.status, lost.type, lost.message], [null, 'unreachable', 'The server cannot be reached.']);
        assert.ok(lost.cause instanceof TypeError);
    });
});
