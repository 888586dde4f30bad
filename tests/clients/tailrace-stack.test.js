// web/tailrace.js against the stack of `make run`, over each transport.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Tailrace, TailraceError } from '../../web/tailrace.js';
import { URL_, api } from './api.js';
import { until } from './chat.js';
import { Cuts } from '../browser/cuts.js';
import { Inbox } from './inbox.js';

after(() => setImmediate(() => process.exit()));

const STORY = { options: { script: { chunks: 90, every: 0.02 } } };
const TRANSPORTS = ['sse', 'websocket', 'polling'];
const socketOf = (url) => `${url.replace('http', 'ws')}/ws`;
const client = new Tailrace({ url: URL_, socketUrl: socketOf(URL_) });
const history = async ({ id }) => (await api('GET', `/conversations/${id}/messages`)).messages;

/** A client behind a network that is cut. */
async function behind(t, cuts = []) {
    const network = await Cuts.listen(URL_, cuts);
    t.after(() => network.close());
    return { network, client: new Tailrace({ url: network.url, socketUrl: socketOf(network.url) }) };
}

async function heard(reply, each = () => {}) {
    const found = { text: '', types: [], ends: 0 };
    for await (const event of reply) {
        found.types.push(event.type);
        if (event.type === 'text') {
            found.text += event.text;
        } else if (event.type === 'reset') {
            found.text = '';
        } else if (event.type === 'done' || event.type === 'error') {
            found.ends += 1;
        }
        each(event, found);
    }
    return found;
}

/** One question and one reply are stored, and all who heard it agree with that; only a `reset` that is due mended it. */
async function agree(conversation, reply, listening, status = 'completed', mayReset = false) {
    const [message, listened] = await Promise.all([reply.finished, listening]);
    const messages = await history(conversation);
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
    assert.deepEqual(message, messages[1]);
    assert.equal(message.status, status);
    assert.equal(listened.text, message.content);
    assert.equal(reply.text, message.content);
    assert.equal(reply.status, status);
    assert.equal(listened.ends, 1);
    assert.ok(mayReset || !listened.types.includes('reset'), 'it was mended at its end');
    return { message, listened };
}

const rejected = (promise) => promise.then(() => assert.fail('It was not refused.'), (error) => error);

describe('conversations', () => {
    test('are made, listed page by page, read, renamed, deleted and restored', async () => {
        const made = [];
        for (const title of ['a', 'b', 'c']) {
            made.unshift(await client.conversations.create({ title, system: 'Be brief.', metadata: { title } }));
        }
        const found = [];
        for (let cursor = null; found.length < 3;) {
            const page = await client.conversations.list({ limit: 2, cursor });
            found.push(...page.conversations);
            cursor = page.next_cursor;
        }
        assert.deepEqual(found.slice(0, 3), made);
        const [{ id }] = made;
        assert.deepEqual(await client.conversations.get(id), made[0]);
        assert.equal((await client.conversations.rename(id, 'other')).title, 'other');
        assert.equal(await client.conversations.delete(id), undefined);
        const gone = await rejected(client.conversations.get(id));
        assert.ok(gone instanceof TailraceError);
        assert.deepEqual([gone.status, gone.type, gone.message], [404, 'not_found', 'No such conversation.']);
        assert.equal((await client.conversations.restore(id)).title, 'other');
    });

    test('have their messages page by page, from either end', async () => {
        const { id } = await client.conversations.create();
        for (const content of ['1', '2', '3', '4', '5']) {
            await client.add(id, { role: 'user', content });
        }
        const contents = ({ messages }) => messages.map(({ content }) => content).join('');
        const first = await client.messages(id, { limit: 2 });
        assert.equal(contents(first), '12');
        assert.equal(contents(await client.messages(id, { limit: 2, cursor: first.next_cursor })), '34');
        const last = await client.messages(id, { limit: 2, order: 'desc' });
        assert.equal(contents(last), '54');
        assert.equal(contents(await client.messages(id, { order: 'desc', before: last.messages.at(-1).id })), '321');
        const [{ id: newest }] = last.messages;
        assert.deepEqual(await client.message(newest), last.messages[0]);
        await client.delete(newest);
        assert.equal((await rejected(client.message(newest))).status, 404);
        assert.equal((await client.restore(newest)).content, '5');
    });

    test('are shared: a reply is followed with the token of a grant, until that is revoked', async () => {
        const { id } = await client.conversations.create();
        const message = await client.start(id, { input: 'x', model: 'fast' }).finished;
        const { token, ...grant } = await client.conversations.share(id, { right: 'read', expires_in: 600 });
        assert.deepEqual((await client.conversations.grants(id)).grants.map((each) => each.id), [grant.id]);
        const reader = new Tailrace({ url: URL_, socketUrl: socketOf(URL_), token: () => token });
        for (const transport of TRANSPORTS) {
            const reply = reader.follow(message.id, { transport });
            assert.equal((await heard(reply)).text, message.content);
        }
        assert.equal((await rejected(reader.start(id, { input: 'x' }).finished)).status, 403);
        await client.conversations.revoke(id, grant.id);
        const gone = await rejected(reader.follow(message.id).finished);
        assert.deepEqual([gone.status, gone.type], [401, 'unauthenticated']);
    });
});

