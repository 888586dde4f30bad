// web/tailrace.js: how it waits, and what it does about silence and proxies.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Tailrace } from '../../web/tailrace.js';
import { until } from './chat.js';
import { FakeClock } from './fake-clock.js';
import { CONVERSATION, FakeStack, ID, completed, ended } from './fake-stack.js';
import { STORY, TEXTS, agree, heard, rejected, set, start } from './tailrace.js';

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

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
                assert.equal(reply.connection.state, 'waiting');
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

    test('a reply of which there is nothing yet is no reason to change the transport', async (t) => {
        const { stack, client, clock } = await set(t);
        stack.write(0);
        const reply = client.follow(ID);
        const listening = heard(reply);
        for (let count = 1; count <= 3; count += 1) {
            await until(() => stack.asked('stream').length === count && reply.connection.state === 'open');
            await clock.advance(31_000);
        }
        await until(() => stack.asked('stream').length === 4);
        stack.write(Infinity);
        await agree(stack, reply, listening);
        assert.equal(reply.connection.transport, 'sse');
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
