// laravel-echo 2.5 and laravel-echo-api-gateway 0.5.5, unmodified, against the stack of `make run`.

import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { Inbox, URL_, api, axios, connect, disconnectAll, newConversation, reply, socketId, subscribed } from './stack.js';

const presence = { joining: '.presence:joining', leaving: '.presence:leaving' };

afterEach(disconnectAll);
// The driver's timers to connect again would keep the process alive.
after(() => setImmediate(() => process.exit()));

/** What the seed page's listing does, as it stands there, with its two functions. */
function listen(Echo, conversationId) {
    const page = { text: '', chunks: [], completed: new Inbox() };
    const appendToMessage = (chunk) => { page.text += chunk; };
    const onMessageComplete = (message) => page.completed.put(message);

    const channel = Echo.channel(`conversation.${conversationId}`)
        .listen('MessageChunkReceived', (e) => {
            page.chunks.push(e);
            appendToMessage(e.chunk);
        })
        .listen('MessageCompleted', (e) => {
            onMessageComplete(e.message);
        });
    return { page, ready: subscribed(channel) };
}

test('the listing of the seed page, with two clients', async () => {
    const conversation = await newConversation();
    const pages = [connect(), connect()].map((echo) => listen(echo, conversation.id));
    await Promise.all(pages.map(({ ready }) => ready));
    const message = await reply(conversation);
    for (const { page } of pages) {
        const completed = await page.completed.find();
        assert.equal(completed.id, message.id);
        assert.equal(completed.content, message.content);
        assert.equal(page.text, message.content);
        assert.ok(page.chunks.length > 3, 'it came as it was written, not at the end');
        page.chunks.forEach((chunk, i) => {
            assert.equal(chunk.first_seq, i ? page.chunks[i - 1].seq + 1 : 1);
            assert.equal(chunk.message_id, message.id);
        });
    }
});

test('what a client starts through axios is not echoed to it', async () => {
    const conversation = await newConversation();
    const own = connect();
    const mine = listen(own, conversation.id);
    const other = listen(connect(), conversation.id);
    await Promise.all([mine.ready, other.ready]);
    // Of two Echos with one axios, the one that was made first has the last word.
    const { data, config } = await axios.post(`${URL_}/conversations/${conversation.id}/stream`, {
        input: 'hi', options: { script: { chunks: 10, every: 0.02 } },
    }, { headers: { Accept: 'application/json' } });
    assert.equal(config.headers['X-Socket-Id'], own.socketId());
    assert.equal((await other.page.completed.find()).id, data.message.id);
    assert.equal(other.page.text, data.message.content);
    // The next reply comes after all there was of the first.
    const next = await reply(conversation);
    await mine.page.completed.find();
    assert.deepEqual(mine.page.completed.items.map((message) => message.id), [next.id]);
    assert.equal(mine.page.text, next.content);
});

test('a failure is told as MessageFailed, and what was asked as MessageCreated', async () => {
    const conversation = await newConversation();
    const created = new Inbox();
    const failed = new Inbox();
    const channel = connect().channel(`conversation.${conversation.id}`)
        .listen('MessageCreated', created.put)
        .listen('MessageFailed', failed.put);
    await subscribed(channel);
    const { message } = await api('POST', `/conversations/${conversation.id}/stream`, { input: 'hi', model: 'break' });
    const told = await failed.find();
    assert.equal(told.message_id, message.id);
    assert.equal(told.error, message.error.message);
    await created.find((e) => e.message.role === 'user' && e.message.content === 'hi');
    await created.find((e) => e.message_id === message.id);
    assert.equal(created.items.length, 2);
});

test('a private channel is for whoever may read the conversation', async () => {
    const conversation = await newConversation();
    const answers = new Inbox();
    const watching = axios.interceptors.response.use(
        (response) => { answers.put(response); return response; },
        (error) => { answers.put(error.response); return Promise.reject(error); },
    );
    const echo = connect();
    const allowed = echo.private(`conversation.${conversation.id}`);
    const denied = echo.private('conversation.of-somebody-else');
    const succeeded = [];
    denied.on('subscription_succeeded', () => succeeded.push('denied'));
    await subscribed(allowed);
    const refused = await answers.find((answer) => answer.status !== 200);
    axios.interceptors.response.eject(watching);
    assert.equal(refused.status, 403);
    // A client that makes up a signature gets an error on that channel, and no subscription.
    const error = new Promise((resolve) => denied.error(resolve));
    echo.connector.socket.send({
        event: 'subscribe',
        data: { channel: 'private-conversation.of-somebody-else', auth: '0'.repeat(64) },
    });
    assert.equal(typeof (await error).message, 'string');
    assert.deepEqual(succeeded, []);
    // What is sent to the private channel arrives there.
    const chunks = [];
    const done = new Inbox();
    allowed.listen('MessageChunkReceived', (e) => chunks.push(e.chunk)).listen('MessageCompleted', done.put);
    const message = await reply(conversation, { chunks: 10, every: 0.02 }, {
        channel: `private-conversation.${conversation.id}`,
    });
    await done.find();
    assert.equal(chunks.join(''), message.content);
});

