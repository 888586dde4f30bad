// A server on a real socket that has one reply, and does to its answers what networks, proxies and servers in trouble do.
// That the stack's own answers are like these is what the tests beside this one are for, which run on the stack.

import { createServer } from 'node:http';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Inbox } from './inbox.js';

export const ID = 'm1';
export const CONVERSATION = 'c1';

/** Return the log of a reply that says each text, and ends. */
export function completed(texts, { before = [] } = {}) {
    const said = texts.map((chunk) => ({ chunk }));
    return ended([...before, ...said], { content: texts.join('') });
}

/** Return events with their ids; the end, if there is to be one, with the message. */
export function ended(events, { status = 'completed', content, error = null, metadata = {} } = {}) {
    const log = events.map((data, i) => ({ data: { ...data, message_id: ID }, id: `${ID}:${i + 1}` }));
    const seq = log.length + 1;
    const message = { ...MESSAGE, content, status, seq, error, metadata };
    if (status === 'completed') {
        log.push({ data: { done: true, message }, id: `${ID}:${seq}`, message });
    } else {
        const data = { error: true, message: error.message, error_type: error.type, message_id: ID };
        const mark = ['cancelled', 'interrupted'].includes(status) ? '.0' : '';
        log.push({ data, id: `${ID}:${seq}${mark}`, message });
    }
    return log;
}

const MESSAGE = { id: ID, conversation_id: CONVERSATION, role: 'assistant', provider: 'scripted', model: 'story' };

export class FakeStack {
    requests = []; // {kind, method, path, query, headers, body}
    arrived = new Inbox(); // the same, to be waited for
    frames = new Inbox(); // what came over WebSockets
    starts = new Map(); // key to body
    sockets = new Set();
    webSockets = new Set();
    #plans = { start: [], stream: [], events: [], message: [], cancel: [], conversation: [], auth: [], ws: [] };
    #written = Infinity;
    #waiting = new Set();

