// Channels of web/tailrace.js and of web/echo.js under laravel-echo 2.5, on a server whose WebSockets are cut, refused and
// silent. Time and chance are the test's.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Tailrace } from '../../web/tailrace.js';
import { TailraceBroadcaster } from '../../web/echo.js';
import { until } from './chat.js';
import { FakeClock } from './fake-clock.js';
import { FakeStack, ID, chunkFrames, completed } from './fake-stack.js';

const { default: Echo } = await import(`${process.env.TAILRACE_CLIENTS}/node_modules/laravel-echo/dist/echo.js`);

const NAME = 'conversation.c1';
const TEXTS = ['Once ', 'upon 水', ' a time.'];

after(() => setImmediate(() => process.exit()));

async function set(t, { random = () => 0, ...options } = {}) {
    const stack = await FakeStack.listen(t, completed(TEXTS));
    const clock = new FakeClock();
    const page = { window: new EventTarget(), document: new EventTarget(), navigator: {} };
    const shared = { clock, random, page };
    const made = {
        stack, clock, page,
        echo: () => {
            const echo = new Echo({
                broadcaster: TailraceBroadcaster, host: stack.socketUrl, authEndpoint: `${stack.url}/broadcasting/auth`, ...shared, ...options,
            });
            t.after(() => echo.disconnect());
            return echo;
        },
        client: () => {
            const client = new Tailrace({ url: stack.url, socketUrl: stack.socketUrl, ...shared, ...options });
            t.after(() => client.disconnect());
            return client;
        },
    };
    return made;
}

const cut = (stack) => [...stack.webSockets].forEach((peer) => peer.cut());
const send = (stack, frame) => [...stack.webSockets].forEach((peer) => peer.send(frame));
const subscriptions = (stack) => stack.frames.items.filter(({ event }) => event === 'subscribe').map(({ data }) => data);
const event = (name, data = {}, channel = NAME) => ({ event: `App\\Events\\${name}`, channel, data });
const chunks = (stack, from = 0) => chunkFrames(NAME, stack.log, 0).slice(from);

