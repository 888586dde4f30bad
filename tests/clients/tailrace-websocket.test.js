// web/tailrace.js: a reply over a WebSocket.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Tailrace } from '../../web/tailrace.js';
import { until } from './chat.js';
import { FakeClock } from './fake-clock.js';
import { CONVERSATION, FakeStack, ID, chunkFrames, completed, ended } from './fake-stack.js';
import { STORY, TEXTS, agree, heard, start } from './tailrace.js';

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

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
        const { types } = await agree(stack, reply, heard(reply), 'Once', 1);
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
