// What is typed, sent, asked again and changed.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { api, URL_ } from '../clients/api.js';
import { complaints, until } from './chromium.js';
import { answerBy, ask, assertFits, bare, DESKTOP, ended, last, newest, openChat, picture, stored, writing } from './page.js';

test('what is typed and not sent is there after a reload, for each conversation', async () => {
    const { id } = await api('POST', '/conversations', { title: 'One' });
    const page = await openChat();
    await page.type('#input', 'for a new one');
    await page.evaluate((hash) => (location.hash = hash), id);
    await until(page, () => document.querySelector('h1').textContent === 'One');
    assert.equal(await page.$eval('#input', (input) => input.value), '');
    await page.type('#input', 'for this one');
    await page.reload();
    await until(page, () => document.querySelector('#input').value === 'for this one');
    await page.click('#new');
    await until(page, () => document.querySelector('#input').value === 'for a new one');
    await page.keyboard.press('Enter');
    await ended(page, 1);
    await page.reload();
    await ended(page, 1);
    assert.equal(await page.$eval('#input', (input) => input.value), '');
});

test('an answer is asked for again, a question is edited, and what they replace is gone', async () => {
    const page = await openChat();
    for (const [question, answer] of [['One?', 'First.'], ['Two?', 'Second.']]) {
        const done = await answerBy(page, { chunks: [answer] });
        await ask(page, question);
        await until(page, (text) => [...document.querySelectorAll('.assistant .text')].at(-1)?.textContent === text, answer);
        await done();
    }
    await ended(page, 2);
    let done = await answerBy(page, { chunks: ['Another.'] });
    await page.$$eval('.retry', (buttons) => buttons.at(-1).click());
    await until(page, () => [...document.querySelectorAll('.assistant .text')].at(-1)?.textContent === 'Another.');
    await ended(page, 2);
    assert.deepEqual((await stored(page)).map(({ content }) => content), ['One?', 'First.', 'Two?', 'Another.']);
    await done();

    done = await answerBy(page, { chunks: ['Third.'] });
    await page.focus('#input');
    await page.keyboard.press('ArrowUp');
    await until(page, () => document.activeElement.matches('.editor textarea'));
    await page.keyboard.press('Escape');
    await until(page, () => !document.querySelector('.editor'));
    await page.$eval('.user .edit', (button) => button.click()); // of the first question
    await page.$eval('.editor textarea', (field) => field.select());
    await page.keyboard.type('Three?');
    await page.click('.editor .primary');
    await until(page, () => document.querySelector('.assistant .text')?.textContent === 'Third.');
    await ended(page, 1);
    assert.deepEqual((await stored(page)).map(({ content }) => content), ['Three?', 'Third.']);
    await page.reload();
    await ended(page, 1);
    assert.equal((await last(page)).text, 'Third.');
    assert.deepEqual(complaints(page), []);
    await done();
});

test('an answer and the code in it are copied', async () => {
    const page = await openChat();
    await page.browserContext().overridePermissions(URL_, ['clipboard-read', 'clipboard-write', 'clipboard-sanitized-write']);
    const text = 'So:\n\n```js\nconst a = 1;\nb();\n```\n';
    await answerBy(page, { chunks: [...text] });
    await ask(page, 'Code?');
    await ended(page, 1);
    await page.bringToFront();
    await page.click('.code button');
    await until(page, () => document.querySelector('.code button').ariaLabel === 'Copied');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'const a = 1;\nb();');
    await page.click('.assistant [aria-label="Copy the answer"]');
    await until(page, () => document.querySelector('.assistant .actions button').ariaLabel === 'Copied');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), text);
});

/** A PNG of one colour, which a real decoder reads. */
const drawn = (page, width, height) => page.evaluate(async (...size) => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = size;
    const context = canvas.getContext('2d');
    for (let x = 0; x < size[0]; x += 4) {
        for (let y = 0; y < size[1]; y += 4) {
            context.fillStyle = `rgb(${(x * y) % 255} ${(x * 7 + y * 13) % 255} ${(x * x + y) % 255})`;
            context.fillRect(x, y, 4, 4);
        }
    }
    return canvas.toDataURL('image/png').split(',')[1];
}, width, height);

