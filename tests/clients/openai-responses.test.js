// OpenAI's Responses API, with the unmodified openai package.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';
import { URL_, api } from './api.js';
import { modules } from './docs.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const { OpenAI } = require('openai');
const { zodTextFormat } = require('openai/helpers/zod');
const { z } = require('zod');

const client = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: 'none', maxRetries: 0 });
after(() => setImmediate(() => process.exit()));

/** Return what a request adds for the built-in provider, which the client sends on as it is. */
const scripted = (chunks, more = {}) => ({ model: 'fast', options: { script: { chunks, ...more } } });

const weather = {
    type: 'function',
    name: 'weather',
    description: 'Tells the weather.',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
    strict: false,
};

/** Return all events of a stream; their numbers are consecutive. */
async function all(stream) {
    const found = [];
    for await (const event of stream) {
        found.push(event);
    }
    found.forEach((event, n) => assert.equal(event.sequence_number, found[0].sequence_number + n));
    return found;
}

/** Return a response once it has ended. */
async function ended(id) {
    for (const end = Date.now() + 20_000; Date.now() < end;) {
        const response = await client.responses.retrieve(id);
        if (response.status !== 'in_progress' && response.status !== 'queued') {
            return response;
        }
    }
    throw new Error(`${id} does not end`);
}

test('streamed, through the helper that adds up and checks', async () => {
    const stream = client.responses.stream({
        input: 'Hi',
        ...scripted(['Hello ', 'you.'], { reasoning: ['Well, ', 'well.'], citations: [{ url: 'https://a.example', title: 'A' }] }),
    });
    const events = await all(stream);
    const response = await stream.finalResponse();
    assert.equal(response.output_text, 'Hello you.');
    assert.deepEqual(response.output.map(({ type }) => type), ['reasoning', 'message']);
    assert.equal(response.output[1].content[0].annotations[0].url, 'https://a.example');
    assert.equal(events.at(-1).type, 'response.completed');
    assert.deepEqual((await client.responses.retrieve(response.id)).output, events.at(-1).response.output);
});

test('not streamed', async () => {
    const response = await client.responses.create({ input: 'Hi', metadata: { page: '7' }, ...scripted(['a', 'b']) });
    assert.deepEqual([response.status, response.output_text, response.metadata], ['completed', 'ab', { page: '7' }]);
    assert.deepEqual(await client.responses.retrieve(response.id), response);
});

test('a round with a tool', async () => {
    const call = { id: `c-${randomUUID()}`, name: 'weather', arguments: '{"city":"Oslo"}' };
    const stream = client.responses.stream({ input: 'Oslo?', tools: [weather], ...scripted(['Well.'], { tool_calls: [call] }) });
    await all(stream);
    const first = await stream.finalResponse();
    const [, called] = first.output;
    assert.deepEqual([called.type, called.call_id, called.arguments], ['function_call', call.id, call.arguments]);
    const second = await client.responses.create({
        previous_response_id: first.id,
        input: [{ type: 'function_call_output', call_id: called.call_id, output: 'rain' }],
        ...scripted(['It rains.']),
    });
    assert.equal(second.output_text, 'It rains.');
    assert.deepEqual(second.conversation, first.conversation);
});

test('structured output', async () => {
    const Place = z.object({ city: z.string() });
    const response = await client.responses.parse({
        input: 'Where?',
        text: { format: zodTextFormat(Place, 'place') },
        ...scripted(['{"city":', '"Oslo"}']),
    });
    assert.deepEqual(response.output_parsed, { city: 'Oslo' });
});

describe('in the background', () => {
    test('the answer comes at once, and polling finds the end', async () => {
        const response = await client.responses.create({ input: 'Hi', background: true, ...scripted(20, { every: 0.05 }) });
        assert.deepEqual([response.status, response.output], ['in_progress', []]);
        const whole = await ended(response.id);
        assert.equal(whole.status, 'completed');
        assert.ok(whole.output_text.length > 20);
        const message = await api('GET', `/messages/${response.id.slice('resp_'.length)}`);
        assert.equal(message.content, whole.output_text);
    });

    test('cancelled from another client, twice', async () => {
        const response = await client.responses.create({ input: 'Hi', background: true, ...scripted(1000, { every: 0.05 }) });
        const other = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: 'other', maxRetries: 0 });
        for (let n = 0; n < 2; n += 1) {
            assert.equal((await other.responses.cancel(response.id)).status, 'cancelled');
        }
        assert.equal((await ended(response.id)).status, 'cancelled');
        const events = await all(await client.responses.retrieve(response.id, { stream: true }));
        assert.equal(events.at(-1).type, 'response.incomplete');
        assert.equal(events.at(-1).response.status, 'cancelled');
    });
});

