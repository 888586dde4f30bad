// examples/react, built by Vite and served with its own proxy, in front of the whole stack.
// TAILRACE_SCREENSHOTS=<a folder> keeps pictures of it.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { api } from '../clients/api.js';
import { complaints, newPage, until } from './chromium.js';

const FOLDER = process.env.TAILRACE_REACT;
const require = createRequire(`${FOLDER}/package.json`);
const { preview } = await import(pathToFileURL(require.resolve('vite')).href);

const server = await preview({ root: FOLDER, logLevel: 'warn', preview: { host: '127.0.0.1', port: 0 } });
after(() => server.close());
const [origin] = server.resolvedUrls.local;

const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** Open the example; the built-in provider answers its posts by these scripts, one after the other. */
async function openChat(scripts, viewport = { width: 1280, height: 800 }) {
    const page = await newPage();
    await page.setViewport(viewport);
    page.posts = [];
    const cdp = await page.createCDPSession();
    await cdp.send('Fetch.enable', { patterns: [{ urlPattern: '*/api/chat' }] });
    cdp.on('Fetch.requestPaused', ({ requestId, request }) => {
        const body = JSON.parse(request.postData);
        const script = scripts[Math.min(page.posts.push(body), scripts.length) - 1];
        const options = { ...body.options, script };
        cdp.send('Fetch.continueRequest', {
            requestId, postData: Buffer.from(JSON.stringify({ ...body, options })).toString('base64'),
        }).catch((error) => page.failed.push(error.message));
    });
    await page.goto(origin);
    await page.waitForSelector('input');
    return page;
}

async function ask(page, text) {
    await page.type('input', text);
    await page.keyboard.press('Enter');
}

const texts = (page, role) => page.$$eval(`li.${role}`, (items) => items.map((item) => item.innerText.trim()));
const status = (page, wanted) => until(page, (name) => document.querySelector('output').innerText === name, wanted);
const answering = (page, shown = 20) => until(
    page, (least) => (document.querySelector('li.assistant')?.innerText.length ?? 0) > least, shown,
);
const stored = async (page) => (await api('GET', `/api/chat/${new URL(page.url()).hash.slice(1)}/messages`)).messages;
const textOf = (message) => message.parts.filter(({ type }) => type === 'text').map(({ text }) => text).join('');

for (const [name, viewport] of [['a desktop', undefined], ['a phone', PHONE]]) {
    test(`a message and its answer, on ${name}`, async () => {
        const page = await openChat([{ chunks: ['Hel', 'lo, ', 'you.'] }], viewport);
        await ask(page, 'Hi there');
        await until(page, () => document.querySelector('li.assistant')?.innerText === 'Hello, you.');
        await status(page, 'ready');
        assert.deepEqual(await texts(page, 'user'), ['Hi there']);
        assert.deepEqual((await stored(page)).map(textOf), ['Hi there', 'Hello, you.']);
        assert.deepEqual(complaints(page), []);
        const fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
        assert.ok(fits, 'nothing sticks out');
        if (process.env.TAILRACE_SCREENSHOTS) {
            await page.screenshot({ path: `${process.env.TAILRACE_SCREENSHOTS}/react-${name.slice(2)}.png` });
        }
    });
}

test('a reload in mid-answer goes on with it, and asks nobody twice', async () => {
    const page = await openChat([{ chunks: 60, every: 0.03 }]);
    await ask(page, 'A long one');
    await answering(page);
    await page.reload();
    await page.waitForSelector('input');
    await answering(page);
    await until(page, () => document.querySelector('output').innerText === 'ready'
        && document.querySelectorAll('li.assistant').length === 1);
    const messages = await stored(page);
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
    const shown = await page.$eval('li.assistant', (item) => item.textContent);
    assert.equal(shown, textOf(messages[1]));
    assert.equal(page.posts.length, 1);
    assert.deepEqual(complaints(page), []);
});

test('a reload after the answer shows it once', async () => {
    const page = await openChat([{ chunks: ['Once.'] }]);
    await ask(page, 'Hi');
    await until(page, () => document.querySelector('li.assistant')?.innerText === 'Once.');
    await status(page, 'ready');
    await page.reload();
    await page.waitForSelector('li.assistant');
    assert.deepEqual([await texts(page, 'user'), await texts(page, 'assistant')], [['Hi'], ['Once.']]);
});

test('the stop button stops it on the server, and the text stays', async () => {
    const page = await openChat([{ chunks: 2000, every: 0.03 }]);
    await ask(page, 'A very long one');
    await answering(page, 100);  // what is kept is what was stored, and the page is a little ahead of that
    await page.click('form button');
    await status(page, 'ready');
    const messages = await stored(page);
    assert.equal(messages.length, 2);
    assert.ok(textOf(messages[1]).length > 20);
    const shown = await page.$eval('li.assistant', (item) => item.textContent);
    assert.ok(shown.startsWith(textOf(messages[1])) || textOf(messages[1]).startsWith(shown));
});

test('a tool that runs in the page answers, and the reply goes on', async () => {
    const page = await openChat([
        { chunks: ['Let me see. '], tool_calls: [{ id: 'call-1', name: 'local_time', arguments: '{}' }], finish_reason: 'tool_calls' },
        { chunks: ['It is late.'] },
    ]);
    await ask(page, 'What time is it?');
    await until(page, () => document.querySelector('li.assistant')?.innerText.includes('It is late.'));
    await status(page, 'ready');
    assert.equal(page.posts.length, 2);
    assert.deepEqual(page.posts[0].options.tools.map((tool) => tool.function.name), ['local_time']);
    assert.equal((await texts(page, 'assistant')).length, 1, 'one answer, in two steps');
    const [, answer] = await stored(page);
    const tool = answer.parts.find(({ type }) => type === 'tool-local_time' || type === 'dynamic-tool');
    assert.match(tool.output.time, /\d/);
    assert.equal(textOf(answer), 'Let me see. It is late.');
});

test('a failure is said, and trying again helps', async () => {
    const page = await openChat([{ chunks: ['Half'], error_at: 1 }, { chunks: ['Whole.'] }]);
    await ask(page, 'Hi');
    await page.waitForSelector('[role=alert] button');
    await page.click('[role=alert] button');
    await until(page, () => document.querySelector('li.assistant')?.innerText === 'Whole.');
    assert.deepEqual(await texts(page, 'assistant'), ['Whole.']);
    assert.deepEqual((await stored(page)).map(textOf), ['Hi', 'Whole.']);
});
