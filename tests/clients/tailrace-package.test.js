// web/ as a package: typed, with declarations that are current, packed whole, and imported by its name.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { URL_ } from './api.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const WEB = `${ROOT}web`;
const TSC = `${process.env.TAILRACE_CLIENTS}/node_modules/typescript/bin/tsc`;
const folder = mkdtempSync(`${process.env.TAILRACE_CLIENTS}/package-`);

after(() => rmSync(folder, { recursive: true }));

const files = (place) => readdirSync(place, { recursive: true }).filter((name) => /\.\w+$/.test(name)).sort();

/** Run the compiler; return what it complains of. */
function compile(...given) {
    const { status, stdout, error } = spawnSync(process.execPath, [TSC, ...given], { encoding: 'utf8' });
    if (error) {
        throw error;
    }
    return status === 0 ? '' : stdout;
}

describe('types', () => {
    test('the source is right under `strict`, and the declarations are what the compiler makes of it now', () => {
        const made = `${folder}/types`;
        assert.equal(compile('--project', WEB, '--outDir', made), '');
        assert.deepEqual(files(`${WEB}/types`), files(made), 'run `make types`');
        for (const name of files(made)) {
            const text = (place) => readFileSync(`${place}/${name}`, 'utf8');
            assert.equal(text(`${WEB}/types`), text(made), `${name}: run \`make types\``);
        }
    });

    test('a fault in the source is seen', () => {
        mkdirSync(`${folder}/faulty`);
        writeFileSync(`${folder}/faulty/a.js`, '/** @param {number} n */\nconst twice = (n) => n * 2;\ntwice("a");\n');
        assert.match(compile('--noEmit', '--checkJs', '--strict', `${folder}/faulty/a.js`), /a\.js\(3,7\): error TS2345/);
    });
});

describe('the package', () => {
    let packed;
    before(() => {
        const [made] = JSON.parse(execFileSync('npm', ['pack', '--json', '--pack-destination', folder], { cwd: WEB, encoding: 'utf8' }));
        packed = made.files.map(({ path }) => path).sort();
        mkdirSync(`${folder}/node_modules/tailrace`, { recursive: true });
        execFileSync('tar', ['-xzf', `${folder}/${made.filename}`, '-C', `${folder}/node_modules/tailrace`, '--strip-components=1']);
    });

    test('has the client, its types and its licence, and nothing of the page', () => {
        const own = files(`${WEB}/tailrace`).map((name) => `tailrace/${name}`);
        const types = files(`${WEB}/types`).map((name) => `types/${name}`);
        assert.deepEqual(packed, ['LICENSE', 'README.md', 'echo.js', 'package.json', 'tailrace.js', ...own, ...types].sort());
        assert.equal(readFileSync(`${WEB}/LICENSE`, 'utf8'), readFileSync(`${ROOT}LICENSE`, 'utf8'));
        const version = /^version = "(.*)"$/m.exec(readFileSync(`${ROOT}pyproject.toml`, 'utf8'))[1];
        assert.equal(JSON.parse(readFileSync(`${WEB}/package.json`, 'utf8')).version, version);
    });

    test('has no dependencies, and imports only what is in it', () => {
        const { dependencies, peerDependencies } = JSON.parse(readFileSync(`${WEB}/package.json`, 'utf8'));
        assert.deepEqual([dependencies, peerDependencies], [undefined, undefined]);
        for (const name of packed.filter((each) => each.endsWith('.js'))) {
            const text = readFileSync(`${folder}/node_modules/tailrace/${name}`, 'utf8');
            for (const [, from] of text.matchAll(/^(?:import|export) .* from "(.*)";$/gm)) {
                assert.match(from, /^\.\/[\w/-]+\.js$/, name);
            }
        }
    });

    test('is imported by its name, and starts a reply', () => {
        writeFileSync(`${folder}/use.mjs`, `
            import { Tailrace, TailraceError } from 'tailrace';
            import { TailraceBroadcaster } from 'tailrace/echo';
            const client = new Tailrace({ url: process.argv[2] });
            const { id } = await client.conversations.create();
            const message = await client.start(id, { input: 'said back', model: 'echo' }).finished;
            console.log(message.content, typeof TailraceBroadcaster, new TailraceError('x').name);
        `);
        const said = execFileSync(process.execPath, [`${folder}/use.mjs`, URL_], { encoding: 'utf8' });
        assert.equal(said, 'said back function TailraceError\n');
    });

    test('runs the documentation\'s block for Node', () => {
        const page = readFileSync(`${ROOT}docs/clients/browser.md`, 'utf8');
        const [[, block], ...others] = page.matchAll(/^```js node\n([^]*?)^```$/gm);
        assert.equal(others.length, 0);
        writeFileSync(`${folder}/block.mjs`, block.replace('http://127.0.0.1:8787', URL_));
        assert.equal(execFileSync(process.execPath, [`${folder}/block.mjs`], { encoding: 'utf8' }), 'Hello');
    });

    for (const resolution of ['bundler', 'nodenext']) {
        test(`is typed for who uses it (${resolution})`, () => {
            writeFileSync(`${folder}/package.json`, '{ "type": "module" }');
            writeFileSync(`${folder}/use.ts`, USE);
            const module = resolution === 'bundler' ? 'esnext' : 'nodenext';
            const options = ['--strict', '--noEmit', '--target', 'es2022', '--lib', 'es2022,dom,dom.iterable,dom.asynciterable'];
            assert.equal(compile(...options, '--module', module, '--moduleResolution', resolution, `${folder}/use.ts`), '');
        });
    }
});

const USE = `
import { Tailrace, TailraceError, type Message, type ReplyEvent, type Saved } from "tailrace";
import { TailraceBroadcaster } from "tailrace/echo";

const client = new Tailrace({ url: "", socketUrl: "wss://example.org/live", token: async () => "t", headers: { a: "b" } });
const { conversations, next_cursor } = await client.conversations.list({ limit: 10, cursor: null });
const first: string | null | undefined = conversations[0]?.title;
const reply = client.start("c", { input: "x", delivery: { by: "sentence", parts: true } }, { transport: "websocket" });
const { messageId } = await reply.started;
for await (const event of reply) {
  if (event.type === "text") event.text.toUpperCase();
  else if (event.type === "tool-result") event.tool.result?.length;
  else if (event.type === "error") event.error.retryAfter?.toFixed();
  // @ts-expect-error: only text has text
  else if (event.type === "done") event.text;
}
reply.addEventListener("connection", ({ detail }) => detail.retryIn?.toFixed());
reply.addEventListener("raw", ({ detail }) => detail.data.chunk);
// @ts-expect-error: there is no such event
reply.addEventListener("none", () => {});
// @ts-expect-error: there is no such transport
client.follow(messageId, { transport: "carrier pigeon" });
// @ts-expect-error: by is one of two
client.start("c", { delivery: { by: "word" } });
const saved: Saved = JSON.parse(JSON.stringify(reply));
const message: Message = await client.follow(saved).finished;
const error: TailraceError | null = reply.error;
client.channel("presence-a").here((members) => members[0]?.user_id).joining((member) => member.user_info);
new TailraceBroadcaster({ host: "wss://example.org/live", bearerToken: () => null }).connectionStatus() === "connected";
export type Draw = (event: ReplyEvent, next: typeof next_cursor, title: typeof first, end: typeof message, why: typeof error) => void;
`;
