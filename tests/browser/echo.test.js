// The Echo listing of the seed page, unmodified, with laravel-echo and laravel-echo-api-gateway as npm has them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newConversation, reply, URL_ } from '../clients/api.js';
import { complaints, frames, IMPORTS, newPage, open, until } from './chromium.js';

/** Open the listing in a tab, and wait until the tab is subscribed. */
async function tab(conversation) {
    const page = await newPage();
    const sent = await frames(page);
    await open(page, URL_, `<!doctype html>
        ${IMPORTS}
        <script>
            const conversationId = ${JSON.stringify(conversation.id)};
            const chunks = [];
            const completed = [];
            const appendToMessage = (chunk) => chunks.push(chunk);
            const onMessageComplete = (message) => completed.push(message);
        </script>
        <script type="module">
            import axios from 'axios';
            import Echo from 'laravel-echo';
            import { broadcaster } from 'laravel-echo-api-gateway';
            window.axios = axios;
            window.Echo = new Echo({ broadcaster, host: 'ws://' + location.host + '/ws' });
        </script>
        <script defer src="/page/listings/echo.js"></script>`);
    await sent('"subscription_succeeded"');
    return page;
}

test('two tabs see a reply while it is written, and its end', async () => {
    const conversation = await newConversation();
    const tabs = await Promise.all([tab(conversation), tab(conversation)]);
    const message = await reply(conversation);
    for (const page of tabs) {
        await until(page, () => completed.length > 0);
        const { chunks, completed } = await page.evaluate(() => ({ chunks, completed }));
        assert.equal(chunks.join(''), message.content);
        assert.ok(chunks.length > 3, 'it came as it was written, not at the end');
        assert.deepEqual(completed, [message]);
        assert.deepEqual(complaints(page), []);
    }
});
