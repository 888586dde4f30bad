// One conversation in several windows, over networks that come and go, and a server that dies.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { complaints, until } from './chromium.js';
import {
    answerBy, ask, bare, DESKTOP, ended, last, newest, openChat, openWindow, picture, stored, writing,
} from './page.js';
import { Stack } from './stack.js';

const SLOW = { chunks: 600, batch: 5, every: 0.25 };

test('another window sees what is asked and answered as it comes, who is there, and may stop it', async () => {
    const page = await openChat();
    await ask(page, 'A first one.');
    await ended(page, 1);
    const other = await openWindow(page);
    for (const each of [page, other]) {
        await until(each, () => document.querySelector('#here').textContent === '2 here');
    }
    await other.bringToFront();
    await other.type('#input', 'I am typing');
    await until(page, () => document.querySelector('#typing').textContent === 'Somebody else is typing…');

    await answerBy(page, SLOW);
    await page.bringToFront();
    await ask(page, 'And a long one?');
    await other.bringToFront();
    await writing(other, 2);
    assert.equal(await other.$$eval('#messages > .user', (items) => items.at(-1).querySelector('.text').textContent), 'And a long one?');
    assert.equal(await other.$eval('#input', (input) => input.value), 'I am typing');
    const length = (await last(other)).text.length;
    await until(other, (before) => document.querySelector('#messages > li:last-child .text').textContent.length > before, length);
    await other.click('#stop');
    await page.bringToFront();
    await ended(page, 2);
    await ended(other, 2);
    const message = await newest(page);
    assert.equal(message.status, 'cancelled');
    for (const each of [page, other]) {
        const { text, note } = await last(each);
        assert.deepEqual([bare(text), note], [bare(message.content), 'Stopped.']);
        assert.equal(await each.$$eval('#messages > li', (items) => items.length), 4);
        assert.deepEqual(complaints(each), []);
    }
    await other.close();
    await until(page, () => document.querySelector('#here').textContent === '');
});

test('what is said in other words in one window is so in the other', async () => {
    const page = await openChat();
    await ask(page, 'One');
    await ended(page, 1);
    const other = await openWindow(page);
    await until(page, () => document.querySelector('#here').textContent === '2 here');
    await page.bringToFront();
    await page.click('.user .edit');
    await page.type('.editor textarea', ' and two');
    await page.keyboard.press('Enter');
    await until(page, () => document.querySelector('.user .text').textContent === 'One and two');
    await ended(page, 1);
    await other.bringToFront();
    await until(other, () => document.querySelector('.user .text')?.textContent === 'One and two');
    await ended(other, 1);
    assert.deepEqual((await stored(page)).map(({ role }) => role), ['user', 'assistant']);
});

test('what was read before a reply was asked for again does not bring the old one back', async () => {
    const page = await openChat();
    await ask(page, 'One');
    await ended(page, 1);
    const cdp = await page.createCDPSession();
    await cdp.send('Fetch.enable', { patterns: [{ urlPattern: '*/messages?limit=20*', requestStage: 'Response' }] });
    const [[{ requestId }]] = await Promise.all([
        once(cdp, 'Fetch.requestPaused'),
        page.evaluate(() => window.dispatchEvent(new Event('online'))), // it asks what it was not told of
    ]);
    await answerBy(page, { chunks: 60, every: 0.05 });
    await page.click('.retry');
    await writing(page, 1);
    await cdp.send('Fetch.continueRequest', { requestId });
    await ended(page, 1);
    const texts = await page.$$eval('#messages .text', (each) => each.map(({ textContent }) => textContent));
    assert.deepEqual(texts.map(bare), (await stored(page)).map(({ content }) => bare(content)));
});

test('a page that is offline says so, and has all of it when it is back', async () => {
    const page = await openChat();
    await answerBy(page, { chunks: 120, batch: 5, every: 0.15 });
    await page.click('#show-developer');
    await ask(page, 'A story, please.');
    await writing(page, 1);
    await page.setOfflineMode(true); // no new connection; the one that there is goes with it
    await page.click('.cut');
    await until(page, () => /^You are offline\. The reply goes on/.test(document.querySelector('.link').textContent));
    await picture(page, 'desktop-light-6-offline');
    await page.setOfflineMode(false);
    await ended(page, 1);
    const message = await newest(page);
    assert.equal(message.status, 'completed');
    assert.equal(bare((await last(page)).text), bare(message.content));
    assert.equal(await page.$eval('.link', (link) => link.textContent), '');
});

test('a server that is killed in mid-answer is told honestly, and what it wrote is there after its restart', async (t) => {
    const stack = await Stack.start({ TAILRACE_LEASE_S: '3' });
    t.after(() => stack.end());
    const page = await openChat(DESKTOP, 'light', stack.url);
    const answerOnce = await answerBy(page, { chunks: 600, batch: 2, every: 0.1 });
    await ask(page, 'A story, please.');
    await writing(page, 1);
    await stack.kill();
    await until(page, () => /^Reconnecting…/.test(document.querySelector('.link').textContent));
    const before = (await last(page)).text;
    assert.ok(before.length > 20);
    await picture(page, 'desktop-light-7-killed');
    await stack.serve();
    await ended(page, 1);
    const message = await (await fetch(`${stack.url}/conversations/${(await last(page)).id}/messages`)).json();
    const reply = message.messages.at(-1);
    assert.equal(reply.status, 'interrupted');
    const { text, note } = await last(page);
    assert.equal(bare(text), bare(reply.content));
    assert.match(note, /^Interrupted\. .* ask again/);
    await picture(page, 'desktop-light-8-interrupted');

    // Asked again it is whole.
    await answerOnce();
    await answerBy(page, { chunks: ['All ', 'of it.'] });
    await page.click('.retry');
    await until(page, () => document.querySelector('.assistant .text')?.textContent === 'All of it.');
    await ended(page, 1);
    assert.equal((await last(page)).note, null);
});
