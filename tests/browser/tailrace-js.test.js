// web/tailrace.js in Chromium, as a page imports it from the stack.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONVERSATION, FakeStack, completed } from '../clients/fake-stack.js';
import { api, newConversation, URL_ } from '../clients/api.js';
import { complaints, newPage, open, until } from './chromium.js';
import { Cuts } from './cuts.js';

const history = async ({ id }) => (await api('GET', `/conversations/${id}/messages`)).messages;

/** A page whose script may use `client`, `id` and `show(reply)`, which draws a reply and counts its ends. */
async function opened(origin, conversation, script) {
    const page = await newPage();
    await open(page, origin, `<!doctype html>
        <p id="text"></p><p id="status"></p>
        <script type="module">
            import { Tailrace } from '/static/tailrace.js';
            const id = ${JSON.stringify(conversation.id)};
            const client = new Tailrace({ socketUrl: 'ws://' + location.host + '/ws' });
            const draw = (name, text) => { document.querySelector('#' + name).textContent = text; };
            window.states = [];
            async function show(reply) {
                window.reply = reply;
                reply.addEventListener('change', () => draw('text', reply.text));
                reply.addEventListener('connection', ({ detail }) => states.push(detail));
                let text = reply.text, ends = 0, resets = 0;
                for await (const event of reply) {
                    if (event.type === 'text') text += event.text;
                    if (event.type === 'reset') text = '', resets += 1;
                    if (event.type === 'done' || event.type === 'error') ends += 1;
                }
                await reply.finished;
                window.heard = { text, ends, resets };
                draw('status', reply.status);
            }
            ${script}
        </script>`);
    return page;
}

const shown = (page) => page.$eval('#text', (element) => element.textContent);

/** The page shows what is stored, which is one reply to one question. */
async function agree(page, conversation, status = 'completed') {
    await until(page, () => document.querySelector('#status').textContent !== '');
    const messages = await history(conversation);
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
    assert.equal(messages[1].status, status);
    assert.equal(await shown(page), messages[1].content);
    assert.deepEqual(page.failed, []);
    return messages[1];
}

test('cut wherever it may be, it starts one reply and shows it exactly', async (t) => {
    const conversation = await newConversation();
    const network = await Cuts.listen(URL_, [
        { after: 10, by: 'reset' },
        { after: 'x-message-id: ', by: 'end' },
        { after: '\xe6', by: 'reset' },
        { after: 3000, by: 'end' },
        { after: '"done":true', by: 'reset' },
    ]);
    t.after(() => network.close());
    const page = await opened(network.url, conversation, "show(client.start(id, { input: 'A story' }, { transport: 'sse' }));");
    const { content } = await agree(page, conversation);
    assert.deepEqual(network.left, []);
    assert.deepEqual(await page.evaluate(() => heard), { text: content, ends: 1, resets: 0 });
});

// Node's fetch refuses a head that was cut, Chromium takes it for a whole one.
for (const by of ['end', 'reset']) {
    test(`cut by ${by} at every byte of the answer to a start, it has no text twice and loses none`, async (t) => {
        const texts = ['a 水', '🌊'];
        const stack = await FakeStack.listen(t, completed(texts));
        const page = await newPage();
        await open(page, stack.url, `<!doctype html>
            <script type="module">
                import { Tailrace } from '/static/tailrace.js';
                const client = new Tailrace({ random: () => 0 });
                window.start = async () => {
                    const reply = client.start('${CONVERSATION}', { input: 'A story' }, { transport: 'sse' });
                    let text = '';
                    for await (const event of reply) {
                        text = event.type === 'reset' ? 'reset' : text + (event.type === 'text' ? event.text : '');
                    }
                    return [text, reply.text, (await reply.finished).id];
                };
            </script>`);
        await until(page, () => 'start' in window);
        const [, end] = stack.log.slice(-2);
        const length = Buffer.byteLength(JSON.stringify(end.data)) + 320; // and the head, and the chunks
        for (let cut = 0; cut < length; cut += 1) {
            stack.starts.clear();
            stack.plan('start', { cut, by });
            const heard = await page.evaluate(() => start());
            assert.deepEqual(heard, [texts.join(''), texts.join(''), end.message.id], `cut at ${cut}`);
            assert.equal(stack.starts.size, 1);
        }
    });
}

