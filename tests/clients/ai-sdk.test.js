// npm `ai` 5, 6 and 7, unmodified, against the stack of `make run`.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';
import { URL_, api } from './api.js';
import { State, stored, textOf, texts, until, writing } from './chat.js';
import { modules } from './docs.js';
import { Cuts } from '../browser/cuts.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const versions = { 5: 'ai-5', 6: 'ai-6', 7: 'ai' };

after(() => setImmediate(() => process.exit()));

/** Return a chat as useChat has one; `script` is what the built-in provider does. */
function open(sdk, { id = randomUUID(), api: base = URL_, script, tools, messages = [], ...more } = {}) {
    const state = new State();
    state.messages = messages;
    const seen = { data: [], errors: [], posts: 0 };
    class Chat extends sdk.AbstractChat {}
    const chat = new Chat({
        id,
        state,
        transport: new sdk.DefaultChatTransport({
            api: `${base}/api/chat`,
            body: () => ({ options: { script: typeof script === 'function' ? script() : script, tools }, ...more.body }),
            fetch: (...given) => {
                seen.posts += given[1]?.method === 'POST';
                return fetch(...given);
            },
        }),
        onData: (part) => seen.data.push(part),
        onError: (error) => seen.errors.push(error),
        ...more.chat,
    });
    return Object.assign(chat, { seen });
}

