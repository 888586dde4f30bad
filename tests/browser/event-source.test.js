// Chromium's EventSource: the listing of the seed page, unmodified, and pages that start a reply with it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { api, newConversation, URL_ } from '../clients/api.js';
import { complaints, newPage, open, until } from './chromium.js';
import { Cuts } from './cuts.js';

/** Start a reply and leave it alone, as another device does; return its id. */
async function start(conversation, script) {
    const response = await fetch(`${URL_}/conversations/${conversation.id}/stream`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ input: 'A story about a river 水', options: { script } }),
    });
    await response.body.cancel();
    return response.headers.get('X-Message-Id');
}

/** Open the listing. `seen` has how long the text was each time it changed. */
const openListing = (page, origin, conversation) => open(page, origin, `<!doctype html>
    <div id="ai-response"></div>
    <script>
        const conversationId = ${JSON.stringify(conversation.id)};
        const seen = [];
        const target = document.getElementById('ai-response');
        new MutationObserver(() => seen.push(target.textContent.length)).observe(target, { childList: true });
    </script>
    <script src="/page/listings/event-source.js"></script>`);

const closed = (page) => until(page, () => eventSource.readyState === EventSource.CLOSED);
const text = (page) => page.evaluate(() => document.getElementById('ai-response').textContent);
const stored = (id) => api('GET', `/messages/${id}`);

test('it follows the newest reply, and closes at its end', async () => {
    const conversation = await newConversation();
    await start(conversation, { chunks: ['an older one'] });
    const id = await start(conversation, { chunks: 60, every: 0.025 });
    const page = await newPage();
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    await openListing(page, URL_, conversation);
    await closed(page);
    const message = await stored(id);
    assert.equal(message.status, 'completed');
    assert.equal(await text(page), message.content);
    assert.ok((await page.evaluate(() => seen)).length > 3, 'it came as it was written, not at the end');
    assert.deepEqual(page.said.map(({ text }) => text.split(':')[0]), ['Complete message']);
    assert.deepEqual(await page.said[0].args[1].jsonValue(), message);
    assert.equal(asked.filter((path) => path === `/api/conversations/${conversation.id}/stream`).length, 1);
    assert.deepEqual(complaints(page), []);
});

for (const [when, script] of Object.entries({
    'in mid-reply': { chunks: 20, every: 0.025, error_at: 15 },
    'before its first chunk': { error_at: 0, status: 529 },
})) {
    test(`a provider that fails ${when} is the listing's error branch`, async () => {
        const conversation = await newConversation();
        const id = await start(conversation, script);
        const page = await newPage();
        await openListing(page, URL_, conversation);
        await closed(page);
        const message = await stored(id);
        assert.equal(message.status, 'failed');
        assert.equal(await text(page), message.content);
        assert.deepEqual(page.said.map(({ type, text }) => [type, text]), [
            ['error', `Stream error: ${message.error.message}`],
        ]);
        assert.deepEqual(page.failed, []);
    });
}

test('cut three times, it goes on by itself where it was', async (t) => {
    const conversation = await newConversation();
    const id = await start(conversation, { chunks: 400, every: 0.02 });
    // In the midst of an event: each of a few characters has about 150 bytes.
    const cuts = await Cuts.listen(URL_, [{ after: 1000, by: 'reset' }, { after: 9000, by: 'end' }, { after: 9000, by: 'reset' }]);
    t.after(() => cuts.close());
    const page = await newPage();
    await openListing(page, cuts.url, conversation);
    await closed(page);
    const message = await stored(id);
    assert.equal(message.status, 'completed');
    assert.equal(await text(page), message.content);
    const asked = cuts.requests.filter(({ path }) => path.endsWith('/stream'));
    assert.deepEqual(cuts.left, []);
    assert.equal(asked.length, 4);
    assert.equal(asked[0].lastEventId, null);
    const seqs = asked.slice(1).map(({ lastEventId }) => {
        assert.ok(lastEventId.startsWith(`${id}:`));
        return Number(lastEventId.split(':').at(-1));
    });
    assert.ok(0 < seqs[0] && seqs[0] < seqs[1] && seqs[1] < seqs[2], String(seqs));
});

/** Open a page that starts a reply itself; `closes` is whether it closes its EventSource at the end. */
async function openStart(t, query, { cuts = [], closes = true, conversation } = {}) {
    conversation ??= await newConversation();
    const network = await Cuts.listen(URL_, cuts);
    t.after(() => network.close());
    const page = await newPage();
    const parameters = new URLSearchParams({ message: 'Tell me a story', ...query });
    await open(page, network.url, `<!doctype html>
        <p id="ai-response"></p>
        <script>
            const eventSource = new EventSource('/conversations/${conversation.id}/stream?${parameters}');
            eventSource.onmessage = ({ data }) => {
                const event = JSON.parse(data);
                document.getElementById('ai-response').textContent += event.chunk || '';
                if (${closes} && (event.done || event.error)) eventSource.close();
            };
        </script>`);
    await closed(page);
    assert.deepEqual(network.left, []);
    assert.deepEqual(page.failed, []);
    const asked = network.requests.filter(({ path }) => path.includes('/stream?'));
    const { messages } = conversation.created_at ? await api('GET', `/conversations/${conversation.id}/messages`) : {};
    return { page, asked, messages };
}

/** There is one question and one reply, which the page shows: nothing was started twice. */
async function agree({ page, messages }, status = 'completed') {
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
    assert.equal(messages[1].status, status);
    assert.equal(await text(page), messages[1].content);
}

test('it starts a reply itself, and cut wherever it may be, starts no other', async (t) => {
    const cuts = [
        { after: 10, by: 'reset' },
        { after: 'x-message-id: ', by: 'end' },
        { after: 3000, by: 'reset' },
        { after: '"done":true', by: 'end' },
    ];
    const begun = await openStart(t, { key: crypto.randomUUID() }, { cuts });
    await agree(begun);
    const ids = begun.asked.map(({ lastEventId }) => lastEventId);
    assert.equal(ids.length, 5);
    assert.deepEqual(ids.slice(0, 3), [null, null, null]);
    assert.ok(ids.slice(3).every((id) => id.startsWith(`${begun.messages[1].id}:`)), String(ids));
});

test('without a key, what it was told of the reply is enough', async (t) => {
    const begun = await openStart(t, {}, { cuts: [{ after: ':0\n\n', by: 'end' }] });
    await agree(begun);
    assert.deepEqual(begun.asked.map(({ lastEventId }) => lastEventId), [null, `${begun.messages[1].id}:0`]);
});

for (const [model, status] of [['fast', 'completed'], ['break', 'failed']]) {
    test(`left open at the end of a reply that ${status}, it asks once more and closes itself`, async (t) => {
        const begun = await openStart(t, { key: crypto.randomUUID(), model }, { closes: false });
        await agree(begun, status);
        assert.deepEqual(begun.asked.map((request) => request.status), [200, 204]);
    });
}

test('what is refused ends it at once', async (t) => {
    for (const [status, query, more] of [[404, {}, { conversation: { id: 'none' } }], [422, { provider: 'nobody' }]]) {
        const { asked } = await openStart(t, query, more);
        assert.deepEqual(asked.map((request) => request.status), [status]);
    }
});
