// laravel-echo 2.5, unmodified, with the broadcaster of web/echo.js, against the stack of `make run`.

import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { TailraceBroadcaster } from '../../web/echo.js';
import { until } from './chat.js';
import { Cuts } from '../browser/cuts.js';
import { Inbox, URL_, axios, connect as connectWith, disconnectAll, newConversation, reply } from './stack.js';

const connect = (options) => connectWith({ broadcaster: TailraceBroadcaster, ...options });
const subscribed = (channel) => new Promise((resolve) => channel.subscribed(resolve));

afterEach(disconnectAll);
after(() => setImmediate(() => process.exit()));

function listen(echo, { id }) {
    const page = { text: '', chunks: 0, completed: new Inbox() };
    const channel = echo.channel(`conversation.${id}`)
        .listen('MessageChunkReceived', ({ chunk }) => {
            page.text += chunk;
            page.chunks += 1;
        })
        .listen('MessageCompleted', ({ message }) => page.completed.put(message));
    return { page, ready: subscribed(channel) };
}

test('two clients hear a reply while it is written', async () => {
    const conversation = await newConversation();
    const pages = [connect(), connect()].map((echo) => listen(echo, conversation));
    await Promise.all(pages.map(({ ready }) => ready));
    const message = await reply(conversation);
    for (const { page } of pages) {
        assert.deepEqual(await page.completed.find(), message);
        assert.equal(page.text, message.content);
        assert.ok(page.chunks > 3, 'it came as it was written, not at the end');
    }
});

test('lost again and again, a channel that was made late too goes on where it was', async (t) => {
    const network = await Cuts.listen(URL_, []);
    t.after(() => network.close());
    const echo = connect({ host: `${network.url.replace('http', 'ws')}/ws`, authEndpoint: `${network.url}/broadcasting/auth` });
    await subscribed(echo.channel('something.else'));
    const conversation = await newConversation();
    const { page, ready } = listen(echo, conversation);
    await ready;
    const statuses = [];
    echo.connector.onConnectionChange((status) => statuses.push(status));
    const writing = reply(conversation, { chunks: 160, every: 0.02 });
    for (const length of [20, 80, 160]) {
        await until(() => page.text.length > length);
        const before = echo.socketId();
        network.sockets.forEach((socket) => socket.destroy());
        await until(() => echo.socketId() && echo.socketId() !== before);
    }
    const message = await writing;
    assert.deepEqual(await page.completed.find(), message);
    assert.equal(page.text, message.content);
    assert.deepEqual(statuses, Array(3).fill(['reconnecting', 'connected']).flat());
});

test('what a client starts through axios is not echoed to it', async () => {
    const conversation = await newConversation();
    const own = connect();
    const mine = listen(own, conversation);
    const other = listen(connect(), conversation);
    await Promise.all([mine.ready, other.ready]);
    const { data } = await axios.post(`${URL_}/conversations/${conversation.id}/stream`, {
        input: 'hi', options: { script: { chunks: 10, every: 0.02 } },
    }, { headers: { Accept: 'application/json' } });
    assert.equal((await other.page.completed.find()).id, data.message.id);
    const next = await reply(conversation);
    await mine.page.completed.find();
    assert.deepEqual(mine.page.completed.items.map(({ id }) => id), [next.id]);
    assert.equal(mine.page.text, next.content);
});

test('a refusal reaches error()', async () => {
    const echo = connect();
    const error = await new Promise((resolve) => echo.private('conversation.of-somebody-else').error(resolve));
    assert.deepEqual([error.status, error.message], [403, 'You may not subscribe to this channel.']);
});

test('here, joining, leaving and whispers on a presence channel', async () => {
    const name = `conversation.${(await newConversation()).id}`;
    const [first, second] = [connect(), connect()];
    const told = [];
    const user = ({ user_id: id }) => id;
    await subscribed(first.join(name)
        .here((members) => told.push(['here', ...members.map(user)]))
        .joining((member) => told.push(['joining', user(member)]))
        .leaving((member) => told.push(['leaving', user(member)])));
    const heard = new Inbox();
    const joined = second.join(name).listenForWhisper('typing', heard.put);
    await subscribed(joined);
    await until(() => told.length === 2);
    first.join(name).whisper('typing', { name: '水' });
    assert.deepEqual(await heard.find(), { name: '水' });
    const gone = second.socketId();
    second.leave(name);
    await until(() => told.length === 3);
    assert.deepEqual(told, [['here', first.socketId()], ['joining', gone], ['leaving', gone]]);
    assert.deepEqual(first.join(name).members.map(user), [first.socketId()]);
});