test('loaded again in mid-reply, the page goes on where it was', async () => {
    const conversation = await newConversation();
    const page = await opened(URL_, conversation, `
        const saved = sessionStorage.getItem('reply');
        window.before = saved ? JSON.parse(saved).text : null;
        const reply = saved
            ? client.follow(JSON.parse(saved))
            : client.start(id, { input: 'A story', options: { script: { chunks: 150, every: 0.02 } } });
        reply.addEventListener('change', () => sessionStorage.setItem('reply', JSON.stringify(reply)));
        show(reply);`);
    for (const length of [40, 150]) {
        await until(page, (least) => window.reply?.text.length > least, length);
        await page.reload();
    }
    await until(page, () => window.before?.length > 150);
    const { content } = await agree(page, conversation);
    const { text, ends, resets } = await page.evaluate(() => heard);
    assert.deepEqual([ends, resets], [1, 0]);
    assert.ok(text.endsWith(content.slice(-100)));
    assert.deepEqual(complaints(page), []);
});

test('offline it waits, and goes on at once when the network is back', async () => {
    const conversation = await newConversation();
    const page = await opened(URL_, conversation, `
        show(client.start(id, { input: 'A story', options: { script: { chunks: 100, every: 0.02 } } }));`);
    await until(page, () => window.reply?.text.length > 40);
    await page.setOfflineMode(true);
    await page.evaluate(() => reply.disconnect());
    await until(page, () => reply.connection.state === 'waiting' && reply.connection.retryIn === 30_000);
    const since = Date.now();
    await page.setOfflineMode(false);
    await agree(page, conversation);
    assert.ok(Date.now() - since < 20_000, 'it waited for its time, not for the network');
});

for (const transport of ['websocket', 'polling']) {
    test(`by ${transport}, cut in the midst and stopped`, async () => {
        const conversation = await newConversation();
        const page = await opened(URL_, conversation, `
            show(client.start(id, { input: 'A story', options: { script: { chunks: 400, every: 0.02 } } }, { transport: '${transport}' }));`);
        // A browser complains of a WebSocket that is closed before it is open.
        const isAt = (least) => window.reply?.connection.state === 'open' && reply.text.length > least;
        for (const length of [20, 60]) {
            await until(page, isAt, length);
            await page.evaluate(() => reply.disconnect());
        }
        await until(page, isAt, 120);
        await page.evaluate(() => reply.stop());
        await agree(page, conversation, 'cancelled');
        assert.equal(await page.evaluate(() => reply.connection.transport), transport);
        assert.deepEqual(complaints(page), []);
    });
}

test('two pages see each other on a presence channel', async () => {
    const conversation = await newConversation();
    const script = `
        window.members = [];
        window.heard = [];
        window.room = client.channel('presence-conversation.' + id);
        room.here(() => { members = room.members; });
        room.joining(() => { members = room.members; });
        room.leaving(() => { members = room.members; });
        room.listenForWhisper('typing', (data) => heard.push(data));`;
    const pages = [];
    for (const count of [1, 2]) {
        pages.push(await opened(URL_, conversation, script));
        for (const page of pages) {
            await until(page, (many) => window.members?.length === many, count);
        }
    }
    await pages[0].evaluate(() => room.whisper('typing', { name: '水' }));
    await until(pages[1], () => heard.length === 1);
    assert.deepEqual(await pages[1].evaluate(() => heard), [{ name: '水' }]);
    await pages[1].close();
    await until(pages[0], () => members.length === 1);
});
