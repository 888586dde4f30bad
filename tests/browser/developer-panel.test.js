// The panel that shows what comes, and cuts it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { complaints, until } from './chromium.js';
import { answerBy, ask, assertFits, bare, ended, last, newest, openChat, PHONE, picture, writing } from './page.js';

const facts = (page) => page.evaluate(() => Object.fromEntries(
    [...document.querySelectorAll('#developer .facts dt')].map((term) => [term.textContent, term.nextSibling.textContent])));

test('it shows the events with their ids, cuts the connection, and the reply goes on where it was', async () => {
    const page = await openChat();
    assert.equal(await page.$eval('#developer', (panel) => panel.hidden), true);
    await page.keyboard.down('Control');
    await page.keyboard.press('.');
    await page.keyboard.up('Control');
    await until(page, () => !document.querySelector('#developer').hidden);
    await page.reload(); // it is remembered
    await until(page, () => !document.querySelector('#developer').hidden);
    await answerBy(page, { chunks: 150, batch: 3, every: 0.1 });
    await ask(page, 'A story?');
    await writing(page, 1);
    await page.click('.cut');
    await until(page, () => [...document.querySelectorAll('.events li')].some((item) => item.textContent.includes('connection waiting')));
    await picture(page, 'desktop-light-13-cut');
    await ended(page, 1);
    const message = await newest(page);
    assert.equal(bare((await last(page)).text), bare(message.content));
    const found = await facts(page);
    assert.equal(found.reply, message.id);
    assert.equal(found.status, 'completed');
    assert.equal(found.connections, '2');
    assert.equal(found.cursor, String(message.seq));
    const ids = await page.$$eval('.events li', (items) => items.filter((item) => item.textContent.includes('sse {"chunk"')).map((item) => Number(item.firstChild.textContent)));
    assert.deepEqual(ids, [...new Set(ids)].sort((a, b) => a - b), 'each once, in order');
    assert.equal(ids.length, 150);
    await page.keyboard.press('Escape');
    await until(page, () => document.querySelector('#developer').hidden);
    assert.deepEqual(complaints(page), []);
});

test('its line for a shell does the same', async () => {
    const page = await openChat();
    await page.click('#show-developer');
    await ask(page, "It's \"quoted\", isn't it?");
    await ended(page, 1);
    const line = await page.$eval('.curl', (curl) => curl.textContent);
    const { stdout } = await promisify(execFile)('sh', ['-c', line.replace('curl -N', 'curl -sN')]);
    assert.match(stdout, /data: \{"chunk":"Once"/);
    assert.match(stdout, /"done":true/);
    await until(page, () => document.querySelectorAll('#messages > li').length === 4); // it was heard of here too
    assert.equal(await page.$$eval('.user .text', (texts) => texts.at(-1).textContent), "It's \"quoted\", isn't it?");
});

test('on a phone it covers the chat, and closes', async () => {
    const page = await openChat(PHONE, 'dark');
    await ask(page, 'A story?');
    await ended(page, 1);
    await page.tap('#show-developer');
    await until(page, () => !document.querySelector('#developer').hidden);
    await assertFits(page);
    await picture(page, 'phone-dark-14-developer');
    await page.tap('#developer [aria-label="Close the developer panel"]');
    await until(page, () => document.querySelector('#developer').hidden);
});
