// npm `eventsource` 5, unmodified, against the stack of `make run`: it reconnects as browsers do.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';
import { api, newConversation, URL_ } from './api.js';
import { runBlock } from './docs.js';
import { Cuts } from '../browser/cuts.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const { EventSource } = await import(require.resolve('eventsource'));

// What a test that failed has left waiting would keep the process alive.
after(() => setImmediate(() => process.exit()));

const history = async ({ id }) => (await api('GET', `/conversations/${id}/messages`)).messages;

/** Open an EventSource as a page does. `closed` resolves once it is, by the page or because it has given up. */
function open(t, url, { closes = true } = {}) {
    const source = new EventSource(url);
    t.after(() => source.close());
    const page = { text: '', ends: [], codes: [] };
    page.closed = new Promise((resolve) => {
        source.onmessage = ({ data }) => {
            const event = JSON.parse(data);
            page.text += event.chunk ?? event.sentence ?? '';
            if (event.done || event.error) {
                page.ends.push(event);
                if (closes) {
                    source.close();
                    resolve();
                }
            }
        };
        source.onerror = ({ code }) => {
            if (source.readyState === source.CLOSED) {
                page.codes.push(code);
                resolve();
            }
        };
    });
    return page;
}

/** Start a reply through a network that is cut, and return it with what was asked for. */
async function start(t, query, { cuts = [], conversation, ...options } = {}) {
    conversation ??= await newConversation();
    const network = await Cuts.listen(URL_, cuts);
    t.after(() => network.close());
    const parameters = new URLSearchParams({ message: 'Tell me a story', ...query });
    const page = open(t, `${network.url}/conversations/${conversation.id}/stream?${parameters}`, options);
    await page.closed;
    assert.deepEqual(network.left, []);
    return { page, conversation, asked: network.requests };
}

/** The conversation has one question and one reply, which the page has shown: nothing was started twice. */
async function agree({ page, conversation }, status = 'completed') {
    const messages = await history(conversation);
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
    assert.equal(messages[1].status, status);
    assert.equal(page.text, messages[1].content);
    assert.equal(page.ends.length, 1);
    return messages[1];
}

// It waits three seconds before it connects again: let the tests wait together.
describe('eventsource', { concurrency: true }, () => {
    test('it starts a reply, and is closed at its end', async (t) => {
        const begun = await start(t, { key: randomUUID() });
        const message = await agree(begun);
        assert.deepEqual(begun.page.ends[0].message, message);
        assert.deepEqual(begun.asked.map(({ status }) => status), [200]);
    });

    test('left open, it asks once more, gets a 204 and closes itself', async (t) => {
        const begun = await start(t, { key: randomUUID(), model: 'fast' }, { closes: false });
        await agree(begun);
        assert.deepEqual(begun.page.codes, [204]);
        assert.deepEqual(begun.asked.map(({ status }) => status), [200, 204]);
    });

    test('cut again and again, it goes on by itself where it was', async (t) => {
        const cuts = [
            { after: 10, by: 'reset' }, // in the head
            { after: 'x-message-id: ', by: 'end' },
            { after: 700, by: 'reset' },
            { after: 3000, by: 'end' },
            { after: '"done":true', by: 'reset' },
        ];
        const begun = await start(t, { key: randomUUID() }, { cuts });
        const message = await agree(begun);
        const seqs = begun.asked.map(({ lastEventId }) => lastEventId && Number(lastEventId.split(':')[1]));
        assert.equal(seqs.length, 6);
        assert.deepEqual(seqs.slice(0, 3), [null, null, null]);
        assert.ok(0 < seqs[3] && seqs[3] < seqs[4] && seqs[4] < seqs[5] && seqs[5] < message.seq, String(seqs));
    });

    for (const [where, query, after] of [
        ['inside a character', { message: 'ab 水 cd', model: 'echo' }, '\xe6'],
        ['inside an id', { model: 'fast' }, 'id: '],
        ['in sentences, between two', { by: 'sentence' }, '"sentence_count":2'],
    ]) {
        test(`cut ${where}`, async (t) => {
            const begun = await start(t, { key: randomUUID(), ...query }, { cuts: [{ after, by: 'end' }] });
            await agree(begun);
            assert.equal(begun.asked.length, 2);
        });
    }

    test('without a key, what it was told of the reply is enough', async (t) => {
        const begun = await start(t, {}, { cuts: [{ after: ':0\n\n', by: 'reset' }] });
        const message = await agree(begun);
        assert.deepEqual(begun.asked.map(({ lastEventId }) => lastEventId), [null, `${message.id}:0`]);
    });

    test('without a key, cut before it was told anything, it starts another', async (t) => {
        const { conversation } = await start(t, { model: 'fast' }, { cuts: [{ after: 10, by: 'reset' }] });
        assert.equal((await history(conversation)).length, 4);
    });

    for (const closes of [true, false]) {
        test(`a reply that fails ends it too, ${closes ? 'closed' : 'left open'}`, async (t) => {
            const begun = await start(t, { key: randomUUID(), model: 'break' }, { closes });
            const message = await agree(begun, 'failed');
            assert.equal(begun.page.ends[0].message, message.error.message);
            assert.deepEqual(begun.asked.map(({ status }) => status), closes ? [200] : [200, 204]);
        });
    }

    for (const [code, query, more] of [
        [404, {}, { conversation: { id: 'none' } }],
        [400, { key: '' }],
        [422, { provider: 'nobody' }],
    ]) {
        test(`a ${code} ends it at once`, async (t) => {
            const { page, asked } = await start(t, query, more);
            assert.deepEqual(page.codes, [code]);
            assert.equal(asked.length, 1);
        });
    }

    test('a key that was used for another message ends it at once', async (t) => {
        const key = randomUUID();
        const begun = await start(t, { key, model: 'fast' });
        const { page, asked } = await start(t, { key, model: 'fast', message: 'Other' }, begun);
        assert.deepEqual(page.codes, [409]);
        assert.equal(asked.length, 1);
        await agree(begun);
    });

    test('the same key in another window shows the same reply', async (t) => {
        const query = { key: randomUUID() };
        const conversation = await newConversation();
        const both = await Promise.all([start(t, query, { conversation }), start(t, query, { conversation })]);
        await Promise.all(both.map((begun) => agree(begun)));
    });

    test('the block of its page', async () => {
        const conversation = await newConversation();
        const text = await runBlock('docs/clients/event-source.md', 'eventsource', { id: conversation.id });
        assert.deepEqual((await history(conversation)).map(({ content }) => content).slice(1), [text]);
    });
});
