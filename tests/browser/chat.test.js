// The chat page of `make run`, at the sizes and in the colours that people have.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { api, URL_ } from '../clients/api.js';
import { complaints, until } from './chromium.js';
import { Cuts } from './cuts.js';
import {
    answerBy, ask, assertAccessible, assertFits, bare, contrast, DESKTOP, ended, last, newest, openChat, PHONE, picture,
    SHOWPIECE_STEPS, writing,
} from './page.js';

describe('the chat page', { concurrency: true }, () => {
    for (const [size, viewport] of Object.entries({ phone: PHONE, desktop: DESKTOP })) {
        for (const colours of ['light', 'dark']) {
            test(`on a ${size}, ${colours}`, async () => {
                const page = await openChat(viewport, colours);
                const keep = (name) => picture(page, `${size}-${colours}-${name}`);
                await assertFits(page);
                await keep('1-empty');

                // A reply streams. What was asked has a word that fits nowhere.
                await ask(page, `Tell me of ${'water'.repeat(30)}, please.`);
                await writing(page, 1);
                await assertFits(page);
                await keep('2-writing');
                await ended(page, 1);
                const first = await newest(page);
                assert.equal(first.status, 'completed');
                assert.equal(bare((await last(page)).text), bare(first.content));

                // One that would take a minute, as all will from now on, is stopped.
                await answerBy(page, { chunks: 600, batch: 5, every: 0.5 });
                await ask(page, 'And now?');
                await writing(page, 2);
                await page.click('#stop');
                await ended(page, 2);
                const second = await newest(page);
                assert.equal(second.status, 'cancelled');
                const { text, note } = await last(page);
                assert.deepEqual([bare(text), note], [bare(second.content), 'Stopped.']);
                await assertFits(page);
                await keep('3-stopped');

                // Another goes on where it was after the page was loaded again in its midst.
                await ask(page, 'Once more.');
                await writing(page, 3);
                const before = (await last(page)).text;
                await page.reload();
                await until(page, (length) => {
                    const text = document.querySelector('#messages > li:last-child .text')?.textContent ?? '';
                    return text.length > length + 40;
                }, before.length);
                await page.click('#stop');
                await ended(page, 3);
                const third = await newest(page);
                assert.equal(third.status, 'cancelled');
                assert.equal(bare((await last(page)).text), bare(third.content));
                assert.ok(bare(third.content).startsWith(bare(before)));
                await assertFits(page);
                await keep('4-loaded-again');

                for (const each of ['h1', '#new', '#send', '.user .text', '.assistant .text', '.stopped', '#input']) {
                    assert.ok(await contrast(page, each) >= 4.5, each);
                }
                assert.deepEqual(complaints(page), []);
                await page.browserContext().close();
            });
        }
    }
});

test('a page that is cut in mid-reply has all of it, once', async (t) => {
    const cuts = await Cuts.listen(URL_, [{ after: 3000, by: 'reset' }, { after: 3000, by: 'end' }]);
    t.after(() => cuts.close());
    const page = await openChat(PHONE, 'light', cuts.url);
    await ask(page, 'A story, please.');
    await ended(page, 1);
    const message = await newest(page);
    assert.equal(message.status, 'completed');
    assert.equal(bare((await last(page)).text), bare(message.content));
    assert.deepEqual(cuts.left, []);
    assert.equal(await page.$$eval('#messages > li', (items) => items.length), 2);
});

test('a server that is gone is told in a sentence, and what was typed is kept', async (t) => {
    const cuts = await Cuts.listen(URL_, []);
    const page = await openChat(PHONE, 'dark', cuts.url);
    await cuts.close();
    await ask(page, 'Is anybody there?');
    await until(page, () => !document.querySelector('#notice').hidden);
    assert.match(await page.$eval('#notice', (notice) => notice.textContent), /^The server cannot be reached\. Check that/);
    assert.equal(await page.$eval('#input', (input) => input.value), 'Is anybody there?');
    await assertFits(page);
    assert.ok(await contrast(page, '#notice') >= 4.5);
    await picture(page, 'phone-dark-5-gone');
});

const CALLS = [
    { id: 'c1', name: 'weather', arguments: '{"city":"Ulm"}' },
    { id: 'c2', name: 'refuse', arguments: '{}' },
];

describe('tools that run here', () => {
    const tools = (page) => page.$$eval('.tool', (items) => items.map((item) => [
        item.querySelector('summary').textContent, item.querySelector('.state').textContent,
    ]));

    test('they and the reasoning stand beside the text, also after a reload', async () => {
        const page = await openChat(PHONE, 'dark', `${URL_}/?tools=weather,refuse`);
        await answerBy(page, { steps: [
            { reasoning: ['Let me ', 'think.'], chunks: ['One moment. '], tool_calls: CALLS }, { chunks: ['It is warm.'] },
        ] });
        await ask(page, 'How is the weather?');
        await ended(page, 1);
        const shown = [['weather', 'done'], ['refuse', 'failed']];
        assert.deepEqual(await tools(page), shown);
        assert.equal((await last(page)).text, 'One moment. It is warm.');
        assert.equal(await page.$eval('.thought', (thought) => thought.textContent), 'Let me think.');
        await page.click('.tool summary');
        assert.match(await page.$eval('.tool details', (details) => details.innerText), /"city": "Ulm"[^]*"degrees": 21/);
        await assertFits(page);
        for (const part of ['.tool summary', '.tool .state', '.tool.failed .state', '.thoughts summary']) {
            assert.ok(await contrast(page, part) >= 4.5, part);
        }
        await picture(page, 'tools');
        await page.reload();
        await ended(page, 1);
        assert.deepEqual(await tools(page), shown);
        assert.deepEqual(complaints(page), []);
    });

    for (const [button, state, said] of [['Allow', 'done', 'sent to Ann'], ["Don't", 'failed', 'did not allow']]) {
        test(`one that asks first waits for "${button}"`, async () => {
            const page = await openChat(DESKTOP, 'light', `${URL_}/?tools=send_mail`);
            const mail = [{ id: 'c1', name: 'send_mail', arguments: '{"to":"Ann"}' }];
            await answerBy(page, { steps: [{ chunks: ['So. '], tool_calls: mail }, { chunks: ['That is that.'] }] });
            await ask(page, 'Write to her.');
            await ended(page, 1);
            assert.deepEqual(await tools(page), [['send_mail', 'waits for you']]);
            await page.reload();
            await ended(page, 1);
            await assertFits(page);
            const choices = await page.$$('.choice');
            for (const choice of choices) {
                if (await choice.evaluate((element, text) => element.textContent === text, button)) {
                    await choice.click();
                    break;
                }
            }
            await ended(page, 2);
            assert.equal((await last(page)).text, 'That is that.');
            assert.equal((await tools(page)).at(-1)[1], state);
            const { messages } = await api('GET', `/conversations/${(await last(page)).id}/messages`);
            assert.match(messages.at(-1).metadata.tool_results[0].result, new RegExp(said));
            assert.deepEqual(complaints(page), []);
        });
    }
});
