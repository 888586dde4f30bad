// The JavaScript of a page of the documentation, block by block, as modules beside the packages.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { URL_ } from './api.js';

const ROOT = new URL('../../', import.meta.url);

/** Return what each block exports, with the stack that the tests run on in the place of `make run`'s. */
export async function modules(page) {
    const text = await readFile(new URL(page, ROOT), 'utf8');
    const folder = await mkdtemp(`${process.env.TAILRACE_CLIENTS}/docs-`); // where packages are found by their names
    try {
        const found = [];
        for (const [, source] of text.matchAll(/^```js\n(.*?)^```$/gms)) {
            const file = `${folder}/${found.length}.mjs`;
            await writeFile(file, source.replaceAll('http://127.0.0.1:8787', URL_));
            found.push(await import(pathToFileURL(file).href));
        }
        return found;
    } finally {
        await rm(folder, { recursive: true });
    }
}
