// What the tests of the AI SDK share: a chat as a page has one, without a page.

import { api } from './api.js';

/** What a page keeps of its chat. */
export class State {
    status = 'ready';
    error = undefined;
    messages = [];
    pushMessage = (message) => { this.messages = [...this.messages, message]; };
    popMessage = () => { this.messages = this.messages.slice(0, -1); };
    replaceMessage = (index, message) => {
        this.messages = [...this.messages.slice(0, index), structuredClone(message), ...this.messages.slice(index + 1)];
    };
    snapshot = (thing) => structuredClone(thing);
}

export const textOf = (message) => message.parts.filter(({ type }) => type === 'text').map(({ text }) => text).join('');
export const texts = (chat) => chat.messages.map(textOf);
export const stored = async (id) => (await api('GET', `/api/chat/${id}/messages`)).messages;

/** Resolve once something holds, looking whenever the event loop is free. */
export async function until(condition) {
    for (const end = Date.now() + 20_000; Date.now() < end;) {
        const found = await condition();
        if (found) {
            return found;
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`Waited in vain for ${condition}`);
}

export const writing = (chat) => until(() => chat.lastMessage?.role === 'assistant' && textOf(chat.lastMessage).length > 10);
