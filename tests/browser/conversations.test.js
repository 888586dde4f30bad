// The list of conversations: on a desktop beside the chat, on a phone a drawer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { api, URL_ } from '../clients/api.js';
import { complaints, until } from './chromium.js';
import { ask, assertFits, DESKTOP, ended, openChat, PHONE, picture } from './page.js';

const titles = (page) => page.$$eval('#conversations li:not([hidden]) a', (links) => links.map((link) => link.textContent));

/** Press what is there of a conversation when one points at it. */
async function press(page, action, title) {
    const button = `[aria-label="${action} ${title}"]`;
    await page.hover(`#conversations li:has(${button})`);
    await page.click(button);
}

/** Wait until the list begins with such titles. */
const listed = (page, expected) => until(page, (wanted) => {
    const found = [...document.querySelectorAll('#conversations li:not([hidden]) a')].map((link) => link.textContent);
    return JSON.stringify(found.slice(0, wanted.length)) === JSON.stringify(wanted);
}, expected);

test('they are renamed where they stand, deleted, and restored', async () => {
    const made = [];
    for (const title of ['Mills', 'Rivers']) made.push((await api('POST', '/conversations', { title })).id);
    await api('POST', `/conversations/${made[0]}/messages`, { role: 'user', content: 'Grind it.' });
    const page = await openChat();
    await listed(page, ['Rivers', 'Mills']);
    await page.click(`a[href="#${made[0]}"]`);
    await until(page, () => document.querySelector('.user .text')?.textContent === 'Grind it.');
    assert.equal(await page.$eval('h1', (title) => title.textContent), 'Mills');
    assert.equal(new URL(page.url()).hash, `#${made[0]}`);

    await press(page, 'Rename', 'Mills');
    await page.keyboard.type('Water mills');
    await page.keyboard.press('Enter');
    await until(page, () => document.querySelector('h1').textContent === 'Water mills');
    assert.equal((await api('GET', `/conversations/${made[0]}`)).title, 'Water mills');
    await press(page, 'Rename', 'Rivers');
    await page.keyboard.type('Nothing');
    await page.keyboard.press('Escape');
    await listed(page, ['Rivers', 'Water mills']);

    await press(page, 'Delete', 'Water mills');
    await until(page, () => document.querySelector('#toast').textContent.includes('is deleted'));
    await until(page, () => document.querySelector('h1').textContent === 'New conversation' && location.hash === '');
    await assert.rejects(api('GET', `/conversations/${made[0]}`), /404/);
    assert.equal((await titles(page))[0], 'Rivers');
    await page.click('#toast button');
    await until(page, () => document.querySelector('.user .text')?.textContent === 'Grind it.');
    await listed(page, ['Rivers', 'Water mills']);
    assert.equal((await api('GET', `/conversations/${made[0]}`)).title, 'Water mills');

    await page.reload();
    await until(page, () => document.querySelector('#conversations [aria-current]')?.textContent === 'Water mills');

    // Back and forth are the browser's own.
    await page.goBack();
    await until(page, () => document.querySelector('#messages').children.length === 0);
    await page.goForward();
    await until(page, () => document.querySelector('.user .text')?.textContent === 'Grind it.');
    assert.deepEqual(complaints(page).filter((each) => !each.includes('404')), []);
});

test('all of them are found, also those that were not loaded yet', async () => {
    await api('POST', '/conversations', { title: 'The oldest quartz' });
    for (let index = 0; index < 90; index += 1) await api('POST', '/conversations', { title: `Number ${index}` });
    const page = await openChat(DESKTOP);
    await listed(page, ['Number 89', 'Number 88']);
    const count = (await titles(page)).length;
    assert.ok(count < 90, `${count} at first`);
    await page.$eval('#conversations-frame', (frame) => (frame.scrollTop = frame.scrollHeight));
    await until(page, (before) => document.querySelectorAll('#conversations li').length > before, count);
    await page.reload();
    await listed(page, ['Number 89']);
    await page.keyboard.down('Control');
    await page.keyboard.press('k');
    await page.keyboard.up('Control');
    await page.keyboard.type('OLDEST q');
    await listed(page, ['The oldest quartz']);
    assert.deepEqual(await titles(page), ['The oldest quartz']);
    await page.keyboard.type('zzz');
    await until(page, () => document.querySelector('#conversations-note').textContent === 'No title has that in it.');
});

test('on a phone they are a drawer, which takes the focus and gives it back', async () => {
    const { id } = await api('POST', '/conversations', { title: 'In the drawer' });
    const page = await openChat(PHONE);
    assert.equal(await page.$eval('#sidebar', (sidebar) => sidebar.inert), true);
    await page.tap('#menu');
    await until(page, () => document.querySelector('#sidebar').getBoundingClientRect().left === 0);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'close-sidebar');
    assert.equal(await page.$eval('#chat', (chat) => chat.inert), true);
    await assertFits(page);
    await picture(page, 'phone-light-9-drawer');
    await page.keyboard.press('Escape');
    await until(page, () => document.activeElement.id === 'menu');
    await page.tap('#menu');
    await until(page, () => document.querySelector('#sidebar').getBoundingClientRect().left === 0);
    await page.tap(`a[href="#${id}"]`);
    await until(page, () => document.querySelector('h1').textContent === 'In the drawer');
    await until(page, () => document.querySelector('#sidebar').inert);
});

test('one that is not there (any more) is told, and the page goes on', async () => {
    const page = await openChat(DESKTOP, 'light', `${URL_}/#AAAAAAAAAAAAAAAAAAAAAA`);
    await until(page, () => document.querySelector('#notice').textContent.startsWith('That conversation is not here'));
    await ask(page, 'Then a new one.');
    await ended(page, 1);
    assert.notEqual(new URL(page.url()).hash, '');
});