for (const transport of TRANSPORTS) {
    describe(`by ${transport}`, { concurrency: true }, () => {
        for (const [how, delivery] of [
            ['by chunk', undefined],
            ['by sentence, with progress and parts', { by: 'sentence', progress: true, parts: true }],
            ['at intervals', { interval_ms: 60, progress: true }],
        ]) {
            test(`a reply ${how}, cut in the midst`, async () => {
                const conversation = await client.conversations.create();
                const reply = client.start(conversation.id, { input: 'A story', delivery, ...STORY }, { transport });
                let cuts = 0;
                const listening = heard(reply, (event, { text }) => {
                    if (text.length > 60 * (cuts + 1) && cuts < 3) {
                        cuts += 1;
                        reply.disconnect();
                    }
                });
                const { message, listened } = await agree(conversation, reply, listening);
                assert.equal(cuts, 3);
                assert.equal(reply.connection.transport, transport);
                if (delivery?.progress) {
                    assert.equal(reply.progress.characters, [...message.content].length);
                    assert.ok(listened.types.includes('progress'));
                }
            });
        }

        test('a reply that fails, one that is reset, and one that is stopped elsewhere', async () => {
            const failing = await client.conversations.create();
            const failed = client.start(failing.id, { input: 'x', model: 'break' }, { transport });
            await agree(failing, failed, heard(failed), 'failed');
            assert.deepEqual([failed.error.type, failed.error.message], ['api_error', failed.message.error.message]);

            const falling = await client.conversations.create();
            const fallen = client.start(falling.id, {
                input: 'x', fallback: 'reset', options: { script: { chunks: 6, every: 0.05, error_at: 5 } },
                fallbacks: [{ provider: 'text', model: 'any' }],
            }, { transport });
            const { listened } = await agree(falling, fallen, heard(fallen), 'completed', true);
            assert.ok(transport !== 'sse' || listened.types.includes('reset'));

            const stopping = await client.conversations.create();
            const stopped = client.start(stopping.id, { input: 'x', options: { script: { chunks: 400, every: 0.02 } } }, { transport });
            const listening = heard(stopped);
            const { messageId } = await stopped.started;
            await until(() => stopped.text.length > 20);
            await api('POST', `/messages/${messageId}/cancel`, {});
            await agree(stopping, stopped, listening, 'cancelled', true); // the first connection is ahead of the log
        });

        test('a long reply, much at once', async () => {
            const conversation = await client.conversations.create();
            const chunks = Array.from({ length: 320 }, (_, i) => `${i} ${'水🌊'.repeat(100)} `);
            const reply = client.start(conversation.id, { input: 'x', options: { script: { chunks } } }, { transport });
            await agree(conversation, reply, heard(reply));
        });

        test('a reply is followed from its beginning, from a message, and from what was kept', async () => {
            const conversation = await client.conversations.create();
            const reply = client.start(conversation.id, { input: 'A story', delivery: { by: 'sentence' }, ...STORY });
            const { messageId } = await reply.started;
            await until(() => reply.text.length > 100);
            const saved = JSON.stringify(reply);
            const others = [
                client.follow(messageId, { transport }),
                client.follow(await client.message(messageId), { transport, delivery: { parts: true } }),
                client.follow(JSON.parse(saved), { transport }),
            ];
            const listening = others.map((each) => heard(each));
            for (const [i, each] of others.entries()) {
                await agree(conversation, each, listening[i]);
            }
            const ended = client.follow(messageId, { after: reply.cursor, text: reply.text, transport });
            await agree(conversation, ended, heard(ended));
        });
    });
}

