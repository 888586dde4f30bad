// A conversation of a thousand messages.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { api, URL_ } from '../clients/api.js';
import { complaints, until } from './chromium.js';
import { answerBy, ask, assertFits, DESKTOP, ended, last, openChat } from './page.js';

const COUNT = 1000;
const LONGEST_TASK_MS = 100;

/**
 * Do something, and return how many milliseconds of the processor the longest task of the page took meanwhile: not of the
 * clock, since other processes may have the processor too.
 */
async function longestTask(page, act) {
    await page.tracing.start({ categories: ['disabled-by-default-devtools.timeline', 'devtools.timeline', 'toplevel'] });
    await act();
    const { traceEvents } = JSON.parse(new TextDecoder().decode(await page.tracing.stop()));
    const main = new Set(traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`));
    const tasks = traceEvents.filter(({ name, tdur, pid, tid }) => name === 'RunTask' && tdur !== undefined && main.has(`${pid} ${tid}`));
    assert.ok(tasks.length > 100, `${tasks.length} tasks`);
    return Math.max(...tasks.map(({ tdur }) => tdur)) / 1000;
}

const atEnd = () => {
    const main = document.querySelector('main');
    return main.scrollHeight - main.scrollTop - main.clientHeight < 2;
};

/** Store a conversation of so many messages at once, and return its id. */
async function longConversation() {
    const messages = Array.from({ length: COUNT - 1 }, (_, index) => ({
        role: index % 2 ? 'assistant' : 'user',
        content: index % 2 ? `Answer ${index}: **bold**, \`code\`.\n\n- a\n- b\n\n\`\`\`js\nconst n = ${index};\n\`\`\`` : `Question ${index}?`,
    }));
    const response = await fetch(`${URL_}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ model: 'scripted/fast', messages }),
    });
    assert.equal(response.status, 200, await response.clone().text());
    return response.headers.get('X-Conversation-Id');
}

test('it opens at its end, goes back without a jump, and stays smooth while a reply is written', async (t) => {
    const id = await longConversation();
    const { messages } = await api('GET', `/conversations/${id}/messages?limit=2&order=desc`);
    const page = await openChat(DESKTOP, 'light', `${URL_}/#${id}`);
    await until(page, () => document.querySelectorAll('#messages > li').length >= 30);
    await until(page, atEnd);
    assert.match((await last(page)).text, new RegExp(messages[0].content.slice(0, 20)));
    await assertFits(page);

    // Scrolled up step by step, as by a hand: what is seen never moves by more than that.
    await page.evaluate(() => {
        const main = document.querySelector('main');
        globalThis.jumps = [];
        // Where an item is painted: in the frame as it is shown, when its observers of sizes have done their work.
        const painted = (item) => new Promise((resolve) => {
            const observer = new IntersectionObserver(([entry]) => {
                observer.disconnect();
                resolve(entry.boundingClientRect.top);
            });
            observer.observe(item);
        });
        globalThis.climb = async () => {
            const seen = [...document.querySelectorAll('#messages > li')].find((item) => item.getBoundingClientRect().bottom > main.getBoundingClientRect().top + 60);
            const before = await painted(seen);
            const place = main.scrollTop;
            main.scrollTop -= 400;
            const moved = place - main.scrollTop;
            for (let frames = 0; frames < 3; frames += 1) {
                const jump = Math.abs(await painted(seen) - before - moved);
                if (jump > 2) globalThis.jumps.push(jump);
            }
            return document.querySelectorAll('#messages > li').length;
        };
    });
    let count = 0;
    for (let steps = 0; count < COUNT && steps < 1500; steps += 1) {
        count = await page.evaluate(() => globalThis.climb());
    }
    assert.equal(count, COUNT);
    assert.deepEqual(await page.evaluate(() => globalThis.jumps), []);

    // All thousand are on the page now. A reply streams in, 200 chunks a second.
    await answerBy(page, { chunks: 800, batch: 1, every: 0.005 });
    await page.click('#latest');
    const longest = await longestTask(page, async () => {
        await ask(page, 'And a last one?');
        await until(page, () => document.querySelector('#messages > li:last-child').ariaBusy === 'false'
            && document.querySelectorAll('#messages > li').length === 1002);
    });
    t.diagnostic(`the longest task: ${Math.round(longest)} ms`);
    assert.ok(longest <= LONGEST_TASK_MS, `a task of ${longest} ms`);
    await until(page, atEnd);
    assert.deepEqual(complaints(page), []);
});

test('a reply of ten thousand chunks costs no more at its end than at its beginning', async (t) => {
    const page = await openChat(DESKTOP, 'light', `${URL_}/?model=long`);
    const longest = await longestTask(page, async () => {
        await ask(page, 'A very long one.');
        await ended(page, 1);
    });
    t.diagnostic(`the longest task: ${Math.round(longest)} ms`);
    // With no pause between its chunks, so many come at once as the machine has been busy for.
    assert.ok(longest <= LONGEST_TASK_MS * 3, `a task of ${longest} ms`);
});