for (const [version, name] of Object.entries(versions)) {
    describe(`ai ${version}`, () => {
        const sdk = require(name);

        test('send, and several turns: the page and the store agree', async () => {
            const chat = open(sdk, { script: { echo: true } });
            await chat.sendMessage({ text: 'One 水' });
            await chat.sendMessage({ text: 'Two' });
            assert.deepEqual(texts(chat), ['One 水', 'One 水', 'Two', 'Two']);
            assert.equal(chat.status, 'ready');
            const kept = await stored(chat.id);
            assert.deepEqual(kept.map(textOf), texts(chat));
            assert.deepEqual(kept.map(({ id }) => id), chat.messages.map(({ id }) => id));
            assert.equal(chat.lastMessage.metadata.usage.source, 'provider');
        });

        test('what is stored counts, not what the page says that was said', async () => {
            const chat = open(sdk, { script: { echo: true } });
            await chat.sendMessage({ text: 'Truth' });
            chat.messages = [{ id: 'x', role: 'user', parts: [{ type: 'text', text: 'Lie' }] }];
            await chat.sendMessage({ text: 'More' });
            assert.deepEqual((await stored(chat.id)).map(textOf), ['Truth', 'Truth', 'More', 'More']);
        });

        test('another answer takes the place of the old one', async () => {
            const answers = [['Wrong.'], ['Right.'], ['Best.']];
            const chat = open(sdk, { script: () => ({ chunks: answers.shift() }) });
            await chat.sendMessage({ text: 'Hi' });
            await chat.regenerate();
            assert.deepEqual(texts(chat), ['Hi', 'Right.']);
            await chat.regenerate({ messageId: chat.lastMessage.id });
            assert.deepEqual(texts(chat), ['Hi', 'Best.']);
            assert.deepEqual((await stored(chat.id)).map(textOf), ['Hi', 'Best.']);
        });

        test('an edited message takes the place of what followed', async () => {
            const chat = open(sdk, { script: { echo: true } });
            await chat.sendMessage({ text: 'First' });
            await chat.sendMessage({ text: 'Second' });
            await chat.sendMessage({ text: 'Edited', messageId: chat.messages[0].id });
            assert.deepEqual(texts(chat), ['Edited', 'Edited']);
            assert.deepEqual((await stored(chat.id)).map(textOf), ['Edited', 'Edited']);
        });

        test('what was refused is said by trying again, and no other answer is touched', async () => {
            const scripts = [{ nonsense: 1 }, { echo: true }, { nonsense: 1 }, { echo: true }, { nonsense: 1 }, { echo: true }];
            const chat = open(sdk, { script: () => scripts.shift() });
            const tryAgain = async (wanted) => {
                assert.equal(chat.status, 'error');
                await chat.regenerate();
                assert.deepEqual([chat.status, texts(chat)], ['ready', wanted]);
                assert.deepEqual((await stored(chat.id)).map(textOf), wanted);
            };
            await chat.sendMessage({ text: 'One' });
            await tryAgain(['One', 'One']);
            await chat.sendMessage({ text: 'Two' });
            await tryAgain(['One', 'One', 'Two', 'Two']);
            await chat.sendMessage({ text: 'Edited', messageId: chat.messages[2].id });
            await tryAgain(['One', 'One', 'Edited', 'Edited']);
        });

        test('a page that opens in mid-answer has all of it', async () => {
            const chat = open(sdk, { script: { chunks: 60, every: 0.02 } });
            const sending = chat.sendMessage({ text: 'Hi' });
            await writing(chat);
            const other = open(sdk, { id: chat.id, messages: await stored(chat.id) });
            assert.deepEqual(texts(other), ['Hi']);
            await other.resumeStream();
            await sending;
            assert.deepEqual(texts(other), texts(chat));
            assert.deepEqual((await stored(chat.id)).map(textOf), texts(chat));
        });

        test('nothing is resumed where nothing is active', async () => {
            const chat = open(sdk, { script: { chunks: ['Done.'] } });
            await chat.resumeStream();
            assert.deepEqual([chat.status, texts(chat)], ['ready', []]);
            await chat.sendMessage({ text: 'Hi' });
            await chat.resumeStream();
            assert.deepEqual([chat.status, texts(chat)], ['ready', ['Hi', 'Done.']]);
        });

        test('stop() hangs up, and the answer is there later; the route stops it, from any device', async () => {
            const chat = open(sdk, { script: { chunks: 50, every: 0.02 } });
            const sending = chat.sendMessage({ text: 'Hi' });
            await writing(chat);
            await chat.stop();
            await sending;
            const whole = await until(async () => (await stored(chat.id))[1]);
            assert.ok(textOf(whole).length > textOf(chat.lastMessage).length);

            const long = open(sdk, { script: { chunks: 5000, every: 0.02 } });
            const writingIt = long.sendMessage({ text: 'Hi' });
            await writing(long);
            await api('POST', `/api/chat/${long.id}/stop`);
            await writingIt;
            assert.deepEqual([long.status, long.seen.errors], ['ready', []]);
            assert.ok(textOf(long.lastMessage).startsWith(textOf((await stored(long.id))[1])));
            assert.deepEqual(await api('POST', `/api/chat/${long.id}/stop`), { message: null });
        });

        test('a tool of the page runs there, and the answer goes on in the same message', async () => {
            const scripts = [
                { chunks: ['Let me see. '], tool_calls: [{ id: 'c1', name: 'weather', arguments: '{"city":"Köln"}' }] },
                { chunks: ['And '], tool_calls: [{ id: 'c2', name: 'weather', arguments: '{"city":"Bonn"}' }] },
                { chunks: ['it rains.'] },
            ];
            const calls = [];
            const chat = open(sdk, {
                script: () => scripts.shift(),
                body: { metadata: { a: 1 } },
                chat: {
                    sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithToolCalls,
                    onToolCall({ toolCall }) {
                        calls.push(toolCall.input.city);
                        const output = { rain: true, city: toolCall.input.city };
                        const add = (chat.addToolOutput ?? chat.addToolResult).bind(chat);
                        add({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output });
                    },
                },
            });
            await chat.sendMessage({ text: 'Rain?' });
            await until(() => chat.status === 'ready' && textOf(chat.lastMessage).includes('rains'));
            assert.deepEqual(calls, ['Köln', 'Bonn']);
            assert.equal(chat.messages.length, 2);
            const shown = chat.lastMessage.parts.map((part) => part.output?.city ?? part.text ?? part.type);
            const wanted = ['step-start', 'Let me see. ', 'Köln', 'step-start', 'And ', 'Bonn', 'step-start', 'it rains.'];
            assert.deepEqual(shown, wanted);
            const [, answer] = await stored(chat.id);
            assert.equal(answer.id, chat.lastMessage.id);
            assert.deepEqual(answer.parts.map((part) => part.output?.city ?? part.text ?? part.type), wanted);
        });

        test('a page that opens while an answer goes on has its earlier steps too, and what failed in them', async () => {
            const call = (id) => ({ id, name: 'weather', arguments: '{}' });
            const scripts = [
                { chunks: ['Wait. '], tool_calls: [call('c1'), call('c2')] },
                { chunks: 60, every: 0.02 },
            ];
            const chat = open(sdk, {
                script: () => scripts.shift(),
                chat: { sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithToolCalls },
            });
            await chat.sendMessage({ text: 'Rain?' });
            const add = (chat.addToolOutput ?? chat.addToolResult).bind(chat);
            add({ tool: 'weather', toolCallId: 'c1', output: { rain: true } });
            add({ tool: 'weather', toolCallId: 'c2', state: 'output-error', errorText: 'No network.' });
            await until(() => textOf(chat.lastMessage).length > 20);
            const other = open(sdk, { id: chat.id, messages: await stored(chat.id) });
            await other.resumeStream();
            await until(() => chat.status === 'ready');
            const told = ({ type, text, output, errorText }) => (errorText ? { errorText } : output ?? text ?? type);
            const plain = ({ parts }) => parts.map(told);
            assert.deepEqual(plain(chat.lastMessage)[3], { errorText: 'No network.' });
            assert.deepEqual(plain(other.lastMessage), plain(chat.lastMessage));
            assert.equal(other.messages.length, 2);
            assert.deepEqual(plain((await stored(chat.id))[1]), plain(chat.lastMessage));
        });

        test('outputs may come in several posts', async () => {
            const call = (id) => ({ id, name: 'weather', arguments: '{}' });
            const scripts = [
                { chunks: ['Wait. '], tool_calls: [call('c1'), call('c2')] },
                { chunks: ['One. '] },
                { chunks: ['Both.'] },
            ];
            const chat = open(sdk, { script: () => scripts.shift() });
            await chat.sendMessage({ text: 'Rain?' });
            for (const id of ['c1', 'c2']) {
                await (chat.addToolOutput ?? chat.addToolResult).call(chat, { tool: 'weather', toolCallId: id, output: id });
                await chat.sendMessage();
                assert.deepEqual([chat.status, chat.messages.length], ['ready', 2]);
            }
            const wanted = ['step-start', 'Wait. ', 'c1', 'c2', 'step-start', 'One. ', 'step-start', 'Both.'];
            for (const { parts } of [chat.lastMessage, (await stored(chat.id))[1]]) {
                assert.deepEqual(parts.map((part) => part.output ?? part.text ?? part.type), wanted);
            }
        });

        test('reasoning, sources, tools of the provider and progress', async () => {
            const chat = open(sdk, {
                script: {
                    chunks: ['It ', 'rains.'],
                    reasoning: ['Let me', ' think.'],
                    tool_results: [{ id: 'w1', name: 'web_search', result: '{"found":2}' }],
                    citations: [{ url: 'https://example.com/a', title: 'A' }, { quote: 'without a place' }],
                },
                body: { delivery: { progress: true } },
            });
            await chat.sendMessage({ text: 'Rain?' });
            assert.deepEqual(chat.seen.errors, []);
            const { parts } = chat.lastMessage;
            const of = (type) => parts.filter((part) => part.type === type);
            assert.equal(of('reasoning')[0].text, 'Let me think.');
            assert.equal(textOf(chat.lastMessage), 'It rains.');
            assert.deepEqual(of('tool-web_search')[0].output, { found: 2 });
            assert.deepEqual(of('source-url').map(({ url, title }) => [url, title]), [['https://example.com/a', 'A']]);
            const progress = chat.seen.data.filter(({ type }) => type === 'data-progress');
            assert.deepEqual(progress.map(({ data }) => data.characters), [3, 9]);
            assert.ok(!parts.some(({ type }) => type.startsWith('data-')), 'progress is transient');
        });

        test("files of the user's are stored, and come back", async () => {
            const chat = open(sdk, { script: { chunks: ['A dot.'] } });
            const url = 'data:image/png;base64,iVBORw0KGgo=';
            await chat.sendMessage({ text: 'What is it?', files: [{ type: 'file', mediaType: 'image/png', url }] });
            const [question] = await stored(chat.id);
            assert.deepEqual(question.parts.map(({ type, text, url: at }) => text ?? at ?? type), ['What is it?', url]);
        });

        test('a failure is an error, and so is what is refused', async () => {
            const chat = open(sdk, { script: { chunks: ['Half'], error_at: 1 } });
            await chat.sendMessage({ text: 'Hi' });
            assert.equal(chat.status, 'error');
            assert.match(chat.error.message, /ended its answer early/);
            const refused = open(sdk, { script: { nonsense: 1 } });
            await refused.sendMessage({ text: 'Hi' });
            assert.equal(refused.status, 'error');
            assert.match(refused.error.message, /Bad options/);
            assert.deepEqual(await stored(refused.id), []);
        });

        test('a stream that is cut is no whole one, and what was posted twice is asked once', async () => {
            const cuts = await Cuts.listen(URL_, [{ after: 1500, by: 'reset' }]);
            const chat = open(sdk, { api: cuts.url, script: { chunks: 40, every: 0.02 } });
            await chat.sendMessage({ text: 'Hi' });
            const [, answer] = await until(async () => {
                const kept = await stored(chat.id);
                return kept.length === 2 && kept;
            });
            assert.ok(textOf(chat.lastMessage).length < textOf(answer).length);
            assert.equal(chat.lastMessage.metadata, undefined, 'what a whole one has at its end');
            // The same post again: the same answer, and nobody is asked.
            chat.messages = chat.messages.slice(0, 1);
            await chat.sendMessage();
            assert.deepEqual(texts(chat), ['Hi', textOf(answer)]);
            assert.equal((await stored(chat.id)).length, 2);
            await cuts.close();
        });

        test('tools that run here, in steps of one message', async () => {
            const chat = open(sdk, {
                script: { steps: [
                    { chunks: ['Let me see. '], tool_calls: [
                        { id: 'c1', name: 'weather', arguments: '{"city":"Ulm"}' }, { id: 'c2', name: 'refuse', arguments: '{}' },
                    ] },
                    { chunks: ['It is warm.'] },
                ] },
                tools: ['weather', 'refuse'],
                chat: { sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithToolCalls },
            });
            await chat.sendMessage({ text: 'Well?' });
            assert.deepEqual(chat.seen, { data: [], errors: [], posts: 1 });
            assert.deepEqual(texts(chat), ['Well?', 'Let me see. It is warm.']);
            const kinds = ({ parts }) => parts.map(({ type }) => type);
            assert.deepEqual(kinds(chat.lastMessage), [
                'step-start', 'text', 'tool-weather', 'tool-refuse', 'step-start', 'text',
            ]);
            const [, , weather, refuse] = chat.lastMessage.parts;
            assert.deepEqual(weather.output, { city: 'Ulm', degrees: 21, unit: 'celsius' });
            assert.deepEqual([refuse.state, refuse.errorText], ['output-error', 'The library is closed.']);
            const [, kept] = await stored(chat.id);
            assert.deepEqual(kinds(kept), kinds(chat.lastMessage));
            assert.deepEqual(kept.parts[2].output, weather.output);
        });

        for (const approved of version === '5' ? [] : [true, false]) {
            test(`a tool that asks first, and a ${approved ? 'yes' : 'no'}`, async () => {
                const chat = open(sdk, {
                    script: { steps: [
                        { tool_calls: [{ id: 'c1', name: 'send_mail', arguments: '{"to":"Ann"}' }], chunks: ['So. '] },
                        { chunks: ['That is that.'] },
                    ] },
                    tools: ['send_mail'],
                    chat: { sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithApprovalResponses },
                });
                await chat.sendMessage({ text: 'Write to her.' });
                const part = () => chat.lastMessage.parts.find(({ type }) => type === 'tool-send_mail');
                assert.equal(part().state, 'approval-requested');
                assert.equal(chat.seen.posts, 1);
                await chat.addToolApprovalResponse({ id: part().approval.id, approved });
                await until(() => chat.status === 'ready' && textOf(chat.lastMessage) === 'So. That is that.');
                assert.equal(part().state, approved ? 'output-available' : 'output-denied');
                assert.equal(part().output, approved ? 'sent to Ann' : undefined);
                assert.deepEqual(chat.messages.map(({ role }) => role), ['user', 'assistant']);
                assert.deepEqual([chat.seen.posts, chat.seen.errors], [2, []]);
                const kept = await stored(chat.id);
                assert.deepEqual(kept.map(textOf), texts(chat));
                assert.equal(kept[1].parts.find(({ type }) => type === 'tool-send_mail').state, part().state);
            });
        }
    });
}

