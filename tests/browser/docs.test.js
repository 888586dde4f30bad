// The documentation's JavaScript, each block as it stands, in a page of the stack's origin. What is for Node
// (```js node) is run by tests/clients.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readdirSync, readFileSync } from 'node:fs';
import { api, newConversation, reply, URL_ } from '../clients/api.js';
import { complaints, frames, IMPORTS, newPage, open, until } from './chromium.js';

const ROOT = new URL('../../', import.meta.url);
const FILES = readdirSync(new URL('docs/', ROOT), { recursive: true });
const DOCS = FILES.filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`);

/** What a page has that listens on a channel, and what it then has heard. */
const LISTENER = `window.text = ''; window.completed = [];
    window.appendToMessage = (chunk) => { text += chunk; };
    window.onMessageComplete = (message) => completed.push(message);`;
const CLIENTS = "import Echo from 'laravel-echo'; import { broadcaster } from 'laravel-echo-api-gateway';";
const CONNECTED = `${CLIENTS} window.Echo = new Echo({ broadcaster, host: 'ws://' + location.host + '/ws' });`;

async function newest(conversation) {
    return (await api('GET', `/conversations/${conversation.id}/messages`)).messages.at(-1);
}

/** The page hears a reply that is started elsewhere. */
async function hears(page, conversation, sent) {
    await sent('"subscription_succeeded"');
    const message = await reply(conversation, { chunks: 20, every: 0.025 });
    await until(page, () => completed.length > 0);
    assert.deepEqual(await page.evaluate(() => ({ text, completed })), { text: message.content, completed: [message] });
}

/** The page starts a reply and shows it. */
const SHOWN = {
    given: "window.text = ''; window.show = (chunk) => { text += chunk; };",
    async then(page, conversation) {
        await until(page, () => performance.getEntriesByType('resource').some(({ name }) => name.includes('/stream?')));
        assert.equal(await page.evaluate(() => text), (await newest(conversation)).content);
    },
};

/** The page draws a reply that it starts, and its promise of the end is kept. */
const DRAWN = {
    given: "window.text = ''; window.draw = (all) => { text = all; };",
    async then(page, conversation) {
        await until(page, () => text.endsWith('from the wheel.'));
        assert.equal(await page.evaluate(() => text), (await newest(conversation)).content);
    },
};

/** Each block: what the page has before it (`given`), and what is so after it (`then`). */
const BLOCKS = {
    'README.md': [{
        given: `${CLIENTS} Object.assign(window, { Echo, broadcaster }); ${LISTENER}`,
        then: hears,
    }],
    'docs/broadcasting.md': [{ given: LISTENER, then: hears }],
    'docs/guide.md': [
        {
            async then(page, conversation) {
                await until(page, () => performance.getEntriesByType('resource').some(({ name }) => name.includes('/stream?')));
                const message = await newest(conversation);
                assert.equal(message.content, await page.$eval('#ai-response', (element) => element.textContent));
                assert.deepEqual(page.said.map(({ text }) => text.split(':')[0]), ['Complete message']);
            },
        },
        { given: `${CONNECTED} ${LISTENER}`, then: hears },
        {
            before: (conversation) => reply(conversation, { chunks: 5 }),
            async then(page, conversation, _, before) {
                const count = `${[...before.content].length} characters in `;
                await until(page, (start) => document.querySelector('#progress').textContent.startsWith(start), count);
                assert.match(await page.$eval('#progress', (line) => line.textContent), /^\d+ characters in [\d.]+ s, [\d.]+\/s$/);
            },
        },
        {
            before: (conversation) => reply(conversation, { chunks: ['Dr. Smith came. ', 'He saw 3.14', ' of them.'] }),
            // A browser without a screen has no voice.
            given: `window.spoken_ = [];
                Object.defineProperty(window, 'speechSynthesis', { value: { speak: ({ text }) => spoken_.push(text) } });
                window.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };`,
            async then(page) {
                await until(page, () => spoken_.length === 2);
                assert.deepEqual(await page.evaluate(() => spoken_), ['Dr. Smith came. ', 'He saw 3.14 of them.']);
            },
        },
    ],
    'docs/clients/browser.md': [
        DRAWN,
        {
            given: `Object.assign(window, {
                text: '', counted: 0, show: (chunk) => { text += chunk; }, clear: () => { text = ''; },
                count: (characters) => { counted = characters; }, complain: () => {},
            });`,
            async then(page, conversation) {
                await until(page, () => text.endsWith('from the wheel.'));
                const { content } = await newest(conversation);
                assert.deepEqual(await page.evaluate(() => ({ text, counted })), { text: content, counted: [...content].length });
            },
        },
        {
            ...DRAWN,
            async then(page, conversation) {
                await until(page, () => text.length > 100 && sessionStorage.getItem('reply') !== null);
                await page.reload();
                await DRAWN.then(page, conversation);
                assert.equal((await api('GET', `/conversations/${conversation.id}/messages`)).messages.length, 2);
                await until(page, () => sessionStorage.getItem('reply') === null);
            },
        },
        {
            given: `window.said = []; window.say = (what) => said.push(what); ${LISTENER}`,
            async then(page, conversation, sent) {
                await until(page, () => said.includes(1));
                await hears(page, conversation, sent);
            },
        },
        { given: LISTENER, then: hears },
    ],
    'docs/clients/event-source.md': [SHOWN],
    'docs/http.md': [SHOWN],
};

for (const name of ['README.md', 'CONTRIBUTING.md', ...DOCS]) {
    const text = readFileSync(new URL(name, ROOT), 'utf8');
    const blocks = [...text.matchAll(/^```(?:js|javascript)\b(?! node).*\n([^]*?)^```$/gm)].map(([, block]) => block);
    if (blocks.length || BLOCKS[name]) {
        test(`${name} has no block that is not run`, () => assert.equal(blocks.length, BLOCKS[name]?.length));
    }
    blocks.forEach((block, number) => test(`${name}, block ${number + 1}`, async () => {
        const { before, given = '', then } = BLOCKS[name][number];
        const conversation = await newConversation();
        const stored = await before?.(conversation);
        const page = await newPage();
        const sent = await frames(page);
        const names = { id: conversation.id, conversationId: conversation.id, messageId: stored?.id };
        await open(page, URL_, `<!doctype html>
            ${IMPORTS}
            <p id="ai-response"></p><p id="progress"></p>
            <script>Object.assign(window, ${JSON.stringify(names)});</script>
            <script type="module">${given}</script>
            <script type="module">${block.replaceAll('127.0.0.1:8787', new URL(URL_).host)}</script>`);
        await then(page, conversation, sent, stored);
        assert.deepEqual(complaints(page), []);
    }));
}