    static async listen(t, log = []) {
        const made = new FakeStack();
        made.log = log;
        made.server = createServer((request) => made.#serve(request));
        made.server.on('connection', (socket) => {
            made.sockets.add(socket);
            socket.on('close', () => made.sockets.delete(socket));
            socket.on('error', () => {});
        });
        made.server.on('upgrade', (request, socket) => made.#upgrade(request, socket));
        await new Promise((resolve) => made.server.listen(0, '127.0.0.1', resolve));
        made.url = `http://127.0.0.1:${made.server.address().port}`;
        made.socketUrl = `${made.url.replace('http', 'ws')}/ws`;
        t?.after(() => made.close());
        return made;
    }

    close() {
        this.sockets.forEach((socket) => socket.destroy());
        return new Promise((resolve) => this.server.close(resolve));
    }

    /** Say what becomes of the next answers of a kind: {cut, by}, {status, ...}, {hang}, {hold}, {lost}. */
    plan(kind, ...plans) {
        this.#plans[kind].push(...plans);
        return this;
    }

    /** From now on only so many events of the log are written; call it again for more. */
    write(count) {
        this.#written = count;
        [...this.#waiting].forEach((look) => look());
    }

    /** What is open now hears no more of it, and is not closed. */
    mute() {
        this.#waiting.clear();
    }

    get written() {
        return this.log.slice(0, this.#written);
    }

    get message() {
        const last = this.written.at(-1);
        if (last?.message) {
            return last.message;
        }
        const content = this.written.reduce((text, { data }) => (data.reset ? '' : text + (data.chunk ?? data.sentence ?? '')), '');
        return { ...MESSAGE, content, status: 'streaming', seq: this.written.length, metadata: {}, error: null };
    }

    asked(kind) {
        return this.requests.filter((request) => request.kind === kind);
    }

    async #serve(request) {
        const url = new URL(request.url, this.url);
        let body = '';
        for await (const part of request) {
            body += part;
        }
        const kind = kindOf(request.method, url.pathname);
        const asked = { kind, method: request.method, path: url.pathname, query: url.searchParams, headers: request.headers, body };
        this.requests.push(asked);
        this.arrived.put(asked);
        if (asked.path.startsWith('/static/')) {
            const file = await readFile(new URL(`../../web/${asked.path.slice('/static/'.length)}`, import.meta.url), 'utf8');
            this.#answer(request.socket, 200, file, { 'Content-Type': 'text/javascript; charset=utf-8' });
            return;
        }
        if (this.#plans[kind] === undefined) {
            this.#answer(request.socket, 404, { error: { type: 'not_found', message: 'No such thing.' } });
            return;
        }
        const plan = this.#plans[kind].shift() ?? {};
        if (kind === 'start' && (plan.status === undefined || plan.lost)) {
            this.starts.set(request.headers['idempotency-key'], body);
        }
        if (plan.lost) {
            request.socket.resetAndDestroy();
        } else if (plan.hang) {
            return;
        } else if (plan.status !== undefined) {
            this.#answer(request.socket, plan.status, plan.body ?? {}, plan.headers);
        } else {
            this.#handlers[kind](request.socket, asked, plan);
        }
    }

    #answer(socket, status, body, headers = {}) {
        const text = typeof body === 'string' ? body : JSON.stringify(body);
        const all = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text), Connection: 'close', ...headers };
        const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`).join('');
        socket.end(status === 204 ? 'HTTP/1.1 204 No\r\nConnection: close\r\n\r\n' : `HTTP/1.1 ${status} Any\r\n${head}\r\n${text}`);
    }

    #handlers = {
        start: (socket, { headers }, plan) => {
            if (headers.accept === 'application/json') {
                const whole = () => this.#answer(socket, 200, { message: this.message, streamed: false }, { 'X-Message-Id': ID });
                this.#when(() => this.#isOver, whole);
            } else {
                this.#stream(socket, '', plan);
            }
        },
        stream: (socket, { query }, plan) => {
            const after = query.get('after') ?? '';
            if (this.#isOver && after === this.log.at(-1).id) {
                this.#answer(socket, 204, '');
            } else {
                this.#stream(socket, after, plan);
            }
        },
        events: (socket, { query }) => {
            const after = query.get('after');
            const found = () => this.#after(after).map(({ data, id }) => ({ ...data, id }));
            if (this.#isOver && after === this.log.at(-1).id) {
                this.#answer(socket, 200, []);
            } else {
                this.#when(() => found().length > 0, () => this.#answer(socket, 200, found()));
            }
        },
        message: (socket) => this.#answer(socket, 200, this.message),
        conversation: (socket) => this.#answer(socket, 200, { id: CONVERSATION }),
        cancel: (socket) => {
            const { content } = this.message;
            const error = { type: 'cancelled', message: 'The reply was cancelled.' };
            this.log = ended(this.written.map(({ data }) => data), { status: 'cancelled', content, error });
            this.write(Infinity);
            this.#answer(socket, 200, this.message);
        },
        auth: (socket, { body }) => {
            const { channel_name: channel, socket_id: id } = JSON.parse(body);
            const member = { channel_data: JSON.stringify({ user_id: id, user_info: {} }) };
            this.#answer(socket, 200, { auth: `signed-${id}`, ...(channel.startsWith('presence-') ? member : {}) });
        },
    };

    get #isOver() {
        return Boolean(this.written.at(-1)?.message);
    }

    #after(cursor) {
        const has = placeOf(cursor ?? '');
        return this.written.filter(({ id, message }) => message ? cursor !== id : isBeyond(placeOf(id), has));
    }

    /** The blocks of what comes after a cursor, those that are there and those that come. */
    #stream(socket, after, { cut, by = 'end', hold, chunked = false, comments = false, silent = false }) {
        const coded = chunked ? 'Transfer-Encoding: chunked\r\n' : '';
        const head = `HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Message-Id: ${ID}\r\n${coded}Connection: close\r\n\r\n`;
        let passed = 0;
        let sent = 0;
        const put = (bytes) => {
            const end = cut === undefined ? bytes.length : Math.max(0, Math.min(bytes.length, cut - passed));
            passed += bytes.length;
            socket.write(bytes.subarray(0, end));
            if (cut !== undefined && passed >= cut) {
                // A reset loses what was not read yet, as it does in a network.
                (by === 'end' ? socket.end() : socket.resetAndDestroy());
            }
        };
        const putHead = () => put(Buffer.from(head));
        const putBody = (text) => {
            const bytes = Buffer.from(text);
            put(chunked ? Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]) : bytes);
        };
        if (hold !== 'head') {
            putHead();
        }
        if (comments) {
            putBody(':\n');
        }
        const look = () => {
            const found = this.#after(after).slice(sent);
            const isOver = this.#isOver;
            if (silent || (hold && !isOver) || socket.destroyed) {
                return;
            }
            if (hold === 'head') {
                putHead();
            }
            sent += found.length;
            if (found.length) {
                putBody(found.map(({ data, id }) => `data: ${JSON.stringify(data)}\nid: ${id}\n\n`).join(''));
            }
            if (isOver && !socket.writableEnded && !socket.destroyed) {
                this.#waiting.delete(look);
                if (chunked) {
                    socket.write('0\r\n\r\n');
                }
                socket.end();
            }
        };
        this.#waiting.add(look);
        socket.on('close', () => this.#waiting.delete(look));
        look();
    }

    #when(condition, then) {
        const look = () => {
            if (condition()) {
                this.#waiting.delete(look);
                then();
            }
        };
        this.#waiting.add(look);
        look();
    }

    // ---- WebSockets, as far as these tests need them (RFC 6455) ----

    #upgrade(request, socket) {
        const url = new URL(request.url, this.url);
        const asked = { kind: 'ws', method: 'GET', path: url.pathname, query: url.searchParams, headers: request.headers };
        this.requests.push(asked);
        this.arrived.put(asked);
        const plan = this.#plans.ws.shift() ?? {};
        if (plan.status) {
            socket.end(`HTTP/1.1 ${plan.status} No\r\nContent-Length: 0\r\n\r\n`);
            return;
        }
        const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
        socket.write(`HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
        const peer = { id: `socket-${this.asked('ws').length}`, plan, send: (frame) => socket.write(encode(frame)), cut: () => socket.resetAndDestroy(), end: () => socket.end() };
        this.webSockets.add(peer);
        socket.on('close', () => this.webSockets.delete(peer));
        let held = Buffer.alloc(0);
        socket.on('data', (data) => {
            held = Buffer.concat([held, data]);
            for (let frame; (frame = decode(held)) !== null;) {
                held = held.subarray(frame.length);
                if (frame.opcode === 8) {
                    socket.end(Buffer.from([0x88, 0]));
                } else if (frame.opcode === 1) {
                    const said = JSON.parse(frame.text);
                    this.#hear(peer, said);
                    this.frames.put({ peer, ...said });
                }
            }
        });
    }

