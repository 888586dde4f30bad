// web/tailrace.js: what a reply's events make of it, from any cursor, and who is asking.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Tailrace, TailraceError } from '../../web/tailrace.js';
import { until } from './chat.js';
import { FakeClock } from './fake-clock.js';
import { FakeStack, ID, completed, ended } from './fake-stack.js';
import { STORY, TEXTS, agree, heard, rejected, set, start } from './tailrace.js';

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

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
        const { types } = await agree(stack, reply, heard(reply), 'Once upon', 1);
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
            await agree(stack, reply, heard(reply), STORY, 1);
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
    test('an id from a page\'s address is an id and no path', async (t) => {
        const { stack, client } = await set(t);
        await rejected(client.conversations.get('../messages/m1?a#b'));
        await rejected(client.follow('../health').finished);
        assert.deepEqual(stack.requests.map(({ path }) => path), ['/conversations/..%2Fmessages%2Fm1%3Fa%23b', '/messages/..%2Fhealth/stream']);
    });

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
