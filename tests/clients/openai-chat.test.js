// npm `openai` 7, unmodified, against the stack of `make run`: chat completions and models.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { after, test } from 'node:test';
import { URL_, api } from './api.js';
import { modules } from './docs.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const { default: OpenAI, APIError, BadRequestError, NotFoundError } = require('openai');

const openai = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: 'none', maxRetries: 0 });
const user = (content) => [{ role: 'user', content }];
const stored = async (id) => (await api('GET', `/conversations/${id}/messages`)).messages;

after(() => setImmediate(() => process.exit()));

/** Ask, and return the client's answer and where it is stored. */
async function ask(body, options) {
    const { data, response } = await openai.chat.completions.create(body, options).withResponse();
    return { data, conversation: response.headers.get('x-conversation-id') };
}

test('streamed and not, it is the text that is stored, with its usage', async () => {
    const body = { model: 'scripted/fast', messages: [{ role: 'system', content: 'Be brief.' }, ...user('A story')] };
    const { data: stream, conversation } = await ask({ ...body, stream: true, stream_options: { include_usage: true } });
    let text = '';
    let usage;
    const reasons = new Set();
    for await (const chunk of stream) {
        assert.equal(chunk.model, 'scripted/fast');
        text += chunk.choices[0]?.delta.content ?? '';
        reasons.add(chunk.choices[0]?.finish_reason);
        usage = chunk.usage ?? usage;
    }
    const [question, reply] = await stored(conversation);
    assert.deepEqual([question.content, reply.content], ['A story', text]);
    assert.ok(reasons.has('stop'));
    assert.equal(usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);

    const { data: whole } = await ask(body);
    assert.equal(whole.choices[0].message.content, text);
    assert.equal(whole.object, 'chat.completion');
    assert.equal(whole.usage.prompt_tokens, 4);
});

test("the client's own stream helper, tools and reasoning", async () => {
    const script = {
        chunks: ['Let me see.'],
        reasoning: ['Hm.'],
        tool_calls: [{ id: 'c1', name: 'weather', arguments: '{"city":"Köln"}' }],
        finish_reason: 'tool_calls',
    };
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
    const stream = openai.chat.completions.stream({
        model: 'fast', messages: user('Rain?'), tools, options: { script },
    });
    const { message, finish_reason: reason } = (await stream.finalChatCompletion()).choices[0];
    assert.equal(reason, 'tool_calls');
    assert.deepEqual(message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]), [
        ['c1', 'weather', '{"city":"Köln"}'],
    ]);
    // The round goes on, in the conversation that has it and in one of its own.
    const messages = [
        ...user('Rain?'), message, { role: 'tool', tool_call_id: 'c1', content: '{"rain":true}' },
    ];
    const { data, conversation } = await ask({ model: 'fast', messages, tools, options: { script: { chunks: ['Yes.'] } } });
    assert.equal(data.choices[0].message.content, 'Yes.');
    const kept = await stored(conversation);
    assert.deepEqual(kept.map(({ role }) => role), ['user', 'assistant', 'tool_call', 'tool_result', 'assistant']);
});

test('a conversation that is named goes on, and what is stored of it counts', async () => {
    const name = randomUUID();
    const headers = { 'X-Conversation-Id': name };
    const echo = { model: 'echo' };
    const { conversation } = await ask({ ...echo, messages: user('One') }, { headers });
    const invented = [...user('Never said'), { role: 'assistant', content: 'Nor this' }, ...user('Two')];
    const again = await ask({ ...echo, messages: invented }, { headers });
    assert.equal(again.conversation, conversation);
    assert.deepEqual((await stored(conversation)).map(({ content }) => content), ['One', 'One', 'Two', 'Two']);
});

test('the same key is asked once', async () => {
    const headers = { 'Idempotency-Key': randomUUID() };
    const body = { model: 'fast', messages: user('Hi') };
    const [one, two] = await Promise.all([ask(body, { headers }), ask(body, { headers })]);
    assert.equal(one.data.id, two.data.id);
    assert.equal(one.conversation, two.conversation);
    assert.equal((await stored(one.conversation)).length, 2);
});

test('a history of any length, and then by the conversation that the answer names', async () => {
    const history = Array.from({ length: 200 }, (_, n) => ({ role: n % 2 ? 'assistant' : 'user', content: String(n) }));
    const { conversation } = await ask({ model: 'echo', messages: [...history, ...user('Well?')] });
    const metadata = { conversation_id: conversation };
    const again = await ask({ model: 'echo', messages: [...history, ...user('And?')], metadata });
    assert.equal(again.conversation, conversation);
    const { messages } = await api('GET', `/conversations/${conversation}/messages?limit=6&order=desc`);
    assert.deepEqual(messages.map(({ content }) => content), ['And?', 'And?', 'Well?', 'Well?', '199', '198']);
});

test("the client's own retries do not ask again what has failed", async () => {
    const retrying = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: 'none', maxRetries: 2 });
    const newest = async () => (await api('GET', '/conversations?limit=2')).conversations.map(({ id }) => id);
    const [before] = await newest();
    const body = { model: 'error', messages: user('Hi'), options: { retries: 0 } };
    await assert.rejects(retrying.chat.completions.create(body), { status: 502, code: 'api_error' });
    assert.equal((await newest())[1], before);
});

test('failures are the errors of the client', async () => {
    const refused = openai.chat.completions.create({ model: 'fast', messages: user('Hi'), colour: 'red' });
    await assert.rejects(refused, (error) => error instanceof BadRequestError && error.param === 'colour');
    await assert.rejects(
        openai.chat.completions.create({ model: 'fast', messages: user('Hi'), n: 2 }),
        (error) => error instanceof BadRequestError && error.param === 'n',
    );
    await assert.rejects(openai.chat.completions.create({ model: 'error', messages: user('Hi') }), { status: 502 });
    const broken = await openai.chat.completions.create({ model: 'break', messages: user('Hi'), stream: true });
    let text = '';
    await assert.rejects(async () => {
        for await (const chunk of broken) {
            text += chunk.choices[0]?.delta.content ?? '';
        }
    }, (error) => error instanceof APIError && /ended its answer early/.test(error.message));
    assert.ok(text.length > 0);
});

test('models', async () => {
    const models = [];
    for await (const model of openai.models.list()) {
        models.push(model.id);
    }
    assert.ok(models.some((id) => id.startsWith('scripted')));
    assert.equal((await openai.models.retrieve('scripted/fast')).id, 'scripted/fast');
    await assert.rejects(openai.models.retrieve('groq/llama'), NotFoundError);
});

test('the blocks of docs/clients/openai.md', async () => {
    const [{ openai: documented, text }] = await modules('docs/clients/openai.md');
    assert.equal(documented.baseURL, `${URL_}/v1`);
    assert.ok(text.length > 100);
});