test('a presence channel has its members, and tells who comes and goes', async () => {
    const conversation = await newConversation();
    const name = `conversation.${conversation.id}`;
    const first = connect();
    const joining = new Inbox();
    const leaving = new Inbox();
    const channel = first.join(name).listen(presence.joining, joining.put).listen(presence.leaving, leaving.put);
    const alone = await subscribed(channel);
    assert.deepEqual(alone.map((member) => member.user_id), [first.socketId()]);
    const second = connect();
    const both = await subscribed(second.join(name));
    assert.deepEqual(new Set(both.map((member) => member.user_id)), new Set([first.socketId(), second.socketId()]));
    assert.equal((await joining.find()).user_id, second.socketId());
    const gone = second.socketId();
    second.disconnect();
    assert.equal((await leaving.find()).user_id, gone);
    assert.equal(joining.items.length, 1);
});

test('a whisper is for the others in the channel', async () => {
    const conversation = await newConversation();
    const name = `conversation.${conversation.id}`;
    const echoes = [connect(), connect()];
    const heard = [new Inbox(), new Inbox()];
    const channels = echoes.map((echo, i) => echo.private(name).listenForWhisper('typing', heard[i].put));
    await Promise.all(channels.map(subscribed));
    channels[0].whisper('typing', { name: 'A 水' });
    assert.deepEqual(await heard[1].find(), { name: 'A 水' });
    channels[1].whisper('typing', { name: 'B' });
    assert.deepEqual(await heard[0].find(), { name: 'B' });
    assert.deepEqual(heard.map(({ items }) => items.length), [1, 1]);
});

test('after a connection was lost the driver comes back, and hears on', async () => {
    const conversation = await newConversation();
    const echo = connect();
    const { page, ready } = listen(echo, conversation.id);
    await ready;
    const before = echo.socketId();
    const again = subscribed(echo.channel(`conversation.${conversation.id}`));
    echo.connector.socket.websocket.close(4000, 'as if the network had');
    await again;
    assert.notEqual(await socketId(echo, before), before);
    const message = await reply(conversation);
    assert.equal((await page.completed.find()).content, message.content);
    assert.equal(page.text, message.content);
});

test('whoever comes late gets what it missed first, and then the rest', async () => {
    const conversation = await newConversation();
    const early = connect();
    const { page, ready } = listen(early, conversation.id);
    await ready;
    const writing = reply(conversation, { chunks: 120, every: 0.025 });
    while (page.text.length < 40) {
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const seen = page.chunks[1]; // what a page may have kept before it was loaded again
    const late = connect();
    await socketId(late);
    const chunks = [];
    const done = new Inbox();
    // Registered without Echo's own subscribe, which knows no `after`.
    const name = `conversation.${conversation.id}`;
    late.connector.socket.bind({ name }, 'App\\Events\\MessageChunkReceived', (e) => chunks.push(e));
    late.connector.socket.bind({ name }, 'App\\Events\\MessageCompleted', done.put);
    late.connector.socket.send({
        event: 'subscribe',
        data: { channel: name, after: { [seen.message_id]: seen.seq } },
    });
    const message = await writing;
    assert.equal((await done.find()).message.content, message.content);
    const before = page.chunks.filter((e) => e.seq <= seen.seq).map((e) => e.chunk).join('');
    assert.equal(before + chunks.map((e) => e.chunk).join(''), message.content);
    chunks.forEach((e, i) => assert.equal(e.first_seq, (i ? chunks[i - 1].seq : seen.seq) + 1));
    assert.equal(done.items.length, 1);
});

test('leaving a channel ends its events', async () => {
    const conversation = await newConversation();
    const echo = connect();
    const left = listen(echo, conversation.id);
    const staying = listen(connect(), conversation.id);
    await Promise.all([left.ready, staying.ready]);
    const told = new Promise((resolve) => {
        echo.connector.socket.websocket.addEventListener('message', ({ data }) => {
            const frame = JSON.parse(data);
            if (frame.event !== 'subscription_succeeded') {
                resolve(frame);
            }
        });
    });
    echo.leave(`conversation.${conversation.id}`);
    const frame = await told;
    assert.equal(frame.event, 'unsubscription_succeeded');
    const message = await reply(conversation, { chunks: 5, every: 0.01 });
    assert.equal((await staying.page.completed.find()).id, message.id);
    assert.equal(left.page.text, '');
});
