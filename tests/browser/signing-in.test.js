// The page of a stack that asks for tokens: from an issuer's own page, or pasted in.

import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';
import { complaints, until } from './chromium.js';
import { answerBy, ask, assertAccessible, assertFits, bare, ended, last, openChat, PHONE, picture, writing } from './page.js';
import { Issuer } from './issuer.js';
import { Stack } from './stack.js';

const issuer = await Issuer.start();
after(() => issuer.end());
const stack = await Stack.start({
    TAILRACE_AUTH: 'jwt', TAILRACE_JWT_ISSUER: issuer.url, TAILRACE_JWT_AUDIENCE: 'page', TAILRACE_PAGE_CLIENT_ID: 'page',
});
after(() => stack.end());

beforeEach(() => {
    Object.assign(issuer, { lifetime: 3600, refreshes: true, error: null, state: null, nonce: undefined, granted: [] });
});

const asked = (page, said = '') => until(
    page, (text) => document.querySelector('#sign-in').open && document.querySelector('#sign-in-problem').textContent.includes(text), said,
);
const isIn = (page) => until(page, () => !document.querySelector('#sign-in').open && !document.querySelector('#sign-out').hidden);
const tokens = (page) => page.evaluate(() => JSON.parse(sessionStorage.getItem('tailrace.tokens')));
const open = (more = '') => openChat(undefined, undefined, stack.url + more);

async function signIn(page) {
    await asked(page);
    await Promise.all([page.waitForNavigation(), page.click('#sign-in-there')]);
    await isIn(page);
}

async function paste(page, token) {
    await asked(page);
    await page.$eval('#token', (input, text) => (input.value = text), token);
    await Promise.all([page.waitForNavigation(), page.click('#paste button')]);
}

test('whoever signs in with the issuer sees a reply stream, and is still in after a reload', async () => {
    const page = await open('/?provider=scripted&model=fast');
    await asked(page);
    await assertAccessible(page);
    await picture(page, 'sign-in');
    assert.equal(await page.$eval('#sign-in-there', (button) => button.textContent), `Sign in with ${new URL(issuer.url).host}`);
    await signIn(page);
    assert.equal(page.url(), `${stack.url}/?provider=scripted&model=fast`);
    await until(page, () => document.querySelector('#model').value === 'fast');
    await answerBy(page, { chunks: 100, every: 0.02 });
    await ask(page, 'A story');
    await writing(page, 1);
    await ended(page, 1);
    const { id, text } = await last(page);
    const mine = await fetch(`${stack.url}/conversations/${id}/messages`, { headers: { Authorization: `Bearer ${issuer.token()}` } });
    assert.equal(bare((await mine.json()).messages.at(-1).content), bare(text));
    assert.equal((await fetch(`${stack.url}/conversations/${id}`)).status, 401);
    await page.reload();
    await isIn(page);
    await until(page, () => document.querySelectorAll('#messages > li').length === 2);
    assert.deepEqual(issuer.granted, ['authorization_code']);
    assert.deepEqual(complaints(page), []);
});

test('two windows of one user know of each other: channels have the token too', async () => {
    const pages = [await open(), await open()];
    for (const page of pages) await signIn(page);
    await ask(pages[0], 'One');
    await ended(pages[0], 1);
    await pages[1].goto(pages[0].url());
    await isIn(pages[1]);
    for (const page of pages) {
        await until(page, () => document.querySelectorAll('#messages > li').length === 2);
    }
    await ask(pages[0], 'Two');
    await ended(pages[1], 2); // told over its WebSocket
});

test('a token is refreshed before it ends, with a refresh token that is good for once', async () => {
    issuer.lifetime = 20; // sooner than a page waits
    const page = await open();
    await signIn(page);
    await ask(page, 'One');
    await ended(page, 1);
    assert.deepEqual(issuer.granted.slice(0, 2), ['authorization_code', 'refresh_token']);
    issuer.lifetime = 3600;
    await page.reload();
    await isIn(page);
    await until(page, () => JSON.parse(sessionStorage.getItem('tailrace.tokens')).expires > Date.now() + 600_000);
    assert.deepEqual(complaints(page), []);
});

