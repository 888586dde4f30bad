// The chat page of `make run` in a Chromium: what the tests do on it, and what they look at.
// TAILRACE_SCREENSHOTS=<a folder> keeps pictures.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { api, URL_ } from '../clients/api.js';
import { newPage, until } from './chromium.js';

export const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
export const DESKTOP = { width: 1280, height: 800 };

export async function openChat(viewport = DESKTOP, colours = 'light', address = URL_) {
    const page = await newPage();
    await page.setViewport(viewport);
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: colours }]);
    await page.goto(address);
    return page;
}

/** Another window of the same browser, on the same address. */
export async function openWindow(page) {
    const other = await page.browserContext().newPage();
    other.said = [];
    other.failed = [];
    other.on('pageerror', (error) => other.failed.push(error.message));
    await other.setViewport(DESKTOP);
    await other.goto(page.url());
    return other;
}

const withScript = (body, script) => ({ ...body, options: { ...body.options, script } });

/** Have the built-in provider answer the page by a script; what the page does is the same. */
export async function answerBy(page, script) {
    const cdp = await page.createCDPSession();
    await cdp.send('Fetch.enable', { patterns: [{ urlPattern: '*/conversations/*/stream' }] });
    cdp.on('Fetch.requestPaused', ({ requestId, request }) => {
        const body = request.postData && JSON.stringify(withScript(JSON.parse(request.postData), script));
        cdp.send('Fetch.continueRequest', { requestId, postData: body && Buffer.from(body).toString('base64') })
            .catch((error) => page.failed.push(error.message));
    });
    return () => cdp.detach();
}

export async function ask(page, text) {
    await page.type('#input', text);
    await page.keyboard.press('Enter');
}

/** What a text is without its space: paragraphs and lines are elements on the page. */
export const bare = (text) => text.replace(/\s+/g, '');

/** The last message: the conversation, the text of all its parts, and what is told of its end. */
export const last = (page) => page.$eval('#messages > li:last-child', (item) => ({
    id: location.hash.slice(1),
    text: [...item.querySelectorAll('.text')].map((part) => part.textContent).join(''),
    note: item.querySelector('.stopped, .wrong')?.textContent ?? null,
}));

/** Wait until the nth reply has some text and has not ended. */
export const writing = (page, count) => until(page, (replies) => {
    const items = document.querySelectorAll('#messages .assistant');
    return items.length === replies && items[replies - 1].ariaBusy === 'true'
        && (items[replies - 1].querySelector('.text')?.textContent.length ?? 0) > 20;
}, count);

export const ended = (page, count) => until(page, (replies) => {
    const items = document.querySelectorAll('#messages .assistant');
    return items.length === replies && items[replies - 1].ariaBusy === 'false';
}, count);

export async function stored(page) {
    const { id } = await last(page);
    return (await api('GET', `/conversations/${id}/messages?limit=100`)).messages;
}

export const newest = async (page) => (await stored(page)).at(-1);

/** Nothing is wider than the screen, nothing is drawn over the edge, and what can be pressed is large enough. */
export async function assertFits(page) {
    const found = await page.evaluate(() => {
        const width = document.documentElement.clientWidth;
        const scrolls = (each) => each.closest('pre, .table') !== null; // by itself
        const shown = [...document.body.querySelectorAll('*')]
            .filter((each) => each.checkVisibility({ visibilityProperty: true }) && each.id !== 'input' && !scrolls(each));
        return {
            scrolls: document.documentElement.scrollWidth > width || document.querySelector('main').scrollWidth > width,
            over: shown.filter((each) => each.getBoundingClientRect().right > width + 0.5).map((each) => each.outerHTML.slice(0, 80)),
            small: shown.filter((each) => each.matches('button') && each.getBoundingClientRect().height < 44).map((each) => each.outerHTML),
            below: document.querySelector('#composer').getBoundingClientRect().bottom > innerHeight + 0.5,
        };
    });
    assert.deepEqual(found, { scrolls: false, over: [], small: [], below: false });
}

/** The contrast of a text and what is behind it, as WCAG 2.2 counts it. */
export const contrast = (page, selector) => page.$eval(selector, (element) => {
    const light = (colour) => {
        const channels = colour.match(/[\d.]+/g).slice(0, 3).map((each) => each / 255)
            .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2];
    };
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') {
        behind = behind.parentElement;
    }
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
});

const require = createRequire(`${process.env.TAILRACE_BROWSER}/package.json`);
const axe = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8');

/** axe-core finds nothing that keeps anybody out, once what slides and fades is where it goes to. */
export async function assertAccessible(page) {
    // Half out of sight, the list of conversations is a row of links into the page that lead past its edge.
    await page.evaluate(() => Promise.allSettled(document.getAnimations()
        .filter((each) => each.effect.getComputedTiming().endTime !== Infinity).map((each) => each.finished)));
    const cdp = await page.createCDPSession(); // past the page's own policy, which lets no such script in
    await cdp.send('Runtime.evaluate', { expression: axe });
    const { result } = await cdp.send('Runtime.evaluate', {
        expression: `axe.run({ resultTypes: ['violations'] }).then(({ violations }) => JSON.stringify(violations.map(
            ({ id, nodes }) => [id, ...nodes.map((node) => node.html.slice(0, 160) + ' ' + node.failureSummary)])))`,
        awaitPromise: true,
    });
    await cdp.detach();
    assert.deepEqual(JSON.parse(result.value), []);
}

export async function picture(page, name) {
    if (process.env.TAILRACE_SCREENSHOTS) {
        await page.screenshot({ path: `${process.env.TAILRACE_SCREENSHOTS}/${name}.png` });
    }
}

/** What a page tells and shows when a model knows its Markdown. */
export const SHOWPIECE = `## Why a log

A reply is **written down** while it streams, so a reader that was cut goes on *exactly* where it was:

1. each event has an id, such as \`m1:42\`
2. whoever was cut asks for what comes after it
   - over HTTP
   - or over WebSocket

\`\`\`python
async for event in client.follow(message_id, after=cursor):
    print(event.text, end="")  # nothing twice, nothing missing
\`\`\`

| what dies | who notices | what is kept |
|:--|:--|--:|
| the reader | nobody | everything |
| the function | the sweep | the text so far |

> The log is the truth. See [how it works](https://example.com/log).
`;

export const SHOWPIECE_STEPS = (every = 0) => [
    {
        reasoning: ['They ask how resuming works. ', 'I look the word up first.'],
        chunks: ['Let me look that up. '],
        tool_calls: [{ id: 'c1', name: 'look_up', arguments: '{"word":"tailrace"}' }],
    },
    { chunks: SHOWPIECE.match(/[^]{1,9}/g), every },
];