describe('Laravel Echo', () => {
    test('after a reconnect all channels are subscribed again, those made later too', async (t) => {
        const { stack, echo: make } = await set(t);
        const echo = make();
        echo.channel('a');
        await until(() => subscriptions(stack).length === 1);
        echo.channel('b');
        echo.private('c');
        echo.join('d');
        await until(() => subscriptions(stack).length === 4);
        for (let count = 8; count <= 16; count += 4) {
            const before = echo.socketId();
            cut(stack);
            await until(() => subscriptions(stack).length === count && echo.socketId() !== before);
            assert.deepEqual(subscriptions(stack).slice(-4).map(({ channel }) => channel).sort(), ['a', 'b', 'presence-d', 'private-c']);
            const signed = subscriptions(stack).slice(-4).filter(({ auth }) => auth);
            assert.deepEqual(signed.map(({ auth }) => auth), Array(2).fill(`signed-${echo.socketId()}`));
        }
        echo.leaveChannel('a');
        echo.leave('d');
        await until(() => stack.frames.items.filter((frame) => frame.event === 'unsubscribe').length === 2);
        cut(stack);
        await until(() => subscriptions(stack).length === 18);
        echo.leaveAllChannels();
        await until(() => stack.frames.items.filter((frame) => frame.event === 'unsubscribe').length === 4);
    });

    test('several listeners of one event are all called, and taken away singly', async (t) => {
        const { stack, echo: make } = await set(t);
        const echo = make();
        const called = [];
        const [first, second, third] = ['first', 'second', 'third'].map((name) => (data) => called.push([name, data.n]));
        const channel = echo.channel(NAME).listen('Priced', first).listen('Priced', second).listen('.App\\Events\\Priced', third);
        await new Promise((resolve) => channel.subscribed(resolve));
        send(stack, event('Priced', { n: 1 }));
        await until(() => called.length === 3);
        channel.stopListening('Priced', second);
        send(stack, event('Priced', { n: 2 }));
        await until(() => called.length === 5);
        channel.stopListening('Priced');
        channel.listen('Priced', second);
        send(stack, event('Priced', { n: 3 }));
        await until(() => called.length === 6);
        assert.deepEqual(called, [['first', 1], ['second', 1], ['third', 1], ['first', 2], ['third', 2], ['second', 3]]);
    });

    test('one listener that throws does not keep the others from being called', async (t) => {
        const { stack, echo: make } = await set(t);
        const thrown = new Promise((resolve) => { globalThis.reportError = resolve; }); // as browsers have it
        t.after(() => { delete globalThis.reportError; });
        const heard = [];
        const channel = make().channel(NAME).listen('Priced', () => { throw new Error('of a listener'); }).listen('Priced', () => heard.push(1));
        await new Promise((resolve) => channel.subscribed(resolve));
        send(stack, event('Priced'));
        assert.equal((await thrown).message, 'of a listener');
        assert.equal(heard.length, 1);
    });

    test('a refusal reaches error(): of the signature, and of the subscription', async (t) => {
        const { stack, echo: make } = await set(t);
        const body = { error: { type: 'forbidden', message: 'You may not subscribe to this channel.' } };
        stack.plan('auth', { status: 403, body });
        const echo = make();
        const error = await new Promise((resolve) => echo.private('x').error(resolve));
        assert.deepEqual([error.status, error.message], [403, body.error.message]);
        assert.equal(subscriptions(stack).length, 0);
        stack.subscribed = (peer, { channel }) => peer.send({ event: 'error', channel, data: { message: 'No such conversation.' } });
        const other = await new Promise((resolve) => echo.channel('y').error(resolve));
        assert.deepEqual([other.type, other.message], ['forbidden', 'No such conversation.']);
    });

    test('a signature that cannot be had now is asked for again', async (t) => {
        const { stack, echo: make } = await set(t);
        stack.plan('auth', { status: 503 }, { lost: true });
        await new Promise((resolve) => make().private('x').subscribed(resolve));
        assert.equal(stack.asked('auth').length, 3);
    });

    test('presence: here, joining and leaving, after a reconnect as well', async (t) => {
        const { stack, echo: make } = await set(t);
        const member = (id) => ({ user_id: id, user_info: {} });
        const rooms = [[member('me'), member('ann')], [member('me'), member('bob')]];
        stack.subscribed = (peer, { channel }) => peer.send({ event: 'subscription_succeeded', channel, data: rooms.shift() });
        const told = [];
        const channel = make().join('room')
            .here((members) => told.push(['here', members.map(({ user_id: id }) => id)]))
            .joining(({ user_id: id }) => told.push(['joining', id]))
            .leaving(({ user_id: id }) => told.push(['leaving', id]));
        await until(() => told.length === 1);
        send(stack, { event: 'presence:joining', channel: 'presence-room', data: member('cy') });
        send(stack, { event: 'presence:leaving', channel: 'presence-room', data: member('ann') });
        await until(() => told.length === 3);
        assert.deepEqual(channel.members.map(({ user_id: id }) => id), ['me', 'cy']);
        cut(stack);
        await until(() => told.length === 4);
        send(stack, { event: 'presence:leaving', channel: 'presence-room', data: member('bob') });
        await until(() => told.length === 5);
        assert.deepEqual(told, [['here', ['me', 'ann']], ['joining', 'cy'], ['leaving', 'ann'], ['here', ['me', 'bob']], ['leaving', 'bob']]);
        assert.deepEqual(channel.members.map(({ user_id: id }) => id), ['me']);
        const late = await new Promise((resolve) => channel.here(resolve));
        assert.deepEqual(late, channel.members);
    });

    test('its status is told: connecting, connected, reconnecting, disconnected', async (t) => {
        const { stack, echo: make } = await set(t);
        const echo = make();
        const statuses = [];
        const other = [];
        echo.connector.onConnectionChange((status) => statuses.push(status));
        const remove = echo.connector.onConnectionChange((status) => other.push(status));
        assert.equal(echo.connectionStatus(), 'connecting');
        await until(() => echo.connectionStatus() === 'connected');
        assert.equal(echo.socketId(), 'socket-1');
        remove();
        cut(stack);
        await until(() => echo.socketId() === 'socket-2');
        echo.disconnect();
        assert.deepEqual(statuses, ['connected', 'reconnecting', 'connected', 'disconnected']);
        assert.deepEqual(other, ['connected']);
        assert.equal(echo.socketId(), undefined);
        await until(() => stack.webSockets.size === 0);
    });

    test('a lost connection costs neither text nor doubles: it goes on where it was in each reply', async (t) => {
        const { stack, echo: make } = await set(t);
        const heard = { text: '', ends: 0 };
        const channel = make().channel(NAME)
            .listen('MessageChunkReceived', ({ chunk }) => { heard.text += chunk; })
            .listen('MessageCompleted', () => { heard.ends += 1; });
        await new Promise((resolve) => channel.subscribed(resolve));
        const message = { id: ID, role: 'assistant', status: 'pending' };
        send(stack, event('MessageCreated', { message_id: ID, message }));
        send(stack, chunks(stack)[0]);
        await until(() => heard.text === TEXTS[0]);
        assert.deepEqual(channel.cursors, { [ID]: '1' });
        cut(stack);
        await until(() => heard.ends === 1);
        assert.deepEqual(subscriptions(stack).map(({ after }) => after), [undefined, { [ID]: '1' }]);
        // What others had begun to send may come once more.
        chunks(stack).forEach((frame) => send(stack, frame));
        send(stack, event('Priced'));
        await new Promise((resolve) => channel.listen('Priced', resolve));
        assert.deepEqual(heard, { text: TEXTS.join(''), ends: 1 });
        cut(stack);
        await until(() => subscriptions(stack).length === 3);
        assert.equal(subscriptions(stack)[2].after, undefined);
    });

    test('cut before the first chunk of a reply, it has all of it', async (t) => {
        const { stack, echo: make } = await set(t);
        let text = '';
        const channel = make().channel(NAME).listen('MessageChunkReceived', ({ chunk }) => { text += chunk; });
        await new Promise((resolve) => channel.subscribed(resolve));
        send(stack, event('MessageCreated', { message_id: ID, message: { id: ID, role: 'assistant', status: 'streaming' } }));
        await until(() => ID in channel.cursors);
        cut(stack);
        await until(() => text === TEXTS.join(''));
    });

    test('a gap is fetched, and what is there again is left out', async (t) => {
        const { stack, echo: make } = await set(t);
        let text = '';
        const channel = make().channel(NAME).listen('MessageChunkReceived', ({ chunk }) => { text += chunk; });
        await new Promise((resolve) => channel.subscribed(resolve));
        const [first, second, third] = chunks(stack);
        [first, third, first, third].forEach((frame) => send(stack, frame));
        await until(() => text === TEXTS.join(''));
        assert.deepEqual(subscriptions(stack).slice(1).map(({ after }) => after).at(0), { [ID]: '1' });
        send(stack, second);
        send(stack, event('Priced'));
        await new Promise((resolve) => channel.listen('Priced', resolve));
        assert.equal(text, TEXTS.join(''));
    });

    test('names as Echo has them: without a namespace, with another, with dots; whispers and notifications', async (t) => {
        const { stack, echo: make } = await set(t, { namespace: 'Acme.Chat' });
        const heard = [];
        const channel = make().private('x')
            .listen('Sent', () => heard.push('sent'))
            .listen('Mail.Sent', () => heard.push('mail'))
            .listen('.own', () => heard.push('own'))
            .listenForWhisper('typing', (data) => heard.push(data))
            .notification(() => heard.push('notified'))
            .listenToAll((name) => heard.push(name));
        await new Promise((resolve) => channel.subscribed(resolve));
        heard.length = 0;
        for (const name of [
            'Acme\\Chat\\Sent', 'Acme\\Chat\\Mail\\Sent', 'own', 'client-typing', 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated',
        ]) {
            send(stack, { event: name, channel: 'private-x', data: { name: 'A' } });
        }
        await until(() => heard.length === 10);
        assert.deepEqual(heard.filter((each) => !String(each).includes('\\')), ['sent', 'mail', 'own', 'own', { name: 'A' }, 'client-typing', 'notified']);
        channel.whisper('typing', { name: 'B' });
        const whisper = await stack.frames.find((frame) => frame.event === 'client-typing');
        assert.deepEqual([whisper.channel, whisper.data], ['private-x', { name: 'B' }]);
    });

    test('an empty namespace is one', async (t) => {
        const { stack, echo: make } = await set(t, { namespace: false });
        const told = new Promise((resolve) => make().channel(NAME).listen('Priced', resolve));
        await until(() => subscriptions(stack).length === 1);
        send(stack, { event: 'Priced', channel: NAME, data: 7 });
        assert.equal(await told, 7);
    });

    test('the bearer token is asked for at each connection, and is in the address', async (t) => {
        let asked = 0;
        const { stack, echo: make } = await set(t, { bearerToken: async () => `t${++asked}`, csrfToken: 'csrf', auth: { headers: { 'X-Team': 'a' } } });
        make().private('x');
        await until(() => subscriptions(stack).length === 1);
        cut(stack);
        await until(() => subscriptions(stack).length === 2);
        assert.deepEqual(stack.asked('ws').map(({ query }) => query.get('access_token')), ['t1', 't3']);
        const { headers } = stack.asked('auth')[1];
        assert.deepEqual([headers.authorization, headers['x-csrf-token'], headers['x-team']], ['Bearer t4', 'csrf', 'a']);
    });
});