test('ai 7: the answer of another provider takes the place of what the first one wrote', async () => {
    const sdk = require('ai');
    const chat = open(sdk, {
        script: { chunks: ['Void', 'ed', ' text'], error_at: 2, every: 0.01 },
        body: { fallback: 'reset', fallbacks: [{ provider: 'scripted', model: 'fast' }] },
    });
    await chat.sendMessage({ text: 'Hi' });
    const [, answer] = await stored(chat.id);
    assert.equal(textOf(chat.lastMessage), textOf(answer));
});

/** Return a chat whose answers are runs of a workflow; `asked` has the addresses that it fetched. */
function openRuns(script, base = URL_, more = {}) {
    const sdk = require('ai');
    const { WorkflowChatTransport } = require('@ai-sdk/workflow/client');
    const asked = [];
    class Chat extends sdk.AbstractChat {}
    const chat = new Chat({
        id: more.id ?? randomUUID(),
        state: new State(),
        transport: new WorkflowChatTransport({
            api: `${base}/api/chat`,
            fetch: (url, options) => {
                asked.push(String(url));
                assert.ok(asked.length < 10, 'it asks for ever');
                return fetch(url, options);
            },
            ...more.transport,
            prepareSendMessagesRequest: ({ id, messages, trigger, messageId }) => ({
                headers: { 'Content-Type': 'application/json' },
                body: { id, messages, trigger, messageId, options: { script } },
            }),
        }),
    });
    return Object.assign(chat, { asked });
}

