// @ag-ui/client 1.0, CopilotKit's core and TanStack AI's client, unmodified, against the stack of `make run`.

import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import { once } from 'node:events';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { URL_, api } from './api.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const { HttpAgent } = require('@ag-ui/client');
const modules = `${process.env.TAILRACE_CLIENTS}/node_modules`;
const AT = `${URL_}/api/ag-ui`;

after(() => setImmediate(() => process.exit())); // CopilotKit leaves timers behind

const scripted = (script) => ({ options: { script } });
const user = (content) => ({ id: randomUUID(), role: 'user', content });

/** Return an agent of a thread of its own, and what it hears. */
function newAgent(options = {}) {
    const agent = new HttpAgent({ url: AT, threadId: randomUUID(), ...options });
    const heard = [];
    agent.subscribe({ onEvent: ({ event }) => { heard.push(event); } });
    return { agent, heard };
}

/** Return what a page has that opens a thread anew: the stored messages, and the rest of a run. */
async function opened(threadId, subscriber = {}) {
    const fetch_ = (url, { headers, signal }) => fetch(`${url}/${threadId}`, { headers, signal });
    const agent = new HttpAgent({ url: AT, threadId, fetch: fetch_ });
    await agent.runAgent({}, subscriber);
    return agent.messages;
}

const plain = (messages) => messages.filter(({ role }) => role !== 'reasoning')
    .map(({ role, content, toolCalls, toolCallId }) => ({ role, content, toolCalls, toolCallId }));

const types = (events) => events.map(({ type }) => type);

