// npm `@microsoft/fetch-event-source` 2.0.1, unmodified, against the stack of `make run`.

import assert from 'node:assert/strict';
import { after, afterEach, describe, test } from 'node:test';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { api, newConversation, URL_ } from './api.js';
import { runBlock } from './docs.js';
import { Cuts } from '../browser/cuts.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const { EventStreamContentType, fetchEventSource } = require('@microsoft/fetch-event-source');
const README = `${process.env.TAILRACE_CLIENTS}/node_modules/@microsoft/fetch-event-source/README.md`;

/** All of a browser that the package needs: a tab that may be hidden, and a window with timers and fetch. */
globalThis.window = globalThis;
globalThis.document = Object.assign(new EventTarget(), { hidden: false });

function turn(hidden) {
    document.hidden = hidden;
    document.dispatchEvent(new Event('visibilitychange'));
}

/** Return a function that hides the tab the first time that it is called, and shows it again. */
function blink() {
    let hidden = false;
    return () => {
        if (!hidden) {
            hidden = true;
            turn(true);
            setImmediate(() => turn(false));
        }
    };
}

afterEach(() => { document.hidden = false; });
// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

const history = async ({ id }) => (await api('GET', `/conversations/${id}/messages`)).messages;

const script = { chunks: 40, every: 0.02 };

const post = (body = { options: { script } }) => ({
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': randomUUID() },
    body: JSON.stringify({ input: 'Tell me a story', ...body }),
});

/** The handlers of the package's own page, as they stand there. */
function handlersOfReadme() {
    const blocks = readFileSync(README, 'utf8').matchAll(/^```ts\n([^]*?)^```$/gm);
    const block = [...blocks].map(([, text]) => text).find((text) => text.includes('onopen'));
    let handlers;
    const take = (url, given) => { handlers = given; };
    new Function('fetchEventSource', 'EventStreamContentType', block)(take, EventStreamContentType);
    return handlers;
}

/** Ask as a page does, through a network that is cut; `ended` resolves when the package says that it is over. */
async function ask(t, init, { cuts = [], query = '', conversation, onEvent = () => {}, ...handlers } = {}) {
    conversation ??= await newConversation();
    const network = await Cuts.listen(URL_, cuts);
    const control = new AbortController();
    const page = { text: '', ends: [], errors: [], conversation, asked: network.requests, control };
    t.after(() => {
        control.abort();
        return network.close();
    });
    page.ended = fetchEventSource(`${network.url}/conversations/${conversation.id}/stream${query}`, {
        ...init,
        signal: control.signal,
        ...handlers,
        onmessage(event) {
            handlers.onmessage?.(event);
            const data = JSON.parse(event.data);
            page.text += data.chunk ?? '';
            if (data.done || data.error) {
                page.ends.push(data);
            }
            onEvent(data, page);
        },
        onerror(error) {
            page.errors.push(error);
            return handlers.onerror?.(error, page);
        },
    });
    return page;
}

/** The conversation has one question and one reply, which the page has shown: nothing was started twice. */
async function agree(page, status = 'completed') {
    const messages = await history(page.conversation);
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
    assert.equal(messages[1].status, status);
    assert.equal(page.text, messages[1].content);
    assert.equal(page.ends.length, 1);
    return messages[1];
}

const statuses = ({ asked }) => asked.map(({ status }) => status);
const abortAtEnd = (data, page) => (data.done || data.error) && page.control.abort();

/** Three cuts, after which nothing is missing or there twice; the first in the head. */
const CUTS = [{ after: 10, by: 'reset' }, { after: 1500, by: 'end' }, { after: '"done":true', by: 'reset' }];

test('a start by POST: with no handler but onmessage it ends where the stream does', async (t) => {
    const page = await ask(t, post());
    await page.ended;
    await agree(page);
    assert.deepEqual(statuses(page), [200]);
    assert.deepEqual(page.errors, []);
});

// It waits a second before it asks again: let them wait together.
describe('cut three times', { concurrency: true }, () => {
    const parameters = new URLSearchParams({ message: 'Tell me a story', key: randomUUID() });
    for (const [name, init, query] of [['POST', post(), ''], ['GET', {}, `?${parameters}`]]) {
        test(`${name}: it goes on where it was`, async (t) => {
            const page = await ask(t, init, { cuts: [...CUTS], query });
            await page.ended;
            const message = await agree(page);
            assert.deepEqual(page.asked.map(({ method }) => method), Array(4).fill(name));
            const ids = page.asked.map(({ lastEventId }) => lastEventId);
            assert.deepEqual(ids.slice(0, 2), [null, null]);
            assert.ok(ids.slice(2).every((id) => id.startsWith(`${message.id}:`)), String(ids));
            assert.equal(page.errors.length, 3);
            assert.ok(page.errors.every((error) => error instanceof TypeError), String(page.errors)); // fetch's, not JSON's
        });
    }
});

test('a start by GET with a key has no event without data', async (t) => {
    const parameters = new URLSearchParams({ message: 'Tell me a story', model: 'fast', key: randomUUID() });
    const page = await ask(t, {}, { query: `?${parameters}` });
    await page.ended;
    await agree(page);
    assert.deepEqual(page.errors, []);
});