test('images go with a message, made smaller where they are too large to be kept', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'tailrace-'));
    t.after(() => rm(folder, { recursive: true }));
    const page = await openChat();
    const sizes = [];
    for (const [name, width, height] of [['small.png', 40, 30], ['large.png', 1800, 1400]]) {
        const bytes = Buffer.from(await drawn(page, width, height), 'base64');
        sizes.push(bytes.length);
        await writeFile(join(folder, name), bytes);
    }
    assert.ok(sizes[1] > 200_000, `${sizes[1]} bytes`);
    await writeFile(join(folder, 'no.txt'), 'no image');
    const input = await page.$('#files');
    await input.uploadFile(join(folder, 'small.png'), join(folder, 'large.png'));
    await until(page, () => document.querySelectorAll('#attachments li').length === 2);
    await input.uploadFile(join(folder, 'no.txt'));
    await until(page, () => document.querySelector('#notice').textContent.startsWith('no.txt is no image'));
    await picture(page, 'desktop-light-10-images');
    await ask(page, 'What are these?');
    await ended(page, 1);
    const [question] = await stored(page);
    assert.equal(question.content, 'What are these?');
    assert.deepEqual(question.metadata.parts.map(({ type, media_type: kind }) => [type, kind]), [['image', 'image/png'], ['image', 'image/jpeg']]);
    assert.ok(JSON.stringify(question.metadata.parts).length < 300_000);
    for (let loaded = 0; loaded < 2; loaded += 1) {
        await until(page, () => [...document.querySelectorAll('.user .picture')].filter((image) => image.naturalWidth > 30).length === 2);
        await assertFits(page);
        await page.reload();
    }
    assert.deepEqual(complaints(page), []);
});

test('provider, model and delivery are chosen from what the stack has, and remembered', async () => {
    const page = await openChat();
    await until(page, () => document.querySelectorAll('#provider option').length > 1);
    await page.click('#show-choices');
    assert.deepEqual(await page.$$eval('#provider option', (options) => options.map(({ value }) => value)), ['scripted', 'text']);
    assert.ok((await page.$$eval('#models option', (options) => options.map(({ value }) => value))).includes('echo'));
    await page.type('#model', 'echo');
    await page.select('#delivery', 'sentence');
    await picture(page, 'desktop-light-11-choices');
    await ask(page, 'One thing. Another thing. A third.');
    await ended(page, 1);
    const message = await newest(page);
    assert.deepEqual([message.provider, message.model, message.content], ['scripted', 'echo', 'One thing. Another thing. A third.']);
    await page.reload();
    await until(page, () => document.querySelector('#chosen').textContent === 'scripted · echo · whole sentences');
    await page.click('#show-choices');
    await page.select('#provider', 'text');
    await ask(page, 'By code of my own.');
    await ended(page, 2);
    assert.equal((await newest(page)).provider, 'text');
    await page.keyboard.press('Escape');
    assert.equal(await page.$eval('#choices', (choices) => choices.hidden), true);
});

test('a failure is told in words, with what to do, and is asked again from there', async () => {
    const page = await openChat(DESKTOP, 'light', `${URL_}/?model=break`);
    await ask(page, 'Go on?');
    await ended(page, 1);
    assert.match((await last(page)).note, /ended its answer early\. Ask again, or choose another/);
    assert.ok(bare((await last(page)).text).length > 3);
    await picture(page, 'desktop-light-12-failed');
    await page.click('.retry');
    await until(page, () => document.querySelectorAll('#messages > .assistant').length === 1);
    await ended(page, 1);
    assert.equal((await stored(page)).length, 2);
});

test('a reply is told to a screen reader once, when it is whole', async () => {
    const page = await openChat();
    await page.evaluate(() => {
        globalThis.told = [];
        new MutationObserver(() => globalThis.told.push(document.querySelector('#announcer').textContent))
            .observe(document.querySelector('#announcer'), { childList: true, characterData: true, subtree: true });
    });
    await answerBy(page, { chunks: 60, batch: 2, every: 0.02 });
    await ask(page, 'A story?');
    await writing(page, 1);
    await ended(page, 1);
    const message = await newest(page);
    assert.deepEqual(await page.evaluate(() => globalThis.told), [`Reply: ${message.content}`]);
    assert.equal(await page.$eval('main', (main) => main.querySelectorAll('[aria-live], [role="log"]').length), 0);
});