/** Pass requests on, and cut the first answer after some events. */
async function cuttingProxy(blocks) {
    let isCut = false;
    const server = createServer((asked, answer) => {
        const url = new URL(asked.url, URL_);
        asked.pipe(request(url, { method: asked.method, headers: { ...asked.headers, host: url.host } }, (got) => {
            answer.writeHead(got.statusCode, got.headers);
            let seen = '';
            got.on('data', (data) => {
                seen += data;
                const cuts = !isCut && seen.split('\n\n').length > blocks;
                isCut ||= cuts;
                answer.write(data, () => { if (cuts) answer.destroy(); });
            });
            got.on('end', () => answer.end());
        }));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    after(() => server.close());
    return `http://127.0.0.1:${server.address().port}/api/ag-ui`;
}

test('tools that run here, in steps, and one that asks first', async () => {
    const { agent, heard } = newAgent();
    agent.messages = [user('Well?')];
    const script = (name, given) => ({ steps: [
        { chunks: [], tool_calls: [{ id: `c-${name}`, name, arguments: given }] }, { chunks: ['Done.'] },
    ] });
    const { newMessages } = await agent.runAgent({
        forwardedProps: { options: { script: script('weather', '{"city":"Ulm"}'), tools: ['weather'] } },
    });
    assert.deepEqual(newMessages.map(({ role }) => role), ['assistant', 'tool', 'assistant']);
    assert.equal(JSON.parse(newMessages[1].content).city, 'Ulm');
    assert.deepEqual(types(heard).filter((type) => type.startsWith('STEP')), ['STEP_STARTED', 'STEP_FINISHED']);
    agent.addMessage(user('Write to her.'));
    const forwardedProps = { options: { script: script('send_mail', '{"to":"Ann"}'), tools: ['send_mail'] } };
    await agent.runAgent({ forwardedProps });
    const { interrupts } = heard.at(-1).outcome;
    assert.deepEqual(interrupts.map(({ toolCallId }) => toolCallId), ['c-send_mail']);
    const resume = [{ interruptId: interrupts[0].id, status: 'resolved', payload: { approved: true } }];
    await agent.runAgent({ forwardedProps, resume });
    assert.equal(agent.messages.at(-1).content, 'Done.');
    assert.equal(agent.messages.at(-2).content, 'sent to Ann');
    assert.deepEqual(plain(await opened(agent.threadId)), plain(agent.messages));
});

test('several turns in a thread, and what is stored is what the page has', async () => {
    const { agent, heard } = newAgent();
    agent.messages = [{ id: 's', role: 'system', content: 'You are brief.' }, user('one')];
    const { newMessages } = await agent.runAgent({ forwardedProps: scripted({ chunks: ['Hel', 'lo 水'], completion_tokens: 2 }) });
    assert.deepEqual(newMessages.map(({ role, content }) => [role, content]), [['assistant', 'Hello 水']]);
    assert.deepEqual(types(heard), [
        'RUN_STARTED', 'TEXT_MESSAGE_START', 'TEXT_MESSAGE_CONTENT', 'TEXT_MESSAGE_CONTENT', 'TEXT_MESSAGE_END', 'RUN_FINISHED',
    ]);
    assert.equal(heard[0].threadId, agent.threadId);
    assert.equal(heard.at(-1).runId, heard[0].runId);
    assert.equal(heard.at(-1).usage[0].outputTokens, 2);
    agent.addMessage(user('two'));
    await agent.runAgent({ forwardedProps: { model: 'echo' } });
    agent.addMessage(user('three'));
    await agent.runAgent({ forwardedProps: { model: 'echo' } });
    assert.deepEqual(agent.messages.map(({ content }) => content), ['You are brief.', 'one', 'Hello 水', 'two', 'two', 'three', 'three']);
    assert.deepEqual(await opened(agent.threadId), agent.messages.slice(1));
});

test('an image goes along', async () => {
    const { agent } = newAgent();
    const source = { type: 'data', value: 'aGk=', mimeType: 'image/png' };
    agent.messages = [user([{ type: 'text', text: 'what is it?' }, { type: 'image', source }])];
    await agent.runAgent({ forwardedProps: { model: 'echo' } });
    assert.equal(agent.messages[1].content, 'what is it?');
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('reasoning has a message of its own', async () => {
    const { agent, heard } = newAgent();
    agent.messages = [user('why?')];
    await agent.runAgent({ forwardedProps: scripted({ chunks: ['So.'], reasoning: ['Let me ', 'think.'] }) });
    assert.deepEqual(agent.messages.map(({ role, content }) => [role, content]), [
        ['user', 'why?'], ['reasoning', 'Let me think.'], ['assistant', 'So.'],
    ]);
    assert.deepEqual(types(heard).slice(1, 7), [
        'REASONING_START', 'REASONING_MESSAGE_START', 'REASONING_MESSAGE_CONTENT', 'REASONING_MESSAGE_CONTENT',
        'REASONING_MESSAGE_END', 'REASONING_END',
    ]);
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('a tool that the page runs: the call, its result, and the answer', async () => {
    const { agent } = newAgent();
    const tools = [{ name: 'weather', description: 'The weather of a city', parameters: { type: 'object', properties: {} } }];
    agent.messages = [user('the weather in Paris?')];
    const call = { id: `call_${randomUUID()}`, name: 'weather', arguments: '{"city": "Paris"}' };
    let pending;
    await agent.runAgent({ tools, forwardedProps: scripted({ chunks: ['Let me look.'], tool_calls: [call] }) }, {
        onRunFinishedEvent: ({ pendingToolCallIds }) => { pending = pendingToolCallIds; },
    });
    assert.deepEqual(pending, [call.id]);
    assert.deepEqual(agent.messages[1].toolCalls, [
        { id: call.id, type: 'function', function: { name: 'weather', arguments: call.arguments } },
    ]);
    agent.addMessage({ id: randomUUID(), role: 'tool', toolCallId: call.id, content: '{"degrees": 21}' });
    await agent.runAgent({ tools, forwardedProps: scripted({ chunks: ['21 degrees.'] }) });
    assert.equal(agent.messages.at(-1).content, '21 degrees.');
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('a tool that the provider ran', async () => {
    const { agent } = newAgent();
    agent.messages = [user('search')];
    const id = `srv_${randomUUID()}`;
    const call = { id, name: 'web_search', arguments: '{"query": "mill"}' };
    const { newMessages } = await agent.runAgent({ forwardedProps: scripted({
        chunks: ['A mill.'], tool_calls: [call], tool_results: [{ id, name: 'web_search', result: '["a mill"]' }],
    }) });
    assert.deepEqual(newMessages.map(({ role }) => role), ['assistant', 'tool']);
    assert.deepEqual([newMessages[1].toolCallId, newMessages[1].content], [id, '["a mill"]']);
    agent.addMessage(user('more'));
    await agent.runAgent({ forwardedProps: { model: 'echo' } });
    assert.equal(agent.messages.at(-1).content, 'more');
    const roles = (await opened(agent.threadId)).map(({ role }) => role);
    assert.deepEqual(roles, ['user', 'assistant', 'tool', 'assistant', 'user', 'assistant']);
});

test('a failure is told, and what is refused throws', async () => {
    const { agent, heard } = newAgent();
    agent.messages = [user('hi')];
    let told;
    await agent.runAgent({ forwardedProps: { model: 'break' } }, { onRunErrorEvent: ({ event }) => { told = event; } });
    assert.equal(told.code, 'api_error');
    assert.ok(types(heard).includes('TEXT_MESSAGE_END'), 'what was open is closed');
    agent.addMessage(user('again'));
    await assert.rejects(agent.runAgent({ forwardedProps: { provider: 'nobody' } }), ({ status, payload }) => {
        assert.equal(status, 422);
        assert.match(payload.error.message, /scripted/);
        return true;
    });
    await assert.rejects(opened(randomUUID()), /HTTP 404/);
});

test('a run that is posted twice asks the provider once', async () => {
    const one = newAgent();
    const two = newAgent({ threadId: one.agent.threadId });
    one.agent.messages = [user('hi')];
    two.agent.messages = structuredClone(one.agent.messages);
    const run = { runId: randomUUID(), forwardedProps: scripted({ chunks: 20, every: 0.02 }) };
    await Promise.all([one.agent.runAgent(run), two.agent.runAgent(run)]);
    assert.deepEqual(two.agent.messages, one.agent.messages);
    assert.deepEqual(two.heard, one.heard);
    assert.deepEqual(await opened(one.agent.threadId), one.agent.messages);
    await assert.rejects(one.agent.runAgent({ ...run, forwardedProps: { model: 'echo' } }), /HTTP 409/);
});

test('a run is stopped from another device', async () => {
    const { agent, heard } = newAgent();
    agent.messages = [user('hi')];
    let stopped;
    await agent.runAgent({ forwardedProps: scripted({ chunks: 1000, every: 0.02 }) }, {
        onTextMessageContentEvent: () => { stopped ??= api('POST', `/api/ag-ui/${agent.threadId}/stop`); },
    });
    assert.equal((await stopped).status, 'cancelled');
    assert.deepEqual(heard.at(-1).outcome, { type: 'cancelled' });
    assert.deepEqual(types(heard).slice(-2), ['TEXT_MESSAGE_END', 'RUN_FINISHED']);
    assert.equal((await api('POST', `/api/ag-ui/${agent.threadId}/stop`)).status, 'cancelled');
});

test('abortRun is only a disconnect: the run goes on, and posting it again resumes', async () => {
    const { agent } = newAgent();
    agent.messages = [user('hi')];
    const run = { runId: randomUUID(), forwardedProps: scripted({ chunks: 40, every: 0.02 }) };
    let count = 0;
    await agent.runAgent(run, { onTextMessageContentEvent: () => { if (++count === 3) agent.abortRun(); } });
    assert.equal(agent.messages.length, 2);
    const partial = agent.messages[1].content;
    await agent.runAgent(run);
    assert.equal(agent.messages.length, 2);
    assert.ok(agent.messages[1].content.length > partial.length);
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('a cut by a proxy is noticed, and posting the run again resumes', async () => {
    const { agent } = newAgent({ url: await cuttingProxy(6) });
    agent.messages = [user('hi')];
    const run = { runId: randomUUID(), forwardedProps: scripted({ chunks: 40, every: 0.02, reasoning: ['Hm.'] }) };
    // The client cancels its reader of a connection that broke, and does not take that this fails as well.
    const watching = process.rawListeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection');
    process.on('unhandledRejection', () => {});
    await assert.rejects(agent.runAgent(run), /terminated/);
    await new Promise(setImmediate);
    process.removeAllListeners('unhandledRejection');
    watching.forEach((each) => process.on('unhandledRejection', each));
    await agent.runAgent(run);
    assert.deepEqual(agent.messages.map(({ role }) => role), ['user', 'reasoning', 'assistant']);
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('a page that opens the thread follows the run that is active', async () => {
    const { agent } = newAgent();
    agent.messages = [user('hi')];
    let following;
    await agent.runAgent({ forwardedProps: scripted({ chunks: 40, every: 0.02 }) }, {
        onTextMessageContentEvent: () => { following ??= opened(agent.threadId); },
    });
    assert.deepEqual(await following, agent.messages);
});

test('what a fallback makes void is gone from the page', async () => {
    const { agent, heard } = newAgent();
    agent.messages = [user('one')];
    await agent.runAgent({ forwardedProps: scripted({ chunks: ['First.'], reasoning: ['Hm.'] }) });
    agent.addMessage(user('two'));
    await agent.runAgent({ forwardedProps: {
        model: 'break', fallback: 'reset', fallbacks: [{ provider: 'scripted', model: 'echo' }],
    } });
    assert.ok(types(heard).includes('MESSAGES_SNAPSHOT'));
    assert.deepEqual(agent.messages.map(({ content }) => content), ['one', 'Hm.', 'First.', 'two', 'two']);
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('an answer is asked for again', async () => {
    const { agent } = newAgent();
    agent.messages = [user('hi')];
    await agent.runAgent({ forwardedProps: scripted({ chunks: ['First.'] }) });
    agent.messages = agent.messages.slice(0, 1);
    await agent.runAgent({ forwardedProps: scripted({ chunks: ['Second.'] }) });
    assert.deepEqual(agent.messages.map(({ content }) => content), ['hi', 'Second.']);
    assert.deepEqual(await opened(agent.threadId), agent.messages);
});

test('CopilotKit runs its tool and goes on', async () => {
    const { CopilotKitCore } = require('@copilotkit/core');
    const { z } = require('zod');
    const { agent } = newAgent({ agentId: 'tailrace' });
    const called = [];
    const id = `call_${randomUUID()}`;
    let turn = 0;
    const scripts = [
        { chunks: [], tool_calls: [{ id, name: 'weather', arguments: '{"city":"Paris"}' }] },
        { chunks: ['21 ', 'degrees.'] },
    ];
    agent.use((input, next) => next.run({ ...input, forwardedProps: scripted(scripts[turn++]) }));
    const core = new CopilotKitCore({
        agents__unsafe_dev_only: { tailrace: agent },
        tools: [{
            name: 'weather',
            description: 'The weather of a city',
            parameters: z.object({ city: z.string() }),
            handler: async (given) => { called.push(given); return '21'; },
        }],
    });
    core.addContext({ description: 'The page', value: 'weather' });
    agent.addMessage(user('the weather?'));
    await core.runAgent({ agent });
    assert.deepEqual(called, [{ city: 'Paris' }]);
    assert.deepEqual(agent.messages.map(({ role }) => role), ['user', 'assistant', 'tool', 'assistant']);
    assert.equal(agent.messages.at(-1).content, '21 degrees.');
    assert.deepEqual(plain(await opened(agent.threadId)), plain(agent.messages));
});

test('TanStack AI talks, several turns', async () => {
    const { ChatClient, fetchServerSentEvents } = await import(pathToFileURL(`${modules}/@tanstack/ai-client/dist/esm/index.js`));
    let error;
    const client = new ChatClient({
        connection: fetchServerSentEvents(AT, { body: { model: 'echo' } }),
        onError: (given) => { error = given; },
    });
    await client.sendMessage('hello 水');
    await client.sendMessage('and more');
    assert.equal(error, undefined);
    const said = client.getMessages().map(({ role, parts }) => [role, parts.map(({ content }) => content).join('')]);
    assert.deepEqual(said, [['user', 'hello 水'], ['assistant', 'hello 水'], ['user', 'and more'], ['assistant', 'and more']]);
});

test('TanStack AI runs its tool and goes on', async () => {
    const { ChatClient, fetchServerSentEvents } = await import(pathToFileURL(`${modules}/@tanstack/ai-client/dist/esm/index.js`));
    const { toolDefinition } = await import(pathToFileURL(`${modules}/@tanstack/ai/dist/esm/index.js`));
    const { z } = require('zod');
    const call = { id: `call_${randomUUID()}`, name: 'weather', arguments: '{"city":"Paris"}' };
    const scripts = [{ chunks: ['Let me look.'], reasoning: ['Hm.'], tool_calls: [call] }, { chunks: ['21 ', 'degrees.'] }];
    const called = [];
    const weather = toolDefinition({ name: 'weather', description: 'The weather', inputSchema: z.object({ city: z.string() }) })
        .client((given) => { called.push(given); return { degrees: 21 }; });
    let finished;
    const ends = new Promise((resolve) => { finished = resolve; });
    const client = new ChatClient({
        connection: fetchServerSentEvents(AT, () => ({ body: scripted(scripts.shift()) })),
        tools: [weather],
        onFinish: (message) => { if (!scripts.length) finished(message); },
    });
    await client.sendMessage('the weather?');
    await ends;
    assert.deepEqual(called, [{ city: 'Paris' }]);
    assert.match(JSON.stringify(client.getMessages().at(-1).parts), /21 degrees/);
});

test('TanStack AI takes back what a fallback makes void, and asks again', async () => {
    const { ChatClient, fetchServerSentEvents } = await import(pathToFileURL(`${modules}/@tanstack/ai-client/dist/esm/index.js`));
    const bodies = [
        { model: 'break', fallback: 'reset', fallbacks: [{ provider: 'scripted', model: 'echo' }] },
        scripted({ chunks: ['again'] }),
        { model: 'break' },
    ];
    const client = new ChatClient({ connection: fetchServerSentEvents(AT, () => ({ body: bodies.shift() })) });
    const said = () => client.getMessages().map(({ parts }) => parts.map(({ content }) => content).join(''));
    await client.sendMessage('one');
    assert.deepEqual(said(), ['one', 'one']);
    await client.reload();
    assert.deepEqual(said(), ['one', 'again']);
    await client.sendMessage('two');
    assert.equal(client.getStatus(), 'error');
});

test('the blocks of docs/clients/ag-ui.md', async () => {
    const page = readFileSync(new URL('../../docs/clients/ag-ui.md', import.meta.url), 'utf8');
    const blocks = [...page.matchAll(/^```js node\n(.*?)^```$/gms)].map(([, block]) => block);
    assert.ok(blocks.length > 3);
    const find = (name) => (name.startsWith('@tanstack')
        ? `await import(${JSON.stringify(pathToFileURL(`${modules}/${name}/dist/esm/index.js`).href)})`
        : `require('${name}')`);
    const source = blocks.join('').replaceAll('http://127.0.0.1:8787', URL_)
        .replaceAll(/^import (\{.*?\}) from '(.*?)';$/gm, (_, names, name) => `const ${names} = ${find(name)};`)
        .replaceAll('console.assert', 'assert');
    const importing = source.replaceAll('await import(', 'await importing(');
    const quiet = { ...console, log() {} };
    const run = Object.getPrototypeOf(async () => {}).constructor('require', 'assert', 'console', 'importing', importing);
    await run(require, assert, quiet, (name) => import(name));
});