for (const [when, hides] of [
    ['in mid-reply', (page) => page.text.length > 50],
    ['at its first chunk', (page) => page.text !== ''],
]) {
    test(`a tab that is hidden ${when} and shown again`, async (t) => {
        const away = blink();
        const page = await ask(t, post(), { onEvent: (_, now) => hides(now) && away() });
        await page.ended;
        const message = await agree(page);
        assert.deepEqual(statuses(page), [200, 200]);
        assert.ok(page.asked[1].lastEventId.startsWith(`${message.id}:`));
        assert.deepEqual(page.errors, []);
    });
}

test('a tab that is hidden before the first chunk gets the reply from its beginning', async (t) => {
    const away = blink();
    const page = await ask(t, post(), { onopen: async () => away() });
    await page.ended;
    await agree(page);
    assert.deepEqual(page.asked.map(({ lastEventId }) => lastEventId), [null, null]);
});

test('a tab that is shown again when the reply has long ended', async (t) => {
    let tell;
    const hidden = new Promise((resolve) => { tell = resolve; });
    const page = await ask(t, post(), {
        onEvent(data) {
            if (tell) {
                turn(true);
                tell(data.message_id);
                tell = undefined;
            }
        },
    });
    await (await fetch(`${URL_}/messages/${await hidden}/stream`)).text(); // which ends with the reply
    turn(false);
    await page.ended;
    await agree(page);
    assert.deepEqual(statuses(page), [200, 200]);
});

test("a tab that was opened hidden: the package's second stream is of the same reply", async (t) => {
    document.hidden = true;
    let shown = false;
    const page = await ask(t, post(), {
        onEvent(data, now) {
            abortAtEnd(data, now);
            if (!shown) {
                shown = true;
                setImmediate(() => turn(false));
            }
        },
    });
    await page.ended;
    const messages = await history(page.conversation);
    assert.equal(messages.length, 2);
    assert.deepEqual(page.errors.map(({ name }) => name), ['AbortError']);
});

test('a hidden tab stops a reply that is to be cancelled when its reader leaves', async (t) => {
    const away = blink();
    const body = { options: { script: { chunks: 400, every: 0.02 } }, on_disconnect: 'cancel' };
    const page = await ask(t, post(body), { onEvent: away });
    await page.ended;
    await agree(page, 'cancelled');
});

describe("the handlers of the package's own page", { concurrency: true }, () => {
    test('end when they are told to at the terminal event', async (t) => {
        const cuts = [{ after: 1500, by: 'reset' }];
        const page = await ask(t, post(), { ...handlersOfReadme(), cuts, onEvent: abortAtEnd });
        await page.ended;
        await agree(page);
        assert.deepEqual(statuses(page), [200, 200]);
    });

    test('go on after a response that ended tidily before the reply', async (t) => {
        let asked = 0;
        const page = await ask(t, post(), {
            ...handlersOfReadme(),
            async fetch(...given) {
                const response = await fetch(...given);
                if (asked++) {
                    return response;
                }
                const reader = response.body.getReader();
                const { value } = await reader.read();
                await reader.cancel();
                return new Response(value, response);
            },
            onEvent: abortAtEnd,
        });
        await page.ended;
        await agree(page);
        assert.equal(asked, 2);
    });

    test('otherwise ask for ever, and each time get a 204', async (t) => {
        const { onerror, ...handlers } = handlersOfReadme();
        const page = await ask(t, post({ model: 'fast' }), {
            ...handlers,
            onerror: (error, now) => (now.errors.length === 3 ? now.control.abort() : onerror(error)),
        });
        await page.ended;
        await agree(page);
        assert.deepEqual(statuses(page), [200, 204, 204]);
    });

    test('end at a refusal', async (t) => {
        const page = await ask(t, post(), { ...handlersOfReadme(), conversation: { id: 'none' } });
        await assert.rejects(page.ended);
        assert.deepEqual(statuses(page), [404]);
    });
});

test('a reply that fails ends it', async (t) => {
    for (const onEvent of [() => {}, abortAtEnd]) {
        const page = await ask(t, post({ model: 'break' }), { onEvent });
        await page.ended;
        const message = await agree(page, 'failed');
        assert.equal(page.ends[0].message, message.error.message);
        assert.deepEqual(statuses(page), [200]);
    }
});

test('without handlers it asks for ever what is refused', async (t) => {
    const page = await ask(t, post(), {
        conversation: { id: 'none' },
        onerror: (error, now) => { now.errors.length === 2 && now.control.abort(); },
    });
    await page.ended;
    assert.deepEqual(statuses(page), [404, 404]);
});

test('the block of its page', async () => {
    const conversation = await newConversation();
    const run = (id) => runBlock('docs/clients/event-source.md', '@microsoft/fetch-event-source', { id });
    const text = await run(conversation.id);
    assert.deepEqual((await history(conversation)).map(({ content }) => content).slice(1), [text]);
    await assert.rejects(run('none'), /No such conversation/);
});
