// The pictures of the README: `make pictures`. The page as it is, with a real answer of the stack, a real cut and its resume.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { api, URL_ } from '../../clients/api.js';
import { until } from '../chromium.js';
import { answerBy, ask, ended, openChat, writing } from '../page.js';
import { animated } from './animation.js';

const DOCS = new URL('../../../docs/', import.meta.url);
const LARGEST_PICTURE = 150_000;
const LARGEST_ANIMATION = 1_500_000;
const FRAME_MS = 220;
const STRIDE = 18; // characters from one frame to the next

const ANSWER = `A reply is **written down** while it streams, so whoever was cut goes on *exactly* where it was:

\`\`\`js
const reply = client.follow(messageId, { after: cursor });
for await (const event of reply) show(event); // nothing twice, nothing missing
\`\`\`

| what dies | who notices | what is kept |
|:--|:--|:--|
| the reader | nobody | everything |
| the function | the sweep | the text so far |
`;

const STORY = 'Once upon a time, where the mountain lets the river go, there was a mill with a wheel that never slept. '
    + 'The miller had one question: where does the water go when its work is done? She followed it down, and wrote down what '
    + 'it said, word for word. Whoever came late could read from where they had stopped. That is all a tailrace is: the '
    + 'channel that carries the water away from the wheel.';

const STEPS = [
    {
        reasoning: ['They ask what a cut costs. I look the word up first.'],
        chunks: ['Let me look that up. '],
        tool_calls: [{ id: 'c1', name: 'look_up', arguments: '{"word":"tailrace"}' }],
    },
    { chunks: ANSWER.match(/[^]{1,9}/g) },
];

async function keep(name, bytes, largest, t) {
    t.diagnostic(`${name}: ${bytes.length} bytes`);
    assert.ok(bytes.length < largest, `${name} has ${bytes.length} bytes`);
    await writeFile(new URL(name, DOCS), bytes);
}

for (const colours of ['light', 'dark']) {
    test(`the page, ${colours}`, async (t) => {
        const page = await openChat({ width: 1160, height: 860, deviceScaleFactor: 2 }, colours, `${URL_}/?tools=look_up`);
        const told = await answerBy(page, { chunks: 30 });
        for (const question of ['Plan a water wheel', 'A name for my mill', 'Tell me a story about a river']) {
            await page.click('#new');
            await ask(page, question);
            await ended(page, 1);
        }
        await told();
        await page.click('#new');
        await answerBy(page, { steps: STEPS });
        await ask(page, 'What happens when my connection is cut?');
        await ended(page, 1);
        await page.mouse.move(700, 740);
        await page.evaluate(() => document.activeElement.blur());
        assert.equal(await page.$eval('main', (main) => main.scrollHeight <= main.clientHeight), true, 'all of it is seen');
        await keep(`page-${colours}.webp`, await page.screenshot({ type: 'webp', quality: 84 }), LARGEST_PICTURE, t);
        await page.browserContext().close();
        const { conversations } = await api('GET', '/conversations');
        for (const { id } of conversations) await fetch(`${URL_}/conversations/${id}`, { method: 'DELETE' });
    });
}

test('a cut, and the reply that goes on', async (t) => {
    const page = await openChat({ width: 1120, height: 600 }, 'light', URL_);
    await page.click('#show-developer');
    const frames = [];
    const shoot = async (milliseconds = FRAME_MS) => {
        const png = Buffer.from(await page.screenshot({ type: 'png' }));
        frames.push({ png, milliseconds });
    };
    const film = async (condition) => {
        for (let length = 0; !await page.evaluate(condition);) {
            length = await (await page.waitForFunction((before, stride) => {
                const { length: now } = document.querySelector('.assistant .text').textContent;
                return (now >= before + stride || document.querySelector('.assistant').ariaBusy === 'false') && now;
            }, { timeout: 30_000 }, length, STRIDE)).jsonValue();
            await shoot();
        }
    };
    await answerBy(page, { chunks: STORY.match(/ ?[^ ]{1,6}/g), every: 0.1 });
    await page.type('#input', 'Tell me a story about a river');
    await shoot(900);
    await page.keyboard.press('Enter');
    await writing(page, 1);
    await film(() => document.querySelector('.assistant .text').textContent.length > 110);
    await shoot(500);
    await page.click('.cut');
    await until(page, () => document.querySelector('.link').textContent !== '');
    await shoot(1400);
    await film(() => document.querySelector('#messages > .assistant').ariaBusy === 'false');
    await ended(page, 1);
    await shoot(2500);
    assert.equal(await page.$eval('#developer .facts', (facts) => /connections2events/.test(facts.textContent)), true);
    await keep('cut-and-resume.png', animated(frames), LARGEST_ANIMATION, t);
});