/** Let time pass until something holds. */
const passUntil = (clock, condition) => until(async () => {
    await clock.advance(1000);
    return condition();
});

describe('reconnecting', () => {
    /** The bounds of the waits, with a chance of 1, of so many attempts. */
    async function waits(clock, count) {
        const found = () => clock.waits.filter((each) => ![15_000, 45_000].includes(each));
        await passUntil(clock, () => found().length >= count);
        return found().slice(0, count);
    }

    for (const [what, plan] of [['refused', { status: 503 }], ['refused with 403', { status: 403 }]]) {
        test(`never in a storm: one attempt at a time, later and later, when ${what}`, async (t) => {
            const { stack, clock, client: make } = await set(t, { random: () => 1 });
            stack.plan('ws', ...Array(30).fill(plan));
            make().channel(NAME);
            assert.deepEqual(await waits(clock, 9), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
            assert.ok(stack.asked('ws').length <= 10);
        });
    }

    test('nor when each connection is let in and then cut', async (t) => {
        const { stack, clock, client: make } = await set(t, { random: () => 1 });
        stack.subscribed = (peer) => peer.cut();
        make().channel(NAME);
        assert.deepEqual(await waits(clock, 8), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    });

    test('begins anew after a connection that lasted', async (t) => {
        const { stack, clock, client: make } = await set(t, { random: () => 1 });
        stack.plan('ws', { status: 503 }, { status: 503 });
        const client = make();
        client.channel(NAME);
        assert.deepEqual(await waits(clock, 2), [500, 1000]);
        await passUntil(clock, () => client.socketStatus === 'connected');
        await clock.advance(10_000);
        cut(stack);
        assert.deepEqual(await waits(clock, 3), [500, 1000, 500]);
    });

    test('ends its wait when the network comes back', async (t) => {
        const { stack, page, client: make } = await set(t, { random: () => 1 });
        stack.plan('ws', { status: 503 });
        const client = make();
        client.channel(NAME);
        await until(() => client.socketStatus === 'reconnecting');
        page.window.dispatchEvent(new Event('online'));
        await until(() => client.socketStatus === 'connected');
    });

    test('a connection that says nothing, not even pong, is left', async (t) => {
        const heard = [];
        class Listening extends WebSocket {
            constructor(url) {
                super(url);
                this.addEventListener('message', ({ data }) => heard.push(JSON.parse(data).event));
            }
        }
        const { stack, clock, client: make } = await set(t, { WebSocket: Listening });
        make().channel(NAME);
        await until(() => heard.includes('subscription_succeeded'));
        await clock.advance(46_000);
        await until(() => heard.includes('pong'));
        await clock.advance(30_000);
        assert.equal(stack.asked('ws').length, 1);
        [...stack.webSockets].forEach((peer) => { peer.plan.mute = true; });
        await clock.advance(60_000);
        await until(() => subscriptions(stack).length === 2);
    });

    test('what is no address is said to all channels, and not tried again', async (t) => {
        const made = [];
        class Refusing {
            constructor(url) {
                made.push(url);
                throw new SyntaxError(`${url} is no address`);
            }
        }
        const { client: make } = await set(t, { WebSocket: Refusing });
        const client = make();
        const errors = await Promise.all(['a', 'b'].map((name) => new Promise((resolve) => client.channel(name).error(resolve))));
        assert.deepEqual(errors.map(({ message }) => message), Array(2).fill('The WebSocket cannot be opened.'));
        assert.equal(client.socketStatus, 'disconnected');
        assert.equal(made.length, 1);
    });

    test('one that cannot be opened in time is another attempt', async (t) => {
        const opened = [];
        class Never extends EventTarget {
            constructor(url) { super(); opened.push(url); }
            close() {}
        }
        const { clock, client: make } = await set(t, { WebSocket: Never });
        make().channel(NAME);
        await until(() => opened.length === 1);
        await clock.advance(15_000);
        await until(() => opened.length === 2);
    });
});

describe('channels of the client', () => {
    test('share one WebSocket, and are the same for the same name', async (t) => {
        const { stack, client: make } = await set(t);
        const client = make();
        assert.equal(client.channel('a'), client.channel('a'));
        client.channel('b');
        await until(() => subscriptions(stack).length === 2);
        assert.equal(stack.asked('ws').length, 1);
        client.channel('a').leave();
        await until(() => stack.frames.items.some((frame) => frame.event === 'unsubscribe'));
        assert.equal(client.socketStatus, 'connected');
        client.channel('b').leave();
        await until(() => stack.webSockets.size === 0);
        assert.equal(client.socketStatus, 'disconnected');
        client.channel('c');
        await until(() => subscriptions(stack).length === 3);
    });

    test('begin where a page was, and ask for a delivery', async (t) => {
        const { stack, client: make } = await set(t);
        let text = '';
        const channel = make().channel(NAME, { after: { [ID]: '1' }, delivery: { by: 'sentence' } });
        channel.listen('MessageChunkReceived', ({ chunk }) => { text += chunk; });
        await until(() => text === TEXTS.slice(1).join(''));
        assert.deepEqual(subscriptions(stack)[0], { channel: NAME, after: { [ID]: '1' }, delivery: { by: 'sentence' } });
    });

    test('a start is not told to them, unless it is to be', async (t) => {
        const { stack, client: make } = await set(t);
        const client = make();
        client.channel(NAME);
        await until(() => client.socketStatus === 'connected');
        await client.start('c1', { input: 'x' }).finished;
        await client.start('c1', { input: 'x' }, { toOthers: false }).finished;
        assert.deepEqual(stack.asked('start').map(({ headers }) => headers['x-socket-id']), ['socket-1', undefined]);
    });
});
