// A Chromium, and pages in it that remember what they said.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import { after } from 'node:test';
import { readFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.TAILRACE_BROWSER}/package.json`);
const { default: puppeteer } = await import(pathToFileURL(require.resolve('puppeteer-core')).href);

const PACKAGES = `${process.env.TAILRACE_CLIENTS}/node_modules`;
const LISTINGS = new URL('listings/', import.meta.url);

const browser = await puppeteer.launch({
    executablePath: process.env.PUPPETEER_EXECUTABLE_PATH,
    headless: 'shell',
    args: ['--no-sandbox', '--no-proxy-server'], // in a container there is often no sandbox; the pages are ours
});
after(() => browser.close());

const PATIENCE_MS = 30_000;
const EVERY_MS = 50;

/** Return a page in a context of its own. `said` has what its console was told, `failed` what it did not catch. */
export async function newPage() {
    const page = await (await browser.createBrowserContext()).newPage();
    page.said = [];
    page.failed = [];
    page.on('console', (message) => page.said.push({ type: message.type(), text: message.text(), args: message.args() }));
    page.on('pageerror', (error) => page.failed.push(error.message));
    return page;
}

/**
 * Wait until something holds in the page. If it never does, the error has what the page shows and said instead.
 *
 * It is asked from here, again and again. Puppeteer's `waitForFunction` has the page itself ask, and now and then does not
 * have the next page do so when one is loaded meanwhile.
 */
export async function until(page, condition, ...values) {
    const end = performance.now() + PATIENCE_MS;
    let cause;
    while (performance.now() < end) {
        try {
            if (await page.evaluate(condition, ...values)) return;
            cause = undefined;
        } catch (error) { // between two documents, or before all of one is there
            cause = error;
        }
        await setTimeout(EVERY_MS);
    }
    const shown = await page.evaluate(() => document.body.innerText);
    throw new Error(`Waited in vain for ${condition}\n${complaints(page).join('\n')}\n${shown}`, { cause });
}

/** What the console was told that is a complaint. */
export const complaints = (page) => [
    ...page.failed, ...page.said.filter(({ type }) => ['error', 'warn'].includes(type)).map(({ text }) => text),
];

/**
 * Open a document of ours in the page, in the stack's own origin. It, the listings and the packages that it imports by
 * name are all that does not come from the stack. Coming from nowhere, it needs what a page from the internet needs to
 * open a WebSocket to this machine: a permission (https://wicg.github.io/local-network-access/).
 */
export async function open(page, origin, html) {
    await page.browserContext().setPermission(origin, { permission: { name: 'loopback-network' }, state: 'granted' });
    const cdp = await page.createCDPSession();
    await cdp.send('Fetch.enable', { patterns: [{ urlPattern: `${origin}/page/*` }] });
    cdp.on('Fetch.requestPaused', ({ requestId, request }) => {
        respond(cdp, requestId, new URL(request.url).pathname.slice('/page/'.length), html).catch((error) => {
            page.failed.push(error.message);
        });
    });
    await page.goto(`${origin}/page/`);
}

async function respond(cdp, requestId, path, html) {
    const [folder, ...rest] = path.split('/');
    const place = { listings: LISTINGS, packages: pathToFileURL(`${PACKAGES}/`) }[folder];
    const body = place ? await readFile(new URL(rest.join('/'), place)) : Buffer.from(path ? '' : html);
    await cdp.send('Fetch.fulfillRequest', {
        requestId,
        responseCode: 200,
        responseHeaders: [{ name: 'Content-Type', value: `text/${path ? 'javascript' : 'html'}; charset=utf-8` }],
        body: body.toString('base64'),
    });
}

/** What a page needs in order to import the clients by their names, without a bundler. */
export const IMPORTS = `<script type="importmap">${JSON.stringify({
    imports: {
        axios: '/page/packages/axios/dist/esm/axios.js',
        'laravel-echo': '/page/packages/laravel-echo/dist/echo.js',
        tailrace: '/static/tailrace.js',
        'tailrace/echo': '/static/echo.js',
        'laravel-echo-api-gateway': '/page/packages/laravel-echo-api-gateway/dist/laravel-echo-api-gateway.js',
    },
})}</script>`;

/** Return a function that waits until a WebSocket of the page was sent a text, from now on. */
export async function frames(page) {
    const cdp = await page.createCDPSession();
    await cdp.send('Network.enable');
    let arrived = '';
    const heard = new EventTarget();
    cdp.on('Network.webSocketFrameReceived', ({ response }) => {
        arrived += response.payloadData;
        heard.dispatchEvent(new Event('frame'));
    });
    return async (text) => {
        const signal = AbortSignal.timeout(PATIENCE_MS);
        while (!arrived.includes(text)) {
            await once(heard, 'frame', { signal });
        }
    };
}
