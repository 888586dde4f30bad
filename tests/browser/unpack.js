// Unpacks what the package @sparticuz/chromium has packed, beside this file: Chromium, the libraries that it needs and a
// machine may lack (its libnss3), a font. The package does the same when it is first used, but into /tmp for everybody.

import { mkdir, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { inflate } from '@sparticuz/chromium';

const there = fileURLToPath(new URL('unpacked', import.meta.url));
await rm(there, { recursive: true, force: true });
await mkdir(there);
process.env.TMPDIR = there; // where inflate() puts things
for (const name of ['chromium.br', 'al2023.tar.br', 'fonts.tar.br']) {
    await inflate(fileURLToPath(new URL(`../bin/${name}`, import.meta.resolve('@sparticuz/chromium'))));
}