describe('one start', { concurrency: true }, () => {
    test('is one reply, wherever the network is cut', async (t) => {
        const cuts = [
            { after: 10, by: 'reset' }, // in the head
            { after: 'x-message-id: ', by: 'end' },
            { after: 'data: ', by: 'reset' },
            { after: '\xe6', by: 'end' }, // in a character
            { after: 'id: ', by: 'reset' },
            { after: 3000, by: 'end' },
            { after: '"done":true', by: 'reset' },
        ];
        const { client: other, network } = await behind(t, cuts);
        const conversation = await client.conversations.create();
        const reply = other.start(conversation.id, { input: 'A story' }, { transport: 'sse' });
        await agree(conversation, reply, heard(reply));
        assert.deepEqual(network.left, []);
        assert.equal(network.requests.filter(({ method }) => method === 'POST').length, 3);
    });

    test('goes on in another transport in mid-answer', async (t) => {
        const { client: other, network } = await behind(t, [{ after: 2000, by: 'reset' }, { after: 20, by: 'reset' }, { after: 20, by: 'reset' }]);
        const conversation = await client.conversations.create();
        const reply = other.start(conversation.id, { input: 'A story', options: { script: { chunks: 100, every: 0.05 } } });
        await agree(conversation, reply, heard(reply));
        assert.equal(reply.connection.transport, 'websocket');
        assert.deepEqual(network.left, []);
    });

    test('is refused with the server\'s sentence', async () => {
        const { id } = await client.conversations.create();
        await client.start(id, { input: 'x', model: 'fast' }, { key: 'k' }).finished;
        for (const [asked, status, type] of [
            [client.start(id, { input: 'other', model: 'fast' }, { key: 'k' }), 409, 'conflict'],
            [client.start(id, { input: 'x', provider: 'nobody' }), 422, 'unprocessable'],
            [client.start('none', { input: 'x' }), 404, 'not_found'],
            [client.follow('none'), 404, 'not_found'],
        ]) {
            const error = await rejected(asked.finished);
            assert.deepEqual([error.status, error.type], [status, type]);
            assert.match(error.message, /^[A-Z].*\.$/);
        }
        assert.equal((await history({ id })).length, 2);
    });

    test('that is bound to its reader is not left for another transport', async () => {
        const conversation = await client.conversations.create();
        const asked = { input: 'x', on_disconnect: 'cancel', options: { script: { chunks: 20, every: 0.02 } } };
        const reply = client.start(conversation.id, asked, { transport: 'polling' });
        await agree(conversation, reply, heard(reply));
    });
});

describe('tools', () => {
    const calls = (name, given) => ({ tool_calls: [{ id: 'call_1', name, arguments: JSON.stringify(given) }] });

    test('that run there are told, and those that ask first are answered', async () => {
        const steps = [{ chunks: ['Let me see. '], reasoning: ['Hm. '], ...calls('send_mail', { to: 'ann' }) }, { chunks: ['Done.'] }];
        const asked = { input: 'x', delivery: { parts: true }, options: { tools: ['send_mail'], script: { steps } } };
        for (const [approval, state] of [[true, 'done'], [{ approved: false, reason: 'Not to her.' }, 'denied']]) {
            const { id } = await client.conversations.create();
            const reply = client.start(id, asked);
            const { types } = await heard(reply);
            assert.deepEqual(types, ['reasoning', 'text', 'tool-call', 'approval', 'step', 'done']);
            assert.deepEqual([reply.reasoning, reply.waiting, reply.tools[0].state], ['Hm. ', ['call_1'], 'waiting']);
            const next = reply.approve({ call_1: approval });
            const listened = await heard(next);
            assert.equal(next.text, 'Done.');
            assert.equal(next.tools[0].state, state);
            assert.ok(listened.types.indexOf('approval') < listened.types.indexOf('tool-result'));
            const again = await rejected(reply.approve({ call_1: true }).finished);
            assert.equal(again.status, 422); // nothing waits any more
            const read = client.follow(await client.message(next.messageId), { delivery: { parts: true } });
            await read.finished;
            assert.equal(read.tools[0].state, state);
        }
    });

    test('a step that broke off is gone on with', async () => {
        const { id } = await client.conversations.create();
        const steps = [{ chunks: ['One. '], ...calls('weather', { city: 'Ulm' }) }, { chunks: ['Two. '], error_at: 1 }];
        const broken = client.start(id, { input: 'x', delivery: { parts: true }, options: { tools: ['weather'], script: { steps } } });
        assert.equal((await broken.finished).status, 'failed');
        assert.deepEqual(broken.tools.map(({ name, state }) => [name, state]), [['weather', 'done']]);
        const whole = [steps[0], { chunks: ['Two, whole.'] }];
        const next = broken.continue({ options: { tools: ['weather'], script: { steps: whole } } });
        assert.equal((await next.finished).status, 'completed');
        assert.equal(next.text, 'Two, whole.');
        assert.equal(next.message.metadata.continues, broken.messageId);
    });
});