test('a refresh token that is refused asks again, and what is typed is kept', async () => {
    const page = await open();
    await signIn(page);
    await page.type('#input', 'Not yet sent');
    issuer.refreshes = false;
    await page.evaluate(() => {
        const kept = JSON.parse(sessionStorage.getItem('tailrace.tokens'));
        sessionStorage.setItem('tailrace.tokens', JSON.stringify({ ...kept, expires: Date.now() - 1 }));
    });
    await page.reload();
    await signIn(page);
    assert.equal(await page.$eval('#input', (input) => input.value), 'Not yet sent');
});

test('a state that is not ours is refused, and so are another nonce, another issuer and a no', async () => {
    for (const [wrong, said] of [
        [{ state: 'x' }, 'That was not the answer to a sign-in that began in this window.'],
        [{ nonce: 'x' }, 'The issuer\'s answer was for another sign-in.'],
        [{ iss: 'https://another.example' }, 'Another issuer answered.'],
        [{ error: 'access_denied' }, `${new URL(issuer.url).host} refused: access_denied.`],
    ]) {
        const page = await open();
        await asked(page);
        Object.assign(issuer, wrong);
        await Promise.all([page.waitForNavigation(), page.click('#sign-in-there')]);
        await asked(page, said);
        assert.equal(page.url(), `${stack.url}/`);
        assert.equal(await tokens(page), null);
        Object.assign(issuer, { state: null, nonce: undefined, iss: null, error: null });
    }
    const page = await open('/?code=stolen&state=undefined');
    await asked(page, 'That was not the answer');
    assert.deepEqual(issuer.granted, ['authorization_code']); // of the nonce
});

test('an issuer whose tokens come from elsewhere is not asked unless the page may', async () => {
    const page = await open();
    await asked(page);
    issuer.tokenEndpoint = 'http://127.0.0.1:9/token';
    await page.click('#sign-in-there');
    await asked(page, 'This page may not ask http://127.0.0.1:9 for tokens. Whoever runs it must set PageTokenOrigin.');
    issuer.tokenEndpoint = null;
});

test('a token may be pasted, and one that is refused asks again', async () => {
    const page = await openChat(PHONE, 'dark', stack.url);
    await asked(page);
    await assertFits(page);
    await picture(page, 'sign-in-phone');
    await page.$eval('#token', (input) => (input.value = 'two words'));
    await page.click('#paste button');
    await asked(page, 'That is no token');
    await paste(page, 'not.a.token');
    await asked(page, 'You were signed out.');
    await paste(page, `Bearer ${issuer.token()}`);
    await isIn(page);
    await ask(page, 'Hello');
    await ended(page, 1);
});

test('a 401 in the midst asks again, and what was typed is there', async () => {
    const page = await open();
    const token = issuer.token();
    await paste(page, token);
    await isIn(page);
    await ask(page, 'One');
    await ended(page, 1);
    await page.setRequestInterception(true); // as when a key is withdrawn
    const refuse = (request) => (request.headers().authorization === `Bearer ${token}`
        ? request.respond({ status: 401, contentType: 'application/json', body: '{"error":{"type":"unauthenticated","message":"No."}}' })
        : request.continue());
    page.on('request', refuse);
    await ask(page, 'Two words');
    await asked(page, 'You were signed out. What you typed is kept.');
    await until(page, () => document.querySelector('#input').value === 'Two words');
    await paste(page, issuer.token());
    await isIn(page);
    await until(page, () => document.querySelector('#input').value === 'Two words');
    await page.keyboard.press('Enter');
    await ended(page, 2);
});

test('an issuer that is out of reach is said to be', async () => {
    const page = await open();
    await asked(page);
    await page.setRequestInterception(true);
    page.on('request', (request) => (request.url().startsWith(issuer.url) ? request.abort() : request.continue()));
    await page.click('#sign-in-there');
    await asked(page, `${new URL(issuer.url).host} cannot be reached.`);
    assert.equal(await page.$eval('#sign-in-there', (button) => button.disabled), false);
});

test('who signs out leaves nothing behind', async () => {
    const page = await open();
    await signIn(page);
    await page.type('#input', 'A secret');
    await page.click('#sign-out');
    await asked(page);
    assert.deepEqual(await page.evaluate(() => [
        sessionStorage.length, Object.keys(localStorage).filter((name) => name.includes('draft')),
    ]), [0, []]);
});
