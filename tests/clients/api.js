// Requests to the stack that the tests are run on.

export const URL_ = process.env.TAILRACE_URL;

/** Make a JSON request without any X-Socket-Id. */
export async function api(method, path, body) {
    const response = await fetch(URL_ + path, {
        method,
        headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
        body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok && response.status !== 502) { // which is a reply that its provider broke off
        throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    }
    return response.json();
}

export const newConversation = () => api('POST', '/conversations', { title: 'Echo' });

/** Have a reply written that takes a second, and return its message. */
export async function reply(conversation, script = { chunks: 40, every: 0.025 }, more = {}) {
    const body = { input: 'A story about a river 水', options: { script }, ...more };
    return (await api('POST', `/conversations/${conversation.id}/stream`, body)).message;
}