test('WorkflowChatTransport goes on at its index after a cut', async () => {
    const cuts = await Cuts.listen(URL_, [{ after: 1500, by: 'reset' }, { after: 900, by: 'end' }]);
    const chat = openRuns({ chunks: 60, every: 0.02 }, cuts.url);
    await chat.sendMessage({ text: 'Hi' });
    const [, answer] = await stored(chat.id);
    assert.equal(textOf(chat.lastMessage), textOf(answer));
    assert.match(chat.asked.at(-1), /\/stream\?startIndex=[1-9]/);
    await cuts.close();
});

test('WorkflowChatTransport leaves when its answer was stopped', async () => {
    const chat = openRuns({ chunks: 5000, every: 0.02 });
    const sending = chat.sendMessage({ text: 'Hi' });
    await writing(chat);
    await api('POST', `/api/chat/${chat.id}/stop`);
    await sending;
    assert.deepEqual([chat.status, chat.error, chat.asked.length], ['ready', undefined, 2]);
});

test('WorkflowChatTransport resumes near the end, and counts on from there after a cut', async () => {
    const writer = openRuns({ chunks: 80, every: 0.02 });
    const sending = writer.sendMessage({ text: 'Hi' });
    await until(() => writer.lastMessage?.role === 'assistant' && textOf(writer.lastMessage).length > 100);
    const cuts = await Cuts.listen(URL_, [{ after: 1500, by: 'reset' }]);
    const chat = openRuns({}, cuts.url, { id: writer.id, transport: { initialStartIndex: -5 } });
    const said = [];
    const warn = console.warn;
    console.warn = (text) => said.push(text);
    await chat.resumeStream().finally(() => { console.warn = warn; });
    await sending;
    const indexes = chat.asked.map((url) => Number(new URL(url).searchParams.get('startIndex')));
    assert.equal(indexes[0], -5);
    assert.ok(indexes[1] > 5, `${indexes}`);
    assert.equal(chat.status, 'ready');
    assert.equal(said.filter((text) => text.includes('tail-index')).length, 0);
    await cuts.close();
});

test('the blocks of docs/clients/ai-sdk.md', async () => {
    const sdk = require('ai');
    const [{ transport }, { nextConfig }, added, socket, { load }] = await modules('docs/clients/ai-sdk.md');
    for (const each of [transport, added.transport, socket.transport]) {
        const state = new State();
        class Chat extends sdk.AbstractChat {}
        const chat = new Chat({ id: randomUUID(), state, transport: each });
        await chat.sendMessage({ text: 'Hi' });
        assert.deepEqual([chat.status, chat.error, chat.messages.length], ['ready', undefined, 2]);
        assert.deepEqual((await load(chat.id)).map(textOf), texts(chat));
    }
    socket.transport.close();
    assert.equal((await nextConfig.rewrites())[0].destination, `${URL_}/api/chat/:path*`);
});
