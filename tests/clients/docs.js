// The documentation's JavaScript that is for Node, run as it stands.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { URL_ } from './api.js';

const ROOT = new URL('../../', import.meta.url);
const require = createRequire(`${process.env.TAILRACE_CLIENTS}/package.json`);
const AsyncFunction = (async () => {}).constructor;

/** Return what each block exports, with the stack that the tests run on in the place of `make run`'s. */
export async function modules(page) {
    const text = await readFile(new URL(page, ROOT), 'utf8');
    const folder = await mkdtemp(`${process.env.TAILRACE_CLIENTS}/docs-`); // where packages are found by their names
    try {
        const found = [];
        for (const [, source] of text.matchAll(/^```js node\n(.*?)^```$/gms)) {
            const file = `${folder}/${found.length}.mjs`;
            await writeFile(file, source.replaceAll('//127.0.0.1:8787', URL_.replace('http:', '')));
            found.push(await import(pathToFileURL(file).href));
        }
        return found;
    } finally {
        await rm(folder, { recursive: true });
    }
}

/** Run the block of a page that imports a package; return what it gave to the function `show`, joined. */
export async function runBlock(page, name, given) {
    const text = readFileSync(new URL(`../../${page}`, import.meta.url), 'utf8');
    const imports = new RegExp(`^import (\\{.*\\}) from '${name}';$`, 'm');
    const blocks = [...text.matchAll(/^```js node\n([^]*?)^```$/gm)].map(([, block]) => block);
    const found = blocks.filter((block) => imports.test(block));
    assert.equal(found.length, 1, `${page} has no block for ${name}, or several`);
    const source = found[0]
        .replace(imports, `const $1 = await import('${pathToFileURL(require.resolve(name))}');`)
        .replaceAll('http://127.0.0.1:8787', URL_);
    let shown = '';
    const names = { ...given, show: (chunk) => { shown += chunk; } };
    await new AsyncFunction(...Object.keys(names), source)(...Object.values(names));
    return shown;
}