    /** Replace it for a server that answers otherwise. */
    subscribed = (peer, { channel, after = {} }) => {
        peer.send({ event: 'subscription_succeeded', channel, data: [] });
        if (ID in after) {
            chunkFrames(channel, this.#after(`${ID}:${after[ID]}`), placeOf(`:${after[ID]}`).seq).forEach(peer.send);
        }
    };

    #hear(peer, { event, data }) {
        if (peer.plan.mute) {
            return;
        }
        if (event === 'whoami') {
            peer.send({ event: 'whoami', data: { socket_id: peer.id } });
        } else if (event === 'ping') {
            peer.send({ event: 'pong', channel: null });
        } else if (event === 'subscribe') {
            this.subscribed(peer, data);
        } else if (event === 'unsubscribe') {
            peer.send({ event: 'unsubscription_succeeded', channel: data.channel, data: [] });
        }
    }
}

/** The frames of events, each for one entry. */
export function chunkFrames(channel, events, after = 0) {
    let before = after;
    return events.map(({ data, id, message }) => {
        if (message) {
            const name = message.status === 'completed' ? 'MessageCompleted' : 'MessageFailed';
            const failure = message.error ? { error: message.error.message, error_type: message.error.type } : {};
            return { event: `App\\Events\\${name}`, channel, data: { message_id: ID, ...failure, message } };
        }
        const { seq } = placeOf(id);
        const { chunk = '', reset, sentence, sentence_count, message_id, ...part } = data;
        const more = reset ? { reset } : Object.keys(part).length ? { part } : {};
        const frame = { message_id: ID, chunk: sentence ?? chunk, seq, first_seq: before + 1, chunk_count: 1, ...more };
        before = seq;
        return { event: 'App\\Events\\MessageChunkReceived', channel, data: frame };
    });
}

function placeOf(id) {
    const [seq, taken = '0'] = id.slice(id.lastIndexOf(':') + 1).split('.');
    return { seq: Number(seq) || 0, taken: Number(taken) };
}

function isBeyond(place, has) {
    return place.seq > has.seq || (place.seq === has.seq && has.taken > 0 && (place.taken === 0 || place.taken > has.taken));
}

function kindOf(method, path) {
    const found = [
        [/^\/conversations\/c1\/stream$/, 'start'],
        [/^\/conversations\/c1$/, 'conversation'],
        [/^\/messages\/m1\/stream$/, 'stream'],
        [/^\/messages\/m1\/events$/, 'events'],
        [/^\/messages\/m1\/cancel$/, 'cancel'],
        [/^\/messages\/m1$/, 'message'],
        [/^\/broadcasting\/auth$/, 'auth'],
    ].find(([pattern]) => pattern.test(path));
    return found?.[1] ?? `${method} ${path}`;
}

function encode(frame) {
    const text = Buffer.from(JSON.stringify(frame));
    const head = text.length < 126 ? Buffer.from([0x81, text.length]) : Buffer.from([0x81, 127, 0, 0, 0, 0, 0, 0, 0, 0]);
    if (text.length >= 126) {
        head.writeBigUInt64BE(BigInt(text.length), 2);
    }
    return Buffer.concat([head, text]);
}

/** One frame of a client, which is always masked; null while it is not all there. */
function decode(data) {
    if (data.length < 6) {
        return null;
    }
    const short = data[1] & 0x7f;
    const start = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (data.length < start) {
        return null;
    }
    const size = short === 126 ? data.readUInt16BE(2) : short === 127 ? Number(data.readBigUInt64BE(2)) : short;
    const length = start + 4 + size;
    if (data.length < length) {
        return null;
    }
    const mask = data.subarray(start, start + 4);
    const text = data.subarray(start + 4, length).map((byte, i) => byte ^ mask[i % 4]);
    return { opcode: data[0] & 0xf, text: Buffer.from(text).toString(), length };
}
