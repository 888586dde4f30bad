// What the tests share: the unmodified packages, a page that listens, and requests to the stack.

import { createRequire } from 'node:module';
import { URL_ } from './api.js';

export { URL_, api, newConversation, reply } from './api.js';
export { Inbox } from './inbox.js';

const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);

export const axios = require('axios');
const { broadcaster } = require('laravel-echo-api-gateway');
// Its file for `require` is no CommonJS for Node, because its package says "type": "module".
const { default: Echo } = await import(`${process.env.TAILRACE_CLIENTS}/node_modules/laravel-echo/dist/echo.js`);

// As on a page that loads axios with a script tag: Echo adds its X-Socket-Id to the global one.
globalThis.axios = axios;

const open = [];

/** Return an Echo that is connected as a page's is, by the package's driver. */
export function connect(options = {}) {
    const echo = new Echo({
        broadcaster,
        host: `${URL_.replace('http', 'ws')}/ws`,
        authEndpoint: `${URL_}/broadcasting/auth`,
        ...options,
    });
    open.push(echo);
    return echo;
}

/** Disconnect every Echo that was made, as at the end of a test. */
export function disconnectAll() {
    for (const echo of open.splice(0)) {
        echo.disconnect();
    }
    axios.interceptors.request.clear(); // each Echo has left one there
}

/** Resolve when a channel is subscribed. */
export function subscribed(channel) {
    return new Promise((resolve) => channel.on('subscription_succeeded', resolve));
}

/** Return the socket id once the gateway has told it; another one than `before`. */
export async function socketId(echo, before = undefined) {
    while (!echo.socketId() || echo.socketId() === before) {
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return echo.socketId();
}