test('resumed at every point, live and later', async () => {
    const stream = await client.responses.create({ input: 'Hi', stream: true, background: true, ...scripted(12, { every: 0.05 }) });
    let id;
    const seen = [];
    for await (const event of stream) {
        id ??= event.response.id;
        seen.push(event);
        if (event.sequence_number === 5) {
            break; // the client hangs up
        }
    }
    const rest = await all(await client.responses.retrieve(id, { stream: true, starting_after: 5 }));
    const whole = await all(await client.responses.retrieve(id, { stream: true }));
    assert.deepEqual([...seen, ...rest], whole);
    assert.equal(whole.at(-1).type, 'response.completed');
    for (let n = 0; n < whole.length - 1; n += 1) {
        const later = await all(await client.responses.retrieve(id, { stream: true, starting_after: n }));
        assert.deepEqual(later, whole.slice(n + 1));
        const helper = client.responses.stream({ response_id: id, starting_after: n });
        assert.deepEqual((await all(helper)).map((event) => event.sequence_number), later.map((event) => event.sequence_number));
    }
});

test('a conversation is watched by the simple protocol', async () => {
    const { id } = await api('POST', '/conversations', {});
    const response = await client.responses.create({ input: 'Hi', conversation: id, ...scripted(['a', 'b']) });
    const { messages } = await api('GET', `/conversations/${id}/messages`);
    assert.deepEqual(messages.map(({ content }) => content), ['Hi', 'ab']);
    assert.equal(response.conversation.id, `conv_${id}`);
});

test('errors are of the client\'s classes', async () => {
    const create = (more) => client.responses.create({ input: 'Hi', ...scripted(['a']), ...more });
    await assert.rejects(create({ nonsense: 1 }), (error) => error instanceof OpenAI.BadRequestError && error.param === 'nonsense');
    await assert.rejects(create({ conversation: randomUUID() }), OpenAI.NotFoundError);
    await assert.rejects(create({ previous_response_id: 'resp_x' }), OpenAI.NotFoundError);
    await assert.rejects(client.responses.retrieve('resp_x'), OpenAI.NotFoundError);
    const failed = await create(scripted(['a', 'b'], { error_at: 1 }));
    assert.deepEqual([failed.status, failed.error.code], ['failed', 'server_error']);
});

test('a key starts once, however often it is sent', async () => {
    const headers = { 'Idempotency-Key': randomUUID() };
    const found = await Promise.all([1, 2, 3].map(() => client.responses.create({ input: 'Hi', ...scripted(['a']) }, { headers })));
    assert.equal(new Set(found.map(({ id }) => id)).size, 1);
    const { messages } = await api('GET', `/conversations/${found[0].conversation.id.slice('conv_'.length)}/messages`);
    assert.equal(messages.length, 2);
});

test('the blocks of docs/clients/openai-responses.md', async () => {
    const [{ response }, { text }, { last }, { answer }] = await modules('docs/clients/openai-responses.md');
    assert.equal(response.status, 'completed');
    assert.ok(text.length > 0);
    assert.equal(last.status, 'completed');
    assert.ok(answer.output_text.length > 0);
});

test('what a response was generated from, page by page', async () => {
    const first = await client.responses.create({ input: 'One', ...scripted(['Answer one.']) });
    const second = await client.responses.create({ input: 'Two', previous_response_id: first.id, ...scripted(['Answer two.']) });
    const said = async (id, query) => {
        const found = [];
        for await (const item of client.responses.inputItems.list(id, query)) {
            found.push(item.content[0].text);
        }
        return found;
    };
    assert.deepEqual(await said(first.id), ['One']);
    assert.deepEqual(await said(second.id, { limit: 1 }), ['Two', 'Answer one.', 'One']);
    assert.deepEqual(await said(second.id, { limit: 2, order: 'asc' }), ['One', 'Answer one.', 'Two']);
});
