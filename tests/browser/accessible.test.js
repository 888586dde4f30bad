// Whoever comes with a keyboard, a screen reader, or eyes that want contrast or rest.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { URL_ } from '../clients/api.js';
import { until } from './chromium.js';
import { answerBy, ask, assertAccessible, assertFits, DESKTOP, ended, openChat, PHONE, picture, SHOWPIECE_STEPS } from './page.js';

describe('axe-core finds nothing', { concurrency: true }, () => {
    for (const [size, viewport] of Object.entries({ phone: PHONE, desktop: DESKTOP })) {
        for (const colours of ['light', 'dark']) {
            test(`on a ${size}, ${colours}`, async () => {
                const page = await openChat(viewport, colours, `${URL_}/?tools=look_up,send_mail`);
                await assertAccessible(page);
                let done = await answerBy(page, { steps: SHOWPIECE_STEPS() });
                await ask(page, 'How does resuming work?');
                await ended(page, 1);
                await done();
                await assertFits(page);
                await assertAccessible(page);
                await picture(page, `${size}-${colours}-20-showpiece`);
                await page.$eval('main', (main) => (main.scrollTop = 0));
                await until(page, () => document.querySelector('main').scrollTop === 0);
                await page.$$eval('details', (all) => all.forEach((each) => (each.open = true)));
                await assertAccessible(page);
                await picture(page, `${size}-${colours}-21-open`);
                done = await answerBy(page, { chunks: ['I will. '], tool_calls: [{ id: 'm1', name: 'send_mail', arguments: '{"to":"Ann"}' }] });
                await ask(page, 'Write to Ann.');
                await until(page, () => document.querySelectorAll('.choice').length === 2);
                await done();
                await assertAccessible(page);
                await picture(page, `${size}-${colours}-22-approval`);
                await page.click('#show-choices');
                await assertAccessible(page);
                await page.click('#show-choices');
                await page.$$eval('.user .edit', (buttons) => buttons.at(-1).click());
                await assertAccessible(page);
                await picture(page, `${size}-${colours}-23-editing`);
                await page.keyboard.press('Escape');
                await page.click(size === 'phone' ? '#menu' : '#show-shortcuts');
                await until(page, () => document.querySelector('#sidebar.open, dialog[open]') !== null);
                await assertAccessible(page);
                await picture(page, `${size}-${colours}-24-above`);
                await page.keyboard.press('Escape');
                await until(page, () => document.querySelector('#sidebar.open, dialog[open]') === null);
                await page.click('#show-developer');
                await assertAccessible(page);
                await picture(page, `${size}-${colours}-25-developer`);
            });
        }
    }
});

test('everything is reached with Tab, in the order of the page, and shows where one is', async () => {
    const page = await openChat();
    await ask(page, 'A story?');
    await ended(page, 1);
    const seen = [];
    const isOver = () => page.evaluate(() => document.activeElement === document.body);
    for (let step = 0; step < 10 && !await isOver(); step += 1) await page.keyboard.press('Tab'); // to the page's end
    for (let step = 0; step < 40; step += 1) {
        await page.keyboard.press('Tab');
        const found = await page.evaluate(() => {
            const { id, ariaLabel, textContent } = document.activeElement;
            const style = getComputedStyle(document.activeElement.id === 'input' ? document.querySelector('.box') : document.activeElement);
            const isShown = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
            return document.activeElement === document.body ? null : { name: id || ariaLabel || textContent, isShown };
        });
        if (found === null) break;
        assert.ok(found.isShown, `nothing shows that ${found.name} has the focus`);
        seen.push(found.name);
    }
    const wanted = ['new', 'search', 'A story?', 'Rename A story?', 'Delete A story?', 'show-shortcuts', 'show-developer',
        'Copy the message', 'Edit and send again', 'Copy the answer', 'Answer again', 'input', 'attach', 'show-choices'];
    const places = wanted.map((name) => seen.indexOf(name));
    assert.ok(places.every((place) => place >= 0), `${wanted.filter((name) => !seen.includes(name))} of ${seen}`);
    assert.deepEqual(places, places.toSorted((a, b) => a - b));
});

test('the list of shortcuts tells what they are, and each of them does it', async () => {
    const page = await openChat();
    await ask(page, 'A story?');
    await ended(page, 1);
    const press = async (...keys) => {
        for (const key of keys.slice(0, -1)) await page.keyboard.down(key);
        await page.keyboard.press(keys.at(-1));
        for (const key of keys.slice(0, -1)) await page.keyboard.up(key);
    };
    await press('Control', '/');
    await until(page, () => document.querySelector('#shortcuts').open);
    assert.match(await page.$eval('#shortcuts', (dialog) => dialog.innerText), /Ctrl K\s+Search conversations/);
    await press('Escape');
    await until(page, () => !document.querySelector('#shortcuts').open);
    await press('Control', 'k');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'search');
    await press('Control', 'Shift', 'O');
    await until(page, () => location.hash === '' && document.querySelectorAll('#messages > li').length === 0);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'input');
});

test('whoever wants less motion has none', async () => {
    const page = await openChat();
    await page.emulateMediaFeatures([{ name: 'prefers-reduced-motion', value: 'reduce' }]);
    await answerBy(page, { chunks: 100, batch: 2, every: 0.2 });
    await ask(page, 'A story?');
    await until(page, () => document.querySelector('.assistant .text') !== null);
    assert.deepEqual(await page.evaluate(() => document.getAnimations().map((each) => each.animationName ?? 'transition')), []);
    await page.click('#stop');
    await ended(page, 1);
});