test('stop() ends a reply for everybody', async () => {
    const conversation = await client.conversations.create();
    const reply = client.start(conversation.id, { input: 'x', options: { script: { chunks: 400, every: 0.02 } } });
    const listening = heard(reply);
    const { messageId } = await reply.started;
    const others = TRANSPORTS.map((transport) => client.follow(messageId, { transport }));
    await until(() => others.every(({ text }) => text.length > 10));
    assert.equal((await reply.stop()).status, 'cancelled');
    await agree(conversation, reply, listening, 'cancelled', true); // the first connection is ahead of the log
    for (const other of others) {
        assert.equal((await other.finished).content, reply.text);
        assert.equal(other.text, reply.text);
    }
    assert.equal((await reply.stop()).status, 'cancelled');
});

describe('channels', () => {
    test('on a presence channel the members see each other, and after a reconnect again', async (t) => {
        const { client: other, network } = await behind(t);
        const { id } = await client.conversations.create();
        const name = `presence-conversation.${id}`;
        const told = [];
        const users = (members) => members.map(({ user_id: user }) => user);
        const first = client.channel(name)
            .here((members) => told.push(['here', ...users(members)]))
            .joining((member) => told.push(['joining', member.user_id]))
            .leaving((member) => told.push(['leaving', member.user_id]));
        t.after(() => first.leave());
        await until(() => told.length === 1);
        const [[, me]] = told;
        const second = other.channel(name);
        const heres = new Inbox();
        second.here(heres.put);
        const [here] = await Promise.all([heres.find(), until(() => told.length === 2)]);
        const you = users(here).find((user) => user !== me);
        assert.deepEqual(told.slice(1), [['joining', you]]);
        const whispers = [new Inbox(), new Inbox()];
        [first, second].forEach((channel, i) => channel.listenForWhisper('typing', whispers[i].put));
        second.whisper('typing', { name: '水' });
        assert.deepEqual(await whispers[0].find(), { name: '水' });
        network.sockets.forEach((socket) => socket.destroy());
        const again = await heres.find((members) => users(members).every((user) => user !== you) || members.length > 2);
        const now = users(again).find((user) => user !== me && user !== you);
        await until(() => told.some(([what, who]) => what === 'joining' && who === now) && told.some(([what]) => what === 'leaving'));
        assert.deepEqual(told.find(([what]) => what === 'leaving'), ['leaving', you]);
        await until(() => second.members.length === 2);
        first.whisper('typing', { name: 'A' });
        assert.deepEqual(await whispers[1].find(), { name: 'A' });
        other.disconnect();
        await until(() => told.some(([what, who]) => what === 'leaving' && who === now));
    });

    test('a reply is heard to its end although the connection is lost again and again', async (t) => {
        const { client: other, network } = await behind(t);
        const { id } = await client.conversations.create();
        t.after(() => other.disconnect());
        const page = { text: '', ends: [] };
        const channel = other.channel(`conversation.${id}`)
            .listen('MessageChunkReceived', ({ chunk }) => { page.text += chunk; })
            .listen('MessageCompleted', ({ message }) => page.ends.push(message));
        await new Promise((resolve) => channel.subscribed(resolve));
        const reply = client.start(id, { input: 'x', options: { script: { chunks: 200, every: 0.02 } } });
        for (const length of [20, 60, 120, 200]) {
            await until(() => page.text.length > length);
            network.sockets.forEach((socket) => socket.destroy());
        }
        const message = await reply.finished;
        await until(() => page.ends.length > 0);
        assert.deepEqual(page.ends, [message]);
        assert.equal(page.text, message.content);
    });

    test('one that may not be heard says so', async () => {
        const channel = client.channel('private-conversation.none');
        const error = await new Promise((resolve) => channel.error(resolve));
        assert.deepEqual([error.status, error.type, error.message], [403, 'forbidden', 'You may not subscribe to this channel.']);
        channel.leave();
    });
});
