// npm `ai` 7's WebSocketChatTransport, unmodified, on the WebSocket of `make run`.

import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';
import { URL_, api } from './api.js';
import { modules } from './docs.js';
import { State, stored, textOf, texts, until, writing } from './chat.js';

const sdk = require_('ai');
const SOCKET = `${URL_.replace('http', 'ws')}/ws`;
const opened = [];

function require_(name) {
    return createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`)(name);
}

afterEach(() => opened.splice(0).forEach((transport) => transport.close()));
after(() => setImmediate(() => process.exit()));

/** Node's own WebSocket, which keeps what came and went. */
class Socket extends WebSocket {
    static frames = [];
    static all = [];
    constructor(...given) {
        super(...given);
        Socket.all.push(this);
        this.addEventListener('message', ({ data }) => Socket.frames.push(JSON.parse(data)));
    }
}

const { prepareSendMessagesRequest } = (await modules('docs/clients/ai-sdk.md'))
    .map(({ transport }) => transport)
    .find((transport) => transport?.constructor.name === 'WebSocketChatTransport');

/**
 * Return a chat as useChat has one, which sends its last message alone as the documentation has it, unless it `isWhole`;
 * `script` is what the built-in provider does.
 */
function open({ id = randomUUID(), script, messages = [], transport, ...more } = {}) {
    const state = new State();
    state.messages = messages;
    const seen = { errors: [], data: [] };
    class Chat extends sdk.AbstractChat {}
    const options = () => ({ script: typeof script === 'function' ? script() : script });
    const made = transport ?? new sdk.WebSocketChatTransport({
        url: SOCKET,
        webSocket: Socket,
        body: () => ({ options: options(), ...more.body }),
        ...(more.isWhole ? {} : { prepareSendMessagesRequest }),
    });
    opened.push(made);
    const chat = new Chat({
        id,
        state,
        transport: made,
        onError: (error) => seen.errors.push(error),
        onData: (part) => seen.data.push(part),
        ...more.chat,
    });
    return Object.assign(chat, { seen, made });
}

test('send, and several turns on one connection: the page and the store agree', async () => {
    Socket.all.length = 0;
    const chat = open({ script: { echo: true } });
    await chat.sendMessage({ text: 'One 水' });
    await chat.sendMessage({ text: 'Two' });
    assert.deepEqual(chat.seen.errors, []);
    assert.deepEqual(texts(chat), ['One 水', 'One 水', 'Two', 'Two']);
    assert.equal(chat.status, 'ready');
    assert.equal(chat.lastMessage.metadata.usage.source, 'provider');
    const kept = await stored(chat.id);
    assert.deepEqual(kept.map(({ id, parts }) => [id, parts.length]), chat.messages.map(({ id, parts }) => [id, parts.length]));
    assert.equal(Socket.all.length, 1);
});

test('a page that sends its whole history has the same chat, until that is longer than a frame may be', async () => {
    const chat = open({ script: { echo: true, every: 0 }, isWhole: true });
    const long = (turn) => `${turn} `.repeat(2000);
    for (const turn of ['one', 'two']) {
        await chat.sendMessage({ text: long(turn) });
    }
    assert.deepEqual([texts(chat).length, chat.seen.errors], [4, []]);
    await chat.sendMessage({ text: long('three') });
    assert.match(chat.error.message, /code 1009/);
    const other = open({ id: chat.id, messages: await stored(chat.id), script: { echo: true, every: 0 } });
    await other.sendMessage({ text: long('three') });
    assert.deepEqual((await stored(chat.id)).map(textOf), ['one', 'one', 'two', 'two', 'three', 'three'].map(long));
});

test('a chat goes on over HTTP, and back: it is the same one', async () => {
    const chat = open({ script: { echo: true } });
    await chat.sendMessage({ text: 'Over the socket' });
    const body = { id: chat.id, options: { script: { echo: true } } };
    const said = { id: 'm2', role: 'user', parts: [{ type: 'text', text: 'Over HTTP' }] };
    const headers = { 'Content-Type': 'application/json' };
    const post = { method: 'POST', headers, body: JSON.stringify({ ...body, messages: [...chat.messages, said] }) };
    assert.match(await (await fetch(`${URL_}/api/chat`, post)).text(), /"finish"/);
    chat.messages = await stored(chat.id);
    await chat.sendMessage({ text: 'And back' });
    assert.deepEqual(texts(chat).filter((_, at) => at % 2 === 0), ['Over the socket', 'Over HTTP', 'And back']);
    assert.deepEqual((await stored(chat.id)).map(textOf), texts(chat));
});

test('another answer takes the place of the old one, and so does an edit', async () => {
    const answers = [['Wrong.'], ['Right.'], ['Edited too.']];
    const chat = open({ script: () => ({ chunks: answers.shift() }) });
    await chat.sendMessage({ text: 'Hi' });
    await chat.regenerate();
    assert.deepEqual(texts(chat), ['Hi', 'Right.']);
    assert.deepEqual((await stored(chat.id)).map(textOf), ['Hi', 'Right.']);
    await chat.sendMessage({ text: 'Hello', messageId: chat.messages[0].id });
    assert.deepEqual(texts(chat), ['Hello', 'Edited too.']);
    assert.deepEqual((await stored(chat.id)).map(textOf), ['Hello', 'Edited too.']);
});

test('a page that opens in mid-answer has all of it, over a connection of its own', async () => {
    const chat = open({ script: { chunks: 60, every: 0.02 } });
    const sending = chat.sendMessage({ text: 'Hi' });
    await writing(chat);
    const other = open({ id: chat.id, messages: await stored(chat.id) });
    assert.deepEqual(texts(other), ['Hi']);
    await Promise.all([other.resumeStream(), sending]);
    assert.deepEqual([other.status, other.seen.errors], ['ready', []]);
    assert.deepEqual(texts(other), texts(chat));
    assert.deepEqual(other.messages.map(({ id }) => id), chat.messages.map(({ id }) => id));
    assert.deepEqual((await stored(chat.id)).map(textOf), texts(chat));
});

test('nothing is resumed where nothing is active', async () => {
    const chat = open({ script: { chunks: ['Done.'] } });
    await chat.resumeStream();
    assert.deepEqual([chat.status, texts(chat)], ['ready', []]);
    await chat.sendMessage({ text: 'Hi' });
    await chat.resumeStream();
    assert.deepEqual([chat.status, texts(chat), chat.seen.errors], ['ready', ['Hi', 'Done.'], []]);
});

test('stop() of the page that asked stops the answer; that of one that follows it hangs up', async () => {
    const chat = open({ script: { chunks: 5000, every: 0.02 } });
    const sending = chat.sendMessage({ text: 'Hi' });
    await writing(chat);
    const other = open({ id: chat.id, messages: await stored(chat.id) });
    const resuming = other.resumeStream();
    await writing(other);
    await other.stop();
    await resuming;
    const length = textOf(chat.lastMessage).length;
    await until(() => textOf(chat.lastMessage).length > length);
    await chat.stop();
    await sending;
    assert.deepEqual([chat.status, chat.seen.errors], ['ready', []]);
    const answer = await until(async () => (await stored(chat.id))[1]);
    assert.ok(textOf(answer).startsWith(textOf(chat.lastMessage)) || textOf(chat.lastMessage).startsWith(textOf(answer)));
    assert.ok(textOf(answer).length < 50_000);
    await chat.resumeStream();
    assert.equal(chat.status, 'ready', 'nothing is active any more');
});

test('an answer may be stopped from elsewhere', async () => {
    const chat = open({ script: { chunks: 5000, every: 0.02 } });
    const sending = chat.sendMessage({ text: 'Hi' });
    await writing(chat);
    await api('POST', `/api/chat/${chat.id}/stop`);
    await sending;
    assert.deepEqual([chat.status, chat.seen.errors], ['ready', []]);
    assert.ok(textOf(chat.lastMessage).startsWith(textOf((await stored(chat.id))[1])));
});

test('a tool of the page runs there, and the answer goes on in the same message', async () => {
    const call = { id: 'c1', name: 'weather', arguments: '{"city":"Köln"}' };
    const scripts = [{ chunks: ['Let me see. '], tool_calls: [call] }, { chunks: ['It ', 'rains.'] }];
    const chat = open({
        script: () => scripts.shift(),
        chat: {
            sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithToolCalls,
            onToolCall: ({ toolCall: { toolName: tool, toolCallId, input } }) => {
                chat.addToolOutput({ tool, toolCallId, output: { rain: true, ...input } });
            },
        },
    });
    await chat.sendMessage({ text: 'Rain?' });
    await until(() => chat.status === 'ready' && textOf(chat.lastMessage).includes('rains'));
    const wanted = ['step-start', 'Let me see. ', 'Köln', 'step-start', 'It rains.'];
    for (const { parts } of [chat.lastMessage, (await stored(chat.id))[1]]) {
        assert.deepEqual(parts.map((part) => part.output?.city ?? part.text ?? part.type), wanted);
    }
    assert.equal(chat.messages.length, 2);
});

test('a failure is an error, and so is what is refused; the connection stays', async () => {
    Socket.all.length = 0;
    const scripts = [{ chunks: ['Half'], error_at: 1 }, { nonsense: 1 }, { echo: true }];
    const chat = open({ script: () => scripts.shift() });
    await chat.sendMessage({ text: 'Hi' });
    assert.equal(chat.status, 'error');
    assert.match(chat.error.message, /ended its answer early/);
    await chat.sendMessage({ text: 'Again' });
    assert.equal(chat.status, 'error');
    assert.match(chat.error.message, /^Bad options/);
    assert.equal((await stored(chat.id)).length, 2, 'the refused one is not stored');
    await chat.regenerate();
    assert.deepEqual([chat.status, textOf(chat.lastMessage)], ['ready', 'Again']);
    assert.equal(Socket.all.length, 1);
});

test('what was refused is said by trying again, in the same words too, and no other answer is touched', async () => {
    const scripts = [{ chunks: ['First.'] }, { nonsense: 1 }, { chunks: ['Second.'] }];
    const chat = open({ script: () => scripts.shift() });
    await chat.sendMessage({ text: 'Go on' });
    await chat.sendMessage({ text: 'Go on' });
    assert.equal(chat.status, 'error');
    await chat.regenerate();
    assert.deepEqual([chat.status, texts(chat)], ['ready', ['Go on', 'First.', 'Go on', 'Second.']]);
    assert.deepEqual((await stored(chat.id)).map(textOf), texts(chat));
});

test('a connection that is lost in mid-answer: the page resumes on a new one', async () => {
    Socket.all.length = 0;
    const chat = open({ script: { chunks: 100, every: 0.02 } });
    const sending = chat.sendMessage({ text: 'Hi' });
    await writing(chat);
    Socket.all[0].close();
    await sending;
    assert.equal(chat.status, 'error');
    await chat.resumeStream();
    assert.equal(chat.status, 'ready');
    assert.equal(Socket.all.length, 2);
    assert.deepEqual((await stored(chat.id)).map(textOf), texts(chat));
    assert.equal(chat.messages.length, 2);
});

test('a fast answer comes in fewer frames than it has chunks: what waits is joined', async () => {
    Socket.frames.length = 0;
    const chat = open({ script: { chunks: 3000, every: 0 }, body: { delivery: { progress: true } } });
    await chat.sendMessage({ text: 'Much, please' });
    assert.deepEqual([chat.status, chat.seen.errors], ['ready', []]);
    assert.deepEqual(texts(chat), (await stored(chat.id)).map(textOf));
    const frames = Socket.frames.filter(({ type }) => type === 'chunk');
    assert.ok(frames.length < 2000, `${frames.length} frames`);
    assert.deepEqual(frames.map(({ sequence }) => sequence), frames.map((_, at) => at));
    assert.equal(chat.seen.data.at(-1).data.characters, [...textOf(chat.lastMessage)].length);
});

test('two chats share a connection', async () => {
    Socket.all.length = 0;
    const one = open({ script: { chunks: 30, every: 0.01 } });
    const two = open({ transport: one.made });
    await Promise.all([one.sendMessage({ text: 'One' }), two.sendMessage({ text: 'Two' })]);
    assert.deepEqual([one.status, two.status, Socket.all.length], ['ready', 'ready', 1]);
    for (const chat of [one, two]) {
        assert.deepEqual((await stored(chat.id)).map(textOf), texts(chat));
    }
});
