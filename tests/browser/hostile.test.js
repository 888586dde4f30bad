// What a model says is text, whatever it is: no script runs, nothing is asked of anybody, no link is other than safe.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { api, URL_ } from '../clients/api.js';
import { newPage, until } from './chromium.js';
import { HOSTILE } from './hostile.js';
import { answerBy, ask, bare, DESKTOP, last, newest } from './page.js';

const ALLOWED = [
    'P', 'H3', 'H4', 'H5', 'H6', 'UL', 'OL', 'LI', 'BLOCKQUOTE', 'HR', 'PRE', 'CODE', 'TABLE', 'THEAD', 'TBODY', 'TR', 'TH', 'TD',
    'STRONG', 'EM', 'DEL', 'A', 'BR', 'DIV', 'SPAN', 'BUTTON', 'svg', 'use',
];

/** A page that notices what it should not do. */
async function watchedPage() {
    const page = await newPage();
    page.asked = [];
    page.on('request', (request) => page.asked.push(request.url()));
    page.on('dialog', (dialog) => {
        page.failed.push(`a dialog: ${dialog.message()}`);
        dialog.dismiss();
    });
    await page.evaluateOnNewDocument(() => {
        globalThis.ran = [];
        globalThis.evil = () => globalThis.ran.push(new Error().stack);
        document.addEventListener('securitypolicyviolation', (event) => globalThis.ran.push(`${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.setViewport(DESKTOP);
    return page;
}

async function assertHarmless(page) {
    const found = await page.evaluate((allowed) => {
        const elements = [...document.querySelectorAll('.assistant .text *')];
        return {
            ran: globalThis.ran,
            names: [...new Set(elements.map(({ tagName }) => tagName))].filter((name) => !allowed.includes(name)),
            attributes: [...new Set(elements.flatMap((element) => element.getAttributeNames()))].filter((name) => /^on|style|srcdoc/.test(name)),
            links: elements.filter((element) => element.matches('a'))
                .filter(({ href, rel, target }) => !/^(https?:\/\/|mailto:)/.test(href) || rel !== 'noopener noreferrer' || target !== '_blank')
                .map(({ outerHTML }) => outerHTML),
            images: document.querySelectorAll('#messages img').length,
        };
    }, ALLOWED);
    assert.deepEqual(found, { ran: [], names: [], attributes: [], links: [], images: 0 });
    const { origin, protocol } = new URL(page.url());
    const elsewhere = page.asked.filter((address) => !address.startsWith(`${origin}/`) && !address.startsWith('data:image/svg+xml') && !address.startsWith('ws://'));
    assert.deepEqual(elsewhere, [], protocol);
    assert.deepEqual(page.failed, []);
}

test(`${HOSTILE.length} hostile answers, as they are stored`, async () => {
    const { id } = await api('POST', '/conversations', { title: HOSTILE[0] });
    for (const text of HOSTILE) {
        await api('POST', `/conversations/${id}/messages`, { role: 'user', content: text });
        await api('POST', `/conversations/${id}/messages`, {
            role: 'assistant', content: text, metadata: { reasoning: text, tool_calls: [{ id: 'c', name: text, arguments: text }] },
        });
    }
    const page = await watchedPage();
    await page.goto(`${URL_}/#${id}`);
    await until(page, (count) => {
        document.querySelector('main').scrollTop = 0;
        return document.querySelectorAll('#messages > li').length === count;
    }, HOSTILE.length * 2);
    await page.$$eval('details', (all) => all.forEach((each) => (each.open = true)));
    await assertHarmless(page);

    // Pressing each link of a model's opens what it says, without this page.
    const shown = await page.$$eval('#messages > .assistant', (items) => items.map((item) => item.querySelector('.text').textContent));
    assert.equal(shown.length, HOSTILE.length);
    const plain = shown.filter((text, index) => bare(text) === bare(HOSTILE[index])).length;
    assert.ok(plain > HOSTILE.length / 2, `${plain} are shown as they are`);
});

test('the same as it streams, character by character', async () => {
    const page = await watchedPage();
    const text = HOSTILE.filter((each) => !each.startsWith('```')).join('\n\n');
    await page.goto(URL_);
    await answerBy(page, { chunks: [...text], batch: 40 });
    await ask(page, HOSTILE[5]);
    await until(page, () => document.querySelector('.assistant')?.ariaBusy === 'false');
    assert.equal((await newest(page)).content, text);
    assert.ok((await last(page)).text.includes('<script>evil()</script>'));
    await assertHarmless(page);
});
